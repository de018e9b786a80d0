//! Between the kernel side of a bond and the agent: packets that it is handed, and the
//! frames in which it gives packets back.

use bytemuck::{Pod, Zeroable};

use super::tick;
use crate::turns::Turns;

/// Bytes of the ring of what the agent is handed, a power of two.
pub const HANDED_BYTES: usize = 4 << 20;
/// Longest text of a short record, in bytes, a power of two. Records have two lengths: what
/// is reserved has to be known when a program is verified.
pub const SHORT_TEXT: usize = 256;
/// Longest text of a long one, the same.
pub const LONG_TEXT: usize = 2_048;

/// What the turns of a bucket's packets are at. The kernel side writes it, holding the
/// lock; the agent zeroes it when the session is a new one.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, Pod, Zeroable)]
pub struct GuardedTurns {
    /// The kernel's `bpf_spin_lock`.
    pub lock: u32,
    /// Zero.
    pub reserved: u32,
    /// What is known.
    pub turns: Turns,
}

/// A packet that the agent is handed: what is known of it. Its text follows: an inner
/// packet, or what else `kind` says.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Pod, Zeroable)]
pub struct Handed {
    /// When it came, in ns.
    pub came: u64,
    /// Its number on its path.
    pub sequence: u64,
    /// The session.
    pub slot: u32,
    /// Its number in its bucket.
    pub number: u32,
    /// The number whose turn it was in the bucket.
    pub next: u32,
    /// How many the agent was handed of the bucket, with this one.
    pub count: u32,
    /// The bucket.
    pub bucket: u16,
    /// Paths by which packets of the bucket come, by bit.
    pub ways: u16,
    /// Length of the text in bytes.
    pub length: u16,
    /// One of [`handed`].
    pub kind: u8,
    /// The path that it came by.
    pub path: u8,
    /// One of [`crate::wire::inner`].
    pub inner: u8,
    /// Bits of [`crate::wire::flag`].
    pub flags: u8,
    /// Zero.
    pub reserved: [u8; 2],
    /// Id of the session in packets to us.
    pub session: u32,
}

/// Values of [`Handed::kind`].
pub mod handed {
    /// It is ahead of its turn, or behind one that is.
    pub const AHEAD: u8 = 1;
    /// One was sent that is to be repaired if it gets lost; `sequence` and `path` are those
    /// that it was sent with.
    pub const SENT: u8 = 2;
    /// The far end wants to know what came by the path. No text.
    pub const ASKED: u8 = 3;
    /// One of a block with parity came; it has been given on.
    pub const TAKEN: u8 = 4;
    /// Parity came.
    pub const PARITY: u8 = 5;
}

/// What a frame from the agent says before its text. Such frames come in through the data
/// plane's end of the bond's device, and never leave the machine.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Pod, Zeroable)]
pub struct Back {
    /// One of [`back`], then slot and path as [`tick::destination`] has them.
    pub destination: [u8; 6],
    /// 02:00, and the number in the bucket.
    pub source: [u8; 6],
    /// [`tick::ETHERTYPE`].
    pub ethertype: [u8; 2],
    /// The bucket.
    pub bucket: [u8; 2],
    /// One of [`crate::wire::inner`].
    pub inner: u8,
    /// Of a packet whose turn it is, 1: [`Back::done`] says something. Of one that is sent
    /// again, or was recovered, bits of [`crate::wire::flag`].
    pub flags: u8,
    /// Of a packet whose turn it is, so many of the bucket's packets that the agent was handed
    /// it is done with. Else the id of the session in packets to us.
    pub done: [u8; 4],
}

/// First bytes of [`Back::destination`].
pub mod back {
    /// A packet whose turn it is.
    pub const TURN: [u8; 2] = [0x02, 0x04];
    /// A packet that is sent again, if it can be by another path than this.
    pub const AGAIN: [u8; 2] = [0x02, 0x05];
    /// Parity to be sent, by another path than that of its data if it can.
    pub const PARITY: [u8; 2] = [0x02, 0x06];
    /// A packet that was lost, and has been computed.
    pub const RECOVERED: [u8; 2] = [0x02, 0x07];
    /// The last of them.
    pub(super) const LAST: u8 = RECOVERED[1];
}

impl Back {
    /// A packet of the bucket whose turn it is. `done` as in [`Turns::give_back`].
    #[must_use]
    pub const fn turn(packet: &Handed, done: Option<u32>) -> Self {
        let (flags, done) = match done {
            Some(done) => (1, done),
            None => (0, 0),
        };
        Self::new(back::TURN, packet, flags, done)
    }

    /// A packet that is sent again: not by its path, if there is another.
    #[must_use]
    pub const fn again(packet: &Handed) -> Self {
        Self::new(back::AGAIN, packet, packet.flags, packet.session)
    }

    /// Parity of packets that went by the path of this one, which has no number.
    #[must_use]
    pub const fn parity(packet: &Handed) -> Self {
        Self::new(back::PARITY, packet, 0, packet.session)
    }

    /// A packet that was lost on its path, and has been computed.
    #[must_use]
    pub const fn recovered(packet: &Handed) -> Self {
        Self::new(back::RECOVERED, packet, packet.flags, packet.session)
    }

    const fn new(kind: [u8; 2], packet: &Handed, flags: u8, done: u32) -> Self {
        let [a, b, c, d] = packet.number.to_be_bytes();
        Self {
            destination: tick::destination(kind, packet.slot, packet.path),
            source: [0x02, 0, a, b, c, d],
            ethertype: tick::ETHERTYPE,
            bucket: packet.bucket.to_be_bytes(),
            inner: packet.inner,
            flags,
            done: done.to_be_bytes(),
        }
    }

    /// Number in the bucket.
    #[must_use]
    #[inline(always)]
    pub const fn number(&self) -> u32 {
        let [_, _, a, b, c, d] = self.source;
        u32::from_be_bytes([a, b, c, d])
    }

    /// Whether the bytes at the begin of a frame, up to the type, are such a frame's.
    #[must_use]
    #[inline(always)]
    pub const fn is(kind: [u8; 2], ethertype: [u8; 2]) -> bool {
        ethertype[0] == tick::ETHERTYPE[0]
            && ethertype[1] == tick::ETHERTYPE[1]
            && kind[0] == back::TURN[0]
            && kind[1] >= back::TURN[1]
            && kind[1] <= back::LAST
    }
}

const _: () = assert!(SHORT_TEXT.is_power_of_two() && LONG_TEXT.is_power_of_two());

layouts!(GuardedTurns = 48, Handed = 48, Back = 22);
