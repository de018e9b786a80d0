//! The handle of the history for the rest of the agent: it never waits for the disk.
//!
//! Messages go through a bounded channel to the thread `mwb-history`, which has the
//! file. When the channel is full a message is dropped and counted. Must not know:
//! what is done with a message.

use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use super::db::Store;
use super::error::Error;
use super::level::{LEVELS, Retention};
use super::record::{Change, Moment, Round};
use super::worker::{Message, Worker};

/// Where the history is, and how much of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// The file. Its directory must be there.
    pub path: PathBuf,
    /// How long what is written is kept.
    pub retention: Retention,
    /// Messages that may wait for the thread; at least 1.
    pub queue: usize,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            path: PathBuf::from("/var/lib/mwb/history.db"),
            retention: Retention::default(),
            queue: 4096,
        }
    }
}

/// How the thread is doing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Condition {
    /// Messages that found the channel full, or the thread gone.
    pub dropped: u64,
    /// Batches that could not be written at once.
    pub failed: u64,
    /// Rows, changes and rounds given up because the disk took nothing for too long.
    pub given_up: u64,
    /// Batches that were written.
    pub written: u64,
    /// Why the last batch was not written, if it was not.
    pub error: Option<String>,
}

#[derive(Debug, Default)]
struct Shared {
    dropped: AtomicU64,
    failed: AtomicU64,
    given_up: AtomicU64,
    written: AtomicU64,
    closing: AtomicBool,
    error: Mutex<Option<String>>,
    ended: Mutex<bool>,
    ends: Condvar,
}

/// A handle to the thread that writes the history. Clones are cheap and go to the
/// same thread.
#[derive(Clone, Debug)]
pub struct Writer {
    sender: SyncSender<Message>,
    shared: Arc<Shared>,
}

impl Writer {
    /// Starts the thread. A file that cannot be written now is tried again with each
    /// batch, and one that is broken moved aside: the errors are told by
    /// [`condition`](Self::condition).
    ///
    /// # Errors
    /// What only the operator can mend: a file of a newer release or of something
    /// else, a retention that is too short; or no thread.
    pub fn start(settings: Settings) -> Result<Self, Error> {
        settings.retention.check()?;
        let store = match Store::open(&settings.path) {
            Ok(store) => Some(store),
            Err(error @ (Error::Newer { .. } | Error::Foreign { .. })) => return Err(error),
            // The first flush meets it again, and counts it.
            Err(_) => None,
        };
        let (writer, messages) = Self::unattended(settings.queue);
        let worker = Worker::new(settings.path, settings.retention, store);
        let shared = writer.shared.clone();
        thread::Builder::new()
            .name("mwb-history".to_owned())
            .spawn(move || attend(worker, messages, &Ending(shared)))?;
        Ok(writer)
    }

    /// A handle with nobody at the other end yet.
    fn unattended(queue: usize) -> (Self, Receiver<Message>) {
        let (sender, receiver) = sync_channel(queue.max(1));
        (Self { sender, shared: Arc::default() }, receiver)
    }

    /// Hands in a round. Never waits.
    pub fn record(&self, round: Round) {
        self.send(Message::Round(round));
    }

    /// Hands in a change of state. Never waits.
    pub fn state(&self, change: Change) {
        self.send(Message::Change(change));
    }

    /// The WAN is no longer there, so it is in no state any more. What is kept of it
    /// stays. Never waits.
    pub fn forget(&self, wan: &str) {
        self.send(Message::Forget(wan.into(), Moment::now()));
    }

    /// Messages that found the channel full, or the thread gone.
    #[must_use]
    pub fn dropped(&self) -> u64 {
        self.shared.dropped.load(Ordering::Relaxed)
    }

    /// How the thread is doing.
    #[must_use]
    pub fn condition(&self) -> Condition {
        Condition {
            dropped: self.dropped(),
            failed: self.shared.failed.load(Ordering::Relaxed),
            given_up: self.shared.given_up.load(Ordering::Relaxed),
            written: self.shared.written.load(Ordering::Relaxed),
            error: locked(&self.shared.error).clone(),
        }
    }

    /// Has all that was handed in before written, ends the thread, and waits for that,
    /// at most as long as told. What is handed in later is dropped and counted.
    ///
    /// # Errors
    /// [`Error::Slow`] if the thread still writes; [`Error::Unwritten`] if it could
    /// not.
    pub fn close(&self, limit: Duration) -> Result<(), Error> {
        self.shared.closing.store(true, Ordering::Release);
        // If there is no room, the thread is awake anyway.
        let _ = self.sender.try_send(Message::Wake);
        let ended = locked(&self.shared.ended);
        let (ended, _) = self
            .shared
            .ends
            .wait_timeout_while(ended, limit, |ended| !*ended)
            .unwrap_or_else(PoisonError::into_inner);
        if !*ended {
            return Err(Error::Slow(limit));
        }
        match locked(&self.shared.error).clone() {
            None => Ok(()),
            Some(error) => Err(Error::Unwritten(error)),
        }
    }

    fn send(&self, message: Message) {
        let is_closing = self.shared.closing.load(Ordering::Acquire);
        if is_closing || self.sender.try_send(message).is_err() {
            self.shared.dropped.fetch_add(1, Ordering::Relaxed);
        }
    }
}

/// Says that the thread has ended, however it did.
struct Ending(Arc<Shared>);

impl Drop for Ending {
    fn drop(&mut self) {
        if thread::panicking() {
            *locked(&self.0.error) = Some("the thread mwb-history panicked".to_owned());
        }
        *locked(&self.0.ended) = true;
        self.0.ends.notify_all();
    }
}

/// The thread: takes messages, and flushes shortly after the end of each period.
fn attend(mut worker: Worker, messages: Receiver<Message>, ending: &Ending) {
    let shared = &ending.0;
    let mut due = Instant::now() + until_flush(Moment::now().wall_ms);
    loop {
        let now = Instant::now();
        let is_closing = shared.closing.load(Ordering::Acquire);
        if is_closing {
            messages.try_iter().for_each(|message| worker.takes(message));
        }
        if is_closing || now >= due {
            // What could not be written at the end is tried once more: a new file may
            // have taken the place of a broken one.
            if !flush(&mut worker, shared) && is_closing {
                flush(&mut worker, shared);
            }
            due = Instant::now() + until_flush(Moment::now().wall_ms);
        }
        if is_closing {
            let late = messages.try_iter().filter(|message| !matches!(message, Message::Wake));
            shared.dropped.fetch_add(late.count() as u64, Ordering::Relaxed);
            return;
        }
        match messages.recv_timeout(due.saturating_duration_since(now)) {
            Ok(message) => worker.takes(message),
            Err(RecvTimeoutError::Timeout) => {}
            // All handles are gone: the same as closing.
            Err(RecvTimeoutError::Disconnected) => shared.closing.store(true, Ordering::Release),
        }
    }
}

/// Whether all was written.
fn flush(worker: &mut Worker, shared: &Shared) -> bool {
    let result = worker.flush(Moment::now());
    shared.given_up.store(worker.given_up(), Ordering::Relaxed);
    let error = match result {
        Ok(()) => {
            shared.written.fetch_add(1, Ordering::Relaxed);
            None
        }
        Err(error) => {
            shared.failed.fetch_add(1, Ordering::Relaxed);
            Some(error.to_string())
        }
    };
    let mut last = locked(&shared.error);
    if *last != error {
        match &error {
            // Once for each kind, not every 10 s.
            Some(error) => tracing::error!("{error}"),
            None => tracing::info!("the history is written again"),
        }
    }
    *last = error;
    last.is_none()
}

/// The time to the end of the period, so that most rows are written once, and a
/// little more for what is on its way.
fn until_flush(wall_ms: i64) -> Duration {
    let length_ms = LEVELS[0] * 1000;
    let left_ms = length_ms - wall_ms.rem_euclid(length_ms);
    Duration::from_millis(left_ms.unsigned_abs() + 100)
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
#[path = "writer_tests.rs"]
mod tests;
