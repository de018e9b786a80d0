//! A little world for the tests of this room: a LAN and two WANs.

use ipnet::IpNet;

use crate::config::{self, Config};
use crate::net::{Address, Device, Neighbour, Reachability, Route, Snapshot};

pub(super) const ROUTER_MAC: [u8; 6] = [2, 0, 0, 0, 0, 1];
pub(super) const OUR_MAC: [u8; 6] = [2, 0, 0, 0, 0, 2];

/// The configuration of the world.
pub(super) fn config() -> Config {
    let text = "
version: 1
mode: steer
lan: [lan0]
ipv6_prefix: 2001:db8:a::/48
bypass: [192.0.2.128/25]
wans:
  - {name: fiber, device: wan0, ipv6_prefix: 2001:db8:101::/48}
  - {name: lte, device: wan1, gateway: 203.0.113.9, priority: 1}
";
    config::parse(text, "fixture").unwrap_or_else(|error| panic!("{error}"))
}

/// The same world with a bond: nothing is translated there.
pub(super) fn bonded() -> Config {
    let text = "
version: 1
mode: bond
lan: [lan0]
bypass: [192.0.2.128/25]
wans:
  - {name: fiber, device: wan0}
  - {name: lte, device: wan1, gateway: 203.0.113.9, priority: 1}
bond:
  server: \"203.0.113.250:7000\"
  private_key_file: /etc/mwb/private.key
  server_public_key: NqnP4z4u49EyW2/lx5QXo6mx9BrGxDTentAf2N++HAY=
  addresses: [192.0.2.62/32, \"2001:db8:a:f::1/128\"]
";
    config::parse(text, "fixture").unwrap_or_else(|error| panic!("{error}"))
}

/// The kernel's network in the world.
pub(super) fn network() -> Snapshot {
    Snapshot {
        devices: vec![
            device(1, "lo", &["127.0.0.1/8", "::1/128"]),
            device(2, "lan0", &["10.1.0.1/24", "2001:db8:a:1::1/64", "fe80::2/64"]),
            device(3, "wan0", &["198.51.100.2/24", "2001:db8:101::2/64", "fe80::3/64"]),
            device(4, "wan1", &["203.0.113.2/24", "2001:db8:102::2/64"]),
            device(5, "mgmt0", &["10.9.0.1/24"]),
        ],
        routes: vec![
            route("0.0.0.0/0", Some("198.51.100.1"), 3),
            route("::/0", Some("fe80::1"), 3),
            route("198.51.100.0/24", None, 3),
            route("203.0.113.0/24", None, 4),
            route("10.1.0.0/24", None, 2),
            route("10.2.0.0/16", Some("10.1.0.9"), 2),
            route("10.9.0.0/24", None, 5),
        ],
        neighbours: vec![
            neighbour(3, "198.51.100.1", Reachability::Fresh),
            neighbour(3, "fe80::1", Reachability::Stale),
        ],
    }
}

pub(super) fn device(ifindex: u32, name: &str, addresses: &[&str]) -> Device {
    let address = |text: &&str| {
        let net: IpNet = text.parse().unwrap_or_default();
        let global =
            !text.starts_with("fe80") && !text.starts_with("127") && !text.starts_with("::1");
        Address { ip: net.addr(), net: net.trunc(), global, preferred: true }
    };
    Device {
        ifindex,
        name: name.to_owned(),
        kind: None,
        mac: Some(OUR_MAC),
        peer: None,
        opens_to_peer: false,
        headless: false,
        resolves: true,
        mtu: 1500,
        carrier: true,
        addresses: addresses.iter().map(address).collect(),
    }
}

pub(super) fn route(destination: &str, gateway: Option<&str>, ifindex: u32) -> Route {
    Route {
        destination: destination.parse().unwrap_or_default(),
        gateway: gateway.and_then(|gateway| gateway.parse().ok()),
        ifindex,
        metric: 0,
    }
}

pub(super) fn neighbour(ifindex: u32, ip: &str, state: Reachability) -> Neighbour {
    let ip = ip.parse().unwrap_or_else(|error| panic!("{ip}: {error}"));
    let valid = matches!(state, Reachability::Fresh | Reachability::Stale);
    Neighbour { ifindex, ip, mac: valid.then_some(ROUTER_MAC), state }
}
