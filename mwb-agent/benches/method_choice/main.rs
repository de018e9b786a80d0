//! Two ways to find the check that tells the truth, in situations that are simulated: the
//! averages of `health::auto`, and Thompson sampling with and without the same guards. Prints
//! what came of each, for `cargo xtask bench method-choice`.

mod thompson;
mod world;

use std::time::{Duration, Instant};

use mwb_agent::health::auto::Auto;
use mwb_agent::health::evidence::{Evidence, MethodId, Outcome};
use rand::{RngExt as _, SeedableRng as _, rngs::StdRng};

use thompson::{Form, Thompson};
use world::{METHODS, Situation};

/// Runs of each situation, and how long each is.
const SEEDS: u64 = 20;
const LENGTH: Duration = Duration::from_secs(40 * 60);
/// The default interval between two rounds.
const ROUND: Duration = Duration::from_millis(200);
/// Rounds in a row without an answer that is believed, after which a link is called down.
const MISSES: u32 = 3;
/// How long after a change of the link a verdict may be wrong: no way to choose shortens it.
const GRACE: Duration = Duration::from_secs(1);

/// What one outcome leaves of those before, where Thompson sampling remembers some 200, and
/// as many as the averages do.
const LONG: f64 = 0.995;
const SHORT: f64 = 1.0 - 1.0 / 16.0;

/// A way to choose whom to ask, and whom to believe.
trait Choice {
    fn next(&mut self, now: Instant) -> MethodId;
    fn result(&mut self, now: Instant, method: MethodId, outcome: Outcome);
    fn evidence(&mut self, now: Instant, evidence: Evidence);
    /// Whether another method was chosen.
    fn evaluate(&mut self, now: Instant) -> bool;
    /// The method that is trusted now; `None`: whichever is asked.
    fn present(&self) -> Option<MethodId>;
    /// Whether its answer proves that the link works.
    fn vouches(&self, method: MethodId) -> bool;
}

impl Choice for Auto {
    fn next(&mut self, now: Instant) -> MethodId {
        Auto::next(self, now)
    }

    fn result(&mut self, now: Instant, method: MethodId, outcome: Outcome) {
        Auto::result(self, now, method, outcome);
    }

    fn evidence(&mut self, now: Instant, evidence: Evidence) {
        Auto::evidence(self, now, evidence);
    }

    fn evaluate(&mut self, now: Instant) -> bool {
        Auto::evaluate(self, now).is_some()
    }

    fn present(&self) -> Option<MethodId> {
        Some(Auto::present(self))
    }

    fn vouches(&self, method: MethodId) -> bool {
        Auto::vouches(self, method)
    }
}

/// A strategy's name, and how it begins with a seed.
type Strategy<'a> = (&'static str, &'a dyn Fn(u64) -> Box<dyn Choice>);

/// What came of a choice.
#[derive(Default)]
struct Tally {
    rounds: u64,
    /// Rounds that asked a method whose word is true.
    truthful: u64,
    wrong: Duration,
    /// How often another method was trusted.
    changes: Option<u64>,
}

fn main() {
    let start = Instant::now();
    let methods: Vec<MethodId> = (0..METHODS as u8).map(MethodId).collect();
    let strategies: [Strategy<'_>; 4] = [
        ("averages", &|seed| Box::new(Auto::new(&methods, start, seed).expect("methods"))),
        ("guarded", &|seed| Box::new(Thompson::new(Form::Guarded, LONG, start, seed))),
        ("guarded-short", &|seed| Box::new(Thompson::new(Form::Guarded, SHORT, start, seed))),
        ("plain", &|seed| Box::new(Thompson::new(Form::Plain, LONG, start, seed))),
    ];
    for situation in world::all() {
        for (name, make) in &strategies {
            let mut tally = Tally::default();
            for seed in 1..=SEEDS {
                run(&situation, make(seed).as_mut(), start, seed, &mut tally);
            }
            let hours = (LENGTH * SEEDS as u32).as_secs_f64() / 3600.0;
            println!(
                "{}\t{name}\t{:.1}\t{:.1}\t{:.1}",
                situation.name,
                100.0 * tally.truthful as f64 / tally.rounds as f64,
                tally.wrong.as_secs_f64() / hours,
                // Who trusts whomever is asked changes nothing.
                tally.changes.map_or(f64::NAN, |changes| changes as f64 / hours),
            );
        }
    }
}

fn run(situation: &Situation, choice: &mut dyn Choice, start: Instant, seed: u64, to: &mut Tally) {
    // Not what the choice draws.
    let mut chance = StdRng::seed_from_u64(seed ^ 0x9e37_79b9_7f4a_7c15);
    let (mut misses, mut works, mut changed) = (0, true, Duration::ZERO);
    let mut at = Duration::ZERO;
    while at < LENGTH {
        let method = choice.next(start + at);
        at += ROUND;
        let now = start + at;
        let up = situation.is_up(at);
        if up != works {
            (works, changed) = (up, at);
        }
        if situation.has_traffic(at) {
            let evidence = if up { Evidence::BytesBack } else { Evidence::SilenceUnderTraffic };
            choice.evidence(now, evidence);
            misses = if up { 0 } else { misses };
        }
        let outcome = situation.ask(method, at, chance.random());
        choice.result(now, method, outcome);
        let changed_choice = choice.evaluate(now);
        let present = choice.present();
        if present.is_some() {
            *to.changes.get_or_insert(0) += u64::from(changed_choice);
        }
        // A failure of one that is only tried counts in doubt alone.
        let counts = misses > 0 || present.is_none_or(|present| present == method);
        if matches!(outcome, Outcome::Answered(_)) && choice.vouches(method) {
            misses = 0;
        } else if counts {
            misses += 1;
        }
        to.rounds += 1;
        to.truthful += u64::from(situation.is_truthful(method, at));
        if (misses < MISSES) != up && at - changed > GRACE {
            to.wrong += ROUND;
        }
    }
}
