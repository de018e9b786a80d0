//! Our server on the lab's Internet, where bonds end.

use std::ops::{Deref, DerefMut};

use anyhow::Result;

use super::{Lab, agent::Agent, config::AgentConfig};

/// A running agent in the lab's `srv`.
#[derive(Debug)]
pub struct Server {
    agent: Agent,
}

impl Server {
    /// Starts the agent and does not wait for anything.
    ///
    /// # Errors
    /// When the lab has no place for a server, or it cannot be started.
    pub fn launch(lab: &Lab, config: &AgentConfig) -> Result<Self> {
        let instance = lab.server_instance();
        Ok(Self { agent: Agent::launch(lab.srv()?, instance, "server.yaml", config, None)? })
    }
}

// A server is an agent, and all that can be done to one can be done to it.
impl Deref for Server {
    type Target = Agent;

    fn deref(&self) -> &Agent {
        &self.agent
    }
}

impl DerefMut for Server {
    fn deref_mut(&mut self) -> &mut Agent {
        &mut self.agent
    }
}
