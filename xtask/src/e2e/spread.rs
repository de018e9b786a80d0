//! New flows are shared as the mode says, and stay where they are.

use std::{
    net::{SocketAddr, UdpSocket},
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};

use super::{
    Case, Lane, checks,
    scene::{Hook, Scene, both_hooks, play},
};
use crate::lab::{
    LabSpec, LinkSpec, Shape,
    address::{NET4, NET4_SECOND},
    traffic::{EchoServer, WhoServer},
    wait_until,
};

/// Weights of the three WANs, and so the percentage of flows.
const WEIGHTS: [u32; 3] = [50, 30, 20];

pub(super) fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    for hook in Hook::BOTH {
        // By hash the flows are a sample: 300 of them are off by 5 points one
        // time in twelve, 3,000 never.
        for (mode, flows) in [("weighted", 300), ("per_flow", 3000)] {
            let name = format!("flows_spread_by_weight_in_mode_{mode}_by_{hook}");
            cases.push(Case::new(Lane::Together, &name, move || {
                let scene = Scene::new(hook, LabSpec::direct(3), |config| {
                    let config = config.with("balance", mode);
                    (0..3).fold(config, |config, index| {
                        config.with(&format!("wans.{index}.weight"), WEIGHTS[index])
                    })
                })?;
                play(scene, |scene| flows_spread(scene, flows, WEIGHTS))
            }));
        }
    }
    cases.push(Case::new(Lane::Together, "flows_spread_evenly_in_mode_round_robin", || {
        let scene = Scene::new(Hook::Xdp, LabSpec::direct(4), |config| {
            config.with("balance", "round_robin").with("wans.0.weight", 1000)
        })?;
        play(scene, |scene| flows_spread(scene, 300, [25; 4]))
    }));
    cases.push(Case::new(
        Lane::Alone,
        "flows_take_the_quickest_link_in_mode_least_latency",
        || {
            let shapes = [60, 10, 30].map(|delay| {
                let link = LinkSpec { delay: Duration::from_millis(delay), ..LinkSpec::default() };
                Shape { up: link, ..Shape::default() }
            });
            let scene = Scene::new(Hook::Xdp, LabSpec::shaped(shapes), |config| {
                config.with("balance", "least_latency")
            })?;
            play(scene, |scene| {
                scene.gateway.wait_for_status(
                    "the round trips are known",
                    Duration::from_secs(5),
                    |status| status.wans.iter().all(|wan| wan.rtt_ms.is_some_and(|rtt| rtt > 5.0)),
                )?;
                // The choice waits a moment before it leaves a link for a quicker one.
                let server = EchoServer::start(scene.lab.net(), SocketAddr::new(NET4.into(), 7))?;
                wait_until("all new flows take the quickest link", Duration::from_secs(5), || {
                    let used = checks::spread(&scene.lab, server.address(), 10)?;
                    ensure!(used == [0, 10, 0], "flows a WAN: {used:?}");
                    Ok(true)
                })?;
                drop(server);
                flows_go_to(scene, 1)
            })
        },
    ));
    cases.push(Case::new(Lane::Together, "flows_take_the_best_priority_in_mode_failover", || {
        let scene = Scene::new(Hook::Xdp, LabSpec::direct(3), |config| {
            let config = config.with("balance", "failover");
            config
                .with("wans.0.priority", 20)
                .with("wans.1.priority", 30)
                .with("wans.2.priority", 10)
        })?;
        play(scene, |scene| flows_go_to(scene, 2))
    }));
    cases.push(Case::new(Lane::Alone, "flows_avoid_a_busy_link_in_mode_least_used", || {
        let scene = Scene::new(Hook::Xdp, LabSpec::direct(2), |config| {
            let config = config.with("balance", "least_used");
            let capacity = serde_json::json!({"up": "50mbit", "down": "50mbit"});
            config.with("wans.0.capacity", capacity.clone()).with("wans.1.capacity", capacity)
        })?;
        play(scene, flows_avoid_a_busy_link)
    }));
    cases.push(Case::new(Lane::Alone, "flows_avoid_a_bad_link_in_mode_adaptive", || {
        let bad = LinkSpec { delay: Duration::from_millis(120), ..LinkSpec::default() };
        let shapes = [Shape { up: bad, ..Shape::default() }, Shape::default()];
        let scene = Scene::new(Hook::Xdp, LabSpec::shaped(shapes), |config| {
            config.with("balance", "adaptive")
        })?;
        play(scene, |scene| {
            let server = EchoServer::start(scene.lab.net(), SocketAddr::new(NET4.into(), 7))?;
            wait_until("most new flows take the good link", Duration::from_secs(10), || {
                let used = checks::spread(&scene.lab, server.address(), 60)?;
                ensure!(used[1] > 2 * used[0], "flows a WAN: {used:?}");
                Ok(true)
            })
            .map(drop)
        })
    }));
    cases.extend(both_hooks(
        Lane::Together,
        "an_inside_endpoint_keeps_its_outside_endpoint",
        || LabSpec::direct(3),
        |config| config.with("balance", "round_robin"),
        an_inside_endpoint_keeps_its_outside_endpoint,
    ));
    cases
}

fn flows_spread<const N: usize>(scene: &mut Scene, flows: usize, percent: [u32; N]) -> Result<()> {
    for to in checks::FAMILIES {
        let server = EchoServer::start(scene.lab.net(), SocketAddr::new(to, 7))?;
        let used = checks::spread(&scene.lab, server.address(), flows)?;
        for (&used_here, &wanted) in used.iter().zip(&percent) {
            let points = 100.0 * used_here as f64 / flows as f64;
            ensure!(
                (points - f64::from(wanted)).abs() <= 5.0,
                "{to}: {used:?} of {flows} flows a WAN, {percent:?} % wanted"
            );
        }
    }
    Ok(())
}

fn flows_go_to(scene: &mut Scene, wan: usize) -> Result<()> {
    for to in checks::FAMILIES {
        let server = EchoServer::start(scene.lab.net(), SocketAddr::new(to, 7))?;
        let used = checks::spread(&scene.lab, server.address(), 30)?;
        ensure!(used[wan] == 30, "{to}: flows a WAN: {used:?}, all wanted on {wan}");
    }
    Ok(())
}

/// One flow fills most of one link; new flows go to the other.
fn flows_avoid_a_busy_link(scene: &mut Scene) -> Result<()> {
    use crate::lab::traffic::{UdpServer, UdpStream};
    let sink = UdpServer::start(scene.lab.net(), SocketAddr::new(NET4.into(), 9))?;
    // 1,400 bytes every 300 microseconds: 37 Mbit/s of 50.
    let stream = UdpStream {
        size: 1400,
        echo: false,
        ..UdpStream::new(1_000_000, Duration::from_micros(300))
    };
    let load = stream.start(scene.lab.host(), &sink)?;
    let server = EchoServer::start(scene.lab.net(), SocketAddr::new(NET4.into(), 7))?;
    wait_until("new flows avoid the busy link", Duration::from_secs(10), || {
        let report = load.report();
        let source = report.sources.first().context("nothing has arrived yet")?;
        let busy = checks::wan_of(&scene.lab, source.ip())?;
        let used = checks::spread(&scene.lab, server.address(), 60)?;
        ensure!(used[1 - busy] > 2 * used[busy], "flows a WAN: {used:?}, {busy} is busy");
        Ok(true)
    })?;
    load.stop().map(drop)
}

/// Endpoint-independent mapping (RFC 4787, REQ-1): one socket, two servers, one
/// outside address and port, although the mode would take the next WAN.
fn an_inside_endpoint_keeps_its_outside_endpoint(scene: &mut Scene) -> Result<()> {
    let servers = [NET4, NET4_SECOND]
        .map(|address| WhoServer::start(scene.lab.net(), SocketAddr::new(address.into(), 7)));
    for _ in 0..10 {
        let socket = scene.lab.host().enter(|| Ok(UdpSocket::bind("0.0.0.0:0")?))?;
        let mut seen = Vec::new();
        for server in &servers {
            let server = server.as_ref().map_err(|error| anyhow::anyhow!("{error:#}"))?;
            seen.push(server.ask(&socket)?);
        }
        ensure!(seen[0] == seen[1], "one socket was seen as {seen:?}");
    }
    Ok(())
}
