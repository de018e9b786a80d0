//! Blocks with parity: what a link loses is computed at the far end, and with what parity
//! cannot give back sent again, nothing is lost at all.

use std::{
    net::IpAddr,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use serde_json::json;

use super::{
    Case, Lane,
    bond_again::{every, is_whole, one_loses, repaired, stream},
    bond_cuts::{Cut, during},
    bond_scene::{BondScene, End, play},
    checks,
};
use crate::lab::{BondConfig, traffic::Duplex, wait_until};

/// The WAN that loses packets, both ways.
const LOSSY: usize = 0;
/// What two CPUs give on at the same moment, one of it computed, may change places.
const SWAPPED: usize = 2;
/// How long an end may take to measure that.
const PATIENCE: Duration = Duration::from_secs(30);

pub(super) fn cases() -> Vec<Case> {
    let case = |name: &str, configure: fn(BondConfig) -> BondConfig, check: Check| {
        Case::new(Lane::Alone, name, move || play(BondScene::new(one_loses(), configure)?, check))
    };
    vec![
        case("parity_gives_back_what_a_link_loses", parity, gives_back),
        case("parity_and_repeats_together_lose_nothing", both, loses_nothing),
        case("parity_goes_with_its_data_when_no_other_path_lives", parity, goes_alone),
    ]
}

type Check = fn(&mut BondScene) -> Result<()>;

/// Each packet goes by the next path, or nothing goes by the one that loses.
fn in_turn(config: BondConfig) -> BondConfig {
    config.with_gateway("balance", "round_robin")
}

fn parity(config: BondConfig) -> BondConfig {
    repaired(in_turn(config), &json!("fec"))
}

fn both(config: BondConfig) -> BondConfig {
    repaired(in_turn(config), &json!(["fec", "retransmit"]))
}

/// A stream whose packets are put in blocks: both ends know that one path loses some.
fn protected(scene: &BondScene, net: IpAddr) -> Result<Duplex> {
    let duplex = stream(scene, net)?;
    wait_until("both ends know what the path loses", PATIENCE, || {
        duplex.go_on(100, every())?;
        for end in End::BOTH {
            let loss = f64::from(scene.path(end, LOSSY)?.path.loss) / 65_536.0;
            ensure!(loss > 0.02, "{loss} at the {end:?}");
        }
        Ok(true)
    })?;
    Ok(duplex)
}

/// Packets that an end has counted so far under a result.
fn blocks(scene: &BondScene, end: End, result: &str) -> Result<u64> {
    let api = match end {
        End::Gateway => scene.gateway.api(),
        End::Server => scene.server.api(),
    };
    let text = api.metrics()?;
    let label = format!("result=\"{result}\"");
    let line = text
        .lines()
        .find(|line| line.starts_with("mwb_bond_parity_packets_total{") && line.contains(&label))
        .with_context(|| format!("no metric of {result}"))?;
    let (_, value) = line.rsplit_once(' ').context("a value")?;
    Ok(value.parse::<f64>()? as u64)
}

/// What was recovered, added up over the paths that it was lost on.
fn recovered_by_path(scene: &BondScene, end: End) -> Result<u64> {
    let api = match end {
        End::Gateway => scene.gateway.api(),
        End::Server => scene.server.api(),
    };
    let text = api.metrics()?;
    let lines = text.lines().filter(|line| line.starts_with("mwb_bond_path_recovered_total{"));
    let values = lines.filter_map(|line| line.rsplit_once(' ')?.1.parse::<f64>().ok());
    Ok(values.sum::<f64>() as u64)
}

/// What a stream has come to while `work` was done: packets lost and recovered by each way.
fn lost_and_recovered(scene: &BondScene, net: IpAddr, packets: usize) -> Result<[(u64, u64); 2]> {
    let duplex = protected(scene, net)?;
    // What goes there is recovered at the server.
    let ends = [End::Server, End::Gateway];
    let before = ends.map(|end| blocks(scene, end, "recovered"));
    let since = Instant::now();
    duplex.go_on(packets, every())?;
    let until = Instant::now();
    duplex.go_on(1_000, every())?;
    let report = duplex.stop()?;
    let mut found = [(0, 0); 2];
    let courses = [("there", &report.there), ("back", &report.back)];
    for ((((way, course), end), before), found) in
        courses.into_iter().zip(ends).zip(before).zip(&mut found)
    {
        let recovered = blocks(scene, end, "recovered")? - before?;
        ensure!(recovered_by_path(scene, end)? >= recovered, "{net}: the paths of {way}");
        let course = during(course, since, until);
        let lost = course.lost();
        println!("{net}, {way}: {lost} of {} lost, {recovered} recovered", course.sent.len());
        ensure!(course.duplicated == 0, "{net}, {way}: {} came twice", course.duplicated);
        *found = (lost, recovered);
    }
    Ok(found)
}

fn gives_back(scene: &mut BondScene) -> Result<()> {
    for net in checks::FAMILIES {
        for (lost, recovered) in lost_and_recovered(scene, net, 4_000)? {
            ensure!(recovered > 20, "{net}: {recovered} recovered");
            ensure!(lost * 10 <= recovered, "{net}: {lost} lost, {recovered} recovered");
        }
    }
    for end in End::BOTH {
        let [parity, other] =
            [LOSSY, 1 - LOSSY].map(|wan| scene.path(end, wan).map(|path| path.state.parity));
        let (parity, other) = (parity?, other?);
        ensure!(other > 100 && parity * 10 < other, "{end:?}: {parity} by the path that loses");
        let untold: u64 = [0, 1]
            .into_iter()
            .map(|wan| Ok(scene.path(end, wan)?.state.untold))
            .sum::<Result<_>>()?;
        ensure!(untold == 0, "{end:?}: {untold} copies were not given");
    }
    Ok(())
}

fn loses_nothing(scene: &mut BondScene) -> Result<()> {
    for net in checks::FAMILIES {
        let duplex = protected(scene, net)?;
        let before = blocks(scene, End::Server, "recovered")?;
        let since = Instant::now();
        duplex.go_on(4_000, every())?;
        let until = Instant::now();
        duplex.go_on(1_000, every())?;
        let report = duplex.stop()?;
        for (way, course) in [("there", report.there), ("back", report.back)] {
            let silence =
                is_whole(&during(&course, since, until), &format!("{net}, {way}"), SWAPPED)?;
            println!("{net}, {way}: longest silence {silence:?}");
        }
        let recovered = blocks(scene, End::Server, "recovered")? - before;
        ensure!(recovered > 20, "{net}: {recovered} recovered");
    }
    Ok(())
}

fn goes_alone(scene: &mut BondScene) -> Result<()> {
    for net in checks::FAMILIES {
        drop(protected(scene, net)?.stop()?);
    }
    Cut::Carrier.apply(scene.lab.wan(1 - LOSSY), true)?;
    for net in checks::FAMILIES {
        for (lost, recovered) in lost_and_recovered(scene, net, 2_000)? {
            ensure!(recovered > 20, "{net}: {recovered} recovered");
            ensure!(lost * 5 <= recovered, "{net}: {lost} lost, {recovered} recovered");
        }
    }
    Ok(())
}
