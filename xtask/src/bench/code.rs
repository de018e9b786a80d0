//! Benchmarks of the agent's code itself, which cargo builds and runs.

use std::time::Duration;

use anyhow::Result;

use crate::{exec, setup, workspace};

/// Longest time that building and running one may take.
const LIMIT: Duration = Duration::from_secs(10 * 60);

/// What one of them prints.
pub(super) fn figures(name: &str) -> Result<String> {
    let mut command = workspace::cargo(&setup::ensure()?.toolchain)?;
    command.args(["bench", "--package", "mwb-agent", "--profile", "dev", "--bench", name]);
    let mut text = String::new();
    exec::watch("cargo bench", &mut command, LIMIT, |line| {
        text.push_str(line);
        text.push('\n');
    })?;
    Ok(text)
}
