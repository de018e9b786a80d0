//! What packets leave behind in the tables, and what several CPUs make of it.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::thread;

use mwb_agent::dataplane::{Hook, Tables};
use mwb_common::maps::{
    Choice, Control, Device, Flow, FlowKey4, MappingKey, Path, PortKey, SLOTS, filtering, hook,
    how, role,
};
use mwb_common::reason::Reason;

use crate::gateway::From::{Lan, Wan};
use crate::gateway::{Gateway, Gateways, XDP_PASS};
use crate::moved::difference;
use crate::network::in_the_world;
use crate::packet::{ACK, Packet, Transport};
use crate::sweep::entries;
use crate::world::{
    NEIGHBOUR2, OTHER_REMOTE, PORT, answer, control, host_tcp, host_udp, liveness, out_by1, path1,
    v6,
};

pub(crate) fn in_a_gateway(name: &str, test: impl Fn(&mut Gateway, Hook) + Send + Sync) {
    in_the_world(name, |lan| {
        let mut gateways = Gateways::new(lan);
        for form in [Hook::Xdp, Hook::Tcx] {
            test(gateways.fresh(form, (4_096, 4_096)).expect("a data plane"), form);
        }
    });
}

#[test]
fn a_device_that_takes_no_xdp_frames_is_reached_by_way_of_tc() {
    in_a_gateway("a_device_that_takes_no_xdp_frames_is_reached_by_way_of_tc", |gateway, form| {
        let target = Device { role: role::OUTSIDE, path: 1, hook: hook::TC, ..Device::default() };
        gateway.set_device(path1().ifindex, target);
        if form == Hook::Tcx {
            return gateway.send(Lan, &host_udp(PORT));
        }
        let outcome = gateway.run(Lan, &host_udp(PORT).bytes()).expect("a test run");
        assert_eq!(outcome.verdict, XDP_PASS);
        assert!(outcome.packet.ends_with(&host_udp(PORT).bytes()), "it must be left as it is");
        assert_eq!(gateway.counters().expect("counters"), [], "the TC form counts it");
    });
}

#[test]
fn a_dead_wans_own_subnet_claims_one_port_however_often_it_is_asked() {
    let name = "a_dead_wans_own_subnet_claims_one_port_however_often_it_is_asked";
    in_a_gateway(name, |gateway, _| {
        gateway.set_liveness(&liveness(&[1]));
        let to_neighbour = host_udp(PORT).with(|p| p.destination = NEIGHBOUR2.into());
        for _ in 0..3 {
            gateway.send(Lan, &to_neighbour);
            assert_eq!(entries(&gateway.tables()), [2, 0, 1, 1]);
        }
    });
}

pub(crate) fn with_flags(packet: &Packet, flags: u8) -> Packet {
    packet.with(|p| {
        if let Transport::Tcp { flags: old, .. } = &mut p.transport {
            *old = flags;
        }
    })
}

fn flags_seen(tables: &Tables) -> BTreeSet<u8> {
    let mut seen = BTreeSet::new();
    tables
        .flows4()
        .for_each(|_, flow| {
            seen.insert(flow[0].tcp_flags);
        })
        .expect("a read");
    seen
}

#[test]
fn a_syn_forgets_the_end_of_the_connection_before() {
    in_a_gateway("a_syn_forgets_the_end_of_the_connection_before", |gateway, _| {
        const FIN: u8 = 1;
        let syn = host_tcp(PORT);
        let fin = with_flags(&syn, FIN | ACK);
        gateway.send(Lan, &syn);
        gateway.send(Wan(1), &answer(&out_by1(&syn)));
        gateway.send(Lan, &fin);
        assert!(flags_seen(&gateway.tables()).iter().any(|flags| flags & FIN != 0));
        gateway.send(Lan, &syn);
        gateway.send(Wan(1), &answer(&out_by1(&syn)));
        assert!(flags_seen(&gateway.tables()).iter().all(|flags| flags & FIN == 0));
    });
}

/// Whether any direction of the one flow has shown a flag.
fn has_shown(gateway: &Gateway, flag: u8) -> bool {
    flags_seen(&gateway.tables()).iter().any(|flags| flags & flag != 0)
}

#[test]
fn a_reset_stands_until_its_side_goes_on() {
    in_a_gateway("a_reset_stands_until_its_side_goes_on", |gateway, _| {
        const RST: u8 = 4;
        let syn = host_tcp(PORT);
        let (data, reset) = (with_flags(&syn, ACK), with_flags(&syn, RST));
        gateway.send(Lan, &syn);
        gateway.send(Wan(1), &answer(&out_by1(&syn)));
        gateway.send(Lan, &data);
        gateway.send(Lan, &reset);
        gateway.send(Wan(1), &answer(&out_by1(&data)));
        assert!(has_shown(gateway, RST), "what the other side had on its way undoes nothing");
        gateway.send(Lan, &data);
        assert!(!has_shown(gateway, RST), "it was not the end of the connection");
    });
}

#[test]
fn a_flow_says_how_its_path_was_chosen() {
    in_a_gateway("a_flow_says_how_its_path_was_chosen", |gateway, _| {
        gateway.set_path(1, Path { epoch: 7, ..path1() });
        let chosen = |gateway: &mut Gateway, packet: &Packet| {
            let before = flows_of(&gateway.tables());
            gateway.send(Lan, packet);
            let mut new = flows_of(&gateway.tables());
            new.retain(|key, _| !before.contains_key(key));
            let mut choices: Vec<_> = new.into_values().map(|flow| flow.choice).collect();
            choices.dedup();
            let [choice] = choices.as_slice() else { panic!("one choice: {choices:?}") };
            *choice
        };
        let first = chosen(gateway, &host_udp(PORT));
        assert_eq!((first.how, first.epoch), (how::SLOT, 7));
        let next = chosen(gateway, &host_udp(PORT + 1));
        assert_eq!(usize::from(next.slot()), (usize::from(first.slot()) + 1) % SLOTS);
        // The endpoint has a mapping there already.
        let to_other = host_udp(PORT).with(|p| p.destination = OTHER_REMOTE.into());
        let mapped = chosen(gateway, &to_other);
        assert_eq!(mapped, Choice { how: how::SLOT | how::MAPPED, ..first });
        let to_neighbour = host_udp(PORT).with(|p| p.destination = NEIGHBOUR2.into());
        assert_eq!(chosen(gateway, &to_neighbour).how, how::VIA);
        gateway.set_liveness(&liveness(&[2]));
        assert_eq!(chosen(gateway, &host_udp(PORT + 2)).how, how::RANKING);
        gateway.set_liveness(&liveness(&[]));
        assert_eq!(chosen(gateway, &host_udp(PORT + 3)).how, how::NONE_ALIVE);
    });
}

#[test]
fn a_flow_that_comes_from_a_wan_says_so() {
    in_a_gateway("a_flow_that_comes_from_a_wan_says_so", |gateway, form| {
        if form == Hook::Xdp {
            return;
        }
        gateway.set_control(Control { filtering: filtering::ENDPOINT_INDEPENDENT, ..control() });
        gateway.send(Lan, &host_udp(PORT));
        let stranger = answer(&out_by1(&host_udp(PORT))).with(|p| p.source = OTHER_REMOTE.into());
        gateway.send(Wan(1), &stranger);
        let flows = flows_of(&gateway.tables());
        let inbound = flows.values().filter(|flow| flow.choice.how == how::INBOUND).count();
        assert_eq!((flows.len(), inbound), (4, 2));
    });
}

#[test]
fn a_flow_counts_its_packets_and_bytes_in_each_direction() {
    in_a_gateway("a_flow_counts_its_packets_and_bytes_in_each_direction", |gateway, _| {
        for packet in [host_udp(PORT), v6(&host_udp(PORT))] {
            let padded = packet.with(|p| p.padding = 6);
            for _ in 0..3 {
                gateway.send(Lan, &padded);
            }
            gateway.send(Wan(1), &answer(&out_by1(&packet)));
        }
        let mut counts = Vec::new();
        let mut note = |flow: &Flow| counts.push((flow.packets, flow.bytes, flow.opened != 0));
        gateway.tables().flows4().for_each(|_, flows| note(&flows[0])).expect("a read");
        gateway.tables().flows6().for_each(|_, flows| note(&flows[0])).expect("a read");
        counts.sort_unstable();
        // 20 or 40 bytes of IP, 8 of UDP, 16 of payload; padding does not count.
        assert_eq!(counts, [(1, 44, true), (1, 64, true), (3, 132, true), (3, 192, true)]);
    });
}

/// A `struct __sk_buff` of a packet that stands for `segments` of `size` bytes.
fn segmented(segments: u32, size: u32) -> Vec<u8> {
    let mut context = vec![0; 192];
    for (offset, value) in [(164, segments), (176, size)] {
        context[offset..offset + 4].copy_from_slice(&value.to_ne_bytes());
    }
    context
}

#[test]
fn a_packet_of_segments_is_as_large_as_they_are_and_counts_as_many() {
    let name = "a_packet_of_segments_is_as_large_as_they_are_and_counts_as_many";
    in_a_gateway(name, |gateway, form| {
        if form == Hook::Xdp {
            return;
        }
        let program = gateway.enter(Lan);
        for packet in [host_tcp(PORT), v6(&host_tcp(PORT))] {
            let headers = if packet.source.is_ipv4() { 40 } else { 60 };
            let frame = packet.with(|p| p.payload = vec![7; 2_800]).bytes();
            // Whether segments fit the MTU of 1,500, and not the packet, decides.
            for (size, expected) in
                [(1_500 - headers, Reason::Forwarded), (1_501 - headers, Reason::TooBig)]
            {
                let before = gateway.counters().expect("counters");
                let context = segmented(2, size);
                gateway.plane().test_run(program, &frame, Some(&context), 1).expect("a test run");
                let moved = difference(&before, gateway.counters().expect("counters"));
                let [row] = moved.as_slice() else { panic!("{moved:?}") };
                assert_eq!((row.reason, row.packets), (expected, 2), "segments of {size}");
            }
        }
    });
}

fn flows_of(tables: &Tables) -> HashMap<FlowKey4, Flow> {
    let mut flows = HashMap::new();
    tables
        .flows4()
        .for_each(|key, values| {
            flows.insert(*key, values[0]);
        })
        .expect("a read");
    flows
}

/// Every port has one owner, and every mapping owns its port.
fn assert_sound(tables: &Tables, endpoints: usize) {
    let mut owners: BTreeMap<[u8; 4], MappingKey> = BTreeMap::new();
    let id = |key: &PortKey| [key.port[0], key.port[1], key.protocol, key.path];
    tables
        .ports()
        .for_each(|key, owner| {
            owners.insert(id(key), owner[0].inside);
        })
        .expect("a read");
    let mut mappings = 0;
    tables
        .mappings()
        .for_each(|endpoint, mapping| {
            mappings += 1;
            let port = [mapping[0].port[0], mapping[0].port[1], endpoint.protocol, mapping[0].path];
            assert_eq!(owners.get(&port), Some(endpoint), "a mapping without its port");
        })
        .expect("a read");
    assert_eq!((mappings, owners.len()), (endpoints, endpoints), "mappings and ports");
}

#[test]
fn cpus_that_open_flows_at_once_share_mappings_and_never_a_port() {
    let name = "cpus_that_open_flows_at_once_share_mappings_and_never_a_port";
    in_a_gateway(name, |gateway, _| {
        const ENDPOINTS: u16 = 200;
        let program = gateway.enter(Lan);
        let remotes = [host_udp(PORT).destination, OTHER_REMOTE.into()];
        // Both threads walk the same endpoints, each to a remote of its own, so
        // that they meet at every one.
        thread::scope(|scope| {
            for remote in remotes {
                let plane = gateway.plane();
                scope.spawn(move || {
                    for i in 0..ENDPOINTS {
                        let packet = host_udp(PORT + i).with(|p| p.destination = remote);
                        plane.test_run(program, &packet.bytes(), None, 1).expect("a test run");
                    }
                });
            }
        });
        let tables = gateway.tables();
        assert_sound(&tables, usize::from(ENDPOINTS));
        assert_eq!(entries(&tables)[0], usize::from(ENDPOINTS) * 4, "two flows an endpoint");
    });
}
