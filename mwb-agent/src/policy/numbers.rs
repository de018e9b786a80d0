//! Numbers of outlets. Flows and mappings keep the number of the outlet that they were
//! made by, so one that stays the same keeps its number: over a change of rules because
//! it is known, over a restart because the first choice follows from what it is.

use std::collections::{BTreeMap, BTreeSet};

use mwb_common::policy::OUTLETS;

use crate::config::{Balance, Config, Fallback, Outlet};

/// What an outlet is. WANs are known by their devices.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Key {
    /// Devices of its WANs, the first choice first.
    pub devices: Vec<String>,
    /// How new flows are shared among them.
    pub balance: Balance,
    /// What becomes of flows while none of them works.
    pub fallback: Fallback,
}

impl Key {
    /// What an outlet of a configuration is.
    #[must_use]
    pub fn of(outlet: &Outlet, config: &Config) -> Self {
        let device = |name: &String| config.wans.iter().find(|wan| wan.name == *name);
        let devices = outlet.wans.iter().filter_map(device).map(|wan| wan.device.clone());
        Self {
            devices: devices.collect(),
            balance: outlet.balance.unwrap_or(config.balance),
            fallback: outlet.fallback,
        }
    }

    /// The number that it has if nobody else does (FNV-1a of its words).
    fn first_choice(&self) -> u8 {
        let words = self.devices.iter().map(String::as_str);
        let words = words.chain([self.balance.name(), self.fallback.name()]);
        let mut hash: u64 = 0xcbf2_9ce4_8422_2325;
        // No device has a slash in its name.
        for byte in words.flat_map(|word| word.bytes().chain([b'/'])) {
            hash = (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
        }
        // The remainder is below 63.
        u8::try_from(hash % LAST).unwrap_or_default() + 1
    }
}

/// The last number; 0 is for flows without a rule.
const LAST: u64 = OUTLETS as u64 - 1;

/// Which number is whose.
#[derive(Clone, Debug, Default)]
pub struct Numbers {
    keys: BTreeMap<u8, Key>,
    /// Numbers that have had another owner in this run.
    used: BTreeSet<u8>,
}

impl Numbers {
    /// Follows a configuration: gives numbers to outlets that are new, and takes them from
    /// those that are not named any more. Those beyond the last number get none; the
    /// reader of the configuration refuses so many.
    pub fn follow(&mut self, config: &Config) {
        let mut wanted: Vec<Key> = Vec::new();
        for outlet in config.policy.outlets() {
            let key = Key::of(outlet, config);
            if !wanted.contains(&key) {
                wanted.push(key);
            }
        }
        let gone: Vec<u8> = self
            .keys
            .iter()
            .filter(|(_, key)| !wanted.contains(key))
            .map(|(number, _)| *number)
            .collect();
        for number in gone {
            self.keys.remove(&number);
            self.used.insert(number);
        }
        for key in wanted {
            if self.keys.values().any(|known| *known == key) {
                continue;
            }
            let first = key.first_choice();
            let last = u8::try_from(LAST).unwrap_or(u8::MAX);
            let in_turn = || (first..=last).chain(1..first);
            let free = |number: &u8| !self.keys.contains_key(number);
            // Flows may still have a number that was another's.
            let fresh = in_turn().find(|number| free(number) && !self.used.contains(number));
            if let Some(number) = fresh.or_else(|| in_turn().find(free)) {
                self.used.remove(&number);
                self.keys.insert(number, key);
            }
        }
    }

    /// The number of an outlet.
    #[must_use]
    pub fn of(&self, key: &Key) -> Option<u8> {
        self.keys.iter().find(|(_, known)| *known == key).map(|(number, _)| *number)
    }

    /// Each outlet, with its number.
    pub fn iter(&self) -> impl Iterator<Item = (u8, &Key)> {
        self.keys.iter().map(|(number, key)| (*number, key))
    }

    /// Numbers whose outlets are not named any more: flows may still have them.
    pub fn left(&self) -> impl Iterator<Item = u8> {
        self.used.iter().copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::parse;

    fn config(uses: &[&str]) -> Config {
        let rules: Vec<String> = uses
            .iter()
            .enumerate()
            .map(|(index, rule)| format!("    - {{port: {}, {rule}}}\n", index + 1))
            .collect();
        let text = format!(
            "version: 1\nmode: steer\nlan: [lan0]\nwans:\n  - {{name: fiber, device: wan0}}\n  \
             - {{name: lte, device: wan1}}\npolicy:\n  rules:\n{}",
            rules.concat()
        );
        parse(&text, "f").unwrap_or_else(|error| panic!("{error}"))
    }

    fn number(numbers: &Numbers, config: &Config, index: usize) -> u8 {
        numbers.of(&Key::of(config.policy.outlets()[index], config)).expect("a number")
    }

    #[test]
    fn an_outlet_that_stays_keeps_its_number_wherever_it_stands() {
        let mut numbers = Numbers::default();
        let first = config(&["use: fiber", "use: lte", "use: [lte, fiber]"]);
        numbers.follow(&first);
        let lte = number(&numbers, &first, 1);
        let second = config(&["use: lte, fallback: strict", "use: lte"]);
        numbers.follow(&second);
        assert_eq!(number(&numbers, &second, 1), lte);
        assert_eq!(numbers.iter().count(), 2);
        assert_eq!(numbers.left().count(), 2);
        // A later run has the same.
        let mut later = Numbers::default();
        later.follow(&second);
        assert_eq!(number(&later, &second, 1), lte);
    }

    #[test]
    fn what_the_file_says_for_all_is_the_same_as_saying_it() {
        let mut numbers = Numbers::default();
        let both = config(&["use: lte", "use: lte, balance: adaptive"]);
        numbers.follow(&both);
        assert_eq!(numbers.iter().count(), 1);
        assert_eq!(number(&numbers, &both, 0), number(&numbers, &both, 1));
    }

    #[test]
    fn all_numbers_are_given_and_each_once() {
        let balances =
            ["round_robin", "weighted", "least_used", "least_latency", "per_flow", "adaptive"];
        let mut uses = Vec::new();
        for target in ["fiber", "lte", "[fiber, lte]", "[lte, fiber]"] {
            for balance in balances {
                for fallback in ["prefer", "strict"] {
                    uses.push(format!("use: {target}, balance: {balance}, fallback: {fallback}"));
                }
            }
        }
        let uses: Vec<&str> = uses.iter().map(String::as_str).collect();
        let mut numbers = Numbers::default();
        for window in [&uses[..20], &uses[..], &uses[28..], &uses[..20]] {
            let config = config(window);
            numbers.follow(&config);
            let given: BTreeSet<u8> =
                (0..window.len()).map(|index| number(&numbers, &config, index)).collect();
            assert_eq!(given.len(), window.len());
            assert!(given.iter().all(|number| (1..=63).contains(number)), "{given:?}");
        }
    }

    #[test]
    fn a_number_of_another_is_the_last_that_is_given() {
        let mut numbers = Numbers::default();
        let first = config(&["use: lte"]);
        numbers.follow(&first);
        let before = number(&numbers, &first, 0);
        for other in ["use: fiber", "use: [fiber, lte]", "use: lte, fallback: strict"] {
            let config = config(&[other]);
            numbers.follow(&config);
            assert_ne!(number(&numbers, &config, 0), before, "{other}");
        }
    }
}
