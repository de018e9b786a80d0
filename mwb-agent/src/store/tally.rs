//! What one period holds, and how two become one: by adding, so that it does not
//! matter in which order and over which steps rows are merged.
//!
//! Must not know: which period it is, where it is stored.

use super::histogram::Histogram;
use super::record::State;

/// Rounds, latencies and states of one stretch of time.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// Rounds that were answered.
    pub answered: u64,
    /// Rounds that were not.
    pub lost: u64,
    /// Least and greatest latency in microseconds, if any round was answered.
    pub range_us: Option<(u32, u32)>,
    /// Sum of the latencies in microseconds.
    pub sum_us: u64,
    /// Latencies by size.
    pub histogram: Histogram,
    /// Sum of the jitter after each answer, in 1/16 µs.
    pub jitter_sum: u64,
    /// Number of answers that had a jitter: all but the first of a series.
    pub jitter_count: u64,
    /// Milliseconds in each state, by the state's number. The state is the WAN's,
    /// whatever the method.
    pub states_ms: [u64; 5],
}

impl Tally {
    /// Counts an answer after `us` microseconds; `jitter` in 1/16 µs.
    pub(crate) fn add_answer(&mut self, us: u32, jitter: Option<u64>) {
        self.answered = self.answered.saturating_add(1);
        self.sum_us = self.sum_us.saturating_add(u64::from(us));
        self.widen((us, us));
        self.histogram.add(us);
        if let Some(jitter) = jitter {
            self.jitter_sum = self.jitter_sum.saturating_add(jitter);
            self.jitter_count = self.jitter_count.saturating_add(1);
        }
    }

    /// Counts a round without an answer.
    pub(crate) fn add_loss(&mut self) {
        self.lost = self.lost.saturating_add(1);
    }

    /// Counts time in a state.
    pub(crate) fn add_state(&mut self, state: State, ms: u64) {
        let held = &mut self.states_ms[state as usize];
        *held = held.saturating_add(ms);
    }

    /// Adds what another one holds.
    pub fn merge(&mut self, other: &Tally) {
        self.answered = self.answered.saturating_add(other.answered);
        self.lost = self.lost.saturating_add(other.lost);
        self.sum_us = self.sum_us.saturating_add(other.sum_us);
        if let Some(range) = other.range_us {
            self.widen(range);
        }
        self.histogram.merge(&other.histogram);
        self.jitter_sum = self.jitter_sum.saturating_add(other.jitter_sum);
        self.jitter_count = self.jitter_count.saturating_add(other.jitter_count);
        for (held, more) in self.states_ms.iter_mut().zip(other.states_ms) {
            *held = held.saturating_add(more);
        }
    }

    /// Rounds sent: those answered and those lost.
    #[must_use]
    pub fn sent(&self) -> u64 {
        self.answered.saturating_add(self.lost)
    }

    /// Part of the rounds that was lost, 0 to 1; `None` without rounds.
    #[must_use]
    pub fn loss(&self) -> Option<f64> {
        ratio(self.lost, self.sent())
    }

    /// Mean latency in microseconds.
    #[must_use]
    pub fn mean_us(&self) -> Option<f64> {
        ratio(self.sum_us, self.answered)
    }

    /// The latency in microseconds that `per_mille` of the answers do not exceed;
    /// off by at most 3.2 %, and never outside the range.
    #[must_use]
    pub fn percentile_us(&self, per_mille: u16) -> Option<u32> {
        let (min, max) = self.range_us?;
        Some(self.histogram.percentile(per_mille)?.max(min).min(max))
    }

    /// Mean of the jitter (RFC 3550, 6.4.1) in microseconds.
    #[must_use]
    pub fn jitter_us(&self) -> Option<f64> {
        ratio(self.jitter_sum, self.jitter_count).map(|sixteenths| sixteenths / 16.0)
    }

    /// Milliseconds in a state.
    #[must_use]
    pub fn in_state_ms(&self, state: State) -> u64 {
        self.states_ms[state as usize]
    }

    /// Part of the time, 0 to 1, that the WAN was up or degraded, of the time that
    /// its state was known: down and testing count against it, unknown does not
    /// count. `None` if it was never known.
    #[must_use]
    pub fn availability(&self) -> Option<f64> {
        let sum = |states: [State; 2]| {
            states.into_iter().fold(0_u64, |sum, state| sum.saturating_add(self.in_state_ms(state)))
        };
        let usable = sum([State::Up, State::Degraded]);
        ratio(usable, usable.saturating_add(sum([State::Testing, State::Down])))
    }

    fn widen(&mut self, (low, high): (u32, u32)) {
        let (min, max) = self.range_us.unwrap_or((low, high));
        self.range_us = Some((min.min(low), max.max(high)));
    }
}

fn ratio(part: u64, whole: u64) -> Option<f64> {
    (whole > 0).then(|| part as f64 / whole as f64)
}
