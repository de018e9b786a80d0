//! `cargo xtask vm`: a machine of its own with a stock Debian kernel, for what
//! this machine's kernel lacks and for every kernel that we promise.
//!
//! ```text
//!   parts      QEMU and kernels into the cache, once      sources, apt, kernel, cache
//!   pack       what the guest finds in its file system    cpio
//!   guest      one machine, from start to end             ending
//!   command    run, shell, runner                         test: the tests, in such machines
//! ```
//! What a VM is made of is not installed on this machine, and needs no root on it:
//! inside, the job is root. Must not know: what the product does.

mod apt;
mod cache;
mod command;
mod cpio;
mod ending;
mod guest;
mod inside;
mod kernel;
mod pack;
mod parts;
mod pieces;
mod proof;
pub(crate) mod smoke;
mod sources;
#[cfg(test)]
mod stand_in;
mod test;
mod work;

use std::process::ExitCode;

use anyhow::Result;
use clap::Subcommand;

pub use cache::Kernel;

/// The kernels that the product promises to run on, by the oldest first.
pub const PROMISED: [&str; 2] = ["6.1", "6.12"];

/// What to do with test VMs.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Get QEMU and kernels into the cache; nothing is installed on this machine.
    Setup(command::SetupArgs),
    /// Run a command in a fresh VM; its exit code becomes ours.
    Run(command::RunArgs),
    /// Run the tests in fresh VMs, on every kernel, and count each. Builds them first, for
    /// which setup installs what is missing.
    Test(test::Args),
    /// Open a shell in a fresh VM; Ctrl-A X ends it.
    Shell(command::ShellArgs),
    /// Run a test executable in a fresh VM, as cargo's runner.
    Runner(command::RunnerArgs),
    /// The guest's side of `test`.
    #[command(hide = true)]
    Inside(inside::Args),
}

/// Why this machine cannot have a VM, of an error of [`output`]; `None` if something else
/// is wrong.
#[must_use]
pub fn why_unavailable(error: &anyhow::Error) -> Option<String> {
    parts::why_unavailable(error)
}

/// What a command prints in a fresh VM; `files` go along.
///
/// # Errors
/// When there can be no VM, or it has a mishap.
pub fn output(
    kernel: &Kernel,
    files: Vec<(std::path::PathBuf, String)>,
    command: &[&str],
) -> Result<String> {
    command::output(kernel, files, command)
}

/// Runs the command.
///
/// # Errors
/// When the parts of a VM cannot be had, or it cannot be started.
pub fn command(command: &Command) -> Result<ExitCode> {
    match command {
        Command::Setup(args) => command::setup(args),
        Command::Run(args) => command::run(args),
        Command::Test(args) => test::command(args),
        Command::Shell(args) => command::shell(args),
        Command::Runner(args) => command::runner(args),
        Command::Inside(args) => inside::command(args),
    }
}
