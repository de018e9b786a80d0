//! ICMP errors pass with what they quote put right, so that what depends on them
//! works: traceroute, closed ports. What has to do with sizes is in `mtu`.

use std::{
    io::ErrorKind,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket},
    time::Duration,
};

use anyhow::{Context as _, Result, bail, ensure};

use super::{
    Case, Lane, checks,
    packets::{self, Packet, flag},
    port::{Port, host_of},
    scene::{Scene, both_hooks},
};
use crate::lab::{
    GatewayConfig, LabSpec, Namespace,
    address::{
        GATEWAY4, GATEWAY6, HOST4, HOST6, NET4, NET6, net_uplink4, net_uplink6, provider4,
        provider6, wan4,
    },
    wait_until,
};

pub(super) fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    let mut add = |name, test| {
        cases.extend(both_hooks(
            Lane::Together,
            name,
            || LabSpec::direct(1),
            |config| config,
            test,
        ));
    };
    add("a_closed_port_far_away_refuses_the_client", a_closed_port_refuses);
    add("traceroute_shows_every_hop", traceroute_shows_every_hop);
    cases.extend(both_hooks(
        Lane::Together,
        "errors_quote_what_each_side_knows",
        || LabSpec::direct(1),
        GatewayConfig::watching_gateways,
        errors_quote_what_each_side_knows,
    ));
    cases
}

/// Any address of the family, any port.
pub(super) fn any(family: IpAddr) -> SocketAddr {
    match family {
        IpAddr::V4(_) => (Ipv4Addr::UNSPECIFIED, 0).into(),
        IpAddr::V6(_) => (Ipv6Addr::UNSPECIFIED, 0).into(),
    }
}

/// A socket whose reads end after two seconds.
pub(super) fn socket(namespace: &Namespace, address: SocketAddr) -> Result<UdpSocket> {
    namespace.enter(|| {
        let socket = UdpSocket::bind(address)?;
        socket.set_read_timeout(Some(Duration::from_secs(2)))?;
        Ok(socket)
    })
}

fn a_closed_port_refuses(scene: &mut Scene) -> Result<()> {
    for to in checks::FAMILIES {
        let client = socket(scene.lab.host(), any(to))?;
        client.connect(SocketAddr::new(to, 4444))?;
        client.send(b"anybody?")?;
        match client.recv(&mut [0; 64]) {
            Err(error) if error.kind() == ErrorKind::ConnectionRefused => {}
            other => bail!("{to}: {other:?} where the port is closed"),
        }
    }
    Ok(())
}

/// The gateway, the provider, the server; by UDP, ICMP and TCP.
fn traceroute_shows_every_hop(scene: &mut Scene) -> Result<()> {
    let hops4: [IpAddr; 3] = [GATEWAY4.into(), provider4(0).into(), NET4.into()];
    let hops6: [IpAddr; 3] = [GATEWAY6.into(), provider6(0).into(), NET6.into()];
    for hops in [hops4, hops6] {
        let to = hops[2].to_string();
        for method in ["-U", "-I", "-T"] {
            let arguments = ["-n", "-q", "2", "-w", "1", "-m", "5", method, &to];
            let said = scene.lab.host().run("traceroute", arguments)?;
            let found: Vec<&str> =
                said.lines().skip(1).filter_map(|line| line.split_whitespace().nth(1)).collect();
            let wanted = hops.map(|hop| hop.to_string());
            ensure!(found == wanted, "traceroute {method}:\n{said}");
            ensure!(!said.contains('*'), "a probe was not answered: {method}\n{said}");
        }
    }
    Ok(())
}

/// Made by hand, in both directions, both families, about every protocol: outside
/// and inside each read of the packet that they themselves sent.
fn errors_quote_what_each_side_knows(scene: &mut Scene) -> Result<()> {
    let (mut lan, mut wan) = (Port::lan(&scene.lab)?, Port::wan(&scene.lab, 0)?);
    for to in checks::FAMILIES {
        let (v4, host) = (to.is_ipv4(), host_of(to));
        let (near, far) = (SocketAddr::new(host, 4000), SocketAddr::new(to, 53));
        let router: IpAddr = if v4 { net_uplink4(0).into() } else { net_uplink6(0).into() };
        let questions = [
            packets::udp(near, far, b"question")?,
            packets::tcp(near, far, flag::SYN, (1, 0), b"")?,
            packets::echo(host, to, 4000, false, b"question")?,
        ];
        for question in questions {
            let asked = Packet::read(&question).context("a packet")?;
            lan.send(std::slice::from_ref(&question))?;
            let outside = wan.hear("the question outside", |packet, bytes| {
                (packet.to.ip() == to && packet.protocol == asked.protocol).then(|| bytes.to_vec())
            })?;
            let seen = Packet::read(&outside).context("a packet")?;
            // Errors of a router on the way, about the packet as it left.
            let kinds: &[(u8, u8)] = if v4 {
                &[(3, 1), (3, 4), (11, 0), (12, 0)]
            } else {
                &[(1, 0), (2, 0), (3, 0), (4, 0)]
            };
            for &kind in kinds {
                let error = packets::error(router, seen.from.ip(), kind, 1400, &outside)?;
                wan.send(&[error])?;
                let (from, quoted, word) = lan.hear("the error inside", |packet, _| {
                    (packet.icmp == Some(kind) && packet.to.ip() == host)
                        .then(|| (packet.from.ip(), packet.payload.clone(), packet.icmp_word))
                })?;
                ensure!(from == router, "{kind:?}: from {from}");
                ensure!(word == 1400, "{kind:?}: the MTU has become {word}");
                same_packet(&quoted, &question).with_context(|| format!("{to} {kind:?} in"))?;
            }
            // An answer, and an error of the host about it.
            let answer = match asked.protocol {
                packets::UDP => packets::udp(far, seen.from, b"answer")?,
                packets::TCP => packets::tcp(far, seen.from, flag::SYN | flag::ACK, (7, 2), b"")?,
                _ => packets::echo(to, seen.from.ip(), seen.from.port(), true, b"answer")?,
            };
            wan.send(std::slice::from_ref(&answer))?;
            let inside = lan.hear("the answer inside", |packet, bytes| {
                (packet.from.ip() == to && packet.protocol == asked.protocol)
                    .then(|| bytes.to_vec())
            })?;
            let kind = if v4 { (3, 3) } else { (1, 4) };
            lan.send(&[packets::error(host, to, kind, 0, &inside)?])?;
            let (from, quoted) = wan.hear("the error outside", |packet, _| {
                (packet.icmp == Some(kind) && packet.to.ip() == to)
                    .then(|| (packet.from.ip(), packet.payload.clone()))
            })?;
            ensure!(from == seen.from.ip(), "an error from {from}, of a flow of {}", seen.from);
            same_packet(&quoted, &answer).with_context(|| format!("{to} out"))?;
        }
    }
    // About nothing that we know: into the kernel, and never into the LAN.
    let stranger = packets::udp(
        SocketAddr::from((wan4(0), 50_000)),
        SocketAddr::from((NET4, 53)),
        b"never sent",
    )?;
    let before = scene.counted("in", "outside_icmp_error")?;
    wan.send(&[packets::error(net_uplink4(0).into(), wan4(0).into(), (3, 1), 0, &stranger)?])?;
    wait_until("it is counted", Duration::from_secs(2), || {
        Ok(scene.counted("in", "outside_icmp_error")? == before + 1)
    })?;
    let leaked = lan.pending(|packet, _| (packet.icmp == Some((3, 1))).then_some(()))?;
    ensure!(leaked.is_empty(), "an error about nothing reached the LAN");
    let before = scene.counted("out", "inside_icmp_error")?;
    let unknown = packets::udp(
        SocketAddr::from((NET4, 53)),
        SocketAddr::from((HOST4, 50_000)),
        b"never came",
    )?;
    lan.send(&[packets::error(HOST4.into(), NET4.into(), (3, 3), 0, &unknown)?])?;
    let unknown = packets::udp(
        SocketAddr::from((NET6, 53)),
        SocketAddr::from((HOST6, 50_000)),
        b"never came",
    )?;
    lan.send(&[packets::error(HOST6.into(), NET6.into(), (1, 4), 0, &unknown)?])?;
    wait_until("both are counted", Duration::from_secs(2), || {
        Ok(scene.counted("out", "inside_icmp_error")? == before + 2)
    })
    .map(drop)
}

/// The quoted packet is the one that was sent: addresses, ports, and every
/// checksum as they were, but for the TTL.
fn same_packet(quoted: &[u8], sent: &[u8]) -> Result<()> {
    let whole = quoted.get(..sent.len()).context("it quotes less than it was given")?;
    let mut wanted = sent.to_vec();
    let v4 = sent.first().is_some_and(|first| first >> 4 == 4);
    // The TTL, and with it the checksum of an IPv4 header, changed on the way.
    let changed = if v4 { vec![8, 10, 11] } else { vec![7] };
    for place in changed {
        if let (Some(wanted), Some(is)) = (wanted.get_mut(place), whole.get(place)) {
            *wanted = *is;
        }
    }
    if v4 {
        let (header, _) = etherparse::Ipv4Header::from_slice(whole)?;
        ensure!(
            header.header_checksum == header.calc_header_checksum(),
            "the quoted header's checksum is wrong"
        );
    }
    ensure!(whole == wanted, "it quotes\n{whole:02x?}\nof what was sent as\n{wanted:02x?}");
    Ok(())
}
