//! The command tree. Each command's arguments live with the command.

use std::process::ExitCode;

use anyhow::Result;
use clap::{Parser, Subcommand};

use crate::{bench, build, fuzz, lab, run, setup, test, verify, vm};

/// The developer's front door of MultiWANBond.
#[derive(Debug, Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask", version)]
pub struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Detect the toolchain and tools, and install what is missing.
    Setup(setup::Args),
    /// Build the agent, the operator's command and the kernel side.
    Build(build::Args),
    /// Run a bond, or a gateway, with real traffic over three WANs in the lab, and show what it does.
    Run(run::Args),
    /// Load every program and compare what the verifier walked through with the budget.
    Verify(verify::Args),
    /// Measure the gateway against its peers.
    Bench(bench::Args),
    /// Spoil packets until a contract breaks: the parser, and the programs in the kernel.
    Fuzz(fuzz::Args),
    /// Prove everything; the last line counts what passed, failed and was skipped.
    Test(test::Args),
    /// Run things on the kernels that we promise, in VMs without a trace on this machine.
    #[command(subcommand)]
    Vm(vm::Command),
    /// What the repository's CI runs: all of `test`.
    Ci,
}

/// Runs what the command line asks for.
///
/// # Errors
/// Whatever keeps the command from doing its work.
pub fn dispatch(cli: Cli) -> Result<ExitCode> {
    let done = match cli.command {
        Command::Setup(args) => setup::command(&args),
        Command::Build(args) => build::command(&args),
        Command::Run(args) => run::command(&args),
        Command::Verify(args) => verify::command(&args),
        Command::Bench(args) => bench::command(&args),
        Command::Fuzz(args) => fuzz::command(&args),
        Command::Test(args) => test::command(&args),
        Command::Vm(command) => vm::command(&command),
        Command::Ci => test::command(&test::Args::default()),
    };
    lab::tidy();
    done
}
