//! IP packets that carry DNS, from the IP header on. Pure. Must not know: what a message
//! says, what belongs to a connection.

use std::net::{IpAddr, SocketAddr};

use mwb_common::nat::protocol;

/// Next header of an IPv6 fragment (RFC 8200, 4.5).
const FRAGMENT: u8 = 44;

/// Who sends to whom.
pub(super) type Pair = (SocketAddr, SocketAddr);

/// What a packet carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Carried<'a> {
    /// A datagram: one message.
    Datagram(&'a [u8]),
    /// A part of a connection.
    Segment(Segment<'a>),
}

/// A part of a TCP connection (RFC 9293, 3.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Segment<'a> {
    /// Sequence number of its first byte, or of the SYN before that.
    pub(super) sequence: u32,
    /// The connection begins.
    pub(super) begins: bool,
    /// This direction of it ends behind this, or it is reset.
    pub(super) ends: bool,
    /// Its bytes.
    pub(super) bytes: &'a [u8],
}

/// Reads a packet; `None`: it is not whole, as a fragment, or not as we know it.
pub(super) fn read(packet: &[u8]) -> Option<(Pair, Carried<'_>)> {
    let byte = |at: usize| packet.get(at).copied();
    let (from, to, carried, transport) = match byte(0)? >> 4 {
        4 => {
            let header = usize::from(byte(0)? & 15) * 4;
            let whole = usize::from(u16::from_be_bytes([byte(2)?, byte(3)?]));
            let fragment = u16::from_be_bytes([byte(6)?, byte(7)?]) & 0x3fff;
            if fragment != 0 || header < 20 {
                return None;
            }
            let address = |at: usize| Some(IpAddr::from(*packet.get(at..)?.first_chunk::<4>()?));
            (address(12)?, address(16)?, byte(9)?, packet.get(header..whole)?)
        }
        6 => {
            let whole = 40 + usize::from(u16::from_be_bytes([byte(4)?, byte(5)?]));
            let address = |at: usize| Some(IpAddr::from(*packet.get(at..)?.first_chunk::<16>()?));
            if byte(6)? == FRAGMENT {
                return None;
            }
            (address(8)?, address(24)?, byte(6)?, packet.get(40..whole)?)
        }
        _ => return None,
    };
    let [a, b, c, d, rest @ ..] = transport else { return None };
    let pair = (
        SocketAddr::new(from, u16::from_be_bytes([*a, *b])),
        SocketAddr::new(to, u16::from_be_bytes([*c, *d])),
    );
    let carried = match carried {
        protocol::UDP => {
            let length = usize::from(u16::from_be_bytes(*rest.first_chunk()?));
            Carried::Datagram(transport.get(8..length)?)
        }
        protocol::TCP => {
            let sequence = u32::from_be_bytes(*rest.first_chunk()?);
            let header = usize::from(transport.get(12)? >> 4) * 4;
            let flags = transport.get(13)?;
            let bytes = (header >= 20).then(|| transport.get(header..))??;
            let (fin, syn, rst) = (flags & 1 != 0, flags & 2 != 0, flags & 4 != 0);
            Carried::Segment(Segment { sequence, begins: syn, ends: fin || rst, bytes })
        }
        _ => return None,
    };
    Some((pair, carried))
}
