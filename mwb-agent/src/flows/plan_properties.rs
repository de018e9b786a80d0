//! Expiry as properties of random tables, and over a long time.

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use mwb_common::maps::{FORWARD, Flow, FlowKey4, Mapping, MappingKey, PortKey, PortOwner};
use proptest::collection::vec;
use proptest::prelude::*;

use super::tests::{GRE, ICMP, NOW, SECOND, TCP, UDP, ago, pair, paths, planned, snapshot, widen};
use super::{ACK, Key, Plan, SYN, Snapshot, Suspects, Timeouts, outside, plan};

/// Few addresses and ports, so that entries meet.
fn arbitrary_flow() -> impl Strategy<Value = (FlowKey4, Flow)> {
    let seconds = prop_oneof![Just(NOW / SECOND), 0_u64..10_000];
    let key = (
        0_u8..2,
        0_u8..2,
        0_u8..3,
        0_u8..3,
        prop_oneof![Just(UDP), Just(TCP), Just(ICMP), Just(GRE)],
    );
    let value = (seconds, 0_u8..2, 0_u8..3, 0_u8..4, 0_u8..32, 1_u32..3);
    (key, 0_u8..3, value).prop_map(
        |((source, destination, sport, dport, protocol), scope, value)| {
            let (seconds, address, port, path, tcp_flags, generation) = value;
            (
                FlowKey4 {
                    source: [source; 4],
                    destination: [destination; 4],
                    source_port: [sport, 0],
                    destination_port: [dport, 0],
                    protocol,
                    scope,
                    ..FlowKey4::default()
                },
                Flow {
                    last_seen: ago(seconds),
                    address: widen([address; 4]),
                    port: [port, 0],
                    path,
                    tcp_flags,
                    generation,
                    ..Flow::default()
                },
            )
        },
    )
}

fn arbitrary_snapshot() -> impl Strategy<Value = Snapshot> {
    let real = (prop_oneof![Just(UDP), Just(TCP)], 0_u64..10_000, 0_u64..10_000, 0_u8..32);
    let claimed = prop_oneof![(0_u64..10_000).prop_map(ago), Just(FORWARD)];
    let protocol = prop_oneof![Just(UDP), Just(GRE)];
    let mapped = (0_u64..10_000, claimed, 0_u8..2, 0_u8..3, 0_u8..4, 1_u32..3, protocol);
    (vec(arbitrary_flow(), 0..40), vec(real, 0..2), vec(mapped, 0..20)).prop_map(
        |(flows, pairs, mapped)| {
            let mut snapshot = snapshot(&flows);
            for (protocol, out, back, flags) in pairs {
                snapshot.flows4.extend(pair(protocol, (ago(out), ago(back)), flags));
            }
            for (used, last_used, address, port, path, generation, protocol) in mapped {
                let inside =
                    MappingKey { address: [address; 4], port: [port, 0], protocol, via: 0 };
                let mapping = Mapping {
                    last_used: ago(used),
                    generation,
                    port: [port, 0],
                    path,
                    ..Mapping::default()
                };
                snapshot.mappings.push((inside, mapping));
                if protocol == UDP {
                    let owner = PortOwner { last_used, inside };
                    snapshot.ports.push((outside(&inside, &mapping), owner));
                }
            }
            // Keys are unique in a map.
            let mut seen = HashSet::new();
            snapshot.flows4.retain(|(key, _)| seen.insert(*key));
            let mut seen = HashSet::new();
            snapshot.mappings.retain(|(key, _)| seen.insert(*key));
            let mut seen = HashSet::new();
            snapshot.ports.retain(|(key, _)| seen.insert(*key));
            snapshot
        },
    )
}

fn dead_keys(plan: &Plan) -> Vec<FlowKey4> {
    let entries = plan.flows4.iter().flat_map(|dead| [Some(dead.entry), dead.twin]);
    entries.flatten().map(|(key, _)| key).collect()
}

fn carried_out(snapshot: &Snapshot, plan: &Plan) -> Snapshot {
    let dead: HashSet<_> = dead_keys(plan).into_iter().collect();
    let mut after = snapshot.clone();
    after.flows4.retain(|(key, _)| !dead.contains(key));
    after.mappings.retain(|entry| !plan.mappings.contains(entry));
    after.ports.retain(|entry| !plan.ports.contains(entry));
    after
}

fn is_valid(path: u8, generation: u32) -> bool {
    (path == 1 || path == 2) && generation == 1
}

proptest! {
    #[test]
    fn nothing_in_use_is_removed(snapshot in arbitrary_snapshot()) {
        let plan = planned(&snapshot);
        let timeouts = Timeouts::default();
        let within = |last: u64, timeout: Duration| last != 0 && NOW.saturating_sub(last) <= timeout.as_nanos() as u64;
        let dead = dead_keys(&plan);
        for (key, flow) in &snapshot.flows4 {
            let shortest = match key.protocol {
                UDP | GRE => timeouts.udp,
                ICMP => timeouts.icmp,
                _ => timeouts.tcp_transitory,
            };
            if is_valid(flow.path, flow.generation) && within(flow.last_seen, shortest) {
                prop_assert!(!dead.contains(key));
            }
        }
        for entry in &plan.mappings {
            let (_, mapping) = entry;
            prop_assert!(
                !is_valid(mapping.path, mapping.generation)
                    || !within(mapping.last_used, timeouts.udp)
            );
        }
        let after = carried_out(&snapshot, &plan);
        for (key, mapping) in plan.mappings.iter().filter(|(key, mapping)| {
            key.protocol == GRE && is_valid(mapping.path, mapping.generation)
        }) {
            let endpoint = (key.address, key.port, key.protocol, mapping.path);
            prop_assert!(after.flows4.iter().all(|flow| super::endpoint_of(flow) != endpoint));
        }
        for (port, owner) in &plan.ports {
            prop_assert!(owner.last_used != FORWARD);
            prop_assert!(!within(owner.last_used, timeouts.udp));
            prop_assert!(after.mappings.iter().all(|(key, mapping)| outside(key, mapping) != *port));
            prop_assert!(after.flows4.iter().all(|entry| super::port_of(entry) != *port));
        }
    }

    #[test]
    fn everything_idle_is_removed(snapshot in arbitrary_snapshot()) {
        let later = Snapshot { now: NOW + 20_000 * SECOND, ..snapshot };
        let first = planned(&later);
        let rest = carried_out(&later, &first);
        let second = plan(&rest, &Timeouts::default(), &first.suspects);
        let rest = carried_out(&rest, &second);
        prop_assert_eq!(rest.flows4.len() + rest.mappings.len(), 0);
        prop_assert!(rest.ports.iter().all(|(_, owner)| owner.last_used == FORWARD));
    }

    #[test]
    fn removing_twice_removes_nothing_more(snapshot in arbitrary_snapshot()) {
        let first = planned(&snapshot);
        let rest = carried_out(&snapshot, &first);
        let again = planned(&rest);
        prop_assert_eq!(&again.flows4, &[]);
        prop_assert_eq!(&again.mappings, &[]);
        prop_assert_eq!(&again.ports, &[]);
        prop_assert_eq!(again.usage, first.usage);
    }

    #[test]
    fn every_entry_is_named_once(snapshot in arbitrary_snapshot()) {
        let mut keys = dead_keys(&planned(&snapshot));
        let count = keys.len();
        let unique: HashSet<_> = keys.drain(..).collect();
        prop_assert_eq!(unique.len(), count);
    }
}

/// The tables over a long time, as the kernel side would fill them.
#[derive(Default)]
struct World {
    flows4: HashMap<FlowKey4, Flow>,
    mappings: HashMap<MappingKey, Mapping>,
    ports: HashMap<PortKey, PortOwner>,
}

impl World {
    /// Opens flow `number` at `now`: one of five is never answered, one of seven
    /// is half a flow, as a CPU leaves it behind that lost a race.
    fn open(&mut self, number: u32, now: u64) {
        let protocol = [UDP, TCP, ICMP, GRE][number as usize % 4];
        let [a, b, c, d] = number.to_be_bytes();
        let ported = protocol != GRE;
        let inside = MappingKey {
            address: [10, a, b, c],
            port: if ported { [d, 1] } else { [0; 2] },
            protocol,
            via: 0,
        };
        let port = if ported { [c, d] } else { [0; 2] };
        let mapping =
            Mapping { last_used: now, generation: 1, port, path: 1, ..Mapping::default() };
        let flags = if number.is_multiple_of(5) { SYN } else { SYN | ACK };
        let [mut out, mut back] = pair(protocol, (now, now), flags);
        (out.0.source, out.0.source_port, out.1.port) = (inside.address, inside.port, port);
        out.0.destination = [203, 0, b, 1];
        let back_key = out.0.twin(&out.1);
        (back.1.address, back.1.port) = (widen(inside.address), inside.port);
        if number.is_multiple_of(5) {
            back.1.last_seen = 0;
        }
        self.mappings.insert(inside, mapping);
        if ported {
            let owner = PortOwner { last_used: now, inside };
            self.ports.insert(outside(&inside, &mapping), owner);
        }
        if !number.is_multiple_of(7) {
            self.flows4.insert(out.0, out.1);
        }
        self.flows4.insert(back_key, back.1);
    }

    fn sweep(&mut self, now: u64, suspects: &mut Suspects) -> Plan {
        let snapshot = Snapshot {
            now,
            flows4: self.flows4.iter().map(|(key, flow)| (*key, *flow)).collect(),
            mappings: self.mappings.iter().map(|(key, mapping)| (*key, *mapping)).collect(),
            ports: self.ports.iter().map(|(key, owner)| (*key, *owner)).collect(),
            paths: paths(1),
            ..Snapshot::default()
        };
        let plan = plan(&snapshot, &Timeouts::default(), suspects);
        for key in dead_keys(&plan) {
            self.flows4.remove(&key);
        }
        for (key, _) in &plan.mappings {
            self.mappings.remove(key);
        }
        for (key, _) in &plan.ports {
            self.ports.remove(key);
        }
        *suspects = plan.suspects.clone();
        plan
    }

    fn entries(&self) -> usize {
        self.flows4.len() + self.mappings.len() + self.ports.len()
    }
}

#[test]
fn two_million_flows_over_time_leave_nothing_behind() {
    const ROUNDS: u32 = 400;
    const FLOWS: u32 = 5_000;
    let (mut world, mut suspects) = (World::default(), Suspects::default());
    let (mut now, mut most) = (NOW, 0);
    for round in 0..ROUNDS {
        for number in 0..FLOWS {
            world.open(round * FLOWS + number, now);
        }
        now += 2_000 * SECOND;
        world.sweep(now, &mut suspects);
        most = most.max(world.entries());
    }
    // Open connections last for four rounds; four entries a flow at the most.
    assert!(most < 5 * 4 * FLOWS as usize, "{most} entries at once");
    // Ports rest for their timeout once more when all else has gone.
    for _ in 0..4 {
        now += 10_000 * SECOND;
        world.sweep(now, &mut suspects);
    }
    assert_eq!(world.entries(), 0);
    assert_eq!(suspects, Suspects::default());
}
