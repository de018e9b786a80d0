//! Packet parsing, once for kernel and host: Ethernet with VLAN tags, IPv4 with
//! options, IPv6 with extension headers, TCP, UDP, ICMP, ICMPv6, fragments.
//!
//! Parsers read through [`Bytes`] and return what they saw together with the
//! offset of the next header. They never copy payload and never panic. Sources:
//! RFC 791, 8200, 9293, 768, 792, 4443; IEEE 802.1Q.

use bytemuck::{Pod, Zeroable};

use crate::nat::protocol;

/// Bytes of a packet, read at an offset from the start of the frame.
pub trait Bytes {
    /// A copy of the `T` at `offset`; none if it would reach past the end.
    fn read<T: Pod>(&self, offset: u32) -> Option<T>;
    /// Length of the frame in bytes.
    fn len(&self) -> u32;
    /// Whether it has bytes up to `end`, wherever they lie.
    fn reaches_to(&self, end: u32) -> bool {
        end <= self.len()
    }
    /// Whether there is nothing in it.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl Bytes for [u8] {
    fn read<T: Pod>(&self, offset: u32) -> Option<T> {
        let start = offset as usize;
        let bytes = self.get(start..start.checked_add(size_of::<T>())?)?;
        Some(bytemuck::pod_read_unaligned(bytes))
    }

    fn len(&self) -> u32 {
        u32::try_from(<[u8]>::len(self)).unwrap_or(u32::MAX)
    }
}

/// Why a packet could not be parsed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// Too short for its own headers, or lengths that contradict each other.
    Malformed,
    /// An ICMP error: it speaks of another packet.
    IcmpError,
    /// A protocol without ports that we know.
    Unsupported,
}

/// EtherTypes.
pub mod ethertype {
    /// IPv4.
    pub const IPV4: u16 = 0x0800;
    /// IPv6.
    pub const IPV6: u16 = 0x86dd;
    /// 802.1Q tag.
    pub const VLAN: u16 = 0x8100;
    /// 802.1ad service tag.
    pub const QINQ: u16 = 0x88a8;
}

/// Length of an Ethernet header without tags.
pub const ETHERNET: u32 = 14;

/// VLAN tags that are looked through; a frame with more keeps its tag's type.
const MAX_TAGS: u8 = 2;

/// What is known of the link layer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Link {
    /// EtherType behind the tags, host byte order.
    pub ethertype: u16,
    /// Offset of the network header.
    pub network: u32,
    /// VLAN tags seen (at most 2).
    pub tags: u8,
    /// VLAN identifiers, outer first; 0 where there is none.
    pub vlan: [u16; 2],
}

/// Reads an Ethernet header and up to two VLAN tags.
#[inline(always)]
pub fn parse_ethernet<B: Bytes + ?Sized>(bytes: &B) -> Result<Link, Refusal> {
    let kind: [u8; 2] = bytes.read(12).ok_or(Refusal::Malformed)?;
    let mut link =
        Link { ethertype: u16::from_be_bytes(kind), network: ETHERNET, tags: 0, vlan: [0; 2] };
    while link.tags < MAX_TAGS && matches!(link.ethertype, ethertype::VLAN | ethertype::QINQ) {
        let [a, b, c, d]: [u8; 4] = bytes.read(link.network).ok_or(Refusal::Malformed)?;
        // The identifier is the low 12 bits of the tag.
        link.vlan[link.tags as usize & 1] = u16::from_be_bytes([a, b]) & 0x0fff;
        link.ethertype = u16::from_be_bytes([c, d]);
        link.network += 4;
        link.tags += 1;
    }
    Ok(link)
}

/// The fixed part of an IPv4 header (RFC 791).
#[repr(C, packed)]
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
pub struct Ipv4Header {
    /// Version and header length in words.
    pub version_length: u8,
    /// Type of service.
    pub tos: u8,
    /// Length with header.
    pub total_length: [u8; 2],
    /// Identification.
    pub identification: [u8; 2],
    /// Flags and fragment offset.
    pub fragment: [u8; 2],
    /// Time to live.
    pub ttl: u8,
    /// Protocol of the payload.
    pub protocol: u8,
    /// Header checksum.
    pub check: [u8; 2],
    /// Source address.
    pub source: [u8; 4],
    /// Destination address.
    pub destination: [u8; 4],
}

/// An IPv4 packet.
#[derive(Clone, Copy, Debug)]
pub struct Ipv4 {
    /// The fixed header.
    pub header: Ipv4Header,
    /// Offset of the header.
    pub offset: u32,
    /// Offset of the transport header.
    pub transport: u32,
    /// Offset of the packet's end in the frame (frames may be padded).
    pub end: u32,
}

impl Ipv4 {
    /// Whether it is a fragment of a larger packet, first ones included.
    #[inline(always)]
    #[must_use]
    pub const fn is_fragment(&self) -> bool {
        // More-fragments bit and offset; the reserved and DF bits do not count.
        u16::from_be_bytes(self.header.fragment) & 0x3fff != 0
    }

    /// Whether its transport header is in another fragment.
    #[inline(always)]
    #[must_use]
    pub const fn is_later_fragment(&self) -> bool {
        u16::from_be_bytes(self.header.fragment) & 0x1fff != 0
    }
}

/// Reads an IPv4 header at `offset`.
#[inline(always)]
pub fn parse_ipv4<B: Bytes + ?Sized>(bytes: &B, offset: u32) -> Result<Ipv4, Refusal> {
    let header: Ipv4Header = bytes.read(offset).ok_or(Refusal::Malformed)?;
    let header_length = (header.version_length & 0x0f) as u32 * 4;
    let total_length = u16::from_be_bytes(header.total_length) as u32;
    if header.version_length >> 4 != 4
        || header_length < 20
        || total_length < header_length
        || !bytes.reaches_to(offset + total_length)
    {
        return Err(Refusal::Malformed);
    }
    Ok(Ipv4 { header, offset, transport: offset + header_length, end: offset + total_length })
}

/// The fixed IPv6 header (RFC 8200).
#[repr(C, packed)]
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
pub struct Ipv6Header {
    /// Version, traffic class, flow label.
    pub version_class_label: [u8; 4],
    /// Length without this header.
    pub payload_length: [u8; 2],
    /// Type of the next header.
    pub next_header: u8,
    /// Hop limit.
    pub hop_limit: u8,
    /// Source address.
    pub source: [u8; 16],
    /// Destination address.
    pub destination: [u8; 16],
}

/// An IPv6 packet.
#[derive(Clone, Copy, Debug)]
#[repr(C, align(8))]
pub struct Ipv6 {
    /// The fixed header.
    pub header: Ipv6Header,
    /// Offset of the header.
    pub offset: u32,
    /// Offset of the upper-layer header.
    pub transport: u32,
    /// Protocol of the upper layer.
    pub protocol: u8,
    /// Whether it is a fragment of a larger packet, first ones included; an
    /// atomic fragment is not (RFC 6946).
    pub fragment: bool,
    /// Whether its upper-layer header is in another fragment.
    pub later: bool,
    /// Identification of a fragment.
    pub identification: [u8; 4],
    /// Offset of the packet's end in the frame.
    pub end: u32,
}

impl Ipv6 {
    /// All zero: room for one.
    #[inline(always)]
    #[must_use]
    pub fn zeroed() -> Self {
        Self {
            header: Ipv6Header::zeroed(),
            offset: 0,
            transport: 0,
            protocol: 0,
            fragment: false,
            later: false,
            identification: [0; 4],
            end: 0,
        }
    }
}

/// Extension headers that are looked through (RFC 8200, 4.1 recommends each at
/// most once, destination options twice).
const MAX_EXTENSIONS: u32 = 6;

/// Reads an IPv6 header at `offset` and the extension headers behind it.
#[inline(always)]
pub fn parse_ipv6<B: Bytes + ?Sized>(bytes: &B, offset: u32) -> Result<Ipv6, Refusal> {
    let mut packet = Ipv6::zeroed();
    read_ipv6(bytes, offset, &mut packet)?;
    Ok(packet)
}

/// [`parse_ipv6`] into a packet that the caller has; what is in it counts only
/// if all went well.
#[inline(always)]
pub fn read_ipv6<B: Bytes + ?Sized>(
    bytes: &B,
    offset: u32,
    packet: &mut Ipv6,
) -> Result<(), Refusal> {
    let header: Ipv6Header = bytes.read(offset).ok_or(Refusal::Malformed)?;
    let end = offset + 40 + u16::from_be_bytes(header.payload_length) as u32;
    if header.version_class_label[0] >> 4 != 6 || !bytes.reaches_to(end) {
        return Err(Refusal::Malformed);
    }
    (packet.header, packet.offset, packet.end) = (header, offset, end);
    (packet.fragment, packet.later) = (false, false);
    let (mut transport, mut protocol) = (offset + 40, header.next_header);
    let mut seen = 0;
    // The test at the end: the other way, the verifier of Linux 6.1 refuses what
    // LLVM makes of it.
    if is_extension(protocol) {
        loop {
            let [next, length]: [u8; 2] = bytes.read(transport).ok_or(Refusal::Malformed)?;
            let mut later = false;
            let size = if protocol == 44 {
                let [_, _, high, low, a, b, c, d]: [u8; 8] =
                    bytes.read(transport).ok_or(Refusal::Malformed)?;
                // 13 bits of offset, two reserved, more-fragments.
                packet.fragment = high != 0 || low & 0xf9 != 0;
                later = high != 0 || low & 0xf8 != 0;
                packet.later = later;
                packet.identification = [a, b, c, d];
                8
            } else {
                (length as u32 + 1) * 8
            };
            transport += size;
            protocol = next;
            if transport > end {
                return Err(Refusal::Malformed);
            }
            // Behind a later fragment's header may be the middle of another.
            if later || !is_extension(protocol) {
                break;
            }
            seen += 1;
            if seen == MAX_EXTENSIONS {
                return Err(Refusal::Unsupported);
            }
        }
    }
    (packet.transport, packet.protocol) = (transport, protocol);
    Ok(())
}

/// Hop-by-hop 0, routing 43, fragment 44, destination 60. Not authentication 51:
/// it covers the addresses, so translated it would be void.
#[inline(always)]
const fn is_extension(protocol: u8) -> bool {
    matches!(protocol, 0 | 43 | 44 | 60)
}

/// TCP flag bits.
pub mod tcp_flag {
    /// No more data from the sender.
    pub const FIN: u8 = 1;
    /// Opens a connection.
    pub const SYN: u8 = 1 << 1;
    /// Resets it.
    pub const RST: u8 = 1 << 2;
    /// The acknowledgement number is valid.
    pub const ACK: u8 = 1 << 4;
}

/// What NAT needs of a transport header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Transport {
    /// Source and destination port, network byte order. The identifier of an
    /// echo request stands in the place of the source port, that of a reply in
    /// the place of the destination port; the other is 0.
    pub ports: [u8; 4],
    /// Flags of a TCP segment, else 0.
    pub tcp_flags: u8,
    /// Offset of the checksum field. 0: there is nothing to change in the
    /// transport header, neither ports nor checksum.
    pub check: u32,
    /// Offset of the field that holds the sender's port or identifier.
    pub source_field: u32,
    /// Offset of the field that holds the receiver's port or identifier.
    pub destination_field: u32,
    /// Offset of the payload.
    pub payload: u32,
    /// Whether such a packet may open a flow: an echo reply may not.
    pub opens: bool,
}

/// Reads the transport header of `protocol` at `offset`, which must end before
/// `end`; so must the payload, if the packet is `whole` and no first fragment.
#[inline(always)]
pub fn parse_transport<B: Bytes + ?Sized>(
    bytes: &B,
    protocol: u8,
    offset: u32,
    end: u32,
    whole: bool,
) -> Result<Transport, Refusal> {
    match protocol {
        protocol::TCP => {
            let h: [u8; 20] = read_within(bytes, offset, end)?;
            let payload = offset + (h[12] >> 4) as u32 * 4;
            if (h[12] >> 4) < 5 || payload > end {
                return Err(Refusal::Malformed);
            }
            let ports = [h[0], h[1], h[2], h[3]];
            Ok(Transport { tcp_flags: h[13], payload, ..with_ports(ports, offset, 16) })
        }
        protocol::UDP => {
            let h: [u8; 8] = read_within(bytes, offset, end)?;
            let length = u16::from_be_bytes([h[4], h[5]]) as u32;
            if length < 8 || whole && offset + length > end {
                return Err(Refusal::Malformed);
            }
            Ok(with_ports([h[0], h[1], h[2], h[3]], offset, 6))
        }
        protocol::ICMP | protocol::ICMPV6 => {
            let h: [u8; 8] = read_within(bytes, offset, end)?;
            let kind = match (protocol, h[0]) {
                // Echo, and timestamp, which has the same fields (RFC 792).
                (protocol::ICMP, 8 | 13) | (protocol::ICMPV6, 128) => Echo::Request,
                (protocol::ICMP, 0 | 14) | (protocol::ICMPV6, 129) => Echo::Reply,
                // Unreachable, redirect, time exceeded, parameter; source quench is
                // to be ignored (RFC 6633).
                (protocol::ICMP, 3 | 5 | 11 | 12) => return Err(Refusal::IcmpError),
                // RFC 4443, 2.1: errors have the high bit clear.
                (protocol::ICMPV6, 0..=127) => return Err(Refusal::IcmpError),
                _ => return Err(Refusal::Unsupported),
            };
            Ok(Transport {
                ports: match kind {
                    Echo::Request => [h[4], h[5], 0, 0],
                    Echo::Reply => [0, 0, h[4], h[5]],
                },
                tcp_flags: 0,
                check: offset + 2,
                source_field: offset + 4,
                destination_field: offset + 4,
                payload: offset + 8,
                opens: matches!(kind, Echo::Request),
            })
        }
        // Its checksum covers the ports but not the addresses (RFC 9260, 6.8).
        protocol::SCTP => {
            let [a, b, c, d, ..]: [u8; 12] = read_within(bytes, offset, end)?;
            Ok(Transport { check: 0, payload: offset + 12, ..with_ports([a, b, c, d], offset, 0) })
        }
        protocol::GRE | protocol::ESP => {
            let _: [u8; 4] = read_within(bytes, offset, end)?;
            Ok(Transport { check: 0, payload: offset + 4, ..with_ports([0; 4], offset, 0) })
        }
        _ => Err(Refusal::Unsupported),
    }
}

/// Reads as much as NAT needs of a transport header that an ICMP error quotes:
/// 8 bytes at least (RFC 792), and no more than up to `end`.
#[inline(always)]
pub fn parse_quoted<B: Bytes + ?Sized>(
    bytes: &B,
    protocol: u8,
    offset: u32,
    end: u32,
) -> Result<Transport, Refusal> {
    let h: [u8; 8] = read_within(bytes, offset, end)?;
    let ports = [h[0], h[1], h[2], h[3]];
    match protocol {
        protocol::TCP if offset + 18 <= end => Ok(with_ports(ports, offset, 16)),
        // The port is there, its checksum is not.
        protocol::TCP => Ok(Transport { check: NOT_QUOTED, ..with_ports(ports, offset, 0) }),
        protocol::UDP => Ok(with_ports(ports, offset, 6)),
        protocol::ICMP | protocol::ICMPV6 => {
            let (id, field) = ([h[4], h[5]], offset + 4);
            let ports = match (protocol, h[0]) {
                (protocol::ICMP, 8 | 13) | (protocol::ICMPV6, 128) => [id[0], id[1], 0, 0],
                (protocol::ICMP, 0 | 14) | (protocol::ICMPV6, 129) => [0, 0, id[0], id[1]],
                _ => return Err(Refusal::Unsupported),
            };
            let echo = with_ports(ports, offset, 2);
            Ok(Transport { source_field: field, destination_field: field, ..echo })
        }
        protocol::SCTP => Ok(Transport { check: 0, ..with_ports(ports, offset, 0) }),
        protocol::GRE | protocol::ESP => {
            Ok(Transport { check: 0, ..with_ports([0; 4], offset, 0) })
        }
        _ => Err(Refusal::Unsupported),
    }
}

/// [`Transport::check`] of a quoted header that ends before its checksum.
pub const NOT_QUOTED: u32 = u32::MAX;

/// How many TCP options are looked at for the maximum segment size; it comes
/// first as a rule.
const MAX_OPTIONS: u32 = 12;

/// The maximum segment size that a SYN announces (RFC 9293, 3.7.1): offset of
/// the two-byte value, and the value. Its header begins at `header` and ends at
/// `end`.
#[inline(always)]
pub fn parse_mss<B: Bytes + ?Sized>(bytes: &B, header: u32, end: u32) -> Option<(u32, u16)> {
    let mut offset = header + 20;
    let mut seen = 0;
    while seen < MAX_OPTIONS && offset + 4 <= end {
        seen += 1;
        let [kind, length]: [u8; 2] = bytes.read(offset)?;
        match (kind, length) {
            (0, _) => return None,
            (1, _) => offset += 1,
            (2, 4) => {
                let value: [u8; 2] = bytes.read(offset + 2)?;
                return Some((offset + 2, u16::from_be_bytes(value)));
            }
            (_, 0 | 1) => return None,
            _ => offset += length as u32,
        }
    }
    None
}

enum Echo {
    Request,
    Reply,
}

#[inline(always)]
fn read_within<T: Pod, B: Bytes + ?Sized>(bytes: &B, offset: u32, end: u32) -> Result<T, Refusal> {
    if offset + size_of::<T>() as u32 > end {
        return Err(Refusal::Malformed);
    }
    bytes.read(offset).ok_or(Refusal::Malformed)
}

#[inline(always)]
fn with_ports(ports: [u8; 4], offset: u32, check: u32) -> Transport {
    Transport {
        ports,
        tcp_flags: 0,
        check: offset + check,
        source_field: offset,
        destination_field: offset + 2,
        payload: offset + 8,
        opens: true,
    }
}
