//! What the operator wants of the bond, as this room needs it.

use std::time::Duration;

use crate::config::{self, Config};

/// The bond at this end.
#[derive(Clone, Debug, PartialEq)]
pub struct Settings {
    /// UDP port.
    pub port: u16,
    /// Between two probes of a path.
    pub probe_interval: Duration,
    /// A path counts as alive for so long after an answered probe.
    pub dead_after: Duration,
    /// Which end this is.
    pub end: End,
}

/// Which end this is.
#[derive(Clone, Debug, PartialEq)]
pub enum End {
    /// Of the LAN.
    Gateway(config::Bond),
    /// Of the Internet.
    Server(config::Server),
}

impl Settings {
    /// Of a configuration; none without a bond.
    #[must_use]
    pub fn of(config: &Config) -> Option<Self> {
        let tunnel = config.tunnel()?;
        let end = match (&config.bond, &config.server) {
            (Some(bond), _) => End::Gateway(bond.clone()),
            (None, Some(server)) => End::Server(server.clone()),
            (None, None) => return None,
        };
        Some(Self {
            port: tunnel.port,
            probe_interval: tunnel.probe_interval,
            dead_after: config.failover.dead_after,
            end,
        })
    }
}
