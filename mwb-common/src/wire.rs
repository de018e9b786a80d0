//! The header of the MWB protocol, version 1 (docs/protocol.md): what a packet of
//! a bond begins with, behind UDP. All fields are big-endian. Must not know: keys,
//! sessions, what is inside.

use bytemuck::{Pod, Zeroable};

use crate::integrity::Suite;

/// UDP port of a server that was given none.
pub const PORT: u16 = 7000;
/// Of the protocol.
pub const VERSION: u8 = 1;
/// Length of the header in bytes, without the check, which is as long as the
/// suite's tag.
pub const FIELDS: u32 = 24;

/// Length of the whole header in bytes.
#[must_use]
#[inline(always)]
pub const fn header_length(suite: Suite) -> u32 {
    FIELDS + suite.check_length()
}

/// What a packet is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Kind {
    /// An inner packet.
    Data = 0,
    /// To be reflected.
    Probe = 1,
    /// A reflected probe.
    ProbeReply = 2,
    /// Parity of a block of data packets.
    Parity = 3,
    /// For the agent: a message of the session.
    Control = 4,
    /// For the agent: what arrived and what did not.
    Ack = 5,
    /// For the agent: no session yet, and no check but its own.
    Handshake = 6,
}

impl Kind {
    /// The kind with this number.
    #[must_use]
    #[inline(always)]
    pub const fn from_number(number: u8) -> Option<Self> {
        Some(match number {
            0 => Self::Data,
            1 => Self::Probe,
            2 => Self::ProbeReply,
            3 => Self::Parity,
            4 => Self::Control,
            5 => Self::Ack,
            6 => Self::Handshake,
            _ => return None,
        })
    }

    /// Whether packets of this kind are the agents', which count them apart.
    #[must_use]
    #[inline(always)]
    pub const fn is_the_agents(self) -> bool {
        matches!(self, Self::Control | Self::Ack | Self::Handshake)
    }
}

/// Bits of [`Header::flags`].
pub mod flag {
    /// Sealed with the keys of an odd epoch.
    pub const EPOCH: u8 = 1 << 0;
    /// One of several copies, each on a path of its own.
    pub const DUPLICATE: u8 = 1 << 1;
    /// Sent again.
    pub const RETRANSMITTED: u8 = 1 << 2;
    /// Part of a block with parity.
    pub const FEC: u8 = 1 << 3;
    /// One of a flow that goes by several paths: it has a turn.
    pub const ORDERED: u8 = 1 << 4;
    /// Its sender wants to know that it came.
    pub const ACKED: u8 = 1 << 5;
    /// All there are; the others are sent as 0 and refused otherwise.
    pub const ALL: u8 = 0x3f;
    /// With any of these a packet may come more than once, and has to be known
    /// by its flow sequence. One that only has a turn comes once, as late as it likes.
    pub const REPEATS: u8 = DUPLICATE | RETRANSMITTED | FEC | ACKED;
}

/// What is inside a data packet.
pub mod inner {
    /// Nothing.
    pub const NONE: u8 = 0;
    /// An IPv4 packet.
    pub const IPV4: u8 = 4;
    /// An IPv6 packet.
    pub const IPV6: u8 = 6;
}

/// The fields of a header, as integers of this machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// What the packet is.
    pub kind: Kind,
    /// Bits of [`flag`].
    pub flags: u8,
    /// The sender's number of the path, 1 to 255.
    pub path: u8,
    /// One of [`inner`].
    pub inner: u8,
    /// Session, as the receiver of the packet numbers them.
    pub session: u32,
    /// Number of the packet on its path and in its direction, from 1; never used
    /// twice under a key.
    pub sequence: u64,
    /// Hash of the inner flow.
    pub bucket: u16,
    /// How many packets of this path the sender has taken from the receiver, in the low
    /// bits: one that is another than before says that something has arrived. 0 in types
    /// that are the agents'.
    pub taken: u16,
    /// Number of the packet in its bucket.
    pub flow_sequence: u32,
}

/// Why bytes are no header of this version.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NoHeader {
    /// Of another version.
    Version,
    /// A type, a flag or an inner protocol that this version does not have, a field in
    /// use that the type does not have, or a path or sequence of 0.
    Malformed,
}

/// A header as it is sent, without its check.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Pod, Zeroable)]
#[repr(C)]
pub struct Fields {
    kind: [u8; 2],
    path: [u8; 2],
    session: [u8; 4],
    sequence: [u8; 8],
    bucket: [u8; 2],
    taken: [u8; 2],
    flow_sequence: [u8; 4],
}

const _: () = assert!(size_of::<Fields>() == FIELDS as usize);

impl Header {
    /// As it is sent.
    #[must_use]
    #[inline(always)]
    pub const fn encode(&self) -> Fields {
        Fields {
            kind: [VERSION << 4 | self.kind as u8, self.flags],
            path: [self.path, self.inner],
            session: self.session.to_be_bytes(),
            sequence: self.sequence.to_be_bytes(),
            bucket: self.bucket.to_be_bytes(),
            taken: self.taken.to_be_bytes(),
            flow_sequence: self.flow_sequence.to_be_bytes(),
        }
    }
}

impl Fields {
    /// What the packet is, if this version has it.
    #[must_use]
    #[inline(always)]
    pub const fn kind(&self) -> Option<Kind> {
        Kind::from_number(self.kind[0] & 0xf)
    }

    /// The path's number.
    #[must_use]
    #[inline(always)]
    pub const fn path(&self) -> u8 {
        self.path[0]
    }

    /// The bytes of the sequence, as two little-endian words.
    #[must_use]
    #[inline(always)]
    pub const fn sequence_words(&self) -> [u32; 2] {
        let [a, b, c, d, e, f, g, h] = self.sequence;
        [u32::from_le_bytes([a, b, c, d]), u32::from_le_bytes([e, f, g, h])]
    }

    /// What they say.
    ///
    /// # Errors
    /// When this version sends no such thing.
    #[inline(always)]
    pub const fn decode(&self) -> Result<Header, NoHeader> {
        let Self { kind: [first, flags], path: [path, inside], .. } = *self;
        if first >> 4 != VERSION {
            return Err(NoHeader::Version);
        }
        let Some(kind) = self.kind() else { return Err(NoHeader::Malformed) };
        let inner = matches!(inside, inner::NONE | inner::IPV4 | inner::IPV6);
        let sequence = u64::from_be_bytes(self.sequence);
        let numbered = path != 0 && sequence != 0;
        let taken = u16::from_be_bytes(self.taken);
        if !inner || flags & !flag::ALL != 0 || !numbered || taken != 0 && kind.is_the_agents() {
            return Err(NoHeader::Malformed);
        }
        Ok(Header {
            kind,
            flags,
            path,
            inner: inside,
            session: u32::from_be_bytes(self.session),
            sequence,
            bucket: u16::from_be_bytes(self.bucket),
            taken,
            flow_sequence: u32::from_be_bytes(self.flow_sequence),
        })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const HEADER: Header = Header {
        kind: Kind::Probe,
        flags: flag::EPOCH | flag::ORDERED,
        path: 3,
        inner: inner::IPV6,
        session: 0x0102_0304,
        sequence: 0x1112_1314_1516_1718,
        bucket: 0x2122,
        taken: 0x2324,
        flow_sequence: 0x3132_3334,
    };

    #[test]
    fn every_field_has_its_place() {
        let bytes = [
            0x11, 0x11, 3, 6, 1, 2, 3, 4, 0x11, 0x12, 0x13, 0x14, 0x15, 0x16, 0x17, 0x18, 0x21,
            0x22, 0x23, 0x24, 0x31, 0x32, 0x33, 0x34,
        ];
        assert_eq!(bytemuck::bytes_of(&HEADER.encode()), bytes);
    }

    #[test]
    fn what_this_version_does_not_send_is_refused() {
        let with = |at: usize, value: u8| {
            let mut bytes = HEADER.encode();
            bytemuck::bytes_of_mut(&mut bytes)[at] = value;
            bytes.decode()
        };
        assert_eq!(with(0, 0x21), Err(NoHeader::Version));
        assert_eq!(with(0, 0x01), Err(NoHeader::Version));
        for (at, value) in
            [(0, 0x17), (0, 0x1f), (1, 0x40), (1, 0x80), (2, 0), (3, 5), (0, 0x14), (0, 0x16)]
        {
            assert_eq!(with(at, value), Err(NoHeader::Malformed), "{value} at {at}");
        }
        let zero = Header { sequence: 0, ..HEADER };
        assert_eq!(zero.encode().decode(), Err(NoHeader::Malformed));
    }

    proptest! {
        #[test]
        fn what_is_encoded_is_decoded(
            kind in 0u8..7, flags in 0u8..64, path in 1u8.., inner in prop::sample::select(vec![0u8, 4, 6]),
            session: u32, sequence in 1u64.., bucket: u16, taken: u16, flow_sequence: u32,
        ) {
            let kind = Kind::from_number(kind).ok_or_else(|| TestCaseError::fail("a kind"))?;
            let taken = if kind.is_the_agents() { 0 } else { taken };
            let header = Header {
                kind, flags, path, inner, session, sequence, bucket, taken, flow_sequence,
            };
            prop_assert_eq!(header.encode().decode(), Ok(header));
        }

        #[test]
        fn what_is_decoded_is_what_came(bytes: [u8; FIELDS as usize]) {
            let fields: Fields = bytemuck::pod_read_unaligned(&bytes);
            if let Ok(header) = fields.decode() {
                prop_assert_eq!(header.encode(), fields);
            }
        }
    }
}
