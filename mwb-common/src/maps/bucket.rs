//! Maps of the bond: its buckets. Flows are told apart by a hash, and what both ends keep
//! of them they keep of buckets.

use bytemuck::{Pod, Zeroable};

use super::FlowKey6;
use crate::window::FlowWindow;

/// Buckets of a session, a power of two: flows are told apart by the hash of their
/// addresses, protocol and ports, and those of one bucket share its fate.
pub const BUCKETS: usize = 4_096;

/// Index of a bucket of a session. Another end may have another number of them.
#[must_use]
#[inline(always)]
pub const fn bucket_index(slot: u32, bucket: u16) -> u32 {
    slot * BUCKETS as u32 + (bucket as u32 & (BUCKETS as u32 - 1))
}

/// The bucket of a flow. One multiplication for eight bytes: it need not hold against
/// those who choose their addresses, whose flows only meet each other.
#[must_use]
#[inline(always)]
pub fn bucket(key: &FlowKey6, seed: u32) -> u16 {
    // 2^64 less the golden ratio's part of it.
    const FACTOR: u64 = 0x9e37_79b9_7f4a_7c15;
    let words: [u64; 5] = bytemuck::cast(*key);
    let mut hash = seed as u64;
    let mut i = 0;
    while i < words.len() {
        hash = (hash ^ words[i]).wrapping_mul(FACTOR);
        hash ^= hash >> 32;
        i += 1;
    }
    (hash.wrapping_mul(FACTOR) >> 48) as u16
}

/// Bits of [`Bucket::flags`].
pub mod bucket_flag {
    /// It carries more than [`super::super::Bond::elephant_bytes`].
    pub const ELEPHANT: u8 = 1;
    /// Its packets go by several paths at present.
    pub const STRIPED: u8 = 2;
}

/// Flows that leave by the bond, by bucket. The kernel side writes it; the agent zeroes
/// it when the session is a new one.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Pod, Zeroable)]
pub struct Bucket {
    /// When the last packet left.
    pub last_seen: u64,
    /// When the flow began that `key` is of.
    pub opened: u64,
    /// Packets since then.
    pub packets: u64,
    /// Bytes of the inner packets.
    pub bytes: u64,
    /// Beginning of the time that `window_bytes` counts for.
    pub window_from: u64,
    /// Bytes since then.
    pub window_bytes: u32,
    /// Flow sequence of the last packet.
    pub sequence: u32,
    /// The path it is pinned to, or that the last packet took.
    pub path: u8,
    /// Bits of [`bucket_flag`].
    pub flags: u8,
    /// Class of the last packet: one of [`crate::classes::class`].
    pub class: u8,
    /// Zero.
    pub reserved: u8,
    /// When a packet last left that needs a turn, as [`turn_clock`] has it; 0: none has.
    pub turned: u32,
    /// The flow that opened it, IPv4 in the first four bytes of the addresses;
    /// [`FlowKey6::scope`] is 4 or 6.
    pub key: FlowKey6,
    /// Of packets of which one copy has been sent, and the other is to come, the flow
    /// sequence and [`COPIED`], at its last bits.
    pub copied: [u64; 4],
}

/// The time for [`Bucket::turned`], in units of 2^27 ns; not 0.
#[must_use]
#[inline(always)]
pub const fn turn_clock(now: u64) -> u32 {
    (now >> 27) as u32 | 1
}

/// For so many units after a packet with a turn all packets of the bucket have one: those
/// without would be missed between them.
const TURNS_LAST: u32 = 16;

/// Whether packets of a bucket have turns at `clock`.
#[must_use]
#[inline(always)]
pub const fn has_turns(turned: u32, clock: u32) -> bool {
    turned != 0 && clock.wrapping_sub(turned) <= TURNS_LAST
}

/// Bit of [`Bucket::copied`] that is set of all that stand there.
pub const COPIED: u64 = 1 << 32;

/// What has been seen of a bucket. The kernel side writes it, holding the lock; the agent
/// zeroes it when the session is a new one.
#[repr(C)]
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
pub struct GuardedFlowWindow {
    /// The kernel's `bpf_spin_lock`.
    pub lock: u32,
    /// Zero.
    pub reserved: u32,
    /// What has been seen.
    pub window: FlowWindow,
}

layouts!(GuardedFlowWindow = 528, Bucket = 128);

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn turns_last_some_two_seconds() {
        const SECOND: u64 = 1_000_000_000;
        let turned = turn_clock(100 * SECOND);
        assert!(has_turns(turned, turn_clock(100 * SECOND)));
        assert!(has_turns(turned, turn_clock(102 * SECOND)));
        assert!(!has_turns(turned, turn_clock(103 * SECOND)));
        assert!(!has_turns(0, turn_clock(SECOND / 100)), "none ever had one");
    }

    #[test]
    fn flows_that_differ_in_anything_are_spread_over_the_buckets() {
        let low = BUCKETS as u16 - 1;
        let key = |number: u16, change: fn(&mut FlowKey6, [u8; 2])| {
            let mut key = FlowKey6 { protocol: 6, scope: 4, ..FlowKey6::default() };
            (key.source[0], key.destination[0]) = (10, 20);
            change(&mut key, number.to_be_bytes());
            key
        };
        let changes: [fn(&mut FlowKey6, [u8; 2]); 5] = [
            |key, bytes| key.source_port = bytes,
            |key, bytes| key.destination_port = bytes,
            |key, bytes| key.source[2..4].copy_from_slice(&bytes),
            |key, bytes| key.destination[2..4].copy_from_slice(&bytes),
            |key, bytes| key.source[14..].copy_from_slice(&bytes),
        ];
        for (number, change) in changes.into_iter().enumerate() {
            for seed in [0, 1, u32::MAX] {
                let taken: BTreeSet<u16> =
                    (0..4_096).map(|flow| bucket(&key(flow, change), seed) & low).collect();
                // Of as many flows as buckets, 63 % of the buckets have one by chance.
                assert!((2_450..2_730).contains(&taken.len()), "{number}: {}", taken.len());
            }
        }
    }
}
