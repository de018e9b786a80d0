//! Classes of service in a bond: what is sent twice loses nothing when a path is cut, and
//! what is not named is treated as ever.

use std::{
    net::SocketAddr,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use mwb_common::reason::Reason;
use serde_json::json;

use super::{
    Case, Lane,
    bond_cuts::{Cut, EVERY, NOISE, during},
    bond_scene::{BondScene, End, play},
};
use crate::lab::{
    BondConfig, LabSpec,
    address::{NET4, NET6},
    is_emulated,
    traffic::Duplex,
    wait_until,
};

/// Where the stream goes.
const PORT: u16 = 5060;
/// How long the last packets may take.
const PATIENCE: Duration = Duration::from_secs(5);
/// Another one.
const OTHER: u16 = 7;

pub(super) fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    for (cut, name) in Cut::ALL {
        for (agents, after) in [(true, ""), (false, "_after_both_agents_were_killed")] {
            let name = format!("what_is_sent_twice_loses_nothing_at_{name}{after}");
            cases.push(Case::new(Lane::Alone, &name, move || {
                let scene = BondScene::new(LabSpec::relayed(2), twice)?;
                play(scene, |scene| loses_nothing(scene, cut, agents))
            }));
        }
    }
    cases.push(Case::new(Lane::Alone, "only_what_a_rule_names_is_sent_twice", || {
        play(BondScene::new(LabSpec::relayed(2), twice)?, only_what_a_rule_names)
    }));
    cases
}

fn twice(config: BondConfig) -> BondConfig {
    let rules = json!([{"class": "duplicate", "protocol": "udp", "port": PORT}]);
    config.with_gateway("classes.rules", rules.clone()).with_server("classes.rules", rules)
}

fn loses_nothing(scene: &mut BondScene, cut: Cut, agents: bool) -> Result<()> {
    let to = SocketAddr::new(NET4.into(), PORT);
    let duplex = Duplex::start(scene.lab.host(), scene.lab.net(), to, EVERY)?;
    duplex.go_on(300, EVERY)?;
    if !agents {
        scene.gateway.kill()?;
        scene.server.kill()?;
        duplex.go_on(1000, EVERY)?;
    }
    let mut longest = Duration::ZERO;
    for wan in 0..2 {
        let since = Instant::now();
        cut.apply(scene.lab.wan(wan), true)?;
        duplex.go_on(1000, EVERY)?;
        let until = Instant::now();
        let report = duplex.report();
        for (way, course) in [("there", report.there), ("back", report.back)] {
            let course = during(&course, since, until);
            let (lost, silence) = (course.lost(), course.silence());
            let what = format!("{way}, WAN {wan} cut: {lost} lost, silence for {silence:?}");
            ensure!(course.sent.len() > 500, "too few to say: {}", course.sent.len());
            ensure!(lost == 0, "{what}");
            ensure!(course.duplicated == 0, "{way}: {} came twice", course.duplicated);
            longest = longest.max(silence);
        }
        cut.apply(scene.lab.wan(wan), false)?;
        if agents {
            scene.wait_for_paths(2).context("after the cut was healed")?;
        } else {
            // The kernel side alone finds out: probes, made of data, have to be answered.
            wait_for_copies(scene, &duplex)?;
        }
        duplex.go_on(1200, EVERY)?;
    }
    println!("longest silence {longest:?}");
    ensure!(is_emulated() || longest <= NOISE, "nothing heard for {longest:?}");
    duplex.stop().map(drop)
}

/// Until both ends send by both paths again.
fn wait_for_copies(scene: &BondScene, duplex: &Duplex) -> Result<()> {
    let sent = || -> Result<Vec<u64>> {
        let all = End::BOTH.into_iter().flat_map(|end| [(end, 0), (end, 1)]);
        all.map(|(end, wan)| Ok(scene.path(end, wan)?.state.sent)).collect()
    };
    let begun = Instant::now();
    loop {
        let before = sent()?;
        duplex.go_on(500, EVERY)?;
        // Probes alone are some 25.
        if sent()?.iter().zip(before).all(|(after, before)| after - before > 300) {
            return Ok(());
        }
        let limit = Duration::from_secs(if is_emulated() { 100 } else { 10 });
        ensure!(begun.elapsed() < limit, "a path that is back has no copies");
    }
}

fn only_what_a_rule_names(scene: &mut BondScene) -> Result<()> {
    for (net, port, named) in [
        (SocketAddr::new(NET4.into(), PORT), PORT, true),
        (SocketAddr::new(NET6.into(), PORT), PORT, true),
        (SocketAddr::new(NET4.into(), OTHER), OTHER, false),
        (SocketAddr::new(NET6.into(), OTHER), OTHER, false),
    ] {
        let counted = |reason| -> Result<Vec<u64>> {
            End::BOTH.into_iter().map(|end| scene.tables(end)?.counted(reason)).collect()
        };
        let reasons = [Reason::Copied, Reason::Bonded, Reason::Duplicate];
        let mut before = Vec::new();
        for reason in reasons {
            before.push(counted(reason)?);
        }
        let duplex = Duplex::start(scene.lab.host(), scene.lab.net(), net, EVERY)?;
        duplex.go_on(500, EVERY)?;
        let report = duplex.stop()?;
        let sent = [report.there.sent.len() as u64, report.back.sent.len() as u64];
        let grown = || -> Result<[Vec<u64>; 3]> {
            let mut all = [Vec::new(), Vec::new(), Vec::new()];
            for ((grown, before), reason) in all.iter_mut().zip(&before).zip(reasons) {
                let pairs = counted(reason)?.into_iter().zip(before);
                *grown = pairs.map(|(after, before)| after - before).collect();
            }
            Ok(all)
        };
        // What one end has sent twice the other has dropped once, when the last is there.
        wait_until("each second copy is dropped", PATIENCE, || {
            let [copied, _, duplicate] = grown()?;
            ensure!(duplicate.iter().rev().eq(&copied), "{duplicate:?} of {copied:?}");
            Ok(true)
        })?;
        let grown = grown()?;
        let [copied, bonded, _] = &grown;
        let near = |count: u64, expected: u64| count.abs_diff(expected) <= 20;
        let what = format!("to {net} (port {port}): sent {sent:?}, counted {grown:?}");
        for end in 0..2 {
            let once = if named { sent[end] } else { 0 };
            ensure!(near(copied[end], once), "copied: {what}");
            ensure!(near(bonded[end], sent[end] + once), "bonded: {what}");
        }
    }
    Ok(())
}
