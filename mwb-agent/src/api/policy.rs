//! The shapes of `/v1/policy`.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// The answer of `/v1/policy`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct PolicyStatus {
    /// The rules, in the order in which they are asked.
    pub rules: Vec<RuleStatus>,
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
}
