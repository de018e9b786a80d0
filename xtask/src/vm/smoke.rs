//! The part of the tests that shows in minutes that a kernel runs the product:
//! every program loads, and one packet goes along each path.

use anyhow::{Result, ensure};

use super::cache::{Cache, Kernel};
use super::pieces::Piece;
use super::{PROMISED, parts, proof, test, work};
use crate::build::TestBinary;
use crate::outcome::Outcome;
use crate::test::VERIFY;

/// First part of the names in `cargo xtask test`.
pub(crate) const PREFIX: &str = "vm/";
/// A packet for each end, through every program, in both forms.
const FIXTURES: [&str; 2] = [
    "mwb-agent/tests/prog_run::one_packet_comes_to_each_end",
    "mwb-agent/tests/prog_run::bond_reasons::one_packet_comes_to_each_end_of_a_bond",
];
/// Labs: real traffic, by each hook.
const LABS: [&str; 2] =
    ["e2e/numbered_datagrams_arrive_once_by_xdp", "e2e/numbered_datagrams_arrive_once_by_tcx"];

/// Whether a test belongs to the smoke test.
pub(super) fn wants(name: &str) -> bool {
    name.starts_with(VERIFY)
        || name.starts_with(proof::PREFIX)
        || FIXTURES.contains(&name)
        || LABS.contains(&name)
}

fn kernels() -> Result<Vec<Kernel>> {
    PROMISED.iter().map(|name| name.parse().map_err(anyhow::Error::msg)).collect()
}

/// Names of what [`run`] runs.
///
/// # Errors
/// When a test executable cannot be asked.
pub(crate) fn names(binaries: &[TestBinary]) -> Result<Vec<String>> {
    let work = work::collect(&kernels()?, binaries, &|_, name| wants(name))?;
    Ok(work.pieces.iter().flat_map(work::names).map(|name| format!("{PREFIX}{name}")).collect())
}

/// Whether all that is named here is there: a name that nobody has any more would
/// leave the smoke test without a word.
///
/// # Errors
/// Names the one that is not.
pub(super) fn check_names(binaries: &[TestBinary]) -> Result<()> {
    let all = work::collect(&kernels()?, binaries, &|_, _| true)?;
    let names: Vec<String> = all.pieces.iter().flat_map(work::names).collect();
    for name in FIXTURES.iter().chain(&LABS) {
        let is_there = names.iter().any(|full| full.ends_with(name));
        ensure!(is_there, "the smoke test names {name}, and there is no such test");
    }
    Ok(())
}

/// Runs those that are `wanted`, and hands on what becomes of them; of a kernel that
/// cannot be had, one outcome.
///
/// # Errors
/// When the guests' files cannot be made.
pub(crate) fn run(
    binaries: &[TestBinary],
    wanted: &dyn Fn(&str) -> bool,
    mut add: impl FnMut(Vec<Outcome>),
) -> Result<()> {
    let pieces = |kernels: &[Kernel]| -> Result<Vec<Piece>> {
        let wants = |kernel: &Kernel, name: &str| {
            wants(name) && wanted(&format!("{PREFIX}{kernel}/{name}"))
        };
        Ok(work::collect(kernels, binaries, &wants)?.pieces)
    };
    let mut kernels = kernels()?;
    let all = pieces(&kernels)?;
    if all.is_empty() {
        return Ok(());
    }
    check_names(binaries)?;
    kernels.retain(|kernel| all.iter().any(|piece| piece.kernel == *kernel));
    let cache = Cache::open()?;
    let (there, lacking) = parts::ensure_each(&cache, &kernels);
    add(lacking
        .into_iter()
        .map(|lack| Outcome {
            name: format!("{PREFIX}{}/smoke", lack.kernel),
            result: lack.verdict(),
            seconds: 0.0,
        })
        .collect());
    if there.is_empty() {
        return Ok(());
    }
    // What is to be proven on one kernel only is proven on the first that is there.
    let took = test::run(&cache, pieces(&there)?, None, |_, mut outcomes| {
        for outcome in &mut outcomes {
            outcome.name = format!("{PREFIX}{}", outcome.name);
        }
        add(outcomes);
    })?;
    println!("the smoke test in VMs took {:.0} s", took.as_secs_f64());
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_lab_of_the_smoke_test_is_there() {
        let cases = crate::e2e::cases();
        for lab in LABS {
            assert!(cases.iter().any(|case| case.name() == lab), "{lab}");
        }
        assert!(!wants("e2e/anything_else"));
        assert!(wants("verify/inside_xdp"));
    }
}
