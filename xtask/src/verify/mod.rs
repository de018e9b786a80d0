//! `cargo xtask verify`: loads every program of the data plane freshly and sets
//! what the verifier had to walk through against a budget.

use std::fmt;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context as _, Result, bail};
use aya::programs::{Program, ProgramError};
use aya::{Ebpf, EbpfLoader};
use mwb_common::maps::names;
use serde::{Deserialize, Serialize};

use crate::vm::Kernel;
use crate::{build, workspace};

mod kernels;
mod table;

pub use kernels::fault;

/// Instructions after which the kernel's verifier gives up.
const KERNEL_LIMIT: u32 = 1_000_000;
/// Our share of it: other kernels and compilers walk further.
const BUDGET: u32 = KERNEL_LIMIT / 4;
/// Exit code when the verifier refuses a program.
const REFUSED: u8 = 3;
/// Lines of the verifier's log that are shown.
const LOG_TAIL: usize = 25;
/// Entries of the large tables here: their size costs memory, and means nothing
/// to the verifier.
const SMALL: u32 = 64;

/// Arguments of `cargo xtask verify`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Print one JSON object.
    #[arg(long)]
    json: bool,
    /// Load this object; nothing is built.
    #[arg(long, value_name = "FILE")]
    object: Option<PathBuf>,
    /// Ask these kernels, each in a VM, instead of this machine's: without root, unless setup
    /// finds something missing.
    #[arg(long, value_name = "KERNEL,…", value_delimiter = ',', conflicts_with_all = ["json", "object"])]
    kernel: Vec<Kernel>,
    /// Write what they say to docs/KERNELS.md.
    #[arg(long, requires = "kernel")]
    write: bool,
}

/// What the verifier said of one program.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Measured {
    /// The program's name.
    pub program: String,
    /// What it said.
    #[serde(flatten)]
    pub said: Said,
}

/// The verifier's answer. A refusal is final: nothing here tries again.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Said {
    /// It may run: instructions that the verifier walked through.
    Instructions(u32),
    /// It may not: the end of the verifier's log.
    Refused(String),
}

impl Measured {
    /// The program loads, and is within the budget.
    #[must_use]
    pub fn fits(&self) -> bool {
        matches!(self.said, Said::Instructions(count) if count <= BUDGET)
    }
}

/// Share of the budget that is left after so many instructions, in percent;
/// negative beyond it.
fn headroom(instructions: u32) -> f64 {
    100.0 * (1.0 - f64::from(instructions) / f64::from(BUDGET))
}

impl fmt::Display for Measured {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.said {
            Said::Instructions(count) => write!(
                f,
                "{:<13} {count:>8} of {BUDGET} instructions, headroom {:>5.1} %{}",
                self.program,
                headroom(*count),
                if self.fits() { "" } else { "  OVER THE BUDGET" }
            ),
            Said::Refused(log) => {
                write!(f, "the verifier refuses {}:", self.program)?;
                log.lines().try_for_each(|line| write!(f, "\n    {line}"))
            }
        }
    }
}

/// What a verifier said of an object's programs; what `--json` prints.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Report {
    kernel: String,
    /// Of the object, as its debug information says: other compilers' code is
    /// walked otherwise.
    compiler: String,
    limit: u32,
    budget: u32,
    programs: Vec<Measured>,
}

/// Runs the command.
///
/// # Errors
/// When there is no root and no other kernel is asked, the build fails, or the object
/// cannot be loaded.
pub fn command(args: &Args) -> Result<ExitCode> {
    if !args.kernel.is_empty() {
        return kernels::command(&args.kernel, args.write);
    }
    workspace::require_root("loading programs into the kernel")?;
    let object = match &args.object {
        Some(object) => object.clone(),
        None => build::artifacts()?.objects_dir.join(build::OBJECT),
    };
    let report = measure(&object)?;
    if args.json {
        println!("{}", serde_json::to_string_pretty(&report)?);
    } else {
        show(&report);
    }
    Ok(exit_code(&report.programs))
}

fn show(report: &Report) {
    let Report { kernel, compiler, limit, budget, programs } = report;
    println!("Linux {kernel}, verifier limit {limit}, budget {budget}, compiled by {compiler}");
    for one in programs {
        println!("{one}");
    }
}

fn exit_code<'a>(programs: impl IntoIterator<Item = &'a Measured>) -> ExitCode {
    let mut code = ExitCode::SUCCESS;
    for one in programs {
        if matches!(one.said, Said::Refused(_)) {
            return ExitCode::from(REFUSED);
        }
        if !one.fits() {
            code = ExitCode::FAILURE;
        }
    }
    code
}

/// Names of all programs: those that packets go through, those that watch, and the filter
/// of a socket.
pub fn programs() -> impl Iterator<Item = &'static str> {
    let watching = names::programs::WATCHING.iter().map(|&(name, _)| name);
    names::programs::ALL.iter().copied().chain(watching).chain([names::programs::DNS_ANSWERS])
}

/// Loads every program of `object`, beside whatever runs on this machine:
/// nothing is pinned or attached.
///
/// # Errors
/// Whatever keeps the object as a whole from loading; a refused program does not.
pub fn measure(object: &Path) -> Result<Report> {
    let bytes = std::fs::read(object).with_context(|| format!("{}", object.display()))?;
    let mut loader = EbpfLoader::new();
    for table in [names::FLOWS4, names::FLOWS6, names::MAPPINGS, names::PORTS] {
        loader.map_max_entries(table, SMALL);
    }
    let mut ebpf =
        loader.load(&bytes).with_context(|| format!("cannot load {}", object.display()))?;
    for expected in programs() {
        if ebpf.program(expected).is_none() {
            bail!("{} has no program {expected}", object.display());
        }
    }
    Ok(Report {
        kernel: kernel_release(),
        compiler: compiler(&bytes),
        limit: KERNEL_LIMIT,
        budget: BUDGET,
        programs: load_all(&mut ebpf)?,
    })
}

/// `rustc 1.97.0-nightly (e50aa6fba 2026-05-19)`, from the name that a compiler
/// gives itself in debug information: `clang LLVM (rustc version …)`.
fn compiler(object: &[u8]) -> String {
    const BEFORE: &[u8] = b"(rustc version ";
    let start = object.windows(BEFORE.len()).position(|words| words == BEFORE);
    let text = start.and_then(|at| object[at + BEFORE.len()..].split(|&byte| byte == 0).next());
    let version = text.and_then(|text| std::str::from_utf8(text).ok()?.strip_suffix(')'));
    version.map_or_else(|| "an unknown compiler".to_owned(), |version| format!("rustc {version}"))
}

fn load_all(ebpf: &mut Ebpf) -> Result<Vec<Measured>> {
    let mut measured = Vec::new();
    for (name, program) in ebpf.programs_mut() {
        let loaded = match program {
            Program::Xdp(xdp) => xdp.load().and_then(|()| xdp.info()),
            Program::SchedClassifier(tc) => tc.load().and_then(|()| tc.info()),
            Program::SocketFilter(filter) => filter.load().and_then(|()| filter.info()),
            Program::RawTracePoint(watcher) => watcher.load().and_then(|()| watcher.info()),
            other => bail!("{name} is of a kind that is not expected here: {other:?}"),
        };
        let info = match loaded {
            Ok(info) => info,
            Err(ProgramError::LoadError { io_error, verifier_log }) => {
                let log = format!("{verifier_log}\n{io_error}");
                let said = Said::Refused(last_lines(&log, LOG_TAIL).join("\n"));
                measured.push(Measured { program: name.to_owned(), said });
                continue;
            }
            Err(error) => return Err(error).with_context(|| format!("cannot load {name}")),
        };
        let instructions = info
            .verified_instruction_count()
            .context("this kernel does not tell verified instructions (Linux 5.16 and later do)")?;
        let said = Said::Instructions(instructions);
        measured.push(Measured { program: name.to_owned(), said });
    }
    measured.sort_by(|a, b| a.program.cmp(&b.program));
    Ok(measured)
}

/// The running kernel.
fn kernel_release() -> String {
    nix::sys::utsname::uname()
        .map_or_else(|_| "unknown".to_owned(), |name| name.release().to_string_lossy().into_owned())
}

fn last_lines(text: &str, count: usize) -> Vec<&str> {
    let lines: Vec<&str> = text.lines().filter(|line| !line.trim().is_empty()).collect();
    lines[lines.len().saturating_sub(count)..].to_vec()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn measured(instructions: u32) -> Measured {
        Measured { program: "inside_xdp".to_owned(), said: Said::Instructions(instructions) }
    }

    #[test]
    fn the_budget_is_a_quarter_of_the_verifiers_limit() {
        assert!(measured(250_000).fits());
        assert!(!measured(250_001).fits());
        assert!((headroom(62_500) - 75.0).abs() < 1e-9);
        assert!(headroom(300_000) < 0.0);
        assert!(measured(300_000).to_string().contains("OVER THE BUDGET"));
    }

    #[test]
    fn the_compiler_is_read_from_what_it_calls_itself() {
        let object =
            b"\x7fELF\0clang LLVM (rustc version 1.96.0 (ac68faa20 2026-05-25))\0main.rs\0";
        assert_eq!(compiler(object), "rustc 1.96.0 (ac68faa20 2026-05-25)");
        for without in [&b"\x7fELF"[..], b"(rustc version 1", b"(rustc version \xff)\0"] {
            assert_eq!(compiler(without), "an unknown compiler");
        }
    }

    #[test]
    fn a_refusal_tells_program_kernel_and_the_last_lines() {
        let log: String = (0..100).map(|n| format!("line {n}\n\n")).collect();
        let said = Said::Refused(last_lines(&log, LOG_TAIL).join("\n"));
        let refused = Measured { program: "inside_tc".to_owned(), said };
        assert!(!refused.fits());
        let text = refused.to_string();
        assert!(text.contains("inside_tc"), "{text}");
        assert!(text.contains("line 99") && text.contains("line 75"), "{text}");
        assert!(!text.contains("line 74"), "{text}");
    }
}
