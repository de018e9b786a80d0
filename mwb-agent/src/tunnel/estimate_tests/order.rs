//! The far end of the simulated bond: its kernel side and its agent, which put the packets
//! that have a turn in order. Neither takes time for it.

use std::collections::{BTreeMap, VecDeque};

use mwb_common::turns::{Turn, Turns};

use super::world::{MS, SECOND};
use crate::hitless::reorder::{Ahead, Flow, Limits, REACH, Released, Reorder};

/// As the agent has them.
const LIMITS: Limits = Limits { per_session: 32 << 20, total: 64 << 20, reach: REACH };
/// The longest that a packet is held.
const HOLD: u64 = 200 * MS;
/// What a packet takes, in bytes.
const SIZE: usize = 1_400;

/// Flow, number and time of a packet of TCP.
type Given = (usize, u64, u64);

pub(super) struct Order {
    engine: Reorder,
    turns: BTreeMap<usize, Turns>,
    /// Lags of the last second, by link, with when.
    lags: BTreeMap<usize, VecDeque<(u64, u64)>>,
    /// Paths among which the far end stripes, by bit, as its probes say.
    stripe: u16,
    deadline: u64,
    armed: Option<u64>,
}

impl Order {
    pub(super) fn new() -> Self {
        Self {
            engine: Reorder::new(LIMITS),
            turns: BTreeMap::new(),
            lags: BTreeMap::new(),
            stripe: 0,
            deadline: 5 * MS,
            armed: None,
        }
    }

    /// A probe that left at `sent_at` has come; it says whether elephants go by its link.
    pub(super) fn probed(&mut self, link: usize, now: u64, sent_at: u64, striped: bool) {
        let bit = 1 << (link + 1);
        self.stripe = if striped { self.stripe | bit } else { self.stripe & !bit };
        if !striped {
            self.lags.remove(&link);
            return;
        }
        self.lags.entry(link).or_default().push_back((now, now - sent_at));
        for lags in self.lags.values_mut() {
            // What is older is known if there is nothing newer.
            while lags.len() > 1 && lags[0].0 + SECOND < now {
                lags.pop_front();
            }
        }
        let all = || self.lags.values().flatten().map(|(_, lag)| *lag);
        let spread = all().max().unwrap_or(0) - all().min().unwrap_or(0);
        self.deadline = (spread + spread / 4 + 5 * MS).min(HOLD);
    }

    /// A packet with a turn has come; says what is given on.
    pub(super) fn take(
        &mut self,
        now: u64,
        path: u8,
        (flow, number): (usize, u32),
        (segment, sent_at): (u64, u64),
    ) -> Vec<Given> {
        let turns = self.turns.entry(flow).or_default();
        let next = turns.next;
        if turns.take(number, path, now, true) == Turn::Now {
            return vec![(flow, segment, sent_at)];
        }
        let mut bytes = Vec::with_capacity(SIZE);
        bytes.extend_from_slice(&segment.to_le_bytes());
        bytes.extend_from_slice(&sent_at.to_le_bytes());
        let flow = Flow { slot: 0, bucket: flow as u16 };
        let paths = turns.ways() | self.stripe;
        let packet = Ahead { flow, number, next, path, paths, repaired: false, bytes };
        let mut released = Vec::new();
        self.engine.take(packet, now, self.deadline, &mut released);
        self.give_back(now, released)
    }

    /// Gives on what is due.
    pub(super) fn expire(&mut self, now: u64) -> Vec<Given> {
        self.armed = None;
        let mut released = Vec::new();
        self.engine.expire(now, &mut released);
        self.give_back(now, released)
    }

    /// When to call that next, if that is news.
    pub(super) fn arm(&mut self) -> Option<u64> {
        let due = self.engine.next_due()?;
        if self.armed.is_some_and(|armed| armed <= due) {
            return None;
        }
        self.armed = Some(due);
        Some(due)
    }

    fn give_back(&mut self, now: u64, released: Vec<Released>) -> Vec<Given> {
        let mut given = Vec::with_capacity(released.len());
        for packet in released {
            let flow = usize::from(packet.flow.bucket);
            if let Some(turns) = self.turns.get_mut(&flow) {
                let done = (!self.engine.holds(packet.flow)).then_some(turns.handed);
                turns.give_back(packet.number, now, done);
            }
            let (segment, sent_at) = packet.bytes.split_at(8);
            let count = |bytes: &[u8]| u64::from_le_bytes(bytes.try_into().unwrap_or_default());
            given.push((flow, count(segment), count(sent_at)));
        }
        given
    }
}
