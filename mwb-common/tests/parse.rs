//! The parser against an independent one (etherparse), and under a fuzzer that
//! mutates real packets: it never panics, never points outside of the frame, and
//! agrees with the reference on what it accepts.

use etherparse::{
    IpFragOffset, IpNumber, NetSlice, PacketBuilder, SlicedPacket, TcpHeader, TransportSlice,
    VlanId,
};
use mwb_common::parse::{
    Bytes, Refusal, ethertype, parse_ethernet, parse_ipv4, parse_ipv6, parse_transport,
};
use proptest::prelude::*;

const MAC_A: [u8; 6] = [2, 0, 0, 0, 0, 1];
const MAC_B: [u8; 6] = [2, 0, 0, 0, 0, 2];

#[derive(Clone, Debug)]
struct Sample {
    v6: bool,
    tags: u8,
    transport: u8,
    source_port: u16,
    destination_port: u16,
    payload: Vec<u8>,
    ttl: u8,
}

fn sample() -> impl Strategy<Value = Sample> {
    (
        any::<bool>(),
        0u8..3,
        0u8..4,
        any::<u16>(),
        any::<u16>(),
        prop::collection::vec(any::<u8>(), 0..64),
        any::<u8>(),
    )
        .prop_map(|(v6, tags, transport, source_port, destination_port, payload, ttl)| {
            Sample { v6, tags, transport, source_port, destination_port, payload, ttl }
        })
}

fn build(sample: &Sample) -> Vec<u8> {
    macro_rules! finish {
        ($step:expr) => {{
            let ip = if sample.v6 {
                $step.ipv6(
                    "2001:db8:a::10".parse::<std::net::Ipv6Addr>().expect("address").octets(),
                    "2001:db8:ff::1".parse::<std::net::Ipv6Addr>().expect("address").octets(),
                    sample.ttl,
                )
            } else {
                $step.ipv4([192, 0, 2, 10], [203, 0, 113, 1], sample.ttl)
            };
            let mut out = Vec::new();
            match (sample.transport, sample.v6) {
                (0, _) => ip
                    .udp(sample.source_port, sample.destination_port)
                    .write(&mut out, &sample.payload),
                (1, _) => ip
                    .tcp_header(TcpHeader::new(
                        sample.source_port,
                        sample.destination_port,
                        7,
                        1_000,
                    ))
                    .write(&mut out, &sample.payload),
                (2, false) => {
                    ip.icmpv4_echo_request(sample.source_port, 1).write(&mut out, &sample.payload)
                }
                (2, true) => {
                    ip.icmpv6_echo_request(sample.source_port, 1).write(&mut out, &sample.payload)
                }
                (_, false) => {
                    ip.icmpv4_echo_reply(sample.source_port, 1).write(&mut out, &sample.payload)
                }
                (_, true) => {
                    ip.icmpv6_echo_reply(sample.source_port, 1).write(&mut out, &sample.payload)
                }
            }
            .expect("a packet");
            out
        }};
    }
    let link = PacketBuilder::ethernet2(MAC_A, MAC_B);
    let id = |n| VlanId::try_new(n).expect("a VLAN id");
    match sample.tags {
        0 => finish!(link),
        1 => finish!(link.single_vlan(id(100))),
        _ => finish!(link.double_vlan(id(100), id(200))),
    }
}

/// Everything the data plane would look at; panics or wild offsets fail here.
fn walk(frame: &[u8]) -> Option<(bool, u8, [u8; 2], [u8; 2])> {
    let link = parse_ethernet(frame).ok()?;
    assert!(link.network as usize <= frame.len());
    let (v6, protocol, transport, end) = match link.ethertype {
        ethertype::IPV4 => {
            let ip = parse_ipv4(frame, link.network).ok()?;
            assert!(ip.transport <= ip.end);
            if ip.is_fragment() {
                return None;
            }
            (false, ip.header.protocol, ip.transport, ip.end)
        }
        ethertype::IPV6 => {
            let ip = parse_ipv6(frame, link.network).ok()?;
            assert!(ip.transport <= ip.end);
            if ip.fragment {
                return None;
            }
            (true, ip.protocol, ip.transport, ip.end)
        }
        _ => return None,
    };
    assert!(end as usize <= frame.len());
    let t = parse_transport(frame, protocol, transport, end, true).ok()?;
    for field in [t.check, t.source_field, t.destination_field] {
        assert!(field + 2 <= end, "a field outside of the packet");
    }
    let [a, b, c, d] = t.ports;
    Some((v6, protocol, [a, b], [c, d]))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    #[test]
    fn a_well_formed_packet_is_read_as_the_reference_reads_it(sample in sample()) {
        let frame = build(&sample);
        let link = parse_ethernet(&frame[..]).expect("a link header");
        prop_assert_eq!(link.tags, sample.tags);
        let vlan = match sample.tags { 0 => [0, 0], 1 => [100, 0], _ => [100, 200] };
        prop_assert_eq!(link.vlan, vlan);
        let (v6, protocol, source, destination) = walk(&frame).expect("an accepted packet");
        prop_assert_eq!(v6, sample.v6);
        let id = sample.source_port.to_be_bytes();
        let (number, ports) = match (sample.transport, sample.v6) {
            (0, _) => (17, (id, sample.destination_port.to_be_bytes())),
            (1, _) => (6, (id, sample.destination_port.to_be_bytes())),
            (2, false) => (1, (id, [0; 2])),
            (2, true) => (58, (id, [0; 2])),
            (_, false) => (1, ([0; 2], id)),
            (_, true) => (58, ([0; 2], id)),
        };
        prop_assert_eq!((protocol, source, destination), (number, ports.0, ports.1));
    }

    #[test]
    fn a_packet_cut_short_is_refused_and_padding_is_not_payload(sample in sample(), cut in 1usize..200) {
        let frame = build(&sample);
        let cut = cut.min(frame.len());
        prop_assert_eq!(walk(&frame[..frame.len() - cut]), None);
        let mut padded = frame.clone();
        padded.resize(frame.len() + cut, 0xa5);
        prop_assert_eq!(walk(&padded), walk(&frame));
    }

    #[test]
    fn arbitrary_bytes_never_panic(frame in prop::collection::vec(any::<u8>(), 0..256)) {
        walk(&frame);
    }
}

/// A small generator (xorshift64*, Vigna 2016): the run is the same everywhere.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    fn below(&mut self, n: usize) -> usize {
        (self.next() % n as u64) as usize
    }
}

#[test]
fn mutated_packets_agree_with_the_reference_or_are_refused() {
    let mut random = Random(0x6d77_6230);
    let mut accepted = 0u32;
    for round in 0..300_000u32 {
        let payload = vec![0x5a; random.below(32)];
        let sample = Sample {
            v6: random.below(2) == 1,
            tags: (random.below(8) == 0) as u8,
            transport: random.below(4) as u8,
            source_port: random.next() as u16,
            destination_port: random.next() as u16,
            payload,
            ttl: 64,
        };
        let mut frame = build(&sample);
        for _ in 0..=random.below(3) {
            match random.below(4) {
                0 => {
                    let at = random.below(frame.len());
                    frame[at] ^= 1 << random.below(8);
                }
                1 => {
                    let at = random.below(frame.len());
                    frame[at] = random.next() as u8;
                }
                2 => {
                    frame.truncate(1 + random.below(frame.len()));
                }
                _ => {
                    let at = random.below(frame.len());
                    frame.insert(at, random.next() as u8);
                }
            }
        }
        let Some((v6, protocol, source, destination)) = walk(&frame) else { continue };
        accepted += 1;
        // What we accept as TCP or UDP, the reference must read with the same ports.
        let Ok(reference) = SlicedPacket::from_ethernet(&frame) else { continue };
        let same_family = matches!(
            (&reference.net, v6),
            (Some(NetSlice::Ipv4(_)), false) | (Some(NetSlice::Ipv6(_)), true)
        );
        assert!(same_family, "round {round}: the reference sees another family");
        let ports = match &reference.transport {
            Some(TransportSlice::Udp(udp)) => Some((17, udp.source_port(), udp.destination_port())),
            Some(TransportSlice::Tcp(tcp)) => Some((6, tcp.source_port(), tcp.destination_port())),
            _ => None,
        };
        if let Some((number, from, to)) = ports {
            assert_eq!(
                (protocol, source, destination),
                (number, from.to_be_bytes(), to.to_be_bytes()),
                "round {round}: {frame:02x?}"
            );
        }
    }
    assert!(accepted > 50_000, "the fuzzer must reach the transport: {accepted}");
}

#[test]
fn options_and_extension_headers_are_looked_through() {
    // IPv4 with 8 bytes of options (no-ops), UDP.
    let mut frame = build(&Sample {
        v6: false,
        tags: 0,
        transport: 0,
        source_port: 4000,
        destination_port: 53,
        payload: vec![1, 2, 3],
        ttl: 64,
    });
    for _ in 0..8 {
        frame.insert(34, 1);
    }
    frame[14] = 0x47;
    let length = u16::from_be_bytes([frame[16], frame[17]]) + 8;
    frame[16..18].copy_from_slice(&length.to_be_bytes());
    assert_eq!(walk(&frame), Some((false, 17, 4000u16.to_be_bytes(), 53u16.to_be_bytes())));

    // IPv6 with hop-by-hop, routing and destination options, UDP.
    let mut frame = build(&Sample {
        v6: true,
        tags: 0,
        transport: 0,
        source_port: 4000,
        destination_port: 53,
        payload: vec![],
        ttl: 64,
    });
    let chain = [
        [43, 0, 1, 4, 0, 0, 0, 0], // hop-by-hop, next: routing
        [60, 0, 0, 0, 0, 0, 0, 0], // routing, next: destination options
        [17, 0, 1, 4, 0, 0, 0, 0], // destination options, next: UDP
    ];
    frame[20] = 0;
    let mut at = 54;
    for header in chain {
        frame.splice(at..at, header);
        at += 8;
    }
    let length = u16::from_be_bytes([frame[18], frame[19]]) + 24;
    frame[18..20].copy_from_slice(&length.to_be_bytes());
    assert_eq!(walk(&frame), Some((true, 17, 4000u16.to_be_bytes(), 53u16.to_be_bytes())));

    // A seventh extension header is refused, not followed.
    for _ in 0..4 {
        frame.splice(54..54, [0, 0, 1, 4, 0, 0, 0, 0]);
    }
    let length = u16::from_be_bytes([frame[18], frame[19]]) + 32;
    frame[18..20].copy_from_slice(&length.to_be_bytes());
    assert_eq!(parse_ipv6(&frame[..], 14).err(), Some(Refusal::Unsupported));
}

#[test]
fn fragments_and_icmp_errors_are_told_apart() {
    let mut out = Vec::new();
    let mut header =
        etherparse::Ipv4Header::new(8, 64, IpNumber::UDP, [192, 0, 2, 1], [203, 0, 113, 1])
            .expect("a header");
    header.more_fragments = true;
    header.fragment_offset = IpFragOffset::try_new(0).expect("an offset");
    PacketBuilder::ethernet2(MAC_A, MAC_B)
        .ip(etherparse::IpHeaders::Ipv4(header, etherparse::Ipv4Extensions::default()))
        .udp(1, 2)
        .write(&mut out, &[])
        .expect("a packet");
    assert!(parse_ipv4(&out[..], 14).expect("an IPv4 header").is_fragment());

    let unreachable = [3u8, 1, 0, 0, 0, 0, 0, 0];
    assert_eq!(parse_transport(&unreachable[..], 1, 0, 8, true), Err(Refusal::IcmpError));
    let too_big = [2u8, 0, 0, 0, 0, 0, 5, 0];
    assert_eq!(parse_transport(&too_big[..], 58, 0, 8, true), Err(Refusal::IcmpError));
    let neighbour = [135u8, 0, 0, 0, 0, 0, 0, 0];
    assert_eq!(parse_transport(&neighbour[..], 58, 0, 8, true), Err(Refusal::Unsupported));
    assert_eq!(parse_transport(&neighbour[..], 48, 0, 8, true), Err(Refusal::Unsupported));
    assert_eq!(Bytes::len(&neighbour[..]), 8);
}
