//! From rules to what the tables of a bank must say. Must not know: numbers of sets,
//! what a bank says now.

use alloc::collections::BTreeMap;
use alloc::vec;
use alloc::vec::Vec;

use ipnet::IpNet;

use super::prefixes::{Prefixes, key};
use super::{
    Action, Mark, NameBits, POLICY_HITS, POLICY_MACS, POLICY_NAMES, POLICY_PREFIXES, POLICY_RULES,
    PolicyRule, Rule, RuleBits, TooMuch, action, asks, place,
};
use crate::maps::DEVICE_SLOTS;

/// A rule with one mark at most, as the tables have it.
pub(super) struct Row<'a> {
    rule: &'a Rule,
    mark: Option<Mark>,
}

/// Places that say one set: the first and the last.
pub(super) type Run = (u32, u32, RuleBits);

/// What the tables of a bank must say.
#[derive(Clone, Debug)]
pub(super) struct Contents {
    /// Of ports first: there are many, and what comes first keeps its numbers.
    pub(super) runs: Vec<Run>,
    pub(super) macs: BTreeMap<[u8; 6], RuleBits>,
    /// By side.
    pub(super) prefixes4: [Prefixes<4>; 2],
    pub(super) prefixes6: [Prefixes<16>; 2],
    pub(super) rules: Vec<PolicyRule>,
    /// Bits of [`asks`].
    pub(super) asks: u16,
    /// Rows that ask for no name.
    nameless: RuleBits,
    /// Rows that do, with the names.
    by_name: Vec<(usize, Vec<u16>)>,
}

impl Contents {
    /// `groups` are the names of each group.
    pub(super) fn of(rules: &[Rule], groups: &[NameBits]) -> Result<Self, TooMuch> {
        let mut rows = Vec::new();
        for (number, rule) in rules.iter().enumerate() {
            if !rule.is_valid() {
                return Err(TooMuch::Outlet { rule: number });
            }
            if usize::from(rule.hits) >= POLICY_HITS {
                return Err(TooMuch::Hits { rule: number });
            }
            let name = rule.names.iter().flatten().find(|name| usize::from(**name) >= POLICY_NAMES);
            if let Some(number) = name {
                return Err(TooMuch::Names { number: *number });
            }
            match &rule.marks {
                None => rows.push(Row { rule, mark: None }),
                Some(marks) => {
                    rows.extend(marks.iter().map(|mark| Row { rule, mark: Some(*mark) }));
                }
            }
        }
        if rows.len() > POLICY_RULES {
            return Err(TooMuch::Rules { count: rows.len() });
        }
        let names = rows.iter().enumerate();
        let names = names.filter_map(|(row, of)| Some((row, of.rule.names.clone()?)));
        let asks = rows.iter().fold(0, |all, row| all | asks_for(row.rule));
        let mut contents = Self {
            runs: runs(&rows, asks)?,
            macs: macs(&rows)?,
            prefixes4: [
                prefixes(&rows, |rule| &rule.sources, v4),
                prefixes(&rows, |rule| &rule.destinations, v4),
            ],
            prefixes6: [
                prefixes(&rows, |rule| &rule.sources, v6),
                prefixes(&rows, |rule| &rule.destinations, v6),
            ],
            rules: rows.iter().map(|row| wanted(row.rule)).collect(),
            asks,
            nameless: which(&rows, |row| row.rule.names.is_none()),
            by_name: names.collect(),
        };
        contents.fits()?;
        let groups = (place::GROUP..).zip(groups);
        let runs: Vec<Run> =
            groups.map(|(place, names)| (place, place, contents.of_group(names))).collect();
        contents.runs.extend(runs);
        Ok(contents)
    }

    /// What the place of a group with these names must say.
    pub(super) fn of_group(&self, names: &NameBits) -> RuleBits {
        let mut bits = self.nameless;
        for (row, wanted) in &self.by_name {
            if wanted.iter().any(|name| names.has(usize::from(*name))) {
                bits.add(*row);
            }
        }
        bits
    }

    /// Whether the prefix tables have room for it, with as much in the other bank.
    fn fits(&self) -> Result<(), TooMuch> {
        let [a, b] = &self.prefixes4;
        let [c, d] = &self.prefixes6;
        let count = (a.len() + b.len()).max(c.len() + d.len());
        if count > POLICY_PREFIXES / 2 { Err(TooMuch::Prefixes { count }) } else { Ok(()) }
    }
}

/// What a rule asks for, in bits of [`asks`].
fn asks_for(rule: &Rule) -> u16 {
    [
        (asks::SOURCE, rule.sources.is_some()),
        (asks::DESTINATION, rule.destinations.is_some()),
        (asks::NAME, rule.names.is_some()),
        (asks::SOURCE_PORT, rule.source_ports.is_some()),
        (asks::PORT, rule.ports.is_some()),
        (asks::PROTOCOL, rule.protocols.is_some()),
        (asks::DSCP, rule.dscp.is_some()),
        (asks::MARK, rule.marks.is_some()),
        (asks::DEVICE, rule.devices.is_some()),
        (asks::MAC, rule.macs.is_some()),
    ]
    .into_iter()
    .filter(|(_, is)| *is)
    .fold(0, |all, (bit, _)| all | bit)
}

fn wanted(rule: &Rule) -> PolicyRule {
    let (action, outlet) = match rule.action {
        Action::Default => (action::DEFAULT, 0),
        Action::Outlet(outlet) => (action::OUTLET, outlet),
        Action::Block => (action::BLOCK, 0),
    };
    PolicyRule { action, outlet, hits: rule.hits }
}

/// Rows by whether they are asked for something.
fn which(rows: &[Row<'_>], is: impl Fn(&Row<'_>) -> bool) -> RuleBits {
    let mut bits = RuleBits::NONE;
    rows.iter().enumerate().filter(|(_, row)| is(row)).for_each(|(number, _)| bits.add(number));
    bits
}

/// Only of what is asked for: nobody looks at the rest.
fn runs(rows: &[Row<'_>], asked: u16) -> Result<Vec<Run>, TooMuch> {
    let mut runs = Vec::new();
    if asked & asks::SOURCE_PORT != 0 {
        ports(rows, place::SOURCE_PORT, |rule| rule.source_ports.as_deref(), &mut runs);
        let without = which(rows, |row| row.rule.source_ports.is_none());
        runs.push((place::NO_SOURCE_PORT, place::NO_SOURCE_PORT, without));
    }
    if asked & asks::PORT != 0 {
        ports(rows, place::PORT, |rule| rule.ports.as_deref(), &mut runs);
        let without = which(rows, |row| row.rule.ports.is_none());
        runs.push((place::NO_PORT, place::NO_PORT, without));
    }
    if asked & asks::PROTOCOL != 0 {
        values(rows, place::PROTOCOL, 256, &mut runs, |row, value| {
            row.rule.protocols.as_ref().is_none_or(|list| list.contains(&value))
        });
    }
    if asked & asks::DSCP != 0 {
        values(rows, place::DSCP, 64, &mut runs, |row, value| {
            row.rule.dscp.as_ref().is_none_or(|list| list.contains(&value))
        });
    }
    for byte in (0..4_u32).filter(|_| asked & asks::MARK != 0) {
        values(rows, place::MARK + byte * 256, 256, &mut runs, |row, value| {
            let at = |word: u32| (word >> (byte * 8)).to_le_bytes()[0];
            row.mark.is_none_or(|mark| (value ^ at(mark.value)) & at(mark.mask) == 0)
        });
    }
    if asked & asks::DEVICE != 0 {
        devices(rows, &mut runs)?;
    }
    let without = which(rows, |row| row.rule.macs.is_none());
    runs.push((place::OTHER_MAC, place::OTHER_MAC, without));
    runs.push((place::ACTIVE, place::ACTIVE, which(rows, |row| row.rule.active)));
    Ok(runs)
}

/// Each device that is named, and all between.
fn devices(rows: &[Row<'_>], runs: &mut Vec<Run>) -> Result<(), TooMuch> {
    let any = which(rows, |row| row.rule.devices.is_none());
    let mut named: BTreeMap<u32, RuleBits> = BTreeMap::new();
    for (number, row) in rows.iter().enumerate() {
        for &ifindex in row.rule.devices.iter().flatten() {
            if ifindex as usize >= DEVICE_SLOTS {
                return Err(TooMuch::Device { ifindex });
            }
            named.entry(place::device(ifindex)).or_insert(any).add(number);
        }
    }
    let mut next = place::DEVICE;
    for (place, bits) in named {
        if next < place {
            runs.push((next, place - 1, any));
        }
        runs.push((place, place, bits));
        next = place + 1;
    }
    let end = place::DEVICE + DEVICE_SLOTS as u32;
    if next < end {
        runs.push((next, end - 1, any));
    }
    Ok(())
}

/// Cuts the ports where a range begins or ends.
fn ports<'a>(
    rows: &[Row<'a>],
    place: u32,
    of: impl Fn(&'a Rule) -> Option<&'a [(u16, u16)]>,
    runs: &mut Vec<Run>,
) {
    let mut cuts: BTreeMap<u32, Vec<(usize, bool)>> = BTreeMap::new();
    cuts.insert(0, Vec::new());
    let mut bits = RuleBits::NONE;
    for (number, row) in rows.iter().enumerate() {
        let Some(ranges) = of(row.rule) else {
            bits.add(number);
            continue;
        };
        for &(first, last) in ranges.iter().filter(|(first, last)| first <= last) {
            cuts.entry(u32::from(first)).or_default().push((number, true));
            cuts.entry(u32::from(last) + 1).or_default().push((number, false));
        }
    }
    // How many ranges of a row are open: they may overlap.
    let mut open = vec![0_u32; rows.len()];
    let ends: Vec<u32> = cuts.keys().skip(1).copied().chain([1 << 16]).collect();
    for ((first, changes), end) in cuts.iter().zip(ends) {
        for &(number, opens) in changes {
            let Some(open) = open.get_mut(number) else { continue };
            if opens {
                *open += 1;
            } else {
                *open -= 1;
            }
            if *open == 0 { bits.remove(number) } else { bits.add(number) }
        }
        if *first < end {
            runs.push((place + first, place + end - 1, bits));
        }
    }
}

fn values(
    rows: &[Row<'_>],
    place: u32,
    count: u32,
    runs: &mut Vec<Run>,
    is: impl Fn(&Row<'_>, u8) -> bool,
) {
    for (value, place) in (0..=u8::MAX).zip(place..place + count) {
        runs.push((place, place, which(rows, |row| is(row, value))));
    }
}

fn macs(rows: &[Row<'_>]) -> Result<BTreeMap<[u8; 6], RuleBits>, TooMuch> {
    let mut macs = BTreeMap::new();
    let any = which(rows, |row| row.rule.macs.is_none());
    for (number, row) in rows.iter().enumerate() {
        for mac in row.rule.macs.iter().flatten() {
            macs.entry(*mac).or_insert(any).add(number);
        }
    }
    let count = macs.len();
    if count > POLICY_MACS / 2 { Err(TooMuch::Macs { count }) } else { Ok(macs) }
}

fn prefixes<const N: usize>(
    rows: &[Row<'_>],
    of: fn(&Rule) -> &Option<Vec<IpNet>>,
    octets: impl Fn(&IpNet) -> Option<[u8; N]>,
) -> Prefixes<N> {
    let mut prefixes = Prefixes::new(which(rows, |row| of(row.rule).is_none()));
    for (number, row) in (0..).zip(rows) {
        for net in of(row.rule).iter().flatten() {
            if let Some(address) = octets(net) {
                prefixes.add(key(address, net.prefix_len()), number);
            }
        }
    }
    prefixes
}

pub(super) fn v4(net: &IpNet) -> Option<[u8; 4]> {
    if let IpNet::V4(net) = net { Some(net.addr().octets()) } else { None }
}

pub(super) fn v6(net: &IpNet) -> Option<[u8; 16]> {
    if let IpNet::V6(net) = net { Some(net.addr().octets()) } else { None }
}
