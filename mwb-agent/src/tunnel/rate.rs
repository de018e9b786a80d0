//! What flows, smoothed. Pure.

/// Time constant of the smoothing, in seconds.
const SMOOTHING: f64 = 0.5;

/// A rate in bit/s, of a count of bytes that only grows.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Rate {
    pub(super) now: f64,
    pub(super) peak: f64,
    before: Option<(u64, u64)>,
}

impl Rate {
    /// The count was `bytes` at `at` (ns).
    pub(super) fn take(&mut self, at: u64, bytes: u64) {
        let Some((before, had)) = self.before.replace((at, bytes)) else { return };
        let seconds = at.saturating_sub(before) as f64 / 1e9;
        if seconds <= 0.0 {
            self.before = Some((before, had));
            return;
        }
        let rate = bytes.saturating_sub(had) as f64 * 8.0 / seconds;
        self.now += (rate - self.now) * (1.0 - (-seconds / SMOOTHING).exp());
        self.peak = self.peak.max(self.now);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_steady_flow_is_its_rate_and_what_has_ended_is_forgotten() {
        let mut rate = Rate::default();
        let second = 1_000_000_000;
        // 1,000 bytes in 100 ms.
        for step in 0..50 {
            rate.take(step * second / 10, step * 1_000);
        }
        assert!((rate.now - 80_000.0).abs() < 100.0, "{rate:?}");
        for step in 50..100 {
            rate.take(step * second / 10, 50_000);
            // The same look twice says nothing.
            rate.take(step * second / 10, 50_000);
        }
        assert!(rate.now < 100.0 && rate.peak > 79_000.0, "{rate:?}");
    }
}
