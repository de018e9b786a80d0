//! Our gateway between the lab's LAN and its WANs, through its binaries and its
//! API.

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
use serde_json::{Value, json};

use crate::build;

use super::{
    Lab, Process,
    address::{INSIDE6, NET4, NET6, outside6},
    api::{Api, Status},
    is_emulated,
    wait::wait_for,
};

/// How long an agent may take until it answers and its WANs are up. An emulated
/// machine puts ten programs before its verifier, on cores that others may use too.
fn start_limit() -> Duration {
    Duration::from_secs(if is_emulated() { 60 } else { 20 })
}
/// How long it may take to stop when asked.
const STOP: Duration = Duration::from_secs(5);

/// The agent's configuration for a lab. JSON is YAML, so what is edited here as
/// a value is written as it is.
#[derive(Clone, Debug, PartialEq)]
pub struct GatewayConfig {
    value: Value,
}

impl GatewayConfig {
    /// All of the lab's WANs with equal weights, IPv4 and IPv6, probes to the
    /// lab's Internet.
    #[must_use]
    pub fn new(lab: &Lab) -> Self {
        let wans: Vec<Value> = (0..lab.wans().len())
            .map(|index| {
                json!({
                    "name": format!("wan{index}"),
                    "device": format!("wan{index}"),
                    "gateway": "auto",
                    "gateway6": "auto",
                    "ipv6_prefix": outside6(index),
                })
            })
            .collect();
        Self {
            value: json!({
                "version": 1,
                "role": "gateway",
                "mode": "steer",
                "hook": "auto",
                "lan": ["lan0"],
                "balance": "per_flow",
                "ipv6_prefix": INSIDE6,
                "wans": wans,
                "failover": {"failback_after": "1s"},
                "health": {
                    "interval": "200ms",
                    "retries": 3,
                    "method": "ping",
                    "targets": [NET4.to_string(), NET6.to_string()],
                },
                "api": {"socket": lab.scratch().join("mwb.sock")},
            }),
        }
    }

    /// Sets a key, named by its place as in `nat.ports` or `wans.0.weight`.
    #[must_use]
    pub fn with(mut self, place: &str, value: impl Into<Value>) -> Self {
        let mut here = &mut self.value;
        for part in place.split('.') {
            here = match part.parse::<usize>() {
                Ok(index) => &mut here[index],
                Err(_) => &mut here[part],
            };
        }
        *here = value.into();
        self
    }

    /// Takes a key away, named as for [`Self::with`].
    #[must_use]
    pub fn without(mut self, place: &str) -> Self {
        let (parent, key) = place.rsplit_once('.').unwrap_or(("", place));
        let pointer: String = parent
            .split('.')
            .filter(|part| !part.is_empty())
            .fold(String::new(), |pointer, part| pointer + "/" + part);
        match self.value.pointer_mut(&pointer) {
            Some(Value::Object(map)) => drop(map.remove(key)),
            Some(Value::Array(list)) => {
                if let Some(index) = key.parse().ok().filter(|&index: &usize| index < list.len()) {
                    list.remove(index);
                }
            }
            _ => {}
        }
        self
    }

    /// What a key is set to, named as for [`Self::with`].
    #[must_use]
    pub fn value(&self, place: &str) -> Option<&Value> {
        self.value.pointer(&format!("/{}", place.replace('.', "/")))
    }

    /// WANs are as well as their next hops, whatever is behind these.
    #[must_use]
    pub fn watching_gateways(self) -> Self {
        self.without("health.targets")
    }

    /// The file's text.
    #[must_use]
    pub fn text(&self) -> String {
        format!("{:#}\n", self.value)
    }

    fn socket(&self) -> Result<PathBuf> {
        let path = self.value["api"]["socket"].as_str().context("the API has a socket")?;
        Ok(PathBuf::from(path))
    }

    /// Name of each WAN, and whether it carries IPv6.
    fn wans(&self) -> Vec<(String, bool)> {
        let rows = self.value["wans"].as_array().map(Vec::as_slice).unwrap_or_default();
        let read = |wan: &Value| {
            Some((wan["name"].as_str()?.to_owned(), wan.get("ipv6_prefix").is_some()))
        };
        rows.iter().filter_map(read).collect()
    }
}

/// A running agent in the lab's `gw`.
#[derive(Debug)]
pub struct Gateway {
    process: Process,
    /// What runs at the next start.
    agent: PathBuf,
    api: Api,
    config: PathBuf,
    instance: String,
    wans: Vec<(String, bool)>,
    listener: Option<TcpListener>,
}

impl Gateway {
    /// Starts the agent and waits until every WAN is up and resolved.
    ///
    /// # Errors
    /// When it does not come up; with its log.
    pub fn start(lab: &Lab, config: &GatewayConfig) -> Result<Self> {
        let mut gateway = Self::launch(lab, config)?;
        gateway.wait_until_up()?;
        Ok(gateway)
    }

    /// Starts the agent and does not wait for anything.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn launch(lab: &Lab, config: &GatewayConfig) -> Result<Self> {
        Self::launch_listening(lab, config, None)
    }

    /// The same with a listening socket for its API, handed in as systemd does:
    /// it may be of another namespace.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn launch_listening(
        lab: &Lab,
        config: &GatewayConfig,
        listener: Option<TcpListener>,
    ) -> Result<Self> {
        let path = lab.scratch().join("gateway.yaml");
        fs::write(&path, config.text()).context("cannot write the configuration")?;
        let instance = lab.prefix().to_owned();
        let agent = build::artifacts()?.agent.clone();
        let process = Self::spawn(lab, &agent, &path, &instance, listener.as_ref())?;
        let api = Api::new(&config.socket()?);
        Ok(Self { process, agent, api, config: path, instance, wans: config.wans(), listener })
    }

    fn spawn(
        lab: &Lab,
        agent: &Path,
        config: &Path,
        instance: &str,
        listener: Option<&TcpListener>,
    ) -> Result<Process> {
        let mut command = match listener {
            None => lab.gw().command(agent),
            Some(listener) => {
                let mut command = lab.gw().command("/bin/sh");
                // The shell becomes the agent, so that its process id is right.
                command.arg("-c").arg("LISTEN_PID=$$ LISTEN_FDS=1 exec \"$0\" \"$@\"").arg(agent);
                hand_in(&mut command, listener);
                command
            }
        };
        command.arg("--config").arg(config).args(["--instance", instance]);
        // The log is for reading in a failure.
        command.env("RUST_BACKTRACE", "0").env("NO_COLOR", "1");
        Process::spawn(command, lab.scratch())
    }

    /// Waits until the agent answers, every WAN is up and its next hops known.
    ///
    /// # Errors
    /// When that takes too long, or the agent ends; with its log.
    pub fn wait_until_up(&mut self) -> Result<()> {
        let wans = self.wans.clone();
        self.wait_for_status("every WAN is up and resolved", start_limit(), |status| {
            wans.iter().all(|(name, v6)| {
                status.wans.iter().any(|wan| {
                    wan.name == *name
                        && wan.state == "up"
                        && wan.next_hop4
                        && (wan.next_hop6 || !v6)
                })
            })
        })
        .map(drop)
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
    pub fn rewrite(&mut self, config: &GatewayConfig) -> Result<()> {
        fs::write(&self.config, config.text()).context("cannot write the configuration")?;
        self.wans = config.wans();
        Ok(())
    }

    /// The file it was started with.
    #[must_use]
    pub fn config_file(&self) -> &Path {
        &self.config
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

    /// Starts the agent again with the same configuration and instance, and
    /// waits until it is up.
    ///
    /// # Errors
    /// When it does not come up.
    pub fn restart(&mut self, lab: &Lab) -> Result<()> {
        self.process.kill()?;
        let Self { agent, config, instance, listener, .. } = self;
        self.process = Self::spawn(lab, agent, config, instance, listener.as_ref())?;
        self.wait_until_up()
    }

    /// Has another build of the agent run from the next start on.
    pub fn change_agent(&mut self, agent: PathBuf) {
        self.agent = agent;
    }

    /// Removes the data plane, as `mwb-agent --detach` does.
    ///
    /// # Errors
    /// When it fails; with what it said.
    pub fn detach(&self, lab: &Lab) -> Result<String> {
        let program = &build::artifacts()?.agent;
        lab.gw().run(&program.to_string_lossy(), ["--detach", "--instance", &self.instance])
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
