//! A WAN leaves a bond and comes back under traffic, because the configuration no longer has
//! it, or because its device is pulled out: no connection is reset.

use std::{
    fs,
    net::SocketAddr,
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::Duration,
};

use anyhow::{Context as _, Result, anyhow, ensure};

use super::{
    Case, Lane,
    bond_restarts::{EVERY, streams, went_on},
    bond_scene::{BondScene, bonded},
    checks,
};
use crate::lab::{
    LabSpec,
    traffic::{EchoServer, EchoStream},
};

/// How long an answer may take.
const PATIENCE: Duration = Duration::from_secs(5);
/// Bytes of a message: more than a packet, and so by both paths.
const MESSAGE: usize = 32 << 10;

pub(super) fn cases() -> Vec<Case> {
    let case = |name, test| bonded(Lane::Alone, name, || LabSpec::direct(2), |config| config, test);
    vec![
        case("no_connection_is_reset_when_a_wan_is_taken_out_of_the_configuration", |scene| {
            nothing_is_reset(scene, apply_without, apply_all)
        }),
        case("no_connection_is_reset_when_a_wan_of_a_bond_is_pulled_out", |scene| {
            nothing_is_reset(
                scene,
                |scene, wan| scene.lab.wan(wan).unplug(),
                |scene, wan| scene.lab.wan(wan).plug_in(),
            )
        }),
    ]
}

fn apply_without(scene: &BondScene, wan: usize) -> Result<()> {
    let config = scene.config.gateway.clone().without(&format!("wans.{wan}"));
    apply(scene, &config.text())
}

fn apply_all(scene: &BondScene, _: usize) -> Result<()> {
    apply(scene, &scene.config.gateway.text())
}

fn apply(scene: &BondScene, text: &str) -> Result<()> {
    let file = scene.lab.scratch().join("changed.yaml");
    fs::write(&file, text)?;
    scene.gateway.mwb(&["apply", &file.to_string_lossy()]).map(drop)
}

type Act = fn(&BondScene, usize) -> Result<()>;

/// One WAN after the other leaves and comes back, under datagrams and under connections that
/// were made before.
fn nothing_is_reset(scene: &mut BondScene, leave: Act, come_back: Act) -> Result<()> {
    let servers = checks::FAMILIES
        .map(|to| EchoServer::start(scene.lab.net(), SocketAddr::new(to, 8)))
        .into_iter()
        .collect::<Result<Vec<_>>>()?;
    let kept = servers
        .iter()
        .map(|server| EchoStream::connect(scene.lab.host(), server.address(), PATIENCE))
        .collect::<Result<Vec<_>>>()?;
    let duplex = streams(scene)?;
    let stop = AtomicBool::new(false);
    thread::scope(|scope| {
        let busy: Vec<_> =
            kept.into_iter().map(|stream| scope.spawn(|| keep_busy(stream, &stop))).collect();
        let mut change = || -> Result<()> {
            for wan in [1, 0] {
                leave(scene, wan).with_context(|| format!("WAN {wan} leaves"))?;
                scene.wait_for_paths(1)?;
                duplex.go_on(500, EVERY)?;
                come_back(scene, wan).with_context(|| format!("WAN {wan} comes back"))?;
                scene.wait_for_paths(2)?;
                duplex.go_on(500, EVERY)?;
            }
            Ok(())
        };
        let changed = change();
        stop.store(true, Ordering::Relaxed);
        for stream in busy {
            let count = stream.join().map_err(|_| anyhow!("a connection panicked"))??;
            ensure!(count > 100, "only {count} messages were answered");
        }
        changed
    })?;
    let report = duplex.stop()?;
    for (way, course) in [("there", &report.there), ("back", &report.back)] {
        println!("{way}: {} lost, over {:?} at most", course.lost(), course.lost_span());
        went_on(course, way, Duration::from_millis(200))?;
    }
    checks::transfers_are_whole(&scene.lab, 1 << 20)
}

/// Sends messages by a connection, one after the other, until it is to stop; says how many
/// were answered.
fn keep_busy(mut stream: EchoStream, stop: &AtomicBool) -> Result<u64> {
    let message = vec![0x5a; MESSAGE];
    let mut count = 0;
    while !stop.load(Ordering::Relaxed) {
        stream.exchange(&message).with_context(|| format!("after {count} messages"))?;
        count += 1;
    }
    Ok(count)
}
