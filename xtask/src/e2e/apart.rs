//! A test in a process of its own: what it prints is not among what others print, one that
//! hangs is ended, and whatever comes to an end with it ends no other.
//!
//! Must not know: which tests run beside it.

use std::{
    ffi::OsString,
    io::{self, BufRead as _, BufReader},
    os::unix::process::CommandExt as _,
    process::{Command, Stdio},
    sync::mpsc::{self, RecvTimeoutError},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result};

use super::{Case, cases, is_whole};
use crate::{
    build::{self, Artifacts},
    outcome::{Outcome, Verdict},
};

/// First argument of such a process.
pub(super) const COMMAND: &str = "lab-test";
/// What the last line of its output starts with.
const MARK: &str = "lab-test has ended: ";

/// What became of a test.
#[derive(Clone, Debug, PartialEq)]
pub struct Ran {
    /// How it ended. A failure holds what was printed.
    pub outcome: Outcome,
    /// What it printed.
    pub printed: String,
}

/// Longest time that a test may take.
fn limit() -> Duration {
    Duration::from_secs(if is_whole() { 3600 } else { 300 })
}

impl Case {
    /// Runs it in a process of its own, which ends with the thread that called this.
    #[must_use]
    pub fn run_apart(&self) -> Ran {
        let started = Instant::now();
        let told = command(self.name()).and_then(|mut command| watch(&mut command, limit()));
        let told =
            told.unwrap_or_else(|error| Told { why: format!("{error:#}"), ..Told::default() });
        told.judge(self.name(), started.elapsed())
    }
}

/// This program again, to run one test.
fn command(name: &str) -> Result<Command> {
    let made = build::artifacts()?;
    let mut command = Command::new("/proc/self/exe");
    command.arg0("xtask").arg(COMMAND);
    command.args([&made.agent, &made.mwb, &made.objects_dir]).arg(name);
    Ok(command)
}

/// The process: runs the test that its command line names, and says how it ended.
pub(super) fn main(mut arguments: impl Iterator<Item = OsString>) -> Result<()> {
    let mut next = |what: &str| arguments.next().with_context(|| format!("no {what}"));
    build::provide(Artifacts {
        agent: next("agent")?.into(),
        mwb: next("command")?.into(),
        objects_dir: next("directory of objects")?.into(),
    });
    let name = next("name of a test")?;
    let case = cases().into_iter().find(|case| name == case.name());
    let outcome = case.with_context(|| format!("no test {}", name.display()))?.outcome();
    // On a line of its own, whatever the test printed last.
    println!("\n{MARK}{}", serde_json::to_string(&outcome)?);
    Ok(())
}

/// What a process has told.
#[derive(Debug, Default)]
struct Told {
    outcome: Option<Outcome>,
    printed: String,
    /// Why its outcome is not to be believed, or missing.
    why: String,
}

impl Told {
    fn line(&mut self, line: &str) {
        match line.strip_prefix(MARK).and_then(|text| serde_json::from_str(text).ok()) {
            Some(outcome) => self.outcome = Some(outcome),
            None => {
                self.printed.push_str(line);
                self.printed.push('\n');
            }
        }
    }

    fn judge(self, name: &str, took: Duration) -> Ran {
        let printed = self.printed.trim_end().to_owned();
        let mut outcome = self.outcome.unwrap_or_else(|| Outcome {
            name: name.to_owned(),
            result: Verdict::Failed("it has not said how it ended".to_owned()),
            seconds: took.as_secs_f64(),
        });
        if !self.why.is_empty() {
            let said = match outcome.result {
                Verdict::Failed(why) => format!("; {why}"),
                Verdict::Passed | Verdict::Skipped(_) => String::new(),
            };
            outcome.result = Verdict::Failed(format!("{}{said}", self.why));
        }
        if let Verdict::Failed(why) = &mut outcome.result
            && !printed.is_empty()
        {
            *why = format!("{printed}\n{why}");
        }
        Ran { outcome, printed }
    }
}

/// Reads what a process prints until it has told its outcome, has ended, or has taken
/// `limit`.
fn watch(command: &mut Command, limit: Duration) -> Result<Told> {
    let (reader, writer) = io::pipe().context("no pipe")?;
    command.stdin(Stdio::null()).stdout(writer.try_clone()?).stderr(writer);
    end_with_this_thread(command);
    let mut child = command.spawn().context("cannot start a process for a test")?;
    // Or our own ends of the pipe would keep it open.
    command.stdout(Stdio::null()).stderr(Stdio::null());
    let (sender, lines) = mpsc::channel();
    thread::spawn(move || {
        for line in BufReader::new(reader).split(b'\n').map_while(Result::ok) {
            if sender.send(String::from_utf8_lossy(&line).into_owned()).is_err() {
                break;
            }
        }
    });
    let deadline = Instant::now() + limit;
    let mut told = Told::default();
    while told.outcome.is_none() {
        match lines.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
            Ok(line) => told.line(&line),
            Err(RecvTimeoutError::Disconnected) => break,
            Err(RecvTimeoutError::Timeout) => {
                // Its labs go all the same: their janitors are processes of their own.
                child.kill().ok();
                told.why = format!("not done after {} s, and ended", limit.as_secs_f64());
                break;
            }
        }
    }
    let status = child.wait().context("lost the process of a test")?;
    if told.why.is_empty() && !status.success() {
        told.why = format!("its process has ended with {status}");
    }
    Ok(told)
}

/// Nobody is left over who goes on with a test when this program is killed.
fn end_with_this_thread(command: &mut Command) {
    // SAFETY: between fork and exec only `prctl` is called, which is async-signal-safe.
    unsafe {
        command.pre_exec(|| {
            let signal = libc::SIGKILL as libc::c_ulong;
            if libc::prctl(libc::PR_SET_PDEATHSIG, signal) == 0 {
                Ok(())
            } else {
                Err(io::Error::last_os_error())
            }
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMIT: Duration = Duration::from_secs(20);

    fn ran(script: &str, limit: Duration) -> Ran {
        let mut command = Command::new("sh");
        command.args(["-c", script]);
        watch(&mut command, limit).expect("a shell").judge("e2e/x", Duration::from_secs(1))
    }

    fn ends(result: Verdict) -> String {
        let outcome = Outcome { name: "e2e/x".into(), result, seconds: 2.0 };
        format!("printf '%s\\n' '{MARK}{}'", serde_json::to_string(&outcome).expect("JSON"))
    }

    #[test]
    fn an_outcome_is_told_apart_from_what_is_printed() {
        let script =
            format!("echo one; echo two >&2; printf 'three\\n'; {}", ends(Verdict::Passed));
        let found = ran(&script, LIMIT);
        assert_eq!(found.outcome.result, Verdict::Passed);
        assert!((found.outcome.seconds - 2.0).abs() < 1e-9);
        assert_eq!(found.printed, "one\ntwo\nthree");
    }

    #[test]
    fn a_failure_holds_what_was_printed() {
        let script = format!("echo evidence; {}", ends(Verdict::Failed("because".into())));
        let Verdict::Failed(why) = ran(&script, LIMIT).outcome.result else { panic!("passed") };
        assert_eq!(why, "evidence\nbecause");
    }

    #[test]
    fn a_process_that_says_nothing_has_failed_with_how_it_ended() {
        let Verdict::Failed(why) = ran("echo last words; kill -9 $$", LIMIT).outcome.result else {
            panic!("passed")
        };
        assert!(why.contains("last words") && why.contains("signal: 9"), "{why}");
    }

    #[test]
    fn an_outcome_before_a_bad_end_is_not_believed() {
        let script = format!("{}; exit 3", ends(Verdict::Passed));
        let Verdict::Failed(why) = ran(&script, LIMIT).outcome.result else { panic!("passed") };
        assert!(why.contains('3'), "{why}");
    }

    #[test]
    fn a_process_that_hangs_is_ended_at_the_limit() {
        let started = Instant::now();
        let found = ran("echo begun; exec sleep 60", Duration::from_millis(300));
        let Verdict::Failed(why) = found.outcome.result else { panic!("passed") };
        assert!(why.contains("not done after 0.3 s") && why.contains("begun"), "{why}");
        assert!(started.elapsed() < LIMIT);
    }
}
