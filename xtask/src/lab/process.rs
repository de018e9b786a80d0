//! A process beside us: its output in a file, killed when the handle goes.
//!
//! `PR_SET_PDEATHSIG` is not used: it fires when the *thread* that forked ends,
//! and would kill the processes of a lab that was built on another thread. What
//! outlives us is ended by the janitor, by namespace, grandchildren included.

use std::{
    fs::{self, File},
    os::unix::process::ExitStatusExt as _,
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    sync::atomic::{AtomicU32, Ordering},
    time::Duration,
};

use anyhow::{Context as _, Result, bail};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};

use super::wait::wait_until;

/// A running process.
#[derive(Debug)]
pub struct Process {
    child: Child,
    name: String,
    log: PathBuf,
    ended: Option<ExitStatus>,
}

impl Process {
    /// Starts `command` with both outputs in one log under `scratch`. Standard
    /// input stays what the command set, else it is empty.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn spawn(mut command: Command, scratch: &Path) -> Result<Self> {
        Self::spawn_with_input(&mut command, scratch, Stdio::null())
    }

    /// As [`Self::spawn`], with `input` as standard input.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn spawn_with_input(command: &mut Command, scratch: &Path, input: Stdio) -> Result<Self> {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let program = Path::new(command.get_program());
        let name =
            program.file_name().unwrap_or(program.as_os_str()).to_string_lossy().into_owned();
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let log = scratch.join(format!("{number:03}-{name}.log"));
        let file = File::create(&log).with_context(|| format!("no log {}", log.display()))?;
        let child = command
            .stdin(input)
            .stdout(file.try_clone()?)
            .stderr(file)
            .spawn()
            .with_context(|| format!("cannot start {command:?}"))?;
        Ok(Self { child, name, log, ended: None })
    }

    /// Process id.
    #[must_use]
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// What it has printed so far.
    #[must_use]
    pub fn log(&self) -> String {
        fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// What each of its threads does at this moment: name, state, and where in the
    /// kernel it waits. For people who look into why it does not answer.
    #[must_use]
    pub fn threads(&self) -> String {
        let tasks = fs::read_dir(format!("/proc/{}/task", self.id())).into_iter().flatten();
        let of = |task: PathBuf| {
            let read = |name| fs::read_to_string(task.join(name)).unwrap_or_default();
            let status = read("status");
            let lines = ["Name:", "State:", "voluntary", "nonvoluntary"];
            let is_one = |line: &&str| lines.iter().any(|start| line.starts_with(start));
            let said: Vec<&str> = status.lines().filter(is_one).collect();
            format!("{}\n{}", said.join(", "), read("stack"))
        };
        tasks.flatten().map(|task| of(task.path())).collect()
    }

    /// Whether it still runs.
    ///
    /// # Errors
    /// When its state cannot be read.
    pub fn is_running(&mut self) -> Result<bool> {
        if self.ended.is_none() {
            self.ended = self.child.try_wait().context("cannot look at a process")?;
        }
        Ok(self.ended.is_none())
    }

    /// Sends a signal.
    ///
    /// # Errors
    /// When it has ended already.
    pub fn signal(&mut self, signal: Signal) -> Result<()> {
        if !self.is_running()? {
            bail!("{} has ended already:\n{}", self.name, self.log());
        }
        kill(Pid::from_raw(self.child.id().cast_signed()), signal)
            .with_context(|| format!("cannot signal {}", self.name))
    }

    /// Waits for its end.
    ///
    /// # Errors
    /// When it still runs after `deadline`.
    pub fn wait(&mut self, deadline: Duration) -> Result<ExitStatus> {
        let what = format!("{} ends", self.name);
        wait_until(&what, deadline, || Ok(!self.is_running()?))?;
        self.ended.context("it has ended")
    }

    /// Waits for its end and expects success.
    ///
    /// # Errors
    /// When it fails or does not end in time; the error holds its output.
    pub fn finish(&mut self, deadline: Duration) -> Result<String> {
        let status = self.wait(deadline).with_context(|| self.log())?;
        if !status.success() {
            bail!("{} failed ({status}):\n{}", self.name, self.log());
        }
        Ok(self.log())
    }

    /// Asks it to end (SIGTERM) and waits; kills it when it does not.
    ///
    /// # Errors
    /// When it had to be killed.
    pub fn stop(&mut self, deadline: Duration) -> Result<ExitStatus> {
        if self.is_running()? {
            self.signal(Signal::SIGTERM)?;
        }
        match self.wait(deadline) {
            Ok(status) => Ok(status),
            Err(error) => {
                self.kill()?;
                Err(error.context(format!(
                    "{} did not stop when asked:\n{}",
                    self.name,
                    self.log()
                )))
            }
        }
    }

    /// Ends it at once (SIGKILL).
    ///
    /// # Errors
    /// When it cannot be waited for.
    pub fn kill(&mut self) -> Result<()> {
        if self.ended.is_none() {
            // It may end by itself between the look and the kill.
            let _ = self.child.kill();
            self.ended = Some(self.child.wait().context("cannot wait for a process")?);
        }
        Ok(())
    }

    /// The signal that ended it, if one did.
    #[must_use]
    pub fn ended_by(&self) -> Option<i32> {
        self.ended.and_then(|status| status.signal())
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // Nothing can be done here about a process that cannot be killed; the
        // janitor tries again.
        let _ = self.kill();
    }
}
