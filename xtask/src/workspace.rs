//! Where things are: the top of the checkout and the target directory.

use std::path::Path;
use std::process::Command;
use std::sync::OnceLock;

use anyhow::{Context as _, Result, bail};
use cargo_metadata::{Metadata, MetadataCommand};

use crate::exec;

/// Name of the variable that tells `mwb-agent`'s build script which toolchain
/// builds the kernel side.
pub const TOOLCHAIN_VARIABLE: &str = "MWB_EBPF_TOOLCHAIN";
/// The toolchain it takes without being told.
pub const DEFAULT_TOOLCHAIN: &str = "mwb-ebpf";

static METADATA: OnceLock<Metadata> = OnceLock::new();

fn metadata() -> Result<&'static Metadata> {
    if let Some(known) = METADATA.get() {
        return Ok(known);
    }
    // Cargo puts this into the environment of what it runs; the compiled-in
    // value serves an xtask that is started by hand.
    let here = std::env::var("CARGO_MANIFEST_DIR")
        .unwrap_or_else(|_| env!("CARGO_MANIFEST_DIR").to_owned());
    let read = MetadataCommand::new()
        .current_dir(here)
        .no_deps()
        .exec()
        .context("cargo does not tell where the workspace is")?;
    Ok(METADATA.get_or_init(|| read))
}

/// The top of the checkout.
///
/// # Errors
/// When cargo cannot be asked.
pub fn root() -> Result<&'static Path> {
    Ok(metadata()?.workspace_root.as_std_path())
}

/// Cargo's target directory, wherever the user put it.
///
/// # Errors
/// When cargo cannot be asked.
pub fn target_directory() -> Result<&'static Path> {
    Ok(metadata()?.target_directory.as_std_path())
}

/// A cargo command at the top of the checkout that builds the kernel side with
/// `toolchain`.
///
/// The variable is left out for the default name, so that a plain `cargo build`
/// and one from here do not undo each other's work.
///
/// # Errors
/// When cargo cannot be asked where the workspace is.
pub fn cargo(toolchain: &str) -> Result<Command> {
    let mut command = Command::new("cargo");
    command.current_dir(root()?);
    // What cargo told this process about xtask itself is not about its child:
    // crates whose build scripts watch such variables would be built anew.
    for (name, _) in std::env::vars_os() {
        let text = name.to_string_lossy();
        if text.starts_with("CARGO_PKG_") || text.starts_with("CARGO_MANIFEST_") {
            command.env_remove(&name);
        }
    }
    // The compiler looks for bpf-linker on the search path.
    command.env("PATH", std::env::join_paths(exec::search_path())?);
    if toolchain == DEFAULT_TOOLCHAIN {
        command.env_remove(TOOLCHAIN_VARIABLE);
    } else {
        command.env(TOOLCHAIN_VARIABLE, toolchain);
    }
    Ok(command)
}

/// Fails with a sentence about what needs root.
///
/// # Errors
/// When this process is not root.
pub fn require_root(what: &str) -> Result<()> {
    if nix::unistd::geteuid().is_root() {
        return Ok(());
    }
    bail!("{what} needs root: run it again as root or with sudo -E")
}
