//! The shapes of `/v1/policy` and `/v1/policy/addresses`.

use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

/// The answer of `/v1/policy`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct PolicyStatus {
    /// The rules, in the order in which they are asked.
    pub rules: Vec<RuleStatus>,
    /// What is known of names; null: no rule has asked for one.
    pub domains: Option<DomainStatus>,
}

/// Addresses of names that rules ask for, and the answers that they are learned from.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct DomainStatus {
    /// Addresses that are known.
    pub addresses: u64,
    /// How many can be.
    pub capacity: u64,
    /// Addresses that have made room for others before their time.
    pub pushed_out: u64,
    /// Addresses that were not taken: they were of too many different sets of names.
    pub refused: u64,
    /// Answers that said addresses of a name that a rule asks for.
    pub answers: u64,
    /// Answers that said addresses of other names.
    pub of_others: u64,
    /// Messages that said no address: errors, other types of record, empty and cut ones.
    pub without_address: u64,
    /// Packets and messages that could not be read: fragments, and what is not DNS.
    pub unreadable: u64,
    /// TCP connections of which a part was missed, or that were too many.
    pub given_up: u64,
    /// Packets that came faster than they were read.
    pub dropped: u64,
    /// Devices on which answers are heard.
    pub heard: Vec<String>,
    /// Devices on which they are not.
    pub deaf: Vec<DeafDevice>,
}

/// A LAN port on which no answers are heard.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct DeafDevice {
    /// Its name, or `all`.
    pub device: String,
    /// Why.
    pub why: String,
}

/// What is asked of `/v1/policy/addresses`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
pub struct AddressQuery {
    /// The rule, by its name.
    pub rule: String,
}

/// An address of a name that a rule asks for.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct AddressStatus {
    /// The address.
    pub address: String,
    /// The name that was asked for last; null: the agent has started since.
    pub name: Option<String>,
    /// For how long it is still good.
    pub seconds_left: u64,
}

/// A policy rule.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct RuleStatus {
    /// Its name, or its place from 1 as in `rule-1`.
    pub name: String,
    /// What it matches, as it is written in the configuration; empty: every packet.
    pub matches: String,
    /// When it counts, as it is written in the configuration; null: always.
    pub time: Option<String>,
    /// What becomes of flows, as it is written in the configuration.
    pub action: String,
    /// Whether it counts now.
    pub active: bool,
    /// In how many minutes that changes, by the clock; null: it does not.
    pub changes_in_minutes: Option<u32>,
    /// Names of the WANs that its new flows leave by now, of either address family; empty if
    /// it names none, or none of them carries any.
    pub wans: Vec<String>,
    /// Whether none of these is one that it names.
    pub fallen_back: bool,
    /// Flows that it has opened, and packets that it has dropped, since the rule is there or
    /// the agent started.
    pub hits: u64,
    /// How many addresses are known of the names that it asks for; null: it asks for none.
    pub addresses: Option<u64>,
}
