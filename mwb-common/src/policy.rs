//! Policy: which rule a new flow falls under, by bit vectors (T. V. Lakshman, D.
//! Stiliadis, SIGCOMM 1998). Each property of a packet gives the set of rules that it
//! satisfies there; the lowest bit that all sets share is the first rule that matches.
//! So the time is bounded by the number of properties, not by what the rules say.
//!
//! The tables are there twice, in two *banks*: the agent writes the one that is not in
//! use and then switches, so that no packet meets half a change.
//!
//! Must not know: names of rules, WANs or devices, and what an outlet leads to.

use bytemuck::{Pod, Zeroable};

use crate::maps::Family;

#[cfg(not(target_arch = "bpf"))]
mod bank;
#[cfg(not(target_arch = "bpf"))]
mod compile;
#[cfg(all(test, not(target_arch = "bpf")))]
mod layout_tests;
mod matching;
#[cfg(all(test, not(target_arch = "bpf")))]
mod name_tests;
mod named;
#[cfg(not(target_arch = "bpf"))]
mod prefixes;
#[cfg(not(target_arch = "bpf"))]
mod rows;
#[cfg(not(target_arch = "bpf"))]
mod rule;
#[cfg(not(target_arch = "bpf"))]
mod tables;
#[cfg(all(test, not(target_arch = "bpf")))]
mod tests;
#[cfg(not(target_arch = "bpf"))]
mod write;

#[cfg(not(target_arch = "bpf"))]
pub use bank::Image;
#[cfg(not(target_arch = "bpf"))]
pub use compile::Policy;
pub use matching::{Properties, Tables, first_rule, has_ports};
pub use named::{Named, NamedAddress};
#[cfg(not(target_arch = "bpf"))]
pub use rule::{Action, Asked, Mark, Rule, first_match};
#[cfg(not(target_arch = "bpf"))]
pub use write::{TooMuch, Write};

/// Rules that there may be. One with several marks counts once for each of them.
pub const POLICY_RULES: usize = 1_024;
/// Words of a set of rules.
pub const RULE_WORDS: usize = POLICY_RULES / 64;
/// Copies of the tables.
pub const POLICY_BANKS: usize = 2;
/// Different sets of rules that a bank may have; a power of two.
pub const POLICY_SETS: usize = 8_192;
/// Prefixes of each address family, of both banks and sides.
pub const POLICY_PREFIXES: usize = 131_072;
/// MACs that rules name, of both banks.
pub const POLICY_MACS: usize = 8_192;
/// Names that rules may ask for.
pub const POLICY_NAMES: usize = POLICY_RULES;
/// Groups of such names, with the one that has none: 0. Each address is of one.
pub const POLICY_GROUPS: usize = 1_024;
/// Addresses of names, of both families.
pub const POLICY_ADDRESSES: usize = 16_384;
/// Rules' counters.
pub const POLICY_HITS: usize = POLICY_RULES;
/// Outlets, with the one that counts where no rule says another: 0.
pub const OUTLETS: usize = 64;
/// Entries of the table of selections.
pub const SELECTION_ENTRIES: usize = OUTLETS * 2;

/// Where an outlet's selection is, and its cursor.
#[inline(always)]
#[must_use]
pub const fn selection_index(outlet: u8, family: Family) -> u32 {
    outlet as u32 * 2 + family as u32
}

/// A set of rules, by number: rule `n` is bit `n % 64` of word `n / 64`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Pod, Zeroable)]
pub struct RuleBits {
    /// The words.
    pub words: [u64; RULE_WORDS],
}

impl RuleBits {
    /// No rule.
    pub const NONE: Self = Self { words: [0; RULE_WORDS] };

    /// Whether a rule is in it.
    #[must_use]
    pub const fn has(&self, rule: usize) -> bool {
        rule < POLICY_RULES && self.words[rule / 64] >> (rule % 64) & 1 != 0
    }

    /// Puts a rule into it.
    pub const fn add(&mut self, rule: usize) {
        if rule < POLICY_RULES {
            self.words[rule / 64] |= 1 << (rule % 64);
        }
    }

    /// Takes a rule out of it.
    pub const fn remove(&mut self, rule: usize) {
        if rule < POLICY_RULES {
            self.words[rule / 64] &= !(1 << (rule % 64));
        }
    }

    /// Keeps what `other` has too, in the first `words`; says whether anything is left.
    #[inline(always)]
    pub fn narrow(&mut self, other: &Self, words: u32) -> bool {
        let mut left = 0;
        let mut word = 0;
        while word < RULE_WORDS && (word as u32) < words {
            let kept = self.words[word] & other.words[word];
            self.words[word] = kept;
            left |= kept;
            word += 1;
        }
        left != 0
    }

    /// Becomes what both have, in the first `words`; says whether that is anything.
    #[inline(always)]
    pub fn common(&mut self, first: &Self, second: &Self, words: u32) -> bool {
        let mut left = 0;
        let mut word = 0;
        while word < RULE_WORDS && (word as u32) < words {
            let kept = first.words[word] & second.words[word];
            self.words[word] = kept;
            left |= kept;
            word += 1;
        }
        left != 0
    }

    /// The first rule in the first `words`.
    #[inline(always)]
    #[must_use]
    pub fn first(&self, words: u32) -> Option<u32> {
        let mut word = 0;
        while word < RULE_WORDS && (word as u32) < words {
            let bits = self.words[word];
            if bits != 0 {
                return Some(word as u32 * 64 + lowest(bits));
            }
            word += 1;
        }
        None
    }
}

/// A set of names that rules ask for, by number. The agent says which name has which.
pub type NameBits = RuleBits;

/// Number of the lowest bit that is set; by hand, because BPF has no instruction for it
/// and LLVM would look it up in a table that is in no map. By the masks of odd places,
/// odd pairs and so on.
#[inline(always)]
const fn lowest(bits: u64) -> u32 {
    let bit = bits & bits.wrapping_neg();
    (bit & 0xaaaa_aaaa_aaaa_aaaa != 0) as u32
        | ((bit & 0xcccc_cccc_cccc_cccc != 0) as u32) << 1
        | ((bit & 0xf0f0_f0f0_f0f0_f0f0 != 0) as u32) << 2
        | ((bit & 0xff00_ff00_ff00_ff00 != 0) as u32) << 3
        | ((bit & 0xffff_0000_ffff_0000 != 0) as u32) << 4
        | ((bit & 0xffff_ffff_0000_0000 != 0) as u32) << 5
}

/// Values of [`PolicyRule::action`].
pub mod action {
    /// No rule.
    pub const NONE: u8 = 0;
    /// As if no rule matched.
    pub const DEFAULT: u8 = 1;
    /// By [`super::PolicyRule::outlet`].
    pub const OUTLET: u8 = 2;
    /// Dropped.
    pub const BLOCK: u8 = 3;
}

/// What a rule wants.
#[repr(C, align(4))]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Pod, Zeroable)]
pub struct PolicyRule {
    /// One of [`action`].
    pub action: u8,
    /// The outlet of [`action::OUTLET`], from 1; else 0.
    pub outlet: u8,
    /// Where it is counted, below [`POLICY_HITS`].
    pub hits: u16,
}

/// What is in use: one word, read at once.
#[repr(C, align(8))]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Pod, Zeroable)]
pub struct PolicyState {
    /// The bank.
    pub bank: u8,
    /// Words of its sets that can have a bit; 0 = there are no rules.
    pub words: u8,
    /// Bits of [`asks`].
    pub asks: u16,
    /// Counts the rules that there have been, from 1; 0: there were none yet.
    pub generation: u32,
}

/// Bits of [`PolicyState::asks`]: what any rule asks a packet for. The rest need not be
/// looked up.
pub mod asks {
    /// Source address.
    pub const SOURCE: u16 = 1;
    /// Destination address.
    pub const DESTINATION: u16 = 1 << 1;
    /// Name of the destination.
    pub const NAME: u16 = 1 << 2;
    /// Source port.
    pub const SOURCE_PORT: u16 = 1 << 3;
    /// Destination port.
    pub const PORT: u16 = 1 << 4;
    /// IP protocol.
    pub const PROTOCOL: u16 = 1 << 5;
    /// Differentiated services code point.
    pub const DSCP: u16 = 1 << 6;
    /// Firewall mark.
    pub const MARK: u16 = 1 << 7;
    /// Device that it comes in through.
    pub const DEVICE: u16 = 1 << 8;
    /// Source MAC.
    pub const MAC: u16 = 1 << 9;
}

/// Numbers of sets, four to an entry; see [`place`].
#[repr(C, align(8))]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Pod, Zeroable)]
pub struct PolicyPlaces {
    /// The numbers.
    pub sets: [u16; PLACES_PER_ENTRY],
}

/// Numbers in one entry.
pub const PLACES_PER_ENTRY: usize = 4;
/// Entries of all places of both banks.
pub const PLACE_ENTRIES: usize = POLICY_BANKS * place::ALL as usize / PLACES_PER_ENTRY;

/// Where in a bank the set of a property's value stands.
pub mod place {
    use crate::maps::DEVICE_SLOTS;

    /// By source port.
    pub const SOURCE_PORT: u32 = 0;
    /// By destination port.
    pub const PORT: u32 = SOURCE_PORT + (1 << 16);
    /// By interface index; that of no device, 0, stands for all that have no place.
    pub const DEVICE: u32 = PORT + (1 << 16);
    /// By IP protocol.
    pub const PROTOCOL: u32 = DEVICE + DEVICE_SLOTS as u32;
    /// By differentiated services code point (RFC 2474).
    pub const DSCP: u32 = PROTOCOL + (1 << 8);
    /// By byte of the mark, 256 for each, the lowest first.
    pub const MARK: u32 = DSCP + (1 << 6);
    /// Packets without a source port.
    pub const NO_SOURCE_PORT: u32 = MARK + 4 * (1 << 8);
    /// Packets without a destination port.
    pub const NO_PORT: u32 = NO_SOURCE_PORT + 1;
    /// MACs that no rule names.
    pub const OTHER_MAC: u32 = NO_SOURCE_PORT + 2;
    /// The rules that count at this time.
    pub const ACTIVE: u32 = NO_SOURCE_PORT + 3;
    /// By group of names that the destination is of: those of group 0 ask for no name.
    pub const GROUP: u32 = NO_SOURCE_PORT + 4;
    /// How many there are, in whole entries.
    pub const ALL: u32 = GROUP + super::POLICY_GROUPS as u32;

    /// Where that of a device stands.
    #[inline(always)]
    #[must_use]
    pub const fn device(ifindex: u32) -> u32 {
        if ifindex < DEVICE_SLOTS as u32 { DEVICE + ifindex } else { DEVICE }
    }
}

/// A MAC that a rule names.
#[repr(C, align(8))]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Pod, Zeroable)]
pub struct PolicyMac {
    /// The MAC.
    pub mac: [u8; 6],
    /// The bank.
    pub bank: u8,
    /// Zero.
    pub reserved: u8,
}

/// What the prefix table has said of a source. Most flows begin at few addresses, and a
/// look-up among many prefixes is dear.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Pod, Zeroable)]
pub struct KnownSource {
    /// The address, of IPv4 mapped to IPv6 (RFC 4291, 2.5.5.2), in words as they lie.
    pub address: [u64; 2],
    /// [`PolicyState::generation`] that it counts in.
    pub generation: u32,
    /// The set.
    pub set: u16,
    /// [`Family`]: an IPv6 packet may bear an address like that.
    pub family: u16,
}

/// How many of them there are on a CPU.
pub const KNOWN_SOURCES: usize = 256;

/// Which of them may be that of an address: by its last byte, so that none is another's
/// in a network of that size.
#[inline(always)]
#[must_use]
pub const fn known_source(address: [u64; 2]) -> u32 {
    address[1].to_ne_bytes()[7] as u32
}

/// Which end's address is asked about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(u8)]
pub enum Side {
    /// The source.
    Source = 0,
    /// The destination.
    Destination = 1,
}

/// An IPv4 address in the prefix table, behind the [`space`] that it is of, which
/// counts as [`SPACE_BITS`] more bits of every prefix.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Pod, Zeroable)]
pub struct Policed4 {
    /// See [`space`].
    pub space: u32,
    /// The address.
    pub address: [u8; 4],
}

/// The same for IPv6.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Pod, Zeroable)]
pub struct Policed6 {
    /// See [`space`].
    pub space: u32,
    /// The address.
    pub address: [u8; 16],
}

/// Bits of a prefix before the address.
pub const SPACE_BITS: u32 = 32;

/// The part of the prefix tables that has one side of one bank.
#[inline(always)]
#[must_use]
pub const fn space(bank: u32, side: Side) -> u32 {
    bank * 2 + side as u32
}

const _: () = {
    assert!(size_of::<RuleBits>() == 128);
    assert!(size_of::<PolicyRule>() == 4);
    assert!(size_of::<PolicyState>() == 8);
    assert!(size_of::<KnownSource>() == 24);
    assert!(size_of::<PolicyPlaces>() == 8);
    assert!(size_of::<PolicyMac>() == 8);
    assert!(size_of::<Policed4>() == 8);
    assert!(size_of::<Policed6>() == 20);
    assert!(size_of::<Properties>() == 20);
    assert!((place::ALL as usize).is_multiple_of(PLACES_PER_ENTRY));
};

/// Has types taken for keys or values of maps.
#[cfg(feature = "aya")]
macro_rules! of_maps {
    ($($type:ty),+) => {
        // SAFETY: `bytemuck::Pod` is derived for each: plain data without padding.
        $(unsafe impl aya::Pod for $type {})+
    };
}

#[cfg(feature = "aya")]
of_maps!(
    RuleBits,
    PolicyRule,
    PolicyState,
    PolicyPlaces,
    PolicyMac,
    Policed4,
    Policed6,
    NamedAddress,
    Named
);
