//! Packet parsing, once for kernel and host: Ethernet with VLAN tags, IPv4 with
//! options, IPv6 with extension headers, TCP, UDP, ICMP, ICMPv6, fragments.
//!
//! Parsers read through [`Bytes`] and return what they saw together with the
//! offset of the next header. They never copy payload and never panic. Sources:
//! RFC 791, 8200, 9293, 768, 792, 4443; IEEE 802.1Q.

use bytemuck::{Pod, Zeroable};

mod transport;

pub use transport::{NOT_QUOTED, Transport, parse_mss, parse_quoted, parse_transport, tcp_flag};

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
