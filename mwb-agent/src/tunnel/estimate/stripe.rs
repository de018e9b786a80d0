//! Where elephants go: home, or by several paths.

use std::collections::BTreeMap;

use super::track::Losses;
use super::{HOLD, Train};
use mwb_common::maps::ANNOUNCED;

/// Bytes of a packet of TCP, for what a flow can do on a path with loss.
const SEGMENT: f64 = 1_400.0;
/// A home is left for a path that gives so many times as much, for so long, in ns.
const BETTER: f64 = 1.25;
const BETTER_FOR: u64 = 1_000_000_000;
/// For so many times as much it is left at once.
const FAR_BETTER: f64 = 2.0;
/// A path that is too far behind the shortest to be used together with it gives less by so
/// much, in ns: a flow begins by the shortest, and its window is for that one.
const FAR: f64 = 100e6;
/// Paths may differ by so much in delay, in ns, if the far end puts packets in order; and no
/// more than this part of what it holds them for, as queues and errors come on top.
const APART: f64 = 105e6;
const APART_HELD: f64 = 0.8;
/// It holds so many packets of one flow, of [`SEGMENT`] bytes, and no more: a part of what
/// it has room for.
const HELD: f64 = 3_000.0;
/// If it does not: by so much, or by this part of the round-trip time if that is less. An
/// error of the estimate then stays below what RACK forgives (a quarter).
const NEAR: f64 = 10e6;
const NEAR_PART: f64 = 0.25;
/// A path of less than this part of the home adds less than a mistake costs: a fifth, and
/// what it may be measured too small.
const WORTH: f64 = 0.18;
/// Of more loss than this TCP makes less than half of what two such paths could carry.
const CLEAN: f64 = 0.001;
/// Of less loss than this a flow is spared whose losses are repaired.
const REPAIRED: f64 = 0.12;
/// A path that takes part may be so many times worse before it does no longer.
const SLACK: f64 = 2.0;
/// Below so many lost packets nothing is concluded, unless it is this part.
const LOST: f64 = 3.0;
/// Below so many a path gives what it carries: what its first packets have lost says little of
/// what a flow can have of it. Unless it is this part.
const SURE: f64 = 10.0;
const MUCH: f64 = 0.1;
const UNSURE: f64 = 0.005;
/// While elephants go by several paths, so much must arrive of what the home can carry
/// alone, or they go home.
const PAYS: f64 = 0.95;
/// After so long with less, in ns: a flow of TCP takes a while to fill a second path. And
/// if the home is full within so long after that, there was something to send, and the
/// several paths were to blame; else nobody had more to send.
const PROVES: u64 = 3_000_000_000;
/// Unless it is so many times as much as it was: it comes to that.
const GROWS: f64 = 1.25;
/// What probes take, and more, in bit/s: who sends no more has nothing to send.
const NOTHING: f64 = 200e3;
/// A second path takes part if it carries this part of all.
const TAKES_PART: f64 = 0.05;
/// Until the next attempt after one that was to blame, in ns; twice as long each time, up to
/// the last.
const RETRY: u64 = 10_000_000_000;
const LONGEST_RETRY: u64 = 300_000_000_000;
/// A path is announced so long before elephants use it, in ns: a probe takes less to the far
/// end, and so do packets that have no turn. They have one for so long after the last that
/// goes by several paths.
const LEAD: u64 = 250_000_000;
const LAG: u64 = 1_000_000_000;
/// Probes of a [`Train`]; and for how long none is sent after one, in ns: by any path; by
/// the same, twice as long each time, up to the last.
const TRAIN: u32 = 32;
const NEXT_TRAIN: u64 = 200_000_000;
const TRAIN_AGAIN: u64 = 5_000_000_000;
const LAST_TRAIN: u64 = 300_000_000_000;

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
        let few = if self.loss.part() < MUCH { SURE } else { LOST };
        if self.loss.lost < few {
            return Some(most);
        }
        let round_trip = (self.round_trip / 1e9).max(1e-3);
        let lossy = 1.22 * SEGMENT * 8.0 / (round_trip * self.loss.part().sqrt());
        Some(most.min(lossy.max(self.carried)))
    }

    /// As it is for a flow whose losses are repaired.
    pub(super) fn repaired(&self) -> Self {
        let lost = if self.loss.part() < REPAIRED { 0.0 } else { self.loss.lost };
        Self { loss: Losses { lost, ..self.loss }, ..self.clone() }
    }

    fn is_clean(&self, slack: f64) -> bool {
        let most = if self.loss.lost < LOST { UNSURE } else { slack * CLEAN };
        self.loss.part() < most
    }

    /// In [`mwb_common::maps::Session::stripe`].
    pub(super) fn bit(&self) -> u32 {
        1 << (self.path & 31)
    }
}

/// What was decided before.
#[derive(Clone, Debug)]
pub(super) struct Elephants {
    /// For how long the far end holds packets at most, in ns; 0 = it does not.
    pub(super) hold: f64,
    home: Option<u8>,
    /// Since when another path has been better.
    challenged_since: Option<u64>,
    /// Since when less arrives by several paths than would by the home, and how much did.
    short_since: Option<(u64, f64)>,
    /// Since when they go home because of that, and how much arrived before.
    off_since: Option<(u64, f64)>,
    /// How long that may be so, in ns.
    proves: u64,
    /// They were to blame: no several paths before this.
    not_before: Option<u64>,
    retry: u64,
    /// Where they went, by bit.
    stripe: u32,
    /// Where they are to go, and since when; and until when they have turns.
    announced: BTreeMap<u8, u64>,
    turns_until: u64,
    /// When trains were sent, and for how long none is, by path.
    trains: BTreeMap<u8, (u64, u64)>,
}

impl Default for Elephants {
    fn default() -> Self {
        Self {
            hold: HOLD as f64,
            home: None,
            challenged_since: None,
            short_since: None,
            off_since: None,
            proves: PROVES,
            not_before: None,
            retry: 0,
            stripe: 0,
            announced: BTreeMap::new(),
            turns_until: 0,
            trains: BTreeMap::new(),
        }
    }
}

impl Elephants {
    /// Says where elephants go, by bit, and what is to be found out for that.
    pub(super) fn decide(&mut self, now: u64, all: &[Candidate]) -> (u32, Option<Train>) {
        let Some(home) = self.settle(now, all) else { return (0, None) };
        let train = self.train(now, home, all);
        let together = |path: &&Candidate| {
            let slack = if self.stripe & path.bit() == 0 { 1.0 } else { SLACK };
            path.path == home.path || self.fits(path, home, slack)
        };
        let mut together: Vec<&Candidate> = all.iter().filter(together).collect();
        self.narrow(home, &mut together);
        let stripe = together.iter().fold(0, |bits, path| bits | path.bit());
        let several = stripe != home.bit() && self.pays(now, home, all, stripe);
        let wanted = if several { stripe } else { home.bit() };
        (self.announce(now, home.bit(), wanted), train)
    }

    /// Says that elephants are to go by those paths, and lets them when that is known at the
    /// far end, and what has no turn has arrived.
    fn announce(&mut self, now: u64, home: u32, wanted: u32) -> u32 {
        if self.hold == 0.0 {
            self.stripe = wanted;
            return wanted;
        }
        if wanted != home {
            self.turns_until = now + LAG;
        }
        let turns = now < self.turns_until;
        let announced = if turns { wanted } else { 0 };
        self.announced.retain(|path, _| announced >> path & 1 != 0);
        for path in (1..16).filter(|path| announced >> path & 1 != 0) {
            self.announced.entry(path).or_insert(now);
        }
        let known = self.announced.iter().filter(|(_, since)| now.saturating_sub(**since) >= LEAD);
        let known = known.fold(0, |bits, (path, _)| bits | 1 << path);
        self.stripe = if wanted == home { home } else { home | known & wanted };
        self.stripe | u32::from(turns) | announced << ANNOUNCED
    }

    /// Chooses the home.
    fn settle<'a>(&mut self, now: u64, all: &'a [Candidate]) -> Option<&'a Candidate> {
        let by_way = |a: &&Candidate, b: &&Candidate| a.way.total_cmp(&b.way);
        let shortest = all.iter().map(|path| path.way).fold(f64::INFINITY, f64::min);
        let gives = |path: &Candidate| {
            let longer = path.way - shortest;
            let discount = if longer > APART { 1.0 + longer / FAR } else { 1.0 };
            path.gives().map(|gives| gives / discount)
        };
        let by_gift = |a: &&Candidate, b: &&Candidate| {
            let gives = |path: &Candidate| gives(path).unwrap_or(0.0);
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
        let better = match (gives(best), gives(current)) {
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

    /// Whether a path can carry elephants together with their home. All bounds are
    /// `slack` times as wide as they are for one that has not done so.
    fn fits(&self, path: &Candidate, home: &Candidate, slack: f64) -> bool {
        let (Some(own), Some(most)) = (path.capacity, home.capacity) else { return false };
        let differ = (path.way - home.way).abs();
        let apart = if self.hold > 0.0 {
            (slack * APART).min(APART_HELD * self.hold)
        } else {
            slack * NEAR.min(NEAR_PART * home.round_trip.min(path.round_trip))
        };
        // What comes by the shorter one meanwhile is held.
        let shorter = if path.way < home.way { own } else { most };
        differ <= apart
            && differ / 1e9 * shorter <= slack.min(1.2) * HELD * SEGMENT * 8.0
            && path.jitter.max(home.jitter) <= apart
            && slack * own >= WORTH * most
            && path.is_clean(slack)
            && home.is_clean(slack)
    }

    /// What fits together with the home may not fit together.
    fn narrow(&self, home: &Candidate, paths: &mut Vec<&Candidate>) {
        let most = if self.hold > 0.0 { APART_HELD * self.hold } else { f64::INFINITY };
        loop {
            let ways = || paths.iter().map(|path| path.way);
            let (least, greatest) =
                (ways().fold(f64::INFINITY, f64::min), ways().fold(f64::NEG_INFINITY, f64::max));
            if greatest - least <= most {
                return;
            }
            // The one that is furthest from the home.
            let far = (greatest - home.way).max(home.way - least);
            paths.retain(|path| (path.way - home.way).abs() < far);
        }
    }

    /// Whether several paths are better than the home alone.
    fn pays(&mut self, now: u64, home: &Candidate, all: &[Candidate], stripe: u32) -> bool {
        if let Some((off, before)) = self.off_since {
            return self.tries_again(now, off, before, home);
        }
        let members = all.iter().filter(|path| stripe & path.bit() != 0);
        let sum: f64 = members.map(|path| path.rate).sum();
        let alone = home.gives().unwrap_or(0.0);
        if sum < NOTHING || sum - home.rate < TAKES_PART * sum || sum >= PAYS * alone {
            self.short_since = None;
            if sum > alone {
                (self.retry, self.proves) = (0, PROVES);
            }
            return true;
        }
        let (since, before) = *self.short_since.get_or_insert((now, sum));
        if sum > GROWS * before {
            self.short_since = Some((now, sum));
        }
        if now.saturating_sub(since) < self.proves {
            return true;
        }
        (self.off_since, self.short_since) = (Some((now, sum)), None);
        false
    }

    /// Elephants have gone home since `off`, when so much arrived.
    fn tries_again(&mut self, now: u64, off: u64, before: f64, home: &Candidate) -> bool {
        match self.not_before {
            // What had less of several has even less of the home: a window that grows slowly.
            _ if home.carried < before && now.saturating_sub(off) >= PROVES => {
                self.proves = (2 * self.proves).min(LONGEST_RETRY);
            }
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

    /// Wants to know once what a path carries, and again if the home is full and it is not
    /// known, or so little that others may have been in the way: it may be better, or join it.
    fn train(&mut self, now: u64, home: &Candidate, all: &[Candidate]) -> Option<Train> {
        let within = |at: u64, time: u64| now.saturating_sub(at) < time;
        self.trains.retain(|path, _| self.stripe == home.bit() || self.stripe >> path & 1 == 0);
        if self.trains.values().any(|&(at, _)| within(at, NEXT_TRAIN)) {
            return None;
        }
        let small = WORTH * home.capacity.unwrap_or(0.0);
        let unknown = all.iter().find(|path| match self.trains.get(&path.path) {
            _ if path.capacity.is_some_and(|own| own > small) => false,
            _ if self.stripe >> path.path & 1 != 0 && path.path != home.path => false,
            Some(&(at, rest)) => home.full && !within(at, rest),
            None => home.full || path.capacity.is_none(),
        })?;
        let (_, rest) = self.trains.get(&unknown.path).copied().unwrap_or_default();
        let rest = (2 * rest).clamp(TRAIN_AGAIN, LAST_TRAIN);
        self.trains.insert(unknown.path, (now, rest));
        Some(Train { path: unknown.path, probes: TRAIN })
    }
}
