//! What runs in a guest on behalf of `cargo xtask vm test`: tests of the lab and
//! programs put before the verifier, told to the host a line at a time. Knows
//! nothing of VMs.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Instant;

use anyhow::Result;
use serde::{Deserialize, Serialize};

use crate::build::{self, Artifacts};
use crate::e2e;
use crate::outcome::{Outcome, Verdict};
use crate::test::VERIFY;
use crate::verify;

/// What every line for the host starts with.
const MARK: &str = "mwb-test: ";

/// Arguments of the guest's side.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The daemon.
    #[arg(long)]
    agent: PathBuf,
    /// The operator's command.
    #[arg(long)]
    mwb: PathBuf,
    /// The directory of the eBPF objects.
    #[arg(long)]
    objects: PathBuf,
    /// The tests to run.
    names: Vec<String>,
}

/// One line for the host.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Told {
    /// A test begins.
    Began(String),
    /// It has ended.
    Ended(Outcome),
}

impl Told {
    /// Reads a line; `None` for what a test printed.
    pub(super) fn read(line: &str) -> Option<Self> {
        serde_json::from_str(line.strip_prefix(MARK)?).ok()
    }

    fn tell(&self) -> Result<()> {
        println!("{MARK}{}", serde_json::to_string(self)?);
        Ok(())
    }
}

/// The command line of this for `names`; `program` is this program in the guest.
pub(super) fn command_line(program: &str, made: &Artifacts, names: &[String]) -> Vec<String> {
    let option = |name: &str, path: &PathBuf| [name.to_owned(), path.display().to_string()];
    let mut line = [program, "vm", "inside"].map(str::to_owned).to_vec();
    line.extend(option("--agent", &made.agent));
    line.extend(option("--mwb", &made.mwb));
    line.extend(option("--objects", &made.objects_dir));
    line.extend(names.iter().cloned());
    line
}

/// Runs the tests. What becomes of them is in what is told.
///
/// # Errors
/// When it cannot be told.
pub(super) fn command(args: &Args) -> Result<ExitCode> {
    let Args { agent, mwb, objects, names } = args;
    build::provide(Artifacts {
        agent: agent.clone(),
        mwb: mwb.clone(),
        objects_dir: objects.clone(),
    });
    if names.iter().any(|name| name.starts_with(VERIFY)) {
        verify_programs(names)?;
    }
    for case in e2e::cases().iter().filter(|case| names.iter().any(|name| name == case.name())) {
        Told::Began(case.name().to_owned()).tell()?;
        Told::Ended(case.outcome()).tell()?;
    }
    Ok(ExitCode::SUCCESS)
}

fn verify_programs(names: &[String]) -> Result<()> {
    let started = Instant::now();
    let object = build::artifacts()?.objects_dir.join(build::OBJECT);
    let measured = verify::measure(&object);
    let seconds = started.elapsed().as_secs_f64();
    for name in names {
        let Some(program) = name.strip_prefix(VERIFY) else { continue };
        let result = match &measured {
            Ok(all) => verify::fault(all, program).map_or(Verdict::Passed, Verdict::Failed),
            Err(error) => Verdict::Failed(format!("{error:#}")),
        };
        Told::Ended(Outcome { name: name.clone(), result, seconds }).tell()?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_told_is_what_is_read() -> Result<()> {
        let outcome = Outcome {
            name: "e2e/x".into(),
            result: Verdict::Failed("two\nlines".into()),
            seconds: 1.5,
        };
        for told in [Told::Began("e2e/x".into()), Told::Ended(outcome)] {
            let line = format!("{MARK}{}", serde_json::to_string(&told)?);
            assert!(!line.contains('\n'));
            assert_eq!(Told::read(&line), Some(told));
        }
        assert_eq!(Told::read("noise of a test"), None);
        Ok(())
    }
}
