//! Rules of classes that keep packets to paths, or let none pass, at both ends of a bond.

use std::{net::SocketAddr, time::Duration};

use anyhow::{Result, ensure};
use serde_json::{Value, json};

use super::{
    Case, Lane,
    bond_cuts::{Cut, EVERY},
    bond_scene::{BondScene, End, play},
    checks,
};
use crate::lab::{
    BondConfig, LabSpec,
    traffic::{Duplex, UdpServer, UdpStream},
    wait_until,
};

/// What the rule keeps to the second path.
const KEPT: u16 = 5061;
/// What the rule lets by no path.
const BLOCKED: u16 = 5062;
/// How many packets a stream has at least.
const COUNT: usize = 1_000;
/// How long a path may take to come back.
const PATIENCE: Duration = Duration::from_secs(60);
/// Probes of a path while a stream runs, and more.
const PROBES: u64 = 200;

pub(super) fn cases() -> Vec<Case> {
    vec![Case::new(Lane::Together, "a_rule_of_a_bond_keeps_flows_to_a_path_or_drops_them", || {
        play(BondScene::launched(LabSpec::relayed(2), |_| Ok(()), ruled)?, rules_hold)
    })]
}

fn ruled(config: BondConfig) -> BondConfig {
    let rules = |second: Value| {
        json!([
            {"class": "block", "protocol": "udp", "port": BLOCKED},
            {"class": "auto", "protocol": "udp", "port": KEPT, "paths": second},
        ])
    };
    // The first path is the better one for all else.
    config
        .with_gateway("wans.1.priority", 1)
        .with_gateway("classes.rules", rules(json!("wan1")))
        .with_server("classes.rules", rules(json!(2)))
}

/// Until both paths answer probes, also the one that is spared.
fn both_answer(scene: &mut BondScene) -> Result<()> {
    for end in End::BOTH {
        let what = format!("both paths answer probes of the {end:?}");
        wait_until(&what, PATIENCE, || {
            ensure!(scene.agent(end).process().is_running()?, "the agent has ended");
            Ok(scene.tables(end)?.answered()? == 2)
        })?;
    }
    Ok(())
}

fn rules_hold(scene: &mut BondScene) -> Result<()> {
    both_answer(scene)?;
    for to in checks::FAMILIES {
        let kept = by_paths(scene, SocketAddr::new(to, KEPT))?;
        ensure!(
            kept.iter().all(|[first, second]| *first < PROBES && *second > COUNT as u64),
            "{kept:?}"
        );
        let other = by_paths(scene, SocketAddr::new(to, KEPT + 2))?;
        ensure!(
            other.iter().all(|[first, second]| *second < PROBES && *first > COUNT as u64),
            "{other:?}"
        );

        let before = scene.counted(End::Gateway, "policy_blocked")?;
        let server = UdpServer::start(scene.lab.net(), SocketAddr::new(to, BLOCKED))?;
        let report = UdpStream::new(50, Duration::from_millis(2)).run(scene.lab.host(), &server)?;
        ensure!(report.there.received == 0, "what is blocked arrived: {report:?}");
        let blocked = scene.counted(End::Gateway, "policy_blocked")? - before;
        ensure!(blocked == 50, "{blocked} are counted, of 50");
    }
    // While the path is cut others take its place, and it is used again.
    let to = SocketAddr::new(checks::FAMILIES[0], KEPT);
    let duplex = Duplex::start(scene.lab.host(), scene.lab.net(), to, EVERY)?;
    duplex.go_on(300, EVERY)?;
    Cut::Upwards.apply(scene.lab.wan(1), true)?;
    duplex.go_on(COUNT, EVERY)?;
    Cut::Upwards.apply(scene.lab.wan(1), false)?;
    let came = duplex.report();
    ensure!(came.there.lost() < 500, "{} lost while the path was cut", came.there.lost());
    both_answer(scene)?;
    duplex.stop().map(drop)?;
    let kept = by_paths(scene, to)?;
    ensure!(kept.iter().all(|[_, second]| *second > COUNT as u64), "{kept:?}");
    let shown: Value = serde_json::from_str(&scene.gateway.api().get("/v1/bond")?)?;
    let rows = shown["classes"].as_array().map_or(0, Vec::len);
    let matched = &shown["classes"][1]["matched"]["packets"];
    ensure!(rows == 3 && matched.as_u64() > Some(3 * COUNT as u64), "{:#}", shown["classes"]);
    Ok(())
}

/// How many packets each end sends by either path while a stream goes there and back.
fn by_paths(scene: &BondScene, to: SocketAddr) -> Result<[[u64; 2]; 2]> {
    let sent = || -> Result<[[u64; 2]; 2]> {
        let mut all = [[0; 2]; 2];
        for (row, end) in all.iter_mut().zip(End::BOTH) {
            for (wan, sent) in row.iter_mut().enumerate() {
                *sent = scene.path(end, wan)?.state.sent;
            }
        }
        Ok(all)
    };
    let before = sent()?;
    let duplex = Duplex::start(scene.lab.host(), scene.lab.net(), to, EVERY)?;
    duplex.go_on(COUNT, EVERY)?;
    let report = duplex.stop()?;
    ensure!(report.there.lost() + report.back.lost() == 0, "{to}: lost on living paths");
    let mut grown = sent()?;
    for (grown, before) in grown.iter_mut().flatten().zip(before.iter().flatten()) {
        *grown -= before;
    }
    Ok(grown)
}
