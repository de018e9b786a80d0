//! The maps of the bond, typed: settings, sessions, their paths and what the kernel
//! side keeps of them. Cheap to clone and free of locks: forwarding and the control
//! loop wait for nobody who reads or writes here.
//!
//! Who writes what is said in `mwb_common::maps`; of what is the kernel side's this
//! only zeroes, and only in a slot whose session is not there.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex};

use aya::maps::lpm_trie::LpmTrie;
use aya::maps::{Array, IterableMap as _, MapData, PerCpuArray};
use bytemuck::Zeroable as _;
use ipnet::IpNet;
use mwb_common::classes::{CLASS_RULES, ClassCount, ClassRule, InUse};
use mwb_common::maps::{
    BOND_PATHS, BUCKETS, Bond, BondPath, Bucket, GuardedFlowWindow, GuardedPathWindow,
    GuardedTurns, Owner, PathState, Selection, Session, SessionState, bucket_index, names,
    path_index,
};
use mwb_common::turns::Turns;
use mwb_common::window::PathWindow;

use super::batch::Table;
use super::error::Error;
use super::handed::HandedRing;
use super::maps::take;
use super::tables::table;

/// Key of a prefix table of `N - 4` bytes of address: the length in bits, of this
/// machine's byte order, then the address.
type PrefixKey<const N: usize> = [u8; N];

/// Handles of the bond's maps.
#[derive(Clone)]
pub struct BondMaps {
    inner: Arc<Inner>,
}

struct Inner {
    bond: Table<u32, Bond>,
    classes: Table<u32, ClassRule>,
    class_counts: Table<u32, ClassCount>,
    sessions: Table<u32, Session>,
    states: Table<u32, SessionState>,
    selections: Table<u32, Selection>,
    paths: Table<u32, BondPath>,
    path_states: Table<u32, PathState>,
    path_windows: Table<u32, GuardedPathWindow>,
    flow_windows: Table<u32, GuardedFlowWindow>,
    buckets: Table<u32, Bucket>,
    turns: Table<u32, GuardedTurns>,
    lease: Table<u32, u64>,
    handed: Arc<Mutex<HandedRing>>,
    owners4: Table<PrefixKey<8>, Owner>,
    owners6: Table<PrefixKey<20>, Owner>,
}

impl BondMaps {
    pub(super) fn take(object: &mut aya::Ebpf) -> Result<Self, Error> {
        fn array<V: bytemuck::Pod + aya::Pod>(
            object: &mut aya::Ebpf,
            name: &'static str,
        ) -> Result<Table<u32, V>, Error> {
            let map: Array<MapData, V> = take(object, name)?;
            table(map.map(), name, 1)
        }
        let cpus = aya::util::nr_cpus().map_err(|(path, source)| Error::Cpus { path, source })?;
        let counts: PerCpuArray<MapData, ClassCount> = take(object, names::CLASS_COUNTS)?;
        let owners4: LpmTrie<MapData, [u8; 4], Owner> = take(object, names::OWNERS4)?;
        let owners6: LpmTrie<MapData, [u8; 16], Owner> = take(object, names::OWNERS6)?;
        Ok(Self {
            inner: Arc::new(Inner {
                bond: array(object, names::BOND)?,
                classes: array(object, names::CLASSES)?,
                class_counts: table(counts.map(), names::CLASS_COUNTS, cpus)?,
                sessions: array(object, names::SESSIONS)?,
                states: array(object, names::SESSION_STATES)?,
                selections: array(object, names::SESSION_SELECTIONS)?,
                paths: array(object, names::BOND_PATHS)?,
                path_states: array(object, names::PATH_STATES)?,
                path_windows: array(object, names::PATH_WINDOWS)?,
                flow_windows: array(object, names::FLOW_WINDOWS)?,
                buckets: array(object, names::BUCKETS)?,
                turns: array(object, names::TURNS)?,
                lease: array(object, names::LEASE)?,
                handed: Arc::new(Mutex::new(HandedRing::take(object)?)),
                owners4: table(owners4.map(), names::OWNERS4, 1)?,
                owners6: table(owners6.map(), names::OWNERS6, 1)?,
            }),
        })
    }

    /// How many session slots there are, a power of two.
    #[must_use]
    pub fn slots(&self) -> u32 {
        self.inner.sessions.capacity()
    }

    /// The settings; zeros in a fresh map.
    ///
    /// # Errors
    /// When the kernel refuses to read.
    pub fn bond(&self) -> Result<Bond, Error> {
        get(&self.inner.bond, 0)
    }

    /// Writes the settings.
    ///
    /// # Errors
    /// When the kernel refuses the write.
    pub fn set_bond(&self, bond: &Bond) -> Result<(), Error> {
        self.inner.bond.put(&0, bond)
    }

    /// Makes these the rules of classes, if they are others: a packet meets the old ones or
    /// the new ones. What a rule has counted stays while it is at its place.
    ///
    /// # Errors
    /// When the kernel refuses the write, or there are too many.
    pub fn set_classes(&self, rules: &[ClassRule]) -> Result<(), Error> {
        let bond = self.bond()?;
        let before = InUse(bond.rules);
        let old = self.classes(before)?;
        if old == rules {
            return Ok(());
        }
        let now = before.next(u8::try_from(rules.len()).unwrap_or(u8::MAX));
        for (index, rule) in (now.first()..).zip(rules).take(CLASS_RULES) {
            self.inner.classes.put(&index, rule)?;
        }
        self.set_bond(&Bond { rules: now.0, ..bond })?;
        // What else was counted was of other rules.
        let stays =
            |at: usize| matches!((old.get(at), rules.get(at)), (Some(a), Some(b)) if a.is_same(b));
        let all_stay = old.len() == rules.len() && (0..rules.len()).all(stays);
        for index in 0..self.inner.class_counts.capacity() {
            if !all_stay && !stays(index as usize) {
                self.inner.class_counts.clear(&index)?;
            }
        }
        Ok(())
    }

    /// What so many rules of classes have counted, and behind them what none has matched.
    ///
    /// # Errors
    /// When the kernel refuses to read.
    pub fn class_counts(&self, count: u8) -> Result<Vec<ClassCount>, Error> {
        let mut all = vec![ClassCount::default(); CLASS_RULES + 1];
        self.inner.class_counts.for_each(|&index, lanes| {
            if let Some(all) = all.get_mut(index as usize) {
                for lane in lanes {
                    all.packets += lane.packets;
                    all.bytes += lane.bytes;
                }
            }
        })?;
        let rest = all.pop();
        all.truncate(usize::from(count));
        all.extend(rest);
        Ok(all)
    }

    /// The rules of classes in use.
    ///
    /// # Errors
    /// When the kernel refuses to read.
    pub fn classes(&self, rules: InUse) -> Result<Vec<ClassRule>, Error> {
        let entries = rules.first()..rules.first() + rules.count();
        entries.map(|index| get(&self.inner.classes, index)).collect()
    }

    /// The session in a slot; zeros if there is none.
    ///
    /// # Errors
    /// When the kernel refuses to read.
    pub fn session(&self, slot: u32) -> Result<Session, Error> {
        get(&self.inner.sessions, slot)
    }

    /// Writes a session, in one update. A packet that comes meanwhile may see part of
    /// each: what must not be seen together takes two updates.
    ///
    /// # Errors
    /// When there is no such slot, or the kernel refuses the write.
    pub fn set_session(&self, slot: u32, session: &Session) -> Result<(), Error> {
        self.inner.sessions.put(&slot, session)
    }

    /// What the kernel side keeps of a session.
    ///
    /// # Errors
    /// When the kernel refuses to read.
    pub fn session_state(&self, slot: u32) -> Result<SessionState, Error> {
        get(&self.inner.states, slot)
    }

    /// Writes what the kernel side would have written: for tests without its programs.
    ///
    /// # Errors
    /// When the kernel refuses the write.
    #[cfg(test)]
    pub(crate) fn set_session_state(&self, slot: u32, state: &SessionState) -> Result<(), Error> {
        self.inner.states.put(&slot, state)
    }

    /// Writes a session's slot table.
    ///
    /// # Errors
    /// When the kernel refuses the write.
    pub fn set_selection(&self, slot: u32, selection: &Selection) -> Result<(), Error> {
        self.inner.selections.put(&slot, selection)
    }

    /// A session's slot table.
    ///
    /// # Errors
    /// When the kernel refuses to read.
    pub fn selection(&self, slot: u32) -> Result<Selection, Error> {
        get(&self.inner.selections, slot)
    }

    /// A path of a session; zeros if there is none.
    ///
    /// # Errors
    /// When the kernel refuses to read.
    pub fn path(&self, slot: u32, path: u8) -> Result<BondPath, Error> {
        get(&self.inner.paths, path_index(slot, path))
    }

    /// Writes a path of a session.
    ///
    /// # Errors
    /// When the kernel refuses the write.
    pub fn set_path(&self, slot: u32, path: u8, entry: &BondPath) -> Result<(), Error> {
        self.inner.paths.put(&path_index(slot, path), entry)
    }

    /// What the kernel side keeps of a path.
    ///
    /// # Errors
    /// When the kernel refuses to read.
    pub fn path_state(&self, slot: u32, path: u8) -> Result<PathState, Error> {
        get(&self.inner.path_states, path_index(slot, path))
    }

    /// Writes what the kernel side keeps of a path: for test runs.
    ///
    /// # Errors
    /// When the kernel refuses the write.
    pub fn put_path_state(&self, slot: u32, path: u8, state: &PathState) -> Result<(), Error> {
        self.inner.path_states.put(&path_index(slot, path), state)
    }

    /// What has been seen of a path.
    ///
    /// # Errors
    /// When the kernel refuses to read.
    pub fn path_window(&self, slot: u32, path: u8) -> Result<PathWindow, Error> {
        let table = &self.inner.path_windows;
        Ok(get(table, path_index(slot, path))?.window)
    }

    /// What the kernel side keeps of a bucket.
    ///
    /// # Errors
    /// When the kernel refuses to read.
    pub fn bucket(&self, slot: u32, bucket: u16) -> Result<Bucket, Error> {
        get(&self.inner.buckets, bucket_index(slot, bucket))
    }

    /// Says until when the agent takes packets that are ahead of their turn, in ns.
    ///
    /// # Errors
    /// When the kernel refuses the write.
    pub fn set_lease(&self, until: u64) -> Result<(), Error> {
        self.inner.lease.put(&0, &until)
    }

    /// Where the kernel side hands them over.
    #[must_use]
    pub fn handed(&self) -> Arc<Mutex<HandedRing>> {
        Arc::clone(&self.inner.handed)
    }

    /// Writes what the turns of a bucket are at: for test runs.
    ///
    /// # Errors
    /// When the kernel refuses the write.
    pub fn put_turns(&self, slot: u32, bucket: u16, turns: &Turns) -> Result<(), Error> {
        let guarded = GuardedTurns { turns: *turns, ..GuardedTurns::default() };
        self.inner.turns.put(&bucket_index(slot, bucket), &guarded)
    }

    /// What the turns of a bucket are at.
    ///
    /// # Errors
    /// When the kernel refuses to read.
    pub fn turns(&self, slot: u32, bucket: u16) -> Result<Turns, Error> {
        Ok(get(&self.inner.turns, bucket_index(slot, bucket))?.turns)
    }

    /// The buckets of a session that a flow has opened, by number.
    ///
    /// # Errors
    /// When the kernel refuses to read.
    pub fn buckets(&self, slot: u32) -> Result<Vec<(u16, Bucket)>, Error> {
        let first = bucket_index(slot, 0);
        let mut opened = Vec::new();
        self.inner.buckets.for_each(|index, buckets| {
            let number = index.checked_sub(first).and_then(|number| u16::try_from(number).ok());
            let number = number.filter(|number| usize::from(*number) < BUCKETS);
            let used = buckets.first().filter(|bucket| bucket.opened != 0);
            opened.extend(number.zip(used.copied()));
        })?;
        Ok(opened)
    }

    /// Takes a session away and forgets all that was known of it: its keys, its paths,
    /// sequences and windows. The slot is free afterwards.
    ///
    /// # Errors
    /// When the kernel refuses a write.
    pub fn clear(&self, slot: u32) -> Result<(), Error> {
        // First of all the session: nothing is counted any more that is zeroed next.
        self.inner.sessions.put(&slot, &Session::zeroed())?;
        self.inner.states.put(&slot, &SessionState::zeroed())?;
        for path in 0..BOND_PATHS as u8 {
            self.forget_path(slot, path)?;
        }
        let first = bucket_index(slot, 0);
        for index in first..first + BUCKETS as u32 {
            self.inner.buckets.put(&index, &Bucket::zeroed())?;
            self.inner.flow_windows.put(&index, &GuardedFlowWindow::zeroed())?;
            self.inner.turns.put(&index, &GuardedTurns::zeroed())?;
        }
        Ok(())
    }

    fn forget_path(&self, slot: u32, path: u8) -> Result<(), Error> {
        let index = path_index(slot, path);
        self.inner.paths.put(&index, &BondPath::zeroed())?;
        self.inner.path_states.put(&index, &PathState::zeroed())?;
        self.inner.path_windows.put(&index, &GuardedPathWindow::zeroed())
    }

    /// Makes the tables of inner addresses hold exactly these, by applying the
    /// difference: what stays is never away.
    ///
    /// # Errors
    /// When there are too many, or the kernel refuses a write.
    pub fn set_owners(&self, owners: &BTreeMap<IpNet, u32>) -> Result<(), Error> {
        let mut wanted4 = BTreeMap::new();
        let mut wanted6 = BTreeMap::new();
        for (net, &slot) in owners {
            let length = u32::from(net.prefix_len()).to_ne_bytes();
            match net.network() {
                IpAddr::V4(address) => {
                    let mut key = [0; 8];
                    key[..4].copy_from_slice(&length);
                    key[4..].copy_from_slice(&address.octets());
                    wanted4.insert(key, Owner { slot });
                }
                IpAddr::V6(address) => {
                    let mut key = [0; 20];
                    key[..4].copy_from_slice(&length);
                    key[4..].copy_from_slice(&address.octets());
                    wanted6.insert(key, Owner { slot });
                }
            }
        }
        apply(&self.inner.owners4, &wanted4)?;
        apply(&self.inner.owners6, &wanted6)
    }

    /// How many prefixes have an owner, of IPv4 and of IPv6.
    ///
    /// # Errors
    /// When the kernel refuses to read.
    pub fn owners(&self) -> Result<[usize; 2], Error> {
        Ok([self.inner.owners4.count()?, self.inner.owners6.count()?])
    }
}

fn get<V: bytemuck::Pod>(table: &Table<u32, V>, index: u32) -> Result<V, Error> {
    Ok(table.get(&index)?.unwrap_or_else(V::zeroed))
}

/// What is new comes before what is old goes.
fn apply<const N: usize>(
    table: &Table<PrefixKey<N>, Owner>,
    wanted: &BTreeMap<PrefixKey<N>, Owner>,
) -> Result<(), Error> {
    let mut present = BTreeMap::new();
    table.for_each(|key, owners| present.extend(owners.first().map(|owner| (*key, *owner))))?;
    for (key, owner) in wanted.iter().filter(|(key, owner)| present.get(*key) != Some(owner)) {
        table.put(key, owner)?;
    }
    let gone: Vec<PrefixKey<N>> =
        present.into_keys().filter(|key| !wanted.contains_key(key)).collect();
    table.remove(&gone).map(drop)
}

#[cfg(test)]
#[path = "bond_tests.rs"]
mod tests;
