//! Thompson sampling of methods (Thompson 1933): each has a Beta distribution of being right,
//! one is drawn from each, and the highest is asked. Rewards between 0 and 1 are tossed for
//! (Agrawal and Goyal, COLT 2012, algorithm 2); what is old counts less, so that a method may
//! change. Outcomes are judged by the same evidence as those of the averages.

use std::time::{Duration, Instant};

use mwb_agent::health::auto::{BETTER_BY, EVALUATE_EVERY, LEAST_TRIED};
use mwb_agent::health::evidence::{Counted, Evidence, Ledger, MethodId, Outcome, Standing};
use rand::{RngExt as _, SeedableRng as _, rngs::StdRng};
use rand_distr::{Beta, Distribution as _};

use crate::{Choice, world::METHODS};

/// Lies after which a method is believed no more.
const LIAR_AT: u32 = 3;
/// After so long without a lie one is forgotten.
const FORGIVE_AFTER: Duration = Duration::from_secs(20 * 60);
/// One round of so many asks another than the present method.
const EXPLORE_EVERY: u64 = 10;
/// The latency at which its term is one half.
const LATENCY_SCALE: f64 = 0.1;

/// How much it is left to the samples.
#[derive(Clone, Copy, PartialEq)]
pub(crate) enum Form {
    /// All: each round asks whoever is drawn, and every answer is believed.
    Plain,
    /// Whom to explore, and to choose among those tried often enough and clearly better; second
    /// opinions and liars as with the averages.
    Guarded,
}

#[derive(Clone, Copy, Default)]
struct Arm {
    right: f64,
    wrong: f64,
    tried: u32,
    lies: u32,
    last_lie: Option<Instant>,
    /// The round that last asked it.
    asked_in: u64,
    answers: Option<bool>,
}

impl Arm {
    fn standing(&self) -> Standing {
        let answers = self.tried >= LEAST_TRIED && self.right >= self.wrong;
        Standing { answers, lies: self.lies >= LIAR_AT }
    }
}

pub(crate) struct Thompson {
    form: Form,
    /// What one outcome leaves of those before.
    discount: f64,
    ledger: Ledger,
    arms: [Arm; METHODS],
    present: usize,
    random: StdRng,
    round: u64,
    doubted: u64,
    explore_at: u64,
    silent_until: Option<Instant>,
    evaluate_at: Instant,
}

impl Thompson {
    pub(crate) fn new(form: Form, discount: f64, now: Instant, seed: u64) -> Self {
        Self {
            form,
            discount,
            ledger: Ledger::default(),
            arms: [Arm::default(); METHODS],
            present: 0,
            random: StdRng::seed_from_u64(seed),
            round: 0,
            doubted: 0,
            explore_at: 0,
            silent_until: None,
            evaluate_at: now + EVALUATE_EVERY,
        }
    }

    fn draw(&mut self) -> [f64; METHODS] {
        let random = &mut self.random;
        self.arms.map(|arm| {
            let beta = Beta::new(1.0 + arm.right, 1.0 + arm.wrong).expect("both are above zero");
            beta.sample(random)
        })
    }

    /// The highest draw among those.
    fn drawn(&mut self, among: impl Fn(usize, &Arm) -> bool) -> Option<usize> {
        let draws = self.draw();
        (0..METHODS)
            .filter(|&arm| among(arm, &self.arms[arm]))
            .max_by(|&one, &other| draws[one].total_cmp(&draws[other]))
    }

    fn settle(&mut self, now: Instant) {
        loop {
            let arms = &self.arms;
            let standing = |method: MethodId| arms[usize::from(method.0)].standing();
            let Some((method, counted)) = self.ledger.settle(now, standing) else { return };
            let reward = match counted {
                Counted::Answered(latency) => {
                    0.7 + 0.3 * LATENCY_SCALE / (LATENCY_SCALE + latency.as_secs_f64())
                }
                Counted::Failed | Counted::Lied => 0.0,
            };
            let won = self.random.random::<f64>() < reward;
            let arm = &mut self.arms[usize::from(method.0)];
            (arm.right, arm.wrong) = (arm.right * self.discount, arm.wrong * self.discount);
            *(if won { &mut arm.right } else { &mut arm.wrong }) += 1.0;
            arm.tried += 1;
            if counted == Counted::Lied {
                (arm.lies, arm.last_lie) = ((arm.lies + 1).min(LIAR_AT), Some(now));
            }
        }
    }

    /// Whom to ask with the guards: as the averages do, but for who is drawn.
    fn guarded(&mut self, now: Instant) -> usize {
        let present = self.present;
        let doubt = self.silent_until.is_some_and(|until| now < until)
            || self.arms[present].answers == Some(false);
        self.doubted = if doubt { self.doubted + 1 } else { 0 };
        if self.round.is_multiple_of(EXPLORE_EVERY) {
            self.explore_at = self.random.random_range(0..EXPLORE_EVERY);
        }
        let other = match self.doubted % 3 {
            0 if doubt => None,
            0 if self.round % EXPLORE_EVERY != self.explore_at => None,
            1 => {
                let may = |arm: usize, it: &Arm| arm != present && !it.standing().lies;
                self.drawn(|arm, it| may(arm, it) && it.answers == Some(true))
                    .or_else(|| self.drawn(may))
            }
            2 => {
                let others = (0..METHODS).filter(|&arm| arm != present);
                others.min_by_key(|&arm| self.arms[arm].asked_in)
            }
            _ => self.drawn(|arm, _| arm != present),
        };
        other.unwrap_or(present)
    }
}

impl Choice for Thompson {
    fn next(&mut self, now: Instant) -> MethodId {
        let arm = match self.form {
            Form::Guarded => self.guarded(now),
            Form::Plain => self.drawn(|_, _| true).unwrap_or(self.present),
        };
        self.round += 1;
        self.arms[arm].asked_in = self.round;
        MethodId(arm as u8)
    }

    fn result(&mut self, now: Instant, method: MethodId, outcome: Outcome) {
        let answers = matches!(outcome, Outcome::Answered(_));
        self.arms[usize::from(method.0)].answers = Some(answers);
        self.ledger.result(now, method, outcome);
        self.settle(now);
    }

    fn evidence(&mut self, now: Instant, evidence: Evidence) {
        self.silent_until = match evidence {
            Evidence::BytesBack => None,
            Evidence::SilenceUnderTraffic => Some(now + Duration::from_secs(1)),
        };
        self.ledger.evidence(now, evidence);
        self.settle(now);
    }

    fn evaluate(&mut self, now: Instant) -> bool {
        let liar = self.form == Form::Guarded && self.arms[self.present].standing().lies;
        if now < self.evaluate_at && !liar {
            return false;
        }
        self.evaluate_at = now + EVALUATE_EVERY;
        for arm in &mut self.arms {
            if arm.lies > 0 && arm.last_lie.is_some_and(|at| now - at >= FORGIVE_AFTER) {
                (arm.lies, arm.last_lie) = (arm.lies - 1, Some(now));
            }
        }
        let draws = self.draw();
        let fit = |arm: &usize| {
            let it = &self.arms[*arm];
            self.form == Form::Plain || it.tried >= LEAST_TRIED && !it.standing().lies
        };
        let best = (0..METHODS).filter(fit).max_by(|&a, &b| draws[a].total_cmp(&draws[b]));
        let by = if self.form == Form::Guarded && !liar { BETTER_BY } else { 1.0 };
        let Some(to) = best.filter(|&to| draws[to] > draws[self.present] * by || liar) else {
            return false;
        };
        std::mem::replace(&mut self.present, to) != to
    }

    fn present(&self) -> Option<MethodId> {
        (self.form == Form::Guarded).then_some(MethodId(self.present as u8))
    }

    fn vouches(&self, method: MethodId) -> bool {
        self.form == Form::Plain || !self.arms[usize::from(method.0)].standing().lies
    }
}
