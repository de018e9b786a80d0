//! What an answer or a failure of a check says about the check itself. Pure.
//!
//! A check that fails is either broken or right. Which of the two shows what
//! else was seen shortly before **and** shortly after, each within [`WINDOW`]:
//!
//! - The link **works** if bytes came back; or if, with no silence under
//!   traffic, more other methods answered than did not. Of those that did not
//!   answer only methods that usually do have a vote, and of those that
//!   answered only such that were not caught lying.
//! - The link is **dead** if traffic went out and nothing came back, another
//!   method that usually answers did not, and no other one answered.
//!
//! A failure counts if the link worked before and after. An answer is a lie if
//! the link was dead before and after; else it counts as an answer. Every other
//! failure is right, or nobody knows, and says nothing about the method. Both
//! sides are looked at since an outage begins and ends between two results: one
//! side alone would blame what failed just after it had begun.
//!
//! So an outage longer than the window costs no method anything, and each
//! outcome is known to count only [`WINDOW`] after it came.
//!
//! Must not know: what the methods are, scores, who is asked.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

/// How far from an outcome other signs still say something about it: methods
/// ask each other's opinion within three rounds each, so five of them at the
/// default interval do within this.
pub const WINDOW: Duration = Duration::from_secs(3);

/// One configured check of a WAN: its place in the configuration.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct MethodId(pub u8);

/// What became of a round.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Answered, after this time.
    Answered(Duration),
    /// No answer in time, or one that says that it does not work.
    Failed,
}

/// What traffic says about the link.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Evidence {
    /// Packets of flows came in by the WAN.
    BytesBack,
    /// Packets went out where packets used to come back, or SYNs did, and
    /// nothing has come back. To be told with every sample for which it holds.
    SilenceUnderTraffic,
}

/// What an outcome says about its method.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Counted {
    /// It answered, after this time.
    Answered(Duration),
    /// It failed while the link worked.
    Failed,
    /// It answered while the link was dead.
    Lied,
}

/// How much a method's word is worth.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Standing {
    /// It usually answers, so that its failure says something.
    pub answers: bool,
    /// It was caught lying, so that its answer says nothing.
    pub lies: bool,
}

#[derive(Clone, Copy, Debug)]
enum Seen {
    Result(MethodId, Outcome),
    Traffic(Evidence),
}

/// What was seen lately, and which of it was judged.
#[derive(Clone, Debug, Default)]
pub struct Ledger {
    seen: VecDeque<(Instant, Seen)>,
    /// So many of `seen` are judged.
    judged: usize,
}

/// What was seen on one side of an outcome.
#[derive(Default)]
struct Side {
    bytes: bool,
    silence: bool,
    answered: Vec<MethodId>,
    failed: Vec<MethodId>,
}

impl Side {
    fn of<'a>(
        seen: impl Iterator<Item = &'a (Instant, Seen)>,
        besides: MethodId,
        standing: impl Fn(MethodId) -> Standing,
    ) -> Self {
        let mut side = Self::default();
        let put = |list: &mut Vec<MethodId>, method| {
            if !list.contains(&method) {
                list.push(method);
            }
        };
        for (_, seen) in seen {
            match *seen {
                Seen::Traffic(Evidence::BytesBack) => side.bytes = true,
                Seen::Traffic(Evidence::SilenceUnderTraffic) => side.silence = true,
                Seen::Result(method, _) if method == besides || standing(method).lies => {}
                Seen::Result(method, Outcome::Answered(_)) => put(&mut side.answered, method),
                Seen::Result(method, Outcome::Failed) if standing(method).answers => {
                    put(&mut side.failed, method);
                }
                Seen::Result(_, Outcome::Failed) => {}
            }
        }
        let answered = &side.answered;
        side.failed.retain(|method| !answered.contains(method));
        side
    }

    fn works(&self) -> bool {
        self.bytes || (!self.silence && self.answered.len() > self.failed.len())
    }

    fn is_dead(&self) -> bool {
        self.silence && !self.bytes && self.answered.is_empty() && !self.failed.is_empty()
    }
}

impl Ledger {
    /// A round came to its end. Times must not go back.
    pub fn result(&mut self, now: Instant, method: MethodId, outcome: Outcome) {
        self.seen.push_back((now, Seen::Result(method, outcome)));
    }

    /// Traffic said something. Times must not go back.
    pub fn evidence(&mut self, now: Instant, evidence: Evidence) {
        self.seen.push_back((now, Seen::Traffic(evidence)));
    }

    /// The next outcome that counts, of those that are [`WINDOW`] old. To be
    /// called until it gives `None`.
    pub fn settle(
        &mut self,
        now: Instant,
        standing: impl Fn(MethodId) -> Standing,
    ) -> Option<(MethodId, Counted)> {
        while let Some(&(at, seen)) = self.seen.get(self.judged) {
            if now.duration_since(at) < WINDOW {
                break;
            }
            let place = self.judged;
            self.judged += 1;
            if let Seen::Result(method, outcome) = seen
                && let Some(counted) = self.judge(place, at, method, outcome, &standing)
            {
                return Some((method, counted));
            }
        }
        let old = |at: Instant| now.duration_since(at) > WINDOW * 2;
        while self.judged > 0 && self.seen.front().is_some_and(|&(at, _)| old(at)) {
            self.seen.pop_front();
            self.judged -= 1;
        }
        None
    }

    fn judge(
        &self,
        place: usize,
        at: Instant,
        method: MethodId,
        outcome: Outcome,
        standing: impl Fn(MethodId) -> Standing,
    ) -> Option<Counted> {
        let near = |other: Instant| other.max(at).duration_since(other.min(at)) <= WINDOW;
        let before = self.seen.range(..place).rev().take_while(|&&(other, _)| near(other));
        let before = Side::of(before, method, &standing);
        let after = self.seen.range(place + 1..).take_while(|&&(other, _)| near(other));
        let after = Side::of(after, method, &standing);
        match outcome {
            Outcome::Answered(_) if before.is_dead() && after.is_dead() => Some(Counted::Lied),
            Outcome::Answered(rtt) => Some(Counted::Answered(rtt)),
            Outcome::Failed if before.works() && after.works() => Some(Counted::Failed),
            Outcome::Failed => None,
        }
    }
}

#[cfg(test)]
#[path = "evidence_tests.rs"]
mod tests;
