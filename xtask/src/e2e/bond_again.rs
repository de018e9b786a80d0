//! What is sent again: nothing is lost, nothing comes twice, and the order is kept, when a
//! path is cut and when the agent of the far end is restarted.

use std::{
    net::{IpAddr, SocketAddr},
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use serde_json::{Value, json};

use super::{
    Case, Lane,
    bond_cuts::{Cut, during},
    bond_scene::{BondScene, End, play},
};
use crate::lab::{
    BondConfig, LabSpec, LinkSpec, Loss, Shape,
    address::{NET4, NET6},
    is_emulated,
    traffic::{Course, Duplex},
};

/// Where the stream goes.
const PORT: u16 = 4500;
/// 2,000 packets a second each way.
const EVERY: Duration = Duration::from_micros(500);
/// What one link loses, where it loses some.
const LOST: f64 = 0.05;

pub(super) fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    for (cut, name) in Cut::ALL {
        let name = format!("what_is_sent_again_loses_nothing_at_{name}");
        cases.push(Case::new(Lane::Alone, &name, move || {
            let scene = BondScene::new(LabSpec::relayed(2), again)?;
            play(scene, |scene| loses_nothing_at(scene, cut))
        }));
    }
    for (name, end) in [("gateways", End::Gateway), ("servers", End::Server)] {
        let name = format!("what_is_sent_again_loses_nothing_when_the_{name}_agent_restarts");
        cases.push(Case::new(Lane::Alone, &name, move || {
            let scene = BondScene::new(LabSpec::relayed(2), again)?;
            play(scene, |scene| loses_nothing_at_a_restart(scene, end))
        }));
    }
    cases.push(Case::new(
        Lane::Alone,
        "what_is_sent_again_loses_nothing_by_a_link_that_loses",
        || {
            // Or nothing goes by the link that loses.
            let both = |config| again(config).with_gateway("balance", "round_robin");
            play(BondScene::new(one_loses(), both)?, loses_nothing_by_a_lossy_link)
        },
    ));
    cases
}

fn again(config: BondConfig) -> BondConfig {
    repaired(config, &json!("retransmit"))
}

/// What the stream loses is repaired so, both ways.
pub(super) fn repaired(config: BondConfig, repair: &Value) -> BondConfig {
    let rules = json!([{"class": "auto", "repair": repair, "protocol": "udp", "port": PORT}]);
    config.with_gateway("classes.rules", rules.clone()).with_server("classes.rules", rules)
}

pub(super) fn one_loses() -> LabSpec {
    let link = |loss| {
        let link = LinkSpec { loss, ..LinkSpec::new(30_000_000, Duration::from_millis(10)) };
        Shape { up: link.clone(), down: link, ..Shape::default() }
    };
    LabSpec::shaped([link(Loss::Random(LOST)), link(Loss::None)])
}

pub(super) fn every() -> Duration {
    if is_emulated() { 10 * EVERY } else { EVERY }
}

pub(super) fn stream(scene: &BondScene, net: IpAddr) -> Result<Duplex> {
    let every = every();
    let to = SocketAddr::new(net, PORT);
    let duplex = Duplex::start(scene.lab.host(), scene.lab.net(), to, every)?;
    // Until acknowledgements come: before, nobody knows that there is one who sends them.
    duplex.go_on(1000, every)?;
    Ok(duplex)
}

/// All came, once and in order but for so many that have `swapped` places; says the longest
/// time without any.
pub(super) fn is_whole(course: &Course, way: &str, swapped: usize) -> Result<Duration> {
    let (lost, silence) = (course.lost(), course.silence());
    ensure!(course.sent.len() > 500, "{way}: too few to say: {}", course.sent.len());
    ensure!(lost == 0, "{way}: {lost} lost, silence for {silence:?}");
    ensure!(course.duplicated == 0, "{way}: {} came twice", course.duplicated);
    let came: Vec<Instant> = course.arrived.iter().flatten().copied().collect();
    let back = came.windows(2).filter(|pair| pair[1] < pair[0]).count();
    ensure!(back <= swapped, "{way}: {back} out of order");
    Ok(silence)
}

fn loses_nothing_at(scene: &mut BondScene, cut: Cut) -> Result<()> {
    let mut longest = Duration::ZERO;
    for net in [IpAddr::from(NET4), NET6.into()] {
        let duplex = stream(scene, net)?;
        for wan in 0..2 {
            let since = Instant::now();
            cut.apply(scene.lab.wan(wan), true)?;
            duplex.go_on(1000, every())?;
            let until = Instant::now();
            let report = duplex.report();
            for (way, course) in [("there", report.there), ("back", report.back)] {
                let course = during(&course, since, until);
                let way = format!("{net}, {way}, WAN {wan} cut");
                longest = longest.max(is_whole(&course, &way, 0)?);
            }
            cut.apply(scene.lab.wan(wan), false)?;
            scene.wait_for_paths(2).context("after the cut was healed")?;
            duplex.go_on(1000, every())?;
        }
        duplex.stop()?;
    }
    println!("longest silence {longest:?}");
    Ok(())
}

fn loses_nothing_at_a_restart(scene: &mut BondScene, end: End) -> Result<()> {
    let duplex = stream(scene, NET4.into())?;
    let since = Instant::now();
    scene.agent(end).stop()?;
    duplex.go_on(500, every())?;
    scene.agent(end).relaunch()?;
    duplex.go_on(2000, every())?;
    let until = Instant::now();
    let report = duplex.stop()?;
    for (way, course) in [("there", report.there), ("back", report.back)] {
        is_whole(&during(&course, since, until), way, 0)?;
    }
    Ok(())
}

/// Some are lost, and sent again by the other path.
fn loses_nothing_by_a_lossy_link(scene: &mut BondScene) -> Result<()> {
    let before = End::BOTH.map(|end| again_of(scene, end));
    for net in [IpAddr::from(NET4), NET6.into()] {
        let duplex = stream(scene, net)?;
        let since = Instant::now();
        duplex.go_on(4000, every())?;
        let until = Instant::now();
        duplex.go_on(1000, every())?;
        let report = duplex.stop()?;
        for (way, course) in [("there", report.there), ("back", report.back)] {
            is_whole(&during(&course, since, until), &format!("{net}, {way}"), 0)?;
        }
    }
    let after = End::BOTH.map(|end| again_of(scene, end));
    let again: Vec<u64> = before
        .into_iter()
        .zip(after)
        .map(|(before, after)| Ok(after? - before?))
        .collect::<Result<_>>()?;
    println!("sent again: {again:?}");
    ensure!(again.iter().any(|&again| again > 0), "nothing was sent again: {again:?}");
    Ok(())
}

/// Packets that an end has sent again.
fn again_of(scene: &BondScene, end: End) -> Result<u64> {
    (0..2).map(|wan| Ok(scene.path(end, wan)?.state.again)).sum()
}
