//! The liveness tick: every 50 ms one write that says until when each living
//! path is alive, all with the same time. It has a thread of its own, so that
//! nothing the agent does can hold it up but the data plane itself; when the agent dies, all paths run
//! out at one instant, and the kernel side ignores liveness from then on.

use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::thread;
use std::time::Duration;

use mwb_common::maps::{Liveness, PATH_SLOTS};
use nix::time::{ClockId, clock_gettime};

use crate::dataplane::{DataPlane, Error};

/// Time between two ticks.
const TICK: Duration = Duration::from_millis(50);
/// A path that is alive is so for ten ticks at least, however eager health is:
/// a busy machine must not let all of them run out.
const LEAST: Duration = Duration::from_millis(500);
/// For how long living paths count as alive while something slow is done.
const SLOW: Duration = Duration::from_secs(10);

/// The data plane, shared with the tick. Calls are short: whoever reads tables
/// does so without this lock.
#[derive(Clone)]
pub(super) struct Plane {
    inner: Arc<Mutex<Inner>>,
}

struct Inner {
    plane: DataPlane,
    alive: Vec<u8>,
    dead_after: Duration,
}

impl Plane {
    /// `dead_after` is how long a path counts as alive without a tick.
    pub(super) fn new(plane: DataPlane, dead_after: Duration) -> Self {
        let dead_after = dead_after.max(LEAST);
        Self { inner: Arc::new(Mutex::new(Inner { plane, alive: Vec::new(), dead_after })) }
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Sets how long a path counts as alive without a tick.
    pub(super) fn set_dead_after(&self, dead_after: Duration) {
        self.lock().dead_after = dead_after.max(LEAST);
    }

    /// Does something with the data plane.
    pub(super) fn with<T>(&self, act: impl FnOnce(&mut DataPlane) -> T) -> T {
        act(&mut self.lock().plane)
    }

    /// Does something slow with the data plane: attaching a program can reset a
    /// link and take seconds, for which no tick comes through.
    pub(super) fn with_slow<T>(&self, act: impl FnOnce(&mut DataPlane) -> T) -> Result<T, Error> {
        let mut inner = self.lock();
        inner.beat_for(SLOW)?;
        let result = act(&mut inner.plane);
        inner.beat()?;
        Ok(result)
    }

    /// Says which paths are alive, from now on and at once.
    pub(super) fn set_alive(&self, alive: Vec<u8>) -> Result<(), Error> {
        let mut inner = self.lock();
        inner.alive = alive;
        inner.beat()
    }

    /// Starts the tick. It ends with the last other handle of this plane.
    pub(super) fn start(&self) -> io::Result<()> {
        let plane = Arc::downgrade(&self.inner);
        thread::Builder::new().name("liveness".to_owned()).spawn(move || tick(&plane)).map(drop)
    }
}

fn tick(plane: &Weak<Mutex<Inner>>) {
    let mut failed = false;
    loop {
        thread::sleep(TICK);
        let Some(plane) = plane.upgrade() else { return };
        let result = plane.lock().unwrap_or_else(PoisonError::into_inner).beat();
        if let Err(error) = &result
            && !failed
        {
            tracing::error!(%error, "liveness could not be written");
        }
        failed = result.is_err();
    }
}

impl Inner {
    fn beat(&mut self) -> Result<(), Error> {
        self.beat_for(self.dead_after)
    }

    fn beat_for(&mut self, time: Duration) -> Result<(), Error> {
        let liveness = liveness(&self.alive, monotonic(), time);
        self.plane.set_liveness(&liveness)
    }
}

fn liveness(alive: &[u8], now: Duration, dead_after: Duration) -> Liveness {
    let until = u64::try_from((now + dead_after).as_nanos()).unwrap_or(u64::MAX);
    let mut liveness = Liveness { alive_until: [0; PATH_SLOTS] };
    for &path in alive {
        if let Some(slot) = liveness.alive_until.get_mut(usize::from(path)) {
            *slot = until;
        }
    }
    liveness
}

/// `CLOCK_MONOTONIC`, which is what the kernel side compares with.
fn monotonic() -> Duration {
    clock_gettime(ClockId::CLOCK_MONOTONIC).map(Duration::from).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_living_paths_have_one_time_and_dead_ones_zero() {
        let liveness = liveness(&[1, 3, 32], Duration::from_secs(7), Duration::from_millis(700));
        for (path, until) in liveness.alive_until.into_iter().enumerate() {
            let expected = if [1, 3, 32].contains(&path) { 7_700_000_000 } else { 0 };
            assert_eq!(until, expected, "path {path}");
        }
    }
}
