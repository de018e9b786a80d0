//! A reader of the protocol's packets that knows nothing of the programs: where a frame
//! has its payload, and what a packet should come to by docs/protocol.md.

use std::net::IpAddr;

use mwb_common::integrity::Suite;
use mwb_common::reason::Reason;

use super::setting::{PATHS, Setting};
use crate::bond_world::{Side, address, macs};
use crate::view::{LINK, be16};

/// Longest frame that is opened.
const LONGEST: usize = 0x7ff;

/// Types of packets, from 0 on, which is data.
pub(super) mod kind {
    pub(in super::super) const PROBE: u8 = 1;
    pub(in super::super) const REPLY: u8 = 2;
    pub(in super::super) const PARITY: u8 = 3;
    pub(in super::super) const CONTROL: u8 = 4;
    pub(in super::super) const ACK: u8 = 5;
    pub(in super::super) const HANDSHAKE: u8 = 6;
}

/// The header of a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Head {
    pub(super) kind: u8,
    pub(super) flags: u8,
    pub(super) path: u8,
    pub(super) inner: u8,
    pub(super) session: u32,
    pub(super) sequence: u64,
    pub(super) bucket: u16,
    pub(super) taken: u16,
    pub(super) flow_sequence: u32,
}

/// The header, if this version has such a one.
pub(super) fn head(payload: &[u8]) -> Option<Head> {
    let [first, flags, path, inner] = *payload.first_chunk()?;
    let word = |at: usize| payload.get(at..at + 4)?.try_into().ok().map(u32::from_be_bytes);
    let head = Head {
        kind: first & 15,
        flags,
        path,
        inner,
        session: word(4)?,
        sequence: u64::from(word(8)?) << 32 | u64::from(word(12)?),
        bucket: be16(payload, 16)?,
        taken: be16(payload, 18)?,
        flow_sequence: word(20)?,
    };
    let right = first >> 4 == 1
        && head.kind <= kind::HANDSHAKE
        && flags < 64
        && path != 0
        && matches!(inner, 0 | 4 | 6)
        && head.sequence != 0
        && (head.taken == 0 || head.kind < kind::CONTROL);
    right.then_some(head)
}

/// Where what is behind UDP begins and ends in a plain frame: one without options,
/// extension headers and tags, of a whole packet. The end is what UDP says.
pub(super) fn payload_at(frame: &[u8]) -> Option<(usize, usize)> {
    let udp = match be16(frame, 12)? {
        0x0800 => {
            let whole = be16(frame, LINK + 6)? & 0x3fff == 0;
            (whole && frame[LINK] == 0x45 && *frame.get(LINK + 9)? == 17).then_some(LINK + 20)?
        }
        0x86dd => {
            (frame.get(LINK)? >> 4 == 6 && *frame.get(LINK + 6)? == 17).then_some(LINK + 40)?
        }
        _ => return None,
    };
    // The header has to be there, addresses included.
    frame.get(udp..udp + 8)?;
    Some((udp + 8, udp + usize::from(be16(frame, udp + 4)?)))
}

/// What is behind UDP, if it is all there.
pub(super) fn payload(frame: &[u8]) -> Option<&[u8]> {
    let (at, end) = payload_at(frame)?;
    frame.get(at..end)
}

/// What a packet that comes from a WAN should come to, up to its check.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Claim {
    /// It is not for the bond.
    Other,
    /// It ends here.
    Refused(Reason),
    /// It is the agent's, unless there are too many.
    Message,
    /// Its check decides.
    Sealed(Head),
}

/// What a frame that comes to `side` by a WAN should come to.
pub(super) fn claim(setting: Setting, suite: Suite, side: Side, wan: u8, frame: &[u8]) -> Claim {
    let Some((at, end)) = payload_at(frame) else { return Claim::Other };
    let is_v6 = at == LINK + 48;
    let (to, ours) = match address(side, wan, is_v6) {
        IpAddr::V4(ours) => (&frame[LINK + 16..LINK + 20], ours.octets().to_vec()),
        IpAddr::V6(ours) => (&frame[LINK + 24..LINK + 40], ours.octets().to_vec()),
    };
    if to != ours || be16(frame, at - 6) != Some(side.port()) {
        return Claim::Other;
    }
    if frame[..6] != macs(side, wan, is_v6)[1] {
        let group = frame[0] & 1 != 0;
        return Claim::Refused(if group { Reason::Multicast } else { Reason::OtherHost });
    }
    if end > frame.len() || end > LONGEST || end < at + 24 {
        return Claim::Refused(Reason::BondMalformed);
    }
    // What a handshake begins with is the same in every version.
    if frame[at] >> 4 != 1 && frame[at] & 15 == kind::HANDSHAKE {
        return Claim::Message;
    }
    let Some(head) = head(&frame[at..end]) else { return Claim::Refused(Reason::BondMalformed) };
    if head.kind == kind::HANDSHAKE {
        let is_one = matches!(
            (frame.get(at + 24), end - at),
            (Some(1), 188) | (Some(2), 124) | (Some(3), 88)
        );
        return if is_one { Claim::Message } else { Claim::Refused(Reason::BondMalformed) };
    }
    if head.session != side.session() {
        return Claim::Refused(Reason::UnknownSession);
    }
    if matches!(head.kind, kind::CONTROL | kind::ACK) {
        return Claim::Message;
    }
    if !PATHS.contains(&head.path) {
        return Claim::Refused(Reason::UnknownPath);
    }
    if !setting.opens(head.flags & 1) {
        return Claim::Refused(Reason::UnknownEpoch);
    }
    if end - at < header_length(suite) {
        return Claim::Refused(Reason::BondMalformed);
    }
    Claim::Sealed(head)
}

fn header_length(suite: Suite) -> usize {
    if suite == Suite::ChaCha20Poly1305 { 40 } else { 32 }
}

/// Length of what an IP packet says that it has, by its family.
pub(super) fn ip_length(packet: &[u8], family: u8) -> Option<usize> {
    match (family, packet.first()? >> 4) {
        (4, 4) => {
            let header = usize::from(packet[0] & 15) * 4;
            let length = usize::from(be16(packet, 2)?);
            (packet.len() >= 20 && header >= 20 && header <= length).then_some(length)
        }
        (6, 6) if packet.len() >= 40 => Some(usize::from(be16(packet, 4)?) + 40),
        _ => None,
    }
}

/// Slot of the session whose an inner source is at the server, as its tables say.
pub(super) fn owner(packet: &[u8], family: u8) -> Option<u32> {
    let ours = Side::Server.slot();
    if family == 6 {
        let lan = [0x20, 0x01, 0x0d, 0xb8, 0x00, 0x0a];
        return (packet.get(8..14)? == lan).then_some(ours);
    }
    match packet.get(12..16)? {
        [192, 0, 2, 77] => Some(3),
        [192, 0, 2, _] => Some(ours),
        _ => None,
    }
}
