//! The gateway is also a host on its networks: its own traffic, its neighbours,
//! its answers, its ports.

use std::{
    net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket},
    time::Duration,
};

use anyhow::{Context as _, Result, bail, ensure};

use super::{
    Case, checks, packets,
    port::Port,
    scene::{Hook, Scene, both_hooks, play},
};
use crate::lab::{
    LabSpec,
    address::{GATEWAY4, GATEWAY6, HOST4, HOST6, NET4, provider4, provider6, wan4},
    capture::{Capture, Passing},
    traffic::{EchoServer, FileServer, UdpServer, UdpStream, WhoServer, curl, ping},
    wait_until,
};

/// First port of NAT; the gateway's own sockets stay below.
const FIRST_NAT_PORT: u16 = 10_000;

pub(super) fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    let mut add = |name, test| {
        cases.extend(both_hooks(name, || LabSpec::direct(2), |config| config, test));
    };
    add("the_gateways_own_traffic_works_beside_nat", own_traffic_works);
    add("an_unresolved_neighbour_costs_no_packet", an_unresolved_neighbour_costs_no_packet);
    add("the_kernel_answers_when_a_ttl_ends", the_kernel_answers_when_a_ttl_ends);
    add("a_datagram_without_checksum_stays_without", a_datagram_without_checksum);
    add("the_lan_reaches_the_gateway_and_the_providers", the_lan_reaches_everything_near);
    for hook in Hook::BOTH {
        cases.push(Case::new(
            &format!("exhausted_ports_are_refused_and_counted_by_{hook}"),
            move || {
                let scene = Scene::new(hook, LabSpec::direct(1), |config| {
                    config.with("nat.ports", "10000-10003")
                })?;
                play(scene, exhausted_ports_are_refused)
            },
        ));
    }
    cases
}

fn own_traffic_works(scene: &mut Scene) -> Result<()> {
    const BYTES: u64 = 10 << 20;
    for to in checks::FAMILIES {
        let files = FileServer::start(scene.lab.net(), SocketAddr::new(to, 80))?;
        curl(scene.lab.gw(), &files.url(BYTES), &[])?.expect_content(BYTES)?;
        let server = EchoServer::start(scene.lab.net(), SocketAddr::new(to, 7))?;
        let patience = Duration::from_secs(5);
        let own =
            crate::lab::traffic::EchoStream::connect(scene.lab.gw(), server.address(), patience)?;
        ensure!(own.seen_as().port() < FIRST_NAT_PORT, "its own port is {}", own.seen_as());
        if to.is_ipv4() {
            let host = crate::lab::traffic::EchoStream::connect(
                scene.lab.host(),
                server.address(),
                patience,
            )?;
            ensure!(host.seen_as().port() >= FIRST_NAT_PORT, "a NAT port is {}", host.seen_as());
        }
    }
    Ok(())
}

/// Neighbour entries go away while a stream passes, again and again.
fn an_unresolved_neighbour_costs_no_packet(scene: &mut Scene) -> Result<()> {
    for to in checks::FAMILIES {
        let server = UdpServer::start(scene.lab.net(), SocketAddr::new(to, 7))?;
        let stream = UdpStream::new(3000, Duration::from_millis(1));
        let run = stream.start(scene.lab.host(), &server)?;
        for _ in 0..10 {
            let before = run.report().there.received;
            wait_until("a hundred more datagrams", Duration::from_secs(5), || {
                Ok(run.report().there.received >= before + 100)
            })?;
            scene
                .lab
                .gw()
                .ip("neigh flush dev lan0\nneigh flush dev wan0\nneigh flush dev wan1\n")?;
        }
        let report = run.finish()?;
        let back = report.back.context("echoes were asked for")?;
        ensure!(
            report.there.lost + back.lost == 0,
            "{to}: {} lost on the way there, {} on the way back: {report:?}",
            report.there.lost,
            back.lost
        );
        ensure!(report.there.duplicated + back.duplicated == 0, "{to}: {report:?}");
    }
    Ok(())
}

fn the_kernel_answers_when_a_ttl_ends(scene: &mut Scene) -> Result<()> {
    let mut sent = 0;
    for (to, answerer) in checks::FAMILIES.into_iter().zip([IpAddr::V4(GATEWAY4), GATEWAY6.into()])
    {
        let report = ping(scene.lab.host(), to, 3, Duration::from_millis(50), &["-t", "1"])?;
        let said = report.output.to_lowercase();
        ensure!(
            said.contains(&format!("from {answerer}"))
                && (said.contains("time to live exceeded") || said.contains("time exceeded")),
            "{to}: {}",
            report.output
        );
        sent += report.sent;
        // One more hop and it is the provider that answers.
        let report = ping(scene.lab.host(), to, 1, Duration::ZERO, &["-t", "3"])?;
        ensure!(report.received == 1, "three hops do not reach {to}: {}", report.output);
    }
    let counted = scene.counted("out", "ttl_expired")?;
    ensure!(counted == sent, "{sent} expired, {counted} counted");
    Ok(())
}

fn a_datagram_without_checksum(scene: &mut Scene) -> Result<()> {
    const COUNT: u64 = 200;
    let server = UdpServer::start(scene.lab.net(), SocketAddr::new(NET4.into(), 7))?;
    let captures = (0..2)
        .map(|index| Capture::start(scene.lab.isp(index), "gw0", Passing::In, "udp port 7"))
        .collect::<Result<Vec<_>>>()?;
    let stream =
        UdpStream { without_checksum: true, ..UdpStream::new(COUNT, Duration::from_micros(200)) };
    let report = stream.run(scene.lab.host(), &server)?;
    ensure!(report.there.received == COUNT, "{report:?}");
    ensure!(report.back.is_some_and(|back| back.received == COUNT), "{report:?}");
    let mut without = 0;
    for capture in captures {
        without += capture.finish()?.audit_checksums()?.without;
    }
    ensure!(without == COUNT, "{without} of {COUNT} left without a checksum");
    Ok(())
}

fn the_lan_reaches_everything_near(scene: &mut Scene) -> Result<()> {
    let near: [IpAddr; 7] = [
        GATEWAY4.into(),
        GATEWAY6.into(),
        wan4(0).into(),
        provider4(0).into(),
        provider4(1).into(),
        provider6(0).into(),
        provider6(1).into(),
    ];
    for to in near {
        let report = ping(scene.lab.host(), to, 3, Duration::from_millis(20), &[])?;
        ensure!(report.received == 3, "{to}: {}", report.output);
    }
    for (from, to) in [(IpAddr::V4(GATEWAY4), IpAddr::V4(HOST4)), (GATEWAY6.into(), HOST6.into())] {
        let report = ping(scene.lab.gw(), to, 3, Duration::from_millis(20), &[])?;
        ensure!(report.received == 3, "{from} to {to}: {}", report.output);
    }
    Ok(())
}

/// Four ports, of which a socket of the gateway has one: three flows pass, the
/// fourth is refused, counted and told, and the socket goes on working.
fn exhausted_ports_are_refused(scene: &mut Scene) -> Result<()> {
    let server = WhoServer::start(scene.lab.net(), SocketAddr::new(NET4.into(), 7))?;
    let own = scene.lab.gw().enter(|| {
        let socket = UdpSocket::bind((wan4(0), 10_001))?;
        Ok(socket)
    })?;
    let mut sockets = Vec::new();
    let mut ports = Vec::new();
    for _ in 0..3 {
        let socket = scene.lab.host().enter(|| Ok(UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0))?))?;
        ports.push(server.ask(&socket).context("a port is free")?.port());
        sockets.push(socket);
    }
    ports.sort_unstable();
    ensure!(ports == [10_000, 10_002, 10_003], "the flows got {ports:?}");
    let before = scene.counted("out", "ports_exhausted")?;
    let socket = scene.lab.host().enter(|| Ok(UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0))?))?;
    if let Ok(seen) = server.ask(&socket) {
        bail!("a fourth flow was seen as {seen}");
    }
    let counted = scene.counted("out", "ports_exhausted")? - before;
    ensure!(counted == 3, "three datagrams refused, {counted} counted");
    let mut port = Port::between((scene.lab.host(), "lan0"), (scene.lab.gw(), "lan0"))?;
    port.send(&[packets::udp((HOST4, 5999).into(), (NET4, 7).into(), b"and I?")?])?;
    port.hear("host unreachable", |packet, _| (packet.icmp == Some((3, 1))).then_some(()))?;
    let seen = server.ask(&own)?;
    ensure!(seen == SocketAddr::from((wan4(0), 10_001)), "the gateway's socket is {seen}");
    for socket in &sockets {
        server.ask(socket).context("a flow that had a port goes on")?;
    }
    Ok(())
}
