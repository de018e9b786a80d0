//! `cargo xtask bench`: benchmarks, each of which measures the gateway against a
//! peer in the same run and answers with a ratio. New ones go into [`BENCHES`].
//!
//! Must not know: the inside of the agent. It is started, and judged by the
//! packets that come out.

mod bond_crypto;
mod bond_goodput;
mod bond_pps;
mod boringtun;
mod code;
mod comparison;
mod detect;
mod failover_gap;
mod flows;
mod frames;
mod gateway;
mod generator;
mod hitless;
mod kernel;
mod lane;
mod method_choice;
mod mptcp;
mod opened;
mod policy;
mod prog_run;
pub mod report;
mod seal_cost;
mod sink;
mod slow_path;
mod stats;
mod steer_nat_pps;
mod steer_tcp;
mod stream;
mod tunnel;

use std::process::ExitCode;

use anyhow::{Context as _, Result, bail};

use self::report::Report;
use crate::{build, workspace};

/// Arguments of `cargo xtask bench`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The benchmark to run; all of them without it.
    name: Option<String>,
    /// Print one JSON object: name, headline, rows.
    #[arg(long)]
    json: bool,
    /// End with 1 when a headline misses its target.
    #[arg(long)]
    check: bool,
    /// Show what there is, and run nothing.
    #[arg(long, conflicts_with_all = ["name", "json", "check"])]
    list: bool,
}

/// A benchmark. It stays under four minutes.
pub struct Bench {
    /// Its name on the command line.
    pub name: &'static str,
    /// What it compares, in one line.
    pub about: &'static str,
    /// Runs it with the lab's object.
    pub run: fn(object: &[u8]) -> Result<Report>,
}

/// Every benchmark.
pub const BENCHES: &[Bench] = &[
    steer_nat_pps::BENCH,
    steer_tcp::BENCH,
    flows::BENCH,
    policy::BENCH,
    failover_gap::BENCH,
    detect::BENCH,
    method_choice::BENCH,
    bond_pps::BENCH,
    bond_goodput::BENCH,
    bond_goodput::STRIPED,
    hitless::BENCH,
    slow_path::BENCH,
    bond_crypto::BENCH,
];

/// Runs the command.
///
/// # Errors
/// An unknown name, or whatever keeps a benchmark from measuring.
pub fn command(args: &Args) -> Result<ExitCode> {
    if args.list {
        for bench in BENCHES {
            println!("{}  {}", bench.name, bench.about);
        }
        return Ok(ExitCode::SUCCESS);
    }
    let chosen = choose(args.name.as_deref())?;
    if args.json && chosen.len() > 1 {
        bail!("--json prints one object: name one of {}", names());
    }
    workspace::require_root("a benchmark")?;
    let file = build::artifacts()?.objects_dir.join(build::LAB_OBJECT);
    let object = std::fs::read(&file).with_context(|| format!("cannot read {}", file.display()))?;
    let mut all_met = true;
    for bench in chosen {
        let report = (bench.run)(&object).with_context(|| bench.name)?;
        if args.json {
            println!("{}", serde_json::to_string(&report).context("a report is plain data")?);
        } else {
            println!("{}", report.table());
        }
        all_met &= report.headline.is_met();
    }
    Ok(exit_code(args.check, all_met))
}

/// A missed target is a finding, and a failure only for who asked for a check.
fn exit_code(check: bool, all_met: bool) -> ExitCode {
    if check && !all_met { ExitCode::FAILURE } else { ExitCode::SUCCESS }
}

/// The benchmark of that name, or all.
fn choose(name: Option<&str>) -> Result<Vec<&'static Bench>> {
    let chosen: Vec<_> =
        BENCHES.iter().filter(|bench| name.is_none_or(|name| bench.name == name)).collect();
    if chosen.is_empty() {
        bail!("no benchmark {}; there are: {}", name.unwrap_or_default(), names());
    }
    Ok(chosen)
}

fn names() -> String {
    BENCHES.iter().map(|bench| bench.name).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missed_target_fails_only_a_check() {
        assert_eq!(exit_code(true, false), ExitCode::FAILURE);
        assert_eq!(exit_code(true, true), ExitCode::SUCCESS);
        assert_eq!(exit_code(false, false), ExitCode::SUCCESS);
    }

    #[test]
    fn an_unknown_benchmark_is_refused_with_the_names_there_are() {
        let text = choose(Some("nonsense")).err().map_or_else(String::new, |e| e.to_string());
        assert!(text.contains("nonsense") && text.contains("steer-nat-pps"), "{text}");
        assert!(choose(None).is_ok_and(|all| all.len() == BENCHES.len()));
    }
}
