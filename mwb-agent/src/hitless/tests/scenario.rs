//! What is to happen between the two ends, but for what chance decides.

use mwb_common::wire::flag;

use crate::hitless::fec::{Amount, CLEAN, Settings};

pub(super) const MS: u64 = 1_000_000;
/// When all begins.
pub(super) const START: u64 = 10_000 * MS;

/// Bucket, and number in it.
pub(super) type Key = (u16, u32);
/// A path, and a sequence of it.
pub(super) type Place = (u8, u64);

/// Small numbers that look like chance.
#[derive(Clone, Debug)]
pub(super) struct Chance(pub(super) u64);

impl Chance {
    pub(super) fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        (self.0 >> 33) % bound.max(1)
    }
}

/// What becomes of the packets of a flow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Class {
    Plain,
    Copied,
    Retransmit,
    Fec,
    Both,
}

impl Class {
    pub(super) fn flags(self) -> u8 {
        flag::ORDERED
            | match self {
                Self::Plain => 0,
                Self::Copied => flag::DUPLICATE,
                Self::Retransmit => flag::ACKED,
                Self::Fec => flag::FEC,
                Self::Both => flag::ACKED | flag::FEC,
            }
    }
}

/// A path. Times are in µs, chances in thousandths.
#[derive(Clone, Debug)]
pub(super) struct Link {
    pub(super) delay: u64,
    pub(super) jitter: u64,
    pub(super) loss: u64,
    pub(super) twice: u64,
}

impl Link {
    /// In ns, at most.
    pub(super) fn round_trip(&self) -> u64 {
        2 * (self.delay + self.jitter) * 1_000
    }

    pub(super) fn part_lost(&self) -> f64 {
        self.loss as f64 / 1_000.0
    }
}

/// A path dies. Times are in µs.
#[derive(Clone, Debug)]
pub(super) struct Death {
    pub(super) path: u8,
    pub(super) at: u64,
    pub(super) lasts: u64,
    /// So long after it, and after it has come back, the ends know. Not at all if it lasts no
    /// longer.
    pub(super) seen: u64,
}

/// What has become of an agent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Gone {
    /// It has given back what it had.
    Ends,
    /// It has not.
    Killed,
    /// It does nothing for a while, and goes on.
    Stalls,
}

/// The agent of the receiver goes, and it or another begins. Times are in µs.
#[derive(Clone, Debug)]
pub(super) struct Restart {
    pub(super) at: u64,
    pub(super) away: u64,
    pub(super) how: Gone,
}

/// All that is to happen but for what chance decides.
#[derive(Clone, Debug)]
pub(super) struct Scenario {
    pub(super) links: Vec<Link>,
    /// By bucket.
    pub(super) flows: Vec<Class>,
    /// The first number of each.
    pub(super) first: u32,
    /// Of each packet: µs since the one before, a flow, bytes.
    pub(super) packets: Vec<(u64, usize, usize)>,
    pub(super) blocks: Settings,
    pub(super) deaths: Vec<Death>,
    pub(super) restarts: Vec<Restart>,
    /// How often an acknowledged packet is lost at most, but for paths that die.
    pub(super) unlucky: u32,
    /// Between two turns of an agent, in µs, at most.
    pub(super) tick: u64,
    /// How much the ring to the agent of the receiver has room for.
    pub(super) room: usize,
    pub(super) seed: u64,
}

impl Scenario {
    pub(super) fn paths(&self) -> impl Iterator<Item = (u8, &Link)> {
        (1..).zip(&self.links)
    }

    /// Flags of a bucket's packet: only what goes by a path that loses some is of a block.
    pub(super) fn flags(&self, bucket: u16, path: u8) -> u8 {
        let link = &self.links[usize::from(path) - 1];
        let clean = self.blocks.parity == Amount::Auto && link.part_lost() < CLEAN;
        self.flows[usize::from(bucket)].flags() & if clean { !flag::FEC } else { !0 }
    }

    /// How much later packets come by one path than by another, in ns.
    pub(super) fn spread(&self) -> u64 {
        let least = self.links.iter().map(|link| link.delay).min().unwrap_or(0);
        let most = self.links.iter().map(|link| link.delay + link.jitter).max().unwrap_or(0);
        (most - least) * 1_000
    }

    /// What an agent may be behind, in ns.
    pub(super) fn slack(&self) -> u64 {
        self.tick * 1_000
    }
}
