//! Rows about packets that the gateway answers with an ICMP error of its own.

use std::net::IpAddr;
use std::time::Instant;

use etherparse::{
    Icmpv4Header, Icmpv4Type, Icmpv6Header, Icmpv6Type, IpDscp, IpNumber, Ipv4Header,
    Ipv6FlowLabel, Ipv6Header,
};
use mwb_agent::dataplane::Hook;
use mwb_common::maps::{Control, Device, Path, hook, role};
use mwb_common::reason::Reason;

use crate::gateway::From::{self, Lan, Wan};
use crate::gateway::{Gateway, TC_ACT_REDIRECT, TC_ACT_SHOT, XDP_DROP, XDP_PASS};
use crate::lasting::in_a_gateway;
use crate::outward::only_ports;
use crate::packet::{Packet, Transport, fragments};
use crate::row::{Row, Then, after, slow};
use crate::world::{
    FRIEND, GATEWAY, GATEWAY6, PORT, WAN1, WAN1_6, answer, control, host_tcp, host_udp, out_by1,
    path1, v6,
};

/// What the error says: type and code, and the word behind the checksum.
type Say = ([u8; 2], [u8; 4]);

const EXPIRED4: Say = ([11, 0], [0; 4]);
const EXPIRED6: Say = ([3, 0], [0; 4]);

fn too_big4(mtu: u16) -> Say {
    let [high, low] = mtu.to_be_bytes();
    ([3, 4], [0, 0, high, low])
}

fn too_big6(mtu: u32) -> Say {
    ([2, 0], mtu.to_be_bytes())
}

/// The error about `frame` from one of our addresses, built from scratch: back to
/// the station and the host that it came from, quoting its beginning.
fn error(frame: &[u8], from: IpAddr, (what, rest): Say) -> Vec<u8> {
    let (ethernet, packet) = frame.split_at(14);
    let length = match from {
        IpAddr::V4(_) => usize::from(u16::from_be_bytes([packet[2], packet[3]])),
        IpAddr::V6(_) => usize::from(u16::from_be_bytes([packet[4], packet[5]])) + 40,
    };
    // Not the padding.
    let packet = &packet[..length];
    let mut answer = [&ethernet[6..12], &ethernet[..6], &ethernet[12..14]].concat();
    let steps = |steps: &[usize]| {
        let fits = steps.iter().find(|step| packet.len() >= **step);
        fits.map_or(packet, |&step| &packet[..step])
    };
    let [kind, code] = what;
    match from {
        IpAddr::V4(from) => {
            let quote = steps(&[512, 128]);
            let to: [u8; 4] = packet[12..16].try_into().expect("an address");
            let icmp_type = Icmpv4Type::Unknown { type_u8: kind, code_u8: code, bytes5to8: rest };
            let icmp = Icmpv4Header::with_checksum(icmp_type, quote);
            let length = u16::try_from(quote.len() + 8).expect("a short quote");
            let mut header = Ipv4Header::new(length, 64, IpNumber::ICMP, from.octets(), to)
                .expect("a short quote");
            // Precedence 6 (RFC 1812, 4.3.2.5).
            header.dscp = IpDscp::try_new(48).expect("six bits");
            header.header_checksum = header.calc_header_checksum();
            answer.extend(header.to_bytes());
            answer.extend(icmp.to_bytes());
            answer.extend(quote);
        }
        IpAddr::V6(from) => {
            let quote = steps(&[1024, 512, 128]);
            let to: [u8; 16] = packet[8..24].try_into().expect("an address");
            let icmp_type = Icmpv6Type::Unknown { type_u8: kind, code_u8: code, bytes5to8: rest };
            let icmp = Icmpv6Header::with_checksum(icmp_type, from.octets(), to, quote)
                .expect("a short quote");
            let header = Ipv6Header {
                traffic_class: 0,
                flow_label: Ipv6FlowLabel::ZERO,
                payload_length: u16::try_from(quote.len() + 8).expect("a short quote"),
                next_header: IpNumber::IPV6_ICMP,
                hop_limit: 64,
                source: from.octets(),
                destination: to,
            };
            answer.extend(header.to_bytes());
            answer.extend(icmp.to_bytes());
            answer.extend(quote);
        }
    }
    answer
}

/// Payloads for every step of the quote, an odd length among them.
const LENGTHS: [usize; 5] = [0, 101, 200, 600, 1_100];

fn with_payload(packet: &Packet, length: usize) -> Packet {
    packet.with(|p| p.payload = (0..length).map(|i| i.to_le_bytes()[0] ^ 0x5a).collect())
}

/// Nothing but a header of GRE.
fn bare_gre(packet: &Packet) -> Packet {
    packet.with(|p| {
        p.transport = Transport::Raw { protocol: 47, bytes: vec![0, 0, 8, 0] };
        p.payload.clear();
    })
}

fn opened(gateway: &mut Gateway) {
    gateway.send(Lan, &host_udp(PORT));
    gateway.send(Lan, &v6(&host_udp(PORT)));
}

pub(crate) fn rows() -> Vec<Row> {
    let own = |from: From, v6: bool| -> IpAddr {
        match (from, v6) {
            (Lan, false) => GATEWAY.into(),
            (Lan, true) => GATEWAY6.into(),
            (_, false) => WAN1.into(),
            (_, true) => WAN1_6.into(),
        }
    };
    let row = |name: String, from, packet: &Packet, reason, say, protocol| {
        let frame = packet.bytes();
        let source = own(from, packet.source.is_ipv6());
        let then = Then::Answered(reason, error(&frame, source, say));
        slow(name, from, frame, then, (1, protocol))
    };
    let reply = |sent: &Packet| answer(&out_by1(sent));
    let (udp, tcp) = (host_udp(PORT), host_tcp(PORT));
    let large = |packet: &Packet| with_payload(packet, 1_473);
    let mut rows: Vec<Row> = Vec::new();
    for (family, sent, protocol, say) in [
        ("", udp.clone(), "udp4", too_big4(1_500)),
        (", tcp", tcp.clone(), "tcp4", too_big4(1_500)),
        (", ipv6", v6(&udp), "udp6", too_big6(1_500)),
        (", tcp over ipv6", v6(&tcp), "tcp6", too_big6(1_500)),
    ] {
        let name = format!("larger than the wan's mtu{family}");
        rows.extend(row(name, Lan, &large(&sent), Reason::TooBig, say, protocol));
    }
    for (family, sent, protocol, say) in
        [("", udp.clone(), "udp4", too_big4(1_500)), (", ipv6", v6(&udp), "udp6", too_big6(1_500))]
    {
        let name = format!("larger than the lan's mtu{family}");
        let packet = large(&reply(&sent));
        rows.extend(after(row(name, Wan(1), &packet, Reason::TooBig, say, protocol), opened));
    }
    for (name, length) in [("just too large for the lan", 1_473), ("far too large", 3_000)] {
        let packet = with_payload(&reply(&tcp), length);
        let row = row(name.to_owned(), Wan(1), &packet, Reason::TooBig, too_big4(1_500), "tcp4");
        rows.extend(after(row, |gateway| gateway.send(Lan, &host_tcp(PORT))));
    }
    for length in LENGTHS {
        for (family, sent, protocol, say) in
            [("ttl", udp.clone(), "udp4", EXPIRED4), ("hop limit", v6(&udp), "udp6", EXPIRED6)]
        {
            let name = format!("an answer with a {family} of 1 and {length} bytes");
            let packet = with_payload(&reply(&sent), length).with(|p| p.ttl = 1);
            rows.extend(after(row(name, Wan(1), &packet, Reason::Expired, say, protocol), opened));
        }
    }
    // Shorter than the shortest step of the quote.
    for (padded, bytes) in [("", &[][..]), (", padded with rubbish", &[0xa5; 22][..])] {
        for (family, sent, protocol, say) in
            [("ttl", udp.clone(), "other4", EXPIRED4), ("hop limit", v6(&udp), "other6", EXPIRED6)]
        {
            let sent = bare_gre(&sent);
            let name = format!("a short answer with a {family} of 1{padded}");
            let frame = [&reply(&sent).with(|p| p.ttl = 1).bytes()[..], bytes].concat();
            let quoted = error(&frame, own(Wan(1), sent.source.is_ipv6()), say);
            let then = Then::Answered(Reason::Expired, quoted);
            rows.extend(after(slow(name, Wan(1), frame, then, (1, protocol)), |gateway| {
                gateway.send(Lan, &bare_gre(&host_udp(PORT)));
                gateway.send(Lan, &bare_gre(&v6(&host_udp(PORT))));
            }));
        }
    }
    rows.extend(silent_rows());
    rows.extend(refused_rows());
    rows
}

/// A packet from the LAN that there is no room for: host unreachable (RFC 6888,
/// REQ-11), and address unreachable for IPv6.
pub(crate) fn refused(
    name: impl Into<String>,
    packet: &Packet,
    reason: Reason,
    protocol: &'static str,
) -> [Row; 2] {
    let frame = packet.bytes();
    let answer = match packet.source {
        IpAddr::V4(_) => error(&frame, GATEWAY.into(), ([3, 1], [0; 4])),
        IpAddr::V6(_) => error(&frame, GATEWAY6.into(), ([1, 3], [0; 4])),
    };
    slow(name, Lan, frame, Then::Answered(reason, answer), (0, protocol))
}

fn refused_rows() -> Vec<Row> {
    fn another_flow(gateway: &mut Gateway) {
        gateway.send(Lan, &host_udp(PORT + 1));
        gateway.send(Lan, &v6(&host_udp(PORT + 1)));
    }
    let (udp, udp6) = (host_udp(PORT), v6(&host_udp(PORT)));
    let small = |rows: [Row; 2], flows, mappings| {
        after(rows.map(|row| row.entries(flows, mappings)), another_flow)
    };
    [
        after(refused("all ports are taken", &udp, Reason::PortsExhausted, "udp4"), |gateway| {
            only_ports(gateway, PORT, PORT);
            gateway.send(Lan, &host_udp(PORT).with(|p| p.source = FRIEND.into()));
        }),
        after(
            refused("more mappings than it may have", &udp, Reason::SourceLimit, "udp4"),
            |gateway| {
                gateway.set_control(Control { source_limit: 1, ..control() });
                gateway.send(Lan, &host_udp(PORT + 1));
            },
        ),
        small(refused("the table of ports is full", &udp, Reason::PortsExhausted, "udp4"), 64, 1),
        small(refused("the flow table is full", &udp, Reason::FlowTableFull, "udp4"), 2, 64),
        small(refused("the ipv6 flow table is full", &udp6, Reason::FlowTableFull, "udp6"), 2, 64),
    ]
    .into_iter()
    .flatten()
    .collect()
}

/// A refused packet is counted as refused whether it is answered or not, and the
/// fast path drops it itself when it would not be answered.
#[test]
fn refusals_are_answered() {
    in_a_gateway("refusals_are_answered", |gateway, form| {
        const PACKETS: u64 = 500;
        only_ports(gateway, PORT, PORT);
        gateway.send(Lan, &host_udp(PORT).with(|p| p.source = FRIEND.into()));
        let refused = host_udp(PORT).bytes();
        let began = Instant::now();
        let (mut passed_on, mut answered, mut dropped) = (0, 0, 0);
        for _ in 0..PACKETS {
            let outcome = gateway.run(Lan, &refused).expect("a test run");
            match outcome.verdict {
                TC_ACT_REDIRECT if form == Hook::Tcx => answered += 1,
                XDP_PASS if form == Hook::Xdp => passed_on += 1,
                verdict => {
                    assert_eq!(verdict, if form == Hook::Xdp { XDP_DROP } else { TC_ACT_SHOT });
                    assert_eq!(outcome.packet, refused, "what is not answered is left as it is");
                    dropped += 1;
                }
            }
        }
        let counters = gateway.counters().expect("counters");
        let of_reason = counters.iter().filter(|row| row.reason == Reason::PortsExhausted);
        let counted: u64 = of_reason.map(|row| row.packets).sum();
        assert_eq!(passed_on + answered + dropped, PACKETS);
        assert_eq!(counted, answered + dropped);
        if form == Hook::Xdp {
            // Handing over takes no token, and a test run hands over to nobody.
            assert_eq!(passed_on, PACKETS);
        } else {
            assert!(answered >= 50, "a burst is answered: {answered}");
            assert!(answered <= tokens_until_now(began), "{answered} of {PACKETS}");
        }
    });
}

/// The second fragment of a datagram that may not be divided further.
fn indivisible() -> [Vec<u8>; 2] {
    let whole = with_payload(&host_udp(PORT), 3_000).bytes();
    let frames = fragments(&whole, 1_488).into_iter().map(|mut frame| {
        frame[20] |= 0x40;
        let (header, _) = Ipv4Header::from_slice(&frame[14..]).expect("a header");
        frame[24..26].copy_from_slice(&header.calc_header_checksum().to_be_bytes());
        frame
    });
    let frames: Vec<_> = frames.take(2).collect();
    frames.try_into().expect("two fragments")
}

/// Too big, and no answer: RFC 1122, 3.2.2, to a later fragment.
fn silent_rows() -> Vec<Row> {
    let [_, later] = indivisible();
    let then = Then::Ends(Reason::TooBig, None);
    let [mut row, handed_over] =
        slow("a later fragment larger than the mtu", Lan, later, then, (1, "udp4"));
    row.given = |gateway| {
        gateway.set_path(1, Path { mtu: 1_508, ..path1() });
        gateway.try_frame(Lan, &indivisible()[0]);
        gateway.set_path(1, Path { mtu: 1_400, ..path1() });
    };
    vec![row, handed_over]
}

#[test]
fn answers_are_limited_in_rate_and_counted_apart() {
    in_a_gateway("answers_are_limited_in_rate_and_counted_apart", |gateway, form| {
        if form == Hook::Xdp {
            return;
        }
        const PACKETS: u64 = 500;
        let large = with_payload(&host_udp(PORT), 1_473).bytes();
        let began = Instant::now();
        for _ in 0..PACKETS {
            let outcome = gateway.run(Lan, &large).expect("a test run");
            assert!(matches!(outcome.verdict, TC_ACT_REDIRECT | TC_ACT_SHOT));
            if outcome.verdict == TC_ACT_SHOT {
                assert_eq!(outcome.packet, large, "what is not answered is left as it is");
            }
        }
        let most = tokens_until_now(began);
        let counters = gateway.counters().expect("counters");
        let count = |reason| -> u64 {
            counters.iter().filter(|row| row.reason == reason).map(|row| row.packets).sum()
        };
        let (answered, limited) = (count(Reason::TooBig), count(Reason::AnswerLimited));
        assert_eq!(answered + limited, PACKETS);
        assert!(answered >= 50, "a burst is answered: {answered}");
        assert!(answered <= most, "{answered} of {most}");
    });
}

/// As many errors as may have been sent: a burst, and one a millisecond; each CPU
/// that a test ran on has a bucket.
fn tokens_until_now(began: Instant) -> u64 {
    let cpus = std::thread::available_parallelism().map_or(1, usize::from);
    let elapsed = u64::try_from(began.elapsed().as_millis()).expect("a short time");
    u64::try_from(cpus).expect("a few CPUs") * (50 + elapsed + 10)
}

#[test]
fn a_device_without_an_address_answers_nothing() {
    in_a_gateway("a_device_without_an_address_answers_nothing", |gateway, form| {
        if form == Hook::Xdp {
            return;
        }
        for packet in [host_udp(PORT), v6(&host_udp(PORT))] {
            let large = with_payload(&packet, 1_473).bytes();
            let program = gateway.enter(Lan);
            let device = Device { role: role::INSIDE, hook: hook::TC, ..Device::default() };
            gateway.set_device(1, device);
            let outcome = gateway.plane().test_run(program, &large, None, 1).expect("a test run");
            assert_eq!((outcome.verdict, outcome.packet), (TC_ACT_SHOT, large));
        }
        let counters = gateway.counters().expect("counters");
        assert!(counters.iter().all(|row| row.reason == Reason::TooBig), "{counters:?}");
    });
}
