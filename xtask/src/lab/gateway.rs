//! Our gateway between the lab's LAN and its WANs.

use std::{
    net::TcpListener,
    ops::{Deref, DerefMut},
    time::Duration,
};

use anyhow::Result;

use super::{Lab, agent::Agent, config::AgentConfig};

/// How long an agent may take until it answers and its WANs are up: it puts a dozen
/// programs before the verifier, on processors that others use too.
#[must_use]
pub fn start_limit() -> Duration {
    Duration::from_secs(60)
}

/// Configuration of a steering gateway, as [`AgentConfig::new`] makes it.
pub type GatewayConfig = AgentConfig;

/// A running agent in the lab's `gw`.
#[derive(Debug)]
pub struct Gateway {
    agent: Agent,
    wans: Vec<(String, bool)>,
}

impl Gateway {
    /// Starts the agent and waits until every WAN is up and resolved.
    ///
    /// # Errors
    /// When it does not come up; with its log.
    pub fn start(lab: &Lab, config: &AgentConfig) -> Result<Self> {
        let mut gateway = Self::launch(lab, config)?;
        gateway.wait_until_up()?;
        Ok(gateway)
    }

    /// Starts the agent and does not wait for anything.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn launch(lab: &Lab, config: &AgentConfig) -> Result<Self> {
        Self::launch_listening(lab, config, None)
    }

    /// The same with a listening socket for its API, handed in as systemd does:
    /// it may be of another namespace.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn launch_listening(
        lab: &Lab,
        config: &AgentConfig,
        listener: Option<TcpListener>,
    ) -> Result<Self> {
        let instance = lab.prefix().to_owned();
        let agent = Agent::launch(lab.gw(), instance, "gateway.yaml", config, listener)?;
        Ok(Self { agent, wans: config.wans() })
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

    /// Gives it another configuration to read when it is next asked to.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn rewrite(&mut self, config: &AgentConfig) -> Result<()> {
        self.agent.rewrite(config)?;
        self.wans = config.wans();
        Ok(())
    }

    /// Starts the agent again with the same configuration and instance, and
    /// waits until it is up.
    ///
    /// # Errors
    /// When it does not come up.
    pub fn restart(&mut self, _lab: &Lab) -> Result<()> {
        self.relaunch()?;
        self.wait_until_up()
    }

    /// Removes the data plane, as `mwb-agent --detach` does.
    ///
    /// # Errors
    /// When it fails; with what it said.
    pub fn detach(&self, _lab: &Lab) -> Result<String> {
        self.remove_data_plane()
    }
}

// A gateway is an agent, and all that can be done to one can be done to it.
impl Deref for Gateway {
    type Target = Agent;

    fn deref(&self) -> &Agent {
        &self.agent
    }
}

impl DerefMut for Gateway {
    fn deref_mut(&mut self) -> &mut Agent {
        &mut self.agent
    }
}
