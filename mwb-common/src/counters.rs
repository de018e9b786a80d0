//! The counter map: one entry for each direction and path, with a counter for each
//! reason and protocol, so that all of a path are read at once.
//! Part of the layout that [`crate::maps`] describes.

use bytemuck::{Pod, Zeroable};

use crate::{
    maps::PATH_SLOTS,
    reason::{REASON_SLOTS, Reason},
};

/// Packets and bytes (layer 3) of one counter.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Pod, Zeroable)]
pub struct Counter {
    /// Packets; a segmentation skb counts as the packets it stands for.
    pub packets: u64,
    /// Bytes from the IP header on; those of a segmentation skb as it stands.
    pub bytes: u64,
}

/// Direction as a counter index.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Direction {
    /// From the LAN.
    Out = 0,
    /// From a WAN.
    In = 1,
}

impl Direction {
    /// Both, in the order of the numbers.
    pub const ALL: [Direction; 2] = [Direction::Out, Direction::In];

    /// Name in metrics.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Direction::Out => "out",
            Direction::In => "in",
        }
    }
}

/// Protocol classes of the counters, by index.
pub const PROTOCOLS: [&str; 8] =
    ["other4", "tcp4", "udp4", "icmp4", "other6", "tcp6", "udp6", "icmp6"];

/// Counters of one entry.
pub const COUNTERS: usize = REASON_SLOTS * PROTOCOLS.len();

/// Entries of the counter map.
pub const COUNTER_ENTRIES: usize = 2 * PATH_SLOTS;

/// All counters of one direction and path, at [`counter_place`].
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Pod, Zeroable)]
pub struct Counters {
    /// One for each reason and protocol.
    pub of: [Counter; COUNTERS],
    /// The place that the kernel side counts at; nothing to anybody else.
    pub place: u64,
    /// Of the packets that were forwarded, those that ask for a TCP connection (out: SYN
    /// without ACK), or answer one that does (in: SYN with ACK).
    pub syns: u64,
}

/// Entry of the counters of a path. `path` is the path that carries the packet (0:
/// none chosen).
#[inline(always)]
#[must_use]
pub const fn counter_entry(direction: Direction, path: u8) -> u32 {
    direction as u32 * PATH_SLOTS as u32 + path as u32
}

/// Place of a counter among those of its path. `protocol` is an index into
/// [`PROTOCOLS`].
#[inline(always)]
#[must_use]
pub const fn counter_place(reason: Reason, protocol: u8) -> usize {
    reason as usize * PROTOCOLS.len() + (protocol & 7) as usize
}
