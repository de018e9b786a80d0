//! How a link behaves, and the handle that changes it while it runs. The link
//! itself is `super::relay`, or a plain veth pair where nothing is shaped.

use std::time::Duration;

use serde::{Deserialize, Serialize};

/// Direction of a WAN link, seen from the gateway.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Direction {
    /// Gateway to provider.
    Up,
    /// Provider to gateway.
    Down,
}

impl Direction {
    /// Both.
    pub const BOTH: [Direction; 2] = [Direction::Up, Direction::Down];
}

/// Which packets a link loses.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Loss {
    /// None.
    #[default]
    None,
    /// Each packet by itself, with this probability.
    Random(f64),
    /// In bursts (Gilbert-Elliott): probabilities, per packet, of entering and
    /// of leaving the bad state, in which everything is lost.
    Burst {
        /// Probability of entering the bad state.
        enter: f64,
        /// Probability of leaving it.
        leave: f64,
    },
}

/// One direction of a link.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct LinkSpec {
    /// Bits per second on the wire, Ethernet header included; `None`: as fast
    /// as it goes.
    pub rate: Option<u64>,
    /// Time on the way, after the queue.
    pub delay: Duration,
    /// The delay of a packet varies evenly by up to this, up and down, without
    /// changing the order.
    pub jitter: Duration,
    /// Packets that get lost.
    pub loss: Loss,
    /// Probability that a packet overtakes those before it (it skips the delay).
    pub reorder: f64,
    /// Everything that is sent vanishes.
    pub blackhole: bool,
    /// Bytes that may wait in front of the link; `None`: what 100 ms carry, and
    /// never less than 64 full packets.
    pub queue: Option<u64>,
    /// Seed of every random choice: the same seed loses the same packets.
    pub seed: u64,
}

impl LinkSpec {
    /// A link of `rate` bits per second and `delay` one way.
    #[must_use]
    pub fn new(rate: u64, delay: Duration) -> Self {
        Self { rate: Some(rate), delay, ..Self::default() }
    }

    /// Bytes that may wait if nothing else is set: what 100 ms carry at `rate`
    /// bits per second, and never less than 64 full frames.
    pub(super) fn default_queue(rate: u64) -> u64 {
        (rate / 80).max(64 * 1514)
    }

    /// The same with packet loss.
    #[must_use]
    pub fn with_loss(mut self, loss: Loss) -> Self {
        self.loss = loss;
        self
    }
}

/// What one direction of a relayed link has done with the frames it got.
/// `received = delivered + refused + lost + blackholed + overflowed + waiting`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct DirectionStats {
    /// Frames that came in.
    pub received: u64,
    /// Frames handed to the far end.
    pub delivered: u64,
    /// Bytes of them, Ethernet header included.
    pub delivered_bytes: u64,
    /// Frames lost on purpose.
    pub lost: u64,
    /// Frames that vanished in a blackhole.
    pub blackholed: u64,
    /// Frames that found the queue full.
    pub overflowed: u64,
    /// Frames that are on their way.
    pub waiting: u64,
    /// Frames that the kernel dropped in front of us: the relay was too slow.
    pub missed: u64,
    /// Frames larger than any link's MTU: something merged segments in front
    /// of the relay. Always a mistake of the lab.
    pub oversized: u64,
    /// Frames that the far end's device refused (it was down).
    pub refused: u64,
}

/// Both directions.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LinkStats {
    /// Gateway to provider.
    pub up: DirectionStats,
    /// Provider to gateway.
    pub down: DirectionStats,
}

impl LinkStats {
    /// One of them.
    #[must_use]
    pub fn direction(&self, direction: Direction) -> DirectionStats {
        match direction {
            Direction::Up => self.up,
            Direction::Down => self.down,
        }
    }
}
