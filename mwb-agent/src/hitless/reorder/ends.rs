//! Where flows that hold nothing stood of late. The kernel side says what it expects next
//! with each packet, but as it was when it handed the packet over: what was released since
//! then it does not know. Packets 6, 7, 5 and 8 handed over in one go all say that 5 is the
//! next, and after 5 has released three of them 8 must not wait for anything.
//!
//! A table of a fixed size: a flow costs no memory. One that is not in it any more may wait
//! for a deadline without need, and nothing else.

use super::Flow;

/// Sets of the table, a power of two.
const SETS: usize = 1_024;
/// Flows of a set.
const WAYS: usize = 4;
/// How long packets may take from the kernel side to here, in ns. What is older is not
/// believed: the sender may count anew.
pub(super) const BELIEVED: u64 = 1_000_000_000;

#[derive(Clone, Copy, Debug)]
struct End {
    flow: Flow,
    next: u32,
    at: u64,
}

#[derive(Debug)]
pub(super) struct Ends {
    sets: Vec<[Option<End>; WAYS]>,
}

impl Ends {
    pub(super) fn new() -> Self {
        Self { sets: vec![[None; WAYS]; SETS] }
    }

    /// What is next in a flow that holds nothing, by what the kernel side says (`next`), and
    /// what was released since.
    pub(super) fn later(&self, flow: Flow, next: u32, now: u64) -> u32 {
        let end = self.sets[set(flow)].iter().flatten().find(|end| end.flow == flow);
        let later = end.filter(|end| {
            let ahead = end.next.wrapping_sub(next).cast_signed();
            ahead > 0 && now.saturating_sub(end.at) <= BELIEVED
        });
        later.map_or(next, |end| end.next)
    }

    /// The flow has moved to `next`, and holds nothing.
    pub(super) fn remember(&mut self, flow: Flow, next: u32, now: u64) {
        let ways = &mut self.sets[set(flow)];
        let known = ways.iter().position(|end| end.is_some_and(|end| end.flow == flow));
        let oldest = (0..WAYS).min_by_key(|way| ways[*way].map_or(0, |end| end.at));
        if let Some(way) = known.or(oldest) {
            ways[way] = Some(End { flow, next, at: now });
        }
    }

    /// The session counts anew.
    pub(super) fn forget(&mut self, slot: u32) {
        for way in self.sets.iter_mut().flatten() {
            *way = way.filter(|end| end.flow.slot != slot);
        }
    }
}

fn set(flow: Flow) -> usize {
    // Buckets are hashes; slots count from 0.
    let slot = flow.slot.wrapping_mul(0x9e37_79b1) >> 8;
    (slot ^ u32::from(flow.bucket)) as usize % SETS
}
