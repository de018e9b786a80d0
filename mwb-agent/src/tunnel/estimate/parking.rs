//! Whether a path is worse than nothing.

use super::track::Track;

/// A path is parked when it loses this part of its packets without a queue, measured
/// over 2 s: a flow of TCP on it comes to a standstill at a quarter of that.
const LOSES: f64 = 0.18;
/// And is taken back when it loses less than this.
const LOSES_LITTLE: f64 = 0.08;
/// So many packets must have been counted: with probes alone, after two seconds; on a path
/// that is idle, after half a minute. Of fewer one that loses a twentieth may have lost so
/// much by chance.
const COUNTED: f64 = 32.0;
/// A path that carries less than this part of the best one is parked, and one that is
/// longer than the shortest by so much, in ns: no queue before the others is as long.
const SMALL: f64 = 0.01;
const LONG: f64 = 500e6;
/// How much better it must be to be taken back.
const BETTER: f64 = 2.0;
/// For so long it must have been good, at first, in ns; twice as long each time, up to
/// the last; and as at first again when it was not parked for that long.
const HOLD: u64 = 5_000_000_000;
const LONGEST_HOLD: u64 = 300_000_000_000;

/// Why a path is parked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reason {
    /// It loses packets, and not because its queue is full.
    Loss,
    /// It carries next to nothing.
    Small,
    /// It is far longer than the shortest.
    Long,
    /// It dies again and again, while another path lives.
    Unsteady,
}

impl Reason {
    /// As the status has it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Loss => "loss",
            Self::Small => "small",
            Self::Long => "long",
            Self::Unsteady => "unsteady",
        }
    }
}

/// What is known of one path.
#[derive(Clone, Debug, Default)]
pub(super) struct Parking {
    reason: Option<Reason>,
    /// Since when a parked path has been good, or another one not been parked.
    since: u64,
    hold: u64,
    /// [`Track::holes`] at the last look, and when the last was that another path outlived.
    holes: u32,
    hole_at: Option<u64>,
    /// Another path has lived since it died.
    outlived: bool,
}

impl Parking {
    /// Why it is parked.
    pub(super) fn reason(&self) -> Option<Reason> {
        self.reason
    }

    /// Looks at it. `most` is the capacity of the largest that lives, `quickest` the
    /// one-way delay of the shortest.
    pub(super) fn consider(&mut self, now: u64, track: &Track, most: f64, quickest: f64) {
        // When all die at once it is nobody's fault.
        if track.holes > self.holes && self.outlived {
            self.comes_back(now);
        }
        self.holes = track.holes;
        self.outlived = track.dead && (self.outlived || quickest.is_finite());
        match self.reason {
            None => {
                if let Some(reason) = fault(track, most, quickest, 1.0, LOSES) {
                    self.park(now, reason);
                }
            }
            Some(reason) => {
                let fault = fault(track, most, quickest, BETTER, LOSES_LITTLE);
                // What has no answers at all is no better.
                let unknown = reason != Reason::Unsteady && track.short.sent < COUNTED;
                if fault.is_some() || unknown || track.dead {
                    (self.reason, self.since) = (fault.or(self.reason), now);
                } else if now.saturating_sub(self.since) >= self.hold {
                    (self.reason, self.since) = (None, now);
                }
            }
        }
    }

    /// It was dead, and lives. Once is no reason: it carries packets at once.
    fn comes_back(&mut self, now: u64) {
        let before = self.hole_at.replace(now);
        if before.is_some_and(|before| now.saturating_sub(before) <= LONGEST_HOLD) {
            self.park(now, self.reason.unwrap_or(Reason::Unsteady));
        }
    }

    fn park(&mut self, now: u64, reason: Reason) {
        let calm = self.reason.is_none() && now.saturating_sub(self.since) > LONGEST_HOLD;
        let hold = if calm { HOLD } else { (2 * self.hold).max(HOLD) };
        (self.hold, self.since) = (hold.min(LONGEST_HOLD), now);
        self.reason = Some(reason);
    }
}

fn fault(track: &Track, most: f64, quickest: f64, better: f64, loses: f64) -> Option<Reason> {
    if track.short.sent >= COUNTED && track.short.part() > loses {
        return Some(Reason::Loss);
    }
    // What it can do is known only from when it was full.
    let small = track.capacity.filter(|_| track.measured);
    if small.is_some_and(|capacity| capacity < most * SMALL * better) {
        return Some(Reason::Small);
    }
    let long = track.way().is_some_and(|way| way - quickest > LONG / better);
    long.then_some(Reason::Long)
}
