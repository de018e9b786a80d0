//! `mwb`, the operator's command: asks the agent and shows what it says, tells
//! it what to change, and without it checks configuration files and makes keys.
//! Must not know: maps, netlink.

mod ask;
mod bond;
mod bond_care;
mod check;
mod cli;
mod diagnosis;
mod flows;
mod keys;
mod policy;
mod show;
mod table;
mod told;
mod units;

use std::io::{self, IsTerminal, Write};
use std::path::Path;
use std::process::ExitCode;
use std::time::{SystemTime, UNIX_EPOCH};

use clap::Parser;
use hyper::StatusCode;
use mwb_agent::api::client::ClientError;

use cli::{Cli, Command};

/// Exit codes beside clap's own.
mod exit {
    pub(crate) const FAILED: u8 = 1;
    pub(crate) const WRONG: u8 = 2;
    pub(crate) const NO_AGENT: u8 = 3;
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    let cli = Cli::parse();
    match &cli.command {
        Command::Check { file } => return check_file(file),
        Command::Keygen => return keys::generate(),
        Command::Pubkey => return keys::derive(),
        _ => {}
    }
    let style = show::Style { colour: wants_colour(), now_ms: now_ms() };
    match ask::run(&cli.socket, &cli.command, &style).await {
        Ok(code) => code,
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
        Ok(config) => {
            let key = match check::key(&config) {
                Ok(key) => key,
                Err(error) => {
                    eprintln!("{error}");
                    return ExitCode::from(exit::WRONG);
                }
            };
            let text = check::summary(file, &config) + &key;
            match io::stdout().lock().write_all(text.as_bytes()) {
                Ok(()) => ExitCode::SUCCESS,
                Err(_) => ExitCode::from(exit::FAILED),
            }
        }
        Err(error) => {
            eprintln!("{}", error.render());
            ExitCode::from(exit::WRONG)
        }
    }
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
            format!(
                "no permission to talk to the agent on {path}; run as root or as a member of \
                 api.group"
            ),
        ),
        // What was asked for is wrong; the agent says what and where.
        Some(ClientError::Refused { status, message })
            if [StatusCode::BAD_REQUEST, StatusCode::UNPROCESSABLE_ENTITY].contains(status) =>
        {
            (exit::WRONG, message.clone())
        }
        Some(ClientError::Refused { status: StatusCode::CONFLICT, message }) => {
            (exit::FAILED, message.clone())
        }
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
