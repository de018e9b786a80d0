//! `cargo xtask fuzz`: under packets that were spoilt, on the host the parser and what
//! reads the tunnel's packets, in the kernel the programs of steering in both forms and
//! those of the bond with each suite. The fuzzers are tests
//! (`mwb-common/tests/fuzz_parse.rs`, `mwb-agent/tests/fuzz_tunnel`,
//! `mwb-agent/tests/fuzz_programs`), which `cargo xtask test` runs for some seconds;
//! here they run for long, and each time with another seed.

use std::path::PathBuf;
use std::process::{Command, ExitCode, Stdio};
use std::thread;
use std::time::SystemTime;

use anyhow::{Context as _, Result, ensure};
use clap::builder::PossibleValuesParser;

use crate::build::{self, Messages, TestBinary};
use crate::{exec, setup, workspace};

/// Inputs of each target in a full run.
const FULL: u64 = 10_000_000;

/// Arguments of `cargo xtask fuzz`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// What to fuzz; all of them without it.
    target: Option<Target>,
    /// How long, for each target; without it and --inputs: ten million inputs.
    #[arg(long, value_name = "N", conflicts_with = "inputs")]
    seconds: Option<u64>,
    /// How many inputs, for each target.
    #[arg(long, value_name = "N")]
    inputs: Option<u64>,
    /// Where the random choices begin; without it, where nobody has been.
    #[arg(long, value_name = "N")]
    seed: Option<u64>,
    /// Run what a failure has written down, and nothing else (programs, bond).
    #[arg(long, value_name = "FILE")]
    repeat: Option<PathBuf>,
    /// Only this form, and only what has such a one: the hook (programs), what is read
    /// (tunnel), or the suite (bond).
    #[arg(long, value_parser = PossibleValuesParser::new(forms()))]
    form: Option<String>,
    /// Data planes side by side (programs, bond); without it, one a CPU.
    #[arg(long, value_name = "N")]
    workers: Option<usize>,
}

/// What can be fuzzed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum Target {
    /// The parser, on the host.
    Parser,
    /// The programs of steering, in the kernel.
    Programs,
    /// What the agent reads from the network: messages and handshakes, on the host.
    Tunnel,
    /// The programs of the bond, in the kernel.
    Bond,
}

impl Target {
    const ALL: [Target; 4] = [Target::Parser, Target::Programs, Target::Tunnel, Target::Bond];

    /// Package, test executable and test.
    fn place(self) -> (&'static str, &'static str, &'static str) {
        match self {
            Target::Parser => ("mwb-common", "fuzz_parse", "spoilt_frames_break_no_contract"),
            Target::Programs => ("mwb-agent", "fuzz_programs", "mutated_packets_break_no_contract"),
            Target::Tunnel => ("mwb-agent", "fuzz_tunnel", "spoilt_packets_break_no_contract"),
            Target::Bond => {
                ("mwb-agent", "fuzz_programs", "bond::mutated_packets_of_a_bond_break_no_contract")
            }
        }
    }

    /// Its forms, each of which is run and tallied by itself.
    fn forms(self) -> &'static [&'static str] {
        match self {
            Target::Parser => &[],
            Target::Programs => &["xdp", "tcx"],
            Target::Tunnel => &["header", "message", "envelope", "handshake"],
            Target::Bond => &["chacha20poly1305", "siphash", "crc32"],
        }
    }

    /// Whether it runs programs, which only root may.
    fn runs_programs(self) -> bool {
        matches!(self, Target::Programs | Target::Bond)
    }
}

/// The forms of all targets.
fn forms() -> Vec<&'static str> {
    Target::ALL.into_iter().flat_map(Target::forms).copied().collect()
}

/// What is to be fuzzed.
fn targets(args: &Args) -> Result<Vec<Target>> {
    let form = args.form.as_deref();
    let targets = match (args.target, &args.repeat) {
        (Some(target), _) => vec![target],
        // Its form tells whose a failure is.
        (None, Some(_)) if form.is_none() => vec![Target::Programs],
        (None, _) => Target::ALL.to_vec(),
    };
    let has = |target: &Target| form.is_none_or(|form| target.forms().contains(&form));
    let targets: Vec<Target> = targets.into_iter().filter(has).collect();
    ensure!(!targets.is_empty(), "there is no form {} of it", form.unwrap_or_default());
    Ok(targets)
}

/// Runs the command.
///
/// # Errors
/// When a fuzzer cannot be built or started.
pub fn command(args: &Args) -> Result<ExitCode> {
    let targets = targets(args)?;
    if targets.iter().any(|target| target.runs_programs()) {
        workspace::require_root("running programs in the kernel")?;
    }
    let seed = args.seed.map_or_else(new_seed, Ok)?;
    let mut good = true;
    for target in targets {
        let binary = binary(target)?;
        let (_, _, test) = target.place();
        let mut command = Command::new(&binary.executable);
        command.current_dir(&binary.directory).env("CARGO_MANIFEST_DIR", &binary.directory);
        command.args(["--exact", test, "--nocapture", "--test-threads=1"]);
        command.envs(variables(args, seed)?).stdin(Stdio::null());
        let status = command.status().with_context(|| format!("cannot run {}", binary.name))?;
        good &= status.success();
    }
    Ok(if good { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// What the fuzzers are told.
fn variables(args: &Args, seed: u64) -> Result<Vec<(&'static str, String)>> {
    let failures = workspace::target_directory()?.join("fuzz");
    let workers = thread::available_parallelism().map_or(1, usize::from);
    let mut all = vec![
        ("MWB_FUZZ_SEED", seed.to_string()),
        ("MWB_FUZZ_FAILURES", failures.display().to_string()),
        ("MWB_FUZZ_WORKERS", args.workers.unwrap_or(workers).max(1).to_string()),
        ("RUST_BACKTRACE", "0".to_owned()),
    ];
    match (args.seconds, args.inputs) {
        (Some(seconds), _) => all.push(("MWB_FUZZ_SECONDS", seconds.to_string())),
        (None, inputs) => all.push(("MWB_FUZZ_INPUTS", inputs.unwrap_or(FULL).to_string())),
    }
    if let Some(file) = &args.repeat {
        let file = file.canonicalize().with_context(|| format!("no file {}", file.display()))?;
        all.push(("MWB_FUZZ_REPEAT", file.display().to_string()));
    }
    if let Some(form) = &args.form {
        all.push(("MWB_FUZZ_FORM", form.clone()));
    }
    Ok(all)
}

/// Builds the test executable of a target.
fn binary(target: Target) -> Result<TestBinary> {
    let record = setup::ensure()?;
    let (package, name, _) = target.place();
    let mut command = workspace::cargo(&record.toolchain)?;
    command.args(["test", "--no-run", "--package", package, "--test", name]);
    command.arg("--message-format=json-render-diagnostics");
    let mut messages = Messages::default();
    exec::watch("cargo test --no-run", &mut command, build::LIMIT, |line| messages.read(line))?;
    let wanted = format!("{package}/tests/{name}");
    let mut found = messages.tests.into_iter().filter(|binary| binary.name == wanted);
    let binary = found.next().with_context(|| format!("cargo did not tell where {wanted} is"))?;
    ensure!(found.next().is_none(), "{wanted} was made twice");
    Ok(binary)
}

fn new_seed() -> Result<u64> {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).context("no clock")?;
    Ok(now.as_nanos() as u64)
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::*;

    #[derive(clap::Parser)]
    struct Line {
        #[command(flatten)]
        args: Args,
    }

    fn told(line: &[&str]) -> Result<Vec<(&'static str, String)>> {
        variables(&Line::try_parse_from([&["fuzz"], line].concat())?.args, 7)
    }

    #[test]
    fn a_run_is_bounded_by_time_or_by_inputs_and_full_without_either() -> Result<()> {
        let has = |line: &[&str], name: &str, value: &str| -> Result<bool> {
            Ok(told(line)?.contains(&(name, value.to_owned())))
        };
        assert!(has(&[], "MWB_FUZZ_INPUTS", "10000000")?);
        assert!(has(&["--inputs", "5"], "MWB_FUZZ_INPUTS", "5")?);
        assert!(has(&["--seconds", "3", "parser"], "MWB_FUZZ_SECONDS", "3")?);
        assert!(!told(&["--seconds", "3"])?.iter().any(|(name, _)| *name == "MWB_FUZZ_INPUTS"));
        assert!(has(&["--seed", "9"], "MWB_FUZZ_SEED", "7")?);
        assert!(told(&["--seconds", "3", "--inputs", "5"]).is_err());
        assert!(told(&["--form", "nfqueue"]).is_err());
        Ok(())
    }

    #[test]
    fn a_form_is_run_where_there_is_one() -> Result<()> {
        let asked = |line: &[&str]| -> Result<Vec<Target>> {
            targets(&Line::try_parse_from([&["fuzz"], line].concat())?.args)
        };
        assert_eq!(asked(&[])?, Target::ALL);
        assert_eq!(asked(&["tunnel"])?, [Target::Tunnel]);
        assert_eq!(asked(&["--form", "tcx"])?, [Target::Programs]);
        assert_eq!(asked(&["--form", "siphash", "--repeat", "file"])?, [Target::Bond]);
        assert_eq!(asked(&["--repeat", "file"])?, [Target::Programs]);
        assert!(asked(&["bond", "--form", "xdp"]).is_err());
        assert!(asked(&["parser", "--form", "header"]).is_err());
        Ok(())
    }
}
