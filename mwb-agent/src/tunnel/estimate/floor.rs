//! The least that was seen of late: of a delay between two clocks that nobody has set
//! by each other, and that do not run equally fast.

/// For how long a least value counts, in ns.
const WINDOW: u64 = 30_000_000_000;
/// Parts of the window: it slides by one of them.
const PARTS: usize = 10;
/// How much faster one clock is than the other at most, in parts of a million, while
/// the path is full and there is no other way to know. Undisciplined clocks have up to
/// 50 each; those that NTP keeps, less than 1.
const DRIFT: u64 = 50;

/// A least value over a window.
#[derive(Clone, Debug, Default)]
pub(super) struct Floor {
    /// The least of each part of the window, the newest first.
    parts: [Option<i64>; PARTS],
    /// When the newest part began.
    since: u64,
    /// When something was last seen.
    last: u64,
}

impl Floor {
    /// Takes a value in. If not `ages`, the window stands still: a path that is full all
    /// the time shows how long its queue is, not how long it is itself.
    pub(super) fn see(&mut self, now: u64, value: i64, ages: bool) {
        if self.last == 0 {
            self.since = now;
        } else if ages {
            if now.saturating_sub(self.since) >= WINDOW / PARTS as u64 {
                self.parts.rotate_right(1);
                self.parts[0] = None;
                self.since = now;
            }
        } else {
            let elapsed = now.saturating_sub(self.last);
            self.since += elapsed;
            let drift = (elapsed * DRIFT / 1_000_000) as i64;
            for part in self.parts.iter_mut().flatten() {
                *part += drift;
            }
        }
        self.last = now;
        self.parts[0] = Some(self.parts[0].map_or(value, |least| least.min(value)));
    }

    /// The least value; none before the first.
    pub(super) fn least(&self) -> Option<i64> {
        self.parts.iter().flatten().copied().min()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TENTH: u64 = 100_000_000;
    const MS: i64 = 1_000_000;

    #[test]
    fn a_longer_way_is_known_after_the_window_and_a_shorter_one_at_once() {
        let mut floor = Floor::default();
        assert_eq!(floor.least(), None);
        let mut now = 1;
        let mut see = |floor: &mut Floor, value, ages, seconds: u64| {
            for _ in 0..seconds * 10 {
                now += TENTH;
                floor.see(now, value, ages);
            }
        };
        see(&mut floor, -500 * MS, true, 40);
        see(&mut floor, -480 * MS, true, 25);
        assert_eq!(floor.least(), Some(-500 * MS));
        see(&mut floor, -480 * MS, true, 10);
        assert_eq!(floor.least(), Some(-480 * MS));
        see(&mut floor, -490 * MS, true, 1);
        assert_eq!(floor.least(), Some(-490 * MS));
        // Ten minutes of a queue that is never empty are taken for no longer way.
        see(&mut floor, -400 * MS, false, 600);
        let least = floor.least().unwrap_or_default();
        assert_eq!(least, -490 * MS + 30 * MS, "what the clocks may have drifted");
    }

    #[test]
    fn it_follows_clocks_that_drift_apart() {
        for drift in [-20_000i64, 20_000] {
            let mut floor = Floor::default();
            let mut value = 0;
            for tick in 1..6_000u64 {
                value += drift;
                floor.see(tick * TENTH, value, true);
                let above = value - floor.least().unwrap_or(i64::MIN);
                // 200 ppm over 30 s.
                assert!((0..=6 * MS).contains(&above), "{above}");
            }
        }
    }
}
