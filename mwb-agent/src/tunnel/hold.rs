//! Packets ahead of their turn at work ([`crate::hitless::reorder`]): how long each waits,
//! and when the kernel side gives on packets of its flow itself again.

use std::collections::BTreeMap;
use std::time::Duration;

use mwb_common::maps::{Back, Handed};
use mwb_common::wire::flag;

use super::parts::{Care, Part, Parts};
use super::spread::Spreads;
use crate::dataplane::BondMaps;
use crate::hitless::reorder::{Ahead, Flow, Limits, REACH, Released, Reorder, Statistics};

/// What may be held: 100 Mbit/s by each of eight paths for 200 ms, and what keeping it takes.
const LIMITS: Limits = Limits { per_session: 32 << 20, total: 64 << 20, reach: REACH };

/// What a block waits where nothing was said, in ns.
const WAIT: u64 = 10_000_000;
/// Parity comes so much later than what it is of by the same path, at most, in ns, besides
/// what its block has waited for packets.
const MARGIN: u64 = 10_000_000;
/// How long a flow is one with parity after such a packet of it came, in ns.
const LASTS: u64 = 1_000_000_000;

/// What is held, of all sessions.
pub(super) struct Hold {
    /// The longest wait, in ns.
    most: u64,
    /// How long blocks of each session wait for packets, as its parity says, in ns.
    waits: BTreeMap<u32, u64>,
    /// Flows with packets of such blocks, and when the last came.
    protected: BTreeMap<Flow, u64>,
    spreads: Spreads,
    engine: Reorder,
    /// Of each flow of which packets are held, how many were handed over.
    counts: BTreeMap<Flow, u32>,
    /// Ids of the sessions, by slot.
    sessions: BTreeMap<u32, u32>,
    parts: Parts,
    released: Vec<Released>,
    tidied: u64,
}

impl Hold {
    /// Holds nothing. `most`: the longest wait.
    pub(super) fn new(most: Duration) -> Self {
        let most = u64::try_from(most.as_nanos()).unwrap_or(u64::MAX);
        Self {
            most,
            waits: BTreeMap::new(),
            protected: BTreeMap::new(),
            spreads: Spreads::new(most),
            engine: Reorder::new(LIMITS),
            counts: BTreeMap::new(),
            sessions: BTreeMap::new(),
            parts: Parts::default(),
            released: Vec::new(),
            tidied: 0,
        }
    }

    /// Takes a packet.
    pub(super) fn take(&mut self, maps: &BondMaps, head: &Handed, text: &[u8], now: u64) {
        let before = self.sessions.insert(head.slot, head.session);
        if before.is_some_and(|before| before != head.session) {
            self.waits.remove(&head.slot);
            self.engine.forget(head.slot, now, &mut self.released);
            self.parts.forget(head.slot);
        }
        let flow = Flow { slot: head.slot, bucket: head.bucket };
        self.counts.insert(flow, head.count);
        let (deadline, paths) = self.spreads.of(maps, head.slot, head.ways, now);
        let again = head.flags & (flag::REPEATS & !flag::FEC) != 0;
        let computed = head.flags & flag::FEC != 0 || self.is_protected(flow, now);
        let repaired = again || computed;
        self.parts.came(flow, Care::of(again, computed));
        let deadline = match (again, computed) {
            // What was lost may be sent again: that takes longer than any way.
            (true, _) => self.most,
            (false, true) => deadline.saturating_add(self.block_takes(head.slot)).min(self.most),
            (false, false) => deadline,
        };
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

    /// A packet of a block with parity came: what is lost of its flow may be computed.
    pub(super) fn protected(&mut self, head: &Handed, now: u64) {
        self.protected.insert(Flow { slot: head.slot, bucket: head.bucket }, now);
    }

    /// Parity says that blocks of a session wait so long for packets, in ns.
    pub(super) fn waits(&mut self, slot: u32, wait: u64) {
        self.waits.insert(slot, wait);
    }

    fn block_takes(&self, slot: u32) -> u64 {
        self.waits.get(&slot).copied().unwrap_or(WAIT).saturating_add(MARGIN)
    }

    fn is_protected(&self, flow: Flow, now: u64) -> bool {
        self.protected.get(&flow).is_some_and(|last| now.saturating_sub(*last) < LASTS)
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
            self.parts.given(&packet);
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
        if now.saturating_sub(self.tidied) > LASTS {
            self.tidied = now;
            self.protected.retain(|_, last| now.saturating_sub(*last) < LASTS);
            self.parts.retain(|flow| self.engine.holds(*flow));
        }
    }

    /// When something is due, in ns.
    pub(super) fn next_due(&self) -> Option<u64> {
        self.engine.next_due()
    }

    /// What was given on of a session, by repair and path.
    pub(super) fn parts(&self, slot: u32) -> Vec<Part> {
        self.parts.of(slot)
    }

    /// What was counted, by slot and id of the session.
    pub(super) fn statistics(&self) -> impl Iterator<Item = ((u32, u32), Statistics)> {
        self.engine
            .statistics()
            .filter_map(|(slot, known)| Some(((slot, *self.sessions.get(&slot)?), *known)))
    }
}
