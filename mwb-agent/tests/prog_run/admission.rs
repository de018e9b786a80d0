//! Rows about who may come in, and about packets that are turned round: filters,
//! port forwards, hairpin.

use mwb_agent::dataplane::{Forward, Hook};
use mwb_common::maps::{Control, Path, filtering};
use mwb_common::reason::Reason;

use crate::gateway::From::{Lan, Wan};
use crate::gateway::Gateway;
use crate::packet::{ACK, Packet, SYN, TCP, Transport, UDP};
use crate::row::{Row, Then, after, forwarded, slow, untouched};
use crate::world::{
    FRIEND, FRIEND_MAC, GATEWAY, HOST, HOST_MAC, LAN_MAC, OTHER_REMOTE, PORT, SERVICE, WAN1,
    WAN1_MAC, WAN2, WAN2_MAC, answer, control, delivered, from_port, host_tcp, host_udp, out_by1,
    path1,
};

pub(crate) fn rows() -> Vec<Row> {
    [filters(), forwards(), turned_round()].into_iter().flatten().collect()
}

fn filter(gateway: &mut Gateway, filtering: u8) {
    gateway.set_control(Control { filtering, ..control() });
}

fn reply(packet: &Packet) -> Packet {
    answer(&out_by1(packet))
}

fn to_port(packet: &Packet, port: u16) -> Packet {
    packet.with(|p| match &mut p.transport {
        Transport::Tcp { destination, .. } | Transport::Udp { destination, .. } => {
            *destination = port;
        }
        _ => panic!("no port in {p:?}"),
    })
}

fn flags(packet: &Packet, flags: u8) -> Packet {
    packet.with(|p| {
        if let Transport::Tcp { flags: old, .. } = &mut p.transport {
            *old = flags;
        }
    })
}

fn admitted(
    name: &'static str,
    packet: &Packet,
    out: &Packet,
    protocol: &'static str,
    given: fn(&mut Gateway),
) -> [Row; 2] {
    let then = Then::Ends(Reason::Forwarded, Some(out.bytes()));
    after(slow(name, Wan(1), packet.bytes(), then, (1, protocol)), given)
}

fn filters() -> Vec<Row> {
    fn by_address(gateway: &mut Gateway) {
        filter(gateway, filtering::ADDRESS);
        gateway.send(Lan, &host_udp(PORT));
    }
    fn open_to_all(gateway: &mut Gateway) {
        filter(gateway, filtering::ENDPOINT_INDEPENDENT);
        gateway.send(Lan, &host_udp(PORT));
        gateway.send(Lan, &host_tcp(PORT));
    }
    let other_port = from_port(&reply(&host_udp(PORT)), 9_999);
    let other_address = reply(&host_udp(PORT)).with(|p| p.source = OTHER_REMOTE.into());
    let syn = flags(&from_port(&reply(&host_tcp(PORT)), 9_999), SYN);
    let syn_elsewhere = syn.with(|p| p.destination = GATEWAY.into());
    let refused = |name, packet: &Packet, protocol, given| {
        untouched(name, Wan(1), packet.bytes(), Reason::NoMapping, (1, protocol)).given(given)
    };
    let mut rows = vec![
        refused(
            "another address, where the address must be known",
            &other_address,
            "udp4",
            by_address,
        ),
        untouched(
            "a syn from another port, where it must be known",
            Wan(1),
            syn.bytes(),
            Reason::Filtered,
            (1, "tcp4"),
        )
        .given(|gateway| gateway.send(Lan, &host_tcp(PORT))),
        refused("a syn to a port of nobody's", &syn, "tcp4", |_| {}),
        refused("a syn to somebody's port of another address", &syn_elsewhere, "tcp4", |gateway| {
            gateway.send(Lan, &host_tcp(PORT));
        }),
        refused("syn and ack, where all may open", &flags(&syn, SYN | ACK), "tcp4", open_to_all),
        refused("ack, where all may open", &flags(&syn, ACK), "tcp4", open_to_all),
        refused("to a port of nobody's, where all may open", &other_address, "udp4", |gateway| {
            filter(gateway, filtering::ENDPOINT_INDEPENDENT);
        }),
        refused("of an address before", &other_port, "udp4", |gateway| {
            by_address(gateway);
            gateway.set_path(1, Path { generation: 2, ..path1() });
        }),
    ];
    for row in [
        admitted(
            "another port, where the address must be known",
            &other_port,
            &delivered(&other_port),
            "udp4",
            by_address,
        ),
        admitted(
            "another port, where all may open",
            &other_port,
            &delivered(&other_port),
            "udp4",
            open_to_all,
        ),
        admitted(
            "another address, where all may open",
            &other_address,
            &delivered(&other_address),
            "udp4",
            open_to_all,
        ),
        admitted("a syn, where all may open", &syn, &delivered(&syn), "tcp4", open_to_all),
    ] {
        rows.extend(row);
    }
    rows
}

/// TCP port 443 of path 1 is HOST's 8443, UDP port 53 its 53.
fn forwarding(gateway: &mut Gateway) {
    gateway.set_forwards(&[
        Forward { path: 1, protocol: TCP, port: SERVICE, to: HOST, to_port: 8_443 },
        Forward { path: 1, protocol: UDP, port: 53, to: HOST, to_port: 53 },
    ]);
}

/// A SYN from REMOTE to the forwarded port.
fn visit() -> Packet {
    to_port(&from_port(&flags(&reply(&host_tcp(PORT)), SYN), 50_000), SERVICE)
}

fn forwards() -> Vec<Row> {
    fn visited(gateway: &mut Gateway) {
        forwarding(gateway);
        gateway.try_send(Wan(1), &visit());
    }
    let datagram = to_port(&from_port(&reply(&host_udp(PORT)), 50_000), 53);
    let refused = |name, from, packet: &Packet, counted| {
        untouched(name, from, packet.bytes(), Reason::NoMapping, counted).given(forwarding)
    };
    let via2 = visit().with(|p| {
        p.destination = WAN2.into();
        p.to = WAN2_MAC;
    });
    let over_udp = to_port(&datagram, SERVICE);
    let welcome = answer(&delivered(&to_port(&visit(), 8_443)))
        .with(|p| (p.to, p.from, p.ttl) = (LAN_MAC, HOST_MAC, 64));
    let welcome_out = from_port(&out_by1(&welcome), SERVICE);
    let mut rows = vec![
        refused("to a forwarded port by another protocol", Wan(1), &over_udp, (1, "udp4")),
        refused("to a forwarded port of another wan", Wan(2), &via2, (2, "tcp4")),
        refused("an ack to a forwarded port", Wan(1), &flags(&visit(), ACK), (1, "tcp4")),
    ];
    rows.extend(admitted(
        "to a forwarded port",
        &visit(),
        &delivered(&to_port(&visit(), 8_443)),
        "tcp4",
        forwarding,
    ));
    rows.extend(admitted(
        "a forwarded datagram",
        &datagram,
        &delivered(&datagram),
        "udp4",
        forwarding,
    ));
    let answered =
        forwarded("the answer of a forwarded port", Lan, &welcome, &welcome_out, (1, "tcp4"));
    rows.push(Row { forms: &[Hook::Tcx], ..answered.given(visited) });
    rows
}

/// FRIEND has the forwarded port.
fn friend_serves(gateway: &mut Gateway) {
    gateway.set_forwards(&[Forward {
        path: 1,
        protocol: UDP,
        port: SERVICE,
        to: FRIEND,
        to_port: 8_443,
    }]);
}

fn turned_round() -> Vec<Row> {
    let to_own = host_udp(PORT).with(|p| p.destination = WAN1.into());
    // It comes in through the WAN's device as if a neighbour there had sent it.
    let turned = out_by1(&to_own).with(|p| (p.to, p.from) = (WAN1_MAC, to_own.from));
    let arrived = delivered(&to_port(&turned, 8_443)).with(|p| {
        p.destination = FRIEND.into();
        p.to = FRIEND_MAC;
    });
    let back = answer(&arrived).with(|p| {
        (p.to, p.from, p.ttl) = (LAN_MAC, FRIEND_MAC, 64);
    });
    // The answer is turned round as well, with the port that was asked.
    let back_turned =
        from_port(&out_by1(&back), SERVICE).with(|p| (p.to, p.from) = (WAN1_MAC, FRIEND_MAC));
    let home = delivered(&back_turned);
    fn asked(gateway: &mut Gateway) {
        friend_serves(gateway);
        let to_own = host_udp(PORT).with(|p| p.destination = WAN1.into());
        gateway.try_send(Lan, &to_own);
        let turned = out_by1(&to_own).with(|p| (p.to, p.from) = (WAN1_MAC, to_own.from));
        gateway.try_send(Wan(1), &turned);
    }
    let turns = |name, packet: &Packet, out: &Packet, given| {
        let then = Then::Ends(Reason::Hairpinned, Some(out.bytes()));
        after(slow(name, Lan, packet.bytes(), then, (1, "udp4")), given)
    };
    let unclaimed = untouched(
        "to an own port that is nobody's",
        Lan,
        host_udp(PORT).with(|p| p.destination = WAN2.into()).bytes(),
        Reason::Local,
        (0, "udp4"),
    );
    let mut rows = vec![unclaimed.given(friend_serves)];
    rows.extend(turns("to an own port that is a neighbour's", &to_own, &turned, friend_serves));
    rows.extend(admitted(
        "what was turned round comes in",
        &turned,
        &arrived,
        "udp4",
        friend_serves,
    ));
    let [back_row, _] = turns("its answer is turned round", &back, &back_turned, asked);
    rows.push(back_row);
    let home_row = forwarded("its answer comes in", Wan(1), &back_turned, &home, (1, "udp4"));
    rows.push(Row { forms: &[Hook::Tcx], ..home_row.given(asked) });
    rows
}
