//! The agent on this very machine, with a configuration of the user's: in the
//! foreground, until it ends or is asked to.

use std::{
    path::Path,
    process::{Command, ExitCode},
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};

use super::{catch_interrupts, is_interrupted};
use crate::build;

/// How often the agent is looked at.
const LOOK: Duration = Duration::from_millis(50);
/// How long it may take to end when asked.
const PATIENCE: Duration = Duration::from_secs(10);

pub(super) fn run(file: &Path, length: Option<Duration>) -> Result<ExitCode> {
    let agent = &build::artifacts()?.agent;
    catch_interrupts()?;
    let mut child = Command::new(agent)
        .arg("--config")
        .arg(file)
        .spawn()
        .with_context(|| format!("cannot start {}", agent.display()))?;
    let start = Instant::now();
    let mut asked: Option<Instant> = None;
    let status = loop {
        if let Some(status) = child.try_wait().context("cannot wait for the agent")? {
            break status;
        }
        match asked {
            None if is_interrupted() || length.is_some_and(|length| start.elapsed() >= length) => {
                // Ctrl-C has reached it already; a second request does no harm.
                let _ = kill(Pid::from_raw(child.id().cast_signed()), Signal::SIGTERM);
                asked = Some(Instant::now());
            }
            Some(since) if since.elapsed() > PATIENCE => {
                child.kill().context("cannot end the agent")?;
            }
            _ => {}
        }
        std::thread::sleep(LOOK);
    };
    if asked.is_some() {
        eprintln!("The data plane goes on without the agent. To remove it:");
        eprintln!("  {} --detach", agent.display());
    }
    let code = status.code().and_then(|code| u8::try_from(code).ok()).unwrap_or(1);
    Ok(ExitCode::from(code))
}
