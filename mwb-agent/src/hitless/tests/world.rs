//! What happens between the two ends: packets are sent, lost, delayed and doubled, paths
//! die, the agent of the receiver is started anew. And what was sent, and what arrived, as
//! those know it who see both ends.

use std::collections::{BTreeMap, BTreeSet};

use mwb_common::wire::{Kind, flag};

use super::receiver::{Back, Receiver};
use super::scenario::{Chance, Death, Gone, Key, MS, Place, Restart, START, Scenario};
use super::sender::{Sender, ToSend};
use crate::hitless::resend::Ack;

/// Between two probes of a path, in ns.
const PROBES: u64 = 50 * MS;
/// From the agent to its kernel side, in ns, at most.
const TO_KERNEL: u64 = MS / 5;
/// Nothing is sent for so long at the end, in ns.
const TAIL: u64 = 1_500 * MS;

/// What a path carries.
#[derive(Clone, Debug)]
pub(super) struct OnWire {
    pub(super) kind: Kind,
    pub(super) flags: u8,
    pub(super) path: u8,
    pub(super) sequence: u64,
    pub(super) bucket: u16,
    pub(super) number: u32,
    pub(super) text: Vec<u8>,
}

enum Event {
    Send(usize, usize),
    Probe(u8),
    Arrive(OnWire),
    Hear(u8, Ack),
    SenderTurn,
    ReceiverTurn,
    ToSend(ToSend),
    Back(Back),
    Dies(u8),
    Revives(u8),
    Known(u8, bool),
    End(Gone),
    Begin,
}

/// A packet that was sent.
pub(super) struct Sent {
    pub(super) text: Vec<u8>,
    /// When it was sent, each time.
    pub(super) at: Vec<u64>,
    /// Where it was sent first.
    pub(super) place: Place,
}

/// A block with parity.
pub(super) struct Block {
    pub(super) members: Vec<Place>,
    /// How much of its parity came.
    pub(super) came: usize,
}

pub(super) struct World {
    pub(super) scenario: Scenario,
    pub(super) sender: Sender,
    pub(super) receiver: Receiver,
    events: BTreeMap<(u64, u64), Event>,
    serial: u64,
    now: u64,
    chance: Chance,
    end: u64,
    dead: u16,
    /// When the last packet of a path arrives.
    last: [u64; 16],
    /// When the last frame of an agent gets to its kernel side.
    frames: [u64; 2],
    unlucky: BTreeMap<Key, u32>,
    pub(super) sent: BTreeMap<Key, Sent>,
    /// Packets that came to the receiver, at least once.
    pub(super) arrived: BTreeSet<Key>,
    pub(super) came: BTreeSet<Place>,
    /// Parity that was sent.
    pub(super) parity: Vec<(Place, Vec<u8>)>,
    /// Most bytes that the agent of each end held after a turn, the sender's first.
    pub(super) held: [usize; 2],
}

/// An IPv4 packet, as far as anybody looks, of no other bytes than any other.
fn text(bucket: u16, index: u32, length: usize) -> Vec<u8> {
    let mut chance = Chance(u64::from(bucket) << 32 | u64::from(index));
    let mut bytes: Vec<u8> = (0..length).map(|_| chance.below(256) as u8).collect();
    bytes[0] = 0x45;
    bytes[2..4].copy_from_slice(&(length as u16).to_be_bytes());
    bytes[4..6].copy_from_slice(&bucket.to_be_bytes());
    bytes[12..16].copy_from_slice(&index.to_be_bytes());
    bytes
}

impl World {
    /// Runs a scenario to its end.
    pub(super) fn run(scenario: &Scenario) -> Self {
        let mut world = Self {
            sender: Sender::new(scenario),
            receiver: Receiver::new(scenario),
            events: BTreeMap::new(),
            serial: 0,
            now: START,
            chance: Chance(scenario.seed),
            end: 0,
            dead: 0,
            last: [0; 16],
            frames: [0; 2],
            unlucky: BTreeMap::new(),
            sent: BTreeMap::new(),
            arrived: BTreeSet::new(),
            came: BTreeSet::new(),
            parity: Vec::new(),
            held: [0; 2],
            scenario: scenario.clone(),
        };
        world.plan();
        while let Some(((at, _), event)) = world.events.pop_first() {
            world.now = at;
            world.happens(event);
        }
        // An agent has a turn from time to time even if nothing is due.
        world.sender.turn(world.end);
        world
    }

    fn plan(&mut self) {
        let scenario = self.scenario.clone();
        let mut at = START;
        for (after, flow, length) in scenario.packets {
            at += after * 1_000;
            self.at(at, Event::Send(flow, length));
        }
        self.end = at + TAIL;
        for Death { path, at, lasts, seen } in scenario.deaths {
            let [dies, revives] = [START + at * 1_000, START + (at + lasts) * 1_000];
            self.at(dies, Event::Dies(path));
            self.at(revives, Event::Revives(path));
            if lasts > seen {
                self.at(dies + seen * 1_000, Event::Known(path, true));
                self.at(revives + seen * 1_000, Event::Known(path, false));
            }
        }
        for Restart { at, away, how } in scenario.restarts {
            self.at(START + at * 1_000, Event::End(how));
            self.at(START + (at + away) * 1_000, Event::Begin);
        }
        for path in 1..=scenario.links.len() as u8 {
            self.at(START, Event::Probe(path));
        }
        self.at(START, Event::SenderTurn);
        self.at(START, Event::ReceiverTurn);
    }

    fn at(&mut self, at: u64, event: Event) {
        self.serial += 1;
        self.events.insert((at, self.serial), event);
    }

    /// When an agent has its next turn.
    fn next_turn(&mut self) -> u64 {
        self.now + 1_000 + self.chance.below(self.scenario.tick * 1_000)
    }

    /// When what an agent gives its kernel side now gets there: frames keep their order.
    fn frame(&mut self, end: usize) -> u64 {
        let at = self.now + self.chance.below(TO_KERNEL);
        self.frames[end] = self.frames[end].max(at);
        self.frames[end]
    }

    fn happens(&mut self, event: Event) {
        match event {
            Event::Send(flow, length) => {
                let bucket = (flow % self.scenario.flows.len()) as u16;
                let index = self.sent.range((bucket, 0)..=(bucket, u32::MAX)).count() as u32;
                let text = text(bucket, index, length);
                for packet in self.sender.send(bucket, &text, &mut self.chance) {
                    self.transmit(packet);
                }
            }
            Event::Probe(path) => {
                let probe = self.sender.probe(path);
                self.transmit(probe);
                if self.now + PROBES < self.end {
                    self.at(self.now + PROBES, Event::Probe(path));
                }
            }
            Event::Arrive(packet) => self.arrive(&packet),
            Event::Hear(path, ack) => {
                if !self.is_dead(path) {
                    self.sender.hear(ack);
                }
            }
            Event::SenderTurn => {
                if self.sender.is_due(self.now) {
                    for what in self.sender.turn(self.now) {
                        let at = self.frame(0);
                        self.at(at, Event::ToSend(what));
                    }
                    self.held[0] = self.held[0].max(self.sender.held());
                }
                let next = self.next_turn();
                if next < self.end {
                    self.at(next, Event::SenderTurn);
                }
            }
            Event::ReceiverTurn => {
                if self.receiver.is_due(self.now) {
                    let (back, acks) = self.receiver.turn(self.now);
                    self.held[1] = self.held[1].max(self.receiver.held());
                    self.give_back(back);
                    acks.into_iter().for_each(|ack| self.tell(ack));
                }
                let next = self.next_turn();
                if next < self.end {
                    self.at(next, Event::ReceiverTurn);
                }
            }
            Event::ToSend(what) => {
                let packet = self.sender.give(&what, &mut self.chance);
                self.transmit(packet);
            }
            Event::Back(what) => self.receiver.given_back(what, self.now),
            Event::Dies(path) => self.dead |= 1 << path,
            Event::Revives(path) => self.dead &= !(1 << path),
            Event::Known(path, down) => {
                let bit = 1 << path;
                self.sender.down = self.sender.down & !bit | if down { bit } else { 0 };
            }
            Event::End(how) => {
                let back = self.receiver.end(how, self.now);
                self.give_back(back);
            }
            Event::Begin => self.receiver.begin(),
        }
    }

    fn is_dead(&self, path: u8) -> bool {
        self.dead >> path & 1 != 0
    }

    fn give_back(&mut self, back: Vec<Back>) {
        for what in back {
            let at = self.frame(1);
            self.at(at, Event::Back(what));
        }
    }

    /// An acknowledgement goes by the two paths with the shortest round trips.
    fn tell(&mut self, ack: Ack) {
        let mut paths: Vec<(u64, u8)> =
            self.scenario.paths().map(|(path, link)| (link.round_trip(), path)).collect();
        paths.retain(|(_, path)| self.sender.down >> path & 1 == 0);
        paths.sort_unstable();
        for (_, path) in paths.into_iter().take(2) {
            let link = self.scenario.links[usize::from(path) - 1].clone();
            if !self.is_dead(path) && self.chance.below(1_000) >= link.loss {
                let after = (link.delay + self.chance.below(link.jitter + 1)) * 1_000;
                self.at(self.now + after, Event::Hear(path, ack));
            }
        }
    }

    /// A packet leaves.
    fn transmit(&mut self, packet: OnWire) {
        let (key, place) = ((packet.bucket, packet.number), (packet.path, packet.sequence));
        if packet.kind == Kind::Data {
            let text = packet.text.clone();
            let sent = self.sent.entry(key).or_insert(Sent { text, at: Vec::new(), place });
            sent.at.push(self.now);
        } else if packet.kind == Kind::Parity {
            self.parity.push((place, packet.text.clone()));
        }
        let link = self.scenario.links[usize::from(packet.path) - 1].clone();
        if self.is_dead(packet.path) {
            return;
        }
        if self.chance.below(1_000) < link.loss {
            let lost = self.unlucky.entry(key).or_default();
            if packet.flags & flag::ACKED == 0 || *lost < self.scenario.unlucky {
                *lost += 1;
                return;
            }
        }
        let twice = self.chance.below(1_000) < link.twice;
        for _ in 0..=u8::from(twice) {
            // A path keeps the order of its packets.
            let after = (link.delay + self.chance.below(link.jitter + 1)) * 1_000;
            let last = &mut self.last[usize::from(packet.path)];
            *last = (*last).max(self.now + after);
            let at = *last;
            self.at(at, Event::Arrive(packet.clone()));
        }
    }

    fn arrive(&mut self, packet: &OnWire) {
        if self.is_dead(packet.path) {
            return;
        }
        let place = (packet.path, packet.sequence);
        self.came.insert(place);
        if packet.kind == Kind::Data {
            self.arrived.insert((packet.bucket, packet.number));
        }
        self.receiver.arrive(packet, self.now);
    }

    /// Blocks, by the parity that was sent for them.
    pub(super) fn blocks(&self) -> Vec<Block> {
        let mut blocks: BTreeMap<(u8, [u8; 4]), Block> = BTreeMap::new();
        for (place, body) in &self.parity {
            // As docs/protocol.md has it.
            let (path, number) = (body[10], body[4..8].try_into().expect("four bytes"));
            let block = blocks.entry((path, number)).or_insert_with(|| {
                let mut sequence = u64::from_be_bytes(body[12..20].try_into().expect("eight"));
                let mut members = vec![(path, sequence)];
                for gap in &body[20..19 + usize::from(body[1])] {
                    sequence += u64::from(*gap);
                    members.push((path, sequence));
                }
                Block { members, came: 0 }
            });
            block.came += usize::from(self.came.contains(place));
        }
        blocks.into_values().collect()
    }

    /// Those of a block that did not come by themselves.
    pub(super) fn lost_of(&self, block: &Block) -> Vec<Place> {
        let lost = block.members.iter().filter(|place| !self.came.contains(place));
        lost.copied().collect()
    }

    /// What can be computed: what was lost of each block, if that is no more than parity came.
    pub(super) fn computable(&self) -> BTreeSet<Key> {
        let keys: BTreeMap<Place, Key> =
            self.sent.iter().map(|(key, sent)| (sent.place, *key)).collect();
        let blocks = self.blocks().into_iter().map(|block| (self.lost_of(&block), block.came));
        let whole = blocks.filter(|(lost, came)| lost.len() <= *came);
        whole.flat_map(|(lost, _)| lost).map(|place| keys[&place]).collect()
    }
}
