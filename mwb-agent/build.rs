//! Builds the kernel side and puts its objects into `OUT_DIR`.

use std::path::PathBuf;
use std::{env, fs};

use anyhow::{Context as _, Result};
use aya_build::{Package, Toolchain};

/// Set by `cargo xtask setup`'s result or by hand: a rustup toolchain that has
/// the source of `core` and a compiler whose LLVM bpf-linker knows.
const TOOLCHAIN_VARIABLE: &str = "MWB_EBPF_TOOLCHAIN";
/// What `cargo xtask setup` links Debian's compiler as.
const DEFAULT_TOOLCHAIN: &str = "mwb-ebpf";

/// Set by `cargo clippy`, whose build scripts have an `OUT_DIR` of their own because of the
/// second: it runs nothing, and wants the objects to be there, whatever is in them.
const CLIPPY: [&str; 2] = ["CLIPPY_ARGS", "RUSTC_WORKSPACE_WRAPPER"];
const OBJECTS: [&str; 2] = ["mwb", "lab"];

/// Set for the eBPF build alone.
const EBPF_ENVIRONMENT: &[(&str, &str)] = &[
    // `-Z build-std` and the profile flags below on a stable compiler.
    ("RUSTC_BOOTSTRAP", "1"),
    // Instruction set v3: 32-bit arithmetic and jumps (kernel 5.1), without which
    // LLVM spells each comparison out. bpf-linker has LLVM copy in order unless it is told
    // not to, and then nothing is zeroed in place but by a call, byte by byte. aya-build
    // has no way to pass flags, and the flags must not reach the host's own build scripts
    // and macros.
    ("CARGO_UNSTABLE_PROFILE_RUSTFLAGS", "true"),
    (
        "CARGO_PROFILE_RELEASE_RUSTFLAGS",
        "-Ctarget-cpu=v3 -Clink-arg=--disable-expand-memcpy-in-order",
    ),
    ("CARGO_PROFILE_RELEASE_BUILD_OVERRIDE_RUSTFLAGS", "-Cdebuginfo=0"),
];

fn main() -> Result<()> {
    println!("cargo::rerun-if-env-changed={TOOLCHAIN_VARIABLE}");
    println!("cargo::rerun-if-changed=../mwb-common/src");
    for name in CLIPPY {
        println!("cargo::rerun-if-env-changed={name}");
    }
    if CLIPPY.iter().all(|name| env::var_os(name).is_some()) {
        let directory = PathBuf::from(env::var("OUT_DIR")?);
        return OBJECTS.iter().try_for_each(|name| Ok(fs::write(directory.join(name), "")?));
    }
    let toolchain = env::var(TOOLCHAIN_VARIABLE).unwrap_or_else(|_| DEFAULT_TOOLCHAIN.to_owned());

    for (name, value) in EBPF_ENVIRONMENT {
        // SAFETY: a build script's main thread, before any other thread starts.
        unsafe { env::set_var(name, value) };
    }
    let features: &[&str] = if cfg!(feature = "trace") { &["trace"] } else { &[] };
    aya_build::build_ebpf(
        [Package { name: "mwb-ebpf", root_dir: "../mwb-ebpf", features, ..Package::default() }],
        Toolchain::Custom(&toolchain),
    )
    .with_context(|| {
        format!(
            "the kernel side did not build with toolchain `{toolchain}`; \
             `cargo xtask setup` installs what is missing"
        )
    })
}
