//! A bank's tables as the agent knows them, asked as the kernel side asks its own.
//! Must not know: how they came to be.

use core::net::IpAddr;

use super::bank::{Bank, Image};
use super::prefixes::key;
use super::{Asked, PolicyRule, PolicyState, RuleBits, Side, Tables, first_rule};

/// A packet's way through a bank.
struct Question<'a> {
    bank: &'a Bank,
    asked: &'a Asked,
    state: PolicyState,
    group: u32,
    left: RuleBits,
}

impl Image {
    /// What the first rule that matches wants, as the kernel side finds it, if the
    /// destination is of a group of names.
    #[must_use]
    pub fn first(&self, asked: &Asked, group: u16) -> Option<PolicyRule> {
        let state = self.state;
        if state.words == 0 {
            return None;
        }
        let bank = &self.banks[usize::from(state.bank)];
        let group = u32::from(group);
        let mut question = Question { bank, asked, state, group, left: RuleBits::NONE };
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
}

impl Tables for Question<'_> {
    fn asks(&self) -> u16 {
        self.state.asks
    }

    fn prefix(&mut self, side: Side) -> u16 {
        let asked = self.asked;
        let address = if side == Side::Source { asked.source } else { asked.destination };
        self.bank.longest(side, address)
    }

    fn group(&mut self) -> u32 {
        self.group
    }

    fn place(&mut self, place: u32) -> u16 {
        self.bank.places.get(place as usize).copied().unwrap_or_default()
    }

    fn mac(&mut self, mac: [u8; 6]) -> Option<u16> {
        self.bank.macs.get(&mac).copied()
    }

    fn begin(&mut self, sets: [u16; 2]) -> bool {
        let [first, second] = sets.map(|set| self.bank.bits(set));
        self.left.common(&first, &second, u32::from(self.state.words))
    }

    fn narrow(&mut self, set: u16) -> bool {
        self.left.narrow(&self.bank.bits(set), u32::from(self.state.words))
    }

    fn first(&self) -> Option<u32> {
        self.left.first(u32::from(self.state.words))
    }
}
