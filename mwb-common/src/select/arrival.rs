//! Earliest arrival: where a packet of a bond is sent if it is to be there first, and
//! when a flow leaves the path that it is on.
//!
//! A path is known by three numbers: until when it is busy with what was sent before
//! (its *virtual queue*, kept by who sends), what a byte takes, and how much longer it
//! is on its way than by the quickest path. A packet arrives when the three have passed.
//!
//! A small flow stays where it is until that is clearly worse ([`PATIENCE`]), or until
//! its last packet has surely arrived ([`GRAIN`]): then nothing can be overtaken. An
//! elephant goes where the agent says ([`crate::maps::Session::stripe`]): by one
//! path, or by several. Of those each packet takes the one whose queue ends first: the
//! far end puts packets in order, so of how much longer a path is only as much counts
//! as the agent says ([`crate::maps::BondPath::striped_delay`]).
//!
//! Paths are considered one after the other, so that the kernel side needs no copy of
//! them. Nothing here divides by a variable or can panic.

use crate::maps::{BondPath, PathState, bond_path_flag};

/// A small flow leaves a path at once if it arrives earlier by more than so much on
/// another, in ns. Fewer would have it follow every burst of others; what it overtakes
/// then are the packets of so much time, which RACK (RFC 8985) forgives from a
/// round-trip time of four times this on.
pub const PATIENCE: u64 = 20_000_000;
/// What a small flow must gain to move while it pauses, and how much longer than the
/// gain the pause must be, in ns: estimates are not better than this.
pub const GRAIN: u64 = 5_000_000;
/// How long a virtual queue can be, in ns. What is beyond was not queued but dropped:
/// without a bound, a flow that nothing slows down would leave a debt behind.
pub const QUEUE: u64 = 200_000_000;
/// The time that bytes of a flow are counted for, in ns.
pub const WINDOW: u64 = 100_000_000;

/// Where bits of a rank begin: above all times.
const RANK: u32 = 62;
/// A rank and a time that no path has.
const NONE: u64 = u64::MAX;

/// What is known of a path when a packet is to be sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Facts {
    /// [`BondPath::flags`].
    pub flags: u32,
    /// [`BondPath::byte_time`].
    pub byte_time: u32,
    /// [`BondPath::delay`].
    pub delay: u32,
    /// [`BondPath::striped_delay`].
    pub striped_delay: u32,
    /// [`PathState::alive_until`].
    pub alive_until: u64,
    /// [`PathState::busy_until`].
    pub busy_until: u64,
}

impl Facts {
    /// Of the map values.
    #[must_use]
    #[inline(always)]
    pub const fn of(path: &BondPath, state: &PathState) -> Self {
        Self {
            flags: path.flags,
            byte_time: path.byte_time,
            delay: path.delay,
            striped_delay: path.striped_delay,
            alive_until: state.alive_until,
            busy_until: state.busy_until,
        }
    }

    /// Whether the path can be chosen while another can be: it is not down, and has
    /// answered of late.
    #[must_use]
    #[inline(always)]
    pub const fn lives(&self, now: u64) -> bool {
        self.flags & bond_path_flag::DOWN == 0 && self.alive_until > now
    }

    /// 0: it lives; 1: it lives, but is parked; 2: it does not live.
    #[inline(always)]
    const fn rank(&self, now: u64) -> u64 {
        if !self.lives(now) {
            2
        } else if self.flags & bond_path_flag::PARKED != 0 {
            1
        } else {
            0
        }
    }
}

/// What `length` bytes take, in ns. `byte_time` in units of 2^-10 ns; `length` is
/// less than 2^32, so the product fits.
#[inline(always)]
const fn sending(length: u32, byte_time: u32) -> u64 {
    (length as u64 * byte_time as u64) >> 10
}

/// The virtual queue of a path when `length` more bytes are sent by it:
/// [`PathState::busy_until`] afterwards.
#[must_use]
#[inline(always)]
pub const fn busy(now: u64, busy_until: u64, length: u32, byte_time: u32) -> u64 {
    let begin = if busy_until > now { busy_until } else { now };
    let end = begin + sending(length, byte_time);
    if end > now + QUEUE { now + QUEUE } else { end }
}

/// How a flow is treated: from its bucket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Flow {
    /// The path that its last packet took; 0 = it is new.
    pub path: u8,
    /// Time since then, in ns.
    pub pause: u64,
    /// It is an elephant.
    pub elephant: bool,
}

/// Which path a packet takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Chosen {
    /// Path id; 0 = there is none that could take it.
    pub path: u8,
    /// The flow goes by several paths: the packet needs the flag
    /// [`crate::wire::flag::ORDERED`].
    pub striped: bool,
    /// It does not live, nor did any other: [`PathState::forced`].
    pub forced: bool,
}

/// The choice of a path for one packet, while paths are being considered.
#[derive(Clone, Copy, Debug)]
pub struct Choice {
    now: u64,
    /// Where elephants go, by bit.
    stripe: u32,
    flow: Flow,
    /// Rank and arrival of the best path.
    best: u64,
    /// Of the flow's own.
    own: u64,
    /// The least time among `stripe`, of those that live.
    home: u64,
    best_path: u8,
    home_path: u8,
}

impl Choice {
    /// For a packet of a flow. `stripe` is [`crate::maps::Session::stripe`].
    #[must_use]
    #[inline(always)]
    pub const fn new(now: u64, stripe: u32, flow: Flow) -> Self {
        Self { now, stripe, flow, best: NONE, own: NONE, home: NONE, best_path: 0, home_path: 0 }
    }

    /// Takes a path into account: one that is present, has a next hop, and takes a
    /// packet of this length, which is counted from the outer IP header on.
    #[inline(always)]
    pub const fn consider(&mut self, path: u8, length: u32, facts: &Facts) {
        let begin = if facts.busy_until > self.now { facts.busy_until } else { self.now };
        let end = begin + sending(length, facts.byte_time);
        let arrival = end + facts.delay as u64;
        let rank = facts.rank(self.now);
        let place = rank << RANK | arrival & ((1 << RANK) - 1);
        if place < self.best {
            self.best = place;
            self.best_path = path;
        }
        if path == self.flow.path {
            self.own = place;
        }
        if self.flow.elephant && rank == 0 && self.stripe >> (path as u32 & 15) & 1 != 0 {
            let turn = end + facts.striped_delay as u64;
            if turn < self.home {
                self.home = turn;
                self.home_path = path;
            }
        }
    }

    /// What has come out.
    #[must_use]
    #[inline(always)]
    pub const fn decide(&self) -> Chosen {
        // Also while only one of them lives: packets that have no turn say nothing of
        // those that have one.
        let paths = self.stripe as u16;
        let striped = self.flow.elephant && paths & paths.wrapping_sub(1) != 0;
        if self.home_path != 0 {
            return Chosen { path: self.home_path, striped, forced: false };
        }
        let path = if self.stays() { self.flow.path } else { self.best_path };
        // The best has the best rank there is: its own, if it stays, is not worse.
        Chosen { path, striped, forced: self.best != NONE && self.best >> RANK > 1 }
    }

    /// Whether the flow stays on its path.
    #[inline(always)]
    const fn stays(&self) -> bool {
        // Nothing is later than a path that cannot be chosen, and all that is of a
        // better rank is earlier by more than any time.
        let gain = self.own - self.best;
        if self.own == NONE || gain >= 1 << (RANK - 1) {
            return false;
        }
        // An elephant that has no home would only carry its own queue from path to path.
        let patience = gain <= PATIENCE || self.flow.elephant;
        patience && (gain <= GRAIN || self.flow.pause <= gain + GRAIN)
    }
}

/// What a bucket knows of the weight of its flow.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Weight {
    /// [`crate::maps::Bucket::window_from`].
    pub from: u64,
    /// [`crate::maps::Bucket::window_bytes`]. Of an elephant, a sum in which each
    /// [`WINDOW`] counts 7/8 of the one behind it.
    pub bytes: u32,
    /// It is an elephant.
    pub elephant: bool,
}

impl Weight {
    /// Counts a packet of `length` bytes. A flow with `limit` bytes in one [`WINDOW`]
    /// becomes an elephant. It is none any more when it has had less than a quarter of
    /// that, smoothed, or has paused for eight windows: a flow of TCP pauses for a
    /// round-trip time in its first second, and for longer when it has lost much.
    #[must_use]
    #[inline(always)]
    pub const fn count(self, now: u64, length: u32, limit: u32) -> Self {
        let Self { mut from, mut bytes, mut elephant } = self;
        let elapsed = now.saturating_sub(from);
        if elapsed >= WINDOW {
            let windows = elapsed / WINDOW;
            if !elephant || windows >= 8 {
                bytes = 0;
                from = now;
            } else {
                bytes -= (bytes >> 3) * windows as u32;
                from += windows * WINDOW;
            }
            if (bytes as u64) < 2 * limit as u64 {
                // Those of a small flow are those of one window.
                elephant = false;
                bytes = 0;
            }
        }
        bytes = bytes.saturating_add(length);
        let most = if limit >> 29 == 0 { limit << 3 } else { u32::MAX };
        if elephant {
            if bytes > most {
                bytes = most;
            }
        } else if bytes >= limit {
            elephant = true;
            bytes = most;
        }
        Self { from, bytes, elephant }
    }
}

#[cfg(test)]
#[path = "arrival_tests.rs"]
mod tests;
