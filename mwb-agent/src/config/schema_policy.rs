//! The part of [`super::schema`] that is about policy rules.

use std::ops::RangeInclusive;

use super::schema::Section;

/// Policy.
pub(super) const POLICY: Section = Section {
    path: "policy",
    keys: &["rules"],
    later: &[],
    example: "{rules: [{protocol: udp, port: 5060-5061, use: fiber}]}",
};

/// A policy rule.
pub(super) const POLICY_RULE: Section = Section {
    path: "policy.rules[]",
    keys: &[
        "name",
        "source",
        "destination",
        "domain",
        "protocol",
        "port",
        "source_port",
        "dscp",
        "lan",
        "mac",
        "mark",
        "time",
        "use",
        "balance",
        "fallback",
    ],
    later: &[],
    example: "{protocol: udp, port: 5060-5061, use: fiber}",
};

/// When a policy rule counts.
pub(super) const POLICY_TIME: Section = Section {
    path: "policy.rules[].time",
    keys: &["days", "from", "to"],
    later: &[],
    example: "{days: mon-fri, from: \"08:00\", to: \"18:00\"}",
};

/// WANs that a policy rule does not name.
pub(super) const POLICY_USE: Section = Section {
    path: "policy.rules[].use",
    keys: &["priority"],
    later: &[],
    example: "{priority: 1}",
};

/// How many `policy.rules` there may be.
pub(super) const POLICY_RULES: usize = 1_000;
/// How many different `use`, `balance` and `fallback` they may have together.
pub(super) const OUTLETS: usize = 63;
/// Length of a rule's name.
pub(super) const POLICY_NAME_LENGTH: usize = 31;
/// How many values a key of a rule may have.
pub(super) const POLICY_LIST: usize = 256;
/// How many prefixes all rules may have, in `source` and in `destination`.
pub(super) const POLICY_PREFIXES: usize = 2_048;
/// How many different names all rules may have: half of what the kernel side has numbers
/// for, so that a reload finds numbers that nobody has had of late.
pub(super) const POLICY_DOMAINS: usize = 512;
/// How many ranges of ports all rules may have.
pub(super) const POLICY_RANGES: usize = 1_000;
/// How many MACs all rules may have.
pub(super) const POLICY_MACS: usize = 1_000;
/// `policy.rules[].mark`: packets without one have 0.
pub(super) const MARK: RangeInclusive<u32> = 1..=u32::MAX;
