//! What was not written yet, in memory: rounds and time in states by periods of
//! 10 s. Pure: each call brings its moment along.
//!
//! A round belongs to the period of the wall's clock that it carries, and time in
//! a state is measured by the steady clock and ends at the wall's time of the call.
//! So whatever the wall's clock does, each round and each second counts once. Back:
//! periods that were written already get more. Forward: the periods between stay
//! without data. Must not know: SQLite, threads.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::Arc;

use super::level::{LEVELS, start_of};
use super::record::{Change, Moment, Outcome, Round, State};
use super::tally::Tally;

/// Most rows that wait for the disk; older ones are given up.
pub(crate) const MAX_ROWS: usize = 8192;
/// Most changes that wait for the disk.
pub(crate) const MAX_CHANGES: usize = 1024;
/// Most series (WAN and method) at a time: 32 WANs with more methods than there are.
pub(crate) const MAX_SERIES: usize = 1024;

/// The row that something belongs to.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Key {
    /// Second of the period's start.
    pub(crate) start_s: i64,
    pub(crate) wan: Arc<str>,
    pub(crate) method: Arc<str>,
}

/// Rounds with one outcome in a row, up to now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Run {
    /// Whether they were answered.
    pub answered: bool,
    /// How many.
    pub length: u64,
}

/// A run since the last write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Tail {
    pub(crate) run: Run,
    /// Whether nothing else came since then: it goes on with a run before.
    pub(crate) whole: bool,
}

/// The run after `before` that ends in `tail`.
pub(crate) fn joined(before: Option<Run>, tail: Tail) -> Run {
    match before {
        Some(before) if tail.whole && before.answered == tail.run.answered => {
            Run { answered: before.answered, length: before.length.saturating_add(tail.run.length) }
        }
        _ => tail.run,
    }
}

/// What is to be written.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Batch {
    pub(crate) rows: BTreeMap<Key, Tally>,
    /// By WAN and method.
    pub(crate) tails: BTreeMap<(Arc<str>, Arc<str>), Tail>,
    pub(crate) changes: VecDeque<Change>,
}

impl Batch {
    pub(crate) fn is_empty(&self) -> bool {
        self.rows.is_empty() && self.tails.is_empty() && self.changes.is_empty()
    }
}

/// Jitter as RFC 3550, 6.4.1 has it, of round-trip times instead of transit times.
#[derive(Clone, Copy, Debug, Default)]
struct Jitter {
    last_us: Option<u32>,
    /// In 1/16 µs.
    scaled: u64,
}

impl Jitter {
    /// The jitter after this answer, unless it is the first.
    fn after(&mut self, us: u32) -> Option<u64> {
        let last = self.last_us.replace(us)?;
        self.scaled = self.scaled + u64::from(last.abs_diff(us)) - ((self.scaled + 8) >> 4);
        Some(self.scaled)
    }
}

#[derive(Debug)]
struct Wan {
    state: State,
    /// Up to when its time in states is counted.
    counted: Moment,
    methods: HashMap<Arc<str>, Jitter>,
}

/// Takes rounds and changes, gives batches.
#[derive(Debug, Default)]
pub(crate) struct Accumulator {
    batch: Batch,
    wans: HashMap<Arc<str>, Wan>,
    series: usize,
    given_up: u64,
}

impl Accumulator {
    /// Counts a round, for its method and for all methods together.
    pub(crate) fn round(&mut self, round: &Round) {
        let all: Arc<str> = Arc::from("");
        if !self.knows(&round.wan, State::Unknown, round.at) {
            return;
        }
        let Some(wan) = self.wans.get_mut(&round.wan) else { return };
        if !wan.methods.contains_key(&round.method) {
            if self.series >= MAX_SERIES {
                self.given_up += 1;
                return;
            }
            self.series += 1;
            wan.methods.insert(round.method.clone(), Jitter::default());
        }
        let answer = match round.outcome {
            Outcome::Lost => None,
            Outcome::Answered(rtt) => {
                let us = u32::try_from(rtt.as_micros()).unwrap_or(u32::MAX);
                let jitter = wan.methods.get_mut(&round.method).and_then(|jitter| jitter.after(us));
                Some((us, jitter))
            }
        };
        self.count(&round.wan, &all, round.at, answer);
        if round.method != all {
            self.count(&round.wan, &round.method, round.at, answer);
        }
        self.bound();
    }

    /// Keeps a change; the time up to it was spent in the state before.
    pub(crate) fn change(&mut self, mut change: Change) {
        let mut end = change.reason.len().min(500);
        while !change.reason.is_char_boundary(end) {
            end -= 1;
        }
        change.reason.truncate(end);
        if !self.knows(&change.wan, change.from, change.at) {
            return;
        }
        self.pass(&change.wan, change.at);
        if let Some(wan) = self.wans.get_mut(&change.wan) {
            wan.state = change.to;
        }
        self.batch.changes.push_back(change);
        self.bound();
    }

    /// A WAN that is no longer there spends no more time in any state.
    pub(crate) fn forget(&mut self, name: &Arc<str>, at: Moment) {
        self.pass(name, at);
        if let Some(wan) = self.wans.remove(name) {
            self.series -= wan.methods.len() + 1;
        }
        self.bound();
    }

    /// Counts the time of every WAN up to this moment, and hands out all there is.
    pub(crate) fn take(&mut self, now: Moment) -> Batch {
        let names: Vec<_> = self.wans.keys().cloned().collect();
        for name in names {
            self.pass(&name, now);
            self.bound();
        }
        std::mem::take(&mut self.batch)
    }

    /// Takes back a batch that could not be written.
    pub(crate) fn give_back(&mut self, batch: Batch) {
        let newer = std::mem::replace(&mut self.batch, batch);
        for (key, tally) in newer.rows {
            self.batch.rows.entry(key).or_default().merge(&tally);
        }
        for (series, tail) in newer.tails {
            let joined = match self.batch.tails.get(&series) {
                Some(before) => {
                    let run = joined(Some(before.run), tail);
                    let goes_on = tail.whole && before.run.answered == run.answered;
                    Tail { run, whole: goes_on && before.whole }
                }
                None => tail,
            };
            self.batch.tails.insert(series, joined);
        }
        self.batch.changes.extend(newer.changes);
        self.bound();
    }

    /// Rows, changes and rounds that were given up because there was no room.
    pub(crate) fn given_up(&self) -> u64 {
        self.given_up
    }

    /// Whether the WAN is known, which it is from now on if there is room.
    fn knows(&mut self, name: &Arc<str>, state: State, at: Moment) -> bool {
        if self.wans.contains_key(name) {
            return true;
        }
        if self.series >= MAX_SERIES {
            self.given_up += 1;
            return false;
        }
        // One for all methods together.
        self.series += 1;
        let wan = Wan { state, counted: at, methods: HashMap::new() };
        self.wans.insert(name.clone(), wan);
        true
    }

    fn count(
        &mut self,
        wan: &Arc<str>,
        method: &Arc<str>,
        at: Moment,
        answer: Option<(u32, Option<u64>)>,
    ) {
        let tally = self.row(wan, method, at.wall_s());
        match answer {
            Some((us, jitter)) => tally.add_answer(us, jitter),
            None => tally.add_loss(),
        }
        let one = Run { answered: answer.is_some(), length: 1 };
        self.batch
            .tails
            .entry((wan.clone(), method.clone()))
            .and_modify(|tail| {
                let goes_on = tail.run.answered == one.answered;
                let run = joined(Some(tail.run), Tail { run: one, whole: true });
                *tail = Tail { run, whole: tail.whole && goes_on };
            })
            .or_insert(Tail { run: one, whole: true });
    }

    /// Counts a WAN's time since the last call for its state, by periods.
    fn pass(&mut self, name: &Arc<str>, now: Moment) {
        let Some(wan) = self.wans.get_mut(name) else { return };
        let passed = now.steady_ms.saturating_sub(wan.counted.steady_ms);
        if passed == 0 {
            return;
        }
        let state = wan.state;
        wan.counted = now;
        let all: Arc<str> = Arc::from("");
        let mut left = passed;
        // Backwards from now: what exceeds the room is the oldest.
        let mut end = now.wall_ms;
        for _ in 0..MAX_ROWS {
            if left == 0 {
                break;
            }
            let second = (end - 1).div_euclid(1000);
            let start_ms = start_of(second, LEVELS[0]) * 1000;
            let part = left.min(end.abs_diff(start_ms));
            self.row(name, &all, second).add_state(state, part);
            left -= part;
            end = start_ms;
        }
        self.given_up += u64::from(left > 0);
    }

    fn row(&mut self, wan: &Arc<str>, method: &Arc<str>, second: i64) -> &mut Tally {
        let start_s = start_of(second, LEVELS[0]);
        let key = Key { start_s, wan: wan.clone(), method: method.clone() };
        self.batch.rows.entry(key).or_default()
    }

    /// Gives up what there is no room for, oldest first.
    fn bound(&mut self) {
        while self.batch.rows.len() > MAX_ROWS && self.batch.rows.pop_first().is_some() {
            self.given_up += 1;
        }
        while self.batch.changes.len() > MAX_CHANGES && self.batch.changes.pop_front().is_some() {
            self.given_up += 1;
        }
        // A WAN that comes and goes under ever new names.
        while self.batch.tails.len() > 2 * MAX_SERIES && self.batch.tails.pop_first().is_some() {
            self.given_up += 1;
        }
    }
}

#[cfg(test)]
#[path = "accumulate_tests.rs"]
mod tests;
