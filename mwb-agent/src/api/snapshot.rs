//! The shapes of the JSON answers. Shared by the agent, which fills them, and
//! `mwb`, which prints them. Fields are added, never renamed or removed.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, Ipv6Addr};

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::bond::BondStatus;
use crate::notify;

/// `/v1/status`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Status {
    /// Version of the agent.
    pub version: String,
    /// Its instance name.
    pub instance: String,
    /// `gateway` or `server`.
    #[serde(default)]
    pub role: String,
    /// `steer` or `bond`; what a server does with packets that are not for a bond.
    pub mode: String,
    /// How new flows are shared.
    pub balance: String,
    /// How long the agent has run.
    pub uptime_seconds: f64,
    /// LAN ports.
    pub lan: Vec<LanStatus>,
    /// WAN links in the order of the configuration.
    pub wans: Vec<WanStatus>,
    /// Address translation.
    pub nat: NatStatus,
    /// Who carries traffic.
    pub failover: FailoverStatus,
    /// Frames that were redirected by XDP to a device that did not take them, by
    /// device; those that lost none are left out.
    #[serde(default)]
    pub redirect_losses: BTreeMap<String, u64>,
    /// This end of its bonds, if it has any.
    #[serde(default)]
    pub bond: Option<BondStatus>,
    /// How it goes with those who are told of events.
    #[serde(default)]
    pub notify: notify::Status,
}

/// A LAN port.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct LanStatus {
    /// Interface name.
    pub device: String,
    /// Interface index; `None` while the device is missing.
    pub ifindex: Option<u32>,
    /// `xdp` or `tcx`; `None` while nothing is attached.
    pub hook: Option<String>,
    /// `native`, `generic`, `tcx`, `clsact` or `routed`; `None` while nothing is attached.
    pub hook_mode: Option<String>,
    /// Why this hook, or why none.
    pub hook_reason: String,
}

/// Health of a WAN.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum WanState {
    /// Answers as it should.
    Up,
    /// Does not answer.
    Down,
    /// Answers, but late, unevenly or not always.
    Degraded,
    /// Answers again, not yet for long enough.
    Testing,
    /// Not asked yet.
    Unknown,
}

impl WanState {
    /// All of them.
    pub const ALL: [WanState; 5] =
        [WanState::Up, WanState::Down, WanState::Degraded, WanState::Testing, WanState::Unknown];

    /// The word in JSON and metrics.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            WanState::Up => "up",
            WanState::Down => "down",
            WanState::Degraded => "degraded",
            WanState::Testing => "testing",
            WanState::Unknown => "unknown",
        }
    }
}

/// A WAN link; `/v1/wans` is a list of these.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct WanStatus {
    /// Name in the configuration.
    pub name: String,
    /// Interface name.
    pub device: String,
    /// Interface index; `None` while the device is missing.
    pub ifindex: Option<u32>,
    /// Path id: position in the configuration, from 1.
    pub path: u8,
    /// Health.
    pub state: WanState,
    /// Why it is in this state.
    pub reason: String,
    /// Whether the device has a carrier.
    pub carrier: bool,
    /// The address flows are translated to.
    #[schema(value_type = Option<String>)]
    pub address4: Option<Ipv4Addr>,
    /// IPv4 next hop.
    #[schema(value_type = Option<String>)]
    pub gateway4: Option<Ipv4Addr>,
    /// IPv6 next hop.
    #[schema(value_type = Option<String>)]
    pub gateway6: Option<Ipv6Addr>,
    /// Whether the MAC of the IPv4 next hop is known.
    pub next_hop4: bool,
    /// Whether the MAC of the IPv6 next hop is known.
    pub next_hop6: bool,
    /// `xdp` or `tcx`; `None` while nothing is attached.
    pub hook: Option<String>,
    /// `native`, `generic`, `tcx`, `clsact` or `routed`; `None` while nothing is attached.
    pub hook_mode: Option<String>,
    /// Why this hook, or why none.
    pub hook_reason: String,
    /// Configured priority.
    pub priority: u8,
    /// Configured weight.
    pub weight: u16,
    /// Configured capacity to the Internet in bit/s.
    #[serde(default)]
    pub capacity_up: Option<u64>,
    /// Configured capacity from the Internet in bit/s.
    #[serde(default)]
    pub capacity_down: Option<u64>,
    /// Part of the IPv4 path choice's slots, 0 to 1.
    pub share: f64,
    /// Whether new flows are sent here.
    pub active: bool,
    /// Smoothed round-trip time.
    pub rtt_ms: Option<f64>,
    /// Smoothed variation of the round-trip time.
    pub jitter_ms: Option<f64>,
    /// Part of the latest probes lost, 0 to 1.
    pub loss: Option<f64>,
    /// Received from the WAN and forwarded.
    pub rx: Traffic,
    /// Sent to the WAN by forwarding.
    pub tx: Traffic,
    /// How often traffic had to leave it.
    pub failovers: u64,
    /// When its state last changed, in milliseconds since 1970.
    pub last_change_unix_ms: Option<u64>,
    /// What becomes of its flows when a better WAN is back: `stay`, `cut` or
    /// `drain(5m)`.
    #[serde(default)]
    pub failback: String,
    /// Until when flows may stay on it, in milliseconds since 1970, while they
    /// are draining.
    #[serde(default)]
    pub drain_until_unix_ms: Option<u64>,
    /// How long it must be well before it is used again.
    #[serde(default)]
    pub hold_down_seconds: f64,
    /// When it may be used again, in milliseconds since 1970, while it is held.
    #[serde(default)]
    pub hold_until_unix_ms: Option<u64>,
    /// How often it failed soon after it came back, since it was last calm.
    #[serde(default)]
    pub relapses: u32,
    /// How it is checked now.
    #[serde(default)]
    pub checks: Checks,
}

/// How a WAN is checked.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Checks {
    /// By which method; none before the first round.
    pub method: Option<String>,
    /// Time between two rounds.
    pub interval_ms: f64,
    /// Whether round-trip times are those of a queue that traffic has made.
    pub loaded: bool,
    /// What is found is told and not acted upon.
    pub observe: bool,
    /// What is known about each method, where one is chosen.
    pub scores: Vec<CheckScore>,
}

/// What is known about a method on a WAN.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct CheckScore {
    /// Which.
    pub method: String,
    /// 0 to 1.
    pub reliability: f64,
    /// Outcomes that counted.
    pub tried: u32,
    /// Of these, answers.
    pub answered: u32,
    /// How often it has answered while the link was dead.
    pub lies: u32,
}

/// Packets and bytes, bytes from the IP header on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Traffic {
    /// Packets.
    pub packets: u64,
    /// Bytes.
    pub bytes: u64,
}

/// Use of the NAT tables, as the last sweep saw it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct NatStatus {
    /// Inside endpoints that have an outside port.
    pub mappings: u64,
    /// IPv4 flows.
    pub flows4: u64,
    /// IPv6 flows.
    pub flows6: u64,
    /// Ports taken, by WAN name.
    pub ports_used: BTreeMap<String, u64>,
    /// Flows that fit, per address family.
    pub flow_capacity: u64,
}

/// Who carries traffic.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct FailoverStatus {
    /// WANs that new flows are sent to.
    pub active: Vec<String>,
    /// Failovers since the agent started.
    pub count: u64,
    /// The last one, in milliseconds since 1970.
    pub last_unix_ms: Option<u64>,
    /// The WAN that the operator sends new flows to, while it works.
    #[serde(default)]
    pub forced: Option<String>,
    /// When that ends, in milliseconds since 1970, if it does by itself.
    #[serde(default)]
    pub forced_until_unix_ms: Option<u64>,
}

/// A row of `/v1/counters`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct CounterRow {
    /// `out`: from the LAN; `in`: from a WAN.
    pub direction: String,
    /// Name of the WAN that carries the packets, or `none`.
    pub wan: String,
    /// Why the packets ended as they did.
    pub reason: String,
    /// `forward`, `kernel` or `drop`.
    pub verdict: String,
    /// `tcp4`, `udp6`, ...
    pub protocol: String,
    /// Packets.
    pub packets: u64,
    /// Bytes from the IP header on.
    pub bytes: u64,
}
