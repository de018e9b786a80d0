//! When an elephant begins to use a longer path: how much of the difference in delay counts.
//!
//! The far end puts packets in order, so all of a flow come as late as those by the longest
//! path that it uses. A flow of TCP with a window for the short path alone would have less
//! by both than by the one. What fills the short path until a packet by the longer one is
//! there as early has the window for both: at first all of the difference counts, and the
//! flow uses the longer path when that costs it nothing. From then on the queue is of no use
//! to it, and is in the way of others: less and less counts, as long as more arrives than
//! the shorter paths could carry.

use super::stripe::Candidate;

/// What is left of the difference in the end, in ns: what a burst waits for the short path.
const LEAST: f64 = 4e6;
/// What counts of it at most, in ns: a queue before a path is not much longer than that.
const MOST: f64 = 45e6;
/// A longer path is in use if it carries this part of all.
const IN_USE: f64 = 0.05;
/// It pays for as long as so much arrives of what the shorter paths can carry, and does not
/// if less than this does.
const PAYS: f64 = 0.95;
const FAILS: f64 = 0.8;
/// The part that counts shrinks and grows by so much each tick.
const SHRINKS: f64 = 0.7;
const GROWS: f64 = 1.3;
/// And by so much while no longer path is in use.
const RECOVERS: f64 = 1.05;

/// How much of the difference counts.
#[derive(Clone, Debug)]
pub(super) struct Spill {
    part: f64,
}

impl Default for Spill {
    fn default() -> Self {
        Self { part: 1.0 }
    }
}

impl Spill {
    /// The part of the difference that counts now, for those that elephants go by.
    pub(super) fn decide(&mut self, members: &[&Candidate]) -> f64 {
        let shortest = members.iter().map(|path| path.way).fold(f64::INFINITY, f64::min);
        let longest = members.iter().map(|path| path.way).fold(shortest, f64::max);
        let apart = (longest - shortest).max(1.0);
        let sum: f64 = members.iter().map(|path| path.rate).sum();
        let in_use = |path: &&&Candidate| path.rate > IN_USE * sum;
        let used = members.iter().filter(in_use).map(|path| path.way).fold(shortest, f64::max);
        let shorter = members.iter().filter(|path| path.way < used - LEAST);
        let base: f64 = shorter.filter_map(|path| path.capacity).sum();
        self.part *= if base == 0.0 {
            RECOVERS
        } else if sum >= PAYS * base {
            SHRINKS
        } else if sum < FAILS * base {
            GROWS
        } else {
            1.0
        };
        self.part = self.part.clamp((LEAST / apart).min(1.0), (MOST / apart).min(1.0));
        self.part
    }
}
