//! Rows about ICMP errors of others: what they quote is translated back.

use std::net::Ipv4Addr;

use mwb_common::reason::Reason;

use crate::gateway::From::{self, Lan, Wan};
use crate::gateway::Gateway;
use crate::packet::{Packet, Transport};
use crate::row::{Row, Then, after, slow, untouched};
use crate::world::{
    FRIEND, GATEWAY, PORT, WAN1_6, answer, delivered, host_echo, host_tcp, host_udp, out_by1, v6,
};

/// A router on the way.
const ROUTER: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 254);

/// Type and code, and the word behind the checksum, of an IPv4 and of an IPv6
/// error: host unreachable, hops at their end, too big.
const ERRORS: [(&str, [u8; 6], [u8; 6]); 3] = [
    ("unreachable", [3, 1, 0, 0, 0, 0], [1, 3, 0, 0, 0, 0]),
    ("expired", [11, 0, 0, 0, 0, 0], [3, 0, 0, 0, 0, 0]),
    ("too big", [3, 4, 0, 0, 5, 0x14], [2, 0, 0, 0, 5, 0x14]),
];

/// An error in the place of `packet`, quoting the first `length` bytes of
/// `quoted`.
fn error(packet: &Packet, what: [u8; 6], quoted: &Packet, length: usize) -> Packet {
    let [kind, code, rest @ ..] = what;
    packet.with(|p| {
        p.transport = Transport::Icmp { kind, code, rest };
        p.payload = quoted.bytes()[14..].to_vec();
        p.payload.truncate(length);
        p.tcp_options.clear();
    })
}

fn no_checksum() -> Packet {
    host_udp(PORT).with(|p| {
        if let Transport::Udp { checksum, .. } = &mut p.transport {
            *checksum = false;
        }
    })
}

fn gre() -> Packet {
    host_udp(PORT).with(|p| {
        p.transport = Transport::Raw { protocol: 47, bytes: vec![0, 0, 8, 0, 1, 2, 3, 4] }
    })
}

/// Name, what was sent, and that it was.
type Kind = (&'static str, Packet, fn(&mut Gateway));

fn kinds() -> [Kind; 8] {
    [
        ("tcp", host_tcp(PORT), |g| g.send(Lan, &host_tcp(PORT))),
        ("udp", host_udp(PORT), |g| g.send(Lan, &host_udp(PORT))),
        ("udp without a checksum", no_checksum(), |g| g.send(Lan, &no_checksum())),
        ("an echo", host_echo(PORT), |g| g.send(Lan, &host_echo(PORT))),
        ("gre", gre(), |g| g.send(Lan, &gre())),
        ("tcp over ipv6", v6(&host_tcp(PORT)), |g| g.send(Lan, &v6(&host_tcp(PORT)))),
        ("udp over ipv6", v6(&host_udp(PORT)), |g| g.send(Lan, &v6(&host_udp(PORT)))),
        ("an echo over ipv6", v6(&host_echo(PORT)), |g| g.send(Lan, &v6(&host_echo(PORT)))),
    ]
}

/// All of it, and as little as there must be (RFC 792): the transport's checksum
/// is not always among it.
fn lengths(packet: &Packet) -> [usize; 2] {
    [usize::MAX, if packet.source.is_ipv4() { 28 } else { 48 }]
}

fn one_hop(packet: &Packet) -> Packet {
    packet.with(|p| p.ttl -= 1)
}

pub(crate) fn rows() -> Vec<Row> {
    [inward(), outward(), replaced_port(), unmatched(), wrong_sums(), source_quench()]
        .into_iter()
        .flatten()
        .collect()
}

fn row(name: String, from: From, packet: &Packet, out: &Packet) -> [Row; 2] {
    let protocol = if packet.source.is_ipv4() { "icmp4" } else { "icmp6" };
    let then = Then::Ends(Reason::Forwarded, Some(out.bytes()));
    slow(name, from, packet.bytes(), then, (1, protocol))
}

/// From a router behind the WAN, about what has left by it.
fn inward() -> Vec<Row> {
    let mut rows = Vec::new();
    for (name, sent, given) in kinds() {
        for (kind, v4, v6) in ERRORS {
            for length in lengths(&sent) {
                let what = if sent.source.is_ipv4() { v4 } else { v6 };
                let mut place = answer(&out_by1(&sent));
                if sent.source.is_ipv4() {
                    place.source = ROUTER.into();
                }
                let packet = error(&place, what, &out_by1(&sent), length);
                let out = error(&delivered(&place), what, &one_hop(&sent), length);
                let name = format!("{kind}, about {length} bytes of {name}");
                rows.extend(after(row(name, Wan(1), &packet, &out), given));
            }
        }
    }
    rows
}

/// From a host or a router of the LAN, about what a WAN has brought.
fn outward() -> Vec<Row> {
    let mut rows = Vec::new();
    for (name, sent, given) in kinds() {
        let reply = answer(&out_by1(&sent));
        for (kind, v4, v6) in ERRORS {
            for length in lengths(&sent) {
                let what = if sent.source.is_ipv4() { v4 } else { v6 };
                let packet = error(&sent, what, &delivered(&reply), length);
                let out = error(&out_by1(&sent), what, &one_hop(&reply), length);
                let name = format!("{kind}, about {length} bytes of an answer to {name}");
                rows.extend(after(row(name, Lan, &packet, &out), given));
            }
        }
    }
    let (udp, what) = (host_udp(PORT), ERRORS[0].1);
    let reply = answer(&out_by1(&udp));
    let router = udp.with(|p| p.source = FRIEND.into());
    let packet = error(&router, what, &delivered(&reply), 28);
    // It speaks with the WAN's address (RFC 5508, REQ-5 c).
    let out = error(&out_by1(&udp), what, &one_hop(&reply), 28);
    let name = "from a router of the lan".to_owned();
    rows.extend(after(row(name, Lan, &packet, &out), |g| g.send(Lan, &host_udp(PORT))));
    rows
}

/// Name, what is sent from a port, and that it was sent from another.
type Made = (&'static str, fn(u16) -> Packet, fn(&mut Gateway));

/// The quoted port is the host's own again.
fn replaced_port() -> Vec<Row> {
    let mut rows = Vec::new();
    let kinds: [Made; 3] = [
        ("tcp", host_tcp, |gateway| {
            crate::outward::only_ports(gateway, PORT, PORT);
            gateway.send(Lan, &host_tcp(5_000));
        }),
        ("udp", host_udp, |gateway| {
            crate::outward::only_ports(gateway, PORT, PORT);
            gateway.send(Lan, &host_udp(5_000));
        }),
        ("an echo", host_echo, |gateway| {
            crate::outward::only_ports(gateway, PORT, PORT);
            gateway.send(Lan, &host_echo(5_000));
        }),
    ];
    for (name, sent, given) in kinds {
        for length in lengths(&sent(PORT)) {
            let what = ERRORS[0].1;
            let place = answer(&out_by1(&host_udp(PORT))).with(|p| p.source = ROUTER.into());
            let packet = error(&place, what, &out_by1(&sent(PORT)), length);
            let out = error(&delivered(&place), what, &one_hop(&sent(5_000)), length);
            let name = format!("about {length} bytes of {name} from a replaced port");
            rows.extend(after(row(name, Wan(1), &packet, &out), given));
        }
    }
    rows
}

fn unmatched() -> Vec<Row> {
    let (udp, udp6) = (host_udp(PORT), v6(&host_udp(PORT)));
    let (what, what6) = (ERRORS[0].1, ERRORS[0].2);
    let place = answer(&out_by1(&udp)).with(|p| p.source = ROUTER.into());
    let place6 = answer(&out_by1(&udp6));
    let opened: fn(&mut Gateway) = |gateway| {
        gateway.send(Lan, &host_udp(PORT));
        gateway.send(Lan, &v6(&host_udp(PORT)));
    };
    let row = |name, from, packet: &Packet, reason, counted| {
        slow(name, from, packet.bytes(), Then::Ends(reason, None), counted)
    };
    use Reason::{InsideIcmpError, Local, OutsideIcmpError, Unsolicited};
    let about = error(&place, what, &out_by1(&udp), 28);
    let about6 = error(&place6, what6, &out_by1(&udp6), 48);
    let reply = delivered(&answer(&out_by1(&udp)));
    let reply6 = delivered(&answer(&out_by1(&udp6)));
    [
        row("an error about no flow", Wan(1), &about, OutsideIcmpError, (1, "icmp4")),
        row("an ipv6 error about no flow", Wan(1), &about6, Unsolicited, (1, "icmp6")),
        row(
            "an ipv6 error to the gateway",
            Wan(1),
            &about6.with(|p| p.destination = WAN1_6.into()),
            OutsideIcmpError,
            (1, "icmp6"),
        ),
        after(
            row(
                "an error about another's packet",
                Wan(1),
                &error(&place, what, &out_by1(&udp).with(|p| p.source = ROUTER.into()), 28),
                OutsideIcmpError,
                (1, "icmp4"),
            ),
            opened,
        ),
        after(
            row(
                "an error that quotes too little",
                Wan(1),
                &error(&place, what, &out_by1(&udp), 27),
                OutsideIcmpError,
                (1, "icmp4"),
            ),
            opened,
        ),
        after(
            row(
                "an error about a later fragment",
                Wan(1),
                &error(&place, what, &out_by1(&udp).with(|p| p.fragment = (9, false)), 28),
                OutsideIcmpError,
                (1, "icmp4"),
            ),
            opened,
        ),
        row(
            "from the lan about no flow",
            Lan,
            &error(&udp, what, &reply, 28),
            InsideIcmpError,
            (0, "icmp4"),
        ),
        row(
            "from the lan about no ipv6 flow",
            Lan,
            &error(&udp6, what6, &reply6, 48),
            InsideIcmpError,
            (0, "icmp6"),
        ),
        row(
            "from the lan to the gateway",
            Lan,
            &error(&udp, what, &reply, 28).with(|p| p.destination = GATEWAY.into()),
            Local,
            (0, "icmp4"),
        ),
    ]
    .into_iter()
    .flatten()
    .collect()
}

/// RFC 5508, REQ-10 c: it is no error of ours, whatever it quotes (RFC 6633).
fn source_quench() -> Vec<Row> {
    let quench = [4, 0, 0, 0, 0, 0];
    let udp = host_udp(PORT);
    let reply = answer(&out_by1(&udp));
    let inward = error(&reply, quench, &out_by1(&udp), 28).bytes();
    let outward = error(&udp, quench, &delivered(&reply), 28).bytes();
    let given: fn(&mut Gateway) = |gateway| gateway.send(Lan, &host_udp(PORT));
    let name = "source quench";
    vec![
        untouched(name, Wan(1), inward, Reason::NoMapping, (1, "icmp4")).given(given),
        untouched(name, Lan, outward, Reason::UnsupportedProtocol, (0, "icmp4")).given(given),
    ]
}

/// RFC 5508, REQ-3: an error whose own checksum is wrong goes no further, however
/// long it is and wherever the wrong bit is.
fn wrong_sums() -> Vec<Row> {
    let mut rows = Vec::new();
    let (what, what6) = (ERRORS[0].1, ERRORS[0].2);
    for payload in [0, 3, 484, 485, 1_400] {
        for sent in [host_udp(PORT), v6(&host_udp(PORT))] {
            let sent = sent.with(|p| p.payload = vec![0x5a; payload]);
            let (what, protocol) = match sent.source.is_ipv4() {
                true => (what, "icmp4"),
                false => (what6, "icmp6"),
            };
            let reply = answer(&out_by1(&sent));
            let about = error(&reply, what, &out_by1(&sent), usize::MAX);
            let about_reply = error(&sent, what, &delivered(&reply), usize::MAX);
            for (from, error) in [(Wan(1), about), (Lan, about_reply)] {
                let mut frame = error.bytes();
                *frame.last_mut().expect("a frame") ^= 1;
                let name = format!("{protocol} with a wrong checksum about {payload} bytes");
                let then = Then::Ends(Reason::Malformed, None);
                rows.extend(after(slow(name, from, frame, then, (1, protocol)), |gateway| {
                    gateway.send(Lan, &host_udp(PORT));
                    gateway.send(Lan, &v6(&host_udp(PORT)));
                }));
            }
        }
    }
    rows
}
