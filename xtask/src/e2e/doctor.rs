//! `mwb doctor`: a healthy gateway has nothing that does not work; then things
//! are broken one by one, and it names each.

use std::{net::SocketAddr, time::Duration};

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;

use super::{
    Case, Lane, checks, packets,
    port::Port,
    scene::{Hook, Scene, play},
};
use crate::lab::{
    GatewayConfig, LabSpec,
    address::{HOST4, NET4},
    traffic::{UdpServer, UdpStream},
    wait_until,
};

const PATIENCE: Duration = Duration::from_secs(15);
/// Flows that there is room for.
const ROOM: u64 = 128;

pub(super) fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    let mut add = |lane: Lane,
                   name: &str,
                   configure: fn(GatewayConfig) -> GatewayConfig,
                   test: fn(&mut Scene, Hook) -> Result<()>| {
        for hook in Hook::BOTH {
            cases.push(Case::new(lane, &format!("{name}_by_{hook}"), move || {
                let scene = Scene::new(hook, LabSpec::direct(2), configure)?;
                play(scene, |scene| test(scene, hook))
            }));
        }
    };
    add(Lane::Alone, "mwb_doctor_finds_what_is_wrong", |config| config, the_doctor_finds_it);
    add(
        Lane::Together,
        "mwb_doctor_tells_how_full_tables_are",
        |config| config.watching_gateways().with("nat.flows", ROOM),
        tables_fill_up,
    );
    cases
}

/// What the doctor has found.
struct Report(Value);

impl Report {
    /// Findings are not failures of the command here.
    fn of(scene: &Scene) -> Result<Self> {
        let output = scene.gateway.mwb_command(&["doctor", "--json"])?.output()?;
        let report = serde_json::from_slice(&output.stdout)
            .with_context(|| format!("mwb doctor --json says: {output:?}"))?;
        Ok(Self(report))
    }

    fn findings(&self) -> &[Value] {
        self.0["findings"].as_array().map(Vec::as_slice).unwrap_or_default()
    }

    /// The finding about a subject: severity, and what was seen.
    fn about(&self, area: &str, subject: &str) -> Result<(&str, &str)> {
        let mut found =
            self.findings().iter().filter(|one| one["area"] == area && one["subject"] == subject);
        let one = found.next().with_context(|| format!("no {area} of {subject}: {:#}", self.0))?;
        ensure!(found.next().is_none(), "two of {area} of {subject}: {:#}", self.0);
        let severity = one["severity"].as_str().context("a severity")?;
        ensure!(severity == "ok" || one["fix"].is_string(), "no way to put it right: {one:#}");
        Ok((severity, one["fact"].as_str().context("a fact")?))
    }

    /// It is so, and says these words.
    fn says(&self, area: &str, subject: &str, severity: &str, words: &[&str]) -> Result<()> {
        let (is, fact) = self.about(area, subject)?;
        let good = is == severity && words.iter().all(|word| fact.contains(word));
        ensure!(good, "{area} of {subject} is {is}: {fact}, and should be {severity}: {words:?}");
        Ok(())
    }
}

fn the_doctor_finds_it(scene: &mut Scene, hook: Hook) -> Result<()> {
    checks::pings_pass(&scene.lab)?;
    let report = Report::of(scene)?;
    let bad: Vec<&Value> =
        report.findings().iter().filter(|one| one["severity"] == "bad").collect();
    ensure!(bad.is_empty(), "a healthy gateway has {bad:#?}");
    for device in ["lan0", "wan0", "wan1"] {
        // The hook, how the kernel runs it, and why that one.
        let words = [hook.name(), "set by the configuration"];
        report.says("hook", device, "ok", &words)?;
        ensure!(hook != Hook::Xdp || report.about("hook", device)?.1.starts_with("xdp native"));
        report.says("mtu", device, "ok", &["1500"])?;
        report.says("queue", device, "ok", &["no packet was dropped"])?;
    }
    report.says("kernel", "jit", "ok", &[])?;
    report.about("cpu", "cpu0")?;
    let shown = scene.gateway.mwb(&["doctor", "--all"])?;
    for word in ["set by the configuration", "IPv4 flows", "ip_forward"] {
        ensure!(shown.contains(word), "no {word} for people:\n{shown}");
    }
    programs_are_measured(scene, hook)?;

    // The gateway's own sockets may take NAT ports now.
    let ports = ("net/ipv4/ip_local_port_range", "net.ipv4.ip_local_port_range");
    scene.lab.gw().sysctl(&[(ports.0, "1024 60000")])?;
    Report::of(scene)?.says("sysctl", ports.1, "warn", &["1024-60000 overlaps nat.ports"])?;
    scene.lab.gw().sysctl(&[(ports.0, "1024 9999")])?;
    // Nothing is forwarded by the kernel where we leave it a packet.
    scene.lab.gw().sysctl(&[("net/ipv4/ip_forward", "0")])?;
    Report::of(scene)?.says("sysctl", "net.ipv4.ip_forward", "bad", &["no way to LAN hosts"])?;
    scene.lab.gw().sysctl(&[("net/ipv4/ip_forward", "1")])?;
    mtus_differ(scene)
}

/// A WAN takes less than the LAN, which works, and then less than IPv6 needs.
fn mtus_differ(scene: &Scene) -> Result<()> {
    let set = |mtu: u32| scene.lab.gw().ip(&format!("link set wan1 mtu {mtu}\n"));
    let becomes = |severity: &str, words: &[&str]| {
        // The agent hears of a device's change a moment later.
        wait_until("the doctor has seen it", PATIENCE, || {
            let report = Report::of(scene)?;
            report.says("mtu", "wan1", severity, words)?;
            report.says("mtu", "wan0", "ok", &["1500"])?;
            Ok(true)
        })
        .map(drop)
    };
    set(1400)?;
    becomes("ok", &["1400, the LAN has 1500", "TCP is told the smaller segment size"])?;
    set(1200)?;
    becomes("bad", &["1200: below the 1280 that IPv6 needs"])?;
    set(1500)?;
    becomes("ok", &["1500"])
}

/// The programs of the hook run, and what that costs is told by program; those
/// of the other one do not. What the CPU shares say fits what the runs say.
fn programs_are_measured(scene: &Scene, hook: Hook) -> Result<()> {
    let server = UdpServer::start(scene.lab.net(), SocketAddr::from((NET4, 7)))?;
    let stream = UdpStream::new(1_000_000, Duration::from_millis(1));
    let stream = stream.start(scene.lab.host(), &server)?;
    wait_until("datagrams arrive", PATIENCE, || Ok(stream.report().there.received > 50))?;
    let report = Report::of(scene)?;
    stream.stop()?;
    let rows = report.0["programs"].as_array().context("programs")?;
    let row = |name: &str| {
        let row = rows.iter().find(|row| row["program"] == name);
        row.with_context(|| format!("no {name}: {:#}", report.0))
    };
    let (busy, idle) = match hook {
        Hook::Xdp => (["inside_xdp", "outside_xdp"], ["inside_tc", "outside_tc"]),
        Hook::Tcx => (["inside_tc", "outside_tc"], ["inside_xdp", "outside_xdp"]),
    };
    for name in busy {
        let row = row(name)?;
        let figure = |field: &str| row[field].as_f64().with_context(|| format!("{row:#}"));
        let (runs, each, cpu) =
            (figure("runs_per_second")?, figure("nanoseconds")?, figure("cpu")?);
        ensure!(runs > 200.0, "a thousand packets a second: {row:#}");
        ensure!((10.0..1e6).contains(&each), "a run takes {each} ns: {row:#}");
        ensure!((cpu - runs * each / 1e9).abs() < 1e-6, "the figures contradict: {row:#}");
    }
    for name in idle {
        let runs = row(name)?["runs_per_second"].as_f64().context("runs")?;
        ensure!(runs < 100.0, "{name} runs {runs} times a second, by {hook}");
    }
    Ok(())
}

/// Flows until there is hardly room, and then none: told with what to do.
fn tables_fill_up(scene: &mut Scene, _: Hook) -> Result<()> {
    let (lan, _silent) = (Port::lan(&scene.lab)?, Port::wan(&scene.lab, 0)?);
    let mut made = 0;
    for (flows, part, severity) in
        [(64, "50 %", "ok"), (108, "84 %", "warn"), (ROOM, "100 %", "bad")]
    {
        while made < flows {
            let far = SocketAddr::from((NET4, 1000 + u16::try_from(made)?));
            lan.send(&[packets::udp((HOST4, 4000).into(), far, b"fill up")?])?;
            made += 1;
        }
        wait_until("the doctor has seen it", PATIENCE, || {
            let report = Report::of(scene)?;
            let fill = format!("{flows} of {ROOM} ({part})");
            report.says("table", "IPv4 flows", severity, &[&fill])?;
            report.says("table", "IPv6 flows", "ok", &[&format!("0 of {ROOM}")])?;
            report.says("table", "mappings", "ok", &[&format!("1 of {ROOM}")])?;
            Ok(true)
        })?;
    }
    Ok(())
}
