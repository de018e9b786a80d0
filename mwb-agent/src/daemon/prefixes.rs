//! Which destinations are not for a WAN of our choice. Pure.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use mwb_common::maps::{PREFIX_ENTRIES, Prefix, prefix_class};

use crate::config::{Config, Mode, Wan};
use crate::dataplane::PrefixRule;
use crate::net::{Device, Snapshot};

/// The rules of both families. Of two rules for one prefix the later counts.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Rules {
    pub(super) v4: Vec<PrefixRule<Ipv4Addr>>,
    pub(super) v6: Vec<PrefixRule<Ipv6Addr>>,
}

/// Never forwarded to a WAN: multicast, broadcast, link-local, loopback.
const NOT_FORWARDED4: [(Ipv4Addr, u8); 5] = [
    (Ipv4Addr::new(224, 0, 0, 0), 4),
    (Ipv4Addr::BROADCAST, 32),
    (Ipv4Addr::new(169, 254, 0, 0), 16),
    (Ipv4Addr::UNSPECIFIED, 8),
    (Ipv4Addr::new(127, 0, 0, 0), 8),
];
const NOT_FORWARDED6: [(Ipv6Addr, u8); 4] = [
    (Ipv6Addr::new(0xff00, 0, 0, 0, 0, 0, 0, 0), 8),
    (Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 0), 10),
    (Ipv6Addr::UNSPECIFIED, 128),
    (Ipv6Addr::LOCALHOST, 128),
];

impl Rules {
    fn add(&mut self, net: IpNet, class: u8, path: u8) {
        let prefix = Prefix { class, path, ..Prefix::default() };
        let length = net.prefix_len();
        match net.addr() {
            IpAddr::V4(address) => self.v4.push(PrefixRule { address, length, prefix }),
            IpAddr::V6(address) => self.v6.push(PrefixRule { address, length, prefix }),
        }
    }
}

/// The rules that follow from the configuration and the devices; `paths` are
/// the ids of the WANs, in their order.
pub(super) fn rules(config: &Config, paths: &[u8], network: &Snapshot) -> Rules {
    let mut rules = Rules::default();
    for (address, length) in NOT_FORWARDED4 {
        let prefix = Prefix { class: prefix_class::MULTICAST, ..Prefix::default() };
        rules.v4.push(PrefixRule { address, length, prefix });
    }
    for (address, length) in NOT_FORWARDED6 {
        let prefix = Prefix { class: prefix_class::MULTICAST, ..Prefix::default() };
        rules.v6.push(PrefixRule { address, length, prefix });
    }
    add_routes(&mut rules, config, network);
    // In a bond they are reached by the server, like any other place.
    if config.mode == Mode::Steer {
        for (net, path) in wan_subnets(config, paths, network) {
            rules.add(net, prefix_class::VIA_PATH, path);
        }
    }
    // All of the inside prefix is ours, assigned to a LAN port or not.
    if let Some(inside) = config.ipv6_prefix {
        rules.add(IpNet::V6(inside), prefix_class::LAN, 0);
    }
    for lan in &config.lan {
        for net in subnets(network, &lan.device) {
            rules.add(net, prefix_class::LAN, 0);
        }
    }
    for net in &config.bypass {
        rules.add(*net, prefix_class::BYPASS, 0);
    }
    let served = config.lan.iter().map(|lan| &lan.device);
    for device in served.chain(config.wans.iter().map(|wan| &wan.device)) {
        for broadcast in subnets(network, device).filter_map(broadcast) {
            rules.add(IpNet::V4(broadcast), prefix_class::MULTICAST, 0);
        }
    }
    for address in network.devices.iter().flat_map(|device| &device.addresses) {
        rules.add(host(address.ip), prefix_class::LOCAL, 0);
    }
    // What is sent to such an address from the LAN may be for a host behind it.
    // WANs may have the same one: the lowest path id has it.
    let mut wans: Vec<(u8, &Wan)> = paths.iter().copied().zip(&config.wans).collect();
    wans.sort_by_key(|(path, _)| Reverse(*path));
    // In a bond nothing of the LAN has a port there.
    let mapped = config.mode == Mode::Steer;
    for (path, wan) in wans.into_iter().filter(|_| mapped) {
        if let Some(address) = network.device(&wan.device).and_then(Device::source4) {
            rules.add(host(IpAddr::V4(address)), prefix_class::LOCAL, path);
        }
    }
    rules
}

/// The WANs' own subnets with the only path that leads there. One that several
/// WANs have, as behind modems of one make, has path 0: any of them, as for the
/// Internet, or a WAN that is dead would draw all of it.
fn wan_subnets(config: &Config, paths: &[u8], network: &Snapshot) -> BTreeMap<IpNet, u8> {
    let mut found: BTreeMap<IpNet, u8> = BTreeMap::new();
    for (&path, wan) in paths.iter().zip(&config.wans) {
        let own: BTreeSet<IpNet> = subnets(network, &wan.device).collect();
        for net in own {
            let carried = match net {
                // Link-local stays on the link (RFC 3927, 7).
                IpNet::V4(net) => !LINK_LOCAL.contains(&net),
                // Without a prefix to translate to, the WAN carries no IPv6.
                IpNet::V6(_) => wan.ipv6_prefix.is_some(),
            };
            if carried {
                found.entry(net).and_modify(|path| *path = 0).or_insert(path);
            }
        }
    }
    found
}

const LINK_LOCAL: Ipv4Net = Ipv4Net::new_assert(Ipv4Addr::new(169, 254, 0, 0), 16);

/// What the kernel routes elsewhere than to a WAN stays with the kernel: hosts
/// behind LAN routers, and networks on devices that are not ours.
fn add_routes(rules: &mut Rules, config: &Config, network: &Snapshot) {
    let name = |ifindex: u32| {
        let device = network.devices.iter().find(|device| device.ifindex == ifindex);
        device.map(|device: &Device| device.name.as_str())
    };
    // What leads to the bond's device on a gateway is not for the kernel: it leads back
    // to us. On a server that device is a LAN port.
    let bond = config.bond.as_ref().map(|bond| bond.device.as_str());
    let room = PREFIX_ENTRIES / 4;
    let mut routes = Rules::default();
    for route in network.routes.iter().filter(|route| route.destination.prefix_len() > 0) {
        let Some(device) = name(route.ifindex) else { continue };
        if device != "lo"
            && bond != Some(device)
            && !config.wans.iter().any(|wan| wan.device == device)
        {
            // Not BYPASS: a WAN packet that claims to come from there gets no
            // further than any other.
            routes.add(route.destination, prefix_class::LAN, 0);
        }
    }
    if routes.v4.len().max(routes.v6.len()) > room {
        tracing::warn!(
            v4 = routes.v4.len(),
            v6 = routes.v6.len(),
            room,
            "too many routes beside the WANs: they are left out, name what matters in bypass"
        );
        return;
    }
    rules.v4.append(&mut routes.v4);
    rules.v6.append(&mut routes.v6);
}

fn subnets<'a>(network: &'a Snapshot, device: &str) -> impl Iterator<Item = IpNet> + use<'a> {
    network.device(device).into_iter().flat_map(Device::subnets)
}

/// The directed broadcast address of a subnet that has one.
fn broadcast(net: IpNet) -> Option<Ipv4Net> {
    match net {
        IpNet::V4(net) if net.prefix_len() <= 30 => Ipv4Net::new(net.broadcast(), 32).ok(),
        _ => None,
    }
}

fn host(ip: IpAddr) -> IpNet {
    match ip {
        IpAddr::V4(ip) => IpNet::V4(Ipv4Net::from(ip)),
        IpAddr::V6(ip) => IpNet::V6(Ipv6Net::from(ip)),
    }
}

#[cfg(test)]
#[path = "prefixes_tests.rs"]
mod tests;
