//! Waiting by predicate with a deadline, never by a fixed sleep.

use std::{
    thread,
    time::{Duration, Instant},
};

use anyhow::{Result, bail};

/// How often a predicate is asked, at most: it is at rest for as long as it was at work, so
/// that a slow machine does something else than answer it.
const STEP: Duration = Duration::from_millis(5);

/// Asks `predicate` until it holds and gives the time that took.
///
/// # Errors
/// When it does not hold before `deadline`, with the last error it gave: a
/// predicate that fails is asked again, since what it asks may not be there yet.
pub fn wait_until(
    what: &str,
    deadline: Duration,
    mut predicate: impl FnMut() -> Result<bool>,
) -> Result<Duration> {
    wait_for(what, deadline, || Ok(predicate()?.then_some(()))).map(|((), took)| took)
}

/// As [`wait_until`], for a value that appears.
///
/// # Errors
/// When there is no value before `deadline`.
pub fn wait_for<T>(
    what: &str,
    deadline: Duration,
    mut look: impl FnMut() -> Result<Option<T>>,
) -> Result<(T, Duration)> {
    let start = Instant::now();
    loop {
        let asked = Instant::now();
        let last_error = match look() {
            Ok(Some(value)) => return Ok((value, start.elapsed())),
            Ok(None) => None,
            Err(error) => Some(error),
        };
        if start.elapsed() >= deadline {
            match last_error {
                Some(error) => bail!("not within {deadline:?}: {what}; the last look: {error:#}"),
                None => bail!("not within {deadline:?}: {what}"),
            }
        }
        let left = deadline.saturating_sub(start.elapsed());
        thread::sleep(asked.elapsed().max(STEP).min(left.max(STEP)));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_predicate_that_holds_ends_the_wait_at_once() {
        let mut asked = 0;
        let took = wait_until("three looks", Duration::from_secs(5), || {
            asked += 1;
            Ok(asked == 3)
        });
        assert!(took.is_ok_and(|took| took < Duration::from_secs(1)));
        assert_eq!(asked, 3);
    }

    #[test]
    fn a_deadline_that_passes_names_what_was_awaited_and_the_last_error() {
        let error = wait_until("the moon", Duration::from_millis(20), || bail!("only cheese"));
        let text = error.map_or_else(|error| error.to_string(), |_| String::new());
        assert!(text.contains("the moon") && text.contains("only cheese"), "{text}");
    }
}
