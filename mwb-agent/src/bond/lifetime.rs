//! How long keys are good: arithmetic, for both ends.

use std::time::{Duration, Instant};

/// Keys this old are to be renewed.
pub const RENEW_AFTER: Duration = Duration::from_secs(120);
/// Keys that have sealed so many packets of one path are to be renewed.
pub const RENEW_AFTER_PACKETS: u64 = 1 << 60;
/// Keys this old are thrown away.
pub const OVER_AFTER: Duration = Duration::from_secs(180);
/// But those that seal are kept while authentic packets come, the last one within this
/// time: the agent of the far end is away, and its data plane goes on with them.
pub const HEARD_WITHIN: Duration = Duration::from_secs(10);

/// Whether it is time for the next handshake. `packets` is how many the keys have
/// sealed on the path that has most of them.
#[must_use]
pub fn is_due(established: Instant, now: Instant, packets: u64) -> bool {
    packets >= RENEW_AFTER_PACKETS || age(established, now) >= RENEW_AFTER
}

/// Whether the keys must be thrown away.
#[must_use]
pub fn is_over(established: Instant, now: Instant) -> bool {
    age(established, now) >= OVER_AFTER
}

/// When [`is_over`] begins to be true.
#[must_use]
pub fn over_at(established: Instant) -> Instant {
    established + OVER_AFTER
}

fn age(established: Instant, now: Instant) -> Duration {
    now.saturating_duration_since(established)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_renewed_by_age_or_use_and_end_a_minute_later() {
        let made = Instant::now();
        let after = |ms| made + Duration::from_millis(ms);
        assert!(!is_due(made, made, 0));
        assert!(!is_due(made, after(119_999), (1 << 60) - 1));
        assert!(is_due(made, after(120_000), 0));
        assert!(is_due(made, made, 1 << 60));
        assert!(!is_over(made, after(179_999)));
        assert!(is_over(made, after(180_000)) && over_at(made) == after(180_000));
        // Times of two threads need not be in order.
        assert!(!is_due(after(500), made, 0) && !is_over(after(500_000), made));
    }
}
