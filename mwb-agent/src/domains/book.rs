//! Addresses of the names that rules ask for, for as long as answers say. Each address is of
//! a *group*, which stands for the set of names it has, so that a new address is one write
//! and a change of rules none. Pure: what is to be written is returned, in its order. Must
//! not know: rules, where a message came from.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::IpAddr;

use mwb_common::policy::{NameBits, Named, POLICY_ADDRESSES, POLICY_GROUPS, POLICY_NAMES};

use super::answer::Answer;
use super::entries::{Change, Found, Learned, Listed, following, from_key, hash, in_turn, to_key};
use crate::config::Domain;

const SECOND: u64 = 1_000_000_000;
/// Shortest time that an address is good for, in ns: browsers and others keep one for up to
/// a minute, whatever the answer says, and connect only then.
const LEAST: u64 = 60 * SECOND;
/// Longest, in ns: an answer may say years, and nobody ever take it back.
const MOST: u64 = 86_400 * SECOND;

/// What is known of an address.
#[derive(Clone, Debug)]
struct Known {
    /// Until when it is of each name, by the name's number.
    until: BTreeMap<u16, u64>,
    group: u16,
    name: Option<String>,
}

impl Known {
    fn names(&self) -> NameBits {
        let mut bits = NameBits::NONE;
        self.until.keys().for_each(|number| bits.add(usize::from(*number)));
        bits
    }

    /// When the first of its names is over.
    fn due(&self) -> u64 {
        self.until.values().copied().min().unwrap_or_default()
    }

    /// When the last one is.
    fn last(&self) -> u64 {
        self.until.values().copied().max().unwrap_or_default()
    }
}

/// The addresses. Times are in ns of the monotonic clock.
#[derive(Debug, Default)]
pub struct Book {
    /// Numbers of names, by their hash.
    numbers: BTreeMap<u64, u16>,
    exact: HashMap<String, u16>,
    below: HashMap<String, u16>,
    /// Where the search for a number begins: rules may still ask for one that has gone.
    next_name: u16,
    groups: BTreeMap<u16, (NameBits, usize)>,
    by_names: BTreeMap<NameBits, u16>,
    /// The same: a packet may have one in its hands.
    next_group: u16,
    known: BTreeMap<IpAddr, Known>,
    /// Addresses by when the first of their names is over.
    due: BTreeSet<(u64, IpAddr)>,
    pushed_out: u64,
    refused: u64,
}

impl Book {
    /// With what an agent before us has left.
    #[must_use]
    pub fn found(found: &Found, now: u64) -> (Self, Vec<Change>) {
        let mut book = Self::default();
        for (number, hash) in (0..).zip(&found.names).filter(|(_, hash)| **hash != 0) {
            book.numbers.insert(*hash, number);
            book.next_name = following(number, POLICY_NAMES);
        }
        let numbers: Vec<u16> = book.numbers.values().copied().collect();
        let mut changes = Vec::new();
        for (address, named) in &found.addresses {
            let bits = found.groups.get(usize::from(named.group_at(now)));
            let has = |number: &&u16| bits.is_some_and(|bits| bits.has(usize::from(**number)));
            let until: BTreeMap<u16, u64> =
                numbers.iter().filter(has).map(|number| (*number, named.until())).collect();
            if until.is_empty() {
                changes.push(Change::Gone(*address));
                continue;
            }
            let group = named.group();
            let known = Known { until, group, name: None };
            let names = known.names();
            book.groups.entry(group).or_insert((names, 0)).1 += 1;
            book.by_names.insert(names, group);
            book.next_group = group;
            let ip = from_key(*address);
            book.due.insert((known.due(), ip));
            book.known.insert(ip, known);
        }
        (book, changes)
    }

    /// Makes these the names that rules ask for. Addresses of those that stay are kept.
    pub fn follow(&mut self, domains: &[&Domain]) -> Vec<Change> {
        let mut changes = Vec::new();
        let wanted: BTreeSet<u64> = domains.iter().map(|domain| hash(domain)).collect();
        let gone: BTreeSet<u16> = self
            .numbers
            .iter()
            .filter(|(hash, _)| !wanted.contains(*hash))
            .map(|(_, number)| *number)
            .collect();
        if !gone.is_empty() {
            let all: Vec<IpAddr> = self.known.keys().copied().collect();
            for address in all {
                self.revise(address, &mut changes, |known| {
                    known.until.retain(|number, _| !gone.contains(number));
                });
            }
            self.numbers.retain(|_, number| !gone.contains(number));
            changes.extend(gone.into_iter().map(|number| Change::Name(number, 0)));
        }
        (self.exact, self.below) = (HashMap::new(), HashMap::new());
        for domain in domains {
            let Some(number) = self.number(hash(domain), &mut changes) else { continue };
            let names = if domain.below { &mut self.below } else { &mut self.exact };
            names.insert(domain.name.clone(), number);
        }
        changes
    }

    /// The number of a name that rules ask for.
    #[must_use]
    pub fn number_of(&self, domain: &Domain) -> Option<u16> {
        self.numbers.get(&hash(domain)).copied()
    }

    /// Takes what an answer says.
    pub fn learn(&mut self, answer: &Answer, now: u64) -> (Learned, Vec<Change>) {
        let numbers: BTreeSet<u16> =
            answer.names.iter().flat_map(|name| self.numbers_of(name)).collect();
        let mut changes = Vec::new();
        if numbers.is_empty() {
            return (Learned::Others, changes);
        }
        for (address, ttl) in &answer.addresses {
            let until = now + (u64::from(*ttl) * SECOND).clamp(LEAST, MOST);
            if !self.known.contains_key(address) && self.known.len() >= POLICY_ADDRESSES {
                self.push_out(&mut changes);
            }
            self.revise(*address, &mut changes, |known| {
                for number in &numbers {
                    let known = known.until.entry(*number).or_default();
                    *known = until.max(*known);
                }
                known.name = answer.names.first().cloned();
            });
        }
        (Learned::Ours, changes)
    }

    /// Takes away what is over.
    pub fn expire(&mut self, now: u64) -> Vec<Change> {
        let mut changes = Vec::new();
        while let Some(&(due, address)) = self.due.first()
            && due <= now
        {
            self.revise(address, &mut changes, |known| known.until.retain(|_, until| *until > now));
        }
        changes
    }

    /// The kernel side has no room for a group: its addresses go.
    pub fn disown(&mut self, group: u16) -> Vec<Change> {
        let of = |(address, known): (&IpAddr, &Known)| (known.group == group).then_some(*address);
        let all: Vec<IpAddr> = self.known.iter().filter_map(of).collect();
        let mut changes = Vec::new();
        for address in all {
            self.refused += 1;
            self.revise(address, &mut changes, |known| known.until.clear());
        }
        changes
    }

    /// The names that an address is of.
    #[must_use]
    pub fn names_of(&self, address: IpAddr, now: u64) -> NameBits {
        let known = self.known.get(&address).filter(|known| known.last() > now);
        known.map_or(NameBits::NONE, Known::names)
    }

    /// How many addresses are of one of these names at least.
    #[must_use]
    pub fn count(&self, domains: &[Domain]) -> usize {
        let numbers = self.numbers_for(domains);
        let has = |names: &NameBits| numbers.iter().any(|number| names.has(usize::from(*number)));
        self.groups.values().filter(|(names, _)| has(names)).map(|(_, count)| count).sum()
    }

    /// The addresses of these names.
    #[must_use]
    pub fn list(&self, domains: &[Domain], now: u64) -> Vec<Listed> {
        let numbers = self.numbers_for(domains);
        let left = |known: &Known| {
            let last = numbers.iter().filter_map(|number| known.until.get(number)).max()?;
            last.checked_sub(now).filter(|left| *left > 0)
        };
        let all = self.known.iter().filter_map(|(address, known)| {
            Some(Listed { address: *address, name: known.name.clone(), left: left(known)? })
        });
        all.collect()
    }

    /// How many addresses are known.
    #[must_use]
    pub fn len(&self) -> usize {
        self.known.len()
    }

    /// Whether none is.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.known.is_empty()
    }

    /// How many addresses have made room for others before their time.
    #[must_use]
    pub fn pushed_out(&self) -> u64 {
        self.pushed_out
    }

    /// How many addresses were not taken because they were of too many different sets of
    /// names.
    #[must_use]
    pub fn refused(&self) -> u64 {
        self.refused
    }

    fn numbers_for(&self, domains: &[Domain]) -> Vec<u16> {
        domains.iter().filter_map(|domain| self.number_of(domain)).collect()
    }

    /// Numbers that fit a name.
    fn numbers_of(&self, name: &str) -> Vec<u16> {
        let dots = name.match_indices('.').map(|(at, _)| at);
        let above = dots.filter_map(|at| self.below.get(name.get(at + 1..)?));
        above.chain(self.exact.get(name)).copied().collect()
    }

    fn number(&mut self, hash: u64, changes: &mut Vec<Change>) -> Option<u16> {
        if let Some(number) = self.numbers.get(&hash) {
            return Some(*number);
        }
        let taken: BTreeSet<u16> = self.numbers.values().copied().collect();
        let free = |number: &u16| !taken.contains(number);
        let number = in_turn(self.next_name, POLICY_NAMES).find(free)?;
        self.next_name = following(number, POLICY_NAMES);
        self.numbers.insert(hash, number);
        changes.push(Change::Name(number, hash));
        Some(number)
    }

    fn push_out(&mut self, changes: &mut Vec<Change>) {
        let Some(&(_, address)) = self.due.first() else { return };
        self.pushed_out += 1;
        self.revise(address, changes, |known| known.until.clear());
    }

    /// Changes what is known of an address, and says what that writes.
    fn revise(
        &mut self,
        address: IpAddr,
        changes: &mut Vec<Change>,
        change: impl FnOnce(&mut Known),
    ) {
        let before = self.known.remove(&address);
        let mut known =
            before.clone().unwrap_or(Known { until: BTreeMap::new(), group: 0, name: None });
        change(&mut known);
        let names = known.names();
        if let Some(before) = &before {
            self.due.remove(&(before.due(), address));
        }
        known.group = match self.group(&names, changes) {
            Some(group) => group,
            None => {
                self.refused += u64::from(names != NameBits::NONE);
                0
            }
        };
        let (was, is) = (before.as_ref().map(|known| (known.group, known.last())), &known);
        if is.group == 0 {
            if was.is_some() {
                changes.push(Change::Gone(to_key(address)));
            }
        } else {
            if was != Some((is.group, is.last())) {
                changes.push(Change::Address(to_key(address), Named::new(is.group, is.last())));
            }
            self.due.insert((known.due(), address));
            self.known.insert(address, known);
        }
        if let Some((group, _)) = was {
            self.leave(group);
        }
    }

    /// The group of a set of names, with one address more in it.
    fn group(&mut self, names: &NameBits, changes: &mut Vec<Change>) -> Option<u16> {
        if *names == NameBits::NONE {
            return None;
        }
        if let Some(group) = self.by_names.get(names) {
            let group = *group;
            self.groups.entry(group).or_insert((*names, 0)).1 += 1;
            return Some(group);
        }
        let free = |group: &u16| *group != 0 && !self.groups.contains_key(group);
        let group = in_turn(self.next_group, POLICY_GROUPS).find(free)?;
        self.next_group = following(group, POLICY_GROUPS);
        self.groups.insert(group, (*names, 1));
        self.by_names.insert(*names, group);
        changes.push(Change::Group(group, *names));
        Some(group)
    }

    /// An address is of a group no more.
    fn leave(&mut self, group: u16) {
        let Some((names, count)) = self.groups.get_mut(&group) else { return };
        *count = count.saturating_sub(1);
        if *count == 0 {
            // Another group may say the same: what an agent before us has left.
            if self.by_names.get(names) == Some(&group) {
                self.by_names.remove(names);
            }
            self.groups.remove(&group);
        }
    }
}

#[cfg(test)]
#[path = "book_tests.rs"]
mod tests;
