//! Packets ahead of their turn at work ([`crate::hitless::reorder`]): how long each waits,
//! and when the kernel side gives on packets of its flow itself again.

use std::collections::BTreeMap;
use std::time::Duration;

use mwb_common::maps::{Back, Handed};
use mwb_common::wire::flag;

use super::spread::Spreads;
use crate::dataplane::BondMaps;
use crate::hitless::reorder::{Ahead, Flow, Limits, REACH, Released, Reorder, Statistics};

/// What may be held: 100 Mbit/s by each of eight paths for 200 ms, and what keeping it takes.
const LIMITS: Limits = Limits { per_session: 32 << 20, total: 64 << 20, reach: REACH };

/// What is held, of all sessions.
pub(super) struct Hold {
    /// The longest wait, in ns.
    most: u64,
    spreads: Spreads,
    engine: Reorder,
    /// Of each flow of which packets are held, how many were handed over.
    counts: BTreeMap<Flow, u32>,
    /// Ids of the sessions, by slot.
    sessions: BTreeMap<u32, u32>,
    released: Vec<Released>,
}

impl Hold {
    /// Holds nothing. `most`: the longest wait.
    pub(super) fn new(most: Duration) -> Self {
        let most = u64::try_from(most.as_nanos()).unwrap_or(u64::MAX);
        Self {
            most,
            spreads: Spreads::new(most),
            engine: Reorder::new(LIMITS),
            counts: BTreeMap::new(),
            sessions: BTreeMap::new(),
            released: Vec::new(),
        }
    }

    /// Takes a packet.
    pub(super) fn take(&mut self, maps: &BondMaps, head: &Handed, text: &[u8], now: u64) {
        let before = self.sessions.insert(head.slot, head.session);
        if before.is_some_and(|before| before != head.session) {
            self.engine.forget(head.slot, now, &mut self.released);
        }
        let flow = Flow { slot: head.slot, bucket: head.bucket };
        self.counts.insert(flow, head.count);
        let (deadline, paths) = self.spreads.of(maps, head.slot, head.ways, now);
        // What was lost may be sent again: that takes longer than any way.
        let repaired = head.flags & flag::REPEATS != 0;
        let deadline = if repaired { self.most } else { deadline };
        let ahead = Ahead {
            flow,
            number: head.number,
            next: head.next,
            path: head.path,
            paths,
            repaired,
            bytes: text.to_vec(),
        };
        self.engine.take(ahead, now, deadline, &mut self.released);
    }

    /// Gives each packet whose time it is to `each`, in order.
    pub(super) fn turn(&mut self, now: u64, mut each: impl FnMut(&Back, &[u8])) {
        self.engine.expire(now, &mut self.released);
        // Only the last one of a flow can say that nothing of it is here any more.
        let mut last: BTreeMap<Flow, usize> = BTreeMap::new();
        for (place, packet) in self.released.iter().enumerate() {
            last.insert(packet.flow, place);
        }
        last.retain(|flow, _| !self.engine.holds(*flow));
        for (place, packet) in self.released.drain(..).enumerate() {
            let done = last.get(&packet.flow) == Some(&place);
            let done = done.then(|| self.counts.remove(&packet.flow)).flatten();
            let head = Handed {
                slot: packet.flow.slot,
                bucket: packet.flow.bucket,
                number: packet.number,
                path: packet.path,
                inner: packet.bytes.first().map_or(0, |first| first >> 4),
                ..Handed::default()
            };
            each(&Back::turn(&head, done), &packet.bytes);
        }
    }

    /// When something is due, in ns.
    pub(super) fn next_due(&self) -> Option<u64> {
        self.engine.next_due()
    }

    /// What was counted, by slot of the session.
    pub(super) fn statistics(&self) -> impl Iterator<Item = (u32, Statistics)> {
        self.engine.statistics().map(|(slot, known)| (slot, *known))
    }
}
