//! The daemon.

use std::io::IsTerminal as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context as _, Result};
use clap::Parser;
use mwb_agent::config::{self, Config, Mode, Role};
use mwb_agent::daemon;
use mwb_agent::dataplane::{DataPlane, Options, Programs};
use mwb_agent::net::{Bonded, Requests, Tables};
use mwb_agent::rights;
use tracing_subscriber::EnvFilter;

/// Several Internet links as one: the gateway's agent.
#[derive(Parser)]
#[command(version, about)]
struct Arguments {
    /// The configuration.
    #[arg(long, value_name = "FILE", required_unless_present = "detach")]
    config: Option<PathBuf>,
    /// Keeps several agents on one machine apart.
    #[arg(long, value_name = "NAME", default_value = "default")]
    instance: String,
    /// Only check the configuration.
    #[arg(long, conflicts_with = "detach")]
    check: bool,
    /// Take the data plane away: devices are detached, flows forgotten.
    #[arg(long, conflicts_with = "config")]
    detach: bool,
}

/// Exit code for a configuration that is wrong.
const BAD_CONFIG: u8 = 2;

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("info"));
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_ansi(std::io::stderr().is_terminal())
        .with_writer(std::io::stderr)
        .init();
    let Some(file) = &arguments.config else {
        return end(detach(&arguments.instance));
    };
    let config = match config::load(file) {
        Ok(config) => config,
        Err(error) => {
            eprintln!("{}", error.render());
            return ExitCode::from(BAD_CONFIG);
        }
    };
    if arguments.check {
        println!("{}: ok", file.display());
        return ExitCode::SUCCESS;
    }
    end(run(config, file, &arguments.instance))
}

fn end(result: Result<()>) -> ExitCode {
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("mwb-agent: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(config: Config, file: &Path, instance: &str) -> Result<()> {
    // A flow takes two entries.
    let options = Options {
        flow_entries: config.nat.flows.saturating_mul(2),
        mapping_entries: config.nat.flows,
        session_slots: config.session_slots(),
        programs: match (config.role, config.mode) {
            (Role::Server, _) => Programs::Server,
            (Role::Gateway, Mode::Bond) => Programs::Bond,
            (Role::Gateway, Mode::Steer) => Programs::Steering,
        },
        ..Options::new(instance)
    };
    let prepared = daemon::prepare(&config, &options)?;
    // Before the runtime: its threads must have what is left, and no more.
    rights::give_up()?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .context("starting the runtime")?;
    let result = runtime.block_on(daemon::run(config, file, &options, prepared));
    // A sweep that runs may take a while; nothing of it is lost.
    runtime.shutdown_timeout(std::time::Duration::from_secs(1));
    Ok(result?)
}

fn detach(instance: &str) -> Result<()> {
    let devices = DataPlane::remove(&Options::new(instance))?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("starting the runtime")?;
    let (removed, routes) = runtime.block_on(async {
        let requests = Requests::open()?;
        let removed = Bonded::remove(&requests, instance).await?;
        Ok::<_, mwb_agent::net::Error>((removed, Tables::remove(&requests).await?))
    })?;
    if !routes.is_none() {
        println!("instance {instance}: removed the routing tables of the WANs");
    }
    if !removed.is_empty() {
        println!("instance {instance}: removed {}", removed.join(", "));
    }
    if devices.is_empty() {
        println!("instance {instance}: nothing was attached");
    } else {
        println!("instance {instance}: detached {}", devices.join(", "));
    }
    Ok(())
}
