//! The packets of one flow that are held, and what is known of it as long as there are any.

use std::collections::{BTreeMap, VecDeque};

use super::index::Mark;
use super::{Ahead, Flow, OVERHEAD, Released, Statistics, Why};

/// Paths that can be told apart; 0 is none.
const PATHS: usize = 16;

/// Where packets of a flow go out.
pub(super) struct Outlet<'a> {
    pub(super) flow: Flow,
    pub(super) now: u64,
    pub(super) statistics: &'a mut Statistics,
    pub(super) out: &'a mut Vec<Released>,
}

impl Outlet<'_> {
    fn release(&mut self, number: u32, bytes: Vec<u8>, path: u8, came: u64, why: Why) {
        let waited = self.now.saturating_sub(came);
        self.statistics.note_released(why, waited);
        self.out.push(Released { flow: self.flow, number, bytes, path, waited, why });
    }
}

#[derive(Debug)]
struct Held {
    bytes: Vec<u8>,
    came: u64,
    path: u8,
}

impl Held {
    fn size(&self) -> usize {
        self.bytes.capacity() + OVERHEAD
    }
}

/// Numbers in here are counted on beyond 32 bits.
#[derive(Debug)]
pub(super) struct Queue {
    /// Never held.
    next: u64,
    held: BTreeMap<u64, Held>,
    /// Number and due time of those held packets that are due before all held ones with a
    /// higher number. The others go out with one of these at the latest. Both ascend.
    steps: VecDeque<(u64, u64)>,
    /// The highest number by path; 0: none since the flow holds something. What came before
    /// that is before `next`.
    newest: [u64; PATHS],
    bytes: usize,
}

impl Queue {
    pub(super) fn new(next: u32) -> Self {
        Self {
            // Far enough from 0 that what is behind the first has a place.
            next: 1 << 32 | u64::from(next),
            held: BTreeMap::new(),
            steps: VecDeque::new(),
            newest: [0; PATHS],
            bytes: 0,
        }
    }

    /// The number that is next in turn.
    pub(super) fn next(&self) -> u32 {
        self.next as u32
    }

    /// None if nothing is held.
    pub(super) fn mark(&self) -> Option<Mark> {
        self.steps.front().map(|(_, due)| Mark { due: *due, bytes: self.bytes })
    }

    /// Takes a packet that is due at `due` if it has to wait.
    pub(super) fn take(&mut self, packet: Ahead, due: u64, reach: u32, outlet: &mut Outlet<'_>) {
        let Ahead { path, paths, repaired, .. } = packet;
        self.follow(self.counted_on(packet.next), outlet);
        let number = self.counted_on(packet.number);
        if let Some(newest) = self.newest.get_mut(usize::from(path)) {
            *newest = number.max(*newest);
        }
        if number > self.next + u64::from(reach) {
            self.skip_to(u64::MAX, Why::Lost, outlet);
            self.next = number;
            outlet.statistics.restarts += 1;
        }
        if number > self.next {
            self.hold(number, packet, due, outlet);
        } else {
            let why = if number == self.next { Why::Turn } else { Why::Late };
            outlet.release(packet.number, packet.bytes, path, outlet.now, why);
            self.next = self.next.max(number + 1);
            self.skip_to(0, Why::Turn, outlet);
        }
        if !repaired {
            self.skip_to(self.proven(path, paths), Why::Lost, outlet);
        }
    }

    /// Releases what is due, and all in front of it.
    pub(super) fn expire(&mut self, outlet: &mut Outlet<'_>) {
        let due = self.steps.partition_point(|(_, due)| *due <= outlet.now);
        if let Some((last, _)) = due.checked_sub(1).and_then(|last| self.steps.get(last)) {
            self.skip_to(*last, Why::Deadline, outlet);
        }
    }

    /// Gives up the oldest gap.
    pub(super) fn overflow(&mut self, outlet: &mut Outlet<'_>) {
        if let Some(first) = self.first() {
            self.skip_to(first, Why::Overflow, outlet);
        }
    }

    /// Gives up gaps until no packet is further ahead than `reach`.
    pub(super) fn narrow(&mut self, reach: u32, outlet: &mut Outlet<'_>) {
        while let Some((last, _)) = self.held.last_key_value()
            && *last > self.next + u64::from(reach)
        {
            self.overflow(outlet);
        }
    }

    /// Releases what is held up to number `last`, over all gaps, and the run behind it.
    pub(super) fn skip_to(&mut self, last: u64, why: Why, outlet: &mut Outlet<'_>) {
        while let Some(first) = self.first()
            && (first <= last || first == self.next)
        {
            outlet.statistics.skipped += first - self.next;
            self.release_first(why, outlet);
        }
    }

    /// The kernel side has gone on by itself.
    fn follow(&mut self, expected: u64, outlet: &mut Outlet<'_>) {
        if expected <= self.next {
            return;
        }
        while self.first().is_some_and(|first| first < expected) {
            self.release_first(Why::Late, outlet);
        }
        self.next = expected;
        self.skip_to(0, Why::Turn, outlet);
    }

    fn hold(&mut self, number: u64, packet: Ahead, due: u64, outlet: &mut Outlet<'_>) {
        if self.held.contains_key(&number) {
            outlet.statistics.repeated += 1;
            return;
        }
        let held = Held { bytes: packet.bytes, came: outlet.now, path: packet.path };
        self.bytes += held.size();
        outlet.statistics.held += 1;
        outlet.statistics.bytes += held.size();
        self.held.insert(number, held);

        let above = self.steps.partition_point(|(step, _)| *step < number);
        if self.steps.get(above).is_some_and(|(_, step_due)| *step_due <= due) {
            return;
        }
        let below =
            self.steps.partition_point(|(step, step_due)| *step < number && *step_due < due);
        self.steps.drain(below..above);
        self.steps.insert(below, (number, due));
    }

    fn first(&self) -> Option<u64> {
        self.held.first_key_value().map(|(number, _)| *number)
    }

    fn release_first(&mut self, why: Why, outlet: &mut Outlet<'_>) {
        let Some((number, held)) = self.held.pop_first() else { return };
        self.next = number + 1;
        self.bytes -= held.size();
        outlet.statistics.held -= 1;
        outlet.statistics.bytes -= held.size();
        outlet.release(number as u32, held.bytes, held.path, held.came, why);
        if self.steps.front().is_some_and(|(step, _)| *step <= number) {
            self.steps.pop_front();
        }
    }

    /// What is missing below this number is lost: each path has brought it or a later one.
    fn proven(&self, path: u8, paths: u16) -> u64 {
        let paths = paths | 1u16.checked_shl(path.into()).unwrap_or(0);
        let newest = self.newest.iter().enumerate().skip(1);
        let in_use = newest.filter(|(path, _)| paths & 1 << path != 0);
        in_use.map(|(_, newest)| *newest).min().unwrap_or(0)
    }

    /// The number nearest to the next that ends in these 32 bits (RFC 1982).
    fn counted_on(&self, number: u32) -> u64 {
        let ahead = number.wrapping_sub(self.next()).cast_signed();
        self.next.wrapping_add_signed(ahead.into())
    }
}
