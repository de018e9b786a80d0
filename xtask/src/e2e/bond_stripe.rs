//! Links add up: one download is faster than any of the links that it goes by.

use std::time::Duration;

use anyhow::{Result, ensure};

use super::{
    Case,
    bond_scene::{BondScene, play},
    checks,
};
use crate::lab::{
    LabSpec, LinkSpec, Shape, is_emulated,
    traffic::{Transport, download},
};

/// Of a download; learning what the links carry takes its first second.
const LENGTH: Duration = Duration::from_secs(6);
/// Downloads, of which one has to be fast: a busy machine may hold up any.
const TRIES: usize = 3;
/// How many times as fast as a link it has to be.
const GAIN: f64 = 1.2;

pub(super) fn cases() -> Vec<Case> {
    vec![Case::new("one_download_is_faster_than_any_link", || {
        let spec = LabSpec::shaped((0..2).map(|_| {
            let link = LinkSpec::new(rate(), Duration::from_millis(20));
            Shape { up: link.clone(), down: link, ..Shape::default() }
        }));
        let scene = BondScene::new(spec, |config| config.with_gateway("bond.elephant", "1mbit"))?;
        play(scene, |scene| one_download_is_faster(scene))
    })]
}

/// Of a link, in bit/s. Emulated machines encrypt no faster.
fn rate() -> u64 {
    if is_emulated() { 8_000_000 } else { 50_000_000 }
}

fn one_download_is_faster(scene: &BondScene) -> Result<()> {
    let BondScene { lab, .. } = scene;
    for to in checks::FAMILIES {
        let mut rates = Vec::new();
        while rates.iter().all(|&got| got <= GAIN * rate() as f64) {
            ensure!(rates.len() < TRIES, "{to}: {rates:.0?} bit/s by two links of {}", rate());
            let bulk = download(lab.host(), lab.net(), to, Transport::Tcp, LENGTH, || Ok(()))?;
            rates.push(bulk.rate());
        }
    }
    Ok(())
}
