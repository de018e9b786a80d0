//! Fragments both ways, in order and out of order, over IPv4 and IPv6.

use std::{
    net::{IpAddr, SocketAddr},
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};

use super::{
    Case, Lane, checks,
    packets::{self, Packet},
    port::{Port, host_of},
    scene::{Scene, both_hooks},
};
use crate::lab::{
    GatewayConfig, LabSpec,
    capture::{Captured, Passing},
    traffic::{UdpServer, UdpStream, ping},
    wait_until,
};

pub(super) fn cases() -> Vec<Case> {
    let mut cases = both_hooks(
        Lane::Together,
        "large_datagrams_pass_in_fragments",
        || LabSpec::relayed(1),
        |config| config,
        large_datagrams_pass,
    );
    let mut add = |name, test| {
        cases.extend(both_hooks(
            Lane::Together,
            name,
            || LabSpec::direct(2),
            |config| config.watching_gateways().with("balance", "round_robin"),
            test,
        ));
    };
    add("fragments_pass_in_any_order", fragments_pass_in_any_order);
    add("fragments_without_a_first_one_are_dropped_and_counted", orphans_are_counted);
    cases.extend(both_hooks(
        Lane::Alone,
        "fragments_that_wait_leave_room_for_others",
        || LabSpec::direct(1),
        GatewayConfig::watching_gateways,
        a_flood_of_orphans_hurts_nobody,
    ));
    cases
}

/// By sockets, both directions and families, several datagrams at once; each
/// packet on the wire is whole and right.
fn large_datagrams_pass(scene: &mut Scene) -> Result<()> {
    const COUNT: u64 = 300;
    let capture = scene.lab.wan(0).capture(Passing::In, "ip or ip6")?;
    for to in checks::FAMILIES {
        let report = ping(scene.lab.host(), to, 10, Duration::from_millis(10), &["-s", "4000"])?;
        ensure!(report.received == 10 && report.duplicates == 0, "{to}: {}", report.output);
        let server = UdpServer::start(scene.lab.net(), SocketAddr::new(to, 7))?;
        let stream = UdpStream { size: 4000, ..UdpStream::new(COUNT, Duration::from_millis(1)) };
        let report = stream.run(scene.lab.host(), &server)?;
        let back = report.back.context("echoes were asked for")?;
        ensure!(
            report.there.received == COUNT && back.received == COUNT,
            "{to}: not everything arrived: {report:?}"
        );
    }
    let captured = capture.finish()?;
    ensure!(captured.audit_leaks()? >= 3 * 2 * (COUNT + 10), "the capture missed fragments");
    captured.audit_checksums()?;
    Ok(())
}

/// Orders in which the fragments of a datagram come.
const ORDERS: [[usize; 3]; 4] = [[0, 1, 2], [2, 1, 0], [1, 2, 0], [0, 2, 1]];

fn fragments_pass_in_any_order(scene: &mut Scene) -> Result<()> {
    let mut lan = Port::lan(&scene.lab)?;
    let mut wans = [Port::wan(&scene.lab, 0)?, Port::wan(&scene.lab, 1)?];
    for to in checks::FAMILIES {
        for (number, order) in ORDERS.into_iter().enumerate() {
            // A flow of its own for each order: the first one opens it.
            let port = 4000 + u16::try_from(number)?;
            let near = SocketAddr::new(host_of(to), port);
            let far = SocketAddr::new(to, 53);
            let payload: Vec<u8> = (0..3000_u32).map(|i| (i % 251) as u8).collect();
            let datagram = 1000 + u32::try_from(number)?;

            let question = packets::udp(near, far, &payload)?;
            lan.send(&shuffled(&question, datagram, order)?)?;
            let (wan, seen) = whole_datagram(&mut wans, to)
                .with_context(|| format!("{to}: outwards in order {order:?}"))?;
            ensure!(seen.payload == payload, "{to} {order:?}: another payload left");
            ensure!(seen.from.ip() != near.ip(), "{to} {order:?}: an inside address left");
            ensure!(seen.to == far, "{to} {order:?}: it went to {}", seen.to);

            let answer = packets::udp(far, seen.from, &payload)?;
            wans[wan].send(&shuffled(&answer, datagram, order)?)?;
            let (_, seen) = whole_datagram(std::slice::from_mut(&mut lan), near.ip())
                .with_context(|| format!("{to}: inwards in order {order:?}"))?;
            ensure!(seen.payload == payload, "{to} {order:?}: another payload came in");
            ensure!((seen.from, seen.to) == (far, near), "{to} {order:?}: {seen:?}");
        }
    }
    Ok(())
}

fn shuffled(packet: &[u8], datagram: u32, order: [usize; 3]) -> Result<Vec<Vec<u8>>> {
    let parts = packets::fragments(packet, datagram, 1024)?;
    ensure!(parts.len() == 3, "{} fragments", parts.len());
    Ok(order.map(|place| parts[place].clone()).to_vec())
}

/// Waits for three fragments to `to` on one of `ports`, puts them together, and
/// audits the checksum of the whole.
fn whole_datagram(ports: &mut [Port], to: IpAddr) -> Result<(usize, Packet)> {
    let mut parts: Vec<Vec<Vec<u8>>> = vec![Vec::new(); ports.len()];
    wait_until("three fragments", Duration::from_secs(3), || {
        for (port, parts) in ports.iter_mut().zip(&mut parts) {
            parts.extend(port.pending(|packet, bytes| {
                (packet.to.ip() == to && packet.fragment.is_some()).then(|| bytes.to_vec())
            })?);
        }
        let heard: Vec<usize> = parts.iter().map(Vec::len).collect();
        ensure!(heard.contains(&3), "{heard:?} heard");
        Ok(true)
    })?;
    let place = parts.iter().position(|parts| parts.len() == 3).context("three somewhere")?;
    ensure!(parts.iter().flatten().count() == 3, "fragments of one datagram took two ways");
    let whole = packets::reassemble(&parts[place])?;
    let frame = ports[place].frame(&whole);
    let audited = Captured { frames: vec![frame] }.audit_checksums()?;
    ensure!(audited.checksums == 1, "the datagram has no checksum to look at");
    Ok((place, Packet::read(&whole).context("a datagram")?))
}

/// Later fragments alone, from either side.
fn orphans_are_counted(scene: &mut Scene) -> Result<()> {
    let (mut lan, wan) = (Port::lan(&scene.lab)?, Port::wan(&scene.lab, 0)?);
    for to in checks::FAMILIES {
        let near = SocketAddr::new(host_of(to), 4000);
        let far = SocketAddr::new(to, 53);
        let question = packets::udp(near, far, &[3; 3000])?;
        let before = scene.counted("out", "fragment_orphan")?;
        lan.send(&packets::fragments(&question, 77, 1024)?[1..])?;
        // They wait a moment for the first, and need somebody to come by.
        wait_until("both are counted", Duration::from_secs(10), || {
            lan.send(&packets::fragments(&question, 78, 1024)?[2..])?;
            Ok(scene.counted("out", "fragment_orphan")? >= before + 2)
        })?;
    }
    let outside = SocketAddr::from((crate::lab::address::wan4(0), 20_000));
    let answer = packets::udp(SocketAddr::new(checks::FAMILIES[0], 53), outside, &[3; 3000])?;
    let before = scene.counted("in", "fragment_orphan")?;
    wait_until("those from outside too", Duration::from_secs(10), || {
        wan.send(&packets::fragments(&answer, 79, 1024)?[1..])?;
        Ok(scene.counted("in", "fragment_orphan")? >= before + 2)
    })?;
    let inside = lan.pending(|packet, _| packet.fragment.map(|_| ()))?;
    ensure!(inside.is_empty(), "an orphan reached the LAN");
    Ok(())
}

/// More orphans than can wait: others still pass, in order or not.
fn a_flood_of_orphans_hurts_nobody(scene: &mut Scene) -> Result<()> {
    const ORPHANS: u32 = 5000;
    let lan = Port::lan(&scene.lab)?;
    let mut wan = [Port::wan(&scene.lab, 0)?];
    let far = SocketAddr::new(checks::FAMILIES[0], 53);
    let outside = SocketAddr::from((crate::lab::address::wan4(0), 20_000));
    let orphan = packets::udp(far, outside, &[3; 3000])?;
    let before = scene.counted("in", "fragment_orphan")?;
    let near = SocketAddr::new(host_of(far.ip()), 4000);
    for number in 0..ORPHANS {
        wan[0].send(&packets::fragments(&orphan, number, 1024)?[1..2])?;
        if number % 1000 == 500 {
            let question = packets::udp(near, far, &[4; 3000])?;
            lan.send(&packets::fragments(&question, number, 1024)?)?;
            whole_datagram(&mut wan, far.ip())
                .with_context(|| format!("after {number} orphans"))?;
        }
    }
    let counted = scene.counted("in", "fragment_orphan")? - before;
    ensure!(counted >= u64::from(ORPHANS) / 2, "{counted} of {ORPHANS} orphans counted");
    Ok(())
}
