//! The little world that all rows share.
//!
//! ```text
//!                      gateway
//!   HOST   .9 ──┐                    ┌── wan1 198.51.100.2/25   ─ GATEWAY1 .1   ─┐
//!   FRIEND .10 ─┼─ lan0 192.0.2.1/24 ┤                                           ├─ REMOTE 203.0.113.7
//!   SILENT .77 ─┘                    └── wan2 198.51.100.130/25 ─ GATEWAY2 .129 ─┘
//!                  2001:db8:a::/48 inside; 2001:db8:101::/48 and 2001:db8:202::/48 outside
//! ```
//!
//! HOST and FRIEND have neighbour entries, SILENT has none, LOST has no route.
//! Packets of a test run come in through the loopback device.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use mwb_common::maps::{
    Control, Liveness, MAX_PATHS, PATH_SLOTS, Path, Prefix, SLOTS, Selection, index, path_flag,
    prefix_class,
};
use mwb_common::nptv6::adjustment;

use mwb_agent::dataplane::PrefixRule;

use crate::packet::{Packet, SYN, Transport};

pub(crate) const HOST: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 9);
pub(crate) const FRIEND: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 10);
pub(crate) const SILENT: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 77);
pub(crate) const LOST: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 99);
pub(crate) const GATEWAY: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 1);
pub(crate) const WAN1: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 2);
pub(crate) const WAN2: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 130);
pub(crate) const NEIGHBOUR2: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 140);
pub(crate) const REMOTE: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 7);
pub(crate) const OTHER_REMOTE: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 8);
pub(crate) const BYPASSED: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 200);

pub(crate) const HOST6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0xa, 1, 0, 0, 0, 9);
pub(crate) const SILENT6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0xa, 1, 0, 0, 0, 0x77);
pub(crate) const LOST6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0xa, 2, 0, 0, 0, 9);
pub(crate) const FOREIGN6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0xbad, 1, 0, 0, 0, 9);
pub(crate) const GATEWAY6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0xa, 1, 0, 0, 0, 1);
pub(crate) const REMOTE6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0xff, 0, 0, 0, 0, 7);
pub(crate) const BYPASSED6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0xff, 0xb, 0, 0, 0, 7);
pub(crate) const WAN1_6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0x1ff, 0, 0, 0, 0, 2);

/// HOST6, SILENT6 and LOST6 as path 1 shows them. By RFC 6296, 3.4: the fourth
/// word takes 0x000a - 0x0101 (ones' complement: 0xff08), so 1 becomes 0xff09.
pub(crate) const HOST6_OUT1: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0x101, 0xff09, 0, 0, 0, 9);
pub(crate) const SILENT6_OUT1: Ipv6Addr =
    Ipv6Addr::new(0x2001, 0xdb8, 0x101, 0xff09, 0, 0, 0, 0x77);
pub(crate) const LOST6_OUT1: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0x101, 0xff0a, 0, 0, 0, 9);
/// HOST6 as path 2 shows it: 0x000a - 0x0202 is 0xfe07.
pub(crate) const HOST6_OUT2: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0x202, 0xfe08, 0, 0, 0, 9);

pub(crate) const HOST_MAC: [u8; 6] = [2, 0, 0, 0, 0, 9];
pub(crate) const FRIEND_MAC: [u8; 6] = [2, 0, 0, 0, 0, 0x0a];
pub(crate) const LAN_MAC: [u8; 6] = [2, 0, 0, 0, 1, 1];
pub(crate) const WAN1_MAC: [u8; 6] = [2, 0, 0, 1, 0, 2];
pub(crate) const WAN2_MAC: [u8; 6] = [2, 0, 0, 2, 0, 2];
pub(crate) const ISP1_MAC: [u8; 6] = [2, 0, 0, 1, 0, 1];
pub(crate) const ISP2_MAC: [u8; 6] = [2, 0, 0, 2, 0, 1];
pub(crate) const ISP1_MAC6: [u8; 6] = [2, 0, 0, 1, 0, 6];
pub(crate) const ISP2_MAC6: [u8; 6] = [2, 0, 0, 2, 0, 6];
pub(crate) const STRANGER_MAC: [u8; 6] = [2, 0, 0, 0, 9, 9];

/// The port that REMOTE serves, and the one that HOST uses.
pub(crate) const SERVICE: u16 = 443;
pub(crate) const PORT: u16 = 40_000;

/// Commands that make the gateway's network; `ip` arguments, one line each.
pub(crate) const NETWORK: &[&str] = &[
    "link set lo up",
    "link add lan0 address 02:00:00:00:01:01 type veth peer name lan0p",
    "link set lan0 up",
    "link set lan0p up",
    "addr add 192.0.2.1/24 dev lan0",
    "addr add 2001:db8:a:1::1/64 dev lan0 nodad",
    "neigh add 192.0.2.9 lladdr 02:00:00:00:00:09 dev lan0 nud permanent",
    "neigh add 192.0.2.10 lladdr 02:00:00:00:00:0a dev lan0 nud permanent",
    "neigh add 2001:db8:a:1::9 lladdr 02:00:00:00:00:09 dev lan0 nud permanent",
];

pub(crate) fn path1() -> Path {
    Path {
        ifindex: 101,
        flags: path_flag::PRESENT
            | path_flag::HAS_V4
            | path_flag::HAS_V6
            | path_flag::NEXT_HOP4
            | path_flag::NEXT_HOP6,
        generation: 1,
        mtu: 1_500,
        address4: WAN1.octets(),
        gateway4: [198, 51, 100, 1],
        gateway6: "fe80::1:1".parse::<Ipv6Addr>().expect("an address").octets(),
        source_mac: WAN1_MAC,
        next_hop_mac4: ISP1_MAC,
        next_hop_mac6: ISP1_MAC6,
        ..prefix6("2001:db8:101::")
    }
}

pub(crate) fn path2() -> Path {
    Path {
        ifindex: 102,
        address4: WAN2.octets(),
        gateway4: [198, 51, 100, 129],
        source_mac: WAN2_MAC,
        next_hop_mac4: ISP2_MAC,
        next_hop_mac6: ISP2_MAC6,
        ..Path {
            inside6: prefix6("2001:db8:202::").inside6,
            outside6: prefix6("2001:db8:202::").outside6,
            npt_adjustment: prefix6("2001:db8:202::").npt_adjustment,
            ..path1()
        }
    }
}

fn prefix6(outside: &str) -> Path {
    let inside6 = "2001:db8:a::".parse::<Ipv6Addr>().expect("an address").octets();
    let outside6 = outside.parse::<Ipv6Addr>().expect("an address").octets();
    Path {
        inside6,
        outside6,
        npt_length: 48,
        npt_adjustment: adjustment(inside6, outside6, 48),
        ..Path::default()
    }
}

pub(crate) fn control() -> Control {
    Control { port_min: 10_000, port_max: 65_535, seed: 1, ..Control::default() }
}

/// Every slot on path 1, then path 2.
pub(crate) fn selection() -> Selection {
    let mut ranking = [0; MAX_PATHS];
    ranking[..2].copy_from_slice(&[1, 2]);
    Selection { slots: [1; SLOTS], ranking, index: index::COUNTER, reserved: [0; 3], targets: 1 }
}

/// The paths that are alive; the others are dead now.
pub(crate) fn liveness(alive: &[u8]) -> Liveness {
    let mut alive_until = [0; PATH_SLOTS];
    for path in alive {
        alive_until[usize::from(*path)] = u64::MAX;
    }
    Liveness { alive_until }
}

fn rule<A>(address: A, length: u8, class: u8, path: u8) -> PrefixRule<A> {
    PrefixRule { address, length, prefix: Prefix { class, path, reserved: [0; 2] } }
}

pub(crate) fn prefixes4() -> Vec<PrefixRule<Ipv4Addr>> {
    use prefix_class::{BYPASS, LAN, LOCAL, MULTICAST, VIA_PATH};
    vec![
        rule(GATEWAY, 32, LOCAL, 0),
        rule(WAN1, 32, LOCAL, 1),
        rule(WAN2, 32, LOCAL, 2),
        rule(Ipv4Addr::new(192, 0, 2, 0), 24, LAN, 0),
        rule(Ipv4Addr::new(224, 0, 0, 0), 4, MULTICAST, 0),
        rule(BYPASSED, 32, BYPASS, 0),
        rule(Ipv4Addr::new(198, 51, 100, 0), 25, VIA_PATH, 1),
        rule(Ipv4Addr::new(198, 51, 100, 128), 25, VIA_PATH, 2),
    ]
}

pub(crate) fn prefixes6() -> Vec<PrefixRule<Ipv6Addr>> {
    use prefix_class::{BYPASS, LAN, LOCAL, MULTICAST};
    let address = |text: &str| text.parse::<Ipv6Addr>().expect("an address");
    vec![
        rule(GATEWAY6, 128, LOCAL, 0),
        rule(WAN1_6, 128, LOCAL, 0),
        rule(address("2001:db8:a::"), 48, LAN, 0),
        rule(address("ff00::"), 8, MULTICAST, 0),
        rule(address("fe80::"), 10, MULTICAST, 0),
        rule(BYPASSED6, 128, BYPASS, 0),
    ]
}

fn packet(source: IpAddr, destination: IpAddr, transport: Transport) -> Packet {
    Packet {
        to: LAN_MAC,
        from: HOST_MAC,
        tags: Vec::new(),
        source,
        destination,
        ttl: 64,
        tos: 0,
        options: Vec::new(),
        tcp_options: Vec::new(),
        extensions: Vec::new(),
        divisible: false,
        fragment: (0, false),
        transport,
        payload: b"sixteen bytes...".to_vec(),
        padding: 0,
    }
}

/// From HOST to REMOTE's service.
pub(crate) fn host_udp(port: u16) -> Packet {
    let transport = Transport::Udp { source: port, destination: SERVICE, checksum: true };
    packet(HOST.into(), REMOTE.into(), transport)
}

pub(crate) fn host_tcp(port: u16) -> Packet {
    let transport = Transport::Tcp { source: port, destination: SERVICE, flags: SYN };
    packet(HOST.into(), REMOTE.into(), transport)
}

pub(crate) fn host_echo(id: u16) -> Packet {
    packet(HOST.into(), REMOTE.into(), Transport::Echo { reply: false, id })
}

/// The same over IPv6.
pub(crate) fn v6(packet: &Packet) -> Packet {
    packet.with(|p| (p.source, p.destination) = (HOST6.into(), REMOTE6.into()))
}

/// What REMOTE answers to `sent`, as it was sent out of a WAN.
pub(crate) fn answer(sent: &Packet) -> Packet {
    sent.with(|p| {
        (p.source, p.destination) = (sent.destination, sent.source);
        (p.from, p.to) = (sent.to, sent.from);
        p.ttl = 57;
        p.transport = match sent.transport.clone() {
            Transport::Tcp { source, destination, flags } => Transport::Tcp {
                source: destination,
                destination: source,
                flags: flags | crate::packet::ACK,
            },
            Transport::Udp { source, destination, checksum } => {
                Transport::Udp { source: destination, destination: source, checksum }
            }
            Transport::Echo { reply, id } => Transport::Echo { reply: !reply, id },
            other @ (Transport::Icmp { .. } | Transport::Raw { .. }) => other,
        };
    })
}

/// `sent` as it leaves by path 1 with the same port.
pub(crate) fn out_by1(sent: &Packet) -> Packet {
    sent.with(|p| {
        p.source = if sent.source.is_ipv4() { WAN1.into() } else { HOST6_OUT1.into() };
        p.from = WAN1_MAC;
        p.to = if sent.source.is_ipv4() { ISP1_MAC } else { ISP1_MAC6 };
        p.ttl -= 1;
    })
}

/// The same by path 2.
pub(crate) fn out_by2(sent: &Packet) -> Packet {
    sent.with(|p| {
        p.source = if sent.source.is_ipv4() { WAN2.into() } else { HOST6_OUT2.into() };
        p.from = WAN2_MAC;
        p.to = if sent.source.is_ipv4() { ISP2_MAC } else { ISP2_MAC6 };
        p.ttl -= 1;
    })
}

/// `received` from a WAN as it is delivered to HOST.
pub(crate) fn delivered(received: &Packet) -> Packet {
    received.with(|p| {
        p.destination = if received.source.is_ipv4() { HOST.into() } else { HOST6.into() };
        p.from = LAN_MAC;
        p.to = HOST_MAC;
        p.ttl -= 1;
    })
}

/// The packet with another port or identifier on the sender's side.
pub(crate) fn from_port(packet: &Packet, port: u16) -> Packet {
    packet.with(|p| match &mut p.transport {
        Transport::Tcp { source, .. } | Transport::Udp { source, .. } => *source = port,
        Transport::Echo { id, .. } => *id = port,
        Transport::Icmp { .. } | Transport::Raw { .. } => {}
    })
}
