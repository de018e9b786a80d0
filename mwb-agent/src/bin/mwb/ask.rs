//! Commands that ask or tell the agent something.

use std::io::{self, Write};
use std::path::Path;
use std::process::ExitCode;

use anyhow::{Context as _, Result};
use mwb_agent::api::bond::BondStatus;
use mwb_agent::api::change::Done;
use mwb_agent::api::client;
use mwb_agent::api::doctor::{Report, Severity};
use mwb_agent::api::explain::{Explanation, WhyQuery};
use mwb_agent::api::flows::FlowList;
use mwb_agent::api::past::{History, HistoryQuery};
use mwb_agent::api::policy::{AddressQuery, AddressStatus, PolicyStatus};
use mwb_agent::api::snapshot::{CounterRow, Status, WanStatus};
use mwb_agent::dataplane::measure_runs;
use mwb_agent::events::Event;
use mwb_agent::notify::{Status as Notified, Tested};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use crate::cli::{Command, Entry, Format};
use crate::{bond, diagnosis, exit, flows, policy, show, told};

/// How many events `mwb status` shows.
const LATEST_EVENTS: usize = 5;
/// Seconds that one request of `mwb events --follow` waits.
const FOLLOW_WAIT: u64 = 30;

/// Does what a command says.
pub(crate) async fn run(socket: &Path, command: &Command, style: &show::Style) -> Result<ExitCode> {
    match command {
        Command::Status(format) => status(socket, format, style).await,
        Command::Wans(format) => {
            let wans = |wans: &Vec<WanStatus>| show::wans(wans, style);
            read(socket, "/v1/wans", format, wans).await
        }
        Command::Bond(format) => {
            let shown = |bond: &Option<BondStatus>| bond::show(bond.as_ref(), style);
            read(socket, "/v1/bond", format, shown).await
        }
        Command::Policy { addresses: Some(rule), format } => {
            let path = with_query("/v1/policy/addresses", &AddressQuery { rule: rule.clone() })?;
            let shown = |list: &Vec<AddressStatus>| policy::addresses(list);
            read(socket, &path, format, shown).await
        }
        Command::Policy { addresses: None, format } => {
            let shown = |status: &PolicyStatus| policy::table(status, style);
            read(socket, "/v1/policy", format, shown).await
        }
        Command::Counters(format) => {
            let counters = |rows: &Vec<CounterRow>| show::counters(rows);
            read(socket, "/v1/counters", format, counters).await
        }
        Command::Flows { filter, format } => {
            let path = with_query("/v1/flows", &filter.query())?;
            read(socket, &path, format, |list: &FlowList| flows::table(list, style)).await
        }
        Command::Why { packet, entry, format } => {
            let Entry { lan, mac, dscp, mark } = entry;
            let query = WhyQuery {
                packet: packet.join(" "),
                lan: lan.clone(),
                mac: mac.clone(),
                dscp: dscp.clone(),
                mark: mark.clone(),
            };
            let path = with_query("/v1/why", &query)?;
            read(socket, &path, format, |answer: &Explanation| flows::why(answer, style)).await
        }
        Command::Doctor { seconds, all, format } => {
            doctor(socket, *seconds, *all, format, style).await
        }
        Command::Events { since, follow: false, format } => {
            let events = |events: &Vec<Event>| show::events(events, style);
            read(socket, &format!("/v1/events?since={since}"), format, events).await
        }
        Command::Events { since, follow: true, format } => {
            follow(socket, *since, format.json).await
        }
        Command::History { wan, since, method, ascii, format } => {
            let query = HistoryQuery {
                wan: wan.clone(),
                method: method.clone(),
                seconds: Some(since.0),
                ascii: *ascii,
            };
            let path = with_query("/v1/history", &query)?;
            read(socket, &path, format, |history: &History| history.chart.clone()).await
        }
        Command::Notify { test: None, format } => {
            read(socket, "/v1/notify", format, |status: &Notified| told::table(status, style)).await
        }
        Command::Notify { test: Some(receiver), format } => {
            let body = json!({ "receiver": receiver });
            let answer = client::post(socket, "/v1/notify/test", &body).await?;
            let tested: Tested = parse(&answer)?;
            let text = match format.json {
                true => answer + "\n",
                false => {
                    format!("{receiver} took it in {} ms: {}\n", tested.took_ms, tested.result)
                }
            };
            print(&text)
        }
        Command::Reload(format) => change(socket, "/v1/reload", Value::Null, format).await,
        Command::Confirm(format) => change(socket, "/v1/confirm", Value::Null, format).await,
        Command::Apply { file, confirm, format } => {
            let text = std::fs::read_to_string(file)
                .with_context(|| format!("{}: cannot be read", file.display()))?;
            let seconds = confirm.map(|time| time.0);
            let body = json!({ "config": text, "confirm_seconds": seconds });
            change(socket, "/v1/apply", body, format).await
        }
        Command::Failover { wan: Some(wan), lasting, dry_run, format, .. } => {
            let seconds = lasting.map(|time| time.0);
            let body = json!({ "wan": wan, "seconds": seconds, "dry_run": dry_run });
            change(socket, "/v1/failover", body, format).await
        }
        Command::Failover { wan: None, dry_run, format, .. } => {
            let body = json!({ "auto": true, "dry_run": dry_run });
            change(socket, "/v1/failover", body, format).await
        }
        // Done before an agent was looked for.
        Command::Check { .. } | Command::Keygen | Command::Pubkey => Ok(ExitCode::SUCCESS),
    }
}

async fn status(socket: &Path, format: &Format, style: &show::Style) -> Result<ExitCode> {
    if format.json {
        return print_json(socket, "/v1/status").await;
    }
    let status: Status = fetch(socket, "/v1/status").await?;
    let events: Vec<Event> = fetch(socket, "/v1/events").await?;
    let latest = &events[events.len().saturating_sub(LATEST_EVENTS)..];
    // The rest of the screen is worth showing without them.
    let counters: Result<Vec<CounterRow>> = fetch(socket, "/v1/counters").await;
    let why = counters.as_ref().err().map(ToString::to_string).unwrap_or_default();
    let counters = counters.as_deref().map_err(|_| why.as_str());
    print(&show::status(&status, counters, latest, style))
}

async fn doctor(
    socket: &Path,
    seconds: u64,
    all: bool,
    format: &Format,
    style: &show::Style,
) -> Result<ExitCode> {
    // The agent has given up the right to have programs measured; root has it,
    // and without it the report says so.
    let measuring = measure_runs().ok();
    let body = client::get(socket, &format!("/v1/doctor?seconds={seconds}")).await?;
    drop(measuring);
    let report: Report = parse(&body)?;
    let text = if format.json { body + "\n" } else { diagnosis::report(&report, all, style) };
    print(&text)?;
    let bad = report.worst() == Severity::Bad;
    Ok(ExitCode::from(if bad { exit::FAILED } else { 0 }))
}

/// Prints events as they come; JSON is one array a batch.
async fn follow(socket: &Path, mut since: u64, json: bool) -> Result<ExitCode> {
    loop {
        let path = format!("/v1/events?since={since}&wait={FOLLOW_WAIT}");
        let body = client::get(socket, &path).await?;
        let events: Vec<Event> = parse(&body)?;
        let Some(last) = events.last() else { continue };
        since = last.id;
        let text = if json { body + "\n" } else { events.iter().map(show::event_line).collect() };
        print(&text)?;
    }
}

async fn change(socket: &Path, path: &str, body: Value, format: &Format) -> Result<ExitCode> {
    let answer = client::post(socket, path, &body).await?;
    if format.json {
        return print(&(answer + "\n"));
    }
    let done: Done = parse(&answer)?;
    let mut text = done.message + "\n";
    for change in done.changes {
        text.push_str(&format!("  {change}\n"));
    }
    print(&text)
}

async fn read<T: DeserializeOwned>(
    socket: &Path,
    path: &str,
    format: &Format,
    shown: impl FnOnce(&T) -> String,
) -> Result<ExitCode> {
    if format.json {
        return print_json(socket, path).await;
    }
    let answer: T = fetch(socket, path).await?;
    print(&shown(&answer))
}

async fn fetch<T: DeserializeOwned>(socket: &Path, path: &str) -> Result<T> {
    parse(&client::get(socket, path).await?)
}

fn parse<T: DeserializeOwned>(body: &str) -> Result<T> {
    serde_json::from_str(body).context("the agent's answer is of another version than this mwb")
}

fn with_query(path: &str, query: &impl Serialize) -> Result<String> {
    Ok(format!("{path}?{}", serde_urlencoded::to_string(query)?))
}

async fn print_json(socket: &Path, path: &str) -> Result<ExitCode> {
    print(&(client::get(socket, path).await? + "\n"))
}

fn print(text: &str) -> Result<ExitCode> {
    let mut out = io::stdout().lock();
    out.write_all(text.as_bytes())?;
    out.flush()?;
    Ok(ExitCode::SUCCESS)
}
