//! What one bank of the tables says, as numbers of sets, and which numbers to take so
//! that little has to be written: a table's entry keeps the number that it has wherever
//! it can, and what changes is what the number stands for. Must not know: rules.

use alloc::boxed::Box;
use alloc::collections::BTreeMap;
use alloc::vec;
use alloc::vec::Vec;

use super::prefixes::{Key, key};
use super::rows::{Contents, Run};
use super::write::{TooMuch, Write};
use super::{
    PLACES_PER_ENTRY, POLICY_BANKS, POLICY_RULES, POLICY_SETS, PolicyMac, PolicyPlaces, PolicyRule,
    PolicyState, RuleBits, Side, place, space,
};

/// Sets of prefixes.
pub(super) type Table<const N: usize> = BTreeMap<Key<N>, u16>;

/// The tables of a bank.
#[derive(Clone, Debug)]
pub(super) struct Bank {
    pub(super) places: Vec<u16>,
    pub(super) macs: BTreeMap<[u8; 6], u16>,
    /// By side.
    pub(super) prefixes4: [Table<4>; 2],
    pub(super) prefixes6: [Table<16>; 2],
    pub(super) rules: Vec<PolicyRule>,
    /// What each number stands for, whether it is used or not.
    sets: Vec<RuleBits>,
    /// Numbers that are used, by what they stand for: of a bank that was made here.
    numbers: BTreeMap<RuleBits, u16>,
    /// How many prefixes and groups use a number; no count of those that others use too.
    used: BTreeMap<u16, usize>,
    /// Where the search for a free number begins: one that was given back lately may
    /// still be in the hands of a packet.
    next: u16,
}

impl Default for Bank {
    fn default() -> Self {
        Self {
            places: vec![0; place::ALL as usize],
            macs: BTreeMap::new(),
            prefixes4: [Table::new(), Table::new()],
            prefixes6: [Table::new(), Table::new()],
            rules: Vec::new(),
            sets: Vec::new(),
            numbers: BTreeMap::new(),
            used: BTreeMap::new(),
            next: 0,
        }
    }
}

impl Bank {
    pub(super) fn bits(&self, set: u16) -> RuleBits {
        self.sets.get(usize::from(set)).copied().unwrap_or(RuleBits::NONE)
    }

    /// Makes it say what it must. `number` is the bank's own.
    pub(super) fn become_that(
        &mut self,
        number: u32,
        contents: &Contents,
    ) -> Result<Vec<Write>, TooMuch> {
        let four = contents.prefixes4.each_ref().map(|prefixes| prefixes.all());
        let six = contents.prefixes6.each_ref().map(|prefixes| prefixes.all());
        let mut members: Vec<(&RuleBits, Option<u16>)> = Vec::new();
        for (first, _, bits) in &contents.runs {
            members.push((bits, self.places.get(*first as usize).copied()));
        }
        for (all, table) in four.iter().zip(&self.prefixes4) {
            members.extend(all.iter().map(|(key, bits)| (bits, table.get(key).copied())));
        }
        for (all, table) in six.iter().zip(&self.prefixes6) {
            members.extend(all.iter().map(|(key, bits)| (bits, table.get(key).copied())));
        }
        for (mac, bits) in &contents.macs {
            members.push((bits, self.macs.get(mac).copied()));
        }
        let numbers = numbered(&members)?;
        let of = |bits: &RuleBits| numbers.get(bits).copied().unwrap_or_default();

        let mut writes = Vec::new();
        for (bits, set) in &numbers {
            if self.bits(*set) != *bits {
                writes.push(set_write(number, *set, bits));
            }
        }
        let mut places = self.places.clone();
        for (first, last, bits) in &contents.runs {
            if let Some(places) = places.get_mut(*first as usize..=*last as usize) {
                places.fill(of(bits));
            }
        }
        self.compare_places(number, &places, &mut writes);
        for mac in self.macs.keys().filter(|mac| !contents.macs.contains_key(*mac)) {
            writes.push(mac_write(number, *mac, None));
        }
        for (mac, bits) in &contents.macs {
            if self.macs.get(mac) != Some(&of(bits)) {
                writes.push(mac_write(number, *mac, Some(of(bits))));
            }
        }
        for side in [Side::Source, Side::Destination] {
            let at = side as usize;
            let space = space(number, side);
            let wanted = four[at].iter().map(|(key, bits)| (*key, of(bits))).collect();
            compare(space, &self.prefixes4[at], &wanted, write4, &mut writes);
            let wanted = six[at].iter().map(|(key, bits)| (*key, of(bits))).collect();
            compare(space, &self.prefixes6[at], &wanted, write6, &mut writes);
        }
        for (at, rule) in (0..).zip(&contents.rules) {
            if self.rules.get(at as usize) != Some(rule) {
                let entry = number * POLICY_RULES as u32 + at;
                writes.push(Write::Rule { entry, rule: *rule });
            }
        }
        for write in &writes {
            self.note(write);
        }
        self.numbers = numbers;
        self.recount(&contents.runs);
        Ok(writes)
    }

    fn compare_places(&self, number: u32, wanted: &[u16], writes: &mut Vec<Write>) {
        let entries = (place::ALL as usize / PLACES_PER_ENTRY) as u32;
        let pairs = wanted.chunks(PLACES_PER_ENTRY).zip(self.places.chunks(PLACES_PER_ENTRY));
        for (at, (wanted, present)) in (0..).zip(pairs) {
            if wanted != present {
                let mut sets = [0; PLACES_PER_ENTRY];
                sets.iter_mut().zip(wanted).for_each(|(set, wanted)| *set = *wanted);
                let places = PolicyPlaces { sets };
                writes.push(Write::Places { entry: number * entries + at, places });
            }
        }
    }

    /// Counts by whom numbers are used. Places that nobody asks for do not.
    fn recount(&mut self, asked: &[Run]) {
        let mut used = BTreeMap::new();
        for set in self.prefixes4.iter().flat_map(Table::values) {
            *used.entry(*set).or_insert(0) += 1;
        }
        for set in self.prefixes6.iter().flat_map(Table::values) {
            *used.entry(*set).or_insert(0) += 1;
        }
        for set in self.places.iter().skip(place::GROUP as usize) {
            *used.entry(*set).or_insert(0) += 1;
        }
        // Nothing gives these back.
        let fixed = asked.iter().filter(|(first, ..)| *first < place::GROUP);
        let fixed = fixed.filter_map(|(first, ..)| self.places.get(*first as usize));
        for set in fixed.chain(self.macs.values()) {
            used.insert(*set, usize::MAX / 2);
        }
        self.used = used;
    }

    /// Makes a place say what it must.
    pub(super) fn revise(
        &mut self,
        number: u32,
        place: u32,
        bits: &RuleBits,
    ) -> Result<Vec<Write>, TooMuch> {
        let Some(&before) = self.places.get(place as usize) else { return Ok(vec![]) };
        let mut writes = Vec::new();
        let set = match self.numbers.get(bits) {
            Some(set) => *set,
            None => {
                let set = self.free(self.next).ok_or(TooMuch::Sets { count: POLICY_SETS + 1 })?;
                self.next = following(set);
                self.numbers.insert(*bits, set);
                writes.push(set_write(number, set, bits));
                set
            }
        };
        if set != before {
            let first = place as usize / PLACES_PER_ENTRY * PLACES_PER_ENTRY;
            let mut sets = [0; PLACES_PER_ENTRY];
            sets.iter_mut().zip(self.places.iter().skip(first)).for_each(|(to, from)| *to = *from);
            sets[place as usize % PLACES_PER_ENTRY] = set;
            let entries = place::ALL / PLACES_PER_ENTRY as u32;
            let entry = number * entries + place / PLACES_PER_ENTRY as u32;
            writes.push(Write::Places { entry, places: PolicyPlaces { sets } });
            *self.used.entry(set).or_insert(0) += 1;
            self.give_back(before);
        }
        for write in &writes {
            self.note(write);
        }
        Ok(writes)
    }

    fn give_back(&mut self, set: u16) {
        let Some(count) = self.used.get_mut(&set) else { return };
        *count -= 1;
        if *count == 0 {
            self.used.remove(&set);
            self.numbers.retain(|_, number| *number != set);
        }
    }

    /// A number that nothing uses, from one on.
    fn free(&self, from: u16) -> Option<u16> {
        let mut set = from;
        for _ in 0..POLICY_SETS {
            if !self.used.contains_key(&set) {
                return Some(set);
            }
            set = following(set);
        }
        None
    }

    /// Has a write done to it.
    fn note(&mut self, write: &Write) {
        match write {
            Write::Set { entry, bits } => {
                let at = *entry as usize % POLICY_SETS;
                if self.sets.len() <= at {
                    self.sets.resize(at + 1, RuleBits::NONE);
                }
                self.sets[at] = **bits;
            }
            Write::Places { entry, places } => {
                let entries = place::ALL as usize / PLACES_PER_ENTRY;
                let first = *entry as usize % entries * PLACES_PER_ENTRY;
                if let Some(present) = self.places.get_mut(first..first + PLACES_PER_ENTRY) {
                    present.copy_from_slice(&places.sets);
                }
            }
            Write::Mac { mac, set } => put(&mut self.macs, mac.mac, *set),
            Write::Prefix4 { space, address, length, set } => {
                put(&mut self.prefixes4[(space % 2) as usize], key(*address, *length), *set);
            }
            Write::Prefix6 { space, address, length, set } => {
                put(&mut self.prefixes6[(space % 2) as usize], key(*address, *length), *set);
            }
            Write::Rule { entry, rule } => {
                let at = *entry as usize % POLICY_RULES;
                if self.rules.len() <= at {
                    self.rules.resize(at + 1, PolicyRule::default());
                }
                self.rules[at] = *rule;
            }
            Write::State(_) => {}
        }
    }
}

/// What the tables say: both banks, and which one counts.
#[derive(Clone, Debug, Default)]
pub struct Image {
    pub(super) state: PolicyState,
    pub(super) banks: [Bank; POLICY_BANKS],
}

impl Image {
    /// Has a write done to it. What an agent before us has left in the tables is read by
    /// noting each entry.
    pub fn note(&mut self, write: &Write) {
        let banks = POLICY_BANKS as u32;
        let bank = match write {
            Write::Set { entry, .. } => entry / POLICY_SETS as u32,
            Write::Places { entry, .. } => entry / (place::ALL / PLACES_PER_ENTRY as u32),
            Write::Mac { mac, .. } => u32::from(mac.bank),
            Write::Prefix4 { space, .. } | Write::Prefix6 { space, .. } => space / 2,
            Write::Rule { entry, .. } => entry / POLICY_RULES as u32,
            Write::State(state) => {
                self.state = PolicyState { bank: state.bank % banks as u8, ..*state };
                return;
            }
        };
        self.banks[(bank % banks) as usize].note(write);
    }

    /// What is in use.
    #[must_use]
    pub fn state(&self) -> PolicyState {
        self.state
    }
}

fn put<K: Ord>(table: &mut BTreeMap<K, u16>, key: K, set: Option<u16>) {
    match set {
        Some(set) => drop(table.insert(key, set)),
        None => drop(table.remove(&key)),
    }
}

fn following(set: u16) -> u16 {
    if usize::from(set) + 1 >= POLICY_SETS { 0 } else { set + 1 }
}

/// A number for each different set: the one that a member has had, if it is free.
fn numbered(members: &[(&RuleBits, Option<u16>)]) -> Result<BTreeMap<RuleBits, u16>, TooMuch> {
    let mut numbers: BTreeMap<RuleBits, u16> = BTreeMap::new();
    let mut taken = vec![false; POLICY_SETS];
    for (bits, before) in members {
        if let Some(before) = before
            && let Some(taken) = taken.get_mut(usize::from(*before)).filter(|taken| !**taken)
            && !numbers.contains_key(*bits)
        {
            *taken = true;
            numbers.insert(**bits, *before);
        }
    }
    let mut free = (0..).zip(taken).filter(|(_, taken)| !taken).map(|(number, _)| number);
    let mut over = 0;
    for (bits, _) in members {
        if !numbers.contains_key(*bits) {
            match free.next() {
                Some(number) => drop(numbers.insert(**bits, number)),
                None => over += 1,
            }
        }
    }
    if over > 0 { Err(TooMuch::Sets { count: POLICY_SETS + over }) } else { Ok(numbers) }
}

/// The difference of two prefix tables; what goes first makes room.
fn compare<const N: usize>(
    space: u32,
    present: &Table<N>,
    wanted: &Table<N>,
    write: fn(u32, &Key<N>, Option<u16>) -> Write,
    writes: &mut Vec<Write>,
) {
    let gone = present.keys().filter(|key| !wanted.contains_key(*key));
    writes.extend(gone.map(|key| write(space, key, None)));
    let new = wanted.iter().filter(|(key, set)| present.get(*key) != Some(*set));
    writes.extend(new.map(|(key, set)| write(space, key, Some(*set))));
}

fn set_write(bank: u32, set: u16, bits: &RuleBits) -> Write {
    Write::Set { entry: bank * POLICY_SETS as u32 + u32::from(set), bits: Box::new(*bits) }
}

fn mac_write(bank: u32, mac: [u8; 6], set: Option<u16>) -> Write {
    Write::Mac { mac: PolicyMac { mac, bank: bank.to_le_bytes()[0], reserved: 0 }, set }
}

fn write4(space: u32, &(address, length): &Key<4>, set: Option<u16>) -> Write {
    Write::Prefix4 { space, address, length, set }
}

fn write6(space: u32, &(address, length): &Key<16>, set: Option<u16>) -> Write {
    Write::Prefix6 { space, address, length, set }
}
