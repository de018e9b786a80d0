//! What the thread `mwb-history` does with each message and each flush; the file may
//! be gone, full or broken, and it goes on. Each call brings its moment along.
//!
//! Must not know: channels, when it is called.

use std::path::PathBuf;

use super::accumulate::Accumulator;
use super::db::Store;
use super::error::Error;
use super::level::Retention;
use super::open;
use super::record::{Change, Moment, Round};

/// How often old rows are deleted, in milliseconds.
const RETAIN_MS: u64 = 600_000;
/// How often one process begins a new file for a broken one: a disk that breaks each
/// of them must not be filled with them.
const MOST_ASIDE: u32 = 3;

/// What the thread is told.
#[derive(Debug)]
pub(super) enum Message {
    Round(Round),
    Change(Change),
    Forget(std::sync::Arc<str>, Moment),
    /// Look whether it is time to end.
    Wake,
}

/// The work of the thread.
pub(super) struct Worker {
    path: PathBuf,
    retention: Retention,
    store: Option<Store>,
    /// Whether this file has been read through once.
    checked: bool,
    accumulator: Accumulator,
    moved_aside: u32,
    retained: Option<Moment>,
    /// Whether the wall's clock was believed then.
    believed: bool,
}

impl Worker {
    /// `store` is the file if it could be opened.
    pub(super) fn new(path: PathBuf, retention: Retention, store: Option<Store>) -> Self {
        Self {
            path,
            retention,
            store,
            checked: false,
            accumulator: Accumulator::default(),
            moved_aside: 0,
            retained: None,
            believed: true,
        }
    }

    pub(super) fn takes(&mut self, message: Message) {
        match message {
            Message::Round(round) => self.accumulator.round(&round),
            Message::Change(change) => self.accumulator.change(change),
            Message::Forget(wan, at) => self.accumulator.forget(&wan, at),
            Message::Wake => {}
        }
    }

    /// Rows, changes and rounds given up because the disk took nothing for too long.
    pub(super) fn given_up(&self) -> u64 {
        self.accumulator.given_up()
    }

    /// Writes what is pending, makes longer periods, deletes what is old. What could
    /// not be written stays pending, as far as there is room. A broken file is moved
    /// aside and a new one begun; that is an error too.
    pub(super) fn flush(&mut self, now: Moment) -> Result<(), Error> {
        let batch = self.accumulator.take(now);
        let written = self.opened().and_then(|store| match batch.is_empty() {
            true => Ok(()),
            false => store.write(&batch),
        });
        if let Err(error) = written {
            self.accumulator.give_back(batch);
            return Err(self.mended(error, now));
        }
        let tended = self.tend(now);
        tended.map_err(|error| self.mended(error, now))
    }

    fn tend(&mut self, now: Moment) -> Result<(), Error> {
        let retention = self.retention;
        let passed_ms = match self.retained {
            Some(last) => now.steady_ms.saturating_sub(last.steady_ms),
            None => 0,
        };
        let is_due = self.retained.is_none() || passed_ms >= RETAIN_MS;
        let store = self.opened()?;
        store.roll_up(now.wall_s())?;
        if is_due {
            let passed_s = i64::try_from(passed_ms / 1000).unwrap_or(i64::MAX);
            let believed = store.retain(now.wall_s(), passed_s, &retention)?;
            self.retained = Some(now);
            if !believed && self.believed {
                tracing::warn!(
                    path = %self.path.display(),
                    "the clock is far ahead of the history: nothing old is deleted before the \
                     agent has run a day with it"
                );
            }
            self.believed = believed;
        }
        Ok(())
    }

    fn opened(&mut self) -> Result<&mut Store, Error> {
        let store = match self.store.take() {
            Some(store) => store,
            None => Store::open(&self.path)?,
        };
        if !self.checked {
            store.check()?;
            self.checked = true;
        }
        Ok(self.store.insert(store))
    }

    /// After an error: a broken file is moved aside, so that the next flush begins a
    /// new one. Any other one is opened again.
    fn mended(&mut self, error: Error, now: Moment) -> Error {
        self.store = None;
        if !error.is_damage() || self.moved_aside >= MOST_ASIDE {
            return error;
        }
        match open::aside(&self.path, now.wall_s()) {
            Ok(aside) => {
                self.moved_aside += 1;
                (self.checked, self.retained) = (false, None);
                Error::Begun { path: self.path.clone(), aside, source: Box::new(error) }
            }
            Err(error) => error,
        }
    }
}

#[cfg(test)]
#[path = "worker_tests.rs"]
mod tests;
