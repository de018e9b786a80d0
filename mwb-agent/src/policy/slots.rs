//! Counters of rules. A rule that stays keeps its counter, wherever it stands; one that is
//! new begins at zero, whatever its counter has counted for another.

use std::collections::BTreeMap;

use mwb_common::policy::POLICY_HITS;

use crate::config::Policy;

/// Which counter is whose.
#[derive(Clone, Debug, Default)]
pub struct Slots {
    /// By what a rule is known by.
    known: BTreeMap<String, Slot>,
}

/// A rule's counter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Slot {
    index: u16,
    /// What it had counted when the rule got it.
    before: u64,
}

impl Slots {
    /// Follows a configuration. `counted` says what each counter has at this moment.
    pub fn follow(&mut self, policy: &Policy, counted: impl Fn(u16) -> u64) {
        let wanted: Vec<String> = (0..policy.rules.len()).map(|at| identity(policy, at)).collect();
        self.known.retain(|identity, _| wanted.contains(identity));
        let mut free = {
            let mut taken = vec![false; POLICY_HITS];
            for slot in self.known.values() {
                if let Some(taken) = taken.get_mut(usize::from(slot.index)) {
                    *taken = true;
                }
            }
            (0..).zip(taken).filter(|(_, taken)| !taken).map(|(index, _)| index)
        };
        for identity in wanted {
            if self.known.contains_key(&identity) {
                continue;
            }
            if let Some(index) = free.next() {
                self.known.insert(identity, Slot { index, before: counted(index) });
            }
        }
    }

    /// The counter of a rule, by the rule's place.
    #[must_use]
    pub fn index(&self, policy: &Policy, place: usize) -> Option<u16> {
        self.known.get(&identity(policy, place)).map(|slot| slot.index)
    }

    /// The counter of a rule, and what it had counted before the rule got it.
    #[must_use]
    pub fn of(&self, policy: &Policy, place: usize) -> Option<(u16, u64)> {
        self.known.get(&identity(policy, place)).map(|slot| (slot.index, slot.before))
    }
}

/// What a rule is known by: its name, or what it says.
fn identity(policy: &Policy, place: usize) -> String {
    match policy.rules.get(place) {
        Some(rule) => rule.name.clone().unwrap_or_else(|| rule.to_string()),
        None => String::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::parse;

    fn policy(rules: &[&str]) -> Policy {
        let rules: Vec<String> = rules.iter().map(|rule| format!("    - {rule}\n")).collect();
        let text = format!(
            "version: 1\nmode: steer\nlan: [lan0]\nwans:\n  - {{name: lte, device: wan1}}\n\
             policy:\n  rules:\n{}",
            rules.concat()
        );
        parse(&text, "f").unwrap_or_else(|error| panic!("{error}")).policy
    }

    #[test]
    fn a_rule_keeps_its_counter_wherever_it_stands_and_a_new_one_begins_at_zero() {
        let mut slots = Slots::default();
        let first = policy(&["{port: 1, use: lte}", "{name: a, port: 2, use: lte}"]);
        slots.follow(&first, |_| 0);
        assert_eq!((slots.of(&first, 0), slots.of(&first, 1)), (Some((0, 0)), Some((1, 0))));
        // The named one says something else now, the other has gone.
        let second = policy(&["{port: 3, use: lte}", "{name: a, port: 4, use: block}"]);
        slots.follow(&second, |index| 100 + u64::from(index));
        assert_eq!((slots.of(&second, 0), slots.of(&second, 1)), (Some((0, 100)), Some((1, 0))));
        let third = policy(&["{name: a, use: block}"]);
        slots.follow(&third, |_| 500);
        assert_eq!(slots.index(&third, 0), Some(1));
    }

    #[test]
    fn a_thousand_rules_have_a_counter_each() {
        let rules: Vec<String> =
            (1..=1_000).map(|port| format!("{{port: {port}, use: lte}}")).collect();
        let rules: Vec<&str> = rules.iter().map(String::as_str).collect();
        let policy = policy(&rules);
        let mut slots = Slots::default();
        slots.follow(&policy, |_| 0);
        let given: std::collections::BTreeSet<_> =
            (0..1_000).filter_map(|place| slots.index(&policy, place)).collect();
        assert_eq!(given.len(), 1_000);
    }
}
