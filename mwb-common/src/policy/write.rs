//! What is written to the tables, one entry at a time, and why rules cannot be compiled.
//! Must not know: maps.

use alloc::boxed::Box;
use core::fmt;

use super::{
    OUTLETS, POLICY_HITS, POLICY_MACS, POLICY_PREFIXES, POLICY_RULES, POLICY_SETS, PolicyMac,
    PolicyPlaces, PolicyRule, PolicyState, RuleBits,
};
use crate::maps::DEVICE_SLOTS;

/// One write to one table. Those of a change are to be done in their order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Write {
    /// A set of rules.
    Set {
        /// Its entry.
        entry: u32,
        /// The rules.
        bits: Box<RuleBits>,
    },
    /// Four numbers of sets.
    Places {
        /// Their entry.
        entry: u32,
        /// The numbers.
        places: PolicyPlaces,
    },
    /// The set of a MAC.
    Mac {
        /// Which.
        mac: PolicyMac,
        /// `None`: no rule names it any more.
        set: Option<u16>,
    },
    /// The set of an IPv4 prefix.
    Prefix4 {
        /// See [`super::space`].
        space: u32,
        /// Network address.
        address: [u8; 4],
        /// In bits.
        length: u8,
        /// `None`: no rule names it any more.
        set: Option<u16>,
    },
    /// The set of an IPv6 prefix.
    Prefix6 {
        /// See [`super::space`].
        space: u32,
        /// Network address.
        address: [u8; 16],
        /// In bits.
        length: u8,
        /// `None`: no rule names it any more.
        set: Option<u16>,
    },
    /// What a rule wants.
    Rule {
        /// Its entry.
        entry: u32,
        /// What.
        rule: PolicyRule,
    },
    /// What is in use from now on.
    State(PolicyState),
}

/// Why rules cannot be compiled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TooMuch {
    /// More rules than there may be, marks counted.
    Rules {
        /// How many.
        count: usize,
    },
    /// More different sets than there is room for.
    Sets {
        /// How many.
        count: usize,
    },
    /// More prefixes of one family.
    Prefixes {
        /// How many.
        count: usize,
    },
    /// More MACs.
    Macs {
        /// How many.
        count: usize,
    },
    /// A device with a higher index.
    Device {
        /// Its index.
        ifindex: u32,
    },
    /// An outlet that there is not.
    Outlet {
        /// Index of the rule.
        rule: usize,
    },
    /// A counter that there is not.
    Hits {
        /// Index of the rule.
        rule: usize,
    },
    /// A name or group that there is not.
    Names {
        /// Its number.
        number: u16,
    },
}

impl fmt::Display for TooMuch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Rules { count } => write!(
                f,
                "{count} policy rules (each mark of a rule counts): there may be {POLICY_RULES}"
            ),
            Self::Sets { count } => write!(
                f,
                "policy rules that differ in {count} ways: the tables hold {POLICY_SETS}; name \
                 fewer prefixes or ports of their own"
            ),
            Self::Prefixes { count } => write!(
                f,
                "policy rules that name {count} prefixes: the tables hold {}; name larger ones",
                POLICY_PREFIXES / 2
            ),
            Self::Macs { count } => write!(
                f,
                "policy rules that name {count} MACs: the tables hold {}",
                POLICY_MACS / 2
            ),
            Self::Device { ifindex } => write!(
                f,
                "a policy rule names a device with index {ifindex}: the tables hold those below \
                 {DEVICE_SLOTS}"
            ),
            Self::Outlet { rule } => {
                write!(f, "policy rule {rule} has an outlet that is not in 1..{OUTLETS}")
            }
            Self::Hits { rule } => {
                write!(f, "policy rule {rule} has a counter that is not below {POLICY_HITS}")
            }
            Self::Names { number } => {
                write!(f, "number {number} of a name or a group of names: there are fewer")
            }
        }
    }
}

impl core::error::Error for TooMuch {}
