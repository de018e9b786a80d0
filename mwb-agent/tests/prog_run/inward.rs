//! Rows about packets from a WAN.

use mwb_common::maps::Path;
use mwb_common::reason::Reason;

use crate::gateway::From::{Lan, Wan};
use crate::gateway::Gateway;
use crate::packet::{Packet, Transport};
use crate::row::{Row, forwarded, unresolved, untouched};
use crate::world::{
    BYPASSED, BYPASSED6, GATEWAY6, HOST, HOST6, LOST, LOST6, LOST6_OUT1, PORT, SILENT, SILENT6,
    SILENT6_OUT1, WAN1_6, answer, delivered, from_port, host_echo, host_tcp, host_udp, out_by1,
    path1, v6,
};

pub(crate) fn rows() -> Vec<Row> {
    [answers(), unresolved_rows(), no_way_in(), refused(), to_the_gateway()]
        .into_iter()
        .flatten()
        .collect()
}

fn no_checksum() -> Packet {
    host_udp(PORT).with(|p| {
        if let Transport::Udp { checksum, .. } = &mut p.transport {
            *checksum = false;
        }
    })
}

/// The answer to a packet that went out by path 1.
fn reply(sent: &Packet) -> Packet {
    answer(&out_by1(sent))
}

/// Name, what was sent, protocol, and how it was sent.
type Kind = (&'static str, Packet, &'static str, fn(&mut Gateway));

fn answers() -> Vec<Row> {
    // Rows are plain functions of the gateway: one opener for each.
    let kinds: [Kind; 7] = [
        ("a tcp answer", host_tcp(PORT), "tcp4", |g| g.send(Lan, &host_tcp(PORT))),
        ("a udp answer", host_udp(PORT), "udp4", |g| g.send(Lan, &host_udp(PORT))),
        ("an answer without a checksum", no_checksum(), "udp4", |g| {
            g.send(Lan, &host_udp(PORT));
        }),
        ("an echo reply", host_echo(PORT), "icmp4", |g| g.send(Lan, &host_echo(PORT))),
        ("a tcp answer over ipv6", v6(&host_tcp(PORT)), "tcp6", |g| {
            g.send(Lan, &v6(&host_tcp(PORT)));
        }),
        ("a udp answer over ipv6", v6(&host_udp(PORT)), "udp6", |g| {
            g.send(Lan, &v6(&host_udp(PORT)));
        }),
        ("an echo reply over ipv6", v6(&host_echo(PORT)), "icmp6", |g| {
            g.send(Lan, &v6(&host_echo(PORT)));
        }),
    ];
    let mut rows: Vec<Row> = kinds
        .into_iter()
        .map(|(name, sent, protocol, given)| {
            let packet = reply(&sent);
            forwarded(name, Wan(1), &packet, &delivered(&packet), (1, protocol)).given(given)
        })
        .collect();
    let inward = |name, packet: &Packet, protocol| {
        forwarded(name, Wan(1), packet, &delivered(packet), (1, protocol))
    };
    let udp = reply(&host_udp(PORT));
    let extensions = |p: &mut Packet| p.extensions = vec![(60, vec![0, 1, 4, 0, 0, 0, 0])];
    rows.extend([
        inward("the second answer", &udp, "udp4").given(|gateway| {
            gateway.send(Lan, &host_udp(PORT));
            gateway.send(Wan(1), &reply(&host_udp(PORT)));
        }),
        inward("the second answer over ipv6", &reply(&v6(&host_tcp(PORT))), "tcp6").given(
            |gateway| {
                gateway.send(Lan, &v6(&host_tcp(PORT)));
                gateway.send(Wan(1), &reply(&v6(&host_tcp(PORT))));
            },
        ),
        inward("an answer with options", &udp.with(|p| p.options = vec![1, 1, 1, 0]), "udp4")
            .given(|g| g.send(Lan, &host_udp(PORT))),
        inward("a padded answer", &udp.with(|p| p.padding = 6), "udp4")
            .given(|g| g.send(Lan, &host_udp(PORT))),
        inward("an answer with extensions", &reply(&v6(&host_udp(PORT))).with(extensions), "udp6")
            .given(|g| g.send(Lan, &v6(&host_udp(PORT)))),
        replaced_port(),
    ]);
    rows
}

/// The host's own port comes back.
fn replaced_port() -> Row {
    let packet = reply(&host_udp(PORT));
    let out = delivered(&packet).with(|p| {
        if let Transport::Udp { destination, .. } = &mut p.transport {
            *destination = 5_000;
        }
    });
    forwarded("an answer to a replaced port", Wan(1), &packet, &out, (1, "udp4")).given(|gateway| {
        crate::outward::only_ports(gateway, PORT, PORT);
        gateway.send(Lan, &host_udp(5_000));
    })
}

/// Packets of other hosts, and the answers to them.
fn silent() -> Packet {
    host_udp(PORT).with(|p| p.source = SILENT.into())
}

fn silent6() -> Packet {
    v6(&host_udp(PORT)).with(|p| p.source = SILENT6.into())
}

fn reply_to_silent6() -> Packet {
    reply(&silent6()).with(|p| p.destination = SILENT6_OUT1.into())
}

fn unresolved_rows() -> Vec<Row> {
    let packet = reply(&silent());
    let out = delivered(&packet).with(|p| p.destination = SILENT.into());
    let packet6 = reply_to_silent6();
    let out6 = delivered(&packet6).with(|p| p.destination = SILENT6.into());
    let v4 = [
        "the host is not resolved",
        "the host is not resolved: handed over",
        "the host is not resolved and there is no room for a mark",
    ];
    let v6 = [
        "the ipv6 host is not resolved",
        "the ipv6 host is not resolved: handed over",
        "the ipv6 host is not resolved and there is no room for a mark",
    ];
    let rows = unresolved(v4, Wan(1), |g| g.send(Lan, &silent()), &packet, &out, (1, "udp4"));
    let rows6 = unresolved(v6, Wan(1), |g| g.send(Lan, &silent6()), &packet6, &out6, (1, "udp6"));
    rows.into_iter().chain(rows6).collect()
}

fn no_way_in() -> Vec<Row> {
    use Reason::NoRoute;
    let row = |name, packet: &Packet, reason, protocol| {
        untouched(name, Wan(1), packet.bytes(), reason, (1, protocol))
    };
    let (udp, udp6) = (reply(&host_udp(PORT)), reply(&v6(&host_udp(PORT))));
    let lost6 = udp6.with(|p| p.destination = LOST6_OUT1.into());
    vec![
        row("no route to the host", &udp, NoRoute, "udp4")
            .given(|g| g.send(Lan, &host_udp(PORT).with(|p| p.source = LOST.into()))),
        row("no route to the ipv6 host", &lost6, NoRoute, "udp6")
            .given(|g| g.try_send(Lan, &v6(&host_udp(PORT)).with(|p| p.source = LOST6.into()))),
    ]
}

fn refused() -> Vec<Row> {
    use Reason::{Bypass, Multicast, NoMapping, Unsolicited};
    let row = |name, from, packet: &Packet, reason, counted| {
        untouched(name, from, packet.bytes(), reason, counted)
    };
    let opened: fn(&mut Gateway) = |gateway| gateway.send(Lan, &host_udp(PORT));
    let opened6: fn(&mut Gateway) = |gateway| gateway.send(Lan, &v6(&host_udp(PORT)));
    let (udp, udp6) = (reply(&host_udp(PORT)), reply(&v6(&host_udp(PORT))));
    let to = |packet: &Packet, address| packet.with(|p| p.destination = address);
    let wrong_port = from_port(&udp, 9_999);
    let via2 = udp.with(|p| p.to = crate::world::WAN2_MAC);
    vec![
        row("of no flow", Wan(1), &udp, NoMapping, (1, "udp4")),
        row("from another port than was asked", Wan(1), &wrong_port, NoMapping, (1, "udp4"))
            .given(opened),
        row("through another wan", Wan(2), &via2, NoMapping, (2, "udp4")).given(opened),
        row("to an address the wan has no more", Wan(1), &udp, NoMapping, (1, "udp4")).given(
            |gateway| {
                gateway.send(Lan, &host_udp(PORT));
                gateway.set_path(1, Path { generation: 2, ..path1() });
            },
        ),
        row("to the gateway over ipv6", Wan(1), &to(&udp6, WAN1_6.into()), NoMapping, (1, "udp6")),
        row("an ipv6 answer of no flow", Wan(1), &udp6, Unsolicited, (1, "udp6")),
        row(
            "an ipv6 answer to a prefix the wan has no more",
            Wan(1),
            &udp6,
            Unsolicited,
            (1, "udp6"),
        )
        .given(|gateway| {
            gateway.send(Lan, &v6(&host_udp(PORT)));
            gateway.set_path(1, Path { generation: 2, ..path1() });
        }),
        row(
            "from another ipv6 port than was asked",
            Wan(1),
            &from_port(&udp6, 9_999),
            Unsolicited,
            (1, "udp6"),
        )
        .given(opened6),
        row("straight to a lan host", Wan(1), &to(&udp, HOST.into()), Unsolicited, (1, "udp4")),
        row("straight to an ipv6 host", Wan(1), &to(&udp6, HOST6.into()), Unsolicited, (1, "udp6")),
        row("to a group", Wan(1), &to(&udp, [224, 0, 0, 1].into()), Multicast, (1, "udp4")),
        row(
            "to an ipv6 group",
            Wan(1),
            &to(&udp6, [0xff02, 0, 0, 0, 0, 0, 0, 1].into()),
            Multicast,
            (1, "udp6"),
        ),
        row(
            "from a prefix left to the kernel",
            Wan(1),
            &to(&udp, HOST.into()).with(|p| p.source = BYPASSED.into()),
            Bypass,
            (1, "udp4"),
        ),
        row(
            "from an ipv6 prefix left to the kernel",
            Wan(1),
            &to(&udp6, HOST6.into()).with(|p| p.source = BYPASSED6.into()),
            Bypass,
            (1, "udp6"),
        ),
    ]
}

fn to_the_gateway() -> Vec<Row> {
    use Reason::NoMapping;
    let row = |name, packet: &Packet, reason, counted| {
        untouched(name, Wan(1), packet.bytes(), reason, counted)
    };
    let (udp, udp6) = (reply(&host_udp(PORT)), reply(&v6(&host_udp(PORT))));
    let raw = |packet: &Packet, protocol, bytes: &[u8]| {
        let bytes = bytes.to_vec();
        packet.with(|p| p.transport = Transport::Raw { protocol, bytes })
    };
    let request = |p: &mut Packet| p.transport = Transport::Echo { reply: false, id: 77 };
    let dhcp = udp.with(|p| {
        p.transport = Transport::Udp { source: 67, destination: 68, checksum: true };
        p.destination = [198, 51, 100, 77].into();
    });
    let to_lan6 = udp6.with(|p| p.destination = GATEWAY6.into());
    vec![
        row("an echo request", &udp.with(request), NoMapping, (1, "icmp4")),
        row("gre", &raw(&udp, 47, &[0; 8]), NoMapping, (1, "other4")),
        row("a dhcp offer of an address that is not there yet", &dhcp, NoMapping, (1, "udp4")),
        row("to the gateway's lan address over ipv6", &to_lan6, NoMapping, (1, "udp6")),
    ]
}
