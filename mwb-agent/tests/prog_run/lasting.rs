//! What packets leave behind in the tables, and what several CPUs make of it.

use std::collections::{BTreeMap, BTreeSet};
use std::thread;

use mwb_agent::dataplane::{Hook, Tables};
use mwb_common::maps::{Device, MappingKey, PortKey, hook, role};

use crate::gateway::From::{Lan, Wan};
use crate::gateway::{Gateway, Gateways, XDP_PASS};
use crate::in_the_world;
use crate::packet::{ACK, Packet, Transport};
use crate::sweep::entries;
use crate::world::{
    NEIGHBOUR2, OTHER_REMOTE, PORT, answer, host_tcp, host_udp, liveness, out_by1, path1,
};

fn in_a_gateway(name: &str, test: impl Fn(&mut Gateway, Hook) + Send + Sync) {
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

fn with_flags(packet: &Packet, flags: u8) -> Packet {
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
