//! A packet as a struct that is easy to change, and its bytes with checksums
//! computed from scratch by etherparse: what a translated packet must look like
//! is the same struct with other addresses.

use std::net::IpAddr;

use etherparse::{
    IcmpEchoHeader, Icmpv4Header, Icmpv4Type, Icmpv6Header, Icmpv6Type, IpDscp, IpEcn,
    IpFragOffset, IpNumber, Ipv4Header, Ipv4Options, Ipv6FlowLabel, Ipv6Header, TcpHeader,
    UdpHeader,
};

pub(crate) const TCP: u8 = 6;
pub(crate) const UDP: u8 = 17;
pub(crate) const ICMP: u8 = 1;
pub(crate) const ICMP6: u8 = 58;

/// TCP flags by their bits.
pub(crate) const SYN: u8 = 0x02;
pub(crate) const ACK: u8 = 0x10;

/// Upper layer of a packet.
#[derive(Clone, Debug)]
pub(crate) enum Transport {
    Tcp {
        source: u16,
        destination: u16,
        flags: u8,
    },
    /// `checksum: false` sends a checksum of zero: none (RFC 768).
    Udp {
        source: u16,
        destination: u16,
        checksum: bool,
    },
    Echo {
        reply: bool,
        id: u16,
    },
    /// Any other ICMP message; the payload is what follows the first 8 bytes.
    Icmp {
        kind: u8,
        code: u8,
        rest: [u8; 4],
    },
    /// Any other, as it is.
    Raw {
        protocol: u8,
        bytes: Vec<u8>,
    },
}

/// A packet on Ethernet.
#[derive(Clone, Debug)]
pub(crate) struct Packet {
    pub(crate) to: [u8; 6],
    pub(crate) from: [u8; 6],
    /// VLAN tags, outer first: EtherType and identifier.
    pub(crate) tags: Vec<(u16, u16)>,
    pub(crate) source: IpAddr,
    pub(crate) destination: IpAddr,
    pub(crate) ttl: u8,
    /// Type of service, or traffic class.
    pub(crate) tos: u8,
    /// IPv4 options, a multiple of 4 bytes.
    pub(crate) options: Vec<u8>,
    /// TCP options, a multiple of 4 bytes.
    pub(crate) tcp_options: Vec<u8>,
    /// IPv6 extension headers: number, and what follows its next-header byte.
    pub(crate) extensions: Vec<(u8, Vec<u8>)>,
    /// IPv4: it may be divided on its way.
    pub(crate) divisible: bool,
    /// IPv4: offset in units of 8 bytes, and whether more follow.
    pub(crate) fragment: (u16, bool),
    pub(crate) transport: Transport,
    pub(crate) payload: Vec<u8>,
    /// Ethernet padding behind the packet.
    pub(crate) padding: usize,
}

impl Packet {
    /// The same packet with something else about it.
    pub(crate) fn with(&self, change: impl FnOnce(&mut Packet)) -> Packet {
        let mut packet = self.clone();
        change(&mut packet);
        packet
    }

    /// The frame.
    pub(crate) fn bytes(&self) -> Vec<u8> {
        let mut frame = [self.to, self.from].concat();
        for (ethertype, id) in &self.tags {
            frame.extend(ethertype.to_be_bytes());
            frame.extend(id.to_be_bytes());
        }
        match (self.source, self.destination) {
            (IpAddr::V4(source), IpAddr::V4(destination)) => {
                frame.extend(0x0800_u16.to_be_bytes());
                frame.extend(self.ipv4(source.octets(), destination.octets()));
            }
            (IpAddr::V6(source), IpAddr::V6(destination)) => {
                frame.extend(0x86dd_u16.to_be_bytes());
                frame.extend(self.ipv6(source.octets(), destination.octets()));
            }
            _ => panic!("one address family per packet: {self:?}"),
        }
        frame.resize(frame.len() + self.padding, 0);
        frame
    }

    fn ipv4(&self, source: [u8; 4], destination: [u8; 4]) -> Vec<u8> {
        let (protocol, upper) = self.upper(|header, payload| match header {
            Header::Tcp(h) => h.calc_checksum_ipv4_raw(source, destination, payload).ok(),
            Header::Udp(h) => h.calc_checksum_ipv4_raw(source, destination, payload).ok(),
            Header::Echo(echo, reply) => {
                let kind = if reply { Icmpv4Type::EchoReply } else { Icmpv4Type::EchoRequest };
                Some(Icmpv4Header::with_checksum(kind(echo), payload).checksum)
            }
            Header::Icmp(type_u8, code_u8, bytes5to8) => {
                let kind = Icmpv4Type::Unknown { type_u8, code_u8, bytes5to8 };
                Some(Icmpv4Header::with_checksum(kind, payload).checksum)
            }
        });
        let length = u16::try_from(upper.len()).expect("a payload that fits");
        let mut header = Ipv4Header::new(length, self.ttl, IpNumber(protocol), source, destination)
            .expect("a payload that fits");
        (header.dscp, header.ecn) = (
            IpDscp::try_new(self.tos >> 2).expect("6 bits"),
            IpEcn::try_new(self.tos & 3).expect("2 bits"),
        );
        header.identification = 0x1234;
        header.options = Ipv4Options::try_from(self.options.as_slice()).expect("options that fit");
        header.total_len += u16::try_from(self.options.len()).expect("options that fit");
        header.fragment_offset = IpFragOffset::try_new(self.fragment.0).expect("13 bits");
        header.more_fragments = self.fragment.1;
        header.dont_fragment = !self.divisible;
        header.header_checksum = header.calc_header_checksum();
        [header.to_bytes().to_vec(), upper].concat()
    }

    fn ipv6(&self, source: [u8; 16], destination: [u8; 16]) -> Vec<u8> {
        let (protocol, upper) = self.upper(|header, payload| match header {
            Header::Tcp(h) => h.calc_checksum_ipv6_raw(source, destination, payload).ok(),
            Header::Udp(h) => h.calc_checksum_ipv6_raw(source, destination, payload).ok(),
            Header::Echo(echo, reply) => {
                let kind = if reply { Icmpv6Type::EchoReply } else { Icmpv6Type::EchoRequest };
                let header = Icmpv6Header::with_checksum(kind(echo), source, destination, payload);
                header.ok().map(|header| header.checksum)
            }
            Header::Icmp(type_u8, code_u8, bytes5to8) => {
                let kind = Icmpv6Type::Unknown { type_u8, code_u8, bytes5to8 };
                let header = Icmpv6Header::with_checksum(kind, source, destination, payload);
                header.ok().map(|header| header.checksum)
            }
        });
        let mut next = self.extensions.iter().skip(1).map(|(number, _)| *number);
        let mut behind = Vec::new();
        for (_, body) in &self.extensions {
            behind.push(next.next().unwrap_or(protocol));
            behind.extend(body);
        }
        behind.extend(upper);
        let header = Ipv6Header {
            traffic_class: self.tos,
            flow_label: Ipv6FlowLabel::ZERO,
            payload_length: u16::try_from(behind.len()).expect("a payload that fits"),
            next_header: IpNumber(self.extensions.first().map_or(protocol, |(number, _)| *number)),
            hop_limit: self.ttl,
            source,
            destination,
        };
        [header.to_bytes().to_vec(), behind].concat()
    }

    /// Protocol number and bytes of the upper layer; `checksum` computes it.
    fn upper(&self, checksum: impl FnOnce(Header<'_>, &[u8]) -> Option<u16>) -> (u8, Vec<u8>) {
        let v6 = self.source.is_ipv6();
        let sum = |header: Header<'_>| checksum(header, &self.payload).expect("a checksum");
        let (protocol, mut bytes) = match &self.transport {
            Transport::Tcp { source, destination, flags } => {
                let mut header = TcpHeader::new(*source, *destination, 0x0102_0304, 4_096);
                header.syn = flags & SYN != 0;
                header.ack = flags & ACK != 0;
                header.rst = flags & 0x04 != 0;
                header.fin = flags & 0x01 != 0;
                header.set_options_raw(&self.tcp_options).expect("options that fit");
                header.checksum = sum(Header::Tcp(&header));
                (TCP, header.to_bytes().to_vec())
            }
            Transport::Udp { source, destination, checksum } => {
                let length = self.payload.len();
                let mut header = UdpHeader::without_ipv4_checksum(*source, *destination, length)
                    .expect("a payload that fits");
                if *checksum {
                    header.checksum = sum(Header::Udp(&header));
                }
                (UDP, header.to_bytes().to_vec())
            }
            Transport::Echo { reply, id } => {
                let echo = IcmpEchoHeader { id: *id, seq: 7 };
                let [id0, id1] = id.to_be_bytes();
                let [sum0, sum1] = sum(Header::Echo(echo, *reply)).to_be_bytes();
                let kind = match (v6, reply) {
                    (false, false) => 8,
                    (false, true) => 0,
                    (true, false) => 128,
                    (true, true) => 129,
                };
                let protocol = if v6 { ICMP6 } else { ICMP };
                (protocol, vec![kind, 0, sum0, sum1, id0, id1, 0, 7])
            }
            Transport::Icmp { kind, code, rest } => {
                let [sum0, sum1] = sum(Header::Icmp(*kind, *code, *rest)).to_be_bytes();
                let bytes = [&[*kind, *code, sum0, sum1], &rest[..]].concat();
                (if v6 { ICMP6 } else { ICMP }, bytes)
            }
            Transport::Raw { protocol, bytes } => (*protocol, bytes.clone()),
        };
        bytes.extend(&self.payload);
        (protocol, bytes)
    }
}

enum Header<'a> {
    Tcp(&'a TcpHeader),
    Udp(&'a UdpHeader),
    Echo(IcmpEchoHeader, bool),
    Icmp(u8, u8, [u8; 4]),
}

/// Cuts a frame into fragments of `size` bytes of payload (a multiple of 8), the
/// last one as long as it comes.
pub(crate) fn fragments(frame: &[u8], size: usize) -> Vec<Vec<u8>> {
    let v6 = frame[12..14] == [0x86, 0xdd];
    let header = if v6 { 40 } else { usize::from(frame[14] & 15) * 4 };
    let (head, payload) = frame.split_at(14 + header);
    let count = payload.len().div_ceil(size);
    (0_u16..)
        .zip(payload.chunks(size))
        .map(|(number, part)| {
            let more = u16::from(usize::from(number) + 1 < count);
            let offset = number * u16::try_from(size / 8).expect("a small size");
            let mut bytes = head.to_vec();
            if v6 {
                let length = u16::try_from(part.len() + 8).expect("a small part");
                bytes[18..20].copy_from_slice(&length.to_be_bytes());
                let next = std::mem::replace(&mut bytes[20], 44);
                bytes.extend([next, 0]);
                bytes.extend((offset << 3 | more).to_be_bytes());
                bytes.extend([1, 2, 3, 4]);
            } else {
                let length = u16::try_from(part.len() + header).expect("a small part");
                bytes[16..18].copy_from_slice(&length.to_be_bytes());
                bytes[20..22].copy_from_slice(&(more << 13 | offset).to_be_bytes());
                bytes[24..26].copy_from_slice(&[0; 2]);
                let (ip, _) = Ipv4Header::from_slice(&bytes[14..]).expect("a header");
                bytes[24..26].copy_from_slice(&ip.calc_header_checksum().to_be_bytes());
            }
            bytes.extend(part);
            bytes
        })
        .collect()
}

#[test]
fn the_builder_makes_what_an_independent_parser_reads() {
    use etherparse::{NetSlice, SlicedPacket, TransportSlice};

    let packet = crate::world::host_udp(5_000).with(|p| {
        p.options = vec![1, 1, 1, 0];
        p.payload = b"hello".to_vec();
    });
    let bytes = packet.bytes();
    let parsed = SlicedPacket::from_ethernet(&bytes).expect("a packet");
    let Some(NetSlice::Ipv4(ip)) = &parsed.net else { panic!("no IPv4 in {parsed:?}") };
    let header = ip.header().to_header();
    assert_eq!(header.header_checksum, header.calc_header_checksum());
    assert_eq!(header.options.as_slice(), [1, 1, 1, 0]);
    let Some(TransportSlice::Udp(udp)) = &parsed.transport else { panic!("no UDP in {parsed:?}") };
    assert_eq!((udp.source_port(), udp.payload()), (5_000, b"hello".as_slice()));
    let expected =
        udp.to_header().calc_checksum_ipv4_raw(header.source, header.destination, b"hello");
    assert_eq!(Ok(udp.checksum()), expected);
}
