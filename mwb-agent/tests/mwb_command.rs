//! The operator's command as a process: what it prints, and its exit codes.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::Arc;
use std::time::Duration;

use mwb_agent::api::change::{self, Change, Done, Refusal, Request};
use mwb_agent::api::doctor::{Area, Finding, Report, Severity};
use mwb_agent::api::explain::{Explanation, Outcome};
use mwb_agent::api::flows::{FlowList, FlowQuery};
use mwb_agent::api::past::{History, HistoryQuery};
use mwb_agent::api::policy::{AddressStatus, PolicyStatus, RuleStatus};
use mwb_agent::api::snapshot::{CounterRow, FailoverStatus, NatStatus, Status};
use mwb_agent::api::{Changes, Listeners, Source, Unavailable, client, serve};
use mwb_agent::events::{Bus, EventKind};
use mwb_agent::explain::{Entry, Packet};
use mwb_agent::notify;
use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

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
struct Small {
    bus: Bus,
    changes: Changes,
    /// What the doctor finds.
    severity: Severity,
}

impl Source for Small {
    async fn status(&self) -> Result<Status, Unavailable> {
        Ok(Status {
            version: "9.9.9".to_owned(),
            instance: "test".to_owned(),
            role: "gateway".to_owned(),
            mode: "steer".to_owned(),
            balance: "failover".to_owned(),
            uptime_seconds: 61.0,
            lan: Vec::new(),
            wans: Vec::new(),
            nat: NatStatus::default(),
            failover: FailoverStatus::default(),
            redirect_losses: BTreeMap::new(),
            bond: None,
            notify: notify::Status::default(),
        })
    }

    async fn history(&self, query: HistoryQuery) -> Result<History, Unavailable> {
        let chart = format!("{} for {} s\n", query.wan, query.seconds.unwrap_or_default());
        Ok(History { chart, ..History::default() })
    }

    async fn notified(&self) -> Result<notify::Status, Unavailable> {
        let ops = notify::ReceiverStatus { name: "ops".to_owned(), ..Default::default() };
        Ok(notify::Status { receivers: vec![ops], ..notify::Status::default() })
    }

    async fn test_receiver(&self, name: &str) -> Result<notify::Tested, String> {
        Err(format!("there is no receiver `{name}`"))
    }

    async fn counters(&self) -> Result<Vec<CounterRow>, Unavailable> {
        Err(Unavailable("the maps are gone".to_owned()))
    }

    async fn policy(&self) -> Result<PolicyStatus, Unavailable> {
        let rule = RuleStatus {
            name: "voip".to_owned(),
            action: "use: block".to_owned(),
            active: true,
            hits: 7,
            ..RuleStatus::default()
        };
        Ok(PolicyStatus { rules: vec![rule], domains: None })
    }

    async fn addresses(&self, _rule: &str) -> Result<Vec<AddressStatus>, Unavailable> {
        Err(Unavailable("the maps are gone".to_owned()))
    }

    async fn flows(&self, query: FlowQuery) -> Result<FlowList, Unavailable> {
        Ok(FlowList {
            open: 9,
            matching: query.top.unwrap_or(0) as u64,
            flows: Vec::new(),
            elephant_bps: None,
        })
    }

    async fn why(&self, packet: Packet, _: Entry) -> Result<Explanation, Unavailable> {
        let outcome = Outcome {
            said: "it is left to the kernel".to_owned(),
            verdict: "kernel".to_owned(),
            reason: "bypass".to_owned(),
            wan: None,
            certain: true,
            possible: Vec::new(),
        };
        Ok(Explanation {
            packet: packet.to_string(),
            flow: None,
            outcome,
            steps: Vec::new(),
            would_change: Vec::new(),
        })
    }

    async fn doctor(&self, watch: Duration) -> Result<Report, Unavailable> {
        let finding = Finding {
            area: Area::Sysctl,
            subject: "net.ipv4.ip_forward".to_owned(),
            severity: self.severity,
            fact: "0".to_owned(),
            fix: Some("sysctl net.ipv4.ip_forward=1".to_owned()),
        };
        let (seconds, programs) = (watch.as_secs_f64(), Vec::new());
        Ok(Report { seconds, bottleneck: None, findings: vec![finding], programs })
    }

    fn events(&self) -> &Bus {
        &self.bus
    }

    fn changes(&self) -> &Changes {
        &self.changes
    }
}

/// A served [`Small`].
struct Served {
    socket: PathBuf,
    bus: Bus,
    arriving: mpsc::Receiver<Request>,
    task: JoinHandle<std::io::Result<()>>,
    _folder: TempDir,
}

impl Drop for Served {
    fn drop(&mut self) {
        self.task.abort();
    }
}

fn served(severity: Severity) -> Served {
    let folder = tempfile::tempdir().expect("a folder");
    let socket = folder.path().join("mwb.sock");
    let listeners = Listeners::bind(None, &socket, None).expect("bound");
    let (bus, (changes, arriving)) = (Bus::default(), change::channel());
    let source = Arc::new(Small { bus: bus.clone(), changes, severity });
    let task = tokio::spawn(serve(listeners, source, None));
    Served { socket, bus, arriving, task, _folder: folder }
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
    let commands =
        ["status", "wans", "policy", "counters", "events", "flows", "doctor", "reload", "confirm"];
    for command in commands {
        let output = mwb(&["--socket", "/nonexistent/mwb.sock", command]);
        assert_eq!(output.status.code(), Some(3), "{command}");
        assert!(err(&output).contains("/nonexistent/mwb.sock"), "{}", err(&output));
        assert!(err(&output).contains("mwb-agent --config FILE"), "{}", err(&output));
        assert_eq!(out(&output), "", "{command}");
    }
}

/// `mwb pubkey` with this on its standard input.
fn pubkey(input: &str) -> Output {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("key");
    fs::write(&file, input).expect("written");
    let input = fs::File::open(&file).expect("there");
    let mut command = Command::new(env!("CARGO_BIN_EXE_mwb"));
    command.arg("pubkey").stdin(input).output().expect("mwb runs")
}

#[test]
fn keygen_prints_a_new_key_and_pubkey_the_one_that_wg_prints_for_it() {
    let keys = [(); 2].map(|()| mwb(&["keygen"]));
    for key in &keys {
        assert_eq!((key.status.code(), out(key).len()), (Some(0), 45), "{}", err(key));
        let public = pubkey(&out(key));
        assert_eq!((public.status.code(), out(&public).len()), (Some(0), 45), "{}", err(&public));
        assert_eq!(err(key), "", "a pipe is nobody else's");
    }
    assert_ne!(out(&keys[0]), out(&keys[1]));
    // RFC 7748, 6.1; `wg pubkey` says the same.
    let public = pubkey("dwdtCnMYpX08FsFyUbJmRd9ML4frwJkqsXf7pR25LCo=\n");
    assert_eq!(out(&public), "hSDwCYkwp1R0i33ctD73Wg2/Og0mOBr066SpjqqbTmo=\n");
    for (input, why) in [("", "this has 0"), ("key", "this has 3"), (&"?".repeat(44), "base64")] {
        let refused = pubkey(input);
        assert_eq!((refused.status.code(), out(&refused)), (Some(2), String::new()), "{input}");
        assert!(err(&refused).contains(why), "{}", err(&refused));
    }
}

#[test]
fn keygen_warns_of_a_file_that_others_can_read() {
    let file = tempfile::NamedTempFile::new().expect("a file");
    for (mode, warns) in [(0o600, false), (0o644, true)] {
        file.as_file().set_permissions(fs::Permissions::from_mode(mode)).expect("a mode");
        let output = file.reopen().expect("there");
        let mut command = Command::new(env!("CARGO_BIN_EXE_mwb"));
        let done = command.arg("keygen").stdout(output).output().expect("mwb runs");
        assert_eq!(done.status.code(), Some(0));
        assert_eq!(err(&done).contains("chmod 600"), warns, "{mode:o}: {}", err(&done));
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
    let server = served(Severity::Ok);
    let socket = &server.socket;
    server.bus.publish(EventKind::AgentStarted, None, "the agent runs", "");
    for command in ["events", "wans", "flows", "doctor"] {
        let output = mwb(&["--socket", text(socket), command, "--json"]);
        assert_eq!(output.status.code(), Some(0), "{command}: {}", err(&output));
        let query = if command == "flows" { "?top=100" } else { "" };
        let body = client::get(socket, &format!("/v1/{command}{query}")).await.expect("an answer");
        assert_eq!(out(&output), format!("{body}\n"), "{command}");
        let shown = mwb(&[command, "--socket", text(socket)]);
        assert_eq!(shown.status.code(), Some(0), "{command}: {}", err(&shown));
        assert!(!out(&shown).contains('\u{1b}'), "no colours in a pipe: {}", out(&shown));
    }
    let output = mwb(&["--socket", text(socket), "status"]);
    assert!(
        out(&output).starts_with("mwb 9.9.9, instance test: steer by failover, agent up 1m 1s\n"),
        "{}",
        out(&output)
    );
    assert!(out(&output).contains("agent_started"), "{}", out(&output));
    let output = mwb(&["--socket", text(socket), "counters"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(err(&output).contains("the maps are gone"), "{}", err(&output));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_packet_may_be_one_word_or_several() {
    let server = served(Severity::Ok);
    for packet in [
        &["tcp 192.0.2.10:1 203.0.113.5:2"][..],
        &["tcp", "192.0.2.10:1", "203.0.113.5:2"],
        &["TCP", "192.0.2.10:1", "198.51.100.2:1", "203.0.113.5:2"],
    ] {
        let output = mwb(&[&["--socket", text(&server.socket), "why"], packet].concat());
        let expected = "tcp 192.0.2.10:1 203.0.113.5:2: it is left to the kernel\n";
        assert_eq!(out(&output), expected, "{}", err(&output));
    }
    let output = mwb(&["--socket", text(&server.socket), "why", "tcp", "here", "there"]);
    assert_eq!(output.status.code(), Some(2));
    assert!(err(&output).contains("`here` is no address"), "{}", err(&output));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_doctor_ends_with_1_only_if_something_is_bad() {
    for (severity, code) in [(Severity::Ok, 0), (Severity::Warn, 0), (Severity::Bad, 1)] {
        let server = served(severity);
        for format in [&[][..], &["--json"]] {
            let command = [&["--socket", text(&server.socket), "doctor"], format].concat();
            let output = mwb(&command);
            assert_eq!(output.status.code(), Some(code), "{severity:?}: {}", err(&output));
            let fix = out(&output).contains("sysctl net.ipv4.ip_forward=1");
            assert_eq!(fix, severity != Severity::Ok || !format.is_empty(), "{}", out(&output));
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn changes_reach_the_agent_and_its_answer_the_operator() {
    let mut server = served(Severity::Ok);
    let file = server.socket.with_file_name("gateway.yaml");
    fs::write(&file, RIGHT).expect("written");
    let minute = Duration::from_secs(60);
    let fiber = || "fiber".to_owned();
    for (command, expected) in [
        (&["reload"][..], Change::Reload),
        (&["apply", text(&file)], Change::Apply { text: RIGHT.to_owned(), confirm: None }),
        (
            &["apply", text(&file), "--confirm", "1m"],
            Change::Apply { text: RIGHT.to_owned(), confirm: Some(minute) },
        ),
        (&["confirm"], Change::Confirm),
        (&["failover", "fiber"], Change::Failover { wan: fiber(), lasting: None }),
        (
            &["failover", "fiber", "--for", "10m"],
            Change::Failover { wan: fiber(), lasting: Some(10 * minute) },
        ),
        (&["failover", "--auto"], Change::FailoverAuto),
    ] {
        let answer = Ok(Done {
            message: "done".to_owned(),
            changes: vec!["fiber: weight 100, was 50".to_owned()],
            confirm_until_unix_ms: None,
        });
        let (output, change) = told(&mut server, command, answer).await;
        assert_eq!(change, expected);
        assert_eq!(out(&output), "done\n  fiber: weight 100, was 50\n", "{}", err(&output));
        assert_eq!(output.status.code(), Some(0));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_refused_change_has_the_exit_code_of_its_cause() {
    let mut server = served(Severity::Ok);
    for (refusal, code) in [
        (Refusal::Wrong("gateway.yaml:3:1: unknown key".to_owned()), 2),
        (Refusal::Conflict("nothing waits for a confirmation".to_owned()), 1),
        (Refusal::Failed("the disk is full".to_owned()), 1),
    ] {
        let why = refusal.to_string();
        let (output, _) = told(&mut server, &["confirm"], Err(refusal)).await;
        assert_eq!(output.status.code(), Some(code), "{}", err(&output));
        assert!(err(&output).contains(&why), "{}", err(&output));
    }
    for wrong in [
        &["failover"][..],
        &["failover", "fiber", "--auto"],
        &["failover", "fiber", "--for", "10"],
        &["apply", "x", "--confirm", "200ms"],
    ] {
        let output = mwb(&[&["--socket", text(&server.socket)], wrong].concat());
        assert_eq!(output.status.code(), Some(2), "{wrong:?}: {}", err(&output));
    }
}

/// Runs a command that changes something, answers it, and tells what arrived.
async fn told(
    server: &mut Served,
    command: &[&str],
    answer: Result<Done, Refusal>,
) -> (Output, Change) {
    let arguments: Vec<String> = ["--socket", text(&server.socket)]
        .iter()
        .chain(command)
        .map(|word| (*word).to_owned())
        .collect();
    let running = tokio::task::spawn_blocking(move || {
        mwb(&arguments.iter().map(String::as_str).collect::<Vec<_>>())
    });
    let arriving = tokio::time::timeout(Duration::from_secs(30), server.arriving.recv()).await;
    let request = arriving.expect("in time").expect("the server runs");
    let change = request.change.clone();
    request.answer(answer);
    (running.await.expect("no panic"), change)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn following_prints_an_event_when_it_happens() {
    let server = served(Severity::Ok);
    server.bus.publish(EventKind::AgentStarted, None, "the agent runs", "");
    let mut child = tokio::process::Command::new(env!("CARGO_BIN_EXE_mwb"))
        .args(["--socket", text(&server.socket), "events", "--follow"])
        .stdout(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .expect("mwb runs");
    let mut lines = BufReader::new(child.stdout.take().expect("piped")).lines();
    let mut next = async || {
        let line = tokio::time::timeout(Duration::from_secs(30), lines.next_line()).await;
        line.expect("in time").expect("readable").expect("a line")
    };
    assert!(next().await.contains("the agent runs"));
    // It was printed, so the next one comes while the command waits or asks.
    server.bus.publish(EventKind::Carrier, Some("fiber"), "carrier is lost", "");
    assert!(next().await.contains("carrier is lost"));
}
