//! What becomes of flows when a better WAN is back, how a flapping WAN is held
//! down, and traffic that the operator sends elsewhere.

use std::{
    net::SocketAddr,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};

use super::{
    Case, Lane, checks,
    scene::{Hook, Scene, both_hooks, play},
};
use crate::lab::{
    GatewayConfig, Lab, LabSpec,
    address::{NET4, wan4},
    traffic::{EchoServer, EchoStream, Fleet, FleetServers},
    wait_until,
};

const PATIENCE: Duration = Duration::from_secs(10);
/// Flows that are on the worse WAN when the better one comes back, half of them
/// of IPv6.
const FLOWS: usize = 104;
const RATE: u32 = 1000;
/// How long draining flows may stay.
const DRAIN: Duration = Duration::from_secs(3);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Policy {
    Stay,
    Drain,
    Cut,
}

pub(super) fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    for (policy, word) in
        [(Policy::Stay, "stay"), (Policy::Drain, "drain(3s)"), (Policy::Cut, "cut")]
    {
        for hook in Hook::BOTH {
            let verb = word.split('(').next().unwrap_or(word);
            cases.push(Case::new(
                Lane::Together,
                &format!("flows_{verb}_when_a_better_wan_is_back_by_{hook}"),
                move || {
                    let scene = Scene::new(hook, LabSpec::direct(2), |config| {
                        // The policy of the WAN they are on counts, not that of others.
                        let other = if policy == Policy::Cut { "stay" } else { "cut" };
                        ranked(config)
                            .with("wans.1.failback", word)
                            .with("failover.failback", other)
                    })?;
                    play(scene, |scene| flows_follow_the_policy(scene, policy))
                },
            ));
        }
    }
    cases.extend(both_hooks(
        Lane::Together,
        "the_operator_sends_traffic_elsewhere",
        || LabSpec::direct(2),
        ranked,
        the_operator_decides,
    ));
    cases.extend(both_hooks(
        Lane::Together,
        "a_flapping_wan_is_held_down_longer_each_time",
        || LabSpec::direct(2),
        |config| ranked(config).with("failover.hold_down_max", "4s"),
        a_flapping_wan_is_held_down,
    ));
    cases
}

fn ranked(config: GatewayConfig) -> GatewayConfig {
    config.ranked().with("failover.failback_after", "1s")
}

/// How many flows were seen last by an address of the first WAN.
fn on_the_first(lab: &Lab, fleet: &Fleet) -> usize {
    let flows = fleet.flows();
    let last = flows.iter().filter_map(|flow| flow.seen_as.last());
    last.filter(|seen| checks::wan_of(lab, seen.ip()).is_ok_and(|wan| wan == 0)).count()
}

fn flows_follow_the_policy(scene: &mut Scene, policy: Policy) -> Result<()> {
    let echo = EchoServer::start(scene.lab.net(), SocketAddr::from((NET4, 7)))?;
    let servers = FleetServers::start(scene.lab.net(), &checks::FAMILIES)?;
    scene.lab.wan(0).uplink(false)?;
    scene.gateway.wait_for_status("the better WAN is down", PATIENCE, |status| {
        status.wans[0].state == "down" && status.wans[1].active
    })?;
    let fleet = Fleet::start(scene.lab.host(), &servers, FLOWS, RATE)?;
    fleet.wait_for_answers(3, PATIENCE)?;
    ensure!(on_the_first(&scene.lab, &fleet) == 0, "flows are on a dead WAN");
    let mut kept = EchoStream::connect(scene.lab.host(), echo.address(), PATIENCE)?;

    scene.lab.wan(0).uplink(true)?;
    let (status, _) =
        scene.gateway.wait_for_status("the better WAN is used", PATIENCE, |status| {
            status.wans[0].active && !status.wans[1].active
        })?;
    let back = Instant::now();
    wait_until("new flows use it", PATIENCE, || {
        let stream = EchoStream::connect(scene.lab.host(), echo.address(), PATIENCE)?;
        Ok(stream.seen_as().ip() == wan4(0))
    })?;
    match policy {
        Policy::Stay => {
            ensure!(status.wans[1].drain_until_unix_ms.is_none(), "{:?}", status.wans[1]);
            wait_until("some time passes", PATIENCE, || {
                Ok(back.elapsed() > Duration::from_secs(2))
            })?;
            fleet.wait_for_answers(1, PATIENCE)?;
            let moved = on_the_first(&scene.lab, &fleet);
            ensure!(moved == 0, "{moved} flows moved");
            kept.exchange(b"where I was")?;
        }
        Policy::Drain => {
            ensure!(
                status.wans[1].drain_until_unix_ms.is_some(),
                "not shown: {:?}",
                status.wans[1]
            );
            kept.exchange(b"still where I was")?;
            let early = on_the_first(&scene.lab, &fleet);
            ensure!(early == 0 || back.elapsed() >= DRAIN, "{early} flows moved too early");
            wait_until("all flows have moved", DRAIN + PATIENCE, || {
                Ok(on_the_first(&scene.lab, &fleet) == FLOWS)
            })?;
            ensure!(
                back.elapsed() + Duration::from_millis(500) >= DRAIN,
                "after {:?}",
                back.elapsed()
            );
        }
        Policy::Cut => {
            wait_until("all flows have moved", PATIENCE, || {
                Ok(on_the_first(&scene.lab, &fleet) == FLOWS)
            })?;
            ensure!(back.elapsed() < Duration::from_secs(3), "that took {:?}", back.elapsed());
            ensure!(kept.exchange(b"where am I").is_err(), "a connection moved to another address");
        }
    }
    let lost: u32 = fleet.stop()?.iter().map(|flow| flow.sent - flow.answered).sum();
    ensure!(lost == 0, "{lost} datagrams lost, with both WANs working");
    Ok(())
}

/// By hand: for as long as is said, or until health decides again.
fn the_operator_decides(scene: &mut Scene) -> Result<()> {
    let echo = EchoServer::start(scene.lab.net(), SocketAddr::from((NET4, 7)))?;
    let goes_by = |scene: &Scene, index: usize| {
        wait_until("new connections go there", PATIENCE, || {
            let spread = checks::spread(&scene.lab, echo.address(), 4)?;
            ensure!(spread[index] == 4, "flows by WAN: {spread:?}");
            Ok(true)
        })
        .map(drop)
    };
    goes_by(scene, 0)?;
    scene.gateway.mwb(&["failover", "wan1"])?;
    goes_by(scene, 1)?;
    let status = scene.gateway.api().status()?.failover;
    ensure!(status.forced.as_deref() == Some("wan1"), "not shown: {status:?}");
    ensure!(status.forced_until_unix_ms.is_none(), "it ends by itself: {status:?}");
    scene.gateway.mwb(&["failover", "--auto"])?;
    goes_by(scene, 0)?;
    ensure!(scene.gateway.api().status()?.failover.forced.is_none(), "still shown");

    let start = Instant::now();
    scene.gateway.mwb(&["failover", "wan1", "--for", "2s"])?;
    goes_by(scene, 1)?;
    let status = scene.gateway.api().status()?.failover;
    ensure!(status.forced_until_unix_ms.is_some(), "when it ends is not shown: {status:?}");
    wait_until("it ends by itself", PATIENCE, || {
        Ok(scene.gateway.api().status()?.failover.forced.is_none())
    })?;
    let took = start.elapsed();
    ensure!((1900..4000).contains(&took.as_millis()), "it ended after {took:?}");
    goes_by(scene, 0)?;
    let refused = scene.gateway.mwb_command(&["failover", "nowhere"])?.output()?;
    let said = String::from_utf8_lossy(&refused.stderr).into_owned();
    ensure!(!refused.status.success() && said.contains("nowhere"), "an unknown WAN: {said}");

    // A WAN that fails is left, whatever was said.
    scene.gateway.mwb(&["failover", "wan1"])?;
    goes_by(scene, 1)?;
    scene.lab.wan(1).uplink(false)?;
    goes_by(scene, 0).context("after the forced WAN failed")
}

/// Each time it fails soon after it came back, it must be well for longer.
fn a_flapping_wan_is_held_down(scene: &mut Scene) -> Result<()> {
    let mut holds = Vec::new();
    for _ in 0..3 {
        scene.lab.wan(0).uplink(false)?;
        scene.gateway.wait_for_status("it is down", PATIENCE, |status| {
            status.wans[0].state == "down" && !status.wans[0].active
        })?;
        scene.lab.wan(0).uplink(true)?;
        let answers = Instant::now();
        let (held, _) = scene.gateway.wait_for_status("it is held down", PATIENCE, |status| {
            status.wans[0].hold_until_unix_ms.is_some() || status.wans[0].active
        })?;
        ensure!(held.wans[0].hold_until_unix_ms.is_some(), "it was used at once: {held:#?}");
        let shown = scene.gateway.mwb(&["wans"])?;
        ensure!(shown.contains("held"), "mwb wans says of a WAN that is held:\n{shown}");
        scene
            .gateway
            .wait_for_status("it is used again", PATIENCE, |status| status.wans[0].active)?;
        let wan = &held.wans[0];
        let waited = answers.elapsed().as_secs_f64();
        ensure!(
            waited + 0.1 >= wan.hold_down_seconds,
            "used after {waited:.1} s, {} s were shown",
            wan.hold_down_seconds
        );
        holds.push((wan.hold_down_seconds, wan.relapses));
    }
    let seconds: Vec<f64> = holds.iter().map(|hold| hold.0).collect();
    ensure!(
        seconds.windows(2).all(|pair| pair[1] >= pair[0] * 1.9) && seconds[0] >= 1.0,
        "held for {holds:?}"
    );
    ensure!(holds.windows(2).all(|pair| pair[1].1 > pair[0].1), "relapses: {holds:?}");
    Ok(())
}
