//! What the kernel's network looks like at one moment, and what can be read off
//! it. Pure.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;

/// Devices of which more is read than that they are there.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Watched {
    /// LAN ports, by name.
    pub lan: Vec<String>,
    /// WANs: their neighbours matter too.
    pub wans: Vec<String>,
}

impl Watched {
    /// Whether a device is one of either side.
    pub(super) fn has(&self, device: &str) -> bool {
        self.lan.iter().chain(&self.wans).any(|name| name == device)
    }
}

/// The kernel's network at one moment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Snapshot {
    /// Every device, by index.
    pub devices: Vec<Device>,
    /// Unicast routes of the main table, one for each next hop.
    pub routes: Vec<Route>,
    /// Neighbours on the devices that are watched.
    pub neighbours: Vec<Neighbour>,
}

/// A network device.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Device {
    /// Interface index.
    pub ifindex: u32,
    /// Interface name.
    pub name: String,
    /// Link kind (`veth`, `bridge`, ...); `None` for hardware.
    pub kind: Option<String>,
    /// MAC, if it is an Ethernet device.
    pub mac: Option<[u8; 6]>,
    /// The other end of a veth, if it is in another network namespace, this one
    /// is up, and packets of segments are not cut for it.
    pub peer: Option<Peer>,
    /// Nothing stands between it and that other end that a packet on its way out
    /// would have to pass; looked up for the devices that are watched.
    pub opens_to_peer: bool,
    /// Packets begin with the IP header (tun, ppp, wireguard and the like).
    pub headless: bool,
    /// Whether next hops must be resolved to a MAC.
    pub resolves: bool,
    /// MTU in bytes (layer 3).
    pub mtu: u32,
    /// Administratively up, with a carrier.
    pub carrier: bool,
    /// Addresses in the kernel's order.
    pub addresses: Vec<Address>,
}

/// The other end of a veth.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Peer {
    /// Its network namespace, as ours numbers it.
    pub namespace: i32,
    /// Its interface index there.
    pub ifindex: u32,
}

/// An address of a device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Address {
    /// The address itself.
    pub ip: IpAddr,
    /// The subnet it is on: host bits zero. On a point-to-point link that of
    /// the peer.
    pub net: IpNet,
    /// Valid everywhere, not only on the link or the host.
    pub global: bool,
    /// May be used as source: not tentative, deprecated, duplicate, temporary
    /// or secondary.
    pub preferred: bool,
}

/// A unicast route by one next hop.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Route {
    /// Destination; length 0 is a default route.
    pub destination: IpNet,
    /// Next hop; `None`: on the link.
    pub gateway: Option<IpAddr>,
    /// By this device.
    pub ifindex: u32,
    /// Lower is preferred.
    pub metric: u32,
}

/// A neighbour entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Neighbour {
    /// On this device.
    pub ifindex: u32,
    /// Its address.
    pub ip: IpAddr,
    /// Its MAC, while that is valid.
    pub mac: Option<[u8; 6]>,
    /// What the kernel thinks of it.
    pub state: Reachability,
}

/// What the kernel thinks of a neighbour entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reachability {
    /// Confirmed lately, being confirmed, or set by hand.
    Fresh,
    /// Was confirmed, and nobody asked since.
    Stale,
    /// Being asked for; no answer yet.
    Incomplete,
    /// Did not answer.
    Failed,
}

impl Reachability {
    /// Whether asking the kernel would make a difference.
    #[must_use]
    pub fn wants_resolving(self) -> bool {
        matches!(self, Reachability::Stale | Reachability::Failed)
    }
}

impl Snapshot {
    /// The device with this name.
    #[must_use]
    pub fn device(&self, name: &str) -> Option<&Device> {
        self.devices.iter().find(|device| device.name == name)
    }

    /// The preferred default route by a device.
    fn default_route(&self, ifindex: u32, v6: bool) -> Option<&Route> {
        self.routes
            .iter()
            .filter(|route| route.ifindex == ifindex && route.destination.prefix_len() == 0)
            .filter(|route| route.destination.addr().is_ipv6() == v6)
            .min_by_key(|route| route.metric)
    }

    /// The IPv4 gateway of the device's default route; `Some(None)` if the
    /// route has none, `None` if there is no such route.
    #[must_use]
    pub fn gateway4(&self, ifindex: u32) -> Option<Option<Ipv4Addr>> {
        self.default_route(ifindex, false).map(|route| match route.gateway {
            Some(IpAddr::V4(gateway)) => Some(gateway),
            _ => None,
        })
    }

    /// The same for IPv6.
    #[must_use]
    pub fn gateway6(&self, ifindex: u32) -> Option<Option<Ipv6Addr>> {
        self.default_route(ifindex, true).map(|route| match route.gateway {
            Some(IpAddr::V6(gateway)) => Some(gateway),
            _ => None,
        })
    }

    /// The neighbour entry of an address on a device.
    #[must_use]
    pub fn neighbour(&self, ifindex: u32, ip: IpAddr) -> Option<&Neighbour> {
        self.neighbours.iter().find(|n| n.ifindex == ifindex && n.ip == ip)
    }
}

impl Device {
    /// The address that IPv4 packets leave with; the first preferred one.
    #[must_use]
    pub fn source4(&self) -> Option<Ipv4Addr> {
        self.sources().find_map(|address| match address.ip {
            IpAddr::V4(ip) => Some(ip),
            IpAddr::V6(_) => None,
        })
    }

    /// The address that IPv6 packets leave with.
    #[must_use]
    pub fn source6(&self) -> Option<Ipv6Addr> {
        self.sources().find_map(|address| match address.ip {
            IpAddr::V4(_) => None,
            IpAddr::V6(ip) => Some(ip),
        })
    }

    /// The far end of a point-to-point link, by the address that IPv4 packets
    /// leave with.
    #[must_use]
    pub fn peer4(&self) -> Option<Ipv4Addr> {
        let source = IpAddr::V4(self.source4()?);
        let address = self.addresses.iter().find(|address| address.ip == source)?;
        match address.net {
            IpNet::V4(net) if net.prefix_len() == 32 && net.addr() != source => Some(net.addr()),
            _ => None,
        }
    }

    fn sources(&self) -> impl Iterator<Item = &Address> {
        self.addresses.iter().filter(|address| address.global && address.preferred)
    }

    /// The subnets it is on, without link-local and loopback ones.
    pub fn subnets(&self) -> impl Iterator<Item = IpNet> {
        self.addresses.iter().filter(|address| address.global).map(|address| address.net)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn net(text: &str) -> IpNet {
        text.parse().unwrap_or_default()
    }

    fn address(text: &str, global: bool, preferred: bool) -> Address {
        let net = net(text);
        Address { ip: net.addr(), net: net.trunc(), global, preferred }
    }

    fn device(addresses: Vec<Address>) -> Device {
        Device {
            ifindex: 2,
            name: "wan0".to_owned(),
            kind: None,
            mac: None,
            peer: None,
            opens_to_peer: false,
            headless: false,
            resolves: true,
            mtu: 1500,
            carrier: true,
            addresses,
        }
    }

    fn route(destination: &str, gateway: Option<&str>, ifindex: u32, metric: u32) -> Route {
        let gateway = gateway.and_then(|gateway| gateway.parse().ok());
        Route { destination: net(destination), gateway, ifindex, metric }
    }

    #[test]
    fn the_source_is_the_first_address_that_may_be_one() {
        let device = device(vec![
            address("fe80::1/64", false, true),
            address("198.51.100.1/24", true, false),
            address("198.51.100.2/24", true, true),
            address("198.51.100.3/24", true, true),
            address("2001:db8::1/64", true, false),
            address("2001:db8::2/64", true, true),
        ]);
        assert_eq!(device.source4(), Some(Ipv4Addr::new(198, 51, 100, 2)));
        assert_eq!(device.source6().map(|ip| ip.to_string()).as_deref(), Some("2001:db8::2"));
        assert_eq!(device.subnets().count(), 5);
    }

    #[test]
    fn the_far_end_is_the_peer_of_the_source_and_not_of_another_address() {
        let with_peer = |text: &str, peer: &str| {
            let mut address = address(text, true, true);
            address.net = net(peer);
            address
        };
        let ppp = device(vec![with_peer("198.51.100.2/32", "203.0.113.1/32")]);
        assert_eq!(ppp.peer4(), Some(Ipv4Addr::new(203, 0, 113, 1)));
        let alone = device(vec![
            address("198.51.100.2/32", true, true),
            with_peer("198.51.100.3/32", "203.0.113.1/32"),
        ]);
        assert_eq!(alone.peer4(), None);
        assert_eq!(device(vec![address("198.51.100.2/24", true, true)]).peer4(), None);
        assert_eq!(device(Vec::new()).peer4(), None);
    }

    #[test]
    fn the_gateway_is_that_of_the_devices_own_best_default_route() {
        let snapshot = Snapshot {
            routes: vec![
                route("0.0.0.0/0", Some("192.0.2.1"), 3, 0),
                route("0.0.0.0/0", Some("198.51.100.254"), 2, 200),
                route("0.0.0.0/0", Some("198.51.100.253"), 2, 100),
                route("203.0.113.0/24", Some("198.51.100.9"), 2, 0),
                route("::/0", None, 2, 1024),
            ],
            ..Snapshot::default()
        };
        assert_eq!(snapshot.gateway4(2), Some(Some(Ipv4Addr::new(198, 51, 100, 253))));
        assert_eq!(snapshot.gateway6(2), Some(None));
        assert_eq!(snapshot.gateway4(4), None);
        assert_eq!(snapshot.gateway6(3), None);
    }
}
