//! The rules of expiry, one by one.

use mwb_common::maps::{
    Choice, FORWARD, Flow, FlowKey4, FlowKey6, Mapping, MappingKey, PATH_SLOTS, Path, PortKey,
    PortOwner, how, path_flag,
};

use super::{ACK, Dead, FIN, Key, Plan, RST, SYN, Snapshot, Suspects, Timeouts, outside, plan};

pub(super) const SECOND: u64 = 1_000_000_000;
pub(super) const NOW: u64 = 100_000 * SECOND;
pub(super) const UDP: u8 = 17;
pub(super) const TCP: u8 = 6;
pub(super) const ICMP: u8 = 1;
pub(super) const GRE: u8 = 47;
pub(super) const ESP: u8 = 50;
pub(super) const SCTP: u8 = 132;

const HOST: [u8; 4] = [10, 0, 0, 9];
const REMOTE: [u8; 4] = [203, 0, 113, 7];
const OUTSIDE: [u8; 4] = [192, 0, 2, 2];

pub(super) fn ago(seconds: u64) -> u64 {
    NOW - seconds * SECOND
}

pub(super) fn paths(generation: u32) -> Vec<Path> {
    let present = Path { flags: path_flag::PRESENT, generation, ..Path::default() };
    let mut paths = vec![Path::default(); PATH_SLOTS];
    paths[1] = present;
    paths[2] = present;
    paths
}

pub(super) fn widen(address: [u8; 4]) -> [u8; 16] {
    let mut wide = [0; 16];
    wide[..4].copy_from_slice(&address);
    wide
}

/// Both entries of a flow on path 1; `seen` outbound and inbound.
pub(super) fn pair(protocol: u8, seen: (u64, u64), tcp_flags: u8) -> [(FlowKey4, Flow); 2] {
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

pub(super) fn snapshot(flows4: &[(FlowKey4, Flow)]) -> Snapshot {
    Snapshot { now: NOW, flows4: flows4.to_vec(), paths: paths(1), ..Snapshot::default() }
}

pub(super) fn planned(snapshot: &Snapshot) -> Plan {
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
        (SCTP, 0, 300),
        (GRE, 0, 300),
        (ESP, 0, 300),
        (ICMP, 0, 60),
        (TCP, SYN | ACK, 7_440),
        // Closed, reset, or taken up in the middle: transitory.
        (TCP, SYN | ACK | FIN, 240),
        (TCP, SYN | ACK | RST, 240),
        (TCP, ACK, 240),
        (TCP, 0, 240),
    ] {
        let dead = |seconds| planned(&snapshot(&pair(protocol, both(seconds), flags))).flows4.len();
        assert_eq!(dead(seconds), 0, "protocol {protocol}, flags {flags}, at {seconds} s");
        assert_eq!(dead(seconds + 1), 1, "protocol {protocol}, flags {flags}, after {seconds} s");
    }
}

/// Whether a connection whose sides have shown these flags outlives the
/// transitory timeout.
fn is_open(out: u8, back: u8) -> bool {
    let [mut one, mut other] = pair(TCP, (ago(241), ago(241)), 0);
    (one.1.tcp_flags, other.1.tcp_flags) = (out, back);
    planned(&snapshot(&[one, other])).flows4.is_empty()
}

#[test]
fn a_connection_is_open_once_both_sides_have_shown_syn_and_ack() {
    assert!(is_open(SYN | ACK, SYN | ACK));
    for part in [0, SYN, ACK] {
        assert!(!is_open(part, SYN | ACK), "out {part}");
        assert!(!is_open(SYN | ACK, part), "back {part}");
    }
}

#[test]
fn a_connection_is_open_until_both_sides_have_ended_or_one_has_reset_it() {
    let open = SYN | ACK;
    assert!(is_open(open | FIN, open), "half closed is open");
    assert!(is_open(open, open | FIN), "half closed is open");
    assert!(!is_open(open | FIN, open | FIN));
    assert!(!is_open(open | RST, open));
    assert!(!is_open(open, open | RST));
}

#[test]
fn a_flow_that_was_opened_from_a_wan_lives_and_dies_like_any_other() {
    let inbound = Choice { how: how::INBOUND, ..Choice::default() };
    for (seconds, dead) in [(300, 0), (301, 1)] {
        let mut entries = pair(UDP, (ago(9_000), ago(seconds)), 0);
        for (_, flow) in &mut entries {
            flow.choice = inbound;
        }
        assert_eq!(planned(&snapshot(&entries)).flows4.len(), dead, "{seconds} s");
    }
}

#[test]
fn a_port_forward_never_expires() {
    let (_, (key, owner)) = mapping(TCP, 0);
    let forward = (key, PortOwner { last_used: FORWARD, ..owner });
    for paths in [paths(1), paths(2), vec![Path::default(); PATH_SLOTS]] {
        let snapshot = Snapshot { ports: vec![forward], paths, ..snapshot(&[]) };
        let later = Snapshot { now: u64::MAX, ..snapshot.clone() };
        for snapshot in [snapshot, later] {
            let plan = planned(&snapshot);
            assert_eq!(plan.ports, []);
            assert_eq!(plan.usage.ports_used[1], 1);
        }
    }
}

#[test]
fn a_mapping_without_ports_lives_for_the_flows_of_its_own_endpoint_only() {
    for protocol in [GRE, ESP, SCTP] {
        let mut flow = pair(protocol, (ago(10), ago(10)), 0);
        if protocol != SCTP {
            // No ports at all: every host's mapping looks the same from outside.
            for (key, flow) in &mut flow {
                (key.source_port, key.destination_port, flow.port) = ([0; 2], [0; 2], [0; 2]);
            }
        }
        let port = flow[0].0.source_port;
        let old = |address| {
            let key = MappingKey { address, port, protocol, via: 0 };
            let mapping = Mapping {
                last_used: ago(5_000),
                generation: 1,
                path: 1,
                port,
                ..Mapping::default()
            };
            (key, mapping)
        };
        let (mine, others) = (old(HOST), old([10, 0, 0, 77]));
        for half in [&flow[..1], &flow[1..], &flow[..]] {
            let mut snapshot = snapshot(half);
            snapshot.mappings = vec![mine, others];
            assert_eq!(planned(&snapshot).mappings, [others], "protocol {protocol}");
        }
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
