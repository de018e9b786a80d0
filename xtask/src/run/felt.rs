//! What a user of a bond has felt while a link was cut and came back: how fast a
//! download was, whether it broke, and for how long a stream stood still.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::{load::Figures, summary::Acts};
use crate::lab::traffic::Course;

/// TCP may take so long to find the rate of what there is.
const SETTLE: Duration = Duration::from_secs(2);
/// What is lost within this after a cut is lost by it.
const OUTAGE: Duration = Duration::from_secs(2);

/// Bytes downloaded up to a moment.
#[derive(Clone, Copy, Debug)]
pub(super) struct Sample {
    pub(super) at: Instant,
    pub(super) bytes: u64,
}

/// See the module's head.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Felt {
    /// What the best link carries, in bits per second, its own headers included.
    best: f64,
    /// Bits per second of the download: with all links, while one was cut, and after it
    /// was back.
    before: Option<f64>,
    during: Option<f64>,
    after: Option<f64>,
    /// Downloads that broke.
    broken: u64,
    /// Streams: packets lost by the cut, and for how long, there and back.
    lost: [u64; 2],
    gap: [Duration; 2],
}

impl Felt {
    pub(super) fn of(samples: &[Sample], figures: &Figures, acts: Acts, best: u64) -> Self {
        let first = samples.first().map(|sample| sample.at);
        let last = samples.last().map(|sample| sample.at);
        let rate = |from: Option<Instant>, to: Option<Instant>| {
            let (from, to) = (from? + SETTLE, to?);
            let within: Vec<&Sample> =
                samples.iter().filter(|sample| sample.at >= from && sample.at <= to).collect();
            let (first, last) = (within.first()?, within.last()?);
            let seconds = (last.at - first.at).as_secs_f64();
            (seconds > 0.0).then(|| (last.bytes - first.bytes) as f64 * 8.0 / seconds)
        };
        let outage = |course: &Course| {
            let mut course = course.since(acts.cut);
            let count = course.sent.partition_point(|&sent| sent < acts.cut + OUTAGE);
            course.sent.truncate(count);
            course.arrived.truncate(count);
            (course.lost(), course.lost_span())
        };
        let streams = figures.duplex.clone().unwrap_or_default();
        let [there, back] = [outage(&streams.there), outage(&streams.back)];
        Self {
            best: best as f64,
            before: rate(first, Some(acts.cut)),
            during: rate(Some(acts.cut), acts.healed.or(last)),
            after: rate(acts.healed, last),
            broken: figures.downloads_broken,
            lost: [there.0, back.0],
            gap: [there.1, back.1],
        }
    }

    pub(super) fn json(&self) -> Value {
        let megabits = |rate: Option<f64>| rate.map(|rate| (rate / 1e5).round() / 10.0);
        json!({
            "best_link_mbit": megabits(Some(self.best)),
            "download_mbit": megabits(self.before),
            "download_mbit_while_cut": megabits(self.during),
            "download_mbit_after": megabits(self.after),
            "downloads_broken": self.broken,
            "packets_lost": {"there": self.lost[0], "back": self.lost[1]},
            "gap_ms": {
                "there": self.gap[0].as_millis() as u64,
                "back": self.gap[1].as_millis() as u64,
            },
        })
    }

    pub(super) fn lines(&self) -> Vec<String> {
        let rate = |rate: Option<f64>| {
            rate.map_or("-".to_owned(), |rate| {
                format!("{:.1} Mbit/s ({:.2} of the best link)", rate / 1e6, rate / self.best)
            })
        };
        vec![
            format!("  one download at a time, all links:  {}", rate(self.before)),
            format!("    while the best link was cut:       {}", rate(self.during)),
            format!("    after it was back:                 {}", rate(self.after)),
            format!("    broken or reset:                   {}", self.broken),
            format!(
                "  a stream each way at the cut:       there {} lost in {} ms, back {} lost in {} ms",
                self.lost[0],
                self.gap[0].as_millis(),
                self.lost[1],
                self.gap[1].as_millis()
            ),
        ]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_download_is_told_by_the_time_it_was_in() {
        let start = Instant::now();
        // 10 Mbit/s, 5 while cut, 10 again.
        let at = |second: u64| start + Duration::from_secs(second);
        let bytes = |second: u64| match second {
            0..=10 => second * 1_250_000,
            11..=20 => 12_500_000 + (second - 10) * 625_000,
            _ => 18_750_000 + (second - 20) * 1_250_000,
        };
        let samples: Vec<Sample> =
            (0..=30).map(|second| Sample { at: at(second), bytes: bytes(second) }).collect();
        let acts = Acts { cut: at(10), healed: Some(at(20)) };
        let felt = Felt::of(&samples, &Figures::default(), acts, 8_000_000);
        assert_eq!((felt.before, felt.during, felt.after), (Some(1e7), Some(5e6), Some(1e7)));
        assert!(felt.lines()[0].contains("1.25 of the best link"));
    }
}
