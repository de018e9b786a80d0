//! What the operator wants of the bond, as this room needs it.

use std::time::Duration;

use mwb_common::classes::repair;
use mwb_common::maps::Bond;

use crate::config::{self, Classes, Config, Fec, Idle};
use crate::hitless::fec;

/// The bond at this end.
#[derive(Clone, Debug, PartialEq)]
pub struct Settings {
    /// UDP port.
    pub port: u16,
    /// Between two probes of a path.
    pub probe_interval: Duration,
    /// A path counts as alive for so long after an answered probe.
    pub dead_after: Duration,
    /// The same two for a metered path that is idle.
    pub idle: Idle,
    /// What is treated unlike other packets.
    pub classes: Classes,
    /// How long a packet that is ahead of its turn waits at most.
    pub hold: Duration,
    /// Blocks with parity.
    pub fec: Fec,
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
    /// How paths are probed, as the kernel side is told, and nothing else.
    pub(super) fn paces(&self) -> Bond {
        let nanos = |time: Duration| u64::try_from(time.as_nanos()).unwrap_or(u64::MAX);
        Bond {
            probe_interval: nanos(self.probe_interval),
            dead_after: nanos(self.dead_after),
            idle_interval: nanos(self.idle.interval),
            idle_dead_after: nanos(self.idle.dead_after),
            copy_budget: u32::try_from(self.classes.metered_copies / 8).unwrap_or(u32::MAX - 1),
            ..Bond::default()
        }
    }

    /// Whether there are flows whose losses are repaired.
    pub(super) fn repairs(&self) -> bool {
        self.classes.repairs() != 0
    }

    /// How blocks with parity are made.
    pub(super) fn blocks(&self) -> fec::Settings {
        let Fec { parity, block, wait, interleave } = self.fec;
        fec::Settings {
            data: block,
            parity: parity.map_or(fec::Amount::Auto, fec::Amount::Fixed),
            wait: u64::try_from(wait.as_nanos()).unwrap_or(u64::MAX),
            interleave,
        }
    }

    /// Whether packets of a class with parity are put in blocks if they go by a path that
    /// loses this part of them. `is`: they are.
    pub(super) fn protects(&self, loss: f64, is: bool) -> bool {
        let enough = if is { fec::CLEAN / 2.0 } else { fec::CLEAN };
        self.has_parity() && (self.fec.parity.is_some() || loss >= enough)
    }

    /// How much shorter inner packets have to be, in bytes, so that their parity passes, too.
    pub(super) fn reserve(&self) -> u32 {
        if self.has_parity() { fec::overhead(self.fec.block) as u32 } else { 0 }
    }

    pub(super) fn has_parity(&self) -> bool {
        self.classes.repairs() & repair::FEC != 0
    }

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
            idle: config.idle()?,
            classes: config.classes.clone(),
            hold: config.hold,
            fec: config.fec,
            end,
        })
    }
}
