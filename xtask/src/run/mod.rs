//! `cargo xtask run`: a real gateway on three WANs, and for a bond a server, carry real
//! traffic, lose a WAN, and show what they do.
//!
//! The gateway lives in the lab; its API and metrics are on this machine's
//! loopback, by a socket that is opened here and handed in.

mod demo;
mod felt;
mod load;
mod machine;
mod scenario;
mod screen;
mod summary;

use std::{
    path::PathBuf,
    process::ExitCode,
    sync::atomic::{AtomicBool, Ordering},
    time::Duration,
};

use anyhow::{Context as _, Result};
use nix::sys::signal::{SaFlags, SigAction, SigHandler, SigSet, Signal, sigaction};

use crate::setup;
pub use scenario::Scenario;

/// Length of a run that nobody watches.
const UNWATCHED: Duration = Duration::from_secs(30);

/// Arguments of `cargo xtask run`.
#[derive(Clone, Debug, clap::Args)]
pub struct Args {
    /// End after this many seconds; without it, at Ctrl-C (30 if nobody watches).
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(10..))]
    seconds: Option<u64>,
    /// What happens on the way.
    #[arg(long, value_enum, default_value_t, conflicts_with = "config")]
    scenario: Scenario,
    /// Print one JSON object on standard output at the end, all else on standard error.
    #[arg(long, conflicts_with = "config")]
    json: bool,
    /// Run the agent on this machine with this configuration instead of in the lab.
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
}

impl Args {
    /// How long to run; `None`: until Ctrl-C.
    fn length(&self, watched: bool) -> Option<Duration> {
        let asked = self.seconds.map(Duration::from_secs);
        asked.or((!watched).then_some(UNWATCHED))
    }
}

/// Runs the command.
///
/// # Errors
/// When the gateway cannot be set up. What goes wrong later is the exit reason
/// in the summary.
pub fn command(args: &Args) -> Result<ExitCode> {
    setup::ensure()?;
    match &args.config {
        Some(file) => machine::run(file, args.seconds.map(Duration::from_secs)),
        None => demo::run(args),
    }
}

/// Set by SIGINT and SIGTERM.
static INTERRUPTED: AtomicBool = AtomicBool::new(false);

extern "C" fn interrupt(_signal: libc::c_int) {
    INTERRUPTED.store(true, Ordering::Relaxed);
}

/// From here on SIGINT and SIGTERM end the run, not the process.
fn catch_interrupts() -> Result<()> {
    let handler = SigHandler::Handler(interrupt);
    let action = SigAction::new(handler, SaFlags::SA_RESTART, SigSet::empty());
    for signal in [Signal::SIGINT, Signal::SIGTERM] {
        // SAFETY: the handler only stores to an atomic.
        unsafe { sigaction(signal, &action) }.context("cannot catch signals")?;
    }
    Ok(())
}

fn is_interrupted() -> bool {
    INTERRUPTED.load(Ordering::Relaxed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_run_that_nobody_watches_is_bounded() {
        let args = Args { seconds: None, scenario: Scenario::Cut, json: false, config: None };
        assert_eq!(args.length(true), None);
        assert_eq!(args.length(false), Some(UNWATCHED));
        let args = Args { seconds: Some(12), ..args };
        assert_eq!(args.length(true), Some(Duration::from_secs(12)));
    }
}
