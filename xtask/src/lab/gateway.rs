//! The gateways that stand between the lab's LAN and its WANs: ours, through
//! its binaries and its API, and plain Linux to prove the tests by and to
//! measure against.

use std::{
    fs,
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
    wait::{wait_for, wait_until},
};

/// How long an agent may take until it answers and its WANs are up.
const START: Duration = Duration::from_secs(20);
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

    /// The file's text.
    #[must_use]
    pub fn text(&self) -> String {
        format!("{:#}\n", self.value)
    }

    fn socket(&self) -> Result<PathBuf> {
        let path = self.value["api"]["socket"].as_str().context("the API has a socket")?;
        Ok(PathBuf::from(path))
    }

    fn wan_names(&self) -> Vec<String> {
        let rows = self.value["wans"].as_array().map(Vec::as_slice).unwrap_or_default();
        rows.iter().filter_map(|wan| Some(wan["name"].as_str()?.to_owned())).collect()
    }
}

/// A running agent in the lab's `gw`.
#[derive(Debug)]
pub struct Gateway {
    process: Process,
    api: Api,
    config: PathBuf,
    instance: String,
    wans: Vec<String>,
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
        let path = lab.scratch().join("gateway.yaml");
        fs::write(&path, config.text()).context("cannot write the configuration")?;
        let instance = lab.prefix().to_owned();
        let process = Self::spawn(lab, &path, &instance)?;
        let api = Api::new(&config.socket()?);
        Ok(Self { process, api, config: path, instance, wans: config.wan_names() })
    }

    fn spawn(lab: &Lab, config: &Path, instance: &str) -> Result<Process> {
        let mut command = lab.gw().command(&build::artifacts()?.agent);
        command.arg("--config").arg(config).args(["--instance", instance]);
        command.env("RUST_BACKTRACE", "0");
        Process::spawn(command, lab.scratch())
    }

    /// Waits until the agent answers, every WAN is up and its next hops known.
    ///
    /// # Errors
    /// When that takes too long, or the agent ends; with its log.
    pub fn wait_until_up(&mut self) -> Result<()> {
        let wans = self.wans.clone();
        self.wait_for_status("every WAN is up and resolved", START, |status| {
            wans.iter().all(|name| {
                status.wans.iter().any(|wan| {
                    wan.name == *name && wan.state == "up" && wan.next_hop4 && wan.next_hop6
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
                "last status: {status}\nended: {ended}\nthe agent's log:\n{}",
                self.process.log()
            )
        })
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
        self.process = Self::spawn(lab, &self.config, &self.instance)?;
        self.wait_until_up()
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
        let mut command = Command::new(&build::artifacts()?.mwb);
        command.arg("--socket").arg(self.api.socket()).args(arguments);
        super::namespace::output_of(command, "against the gateway")
    }
}

/// Linux forwarding and masquerading in the lab's `gw`.
#[derive(Debug)]
pub struct KernelGateway {
    gw: super::Namespace,
}

/// Which WAN plain Linux uses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KernelRouting {
    /// The first one that has a route.
    First,
    /// All, by the hash of the flow.
    Multipath,
}

impl KernelGateway {
    /// Lets the kernel masquerade what leaves through a WAN.
    ///
    /// # Errors
    /// When nftables or the routes are refused.
    pub fn start(lab: &Lab, routing: KernelRouting) -> Result<Self> {
        let gw = lab.gw().clone();
        gw.nft(
            "table inet mwb_masquerade {\n  chain postrouting {\n    \
             type nat hook postrouting priority srcnat;\n    \
             oifname \"wan*\" masquerade\n  }\n}\n",
        )?;
        if routing == KernelRouting::Multipath {
            use super::address::{provider4, provider6};
            let mut hops4 = String::new();
            let mut hops6 = String::new();
            for index in 0..lab.wans().len() {
                hops4.push_str(&format!(" nexthop via {} dev wan{index}", provider4(index)));
                hops6.push_str(&format!(" nexthop via {} dev wan{index}", provider6(index)));
            }
            gw.sysctl(&[
                ("net/ipv4/fib_multipath_hash_policy", "1"),
                ("net/ipv6/fib_multipath_hash_policy", "1"),
            ])?;
            gw.ip(&format!(
                "route add default metric 10{hops4}\nroute add ::/0 metric 10{hops6}\n"
            ))?;
        }
        Ok(Self { gw })
    }

    /// Waits until conntrack has let go of everything: for a clean start.
    ///
    /// # Errors
    /// When it does not.
    pub fn wait_until_idle(&self, deadline: Duration) -> Result<()> {
        wait_until("conntrack is empty", deadline, || {
            Ok(self.gw.read_sysctl("net/netfilter/nf_conntrack_count")? == "0")
        })
        .map(drop)
    }
}

impl Drop for KernelGateway {
    fn drop(&mut self) {
        // The namespace may be gone already.
        let _ = self.gw.nft("delete table inet mwb_masquerade\n");
        let _ = self.gw.ip("route del default metric 10\nroute del ::/0 metric 10\n");
    }
}
