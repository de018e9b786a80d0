//! The gateway is also a host on its networks: its own traffic, its neighbours,
//! its answers, its ports.

use std::{
    fs,
    io::ErrorKind,
    net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, UdpSocket},
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail, ensure};
use socket2::SockRef;

use super::{
    Case, Lane, checks, packets,
    port::Port,
    scene::{Scene, both_hooks},
};
use crate::lab::{
    LabSpec, Namespace,
    address::{GATEWAY4, GATEWAY6, HOST4, HOST6, NET4, provider4, provider6, wan4},
    capture::{Capture, Passing},
    traffic::{EchoServer, FileServer, UdpServer, UdpStream, WhoServer, connect_tcp, curl, ping},
    wait_until,
};

/// First port of NAT; the gateway's own sockets stay below.
const FIRST_NAT_PORT: u16 = 10_000;

pub(super) fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    let mut add = |name, test| {
        cases.extend(both_hooks(
            Lane::Together,
            name,
            || LabSpec::direct(2),
            |config| config,
            test,
        ));
    };
    add("the_gateways_own_traffic_works_beside_nat", own_traffic_works);
    add("an_unresolved_neighbour_costs_no_packet", an_unresolved_neighbour_costs_no_packet);
    add("the_kernel_answers_when_a_ttl_ends", the_kernel_answers_when_a_ttl_ends);
    add("a_datagram_without_checksum_stays_without", a_datagram_without_checksum);
    add("the_lan_reaches_the_gateway_and_the_providers", the_lan_reaches_everything_near);
    // By tcx with offloads, as in a container: checksums are left to the device.
    cases.extend(both_hooks(
        Lane::Together,
        "an_answer_about_a_connection_reaches_who_opens_or_accepts_it",
        || LabSpec::direct(1),
        |config| config.with("nat.ports", "10000-10003"),
        answers_about_connections,
    ));
    cases.extend(both_hooks(
        Lane::Together,
        "exhausted_ports_are_refused_and_counted",
        || LabSpec::direct(1),
        |config| config.with("nat.ports", "10000-10003"),
        exhausted_ports_are_refused,
    ));
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

fn answers_about_connections(scene: &mut Scene) -> Result<()> {
    for (to, expired) in checks::FAMILIES.into_iter().zip(["InTimeExcds", "Icmp6InTimeExcds"]) {
        let listener = scene.lab.net().enter(|| {
            let listener = TcpListener::bind((to, 7))?;
            // Its answers end at the gateway.
            let socket = SockRef::from(&listener);
            if to.is_ipv4() { socket.set_ttl_v4(2) } else { socket.set_unicast_hops_v6(2) }?;
            Ok(listener)
        })?;
        let before = snmp(scene.lab.net(), expired)?;
        let patience = Duration::from_millis(500);
        let connection = connect_tcp(scene.lab.host(), listener.local_addr()?, patience);
        ensure!(connection.is_err(), "{to}: a connection without answers");
        let heard = snmp(scene.lab.net(), expired)? - before;
        ensure!(heard >= 1, "{to}: the server hears nothing of the end of its hops");
    }
    let server = EchoServer::start(scene.lab.net(), SocketAddr::new(NET4.into(), 8))?;
    let patience = Duration::from_secs(5);
    let connect = || connect_tcp(scene.lab.host(), server.address(), patience);
    // One port is taken by the connection that had no answer.
    let _open = (0..3).map(|_| connect()).collect::<Result<Vec<_>>>()?;
    let asked = Instant::now();
    let Err(refused) = connect() else { bail!("a fifth connection on four ports") };
    let kind = refused.downcast_ref::<std::io::Error>().map(std::io::Error::kind);
    ensure!(kind == Some(ErrorKind::HostUnreachable), "{refused:#}");
    let waited = asked.elapsed();
    // Its first repetition would come after a second.
    ensure!(waited < Duration::from_millis(900), "told after {waited:?}");
    for counter in ["InCsumErrors", "Icmp6InCsumErrors"] {
        for place in [scene.lab.net(), scene.lab.host()] {
            ensure!(snmp(place, counter)? == 0, "{counter} in {}", place.name());
        }
    }
    Ok(())
}

/// A counter of ICMP, or one of ICMPv6, whose names tell, in a namespace.
fn snmp(place: &Namespace, counter: &str) -> Result<u64> {
    let value = place.enter(|| {
        if counter.starts_with("Icmp6") {
            let text = fs::read_to_string("/proc/thread-self/net/snmp6")?;
            let line = text.lines().find_map(|line| line.strip_prefix(counter));
            return Ok(line.map(|value| value.trim().to_owned()));
        }
        let text = fs::read_to_string("/proc/thread-self/net/snmp")?;
        let mut lines = text.lines().filter_map(|line| line.strip_prefix("Icmp: "));
        let (names, values) = lines.next().zip(lines.next()).context("no ICMP")?;
        let mut both = names.split(' ').zip(values.split(' '));
        Ok(both.find(|(name, _)| *name == counter).map(|(_, value)| value.to_owned()))
    })?;
    Ok(value.with_context(|| format!("no {counter}"))?.parse()?)
}
