//! What follows from a webhook's answer, and when to try again. Pure.

use std::time::Duration;

use super::post::Reply;

/// How the time between two attempts grows. Each is drawn between zero and a
/// bound that doubles ("full jitter"), so that gateways that lost the same
/// webhook do not come back to it all at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Backoff {
    /// The bound after the first failure.
    pub first: Duration,
    /// No wait is longer, also none that the webhook asks for.
    pub longest: Duration,
}

impl Default for Backoff {
    fn default() -> Self {
        Self { first: Duration::from_secs(1), longest: Duration::from_secs(300) }
    }
}

/// What becomes of a delivery.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// It is done.
    Delivered,
    /// The webhook will never take it.
    Refused(String),
    /// It may take it later; at the earliest after this time.
    Again(String, Option<Duration>),
}

impl Backoff {
    /// How long to wait after so many failures in a row (at least one), with
    /// `chance` from 0 to 1.
    pub(super) fn wait(&self, failures: u32, chance: f64, asked: Option<Duration>) -> Duration {
        let doubled = 2_u32.saturating_pow(failures.saturating_sub(1));
        let bound = self.first.saturating_mul(doubled).min(self.longest);
        bound.mul_f64(chance.clamp(0.0, 1.0)).max(asked.unwrap_or_default().min(self.longest))
    }
}

/// Judges what came of a request.
pub(super) fn judge(answer: Result<Reply, String>) -> Verdict {
    let reply = match answer {
        Ok(reply) => reply,
        Err(error) => return Verdict::Again(error, None),
    };
    let status = reply.status;
    match status {
        200..300 => Verdict::Delivered,
        300..400 => Verdict::Again(
            format!(
                "it answers {status}, and redirections are not followed: configure the new URL"
            ),
            None,
        ),
        // Too slow, too early, too often: RFC 9110, RFC 8470, RFC 6585.
        408 | 425 | 429 => Verdict::Again(format!("it answers {status}"), reply.retry_after),
        400..500 => Verdict::Refused(format!("it answers {status}")),
        _ => Verdict::Again(format!("it answers {status}"), reply.retry_after),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn seconds(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    fn of(status: u16) -> Verdict {
        judge(Ok(Reply { status, retry_after: Some(seconds(7)) }))
    }

    #[test]
    fn the_bound_doubles_from_one_second_to_five_minutes() {
        let bounds: Vec<u64> =
            (1..=10).map(|n| Backoff::default().wait(n, 1.0, None).as_secs()).collect();
        assert_eq!(bounds, [1, 2, 4, 8, 16, 32, 64, 128, 256, 300]);
        assert_eq!(Backoff::default().wait(u32::MAX, 1.0, None), seconds(300));
    }

    #[test]
    fn what_the_webhook_asks_for_is_waited_for_up_to_the_longest_wait() {
        let backoff = Backoff::default();
        assert_eq!(backoff.wait(1, 0.0, Some(seconds(20))), seconds(20));
        assert_eq!(backoff.wait(1, 0.0, Some(seconds(86_400))), seconds(300));
        assert_eq!(backoff.wait(6, 1.0, Some(seconds(3))), seconds(32));
    }

    #[test]
    fn only_answers_that_will_not_change_are_final() {
        for status in [200, 202, 204, 299] {
            assert_eq!(of(status), Verdict::Delivered, "{status}");
        }
        for status in [400, 401, 403, 404, 410, 413, 422, 451, 499] {
            assert!(matches!(of(status), Verdict::Refused(_)), "{status}");
        }
        for status in [408, 425, 429, 500, 502, 503, 504, 599] {
            let again = matches!(of(status), Verdict::Again(_, Some(asked)) if asked == seconds(7));
            assert!(again, "{status}");
        }
        for status in [100, 301, 302, 308, 600] {
            assert!(matches!(of(status), Verdict::Again(..)), "{status}");
        }
        assert!(matches!(judge(Err("reset".into())), Verdict::Again(..)));
    }

    proptest! {
        #[test]
        fn no_wait_is_longer_than_the_longest(
            failures in 1_u32..,
            chance in 0.0..=1.0_f64,
            asked in prop::option::of(0_u64..1_000_000),
        ) {
            let backoff = Backoff::default();
            let wait = backoff.wait(failures, chance, asked.map(seconds));
            prop_assert!(wait <= backoff.longest);
            prop_assert!(wait >= asked.map_or(Duration::ZERO, seconds).min(backoff.longest));
        }
    }
}
