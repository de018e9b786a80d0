//! One time limit for all steps of a check.

use std::future::Future;
use std::time::Duration;

use tokio::time::{Instant, timeout};

use super::Bad;

/// A span of time that steps use up one after the other.
#[derive(Clone, Copy, Debug)]
pub(super) struct Budget {
    start: Instant,
    whole: Duration,
}

impl Budget {
    /// One that begins now.
    pub(super) fn new(whole: Duration) -> Self {
        Self { start: Instant::now(), whole }
    }

    /// What is left.
    pub(super) fn left(&self) -> Duration {
        self.whole.saturating_sub(self.start.elapsed())
    }

    /// An equal part of what is left, for one of `parts` steps to come.
    pub(super) fn share(&self, parts: usize) -> Self {
        Self::new(self.left() / u32::try_from(parts.max(1)).unwrap_or(u32::MAX))
    }

    /// Does a step within what is left; `waiting` says what for.
    pub(super) async fn within<T>(
        &self,
        waiting: impl FnOnce() -> String,
        step: impl Future<Output = T>,
    ) -> Result<T, Bad> {
        let late = |_| Bad::TimedOut { after: self.whole, waiting: waiting() };
        timeout(self.left(), step).await.map_err(late)
    }
}
