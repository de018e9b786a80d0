//! What the gateway itself sends: by the WAN that a socket is bound to or whose address it
//! has, by tables and rules of the agent's own, which leave nothing behind.

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket},
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};
use serde_json::json;
use socket2::SockRef;

use super::{
    Case, Lane,
    bond_scene::{BondScene, play as play_bond},
    checks,
    policy::with_rules,
    scene::{Scene, both_hooks},
};
use crate::lab::{
    GatewayConfig, Lab, LabSpec,
    address::{NET4, NET6, wan4, wan6},
    capture::{Passing, addresses},
    traffic::{WhoServer, ping},
    wait_until,
};

/// How soon tables follow the network: the agent looks every five seconds by itself.
const SOON: Duration = Duration::from_secs(15);

pub(super) fn cases() -> Vec<Case> {
    let mut cases = both_hooks(
        Lane::Together,
        "what_the_gateway_sends_by_a_wan_leaves_by_it",
        || LabSpec::relayed(2),
        |config| config.with("balance", "failover"),
        |scene| sent_by_a_wan_leaves_by_it(&scene.lab),
    );
    cases.extend(both_hooks(
        Lane::Together,
        "own_routes_leave_nothing_behind",
        || LabSpec::direct(2),
        |config| config,
        own_routes_leave_nothing_behind,
    ));
    cases.extend(both_hooks(
        Lane::Together,
        "what_the_gateway_sends_keeps_to_policy_rules",
        || LabSpec::direct(2),
        GatewayConfig::ranked,
        own_packets_keep_to_rules,
    ));
    cases.push(Case::new(
        Lane::Together,
        "what_a_bonds_gateway_sends_by_a_wan_leaves_by_it",
        || {
            let scene = BondScene::new(LabSpec::relayed(2), |config| config)?;
            play_bond(scene, |scene| {
                sent_by_a_wan_leaves_by_it(&scene.lab)?;
                // What names no WAN goes into the bond, as before.
                for (to, family) in [(NET4.to_string(), "-4"), (NET6.to_string(), "-6")] {
                    let way = scene.lab.gw().run("ip", [family, "route", "get", &to])?;
                    ensure!(way.contains("dev mwb0"), "{way}");
                }
                scene.datagrams_arrive_once(NET4.into(), 200)
            })
        },
    ));
    cases
}

/// Rules and routes of ours, as text in an order of its own.
fn ours(lab: &Lab) -> Result<String> {
    let mut lines = Vec::new();
    for family in ["-4", "-6"] {
        let rules = lab.gw().run("ip", [family, "rule"])?;
        let rules = rules.lines().map(str::trim_end).filter(|line| line.ends_with("proto 77"));
        lines.extend(rules.map(str::to_owned));
        // The table of one WAN alone is an error as long as nobody has used it.
        let routes = lab.gw().run("ip", [family, "route", "show", "table", "all"])?;
        let routes = routes.lines().filter(|line| line.contains(" table 770"));
        lines.extend(routes.map(str::to_owned));
    }
    lines.sort();
    Ok(lines.join("\n"))
}

/// Waits until both WANs have their tables, and tells them.
fn complete(lab: &Lab) -> Result<String> {
    wait_until("both WANs have tables", SOON, || {
        let text = ours(lab)?;
        let defaults = text.lines().filter(|line| line.starts_with("default "));
        Ok(defaults.count() == 4 && text.contains("from 198.51.100.18 unreachable"))
    })?;
    ours(lab)
}

/// Requests of both families, bound to each WAN's device and to its address, leave by it
/// and are answered.
fn sent_by_a_wan_leaves_by_it(lab: &Lab) -> Result<()> {
    complete(lab)?;
    for wan in 0..2 {
        let device = format!("wan{wan}");
        let families: [(IpAddr, IpAddr); 2] =
            [(wan4(wan).into(), NET4.into()), (wan6(wan).into(), NET6.into())];
        for (own, far) in families {
            for bound in [device.clone(), own.to_string()] {
                let capture = lab.wan(wan).capture(Passing::Both, "icmp or icmp6")?;
                let every = Duration::from_millis(20);
                let report = ping(lab.gw(), far, 3, every, &["-I", &bound])?;
                ensure!(report.received == 3, "{far} by {bound}: {}", report.output);
                let captured = capture.finish()?;
                let ours =
                    captured.frames.iter().filter(|frame| addresses(frame) == Some((own, far)));
                let seen = ours.count();
                // The agent's own checks go the same way.
                ensure!(seen >= 3, "{far} by {bound}: {seen} of 3 requests at {device}");
            }
        }
    }
    Ok(())
}

/// The WAN that a datagram of the gateway's leaves by; `None`: it does not.
fn leaves_by(scene: &Scene, to: SocketAddr, mark: u32) -> Result<Option<usize>> {
    let server = WhoServer::start(scene.lab.net(), to)?;
    let any: IpAddr = match to {
        SocketAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
        SocketAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
    };
    let socket = scene.lab.gw().enter(|| Ok(UdpSocket::bind((any, 0))?))?;
    SockRef::from(&socket).set_mark(mark)?;
    match server.ask(&socket) {
        Ok(seen) => checks::wan_of(&scene.lab, seen.ip()).map(Some),
        Err(_) => Ok(None),
    }
}

fn own_packets_keep_to_rules(scene: &mut Scene) -> Result<()> {
    complete(&scene.lab)?;
    let by_mark = scene.config.value("hook").is_some_and(|hook| hook == "tcx");
    let mut rules = vec![
        json!({"name": "prefer", "port": "7001-7002", "use": "wan1"}),
        json!({"name": "strict", "port": 7003, "use": "wan1", "fallback": "strict"}),
        json!({"name": "blocked", "port": 7004, "use": "block"}),
    ];
    if by_mark {
        rules.push(json!({"name": "mark", "mark": 23, "use": "wan1"}));
    }
    with_rules(scene, rules.into())?;
    let expect = |scene: &Scene, when: &str, wanted: &[(u16, u32, Option<usize>)]| -> Result<()> {
        for to in checks::FAMILIES {
            for &(port, mark, wan) in wanted {
                let what = format!("{when}, to {to} port {port} with mark {mark}: by {wan:?}");
                wait_until(&what, SOON, || {
                    Ok(leaves_by(scene, SocketAddr::new(to, port), mark)? == wan)
                })?;
            }
        }
        Ok(())
    };
    let marked = if by_mark { 1 } else { 0 };
    expect(
        scene,
        "both work",
        &[
            (7001, 0, Some(1)),
            (7002, 0, Some(1)),
            (7003, 0, Some(1)),
            (7004, 0, None),
            (7005, 0, Some(0)),
            (7005, 23, Some(marked)),
            (7005, 24, Some(0)),
        ],
    )?;
    scene.lab.wan(1).uplink(false)?;
    expect(scene, "the second is down", &[(7001, 0, Some(0)), (7003, 0, None)])?;
    scene.lab.wan(1).uplink(true)?;
    expect(scene, "it is back", &[(7001, 0, Some(1)), (7003, 0, Some(1))])?;
    with_rules(scene, json!([]))?;
    expect(scene, "no rule is left", &[(7001, 0, Some(0)), (7004, 0, Some(0))])
}

/// All rules and routes of the gateway.
fn everything(lab: &Lab) -> Result<String> {
    let mut text = String::new();
    for family in ["-4", "-6"] {
        text += &lab.gw().run("ip", [family, "rule"])?;
        text += &lab.gw().run("ip", [family, "route", "show", "table", "all"])?;
    }
    Ok(text)
}

fn own_routes_leave_nothing_behind(scene: &mut Scene) -> Result<()> {
    let Scene { gateway, lab, .. } = scene;
    let with = complete(lab)?;
    let before = everything(lab)?;
    // Somebody else's, at a priority and in a table like ours.
    lab.gw().ip(
        "rule add priority 7701 from 192.0.2.9 lookup 99\nroute add default dev wan1 table 99\n",
    )?;
    gateway.kill()?;
    gateway.restart(lab)?;
    ensure!(complete(lab)? == with, "before and after a restart:\n{with}\n{}", ours(lab)?);
    // Somebody has meddled with them.
    lab.gw().ip("rule del priority 7702 oif wan0\nroute flush table 7702\n")?;
    wait_until("they are whole again", SOON, || Ok(ours(lab)? == with))?;
    // A device that is made anew is one of another index.
    lab.wan(1).unplug()?;
    wait_until("a WAN that is away has no routes", SOON, || {
        Ok(!ours(lab)?.contains(" table 7702") && !ours(lab)?.contains("dev wan1"))
    })?;
    lab.wan(1).plug_in()?;
    complete(lab)?;
    lab.gw().ip("rule del priority 7701 from 192.0.2.9 lookup 99\n")?;
    gateway.stop()?;
    ensure!(!ours(lab)?.is_empty(), "a stopped agent leaves its tables");
    gateway.detach(lab)?;
    ensure!(ours(lab)?.is_empty(), "still there:\n{}", ours(lab)?);
    wait_until("all is as it was before the agent came", SOON, || {
        Ok(others(&before) == others(&everything(lab)?))
    })
    .map(drop)
    .with_context(|| format!("before:\n{before}\nafter:\n{}", everything(lab).unwrap_or_default()))
}

/// What is neither ours nor the test's; a device that was made anew has its routes in
/// another place, and another link-local address.
fn others(text: &str) -> Vec<&str> {
    let is_other = |line: &&str| {
        !["proto 77", "table 99", "local fe80::"].iter().any(|part| line.contains(part))
    };
    let mut lines: Vec<&str> = text.lines().filter(is_other).collect();
    lines.sort_unstable();
    lines
}
