//! The same engine in the simplest words: nothing is kept but lists, and each question is
//! answered by looking through them.

use std::collections::{BTreeMap, BTreeSet};

use super::*;

/// Flow, number, reason, waited.
pub(super) type Line = (Flow, u32, Why, u64);

#[derive(Clone, Debug)]
struct Waiting {
    number: i64,
    came: u64,
    due: u64,
    size: usize,
}

#[derive(Debug, Default)]
struct Way {
    next: i64,
    /// Where it stood when something was last released in turn, and when that was.
    stood: (i64, u64),
    held: Vec<Waiting>,
    /// Path and number of all that ever came.
    brought: Vec<(u8, i64)>,
}

#[derive(Debug)]
pub(super) struct Model {
    pub(super) limits: Limits,
    ways: BTreeMap<Flow, Way>,
    pub(super) repeated: u64,
    log: Vec<Line>,
}

fn nearest(to: i64, number: u32) -> i64 {
    // The one of three that is nearest; of two that are as near, the lower.
    let base = to.div_euclid(1 << 32) * (1 << 32) + i64::from(number);
    let candidates = [base - (1 << 32), base, base + (1 << 32)];
    candidates.into_iter().min_by_key(|one| (one - to).abs()).unwrap_or(base)
}

impl Model {
    pub(super) fn new(limits: Limits) -> Self {
        Self { limits, ways: BTreeMap::new(), repeated: 0, log: Vec::new() }
    }

    pub(super) fn take_log(&mut self) -> Vec<Line> {
        std::mem::take(&mut self.log)
    }

    pub(super) fn next_due(&self) -> Option<u64> {
        self.ways.values().flat_map(|way| &way.held).map(|waiting| waiting.due).min()
    }

    pub(super) fn bytes(&self, slot: Option<u32>) -> usize {
        let ways = self.ways.iter().filter(|(flow, _)| slot.is_none_or(|slot| flow.slot == slot));
        ways.flat_map(|(_, way)| &way.held).map(|waiting| waiting.size).sum()
    }

    /// Releases all held below `end`, and what is then in turn.
    fn advance(&mut self, flow: Flow, end: i64, why: Why, now: u64) {
        let Some(way) = self.ways.get_mut(&flow) else { return };
        way.held.sort_by_key(|waiting| waiting.number);
        while way.held.first().is_some_and(|first| first.number < end || first.number == way.next) {
            let Waiting { number, came, .. } = way.held.remove(0);
            self.log.push((flow, number as u32, why, now - came));
            way.next = number + 1;
            way.stood = (way.next, now);
        }
    }

    fn largest(&self, slot: Option<u32>) -> Option<Flow> {
        let size = |way: &Way| way.held.iter().map(|waiting| waiting.size).sum::<usize>();
        let ways = self.ways.iter().filter(|(flow, _)| slot.is_none_or(|slot| flow.slot == slot));
        ways.max_by_key(|(flow, way)| (size(way), **flow)).map(|(flow, _)| *flow)
    }

    fn give_up(&mut self, slot: Option<u32>, now: u64) {
        let Some(flow) = self.largest(slot) else { return };
        let first = self.ways[&flow].held.iter().map(|waiting| waiting.number).min();
        self.advance(flow, first.map_or(0, |first| first + 1), Why::Overflow, now);
    }

    pub(super) fn take(&mut self, packet: &Ahead, now: u64, deadline: u64) {
        let Ahead { flow, path, .. } = *packet;
        let way = self
            .ways
            .entry(flow)
            .or_insert_with(|| Way { next: 1 << 40 | i64::from(packet.next), ..Way::default() });
        let expected = nearest(way.next, packet.next);
        if way.held.is_empty() {
            let (stood, at) = way.stood;
            let believed = now - at <= ends::BELIEVED;
            let next = if believed { expected.max(stood) } else { expected };
            if next < way.next {
                // The same numbers come again, of another time.
                way.brought.clear();
            }
            way.next = next;
        } else if expected > way.next {
            way.held.sort_by_key(|waiting| waiting.number);
            let late = way.held.iter().filter(|waiting| waiting.number < expected);
            self.log.extend(late.map(|one| (flow, one.number as u32, Why::Late, now - one.came)));
            way.held.retain(|waiting| waiting.number >= expected);
            way.next = expected;
            way.stood = (expected, now);
            self.advance(flow, i64::MIN, Why::Turn, now);
        }
        let reach = i64::from(self.limits.reach);
        let next = self.ways[&flow].next;
        let number = nearest(next, packet.number);
        if number > next + reach {
            self.advance(flow, i64::MAX, Why::Lost, now);
        }
        let Some(way) = self.ways.get_mut(&flow) else { return };
        if number > next + reach {
            way.next = number;
        }
        way.brought.push((path, number));
        if number < way.next {
            self.log.push((flow, packet.number, Why::Late, 0));
        } else if way.held.iter().any(|waiting| waiting.number == number) {
            self.repeated += 1;
        } else if number == way.next {
            self.log.push((flow, packet.number, Why::Turn, 0));
            way.next = number + 1;
            way.stood = (way.next, now);
        } else {
            let size = packet.bytes.len() + OVERHEAD;
            way.held.push(Waiting { number, came: now, due: now + deadline, size });
        }
        self.advance(flow, i64::MIN, Why::Turn, now);
        self.look_for_losses(packet, now);
        while self.bytes(Some(flow.slot)) > self.limits.per_session {
            self.give_up(Some(flow.slot), now);
        }
        while self.bytes(None) > self.limits.total {
            self.give_up(None, now);
        }
    }

    fn look_for_losses(&mut self, packet: &Ahead, now: u64) {
        let in_use: BTreeSet<u8> =
            (1..16).filter(|path| packet.paths >> path & 1 == 1 || *path == packet.path).collect();
        while !packet.repaired
            && let Some(way) = self.ways.get(&packet.flow)
            && let Some(first) = way.held.iter().map(|waiting| waiting.number).min()
        {
            // Is the last number of the oldest gap lost, and so all of it?
            let passed = |path: &u8| way.brought.iter().any(|(by, n)| by == path && *n >= first);
            if !in_use.iter().all(passed) {
                break;
            }
            self.advance(packet.flow, first + 1, Why::Lost, now);
        }
    }

    pub(super) fn expire(&mut self, now: u64) {
        let flows: Vec<Flow> = self.ways.keys().copied().collect();
        for flow in flows {
            let due = self.ways[&flow].held.iter().filter(|waiting| waiting.due <= now);
            if let Some(last) = due.map(|waiting| waiting.number).max() {
                self.advance(flow, last + 1, Why::Deadline, now);
            }
        }
    }
}
