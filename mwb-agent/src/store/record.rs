//! What is handed in to be kept: rounds of probes and changes of state.
//!
//! Must not know: how and where it is kept.

use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// A moment on both clocks: the wall's says which period it belongs to, the
/// steady one how long something took, whatever the wall's clock does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Moment {
    /// Milliseconds since 1970, UTC.
    pub wall_ms: i64,
    /// Milliseconds of a clock that never jumps, from any origin.
    pub steady_ms: u64,
}

impl Moment {
    /// This moment.
    #[must_use]
    pub fn now() -> Self {
        static ORIGIN: OnceLock<Instant> = OnceLock::new();
        let steady = ORIGIN.get_or_init(Instant::now).elapsed();
        let wall_ms = match SystemTime::now().duration_since(UNIX_EPOCH) {
            Ok(since) => millis(since),
            Err(before) => -millis(before.duration()),
        };
        Self { wall_ms, steady_ms: steady.as_millis() as u64 }
    }

    /// The second of the wall's clock.
    pub(crate) fn wall_s(self) -> i64 {
        self.wall_ms.div_euclid(1000)
    }
}

/// A time span in milliseconds, as SQLite keeps it.
pub(crate) fn millis(span: Duration) -> i64 {
    i64::try_from(span.as_millis()).unwrap_or(i64::MAX)
}

/// Health of a WAN, with the numbers that the file has for it. They are never
/// given to something else.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum State {
    /// Not heard from yet.
    Unknown = 0,
    /// Answers as it should.
    Up = 1,
    /// Answers, but late, unevenly or not always.
    Degraded = 2,
    /// Answers again, not yet for long enough.
    Testing = 3,
    /// Does not answer.
    Down = 4,
}

impl State {
    /// All of them, by number.
    pub const ALL: [State; 5] =
        [State::Unknown, State::Up, State::Degraded, State::Testing, State::Down];

    /// The word for people.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            State::Unknown => "unknown",
            State::Up => "up",
            State::Degraded => "degraded",
            State::Testing => "testing",
            State::Down => "down",
        }
    }

    pub(crate) fn from_number(number: i64) -> Option<Self> {
        usize::try_from(number).ok().and_then(|number| Self::ALL.get(number).copied())
    }
}

/// What became of a round of probes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Answered, after this round-trip time; kept in microseconds, up to 71 minutes.
    Answered(Duration),
    /// Not answered in time, or not sent.
    Lost,
}

/// One round of probes over a WAN.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Round {
    /// Name of the WAN.
    pub wan: Arc<str>,
    /// How it was asked (`ping`, `http`, …), or `""` where that has no name. A
    /// round with a method counts for the method and for all together.
    pub method: Arc<str>,
    /// When it ended.
    pub at: Moment,
    /// What became of it.
    pub outcome: Outcome,
}

/// A change of a WAN's state.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    /// Name of the WAN.
    pub wan: Arc<str>,
    /// The method that brought it about, `""` if none did (a carrier was lost).
    /// The state is that of the WAN, not of the method.
    pub method: Arc<str>,
    /// When. What is read back has the wall's time only, and 0 for the other.
    pub at: Moment,
    /// State before.
    pub from: State,
    /// State from then on.
    pub to: State,
    /// Why, for people; kept up to 500 bytes.
    pub reason: String,
}
