//! What the checks of a metered WAN may cost. Pure.
//!
//! A bucket of rounds, so that no day, wherever it begins, has more than the
//! budget. A tenth is put by for doubts; the steady pace takes eight tenths, and
//! leaves one to put by again within a day.
//!
//! Must not know: when a WAN should be asked.

use std::time::{Duration, Instant};

use thiserror::Error;

const DAY: Duration = Duration::from_secs(86_400);
/// A budget that allows for less than a round in this time is refused.
const SLOWEST: Duration = Duration::from_secs(60);
/// Part of a day's rounds that is put by, and that the steady pace takes.
const RESERVE: f64 = 0.1;
const STEADY: f64 = 0.8;

/// A budget that cannot be kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error(
    "a budget of {given} bytes a day is less than one round of {round} bytes a minute takes: \
     give the WAN at least {least} bytes, or ask fewer targets"
)]
pub struct TooSmall {
    given: u64,
    round: u64,
    /// The least budget for such rounds, in bytes a day.
    pub least: u64,
}

/// The budget of one WAN.
#[derive(Clone, Copy, Debug)]
pub(super) struct Budget {
    /// Rounds that fit into a day.
    rounds: f64,
    saved: f64,
    at: Option<Instant>,
}

impl Budget {
    /// So many bytes a day, of which a round takes `bytes_per_round`: to all
    /// targets, both ways, with headers.
    ///
    /// # Errors
    /// Its steady pace is slower than a round a minute.
    pub(super) fn new(bytes_per_day: u64, bytes_per_round: u64) -> Result<Self, TooSmall> {
        let round = bytes_per_round.max(1);
        // Exact for budgets up to 8 PB.
        let least_rounds = DAY.as_secs() / SLOWEST.as_secs() * 5 / 4;
        let least = least_rounds.saturating_mul(round);
        if bytes_per_day < least {
            return Err(TooSmall { given: bytes_per_day, round, least });
        }
        let rounds = (bytes_per_day / round) as f64;
        Ok(Self { rounds, saved: rounds * RESERVE, at: None })
    }

    /// The same budget with what is saved of an older one: a change must not
    /// give a second reserve.
    #[must_use]
    pub(super) fn after(self, old: Option<Self>) -> Self {
        let Some(old) = old else { return self };
        Self { saved: old.saved.min(self.rounds * RESERVE), at: old.at, ..self }
    }

    /// A round was sent.
    pub(super) fn spend(&mut self, now: Instant) {
        self.saved = (self.saved(now) - 1.0).max(0.0);
        self.at = Some(now);
    }

    /// The time between rounds when nothing is in doubt.
    #[must_use]
    pub(super) fn steady(&self) -> Duration {
        Duration::from_secs_f64(DAY.as_secs_f64() / (self.rounds * STEADY))
    }

    /// How long until there is a round to spend.
    #[must_use]
    pub(super) fn until_next(&self, now: Instant) -> Duration {
        Duration::from_secs_f64((1.0 - self.saved(now)).max(0.0) / self.rate())
    }

    /// Rounds a second: with a full reserve, a day's rounds.
    fn rate(&self) -> f64 {
        self.rounds * (1.0 - RESERVE) / DAY.as_secs_f64()
    }

    fn saved(&self, now: Instant) -> f64 {
        let since = self.at.map_or(0.0, |at| now.duration_since(at).as_secs_f64());
        (self.saved + since * self.rate()).min(self.rounds * RESERVE)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_budget_below_a_round_a_minute_is_refused_and_says_what_would_do() {
        let refused = Budget::new(150_000, 168).expect_err("too small");
        assert_eq!(
            refused.to_string(),
            "a budget of 150000 bytes a day is less than one round of 168 bytes a minute takes: \
             give the WAN at least 302400 bytes, or ask fewer targets"
        );
        let least = Budget::new(refused.least, 168).expect("the least");
        assert_eq!(least.steady(), SLOWEST);
    }

    #[test]
    fn a_change_of_the_budget_gives_no_second_reserve() {
        let now = Instant::now();
        let mut budget = Budget::new(1_000_000, 100).expect("enough");
        (0..1000).for_each(|_| budget.spend(now));
        assert!(!budget.until_next(now).is_zero());
        let more = Budget::new(2_000_000, 100).expect("enough").after(Some(budget));
        assert!(!more.until_next(now).is_zero());
    }

    proptest! {
        #[test]
        fn no_day_has_more_rounds_than_the_budget_wherever_it_begins(
            bytes in 302_400u64..3_000_000, round in 60u64..168, greedy in prop::collection::vec(any::<bool>(), 72),
        ) {
            let mut budget = Budget::new(bytes, round).expect("enough");
            let start = Instant::now();
            let (mut at, mut sent) = (Duration::ZERO, Vec::new());
            while at < DAY * 3 {
                let hour = (at.as_secs() / 3600) as usize;
                // As fast as it goes, or steadily, by the hour.
                let wait = budget.until_next(start + at);
                let pace = if greedy.get(hour) == Some(&true) { Duration::from_millis(100) } else { budget.steady() };
                if wait.is_zero() {
                    budget.spend(start + at);
                    sent.push(at);
                    at += pace;
                } else {
                    at += wait;
                }
            }
            let most = (bytes / round) as usize;
            let mut first = 0;
            for (place, &last) in sent.iter().enumerate() {
                while last - sent[first] >= DAY {
                    first += 1;
                }
                prop_assert!(place - first < most, "{} rounds, of {most}", place - first + 1);
            }
            prop_assert!(sent.len() > most * 2, "{} of {most}", sent.len());
        }
    }
}
