//! The rules of expiry, one by one and as properties of random tables.

use std::collections::HashSet;
use std::time::Duration;

use mwb_common::maps::{
    Flow, FlowKey4, FlowKey6, Mapping, MappingKey, PATH_SLOTS, Path, PortKey, PortOwner, path_flag,
};
use proptest::collection::vec;
use proptest::prelude::*;

use super::{Dead, Key, Plan, Snapshot, Suspects, Timeouts, outside, plan};

const SECOND: u64 = 1_000_000_000;
const NOW: u64 = 100_000 * SECOND;
const UDP: u8 = 17;
const TCP: u8 = 6;
const ICMP: u8 = 1;
const SYN: u8 = 2;
const FIN: u8 = 1;

const HOST: [u8; 4] = [10, 0, 0, 9];
const REMOTE: [u8; 4] = [203, 0, 113, 7];
const OUTSIDE: [u8; 4] = [192, 0, 2, 2];

fn ago(seconds: u64) -> u64 {
    NOW - seconds * SECOND
}

fn paths(generation: u32) -> Vec<Path> {
    let present = Path { flags: path_flag::PRESENT, generation, ..Path::default() };
    let mut paths = vec![Path::default(); PATH_SLOTS];
    paths[1] = present;
    paths[2] = present;
    paths
}

fn widen(address: [u8; 4]) -> [u8; 16] {
    let mut wide = [0; 16];
    wide[..4].copy_from_slice(&address);
    wide
}

/// Both entries of a flow on path 1; `seen` outbound and inbound.
fn pair(protocol: u8, seen: (u64, u64), tcp_flags: u8) -> [(FlowKey4, Flow); 2] {
    let flow = Flow { generation: 1, path: 1, tcp_flags, ..Flow::default() };
    let outbound = (
        FlowKey4 {
            source: HOST,
            destination: REMOTE,
            source_port: [0, 9],
            destination_port: [0, 53],
            protocol,
            ..FlowKey4::default()
        },
        Flow { last_seen: seen.0, address: widen(OUTSIDE), port: [99, 9], ..flow },
    );
    let inbound = (
        FlowKey4 {
            source: REMOTE,
            destination: OUTSIDE,
            source_port: [0, 53],
            destination_port: [99, 9],
            protocol,
            scope: 1,
            ..FlowKey4::default()
        },
        Flow { last_seen: seen.1, address: widen(HOST), port: [0, 9], ..flow },
    );
    [outbound, inbound]
}

fn mapping(protocol: u8, last_used: u64) -> ((MappingKey, Mapping), (PortKey, PortOwner)) {
    let inside = MappingKey { address: HOST, port: [0, 9], protocol, via: 0 };
    let mapping =
        Mapping { last_used, generation: 1, port: [99, 9], path: 1, ..Mapping::default() };
    ((inside, mapping), (outside(&inside, &mapping), PortOwner { last_used, inside }))
}

fn snapshot(flows4: &[(FlowKey4, Flow)]) -> Snapshot {
    Snapshot { now: NOW, flows4: flows4.to_vec(), paths: paths(1), ..Snapshot::default() }
}

fn planned(snapshot: &Snapshot) -> Plan {
    plan(snapshot, &Timeouts::default(), &Suspects::default())
}

#[test]
fn the_entries_of_a_flow_name_each_other() {
    let [(out_key, out), (in_key, inbound)] = pair(UDP, (1, 1), 0);
    assert_eq!(out_key.twin(&out), in_key);
    assert_eq!(in_key.twin(&inbound), out_key);
}

#[test]
fn the_entries_of_an_echo_name_each_other() {
    // A request has the identifier as source port, a reply as destination port.
    let mut entries = pair(ICMP, (1, 1), 0);
    entries[0].0.destination_port = [0, 0];
    entries[1].0.source_port = [0, 0];
    let [(out_key, out), (in_key, inbound)] = entries;
    assert_eq!(out_key.twin(&out), in_key);
    assert_eq!(in_key.twin(&inbound), out_key);
}

#[test]
fn the_entries_of_an_ipv6_flow_name_each_other() {
    let outbound = FlowKey6 {
        source: [1; 16],
        destination: [2; 16],
        source_port: [7, 7],
        destination_port: [0, 53],
        protocol: UDP,
        ..FlowKey6::default()
    };
    let translated = Flow { address: [3; 16], path: 2, ..Flow::default() };
    let inbound = FlowKey6 {
        source: [2; 16],
        destination: [3; 16],
        source_port: [0, 53],
        destination_port: [7, 7],
        protocol: UDP,
        scope: 2,
        ..FlowKey6::default()
    };
    assert_eq!(outbound.twin(&translated), inbound);
    assert_eq!(inbound.twin(&Flow { address: [1; 16], ..translated }), outbound);
}

#[test]
fn a_flow_lives_while_either_direction_is_in_use() {
    for seen in [(ago(10), ago(9_000)), (ago(9_000), ago(10))] {
        assert_eq!(planned(&snapshot(&pair(UDP, seen, 0))).flows4, []);
    }
}

#[test]
fn an_idle_flow_dies_as_a_pair() {
    let entries = pair(UDP, (ago(301), ago(400)), 0);
    let expected = Dead { entry: entries[0], twin: Some(entries[1]), void: false };
    assert_eq!(planned(&snapshot(&entries)).flows4, [expected]);
}

#[test]
fn every_protocol_has_its_own_timeout() {
    let both = |seconds| (ago(seconds), ago(seconds));
    for (protocol, flags, seconds) in [
        (UDP, 0, 300),
        (ICMP, 0, 60),
        (TCP, SYN, 7_440),
        // Closed, or taken up in the middle: transitory.
        (TCP, SYN | FIN, 240),
        (TCP, 0, 240),
    ] {
        let dead = |seconds| planned(&snapshot(&pair(protocol, both(seconds), flags))).flows4.len();
        assert_eq!(dead(seconds), 0, "protocol {protocol}, flags {flags}, at {seconds} s");
        assert_eq!(dead(seconds + 1), 1, "protocol {protocol}, flags {flags}, after {seconds} s");
    }
}

#[test]
fn an_unanswered_syn_is_transitory() {
    assert_eq!(planned(&snapshot(&pair(TCP, (ago(241), 0), SYN))).flows4.len(), 1);
}

#[test]
fn half_a_flow_dies_when_it_is_idle_itself() {
    for half in pair(UDP, (ago(301), ago(301)), 0) {
        assert_eq!(planned(&snapshot(&[half])).flows4.len(), 1);
    }
    for half in pair(UDP, (ago(299), ago(299)), 0) {
        assert_eq!(planned(&snapshot(&[half])).flows4, []);
    }
}

#[test]
fn an_unused_half_dies_only_at_the_second_look() {
    let [_, inbound] = pair(UDP, (0, 0), 0);
    let snapshot = snapshot(&[inbound]);
    let first = planned(&snapshot);
    assert_eq!(first.flows4, []);
    let second = plan(&snapshot, &Timeouts::default(), &first.suspects);
    assert_eq!(second.flows4, [Dead { entry: inbound, twin: None, void: false }]);
}

#[test]
fn what_a_moved_flow_left_behind_is_no_half_of_the_new_one() {
    // The flow is on path 2 by now; the inbound entry of path 1 is alone.
    let [mut outbound, inbound] = pair(UDP, (ago(1), ago(301)), 0);
    outbound.1.path = 2;
    let expected = Dead { entry: inbound, twin: None, void: false };
    assert_eq!(planned(&snapshot(&[outbound, inbound])).flows4, [expected]);
}

#[test]
fn what_is_of_another_generation_dies_at_once() {
    let (mapping, port) = mapping(UDP, NOW);
    let snapshot = Snapshot {
        paths: paths(2),
        mappings: vec![mapping],
        ports: vec![port],
        ..snapshot(&pair(UDP, (NOW, NOW), 0))
    };
    let plan = planned(&snapshot);
    assert_eq!(plan.flows4.len(), 2);
    assert!(plan.flows4.iter().all(|dead| dead.void));
    assert_eq!(plan.mappings, [mapping]);
}

#[test]
fn what_is_on_a_path_that_is_gone_dies_at_once() {
    let snapshot = Snapshot {
        paths: vec![Path::default(); PATH_SLOTS],
        ..snapshot(&pair(UDP, (NOW, NOW), 0))
    };
    assert_eq!(planned(&snapshot).flows4.len(), 2);
}

#[test]
fn a_mapping_and_its_port_live_while_a_flow_uses_the_port() {
    let (mapping, port) = mapping(UDP, ago(5_000));
    let mut snapshot = snapshot(&pair(UDP, (ago(10), ago(10)), 0));
    (snapshot.mappings, snapshot.ports) = (vec![mapping], vec![port]);
    let alive = planned(&snapshot);
    assert_eq!((alive.mappings.len(), alive.ports.len()), (0, 0));
    assert_eq!((alive.usage.mappings, alive.usage.flows4, alive.usage.ports_used[1]), (1, 1, 1));

    snapshot.now += 300 * SECOND;
    let dead = planned(&snapshot);
    assert_eq!((dead.mappings, dead.ports), (vec![mapping], vec![port]));
    assert_eq!((dead.usage.mappings, dead.usage.flows4, dead.usage.ports_used[1]), (0, 0, 0));
}

#[test]
fn a_udp_mapping_outlives_its_last_packet_by_more_than_two_minutes() {
    let (mapping, port) = mapping(UDP, ago(5_000));
    for seconds in [0, 60, 120, 299] {
        let mut snapshot = snapshot(&pair(UDP, (ago(seconds), ago(4_000)), 0));
        (snapshot.mappings, snapshot.ports) = (vec![mapping], vec![port]);
        assert_eq!(planned(&snapshot).mappings, [], "{seconds} s after the last packet");
    }
}

#[test]
fn a_port_is_never_freed_under_a_mapping() {
    let (mapping, (key, mut owner)) = mapping(UDP, ago(10));
    owner.last_used = ago(5_000);
    let mut snapshot = snapshot(&[]);
    (snapshot.mappings, snapshot.ports) = (vec![mapping], vec![(key, owner)]);
    assert_eq!(planned(&snapshot).ports, []);
}

/// Few addresses and ports, so that entries meet.
fn arbitrary_flow() -> impl Strategy<Value = (FlowKey4, Flow)> {
    let seconds = prop_oneof![Just(NOW / SECOND), 0_u64..10_000];
    let key = (0_u8..2, 0_u8..2, 0_u8..3, 0_u8..3, prop_oneof![Just(UDP), Just(TCP), Just(ICMP)]);
    let value = (seconds, 0_u8..2, 0_u8..3, 0_u8..4, 0_u8..8, 1_u32..3);
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
    let real = (prop_oneof![Just(UDP), Just(TCP)], 0_u64..10_000, 0_u64..10_000, 0_u8..8);
    let mapped = (0_u64..10_000, 0_u64..10_000, 0_u8..2, 0_u8..3, 0_u8..4, 1_u32..3);
    (vec(arbitrary_flow(), 0..40), vec(real, 0..2), vec(mapped, 0..20)).prop_map(
        |(flows, pairs, mapped)| {
            let mut snapshot = snapshot(&flows);
            for (protocol, out, back, flags) in pairs {
                snapshot.flows4.extend(pair(protocol, (ago(out), ago(back)), flags));
            }
            for (used, claimed, address, port, path, generation) in mapped {
                let inside =
                    MappingKey { address: [address; 4], port: [port, 1], protocol: UDP, via: 0 };
                let mapping = Mapping {
                    last_used: ago(used),
                    generation,
                    port: [port, 0],
                    path,
                    ..Mapping::default()
                };
                snapshot.mappings.push((inside, mapping));
                let owner = PortOwner { last_used: ago(claimed), inside };
                snapshot.ports.push((outside(&inside, &mapping), owner));
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
        let within = |last: u64, timeout: Duration| last != 0 && NOW - last <= timeout.as_nanos() as u64;
        let dead = dead_keys(&plan);
        for (key, flow) in &snapshot.flows4 {
            let shortest = match key.protocol {
                UDP => timeouts.udp,
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
        for (port, owner) in &plan.ports {
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
        prop_assert_eq!(rest.flows4.len() + rest.mappings.len() + rest.ports.len(), 0);
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
