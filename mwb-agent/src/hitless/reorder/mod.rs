//! Puts the packets of striped flows in order again. Pure.
//!
//! A flow that goes by several paths arrives out of order: the paths differ in delay. The
//! kernel side delivers what is in turn, and drops what it has seen. It hands over what is
//! ahead of its turn, and then all of that flow for as long as something of it is on the way
//! to here, held here, or on the way back. What [`Reorder`] releases goes back in the order
//! of release.
//!
//! 1. What is in turn is released at once, with the run of held packets behind it. What is
//!    behind its turn is released at once, too.
//! 2. What is ahead is held until the gap in front of it is filled, or known to be lost:
//!    each path delivers in order, so a number is lost when each path of the flow has brought
//!    a later one. Not so in a flow whose lost packets may come again.
//! 3. No packet is held longer than the deadline that it came with. Then all gaps in front of
//!    it are given up.
//! 4. Where packets take too much memory, the flow that holds most gives up its oldest gap.
//!    Nothing is dropped.
//!
//! A flow that holds nothing has no state here: where it stands, the kernel side says with
//! the next packet. But packets that were handed over before the kernel side got the last
//! ones back still say what it expected before; [`ends`] sets that right.
//!
//! Must not know: sockets, clocks, maps of the kernel, headers.

mod ends;
mod index;
mod queue;
mod statistics;

use std::collections::BTreeMap;

use ends::Ends;
use index::Index;
use queue::{Outlet, Queue};
pub use statistics::{DELAY_BOUNDS, Statistics};

/// What a held packet counts for beside its bytes, in bytes: about what its place in the
/// queue takes, with a part of what the flow takes.
pub const OVERHEAD: usize = 256;
/// A good [`Limits::reach`]: 100 ms of 40,000 packets a second.
pub const REACH: u32 = 4_096;

/// A flow: what of a session has one count of packets.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Flow {
    /// The session.
    pub slot: u32,
    /// The bucket of the session.
    pub bucket: u16,
}

/// A packet that the kernel side handed over.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ahead {
    /// Its flow.
    pub flow: Flow,
    /// Its number in the flow. Numbers wrap (RFC 1982).
    pub number: u32,
    /// The number that the kernel side expected next when it handed the packet over.
    pub next: u32,
    /// The path that brought it, 1 to 15. One of another number proves nothing lost.
    pub path: u8,
    /// The paths that brought packets of this flow lately: bit *p* is path *p*. The path of
    /// the packet is always taken as one of them.
    pub paths: u16,
    /// Lost packets of this flow may come again: only the deadline gives them up.
    pub repaired: bool,
    /// The packet.
    pub bytes: Vec<u8>,
}

/// Why a packet was released.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Why {
    /// It was its turn.
    Turn,
    /// It was behind its turn: a later one was released before, or the kernel side has gone
    /// on without it.
    Late,
    /// What was missing in front of it is lost: each path has brought something later, the
    /// sender counts anew, or the session has ended.
    Lost,
    /// It, or one behind it in the same flow, waited as long as it may.
    Deadline,
    /// The held packets took too much memory.
    Overflow,
}

impl Why {
    /// All of them, in the order of [`Statistics::released`].
    pub const ALL: [Self; 5] = [Self::Turn, Self::Late, Self::Lost, Self::Deadline, Self::Overflow];

    /// Name in status and metrics.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Turn => "turn",
            Self::Late => "late",
            Self::Lost => "lost",
            Self::Deadline => "deadline",
            Self::Overflow => "overflow",
        }
    }
}

/// A packet to be delivered now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Released {
    /// Its flow.
    pub flow: Flow,
    /// Its number in the flow.
    pub number: u32,
    /// The packet.
    pub bytes: Vec<u8>,
    /// The path that brought it.
    pub path: u8,
    /// How long it was held, in ns.
    pub waited: u64,
    /// Why it was released. All packets of a run have the reason of the first.
    pub why: Why,
}

/// What held packets may take. Memory is counted as what is allocated for the bytes of each
/// packet, and [`OVERHEAD`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Bytes of one session.
    pub per_session: usize,
    /// Bytes of all sessions.
    pub total: usize,
    /// How far ahead of its turn a packet may be, and so the most packets that a flow holds.
    /// What is further ahead is of a sender that counts anew. No number is 2^31 or more ahead
    /// of another.
    pub reach: u32,
}

#[derive(Debug, Default)]
struct Session {
    /// Those that hold something.
    flows: BTreeMap<u16, Queue>,
    statistics: Statistics,
}

/// The flows of all sessions. The times that it is given are of one clock, in ns.
#[derive(Debug)]
pub struct Reorder {
    limits: Limits,
    sessions: BTreeMap<u32, Session>,
    index: Index,
    ends: Ends,
    /// [`Statistics::bytes`] of all sessions.
    bytes: usize,
}

impl Reorder {
    /// Holds nothing.
    #[must_use]
    pub fn new(limits: Limits) -> Self {
        let (index, ends) = (Index::default(), Ends::new());
        Self { limits, sessions: BTreeMap::new(), index, ends, bytes: 0 }
    }

    /// Changes the limits. What does not fit any more is released to `out`.
    pub fn set_limits(&mut self, limits: Limits, now: u64, out: &mut Vec<Released>) {
        self.limits = limits;
        for flow in self.index.flows() {
            self.change(flow, now, out, |queue, outlet| queue.narrow(limits.reach, outlet));
        }
        let slots: Vec<u32> = self.sessions.keys().copied().collect();
        for slot in slots {
            self.shrink(slot, now, out);
        }
    }

    /// Takes a packet. It is released to `out`, with what it gives the turn to, or held for
    /// `deadline` ns at most: then [`Reorder::expire`] releases it.
    pub fn take(&mut self, packet: Ahead, now: u64, deadline: u64, out: &mut Vec<Released>) {
        let flow = packet.flow;
        let session = self.sessions.entry(flow.slot).or_default();
        session.statistics.taken += 1;
        session
            .flows
            .entry(flow.bucket)
            .or_insert_with(|| Queue::new(self.ends.later(flow, packet.next, now)));
        let (due, reach) = (now.saturating_add(deadline), self.limits.reach);
        self.change(flow, now, out, |queue, outlet| queue.take(packet, due, reach, outlet));
        self.shrink(flow.slot, now, out);
        if let Some(session) = self.sessions.get_mut(&flow.slot) {
            session.statistics.note_most();
        }
    }

    /// Releases what has waited as long as it may, with all in front of it in its flow and
    /// the run behind it. To be called at [`Reorder::next_due`].
    pub fn expire(&mut self, now: u64, out: &mut Vec<Released>) {
        while let Some((_, flow)) = self.index.first_due().filter(|(due, _)| *due <= now) {
            self.change(flow, now, out, Queue::expire);
        }
    }

    /// When the first packet has waited as long as it may; none if none is held.
    #[must_use]
    pub fn next_due(&self) -> Option<u64> {
        self.index.first_due().map(|(due, _)| due)
    }

    /// Ends a session, or begins it anew: its peer counts from anywhere. Releases all that it
    /// holds, in order, and gives its statistics as they were; none if it had no packet.
    pub fn forget(&mut self, slot: u32, now: u64, out: &mut Vec<Released>) -> Option<Statistics> {
        while let Some(flow) = self.index.largest_of(slot) {
            self.change(flow, now, out, |queue, outlet| {
                queue.skip_to(u64::MAX, Why::Lost, outlet);
            });
        }
        self.ends.forget(slot);
        self.sessions.remove(&slot).map(|session| session.statistics)
    }

    /// Whether something of the flow is held: it is not finished.
    #[must_use]
    pub fn holds(&self, flow: Flow) -> bool {
        let session = self.sessions.get(&flow.slot);
        session.is_some_and(|session| session.flows.contains_key(&flow.bucket))
    }

    /// What was counted of each session since its first packet, by slot. A session is there
    /// until [`Reorder::forget`].
    pub fn statistics(&self) -> impl Iterator<Item = (u32, &Statistics)> {
        self.sessions.iter().map(|(slot, session)| (*slot, &session.statistics))
    }

    /// Gives up gaps until the session, and all of them, are within the limits.
    fn shrink(&mut self, slot: u32, now: u64, out: &mut Vec<Released>) {
        let too_much = |this: &Self| {
            let session = this.sessions.get(&slot);
            session.is_some_and(|session| session.statistics.bytes > this.limits.per_session)
        };
        while too_much(self)
            && let Some(flow) = self.index.largest_of(slot)
        {
            self.change(flow, now, out, Queue::overflow);
        }
        while self.bytes > self.limits.total
            && let Some(flow) = self.index.largest()
        {
            self.change(flow, now, out, Queue::overflow);
        }
    }

    /// The one place where a queue changes, and all that follows it.
    fn change(
        &mut self,
        flow: Flow,
        now: u64,
        out: &mut Vec<Released>,
        with: impl FnOnce(&mut Queue, &mut Outlet<'_>),
    ) {
        let Some(session) = self.sessions.get_mut(&flow.slot) else { return };
        let Some(queue) = session.flows.get_mut(&flow.bucket) else { return };
        let (before, stood) = (queue.mark(), queue.next());
        with(queue, &mut Outlet { flow, now, statistics: &mut session.statistics, out });
        let after = queue.mark();
        if after.is_none() {
            if queue.next() != stood {
                self.ends.remember(flow, queue.next(), now);
            }
            session.flows.remove(&flow.bucket);
        }
        self.bytes += after.map_or(0, |mark| mark.bytes);
        self.bytes -= before.map_or(0, |mark| mark.bytes);
        self.index.change(flow, before, after);
    }
}

#[cfg(test)]
mod tests;
