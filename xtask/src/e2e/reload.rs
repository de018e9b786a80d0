//! A reload under load: every kind of difference acts, and none of a thousand
//! flows notices.

use std::{
    collections::BTreeMap,
    net::{Ipv4Addr, SocketAddr, UdpSocket},
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};
use serde_json::{Value, json};

use super::{
    Case, Lane,
    change::{Load, PATIENCE, reload},
    checks,
    scene::{Scene, both_hooks},
};
use crate::lab::{
    Lab, LabSpec, Namespace,
    address::{HOST4, NET4, NET4_SECOND, NET6, wan4},
    traffic::{EchoServer, EchoStream, WhoServer},
    wait_until,
};

pub(super) fn cases() -> Vec<Case> {
    both_hooks(
        Lane::Alone,
        "a_reload_costs_no_packet_of_1000_flows",
        || LabSpec::direct(3),
        |config| config.without("wans.2"),
        reloads_cost_nothing,
    )
}

/// Every kind of difference, one after the other.
fn reloads_cost_nothing(scene: &mut Scene) -> Result<()> {
    let mut load = Load::start(&scene.lab)?;
    let asker = Asker::start(&scene.lab)?;
    let config = |scene: &Scene| scene.config.clone();

    let changed = config(scene).with("wans.0.weight", 300).with("wans.1.weight", 100);
    reload(scene, changed)?;
    wait_until("the new weights are used", PATIENCE, || {
        Ok((scene.gateway.api().status()?.wans[0].share - 0.75).abs() < 0.01)
    })?;
    load.goes_on("weights were changed")?;

    let changed = config(scene).with("balance", "round_robin");
    reload(scene, changed)?;
    ensure!(scene.gateway.api().status()?.balance == "round_robin", "the old mode");
    load.goes_on("the mode was changed")?;

    let third = json!({"name": "wan2", "device": "wan2", "ipv6_prefix": "2001:db8:103::/48"});
    let mut wans = config(scene).value("wans").cloned().context("WANs")?;
    wans.as_array_mut().context("a list")?.push(third);
    let changed = config(scene).with("wans", wans).with("wans.1.name", "renamed");
    reload(scene, changed)?;
    scene.gateway.wait_until_up()?;
    let names: Vec<String> =
        scene.gateway.api().status()?.wans.into_iter().map(|wan| wan.name).collect();
    ensure!(names == ["wan0", "renamed", "wan2"], "the WANs are {names:?}");
    load.goes_on("a WAN was added and one renamed")?;
    let echo = EchoServer::start(scene.lab.net(), SocketAddr::from((NET4_SECOND, 7)))?;
    let spread = checks::spread(&scene.lab, echo.address(), 30)?;
    ensure!(spread.iter().all(|&flows| flows >= 4), "flows by WAN: {spread:?}");

    ensure!(
        asker.lets_in(&scene.lab)? == [false, false],
        "a stranger is let in, which nobody asked for"
    );
    the_former_targets_are_asked(&scene.lab)?;
    let changed = config(scene)
        .with("health.targets", json!([NET4_SECOND.to_string()]))
        .with("health.interval", "100ms")
        .with("nat.filtering", "endpoint_independent")
        .with("nat.timeouts", json!({"udp": "2m"}))
        .with("bypass", json!(["192.0.2.192/26"]))
        .with(
            "wans.0.forwards",
            json!([{"protocol": "tcp", "port": 2222, "to": format!("{HOST4}:22")}]),
        );
    reload(scene, changed)?;
    let inside = EchoServer::start(scene.lab.host(), SocketAddr::from((HOST4, 22)))?;
    wait_until("the new forward works", PATIENCE, || {
        let to = SocketAddr::from((wan4(0), 2222));
        Ok(EchoStream::connect(scene.lab.net(), to, Duration::from_millis(500)).is_ok())
    })?;
    drop(inside);
    ensure!(asker.lets_in(&scene.lab)? == [true, true], "a stranger is refused by the new filter");
    only_the_new_target_is_asked(&scene.lab)?;
    load.goes_on("targets, filters and forwards were changed")?;
    let changed = config(scene).with("nat.filtering", "address_and_port_dependent");
    reload(scene, changed)?;
    ensure!(asker.lets_in(&scene.lab)? == [false, false], "a stranger is let in by the old filter");
    load.goes_on("the filter was changed back")?;

    // It carries none of the fleet, which was there before it.
    let changed = config(scene).without("wans.2");
    reload(scene, changed)?;
    wait_until("it is let go of", PATIENCE, || {
        let left = scene.lab.gw().link_json("wan2")?;
        Ok(scene.gateway.api().status()?.wans.len() == 2 && left.get("xdp").is_none())
    })?;
    load.goes_on("a WAN was removed")?;
    let changed = config(scene);
    reload(scene, changed)?;
    load.goes_on("nothing was changed")?;

    let flows = load.finish()?;
    let moved = flows.iter().filter(|flow| flow.seen_as.len() > 1).count();
    ensure!(moved == 0, "{moved} flows moved to another WAN or port");
    checks::pings_pass(&scene.lab)?;
    checks::transfers_are_whole(&scene.lab, 1 << 20)
}

/// A host that has asked one server, and keeps its socket and its mapping over
/// all changes.
struct Asker {
    client: UdpSocket,
    /// What the server saw.
    seen: SocketAddr,
    _server: WhoServer,
}

/// The server that is asked.
const ASKED: (Ipv4Addr, u16) = (NET4, 9);

impl Asker {
    fn start(lab: &Lab) -> Result<Self> {
        let server = WhoServer::start(lab.net(), ASKED.into())?;
        let client = bind(lab.host(), HOST4)?;
        let seen = server.ask(&client)?;
        Ok(Self { client, seen, _server: server })
    }

    /// Whether what others send to the mapping arrives: from another port of the
    /// address that was asked, and from another address. Each time from sockets
    /// that never sent before.
    fn lets_in(&self, lab: &Lab) -> Result<[bool; 2]> {
        let (port, address) = (self.is_heard(lab, NET4)?, self.is_heard(lab, NET4_SECOND)?);
        Ok([port, address])
    }

    fn is_heard(&self, lab: &Lab, from: Ipv4Addr) -> Result<bool> {
        let stranger = bind(lab.net(), from)?;
        stranger.send_to(b"unasked", self.seen)?;
        // The answer to this is behind it.
        self.client.send_to(b"who am I?", ASKED)?;
        let (mut buffer, mut heard) = ([0; 64], false);
        loop {
            let (length, source) = self.client.recv_from(&mut buffer).context("no answer")?;
            if source == SocketAddr::from(ASKED) {
                let said = String::from_utf8_lossy(&buffer[..length]);
                ensure!(said == self.seen.to_string(), "it was {}, and is {said}", self.seen);
                return Ok(heard);
            }
            ensure!(source == stranger.local_addr()?, "{source} sent something");
            heard = true;
        }
    }
}

fn bind(namespace: &Namespace, address: Ipv4Addr) -> Result<UdpSocket> {
    namespace.enter(|| {
        let socket = UdpSocket::bind((address, 0))?;
        socket.set_read_timeout(Some(PATIENCE))?;
        Ok(socket)
    })
}

/// Has the Internet count the probes that it gets: those to the former targets,
/// of either family, and those to the new one by the WAN they came by.
fn count_probes(lab: &Lab) -> Result<()> {
    let mut script = "table inet probes {\n  counter old4 {}\n  counter old6 {}\n".to_owned();
    let mut rules = format!(
        "    icmp type echo-request ip daddr {NET4} counter name old4\n    \
         icmpv6 type echo-request ip6 daddr {NET6} counter name old6\n"
    );
    for index in 0..lab.wans().len() {
        script.push_str(&format!("  counter new{index} {{}}\n"));
        rules.push_str(&format!(
            "    iifname isp{index} icmp type echo-request ip daddr {NET4_SECOND} \
             counter name new{index}\n"
        ));
    }
    script.push_str("  chain input {\n    type filter hook input priority 0;\n");
    lab.net().nft(&(script + &rules + "  }\n}\n"))
}

/// What it has counted so far, by the names of [`count_probes`].
fn probes(lab: &Lab) -> Result<BTreeMap<String, u64>> {
    let text = lab.net().run("nft", ["-j", "list", "counters"])?;
    let list: Value = serde_json::from_str(&text).with_context(|| text.clone())?;
    let rows = list["nftables"].as_array().context("a list of counters")?;
    let read = |row: &Value| {
        let counter = row.get("counter")?;
        Some((counter["name"].as_str()?.to_owned(), counter["packets"].as_u64()?))
    };
    Ok(rows.iter().filter_map(read).collect())
}

fn the_former_targets_are_asked(lab: &Lab) -> Result<()> {
    count_probes(lab)?;
    wait_until("the former targets are asked", PATIENCE, || {
        let probes = probes(lab)?;
        ensure!(["old4", "old6"].iter().all(|name| probes[*name] > 3), "{probes:?}");
        Ok(true)
    })?;
    let probes = probes(lab)?;
    let early: u64 =
        probes.iter().filter(|(name, _)| name.starts_with("new")).map(|(_, count)| count).sum();
    ensure!(early == 0, "the new target is asked before the reload: {probes:?}");
    Ok(())
}

/// Every WAN asks the new target, and from then on nobody asks the former ones.
fn only_the_new_target_is_asked(lab: &Lab) -> Result<()> {
    let all_ask = |since: &BTreeMap<String, u64>| {
        wait_until("every WAN asks the new target", PATIENCE, || {
            let now = probes(lab)?;
            let behind = now
                .iter()
                .filter(|(name, _)| name.starts_with("new"))
                .filter(|(name, count)| **count < since[*name] + 5)
                .count();
            ensure!(behind == 0, "{behind} WANs do not: {now:?}");
            Ok(true)
        })?;
        probes(lab)
    };
    let first = probes(lab)?;
    let before = all_ask(&first)?;
    let after = all_ask(&before)?;
    for name in ["old4", "old6"] {
        ensure!(before[name] == after[name], "a former target is still asked: {after:?}");
    }
    Ok(())
}
