//! A bank's tables as the agent knows them, asked as the kernel side asks its own.
//! Must not know: how they came to be.

use core::net::IpAddr;

use super::bank::{Bank, Image};
use super::prefixes::key;
use super::{Asked, PolicyKey, PolicyRule, RuleBits, Side, Tables, first_rule, kind};

/// A packet's way through a bank.
struct Question<'a> {
    bank: &'a Bank,
    asked: &'a Asked,
    words: u32,
    group: Option<u32>,
    left: RuleBits,
}

impl Image {
    /// What the first rule that matches wants, as the kernel side finds it, if the
    /// destination is of a group of names.
    #[must_use]
    pub fn first(&self, asked: &Asked, group: u16) -> Option<PolicyRule> {
        let words = self.state.words;
        if words == 0 {
            return None;
        }
        let bank = &self.banks[self.state.bank as usize];
        let group = (self.state.by_name != 0).then_some(u32::from(group));
        let mut question = Question { bank, asked, words, group, left: RuleBits::NONE };
        let rule = first_rule(&mut question, &asked.packet)?;
        bank.rules.get(rule as usize).copied()
    }
}

impl Bank {
    /// The longest match of an address.
    fn longest(&self, side: Side, address: IpAddr) -> u16 {
        let side = side as usize;
        let longest = match address {
            IpAddr::V4(address) => (0..=32_u8)
                .rev()
                .find_map(|length| self.prefixes4[side].get(&key(address.octets(), length))),
            IpAddr::V6(address) => (0..=128_u8)
                .rev()
                .find_map(|length| self.prefixes6[side].get(&key(address.octets(), length))),
        };
        longest.copied().unwrap_or_default()
    }

    fn key(&self, kind: u8, bytes: [u8; 6]) -> Option<u16> {
        self.keys.get(&(kind, bytes)).copied()
    }
}

impl Tables for Question<'_> {
    fn prefix(&mut self, side: Side) -> u16 {
        let asked = self.asked;
        let address = if side == Side::Source { asked.source } else { asked.destination };
        self.bank.longest(side, address)
    }

    fn group(&mut self) -> Option<u32> {
        self.group
    }

    fn place(&mut self, place: u32) -> u16 {
        self.bank.places.get(place as usize).copied().unwrap_or_default()
    }

    fn device(&mut self, ifindex: u32) -> Option<u16> {
        self.bank.key(kind::DEVICE, PolicyKey::device(ifindex, 0).bytes)
    }

    fn mac(&mut self, mac: [u8; 6]) -> Option<u16> {
        self.bank.key(kind::MAC, mac)
    }

    fn begin(&mut self, set: u16) -> bool {
        self.left = self.bank.bits(set);
        self.left != RuleBits::NONE
    }

    fn narrow(&mut self, set: u16) -> bool {
        self.left.narrow(&self.bank.bits(set), self.words, 0)
    }

    fn first(&self) -> Option<u32> {
        self.left.first(self.words)
    }
}
