//! The gateway shows its flows and its events: every answer is compared with what
//! packets do.

use std::{
    io::{BufRead as _, BufReader},
    net::{SocketAddr, UdpSocket},
    process::{Child, Stdio},
    sync::mpsc,
    thread,
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;

use super::{
    Case, Lane, checks,
    scene::{Scene, both_hooks},
};
use crate::lab::{
    GatewayConfig, LabSpec,
    address::{HOST4, NET4, NET4_SECOND},
    traffic::{EchoServer, EchoStream, FileServer, WhoServer, curl},
    wait_until,
};

const PATIENCE: Duration = Duration::from_secs(10);

pub(super) fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    let mut add = |name, configure: fn(GatewayConfig) -> GatewayConfig, test| {
        cases.extend(both_hooks(Lane::Together, name, || LabSpec::direct(2), configure, test));
    };
    add("mwb_flows_shows_the_flows_there_are", |config| config, flows_are_shown);
    add("mwb_events_follows_a_failure", GatewayConfig::ranked, events_follow);
    cases
}

pub(super) fn json(scene: &Scene, arguments: &[&str]) -> Result<Value> {
    let text = scene.gateway.mwb(arguments)?;
    serde_json::from_str(&text).with_context(|| format!("mwb {arguments:?} says:\n{text}"))
}

fn bind(scene: &Scene) -> Result<UdpSocket> {
    scene.lab.host().enter(|| Ok(UdpSocket::bind((HOST4, 0))?))
}

/// Each end of each flow, its WAN, its figures; filtered, sorted, cut off.
fn flows_are_shown(scene: &mut Scene) -> Result<()> {
    const BYTES: u64 = 2 << 20;
    let echo = EchoServer::start(scene.lab.net(), SocketAddr::from((NET4, 7)))?;
    let who = WhoServer::start(scene.lab.net(), SocketAddr::from((NET4_SECOND, 9)))?;
    let files = FileServer::start(scene.lab.net(), SocketAddr::from((NET4, 80)))?;
    let mut stream = EchoStream::connect(scene.lab.host(), echo.address(), PATIENCE)?;
    stream.exchange(b"hello")?;
    let socket = bind(scene)?;
    let seen = who.ask(&socket)?;
    curl(scene.lab.host(), &files.url(BYTES), &[])?.expect_content(BYTES)?;

    let list =
        json(scene, &["flows", "--json", "--proto", "udp", "--destination", "203.0.113.251"])?;
    let rows = list["flows"].as_array().context("a list of flows")?;
    ensure!(rows.len() == 1 && list["matching"] == 1, "one UDP flow there: {list:#}");
    let endpoint = |name: &str| {
        let end = &rows[0][name];
        format!("{}:{}", end["address"].as_str().unwrap_or("?"), end["port"])
    };
    let ends = [endpoint("inside"), endpoint("outside"), endpoint("remote")];
    let wanted = [
        socket.local_addr()?.to_string(),
        seen.to_string(),
        SocketAddr::from((NET4_SECOND, 9)).to_string(),
    ];
    ensure!(ends == wanted, "the flow is {wanted:?}, and shown as {ends:?}");
    let wan = format!("wan{}", checks::wan_of(&scene.lab, seen.ip())?);
    ensure!(rows[0]["wan"] == *wan, "it is on {wan}: {}", rows[0]);
    for side in ["sent", "received"] {
        ensure!(rows[0][side]["packets"] == 1, "one packet {side}: {}", rows[0]);
    }

    // The download is by far the largest.
    let list = json(scene, &["flows", "--json", "--sort", "bytes", "--top", "1"])?;
    let row = &list["flows"][0];
    ensure!(list["flows"].as_array().is_some_and(|rows| rows.len() == 1), "--top 1: {list:#}");
    let bytes = row["received"]["bytes"].as_u64().context("bytes")?;
    ensure!(
        row["remote"]["port"] == 80 && (BYTES..BYTES + BYTES / 10).contains(&bytes),
        "{BYTES} bytes were fetched: {row:#}"
    );
    let list = json(scene, &["flows", "--json", "--state", "established", "--port", "7"])?;
    ensure!(list["matching"] == 1, "one connection to port 7: {list:#}");
    ensure!(list["flows"][0]["state"] == "established", "{list:#}");
    let table = scene.gateway.mwb(&["flows"])?;
    for text in wanted.iter().chain([&wan]) {
        ensure!(table.contains(text.as_str()), "{text} is not in\n{table}");
    }
    Ok(())
}

/// A program beside us whose lines come as they are printed.
struct Lines {
    child: Child,
    lines: mpsc::Receiver<String>,
}

impl Drop for Lines {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn events_follow(scene: &mut Scene) -> Result<()> {
    let mut command = scene.gateway.mwb_command(&["events", "--follow"])?;
    let mut child =
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn()?;
    let output = child.stdout.take().context("it has an output")?;
    let (sender, lines) = mpsc::channel();
    let follower = Lines { child, lines };
    thread::spawn(move || {
        for line in BufReader::new(output).lines().map_while(Result::ok) {
            if sender.send(line).is_err() {
                return;
            }
        }
    });
    let mut said = String::new();
    let mut hears = |what: &str, words: &[&str]| {
        wait_until(what, PATIENCE, || {
            while let Ok(line) = follower.lines.try_recv() {
                said.push_str(&line);
                said.push('\n');
            }
            ensure!(
                said.lines().any(|line| words.iter().all(|word| line.contains(word))),
                "no line with {words:?} in:\n{said}"
            );
            Ok(true)
        })
    };
    hears("what was before", &["agent", "runs"])?;
    scene.lab.wan(0).uplink(false)?;
    let took = hears("the failure", &["wan0", "down"])?;
    ensure!(took < Duration::from_secs(3), "told after {took:?}");
    scene.lab.wan(0).uplink(true)?;
    hears("the recovery", &["wan0", "up"]).map(drop)
}
