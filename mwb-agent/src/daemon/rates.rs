//! What flows over each WAN, from its counters. Pure.

use std::time::Instant;

use mwb_common::maps::{Direction, PATH_SLOTS};
use mwb_common::reason::{Reason, Verdict};

use crate::dataplane::{CounterRow, Error, Forwarded, Tables};

/// Time constant of the smoothing, in seconds.
const SMOOTHING: f64 = 0.5;

/// Packets and bytes that were forwarded over one WAN, ever.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Total {
    pub(super) packets: u64,
    pub(super) bytes: u64,
    /// TCP connections asked for, or such questions answered; not known of single rows.
    pub(super) syns: u64,
    /// Packets that were turned round and did not leave; not known of single rows.
    pub(super) turned: u64,
}

/// What was forwarded, by path id.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Totals {
    /// To the Internet.
    pub(super) up: [Total; PATH_SLOTS],
    /// From the Internet.
    pub(super) down: [Total; PATH_SLOTS],
}

impl Totals {
    /// Nothing.
    pub(super) fn zero() -> Self {
        Self { up: [Total::default(); PATH_SLOTS], down: [Total::default(); PATH_SLOTS] }
    }

    /// Reads those of the paths with these ids. `bonded`: their numbers are those of a bond's
    /// paths too.
    pub(super) fn read(tables: &Tables, paths: &[u8], bonded: bool) -> Result<Self, Error> {
        let mut totals = Self::zero();
        for &path in paths {
            for direction in Direction::ALL {
                let Forwarded { packets, bytes, syns, turned } =
                    tables.forwarded(direction, path, bonded)?;
                if let Some(total) = totals.of_direction(direction).get_mut(usize::from(path)) {
                    *total = Total { packets, bytes, syns, turned };
                }
            }
        }
        Ok(totals)
    }

    fn of_direction(&mut self, direction: Direction) -> &mut [Total; PATH_SLOTS] {
        match direction {
            Direction::Out => &mut self.up,
            Direction::In => &mut self.down,
        }
    }

    /// Sums up what counters say. `bonded` as for [`Self::read`].
    pub(super) fn of(rows: &[CounterRow], bonded: bool) -> Self {
        let mut totals = Self::zero();
        let counts = |row: &&CounterRow| {
            row.reason.verdict() == Verdict::Forward
                && row.reason != Reason::Hairpinned
                && (bonded || !row.reason.is_of_bond())
        };
        for row in rows.iter().filter(counts) {
            if let Some(total) = totals.of_direction(row.direction).get_mut(usize::from(row.path)) {
                total.packets += row.packets;
                total.bytes += row.bytes;
            }
        }
        totals
    }
}

/// Rate of one direction of one WAN, in bit/s.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Rate {
    pub(super) now: f64,
    pub(super) peak: f64,
}

/// Rates by path id.
#[derive(Clone, Debug)]
pub(super) struct Rates {
    before: Option<(Instant, Totals)>,
    pub(super) up: [Rate; PATH_SLOTS],
    pub(super) down: [Rate; PATH_SLOTS],
}

impl Rates {
    pub(super) fn new() -> Self {
        Self {
            before: None,
            up: [Rate::default(); PATH_SLOTS],
            down: [Rate::default(); PATH_SLOTS],
        }
    }

    /// A path is another WAN's from now on.
    pub(super) fn forget(&mut self, path: u8) {
        for rates in [&mut self.up, &mut self.down] {
            if let Some(rate) = rates.get_mut(usize::from(path)) {
                *rate = Rate::default();
            }
        }
    }

    /// Takes what the counters said at a time.
    pub(super) fn sample(&mut self, at: Instant, totals: Totals) {
        if let Some((before, old)) = &self.before {
            let elapsed = at.duration_since(*before).as_secs_f64();
            if elapsed <= 0.0 {
                return;
            }
            let gain = 1.0 - (-elapsed / SMOOTHING).exp();
            let both =
                [(&mut self.up, &old.up, &totals.up), (&mut self.down, &old.down, &totals.down)];
            for (rates, old, new) in both {
                for ((rate, old), new) in rates.iter_mut().zip(old).zip(new) {
                    let bits = new.bytes.saturating_sub(old.bytes) as f64 * 8.0;
                    rate.now += (bits / elapsed - rate.now) * gain;
                    rate.peak = rate.peak.max(rate.now);
                }
            }
        }
        self.before = Some((at, totals));
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn row(direction: Direction, path: u8, reason: Reason, bytes: u64) -> CounterRow {
        CounterRow { direction, path, reason, protocol: "udp4", packets: bytes / 1000, bytes }
    }

    #[test]
    fn only_what_was_forwarded_counts() {
        let rows = [
            row(Direction::Out, 1, Reason::Forwarded, 3000),
            row(Direction::Out, 1, Reason::NeighbourUnresolved, 1000),
            row(Direction::Out, 1, Reason::TooBig, 9000),
            row(Direction::In, 1, Reason::Forwarded, 5000),
            row(Direction::In, 2, Reason::Unsolicited, 7000),
            row(Direction::Out, 1, Reason::Bonded, 2000),
        ];
        let totals = Totals::of(&rows, false);
        assert_eq!(totals.up[1], Total { packets: 4, bytes: 4000, syns: 0, turned: 0 });
        assert_eq!(totals.down[1], Total { packets: 5, bytes: 5000, syns: 0, turned: 0 });
        assert_eq!(totals.down[2], Total::default());
        assert_eq!(
            Totals::of(&rows, true).up[1],
            Total { packets: 6, bytes: 6000, syns: 0, turned: 0 }
        );
    }

    #[test]
    fn a_steady_stream_has_its_rate_and_the_peak_stays() {
        let (mut rates, start) = (Rates::new(), Instant::now());
        let mut bytes = 0;
        for tick in 0..100u32 {
            // 1,000,000 bytes a second for five seconds, then nothing.
            bytes += if tick < 50 { 100_000 } else { 0 };
            let totals = Totals::of(&[row(Direction::Out, 3, Reason::Forwarded, bytes)], true);
            rates.sample(start + Duration::from_millis(100) * tick, totals);
            if tick == 49 {
                assert!((rates.up[3].now - 8e6).abs() < 8e4, "{:?}", rates.up[3]);
            }
        }
        assert!(rates.up[3].now < 1e3, "{:?}", rates.up[3]);
        assert!((rates.up[3].peak - 8e6).abs() < 8e4);
        assert_eq!(rates.down[3], Rate::default());
    }

    #[test]
    fn counters_that_begin_anew_are_no_rate() {
        let (mut rates, start) = (Rates::new(), Instant::now());
        for (second, bytes) in [(0, 5000), (1, 100)] {
            let totals = Totals::of(&[row(Direction::In, 1, Reason::Forwarded, bytes)], true);
            rates.sample(start + Duration::from_secs(second), totals);
        }
        assert_eq!(rates.down[1], Rate::default());
    }
}
