//! What is checked without running the product: format, lints, dependencies, the
//! service.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};

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
    Check { name: "check/service", run: service },
    Check { name: "check/service-exposure", run: service_exposure },
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
            format!("--cfg=bpf_target_arch=\"{}\"\x1f-Ctarget-cpu=v3", std::env::consts::ARCH),
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

/// The unit, as it is installed.
const SERVICE: &str = "deploy/systemd/mwb-agent.service";
/// What it has on a server beside that.
const SERVER_PART: &str = "deploy/systemd/mwb-agent.service.d/server.conf";
/// The most exposure that it may have, in tenths, as `systemd-analyze security`
/// counts: what it lacks to 0 are the rights and address families that it needs.
const EXPOSURE: u32 = 35;

/// systemd knows every setting of the unit, and every value.
fn service(_: &Record) -> Result<Option<String>> {
    let Some(analyze) = systemd_analyze() else { return Ok(Some(NO_SYSTEMD.to_owned())) };
    // The programs need not be installed here.
    let unit = fs::read_to_string(workspace::root()?.join(SERVICE))?.replace("/usr/bin/", "");
    let unit = unit.replace("=mwb-agent ", "=/bin/true ").replace("=mwb ", "=/bin/true ");
    ensure!(unit.matches("=/bin/true ").count() == 3, "{SERVICE} starts something else");
    let directory = workspace::target_directory()?.join("xtask/service");
    fs::create_dir_all(&directory)?;
    let file = directory.join("mwb-agent.service");
    fs::write(&file, unit)?;
    let parts = directory.join("mwb-agent.service.d");
    fs::create_dir_all(&parts)?;
    fs::copy(workspace::root()?.join(SERVER_PART), parts.join("server.conf"))?;
    let output = Command::new(analyze).args(["verify", "--man=no"]).arg(&file).output()?;
    // What it ignores it says and goes on; of other units it may say anything.
    let said = String::from_utf8_lossy(&output.stderr);
    let of_ours: Vec<&str> =
        said.lines().filter(|line| line.contains("mwb-agent.service")).collect();
    ensure!(of_ours.is_empty(), "{SERVICE}:\n{}", of_ours.join("\n"));
    Ok(None)
}

/// And leaves the agent no more than it needs.
fn service_exposure(_: &Record) -> Result<Option<String>> {
    let Some(analyze) = systemd_analyze() else { return Ok(Some(NO_SYSTEMD.to_owned())) };
    let help = exec::ask(&analyze, &["--help"]).unwrap_or_default();
    if !help.contains("--offline") || !help.contains("--threshold") {
        return Ok(Some("this systemd does not judge unit files (250 and later do)".to_owned()));
    }
    let mut command = Command::new(analyze);
    command.args(["security", "--no-pager", "--offline=true"]);
    command.arg(format!("--threshold={EXPOSURE}")).arg(workspace::root()?.join(SERVICE));
    exec::run_step("systemd-analyze security", &mut command, LIMIT)?;
    Ok(None)
}

const NO_SYSTEMD: &str = "there is no systemd-analyze (Debian: apt-get install systemd)";

fn systemd_analyze() -> Option<PathBuf> {
    exec::find("systemd-analyze")
}
