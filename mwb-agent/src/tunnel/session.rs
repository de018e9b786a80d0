//! A session at work: its slot in the maps, its keys by epoch, its paths. What is
//! written here is what packets meet at that moment; see `mwb_common::maps` for what
//! must not be seen together.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use bytemuck::Zeroable as _;
use mwb_common::integrity::Suite;
use mwb_common::integrity::seal::Sender;
use mwb_common::maps::{self, BOND_PATHS, bond_choice, bond_path_flag, session_flag};
use mwb_common::wire::Kind;

use super::carriers::Carriers;
use super::core::Core;
use super::estimate::Estimator;
use super::message::Newest;
use super::mtu;
use super::paths::Link;
use super::secure::{Envelope, Keys, Opened, Refused};
use super::share::Shares;
use crate::bond::lifetime::RENEW_AFTER;
use crate::bond::{Established, PublicKey, Running, SessionId};
use crate::config::Balance;
use crate::dataplane::{BondMaps, Error, monotonic};
use crate::hitless::resend::Ack;

/// Keys that an agent before us has made last so long at least: the handshake that
/// renews them must not find the bond taken down.
const GRACE: Duration = Duration::from_secs(30);

/// A session with its slot.
pub(super) struct Session {
    pub(super) slot: u32,
    pub(super) ours: SessionId,
    pub(super) theirs: SessionId,
    pub(super) suite: Suite,
    pub(super) peer: PublicKey,
    pub(super) paths: BTreeMap<u8, Link>,
    /// When the session began, or this process took it over.
    pub(super) since: Instant,
    pub(super) carriers: Carriers,
    /// What the gateway has said of each path last, of those that have left too: what was
    /// overtaken must not bring one back. Of a server's session only.
    pub(super) newest: BTreeMap<u8, Newest>,
    pub(super) shares: Shares,
    pub(super) estimator: Estimator,
    /// Among which paths elephants may be striped, as far as they were measured.
    pub(super) stripe: u32,
    /// The same for those whose losses are repaired.
    pub(super) repaired: u16,
    /// How much shorter inner packets are than the paths take, in bytes.
    pub(super) reserve: u32,
    /// The entry as it is in the map.
    pub(super) entry: maps::Session,
    /// Keys for messages, by parity: those that this process has made.
    pub(super) keys: [Option<Keys>; 2],
    /// When the keys of each parity were made, while there are some.
    pub(super) made: [Option<Instant>; 2],
    /// No keys are thrown away before this.
    pub(super) spared_until: Option<Instant>,
    /// Those that seal are older than they should be, and kept.
    pub(super) overdue: bool,
    /// The newest epoch of which a packet was opened.
    heard: Option<u32>,
    /// Packets of each path when the newest keys were made.
    pub(super) sent_before: BTreeMap<u8, u64>,
}

fn bit(epoch: u32) -> u8 {
    1 << (epoch & 1)
}

pub(super) fn parity(epoch: u32) -> usize {
    (epoch & 1) as usize
}

impl Session {
    /// A new session in a slot that is free, or whose session has ended. It is not there
    /// for packets before [`Session::present`].
    pub(super) fn install(
        maps: &BondMaps,
        slot: u32,
        peer: PublicKey,
        established: &Established,
        sender: Sender,
        flags: u8,
    ) -> Result<Self, Error> {
        maps.clear(slot)?;
        let now = Instant::now();
        let entry = maps::Session {
            ours: established.ours.get(),
            theirs: established.theirs.get(),
            mtu: mtu::LEAST_INNER,
            epoch: established.epoch,
            suite: established.suite as u8,
            sender: sender as u8,
            flags,
            choice: bond_choice::ARRIVAL,
            opens: bit(established.epoch),
            seals: parity(established.epoch) as u8,
            peer: *peer.bytes(),
            established: monotonic(),
            ..maps::Session::zeroed()
        };
        let mut session = Self {
            slot,
            ours: established.ours,
            theirs: established.theirs,
            suite: established.suite,
            peer,
            paths: BTreeMap::new(),
            since: now,
            carriers: Carriers::default(),
            newest: BTreeMap::new(),
            shares: Shares::default(),
            estimator: Estimator::new(),
            stripe: 0,
            repaired: 0,
            reserve: 0,
            entry,
            keys: [None, None],
            made: [None, None],
            spared_until: None,
            overdue: false,
            heard: None,
            sent_before: BTreeMap::new(),
        };
        session.take_keys(established, now);
        Ok(session)
    }

    /// From now on packets find it.
    pub(super) fn present(&mut self, maps: &BondMaps) -> Result<(), Error> {
        // A write is no one step for who reads meanwhile: first the keys.
        self.write(maps)?;
        self.entry.flags |= session_flag::PRESENT;
        self.write(maps)
    }

    /// Takes over what a process before us has left in a slot. Its keys are the kernel
    /// side's only: nothing is sealed here before new ones are made.
    pub(super) fn take_over(maps: &BondMaps, slot: u32) -> Result<Option<Self>, Error> {
        let entry = maps.session(slot)?;
        let ids = SessionId::new(entry.ours).zip(SessionId::new(entry.theirs));
        let suite = Suite::from_number(entry.suite);
        let peer = PublicKey::from_bytes(entry.peer).ok();
        let (Some((ours, theirs)), Some(suite), Some(peer)) = (ids, suite, peer) else {
            return Ok(None);
        };
        if entry.flags & session_flag::PRESENT == 0 || ours.get() % maps.slots() != slot {
            return Ok(None);
        }
        let now = Instant::now();
        let age = Duration::from_nanos(monotonic().saturating_sub(entry.established));
        let before = |age: Duration| Some(now.checked_sub(age).unwrap_or(now));
        let mut made = [None, None];
        let newest = parity(entry.epoch);
        if entry.opens & bit(entry.epoch) != 0 {
            made[newest] = before(age);
        }
        if entry.opens & bit(entry.epoch.wrapping_add(1)) != 0 {
            made[1 - newest] = before(age + RENEW_AFTER);
        }
        let heard = maps.session_state(slot)?.heard.checked_sub(1);
        let mut paths = BTreeMap::new();
        for path in 1..BOND_PATHS as u8 {
            let entry = maps.path(slot, path)?;
            if entry.flags & bond_path_flag::PRESENT != 0 {
                let state = maps.path_state(slot, path)?;
                paths.insert(path, Link { entry, state, ..Link::default() });
            }
        }
        Ok(Some(Self {
            slot,
            ours,
            theirs,
            suite,
            peer,
            paths,
            since: now,
            carriers: Carriers::inherited(),
            newest: BTreeMap::new(),
            shares: Shares::default(),
            estimator: Estimator::new(),
            stripe: 0,
            repaired: 0,
            reserve: 0,
            entry,
            keys: [None, None],
            made,
            spared_until: Some(now + GRACE),
            overdue: false,
            heard,
            sent_before: BTreeMap::new(),
        }))
    }

    pub(super) fn write(&self, maps: &BondMaps) -> Result<(), Error> {
        maps.set_session(self.slot, &self.entry)
    }

    fn sender(&self) -> Sender {
        if self.entry.sender == Sender::Initiator as u8 {
            Sender::Initiator
        } else {
            Sender::Responder
        }
    }

    fn take_keys(&mut self, established: &Established, now: Instant) {
        let Established { epoch, keys: [first, second], .. } = *established;
        let (seal, open) = match self.sender() {
            Sender::Initiator => (first, second),
            Sender::Responder => (second, first),
        };
        let place = parity(epoch);
        (self.entry.seal[place], self.entry.open[place]) = (seal, open);
        self.keys[place] = Some(Keys::new(epoch, self.sender(), established.message_keys()));
        self.made[place] = Some(now);
        self.overdue = false;
    }

    /// Takes new keys of the session. The end that asked seals with them at once.
    pub(super) fn renew(
        &mut self,
        maps: &BondMaps,
        established: &Established,
    ) -> Result<(), Error> {
        // What seals must be right whatever the kernel side makes of the epoch.
        self.settle(maps)?;
        let epoch = established.epoch;
        // No packet may be opened or sealed with half a key.
        self.entry.opens &= !bit(epoch);
        self.take_keys(established, Instant::now());
        self.write(maps)?;
        self.entry.epoch = epoch;
        self.entry.opens |= bit(epoch);
        self.entry.established = monotonic();
        if self.sender() == Sender::Initiator {
            self.entry.seals = parity(epoch) as u8;
        }
        let sent = self.paths.iter().map(|(path, link)| (*path, link.state.sent));
        self.sent_before = sent.collect();
        self.write(maps)
    }

    /// Writes down that the newest keys seal, if a packet was opened with them.
    fn settle(&mut self, maps: &BondMaps) -> Result<(), Error> {
        let newest = parity(self.entry.epoch) as u8;
        if self.heard == Some(self.entry.epoch) && self.entry.seals != newest {
            self.entry.seals = newest;
            self.write(maps)?;
        }
        Ok(())
    }

    /// Looks at what the kernel side has. Whether a packet of a newer epoch than before
    /// was opened.
    pub(super) fn look(&mut self, maps: &BondMaps) -> Result<bool, Error> {
        for (path, link) in &mut self.paths {
            link.state = maps.path_state(self.slot, *path)?;
            let now = monotonic();
            link.rate.take(now, link.state.sent_bytes);
            link.rate_in.take(now, link.state.received_bytes);
        }
        let heard = maps.session_state(self.slot)?.heard.checked_sub(1);
        self.hear(maps, heard)
    }

    fn hear(&mut self, maps: &BondMaps, epoch: Option<u32>) -> Result<bool, Error> {
        if epoch <= self.heard {
            return Ok(false);
        }
        self.heard = epoch;
        self.settle(maps)?;
        Ok(true)
    }

    /// Opens a control message. Beside it: whether it is the first packet of an epoch.
    pub(super) fn open(
        &mut self,
        maps: &BondMaps,
        envelope: Envelope,
        packet: &[u8],
    ) -> Result<Result<(Opened, bool), Refused>, Error> {
        let place = usize::from(envelope.parity & 1);
        let Some(keys) = &mut self.keys[place] else { return Ok(Err(Refused::UnknownEpoch)) };
        let epoch = keys.epoch;
        match keys.open(packet) {
            Ok(opened) => {
                let first = self.hear(maps, Some(epoch))?;
                Ok(Ok((opened, first)))
            }
            Err(refused) => Ok(Err(refused)),
        }
    }

    /// Seals a control message. None without keys that may seal.
    pub(super) fn seal(&mut self, path: u8, text: &[u8]) -> Option<Vec<u8>> {
        self.seal_as(Kind::Control, path, text)
    }

    fn seal_as(&mut self, kind: Kind, path: u8, text: &[u8]) -> Option<Vec<u8>> {
        let theirs = self.theirs;
        self.keys[self.sealing()].as_mut()?.seal(kind, theirs, path, text)
    }

    /// Says what came, by the two quickest paths: the one may have died a moment ago.
    pub(super) fn acknowledge(&mut self, core: &mut Core, ack: &Ack) {
        let now = monotonic();
        let lives = |link: &Link| link.is_alive(now) && !link.has(bond_path_flag::DOWN);
        let mut ways: Vec<_> = self
            .paths
            .iter()
            .filter(|(_, link)| lives(link))
            .map(|(path, link)| (link.state.rtt, *path, link.via(), link.remote()))
            .collect();
        ways.sort_unstable_by_key(|(rtt, path, ..)| (*rtt, *path));
        for (_, path, via, to) in ways.into_iter().take(2) {
            if let Some(packet) = self.seal_as(Kind::Ack, path, &ack.encode()) {
                core.send(via, to, &packet);
            }
        }
    }

    /// Number of the keys that seal.
    pub(super) fn sealing_epoch(&self) -> u32 {
        if self.sealing() == parity(self.entry.epoch) {
            self.entry.epoch
        } else {
            self.entry.epoch.wrapping_sub(1)
        }
    }

    /// Parity of the keys that seal.
    pub(super) fn sealing(&self) -> usize {
        if self.heard == Some(self.entry.epoch) {
            parity(self.entry.epoch)
        } else {
            usize::from(self.entry.seals & 1)
        }
    }

    /// Whether this process has made the newest keys: without them there are no messages.
    pub(super) fn has_keys(&self) -> bool {
        self.keys[parity(self.entry.epoch)].is_some()
    }

    /// Whether a packet of the session was opened.
    pub(super) fn is_heard(&self) -> bool {
        self.heard.is_some()
    }

    /// What a handshake goes on from: at the end that asks the newest keys, at the other
    /// the newest that a packet was opened with.
    pub(super) fn running(&self) -> Option<Running> {
        let epoch = match self.sender() {
            Sender::Initiator => self.entry.epoch,
            Sender::Responder => self.heard?,
        };
        Some(Running { ours: self.ours, theirs: self.theirs, epoch, suite: self.suite })
    }

    /// Whether its keys were made after those of another one.
    pub(super) fn is_newer_than(&self, other: &Self) -> bool {
        self.entry.established > other.entry.established
    }

    /// Number of the newest keys.
    pub(super) fn epoch(&self) -> u32 {
        self.entry.epoch
    }

    /// Largest inner packet that every path takes, in bytes.
    pub(super) fn mtu(&self) -> u32 {
        self.entry.mtu
    }

    /// Whether elephants go by the path and others.
    pub(super) fn is_striped(&self, path: u8) -> bool {
        // Without bit 0, that of turns, and those that are announced.
        let by = |stripe: u16| {
            let paths = stripe & !1;
            paths.count_ones() > 1 && paths >> path & 1 != 0
        };
        by(self.entry.stripe as u16) || by(self.entry.repaired)
    }

    /// How the gateway of the session wants packets to be shared; of a server's session.
    pub(super) fn balance(&self) -> Balance {
        let said = |(path, link): (&u8, &Link)| Some((self.newest.get(path)?, link.join?));
        let joins = self.paths.iter().filter_map(said);
        joins.max_by_key(|(newest, _)| *newest).map_or(Balance::Adaptive, |(_, join)| join.balance)
    }

    /// Ends it: the keys are wiped, the slot is free.
    pub(super) fn end(mut self, maps: &BondMaps) -> Result<(), Error> {
        self.entry = maps::Session::zeroed();
        maps.clear(self.slot)
    }

    /// How packets get their path.
    pub(super) fn set_choice(
        &mut self,
        maps: &BondMaps,
        choice: u8,
        (stripe, repaired): (u32, u16),
    ) -> Result<(), Error> {
        let before = (self.entry.choice, self.entry.stripe, self.entry.repaired);
        if before == (choice, stripe, repaired) {
            return Ok(());
        }
        (self.entry.choice, self.entry.stripe, self.entry.repaired) = (choice, stripe, repaired);
        self.write(maps)
    }
}

/// Keys do not outlive it.
impl Drop for Session {
    fn drop(&mut self) {
        self.entry = maps::Session::zeroed();
        std::hint::black_box(&self.entry);
    }
}

#[cfg(test)]
#[path = "session_tests.rs"]
mod tests;
