//! Where elephants go: home, or by several paths.

use std::collections::BTreeMap;

use super::Train;
use super::track::Losses;

/// Bytes of a packet of TCP, for what a flow can do on a path with loss.
const SEGMENT: f64 = 1_400.0;
/// A home is left for a path that gives so many times as much, for so long, in ns.
const BETTER: f64 = 1.25;
const BETTER_FOR: u64 = 1_000_000_000;
/// For so many times as much it is left at once.
const FAR_BETTER: f64 = 2.0;
/// Paths may differ from the home by so much in delay, in ns, or by this part of the
/// round-trip time if that is less: an error of the estimate then stays below what RACK
/// forgives (a quarter).
const APART: f64 = 10e6;
const APART_PART: f64 = 0.25;
/// A path of less than this part of the home adds less than a mistake costs.
const WORTH: f64 = 0.2;
/// Of more loss than this TCP makes less than half of what two such paths could carry.
const CLEAN: f64 = 0.001;
/// A path that takes part may be so many times worse before it does no longer.
const SLACK: f64 = 2.0;
/// Below so many lost packets nothing is concluded.
const LOST: f64 = 3.0;
/// While elephants go by several paths, so much must arrive of what the home can carry
/// alone, or they go home.
const PAYS: f64 = 0.95;
/// After so long with less, in ns: a flow of TCP takes a while to fill a second path. And
/// if the home is full within so long after that, there was something to send, and the
/// several paths were to blame; else nobody had more to send.
const PROVES: u64 = 3_000_000_000;
/// A second path takes part if it carries this part of all.
const TAKES_PART: f64 = 0.05;
/// Until the next attempt after one that was to blame, in ns; twice as long each time, up to
/// the last.
const RETRY: u64 = 10_000_000_000;
const LONGEST_RETRY: u64 = 300_000_000_000;
/// Probes of a [`Train`]; and for how long none is sent after one, by any path and by the
/// same, in ns.
const TRAIN: u32 = 32;
const NEXT_TRAIN: u64 = 500_000_000;
const TRAIN_AGAIN: u64 = 30_000_000_000;

/// A path that can carry elephants: it lives and is not parked. Times are in ns, rates in
/// bit/s.
#[derive(Clone, Debug)]
pub(super) struct Candidate {
    pub(super) path: u8,
    pub(super) capacity: Option<f64>,
    pub(super) rate: f64,
    /// The most that has arrived of late.
    pub(super) carried: f64,
    pub(super) full: bool,
    pub(super) way: f64,
    pub(super) round_trip: f64,
    pub(super) jitter: f64,
    pub(super) loss: Losses,
}

impl Candidate {
    /// What one flow of TCP can have of it, as far as is known. With loss: Mathis et al.,
    /// The Macroscopic Behavior of the TCP Congestion Avoidance Algorithm, 1997; but no
    /// less than what it has: some congestion controls take no loss for a full queue.
    fn gives(&self) -> Option<f64> {
        let most = self.capacity?;
        if self.loss.lost < LOST {
            return Some(most);
        }
        let round_trip = (self.round_trip / 1e9).max(1e-3);
        let lossy = 1.22 * SEGMENT * 8.0 / (round_trip * self.loss.part().sqrt());
        Some(most.min(lossy.max(self.carried)))
    }

    fn is_clean(&self, slack: f64) -> bool {
        self.loss.lost < LOST || self.loss.part() < slack * CLEAN
    }

    /// In [`mwb_common::maps::Session::stripe`].
    fn bit(&self) -> u32 {
        1 << (self.path & 31)
    }
}

/// What was decided before.
#[derive(Clone, Debug, Default)]
pub(super) struct Elephants {
    home: Option<u8>,
    /// Since when another path has been better.
    challenged_since: Option<u64>,
    /// Since when less arrives by several paths than would by the home.
    short_since: Option<u64>,
    /// Since when they go home because of that.
    off_since: Option<u64>,
    /// They were to blame: no several paths before this.
    not_before: Option<u64>,
    retry: u64,
    /// Where they went, by bit.
    stripe: u32,
    /// When trains were sent, by path.
    trains: BTreeMap<u8, u64>,
}

impl Elephants {
    /// Says where elephants go, by bit, and what is to be found out for that.
    pub(super) fn decide(&mut self, now: u64, all: &[Candidate]) -> (u32, Option<Train>) {
        let Some(home) = self.settle(now, all) else { return (0, None) };
        let train = self.train(now, home, all);
        let together = |path: &&Candidate| {
            let slack = if self.stripe & path.bit() == 0 { 1.0 } else { SLACK };
            path.path == home.path || fits(path, home, slack)
        };
        let stripe = all.iter().filter(together).fold(0, |bits, path| bits | path.bit());
        let several = stripe != home.bit() && self.pays(now, home, all, stripe);
        self.stripe = if several { stripe } else { home.bit() };
        (self.stripe, train)
    }

    /// Chooses the home.
    fn settle<'a>(&mut self, now: u64, all: &'a [Candidate]) -> Option<&'a Candidate> {
        let by_way = |a: &&Candidate, b: &&Candidate| a.way.total_cmp(&b.way);
        let by_gift = |a: &&Candidate, b: &&Candidate| {
            let gives = |path: &Candidate| path.gives().unwrap_or(0.0);
            gives(a).total_cmp(&gives(b)).then(b.way.total_cmp(&a.way))
        };
        // Of equals the first.
        let best = all.iter().rev().max_by(by_gift)?;
        let current = self.home.and_then(|home| all.iter().find(|path| path.path == home));
        let Some(current) = current else {
            // What is not known can be anything: then the shortest.
            let known = all.iter().all(|path| path.gives().is_some());
            let first = if known { best } else { all.iter().min_by(by_way)? };
            (self.home, self.challenged_since) = (Some(first.path), None);
            return Some(first);
        };
        let better = match (best.gives(), current.gives()) {
            (Some(best), Some(current)) => best / current.max(1.0),
            _ => 1.0,
        };
        if better < BETTER {
            self.challenged_since = None;
            return Some(current);
        }
        let since = *self.challenged_since.get_or_insert(now);
        if better < FAR_BETTER && now.saturating_sub(since) < BETTER_FOR {
            return Some(current);
        }
        (self.home, self.challenged_since) = (Some(best.path), None);
        Some(best)
    }

    /// Whether several paths are better than the home alone.
    fn pays(&mut self, now: u64, home: &Candidate, all: &[Candidate], stripe: u32) -> bool {
        if let Some(off) = self.off_since {
            return self.tries_again(now, off, home);
        }
        let members = all.iter().filter(|path| stripe & path.bit() != 0);
        let sum: f64 = members.map(|path| path.rate).sum();
        let alone = home.gives().unwrap_or(0.0);
        if sum - home.rate < TAKES_PART * sum || sum >= PAYS * alone {
            self.short_since = None;
            if sum > alone {
                self.retry = 0;
            }
            return true;
        }
        if now.saturating_sub(*self.short_since.get_or_insert(now)) < PROVES {
            return true;
        }
        (self.off_since, self.short_since) = (Some(now), None);
        false
    }

    /// Elephants have gone home since `off`.
    fn tries_again(&mut self, now: u64, off: u64, home: &Candidate) -> bool {
        match self.not_before {
            None if !home.full => return false,
            None if now.saturating_sub(off) < PROVES => {
                self.retry = (2 * self.retry).clamp(RETRY, LONGEST_RETRY);
                self.not_before = Some(now + self.retry);
                return false;
            }
            None => self.retry = 0,
            Some(then) if now < then => return false,
            Some(_) => {}
        }
        (self.off_since, self.not_before) = (None, None);
        true
    }

    /// Wants to know what a path carries if the home is full and it is not known: it may
    /// be better, or join it.
    fn train(&mut self, now: u64, home: &Candidate, all: &[Candidate]) -> Option<Train> {
        let within = |at: u64, time: u64| now.saturating_sub(at) < time;
        if !home.full || self.trains.values().any(|&at| within(at, NEXT_TRAIN)) {
            return None;
        }
        let rested = |path: u8| self.trains.get(&path).is_none_or(|&at| !within(at, TRAIN_AGAIN));
        let unknown = all
            .iter()
            .find(|path| path.path != home.path && path.capacity.is_none() && rested(path.path))?;
        self.trains.insert(unknown.path, now);
        Some(Train { path: unknown.path, probes: TRAIN })
    }
}

/// Whether a path can carry elephants together with their home. All bounds are
/// `slack` times as wide as they are for one that has not done so.
fn fits(path: &Candidate, home: &Candidate, slack: f64) -> bool {
    let (Some(own), Some(most)) = (path.capacity, home.capacity) else { return false };
    let apart = slack * APART.min(APART_PART * home.round_trip.min(path.round_trip));
    (path.way - home.way).abs() <= apart
        && path.jitter.max(home.jitter) <= apart
        && slack * own >= WORTH * most
        && path.is_clean(slack)
        && home.is_clean(slack)
}
