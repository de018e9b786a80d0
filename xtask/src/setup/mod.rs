//! `cargo xtask setup`: detect, say, install what is missing, never twice.

pub mod machine;
pub mod plan;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use serde::{Deserialize, Serialize};

use crate::exec;
use crate::workspace::{self, DEFAULT_TOOLCHAIN};
use machine::{Linker, Machine};
use plan::{Choice, Next, Step};

/// There where systemd runs the machine.
const SYSTEMD: &str = "/run/systemd/system";
/// Packages that make a server of the machine, which has the package's name.
const SERVICES: [&str; 2] = ["coturn", "nginx"];

/// Arguments of `cargo xtask setup`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Only report what is there and what is missing.
    #[arg(long)]
    no_install: bool,
}

/// What setup found, as it stands in `target/xtask/setup.json`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    /// The rustup toolchain that builds the kernel side.
    pub toolchain: String,
    /// Major version of its LLVM.
    pub llvm: u32,
    /// It can run clippy.
    pub clippy: bool,
    /// The linker.
    pub linker: Linker,
}

impl From<&Choice> for Record {
    fn from(choice: &Choice) -> Record {
        Record {
            toolchain: choice.toolchain.name.clone(),
            llvm: choice.toolchain.llvm,
            clippy: choice.toolchain.clippy,
            linker: choice.linker,
        }
    }
}

/// Runs the command.
///
/// # Errors
/// When something is missing and cannot be installed; the text says what to do.
pub fn command(args: &Args) -> Result<ExitCode> {
    if args.no_install {
        return report();
    }
    let (record, machine) = complete()?;
    print_state(&record, &machine);
    Ok(ExitCode::SUCCESS)
}

/// Installs what is missing and tells what builds the kernel side. Silent when
/// nothing is missing.
///
/// # Errors
/// When something is missing and cannot be installed.
pub fn ensure() -> Result<Record> {
    complete().map(|(record, _)| record)
}

fn report() -> Result<ExitCode> {
    let machine = machine::detect();
    match plan::next(&machine, &offers, &[]) {
        Next::Ready(choice) => {
            print_state(&Record::from(&*choice), &machine);
            return Ok(ExitCode::SUCCESS);
        }
        Next::Do(step) => println!("missing: setup would {} first", plan::describe(&step)),
        Next::Stuck(text) => println!("missing: {text}"),
    }
    for line in plan::refusals(&machine) {
        println!("note: {line}");
    }
    Ok(ExitCode::FAILURE)
}

fn print_state(record: &Record, machine: &Machine) {
    let (major, minor) = record.linker.version;
    let llvm = record.linker.llvm.map_or_else(|| "of its own".to_owned(), |n| n.to_string());
    println!("kernel side  {} (LLVM {})", record.toolchain, record.llvm);
    println!("bpf-linker   {major}.{minor} (LLVM {llvm})");
    println!("tools        all {} there", machine::TOOLS.len());
    println!("bpffs        mounted at /sys/fs/bpf");
    for line in plan::refusals(machine) {
        println!("note: {line}");
    }
    if exec::find("cargo-deny").is_none() {
        println!("note: cargo-deny is not installed; its check is skipped");
    }
    if !machine.root {
        println!("note: not root: test, run, bench and verify need it");
    }
}

fn complete() -> Result<(Record, Machine)> {
    let mut done = Vec::new();
    loop {
        let machine = machine::detect();
        match plan::next(&machine, &offers, &done) {
            Next::Ready(choice) => {
                let record = Record::from(&*choice);
                remember(&record)?;
                return Ok((record, machine));
            }
            Next::Stuck(text) => bail!("{text}"),
            Next::Do(step) => {
                if done.is_empty() {
                    eprintln!("setup: something is missing, installing it");
                    for line in plan::refusals(&machine) {
                        eprintln!("  note: {line}");
                    }
                }
                eprintln!("  {}", plan::describe(&step));
                if let Err(error) = take(&step) {
                    if !step.has_alternative() {
                        return Err(error);
                    }
                    eprintln!("  that did not work, going on without it: {error:#}");
                }
                done.push(step);
            }
        }
    }
}

/// Whether Debian has a package to install.
fn offers(package: &str) -> bool {
    exec::ask("apt-cache", &["show", "--no-all-versions", package])
        .is_some_and(|text| !text.trim().is_empty())
}

fn take(step: &Step) -> Result<()> {
    let minutes = |n: u64| Duration::from_secs(n * 60);
    match step {
        Step::MountBpffs => mount_bpffs(),
        Step::AptUpdate => exec::run_step("apt-get update", apt().arg("update"), minutes(5)),
        Step::Apt(packages) => install(packages),
        Step::Components(names) => exec::run_step(
            "rustup component add",
            Command::new("rustup")
                .args(["component", "add"])
                .args(names)
                .current_dir(workspace::root()?),
            minutes(10),
        ),
        Step::Link => exec::run_step(
            "rustup toolchain link",
            Command::new("rustup").args(["toolchain", "link", DEFAULT_TOOLCHAIN, "/usr"]),
            minutes(1),
        ),
        Step::Nightly => exec::run_step(
            "rustup toolchain install",
            Command::new("rustup")
                .args(["toolchain", "install", plan::NIGHTLY, "--profile", "minimal"])
                .args(["--component", "rust-src,clippy", "--no-self-update"]),
            minutes(10),
        ),
        Step::Linker(llvm) => exec::run_step(
            "cargo install bpf-linker",
            Command::new("cargo")
                .args(["install", "bpf-linker", "--version", plan::LINKER_VERSION, "--force"])
                .args(["--locked", "--no-default-features", "--features"])
                .arg(format!("llvm-{llvm}"))
                .env("LLVM_PREFIX", machine::llvm_prefix(*llvm)),
            minutes(30),
        )
        .context("bpf-linker was not built; it needs the crate registry and a C compiler"),
    }
}

fn install(packages: &[String]) -> Result<()> {
    let is_new = |name: &&&str| packages.iter().any(|one| one == **name) && !is_service(name);
    let new: Vec<&str> = SERVICES.iter().filter(is_new).copied().collect();
    exec::run_step(
        "apt-get install",
        apt().args(["install", "-y", "--no-install-recommends"]).args(packages),
        Duration::from_secs(30 * 60),
    )
    .with_context(|| {
        format!(
            "Debian packages {} were not installed; with a network, try \
             apt-get update && apt-get install --no-install-recommends {0}",
            packages.join(" ")
        )
    })?;
    new.into_iter().try_for_each(end)
}

/// Whether the machine has a service of that name.
fn is_service(name: &str) -> bool {
    Path::new("/etc/init.d").join(name).exists()
        || exec::ask("systemctl", &["cat", &format!("{name}.service")]).is_some()
}

/// Ends what a package has just made of the machine: the lab starts its own servers, in
/// namespaces.
fn end(service: &str) -> Result<()> {
    let script = Path::new("/etc/init.d").join(service);
    let mut command = if Path::new(SYSTEMD).exists() {
        let mut command = Command::new("systemctl");
        command.args(["disable", "--now", service]);
        command
    } else if script.exists() {
        let mut command = Command::new(script);
        command.arg("stop");
        command
    } else {
        return Ok(());
    };
    exec::run_step(&format!("end {service}"), &mut command, Duration::from_secs(60))
}

fn apt() -> Command {
    let mut command = Command::new("apt-get");
    command.env("DEBIAN_FRONTEND", "noninteractive").arg("-q");
    command
}

fn mount_bpffs() -> Result<()> {
    let place = "/sys/fs/bpf";
    nix::mount::mount(Some("bpf"), place, Some("bpf"), nix::mount::MsFlags::empty(), None::<&str>)
        .with_context(|| format!("mount -t bpf bpf {place}"))
}

fn record_file() -> Result<PathBuf> {
    Ok(workspace::target_directory()?.join("xtask/setup.json"))
}

fn remember(record: &Record) -> Result<()> {
    let file = record_file()?;
    let text = serde_json::to_string_pretty(record)? + "\n";
    if fs::read_to_string(&file).is_ok_and(|known| known == text) {
        return Ok(());
    }
    let directory = file.parent().context("a file has a directory")?;
    fs::create_dir_all(directory).with_context(|| format!("{}", directory.display()))?;
    fs::write(&file, text).with_context(|| format!("{}", file.display()))
}
