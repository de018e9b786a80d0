//! Rows about packets from the LAN.

use mwb_common::maps::{Control, Family, Path, SLOTS, Selection, path_flag};
use mwb_common::reason::Reason;

use crate::gateway::From::Lan;
use crate::gateway::Gateway;
use crate::packet::{Packet, Transport};
use crate::row::{Row, forwarded, unresolved, untouched};
use crate::world::{
    BYPASSED, BYPASSED6, FOREIGN6, FRIEND, GATEWAY, GATEWAY6, NEIGHBOUR2, OTHER_REMOTE, PORT, WAN1,
    control, from_port, host_echo, host_tcp, host_udp, liveness, out_by1, out_by2, path1, path2,
    selection, v6,
};

pub(crate) fn rows() -> Vec<Row> {
    [translated(), paths(), ports(), unresolved_rows(), not_translated(), not_ours(), exhausted()]
        .into_iter()
        .flatten()
        .collect()
}

/// The four kinds of IPv4 packets and the three of IPv6, with their counters.
fn kinds() -> Vec<(Packet, &'static str)> {
    let no_checksum = host_udp(PORT).with(|p| {
        if let Transport::Udp { checksum, .. } = &mut p.transport {
            *checksum = false;
        }
    });
    vec![
        (host_tcp(PORT), "tcp4"),
        (host_udp(PORT), "udp4"),
        (no_checksum, "udp4"),
        (host_echo(PORT), "icmp4"),
        (v6(&host_tcp(PORT)), "tcp6"),
        (v6(&host_udp(PORT)), "udp6"),
        (v6(&host_echo(PORT)), "icmp6"),
    ]
}

fn translated() -> Vec<Row> {
    let names = [
        "tcp",
        "udp",
        "udp without a checksum",
        "an echo request",
        "tcp over ipv6",
        "udp over ipv6",
        "an echo request over ipv6",
    ];
    let out = |name, packet: &Packet, protocol| {
        forwarded(name, Lan, packet, &out_by1(packet), (1, protocol))
    };
    let mut rows: Vec<Row> = kinds()
        .iter()
        .zip(names)
        .map(|((packet, protocol), name)| out(name, packet, protocol))
        .collect();
    let options = vec![7, 7, 4, 0, 0, 0, 0, 1];
    let hop_by_hop = (0, vec![0, 5, 2, 0, 0, 1, 0]);
    let destination_options = (60, vec![0, 1, 4, 0, 0, 0, 0]);
    let extensions = |p: &mut Packet| p.extensions = vec![hop_by_hop, destination_options];
    rows.extend([
        out("ipv4 options", &host_tcp(PORT).with(|p| p.options = options), "tcp4"),
        out("a payload of odd length", &host_udp(PORT).with(|p| p.payload.push(1)), "udp4"),
        out("no payload, padded to 60 bytes", &padded(&host_udp(PORT)), "udp4"),
        out("extension headers", &v6(&host_udp(PORT)).with(extensions), "udp6"),
        out("a udp checksum that becomes zero", &sum_becomes_zero(), "udp4"),
        out("the last hop but one", &host_udp(PORT).with(|p| p.ttl = 2), "udp4"),
        out("as large as the mtu", &host_udp(PORT).with(|p| p.payload = vec![3; 1_472]), "udp4"),
        out("the second packet of a flow", &host_tcp(PORT), "tcp4")
            .given(|gateway| gateway.send(Lan, &host_tcp(PORT))),
        out("the second packet over ipv6", &v6(&host_tcp(PORT)), "tcp6")
            .given(|gateway| gateway.send(Lan, &v6(&host_tcp(PORT)))),
    ]);
    rows
}

fn padded(packet: &Packet) -> Packet {
    packet.with(|p| {
        p.payload.clear();
        p.padding = 60 - 42;
    })
}

/// A packet whose translated checksum is computed as 0, which is sent as 0xffff
/// (RFC 768: 0 means "none").
fn sum_becomes_zero() -> Packet {
    let with_payload = |word: u16| {
        let payload = word.to_be_bytes().to_vec();
        host_udp(PORT).with(|p| p.payload = payload)
    };
    (0..=u16::MAX)
        .map(with_payload)
        .find(|packet| out_by1(packet).bytes()[40..42] == [0xff, 0xff])
        .expect("one of 65,536 payloads has every sum")
}

fn paths() -> Vec<Row> {
    let (udp, udp6) = (host_udp(PORT), v6(&host_udp(PORT)));
    let to_neighbour = host_udp(PORT).with(|p| p.destination = NEIGHBOUR2.into());
    let by2 = |name, packet: &Packet, protocol| {
        forwarded(name, Lan, packet, &out_by2(packet), (2, protocol))
    };
    let by1 = |name, packet: &Packet, protocol| {
        forwarded(name, Lan, packet, &out_by1(packet), (1, protocol))
    };
    vec![
        by2("path 1 is dead", &udp, "udp4").given(|g| g.set_liveness(&liveness(&[2]))),
        by2("path 1 is dead, ipv6", &udp6, "udp6").given(|g| g.set_liveness(&liveness(&[2]))),
        by1("no path is alive: as if all were", &udp, "udp4")
            .given(|g| g.set_liveness(&liveness(&[]))),
        by1("no path is alive, ipv6", &udp6, "udp6").given(|g| g.set_liveness(&liveness(&[]))),
        by2("the flow's path died", &udp, "udp4").given(|gateway| {
            gateway.send(Lan, &host_udp(PORT));
            gateway.set_liveness(&liveness(&[2]));
        }),
        by2("the flow's path died, ipv6", &udp6, "udp6").given(|gateway| {
            gateway.send(Lan, &v6(&host_udp(PORT)));
            gateway.set_liveness(&liveness(&[2]));
        }),
        by1("a flow stays when the agent dies", &udp, "udp4").given(|gateway| {
            gateway.send(Lan, &host_udp(PORT));
            gateway.set_selection(Family::V4, &every_slot(2));
            gateway.set_liveness(&liveness(&[]));
        }),
        by1("a flow stays when another path is preferred", &udp, "udp4").given(|gateway| {
            gateway.send(Lan, &host_udp(PORT));
            gateway.set_selection(Family::V4, &every_slot(2));
        }),
        by1("an endpoint stays on its path for all destinations", &udp, "udp4").given(|gateway| {
            gateway.send(Lan, &host_udp(PORT).with(|p| p.destination = OTHER_REMOTE.into()));
            gateway.set_selection(Family::V4, &every_slot(2));
        }),
        by2("a wan's own subnet is reached through it", &to_neighbour, "udp4"),
        made_anew(),
    ]
}

/// The WAN got another address. The endpoint's port on the old one is still
/// claimed, so of two ports it gets the other.
fn made_anew() -> Row {
    let udp = host_udp(PORT);
    let out = from_port(&out_by1(&udp), PORT + 1);
    forwarded("a flow of another address is made anew", Lan, &udp, &out, (1, "udp4")).given(
        |gateway| {
            only_ports(gateway, PORT, PORT + 1);
            gateway.set_path(1, Path { address4: [198, 51, 100, 9], ..path1() });
            gateway.send(Lan, &host_udp(PORT));
            gateway.set_path(1, Path { generation: 2, ..path1() });
        },
    )
}

fn every_slot(path: u8) -> Selection {
    Selection { slots: [path; SLOTS], ..selection() }
}

fn ports() -> Vec<Row> {
    const LOW: u16 = 5_000;
    let out = |name, packet: &Packet, port, protocol| {
        forwarded(name, Lan, packet, &from_port(&out_by1(packet), port), (1, protocol))
    };
    let one_port: fn(&mut Gateway) = |gateway| only_ports(gateway, PORT, PORT);
    vec![
        out("a port below the range is replaced", &host_udp(LOW), PORT, "udp4").given(one_port),
        out("a tcp port is replaced", &host_tcp(LOW), PORT, "tcp4").given(one_port),
        out("an identifier is replaced", &host_echo(LOW), PORT, "icmp4").given(one_port),
        out("an endpoint has one port for all destinations", &host_udp(LOW), PORT, "udp4").given(
            |gateway| {
                only_ports(gateway, PORT, PORT);
                let other = host_udp(LOW).with(|p| p.destination = OTHER_REMOTE.into());
                gateway.send(Lan, &other);
            },
        ),
        out("a port that another host has is passed over", &host_udp(PORT), PORT + 1, "udp4")
            .given(|gateway| {
                only_ports(gateway, PORT, PORT + 1);
                gateway.send(Lan, &host_udp(PORT).with(|p| p.source = FRIEND.into()));
            }),
        out("each protocol has its own ports", &host_tcp(PORT), PORT, "tcp4").given(|gateway| {
            only_ports(gateway, PORT, PORT);
            gateway.send(Lan, &host_udp(PORT));
        }),
    ]
}

pub(crate) fn only_ports(gateway: &mut Gateway, port_min: u16, port_max: u16) {
    gateway.set_control(Control { port_min, port_max, ..control() });
}

fn unresolved_rows() -> Vec<Row> {
    fn forget_gateways(gateway: &mut Gateway) {
        let without = !(path_flag::NEXT_HOP4 | path_flag::NEXT_HOP6);
        for (id, path) in [(1, path1()), (2, path2())] {
            gateway.set_path(id, Path { flags: path.flags & without, ..path });
        }
    }
    let (udp, tcp6) = (host_udp(PORT), v6(&host_tcp(PORT)));
    let v4 = [
        "the gateway of the wan is not resolved",
        "the gateway is not resolved: handed over",
        "the gateway is not resolved and there is no room for a mark",
    ];
    let v6 = [
        "the ipv6 gateway is not resolved",
        "the ipv6 gateway is not resolved: handed over",
        "the ipv6 gateway is not resolved and there is no room for a mark",
    ];
    let rows4 = unresolved(v4, Lan, forget_gateways, &udp, &out_by1(&udp), (1, "udp4"));
    let rows6 = unresolved(v6, Lan, forget_gateways, &tcp6, &out_by1(&tcp6), (1, "tcp6"));
    rows4.into_iter().chain(rows6).collect()
}

fn not_translated() -> Vec<Row> {
    use Reason::{ForeignSource, TtlExpired, UnsupportedProtocol};
    let row = |name, packet: &Packet, reason, counted| {
        untouched(name, Lan, packet.bytes(), reason, counted)
    };
    let (udp, udp6) = (host_udp(PORT), v6(&host_udp(PORT)));
    let raw = |packet: &Packet, protocol, bytes: &[u8]| {
        let bytes = bytes.to_vec();
        packet.with(|p| p.transport = Transport::Raw { protocol, bytes })
    };
    let reply = |p: &mut Packet| p.transport = Transport::Echo { reply: true, id: PORT };
    let opened: fn(&mut Gateway) = |gateway| gateway.send(Lan, &host_udp(PORT));
    let opened6: fn(&mut Gateway) = |gateway| gateway.send(Lan, &v6(&host_udp(PORT)));
    // It covers the addresses (RFC 4302): translated it would be void.
    let authenticated = |p: &mut Packet| p.extensions = vec![(51, vec![4; 23])];
    let seven = |p: &mut Packet| p.extensions = vec![(60, vec![0, 1, 4, 0, 0, 0, 0]); 7];
    vec![
        row("a ttl of 1", &udp.with(|p| p.ttl = 1), TtlExpired, (0, "udp4")),
        row("a ttl of 1 in a flow", &udp.with(|p| p.ttl = 1), TtlExpired, (1, "udp4"))
            .given(opened),
        row("a hop limit of 1", &udp6.with(|p| p.ttl = 1), TtlExpired, (0, "udp6")),
        row("a hop limit of 1 in a flow", &udp6.with(|p| p.ttl = 1), TtlExpired, (1, "udp6"))
            .given(opened6),
        row("ipip", &raw(&udp, 4, &[0; 8]), UnsupportedProtocol, (0, "other4")),
        row("ipip over ipv6", &raw(&udp6, 4, &[0; 8]), UnsupportedProtocol, (0, "other6")),
        row(
            "an authentication header",
            &udp6.with(authenticated),
            UnsupportedProtocol,
            (0, "other6"),
        ),
        row("an echo reply to nothing", &udp.with(reply), UnsupportedProtocol, (0, "icmp4")),
        row("an ipv6 echo reply to nothing", &udp6.with(reply), UnsupportedProtocol, (0, "icmp6")),
        row("seven extension headers", &udp6.with(seven), UnsupportedProtocol, (0, "other4")),
        row(
            "from the gateway's own address",
            &udp.with(|p| p.source = GATEWAY.into()),
            ForeignSource,
            (0, "udp4"),
        ),
        row(
            "from an address of another site",
            &udp6.with(|p| p.source = FOREIGN6.into()),
            ForeignSource,
            (0, "udp6"),
        ),
    ]
}

fn not_ours() -> Vec<Row> {
    let to = |name, address: std::net::IpAddr, reason| {
        let (packet, protocol) = match address {
            std::net::IpAddr::V4(_) => (host_udp(PORT), "udp4"),
            std::net::IpAddr::V6(_) => (v6(&host_udp(PORT)), "udp6"),
        };
        let packet = packet.with(|p| p.destination = address);
        untouched(name, Lan, packet.bytes(), reason, (0, protocol))
    };
    let group = [224, 0, 0, 251].into();
    let group6 = [0xff02, 0, 0, 0, 0, 0, 0, 0xfb].into();
    let friend6 = [0x2001, 0xdb8, 0xa, 1, 0, 0, 0, 0x10].into();
    vec![
        to("to the gateway", GATEWAY.into(), Reason::Local),
        to("to the gateway's wan address", WAN1.into(), Reason::Local),
        to("to the gateway over ipv6", GATEWAY6.into(), Reason::Local),
        to("to a neighbour on the lan", FRIEND.into(), Reason::Local),
        to("to a neighbour on the lan over ipv6", friend6, Reason::Local),
        to("to a group", group, Reason::Multicast),
        to("to an ipv6 group", group6, Reason::Multicast),
        to("to a prefix left to the kernel", BYPASSED.into(), Reason::Bypass),
        to("to an ipv6 prefix left to the kernel", BYPASSED6.into(), Reason::Bypass),
    ]
}

fn exhausted() -> Vec<Row> {
    fn no_slots(gateway: &mut Gateway) {
        let none = Selection { slots: [0; SLOTS], ranking: [0; 32], ..selection() };
        gateway.set_selection(Family::V4, &none);
        gateway.set_selection(Family::V6, &none);
    }
    fn no_addresses(gateway: &mut Gateway) {
        for id in [1, 2] {
            let flags = path_flag::PRESENT;
            gateway.set_path(id, Path { flags, ..path1() });
        }
    }
    let (udp, udp6) = (host_udp(PORT), v6(&host_udp(PORT)));
    let row = |name, packet: &Packet, reason, protocol| {
        untouched(name, Lan, packet.bytes(), reason, (0, protocol))
    };
    vec![
        row("no path is selected", &udp, Reason::NoPath, "udp4").given(no_slots),
        row("no path is selected, ipv6", &udp6, Reason::NoPath, "udp6").given(no_slots),
        row("no wan has an ipv4 address", &udp, Reason::NoPath, "udp4").given(no_addresses),
        row("no wan has an ipv6 prefix", &udp6, Reason::NoPath, "udp6").given(no_addresses),
    ]
}
