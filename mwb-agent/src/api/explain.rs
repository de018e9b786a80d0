//! The shapes of `/v1/why`: a packet is named, the decision about it is told.

use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use super::flows::FlowRow;

/// What is asked.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct WhyQuery {
    /// `tcp 192.0.2.10:1234 203.0.113.5:443`, or a flow as `mwb flows` shows it.
    pub packet: String,
    /// The LAN port that it comes in through; by default the one whose subnet the source is
    /// in. Policy rules may ask for it, and for what follows.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lan: Option<String>,
    /// Its source MAC, as in `02:00:00:00:00:01`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mac: Option<String>,
    /// Its code point, a word or a number; by default 0.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dscp: Option<String>,
    /// Its firewall mark, as in `0x10` or `16`; by default none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mark: Option<String>,
}

/// The answer of `/v1/why`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Explanation {
    /// The packet as it was understood.
    pub packet: String,
    /// The open flow it belongs to, if there is one.
    pub flow: Option<FlowRow>,
    /// What becomes of it.
    pub outcome: Outcome,
    /// What was looked at, in order, and what it said.
    pub steps: Vec<Step>,
    /// What would change the outcome.
    pub would_change: Vec<String>,
}

/// What becomes of a packet.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Outcome {
    /// One sentence for people.
    pub said: String,
    /// `forward`, `kernel` or `drop`.
    pub verdict: String,
    /// The reason it is counted under.
    pub reason: String,
    /// Name of the WAN it leaves by, if it does.
    pub wan: Option<String>,
    /// Whether it is certain: a choice by counter depends on the flows that come
    /// before it.
    pub certain: bool,
    /// Where it can go if it is not certain, the most likely first.
    pub possible: Vec<Possibility>,
}

/// A WAN that may be chosen.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Possibility {
    /// Name of the WAN.
    pub wan: String,
    /// Part of the slots that lead there now, 0 to 1.
    pub share: f64,
}

/// One step of a decision.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Step {
    /// What was looked at: `flow`, `rule`, `source`, `mapping`, `mode`, `slot`,
    /// `liveness`, `ranking`, `limit`, `forward`, `policy`; in a bond also `session`, `class`.
    pub what: String,
    /// What it said.
    pub said: String,
}
