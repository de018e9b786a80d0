//! Protocols without ports of ours to change, by packets made by hand: SCTP, GRE
//! and ESP keep what they carry, and get another address.

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};

use super::{
    Case, Lane, checks,
    packets::{self, flag},
    port::{Port, host_of},
    scene::{Scene, both_hooks},
};
use crate::lab::{
    GatewayConfig, LabSpec,
    address::{HOST4, HOST6, NET4, is_outside6, wan4},
    wait_until,
};

const GRE: u8 = 47;
const ESP: u8 = 50;
const SCTP: u8 = 132;
/// Nothing that a NAT knows to translate.
const OSPF: u8 = 89;

/// Another host of the LAN.
const PEER4: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 11);
const PEER6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0xa, 1, 0, 0, 0, 0x11);

pub(super) fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    let mut add = |name, test| {
        cases.extend(both_hooks(
            Lane::Together,
            name,
            || LabSpec::direct(1),
            GatewayConfig::watching_gateways,
            test,
        ));
    };
    add("sctp_gre_and_esp_get_another_address_alone", only_the_address_changes);
    add("both_ends_of_a_connection_may_open_it_at_once", simultaneous_open);
    add("outside_ports_keep_parity_and_neighbourhood", ports_keep_parity);
    cases
}

/// Ports 4000 and 5000, a tag, and an INIT chunk that says nothing; the ports
/// swapped for an answer.
fn payload(protocol: u8, answer: bool) -> Vec<u8> {
    let mut bytes = match protocol {
        SCTP => [4000_u16.to_be_bytes(), 5000_u16.to_be_bytes()].concat(),
        // With a key; and a security parameter index.
        GRE => vec![0x20, 0, 8, 0],
        _ => vec![0x12, 0x34, 0x56, 0x78],
    };
    if answer && protocol == SCTP {
        bytes.rotate_left(2);
    }
    bytes.extend((0..40).map(|i| i * 3));
    bytes
}

fn only_the_address_changes(scene: &mut Scene) -> Result<()> {
    let (mut lan, mut wan) = (Port::lan(&scene.lab)?, Port::wan(&scene.lab, 0)?);
    for to in checks::FAMILIES {
        for protocol in [SCTP, GRE, ESP] {
            let host = host_of(to);
            for round in 0..2 {
                let what = format!("{to}, protocol {protocol}, round {round}");
                let question = packets::raw(host, to, protocol, &payload(protocol, false))?;
                lan.send(&[question])?;
                let seen = wan
                    .hear("it leaves", |packet, bytes| {
                        (packet.protocol == protocol && packet.to.ip() == to)
                            .then(|| (packet.from.ip(), bytes.to_vec()))
                    })
                    .with_context(|| what.clone())?;
                let (outside, bytes) = seen;
                ensure!(
                    match outside {
                        IpAddr::V4(outside) => outside == wan4(0),
                        IpAddr::V6(outside) => is_outside6(0, outside),
                    },
                    "{what}: from {outside}"
                );
                ensure!(
                    bytes.ends_with(&payload(protocol, false)),
                    "{what}: it carries something else: {bytes:02x?}"
                );
                let answer = packets::raw(to, outside, protocol, &payload(protocol, true))?;
                wan.send(&[answer])?;
                let bytes = lan
                    .hear("the answer comes in", |packet, bytes| {
                        (packet.protocol == protocol
                            && packet.from.ip() == to
                            && packet.to.ip() == host)
                            .then(|| bytes.to_vec())
                    })
                    .with_context(|| what.clone())?;
                ensure!(bytes.ends_with(&payload(protocol, true)), "{what}: {bytes:02x?}");
            }
        }
        another_host(scene, &lan, &mut wan, to)?;
    }
    unsupported(scene, &lan)?;
    // Nobody asked for these.
    let before = scene.packets(|row| row.direction == "in" && row.verdict != "forward")?;
    for protocol in [SCTP, GRE, ESP] {
        let stranger = IpAddr::from(Ipv4Addr::new(203, 0, 113, 99));
        wan.send(&[packets::raw(stranger, wan4(0).into(), protocol, &payload(protocol, true))?])?;
    }
    wait_until("they are not let in", Duration::from_secs(2), || {
        let counted = scene.packets(|row| row.direction == "in" && row.verdict != "forward")?;
        Ok(counted >= before + 3)
    })?;
    let stranger = Ipv4Addr::new(203, 0, 113, 99);
    let leaked = lan.pending(|packet, _| (packet.from.ip() == stranger).then_some(()))?;
    ensure!(leaked.is_empty(), "a stranger was let in");
    Ok(())
}

/// IPv4: to the same remote end there is no telling two hosts apart, to another
/// there is. IPv6 has an address for each.
fn another_host(scene: &Scene, lan: &Port, wan: &mut Port, to: IpAddr) -> Result<()> {
    let peer: IpAddr = if to.is_ipv4() { PEER4.into() } else { PEER6.into() };
    for protocol in [SCTP, GRE, ESP] {
        let before = scene.counted("out", "endpoint_taken")?;
        let packet = packets::raw(peer, to, protocol, &payload(protocol, false))?;
        lan.send(&[packet])?;
        if to.is_ipv4() {
            wait_until("it is refused", Duration::from_secs(2), || {
                Ok(scene.counted("out", "endpoint_taken")? == before + 1)
            })
            .with_context(|| format!("protocol {protocol}"))?;
            let other = IpAddr::from(Ipv4Addr::new(203, 0, 113, 98));
            lan.send(&[packets::raw(peer, other, protocol, &payload(protocol, false))?])?;
            wan.hear("to another remote end it leaves", |packet, _| {
                (packet.protocol == protocol && packet.to.ip() == other).then_some(())
            })?;
        } else {
            wan.hear("it leaves", |packet, _| {
                (packet.protocol == protocol && packet.to.ip() == to).then_some(())
            })?;
        }
    }
    Ok(())
}

fn unsupported(scene: &Scene, lan: &Port) -> Result<()> {
    let before = scene.counted("out", "unsupported_protocol")?;
    lan.send(&[
        packets::raw(HOST4.into(), NET4.into(), OSPF, &[1; 40])?,
        packets::raw(HOST6.into(), checks::FAMILIES[1], OSPF, &[1; 40])?,
    ])?;
    wait_until("both are dropped and counted", Duration::from_secs(2), || {
        Ok(scene.counted("out", "unsupported_protocol")? == before + 2)
    })
    .map(drop)
}

/// RFC 5382, REQ-2: two SYNs cross on the way, and two SYN-ACKs. And REQ-4: one
/// that comes before the inside has sent its own is not answered.
fn simultaneous_open(scene: &mut Scene) -> Result<()> {
    let (mut lan, mut wan) = (Port::lan(&scene.lab)?, Port::wan(&scene.lab, 0)?);
    simultaneous_opens(&mut lan, &mut wan)?;
    let near = SocketAddr::new(HOST4.into(), 4000);
    let (rendezvous, far) = (SocketAddr::from((NET4, 5000)), SocketAddr::from((NET4, 6000)));
    let opens = |lan: &Port, wan: &mut Port, far: SocketAddr| {
        lan.send(&[packets::tcp(near, far, flag::SYN, (100, 0), b"")?])?;
        wan.hear("the SYN of the inside", |packet, _| {
            (packet.to == far && packet.flags == flag::SYN).then_some(packet.from)
        })
    };
    let outside = opens(&lan, &mut wan, rendezvous)?;
    let before = scene.counted("in", "filtered")?;
    wan.send(&[packets::tcp(far, outside, flag::SYN, (500, 0), b"")?])?;
    wait_until("the early SYN is dropped", Duration::from_secs(2), || {
        Ok(scene.counted("in", "filtered")? == before + 1)
    })?;
    ensure!(opens(&lan, &mut wan, far)? == outside, "another endpoint for another peer");
    let resets = wan.pending(|packet, _| (packet.to == far).then_some(packet.flags))?;
    ensure!(resets.is_empty(), "it was answered: {resets:?}");
    wan.send(&[packets::tcp(far, outside, flag::SYN | flag::ACK, (500, 101), b"")?])?;
    lan.hear("the answer", |packet, _| (packet.from == far && packet.to == near).then_some(()))
}

fn simultaneous_opens(lan: &mut Port, wan: &mut Port) -> Result<()> {
    for to in checks::FAMILIES {
        let (near, far) = (SocketAddr::new(host_of(to), 4000), SocketAddr::new(to, 5000));
        lan.send(&[packets::tcp(near, far, flag::SYN, (100, 0), b"")?])?;
        let outside = wan.hear("the SYN of the inside", |packet, _| {
            (packet.to == far && packet.flags == flag::SYN).then_some(packet.from)
        })?;
        let steps: [(u8, (u32, u32), &[u8]); 3] = [
            (flag::SYN, (500, 0), b""),
            (flag::SYN | flag::ACK, (500, 101), b""),
            (flag::ACK, (501, 101), b"data"),
        ];
        for (number, (flags, numbers, data)) in steps.into_iter().enumerate() {
            wan.send(&[packets::tcp(far, outside, flags, numbers, data)?])?;
            lan.hear("a segment of the outside", |packet, _| {
                (packet.from == far
                    && packet.to == near
                    && packet.flags == flags
                    && packet.payload == data)
                    .then_some(())
            })
            .with_context(|| format!("{to}, step {number}"))?;
            if number > 0 {
                lan.send(&[packets::tcp(near, far, flags, (numbers.1, numbers.0), data)?])?;
                wan.hear("a segment of the inside", |packet, _| {
                    (packet.from == outside && packet.flags == flags && packet.payload == data)
                        .then_some(())
                })
                .with_context(|| format!("{to}, step {number}"))?;
            }
        }
    }
    Ok(())
}

/// RFC 4787, 4.2: a port that can be kept is kept, so that ports that follow each
/// other go on doing so; one that cannot keeps its parity.
fn ports_keep_parity(scene: &mut Scene) -> Result<()> {
    let (lan, mut wan) = (Port::lan(&scene.lab)?, Port::wan(&scene.lab, 0)?);
    let far = SocketAddr::from((NET4, 5000));
    let mut outside_of = |host: Ipv4Addr, port: u16| -> Result<u16> {
        lan.send(&[packets::udp((host, port).into(), far, &port.to_be_bytes())?])?;
        wan.hear("a datagram", |packet, _| {
            (packet.payload == port.to_be_bytes()).then_some(packet.from.port())
        })
    };
    for port in 20_000..20_016 {
        let outside = outside_of(HOST4, port)?;
        ensure!(outside == port, "{port} has become {outside}");
    }
    // Below the NAT's range, and taken by another host.
    for (host, ports) in [(HOST4, 5000..5032), (PEER4, 20_000..20_016)] {
        for port in ports {
            let outside = outside_of(host, port)?;
            ensure!(outside % 2 == port % 2, "{host}:{port} has become {outside}");
            ensure!((10_000..=65_535).contains(&outside), "{outside} is the gateway's own");
        }
    }
    Ok(())
}
