//! What is over, as a pure function of a snapshot.
//!
//! - A flow has two entries that point at each other; both live as long as
//!   either direction is in use, and die together.
//! - An entry without its other half dies when it is idle itself. If it has
//!   never been used it may be half of a flow that is being made: it dies only
//!   if it was already alone in the snapshot before.
//! - A flow or mapping of another generation than its path's is void: it dies
//!   at once.
//! - A mapping dies when no living flow uses its port and no flow was made from
//!   it for its timeout; a port, when also no living mapping has it. The last
//!   packet of a flow is never later than the flow's end, so a UDP mapping is
//!   kept for the UDP timeout after its last packet at least (RFC 4787, REQ-5:
//!   never under two minutes). A protocol without ports has mappings but no
//!   ports: its mapping dies when no living flow is of its inside endpoint.
//! - A port forward is never over: the agent takes it away, nobody else.
//! - A TCP connection counts as open once both sides have shown SYN and ACK,
//!   whoever came first (RFC 5382, REQ-2), and until both have shown FIN, or
//!   one RST (RFC 7857, 2). All else is transitory.

use std::collections::{HashMap, HashSet};
use std::hash::Hash;
use std::time::Duration;

use mwb_common::maps::{
    FORWARD, Flow, FlowKey4, FlowKey6, Mapping, MappingKey, PATH_SLOTS, Path, PortKey, PortOwner,
    path_flag,
};

use mwb_common::nat::{inbound4, inbound6, outbound4, outbound6, protocol, v4};

use crate::dataplane::Waiting;

const FIN: u8 = 0x01;
const SYN: u8 = 0x02;
const RST: u8 = 0x04;
const ACK: u8 = 0x10;

/// How long what may be idle.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timeouts {
    /// Flows and mappings of UDP, SCTP, GRE and ESP.
    pub udp: Duration,
    /// ICMP echo flows and mappings.
    pub icmp: Duration,
    /// TCP connections that are open, see [`plan`].
    pub tcp_established: Duration,
    /// All other TCP flows, and TCP mappings.
    pub tcp_transitory: Duration,
}

impl Default for Timeouts {
    /// RFC 4787 REQ-5 (recommended), RFC 5508 REQ-2, RFC 5382 REQ-5.
    fn default() -> Self {
        Self {
            udp: Duration::from_secs(300),
            icmp: Duration::from_secs(60),
            tcp_established: Duration::from_secs(2 * 3600 + 4 * 60),
            tcp_transitory: Duration::from_secs(4 * 60),
        }
    }
}

impl Timeouts {
    fn flow(&self, protocol: u8, established: bool) -> u64 {
        nanoseconds(match protocol {
            protocol::TCP if established => self.tcp_established,
            protocol::TCP => self.tcp_transitory,
            protocol::ICMP | protocol::ICMPV6 => self.icmp,
            _ => self.udp,
        })
    }

    fn mapping(&self, protocol: u8) -> u64 {
        self.flow(protocol, false)
    }
}

fn nanoseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

/// What the tables held. Read in this order: the time first, so that nothing in
/// the tables is older than it seems; the paths last, so that no flow in the
/// tables is of a younger generation than they say.
#[derive(Clone, Debug, Default)]
pub struct Snapshot {
    /// `CLOCK_MONOTONIC` in nanoseconds.
    pub now: u64,
    /// IPv4 flows.
    pub flows4: Vec<(FlowKey4, Flow)>,
    /// IPv6 flows.
    pub flows6: Vec<(FlowKey6, Flow)>,
    /// Mappings.
    pub mappings: Vec<(MappingKey, Mapping)>,
    /// Ports.
    pub ports: Vec<(PortKey, PortOwner)>,
    /// Paths by id.
    pub paths: Vec<Path>,
    /// How many flows of one family fit.
    pub flow_capacity: usize,
    /// Fragments that wait for the first of their datagram: the kernel side ends
    /// their wait itself, since only it can take a place without meeting a CPU
    /// that is at it.
    pub waiting: Waiting,
}

/// Entries that were alone and never used: the next plan may end them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Suspects {
    flows4: HashSet<FlowKey4>,
    flows6: HashSet<FlowKey6>,
}

/// A flow that is over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Dead<K> {
    /// One of its entries, as it was.
    pub entry: (K, Flow),
    /// The other one, if it has one that dies with it.
    pub twin: Option<(K, Flow)>,
    /// It is of another generation than its path; its other half, if it has
    /// one, is judged by itself.
    pub void: bool,
}

/// What to take away, each entry as it was in the snapshot.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Plan {
    /// IPv4 flows.
    pub flows4: Vec<Dead<FlowKey4>>,
    /// IPv6 flows.
    pub flows6: Vec<Dead<FlowKey6>>,
    /// Mappings.
    pub mappings: Vec<(MappingKey, Mapping)>,
    /// Ports.
    pub ports: Vec<(PortKey, PortOwner)>,
    /// For the next plan.
    pub suspects: Suspects,
    /// What remains when the plan is carried out.
    pub usage: Usage,
}

/// How full the tables are.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// Inside endpoints with an outside endpoint.
    pub mappings: usize,
    /// IPv4 flows (each has two entries).
    pub flows4: usize,
    /// IPv6 flows (each has two entries).
    pub flows6: usize,
    /// How many flows of one family fit.
    pub flow_capacity: usize,
    /// Outside ports in use, forwards among them, by path id.
    pub ports_used: Vec<usize>,
    /// Fragments that wait for the first of their datagram.
    pub waiting: Waiting,
}

/// Makes the plan. `suspects` are those of the plan before. What keeps a flow, a
/// mapping or a port alive is told at the top of this file: a TCP connection is
/// open once both sides have shown SYN and ACK, until both have shown FIN or one
/// RST.
#[must_use]
pub fn plan(snapshot: &Snapshot, timeouts: &Timeouts, suspects: &Suspects) -> Plan {
    let flows4 = sort_out(&snapshot.flows4, snapshot, timeouts, &suspects.flows4);
    let flows6 = sort_out(&snapshot.flows6, snapshot, timeouts, &suspects.flows6);

    let in_use: HashSet<PortKey> = flows4.living.iter().map(port_of).collect();
    let endpoints: HashSet<Endpoint> = flows4
        .living
        .iter()
        .filter(|(key, _)| !protocol::has_nat_ports(key.protocol))
        .map(endpoint_of)
        .collect();
    let is_used = |key: &MappingKey, mapping: &Mapping| {
        if protocol::has_nat_ports(key.protocol) {
            in_use.contains(&outside(key, mapping))
        } else {
            endpoints.contains(&(key.address, key.port, key.protocol, mapping.path))
        }
    };
    let idle = |last_used: u64, protocol: u8| {
        snapshot.now.saturating_sub(last_used) > timeouts.mapping(protocol)
    };
    let (mappings, kept): (Vec<_>, Vec<_>) =
        snapshot.mappings.iter().partition(|(key, mapping)| {
            void(&snapshot.paths, mapping.path, mapping.generation)
                || (idle(mapping.last_used, key.protocol) && !is_used(key, mapping))
        });
    let mapped: HashSet<PortKey> =
        kept.iter().map(|(key, mapping)| outside(key, mapping)).collect();
    let (ports, used): (Vec<_>, Vec<_>) = snapshot.ports.iter().partition(|(key, owner)| {
        owner.last_used != FORWARD
            && idle(owner.last_used, key.protocol)
            && !in_use.contains(key)
            && !mapped.contains(key)
    });

    let mut ports_used = vec![0; PATH_SLOTS];
    for (key, _) in &used {
        if let Some(count) = ports_used.get_mut(usize::from(key.path)) {
            *count += 1;
        }
    }
    let outbound = |scope: u8| scope == 0;
    let usage = Usage {
        mappings: kept.len(),
        flows4: flows4.living.iter().filter(|(key, _)| outbound(key.scope)).count(),
        flows6: flows6.living.iter().filter(|(key, _)| outbound(key.scope)).count(),
        flow_capacity: snapshot.flow_capacity,
        ports_used,
        waiting: snapshot.waiting,
    };
    Plan {
        flows4: flows4.dead,
        flows6: flows6.dead,
        mappings,
        ports,
        suspects: Suspects { flows4: flows4.suspects, flows6: flows6.suspects },
        usage,
    }
}

/// The outside endpoint of a mapping as a port.
pub(super) fn outside(key: &MappingKey, mapping: &Mapping) -> PortKey {
    PortKey { port: mapping.port, protocol: key.protocol, path: mapping.path }
}

/// The outside port that an IPv4 flow's entry uses.
fn port_of((key, flow): &(FlowKey4, Flow)) -> PortKey {
    let port = if key.scope == 0 { flow.port } else { key.destination_port };
    PortKey { port, protocol: key.protocol, path: flow.path }
}

/// An inside endpoint on a path: address, port, protocol, path id.
type Endpoint = ([u8; 4], [u8; 2], u8, u8);

/// The inside endpoint of an IPv4 flow's entry.
fn endpoint_of((key, flow): &(FlowKey4, Flow)) -> Endpoint {
    let (address, port) =
        if key.scope == 0 { (key.source, key.source_port) } else { (v4(&flow.address), flow.port) };
    (address, port, key.protocol, flow.path)
}

fn void(paths: &[Path], path: u8, generation: u32) -> bool {
    paths
        .get(usize::from(path))
        .is_none_or(|path| path.flags & path_flag::PRESENT == 0 || path.generation != generation)
}

/// A key of a flow table.
pub(super) trait Key: Copy + Eq + Hash {
    fn protocol(&self) -> u8;
    fn scope(&self) -> u8;
    /// The key of the other direction, which the entry's value tells.
    fn twin(&self, flow: &Flow) -> Self;
}

impl Key for FlowKey4 {
    fn protocol(&self) -> u8 {
        self.protocol
    }

    fn scope(&self) -> u8 {
        self.scope
    }

    fn twin(&self, flow: &Flow) -> Self {
        if self.scope == 0 {
            inbound4(self, v4(&flow.address), flow.port, flow.path)
        } else {
            outbound4(self, v4(&flow.address), flow.port)
        }
    }
}

impl Key for FlowKey6 {
    fn protocol(&self) -> u8 {
        self.protocol
    }

    fn scope(&self) -> u8 {
        self.scope
    }

    fn twin(&self, flow: &Flow) -> Self {
        if self.scope == 0 {
            inbound6(self, flow.address, flow.path)
        } else {
            outbound6(self, flow.address)
        }
    }
}

struct Sorted<K> {
    living: Vec<(K, Flow)>,
    dead: Vec<Dead<K>>,
    suspects: HashSet<K>,
}

fn sort_out<K: Key>(
    flows: &[(K, Flow)],
    snapshot: &Snapshot,
    timeouts: &Timeouts,
    suspects: &HashSet<K>,
) -> Sorted<K> {
    let table: HashMap<K, &Flow> = flows.iter().map(|(key, flow)| (*key, flow)).collect();
    let is_void = |flow: &Flow| void(&snapshot.paths, flow.path, flow.generation);
    let mut sorted = Sorted { living: Vec::new(), dead: Vec::new(), suspects: HashSet::new() };
    for (key, flow) in flows {
        let entry = (*key, *flow);
        if is_void(flow) {
            sorted.dead.push(Dead { entry, twin: None, void: true });
            continue;
        }
        let twin_key = key.twin(flow);
        let twin = table
            .get(&twin_key)
            .map(|twin| (twin_key, **twin))
            .filter(|(twin_key, twin)| twin_key.twin(twin) == *key && !is_void(twin));
        let last_seen = flow.last_seen.max(twin.map_or(0, |(_, twin)| twin.last_seen));
        let dead = if last_seen == 0 {
            let known = suspects.contains(key);
            if !known {
                sorted.suspects.insert(*key);
            }
            known
        } else {
            let established = twin.is_some_and(|(_, twin)| is_established(flow, &twin));
            let timeout = timeouts.flow(key.protocol(), established);
            snapshot.now.saturating_sub(last_seen) > timeout
        };
        if !dead {
            sorted.living.push(entry);
        } else if twin.is_none() || key.scope() == 0 {
            // A pair is named once, by its outbound entry.
            sorted.dead.push(Dead { entry, twin, void: false });
        }
    }
    sorted
}

/// Opened by both sides and closed by neither.
fn is_established(one: &Flow, other: &Flow) -> bool {
    let open = SYN | ACK;
    let (one, other) = (one.tcp_flags, other.tcp_flags);
    one & other & open == open && (one | other) & RST == 0 && one & other & FIN == 0
}

#[cfg(test)]
#[path = "plan_tests.rs"]
mod tests;

#[cfg(test)]
#[path = "plan_properties.rs"]
mod properties;
