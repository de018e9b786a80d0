//! A path of a bond is cut, in each way that a WAN is cut, under a stream in each
//! direction; with both agents at work, and after both were killed.

use std::{
    net::SocketAddr,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};

use super::{
    Case, Lane,
    bond_scene::{BondScene, End, play},
};
use crate::lab::{
    Direction, LabSpec, Wan,
    address::NET4,
    is_emulated,
    traffic::{Course, Duplex},
};

/// 1,000 packets a second each way.
pub(super) const EVERY: Duration = Duration::from_millis(1);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Cut {
    Carrier,
    Upwards,
    Downwards,
}

impl Cut {
    pub(super) const ALL: [(Cut, &'static str); 3] = [
        (Cut::Carrier, "a_lost_carrier"),
        (Cut::Upwards, "a_blackhole_upwards"),
        (Cut::Downwards, "a_blackhole_downwards"),
    ];

    pub(super) fn apply(self, wan: &Wan, cut: bool) -> Result<()> {
        match self {
            Cut::Carrier => wan.carrier(!cut),
            Cut::Upwards => wan.blackhole(&[Direction::Up], cut),
            Cut::Downwards => wan.blackhole(&[Direction::Down], cut),
        }
    }

    /// The ends whose packets it swallows.
    fn hits(self) -> &'static [End] {
        match self {
            Cut::Carrier => &End::BOTH,
            Cut::Upwards => &[End::Gateway],
            Cut::Downwards => &[End::Server],
        }
    }

    /// How long nothing may pass.
    pub(super) fn promise(self, agents: bool) -> Duration {
        let promise = if self == Cut::Carrier && agents { 20 } else { 200 };
        Duration::from_millis(if is_emulated() { 10 * promise } else { promise })
    }
}

/// A path that can be used again is, within this time.
const BACK: Duration = Duration::from_secs(5);

/// A busy machine may hold up the ends of a stream for so long besides.
pub(super) const NOISE: Duration = Duration::from_millis(100);

pub(super) fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    for (cut, name) in Cut::ALL {
        for (agents, after) in [(true, ""), (false, "_after_both_agents_were_killed")] {
            let name = format!("streams_in_a_bond_survive_{name}{after}");
            cases.push(Case::new(Lane::Alone, &name, move || {
                let scene = BondScene::new(LabSpec::relayed(2), |config| config)?;
                play(scene, |scene| streams_survive(scene, cut, agents))
            }));
        }
    }
    cases
}

fn streams_survive(scene: &mut BondScene, cut: Cut, agents: bool) -> Result<()> {
    let lab = &scene.lab;
    let to = SocketAddr::new(NET4.into(), 7);
    let duplex = Duplex::start(lab.host(), lab.net(), to, EVERY)?;
    duplex.go_on(300, EVERY)?;
    if !agents {
        scene.gateway.kill()?;
        scene.server.kill()?;
        // Until nothing is left of what they did last.
        duplex.go_on(1000, EVERY)?;
    }
    let calm = duplex.report();
    for (way, course) in [("there", &calm.there), ("back", &calm.back)] {
        // The last ones are on their way.
        let arrived = course.sent.len().saturating_sub(50);
        let lost = course.arrived[..arrived].iter().filter(|at| at.is_none()).count();
        ensure!(lost == 0, "{lost} lost {way} before any cut");
    }
    let mut healed = None;
    for &end in cut.hits() {
        if let Some(wan) = healed.take() {
            heal(scene, &duplex, cut, wan, agents)?;
        }
        let wan = used(scene, &duplex, end)?;
        let since = Instant::now();
        cut.apply(scene.lab.wan(wan), true)?;
        duplex.go_on(1000, EVERY)?;
        let until = Instant::now();
        let report = duplex.report();
        ensure!(used(scene, &duplex, end)? != wan, "the {end:?} still sends by WAN {wan}");
        for (way, course) in [("there", report.there), ("back", report.back)] {
            let course = during(&course, since, until);
            let (lost, span, silence) = (course.lost(), course.lost_span(), course.silence());
            let what =
                || format!("{way}: {lost} lost over {span:?}, nothing heard for {silence:?}");
            let promise = cut.promise(agents);
            ensure!(span <= promise && silence <= promise + NOISE, "{}", what());
            ensure!(course.duplicated == 0, "{way}: {} came twice", course.duplicated);
        }
        healed = Some(wan);
    }
    // One that has died twice comes back later.
    if let (Some(wan), [_]) = (healed, cut.hits()) {
        heal(scene, &duplex, cut, wan, agents)?;
    }
    duplex.stop().map(drop)
}

/// Until the cut WAN is used again. The kernel tells of carriers once in a second only
/// (its link watch), so that the next cut comes later than that.
fn heal(scene: &mut BondScene, duplex: &Duplex, cut: Cut, wan: usize, agents: bool) -> Result<()> {
    cut.apply(scene.lab.wan(wan), false)?;
    let healed = Instant::now();
    if agents {
        scene.wait_for_paths(2).context("after the cut was healed")?;
        let took = healed.elapsed();
        ensure!(is_emulated() || took <= BACK, "used again only after {took:?}");
    }
    duplex.go_on(1200, EVERY)
}

/// What was sent between two times, less what may still be on its way.
pub(super) fn during(course: &Course, since: Instant, until: Instant) -> Course {
    let mut course = course.since(since);
    let last = until.checked_sub(NOISE).unwrap_or(until);
    let count = course.sent.partition_point(|&sent| sent < last);
    course.sent.truncate(count);
    course.arrived.truncate(count);
    course
}

/// The WAN that an end sends most of the stream by.
fn used(scene: &BondScene, duplex: &Duplex, end: End) -> Result<usize> {
    let sent =
        || -> Result<Vec<u64>> { (0..2).map(|wan| Ok(scene.path(end, wan)?.state.sent)).collect() };
    let before = sent()?;
    duplex.go_on(100, EVERY)?;
    let grown = sent()?.into_iter().zip(before).map(|(after, before)| after - before);
    let most = grown.enumerate().max_by_key(|(_, grown)| *grown);
    most.map(|(wan, _)| wan).context("two WANs")
}
