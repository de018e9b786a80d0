//! Which tests run in guests, on which kernel, and in which order. Starts no guest.

use anyhow::{Context as _, Result};

use super::cache::Kernel;
use super::pieces::{self, Piece, Source};
use super::proof;
use crate::build::TestBinary;
use crate::outcome::{Outcome, Verdict};
use crate::test::{VERIFY, libtest};
use crate::{e2e, verify};

/// Test executables that are run in guests: those that need a kernel.
const EXECUTABLES: [&str; 5] = [
    "mwb-agent",
    "mwb-agent/tests/prog_run",
    "mwb-agent/tests/fuzz_programs",
    "mwb-agent/tests/rights",
    "mwb-agent/tests/mwb_command",
];
/// Of these, what is left out: see [`LEFT_OUT`].
const RECKONING: [&str; 2] = ["mwb-agent::tunnel::estimate::", "mwb-agent::flows::plan::"];
const LEFT_OUT: &str =
    "it asks no kernel for anything, and reckons for minutes on an emulated machine";

/// What is to do.
pub(super) struct Work {
    /// For one guest each.
    pub(super) pieces: Vec<Piece>,
    /// What is wanted, and is not run on this kernel.
    pub(super) left_out: Vec<(Kernel, Outcome)>,
}

/// Everything that is wanted, in pieces: what proves most in least time first.
///
/// # Errors
/// When a test executable cannot be asked for its tests.
pub(super) fn collect(
    kernels: &[Kernel],
    binaries: &[TestBinary],
    wants: &dyn Fn(&Kernel, &str) -> bool,
) -> Result<Work> {
    let programs = verify::programs().map(|program| format!("{VERIFY}{program}")).collect();
    let mut sources: Vec<(Source, Vec<String>)> = vec![(Source::Inside, programs)];
    for name in EXECUTABLES {
        let binary = binaries.iter().find(|binary| binary.name == name);
        let binary = binary.with_context(|| format!("the test executable {name} is not built"))?;
        sources.push((Source::Binary(binary.clone()), libtest::list(binary)?));
    }
    let cases = e2e::cases().iter().map(|case| case.name().to_owned()).collect();
    sources.push((Source::Inside, cases));
    let failing = binaries.iter().find(|binary| binary.name == proof::EXECUTABLE);
    let failing = failing.context("the executable of the test that fails is not built")?;
    sources.push((Source::Proof(failing.clone()), proof::names()));
    let mut work = Work { pieces: Vec::new(), left_out: Vec::new() };
    for (source, tests) in &sources {
        for (number, kernel) in kernels.iter().enumerate() {
            let mut tests = tests.clone();
            if number > 0 && matches!(source, Source::Proof(_)) {
                tests.retain(|test| proof::is_for_each_kernel(test));
            }
            tests.retain(|test| wants(kernel, &source.full_name(test)));
            let (left_out, tests): (Vec<String>, Vec<String>) =
                tests.into_iter().partition(|test| is_left_out(&source.full_name(test)));
            work.pieces.extend(pieces::divide(kernel, source, &tests));
            work.left_out.extend(left_out.iter().map(|test| {
                let name = format!("{kernel}/{}", source.full_name(test));
                let result = Verdict::Skipped(LEFT_OUT.to_owned());
                (kernel.clone(), Outcome { name, result, seconds: 0.0 })
            }));
        }
    }
    Ok(work)
}

fn is_left_out(name: &str) -> bool {
    RECKONING.iter().any(|group| name.starts_with(group))
}

/// The names of a piece's tests, as [`run`] tells them.
pub(super) fn names(piece: &Piece) -> impl Iterator<Item = String> {
    let Piece { kernel, source, tests } = piece;
    tests.iter().map(move |test| format!("{kernel}/{}", source.full_name(test)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_only_reckons_is_left_out_with_the_reason() -> Result<()> {
        let executable = std::env::temp_dir().join(format!("mwb-work-{}", std::process::id()));
        let script = "echo tunnel::estimate::grows: test; echo rises: test";
        crate::exec::write_script(&executable, script)?;
        let binaries = EXECUTABLES.map(|name| TestBinary {
            name: name.to_owned(),
            executable: executable.clone(),
            directory: std::env::temp_dir(),
        });
        let kernel: Kernel = "6.12".parse().map_err(anyhow::Error::msg)?;
        let told = |pattern: &str| -> Result<(Vec<String>, Vec<String>)> {
            let wants = |_: &Kernel, name: &str| name.contains(pattern);
            let Work { pieces, left_out } =
                collect(std::slice::from_ref(&kernel), &binaries, &wants)?;
            for (_, outcome) in &left_out {
                assert_eq!(outcome.result, Verdict::Skipped(LEFT_OUT.to_owned()));
            }
            let left_out = left_out.into_iter().map(|(_, outcome)| outcome.name);
            Ok((pieces.iter().flat_map(names).collect(), left_out.collect()))
        };
        let (run, left_out) = told("mwb-agent::")?;
        assert_eq!(run, ["6.12/mwb-agent::rises"]);
        assert_eq!(left_out, ["6.12/mwb-agent::tunnel::estimate::grows"]);
        let (run, left_out) = told("mwb-agent::tunnel::estimate")?;
        std::fs::remove_file(&executable)?;
        assert_eq!((run.len(), left_out.len()), (0, 1));
        Ok(())
    }
}
