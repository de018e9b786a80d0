//! What an end has seen and sent, by docs/protocol.md: sets instead of bitmaps.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use mwb_common::maps::Direction;
use mwb_common::reason::Reason;

/// Numbers behind the newest that are still told apart.
const PATH_REACH: u64 = 4_031;
const FLOW_REACH: i64 = 4_031;
/// Buckets of a session.
const BUCKETS: u16 = 4_096;

/// One end.
#[derive(Debug, Default)]
pub(super) struct Seen {
    paths: [BTreeSet<u64>; 3],
    flows: HashMap<u16, BTreeSet<i64>>,
    numbers: HashMap<u16, u32>,
    buckets: HashMap<Vec<u8>, u16>,
    /// What packets should have been counted as.
    counted: [BTreeMap<Reason, u64>; 2],
    ends: [Ends; 2],
}

/// How packets of one direction ended whose reason is not told beforehand.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Ends {
    pub(super) kernel: u64,
    pub(super) dropped: u64,
    /// Dropped behind the bond's device, where nobody is.
    pub(super) unheard: u64,
}

impl Seen {
    /// The highest sequence taken on a path; 0 before the first.
    pub(super) fn newest(&self, path: u8) -> u64 {
        self.paths[usize::from(path)].last().copied().unwrap_or_default()
    }

    /// The highest number taken of a bucket.
    pub(super) fn newest_of_flow(&self, bucket: u16) -> Option<u32> {
        self.flows.get(&(bucket % BUCKETS))?.last().map(|number| *number as u32)
    }

    /// Takes a packet that is authentic.
    pub(super) fn take(&mut self, path: u8, sequence: u64) -> Result<(), Reason> {
        if sequence + PATH_REACH < self.newest(path) {
            return Err(Reason::ReplayTooOld);
        }
        let new = self.paths[usize::from(path)].insert(sequence);
        if new { Ok(()) } else { Err(Reason::Replayed) }
    }

    /// Takes one that may come by several paths.
    pub(super) fn take_flow(&mut self, bucket: u16, number: u32) -> Result<(), Reason> {
        let flow = self.flows.entry(bucket % BUCKETS).or_default();
        let number = match flow.last() {
            // RFC 1982.
            Some(newest) => newest + i64::from(number.wrapping_sub(*newest as u32) as i32),
            None => i64::from(number),
        };
        let known = flow.last().is_some_and(|newest| number + FLOW_REACH < *newest);
        if !known && flow.insert(number) { Ok(()) } else { Err(Reason::Duplicate) }
    }

    /// The number of the next packet that leaves by a bucket.
    pub(super) fn number(&mut self, bucket: u16) -> u32 {
        let number = self.numbers.entry(bucket % BUCKETS).or_default();
        *number = number.wrapping_add(1);
        *number
    }

    /// Whether a flow has the bucket that it had before.
    pub(super) fn keeps_bucket(&mut self, flow: Vec<u8>, bucket: u16) -> bool {
        *self.buckets.entry(flow).or_insert(bucket) == bucket
    }

    pub(super) fn count(&mut self, direction: Direction, reason: Reason) {
        *self.counted[direction as usize].entry(reason).or_default() += 1;
    }

    /// How often a packet should have been counted under a reason.
    pub(super) fn counted(&self, direction: Direction, reason: Reason) -> u64 {
        self.counted[direction as usize].get(&reason).copied().unwrap_or_default()
    }

    pub(super) fn ends(&mut self, direction: Direction) -> &mut Ends {
        &mut self.ends[direction as usize]
    }
}
