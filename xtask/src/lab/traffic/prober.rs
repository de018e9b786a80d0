//! New connections, one every few milliseconds: how long none succeeds, and by
//! which WAN they go.

use std::{
    net::SocketAddr,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use anyhow::{Result, anyhow};

use super::EchoStream;
use crate::lab::Namespace;

/// Time between two attempts.
pub const EVERY: Duration = Duration::from_millis(20);
/// How long an attempt may take before it counts as failed: less than TCP's
/// first repetition, so that each attempt tells of its own moment.
const TIMEOUT: Duration = Duration::from_millis(400);

/// One attempt to connect.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Attempt {
    /// When it began.
    pub start: Instant,
    /// What the server saw as our address; `None`: it failed.
    pub seen_as: Option<SocketAddr>,
}

/// Attempts to connect until it is stopped.
#[derive(Debug)]
pub struct Prober {
    attempts: Arc<Mutex<Vec<Attempt>>>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Prober {
    /// Begins to connect from `namespace` to an [`EchoServer`](super::EchoServer).
    ///
    /// # Errors
    /// When there is no thread for it.
    pub fn start(namespace: &Namespace, to: SocketAddr) -> Result<Self> {
        let attempts = Arc::new(Mutex::new(Vec::new()));
        let stop = Arc::new(AtomicBool::new(false));
        let (namespace, list, flag) = (namespace.clone(), Arc::clone(&attempts), Arc::clone(&stop));
        let thread = thread::Builder::new().name("prober".to_owned()).spawn(move || {
            let mut due = Instant::now();
            let mut running: Vec<JoinHandle<()>> = Vec::new();
            while !flag.load(Ordering::Relaxed) {
                let (namespace, list) = (namespace.clone(), Arc::clone(&list));
                // One that hangs must not hide the next.
                running.push(thread::spawn(move || {
                    let start = Instant::now();
                    let stream = EchoStream::connect(&namespace, to, TIMEOUT);
                    let seen_as = stream.ok().map(|stream| stream.seen_as());
                    list.lock()
                        .unwrap_or_else(PoisonError::into_inner)
                        .push(Attempt { start, seen_as });
                }));
                running.retain(|attempt| !attempt.is_finished());
                due += EVERY;
                thread::sleep(due.saturating_duration_since(Instant::now()));
            }
            for attempt in running {
                // A panic in an attempt shows as a missing one.
                let _ = attempt.join();
            }
        })?;
        Ok(Self { attempts, stop, thread: Some(thread) })
    }

    /// Finished attempts so far, by start.
    #[must_use]
    pub fn attempts(&self) -> Vec<Attempt> {
        let mut attempts = self.attempts.lock().unwrap_or_else(PoisonError::into_inner).clone();
        attempts.sort_by_key(|attempt| attempt.start);
        attempts
    }

    /// The last attempt that is finished.
    #[must_use]
    pub fn last(&self) -> Option<Attempt> {
        self.attempts().last().copied()
    }

    /// Ends it, waits for the attempts on their way, and gives all.
    ///
    /// # Errors
    /// When it has panicked.
    pub fn stop(mut self) -> Result<Vec<Attempt>> {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            thread.join().map_err(|_| anyhow!("the prober panicked"))?;
        }
        Ok(self.attempts())
    }
}

impl Drop for Prober {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// Time from `since` until every attempt succeeds: an attempt that fails later
/// makes it longer. Looks only at attempts that began before `until`.
#[must_use]
pub fn outage(attempts: &[Attempt], since: Instant, until: Instant) -> Duration {
    attempts
        .iter()
        .filter(|attempt| attempt.start >= since && attempt.start < until)
        .filter(|attempt| attempt.seen_as.is_none())
        .map(|attempt| attempt.start + EVERY - since)
        .max()
        .unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_outage_lasts_until_the_last_failure() {
        let cut = Instant::now();
        let seen = SocketAddr::from(([198, 51, 100, 2], 10_000));
        let at = |after: u64, works: bool| Attempt {
            start: cut + Duration::from_millis(after),
            seen_as: works.then_some(seen),
        };
        let attempts = [at(0, false), at(20, true), at(40, false), at(60, true), at(900, false)];
        let until = cut + Duration::from_millis(500);
        assert_eq!(outage(&attempts, cut, until), Duration::from_millis(60));
        assert_eq!(outage(&attempts[1..2], cut, until), Duration::ZERO);
    }
}
