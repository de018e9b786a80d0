//! Which keys there are, and how far their values go. Read by the reader, shown
//! in messages and held against `docs/config.md` by a test.

use std::ops::RangeInclusive;
use std::time::Duration;

use mwb_common::maps::{BOND_PATHS, MAX_PATHS};

pub(super) use super::schema_health::*;
pub(super) use super::schema_policy::*;

/// A set of keys.
pub(super) struct Section {
    /// Where it stands; `[]` for an item of a list.
    pub(super) path: &'static str,
    /// Its keys.
    pub(super) keys: &'static [&'static str],
    /// Keys that a later version will have.
    pub(super) later: &'static [&'static str],
    /// How it may look, for messages.
    pub(super) example: &'static str,
}

/// The whole file.
pub(super) const FILE: Section = Section {
    path: "",
    keys: &[
        "version",
        "role",
        "mode",
        "hook",
        "redirect_peer",
        "lan",
        "balance",
        "ipv6_prefix",
        "bypass",
        "wans",
        "policy",
        "failover",
        "health",
        "nat",
        "bond",
        "server",
        "classes",
        "reorder",
        "fec",
        "history",
        "notify",
        "api",
    ],
    later: &["interfaces"],
    example: "`version: 1`, `mode: steer`, `lan: [lan0]`, `wans: [{name: fiber, device: wan0}]`",
};

/// A LAN port with keys of its own.
pub(super) const LAN: Section = Section {
    path: "lan[]",
    keys: &["device", "hook", "redirect_peer"],
    later: &[],
    example: "{device: lan0, hook: xdp}",
};

/// A WAN.
pub(super) const WAN: Section = Section {
    path: "wans[]",
    keys: &[
        "name",
        "device",
        "gateway",
        "gateway6",
        "priority",
        "weight",
        "capacity",
        "metered",
        "hook",
        "redirect_peer",
        "ipv6_prefix",
        "failback",
        "forwards",
        "health",
    ],
    later: &["quota"],
    example: "{name: fiber, device: wan0}",
};

/// What a WAN can carry.
pub(super) const CAPACITY: Section = Section {
    path: "wans[].capacity",
    keys: &["up", "down"],
    later: &[],
    example: "{up: 40mbit, down: 200mbit}",
};

/// A port forward.
pub(super) const FORWARD: Section = Section {
    path: "wans[].forwards[]",
    keys: &["protocol", "port", "to"],
    later: &[],
    example: "{protocol: tcp, port: 443, to: \"192.0.2.10:443\"}",
};

/// Failover.
pub(super) const FAILOVER: Section = Section {
    path: "failover",
    keys: &["failback_after", "failback", "hold_down_max", "dead_after"],
    later: &[],
    example: "{failback_after: 5s}",
};

/// Address translation.
pub(super) const NAT: Section = Section {
    path: "nat",
    keys: &["ports", "flows", "timeouts", "filtering", "mappings_per_source"],
    later: &["pool"],
    example: "{ports: 10000-65535}",
};

/// When idle flows are forgotten.
pub(super) const TIMEOUTS: Section = Section {
    path: "nat.timeouts",
    keys: &["udp", "icmp", "tcp_established", "tcp_transitory"],
    later: &[],
    example: "{udp: 300s}",
};

/// The gateway's end of a bond.
pub(super) const BOND: Section = Section {
    path: "bond",
    keys: &[
        "server",
        "private_key_file",
        "server_public_key",
        "suite",
        "port",
        "device",
        "addresses",
        "probe_interval",
        "elephant",
    ],
    later: &[],
    example: "{server: \"203.0.113.250:7000\", private_key_file: /etc/mwb/private.key, \
              server_public_key: \"…\", addresses: [192.0.2.129/32]}",
};

/// The server's end of bonds.
pub(super) const SERVER: Section = Section {
    path: "server",
    keys: &["private_key_file", "port", "device", "addresses", "suites", "clients"],
    later: &["pool", "quota"],
    example: "{private_key_file: /etc/mwb/private.key, addresses: [10.100.0.1/16], clients: […]}",
};

/// A client of a server.
pub(super) const CLIENT: Section = Section {
    path: "server.clients[]",
    keys: &["name", "public_key", "prefixes", "suites"],
    later: &["up", "down", "quota", "priority"],
    example: "{name: site1, public_key: \"…\", prefixes: [192.0.2.0/26]}",
};

/// Classes of service of a bond.
pub(super) const CLASSES: Section = Section {
    path: "classes",
    keys: &["rules", "metered_copies"],
    later: &[],
    example: "{rules: [{class: duplicate, protocol: udp, port: 5060-5061}]}",
};

/// Which packets have a class.
pub(super) const CLASS_RULE: Section = Section {
    path: "classes.rules[]",
    keys: &[
        "class", "repair", "peer", "protocol", "port", "dscp", "length", "paths", "fallback",
        "time",
    ],
    later: &["device", "mac"],
    example: "{class: duplicate, protocol: udp, port: 5060-5061}",
};

/// When a rule of classes counts.
pub(super) const CLASS_TIME: Section = Section {
    path: "classes.rules[].time",
    keys: POLICY_TIME.keys,
    later: POLICY_TIME.later,
    example: POLICY_TIME.example,
};

/// How packets that come by several paths get in order.
pub(super) const REORDER: Section =
    Section { path: "reorder", keys: &["hold"], later: &[], example: "{hold: 100ms}" };

/// Forward error correction of what this end sends.
pub(super) const FEC: Section = Section {
    path: "fec",
    keys: &["parity", "block", "wait", "interleave"],
    later: &[],
    example: "{parity: auto, wait: 10ms}",
};

/// Where the agent answers.
pub(super) const API: Section = Section {
    path: "api",
    keys: &["listen", "socket", "group", "token_file"],
    later: &[],
    example: "{listen: \"127.0.0.1:9800\"}",
};

/// All of them.
pub(super) const SECTIONS: [&Section; 33] = [
    &FILE,
    &LAN,
    &WAN,
    &CAPACITY,
    &FORWARD,
    &POLICY,
    &POLICY_RULE,
    &POLICY_TIME,
    &POLICY_USE,
    &FAILOVER,
    &HEALTH,
    &WAN_HEALTH,
    &PING,
    &HTTP,
    &HTTPS,
    &DNS,
    &TCP,
    &EXEC,
    &DEGRADED,
    &HISTORY,
    &NOTIFY,
    &RECEIVER,
    &NAT,
    &TIMEOUTS,
    &BOND,
    &SERVER,
    &CLIENT,
    &CLASSES,
    &CLASS_RULE,
    &CLASS_TIME,
    &REORDER,
    &FEC,
    &API,
];

/// `version`.
pub(super) const VERSION: u32 = 1;
/// How many WANs the data plane can hold.
pub(super) const WANS: usize = MAX_PATHS;
/// How many WANs a bond can have: path ids run from 1.
pub(super) const BOND_WANS: usize = BOND_PATHS - 1;
/// How many LAN ports.
pub(super) const LANS: usize = 32;
/// Half of the data plane's prefix table; the rest is for the gateway's own.
pub(super) const BYPASSES: usize = mwb_common::maps::PREFIX_ENTRIES / 2;
/// Length of a WAN's name.
pub(super) const NAME_LENGTH: usize = 15;
/// Length of an interface name (IFNAMSIZ without its zero).
pub(super) const DEVICE_LENGTH: usize = 15;
/// Length of the name of a bond's device: its other end has `-dp` behind it.
pub(super) const BOND_DEVICE_LENGTH: usize = DEVICE_LENGTH - super::DATA_PLANE_END.len();
/// How many `bond.server` there may be.
pub(super) const ENDPOINTS: usize = 8;
/// How many `addresses` a bond's device may have.
pub(super) const ADDRESSES: usize = 16;
/// `bond.port`.
pub(super) const BOND_PORT: RangeInclusive<u32> = 1..=65_535;
/// `server.port`: those above are given to flows.
pub(super) const SERVER_PORT: RangeInclusive<u32> = 1..=9_999;
/// `bond.probe_interval`; at most half of `failover.dead_after` too.
pub(super) const PROBE_INTERVAL: RangeInclusive<Duration> =
    Duration::from_millis(10)..=Duration::from_secs(1);
/// `failover.dead_after`.
pub(super) const DEAD_AFTER: RangeInclusive<Duration> =
    Duration::from_millis(20)..=Duration::from_secs(10);
/// `bond.elephant`.
pub(super) const ELEPHANT: RangeInclusive<u64> = 100_000..=10_000_000_000;
/// `classes.metered_copies`.
pub(super) const METERED_COPIES: RangeInclusive<u64> = 0..=10_000_000_000;
/// `reorder.hold`.
pub(super) const HOLD: RangeInclusive<Duration> = Duration::ZERO..=Duration::from_millis(200);
/// `fec.parity` where it is a number.
pub(super) const FEC_PARITY: RangeInclusive<u32> = 1..=8;
/// `fec.block`.
pub(super) const FEC_BLOCK: RangeInclusive<u32> = 2..=32;
/// `fec.wait`.
pub(super) const FEC_WAIT: RangeInclusive<Duration> =
    Duration::from_millis(1)..=Duration::from_millis(100);
/// `fec.interleave`.
pub(super) const FEC_INTERLEAVE: RangeInclusive<u32> = 1..=8;
/// `classes.rules[].paths` of a server.
pub(super) const BOND_PATH: RangeInclusive<u32> = 1..=BOND_PATHS as u32 - 1;
/// `classes.rules[].port`.
pub(super) const PORT: RangeInclusive<u16> = 1..=65_535;
/// `classes.rules[].length`.
pub(super) const LENGTH: RangeInclusive<u16> = 0..=65_535;
/// How many `server.clients`.
pub(super) const CLIENTS: usize = 1_000;
/// Length of a client's name.
pub(super) const CLIENT_NAME_LENGTH: usize = 31;
/// How many `prefixes` a client may have.
pub(super) const CLIENT_PREFIXES: usize = 64;
/// Length of the name of a group (what useradd takes).
pub(super) const GROUP_LENGTH: usize = 32;
/// Length of a path (PATH_MAX without its zero).
pub(super) const PATH_LENGTH: usize = 4_095;
/// Length of a unix socket's path (`sun_path` without its zero).
pub(super) const SOCKET_LENGTH: usize = 107;
/// `ipv6_prefix`: NPTv6 needs 64 host bits (RFC 6296, 3.5).
pub(super) const IPV6_PREFIX: RangeInclusive<u8> = 16..=64;
/// `wans[].priority`.
pub(super) const PRIORITY: RangeInclusive<u32> = 0..=255;
/// `wans[].weight`.
pub(super) const WEIGHT: RangeInclusive<u32> = 1..=1_000;
/// How many `wans[].forwards` a WAN may have.
pub(super) const FORWARDS: usize = 256;
/// Ports that all forwards together may take. Half of the port table at most,
/// which is as large as `nat.flows`, is checked beside this.
pub(super) const FORWARDED_PORTS: u32 = 4_096;
/// `wans[].forwards[].port`.
pub(super) const FORWARD_PORT: RangeInclusive<u16> = 1..=u16::MAX;
/// The time of `drain(…)`.
pub(super) const DRAIN: RangeInclusive<Duration> = seconds(1, 86_400);
/// `wans[].capacity`.
pub(super) const RATE: RangeInclusive<u64> = 8_000..=400_000_000_000;
/// `failover.failback_after`.
pub(super) const FAILBACK_AFTER: RangeInclusive<Duration> = seconds(0, 3_600);
/// `failover.hold_down_max`.
pub(super) const HOLD_DOWN_MAX: RangeInclusive<Duration> = seconds(0, 86_400);
/// Its default.
pub(super) const HOLD_DOWN: Duration = Duration::from_secs(300);
/// `nat.ports`: below are the gateway's own.
pub(super) const PORTS: RangeInclusive<u16> = 10_000..=65_535;
/// `nat.flows`.
pub(super) const FLOWS: RangeInclusive<u32> = 64..=4_194_304;
/// `nat.mappings_per_source`.
pub(super) const MAPPINGS_PER_SOURCE: RangeInclusive<u32> = 0..=65_535;
/// `nat.timeouts`.
pub(super) const TIMEOUT: RangeInclusive<Duration> = seconds(1, 604_800);

pub(super) const fn seconds(from: u64, to: u64) -> RangeInclusive<Duration> {
    Duration::from_secs(from)..=Duration::from_secs(to)
}
