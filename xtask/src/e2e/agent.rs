//! The agent is killed, stopped, restarted; forwarding does not notice.

use std::{net::SocketAddr, path::Path, time::Duration};

use anyhow::{Context as _, Result, ensure};

use super::{
    Case, Lane, checks,
    scene::{Scene, both_hooks},
};
use crate::lab::{
    LabSpec,
    address::{NET4, NET6},
    is_emulated,
    traffic::{EchoServer, EchoStream, Iperf, IperfServer, UdpServer, UdpStream, ping},
    wait_until,
};

pub(super) fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    let mut add = |lane, name, test| {
        cases.extend(both_hooks(lane, name, || LabSpec::direct(2), |config| config, test));
    };
    add(
        Lane::Alone,
        "traffic_goes_on_when_the_agent_is_killed",
        traffic_goes_on_when_the_agent_is_killed,
    );
    add(Lane::Together, "flows_go_on_over_a_restart_of_the_agent", flows_go_on_over_a_restart);
    add(Lane::Together, "a_detached_gateway_forwards_no_more", a_detached_gateway_forwards_no_more);
    cases
}

fn traffic_goes_on_when_the_agent_is_killed(scene: &mut Scene) -> Result<()> {
    let server = IperfServer::start(scene.lab.net(), SocketAddr::new(NET4.into(), 5201))?;
    let echo = UdpServer::start(scene.lab.net(), SocketAddr::new(NET6.into(), 9))?;
    let run = Iperf::tcp(5).paced(300_000_000).start(scene.lab.host(), &server)?;
    let stream = UdpStream::new(5000, Duration::from_millis(1)).start(scene.lab.host(), &echo)?;
    wait_until("traffic flows", Duration::from_secs(3), || {
        Ok(stream.report().there.received > 1000)
    })?;
    scene.gateway.kill()?;
    let report = stream.finish()?;
    let back = report.back.context("echoes were asked for")?;
    ensure!(report.there.lost + back.lost == 0, "datagrams lost: {report:?}");
    let report = run.finish()?;
    let least = if is_emulated() { 5e6 } else { 100e6 };
    ensure!(
        report.intervals.iter().all(|&rate| rate > least),
        "TCP stood still: {:?}",
        report.intervals
    );
    // Liveness has run out by now: new flows must not care.
    checks::pings_pass(&scene.lab)?;
    checks::datagrams_arrive_once(&scene.lab, 500)?;
    checks::transfers_are_whole(&scene.lab, 1 << 20)
}

fn flows_go_on_over_a_restart(scene: &mut Scene) -> Result<()> {
    let tcp = EchoServer::start(scene.lab.net(), SocketAddr::new(NET4.into(), 7))?;
    let udp = UdpServer::start(scene.lab.net(), SocketAddr::new(NET4.into(), 9))?;
    let mut kept = EchoStream::connect(scene.lab.host(), tcp.address(), Duration::from_secs(5))?;
    let stream = UdpStream::new(1_000_000, Duration::from_millis(1));
    let stream = stream.start(scene.lab.host(), &udp)?;
    wait_until("traffic flows", Duration::from_secs(3), || {
        Ok(stream.report().there.received > 200)
    })?;
    let before = scene.packets(|row| row.reason == "forwarded")?;
    // Once asked to stop, once killed.
    scene.gateway.stop()?;
    kept.exchange(b"no agent")?;
    scene.gateway.restart(&scene.lab)?;
    kept.exchange(b"another agent")?;
    scene.gateway.kill()?;
    scene.gateway.restart(&scene.lab)?;
    kept.exchange(b"a third agent")?;
    let report = stream.stop()?;
    let back = report.back.context("echoes were asked for")?;
    ensure!(report.there.lost + back.lost == 0, "datagrams lost: {report:?}");
    ensure!(report.there.duplicated + back.duplicated == 0, "datagrams doubled: {report:?}");
    ensure!(report.sources.len() == 1, "the flow moved: {:?}", report.sources);
    let after = scene.packets(|row| row.reason == "forwarded")?;
    ensure!(after >= before + report.sent, "counters started anew: {before}, then {after}");
    Ok(())
}

fn a_detached_gateway_forwards_no_more(scene: &mut Scene) -> Result<()> {
    scene.gateway.stop()?;
    let pins = Path::new(crate::lab::PINS).join(scene.lab.prefix());
    ensure!(pins.exists(), "a stopped agent leaves {}", pins.display());
    checks::pings_pass(&scene.lab)?;
    scene.gateway.detach(&scene.lab)?;
    ensure!(!pins.exists(), "{} is still there", pins.display());
    for device in ["lan0", "wan0", "wan1"] {
        let link = scene.lab.gw().link_json(device)?;
        ensure!(link.get("xdp").is_none(), "{device} still has a program: {link}");
    }
    let report = ping(scene.lab.host(), NET4.into(), 1, Duration::ZERO, &[])?;
    ensure!(report.received == 0, "something still translates");
    Ok(())
}
