//! What programs cost: the kernel's own count of runs and time.

use std::os::fd::OwnedFd;
use std::time::Duration;

use aya::sys::{Stats, enable_stats};

use super::DataPlane;
use super::load;

/// How often a program ran, and for how long, since it was loaded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProgramRuns {
    /// Its name.
    pub name: &'static str,
    /// Time in it, while that was measured.
    pub time: Duration,
    /// Runs, while they were counted.
    pub count: u64,
}

/// Has the kernel measure programs until the handle is dropped. It costs each
/// run some 20 ns, and the right to administer the system.
///
/// # Errors
/// When the kernel refuses.
pub fn measure_runs() -> std::io::Result<OwnedFd> {
    enable_stats(Stats::RunTime).map_err(|error| error.io_error)
}

impl DataPlane {
    /// What each program of this agent has cost so far. A program that cannot
    /// be asked is left out.
    #[must_use]
    pub fn program_runs(&self) -> Vec<ProgramRuns> {
        let ask = |name: &'static str| {
            let info = self.object.program(name)?.info().ok()?;
            Some(ProgramRuns { name, time: info.run_time(), count: info.run_count() })
        };
        load::programs().filter_map(|id| ask(id.name())).collect()
    }
}
