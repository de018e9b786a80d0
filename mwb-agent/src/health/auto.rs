//! Finds the check that tells the truth on a link. Pure: clock and seed are
//! handed in.
//!
//! Each method has a **reliability**: 0.7 of the part of its outcomes that were
//! right and 0.3 of a term that falls with its latency, both exponential
//! averages, divided by one more than the lies it was caught at. Which outcomes
//! count, and what a lie is, says [`super::evidence`].
//!
//! One method, the **present** one, is asked. One round of ten, at a random
//! place among them, asks another: the one that was asked least. While the
//! present one fails, or traffic meets silence, others are asked for a **second
//! opinion**: the best one and one in turn for each time of the present one. So
//! it shows within three rounds whether the link is down or the method, and the
//! link keeps its state by the answers of the others.
//!
//! Every [`EVALUATE_EVERY`] the best method that counts often enough takes the
//! place of the present one if it is better by [`BETTER_BY`]; at once when the
//! present one is caught as a liar.
//!
//! Must not know: what the methods are, sockets, states of a WAN.

use std::cmp::Reverse;
use std::fmt;
use std::time::{Duration, Instant};

use super::evidence::{Counted, Evidence, Ledger, MethodId, Outcome, Standing};
use super::random::Random;

/// How often the choice is made again.
pub const EVALUATE_EVERY: Duration = Duration::from_secs(60);
/// By which factor another method must be more reliable than the present one.
pub const BETTER_BY: f64 = 1.2;
/// Outcomes that must count before a method may be chosen.
pub const LEAST_TRIED: u32 = 5;
/// One round in so many asks another method than the present one.
const EXPLORE_EVERY: u64 = 10;
/// Outcomes that the averages go back, about.
const MEMORY: u32 = 16;
/// The latency at which its term is one half: about a round trip within a
/// continent. Beside a method of 20 ms, another one that is right as often must
/// take 230 ms for its latency alone to lose it the choice: three round trips
/// of HTTP do not, a server overseas does.
const LATENCY_SCALE: f64 = 0.1;
/// Lies after which a method is believed no more: one may be a coincidence.
const LIAR_AT: u32 = 3;
/// After so long without a lie one is forgotten: the modem may be another.
const FORGIVE_AFTER: Duration = Duration::from_secs(20 * 60);
/// For how long silence under traffic is in doubt; it is told anew with each
/// sample of the counters.
const SILENCE_LASTS: Duration = Duration::from_secs(1);

/// What is known about a method, for people.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Score {
    /// Which.
    pub method: MethodId,
    /// Whether it is the present one.
    pub present: bool,
    /// 0 to 1; 0 before anything counts.
    pub reliability: f64,
    /// Outcomes that counted.
    pub tried: u32,
    /// Of these, answers.
    pub answered: u32,
    /// Lies that are not forgotten.
    pub lies: u32,
    /// Average latency of its answers.
    pub latency: Option<Duration>,
}

/// Another method was chosen.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Switch {
    /// The one before.
    pub from: MethodId,
    /// The present one.
    pub to: MethodId,
    /// Why.
    pub why: Why,
}

/// Why another method was chosen.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Why {
    /// Its reliability, and that of the one before.
    Better(f64, f64),
    /// The one before has answered so often while the link was dead.
    Lies(u32),
}

impl fmt::Display for Why {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Why::Better(is, was) => write!(f, "reliability {is:.2}, the one before {was:.2}"),
            Why::Lies(lies) => {
                write!(f, "the one before answered {lies} times while the link was dead")
            }
        }
    }
}

#[derive(Clone, Debug)]
struct Tally {
    method: MethodId,
    right: f64,
    /// Average of the latency term.
    swift: Option<f64>,
    /// Average latency, in seconds.
    latency: Option<f64>,
    tried: u32,
    answered: u32,
    lies: u32,
    last_lie: Option<Instant>,
    asked: u64,
    /// The round that last asked it.
    asked_in: u64,
    /// Whether its latest outcome is an answer.
    answers: Option<bool>,
}

/// The step of an average that `count` values have gone into, this one included.
fn gain(count: u32) -> f64 {
    1.0 / f64::from(count.clamp(1, MEMORY))
}

impl Tally {
    fn new(method: MethodId) -> Self {
        Self {
            method,
            right: 0.0,
            swift: None,
            latency: None,
            tried: 0,
            answered: 0,
            lies: 0,
            last_lie: None,
            asked: 0,
            asked_in: 0,
            answers: None,
        }
    }

    fn count(&mut self, now: Instant, counted: Counted) {
        self.tried = self.tried.saturating_add(1);
        let right = f64::from(u8::from(matches!(counted, Counted::Answered(_))));
        self.right += (right - self.right) * gain(self.tried);
        match counted {
            Counted::Answered(latency) => {
                self.answered = self.answered.saturating_add(1);
                let latency = latency.as_secs_f64();
                let swift = LATENCY_SCALE / (LATENCY_SCALE + latency);
                let towards = |average: &mut Option<f64>, value: f64| {
                    let average = average.get_or_insert(value);
                    *average += (value - *average) * gain(self.answered);
                };
                towards(&mut self.swift, swift);
                towards(&mut self.latency, latency);
            }
            Counted::Failed => {}
            Counted::Lied => {
                // One outage may have hundreds; each would take long to forgive.
                self.lies = (self.lies + 1).min(LIAR_AT);
                self.last_lie = Some(now);
            }
        }
    }

    fn reliability(&self) -> f64 {
        let average = 0.7 * self.right + 0.3 * self.swift.unwrap_or(0.0);
        average / (1.0 + f64::from(self.lies))
    }

    fn standing(&self) -> Standing {
        Standing {
            answers: self.tried >= LEAST_TRIED && self.right >= 0.5,
            lies: self.lies >= LIAR_AT,
        }
    }

    fn forgive(&mut self, now: Instant) {
        if self.lies > 0 && self.last_lie.is_some_and(|at| now.duration_since(at) >= FORGIVE_AFTER)
        {
            self.lies -= 1;
            self.last_lie = Some(now);
        }
    }

    fn score(&self, present: MethodId) -> Score {
        Score {
            method: self.method,
            present: self.method == present,
            reliability: self.reliability(),
            tried: self.tried,
            answered: self.answered,
            lies: self.lies,
            latency: self.latency.map(Duration::from_secs_f64),
        }
    }
}

/// The choice of a method for one WAN.
#[derive(Clone, Debug)]
pub struct Auto {
    ledger: Ledger,
    tallies: Vec<Tally>,
    present: MethodId,
    random: Random,
    round: u64,
    /// Rounds since the present method came into doubt; 0 = it is not.
    doubted: u64,
    /// The place among [`EXPLORE_EVERY`] rounds that asks another method.
    explore_at: u64,
    silent_until: Option<Instant>,
    evaluate_at: Instant,
}

impl Auto {
    /// A choice among `methods`, which begins with the first; the same one
    /// given twice counts once. `None` without any.
    #[must_use]
    pub fn new(methods: &[MethodId], now: Instant, seed: u64) -> Option<Self> {
        let present = *methods.first()?;
        let mut tallies: Vec<Tally> = Vec::new();
        for &method in methods {
            if tallies.iter().all(|tally| tally.method != method) {
                tallies.push(Tally::new(method));
            }
        }
        Some(Self {
            ledger: Ledger::default(),
            tallies,
            present,
            random: Random::new(seed),
            round: 0,
            doubted: 0,
            explore_at: 0,
            silent_until: None,
            evaluate_at: now + EVALUATE_EVERY,
        })
    }

    /// The method that is trusted now.
    #[must_use]
    pub fn present(&self) -> MethodId {
        self.present
    }

    /// Whether an answer of `method` proves that the link works: it was not
    /// caught lying. What it fails to answer counts in any case.
    #[must_use]
    pub fn vouches(&self, method: MethodId) -> bool {
        standing(&self.tallies, method).is_some_and(|standing| !standing.lies)
    }

    /// Whom to ask in this round.
    pub fn next(&mut self, now: Instant) -> MethodId {
        let present = self.present;
        let doubt = self.silent_until.is_some_and(|until| now < until)
            || self.tallies.iter().any(|t| t.method == present && t.answers == Some(false));
        self.doubted = if doubt { self.doubted + 1 } else { 0 };
        let place = self.round % EXPLORE_EVERY;
        if place == 0 {
            self.explore_at = self.random.below(EXPLORE_EVERY);
        }
        let other = match self.doubted % 3 {
            0 if doubt => None,
            0 => (place == self.explore_at).then(|| self.least_asked()).flatten(),
            1 => self.best_opinion(),
            _ => self.opinion_in_turn(),
        };
        let method = other.unwrap_or(present);
        self.round += 1;
        if let Some(tally) = self.tallies.iter_mut().find(|tally| tally.method == method) {
            tally.asked += 1;
            tally.asked_in = self.round;
        }
        method
    }

    /// A round that asked `method` came to its end. Times must not go back.
    pub fn result(&mut self, now: Instant, method: MethodId, outcome: Outcome) {
        let Some(tally) = self.tallies.iter_mut().find(|tally| tally.method == method) else {
            return;
        };
        tally.answers = Some(matches!(outcome, Outcome::Answered(_)));
        self.ledger.result(now, method, outcome);
        self.settle(now);
    }

    /// Traffic said something about the link. Times must not go back.
    pub fn evidence(&mut self, now: Instant, evidence: Evidence) {
        self.silent_until = match evidence {
            Evidence::BytesBack => None,
            Evidence::SilenceUnderTraffic => Some(now + SILENCE_LASTS),
        };
        self.ledger.evidence(now, evidence);
        self.settle(now);
    }

    /// Chooses again, if it is time to.
    pub fn evaluate(&mut self, now: Instant) -> Option<Switch> {
        self.settle(now);
        if now < self.evaluate_at && self.vouches(self.present) {
            return None;
        }
        self.evaluate_at = now + EVALUATE_EVERY;
        self.tallies.iter_mut().for_each(|tally| tally.forgive(now));
        let from = self.tallies.iter().find(|tally| tally.method == self.present)?;
        let fit = |tally: &&Tally| tally.tried >= LEAST_TRIED && !tally.standing().lies;
        let better = |a: &&Tally, b: &&Tally| a.reliability().total_cmp(&b.reliability());
        let to = self.tallies.iter().filter(fit).max_by(better)?;
        let (is, was) = (to.reliability(), from.reliability());
        if to.method == from.method || is <= was * BETTER_BY {
            return None;
        }
        let why = if from.standing().lies { Why::Lies(from.lies) } else { Why::Better(is, was) };
        let switch = Switch { from: from.method, to: to.method, why };
        self.present = to.method;
        Some(switch)
    }

    /// What is known about each method, in the order of the configuration.
    #[must_use]
    pub fn scores(&self) -> Vec<Score> {
        self.tallies.iter().map(|tally| tally.score(self.present)).collect()
    }

    fn settle(&mut self, now: Instant) {
        loop {
            let standing = |method| {
                standing(&self.tallies, method).unwrap_or(Standing { answers: false, lies: true })
            };
            let Some((method, counted)) = self.ledger.settle(now, standing) else { return };
            if let Some(tally) = self.tallies.iter_mut().find(|tally| tally.method == method) {
                tally.count(now, counted);
            }
        }
    }

    fn others(&self) -> impl Iterator<Item = &Tally> {
        self.tallies.iter().filter(|tally| tally.method != self.present)
    }

    fn least_asked(&self) -> Option<MethodId> {
        self.others().min_by_key(|tally| tally.asked).map(|tally| tally.method)
    }

    /// Who answers, is no liar, and is the most reliable.
    fn best_opinion(&self) -> Option<MethodId> {
        let answers = |tally: &Tally| tally.answers == Some(true);
        self.others()
            .filter(|tally| !tally.standing().lies)
            .max_by(|a, b| {
                let reliable = || a.reliability().total_cmp(&b.reliability());
                answers(a).cmp(&answers(b)).then_with(reliable)
            })
            .map(|tally| tally.method)
    }

    /// Who was not asked for longest, besides the best one.
    fn opinion_in_turn(&self) -> Option<MethodId> {
        let best = self.best_opinion();
        let round = self.round;
        self.others()
            .filter(|tally| Some(tally.method) != best)
            .max_by_key(|tally| (round - tally.asked_in, Reverse(tally.method)))
            .map(|tally| tally.method)
    }
}

fn standing(tallies: &[Tally], method: MethodId) -> Option<Standing> {
    tallies.iter().find(|tally| tally.method == method).map(Tally::standing)
}

#[cfg(test)]
#[path = "auto_tests.rs"]
mod tests;
