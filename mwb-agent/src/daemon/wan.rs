//! What a WAN is at the moment: its entry in the path table and what health
//! must know, from the configuration and the devices. Pure.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::Ipv6Net;
use mwb_common::maps::{Path, path_flag};
use mwb_common::nptv6;

use crate::config::{Config, Gateway, Mode, Wan};
use crate::health::{Hop, Link, NextHop};
use crate::net::{Device, Snapshot};

/// A WAN as its device makes it.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Present {
    /// The entry for the kernel side.
    pub(super) path: Path,
    /// What probes need.
    pub(super) link: Link,
    /// How frames reach the IPv6 next hop, if there is one: it is there even if
    /// the WAN has no IPv6 address to probe from.
    pub(super) next_hop6: Option<NextHop>,
}

/// What a WAN is now. `before` is its entry so far: what is lost for a while,
/// as the default route may be together with the carrier, is taken from there,
/// and the generation goes on from there.
pub(super) fn present(config: &Config, wan: &Wan, network: &Snapshot, before: &Path) -> Present {
    let Some(device) = network.device(&wan.device) else {
        // Addresses stay for comparison; without flags nobody uses them.
        let path = Path { flags: 0, ifindex: 0, ..*before };
        return Present { path, ..Present::default() };
    };
    let v4 = hop4(wan, device, network, before);
    let npt = config.ipv6_prefix.zip(wan.ipv6_prefix);
    // Packets of a bond go by IPv6 with the WAN's own address.
    let is_bonded = config.tunnel().is_some();
    let v6 = (npt.is_some() || is_bonded && device.source6().is_some())
        .then(|| hop6(wan, device, network, before))
        .flatten();
    let mut path = Path {
        ifindex: device.ifindex,
        flags: path_flag::PRESENT,
        mtu: device.mtu,
        source_mac: device.mac.unwrap_or_default(),
        ..*before
    };
    if let Some(source) = device.source4().filter(|source| source.octets() != before.address4) {
        // A gateway that is remembered belongs to the address.
        (path.address4, path.gateway4) = (source.octets(), [0; 4]);
    }
    if let Some(hop) = v4 {
        path.flags |= path_flag::HAS_V4;
        path.gateway4 = hop.gateway.unwrap_or(Ipv4Addr::UNSPECIFIED).octets();
        if let Some(mac) = destination(hop.mac) {
            path.flags |= path_flag::NEXT_HOP4;
            path.next_hop_mac4 = mac;
        }
    }
    let own = device.source6().filter(|_| is_bonded).map_or([0; 16], |own| own.octets());
    path.address6 = own;
    match npt {
        Some((inside, outside)) => translate(&mut path, inside, outside),
        None => (path.inside6, path.outside6, path.npt_length) = ([0; 16], [0; 16], 0),
    }
    if let Some((gateway, mac)) = v6 {
        // On a server of flows alone: without a prefix there are none.
        if npt.is_some() || config.mode == Mode::Bond {
            path.flags |= path_flag::HAS_V6;
        }
        path.gateway6 = gateway.unwrap_or(Ipv6Addr::UNSPECIFIED).octets();
        if let Some(mac) = destination(mac) {
            path.flags |= path_flag::NEXT_HOP6;
            path.next_hop_mac6 = mac;
        }
    }
    if identity(&path) != identity(before) {
        path.generation = before.generation.wrapping_add(1);
    }
    let probe6 = v6.zip(device.source6());
    let link = Link {
        ifindex: Some(device.ifindex),
        carrier: device.carrier,
        v4,
        v6: probe6.map(|((gateway, mac), source)| Hop { source, gateway, mac }),
    };
    Present { path, link, next_hop6: v6.map(|(_, mac)| mac) }
}

/// What flows of a WAN rest on: with another one they are void.
fn identity(path: &Path) -> ([u8; 4], [u8; 16], [u8; 16], u8) {
    (path.address4, path.inside6, path.outside6, path.npt_length)
}

fn translate(path: &mut Path, inside: Ipv6Net, outside: Ipv6Net) {
    (path.inside6, path.outside6) =
        (inside.trunc().addr().octets(), outside.trunc().addr().octets());
    path.npt_length = inside.prefix_len();
    path.npt_adjustment = nptv6::adjustment(path.inside6, path.outside6, path.npt_length);
}

fn hop4(wan: &Wan, device: &Device, network: &Snapshot, before: &Path) -> Option<Hop<Ipv4Addr>> {
    let source = device.source4()?;
    let gateway = match wan.gateway4 {
        Gateway::Address(gateway) => Some(gateway),
        // Where frames have no destination no route need name one; the far end
        // is somebody to ask.
        Gateway::Auto if !device.resolves => {
            network.gateway4(device.ifindex).flatten().or_else(|| device.peer4())
        }
        Gateway::Auto => network.gateway4(device.ifindex).or_else(|| {
            let known = Ipv4Addr::from(before.gateway4);
            let same = source.octets() == before.address4;
            (same && !known.is_unspecified()).then_some(Some(known))
        })?,
    };
    let mac = next_hop(device, network, gateway.map(IpAddr::V4))?;
    Some(Hop { source, gateway, mac })
}

fn hop6(
    wan: &Wan,
    device: &Device,
    network: &Snapshot,
    before: &Path,
) -> Option<(Option<Ipv6Addr>, NextHop)> {
    let gateway = match wan.gateway6 {
        Gateway::Address(gateway) => Some(gateway),
        Gateway::Auto if !device.resolves => network.gateway6(device.ifindex).flatten(),
        Gateway::Auto => network.gateway6(device.ifindex).or_else(|| {
            let known = Ipv6Addr::from(before.gateway6);
            (!known.is_unspecified()).then_some(Some(known))
        })?,
    };
    let mac = next_hop(device, network, gateway.map(IpAddr::V6))?;
    Some((gateway, mac))
}

/// The destination of frames to a next hop that is ready for them. A device
/// without link-layer addresses drops it with the header.
fn destination(next_hop: NextHop) -> Option<[u8; 6]> {
    match next_hop {
        NextHop::Mac(mac) => Some(mac),
        NextHop::NotNeeded => Some([0; 6]),
        NextHop::Unresolved => None,
    }
}

/// `None`: the device needs a next hop, and there is none.
fn next_hop(device: &Device, network: &Snapshot, gateway: Option<IpAddr>) -> Option<NextHop> {
    if !device.resolves {
        return Some(NextHop::NotNeeded);
    }
    let neighbour = network.neighbour(device.ifindex, gateway?);
    Some(neighbour.and_then(|n| n.mac).map_or(NextHop::Unresolved, NextHop::Mac))
}

/// How frames reach the next hop of IPv4 and of IPv6; `None` for a family that
/// the WAN does not carry.
pub(super) fn next_hops(present: &Present) -> [Option<NextHop>; 2] {
    [present.link.v4.map(|hop| hop.mac), present.next_hop6]
}

/// The next hops of a WAN that the kernel should be asked to resolve.
pub(super) fn to_resolve(present: &Present, network: &Snapshot) -> Vec<(u32, IpAddr)> {
    let Link { ifindex: Some(ifindex), carrier: true, .. } = present.link else {
        return Vec::new();
    };
    let v4 = present.link.v4.and_then(|hop| hop.gateway).map(IpAddr::V4);
    let v6 = present.next_hop6.map(|_| Ipv6Addr::from(present.path.gateway6));
    let v6 = v6.filter(|gateway| !gateway.is_unspecified()).map(IpAddr::V6);
    let resolves = network.devices.iter().any(|d| d.ifindex == ifindex && d.resolves);
    v4.into_iter()
        .chain(v6)
        .filter(|_| resolves)
        .filter(|ip| network.neighbour(ifindex, *ip).is_none_or(|n| n.state.wants_resolving()))
        .map(|ip| (ifindex, ip))
        .collect()
}

#[cfg(test)]
#[path = "wan_tests.rs"]
mod tests;
