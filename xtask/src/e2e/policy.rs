//! Policy rules: each key steers real flows, blocked ones do not leave, flows fall back or
//! wait, a reload changes what is new and nothing that runs, and what `mwb policy` and
//! `mwb why` say is what happens.

use std::{
    net::{IpAddr, SocketAddr, UdpSocket},
    process::Command,
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};
use serde_json::{Value, json};
use socket2::SockRef;

use super::{
    Case, Lane,
    change::{Load, reload},
    checks,
    explain::json,
    port::{host_of, mac},
    scene::{Scene, both_hooks},
};
use crate::lab::{
    GatewayConfig, LabSpec,
    address::{HOST4, HOST6, NET4, NET4_SECOND, NET6},
    traffic::{EchoServer, WhoServer},
    wait_until,
};

pub(super) const PATIENCE: Duration = Duration::from_secs(10);

pub(super) fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    let mut add = |name, test| {
        // Without a rule everything goes by the first WAN.
        let plain: fn(GatewayConfig) -> GatewayConfig = GatewayConfig::ranked;
        cases.extend(both_hooks(Lane::Together, name, || LabSpec::direct(2), plain, test));
    };
    add("each_key_of_a_policy_rule_steers_flows", each_key_steers as fn(&mut Scene) -> Result<()>);
    add("flows_of_a_policy_rule_fall_back_or_wait", flows_fall_back_or_wait);
    add("a_reload_of_policy_rules_moves_no_open_flow", a_reload_moves_no_flow);
    cases
}

/// Puts rules in force.
pub(super) fn with_rules(scene: &mut Scene, rules: Value) -> Result<String> {
    let config = scene.config.clone().with("policy", json!({ "rules": rules }));
    reload(scene, config)
}

/// A flow to be: where it comes from and goes to, and what is special about it.
#[derive(Clone, Copy)]
pub(super) struct Flow {
    to: IpAddr,
    port: u16,
    source_port: u16,
    dscp: u32,
}

impl Flow {
    pub(super) fn to(to: IpAddr, port: u16) -> Self {
        Self { to, port, source_port: 0, dscp: 0 }
    }

    pub(super) fn socket(self, scene: &Scene) -> Result<UdpSocket> {
        let near = (host_of(self.to), self.source_port);
        let socket = scene.lab.host().enter(|| Ok(UdpSocket::bind(near)?))?;
        let options = SockRef::from(&socket);
        if self.to.is_ipv4() {
            options.set_tos_v4(self.dscp << 2)?;
        } else {
            options.set_tclass_v6(self.dscp << 2)?;
        }
        Ok(socket)
    }

    /// Opens it: the WAN that it leaves by, as `mwb why` has said before.
    pub(super) fn leaves_by(self, scene: &Scene) -> Result<usize> {
        let server = WhoServer::start(scene.lab.net(), SocketAddr::new(self.to, self.port))?;
        let socket = self.socket(scene)?;
        let told = self.why(scene, &socket)?;
        let seen = server.ask(&socket).with_context(|| format!("{told:#}"))?;
        let wan = checks::wan_of(&scene.lab, seen.ip())?;
        ensure!(told["outcome"]["wan"] == format!("wan{wan}"), "it left by wan{wan}: {told:#}");
        Ok(wan)
    }

    fn why(self, scene: &Scene, socket: &UdpSocket) -> Result<Value> {
        let near = socket.local_addr()?.to_string();
        let far = SocketAddr::new(self.to, self.port).to_string();
        let host = mac((scene.lab.host(), "lan0"))?.map(|byte| format!("{byte:02x}")).join(":");
        let dscp = self.dscp.to_string();
        let known = ["why", "--json", "--mac", &host, "--dscp", &dscp];
        json(scene, &[&known[..], &["udp", &near, &far]].concat())
    }

    /// Sends one packet of it, which must not arrive.
    fn is_blocked(self, scene: &Scene) -> Result<()> {
        let socket = self.socket(scene)?;
        let told = self.why(scene, &socket)?;
        ensure!(told["outcome"]["reason"] == "policy_blocked", "{told:#}");
        let before = scene.counted("out", "policy_blocked")?;
        socket.send_to(b"hello", (self.to, self.port))?;
        wait_until("the packet is counted as blocked", PATIENCE, || {
            Ok(scene.counted("out", "policy_blocked")? == before + 1)
        })
        .map(drop)
    }
}

/// Rules by name: what `mwb policy` shows.
pub(super) fn shown(scene: &Scene, rule: &str) -> Result<Value> {
    let all = json(scene, &["policy", "--json"])?;
    let rules = all["rules"].as_array().context("a list of rules")?;
    let found = rules.iter().find(|one| one["name"] == rule);
    found.cloned().with_context(|| format!("no rule {rule}: {all:#}"))
}

fn hits(scene: &Scene, rule: &str) -> Result<u64> {
    shown(scene, rule)?["hits"].as_u64().context("a number of hits")
}

/// Days of the week: those around now, and the others.
pub(super) fn days() -> Result<(Vec<&'static str>, Vec<&'static str>)> {
    const DAYS: [&str; 7] = ["mon", "tue", "wed", "thu", "fri", "sat", "sun"];
    let output = Command::new("date").arg("+%u").output().context("cannot start date")?;
    let today: usize = String::from_utf8_lossy(&output.stdout).trim().parse()?;
    // The day may end meanwhile.
    let around = |day: &usize| [0, 1, 6].contains(&((day + 8 - today) % 7));
    let (near, far): (Vec<usize>, Vec<usize>) = (0..7).partition(around);
    let words = |days: Vec<usize>| days.into_iter().map(|day| DAYS[day]).collect();
    Ok((words(near), words(far)))
}

/// Each key has a destination port of its own, whose flows fit or do not.
fn each_key_steers(scene: &mut Scene) -> Result<()> {
    let host = mac((scene.lab.host(), "lan0"))?.map(|byte| format!("{byte:02x}")).join(":");
    let (today, another_day) = days()?;
    let (host4, host6) = (format!("{HOST4}/32"), format!("{HOST6}/128"));
    let rules = json!([
        {"name": "source", "port": 7001, "source": [host4, host6], "use": "wan1"},
        {"name": "other-source", "port": 7002, "source": ["192.0.2.32/27", "2001:db8:a:2::/64"], "use": "wan1"},
        {"name": "destination", "port": 7003, "destination": [format!("{NET4}/32"), format!("{NET6}/128")], "use": "wan1"},
        {"name": "tcp", "port": 7004, "protocol": "tcp", "use": "wan1"},
        {"name": "udp", "port": "7005-7006", "protocol": [17], "use": "wan1"},
        {"name": "source-port", "port": 7007, "source_port": ["40000-40010", 40020], "use": "wan1"},
        {"name": "dscp", "port": 7008, "dscp": "ef", "use": "wan1"},
        {"name": "lan", "port": 7009, "lan": "lan0", "use": {"priority": 1}},
        {"name": "mac", "port": 7010, "mac": host, "use": "wan1"},
        {"name": "other-mac", "port": 7011, "mac": "02:00:00:00:00:ef", "use": "wan1"},
        {"name": "exception", "port": 7012, "use": "default"},
        {"name": "after-it", "port": "7012-7013", "use": ["wan1", "wan0"], "balance": "failover"},
        {"name": "today", "port": 7014, "time": {"days": today}, "use": "wan1"},
        {"name": "another-day", "port": 7015, "time": {"days": another_day}, "use": "wan1"},
        {"name": "blocked", "port": 7016, "use": "block"},
    ]);
    let said = with_rules(scene, rules)?;
    ensure!(said.contains("15 changes"), "{said}");
    for to in checks::FAMILIES {
        for (port, wan) in [
            (7001, 1),
            (7002, 0),
            (7003, 1),
            (7004, 0),
            (7005, 1),
            (7006, 1),
            (7009, 1),
            (7010, 1),
            (7011, 0),
            (7012, 0),
            (7013, 1),
            (7014, 1),
            (7015, 0),
            (7017, 0),
        ] {
            let left =
                Flow::to(to, port).leaves_by(scene).with_context(|| format!("{to} {port}"))?;
            ensure!(left == wan, "a flow to {to} port {port} left by wan{left}");
        }
        for (source_port, wan) in [(40_000, 1), (40_010, 1), (40_011, 0), (40_020, 1)] {
            let flow = Flow { source_port, ..Flow::to(to, 7007) };
            let left = flow.leaves_by(scene)?;
            ensure!(left == wan, "a flow to {to} from port {source_port} left by wan{left}");
        }
        for (dscp, wan) in [(46, 1), (0, 0), (44, 0)] {
            let left = Flow { dscp, ..Flow::to(to, 7008) }.leaves_by(scene)?;
            ensure!(left == wan, "a flow to {to} with code point {dscp} left by wan{left}");
        }
        Flow::to(to, 7016).is_blocked(scene)?;
        let echo = EchoServer::start(scene.lab.net(), SocketAddr::new(to, 7004))?;
        let used = checks::spread(&scene.lab, echo.address(), 5)?;
        ensure!(used == [0, 5], "connections to {to} left by {used:?}");
    }
    let second = Flow::to(NET4_SECOND.into(), 7003).leaves_by(scene)?;
    ensure!(second == 0, "what goes to another destination left by wan{second}");
    // Of both families: one flow each but where it says otherwise.
    for (rule, flows) in [
        ("source", 2),
        ("other-source", 0),
        ("destination", 2),
        ("tcp", 10),
        ("udp", 4),
        ("source-port", 6),
        ("dscp", 2),
        ("lan", 2),
        ("mac", 2),
        ("other-mac", 0),
        ("after-it", 2),
        ("today", 2),
        ("another-day", 0),
        ("blocked", 2),
    ] {
        let counted = hits(scene, rule)?;
        ensure!(counted == flows, "rule {rule} has {flows} flows and counted {counted}");
    }
    ensure!(shown(scene, "today")?["active"] == true, "{:#}", shown(scene, "today")?);
    let later = shown(scene, "another-day")?;
    ensure!(later["active"] == false && later["changes_in_minutes"].is_u64(), "{later:#}");
    let metrics = scene.gateway.api().metrics()?;
    ensure!(metrics.contains("mwb_policy_hits_total{rule=\"tcp\"} 10"), "no hits in\n{metrics}");
    what_is_said(scene)
}

/// `mwb policy` and `mwb why` for people, and what they ask for.
fn what_is_said(scene: &Scene) -> Result<()> {
    let table = scene.gateway.mwb(&["policy"])?;
    for words in ["another-day", "port: 7005-7006", "use: block", "wan1", "counts in"] {
        ensure!(table.contains(words), "no {words} in\n{table}");
    }
    let packet = ["udp", "192.0.2.10:4000", "203.0.113.250:7008"];
    let said = scene.gateway.mwb(&[&["why"], &packet[..]].concat())?;
    for words in ["none of 15 rules matches", "rule dscp before it may match: say --dscp"] {
        ensure!(said.contains(words), "no {words} in\n{said}");
    }
    let said = scene.gateway.mwb(&[&["why", "--dscp", "ef"], &packet[..]].concat())?;
    ensure!(said.contains("rule dscp matches: "), "{said}");
    let wrong = [&["why", "--lan", "lan9"], &packet[..]].concat();
    let wrong = scene.gateway.mwb_command(&wrong)?.output()?;
    ensure!(wrong.status.code() == Some(2), "{wrong:?}");
    Ok(())
}

/// One rule prefers a WAN, the other knows no other.
fn flows_fall_back_or_wait(scene: &mut Scene) -> Result<()> {
    let rules = json!([
        {"name": "prefer", "port": 7001, "use": "wan1"},
        {"name": "strict", "port": 7002, "use": "wan1", "fallback": "strict"},
    ]);
    with_rules(scene, rules)?;
    for to in checks::FAMILIES {
        let waits = Flow::to(to, 7002);
        let server = WhoServer::start(scene.lab.net(), SocketAddr::new(to, 7002))?;
        let socket = waits.socket(scene)?;
        let seen = server.ask(&socket)?;
        ensure!(checks::wan_of(&scene.lab, seen.ip())? == 1, "it was seen as {seen}");
        ensure!(Flow::to(to, 7001).leaves_by(scene)? == 1, "both rules name wan1");

        scene.lab.wan(1).uplink(false)?;
        scene.gateway.wait_for_status("the second WAN is down", PATIENCE, |status| {
            status.wans[1].state == "down"
        })?;
        let left = Flow::to(to, 7001).leaves_by(scene)?;
        ensure!(left == 0, "with wan1 down it left by wan{left}");
        let prefer = shown(scene, "prefer")?;
        ensure!(prefer["fallen_back"] == true && prefer["wans"] == json!(["wan0"]), "{prefer:#}");
        let strict = shown(scene, "strict")?;
        ensure!(strict["fallen_back"] == false && strict["wans"] == json!(["wan1"]), "{strict:#}");
        let told = waits.why(scene, &socket)?;
        ensure!(told["outcome"]["wan"] == "wan1", "{told:#}");
        // Nobody else sees it.
        ensure!(server.ask(&socket).is_err(), "a flow that is to wait has an answer");

        scene.lab.wan(1).uplink(true)?;
        scene.gateway.wait_for_status("the second WAN is back", PATIENCE, |status| {
            status.wans[1].state == "up"
        })?;
        let again = server.ask(&socket)?;
        ensure!(again == seen, "the flow that waited was {seen}, and is {again}");
        let left = Flow::to(to, 7001).leaves_by(scene)?;
        ensure!(left == 1, "with wan1 back it left by wan{left}");
    }
    Ok(())
}

/// A thousand flows run while rules come, change and go.
fn a_reload_moves_no_flow(scene: &mut Scene) -> Result<()> {
    let mut load = Load::start(&scene.lab)?;
    let far = Flow::to(NET4.into(), 7100);
    ensure!(far.leaves_by(scene)? == 0, "there is no rule");

    let said = with_rules(scene, json!([{"name": "all", "use": "wan1"}]))?;
    ensure!(said.contains("policy rule: all {use: wan1} added"), "{said}");
    ensure!(far.leaves_by(scene)? == 1, "all new flows go by wan1");
    ensure!(Flow::to(NET6.into(), 7100).leaves_by(scene)? == 1, "all new flows go by wan1");
    ensure!(hits(scene, "all")? == 2, "two flows: {:#}", shown(scene, "all")?);
    load.goes_on("a rule for everything is new")?;

    // It keeps what it has counted, though it stands elsewhere and says something else.
    let rules = json!([
        {"name": "block", "port": 7100, "use": "block"},
        {"name": "all", "port": "7000-7200", "use": "wan1"},
    ]);
    with_rules(scene, rules)?;
    far.is_blocked(scene)?;
    let other = Flow::to(NET4.into(), 7101);
    ensure!(other.leaves_by(scene)? == 1, "it is not the one that is blocked");
    ensure!(hits(scene, "block")? == 1, "{:#}", shown(scene, "block")?);
    ensure!(hits(scene, "all")? == 3, "{:#}", shown(scene, "all")?);
    load.goes_on("a rule blocks")?;

    // Another run of the agent has the same rules.
    scene.gateway.kill()?;
    scene.gateway.restart(&scene.lab)?;
    far.is_blocked(scene)?;
    ensure!(other.leaves_by(scene)? == 1, "the rules are gone with the agent");
    load.goes_on("another agent runs")?;

    let config = scene.config.clone().without("policy");
    let said = reload(scene, config)?;
    ensure!(said.contains("removed"), "{said}");
    ensure!(far.leaves_by(scene)? == 0, "the rules are gone");
    let none = scene.gateway.mwb(&["policy"])?;
    ensure!(none.contains("no policy rules"), "{none}");

    let flows = load.finish()?;
    let moved = flows.iter().filter(|flow| flow.seen_as.len() > 1).count();
    ensure!(moved == 0, "{moved} flows moved to another WAN or port");
    Ok(())
}
