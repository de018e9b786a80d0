//! What is in a parity packet, and in a shard.

use std::iter;

use thiserror::Error;

use super::code::{MOST_DATA, MOST_PARITY};

/// Bytes in front of the gaps.
const HEAD: usize = 20;
/// Bytes of a shard in front of the packet.
pub(super) const SHARD_HEAD: usize = 10;
/// No packet of IP is shorter.
const LEAST_PACKET: usize = 20;
/// What a shard has room for.
pub(super) const MOST_PACKET: usize = u16::MAX as usize - SHARD_HEAD;
/// Unit of [`Body::wait`], in ns.
pub(super) const WAIT_UNIT: u64 = 1_000_000;
/// Paths are numbered from 1 up to this.
const MOST_PATH: u8 = 15;

/// How much longer a parity body is than the longest packet of its block, in bytes, if the
/// block has `data` packets: 29 + `data`.
#[must_use]
pub const fn overhead(data: u8) -> usize {
    HEAD + data.saturating_sub(1) as usize + SHARD_HEAD
}

/// Whether a body can be of this path.
pub(super) fn is_path(path: u8) -> bool {
    (1..=MOST_PATH).contains(&path)
}

/// A data packet, as a path has it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Member {
    pub(super) path: u8,
    pub(super) sequence: u64,
}

/// The name of a block.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Id {
    /// The path of its data.
    pub(super) path: u8,
    /// Counted for each path.
    pub(super) number: u32,
}

/// What the header of a data packet says of what is inside.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Header {
    pub(super) inner: u8,
    pub(super) flags: u8,
    pub(super) bucket: u16,
    pub(super) number: u32,
}

/// Why a parity body is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum Malformed {
    /// It ends within its head.
    #[error("parity shorter than its head of {HEAD} bytes")]
    Short,
    /// It is of another version.
    #[error("parity of version {0}, not 0")]
    Version(u8),
    /// No block has so many packets of data or parity, or so many that it has this one.
    #[error("parity {index} of a block of {data} and {parity}: there is none")]
    Counts {
        /// Packets of data.
        data: u8,
        /// Packets of parity.
        parity: u8,
        /// Which of them this one is.
        index: u8,
    },
    /// There is no such path.
    #[error("parity for path {0}, not 1 to {MOST_PATH}")]
    Path(u8),
    /// It is not as long as it says, or its shard is too short for a packet.
    #[error("parity of another length than it says")]
    Length,
    /// The sequences of its members begin with 0, do not grow, or wrap.
    #[error("parity for sequences that are 0, repeat or wrap")]
    Sequences,
}

/// A parity body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Body<'a> {
    /// Packets of parity of the block.
    pub(super) parity: u8,
    /// Which of them this is, from 0.
    pub(super) index: u8,
    /// The block.
    pub(super) block: Id,
    /// How long blocks of the sender wait for packets, in ms, if it says so; else 0. Not of
    /// the block: its bodies need not agree.
    pub(super) wait: u8,
    /// Sequence of its first member.
    pub(super) first: u64,
    /// How far each further member is from the one before.
    pub(super) gaps: &'a [u8],
    /// Its share of the code.
    pub(super) shard: &'a [u8],
}

impl<'a> Body<'a> {
    /// Takes a body apart.
    ///
    /// # Errors
    /// If it is none.
    pub(super) fn parse(bytes: &'a [u8]) -> Result<Self, Malformed> {
        let (head, rest) = bytes.split_first_chunk::<HEAD>().ok_or(Malformed::Short)?;
        let [version, data, parity, index, n0, n1, n2, n3, l0, l1, path, wait, first @ ..] = *head;
        if version != 0 {
            return Err(Malformed::Version(version));
        }
        let counts = (1..=MOST_DATA).contains(&usize::from(data))
            && (1..=MOST_PARITY).contains(&usize::from(parity));
        if !counts || index >= parity {
            return Err(Malformed::Counts { data, parity, index });
        }
        if !is_path(path) {
            return Err(Malformed::Path(path));
        }
        let length = usize::from(u16::from_be_bytes([l0, l1]));
        let (gaps, shard) =
            rest.split_at_checked(usize::from(data) - 1).ok_or(Malformed::Length)?;
        if shard.len() != length || length < SHARD_HEAD + LEAST_PACKET {
            return Err(Malformed::Length);
        }
        let first = u64::from_be_bytes(first);
        let span: u64 = gaps.iter().map(|gap| u64::from(*gap)).sum();
        if first == 0 || gaps.contains(&0) || first.checked_add(span).is_none() {
            return Err(Malformed::Sequences);
        }
        let block = Id { path, number: u32::from_be_bytes([n0, n1, n2, n3]) };
        Ok(Self { parity, index, block, wait, first, gaps, shard })
    }
}

/// Members of a block.
pub(super) fn members(path: u8, first: u64, gaps: &[u8]) -> impl Iterator<Item = Member> {
    let further = gaps.iter().scan(first, |sequence, gap| {
        *sequence = sequence.wrapping_add(u64::from(*gap));
        Some(*sequence)
    });
    iter::once(first).chain(further).map(move |sequence| Member { path, sequence })
}

/// A body, with a shard of `length` bytes that are 0, and where the shard begins.
pub(super) fn start(
    block: Id,
    wait: u8,
    first: u64,
    gaps: &[u8],
    (parity, index): (u8, u8),
    length: u16,
) -> (Vec<u8>, usize) {
    let at = HEAD + gaps.len();
    let mut bytes = Vec::with_capacity(at + usize::from(length));
    bytes.extend_from_slice(&[0, gaps.len() as u8 + 1, parity, index]);
    bytes.extend_from_slice(&block.number.to_be_bytes());
    bytes.extend_from_slice(&length.to_be_bytes());
    bytes.extend_from_slice(&[block.path, wait]);
    bytes.extend_from_slice(&first.to_be_bytes());
    bytes.extend_from_slice(gaps);
    bytes.resize(at + usize::from(length), 0);
    (bytes, at)
}

/// Appends a packet as a shard, without what fills it up. Its length is at most
/// [`MOST_PACKET`].
pub(super) fn append_shard(to: &mut Vec<u8>, header: Header, packet: &[u8]) {
    to.extend_from_slice(&(packet.len() as u16).to_be_bytes());
    to.extend_from_slice(&[header.inner, header.flags]);
    to.extend_from_slice(&header.bucket.to_be_bytes());
    to.extend_from_slice(&header.number.to_be_bytes());
    to.extend_from_slice(packet);
}

/// Whether these bytes are of the IP version `inner` and as long as they say.
pub(super) fn is_sound(inner: u8, packet: &[u8]) -> bool {
    let length = match *packet {
        [first, _, l0, l1, ..] if inner == 4 && first >> 4 == 4 => {
            u16::from_be_bytes([l0, l1]).into()
        }
        [first, _, _, _, l0, l1, ..] if inner == 6 && first >> 4 == 6 => {
            40 + usize::from(u16::from_be_bytes([l0, l1]))
        }
        _ => return false,
    };
    packet.len() == length && length >= LEAST_PACKET
}

/// The packet in a shard, if there can be one. What is behind it has to be 0.
pub(super) fn inspect_shard(shard: &[u8]) -> Option<(Header, &[u8])> {
    let (head, rest) = shard.split_first_chunk::<SHARD_HEAD>()?;
    let [l0, l1, inner, flags, b0, b1, number @ ..] = *head;
    let (packet, filling) = rest.split_at_checked(u16::from_be_bytes([l0, l1]).into())?;
    let sound = is_sound(inner, packet) && filling.iter().all(|byte| *byte == 0);
    let (bucket, number) = (u16::from_be_bytes([b0, b1]), u32::from_be_bytes(number));
    sound.then_some((Header { inner, flags, bucket, number }, packet))
}

#[cfg(test)]
#[path = "body_tests.rs"]
mod tests;
