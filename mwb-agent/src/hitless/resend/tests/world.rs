//! A sender, paths that lose and delay, a receiver whose acknowledgements are lost and
//! overtake each other. The engine under test and the model are shown the same, and have
//! to say the same.

use std::collections::{BTreeMap, BTreeSet};

use super::model::{Key, Model};
use super::*;

/// A path. Times are in µs, losses in thousandths.
#[derive(Clone, Debug)]
pub(super) struct Link {
    pub(super) delay: u64,
    pub(super) jitter: u64,
    pub(super) loss: u64,
    pub(super) ack_loss: u64,
}

enum Event {
    Send,
    Copy(u8, u64, Key),
    Arrive(u8, u64, Option<Key>),
    SayTaken,
    AckArrives(Ack),
    Down(u8),
    Up(u8),
}

/// Small numbers that look like chance.
pub(super) struct Chance(pub(super) u64);

impl Chance {
    pub(super) fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        (self.0 >> 33) % bound.max(1)
    }
}

pub(super) struct World {
    engine: Resend,
    pub(super) model: Model,
    settings: Settings,
    links: Vec<Link>,
    chance: Chance,
    events: BTreeMap<(u64, u64), Event>,
    serial: u64,
    now: u64,
    sequences: [u64; 16],
    taken: [BTreeSet<u64>; 16],
    dead: BTreeSet<u8>,
    to_send: u32,
    last_sent: u64,
    pub(super) delivered: BTreeSet<Key>,
}

impl World {
    pub(super) fn new(settings: Settings, links: Vec<Link>, to_send: u32, seed: u64) -> Self {
        let mut world = Self {
            engine: Resend::new(settings),
            model: Model::new(settings),
            settings,
            links,
            chance: Chance(seed),
            events: BTreeMap::new(),
            serial: 0,
            now: 0,
            sequences: [0; 16],
            taken: Default::default(),
            dead: BTreeSet::new(),
            to_send,
            last_sent: 0,
            delivered: BTreeSet::new(),
        };
        for (path, link) in (1..).zip(&world.links) {
            let rtt = (2 * link.delay + link.jitter) * 1_000;
            world.engine.rtt(path, rtt, 0);
            world.model.rtt(path, rtt);
        }
        world.at(0, Event::Send);
        world.at(0, Event::SayTaken);
        world
    }

    /// A path dies, and comes back. Times are in µs.
    pub(super) fn dies(&mut self, path: u8, at: u64, time: u64) {
        if usize::from(path) <= self.links.len() {
            self.at(at, Event::Down(path));
            self.at(at + time, Event::Up(path));
        }
    }

    /// Runs to the end. What is wrong is said.
    pub(super) fn run(&mut self) -> Result<Statistics, String> {
        loop {
            let event = self.events.first_key_value().map(|((at, _), _)| *at);
            let due = self.engine.next_due().map(|due| due.max(self.now));
            match (event, due) {
                (None, None) => break,
                (_, Some(due)) if event.is_none_or(|event| due <= event) => {
                    self.now = due;
                    let mut out = Vec::new();
                    self.engine.expire(due, &mut out);
                    let expected = self.model.expire(due);
                    self.send_again(&out, &expected, "time")?;
                    let done = self.engine.next_due().is_none_or(|next| next > due);
                    done.then_some(()).ok_or("it is due again at once")?;
                }
                _ => {
                    if let Some(((at, _), event)) = self.events.pop_first() {
                        self.now = at;
                        self.happens(event)?;
                    }
                }
            }
        }
        Ok(self.engine.statistics())
    }

    fn at(&mut self, micros: u64, event: Event) {
        self.serial += 1;
        self.events.insert((self.now + micros * 1_000, self.serial), event);
    }

    fn happens(&mut self, event: Event) -> Result<(), String> {
        let (mut out, now) = (Vec::new(), self.now);
        match event {
            Event::Send => self.send_next(),
            Event::Copy(path, sequence, key) => {
                let bytes = content(key);
                self.engine.sent(path, sequence, key.0, key.1, 6, &bytes, now);
                self.model.sent(path, sequence, key, &bytes, now);
                self.check()?;
            }
            Event::Arrive(path, sequence, key) => {
                if !self.dead.contains(&path) {
                    self.taken[usize::from(path)].insert(sequence);
                    self.delivered.extend(key);
                }
            }
            Event::SayTaken => self.say_taken(),
            Event::AckArrives(ack) => {
                let ack = Ack::decode(&ack.encode()).map_err(|error| error.to_string())?;
                self.engine.acked(&ack, now, &mut out);
                let expected = self.model.acked(&ack, now);
                self.send_again(&out, &expected, "gap")?;
            }
            Event::Down(path) => {
                self.dead.insert(path);
                self.engine.path_down(path, now, &mut out);
                let expected = self.model.path_down(path, now);
                self.send_again(&out, &expected, "path down")?;
            }
            Event::Up(path) => {
                self.dead.remove(&path);
                self.engine.path_up(path);
                self.model.path_up(path);
            }
        }
        Ok(())
    }

    fn send_next(&mut self) {
        if self.to_send > 0 {
            self.to_send -= 1;
            self.last_sent = self.now;
            let key = ((self.to_send % 3) as u16, self.to_send);
            self.send(Some(key), 0);
            // One of another class, or a probe.
            if self.chance.below(4) == 0 {
                self.send(None, 0);
            }
            let pause = if self.chance.below(100) == 0 { 100_000 } else { 2_000 };
            let after = self.chance.below(pause);
            self.at(after, Event::Send);
        }
    }

    /// The kernel's part: takes a path, and another one than this if there is one.
    fn send(&mut self, key: Option<Key>, not_by: u8) {
        let all = 1..=self.links.len() as u8;
        let other: Vec<u8> =
            all.clone().filter(|path| *path != not_by && !self.dead.contains(path)).collect();
        let paths = if other.is_empty() { all.collect() } else { other };
        let path = paths[self.chance.below(paths.len() as u64) as usize];
        let sequence = self.sequences[usize::from(path)] + 1;
        self.sequences[usize::from(path)] = sequence;
        if let Some(key) = key {
            let after = self.chance.below(200);
            self.at(after, Event::Copy(path, sequence, key));
        }
        let link = self.links[usize::from(path) - 1].clone();
        if self.chance.below(1_000) >= link.loss {
            let after = link.delay + self.chance.below(link.jitter);
            self.at(after, Event::Arrive(path, sequence, key));
        }
    }

    /// The receiver's part.
    fn say_taken(&mut self) {
        for path in 1..=self.links.len() as u8 {
            let taken = &self.taken[usize::from(path)];
            let Some(highest) = taken.last() else { continue };
            let ack = of(path, *highest, |sequence| taken.contains(&sequence));
            let link = self.links[usize::from(path) - 1].clone();
            for _ in 0..1 + self.chance.below(2) {
                if self.chance.below(1_000) >= link.ack_loss {
                    let after = link.delay + self.chance.below(3 * link.jitter);
                    self.at(after, Event::AckArrives(ack));
                }
            }
        }
        // Up to a second after the last packet.
        if self.now < self.last_sent + 1_000 * MS {
            self.at(self.settings.ack_interval / 1_000, Event::SayTaken);
        }
    }

    /// What the engine has said is what the model says.
    fn send_again(&mut self, out: &[Again], expected: &[Key], why: &str) -> Result<(), String> {
        let said: Vec<Key> = out.iter().map(|again| (again.bucket, again.number)).collect();
        let same = said == expected;
        same.then_some(()).ok_or(format!("{why}: {said:?} is not {expected:?}"))?;
        for again in out {
            let key = (again.bucket, again.number);
            let packet = self.model.packets.get(&key).ok_or("no such packet")?;
            let right = *again.bytes == *packet.bytes
                && again.inner == 6
                && again.tries == packet.tries
                && again.tries <= self.settings.tries
                && !packet.proven
                && self.now < packet.first + self.settings.deadline;
            right.then_some(()).ok_or(format!("{why}: {again:?}"))?;
            self.send(Some(key), again.not_by);
        }
        self.check()
    }

    /// What always holds.
    fn check(&self) -> Result<(), String> {
        let is = self.engine.statistics();
        let percent = u64::from(self.settings.budget_percent);
        let paid = (is.again_bytes - is.free_bytes) * 100;
        let holds = is.sent == is.acknowledged + is.expired + is.forgotten + is.held as u64
            && is.held_bytes <= self.settings.memory
            && is.sent_bytes == self.model.first_bytes
            && is.again_bytes == self.model.again_bytes
            && is.free_bytes == self.model.free_bytes
            && is.free_bytes <= is.sent_bytes
            && paid <= self.settings.budget_burst * 100 + is.sent_bytes * percent;
        holds.then_some(()).ok_or(format!("{is:?}"))
    }
}

/// The bytes of a packet, 20 to 319 of them.
fn content(key: Key) -> Vec<u8> {
    let mut chance = Chance(u64::from(key.1) << 16 | u64::from(key.0));
    let length = 20 + chance.below(300);
    (0..length).map(|_| chance.below(256) as u8).collect()
}
