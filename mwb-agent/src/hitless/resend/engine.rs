//! The rules.

use super::ack::{Ack, LAST_PATH};
use super::budget::Budget;
use super::store::{Id, PACKET_COST, PLACE_COST, Place, State, Store};
use super::{Again, Settings, Statistics};

/// What is added to each wait, in ns: the agents of both ends are not the only ones that
/// want to run.
const MARGIN: u64 = 10_000_000;
/// The round trip of a path of which nothing is known, in ns.
const FIRST_ROUND_TRIP: u64 = 100_000_000;

/// What is known of a path.
#[derive(Clone, Copy, Debug, Default)]
struct Path {
    /// With the highest sequence.
    newest: Option<Ack>,
    /// Round trip and variation.
    rtt: Option<(u64, u64)>,
    /// The highest sequence of a packet that was sent by it.
    highest: u64,
    /// It is down; `highest` at the time.
    down: Option<u64>,
}

/// How a loss was found.
#[derive(Clone, Copy)]
enum Found {
    Gap,
    Time,
    PathDown,
}

/// The packets of one session. All times are in ns, of one clock; one that is earlier than
/// the latest told counts as that.
#[derive(Clone, Debug)]
pub struct Resend {
    settings: Settings,
    store: Store,
    budget: Budget,
    paths: [Path; LAST_PATH as usize + 1],
    /// The latest time told.
    clock: u64,
    /// When the far end's agent began to acknowledge, the last time.
    back_at: Option<u64>,
    /// When a packet was sent, the first since the last acknowledgement.
    unanswered_since: Option<u64>,
    counts: Statistics,
}

impl Resend {
    /// Nothing sent.
    #[must_use]
    pub fn new(settings: Settings) -> Self {
        Self {
            settings,
            store: Store::default(),
            budget: Budget::new(settings.budget_percent, settings.budget_burst),
            paths: [Path::default(); LAST_PATH as usize + 1],
            clock: 0,
            back_at: None,
            unanswered_since: None,
            counts: Statistics::default(),
        }
    }

    /// Takes in that a packet was sent by a path, 1 to 15, with this sequence of the path,
    /// counted from 1. One that is held is at a new place: its bytes are those that it had.
    /// What has another path or sequence is not looked at.
    #[expect(clippy::too_many_arguments, reason = "these are the fields of the kernel's copy")]
    pub fn sent(
        &mut self,
        path: u8,
        sequence: u64,
        bucket: u16,
        number: u32,
        inner: u8,
        bytes: &[u8],
        now: u64,
    ) {
        if !is_path(path) || sequence == 0 {
            return;
        }
        let now = self.look_at_clock(now);
        self.unanswered_since.get_or_insert(now);
        let (at, key) = (Place { path, sequence }, (bucket, number));
        if let Some(path) = self.paths.get_mut(usize::from(path)) {
            path.highest = path.highest.max(sequence);
        }
        if self.store.is_gone(key) {
            return;
        }
        let id = if self.store.find(key).is_some() {
            self.make_room(PLACE_COST);
            let Some(id) = self.store.find(key) else { return };
            self.store.move_to(id, at, now);
            id
        } else {
            self.counts.sent += 1;
            self.counts.sent_bytes += bytes.len() as u64;
            self.budget.earn(bytes.len());
            if !self.make_room(PACKET_COST + bytes.len()) {
                self.counts.forgotten += 1;
                return;
            }
            self.store.add(key, inner, bytes, at, now)
        };
        self.wait(id);
        let path = self.path(path);
        if path.newest.is_some_and(|ack| ack.says_taken(sequence)) {
            self.acknowledge(id);
        } else if path.down.is_some() {
            self.store.set_late(id);
        }
    }

    /// Takes an acknowledgement in. What is lost by it goes to the end of `out`. One with
    /// fields that cannot be is not looked at.
    pub fn acked(&mut self, ack: &Ack, now: u64, out: &mut Vec<Again>) {
        if ack.check().is_err() {
            return;
        }
        let now = self.look_at_clock(now);
        if self.is_away(now) {
            self.back_at = Some(now);
        }
        self.unanswered_since = None;
        let newest = self.take_newest(ack);
        let (mut taken, mut missing) = (Vec::new(), Vec::new());
        for (at, id) in self.store.sent_by(ack.path, ack.lowest()..=ack.highest) {
            if ack.says_taken(at.sequence) {
                taken.push(id);
            } else if newest
                && self.store.is_at(id, at)
                && ack.taken_above(at.sequence) >= self.settings.disorder
            {
                missing.push(id);
            }
        }
        for id in taken {
            self.acknowledge(id);
        }
        self.drop_expired(now);
        missing.retain(|id| self.lose(*id, Found::Gap, now));
        self.send_lost(&missing, now, out);
    }

    /// Whether the acknowledgement is none older than the newest of its path.
    fn take_newest(&mut self, ack: &Ack) -> bool {
        let Some(path) = self.paths.get_mut(usize::from(ack.path)) else { return false };
        // What was sent after the path went down has arrived.
        if path.down.is_some_and(|highest| ack.highest > highest) {
            path.down = None;
        }
        let newest = path.newest.get_or_insert(*ack);
        if ack.highest > newest.highest {
            *newest = *ack;
        }
        let is_newest = ack.highest == newest.highest;
        if is_newest {
            for (known, more) in newest.bits.iter_mut().zip(ack.bits) {
                *known |= more;
            }
        }
        is_newest
    }

    /// Says what the round trip of a path is, and how much it varies (RFC 6298: SRTT and
    /// RTTVAR), in ns. It counts for what waits already, too, if that makes its wait
    /// longer.
    pub fn rtt(&mut self, path: u8, rtt: u64, variation: u64) {
        if let Some(path) = self.paths.get_mut(usize::from(path)) {
            path.rtt = Some((rtt, variation));
        }
    }

    /// Says that a path is down. What was sent by it and is not acknowledged goes to the
    /// end of `out`, in the order of its sequences. A copy of what was sent by it before,
    /// and comes later, is given out by the next [`Resend::expire`], which is due at once.
    /// That ends with [`Resend::path_up`], or when something is acknowledged that was sent
    /// by it later.
    pub fn path_down(&mut self, path: u8, now: u64, out: &mut Vec<Again>) {
        let now = self.look_at_clock(now);
        self.drop_expired(now);
        let Some(state) = self.paths.get_mut(usize::from(path)) else { return };
        state.down = Some(state.highest);
        let sent: Vec<_> = self.store.sent_by(path, 0..=u64::MAX).collect();
        for (at, id) in sent {
            if self.store.is_at(id, at) {
                self.lose_with_path(id, now, out);
            }
        }
    }

    /// Says that a path is not down any more.
    pub fn path_up(&mut self, path: u8) {
        if let Some(path) = self.paths.get_mut(usize::from(path)) {
            path.down = None;
        }
    }

    /// Drops what is past its deadline. What is lost by time, and what waits for the budget
    /// and can be paid now, goes to the end of `out`. To be called when
    /// [`Resend::next_due`] says so.
    pub fn expire(&mut self, now: u64, out: &mut Vec<Again>) {
        let now = self.look_at_clock(now);
        self.drop_expired(now);
        for id in self.store.take_late() {
            let is_late = |path: u8| self.path(path).down.is_some();
            if self.store.get(id).is_some_and(|held| held.tries == 0 && is_late(held.at.path)) {
                self.lose_with_path(id, now, out);
            }
        }
        if self.is_away(now) {
            return;
        }
        let mut found = Vec::new();
        while let Some((due, id)) = self.store.first_due()
            && due <= now
        {
            // The round trip may be longer now than it was.
            self.wait(id);
            let still_due = self.store.first_due().is_some_and(|(due, at)| due <= now && at == id);
            if still_due && self.lose(id, Found::Time, now) {
                found.push(id);
            }
        }
        self.send_lost(&found, now, out);
    }

    /// When to call [`Resend::expire`] next: a time that may have passed, if at once. None
    /// if nothing is held.
    #[must_use]
    pub fn next_due(&self) -> Option<u64> {
        let deadline = self.store.oldest().map(|(_, held)| self.deadline(held.first));
        let mut at_once = self.store.has_late();
        let mut due = None;
        if !self.is_away(self.clock) {
            let paid = |(_, held): (Id, &super::store::Held)| self.budget.affords(held.bytes.len());
            at_once |= self.store.first_lost().is_some_and(paid);
            due = self.store.first_due().map(|(due, _)| due);
        }
        [deadline, due, at_once.then_some(self.clock)].into_iter().flatten().min()
    }

    /// Whether the far end's agent does not acknowledge.
    #[must_use]
    pub fn is_away(&self, now: u64) -> bool {
        let silent = |since: u64| now.saturating_sub(since) >= self.settings.silence;
        self.back_at.is_none() || self.unanswered_since.is_some_and(silent)
    }

    /// What has happened.
    #[must_use]
    pub fn statistics(&self) -> Statistics {
        let (held, held_bytes) = (self.store.len(), self.store.cost());
        Statistics { held, held_bytes, ..self.counts }
    }

    fn look_at_clock(&mut self, now: u64) -> u64 {
        self.clock = self.clock.max(now);
        self.store.clear_gone(self.clock);
        self.clock
    }

    fn path(&self, path: u8) -> Path {
        self.paths.get(usize::from(path)).copied().unwrap_or_default()
    }

    fn deadline(&self, first: u64) -> u64 {
        first.saturating_add(self.settings.deadline)
    }

    /// Forgets the oldest until there is room for so many bytes. False if there never is.
    fn make_room(&mut self, bytes: usize) -> bool {
        if bytes > self.settings.memory {
            return false;
        }
        while self.store.cost().saturating_add(bytes) > self.settings.memory {
            if let Some((id, _)) = self.store.oldest() {
                self.remove(id);
                self.counts.forgotten += 1;
            } else if !self.store.forget_gone() {
                return false;
            }
        }
        true
    }

    /// Ids that are kept elsewhere stay valid: they are never used twice.
    fn remove(&mut self, id: Id) -> bool {
        let until = self.clock.saturating_add(self.settings.deadline);
        self.store.remove(id, until).is_some()
    }

    fn acknowledge(&mut self, id: Id) {
        if self.remove(id) {
            self.counts.acknowledged += 1;
        }
    }

    fn drop_expired(&mut self, now: u64) {
        while let Some((id, held)) = self.store.oldest()
            && self.deadline(held.first) <= now
        {
            self.remove(id);
            self.counts.expired += 1;
        }
    }

    /// Says when the packet is lost by time if nothing is heard of it.
    fn wait(&mut self, id: Id) {
        let Some(held) = self.store.get(id) else { return };
        let (rtt, variation) = self.path(held.at.path).rtt.unwrap_or((FIRST_ROUND_TRIP, 0));
        let wait = [rtt, variation.saturating_mul(4), self.settings.ack_interval, MARGIN];
        let wait = wait.into_iter().fold(0, u64::saturating_add);
        let doubled = 1u64.checked_shl(held.tries.into()).unwrap_or(u64::MAX);
        let from = held.since.max(self.back_at.unwrap_or(0));
        self.store.set_due(id, Some(from.saturating_add(wait.saturating_mul(doubled))));
    }

    /// Takes in that a packet is lost, if that is not known. True if it is to go again.
    fn lose(&mut self, id: Id, found: Found, now: u64) -> bool {
        let Some(held) = self.store.get(id) else { return false };
        match (held.state, found) {
            (State::Sent, _) | (State::Given, Found::Time) => {}
            (State::Lost | State::Given | State::GivenUp, _) => return false,
        }
        let has_tries = held.tries < self.settings.tries;
        self.store.set(id, if has_tries { State::Lost } else { State::GivenUp }, now);
        match found {
            Found::Gap => self.counts.lost_by_gap += 1,
            Found::Time => self.counts.lost_by_time += 1,
            Found::PathDown => self.counts.lost_by_path_down += 1,
        }
        has_tries
    }

    /// The packet goes again without waiting, once at no cost.
    fn lose_with_path(&mut self, id: Id, now: u64, out: &mut Vec<Again>) {
        let found = self.lose(id, Found::PathDown, now);
        let Some(held) = self.store.get_mut(id).filter(|held| held.state == State::Lost) else {
            return;
        };
        let bytes = held.bytes.len();
        if !self.budget.spend(bytes) {
            if std::mem::replace(&mut held.went_free, true) {
                self.counts.refused += u64::from(found);
                return;
            }
            self.counts.free_bytes += bytes as u64;
        }
        self.give(id, now, out);
    }

    /// Gives out what waits, oldest first, as far as the budget allows. Of those that were
    /// found just now the others count as refused.
    fn send_lost(&mut self, found: &[Id], now: u64, out: &mut Vec<Again>) {
        while let Some((id, held)) = self.store.first_lost()
            && self.budget.spend(held.bytes.len())
        {
            self.give(id, now, out);
        }
        let waits = |id: &&Id| self.store.get(**id).is_some_and(|h| h.state == State::Lost);
        self.counts.refused += found.iter().filter(waits).count() as u64;
    }

    fn give(&mut self, id: Id, now: u64, out: &mut Vec<Again>) {
        let Some(held) = self.store.get_mut(id) else { return };
        held.tries += 1;
        held.awaited = held.awaited.saturating_add(1);
        let (bucket, number) = held.key;
        self.counts.again += 1;
        self.counts.again_bytes += held.bytes.len() as u64;
        out.push(Again {
            bucket,
            number,
            inner: held.inner,
            not_by: held.at.path,
            tries: held.tries,
            bytes: held.bytes.clone(),
        });
        self.store.set(id, State::Given, now);
        self.wait(id);
    }
}

fn is_path(path: u8) -> bool {
    (1..=LAST_PATH).contains(&path)
}
