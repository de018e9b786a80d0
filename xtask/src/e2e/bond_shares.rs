//! Modes of balance in a bond: packets go where they should, both ways, as the paths
//! themselves count them.

use std::{net::SocketAddr, time::Duration};

use anyhow::{Context as _, Result, ensure};
use serde_json::json;

use super::{
    Case, Lane,
    bond_scene::{BondScene, End, play},
    checks,
};
use crate::lab::{
    LabSpec, LinkSpec, Shape, is_emulated,
    traffic::{UdpServer, UdpStream},
    wait_until,
};

/// How long an end may take to measure its paths.
const PATIENCE: Duration = Duration::from_secs(20);
/// What each link carries, as the operator says, in Mbit/s.
const CAPACITIES: [u64; 2] = [40, 10];

pub(super) fn cases() -> Vec<Case> {
    vec![
        Case::new(Lane::Alone, "packets_take_the_quickest_path_in_mode_least_latency", || {
            let spec = LabSpec::shaped([40, 5].map(|delay| {
                let link = LinkSpec { delay: Duration::from_millis(delay), ..LinkSpec::default() };
                Shape { up: link.clone(), down: link, ..Shape::default() }
            }));
            let scene =
                BondScene::new(spec, |config| config.with_gateway("balance", "least_latency"))?;
            play(scene, |scene| {
                for end in End::BOTH {
                    // The first one to answer leads until the other was better for a while.
                    wait_until("the quicker path is chosen", PATIENCE, || {
                        Ok(scene.tables(end)?.shared()?.iter().map(|(_, path)| path).eq(&[2]))
                    })?;
                }
                // All by the second, but for probes.
                shares_are(scene, 0.0..0.05)
            })
        }),
        Case::new(Lane::Alone, "packets_are_shared_by_free_capacity_in_mode_least_used", || {
            let scene = BondScene::new(LabSpec::direct(2), |config| {
                let config = config.with_gateway("balance", "least_used");
                CAPACITIES.into_iter().enumerate().fold(config, |config, (wan, rate)| {
                    let rate = format!("{rate}mbit");
                    let capacity = json!({"up": rate, "down": rate});
                    config.with_gateway(&format!("wans.{wan}.capacity"), capacity)
                })
            })?;
            play(scene, |scene| {
                for end in End::BOTH {
                    wait_until("both paths have a share", PATIENCE, || {
                        Ok(scene.tables(end)?.shared()?.len() == 2)
                    })?;
                }
                // Four fifths, and what the stream itself takes makes no difference.
                shares_are(scene, 0.74..0.86)
            })
        }),
    ]
}

/// A stream there and back, and which part of it goes by the first path from either end.
fn shares_are(scene: &BondScene, wanted: std::ops::Range<f64>) -> Result<()> {
    let (count, interval) = if is_emulated() { (400, 10_000) } else { (4_000, 500) };
    let sent = |end: End| -> Result<[u64; 2]> {
        Ok([scene.path(end, 0)?.state.sent, scene.path(end, 1)?.state.sent])
    };
    for to in checks::FAMILIES {
        let before = End::BOTH.map(sent);
        let server = UdpServer::start(scene.lab.net(), SocketAddr::new(to, 7))?;
        let stream = UdpStream::new(count, Duration::from_micros(interval));
        let report = stream.run(scene.lab.host(), &server)?;
        let back = report.back.context("echoes were asked for")?;
        ensure!(report.there.lost + back.lost == 0, "{to}: {report:?}");
        for (end, before) in End::BOTH.into_iter().zip(before) {
            let (before, after) = (before?, sent(end)?);
            let [first, second] = [0, 1].map(|wan| (after[wan] - before[wan]) as f64);
            let part = first / (first + second);
            println!("{to}, {end:?}: {first} by the first path, {second} by the second");
            ensure!(wanted.contains(&part), "{to}, {end:?}: {part:.3}, not in {wanted:?}");
        }
    }
    Ok(())
}
