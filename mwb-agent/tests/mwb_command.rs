//! The operator's command as a process: what it prints, and its exit codes.

use std::fs;
use std::path::Path;
use std::process::{Command, Output};
use std::sync::Arc;

use mwb_agent::api::snapshot::{CounterRow, FailoverStatus, NatStatus, Status};
use mwb_agent::api::{Changes, Listeners, Source, Unavailable, change, client, serve};
use mwb_agent::events::{Bus, EventKind};

const RIGHT: &str = "version: 1\nmode: steer\nlan: [lan0]\nwans: [{name: a, device: wan0}]\n";

fn mwb(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_mwb")).args(arguments).output().expect("mwb runs")
}

fn out(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}

fn err(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

fn text(path: &Path) -> &str {
    path.to_str().expect("the path is text")
}

/// An agent without WANs; the command does not care.
struct Small(Bus, Changes);

impl Source for Small {
    async fn status(&self) -> Result<Status, Unavailable> {
        Ok(Status {
            version: "9.9.9".to_owned(),
            instance: "test".to_owned(),
            mode: "steer".to_owned(),
            balance: "failover".to_owned(),
            uptime_seconds: 61.0,
            lan: Vec::new(),
            wans: Vec::new(),
            nat: NatStatus::default(),
            failover: FailoverStatus::default(),
        })
    }

    async fn counters(&self) -> Result<Vec<CounterRow>, Unavailable> {
        Err(Unavailable("the maps are gone".to_owned()))
    }

    fn events(&self) -> &Bus {
        &self.0
    }

    fn changes(&self) -> &Changes {
        &self.1
    }
}

#[test]
fn check_accepts_a_right_file_with_a_summary() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("gateway.yaml");
    fs::write(&file, RIGHT).expect("written");
    let output = mwb(&["check", text(&file)]);
    assert_eq!(output.status.code(), Some(0), "{}", err(&output));
    assert!(out(&output).starts_with(&format!("{}: ok\n", file.display())), "{}", out(&output));
    assert!(out(&output).contains("steer by adaptive"), "{}", out(&output));
}

#[test]
fn check_refuses_a_wrong_file_at_the_place() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("gateway.yaml");
    fs::write(&file, format!("{RIGHT}balance: adaptve\n")).expect("written");
    let output = mwb(&["check", text(&file)]);
    assert_eq!(output.status.code(), Some(2));
    let expected = format!(
        "{}:5:10: balance: unknown value `adaptve`\n\
         5 | balance: adaptve\n  \
         |          ^\n\
         fix: did you mean `adaptive`?\n",
        file.display()
    );
    assert_eq!(err(&output), expected);
    assert_eq!(out(&output), "");
}

#[test]
fn check_says_that_a_file_is_not_there() {
    let output = mwb(&["check", "/nonexistent/gateway.yaml"]);
    assert_eq!(output.status.code(), Some(2));
    assert!(err(&output).contains("/nonexistent/gateway.yaml: cannot be read"), "{}", err(&output));
}

#[test]
fn without_an_agent_it_says_where_it_looked_and_how_to_start_one() {
    for command in ["status", "wans", "counters", "events"] {
        let output = mwb(&["--socket", "/nonexistent/mwb.sock", command]);
        assert_eq!(output.status.code(), Some(3), "{command}");
        assert!(err(&output).contains("/nonexistent/mwb.sock"), "{}", err(&output));
        assert!(err(&output).contains("mwb-agent --config FILE"), "{}", err(&output));
        assert_eq!(out(&output), "", "{command}");
    }
}

#[test]
fn a_wrong_usage_is_exit_code_2_and_help_lists_the_codes() {
    assert_eq!(mwb(&["statsu"]).status.code(), Some(2));
    let help = mwb(&["--help"]);
    assert_eq!(help.status.code(), Some(0));
    assert!(out(&help).contains("3  no agent answers on the socket"), "{}", out(&help));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn with_an_agent_json_is_the_apis_own_and_a_refusal_is_exit_code_1() {
    let folder = tempfile::tempdir().expect("a folder");
    let socket = folder.path().join("mwb.sock");
    let bus = Bus::default();
    bus.publish(EventKind::AgentStarted, None, "the agent runs", "");
    let listeners = Listeners::bind(None, &socket).expect("bound");
    let (changes, _arriving) = change::channel();
    let server = tokio::spawn(serve(listeners, Arc::new(Small(bus, changes)), None));
    for command in ["events", "wans"] {
        let output = mwb(&["--socket", text(&socket), command, "--json"]);
        assert_eq!(output.status.code(), Some(0), "{command}: {}", err(&output));
        let body = client::get(&socket, &format!("/v1/{command}")).await.expect("an answer");
        assert_eq!(out(&output), format!("{body}\n"), "{command}");
        let shown = mwb(&[command, "--socket", text(&socket)]);
        assert_eq!(shown.status.code(), Some(0), "{command}: {}", err(&shown));
        assert!(!out(&shown).contains('\u{1b}'), "no colours in a pipe: {}", out(&shown));
    }
    let output = mwb(&["--socket", text(&socket), "status"]);
    assert!(
        out(&output).starts_with("mwb 9.9.9, instance test: steer by failover, agent up 1m 1s\n"),
        "{}",
        out(&output)
    );
    assert!(out(&output).contains("agent_started"), "{}", out(&output));
    let output = mwb(&["--socket", text(&socket), "counters"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(err(&output).contains("the maps are gone"), "{}", err(&output));
    server.abort();
}
