//! The end that receives: its kernel side (`mwb-ebpf`, `bond/outside.rs` and `order.rs`),
//! and its agent (as `tunnel::hold`, `tunnel::parity` and `tunnel::acks` have it).

use std::collections::{BTreeMap, BTreeSet};

use mwb_common::maps::{Handed, handed};
use mwb_common::turns::{Turn, Turns};
use mwb_common::window::{FlowWindow, PathWindow};
use mwb_common::wire::{Kind, flag};

use super::scenario::{Gone, Key, MS, START, Scenario};
use super::world::OnWire;
use crate::hitless::fec::{Arrived, Decoder, Limits, Recovered};
use crate::hitless::reorder::{self, Ahead, Flow, REACH, Released, Reorder, Why};
use crate::hitless::resend::Ack;

/// The longest wait of a packet for its turn, in ns.
pub(super) const MOST: u64 = 200 * MS;
/// As `tunnel::hold` has them.
const MARGIN: u64 = 10 * MS;
const LASTS: u64 = 1_000 * MS;
const ROOMY: reorder::Limits =
    reorder::Limits { per_session: 32 << 20, total: 64 << 20, reach: REACH };
/// As `tunnel::acks` has them, and `bond/order.rs`.
const INTERVAL: u64 = 10 * MS;
const ASKS: u64 = 100 * MS;
const ASKED_EVERY: u64 = 8 * MS;
/// As `tunnel::slow` has it.
const LEASE: u64 = 60 * MS;

/// What the agent gives back to the kernel side.
#[derive(Clone, Debug)]
pub(super) enum Back {
    Turn(Released, Option<u32>),
    Recovered(Recovered),
}

/// A packet that was delivered.
#[derive(Clone, Debug)]
pub(super) struct Delivered {
    pub(super) key: Key,
    pub(super) text: Vec<u8>,
    /// Those who gave it on knew that it was behind its turn.
    pub(super) late: bool,
}

/// What the kernel side knows.
pub(super) struct Receiver {
    scenario: Scenario,
    paths: Vec<PathWindow>,
    flows: Vec<FlowWindow>,
    pub(super) turns: Vec<Turns>,
    asked: [u64; 16],
    /// Until when the agent is taken to be there.
    lease: u64,
    ring: Vec<(Handed, Vec<u8>)>,
    pub(super) agent: Option<Agent>,
    stalls: bool,
    pub(super) delivered: Vec<Delivered>,
    /// What was held by an agent that was killed.
    pub(super) died: BTreeSet<Key>,
    /// Packets that were held for longer than they may.
    pub(super) overdue: Vec<(Key, u64)>,
}

impl Receiver {
    pub(super) fn new(scenario: &Scenario) -> Self {
        // A session that is new, or one that has gone on until now.
        let next = scenario.first;
        let seen = if next == 1 { 0 } else { START };
        let turns = Turns { next, seen, ..Turns::default() };
        Self {
            paths: vec![PathWindow::EMPTY; 16],
            flows: vec![FlowWindow::EMPTY; scenario.flows.len()],
            turns: vec![turns; scenario.flows.len()],
            asked: [0; 16],
            lease: u64::MAX,
            ring: Vec::new(),
            agent: Some(Agent::new(scenario)),
            stalls: false,
            delivered: Vec::new(),
            died: BTreeSet::new(),
            overdue: Vec::new(),
            scenario: scenario.clone(),
        }
    }

    /// A packet arrives.
    pub(super) fn arrive(&mut self, packet: &OnWire, now: u64) {
        let OnWire { kind, flags, path, sequence, bucket, number, ref text } = *packet;
        if self.paths[usize::from(path)].take(sequence).is_err() || kind == Kind::Probe {
            return;
        }
        let inner = text.first().map_or(0, |first| first >> 4);
        let came = now;
        let head =
            Handed { came, sequence, number, bucket, path, inner, flags, ..Handed::default() };
        if kind == Kind::Parity {
            self.hand(Handed { kind: handed::PARITY, ..head }, text, now);
            return;
        }
        let asked = &mut self.asked[usize::from(path)];
        if flags & flag::ACKED != 0 && self.lease > now && now.saturating_sub(*asked) > ASKED_EVERY
        {
            *asked = now;
            self.hand(Handed { kind: handed::ASKED, ..head }, &[], now);
        }
        if flags & flag::FEC != 0 {
            self.hand(Handed { kind: handed::TAKEN, ..head }, text, now);
        }
        let flow = &mut self.flows[usize::from(bucket)];
        if flags & flag::REPEATS == 0 || flow.take(number).is_ok() {
            self.wait(head, text, now);
        }
    }

    /// Gives a packet its turn, if it has one.
    fn wait(&mut self, head: Handed, text: &[u8], now: u64) {
        let key @ (bucket, number) = (head.bucket, head.number);
        let (agent, turns) = (self.lease > now, &mut self.turns[usize::from(bucket)]);
        let behind = turns.seen != 0 && is_behind(turns, number);
        if head.flags & flag::ORDERED != 0
            && turns.take(number, head.path, now, agent) == Turn::Ahead
        {
            let (next, count, ways) = (turns.next, turns.handed, turns.ways());
            let kind = handed::AHEAD;
            if self.hand(Handed { kind, next, count, ways, ..head }, text, now) {
                return;
            }
            self.turns[usize::from(bucket)].refuse(number);
        }
        self.deliver(key, text, behind);
    }

    /// Hands the agent something, if it is there and there is room.
    fn hand(&mut self, head: Handed, text: &[u8], now: u64) -> bool {
        let can = self.lease > now && self.ring.len() < self.scenario.room;
        if can {
            self.ring.push((head, text.to_vec()));
        }
        can
    }

    fn deliver(&mut self, key: Key, text: &[u8], late: bool) {
        self.delivered.push(Delivered { key, text: text.to_vec(), late });
    }

    /// The agent has given something back.
    pub(super) fn given_back(&mut self, what: Back, now: u64) {
        match what {
            Back::Turn(packet, done) => {
                let key @ (bucket, number) = (packet.flow.bucket, packet.number);
                self.turns[usize::from(bucket)].give_back(number, now, done);
                self.deliver(key, &packet.bytes, packet.why == Why::Late);
            }
            Back::Recovered(Recovered { path, bucket, number, flags, inner, bytes, .. }) => {
                let flags = flags & KEPT;
                let head =
                    Handed { came: now, number, bucket, path, inner, flags, ..Handed::default() };
                if self.flows[usize::from(bucket)].take(number).is_ok() {
                    self.wait(head, &bytes, now);
                }
            }
        }
    }

    /// The agent goes. If it does not end, its lease runs out.
    pub(super) fn end(&mut self, how: Gone, now: u64) -> Vec<Back> {
        if how == Gone::Stalls {
            (self.stalls, self.lease) = (true, now + LEASE);
            return Vec::new();
        }
        if how == Gone::Killed {
            let held = self.agent.take().into_iter().flat_map(|agent| agent.deadlines.into_keys());
            self.died.extend(held);
            self.lease = now + LEASE;
            return Vec::new();
        }
        self.lease = 0;
        let (mut back, _) = self.turn(now);
        if let Some(mut agent) = self.agent.take() {
            // Not `expire`, so that waits stay what they are.
            agent.reorder.forget(0, now, &mut agent.released);
            self.overdue.extend(agent.overdue(self.scenario.slack()));
            back.extend(agent.back());
        }
        back
    }

    /// The agent that stalled goes on, or another begins.
    pub(super) fn begin(&mut self) {
        self.lease = u64::MAX;
        if !std::mem::take(&mut self.stalls) {
            self.agent = Some(Agent::new(&self.scenario));
        }
    }

    /// Whether the agent has something to do.
    pub(super) fn is_due(&self, now: u64) -> bool {
        let due = |agent: &Agent| agent.next_due().is_some_and(|at| at <= now);
        !self.stalls && self.agent.as_ref().is_some_and(|agent| !self.ring.is_empty() || due(agent))
    }

    /// Bytes that the agent holds.
    pub(super) fn held(&self) -> usize {
        self.agent.as_ref().map_or(0, |agent| {
            let ahead: usize = agent.reorder.statistics().map(|(_, held)| held.bytes).sum();
            ahead + agent.decoder.statistics().memory
        })
    }

    /// The agent takes what there is and does what is due. Says what it gives back, and what
    /// it tells the far end.
    pub(super) fn turn(&mut self, now: u64) -> (Vec<Back>, Vec<Ack>) {
        let Some(agent) = &mut self.agent else { return Default::default() };
        for (head, text) in std::mem::take(&mut self.ring) {
            agent.take(&head, text, now);
        }
        agent.reorder.expire(now, &mut agent.released);
        agent.decoder.expire(now);
        self.overdue.extend(agent.overdue(self.scenario.slack()));
        (agent.back(), agent.acks(&self.paths, now))
    }
}

/// Of the flags of what was recovered, those that the kernel side is told.
const KEPT: u8 = flag::ORDERED | flag::ACKED;

/// Whether a number is behind the turn.
fn is_behind(turns: &Turns, number: u32) -> bool {
    number.wrapping_sub(turns.next).cast_signed() < 0
}

/// Of a path.
#[derive(Default)]
struct Asked {
    told: Option<Ack>,
    at: u64,
    due: u64,
}

/// The agent of the receiver.
pub(super) struct Agent {
    /// How long packets wait that no repair brings, and how long those that parity may.
    deadlines_of: [u64; 2],
    /// Paths that packets come by.
    ways: u16,
    protected: BTreeMap<Flow, u64>,
    pub(super) reorder: Reorder,
    counts: BTreeMap<Flow, u32>,
    released: Vec<Released>,
    /// Of what was taken and not released: how long it may be held.
    deadlines: BTreeMap<Key, u64>,
    pub(super) decoder: Decoder,
    recovered: Vec<Recovered>,
    asked: BTreeMap<u8, Asked>,
}

impl Agent {
    fn new(scenario: &Scenario) -> Self {
        let spread = scenario.spread();
        let plain = (spread + spread / 4 + 5 * MS).min(MOST);
        let blocks = (plain + scenario.blocks.wait + MARGIN).min(MOST);
        Self {
            deadlines_of: [plain, blocks],
            ways: scenario.paths().fold(0, |ways, (path, _)| ways | 1 << path),
            protected: BTreeMap::new(),
            reorder: Reorder::new(ROOMY),
            counts: BTreeMap::new(),
            released: Vec::new(),
            deadlines: BTreeMap::new(),
            decoder: Decoder::new(Limits::default()),
            recovered: Vec::new(),
            asked: BTreeMap::new(),
        }
    }

    fn take(&mut self, head: &Handed, bytes: Vec<u8>, now: u64) {
        let Handed { path, sequence, bucket, number, flags, inner, next, .. } = *head;
        let flow = Flow { slot: 0, bucket };
        match head.kind {
            handed::AHEAD => {
                self.counts.insert(flow, head.count);
                let lately = |last: &u64| now - last < LASTS;
                let again = flags & (flag::REPEATS & !flag::FEC) != 0;
                let computed =
                    flags & flag::FEC != 0 || self.protected.get(&flow).is_some_and(lately);
                let deadline = if again { MOST } else { self.deadlines_of[usize::from(computed)] };
                let (paths, repaired) = (self.ways, again || computed);
                let ahead = Ahead { flow, number, next, path, paths, repaired, bytes };
                self.deadlines.insert((bucket, number), deadline);
                self.reorder.take(ahead, now, deadline, &mut self.released);
            }
            handed::TAKEN => {
                self.protected.insert(flow, now);
                let bytes = &bytes;
                let packet = Arrived { path, sequence, bucket, number, flags, inner, bytes };
                self.decoder.data(&packet, now, &mut self.recovered);
            }
            handed::PARITY => {
                let taken = self.decoder.parity(&bytes, now, &mut self.recovered);
                taken.expect("the far end made it");
            }
            _ => {
                let asked = self.asked.entry(path).or_default();
                asked.at = now;
                if asked.due == 0 {
                    asked.due = now;
                }
            }
        }
    }

    /// Of what was released now, what was held longer than it may and so much.
    fn overdue(&mut self, slack: u64) -> Vec<(Key, u64)> {
        let deadlines = &mut self.deadlines;
        let released = self.released.iter().filter_map(|packet| {
            let key = (packet.flow.bucket, packet.number);
            let deadline = deadlines.remove(&key).unwrap_or(0);
            (packet.waited > deadline + slack).then_some((key, packet.waited))
        });
        released.collect()
    }

    fn back(&mut self) -> Vec<Back> {
        let mut last: BTreeMap<Flow, usize> = BTreeMap::new();
        for (place, packet) in self.released.iter().enumerate() {
            last.insert(packet.flow, place);
        }
        last.retain(|flow, _| !self.reorder.holds(*flow));
        let mut back = Vec::new();
        for (place, packet) in self.released.drain(..).enumerate() {
            let done = last.get(&packet.flow) == Some(&place);
            let done = done.then(|| self.counts.remove(&packet.flow)).flatten();
            back.push(Back::Turn(packet, done));
        }
        back.extend(self.recovered.drain(..).map(Back::Recovered));
        back
    }

    fn acks(&mut self, windows: &[PathWindow], now: u64) -> Vec<Ack> {
        let mut acks = Vec::new();
        for (&path, asked) in &mut self.asked {
            if asked.due == 0 || asked.due > now {
                continue;
            }
            let window = &windows[usize::from(path)];
            let ack = Ack { path, highest: window.newest(), bits: window.below() };
            if asked.told == Some(ack) {
                asked.due = 0;
                continue;
            }
            let goes_on = now - asked.at < ASKS;
            (asked.told, asked.due) = (Some(ack), if goes_on { now + INTERVAL } else { 0 });
            acks.push(ack);
        }
        acks
    }

    /// When the agent looks again.
    pub(super) fn next_due(&self) -> Option<u64> {
        let asked = self.asked.values().map(|asked| asked.due).filter(|due| *due != 0);
        asked.chain(self.reorder.next_due()).chain(self.decoder.next_due()).min()
    }
}
