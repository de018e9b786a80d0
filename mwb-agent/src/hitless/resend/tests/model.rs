//! The rules once more, without any table: each question looks at all packets. It has no
//! bounds of memory. A packet that was acknowledged stays, to catch that it goes again.

use std::collections::BTreeMap;

use super::*;

pub(super) type Key = (u16, u32);

pub(super) struct Packet {
    pub(super) bytes: Vec<u8>,
    pub(super) first: u64,
    pub(super) tries: u8,
    pub(super) proven: bool,
    order: usize,
    places: Vec<(u8, u64)>,
    since: u64,
    given: bool,
    waits: bool,
    given_up: bool,
    late: bool,
    went_free: bool,
}

pub(super) struct Model {
    settings: Settings,
    pub(super) packets: BTreeMap<Key, Packet>,
    newest: BTreeMap<u8, u64>,
    highest: BTreeMap<u8, u64>,
    down: BTreeMap<u8, u64>,
    rtt: BTreeMap<u8, u64>,
    back_at: Option<u64>,
    unanswered: Option<u64>,
    /// In hundredths.
    tokens: u64,
    pub(super) first_bytes: u64,
    pub(super) again_bytes: u64,
    pub(super) free_bytes: u64,
}

impl Model {
    pub(super) fn new(settings: Settings) -> Self {
        Self {
            settings,
            packets: BTreeMap::new(),
            newest: BTreeMap::new(),
            highest: BTreeMap::new(),
            down: BTreeMap::new(),
            rtt: BTreeMap::new(),
            back_at: None,
            unanswered: None,
            tokens: settings.budget_burst * 100,
            first_bytes: 0,
            again_bytes: 0,
            free_bytes: 0,
        }
    }

    pub(super) fn rtt(&mut self, path: u8, rtt: u64) {
        self.rtt.insert(path, rtt);
    }

    pub(super) fn sent(&mut self, path: u8, sequence: u64, key: Key, bytes: &[u8], now: u64) {
        self.unanswered.get_or_insert(now);
        let highest = self.highest.entry(path).or_default();
        *highest = sequence.max(*highest);
        let is_down = self.down.contains_key(&path);
        let order = self.packets.len();
        let packet = self.packets.entry(key).or_insert_with(|| {
            self.first_bytes += bytes.len() as u64;
            let earned = bytes.len() as u64 * u64::from(self.settings.budget_percent);
            self.tokens = (self.tokens + earned).min(self.settings.budget_burst * 100);
            Packet {
                bytes: bytes.to_vec(),
                first: now,
                tries: 0,
                proven: false,
                order,
                places: Vec::new(),
                since: now,
                given: false,
                waits: false,
                given_up: false,
                late: is_down,
                went_free: false,
            }
        });
        packet.places.push((path, sequence));
        (packet.since, packet.given, packet.waits, packet.given_up) = (now, false, false, false);
    }

    fn is_away(&self, now: u64) -> bool {
        let silent = |since| now - since >= self.settings.silence;
        self.back_at.is_none() || self.unanswered.is_some_and(silent)
    }

    /// Those that the rule of gaps, or of time, or of dead paths takes to be lost, of all
    /// that may go again, oldest first.
    fn lost(&self, now: u64, is_lost: impl Fn(&Packet, (u8, u64)) -> bool) -> Vec<Key> {
        let mut lost: Vec<_> = self
            .packets
            .iter()
            .filter(|(_, p)| !p.proven && !p.given_up && now < p.first + self.settings.deadline)
            .filter(|(_, p)| p.places.last().is_some_and(|at| is_lost(p, *at)))
            .map(|(key, p)| (p.order, *key))
            .collect();
        lost.sort_unstable();
        lost.into_iter().map(|(_, key)| key).collect()
    }

    pub(super) fn acked(&mut self, ack: &Ack, now: u64) -> Vec<Key> {
        if self.is_away(now) {
            self.back_at = Some(now);
        }
        self.unanswered = None;
        if self.down.get(&ack.path).is_some_and(|mark| ack.highest > *mark) {
            self.down.remove(&ack.path);
        }
        let newest = self.newest.entry(ack.path).or_default();
        let is_newest = ack.highest >= *newest;
        *newest = ack.highest.max(*newest);
        for packet in self.packets.values_mut() {
            let taken = |(path, sequence): &(u8, u64)| *path == ack.path && says(ack, *sequence);
            packet.proven |= packet.places.iter().any(taken);
        }
        let lost = self.lost(now, |packet, (path, sequence)| {
            let in_reach = sequence < ack.highest && sequence + REACH >= ack.highest;
            let above = (sequence + 1..=ack.highest).filter(|above| says(ack, *above)).count();
            let free = !packet.given && !packet.waits;
            let gap = above >= self.settings.disorder.max(1) as usize;
            is_newest && path == ack.path && in_reach && free && gap
        });
        self.wait_for_budget(lost);
        self.pay(now)
    }

    pub(super) fn expire(&mut self, now: u64) -> Vec<Key> {
        let late = self.lost(now, |packet, (path, _)| {
            packet.late && !packet.given && packet.tries == 0 && self.down.contains_key(&path)
        });
        for packet in self.packets.values_mut() {
            packet.late = false;
        }
        let mut out = self.give_with_path(late, now);
        if !self.is_away(now) {
            let lost = self.lost(now, |packet, (path, _)| {
                let wait = self.rtt.get(&path).map_or(100 * MS, |rtt| *rtt);
                let wait = (wait + self.settings.ack_interval + 10 * MS) << packet.tries;
                let from = packet.since.max(self.back_at.unwrap_or_default());
                !packet.waits && from + wait <= now
            });
            self.wait_for_budget(lost);
            out.extend(self.pay(now));
        }
        out
    }

    pub(super) fn path_down(&mut self, path: u8, now: u64) -> Vec<Key> {
        self.down.insert(path, self.highest.get(&path).copied().unwrap_or_default());
        let mut lost = self.lost(now, |packet, at| at.0 == path && !packet.given);
        lost.sort_by_key(|key| self.packets.get(key).and_then(|p| p.places.last().copied()));
        self.give_with_path(lost, now)
    }

    pub(super) fn path_up(&mut self, path: u8) {
        self.down.remove(&path);
    }

    fn wait_for_budget(&mut self, lost: Vec<Key>) {
        for key in lost {
            self.packets.entry(key).and_modify(|packet| {
                packet.given_up = packet.tries == self.settings.tries;
                packet.waits = !packet.given_up;
            });
        }
    }

    fn pay(&mut self, now: u64) -> Vec<Key> {
        let mut out = Vec::new();
        for key in self.lost(now, |packet, _| packet.waits) {
            let cost = self.packets.get(&key).map_or(0, |packet| packet.bytes.len() as u64 * 100);
            if cost > self.tokens {
                break;
            }
            self.tokens -= cost;
            self.give(key, now);
            out.push(key);
        }
        out
    }

    fn give_with_path(&mut self, lost: Vec<Key>, now: u64) -> Vec<Key> {
        self.wait_for_budget(lost.clone());
        let mut out = Vec::new();
        for key in lost {
            let Some(packet) = self.packets.get_mut(&key).filter(|p| p.waits) else { continue };
            let bytes = packet.bytes.len() as u64;
            if bytes * 100 <= self.tokens {
                self.tokens -= bytes * 100;
            } else if std::mem::replace(&mut packet.went_free, true) {
                continue;
            } else {
                self.free_bytes += bytes;
            }
            self.give(key, now);
            out.push(key);
        }
        out
    }

    fn give(&mut self, key: Key, now: u64) {
        self.packets.entry(key).and_modify(|packet| {
            (packet.given, packet.waits, packet.since) = (true, false, now);
            packet.tries += 1;
            self.again_bytes += packet.bytes.len() as u64;
        });
    }
}

/// Whether the acknowledgement says that this was taken.
fn says(ack: &Ack, sequence: u64) -> bool {
    match ack.highest.checked_sub(sequence) {
        Some(0) => true,
        Some(behind @ 1..=REACH) => {
            ack.bits[(behind as usize - 1) / 64] >> ((behind - 1) % 64) & 1 != 0
        }
        _ => false,
    }
}
