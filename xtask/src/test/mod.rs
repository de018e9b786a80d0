//! `cargo xtask test`: everything that is proven, one outcome a line, and the
//! count as the last line.

mod checks;
mod lanes;
pub(crate) mod libtest;
pub(crate) mod report;

use std::process::ExitCode;
use std::thread;
use std::time::Instant;

use anyhow::Result;

use crate::build::{self, Messages, TestBinary};
use crate::e2e::{self, Case};
use crate::only::Only;
use crate::outcome::{Outcome, Verdict};
use crate::setup::{self, Record};
use crate::vm::smoke;
use crate::{exec, verify, workspace};
use report::Report;

/// Arguments of `cargo xtask test`.
#[derive(Clone, Debug, Default, clap::Args)]
pub struct Args {
    #[command(flatten)]
    only: Only,
    /// Print the names of the tests and run none.
    #[arg(long)]
    list: bool,
    /// Leave out the tests in the network lab, and those in VMs.
    #[arg(long)]
    no_e2e: bool,
    /// So many tests of the lab at once, of those that may run beside others; 1: each
    /// alone, in their order. Without it, half as many again as there are processors.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u8).range(1..))]
    lanes: Option<u8>,
}

/// First part of the names of [`checks::ALL`].
const CHECKS: &str = "check/";
/// First part of the names of programs put before the verifier.
pub(crate) const VERIFY: &str = "verify/";

impl Args {
    /// Test executables are not needed if all patterns name other groups.
    fn wants_executables(&self) -> bool {
        let other = |pattern: &String| {
            [CHECKS, VERIFY, e2e::PREFIX].iter().any(|group| pattern.starts_with(group))
        };
        self.only.patterns.is_empty() || !self.only.patterns.iter().all(other)
    }

    /// VMs are for everything, or if a pattern names them: a part of a name is
    /// not to boot machines.
    fn wants_machines(&self) -> bool {
        let named = |pattern: &String| pattern.starts_with(smoke::PREFIX);
        !self.no_e2e && (self.only.patterns.is_empty() || self.only.patterns.iter().any(named))
    }
}

/// Runs the command. Whatever goes wrong is a failure in the count, so that the
/// last line always tells.
///
/// # Errors
/// When `--list` cannot build what it lists.
pub fn command(args: &Args) -> Result<ExitCode> {
    if args.list {
        return list(args);
    }
    let mut report = Report::default();
    match setup::ensure() {
        Ok(record) => run(args, &record, &mut report),
        Err(error) => report.add_failure("setup", &error),
    }
    Ok(report.finish())
}

fn list(args: &Args) -> Result<ExitCode> {
    let record = setup::ensure()?;
    let mut names: Vec<String> = checks::ALL.iter().map(|check| check.name.to_owned()).collect();
    let mut machines = Vec::new();
    if args.wants_executables() {
        let binaries = test_binaries(&record)?;
        for binary in &binaries {
            let tests = libtest::list(binary)?;
            names.extend(tests.iter().map(|test| libtest::full_name(&binary.name, test)));
        }
        machines = smoke::names(&binaries)?;
    }
    names.extend(verify::programs().map(|program| format!("{VERIFY}{program}")));
    if !args.no_e2e {
        names.extend(e2e::cases().iter().map(|case| case.name().to_owned()));
    }
    if args.wants_machines() {
        names.append(&mut machines);
    }
    for name in names.iter().filter(|name| args.only.wants(name)) {
        println!("{name}");
    }
    Ok(ExitCode::SUCCESS)
}

fn run(args: &Args, record: &Record, report: &mut Report) {
    for check in checks::ALL.iter().filter(|check| args.only.wants(check.name)) {
        report.add([check.outcome(record)]);
    }
    let mut binaries = Vec::new();
    if args.wants_executables() {
        // Whatever does not build fails here once, not in each test.
        binaries = match test_binaries(record) {
            Ok(binaries) => binaries,
            Err(error) => return report.add_failure("build", &error),
        };
        run_binaries(args, &binaries, report);
    }
    let wanted: Vec<&str> = verify::programs()
        .filter(|program| args.only.wants(&format!("{VERIFY}{program}")))
        .collect();
    if !wanted.is_empty() {
        report.add(verify_programs(&wanted));
    }
    if !args.no_e2e {
        run_lab(args, report);
    }
    if args.wants_machines() {
        let ran =
            smoke::run(&binaries, &|name| args.only.wants(name), |outcomes| report.add(outcomes));
        if let Err(error) = ran {
            report.add_failure(&format!("{}smoke", smoke::PREFIX), &error);
        }
    }
}

/// Runs the lab's tests.
fn run_lab(args: &Args, report: &mut Report) {
    let mut cases: Vec<Case> = e2e::cases();
    cases.retain(|case| args.only.wants(case.name()));
    if cases.is_empty() {
        return;
    }
    // Once here, or each of them would try in vain.
    if let Err(error) = build::artifacts() {
        return report.add_failure("build", &error);
    }
    lanes::run(cases, args.lanes.map_or_else(lanes::usual, usize::from), report);
}

/// Builds every test, and with them the agent and its objects: the same
/// profile, so nothing is built twice.
pub(crate) fn test_binaries(record: &Record) -> Result<Vec<TestBinary>> {
    let mut command = workspace::cargo(&record.toolchain)?;
    command.args(["test", "--no-run", "--message-format=json-render-diagnostics"]);
    let mut messages = Messages::default();
    exec::watch("cargo test --no-run", &mut command, build::LIMIT, |line| messages.read(line))?;
    let made = messages.artifacts()?;
    build::check_objects(&made)?;
    build::provide(made);
    Ok(messages.tests)
}

/// Runs pure tests on all CPUs, then those that touch the kernel, alone.
fn run_binaries(args: &Args, binaries: &[TestBinary], report: &mut Report) {
    let mut work = Vec::new();
    for binary in binaries {
        match libtest::list(binary) {
            Ok(tests) => {
                let wanted: Vec<String> = tests
                    .into_iter()
                    .filter(|test| args.only.wants(&libtest::full_name(&binary.name, test)))
                    .collect();
                if !wanted.is_empty() {
                    work.push((binary.clone(), wanted));
                }
            }
            Err(error) => report.add_failure(&binary.name, &error),
        }
    }
    let (kernel, pure): (Vec<_>, Vec<_>) =
        work.into_iter().partition(|(binary, _)| binary.name.contains("/tests/"));
    run_at_once(pure, report);
    for (binary, tests) in &kernel {
        add_result(binary, libtest::run(binary, tests), report);
    }
}

/// An executable in shares of its tests, one for each worker: in each process one test runs
/// at a time, as those want that give their thread another network namespace.
fn run_at_once(work: Vec<(TestBinary, Vec<String>)>, report: &mut Report) {
    let workers = thread::available_parallelism().map_or(1, usize::from);
    let share = |(binary, tests): (TestBinary, Vec<String>)| {
        let shares = shares(&tests, workers).into_iter();
        shares.map(move |tests| (binary.clone(), tests))
    };
    lanes::at_once(
        work.into_iter().flat_map(share).collect(),
        workers,
        |(binary, tests)| libtest::run(binary, tests),
        |(binary, _), result| add_result(&binary, result, report),
    );
}

/// Every so-many-th of the tests: those that take long stand side by side. None is empty.
fn shares(tests: &[String], count: usize) -> Vec<Vec<String>> {
    let share = |first| tests.iter().skip(first).step_by(count).cloned().collect();
    (0..count.min(tests.len())).map(share).collect()
}

fn add_result(binary: &TestBinary, result: Result<Vec<Outcome>>, report: &mut Report) {
    match result {
        Ok(outcomes) => report.add(outcomes),
        Err(error) => report.add_failure(&binary.name, &error),
    }
}

/// One outcome for each of `wanted`.
fn verify_programs(wanted: &[&str]) -> Vec<Outcome> {
    let started = Instant::now();
    let measured = if nix::unistd::geteuid().is_root() {
        build::artifacts().and_then(|made| verify::measure(&made.objects_dir.join(build::OBJECT)))
    } else {
        return skip_all(wanted, "loading programs into the kernel needs root");
    };
    let seconds = started.elapsed().as_secs_f64() / wanted.len() as f64;
    let verdict = |program: &str| match &measured {
        Ok(all) => verify::fault(all, program).map_or(Verdict::Passed, Verdict::Failed),
        Err(error) => Verdict::Failed(format!("{error:#}")),
    };
    wanted
        .iter()
        .map(|program| Outcome {
            name: format!("{VERIFY}{program}"),
            result: verdict(program),
            seconds,
        })
        .collect()
}

fn skip_all(wanted: &[&str], why: &str) -> Vec<Outcome> {
    wanted
        .iter()
        .map(|program| Outcome {
            name: format!("{VERIFY}{program}"),
            result: Verdict::Skipped(why.to_owned()),
            seconds: 0.0,
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn only(pattern: &str) -> Args {
        Args { only: Only { patterns: vec![pattern.to_owned()] }, ..Args::default() }
    }

    #[test]
    fn test_executables_are_not_built_for_a_pattern_of_another_group() {
        assert!(!only("check/format").wants_executables());
        assert!(!only("e2e/").wants_executables());
        assert!(only("nat").wants_executables());
        assert!(Args::default().wants_executables());
    }

    #[test]
    fn every_test_is_in_one_share_and_none_is_empty() {
        let tests: Vec<String> = (0..7).map(|number| number.to_string()).collect();
        for count in 1..10 {
            let shares = shares(&tests, count);
            assert_eq!(shares.len(), count.min(7));
            let mut all: Vec<String> = shares.concat();
            all.sort();
            assert_eq!(all, tests);
            assert!(shares.iter().all(|share| share.len() >= 7 / count.min(7)), "{shares:?}");
        }
    }

    #[test]
    fn machines_are_for_everything_or_when_they_are_named() {
        assert!(Args::default().wants_machines() && only("vm/6.1").wants_machines());
        assert!(!only("e2e/").wants_machines());
        assert!(!Args { no_e2e: true, ..Args::default() }.wants_machines());
    }
}
