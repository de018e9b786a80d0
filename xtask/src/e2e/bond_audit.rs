//! What a WAN shows of a bond: packets of the bond with right checksums, and nothing of
//! what is inside.

use std::net::IpAddr;

use anyhow::{Result, bail, ensure};
use etherparse::{LaxSlicedPacket, TransportSlice};
use mwb_common::wire::Kind;

use super::{
    Case, Lane,
    bond_scene::{BondScene, play},
    checks,
};
use crate::lab::{
    Family, LabSpec,
    address::{BOND_PORT, HOST4, HOST6, NET4},
    capture::{Capture, Captured, Passing, addresses},
};

pub(super) fn cases() -> Vec<Case> {
    Family::BOTH
        .into_iter()
        .map(|family| {
            let name = format!("nothing_of_what_is_inside_a_bond_is_seen_over_ip{family:?}");
            Case::new(Lane::Together, &name.to_lowercase(), move || {
                let scene = BondScene::new(LabSpec::direct(2), |config| config.over(family))?;
                play(scene, |scene| nothing_is_seen(scene, family))
            })
        })
        .collect()
}

fn nothing_is_seen(scene: &mut BondScene, family: Family) -> Result<()> {
    let mut captures = Vec::new();
    for wan in 0..2 {
        for passing in [Passing::In, Passing::Out] {
            let capture = Capture::start(scene.lab.isp(wan), "gw0", passing, "ip or ip6")?;
            captures.push((wan, passing, capture));
        }
    }
    checks::pings_pass(&scene.lab)?;
    checks::transfers_are_whole(&scene.lab, 256 << 10)?;
    for to in checks::FAMILIES {
        scene.datagrams_arrive_once(to, 500)?;
    }
    let (mut bonded, mut checksums) = (0, 0);
    for (wan, passing, capture) in captures {
        let mut captured = capture.finish()?;
        let place = |error: anyhow::Error| error.context(format!("WAN {wan}, {passing:?}"));
        audit(&captured, family).map_err(place)?;
        // Those of sockets are left to the device.
        captured.frames.retain(|frame| !is_the_agents(frame));
        checksums += captured.audit_checksums()?.checksums;
        bonded += audit(&captured, family).map_err(place)?;
    }
    // Pings, datagrams and their echoes at least, both families.
    ensure!(bonded > 2 * (2 * 20 + 2 * 500), "only {bonded} packets of the bond captured");
    // Over IPv6 every one has a checksum.
    ensure!(family == Family::V4 || checksums >= bonded, "{checksums} checksums of {bonded}");
    Ok(())
}

/// Counts the bond's packets. Refuses any other but the agents' own probes of the
/// providers, and anything that is inside in clear.
fn audit(captured: &Captured, family: Family) -> Result<u64> {
    let secrets: [&[u8]; 4] = [
        // What every numbered datagram begins with.
        b"mwbU",
        &[HOST4.octets(), NET4.octets()].concat(),
        &[NET4.octets(), HOST4.octets()].concat(),
        &HOST6.octets(),
    ];
    let mut bonded = 0;
    for frame in &captured.frames {
        for secret in secrets {
            let seen = frame.windows(secret.len()).any(|window| window == secret);
            ensure!(!seen, "{secret:02x?} in clear in {frame:02x?}");
        }
        let Some((from, to)) = addresses(frame) else { continue };
        let packet = LaxSlicedPacket::from_ethernet(frame)?;
        match packet.transport {
            Some(TransportSlice::Udp(udp)) => {
                let server = family.server();
                let ports = [udp.source_port(), udp.destination_port()];
                let ours = (from == server || to == server) && ports.contains(&BOND_PORT);
                ensure!(ours, "UDP from {from} to {to}: {frame:02x?}");
                bonded += 1;
            }
            Some(TransportSlice::Icmpv4(_) | TransportSlice::Icmpv6(_)) => {
                ensure!(!is_inside(from) && !is_inside(to), "ICMP from {from} to {to}");
            }
            _ => bail!("something from {from} to {to}: {frame:02x?}"),
        }
    }
    ensure!(bonded > 0 || captured.frames.is_empty(), "nothing of the bond here");
    Ok(bonded)
}

/// Whether a frame has a packet that an agent has sent, by a socket.
fn is_the_agents(frame: &[u8]) -> bool {
    let packet = LaxSlicedPacket::from_ethernet(frame).ok();
    let Some(TransportSlice::Udp(udp)) = packet.and_then(|packet| packet.transport) else {
        return false;
    };
    let kind = udp.payload().first().and_then(|first| Kind::from_number(first & 0xf));
    kind.is_some_and(Kind::is_the_agents)
}

fn is_inside(address: IpAddr) -> bool {
    address == IpAddr::from(HOST4) || address == IpAddr::from(HOST6)
}
