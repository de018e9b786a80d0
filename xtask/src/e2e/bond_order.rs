//! Packets that go by paths of unlike length come in order, and without agents they come
//! all the same.

use std::{net::SocketAddr, time::Duration};

use anyhow::{Context as _, Result, ensure};

use serde_json::Value;

use super::{
    Case, Lane,
    bond_scene::{BondScene, End, bonded},
    checks,
};
use crate::lab::{
    BondConfig, LabSpec, LinkSpec, Shape, is_emulated,
    traffic::{UdpReport, UdpServer, UdpStream},
    wait_until,
};

/// The way by each link.
const DELAYS: [Duration; 3] =
    [Duration::from_millis(5), Duration::from_millis(45), Duration::from_millis(20)];
/// How long it may take until packets are shared among all.
const PATIENCE: Duration = Duration::from_secs(20);
/// Of each, in bit/s.
const RATE: u64 = 30_000_000;

pub(super) fn cases() -> Vec<Case> {
    vec![
        bonded(
            Lane::Alone,
            "packets_by_paths_of_unlike_length_come_in_order",
            unlike,
            in_turn,
            packets_come_in_order,
        ),
        bonded(
            Lane::Alone,
            "packets_come_as_they_do_when_both_agents_were_killed",
            unlike,
            in_turn,
            without_agents_they_come_all_the_same,
        ),
    ]
}

fn unlike() -> LabSpec {
    LabSpec::shaped(DELAYS.map(|delay| {
        let link = LinkSpec::new(RATE, delay);
        Shape { up: link.clone(), down: link, ..Shape::default() }
    }))
}

/// Each packet goes by the next path, however small its flow is.
fn in_turn(config: BondConfig) -> BondConfig {
    config.with_gateway("balance", "round_robin")
}

/// A stream there and back.
fn stream(scene: &BondScene, net: std::net::IpAddr) -> Result<UdpReport> {
    let (count, interval) = if is_emulated() { (300, 10) } else { (2_000, 1) };
    let server = UdpServer::start(scene.lab.net(), SocketAddr::new(net, 7))?;
    let stream = UdpStream::new(count, Duration::from_millis(interval));
    let report = stream.run(scene.lab.host(), &server)?;
    let back = report.back.as_ref().context("echoes were asked for")?;
    for way in [&report.there, back] {
        ensure!(way.received == report.sent, "{net}: not everything arrived: {report:?}");
        ensure!(way.duplicated == 0, "{net}: something came twice: {report:?}");
    }
    Ok(report)
}

fn packets_come_in_order(scene: &mut BondScene) -> Result<()> {
    for net in checks::FAMILIES {
        let before = End::BOTH.map(|end| scene.counted(end, "ahead"));
        let report = stream(scene, net)?;
        for (end, before) in End::BOTH.into_iter().zip(before) {
            let ahead = scene.counted(end, "ahead")? - before?;
            ensure!(ahead > report.sent / 4, "{net}: {ahead} came ahead to the {end:?}");
        }
        // Packets of an emulated machine are later than any path is longer.
        let most = if is_emulated() { report.sent / 10 } else { 0 };
        let back = report.back.as_ref().context("echoes were asked for")?;
        for way in [&report.there, back] {
            ensure!(way.reordered <= most, "{net}: out of order: {report:?}");
        }
    }
    End::BOTH.into_iter().try_for_each(|end| parts_are_the_whole(scene, end))
}

/// What was put in order is told by path as well, and nothing of it twice.
fn parts_are_the_whole(scene: &mut BondScene, end: End) -> Result<()> {
    let shown = scene.shown(end)?;
    let order = &shown["sessions"][0]["order"];
    let parts = order["parts"].as_array().context("parts")?;
    let sum = |given: &Value| -> u64 {
        given.as_object().map_or(0, |given| given.values().filter_map(Value::as_u64).sum())
    };
    let by_path: Vec<u64> = parts.iter().map(|part| sum(&part["given"])).collect();
    let whole = sum(&order["given"]);
    ensure!(whole > 0 && by_path.iter().sum::<u64>() == whole, "the {end:?} has {order:#}");
    ensure!(parts.len() > 1 && parts.iter().all(|part| part["repair"] == "none"), "{order:#}");
    Ok(())
}

fn without_agents_they_come_all_the_same(scene: &mut BondScene) -> Result<()> {
    // What the agents have not shared among all paths by then never will be.
    for end in End::BOTH {
        wait_until("all paths have a share", PATIENCE, || {
            Ok(scene.tables(end)?.shared()?.len() == DELAYS.len())
        })?;
    }
    scene.gateway.kill()?;
    scene.server.kill()?;
    // What the agents held, and were to be handed, is lost with them.
    stream(scene, checks::FAMILIES[0]).ok();
    for net in checks::FAMILIES {
        let report = stream(scene, net)?;
        ensure!(report.there.reordered > report.sent / 10, "{net}: in order: {report:?}");
    }
    Ok(())
}
