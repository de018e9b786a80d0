//! Running other programs: quick questions, and long steps that show that they
//! are alive. Knows nothing of what the programs do.

use std::collections::VecDeque;
use std::fmt;
use std::io::{BufRead as _, BufReader, IsTerminal as _, Read, Write as _};
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};

/// Lines of a failed step that are shown again.
const TAIL: usize = 60;
/// How often a step says that it is alive where no terminal is.
const QUIET_PERIOD: Duration = Duration::from_secs(15);

/// A step took longer than it may.
#[derive(Debug)]
pub struct Overdue {
    what: String,
    limit: Duration,
    tail: String,
}

impl fmt::Display for Overdue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { what, limit, tail } = self;
        write!(f, "{what}: not done after {} s\n{tail}", limit.as_secs())
    }
}

impl std::error::Error for Overdue {}

/// Standard output of a quick command, or `None` if it cannot be run or fails.
#[must_use]
pub fn ask(program: impl AsRef<std::ffi::OsStr>, arguments: &[&str]) -> Option<String> {
    let output = Command::new(program).args(arguments).stdin(Stdio::null()).output().ok()?;
    output.status.success().then(|| String::from_utf8_lossy(&output.stdout).into_owned())
}

/// The file that `name` stands for on [`search_path`].
#[must_use]
pub fn find(name: &str) -> Option<PathBuf> {
    search_path().into_iter().map(|directory| directory.join(name)).find(|file| file.is_file())
}

/// The search path, and what a login may have left out of it: where
/// `cargo install` puts programs, and where Debian keeps network tools.
#[must_use]
pub fn search_path() -> Vec<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let mut directories: Vec<PathBuf> = std::env::split_paths(&path).collect();
    let cargo_home = std::env::var_os("CARGO_HOME")
        .map(PathBuf::from)
        .or_else(|| std::env::var_os("HOME").map(|home| PathBuf::from(home).join(".cargo")));
    directories.extend(cargo_home.map(|home| home.join("bin")));
    directories.extend(["/usr/sbin".into(), "/sbin".into()]);
    directories
}

/// Runs a step that may take long, showing elapsed time and its latest line.
///
/// # Errors
/// When it cannot be started, fails (with its last lines), or takes longer than
/// `limit` ([`Overdue`]).
pub fn run_step(what: &str, command: &mut Command, limit: Duration) -> Result<()> {
    watch(what, command, limit, |_| {})
}

/// As [`run_step`], handing each line of standard output to `on_line`.
///
/// # Errors
/// As [`run_step`].
pub fn watch(
    what: &str,
    command: &mut Command,
    limit: Duration,
    mut on_line: impl FnMut(&str),
) -> Result<()> {
    let mut progress = Progress::start(what);
    let mut child = command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .with_context(|| format!("{what}: cannot start {:?}", command.get_program()))?;
    let (sender, lines) = mpsc::channel();
    let out = child.stdout.take().context("standard output is not piped")?;
    let error = child.stderr.take().context("standard error is not piped")?;
    let readers =
        [forward(out, sender.clone(), Source::Out), forward(error, sender, Source::Error)];

    let mut tail = VecDeque::new();
    let deadline = Instant::now() + limit;
    loop {
        match lines.recv_timeout(Duration::from_millis(500)) {
            Ok((source, line)) => {
                if source == Source::Out {
                    on_line(&line);
                }
                if let Some(text) = readable(&line) {
                    progress.line(text);
                    if !is_progress(text) {
                        tail.push_back(line);
                        if tail.len() > TAIL {
                            tail.pop_front();
                        }
                    }
                }
            }
            Err(RecvTimeoutError::Timeout) => progress.beat(),
            Err(RecvTimeoutError::Disconnected) => break,
        }
        if Instant::now() > deadline {
            child.kill().ok();
            child.wait().ok();
            progress.end("gave up");
            return Err(Overdue { what: what.to_owned(), limit, tail: join(&tail) }.into());
        }
    }
    for reader in readers {
        reader.join().ok();
    }
    let status = child.wait().with_context(|| format!("{what}: lost"))?;
    if status.success() {
        progress.end("done");
        return Ok(());
    }
    progress.end("failed");
    bail!("{what}: {status}\n{}", join(&tail))
}

/// Writes a script that stands in for a program. By another process: what any child of
/// this one has open for writing cannot be started.
#[cfg(test)]
pub(crate) fn write_script(path: &std::path::Path, script: &str) -> Result<()> {
    let write = r#"printf '#!/bin/sh\n%s\n' "$1" > "$0" && chmod 755 "$0""#;
    let status = Command::new("sh").args(["-c", write]).arg(path).arg(script).status()?;
    anyhow::ensure!(status.success(), "cannot write {}", path.display());
    Ok(())
}

/// What of a line is for people; `None` for machine-readable and empty lines.
fn readable(line: &str) -> Option<&str> {
    // A build script's own build comes out as warnings of its package.
    let text = match line.strip_prefix("warning: ").and_then(|rest| rest.split_once(": ")) {
        Some((package, text)) if package.contains('@') => text,
        _ => line,
    };
    (!text.starts_with('{') && !text.trim().is_empty()).then_some(text)
}

/// Cargo telling what it does, which explains no failure.
fn is_progress(text: &str) -> bool {
    ["Compiling", "Checking", "Finished", "Downloading", "Downloaded", "Locking", "Updating"]
        .iter()
        .any(|word| text.trim_start().starts_with(&format!("{word} ")))
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Source {
    Out,
    Error,
}

fn forward(
    pipe: impl Read + Send + 'static,
    sender: mpsc::Sender<(Source, String)>,
    source: Source,
) -> thread::JoinHandle<()> {
    thread::spawn(move || {
        // Split at line feeds only: progress bars redraw with carriage returns.
        for line in BufReader::new(pipe).split(b'\n').map_while(Result::ok) {
            let text = String::from_utf8_lossy(&line);
            let last = text.trim_end_matches('\r').rsplit('\r').next().unwrap_or_default();
            if sender.send((source, last.to_owned())).is_err() {
                break;
            }
        }
    })
}

fn join(tail: &VecDeque<String>) -> String {
    tail.iter().map(|line| format!("    {line}\n")).collect()
}

/// One line on standard error that shows that something is going on.
pub struct Progress {
    what: String,
    started: Instant,
    shown: Instant,
    latest: String,
    terminal: bool,
}

impl Progress {
    /// Says what begins.
    #[must_use]
    pub fn start(what: &str) -> Progress {
        let terminal = std::io::stderr().is_terminal();
        if !terminal {
            eprintln!("      {what} ...");
        }
        let now = Instant::now();
        Progress {
            what: what.to_owned(),
            started: now,
            shown: now,
            latest: String::new(),
            terminal,
        }
    }

    fn line(&mut self, line: &str) {
        line.trim().clone_into(&mut self.latest);
        self.beat();
    }

    fn beat(&mut self) {
        let period = if self.terminal { Duration::from_millis(200) } else { QUIET_PERIOD };
        if self.shown.elapsed() < period {
            return;
        }
        self.shown = Instant::now();
        let seconds = self.started.elapsed().as_secs();
        let latest: String = self.latest.chars().take(70).collect();
        if self.terminal {
            eprint!("\r\x1b[2K      {} [{seconds} s] {latest}", self.what);
            std::io::stderr().flush().ok();
        } else {
            eprintln!("      {} [{seconds} s] {latest}", self.what);
        }
    }

    fn end(&self, how: &str) {
        let clear = if self.terminal { "\r\x1b[2K" } else { "" };
        eprintln!(
            "{clear}      {}: {how} in {:.1} s",
            self.what,
            self.started.elapsed().as_secs_f64()
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMIT: Duration = Duration::from_secs(20);

    fn shell(script: &str) -> Command {
        let mut command = Command::new("sh");
        command.args(["-c", script]);
        command
    }

    #[test]
    fn a_step_hands_over_every_line_of_standard_output_and_no_other() -> Result<()> {
        let mut seen = Vec::new();
        let mut command = shell("echo one; echo noise >&2; printf 'bar 1\\rbar 2\\n'");
        watch("say", &mut command, LIMIT, |line| seen.push(line.to_owned()))?;
        assert_eq!(seen, ["one", "bar 2"]);
        Ok(())
    }

    #[test]
    fn a_failed_step_shows_its_last_lines() {
        let failed = run_step("break", &mut shell("echo because >&2; exit 3"), LIMIT);
        let text = failed.err().map_or_else(String::new, |error| error.to_string());
        assert!(text.contains("because") && text.contains('3'), "{text}");
    }

    #[test]
    fn a_kernel_side_build_reads_like_any_other() {
        let line = "warning: mwb-agent@0.1.0:    Compiling aya-ebpf v0.2.1";
        assert_eq!(readable(line).map(str::trim), Some("Compiling aya-ebpf v0.2.1"));
        assert_eq!(readable("warning: unused import: `x`"), Some("warning: unused import: `x`"));
        assert_eq!(readable("{\"reason\":\"x\"}"), None);
    }

    #[test]
    fn what_explains_a_failure_is_not_pushed_out_by_progress() {
        let script =
            "echo error: the cause >&2; for i in $(seq 200); do echo '   Compiling a'; done; false";
        let failed = run_step("break", &mut shell(script), LIMIT);
        assert!(failed.is_err_and(|error| error.to_string().contains("the cause")));
    }

    #[test]
    fn a_step_that_hangs_is_ended_at_its_limit() {
        let started = Instant::now();
        let ended = run_step("hang", Command::new("sleep").arg("60"), Duration::from_millis(100));
        assert!(ended.is_err_and(|error| error.is::<Overdue>()));
        assert!(started.elapsed() < LIMIT);
    }
}
