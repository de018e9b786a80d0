//! A WAN is cut, in each way that a WAN is cut in the field; traffic goes on by
//! another, and comes back.

use std::{
    io::ErrorKind,
    net::SocketAddr,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail, ensure};

use super::{
    Case, Lane, checks,
    scene::{Hook, Scene, both_hooks, play},
};
use crate::lab::{
    Direction, GatewayConfig, LabSpec, Wan,
    address::NET4,
    is_emulated,
    traffic::{EchoServer, EchoStream, Prober, UdpServer, UdpStream, outage},
    wait_until,
};

/// New connections must succeed again within this. An emulated machine opens some
/// dozen in a second, and its probes are late.
fn promise() -> Duration {
    Duration::from_secs(if is_emulated() { 4 } else { 1 })
}

/// A WAN must be well for this long before it is used again.
const FAILBACK: Duration = Duration::from_secs(2);

#[derive(Clone, Copy, Debug)]
enum Cut {
    Carrier,
    Upwards,
    Downwards,
    FarEnd,
}

impl Cut {
    const ALL: [(Cut, &'static str); 4] = [
        (Cut::Carrier, "a_lost_carrier"),
        (Cut::Upwards, "a_blackhole_upwards"),
        (Cut::Downwards, "a_blackhole_downwards"),
        (Cut::FarEnd, "a_cut_behind_the_provider"),
    ];

    /// By the kernel's watch of links, which all namespaces share.
    fn is_told_late(self) -> bool {
        matches!(self, Cut::Carrier)
    }

    fn apply(self, wan: &Wan, cut: bool) -> Result<()> {
        match self {
            Cut::Carrier => wan.carrier(!cut),
            Cut::Upwards => wan.blackhole(&[Direction::Up], cut),
            Cut::Downwards => wan.blackhole(&[Direction::Down], cut),
            Cut::FarEnd => wan.uplink(!cut),
        }
    }
}

pub(super) fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    for (cut, name) in Cut::ALL {
        for hook in Hook::BOTH {
            // Of carriers the kernel tells once in a second, whosever they are.
            let lane = if cut.is_told_late() { Lane::Alone } else { Lane::Together };
            let name = format!("new_connections_survive_{name}_and_come_back_by_{hook}");
            cases.push(Case::new(lane, &name, move || {
                let scene = Scene::new(hook, LabSpec::relayed(2), |config| {
                    config
                        .with("balance", "failover")
                        .with("wans.1.priority", 1)
                        .with("failover.failback_after", format!("{}s", FAILBACK.as_secs()))
                })?;
                play(scene, |scene| new_connections_survive(scene, cut))
            }));
        }
    }
    cases.extend(both_hooks(
        Lane::Together,
        "a_connection_on_a_dead_wan_is_reset_at_once",
        || LabSpec::relayed(2),
        GatewayConfig::ranked,
        a_connection_on_a_dead_wan_is_reset,
    ));
    cases.extend(both_hooks(
        Lane::Together,
        "a_datagram_flow_moves_to_the_living_wan",
        || LabSpec::relayed(2),
        GatewayConfig::ranked,
        a_datagram_flow_moves,
    ));
    cases.push(Case::new(Lane::Together, "the_last_path_is_never_killed", || {
        let scene = Scene::new(Hook::Xdp, LabSpec::relayed(2), |config| config)?;
        play(scene, the_last_path_is_never_killed)
    }));
    cases.push(Case::new(Lane::Together, "a_flow_spread_over_wans_leaves_the_cut_one", || {
        let scene = Scene::new(Hook::Xdp, LabSpec::relayed(3), |config| {
            config.with("balance", "round_robin")
        })?;
        play(scene, flows_leave_the_cut_wan)
    }));
    cases
}

fn new_connections_survive(scene: &mut Scene, cut: Cut) -> Result<()> {
    for to in checks::FAMILIES {
        let server = EchoServer::start(scene.lab.net(), SocketAddr::new(to, 7))?;
        let before = last_event(scene)?;
        let prober = Prober::start(scene.lab.host(), server.address())?;
        wait_until("connections go by the first WAN", Duration::from_secs(10), || {
            Ok(goes_by(scene, &prober)? == Some(0))
        })?;

        let start = Instant::now();
        cut.apply(scene.lab.wan(0), true)?;
        wait_until("connections go by the second WAN", Duration::from_secs(5), || {
            Ok(goes_by(scene, &prober)? == Some(1))
        })?;
        scene.gateway.wait_for_status("the cut WAN is down", promise(), |status| {
            status.wans[0].state == "down" && !status.wans[0].active && status.wans[1].active
        })?;
        // Long enough to see that it stays so.
        let settled = Instant::now();
        wait_until("a second has passed", Duration::from_secs(2), || {
            Ok(settled.elapsed() > Duration::from_secs(1))
        })?;

        let restored = Instant::now();
        cut.apply(scene.lab.wan(0), false)?;
        wait_until("connections go by the first WAN again", Duration::from_secs(15), || {
            Ok(goes_by(scene, &prober)? == Some(0))
        })?;
        let back = restored.elapsed();
        let attempts = prober.stop()?;
        let gap = outage(&attempts, start, restored);
        ensure!(gap <= promise(), "{to}: new connections failed for {gap:?}");
        ensure!(back >= FAILBACK, "{to}: back after {back:?}, {FAILBACK:?} of stability wanted");
        let failed = outage(&attempts, restored, Instant::now());
        ensure!(failed.is_zero(), "{to}: connections failed {failed:?} after the recovery");

        let events = scene.gateway.api().events(before)?;
        let told = events
            .iter()
            .any(|event| event.wan.as_deref() == Some("wan0") && !event.reason.is_empty());
        ensure!(told, "no event tells of wan0 and why: {events:?}");
        let status = scene.gateway.api().status()?;
        ensure!(status.wans[0].failovers > 0, "the failover is not counted: {status:#?}");
    }
    Ok(())
}

/// The WAN of the last attempt that is finished, if it succeeded.
fn goes_by(scene: &Scene, prober: &Prober) -> Result<Option<usize>> {
    let Some(seen) = prober.last().and_then(|attempt| attempt.seen_as) else { return Ok(None) };
    checks::wan_of(&scene.lab, seen.ip()).map(Some)
}

fn last_event(scene: &Scene) -> Result<u64> {
    let events = scene.gateway.api().events(0)?;
    Ok(events.iter().map(|event| event.id).max().unwrap_or_default())
}

/// Its next packet is translated anew on the living WAN; the server does not
/// know that connection and says so, instead of silence until a timeout.
fn a_connection_on_a_dead_wan_is_reset(scene: &mut Scene) -> Result<()> {
    let server = EchoServer::start(scene.lab.net(), SocketAddr::new(NET4.into(), 7))?;
    let patience = Duration::from_secs(5);
    let mut stream = EchoStream::connect(scene.lab.host(), server.address(), patience)?;
    stream.exchange(b"before the cut")?;
    ensure!(checks::wan_of(&scene.lab, stream.seen_as().ip())? == 0, "not on the first WAN");
    scene.lab.wan(0).uplink(false)?;
    scene.gateway.wait_for_status("the cut WAN is down", patience, |status| {
        status.wans[0].state == "down"
    })?;
    let start = Instant::now();
    let Err(error) = stream.exchange(b"after the cut") else {
        bail!("a connection moved to another address")
    };
    let kind = error.downcast_ref::<std::io::Error>().map(std::io::Error::kind);
    ensure!(kind == Some(ErrorKind::ConnectionReset), "it ended with {error:#}");
    ensure!(start.elapsed() < promise(), "the reset took {:?}", start.elapsed());
    Ok(())
}

/// Nothing in it says which WAN it is on, so it goes on from another address.
fn a_datagram_flow_moves(scene: &mut Scene) -> Result<()> {
    for to in checks::FAMILIES {
        let server = UdpServer::start(scene.lab.net(), SocketAddr::new(to, 7))?;
        let stream = UdpStream::new(1_000_000, Duration::from_millis(5));
        let stream = stream.start(scene.lab.host(), &server)?;
        wait_until("datagrams arrive", Duration::from_secs(5), || {
            Ok(stream.report().there.received > 20)
        })?;
        scene.lab.wan(0).uplink(false)?;
        wait_until("datagrams come from another address", Duration::from_secs(5), || {
            Ok(stream.report().sources.len() == 2)
        })?;
        let report = stream.stop()?;
        ensure!(report.there.longest_gap <= promise(), "{to}: silence: {report:?}");
        let mut used = Vec::new();
        for source in &report.sources {
            used.push(checks::wan_of(&scene.lab, source.ip())?);
        }
        used.sort_unstable();
        ensure!(used == [0, 1], "{to}: the flow was on {used:?}: {report:?}");
        scene.lab.wan(0).uplink(true)?;
        scene.gateway.wait_for_status("the WAN is back", Duration::from_secs(15), |status| {
            status.wans[0].active
        })?;
    }
    Ok(())
}

/// Probes get no answer on any WAN, the WANs carry traffic all the same.
fn the_last_path_is_never_killed(scene: &mut Scene) -> Result<()> {
    for index in 0..2 {
        // Only what probes are made of: ICMP and ICMPv6.
        scene.lab.isp(index).nft(
            "table inet mute {\n  chain forward {\n    \
             type filter hook forward priority 0;\n    \
             meta l4proto { 1, 58 } drop\n  }\n}\n",
        )?;
    }
    scene.gateway.wait_for_status("no WAN is up", Duration::from_secs(5), |status| {
        status.wans.iter().all(|wan| wan.state == "down")
    })?;
    checks::transfers_are_whole(&scene.lab, 1 << 20)?;
    checks::datagrams_arrive_once(&scene.lab, 1000)
}

fn flows_leave_the_cut_wan(scene: &mut Scene) -> Result<()> {
    let server = EchoServer::start(scene.lab.net(), SocketAddr::new(NET4.into(), 7))?;
    let used = checks::spread(&scene.lab, server.address(), 30)?;
    ensure!(used.iter().all(|&flows| flows.abs_diff(10) <= 2), "flows a WAN: {used:?}");
    scene.lab.wan(1).uplink(false)?;
    scene.gateway.wait_for_status("the cut WAN is down", promise(), |status| {
        status.wans[1].state == "down"
    })?;
    let used = checks::spread(&scene.lab, server.address(), 30)?;
    ensure!(used[1] == 0 && used[0] >= 10 && used[2] >= 10, "flows a WAN: {used:?}");
    scene.lab.wan(1).uplink(true)?;
    wait_until("all WANs are used again", Duration::from_secs(15), || {
        let used = checks::spread(&scene.lab, server.address(), 30)?;
        ensure!(used.iter().all(|&flows| flows.abs_diff(10) <= 2), "flows a WAN: {used:?}");
        Ok(true)
    })
    .context("after the recovery")
    .map(drop)
}
