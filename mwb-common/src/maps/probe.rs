//! Probes of the bond: what they say, and the frames that make the data plane send them.

use bytemuck::{Pod, Zeroable};

/// Entries of the map of devices that a packet goes to which is also to make a probe.
pub const TICK_DEVICES: usize = 2;

/// What a probe says, behind the header. All of the sender's.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Pod, Zeroable)]
pub struct Probe {
    /// When it left: ns of some clock, big-endian.
    pub sent_at: [u8; 8],
}

/// What a probe reply says, behind the header.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Pod, Zeroable)]
pub struct ProbeReply {
    /// [`Probe::sent_at`] of the probe.
    pub sent_at: [u8; 8],
    /// When the probe came: ns of the answering end's clock, big-endian.
    pub received_at: [u8; 8],
    /// The probe's sequence, big-endian.
    pub sequence: [u8; 8],
    /// Packets of the path and direction that were taken up to then, with the probe,
    /// big-endian.
    pub packets: [u8; 8],
    /// Bytes of them from the outer IP header on, big-endian.
    pub bytes: [u8; 8],
    /// Length of the probe from the outer IP header on, big-endian.
    pub length: [u8; 2],
    /// Zero.
    pub reserved: [u8; 6],
}

/// Ethernet frames that make the data plane send a probe. They come in through the data
/// plane's end of the device and never leave the machine.
///
/// IP packets with such a destination are data. When the agent is late with a probe, the
/// kernel side sends one round through the device with a copy of itself: of the two, the
/// one that comes first makes the probe ([`super::super::PathState::probe_due`] is odd until
/// then). Packets of the class that is sent twice go round so, too.
pub mod tick {
    /// Their type: one of those that IEEE 802 leaves to everybody.
    pub const ETHERTYPE: [u8; 2] = [0x88, 0xb5];
    /// First bytes of the destination: the frame makes a probe of its own length.
    pub const EXACT: [u8; 2] = [0x02, 0x01];
    /// The same: the frame makes a probe of the least length.
    pub const SHORT: [u8; 2] = [0x02, 0x02];
    /// The same: the frame is one of two copies of a packet. The paths of the first and of
    /// the second follow, and as source address the packet's number in its bucket.
    pub const COPY: [u8; 2] = [0x02, 0x03];

    /// Destination address of a tick.
    #[must_use]
    #[inline(always)]
    pub const fn destination(kind: [u8; 2], slot: u32, path: u8) -> [u8; 6] {
        let [_, high, middle, low] = slot.to_be_bytes();
        [kind[0], kind[1], high, middle, low, path]
    }

    /// Destination and source address of a copy.
    #[must_use]
    #[inline(always)]
    pub const fn copies(paths: [u8; 2], number: u32) -> [[u8; 6]; 2] {
        let [a, b, c, d] = number.to_be_bytes();
        [[COPY[0], COPY[1], paths[0], paths[1], 0, 0], [0x02, 0, a, b, c, d]]
    }

    /// What [`copies`] was made of, if it is such.
    #[must_use]
    #[inline(always)]
    pub const fn copied(addresses: [[u8; 6]; 2]) -> Option<([u8; 2], u32)> {
        let [[high, low, first, second, ..], [from, zero, a, b, c, d]] = addresses;
        // The kernel's frames may be to any address, but they are not from such a one too.
        if high != COPY[0] || low != COPY[1] || from != 0x02 || zero != 0 {
            return None;
        }
        Some(([first, second], u32::from_be_bytes([a, b, c, d])))
    }

    /// Slot and path of a tick.
    #[must_use]
    #[inline(always)]
    pub const fn target(destination: [u8; 6]) -> (u32, u8) {
        let [_, _, high, middle, low, path] = destination;
        (u32::from_be_bytes([0, high, middle, low]), path)
    }
}

layouts!(Probe = 8, ProbeReply = 48);
