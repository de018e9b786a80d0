//! The developer's front door: `cargo xtask --help`.

use std::process::ExitCode;

use anyhow::Result;
use clap::Parser as _;
use xtask::cli;

fn main() -> Result<ExitCode> {
    let helper = xtask::lab::helper(std::env::args_os());
    if let Some(code) = helper.or_else(|| xtask::e2e::helper(std::env::args_os())) {
        return Ok(code);
    }
    cli::dispatch(cli::Cli::parse())
}
