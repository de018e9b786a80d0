//! Cleans up after a lab however it ends.
//!
//! The janitor is a process in a session of its own that holds the read end of
//! a pipe. Everything that has to go is announced on the pipe *before* it is
//! made; when the last writer is gone (drop, panic, SIGINT, SIGKILL of the
//! whole run) it ends the processes in the announced namespaces and removes the
//! namespaces, the pinned programs and the scratch directory.

use std::{
    fs,
    io::{BufRead as _, BufReader, Write as _},
    os::unix::{fs::MetadataExt as _, process::CommandExt as _},
    path::{Path, PathBuf},
    process::{Child, ChildStdin, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result};
use nix::{
    sys::signal::{Signal, kill},
    unistd::{Pid, setsid},
};
use serde::{Deserialize, Serialize};

/// First argument of the janitor's command line.
pub(super) const COMMAND: &str = "lab-janitor";

/// How long processes may take to die.
const PATIENCE: Duration = Duration::from_secs(5);

/// Something to remove at the end.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Litter {
    /// A named network namespace and the processes in it.
    Namespace(String),
    /// A directory and all that is in it.
    Directory(PathBuf),
}

/// Our end of the pipe. Dropping it makes the janitor work, and waits for it.
#[derive(Debug)]
pub(super) struct Janitor {
    child: Child,
    pipe: Option<ChildStdin>,
    announced: Vec<Litter>,
}

impl Janitor {
    /// Starts the janitor.
    pub(super) fn start() -> Result<Self> {
        let mut command = super::helper_command(COMMAND);
        command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null());
        leave_session(&mut command);
        let mut child = command.spawn().context("cannot start the lab's janitor")?;
        let pipe = child.stdin.take();
        Ok(Self { child, pipe, announced: Vec::new() })
    }

    /// Says what will have to go. To be called before it is made.
    pub(super) fn announce(&mut self, litter: Litter) -> Result<()> {
        let mut line = serde_json::to_string(&litter).context("litter is plain data")?;
        line.push('\n');
        let pipe = self.pipe.as_mut().context("the janitor has been sent to work")?;
        pipe.write_all(line.as_bytes()).context("the lab's janitor is gone")?;
        self.announced.push(litter);
        Ok(())
    }

    /// Process id, for tests.
    pub(super) fn id(&self) -> u32 {
        self.child.id()
    }
}

impl Drop for Janitor {
    fn drop(&mut self) {
        drop(self.pipe.take());
        let swept = self.child.wait().is_ok_and(|status| status.success());
        if !swept {
            // Somebody ended the janitor: do its work here.
            sweep(&self.announced);
        }
    }
}

/// The janitor's own session: the terminal's Ctrl-C does not reach it.
fn leave_session(command: &mut Command) {
    // SAFETY: between fork and exec only `setsid` is called, which is
    // async-signal-safe.
    unsafe {
        command.pre_exec(|| setsid().map(drop).map_err(Into::into));
    }
}

/// The janitor process: collects announcements until the pipe ends, then sweeps.
pub(super) fn main() -> Result<()> {
    let mut litter = Vec::new();
    for line in BufReader::new(std::io::stdin()).lines() {
        // A line that was cut off by a kill announces something not yet made.
        let Ok(line) = line else { break };
        if let Ok(item) = serde_json::from_str(&line) {
            litter.push(item);
        }
    }
    sweep(&litter);
    Ok(())
}

/// Removes everything that was announced, as far as it is there.
fn sweep(litter: &[Litter]) {
    let names: Vec<&str> = litter
        .iter()
        .filter_map(|item| match item {
            Litter::Namespace(name) => Some(name.as_str()),
            Litter::Directory(_) => None,
        })
        .collect();
    end_processes(&names);
    for item in litter {
        // Best effort throughout: what is not there need not go.
        match item {
            Litter::Namespace(name) => {
                let _ = Command::new("ip").args(["netns", "delete", name]).output();
            }
            Litter::Directory(path) => {
                let _ = fs::remove_dir_all(path);
            }
        }
    }
}

/// Kills what runs in the namespaces, by process id, until nothing does.
fn end_processes(names: &[&str]) {
    let inodes: Vec<u64> = names
        .iter()
        .filter_map(|name| fs::metadata(Path::new("/run/netns").join(name)).ok())
        .map(|metadata| metadata.ino())
        .collect();
    let start = Instant::now();
    while start.elapsed() < PATIENCE {
        let inside = processes_in(&inodes);
        if inside.is_empty() {
            return;
        }
        for process in inside {
            let _ = kill(process, Signal::SIGKILL);
        }
        thread::sleep(Duration::from_millis(5));
    }
}

/// Processes whose network namespace is one of `inodes`.
fn processes_in(inodes: &[u64]) -> Vec<Pid> {
    let Ok(entries) = fs::read_dir("/proc") else { return Vec::new() };
    entries
        .flatten()
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
        .filter(|pid: &i32| {
            fs::metadata(format!("/proc/{pid}/ns/net"))
                .is_ok_and(|metadata| inodes.contains(&metadata.ino()))
        })
        .map(Pid::from_raw)
        .collect()
}
