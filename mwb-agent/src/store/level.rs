//! The three lengths of periods, and how long each is kept.
//!
//! Must not know: SQLite, what a period holds.

use std::time::Duration;

use super::error::Error;
use super::record::millis;

/// Lengths of periods in seconds, finest first. Each divides the next.
pub(crate) const LEVELS: [i64; 3] = [10, 300, 3600];
/// Index of the coarsest level.
pub(crate) const TOP: usize = LEVELS.len() - 1;

/// The start of the period of `length` seconds that a second lies in.
pub(crate) fn start_of(second: i64, length: i64) -> i64 {
    second - second.rem_euclid(length)
}

/// How long what is written is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Retention {
    /// Periods of 10 s: at least 10 minutes, 24 hours unless told otherwise.
    pub raw: Duration,
    /// Periods of 5 minutes: at least 2 hours, 30 days unless told otherwise.
    pub five_minutes: Duration,
    /// Periods of 1 hour: 2 years unless told otherwise.
    pub hours: Duration,
    /// Changes of state, but for the last 100 of each WAN: 1 year unless told
    /// otherwise.
    pub changes: Duration,
}

const DAY: Duration = Duration::from_secs(86_400);

impl Default for Retention {
    fn default() -> Self {
        Self { raw: DAY, five_minutes: DAY * 30, hours: DAY * 730, changes: DAY * 365 }
    }
}

impl Retention {
    /// Whether every level is kept long enough to become part of the next.
    ///
    /// # Errors
    /// [`Error::Retention`] names the level, what was wished and the least.
    pub fn check(&self) -> Result<(), Error> {
        let least = [
            ("raw", self.raw, Duration::from_secs(600)),
            ("five_minutes", self.five_minutes, self.raw.max(Duration::from_secs(7200))),
            ("hours", self.hours, self.five_minutes),
        ];
        for (level, wished, least) in least {
            if wished < least {
                return Err(Error::Retention { level, wished, least });
            }
        }
        Ok(())
    }

    /// How many seconds each level is kept.
    pub(crate) fn seconds(&self) -> [i64; 3] {
        [self.raw, self.five_minutes, self.hours].map(|span| millis(span) / 1000)
    }
}
