//! How good each path of a session is in the direction that we send in, and what
//! follows: how the kernel side reckons arrivals, which paths are parked, and where
//! elephants go. Pure: it is shown the facts every 100 ms or so ([`TICK`]), and says
//! what to write.
//!
//! **Delay.** The clocks of the two ends are two, but the same two for all paths: how
//! much longer one path is than another is known. The least one-way delay of a path over
//! 30 s is its length ([`floor`]); what a probe takes longer, it has waited. Where that
//! is not what the virtual queue of the kernel side says, the difference goes into
//! [`maps::BondPath::delay`]: the two must agree for packets to arrive in order.
//!
//! **Capacity** is what arrives while the path has a queue ([`track`]). What arrives
//! without one is its least. It is not forgotten: one that has become wrong shows itself
//! when it is used. The operator's figure is only a bound.
//!
//! **Parked** ([`parking`]) is a path that loses much without a queue, is so far behind the
//! others that it is of no use, or dies again and again. What is lost while a path is dead is
//! no loss of it: when it lives it is used.
//!
//! **Elephants** ([`stripe`]) have a home, the path that gives one flow of TCP most. They
//! go by several paths only if those are known, clean, and no further from each other in
//! delay than the far end holds packets for (`hold`; if it does not: nearly equal), and
//! only as long as more arrives than the home alone could carry: bonded is never worse
//! than the best link. For flows whose losses are repaired, a path that loses some is
//! clean. How much of the difference in delay counts for them says [`spill`].
//! A path is announced by its probes before elephants use it: until the far end knows that
//! packets may come by it, it takes those that are on their way for lost.
//!
//! Must not know: sockets, clocks, maps of the kernel but for their values.

mod floor;
mod parking;
mod spill;
mod stripe;
mod track;

use std::collections::BTreeMap;
use std::time::Duration;

use mwb_common::maps;

use parking::Parking;
pub use parking::Reason;
use spill::Spill;
use stripe::{Candidate, Elephants};
use track::Track;

/// How often to call [`Estimator::update`].
pub const TICK: Duration = Duration::from_millis(100);

/// For how long a far end holds packets that are ahead of their turn, in ns, unless it says
/// something else.
pub const HOLD: u64 = 200_000_000;

/// What a lost packet costs, in ns: about a round trip and the time to notice. A path
/// that loses some counts as so much longer.
const LOSS_COST: f64 = 250e6;
/// The delay is written anew when it differs by so much, in ns.
const DELAY_STEP: u32 = 500_000;
/// The same of what a byte takes, as a part of it.
const BYTE_TIME_PART: u32 = 50;

/// What is known of a path at a tick.
#[derive(Clone, Debug)]
pub struct PathFacts {
    /// Its number.
    pub path: u8,
    /// What the kernel side keeps of it, as read now.
    pub state: maps::PathState,
    /// What it carries at most in the direction that we send in, in bit/s, if somebody
    /// has said.
    pub capacity: Option<u64>,
    /// It has joined, is not down, and does not stand by for paths of a better priority.
    /// Whether probes are answered is seen from `state`.
    pub usable: bool,
}

/// What to write about one path, and to show.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct PathVerdict {
    /// Its number.
    pub path: u8,
    /// [`maps::BondPath::byte_time`].
    pub byte_time: u32,
    /// [`maps::BondPath::delay`].
    pub delay: u32,
    /// [`maps::BondPath::striped_delay`].
    pub striped_delay: u32,
    /// Why it has [`maps::bond_path_flag::PARKED`].
    pub parked: Option<Reason>,
    /// What arrives, in bit/s.
    pub rate: u64,
    /// What it can carry, in bit/s; none if not known.
    pub capacity: Option<u64>,
    /// Part of the packets that are lost for other reasons than a full queue, 0 to 1.
    pub loss: f64,
    /// Packets lost in all.
    pub lost: u64,
    /// How long the newest probe waited in a queue.
    pub queue: Duration,
}

/// A way to learn the capacity of a path that carries nothing: probes of one length at
/// once. How much later the last of them is answered than one alone would be is what
/// they all take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Train {
    /// The path.
    pub path: u8,
    /// How many probes ([`maps::tick::EXACT`]), one right after the other, of the length
    /// that the path is known to take.
    pub probes: u32,
}

/// What follows from the facts.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Verdict {
    /// [`maps::Session::stripe`].
    pub stripe: u32,
    /// [`maps::Session::repaired`].
    pub repaired: u16,
    /// By path, in the order of the facts.
    pub paths: Vec<PathVerdict>,
    /// To be sent now. Then call [`Estimator::sent_train`].
    pub train: Option<Train>,
}

/// The paths of one session, as they have been measured. For a session that is a new one
/// make a new estimator.
#[derive(Clone, Debug, Default)]
pub struct Estimator {
    paths: BTreeMap<u8, Estimate>,
    elephants: Elephants,
    /// Those whose losses are repaired, if there may be some.
    repaired: Option<Elephants>,
    spill: Spill,
}

#[derive(Clone, Debug, Default)]
struct Estimate {
    track: Track,
    parking: Parking,
    byte_time: u32,
    delay: u32,
    striped_delay: u32,
}

impl Estimator {
    /// Nothing known.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// For so long the far end holds packets at most that are ahead of their turn, in ns. 0:
    /// it does not put packets in order. As long as nothing is said, [`HOLD`].
    pub fn set_hold(&mut self, hold: u64) {
        self.elephants.hold = hold as f64;
    }

    /// Says whether there are flows whose losses are repaired.
    pub fn set_repairs(&mut self, repairs: bool) {
        self.repaired = repairs.then(|| self.repaired.take().unwrap_or_default());
    }

    /// Takes the facts in, of all paths of the session. `now` is the clock of
    /// [`maps::PathState::reply_at`], in ns.
    pub fn update(&mut self, now: u64, facts: &[PathFacts]) -> Verdict {
        self.paths.retain(|path, _| facts.iter().any(|facts| facts.path == *path));
        for PathFacts { path, state, capacity, .. } in facts {
            let typed = capacity.map(|capacity| capacity as f64).filter(|typed| *typed > 0.0);
            self.paths.entry(*path).or_default().track.look(now, state, typed);
        }
        self.park(now, facts);
        let candidates: Vec<Candidate> =
            facts.iter().filter_map(|facts| self.candidate(now, facts)).collect();
        let (plain, train) = self.elephants.decide(now, &candidates);
        let repaired = self.decide_repaired(now, &candidates).unwrap_or(plain);
        let stripe = plain | repaired >> maps::ANNOUNCED << maps::ANNOUNCED;
        let members: Vec<&Candidate> = candidates
            .iter()
            .filter(|path| (stripe | repaired | stripe >> maps::ANNOUNCED) & path.bit() != 0)
            .collect();
        let part = if self.elephants.hold > 0.0 { self.spill.decide(&members) } else { 1.0 };
        self.reckon(facts);
        self.reckon_striped(&members, part);
        let paths = facts.iter().filter_map(|facts| self.verdict(facts.path)).collect();
        Verdict { stripe, repaired: repaired as u16, paths, train }
    }

    fn decide_repaired(&mut self, now: u64, candidates: &[Candidate]) -> Option<u32> {
        let repaired = self.repaired.as_mut()?;
        repaired.hold = self.elephants.hold;
        let candidates: Vec<Candidate> = candidates.iter().map(Candidate::repaired).collect();
        Some(repaired.decide(now, &candidates).0)
    }

    /// Says that a [`Train`] was sent: when, and how many bytes it has from the outer IP
    /// header on.
    pub fn sent_train(&mut self, path: u8, at: u64, bytes: u64) {
        if let Some(estimate) = self.paths.get_mut(&path) {
            estimate.track.sent_train(at, bytes);
        }
    }

    fn park(&mut self, now: u64, facts: &[PathFacts]) {
        let lives = |facts: &&PathFacts| facts.usable && facts.state.alive_until > now;
        let living = || facts.iter().filter(lives).filter_map(|facts| self.paths.get(&facts.path));
        let most = living().filter_map(|path| path.track.capacity).fold(0.0, f64::max);
        let quickest = living().filter_map(|path| path.track.way()).fold(f64::INFINITY, f64::min);
        for estimate in self.paths.values_mut() {
            let Estimate { track, parking, .. } = estimate;
            parking.consider(now, track, most, quickest);
        }
    }

    fn candidate(&self, now: u64, facts: &PathFacts) -> Option<Candidate> {
        let Estimate { track, parking, .. } = self.paths.get(&facts.path)?;
        let lives = facts.usable && facts.state.alive_until > now;
        if !lives || parking.reason().is_some() {
            return None;
        }
        Some(Candidate {
            path: facts.path,
            capacity: track.capacity,
            rate: track.rate,
            carried: track.carried,
            full: track.full,
            way: track.way()?,
            round_trip: track.round_trip()?,
            jitter: track.jitter,
            loss: track.long,
        })
    }

    /// What the kernel side reckons with. A change that makes no difference is none: each
    /// one is a write.
    fn reckon(&mut self, facts: &[PathFacts]) {
        let length = |estimate: &Estimate| {
            let Estimate { track, .. } = estimate;
            track.way().map(|way| way + track.mismatch + track.short.part() * LOSS_COST)
        };
        let usable = facts.iter().filter(|facts| facts.usable);
        let least = usable
            .filter_map(|facts| length(self.paths.get(&facts.path)?))
            .fold(f64::INFINITY, f64::min);
        for estimate in self.paths.values_mut() {
            // Of a path that was never measured nothing is known but that it is not the
            // best.
            let delay = length(estimate).map_or(0.0, |own| own - least).clamp(0.0, 4e9) as u32;
            if delay.abs_diff(estimate.delay) >= DELAY_STEP || delay == 0 {
                estimate.delay = delay;
            }
            let byte_time = estimate.track.capacity.map_or(0.0, |rate| 8e9 * 1024.0 / rate) as u32;
            if byte_time.abs_diff(estimate.byte_time) > estimate.byte_time / BYTE_TIME_PART {
                estimate.byte_time = byte_time;
            }
        }
    }

    /// The same for elephants: of the difference between the ways only this part.
    fn reckon_striped(&mut self, members: &[&Candidate], part: f64) {
        let length = |estimate: &Estimate, way: f64| {
            let Track { mismatch, short, .. } = &estimate.track;
            // What we take for longer than it is was dropped. A path that loses much has none
            // but flows whose losses are repaired.
            let cost = if self.repaired.is_some() { 0.0 } else { short.part() * LOSS_COST };
            part * way + mismatch.max(0.0) + cost
        };
        let lengths: Vec<(u8, f64)> = members
            .iter()
            .filter_map(|path| Some((path.path, length(self.paths.get(&path.path)?, path.way))))
            .collect();
        let least = lengths.iter().map(|(_, own)| *own).fold(f64::INFINITY, f64::min);
        for (path, estimate) in &mut self.paths {
            let own = lengths.iter().find(|(member, _)| member == path);
            let Some((_, own)) = own else {
                estimate.striped_delay = estimate.delay;
                continue;
            };
            let delay = (own - least).clamp(0.0, 4e9) as u32;
            if delay.abs_diff(estimate.striped_delay) >= DELAY_STEP || delay == 0 {
                estimate.striped_delay = delay;
            }
        }
    }

    fn verdict(&self, path: u8) -> Option<PathVerdict> {
        let Estimate { track, parking, byte_time, delay, striped_delay } = self.paths.get(&path)?;
        Some(PathVerdict {
            path,
            byte_time: *byte_time,
            delay: *delay,
            striped_delay: *striped_delay,
            parked: parking.reason(),
            rate: track.rate as u64,
            capacity: track.capacity.map(|rate| rate as u64),
            loss: track.short.part(),
            lost: track.lost,
            queue: Duration::from_nanos(track.queue as u64),
        })
    }
}

#[cfg(test)]
#[path = "estimate_tests/mod.rs"]
mod tests;
