//! Links add up: one flow is faster than any of the links that it goes by.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use anyhow::{Result, ensure};

use super::{
    Case,
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
    vec![Case::new("one_flow_is_faster_than_any_link", || {
        let spec = LabSpec::shaped((0..2).map(|_| {
            let link = LinkSpec::new(rate(), Duration::from_millis(20));
            Shape { up: link.clone(), down: link, ..Shape::default() }
        }));
        let scene = BondScene::new(spec, |config| config.with_gateway("bond.elephant", "1mbit"))?;
        play(scene, |scene| one_flow_is_faster(scene))
    })]
}

/// Of a link, in bit/s. Emulated machines encrypt no faster.
fn rate() -> u64 {
    if is_emulated() { 8_000_000 } else { 50_000_000 }
}

/// TCP, and UDP at one and a half times what a link carries, each way.
fn one_flow_is_faster(scene: &BondScene) -> Result<()> {
    let [v4, v6] = checks::FAMILIES;
    let (tcp, udp) = (Iperf::tcp(SECONDS), Iperf::udp(rate() / 2 * 3, SECONDS));
    let runs: [(IpAddr, Iperf); 4] =
        [(v4, tcp.clone().reversed()), (v6, tcp), (v6, udp.clone().reversed()), (v4, udp)];
    for (to, run) in runs {
        let mut rates = Vec::new();
        while rates.iter().all(|&got| got <= GAIN * rate() as f64) {
            let told = format!("{rates:.0?} bit/s by two links of {}", rate());
            ensure!(rates.len() < TRIES, "{to}, {run:?}: {told}");
            let server = IperfServer::start(scene.lab.net(), SocketAddr::new(to, 5201))?;
            rates.push(run.run(scene.lab.host(), &server)?.received_rate);
        }
    }
    Ok(())
}
