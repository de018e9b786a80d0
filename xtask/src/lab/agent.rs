//! An agent in a namespace of the lab, through its binaries and its API.

use std::{
    fs,
    net::TcpListener,
    os::{fd::AsRawFd as _, unix::process::CommandExt as _},
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use anyhow::{Context as _, Result, bail, ensure};
use nix::sys::signal::Signal;

use crate::build;

use super::{
    Namespace, Process,
    api::{Api, Status},
    config::AgentConfig,
    wait::wait_for,
};

/// How long it may take to stop when asked.
const STOP: Duration = Duration::from_secs(5);

/// A running agent.
#[derive(Debug)]
pub struct Agent {
    process: Process,
    /// What runs at the next start.
    program: PathBuf,
    place: Namespace,
    api: Api,
    config: PathBuf,
    instance: String,
    listener: Option<TcpListener>,
}

impl Agent {
    /// Starts it in `place` with `config` in a file of this name, and does not wait
    /// for anything. The socket, if one is given, is for its API and handed in as
    /// systemd does: it may be of another namespace.
    pub(super) fn launch(
        place: &Namespace,
        instance: String,
        file: &str,
        config: &AgentConfig,
        listener: Option<TcpListener>,
    ) -> Result<Self> {
        let path = place.scratch().join(file);
        fs::write(&path, config.text()).context("cannot write the configuration")?;
        let program = build::artifacts()?.agent.clone();
        let process = spawn(place, &program, &path, &instance, listener.as_ref())?;
        let api = Api::new(&config.socket()?);
        Ok(Self { process, program, place: place.clone(), api, config: path, instance, listener })
    }

    /// Waits for a status with some property; gives it and the time it took.
    ///
    /// # Errors
    /// When there is none in time, or the agent ends; with the last status and
    /// the agent's log.
    pub fn wait_for_status(
        &mut self,
        what: &str,
        deadline: Duration,
        mut holds: impl FnMut(&Status) -> bool,
    ) -> Result<(Status, Duration)> {
        let mut last = None;
        let mut ended = false;
        let found = wait_for(what, deadline, || {
            if !self.process.is_running()? {
                ended = true;
                bail!("the agent has ended");
            }
            let status = self.api.status()?;
            let good = holds(&status);
            last = Some(status.clone());
            Ok(good.then_some(status))
        });
        found.with_context(|| {
            let status = last.map_or_else(|| "none".to_owned(), |status| format!("{status:#?}"));
            format!(
                "last status: {status}\nended: {ended}\nits threads:\n{}the agent's log:\n{}",
                self.process.threads(),
                self.process.log()
            )
        })
    }

    /// Gives it another configuration to read when it is next asked to.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn rewrite(&mut self, config: &AgentConfig) -> Result<()> {
        fs::write(&self.config, config.text()).context("cannot write the configuration")
    }

    /// The file it was started with.
    #[must_use]
    pub fn config_file(&self) -> &Path {
        &self.config
    }

    /// Its instance name.
    #[must_use]
    pub fn instance(&self) -> &str {
        &self.instance
    }

    /// Where it runs.
    #[must_use]
    pub fn place(&self) -> &Namespace {
        &self.place
    }

    /// Client of its API.
    #[must_use]
    pub fn api(&self) -> &Api {
        &self.api
    }

    /// What it has logged.
    #[must_use]
    pub fn log(&self) -> String {
        self.process.log()
    }

    /// The process.
    pub fn process(&mut self) -> &mut Process {
        &mut self.process
    }

    /// Asks the agent to stop; the data plane stays.
    ///
    /// # Errors
    /// When it does not stop, or fails at it.
    pub fn stop(&mut self) -> Result<()> {
        let status = self.process.stop(STOP)?;
        ensure!(status.success(), "the agent ended with {status}:\n{}", self.process.log());
        Ok(())
    }

    /// Ends the agent at once; the data plane stays.
    ///
    /// # Errors
    /// When it has ended before.
    pub fn kill(&mut self) -> Result<()> {
        self.process.signal(Signal::SIGKILL)?;
        self.process.wait(STOP).map(drop)
    }

    /// Starts the agent again with the same configuration and instance, and does not
    /// wait for anything. Ends it first if it still runs.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn relaunch(&mut self) -> Result<()> {
        self.process.kill()?;
        let Self { program, place, config, instance, listener, .. } = self;
        self.process = spawn(place, program, config, instance, listener.as_ref())?;
        Ok(())
    }

    /// Has another build of the agent run from the next start on.
    pub fn change_agent(&mut self, program: PathBuf) {
        self.program = program;
    }

    /// Removes the data plane, as `mwb-agent --detach` does.
    ///
    /// # Errors
    /// When it fails; with what it said.
    pub fn remove_data_plane(&self) -> Result<String> {
        let program = &build::artifacts()?.agent;
        self.place.run(&program.to_string_lossy(), ["--detach", "--instance", &self.instance])
    }

    /// Runs the operator's command against it.
    ///
    /// # Errors
    /// When it fails; with what it said.
    pub fn mwb(&self, arguments: &[&str]) -> Result<String> {
        super::namespace::output_of(self.mwb_command(arguments)?, "against the gateway")
    }

    /// The operator's command against it, not started yet.
    ///
    /// # Errors
    /// When it was not built.
    pub fn mwb_command(&self, arguments: &[&str]) -> Result<Command> {
        let mut command = Command::new(&build::artifacts()?.mwb);
        command.arg("--socket").arg(self.api.socket()).args(arguments).env("NO_COLOR", "1");
        Ok(command)
    }
}

fn spawn(
    place: &Namespace,
    program: &Path,
    config: &Path,
    instance: &str,
    listener: Option<&TcpListener>,
) -> Result<Process> {
    let mut command = match listener {
        None => place.command(program),
        Some(listener) => {
            let mut command = place.command("/bin/sh");
            // The shell becomes the agent, so that its process id is right.
            command.arg("-c").arg("LISTEN_PID=$$ LISTEN_FDS=1 exec \"$0\" \"$@\"").arg(program);
            hand_in(&mut command, listener);
            command
        }
    };
    command.arg("--config").arg(config).args(["--instance", instance]);
    // The log is for reading in a failure.
    command.env("RUST_BACKTRACE", "0").env("NO_COLOR", "1");
    Process::spawn(command, place.scratch())
}

/// Gives a command the socket as its descriptor 3, the first that systemd hands in.
fn hand_in(command: &mut Command, listener: &TcpListener) {
    const FIRST: libc::c_int = 3;
    let fd = listener.as_raw_fd();
    // SAFETY: between fork and exec only `dup2` and `fcntl` are called, which
    // are async-signal-safe; the listener outlives the spawn, which its caller
    // does while holding it.
    unsafe {
        command.pre_exec(move || {
            // dup2 onto itself would keep the flag that closes it.
            let result =
                if fd == FIRST { libc::fcntl(fd, libc::F_SETFD, 0) } else { libc::dup2(fd, FIRST) };
            if result < 0 { Err(std::io::Error::last_os_error()) } else { Ok(()) }
        });
    }
}
