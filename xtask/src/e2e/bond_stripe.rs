//! Links add up: one flow is faster than any of the links that it goes by.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use anyhow::{Result, ensure};

use super::{
    Case, Lane,
    bond_scene::{BondScene, play},
    checks,
};
use crate::lab::{
    LabSpec, LinkSpec, Shape, is_emulated,
    traffic::{Iperf, IperfServer},
};

/// Of a run; learning what the links carry takes its first second.
const SECONDS: u32 = 6;
/// Runs, of which one has to be fast: a busy machine may hold up any.
const TRIES: usize = 3;
/// How many times as fast as a link it has to be.
const GAIN: f64 = 1.2;

pub(super) fn cases() -> Vec<Case> {
    vec![
        Case::new(Lane::Alone, "one_flow_is_faster_than_any_link", || {
            play(scene([20, 20])?, |scene| one_flow_is_faster(scene, GAIN, SECONDS))
        }),
        Case::new(Lane::Alone, "one_flow_is_faster_than_any_link_where_one_is_far_longer", || {
            play(scene([10, 60])?, |scene| one_flow_is_faster(scene, GAIN, 2 * SECONDS))
        }),
    ]
}

/// Two links of these delays in ms.
fn scene(delays: [u64; 2]) -> Result<BondScene> {
    let spec = LabSpec::shaped(delays.map(|delay| {
        let link = LinkSpec::new(rate(), Duration::from_millis(delay));
        Shape { up: link.clone(), down: link, ..Shape::default() }
    }));
    BondScene::new(spec, |config| config.with_gateway("bond.elephant", "1mbit"))
}

/// Of a link, in bit/s. Emulated machines encrypt no faster.
fn rate() -> u64 {
    if is_emulated() { 8_000_000 } else { 50_000_000 }
}

/// TCP, and UDP at one and a half times what a link carries, each way.
fn one_flow_is_faster(scene: &BondScene, gain: f64, seconds: u32) -> Result<()> {
    let [v4, v6] = checks::FAMILIES;
    let (tcp, udp) = (Iperf::tcp(seconds).under("cubic"), Iperf::udp(rate() / 2 * 3, seconds));
    let runs: [(IpAddr, Iperf); 4] =
        [(v4, tcp.clone().reversed()), (v6, tcp), (v6, udp.clone().reversed()), (v4, udp)];
    for (to, run) in runs {
        let mut rates = Vec::new();
        while rates.iter().all(|&got| got <= gain * rate() as f64) {
            let told = format!("{rates:.0?} bit/s by two links of {}", rate());
            ensure!(rates.len() < TRIES, "{to}, {run:?}: {told}");
            let server = IperfServer::start(scene.lab.net(), SocketAddr::new(to, 5201))?;
            rates.push(run.run(scene.lab.host(), &server)?.received_rate);
        }
        println!("{to}, {run:?}: {rates:.0?} bit/s by two links of {}", rate());
    }
    Ok(())
}
