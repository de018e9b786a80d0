//! What a webhook is still to be told, on disk: one file for each event.
//!
//! A file of its own, rather than a line in a journal: what is done with an event
//! is one system call on its file (written and renamed, unlinked), nothing ever
//! has to be compacted, damage is that of one event, and an operator can look
//! with `ls` and `cat`. The price, a file synced per event, is paid by the
//! receiver's own task; what comes together shares one sync of the folder.
//!
//! `00000000000000000042.event` holds the SHA-256 of the rest in hexadecimal, a
//! line feed, and the body of the request, byte for byte as it is sent each time.
//! The number says the order. `….new` is not whole yet; `….damaged` was set aside.
//!
//! Must not know: receivers, requests, clocks.

use std::collections::VecDeque;
use std::io::{self, ErrorKind};

use sha2::{Digest as _, Sha256};

use super::disk::Disk;
use super::sign::hex;

const WHOLE: &str = ".event";
const NEW: &str = ".new";
const DAMAGED: &str = ".damaged";
/// So many damaged files are kept for those who want to know why.
const DAMAGED_KEPT: usize = 16;

/// The queue of one webhook.
pub(super) struct Queue {
    disk: Box<dyn Disk>,
    /// Numbers of the files, oldest first.
    waiting: VecDeque<u64>,
    next: u64,
    limit: usize,
    /// The oldest is being sent: it is not dropped.
    busy: bool,
    /// Its folder has been removed.
    removed: bool,
}

/// The oldest event.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Head {
    /// Nothing waits.
    None,
    /// To be sent.
    Entry(u64, Vec<u8>),
    /// It was damaged and has been set aside; the next is another one.
    Damaged(String),
}

/// What became of events that were to be stored.
#[derive(Debug)]
pub(super) struct Stored {
    /// So many of them, from the first, are on disk.
    pub(super) stored: usize,
    /// So many older ones had to go.
    pub(super) dropped: u64,
    /// Why not all are stored.
    pub(super) error: Option<io::Error>,
}

impl Queue {
    /// What an earlier run left. Says how many were dropped because there were
    /// more than `limit`.
    pub(super) fn open(disk: Box<dyn Disk>, limit: usize) -> io::Result<(Self, u64)> {
        let mut waiting = Vec::new();
        for name in disk.names()? {
            if let Some(number) = number_in(&name, WHOLE) {
                waiting.push(number);
            } else if number_in(&name, NEW).is_some() {
                disk.remove(&name)?;
            }
        }
        waiting.sort_unstable();
        let next = waiting.last().map_or(1, |last| last.saturating_add(1));
        let waiting = waiting.into();
        let mut queue = Self { disk, waiting, next, limit, busy: false, removed: false };
        let dropped = queue.shorten();
        Ok((queue, dropped))
    }

    /// Puts bodies at the end. When this returns, those that are stored survive
    /// whatever happens.
    pub(super) fn store(&mut self, bodies: &[Vec<u8>]) -> Stored {
        let first = self.next;
        let mut error = None;
        for body in bodies {
            if let Err(refused) = self.write(self.next, body) {
                error = Some(refused);
                break;
            }
            self.next += 1;
        }
        if let Err(refused) = self.disk.sync() {
            // Perhaps there, perhaps not: they are stored again, under the same
            // delivery.
            for number in first..self.next {
                let _ = self.disk.remove(&name(number, WHOLE));
            }
            return Stored { stored: 0, dropped: 0, error: Some(refused) };
        }
        self.waiting.extend(first..self.next);
        let stored = usize::try_from(self.next - first).unwrap_or(usize::MAX);
        Stored { stored, dropped: self.shorten(), error }
    }

    fn write(&self, number: u64, body: &[u8]) -> io::Result<()> {
        if self.removed {
            return Err(io::Error::new(ErrorKind::NotFound, "the queue has been removed"));
        }
        let mut content = hex(&Sha256::digest(body)).into_bytes();
        content.push(b'\n');
        content.extend_from_slice(body);
        let new = name(number, NEW);
        let written = self
            .disk
            .write(&new, &content)
            .and_then(|()| self.disk.rename(&new, &name(number, WHOLE)));
        if written.is_err() {
            // What is left of it helps nobody; that it may not be there is no error.
            let _ = self.disk.remove(&new);
        }
        written
    }

    /// Drops the oldest until no more wait than may. What is being sent does not
    /// count.
    fn shorten(&mut self) -> u64 {
        let mut dropped = 0;
        let kept = usize::from(self.busy);
        while self.waiting.len() > self.limit + kept {
            let Some(number) = self.waiting.remove(kept) else { break };
            self.unlink(number);
            dropped += 1;
        }
        dropped
    }

    /// The oldest event, which then is being sent until [`Queue::done`] or
    /// [`Queue::later`].
    ///
    /// # Errors
    /// When the file cannot be read now; it stays the oldest.
    pub(super) fn head(&mut self) -> io::Result<Head> {
        let Some(&number) = self.waiting.front() else { return Ok(Head::None) };
        let why = match self.disk.read(&name(number, WHOLE)) {
            Ok(content) => match body(&content) {
                Some(body) => {
                    self.busy = true;
                    return Ok(Head::Entry(number, body.to_vec()));
                }
                None => "its content is not what was written".to_owned(),
            },
            Err(error) if error.kind() == ErrorKind::NotFound => "it is gone".to_owned(),
            Err(error) => return Err(error),
        };
        self.waiting.pop_front();
        Ok(Head::Damaged(self.set_aside(number, &why)))
    }

    fn set_aside(&self, number: u64, why: &str) -> String {
        let (whole, damaged) = (name(number, WHOLE), name(number, DAMAGED));
        // If it cannot be renamed it is told again by the next run.
        let kept = self.disk.rename(&whole, &damaged).is_ok();
        let mut all: Vec<String> = self.disk.names().unwrap_or_default();
        all.retain(|name| number_in(name, DAMAGED).is_some());
        all.sort_unstable();
        for old in all.iter().take(all.len().saturating_sub(DAMAGED_KEPT)) {
            let _ = self.disk.remove(old);
        }
        let now = if kept { format!("; it is kept as {damaged}") } else { String::new() };
        format!("the queued event {whole} is lost: {why}{now}")
    }

    /// The oldest event is done with.
    pub(super) fn done(&mut self, number: u64) {
        self.busy = false;
        if self.waiting.front() == Some(&number) {
            self.waiting.pop_front();
            self.unlink(number);
        }
    }

    /// The oldest event is sent another time.
    pub(super) fn later(&mut self) -> u64 {
        self.busy = false;
        self.shorten()
    }

    /// Not synced: after a power cut it may be there again and is sent again,
    /// under the same delivery.
    fn unlink(&self, number: u64) {
        let name = name(number, WHOLE);
        if let Err(error) = self.disk.remove(&name) {
            tracing::warn!(%error, name, "a queued event cannot be removed; the next run sends it again");
        }
    }

    /// How many wait.
    pub(super) fn len(&self) -> usize {
        self.waiting.len()
    }

    /// Removes the queue from disk. What is not its own stays, with its folder.
    pub(super) fn remove(&mut self) -> io::Result<()> {
        self.removed = true;
        self.waiting.clear();
        for name in self.disk.names()? {
            if [WHOLE, NEW, DAMAGED].iter().any(|end| number_in(&name, end).is_some()) {
                self.disk.remove(&name)?;
            }
        }
        match self.disk.remove_folder() {
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
            other => other,
        }
    }
}

/// Names sort like their numbers.
fn name(number: u64, end: &str) -> String {
    format!("{number:020}{end}")
}

fn number_in(name: &str, end: &str) -> Option<u64> {
    let digits = name.strip_suffix(end)?;
    let fits = digits.len() == 20 && digits.bytes().all(|byte| byte.is_ascii_digit());
    fits.then(|| digits.parse().ok()).flatten()
}

/// The body in a file, if it is whole.
fn body(content: &[u8]) -> Option<&[u8]> {
    let (sum, rest) = content.split_at_checked(64)?;
    let body = rest.strip_prefix(b"\n")?;
    (hex(&Sha256::digest(body)).as_bytes() == sum).then_some(body)
}

#[cfg(test)]
#[path = "queue_tests.rs"]
mod tests;
