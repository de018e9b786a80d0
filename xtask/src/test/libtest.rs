//! Runs one test executable and reads what the test harness prints.

use std::collections::HashMap;
use std::io::{BufRead as _, BufReader};
use std::process::{Command, Stdio};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};

use crate::build::TestBinary;
use crate::outcome::{Outcome, Verdict};

/// Longest time that a test may take.
const LIMIT: Duration = Duration::from_secs(300);
/// What a test prints that finds that it cannot run here, before it returns:
/// `skipped: <test>: <why>`.
const SKIPPED: &str = "skipped: ";

/// Names of the tests in `binary`.
///
/// # Errors
/// When it cannot be run.
pub(crate) fn list(binary: &TestBinary) -> Result<Vec<String>> {
    let output = command(binary)
        .args(["--list", "--format", "terse"])
        .output()
        .with_context(|| format!("cannot run {}", binary.executable.display()))?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    Ok(text.lines().filter_map(|line| line.strip_suffix(": test")).map(str::to_owned).collect())
}

/// Runs `tests` of `binary`, one after the other.
///
/// # Errors
/// When it cannot be started.
pub(crate) fn run(binary: &TestBinary, tests: &[String]) -> Result<Vec<Outcome>> {
    let mut child = command(binary)
        .args(["--test-threads=1", "--show-output", "--exact"])
        .args(tests)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .with_context(|| format!("cannot run {}", binary.executable.display()))?;
    let out = child.stdout.take().context("standard output is not piped")?;
    let errors = child.stderr.take().context("standard error is not piped")?;
    let (sender, lines) = mpsc::channel();
    thread::spawn(move || {
        for line in BufReader::new(out).split(b'\n').map_while(Result::ok) {
            if sender.send(String::from_utf8_lossy(&line).into_owned()).is_err() {
                break;
            }
        }
    });
    let errors = thread::spawn(move || std::io::read_to_string(errors).unwrap_or_default());

    let mut reading = Reading::default();
    let started = Instant::now();
    let mut why = String::new();
    loop {
        match lines.recv_timeout(LIMIT) {
            Ok(line) => reading.line(&line, started.elapsed().as_secs_f64()),
            Err(RecvTimeoutError::Disconnected) => break,
            Err(RecvTimeoutError::Timeout) => {
                child.kill().ok();
                why = format!("nothing for {} s, ended it; ", LIMIT.as_secs());
                break;
            }
        }
    }
    let status = child.wait().context("lost a test executable")?;
    if why.is_empty() {
        why += &errors.join().unwrap_or_default();
    }
    let end = format!("{status}\n{why}");
    let mut outcomes = reading.finish(&binary.name, tests, &end);
    outcomes.extend((!status.success()).then(|| bad_end(&binary.name, &outcomes, &end)).flatten());
    Ok(outcomes)
}

/// What is to be said of an executable that came to a bad end without a failed
/// test: whatever it was, one of its outcomes is not to be believed.
pub(crate) fn bad_end(executable: &str, outcomes: &[Outcome], end: &str) -> Option<Outcome> {
    let explained = outcomes.iter().any(|one| matches!(one.result, Verdict::Failed(_)));
    (!explained).then(|| Outcome {
        name: executable.to_owned(),
        result: Verdict::Failed(format!("no test has failed, and the executable has: {end}")),
        seconds: 0.0,
    })
}

fn command(binary: &TestBinary) -> Command {
    let mut command = Command::new(&binary.executable);
    command.current_dir(&binary.directory).env("CARGO_MANIFEST_DIR", &binary.directory);
    command
}

/// What has been read of a harness's output.
#[derive(Debug, Default)]
pub(crate) struct Reading {
    /// The test that runs, when it began.
    pending: Option<(String, f64)>,
    results: HashMap<String, (Verdict, f64)>,
    /// What each test printed.
    output: HashMap<String, String>,
    section: Option<String>,
    last: f64,
}

impl Reading {
    /// Takes one line that came `now` seconds after the start.
    pub(crate) fn line(&mut self, line: &str, now: f64) {
        if let Some(rest) = line.strip_prefix("test ")
            && let Some((name, result)) = rest.split_once(" ... ")
        {
            self.section = None;
            self.pending = Some((bare(name).to_owned(), self.last));
            self.result(result, now);
        } else if let Some(name) =
            line.strip_prefix("---- ").and_then(|rest| rest.strip_suffix(" stdout ----"))
        {
            self.section = Some(bare(name).to_owned());
        } else if line.starts_with("test result: ") || matches!(line, "successes:" | "failures:") {
            self.section = None;
        } else if let Some(name) = &self.section {
            let text = self.output.entry(name.clone()).or_default();
            text.push_str(line);
            text.push('\n');
        } else if self.pending.is_some() {
            // A child of the test wrote past the harness.
            self.result(line, now);
        }
    }

    fn result(&mut self, text: &str, now: f64) {
        let text = text.trim();
        let verdict = if text.ends_with("ok") {
            Verdict::Passed
        } else if text.ends_with("FAILED") || text.contains("FAILED: ") {
            Verdict::Failed(String::new())
        } else if let Some(reason) = text.strip_prefix("ignored") {
            let reason = reason.trim_start_matches(',').trim();
            Verdict::Skipped(if reason.is_empty() { "ignored".into() } else { reason.into() })
        } else {
            return;
        };
        if let Some((name, began)) = self.pending.take() {
            self.results.insert(name, (verdict, now - began));
            self.last = now;
        }
    }

    /// Those of `tests` that have not begun.
    pub(crate) fn rest(&self, tests: &[String]) -> Vec<String> {
        let begun = |test: &String| {
            self.results.contains_key(test)
                || self.pending.as_ref().is_some_and(|(name, _)| name == test)
        };
        tests.iter().filter(|test| !begun(test)).cloned().collect()
    }

    /// One outcome for each of `tests`; one that did not report has failed.
    pub(crate) fn finish(mut self, binary: &str, tests: &[String], end: &str) -> Vec<Outcome> {
        let running = self.pending.take().map(|(name, _)| name);
        let outcome = |test: &String| {
            let printed = self.output.get(test).map_or("", String::as_str);
            let (verdict, seconds) = match self.results.get(test) {
                Some((Verdict::Passed, seconds)) => (skip(test, printed), *seconds),
                Some((Verdict::Failed(_), seconds)) => {
                    (Verdict::Failed(printed.to_owned()), *seconds)
                }
                Some((skipped, seconds)) => (skipped.clone(), *seconds),
                None if running.as_ref() == Some(test) => {
                    (Verdict::Failed(format!("the executable ended in it: {end}")), 0.0)
                }
                None => (Verdict::Failed(format!("did not run: the executable ended: {end}")), 0.0),
            };
            Outcome { name: full_name(binary, test), result: verdict, seconds }
        };
        tests.iter().map(outcome).collect()
    }
}

/// A test's name in this front door.
#[must_use]
pub(crate) fn full_name(binary: &str, test: &str) -> String {
    format!("{binary}::{test}")
}

fn bare(name: &str) -> &str {
    name.strip_suffix(" - should panic").unwrap_or(name)
}

/// Passed, unless the test printed that it could not run.
fn skip(test: &str, printed: &str) -> Verdict {
    let Some(line) = printed.lines().find_map(|line| line.strip_prefix(SKIPPED)) else {
        return Verdict::Passed;
    };
    // The test may name itself in full or by its last part.
    let short = test.rsplit("::").next().unwrap_or(test);
    let why = [test, short]
        .iter()
        .find_map(|name| line.strip_prefix(name)?.strip_prefix(": "))
        .unwrap_or(line);
    Verdict::Skipped(why.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str, tests: &[&str]) -> Vec<Outcome> {
        let mut reading = Reading::default();
        for (index, line) in text.lines().enumerate() {
            reading.line(line, index as f64);
        }
        let tests: Vec<String> = tests.iter().map(ToString::to_string).collect();
        reading.finish("p", &tests, "signal: 6")
    }

    const OUTPUT: &str = "\n\
        running 5 tests\n\
        test a::holds ... ok\n\
        test a::breaks ... FAILED\n\
        test a::is_off ... ignored, needs a tape drive\n\
        test a::cannot ... ok\n\
        test a::panics - should panic ... ok\n\
        \n\
        successes:\n\
        \n\
        ---- a::cannot stdout ----\n\
        skipped: cannot: no root\n\
        \n\
        successes:\n    a::cannot\n    a::holds\n\
        \n\
        failures:\n\
        \n\
        ---- a::breaks stdout ----\n\
        left: 1\n\
        right: 2\n\
        \n\
        failures:\n    a::breaks\n\
        \n\
        test result: FAILED. 3 passed; 1 failed; 1 ignored; 0 measured; 0 filtered out\n";
    const NAMES: [&str; 5] = ["a::holds", "a::breaks", "a::is_off", "a::cannot", "a::panics"];

    #[test]
    fn every_way_to_end_is_told_apart() {
        let found = read(OUTPUT, &NAMES);
        assert_eq!(found[0].name, "p::a::holds");
        assert_eq!(found[0].result, Verdict::Passed);
        let Verdict::Failed(printed) = &found[1].result else { panic!("{:?}", found[1]) };
        assert!(printed.contains("left: 1\nright: 2"), "{printed}");
        assert!(!printed.contains("a::breaks"), "{printed}");
        assert_eq!(found[2].result, Verdict::Skipped("needs a tape drive".into()));
        assert_eq!(found[3].result, Verdict::Skipped("no root".into()));
        assert_eq!(found[4].result, Verdict::Passed);
    }

    #[test]
    fn a_test_lasts_from_the_end_of_the_one_before() {
        let found = read(OUTPUT, &NAMES);
        assert!((found[1].seconds - 1.0).abs() < 1e-9, "{found:?}");
    }

    #[test]
    fn a_test_that_takes_the_executable_down_has_failed_and_so_have_the_rest() {
        let found =
            read("running 3 tests\ntest one ... ok\ntest two ... ", &["one", "two", "three"]);
        assert_eq!(found[0].result, Verdict::Passed);
        assert!(matches!(&found[1].result, Verdict::Failed(why) if why.contains("signal: 6")));
        assert!(matches!(&found[2].result, Verdict::Failed(why) if why.contains("did not run")));
    }

    #[test]
    fn an_executable_that_says_less_than_it_announced_has_failed() {
        let found = read("running 2 tests\ntest one ... ok\ntest result: ok.\n", &["one", "two"]);
        assert_eq!(found[0].result, Verdict::Passed);
        assert!(matches!(&found[1].result, Verdict::Failed(why) if why.contains("did not run")));
    }

    /// Stands in for a test executable.
    fn run_script(name: &str, script: &str) -> Result<Vec<Outcome>> {
        let executable = std::env::temp_dir().join(format!("mwb-{name}-{}", std::process::id()));
        crate::exec::write_script(&executable, script)?;
        let directory = std::env::temp_dir();
        let binary = TestBinary { name: "p/tests/t".into(), executable, directory };
        let outcomes = run(&binary, &["one".to_owned()]);
        std::fs::remove_file(&binary.executable)?;
        outcomes
    }

    #[test]
    fn a_bad_end_without_a_failed_test_is_a_failure_of_the_executable() -> Result<()> {
        // The test's child says the word that only the harness ought to say.
        let script = "echo 'test one ... all is ok'; echo FAILED; echo because >&2; exit 101";
        let found = run_script("child", script)?;
        assert_eq!((found.len(), found[1].name.as_str()), (2, "p/tests/t"));
        let Verdict::Failed(why) = &found[1].result else { panic!("{found:?}") };
        assert!(why.contains("101") && why.contains("because"), "{why}");
        let explained = run_script("fails", "echo 'test one ... FAILED'; exit 101")?;
        assert_eq!(explained.len(), 1);
        assert_eq!(run_script("holds", "echo 'test one ... ok'")?.len(), 1);
        Ok(())
    }

    #[test]
    fn noise_of_a_child_does_not_hide_the_result() {
        let found = read("test one ... hello from a child\nok\ntest two ... ok\n", &["one", "two"]);
        assert!(found.iter().all(|one| one.result == Verdict::Passed), "{found:?}");
    }

    #[test]
    fn a_failed_test_that_says_skipped_has_failed() {
        let text = "test one ... FAILED\nfailures:\n---- one stdout ----\nskipped: one: no\n\
                    test result: FAILED.\n";
        assert!(matches!(read(text, &["one"])[0].result, Verdict::Failed(_)));
    }
}
