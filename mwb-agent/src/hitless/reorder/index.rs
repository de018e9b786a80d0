//! Which flow is due first, and which holds most: of all, and of a session. Has an entry for
//! each flow that holds something, and no other.

use std::collections::BTreeSet;

use super::Flow;

/// What of a flow the index knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Mark {
    /// When its first packet is due, in ns.
    pub(super) due: u64,
    /// What it holds, in bytes.
    pub(super) bytes: usize,
}

#[derive(Debug, Default)]
pub(super) struct Index {
    dues: BTreeSet<(u64, Flow)>,
    sizes: BTreeSet<(usize, Flow)>,
    /// Slot, size, bucket.
    sizes_of_slots: BTreeSet<(u32, usize, u16)>,
}

impl Index {
    /// Replaces what is known of a flow; none: it holds nothing.
    pub(super) fn change(&mut self, flow: Flow, before: Option<Mark>, after: Option<Mark>) {
        let due = |mark: Mark| mark.due;
        if before.map(due) != after.map(due) {
            if let Some(Mark { due, .. }) = before {
                self.dues.remove(&(due, flow));
            }
            if let Some(Mark { due, .. }) = after {
                self.dues.insert((due, flow));
            }
        }
        let bytes = |mark: Mark| mark.bytes;
        if before.map(bytes) != after.map(bytes) {
            if let Some(Mark { bytes, .. }) = before {
                self.sizes.remove(&(bytes, flow));
                self.sizes_of_slots.remove(&(flow.slot, bytes, flow.bucket));
            }
            if let Some(Mark { bytes, .. }) = after {
                self.sizes.insert((bytes, flow));
                self.sizes_of_slots.insert((flow.slot, bytes, flow.bucket));
            }
        }
    }

    /// The flow that is due first, and when, in ns.
    pub(super) fn first_due(&self) -> Option<(u64, Flow)> {
        self.dues.first().copied()
    }

    /// The flow that holds most.
    pub(super) fn largest(&self) -> Option<Flow> {
        self.sizes.last().map(|(_, flow)| *flow)
    }

    /// The flow of a session that holds most.
    pub(super) fn largest_of(&self, slot: u32) -> Option<Flow> {
        let of_slot = (slot, 0, 0)..=(slot, usize::MAX, u16::MAX);
        let (_, _, bucket) = self.sizes_of_slots.range(of_slot).next_back()?;
        Some(Flow { slot, bucket: *bucket })
    }

    /// All flows that hold something.
    pub(super) fn flows(&self) -> Vec<Flow> {
        self.dues.iter().map(|(_, flow)| *flow).collect()
    }
}
