//! `mwb`, the operator's command: asks the agent and shows what it says, and
//! checks configuration files without it. Must not know: maps, netlink.

mod check;
mod show;
mod table;
mod units;

use std::io::{self, IsTerminal, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::{Context as _, Result};
use clap::{Args, Parser, Subcommand};
use mwb_agent::api::client::{self, ClientError};
use mwb_agent::api::snapshot::{CounterRow, Status, WanStatus};
use mwb_agent::events::Event;
use serde::de::DeserializeOwned;

/// How many events `mwb status` shows.
const LATEST_EVENTS: usize = 5;
/// Seconds that one request of `mwb events --follow` waits.
const FOLLOW_WAIT: u64 = 30;

const EXIT_CODES: &str = "\
Exit codes:
  0  it worked
  1  the agent refused, or the answer could not be shown
  2  wrong usage, or a wrong configuration file
  3  no agent answers on the socket";

/// Shows what the MultiWANBond agent does, and why.
#[derive(Parser)]
#[command(name = "mwb", version, after_help = EXIT_CODES)]
struct Cli {
    /// The agent's unix socket (api.socket in its configuration)
    #[arg(long, global = true, value_name = "PATH", default_value = "/run/mwb/mwb.sock")]
    socket: PathBuf,
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Everything on one screen
    Status(Format),
    /// The WAN links
    Wans(Format),
    /// Packets by what became of them and why
    Counters(Format),
    /// What happened
    Events {
        /// Only events after this id
        #[arg(long, value_name = "ID", default_value_t = 0)]
        since: u64,
        /// Go on with new events until interrupted
        #[arg(long)]
        follow: bool,
        #[command(flatten)]
        format: Format,
    },
    /// Check a configuration file, without an agent
    Check {
        /// The file
        file: PathBuf,
    },
}

#[derive(Args)]
struct Format {
    /// Print the agent's JSON as it is
    #[arg(long)]
    json: bool,
}

/// Exit codes beside clap's own.
mod exit {
    pub(super) const FAILED: u8 = 1;
    pub(super) const WRONG_CONFIG: u8 = 2;
    pub(super) const NO_AGENT: u8 = 3;
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    let cli = Cli::parse();
    let done = match &cli.command {
        Command::Check { file } => return check_file(file),
        command => ask(&cli.socket, command).await,
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) if is_closed_pipe(&error) => ExitCode::SUCCESS,
        Err(error) => {
            let (code, text) = explain(&cli.socket, &error);
            eprintln!("mwb: {text}");
            ExitCode::from(code)
        }
    }
}

fn check_file(file: &Path) -> ExitCode {
    match mwb_agent::config::load(file) {
        Ok(config) => match print(&check::summary(file, &config)) {
            Ok(()) => ExitCode::SUCCESS,
            Err(_) => ExitCode::from(exit::FAILED),
        },
        Err(error) => {
            eprintln!("{}", error.render());
            ExitCode::from(exit::WRONG_CONFIG)
        }
    }
}

async fn ask(socket: &Path, command: &Command) -> Result<()> {
    let style = show::Style { colour: wants_colour(), now_ms: now_ms() };
    match command {
        Command::Status(Format { json: true }) => print_json(socket, "/v1/status").await,
        Command::Wans(Format { json: true }) => print_json(socket, "/v1/wans").await,
        Command::Counters(Format { json: true }) => print_json(socket, "/v1/counters").await,
        Command::Status(_) => {
            let status: Status = fetch(socket, "/v1/status").await?;
            let events: Vec<Event> = fetch(socket, "/v1/events").await?;
            let latest = &events[events.len().saturating_sub(LATEST_EVENTS)..];
            // The rest of the screen is worth showing without them.
            let counters: Result<Vec<CounterRow>> = fetch(socket, "/v1/counters").await;
            let why = counters.as_ref().err().map(ToString::to_string).unwrap_or_default();
            let counters = counters.as_deref().map_err(|_| why.as_str());
            print(&show::status(&status, counters, latest, &style))
        }
        Command::Wans(_) => {
            let wans: Vec<WanStatus> = fetch(socket, "/v1/wans").await?;
            print(&show::wans(&wans, &style))
        }
        Command::Counters(_) => {
            let rows: Vec<CounterRow> = fetch(socket, "/v1/counters").await?;
            print(&show::counters(&rows))
        }
        Command::Events { since, follow: false, format: Format { json: true } } => {
            print_json(socket, &format!("/v1/events?since={since}")).await
        }
        Command::Events { since, follow: false, .. } => {
            let events: Vec<Event> = fetch(socket, &format!("/v1/events?since={since}")).await?;
            print(&show::events(&events, &style))
        }
        Command::Events { since, follow: true, format } => {
            follow(socket, *since, format.json).await
        }
        // Done before an agent was looked for.
        Command::Check { .. } => Ok(()),
    }
}

/// Prints events as they come; JSON is one array a batch.
async fn follow(socket: &Path, mut since: u64, json: bool) -> Result<()> {
    loop {
        let path = format!("/v1/events?since={since}&wait={FOLLOW_WAIT}");
        let body = client::get(socket, &path).await?;
        let events: Vec<Event> = read(&body)?;
        let Some(last) = events.last() else { continue };
        since = last.id;
        let text = if json { body + "\n" } else { events.iter().map(show::event_line).collect() };
        print(&text)?;
    }
}

async fn fetch<T: DeserializeOwned>(socket: &Path, path: &str) -> Result<T> {
    read(&client::get(socket, path).await?)
}

fn read<T: DeserializeOwned>(body: &str) -> Result<T> {
    serde_json::from_str(body).context("the agent's answer is of another version than this mwb")
}

async fn print_json(socket: &Path, path: &str) -> Result<()> {
    let body = client::get(socket, path).await?;
    print(&(body + "\n"))
}

fn print(text: &str) -> Result<()> {
    let mut out = io::stdout().lock();
    out.write_all(text.as_bytes())?;
    Ok(out.flush()?)
}

/// What to tell about an error, and the exit code.
fn explain(socket: &Path, error: &anyhow::Error) -> (u8, String) {
    let path = socket.display();
    match error.downcast_ref::<ClientError>() {
        Some(ClientError::NotRunning(cause)) => (
            exit::NO_AGENT,
            format!(
                "no agent answers on {path} ({cause})\n\
                 start one with `systemctl start mwb-agent` or `mwb-agent --config FILE`; \
                 if it has another api.socket, give it with --socket"
            ),
        ),
        Some(ClientError::Forbidden) => (
            exit::NO_AGENT,
            format!("no permission to talk to the agent on {path}; run as root or as its group"),
        ),
        _ => (exit::FAILED, format!("{error:#}")),
    }
}

/// `mwb counters | head` is no error.
fn is_closed_pipe(error: &anyhow::Error) -> bool {
    error.downcast_ref::<io::Error>().is_some_and(|e| e.kind() == io::ErrorKind::BrokenPipe)
}

/// Only for people, and only if they did not forbid it (no-color.org).
fn wants_colour() -> bool {
    io::stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty())
}

fn now_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}
