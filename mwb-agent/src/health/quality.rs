//! How good a link is: smoothed round-trip time, jitter and loss, and whether
//! they are worse than the thresholds, with hysteresis. Pure.

use std::time::{Duration, Instant};

use super::machine::Poor;

/// Probes over which loss is counted.
pub const LOSS_WINDOW: u32 = 100;
/// Fewer probes than this say nothing about loss.
const LOSS_MINIMUM: u32 = 20;
/// Answers in a row beyond a threshold before the link counts as poor: one
/// late answer must not move anybody's traffic.
const POOR_AFTER: u32 = 16;
/// A poor link is good again when it is below this part of each threshold.
const GOOD_BELOW: f64 = 0.75;

/// From where on a link counts as poor.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Thresholds {
    /// Smoothed round-trip time.
    pub latency: Duration,
    /// Smoothed jitter.
    pub jitter: Duration,
    /// Part of the probes lost, 0 to 1.
    pub loss: f64,
    /// How long a poor link must be good before it counts as good.
    pub recover_after: Duration,
}

/// What is known about a link now.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Measured {
    /// Smoothed round-trip time (gain 1/8).
    pub rtt: Option<Duration>,
    /// Smoothed difference of successive round-trip times (gain 1/16, the
    /// estimator of RFC 3550, 6.4.1, over round trips).
    pub jitter: Option<Duration>,
    /// Part of the latest [`LOSS_WINDOW`] probes that were lost, 0 to 1.
    pub loss: Option<f64>,
}

/// Measures one link.
#[derive(Clone, Debug)]
pub struct Quality {
    thresholds: Thresholds,
    rtt: Option<f64>,
    last: f64,
    jitter: Option<f64>,
    /// Latest probe in bit 0; set = lost.
    lost: u128,
    probes: u32,
    poor: Option<Poor>,
    beyond: u32,
    good_since: Option<Instant>,
}

impl Quality {
    /// A link that nothing is known about.
    #[must_use]
    pub fn new(thresholds: Thresholds) -> Self {
        Self {
            thresholds,
            rtt: None,
            last: 0.0,
            jitter: None,
            lost: 0,
            probes: 0,
            poor: None,
            beyond: 0,
            good_since: None,
        }
    }

    /// Forgets everything: what was before an outage says nothing about after.
    pub fn reset(&mut self) {
        *self = Self::new(self.thresholds);
    }

    /// Takes other thresholds; what was measured stays.
    pub fn configure(&mut self, thresholds: Thresholds) {
        self.thresholds = thresholds;
    }

    /// Takes another time for which a poor link must be good.
    pub fn recover_after(&mut self, time: Duration) {
        self.thresholds.recover_after = time;
    }

    /// When a poor link counts as good if nothing spoils it; `None` while it is
    /// as poor as ever, or not poor.
    #[must_use]
    pub fn recovers_at(&self) -> Option<Instant> {
        self.poor.and(self.good_since).map(|since| since + self.thresholds.recover_after)
    }

    /// A probe was answered after `rtt`.
    pub fn answered(&mut self, now: Instant, rtt: Duration) {
        let sample = rtt.as_secs_f64();
        match self.rtt {
            None => self.rtt = Some(sample),
            Some(smooth) => {
                self.rtt = Some(smooth + (sample - smooth) / 8.0);
                let difference = (sample - self.last).abs();
                let jitter = self.jitter.unwrap_or(0.0);
                self.jitter = Some(jitter + (difference - jitter) / 16.0);
            }
        }
        self.last = sample;
        self.count(false);
        self.judge(now);
    }

    /// A probe is lost.
    pub fn lost(&mut self, now: Instant) {
        self.count(true);
        self.judge(now);
    }

    /// What is known now.
    #[must_use]
    pub fn measured(&self) -> Measured {
        Measured {
            rtt: self.rtt.map(Duration::from_secs_f64),
            jitter: self.jitter.map(Duration::from_secs_f64),
            loss: self.loss(),
        }
    }

    /// The threshold that the link is worse than, if it counts as poor.
    #[must_use]
    pub fn poor(&self) -> Option<Poor> {
        self.poor
    }

    /// Whether enough probes have come to an end to say something about loss.
    #[must_use]
    pub fn is_known(&self) -> bool {
        self.probes >= LOSS_MINIMUM
    }

    fn count(&mut self, lost: bool) {
        let window = (1u128 << LOSS_WINDOW) - 1;
        self.lost = (self.lost << 1 | u128::from(lost)) & window;
        self.probes = (self.probes + 1).min(LOSS_WINDOW);
    }

    fn loss(&self) -> Option<f64> {
        (self.probes > 0).then(|| f64::from(self.lost.count_ones()) / f64::from(self.probes))
    }

    /// The first threshold that the link is beyond, each scaled by `factor`.
    fn beyond(&self, factor: f64) -> Option<Poor> {
        let Thresholds { latency, jitter, loss, .. } = self.thresholds;
        let over = |is: Option<f64>, limit: Duration| {
            is.filter(|&is| is > limit.as_secs_f64() * factor).map(Duration::from_secs_f64)
        };
        if let Some(is) = over(self.rtt, latency) {
            return Some(Poor::Latency(is, latency));
        }
        if let Some(is) = over(self.jitter, jitter) {
            return Some(Poor::Jitter(is, jitter));
        }
        self.loss()
            .filter(|&is| self.probes >= LOSS_MINIMUM && is > loss * factor)
            .map(|is| Poor::Loss(is, loss))
    }

    fn judge(&mut self, now: Instant) {
        if self.poor.is_none() {
            let beyond = self.beyond(1.0);
            self.beyond = if beyond.is_some() { self.beyond + 1 } else { 0 };
            if self.beyond >= POOR_AFTER {
                self.poor = beyond;
                self.good_since = None;
            }
        } else if let Some(still) = self.beyond(GOOD_BELOW) {
            // The reason follows what is worst now, once it is beyond in full.
            self.poor = self.beyond(1.0).or(self.poor).or(Some(still));
            self.good_since = None;
        } else {
            let since = *self.good_since.get_or_insert(now);
            if now.duration_since(since) >= self.thresholds.recover_after {
                self.poor = None;
                self.beyond = 0;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const THRESHOLDS: Thresholds = Thresholds {
        latency: Duration::from_millis(200),
        jitter: Duration::from_millis(100),
        loss: 0.05,
        recover_after: Duration::from_secs(5),
    };
    const INTERVAL: Duration = Duration::from_millis(200);

    /// `Some(ms)`: answered after that time; `None`: lost.
    fn run(
        quality: &mut Quality,
        now: &mut Instant,
        probes: impl IntoIterator<Item = Option<u64>>,
    ) {
        for probe in probes {
            *now += INTERVAL;
            match probe {
                Some(ms) => quality.answered(*now, Duration::from_millis(ms)),
                None => quality.lost(*now),
            }
        }
    }

    fn measure(probes: impl IntoIterator<Item = Option<u64>>) -> Quality {
        let mut quality = Quality::new(THRESHOLDS);
        run(&mut quality, &mut Instant::now(), probes);
        quality
    }

    #[test]
    fn a_steady_link_has_its_round_trip_time_and_no_jitter() {
        let measured = measure([Some(20); 50]).measured();
        assert!(
            measured
                .rtt
                .is_some_and(|rtt| rtt.abs_diff(Duration::from_millis(20)).as_micros() < 10)
        );
        assert_eq!(measured.jitter, Some(Duration::ZERO));
        assert_eq!(measured.loss, Some(0.0));
    }

    #[test]
    fn jitter_follows_the_difference_of_successive_answers() {
        let measured = measure([Some(20), Some(60)].into_iter().cycle().take(200)).measured();
        assert!(
            measured.jitter.is_some_and(|j| j.abs_diff(Duration::from_millis(40)).as_millis() <= 1)
        );
    }

    #[test]
    fn loss_is_that_of_the_latest_window() {
        let quality = measure([None; 100].into_iter().chain([Some(20); 75]));
        assert_eq!(quality.measured().loss, Some(0.25));
    }

    #[test]
    fn one_very_late_answer_does_not_make_a_link_poor() {
        let quality = measure([Some(20); 20].into_iter().chain([Some(2000)]).chain([Some(20); 20]));
        assert_eq!(quality.poor(), None);
    }

    #[test]
    fn a_late_link_is_poor_until_it_was_good_for_the_recovery_time() {
        let mut quality = Quality::new(THRESHOLDS);
        let mut now = Instant::now();
        run(&mut quality, &mut now, [Some(300); 30]);
        assert!(matches!(quality.poor(), Some(Poor::Latency(..))));
        // Between three quarters of the threshold and the threshold: still poor.
        run(&mut quality, &mut now, [Some(190); 200]);
        assert!(quality.poor().is_some());
        run(&mut quality, &mut now, [Some(20); 20]);
        assert!(quality.poor().is_some());
        run(&mut quality, &mut now, [Some(20); 30]);
        assert_eq!(quality.poor(), None);
    }

    #[test]
    fn a_poor_link_that_is_good_says_when_it_will_count_as_good() {
        let mut quality = Quality::new(THRESHOLDS);
        let mut now = Instant::now();
        run(&mut quality, &mut now, [Some(300); 30]);
        assert_eq!(quality.recovers_at(), None);
        run(&mut quality, &mut now, [Some(1); 30]);
        let at = quality.recovers_at();
        assert!(at.is_some_and(|at| at > now && at <= now + THRESHOLDS.recover_after));
        quality.recover_after(Duration::from_secs(20));
        assert_eq!(quality.recovers_at(), at.map(|at| at + Duration::from_secs(15)));
        run(&mut quality, &mut now, [Some(1); 50]);
        assert!(quality.poor().is_some());
        run(&mut quality, &mut now, [Some(1); 50]);
        assert_eq!((quality.poor(), quality.recovers_at()), (None, None));
    }

    #[test]
    fn a_few_probes_say_nothing_about_loss() {
        assert_eq!(measure([Some(20), None, Some(20), None]).poor(), None);
        assert!(matches!(
            measure([Some(20), Some(20), None].into_iter().cycle().take(60)).poor(),
            Some(Poor::Loss(..))
        ));
    }

    #[test]
    fn after_a_reset_nothing_is_known() {
        let mut quality = measure([Some(300); 50]);
        quality.reset();
        assert_eq!(quality.measured(), Measured::default());
        assert_eq!(quality.poor(), None);
    }

    proptest! {
        #[test]
        fn the_smoothed_time_stays_between_the_extremes(times in prop::collection::vec(1u64..3000, 1..300)) {
            let low = Duration::from_millis(times.iter().copied().min().unwrap_or_default());
            let high = Duration::from_millis(times.iter().copied().max().unwrap_or_default());
            let measured = measure(times.into_iter().map(Some)).measured();
            let slack = Duration::from_micros(1);
            prop_assert!(measured.rtt.is_some_and(|rtt| rtt + slack >= low && rtt <= high + slack));
            prop_assert!(measured.jitter.is_none_or(|jitter| jitter <= high - low + slack));
        }

        #[test]
        fn loss_is_the_part_of_the_window_that_was_lost(probes in prop::collection::vec(any::<bool>(), 1..300)) {
            let quality = measure(probes.iter().map(|&lost| (!lost).then_some(20)));
            let window = &probes[probes.len().saturating_sub(LOSS_WINDOW as usize)..];
            let lost = window.iter().filter(|&&lost| lost).count() as f64 / window.len() as f64;
            prop_assert!(quality.measured().loss.is_some_and(|loss| (loss - lost).abs() < 1e-9));
        }
    }
}
