//! What is checked without running the product: format, lints, dependencies.

use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};

use crate::outcome::{Outcome, Verdict};
use crate::setup::Record;
use crate::{exec, workspace};

const LIMIT: Duration = Duration::from_secs(20 * 60);

/// A check by its name.
#[derive(Clone, Copy)]
pub(super) struct Check {
    /// As `--list` shows it.
    pub(super) name: &'static str,
    run: fn(&Record) -> Result<Option<String>>,
}

/// Every check, in the order they run.
pub(super) const ALL: &[Check] = &[
    Check { name: "check/format", run: format },
    Check { name: "check/clippy", run: clippy },
    Check { name: "check/clippy-kernel-side", run: clippy_kernel_side },
    Check { name: "check/dependencies", run: dependencies },
];

impl Check {
    /// Runs it.
    #[must_use]
    pub(super) fn outcome(&self, record: &Record) -> Outcome {
        let started = Instant::now();
        let result = match (self.run)(record) {
            Ok(None) => Verdict::Passed,
            Ok(Some(why)) => Verdict::Skipped(why),
            Err(error) => Verdict::Failed(format!("{error:#}")),
        };
        let seconds = started.elapsed().as_secs_f64();
        Outcome { name: self.name.to_owned(), result, seconds }
    }
}

fn format(record: &Record) -> Result<Option<String>> {
    let mut command = workspace::cargo(&record.toolchain)?;
    command.args(["fmt", "--all", "--", "--check", "--color", "never"]);
    exec::run_step("cargo fmt", &mut command, LIMIT)?;
    Ok(None)
}

fn clippy(record: &Record) -> Result<Option<String>> {
    let mut command = workspace::cargo(&record.toolchain)?;
    command.args(["clippy", "--all-targets", "--", "-D", "warnings"]);
    exec::run_step("cargo clippy", &mut command, LIMIT)?;
    Ok(None)
}

fn clippy_kernel_side(record: &Record) -> Result<Option<String>> {
    if !record.clippy {
        return Ok(Some(format!(
            "toolchain {} has no clippy (Debian: apt-get install rust-web-clippy)",
            record.toolchain
        )));
    }
    let target = workspace::target_directory()?.join("xtask/clippy-kernel-side");
    exec::run_step(
        "cargo clippy (kernel side)",
        &mut kernel_side_clippy(&record.toolchain, workspace::root()?, &target),
        LIMIT,
    )?;
    Ok(None)
}

/// As the agent's build script builds it, with clippy in the compiler's place.
fn kernel_side_clippy(toolchain: &str, root: &Path, target: &Path) -> Command {
    let mut command = Command::new("rustup");
    command
        .args(["run", toolchain, "cargo", "clippy", "--package", "mwb-ebpf", "--bins"])
        .args(["--release", "--target", "bpfel-unknown-none", "-Z", "build-std=core"])
        .arg("--target-dir")
        .arg(target)
        .args(["--", "-D", "warnings"])
        .current_dir(root)
        // `-Z` on a compiler that is not a nightly; for this command only.
        .env("RUSTC_BOOTSTRAP", "1")
        .env(
            "CARGO_ENCODED_RUSTFLAGS",
            format!("--cfg=bpf_target_arch=\"{}\"", std::env::consts::ARCH),
        );
    command
}

fn dependencies(record: &Record) -> Result<Option<String>> {
    if exec::find("cargo-deny").is_none() {
        return Ok(Some("cargo-deny is not installed (cargo install cargo-deny)".to_owned()));
    }
    let mut command = workspace::cargo(&record.toolchain)?;
    // Advisories need a database from the network: see deny.toml.
    command.args(["deny", "--offline", "check", "bans", "licenses", "sources"]);
    exec::run_step("cargo deny", &mut command, LIMIT).context("see deny.toml")?;
    Ok(None)
}
