//! How it goes with each receiver, for the API and the metrics.
//!
//! Must not know: who asks.

use std::sync::{Mutex, MutexGuard, PoisonError};

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// How it goes with all of them.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Status {
    /// Events that came faster than they were taken from the bus; they were
    /// fetched from its ring.
    pub lagged: u64,
    /// Those of them that the ring no longer had: no receiver is told of them.
    pub missed: u64,
    /// By name.
    pub receivers: Vec<ReceiverStatus>,
}

/// How it goes with one. The counts are those since the agent began or the
/// receiver was configured.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ReceiverStatus {
    /// Its name.
    pub name: String,
    /// `webhook` or `exec`.
    pub kind: String,
    /// Events that wait, with those that are being sent.
    pub queued: u64,
    /// Events that it took.
    pub delivered: u64,
    /// Requests that were sent another time.
    pub retried: u64,
    /// Events that it does not get.
    pub dropped: Dropped,
    /// What went wrong last, though it may have gone well since.
    pub last_error: Option<LastError>,
    /// When the next attempt is made, in milliseconds since 1970; absent unless
    /// the last one failed.
    pub next_attempt_unix_ms: Option<u64>,
}

/// Events that a receiver does not get, by reason.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Dropped {
    /// The oldest of too many that waited.
    pub queue_full: u64,
    /// They got too old before the webhook took them.
    pub expired: u64,
    /// The webhook will never take them.
    pub refused: u64,
    /// Their files on disk were damaged.
    pub damaged: u64,
    /// The command could not be started, failed or took too long.
    pub failed: u64,
}

/// Something that went wrong.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct LastError {
    /// When, in milliseconds since 1970.
    pub unix_ms: u64,
    /// What, in words for people.
    pub message: String,
}

impl Dropped {
    /// All of them.
    #[must_use]
    pub const fn total(&self) -> u64 {
        self.queue_full + self.expired + self.refused + self.damaged + self.failed
    }
}

/// A receiver's status while it changes.
#[derive(Debug, Default)]
pub(super) struct Tally(Mutex<ReceiverStatus>);

impl Tally {
    pub(super) fn new(name: &str, kind: &str) -> Self {
        let (name, kind) = (name.to_owned(), kind.to_owned());
        Self(Mutex::new(ReceiverStatus { name, kind, ..ReceiverStatus::default() }))
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, ReceiverStatus> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Events went because too many waited. Told when their count doubles: a long
    /// outage does not fill the log.
    pub(super) fn overflowed(&self, events: u64) {
        if events == 0 {
            return;
        }
        let mut status = self.lock();
        let before = status.dropped.queue_full;
        status.dropped.queue_full += events;
        let (receiver, dropped) = (&status.name, status.dropped.queue_full);
        if before.checked_ilog2() < dropped.checked_ilog2() {
            tracing::warn!(receiver, dropped, "too many events wait; the oldest are dropped");
        }
    }

    pub(super) fn error(&self, unix_ms: u64, message: String) {
        self.lock().last_error = Some(LastError { unix_ms, message });
    }
}
