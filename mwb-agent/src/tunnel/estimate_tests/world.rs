//! A bond in one direction, in events: links, the kernel side of the sender as it is
//! meant to be, probes, and the far end, which puts packets that have a turn in order. The
//! way back has the delay and the loss of each link, and no queue. Times in ns.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, VecDeque};

use mwb_common::maps::{ANNOUNCED, BondPath, PathState, bond_path_flag};
use mwb_common::select::arrival::{Choice, Chosen, Facts, Flow, Weight, busy};

use super::super::{Estimator, PathFacts, Verdict};
use super::order::Order;
use super::tcp::{Receiver, Sender};

pub(super) const MS: u64 = 1_000_000;
pub(super) const SECOND: u64 = 1_000 * MS;
/// Bytes of a TCP segment, inside and outside.
const SEGMENT: u32 = 1_400;
const OUTER: u32 = SEGMENT + 120;
const PROBE: u32 = 140;
const DEAD_AFTER: u64 = 150 * MS;
/// 5 Mbit/s.
const ELEPHANT: u32 = 62_500;

#[derive(Clone, Copy)]
pub(super) struct Packet {
    flow: usize,
    number: u64,
    sent_at: u64,
    kind: Kind,
    bytes: u32,
    /// Its number in its bucket, if it has a turn.
    turn: Option<u32>,
}

/// A flow of TCP.
struct Tcp {
    sender: Sender,
    receiver: Receiver,
    flow: Flow,
    weight: Weight,
    /// Packets of it that were sent.
    sequence: u32,
    /// When its timer is due.
    armed: u64,
}

#[derive(Clone, Copy, PartialEq)]
enum Kind {
    Data,
    Probe,
    Train,
    Small,
}

pub(super) struct Link {
    /// bit/s.
    pub(super) rate: u64,
    pub(super) delay: u64,
    pub(super) loss: f64,
    /// How much the delay varies, evenly.
    pub(super) jitter: u64,
    limit: u64,
    /// Nothing leaves before this.
    stalled_until: u64,
    waiting: VecDeque<(u64, Packet)>,
    queued: u64,
    taken: (u64, u64),
    /// When the last packet arrives: jitter lets none overtake.
    last: u64,
}

enum Event {
    Probe,
    Tick,
    /// The first of a link's queue has left.
    Left(usize),
    Arrived(usize, u64, Packet),
    Replied(usize, Box<PathState>, bool),
    Acked(usize, super::tcp::Ack),
    Timer(usize),
    Start(usize),
    /// So many more segments of a flow are there, and again after so long.
    Supply(usize, u64, u64),
    /// Something that was held may be due.
    Due,
    Change(usize, u64),
    Stall(u64),
    Small,
}

pub(super) struct World {
    now: u64,
    events: BinaryHeap<Reverse<(u64, u64, usize)>>,
    bodies: Vec<Option<Event>>,
    pub(super) links: Vec<Link>,
    paths: Vec<(BondPath, PathState)>,
    stripe: u32,
    estimator: Estimator,
    pub(super) verdict: Verdict,
    /// The operator has said what the links carry, and truly.
    pub(super) typed: bool,
    /// The operator says so of each, in Mbit/s.
    pub(super) says: Option<u64>,
    flows: Vec<Tcp>,
    /// The far end's; none if it does not put packets in order.
    order: Option<Order>,
    /// The path of a small flow, and how long each of its packets was on its way.
    small: Flow,
    pub(super) delays: Vec<u64>,
    seed: u64,
}

impl World {
    /// Links of rate in Mbit/s, delay in ms and loss, each with a queue of 100 ms.
    pub(super) fn new(links: &[(u64, u64, f64)]) -> Self {
        let link = |&(mbit, delay, loss): &(u64, u64, f64)| Link {
            rate: mbit * 1_000_000,
            delay: delay * MS,
            loss,
            jitter: 0,
            stalled_until: 0,
            limit: mbit * 1_000_000 / 8 / 10,
            waiting: VecDeque::new(),
            queued: 0,
            taken: (0, 0),
            last: 0,
        };
        let path = BondPath { flags: bond_path_flag::PRESENT, ..BondPath::default() };
        let mut world = Self {
            now: 0,
            events: BinaryHeap::new(),
            bodies: Vec::new(),
            links: links.iter().map(link).collect(),
            paths: vec![(path, PathState::default()); links.len()],
            stripe: 0,
            estimator: Estimator::new(),
            verdict: Verdict::default(),
            typed: false,
            says: None,
            flows: Vec::new(),
            order: Some(Order::new()),
            small: Flow { path: 0, pause: 0, elephant: false },
            delays: Vec::new(),
            seed: 0x1234_5678_9abc_def1,
        };
        world.at(SECOND, Event::Probe);
        world.at(SECOND, Event::Tick);
        world
    }

    fn at(&mut self, time: u64, event: Event) {
        self.events.push(Reverse((time, self.bodies.len() as u64, self.bodies.len())));
        self.bodies.push(Some(event));
    }

    /// The far end gives packets on as they come, and has said so.
    pub(super) fn keeps_no_order(&mut self) {
        self.order = None;
        self.estimator.set_hold(0);
    }

    /// A flow of TCP that has all to send, from then on.
    pub(super) fn start(&mut self, at: u64) {
        self.add(Sender::new(u64::MAX));
        self.at(at, Event::Start(self.flows.len() - 1));
    }

    /// A flow of TCP that has so many Mbit/s to send, from then on.
    pub(super) fn start_slow(&mut self, at: u64, mbit: u64) {
        self.add(Sender::new(0));
        let every = u64::from(SEGMENT) * 8_000 / mbit;
        // As an application writes: every other millisecond.
        let segments = (2 * MS).div_ceil(every);
        self.at(at, Event::Supply(self.flows.len() - 1, segments, segments * every));
    }

    fn add(&mut self, sender: Sender) {
        self.flows.push(Tcp {
            sender,
            receiver: Receiver::default(),
            flow: Flow { path: 0, pause: 0, elephant: false },
            weight: Weight::default(),
            sequence: 0,
            armed: 0,
        });
    }

    /// A link has another rate from then on, in Mbit/s.
    pub(super) fn change(&mut self, at: u64, link: usize, mbit: u64) {
        self.at(at, Event::Change(link, mbit * 1_000_000));
    }

    /// From now on links stall again and again, each for up to so long: as a busy machine
    /// between the ends makes them.
    pub(super) fn stalls(&mut self, most: u64) {
        self.at(self.now, Event::Stall(most));
    }

    fn stall(&mut self, most: u64) {
        for index in 0..self.links.len() {
            let (happens, part) = (self.random() < 0.5, self.random());
            if happens {
                self.links[index].stalled_until = self.now + (part * most as f64) as u64;
            }
        }
        let gap = (self.random() * 400.0) as u64 * MS;
        self.at(self.now + gap, Event::Stall(most));
    }

    /// Inner bytes that the flows have delivered in order.
    pub(super) fn delivered(&self) -> u64 {
        self.flows.iter().map(|flow| flow.receiver.next() * u64::from(SEGMENT)).sum()
    }

    /// Mbit/s from now on until then.
    pub(super) fn goodput(&mut self, until: u64) -> f64 {
        let (then, before) = (self.now, self.delivered());
        self.run(until);
        (self.delivered() - before) as f64 * 8e3 / (self.now - then) as f64
    }

    pub(super) fn run(&mut self, until: u64) {
        while let Some(&Reverse((time, _, body))) = self.events.peek() {
            if time > until {
                break;
            }
            self.events.pop();
            self.now = time;
            if let Some(event) = self.bodies[body].take() {
                self.happen(event);
            }
        }
        self.now = until;
    }

    fn random(&mut self) -> f64 {
        self.seed ^= self.seed << 13;
        self.seed ^= self.seed >> 7;
        self.seed ^= self.seed << 17;
        (self.seed >> 11) as f64 / (1u64 << 53) as f64
    }

    fn happen(&mut self, event: Event) {
        let now = self.now;
        match event {
            Event::Probe => {
                for path in 0..self.links.len() {
                    self.probe(path, PROBE, Kind::Probe);
                }
                self.at(now + 50 * MS, Event::Probe);
            }
            Event::Tick => {
                self.tick();
                self.at(now + 100 * MS, Event::Tick);
            }
            Event::Left(link) => self.left(link),
            Event::Arrived(link, path_number, packet) => self.arrived(link, path_number, packet),
            Event::Replied(path, reply, sized) => {
                let state = &mut self.paths[path].1;
                if reply.reply_sequence > state.reply_sequence {
                    state.alive_until = now + DEAD_AFTER;
                    state.reply_at = now;
                    state.reply_sent_at = reply.reply_sent_at;
                    state.reply_received_at = reply.reply_received_at;
                    state.reply_sequence = reply.reply_sequence;
                    state.reply_packets = reply.reply_packets;
                    state.reply_bytes = reply.reply_bytes;
                }
                if sized {
                    state.sized_at = now;
                }
            }
            Event::Acked(flow, ack) => {
                self.flows[flow].sender.acked(now, ack);
                self.pump(flow);
            }
            Event::Timer(flow) => {
                self.flows[flow].sender.timer(now);
                self.pump(flow);
            }
            Event::Start(flow) => self.pump(flow),
            Event::Supply(flow, segments, every) => {
                self.flows[flow].sender.supply(segments);
                self.pump(flow);
                self.at(now + every, Event::Supply(flow, segments, every));
            }
            Event::Due => {
                let released = self.order.as_mut().map(|order| order.expire(now));
                self.give_on(released.unwrap_or_default());
            }
            Event::Stall(most) => self.stall(most),
            Event::Small => self.small(),
            Event::Change(link, rate) => self.links[link].rate = rate,
        }
    }

    fn pump(&mut self, flow: usize) {
        while let Some(number) = self.flows[flow].sender.next(self.now) {
            let sent_at = self.now;
            let packet =
                Packet { flow, number, sent_at, kind: Kind::Data, bytes: OUTER, turn: None };
            self.send(packet);
        }
        let Tcp { sender, armed, .. } = &mut self.flows[flow];
        let due = sender.due();
        if due != *armed {
            *armed = due;
            self.at(due.max(self.now), Event::Timer(flow));
        }
    }

    fn send(&mut self, mut packet: Packet) {
        let now = self.now;
        let tcp = &mut self.flows[packet.flow];
        tcp.weight = tcp.weight.count(now, SEGMENT, ELEPHANT);
        tcp.sequence += 1;
        let (flow, elephant, number) = (tcp.flow, tcp.weight.elephant, tcp.sequence);
        let chosen = self.choose(flow, elephant, packet.bytes);
        packet.turn = chosen.striped.then_some(number);
        self.flows[packet.flow].flow = Flow { path: chosen.path, pause: now, elephant: false };
        self.enter(usize::from(chosen.path) - 1, packet);
    }

    /// Chooses for a packet of a flow. `pause` of flows that are kept is when it was sent.
    fn choose(&mut self, flow: Flow, elephant: bool, bytes: u32) -> Chosen {
        let now = self.now;
        let how = Flow { elephant, pause: now - flow.pause, ..flow };
        let mut choice = Choice::new(now, self.stripe, how);
        for (id, (path, state)) in (1..).zip(&self.paths) {
            choice.consider(id, bytes, &Facts::of(path, state));
        }
        choice.decide()
    }

    /// A small flow, of 50 packets a second from now on.
    pub(super) fn talks(&mut self) {
        self.at(self.now, Event::Small);
    }

    fn small(&mut self) {
        let sent_at = self.now;
        let path = self.choose(self.small, false, 300).path;
        self.small = Flow { path, pause: sent_at, elephant: false };
        let kind = Kind::Small;
        let packet = Packet { flow: 0, number: 0, sent_at, kind, bytes: 300, turn: None };
        self.enter(usize::from(path) - 1, packet);
        self.at(self.now + 20 * MS, Event::Small);
    }

    fn probe(&mut self, path: usize, bytes: u32, kind: Kind) {
        let sent_at = self.now;
        let is_striped = self.stripe >> ANNOUNCED >> (path + 1) & 1 != 0;
        let turn = is_striped.then_some(0);
        self.enter(path, Packet { flow: 0, number: 0, sent_at, kind, bytes, turn });
    }

    fn enter(&mut self, path: usize, packet: Packet) {
        let (entry, state) = &mut self.paths[path];
        state.sent += 1;
        state.sent_bytes += u64::from(packet.bytes);
        let byte_time = entry.byte_time;
        state.busy_until = busy(self.now, state.busy_until, packet.bytes, byte_time);
        let number = state.sent;
        let link = &mut self.links[path];
        if link.queued + u64::from(packet.bytes) > link.limit {
            return;
        }
        link.queued += u64::from(packet.bytes);
        link.waiting.push_back((number, packet));
        if link.waiting.len() == 1 {
            let took = u64::from(packet.bytes) * 8 * SECOND / link.rate;
            self.at(self.now + took, Event::Left(path));
        }
    }

    fn left(&mut self, index: usize) {
        let (lost, vary) = (self.random(), self.random());
        let now = self.now;
        let link = &mut self.links[index];
        if link.stalled_until > now {
            let then = link.stalled_until;
            return self.at(then, Event::Left(index));
        }
        let Some((number, packet)) = link.waiting.pop_front() else { return };
        link.queued -= u64::from(packet.bytes);
        if lost >= link.loss {
            let jitter = (link.jitter as f64 * vary) as u64;
            link.last = link.last.max(now + link.delay + jitter);
            let last = link.last;
            self.at(last, Event::Arrived(index, number, packet));
        }
        let link = &self.links[index];
        if let Some((_, next)) = link.waiting.front() {
            let took = u64::from(next.bytes) * 8 * SECOND / link.rate;
            self.at(now + took, Event::Left(index));
        }
    }

    fn arrived(&mut self, index: usize, path_number: u64, packet: Packet) {
        let now = self.now;
        let lost = self.random();
        let link = &mut self.links[index];
        link.taken = (link.taken.0 + 1, link.taken.1 + u64::from(packet.bytes));
        let back = now + link.delay;
        if let Some(order) = self.order.as_mut().filter(|_| packet.kind == Kind::Probe) {
            order.probed(index, now, packet.sent_at, packet.turn.is_some());
        }
        if packet.kind == Kind::Data {
            let order = self.order.as_mut().zip(packet.turn);
            let released = match order {
                Some((order, turn)) => {
                    let path = index as u8 + 1;
                    order.take(now, path, (packet.flow, turn), (packet.number, packet.sent_at))
                }
                None => vec![(packet.flow, packet.number, packet.sent_at)],
            };
            self.give_on(released);
        } else if packet.kind == Kind::Small {
            self.delays.push(now - packet.sent_at);
        } else if lost >= link.loss {
            let reply = PathState {
                reply_sent_at: packet.sent_at,
                // Another clock, 40 ppm fast.
                reply_received_at: 77 * SECOND + now + now / 25_000,
                reply_sequence: path_number,
                reply_packets: link.taken.0,
                reply_bytes: link.taken.1,
                ..PathState::default()
            };
            let sized = packet.kind == Kind::Train;
            self.at(back, Event::Replied(index, Box::new(reply), sized));
        }
    }

    /// To the receivers: flow, number and time of each packet.
    fn give_on(&mut self, packets: Vec<(usize, u64, u64)>) {
        // Acknowledgements are a small flow: by the shortest path.
        let shortest = self.links.iter().map(|link| link.delay).min().unwrap_or(0);
        for (flow, number, sent_at) in packets {
            let ack = self.flows[flow].receiver.take(number, sent_at);
            self.at(self.now + shortest, Event::Acked(flow, ack));
        }
        if let Some(due) = self.order.as_mut().and_then(Order::arm) {
            self.at(due.max(self.now), Event::Due);
        }
    }

    fn tick(&mut self) {
        let facts: Vec<PathFacts> = (1u8..)
            .zip(self.paths.iter().zip(&self.links))
            .map(|(path, ((_, state), link))| PathFacts {
                path,
                state: *state,
                capacity: self
                    .typed
                    .then_some(link.limit * 80)
                    .or(self.says.map(|mbit| mbit * 1_000_000)),
                usable: true,
            })
            .collect();
        self.verdict = self.estimator.update(self.now, &facts);
        self.stripe = self.verdict.stripe;
        for verdict in &self.verdict.paths {
            let entry = &mut self.paths[usize::from(verdict.path) - 1].0;
            entry.byte_time = verdict.byte_time;
            entry.delay = verdict.delay;
            entry.striped_delay = verdict.striped_delay;
            let parked = if verdict.parked.is_some() { bond_path_flag::PARKED } else { 0 };
            entry.flags = bond_path_flag::PRESENT | parked;
        }
        if let Some(train) = self.verdict.train {
            for _ in 0..train.probes {
                self.probe(usize::from(train.path) - 1, OUTER, Kind::Train);
            }
            let bytes = u64::from(train.probes) * u64::from(OUTER);
            self.estimator.sent_train(train.path, self.now, bytes);
        }
    }
}
