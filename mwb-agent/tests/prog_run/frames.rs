//! Rows about frames and devices: what is ours at all.

use mwb_common::reason::Reason;

use crate::gateway::From;
use crate::packet::{Packet, Transport};
use crate::row::{Row, untouched};
use crate::world::{
    HOST_MAC, LAN_MAC, PORT, STRANGER_MAC, WAN1_MAC, answer, host_tcp, host_udp, out_by1, v6,
};

const NOTHING: (u8, &str) = (0, "other4");

fn arp(to: [u8; 6]) -> Vec<u8> {
    let mut frame = [to, HOST_MAC].concat();
    frame.extend([0x08, 0x06, 0, 1, 8, 0, 6, 4, 0, 1]);
    frame.resize(60, 0);
    frame
}

fn cut(packet: &Packet, change: fn(&mut Vec<u8>)) -> Vec<u8> {
    let mut bytes = packet.bytes();
    change(&mut bytes);
    bytes
}

fn frame(
    name: &'static str,
    from: From,
    packet: impl Into<Vec<u8>>,
    reason: Reason,
    counted: (u8, &'static str),
) -> Row {
    untouched(name, from, packet.into(), reason, counted)
}

pub(crate) fn rows() -> Vec<Row> {
    [ownership(), tags(), malformed()].into_iter().flatten().collect()
}

fn ownership() -> Vec<Row> {
    use From::{Lan, Nowhere, Wan};
    let reply = answer(&out_by1(&host_udp(PORT)));
    let elsewhere = |packet: &Packet| packet.with(|p| p.to = STRANGER_MAC).bytes();
    let to_group = |packet: &Packet| packet.with(|p| p.to = [1, 0, 0x5e, 0, 0, 1]).bytes();
    vec![
        frame("arp from the lan", Lan, arp([255; 6]), Reason::NotIp, NOTHING),
        frame("arp from a wan", Wan(1), arp(WAN1_MAC), Reason::NotIp, NOTHING),
        frame("no entry for the device", Nowhere, host_udp(PORT).bytes(), Reason::NotOurs, NOTHING),
        frame("flooded on the lan", Lan, elsewhere(&host_udp(PORT)), Reason::OtherHost, NOTHING),
        frame("flooded on a wan", Wan(1), elsewhere(&reply), Reason::OtherHost, NOTHING),
        frame("flooded ipv6", Lan, elsewhere(&v6(&host_udp(PORT))), Reason::OtherHost, NOTHING),
        frame("to a group mac, lan", Lan, to_group(&host_udp(PORT)), Reason::Multicast, NOTHING),
        frame("to a group mac, wan", Wan(1), to_group(&reply), Reason::Multicast, NOTHING),
        Row {
            under_xdp: true,
            forms: &[mwb_agent::dataplane::Hook::Tcx],
            then: crate::row::Then::Ignored,
            ..frame(
                "the tc form of an xdp device leaves what is not handed over",
                Lan,
                host_udp(PORT).bytes(),
                Reason::Forwarded,
                NOTHING,
            )
        },
    ]
}

fn tags() -> Vec<Row> {
    use From::{Lan, Wan};
    let tagged = |packet: &Packet| packet.with(|p| p.tags = vec![(0x8100, 5)]).bytes();
    let double =
        |packet: &Packet| packet.with(|p| p.tags = vec![(0x88a8, 100), (0x8100, 5)]).bytes();
    let reply = answer(&out_by1(&host_udp(PORT)));
    vec![
        frame("a tagged frame, lan", Lan, tagged(&host_udp(PORT)), Reason::Tagged, NOTHING),
        frame("a tagged ipv6 frame", Lan, tagged(&v6(&host_udp(PORT))), Reason::Tagged, NOTHING),
        frame("a tagged frame, wan", Wan(1), tagged(&reply), Reason::Tagged, NOTHING),
        frame("two tags, lan", Lan, double(&host_udp(PORT)), Reason::Tagged, NOTHING),
        frame("two tags, wan", Wan(1), double(&reply), Reason::Tagged, NOTHING),
    ]
}

fn malformed() -> Vec<Row> {
    use From::{Lan, Wan};
    let drop = |name, from, packet, counted| frame(name, from, packet, Reason::Malformed, counted);
    let mut half_tag = [LAN_MAC, HOST_MAC].concat();
    half_tag.extend([0x81, 0x00]);
    let reply = answer(&out_by1(&host_udp(PORT)));
    let short_extension =
        v6(&host_udp(PORT)).with(|p| p.extensions = vec![(60, vec![200, 1, 4, 0, 0, 0, 0])]);
    vec![
        drop("a tag that is cut off", Lan, half_tag, NOTHING),
        // Offsets: Ethernet 14, IPv4 20.
        drop("ipv4 longer than its frame", Lan, cut(&host_udp(PORT), |b| b[16] = 9), NOTHING),
        drop("an ipv4 header of 16 bytes", Lan, cut(&host_udp(PORT), |b| b[14] = 0x44), NOTHING),
        drop("ipv4 that says version 6", Lan, cut(&host_udp(PORT), |b| b[14] = 0x65), NOTHING),
        drop("udp longer than its packet", Lan, cut(&host_udp(PORT), |b| b[38] = 9), (0, "udp4")),
        drop("a tcp header of 16 bytes", Lan, cut(&host_tcp(PORT), |b| b[46] = 0x40), (0, "tcp4")),
        drop("ipv4 longer than its frame, wan", Wan(1), cut(&reply, |b| b[16] = 9), NOTHING),
        drop("udp longer than its packet, wan", Wan(1), cut(&reply, |b| b[38] = 9), (1, "udp4")),
        // Offsets: Ethernet 14, IPv6 40.
        drop("ipv6 longer than its frame", Lan, cut(&v6(&host_udp(PORT)), |b| b[18] = 9), NOTHING),
        drop("an extension header past the end", Lan, short_extension.bytes(), NOTHING),
        drop(
            "udp over ipv6 longer than its packet",
            Lan,
            cut(&v6(&host_udp(PORT)), |b| b[58] = 9),
            (0, "udp6"),
        ),
        drop(
            "an echo that is cut off",
            Lan,
            host_udp(PORT)
                .with(|p| {
                    p.transport = Transport::Raw { protocol: 1, bytes: vec![8, 0, 0, 0] };
                    p.payload.clear();
                })
                .bytes(),
            (0, "icmp4"),
        ),
    ]
}
