//! From rules of the configuration to those of the kernel side.

use std::collections::BTreeMap;
use std::ops::RangeInclusive;

use mwb_common::policy::{Action, Mark, Policy, Rule, TooMuch};

use super::{Key, Numbers, Slots};
use crate::config::{Config, Domain, Moment, PolicyAction, PolicyRule};

/// What is the case now.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Facts {
    /// Interface indexes of the LAN ports that are there, by device.
    pub ports: BTreeMap<String, u32>,
    /// Numbers of the names that rules ask for.
    pub names: BTreeMap<Domain, u16>,
    /// Which rules count at this time, by their place.
    pub active: Vec<bool>,
}

/// Which rules count at a moment, by their place.
#[must_use]
pub fn active(rules: &[PolicyRule], now: Moment) -> Vec<bool> {
    rules.iter().map(|rule| rule.time.is_none_or(|time| time.has(now))).collect()
}

/// The rules as the kernel side has them, in their order.
#[must_use]
pub fn rules(config: &Config, facts: &Facts, numbers: &Numbers, slots: &Slots) -> Vec<Rule> {
    let places = config.policy.rules.iter().enumerate();
    places.map(|(place, rule)| compile(config, facts, numbers, slots, place, rule)).collect()
}

/// Whether the kernel side's tables have room for the rules of a configuration, with every
/// LAN port there and every rule counting.
///
/// # Errors
/// With what there is too much of.
pub fn fits(config: &Config) -> Result<(), TooMuch> {
    let mut numbers = Numbers::default();
    numbers.follow(config);
    let mut slots = Slots::default();
    slots.follow(&config.policy, |_| 0);
    let ports = config.lan.iter().map(|lan| lan.device.clone()).zip(1..);
    let facts = Facts {
        ports: ports.collect(),
        names: config.policy.domains().into_iter().cloned().zip(0..).collect(),
        active: vec![true; config.policy.rules.len()],
    };
    Policy::default().set_rules(&rules(config, &facts, &numbers, &slots)).map(drop)
}

fn compile(
    config: &Config,
    facts: &Facts,
    numbers: &Numbers,
    slots: &Slots,
    place: usize,
    rule: &PolicyRule,
) -> Rule {
    let matches = &rule.matches;
    let action = match &rule.action {
        PolicyAction::Block => Some(Action::Block),
        PolicyAction::Default => Some(Action::Default),
        PolicyAction::Outlet(outlet) => numbers.of(&Key::of(outlet, config)).map(Action::Outlet),
    };
    let hits = slots.index(&config.policy, place);
    // A port that is not there has no packets; the rule must not become one for all ports.
    let ports = |devices: &[String]| {
        devices.iter().filter_map(|device| facts.ports.get(device).copied()).collect()
    };
    // The same of a name without a number.
    let names = |domains: &[Domain]| {
        domains.iter().filter_map(|domain| facts.names.get(domain).copied()).collect()
    };
    Rule {
        sources: any(&matches.source),
        destinations: any(&matches.destination),
        names: (!matches.domains.is_empty()).then(|| names(&matches.domains)),
        source_ports: ranges(&matches.source_ports),
        ports: ranges(&matches.ports),
        protocols: any(&matches.protocols),
        dscp: any(&matches.dscps),
        devices: (!matches.lan.is_empty()).then(|| ports(&matches.lan)),
        macs: any(&matches.macs),
        marks: any(&matches.marks)
            .map(|marks| marks.into_iter().map(|value| Mark { value, mask: u32::MAX }).collect()),
        active: facts.active.get(place).copied().unwrap_or(false)
            && action.is_some()
            && hits.is_some(),
        hits: hits.unwrap_or_default(),
        action: action.unwrap_or(Action::Default),
    }
}

/// An empty list asks for nothing.
fn any<T: Clone>(list: &[T]) -> Option<Vec<T>> {
    (!list.is_empty()).then(|| list.to_vec())
}

fn ranges(ranges: &[RangeInclusive<u16>]) -> Option<Vec<(u16, u16)>> {
    let pair = |range: &RangeInclusive<u16>| (*range.start(), *range.end());
    (!ranges.is_empty()).then(|| ranges.iter().map(pair).collect())
}

#[cfg(test)]
#[path = "rules_tests.rs"]
mod tests;
