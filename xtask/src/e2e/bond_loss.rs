//! What each path loses is what is shown of it, at both ends, at as many paths as there can
//! be.

use std::{net::SocketAddr, time::Duration};

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;

use super::{
    Case, Lane,
    bond_accounts::{dropped, lose},
    bond_scene::{BondScene, End, bonded},
    checks,
};
use crate::lab::{
    Direction, LabSpec, is_emulated,
    traffic::{UdpServer, UdpStream},
    wait_until,
};

const PATHS: usize = 8;
/// Every path loses so many of a thousand more than the one before.
const STEP: u64 = 5;
/// What is shown is of the last probes that were answered, each counting 5 % less than the
/// next: it scatters as the loss of so many times the packets of an interval does.
const INTERVALS: f64 = 1.95 / 0.05;
/// Of probes of a path in use, in seconds.
const INTERVAL: f64 = 0.05;
/// Standard deviations that each of 16 figures may be off: one in 100,000 is by more.
const DEVIATIONS: f64 = 4.5;
/// What of a path is on its way, or not probed yet, when both are looked at.
const UNSEEN: u64 = 12;

pub(super) fn cases() -> Vec<Case> {
    vec![bonded(
        Lane::Alone,
        "the_loss_of_each_of_eight_paths_is_shown_as_it_is",
        || LabSpec::direct(PATHS),
        |config| config.with_gateway("balance", "round_robin"),
        losses_are_shown,
    )]
}

fn set(wan: usize) -> f64 {
    (wan as u64 + 1) as f64 * STEP as f64 / 1000.0
}

fn losses_are_shown(scene: &mut BondScene) -> Result<()> {
    for end in End::BOTH {
        wait_until("all paths have a share", Duration::from_secs(5), || {
            Ok(scene.tables(end)?.shared()?.len() == PATHS)
        })?;
    }
    for wan in 0..PATHS {
        lose(&scene.lab, wan, (wan as u64 + 1) * STEP)?;
    }
    let every = Duration::from_micros(if is_emulated() { 2_000 } else { 200 });
    let server = UdpServer::start(scene.lab.net(), SocketAddr::new(checks::FAMILIES[0], 7))?;
    let stream = UdpStream::new(u64::MAX, every).start(scene.lab.host(), &server)?;
    // Until little counts of what was before the losses.
    let enough = 6.0 / every.as_secs_f64();
    wait_until("the paths are measured", Duration::from_secs(60), || {
        Ok(stream.report().sent as f64 > enough)
    })?;
    let shown = End::BOTH.map(|end| paths(scene, end));
    drop(stream.stop()?);

    let each = INTERVAL / every.as_secs_f64() / PATHS as f64;
    let mut wrong = Vec::new();
    for (end, shown) in End::BOTH.into_iter().zip(shown) {
        let shown = shown?;
        for wan in 0..PATHS {
            let id = scene.path(end, wan)?.id;
            let path = shown.iter().find(|path| path["path"] == id).context("a path")?;
            let loss = path["loss"].as_f64().context("a loss")?;
            let (set, deviation) = (set(wan), (set(wan) / (each * INTERVALS)).sqrt());
            println!("{end:?}, WAN {wan}: {loss:.4} shown, {set:.4} set, ±{deviation:.4}");
            if (loss - set).abs() > DEVIATIONS * deviation {
                wrong.push(format!("{end:?}, WAN {wan}: {loss} shown, {set} set"));
            }
        }
    }
    ensure!(wrong.is_empty(), "{}", wrong.join("\n"));
    // Once no packet is on its way.
    let what = "what is counted as lost is what the links have dropped";
    wait_until(what, Duration::from_secs(5), || all_are_counted(scene)).map(drop)
}

fn all_are_counted(scene: &BondScene) -> Result<bool> {
    for end in End::BOTH {
        let shown = paths(scene, end)?;
        for wan in 0..PATHS {
            let direction = if end == End::Gateway { Direction::Up } else { Direction::Down };
            let id = scene.path(end, wan)?.id;
            let path = shown.iter().find(|path| path["path"] == id).context("a path")?;
            let lost = path["lost"].as_u64().context("a count")?;
            let dropped = dropped(&scene.lab, wan, direction)?;
            ensure!(
                lost.abs_diff(dropped) <= UNSEEN,
                "{end:?}, WAN {wan}: {lost} counted as lost, {dropped} dropped"
            );
        }
    }
    Ok(true)
}

/// The paths as `mwb bond --json` shows them.
fn paths(scene: &BondScene, end: End) -> Result<Vec<Value>> {
    let text = match end {
        End::Gateway => scene.gateway.mwb(&["bond", "--json"]),
        End::Server => scene.server.mwb(&["bond", "--json"]),
    }?;
    let shown: Value = serde_json::from_str(&text).with_context(|| text.clone())?;
    let paths = shown["sessions"][0]["paths"].as_array().context("paths")?;
    ensure!(paths.len() == PATHS, "{} paths: {text}", paths.len());
    Ok(paths.clone())
}
