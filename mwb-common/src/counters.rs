//! The counter map: one entry for each direction, path, reason and protocol.
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

/// Entries of the counter map.
pub const COUNTER_SLOTS: usize = 2 * PATH_SLOTS * REASON_SLOTS * PROTOCOLS.len();

/// Index of a counter. `path` is the path that carries the packet (0: none
/// chosen), `protocol` an index into [`PROTOCOLS`].
#[inline(always)]
#[must_use]
pub const fn counter_index(direction: Direction, path: u8, reason: Reason, protocol: u8) -> u32 {
    ((direction as u32 * PATH_SLOTS as u32 + path as u32) * REASON_SLOTS as u32 + reason as u32)
        * PROTOCOLS.len() as u32
        + (protocol & 7) as u32
}
