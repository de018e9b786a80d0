//! TAI64N (D. J. Bernstein, libtai): the time of an initiation, by which a server
//! knows a replayed one.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// The label of 1970-01-01 00:00:00 UTC. TAI was 10 s ahead of it, and leap seconds
/// since then are not counted: stamps are compared, never read as a time.
const EPOCH: u64 = (1 << 62) + 10;
const NANOS: u32 = 1_000_000_000;

/// A time: 8 bytes of seconds, 4 of nanoseconds, big-endian, so that the later one
/// is the greater one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Stamp([u8; 12]);

impl Stamp {
    /// As it came.
    #[must_use]
    pub const fn from_bytes(bytes: [u8; 12]) -> Self {
        Self(bytes)
    }

    /// As it is sent.
    #[must_use]
    pub const fn bytes(self) -> [u8; 12] {
        self.0
    }

    /// Of a time; one before 1970 is taken for that.
    #[must_use]
    pub fn at(time: SystemTime) -> Self {
        let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
        Self::new(EPOCH.saturating_add(since.as_secs()), since.subsec_nanos())
    }

    /// The first one after it.
    #[must_use]
    pub fn next(self) -> Self {
        let (seconds, nanos) = self.parts();
        if nanos < NANOS - 1 {
            Self::new(seconds, nanos + 1)
        } else {
            Self::new(seconds.saturating_add(1), 0)
        }
    }

    /// How much later than `earlier` it is; 0 if it is not.
    #[must_use]
    pub fn since(self, earlier: Self) -> Duration {
        let time = |stamp: Self| {
            let (seconds, nanos) = stamp.parts();
            Duration::from_secs(seconds).saturating_add(Duration::from_nanos(nanos.into()))
        };
        time(self).saturating_sub(time(earlier))
    }

    fn new(seconds: u64, nanos: u32) -> Self {
        let mut bytes = [0; 12];
        bytes[..8].copy_from_slice(&seconds.to_be_bytes());
        bytes[8..].copy_from_slice(&nanos.to_be_bytes());
        Self(bytes)
    }

    fn parts(self) -> (u64, u32) {
        let [a, b, c, d, e, f, g, h, i, j, k, l] = self.0;
        (u64::from_be_bytes([a, b, c, d, e, f, g, h]), u32::from_be_bytes([i, j, k, l]))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_has_the_label_of_libtai() {
        let stamp = Stamp::at(UNIX_EPOCH + Duration::new(1, 2));
        assert_eq!(stamp.bytes(), [0x40, 0, 0, 0, 0, 0, 0, 11, 0, 0, 0, 2]);
        assert_eq!(Stamp::from_bytes(stamp.bytes()), stamp);
        assert_eq!(Stamp::at(UNIX_EPOCH - Duration::from_secs(9)), Stamp::at(UNIX_EPOCH));
    }

    #[test]
    fn the_later_one_is_the_greater_one() {
        let times = [(0, 0), (0, 1), (0, NANOS - 1), (1, 0), (255, 3), (256, 1), (1 << 40, 0)];
        let stamps = times.map(|(s, n)| Stamp::at(UNIX_EPOCH + Duration::new(s, n)));
        for pair in stamps.windows(2) {
            assert!(pair[0] < pair[1] && pair[0].next() <= pair[1], "{pair:?}");
            assert_eq!(pair[0].since(pair[1]), Duration::ZERO);
        }
        assert_eq!(stamps[2].next(), stamps[3]);
        assert_eq!(stamps[5].since(stamps[3]), Duration::new(255, 1));
    }

    #[test]
    fn any_twelve_bytes_can_be_compared() {
        let last = Stamp::from_bytes([0xff; 12]);
        assert!(last.since(Stamp::from_bytes([0; 12])) > Duration::from_secs(u64::MAX - 1));
        assert!(last.next() < last, "the nanoseconds are no number of a clock");
    }
}
