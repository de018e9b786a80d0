//! Headers of what IP carries: whole, and as ICMP errors quote them; and the MSS
//! among the options of a SYN.

use bytemuck::Pod;

use super::{Bytes, Refusal};
use crate::nat::protocol;

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
