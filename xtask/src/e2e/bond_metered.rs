//! A metered path of a bond: idle, it has few probes at both ends, whatever the other
//! carries; when the other is cut it takes everything at once, and is probed as any path.

use std::{
    net::SocketAddr,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use mwb_common::{maps::bond_path_flag, reason::Reason};
use serde_json::Value;

use super::{
    Case, Lane,
    bond_cuts::{Cut, EVERY, NOISE, during},
    bond_scene::{BondScene, End, play},
};
use crate::lab::{LabSpec, address::NET4, is_emulated, traffic::Duplex, wait_until};

/// How long a bond may take to come up, and a path to be idle.
const START: Duration = Duration::from_secs(30);
/// For how long probes of the idle path are counted.
const WATCHED: Duration = Duration::from_secs(8);
/// Probes and answers to the far end's that an end sends by the idle path in that time:
/// one of each in a second, and some at its ends. Any other path has 320.
const FEW: std::ops::RangeInclusive<u64> = 8..=24;
/// What the cost in a month is told for.
const MONTH: f64 = 30.0 * 86_400.0;

pub(super) fn cases() -> Vec<Case> {
    vec![Case::new(Lane::Alone, "a_metered_path_is_probed_seldom_until_it_is_needed", || {
        let scene = BondScene::launched(
            LabSpec::relayed(2),
            |_| Ok(()),
            |config| config.with_gateway("wans.1.priority", 1).with_gateway("wans.1.metered", true),
        )?;
        play(scene, seldom_until_needed)
    })]
}

fn seldom_until_needed(scene: &mut BondScene) -> Result<()> {
    for end in End::BOTH {
        wait_until("both paths live, and all is found out about them", START, || {
            let answered = scene.tables(end)?.answered()?;
            ensure!(answered == 2, "{answered} live at the {end:?}");
            let metered = scene.path(end, 1)?;
            ensure!(metered.path.flags & bond_path_flag::METERED != 0, "the {end:?} knows not");
            ensure!(metered.path.mtu > 1450, "{} bytes", metered.path.mtu);
            probed_every(scene, end, 1000.0)
        })?;
    }
    let to = SocketAddr::new(NET4.into(), 7);
    let duplex = Duplex::start(scene.lab.host(), scene.lab.net(), to, EVERY)?;
    duplex.go_on(300, EVERY)?;
    stays_idle(scene)?;
    takes_over(scene, &duplex)?;
    Cut::Carrier.apply(scene.lab.wan(0), false)?;
    for end in End::BOTH {
        wait_until("the path is idle again", START, || probed_every(scene, end, 1000.0))?;
    }
    duplex.stop().map(drop)
}

/// While the other path is busy.
fn stays_idle(scene: &BondScene) -> Result<()> {
    let seen =
        || -> Result<Vec<_>> { End::BOTH.map(|end| scene.path(end, 1)).into_iter().collect() };
    let (before, begun) = (seen()?, Instant::now());
    std::thread::sleep(WATCHED);
    let (after, took) = (seen()?, begun.elapsed().as_secs_f64());
    for (end, (before, after)) in End::BOTH.into_iter().zip(before.iter().zip(&after)) {
        let sent = after.state.sent - before.state.sent;
        let bytes = after.state.sent_bytes - before.state.sent_bytes + after.state.received_bytes
            - before.state.received_bytes;
        ensure!(
            FEW.contains(&sent) && after.state.used_at == before.state.used_at,
            "the {end:?} sent {sent} packets by a path that nobody uses: {after:?}"
        );
        ensure!(after.state.alive_until > before.state.alive_until, "{end:?}: it is dead");
        let path = shown(scene, end)?;
        let cost = path["probe_bytes_per_month"].as_f64().context("a cost")?;
        let counted = bytes as f64 / took * MONTH;
        ensure!(
            (0.7..1.4).contains(&(counted / cost)),
            "the {end:?} tells of {cost} bytes a month, and {counted} were counted: {path}"
        );
        ensure!(path["metered"] == true, "{path}");
    }
    let said = scene.gateway.mwb(&["bond"])?;
    let line = said.lines().find(|line| line.contains("wan1")).context("a path by wan1")?;
    for word in ["yes", "1000 ms", "1.2"] {
        ensure!(line.contains(word), "`mwb bond` does not say {word}:\n{said}");
    }
    Ok(())
}

/// When the carrier of the other goes.
fn takes_over(scene: &BondScene, duplex: &Duplex) -> Result<()> {
    let before = duplex.report();
    for (way, course) in [("there", &before.there), ("back", &before.back)] {
        let arrived = course.sent.len().saturating_sub(50);
        let lost = course.arrived[..arrived].iter().filter(|at| at.is_none()).count();
        ensure!(lost == 0, "{lost} lost {way} before the cut");
    }
    let since = Instant::now();
    Cut::Carrier.apply(scene.lab.wan(0), true)?;
    duplex.go_on(1000, EVERY)?;
    let until = Instant::now();
    let report = duplex.report();
    for (way, course) in [("there", report.there), ("back", report.back)] {
        let course = during(&course, since, until);
        let (lost, span, silence) = (course.lost(), course.lost_span(), course.silence());
        let promise = Cut::Carrier.promise(true);
        ensure!(
            span <= promise && silence <= promise + NOISE,
            "{way}: {lost} lost over {span:?}, nothing heard for {silence:?}"
        );
        ensure!(course.duplicated == 0, "{way}: {} came twice", course.duplicated);
    }
    // The other path is cut at both ends: what comes is by this one.
    let answers = |end| scene.tables(end)?.counted(Reason::ProbeReflected);
    let before: Vec<u64> = End::BOTH.into_iter().map(answers).collect::<Result<_>>()?;
    let begun = Instant::now();
    duplex.go_on(2000, EVERY)?;
    let due = begun.elapsed().as_millis() as u64 / 50;
    let least = if is_emulated() { due / 4 } else { due * 2 / 3 };
    for (end, before) in End::BOTH.into_iter().zip(before) {
        let count = answers(end)? - before;
        ensure!(count >= least, "{count} probes of {due} came to the {end:?} by a path in use");
        probed_every(scene, end, 50.0)?;
    }
    Ok(())
}

/// Whether an end says that it probes the second WAN's path so often, in ms.
fn probed_every(scene: &BondScene, end: End, ms: f64) -> Result<bool> {
    let path = shown(scene, end)?;
    let every = path["probe_interval_ms"].as_f64().context("an interval")?;
    ensure!((every - ms).abs() < 1.0, "the {end:?} probes it every {every} ms: {path}");
    Ok(true)
}

/// The path over the second WAN, as an end's API shows it.
fn shown(scene: &BondScene, end: End) -> Result<Value> {
    let id = scene.path(end, 1)?.id;
    let bond = scene.shown(end)?;
    let paths = bond["sessions"][0]["paths"].as_array().context("paths")?;
    let path = paths.iter().find(|path| path["path"] == id).context("it is not shown")?;
    Ok(path.clone())
}
