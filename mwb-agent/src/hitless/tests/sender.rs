//! The end that sends: what its kernel side does with a packet, and its agent (as
//! `tunnel::repair` and `tunnel::parity` have it).

use std::collections::BTreeMap;

use mwb_common::maps::{Handed, handed};
use mwb_common::wire::{Kind, flag};

use super::scenario::{Chance, Link, MS, Scenario};
use super::world::OnWire;
use crate::hitless::fec::{Encoder, Packet};
use crate::hitless::resend::{Ack, Again, Resend, Settings};

/// Between two looks of the agent at the paths, in ns.
const LOOK: u64 = 10 * MS;

/// What the agent gives the kernel side to send.
#[derive(Clone, Debug)]
pub(super) enum ToSend {
    Again(Again),
    /// By another path than that of its data.
    Parity(u8, Vec<u8>),
}

pub(super) struct Sender {
    scenario: Scenario,
    /// By path.
    sequences: [u64; 16],
    /// By bucket: the next.
    numbers: Vec<u32>,
    /// Paths that are known to be down, by bit.
    pub(super) down: u16,
    ring: Vec<(Handed, Vec<u8>)>,
    said: Vec<Ack>,
    /// When the far end first said what came.
    pub(super) heard: Option<u64>,
    pub(super) resend: Resend,
    /// What the agent has told `resend` of the paths.
    told_down: u16,
    looked: u64,
    again: Vec<Again>,
    pub(super) encoders: BTreeMap<u8, Encoder>,
    made: Vec<(u8, Vec<u8>)>,
}

impl Sender {
    pub(super) fn new(scenario: &Scenario) -> Self {
        let encoder = |(path, link): (u8, &Link)| {
            let mut encoder = Encoder::new(path, scenario.blocks);
            let others = scenario.paths().filter(|other| other.0 != path);
            let most = others.map(|(_, other)| other.part_lost()).fold(0.0, f64::max);
            encoder.set_loss(link.part_lost(), most);
            (path, encoder)
        };
        Self {
            scenario: scenario.clone(),
            sequences: [0; 16],
            numbers: vec![scenario.first; scenario.flows.len()],
            down: 0,
            ring: Vec::new(),
            said: Vec::new(),
            heard: None,
            resend: Resend::new(Settings::default()),
            told_down: 0,
            looked: 0,
            again: Vec::new(),
            encoders: scenario.paths().map(encoder).collect(),
            made: Vec::new(),
        }
    }

    /// A path that is not known to be down, and none of `not`; 0 if there is none.
    fn choose(&self, not: u16, chance: &mut Chance) -> u8 {
        let paths = self.scenario.paths().map(|(path, _)| path);
        let able: Vec<u8> = paths.filter(|path| (not | self.down) >> path & 1 == 0).collect();
        able.get(chance.below(able.len() as u64) as usize).copied().unwrap_or(0)
    }

    /// Sends the next packet of a bucket: once, or two copies by two paths.
    pub(super) fn send(&mut self, bucket: u16, text: &[u8], chance: &mut Chance) -> Vec<OnWire> {
        let number = self.numbers[usize::from(bucket)];
        self.numbers[usize::from(bucket)] = number.wrapping_add(1);
        let path = self.choose(0, chance).max(1);
        let flags = self.scenario.flags(bucket, path);
        let mut out = vec![self.seal(Kind::Data, flags, path, (bucket, number), text)];
        let other = self.choose(1 << path, chance);
        if flags & flag::DUPLICATE != 0 && other != 0 {
            out.push(self.seal(Kind::Data, flags, other, (bucket, number), text));
        }
        out
    }

    /// A probe by a path.
    pub(super) fn probe(&mut self, path: u8) -> OnWire {
        self.seal(Kind::Probe, 0, path, (0, 0), &[])
    }

    /// What the agent gave the kernel side is sent.
    pub(super) fn give(&mut self, what: &ToSend, chance: &mut Chance) -> OnWire {
        match what {
            ToSend::Again(again) => {
                let other = self.choose(1 << again.not_by, chance);
                // The same once more is better than nothing.
                let path = if other == 0 { again.not_by } else { other };
                let flags = flag::ORDERED | flag::ACKED | flag::RETRANSMITTED;
                self.seal(Kind::Data, flags, path, (again.bucket, again.number), &again.bytes)
            }
            ToSend::Parity(path, body) => {
                let other = self.choose(1 << path, chance);
                let by = if other == 0 { *path } else { other };
                self.seal(Kind::Parity, 0, by, (0, 0), body)
            }
        }
    }

    fn seal(
        &mut self,
        kind: Kind,
        flags: u8,
        path: u8,
        (bucket, number): (u16, u32),
        text: &[u8],
    ) -> OnWire {
        self.sequences[usize::from(path)] += 1;
        let sequence = self.sequences[usize::from(path)];
        if flags & (flag::ACKED | flag::FEC) != 0 {
            let inner = text.first().map_or(0, |first| first >> 4);
            let kind = handed::SENT;
            let head =
                Handed { sequence, number, bucket, kind, path, inner, flags, ..Handed::default() };
            self.ring.push((head, text.to_vec()));
        }
        OnWire { kind, flags, path, sequence, bucket, number, text: text.to_vec() }
    }

    /// The far end says what came.
    pub(super) fn hear(&mut self, ack: Ack) {
        self.said.push(ack);
    }

    /// Whether the agent has something to do.
    pub(super) fn is_due(&self, now: u64) -> bool {
        !self.ring.is_empty()
            || !self.said.is_empty()
            || self.next_due().is_some_and(|at| at <= now)
    }

    /// Bytes that the agent holds.
    pub(super) fn held(&self) -> usize {
        let blocks: usize = self.encoders.values().map(|encoder| encoder.statistics().memory).sum();
        self.resend.statistics().held_bytes + blocks
    }

    /// When the agent looks again.
    pub(super) fn next_due(&self) -> Option<u64> {
        let looks = (self.resend.statistics().held > 0).then_some(self.looked + LOOK);
        let blocks = self.encoders.values().filter_map(Encoder::next_due);
        blocks.chain(self.resend.next_due()).chain(looks).min()
    }

    /// The agent takes what there is, and does what is due.
    pub(super) fn turn(&mut self, now: u64) -> Vec<ToSend> {
        for (head, text) in std::mem::take(&mut self.ring) {
            let Handed { path, sequence, bucket, number, inner, flags, .. } = head;
            if flags & flag::ACKED != 0 {
                self.resend.sent(path, sequence, bucket, number, inner, &text, now);
            }
            if let Some(encoder) = self.encoders.get_mut(&path)
                && flags & flag::FEC != 0
            {
                let packet = Packet { sequence, bucket, number, flags, inner, bytes: &text };
                let mut made = Vec::new();
                encoder.push(&packet, now, &mut made);
                self.made.extend(made.into_iter().map(|body| (path, body)));
            }
        }
        for ack in std::mem::take(&mut self.said) {
            self.heard.get_or_insert(now);
            self.resend.acked(&ack, now, &mut self.again);
        }
        if now - self.looked >= LOOK {
            self.looked = now;
            if self.resend.statistics().held > 0 {
                self.look(now);
            }
        }
        self.resend.expire(now, &mut self.again);
        for (path, encoder) in &mut self.encoders {
            let mut made = Vec::new();
            encoder.expire(now, &mut made);
            self.made.extend(made.into_iter().map(|body| (*path, body)));
        }
        let again = self.again.drain(..).map(ToSend::Again);
        let parity = self.made.drain(..).map(|(path, body)| ToSend::Parity(path, body));
        again.chain(parity).collect()
    }

    /// Looks at the paths.
    fn look(&mut self, now: u64) {
        for (path, link) in self.scenario.clone().paths() {
            self.resend.rtt(path, link.round_trip(), link.jitter * 500);
            let bit = 1 << path;
            match (self.told_down & bit != 0, self.down & bit != 0) {
                (false, true) => self.resend.path_down(path, now, &mut self.again),
                (true, false) => self.resend.path_up(path),
                _ => {}
            }
            self.told_down = self.told_down & !bit | self.down & bit;
        }
    }
}
