use std::collections::BTreeMap;

use super::*;
use crate::daemon::fixture::{config, network, route};

/// Class and path of the longest match, as the kernel side finds it.
fn place(rules: &Rules, destination: &str) -> Option<(u8, u8)> {
    let destination: IpAddr = destination.parse().ok()?;
    let mut table = BTreeMap::new();
    let v4 = rules.v4.iter().map(|r| (IpNet::new(r.address.into(), r.length), r.prefix));
    let v6 = rules.v6.iter().map(|r| (IpNet::new(r.address.into(), r.length), r.prefix));
    for (net, prefix) in v4.chain(v6) {
        table.insert(net.ok()?.trunc(), (prefix.class, prefix.path));
    }
    let matches = table.into_iter().filter(|(net, _)| net.contains(&destination));
    matches.max_by_key(|(net, _)| net.prefix_len()).map(|(_, place)| place)
}

const LOCAL: Option<(u8, u8)> = Some((prefix_class::LOCAL, 0));
const LAN: Option<(u8, u8)> = Some((prefix_class::LAN, 0));
const MULTICAST: Option<(u8, u8)> = Some((prefix_class::MULTICAST, 0));
const BYPASS: Option<(u8, u8)> = Some((prefix_class::BYPASS, 0));

/// Our own address on that WAN.
fn local(path: u8) -> Option<(u8, u8)> {
    Some((prefix_class::LOCAL, path))
}

fn via(path: u8) -> Option<(u8, u8)> {
    Some((prefix_class::VIA_PATH, path))
}

#[test]
fn every_destination_has_its_place() {
    let rules = rules(&config(), &[1, 2], &network());
    for (destination, wanted) in [
        // Our own addresses, on whatever device.
        ("10.1.0.1", LOCAL),
        ("198.51.100.2", local(1)),
        ("203.0.113.2", local(2)),
        ("10.9.0.1", LOCAL),
        ("2001:db8:a:1::1", LOCAL),
        ("2001:db8:102::2", LOCAL),
        ("fe80::3", LOCAL),
        // The LAN, what is behind its routers, and all of the inside prefix.
        ("10.1.0.77", LAN),
        ("10.2.3.4", LAN),
        ("2001:db8:a:1::77", LAN),
        ("2001:db8:a:ffff::1", LAN),
        // A WAN's own subnet; IPv6 only where the WAN carries it.
        ("198.51.100.1", via(1)),
        ("203.0.113.9", via(2)),
        ("2001:db8:101::9", via(1)),
        ("2001:db8:102::9", None),
        // What the kernel routes by devices that are not ours.
        ("10.9.0.5", LAN),
        ("192.0.2.200", BYPASS),
        ("224.0.0.1", MULTICAST),
        ("255.255.255.255", MULTICAST),
        ("10.1.0.255", MULTICAST),
        ("198.51.100.255", MULTICAST),
        ("169.254.1.1", MULTICAST),
        ("127.0.0.53", MULTICAST),
        ("ff02::1", MULTICAST),
        ("fe80::77", MULTICAST),
        // The Internet, outside prefixes included.
        ("192.0.2.1", None),
        ("2001:db8:101:ffff::1", None),
        ("2001:db8:ff::1", None),
    ] {
        assert_eq!(place(&rules, destination), wanted, "{destination}");
    }
}

#[test]
fn a_subnet_that_several_wans_have_is_reached_by_any_of_them() {
    let mut network = network();
    network.devices[3].addresses = network.devices[2].addresses.clone();
    let shared = rules(&config(), &[1, 2], &network);
    assert_eq!(place(&shared, "198.51.100.1"), via(0));
    // Our address there is the same on both: the lowest path id has it.
    assert_eq!(place(&shared, "198.51.100.2"), local(1));
    assert_eq!(place(&rules(&config(), &[7, 3], &network), "198.51.100.2"), local(3));
    // Alone, a WAN has its subnet to itself.
    network.devices.remove(3);
    assert_eq!(place(&rules(&config(), &[1, 2], &network), "198.51.100.1"), via(1));
}

#[test]
fn one_wan_with_two_addresses_on_a_subnet_is_still_the_only_one() {
    let mut network = network();
    let mut second = network.devices[2].addresses[0];
    second.ip = [198, 51, 100, 3].into();
    network.devices[2].addresses.push(second);
    let rules = rules(&config(), &[1, 2], &network);
    assert_eq!(place(&rules, "198.51.100.1"), via(1));
    // Flows are translated to the first of them.
    assert_eq!(place(&rules, "198.51.100.2"), local(1));
    assert_eq!(place(&rules, "198.51.100.3"), LOCAL);
}

#[test]
fn a_link_local_subnet_is_never_forwarded_to() {
    let mut network = network();
    network.devices[3].addresses[0].net = "169.254.7.0/24".parse().unwrap_or_default();
    assert_eq!(place(&rules(&config(), &[1, 2], &network), "169.254.7.1"), MULTICAST);
}

#[test]
fn the_lan_wins_over_a_wan_on_the_same_subnet() {
    let mut network = network();
    network.devices[2].addresses = network.devices[1].addresses.clone();
    assert_eq!(place(&rules(&config(), &[1, 2], &network), "10.1.0.77"), LAN);
}

#[test]
fn a_full_routing_table_is_left_out() {
    let mut network = network();
    for i in 0..2000u16 {
        let [a, b] = i.to_be_bytes();
        network.routes.push(route(&format!("172.16.{a}.{b}/32"), None, 5));
    }
    let rules = rules(&config(), &[1, 2], &network);
    assert!(rules.v4.len() < PREFIX_ENTRIES);
    assert_eq!(place(&rules, "172.16.0.1"), None);
    assert_eq!(place(&rules, "10.1.0.77"), LAN);
}

#[test]
fn missing_devices_have_no_rules() {
    let rules = rules(&config(), &[1, 2], &Snapshot::default());
    assert_eq!(place(&rules, "198.51.100.1"), None);
    assert_eq!(place(&rules, "224.0.0.1"), MULTICAST);
}

#[test]
fn in_a_bond_all_is_the_bonds_but_what_is_here() {
    use crate::daemon::fixture::{bonded, device};
    let mut network = network();
    network.devices.push(device(6, "mwb0", &["192.0.2.62/32", "2001:db8:a:f::1/128"]));
    for half in ["0.0.0.0/1", "128.0.0.0/1", "::/1", "8000::/1"] {
        network.routes.push(route(half, None, 6));
    }
    let rules = rules(&bonded(), &[1, 2], &network);
    for (destination, wanted) in [
        // Its routes are no reason to leave a packet to the kernel, nor are the WANs'.
        ("203.0.113.250", None),
        ("8.8.8.8", None),
        ("2001:db8:ff::1", None),
        ("198.51.100.1", None),
        ("2001:db8:101::9", None),
        // Our own addresses: nothing is mapped there.
        ("198.51.100.2", LOCAL),
        ("203.0.113.2", LOCAL),
        ("192.0.2.62", LOCAL),
        ("2001:db8:a:f::1", LOCAL),
        ("10.1.0.77", LAN),
        ("10.2.3.4", LAN),
        ("10.9.0.5", LAN),
        ("192.0.2.200", BYPASS),
        ("224.0.0.1", MULTICAST),
        ("198.51.100.255", MULTICAST),
    ] {
        assert_eq!(place(&rules, destination), wanted, "{destination}");
    }
}
