//! What is told of a WAN that is watched.

use std::time::Instant;

use super::super::auto::{Auto, Score};
use super::super::machine::{State, Transition};
use super::super::quality::Quality;
use super::super::watch::{Asking, Report, Scored};
use super::Watcher;

impl Watcher {
    pub(super) fn report(&mut self, now: Instant, transition: Option<Transition>) -> Report {
        self.last_report = Some(now);
        let state = self.machine.state();
        let mut held = self.machine.held();
        // What flaps between good and poor is held as well.
        self.qualities.iter_mut().for_each(|quality| quality.recover_after(held.time));
        if state == State::Degraded {
            held.until = self.quality().and_then(Quality::recovers_at);
        }
        let mut measured = self.measured();
        if state == State::Down {
            // The times of a link that does not answer are history.
            (measured.rtt, measured.jitter) = (None, None);
        }
        Report {
            path: self.path,
            state,
            reason: self.machine.reason().clone(),
            transition,
            measured,
            held,
            asking: self.asking(now),
            rounds: std::mem::take(&mut self.ended),
            switched: self.switched.take(),
        }
    }

    fn asking(&self, now: Instant) -> Asking {
        let scored = |score: Score| {
            Some(Scored {
                kind: self.kind(usize::from(score.method.0))?,
                reliability: score.reliability,
                tried: score.tried,
                answered: score.answered,
                lies: score.lies,
            })
        };
        let scores = self.auto.as_ref().map(Auto::scores).unwrap_or_default();
        Asking {
            by: self.kind(self.present()),
            interval: self.pace.interval(now),
            loaded: self.loaded,
            scores: scores.into_iter().filter_map(scored).collect(),
        }
    }
}
