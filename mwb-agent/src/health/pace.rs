//! How often a WAN is asked, what its traffic says about it, and from when on a
//! missed round counts. Pure.
//!
//! Around the configured interval, the **default**:
//! - **quicker** on doubt: after a miss, after an answer much later than usual,
//!   and under silence, until [`SETTLED_AFTER`] answers in a row are as usual.
//!   After [`DOUBT_LASTS`] without any the WAN is asked by default: it is down;
//! - **slower**, while packets come back, by one doubling for each
//!   [`Settings::calm`] without a miss. As soon as none do, by default again, at
//!   once: an idle WAN is judged as if it had been asked when the last packet
//!   came;
//! - **a budget** (metered WANs) bounds all of that, see [`super::budget`].
//!
//! **Traffic** proves things, see [`super::passive`]. While there is proof no miss
//! counts: on a saturated link probes are late and get lost. Misses are held back
//! until it ends. Silence brings a round at once ([`Pace::check_now`]), as do SYNs
//! that go unanswered; if [`BLIND_AFTER`] rounds are not answered either, packets
//! that come in prove nothing.
//!
//! **When misses count** ([`Pace::counted`]). Rounds that follow each other
//! quickly must not make a WAN down sooner than slow ones: they make it surer.
//! Without traffic misses count when as much time has passed since the first
//! unanswered round as the default interval takes for `retries` of them; under
//! silence [`super::passive::STALL`] after the last proof; never before an answer to a round
//! can have come that was sent after the first miss.
//!
//! Must not know: how a WAN is asked, states, maps.

use std::time::{Duration, Instant};

use super::budget::{Budget, TooSmall};
use super::passive::Passive;
pub use super::passive::Sample;

/// Answers in a row, as they usually are, that end a doubt.
pub const SETTLED_AFTER: u32 = 5;
/// After so long in doubt a WAN is asked by default again.
pub const DOUBT_LASTS: Duration = Duration::from_secs(10);
/// Rounds in a row without an answer that are a sign together with SYNs: at a
/// loss of 20 % that is one run in 3,000.
pub const BLIND_AFTER: u32 = 5;
/// Two late or missing answers within this, or three intervals, mark the link as
/// saturated, for as long.
const SATURATED_FOR: Duration = Duration::from_secs(2);
/// The step by which the time without a queue follows longer ones: minutes at the
/// default interval, so that it outlasts a download.
const BASE_RISES: f64 = 1.0 / 512.0;
/// Within so long a hard failure is to be noticed under traffic.
const JUDGED_WITHIN: Duration = Duration::from_secs(1);
/// What is later than usual by less is no jump.
const JUMP_AT_LEAST: f64 = 0.02;

/// How a WAN is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Settings {
    /// The configured interval.
    pub interval: Duration,
    /// Misses in a row that make the WAN down.
    pub retries: u32,
    /// On doubt. No more than `interval`.
    pub quickest: Duration,
    /// After long calm. No less than `interval`.
    pub slowest: Duration,
    /// Calm after which the interval doubles.
    pub calm: Duration,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            interval: Duration::from_millis(200),
            retries: 3,
            quickest: Duration::from_millis(100),
            slowest: Duration::from_secs(5),
            calm: Duration::from_secs(5 * 60),
        }
    }
}

/// Under what load a round-trip time was measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Load {
    /// The time is the link's.
    Light,
    /// Answers are late or lost while packets come back: the time is that of a
    /// queue.
    Saturated,
}

/// The pace of one WAN's probes.
#[derive(Clone, Debug)]
pub struct Pace {
    settings: Settings,
    budget: Option<Budget>,
    last_sent: Option<Instant>,
    /// When a round was last due, whether or not one could be sent.
    last_tried: Option<Instant>,
    /// When the first round was sent since the last answer.
    waits_since: Option<Instant>,
    /// When the first round was sent since the first miss.
    again_since: Option<Instant>,
    /// Rounds in a row that were missed.
    unanswered: u32,
    /// Of these, those that do not count yet.
    held_back: u32,
    /// Smoothed round-trip time and deviation, in seconds (RFC 6298).
    usual: Option<(f64, f64)>,
    /// The time without a queue, in seconds: falls as the smoothed one, and rises
    /// slowly.
    base: Option<f64>,
    doubt_since: Option<Instant>,
    /// Answers as usual since.
    settled: u32,
    calm_since: Option<Instant>,
    passive: Passive,
    /// When something asked for a round at once.
    urged: Option<Instant>,
    /// The latest late or missing answers under traffic.
    strained: [Option<Instant>; 2],
}

impl Pace {
    /// A WAN that nothing is known about.
    #[must_use]
    pub fn new(settings: Settings) -> Self {
        Self {
            settings,
            budget: None,
            last_sent: None,
            last_tried: None,
            waits_since: None,
            again_since: None,
            unanswered: 0,
            held_back: 0,
            usual: None,
            base: None,
            doubt_since: None,
            settled: 0,
            calm_since: None,
            passive: Passive::default(),
            urged: None,
            strained: [None; 2],
        }
    }

    /// Bounds what a metered WAN is asked, in bytes of a day and of a round
    /// (all targets, both ways, with headers). The interval may then be longer
    /// than [`Settings::slowest`]; what is saved goes to doubts.
    ///
    /// # Errors
    /// Less than a round a minute.
    pub fn budget(&mut self, bytes_per_day: u64, bytes_per_round: u64) -> Result<(), TooSmall> {
        let budget = Budget::new(bytes_per_day, bytes_per_round)?;
        self.budget = Some(budget.after(self.budget));
        Ok(())
    }

    /// A round was due. What asked for one at once has been heard, though it may not be
    /// sent: there is no carrier, or those that were asked before are still to answer.
    pub fn tried(&mut self, now: Instant) {
        self.last_tried = Some(now);
    }

    /// A round was sent.
    pub fn sent(&mut self, now: Instant) {
        (self.last_sent, self.last_tried) = (Some(now), Some(now));
        self.waits_since.get_or_insert(now);
        if self.unanswered > 0 {
            self.again_since.get_or_insert(now);
        }
        if let Some(budget) = &mut self.budget {
            budget.spend(now);
        }
    }

    /// A round was answered. Tells under what load its time was measured.
    pub fn answered(&mut self, now: Instant, rtt: Duration) -> Load {
        let sample = rtt.as_secs_f64();
        let late = self
            .usual
            .is_some_and(|(rtt, deviation)| sample > rtt + (4.0 * deviation).max(JUMP_AT_LEAST));
        let (rtt, deviation) = self.usual.unwrap_or((sample, sample / 2.0));
        self.usual = Some((
            rtt + (sample - rtt) / 8.0,
            deviation + ((sample - rtt).abs() - deviation) / 4.0,
        ));
        self.heard(now);
        let base = self.base.get_or_insert(sample);
        let queued = sample > *base * 2.0 + JUMP_AT_LEAST;
        *base += (sample - *base) * if sample < *base { 1.0 / 8.0 } else { BASE_RISES };
        if queued {
            self.strain(now);
        }
        if late {
            self.doubt(now);
            self.calm_since = None;
        }
        self.load(now)
    }

    /// A round was answered whose time says nothing about what is usual, as it asked
    /// in another way.
    pub fn heard(&mut self, now: Instant) -> Load {
        (self.unanswered, self.held_back) = (0, 0);
        (self.waits_since, self.again_since) = (None, None);
        self.passive.answered();
        self.settled = self.settled.saturating_add(1);
        if self.settled >= SETTLED_AFTER || !self.in_doubt(now) {
            self.doubt_since = None;
            self.calm_since.get_or_insert(now);
        }
        self.load(now)
    }

    /// A round was missed. From when on that counts tells [`Pace::counted`].
    pub fn missed(&mut self, now: Instant) {
        self.unanswered = self.unanswered.saturating_add(1);
        self.held_back = self.held_back.saturating_add(1);
        self.strain(now);
        self.doubt(now);
        self.calm_since = None;
    }

    /// A round was answered, and not as it should be: whatever traffic says, that counts,
    /// and is told by who has heard it. Here it is a doubt.
    pub fn failed(&mut self, now: Instant) {
        self.doubt(now);
        self.calm_since = None;
    }

    /// What a metered WAN has saved of its budget stays its own, whatever else is
    /// configured anew.
    pub fn inherit(&mut self, before: &Self) {
        self.budget = self.budget.map(|budget| budget.after(before.budget));
    }

    /// Misses that count against the WAN and were not told yet. To be asked after
    /// each miss, each sample, and at [`Pace::next_count`].
    pub fn counted(&mut self, now: Instant) -> u32 {
        let due = self.next_count(now).is_some_and(|at| at <= now);
        if due { std::mem::take(&mut self.held_back) } else { 0 }
    }

    /// When the misses that are held back count, if nothing is told until then.
    #[must_use]
    pub fn next_count(&self, now: Instant) -> Option<Instant> {
        let first = self.waits_since.filter(|_| self.held_back > 0)?;
        let (rtt, deviation) = self.usual.unwrap_or_default();
        let answer =
            self.again_since.unwrap_or(first) + Duration::from_secs_f64(rtt + 4.0 * deviation);
        if self.is_blind(now) {
            return Some(answer);
        }
        let idle = first + self.sure(now) * self.settings.retries - self.sure(now) / 2;
        let since = self.passive.stalled_at().unwrap_or(idle).max(answer);
        Some(self.passive.fresh_until().map_or(since, |fresh| since.max(fresh)))
    }

    /// How late an answer may be before its round is missed, `usual` by what the
    /// link is used to: while packets go out and none prove anything, no later than
    /// leaves time to be sure within a second.
    #[must_use]
    pub fn grace(&self, now: Instant, usual: Duration) -> Duration {
        let out = self.passive.went_out(now, JUDGED_WITHIN);
        if out && (!self.is_alive_by_traffic(now) || self.passive.syns_unanswered(now)) {
            usual.min(self.sure(now) / 2)
        } else {
            usual
        }
    }

    /// Takes what has passed since the sample before, every 100 to 250 ms.
    pub fn traffic(&mut self, now: Instant, sample: Sample) {
        if self.passive.take(now, sample) {
            self.urged = Some(now);
            self.doubt(now);
        }
        if self.passive.syns_unanswered(now) && self.unanswered == 0 && self.waits_since.is_none() {
            self.urged = Some(now);
        }
    }

    /// Time between two rounds now. To be asked after everything that was told:
    /// it may have become shorter than what is being waited for.
    #[must_use]
    pub fn interval(&self, now: Instant) -> Duration {
        let wanted = self.wanted(now);
        let Some(budget) = self.budget else { return wanted };
        let urgent = self.in_doubt(now) && (!self.is_alive_by_traffic(now) || self.half_blind(now));
        let wanted = if urgent { wanted } else { wanted.max(budget.steady()) };
        let wait = budget.until_next(now);
        if wait.is_zero() {
            return wanted;
        }
        let since = self.last_sent.map_or(Duration::ZERO, |at| now.duration_since(at));
        wanted.max(since + wait)
    }

    /// Whether a round is due before the interval is over: something asked for one,
    /// and none was sent since.
    #[must_use]
    pub fn check_now(&self, now: Instant) -> bool {
        let unasked = |at: Instant| self.last_tried.is_none_or(|tried| tried < at);
        self.urged.is_some_and(unasked)
            && self.budget.is_none_or(|budget| budget.until_next(now).is_zero())
    }

    /// Whether packets that came back prove that the link works.
    #[must_use]
    pub fn is_alive_by_traffic(&self, now: Instant) -> bool {
        self.passive.fresh_until().is_some_and(|until| now < until) && !self.is_blind(now)
    }

    /// Whether traffic meets silence: what a check must not call well.
    #[must_use]
    pub fn is_silent(&self) -> bool {
        self.passive.stalled_at().is_some()
    }

    /// Whether round-trip times are those of a queue.
    #[must_use]
    pub fn load(&self, now: Instant) -> Load {
        let [Some(before), Some(last)] = self.strained else { return Load::Light };
        let time = SATURATED_FOR.max(self.settings.interval * 3);
        let strained = is_within(now, last, time) && is_within(last, before, time);
        if strained { Load::Saturated } else { Load::Light }
    }

    fn wanted(&self, now: Instant) -> Duration {
        let Settings { interval, quickest, slowest, calm, .. } = self.settings;
        let alive = self.is_alive_by_traffic(now);
        if self.in_doubt(now) {
            // Packets that come back prove enough to ask by default.
            return if alive && !self.half_blind(now) { interval } else { quickest.min(interval) };
        }
        if !alive {
            return self.sure(now);
        }
        let calm_for = self.calm_since.map_or(Duration::ZERO, |at| now.duration_since(at));
        let doublings = calm_for.as_nanos().checked_div(calm.as_nanos()).unwrap_or(0);
        let doublings = u32::try_from(doublings).unwrap_or(u32::MAX).min(16);
        interval.saturating_mul(1 << doublings).min(slowest.max(interval))
    }

    /// The default interval, but none that could not be sure within a second while
    /// packets go out: the misses, the grace of the last, and the time since a round
    /// got through.
    fn sure(&self, now: Instant) -> Duration {
        let Settings { interval, quickest, retries, .. } = self.settings;
        if self.passive.went_out(now, JUDGED_WITHIN) {
            let sure = JUDGED_WITHIN / retries.saturating_add(2);
            return interval.min(sure.max(quickest));
        }
        interval
    }

    fn in_doubt(&self, now: Instant) -> bool {
        self.doubt_since.is_some_and(|since| is_within(now, since, DOUBT_LASTS))
    }

    fn half_blind(&self, now: Instant) -> bool {
        self.unanswered > 0 && self.passive.syns_unanswered(now)
    }

    fn is_blind(&self, now: Instant) -> bool {
        self.unanswered >= BLIND_AFTER && self.passive.syns_unanswered(now)
    }

    /// An answer is late or missing; with packets that come back, by a queue.
    fn strain(&mut self, now: Instant) {
        if self.is_alive_by_traffic(now) {
            self.strained = [self.strained[1], Some(now)];
        }
    }

    fn doubt(&mut self, now: Instant) {
        // What is not the first sign since an answer does not prolong it: an outage
        // lasts.
        if self.unanswered <= 1 {
            self.doubt_since = Some(now);
        }
        self.settled = 0;
    }
}

fn is_within(now: Instant, at: Instant, time: Duration) -> bool {
    now.duration_since(at) < time
}

#[cfg(test)]
#[path = "pace_tests.rs"]
mod tests;
