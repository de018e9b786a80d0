//! Mappings of inside endpoints whose flows leave by outlets: one that is good for a flow
//! is used (RFC 4787, REQ-1), else the endpoint has one for each outlet.

use std::collections::BTreeMap;

use mwb_common::maps::{MappingKey, OUTLET_VIA, how, index};
use mwb_common::policy::Action;
use mwb_common::select::{Share, compile};

use crate::gateway::Gateway;
use crate::lasting::in_a_gateway;
use crate::packet::Packet;
use crate::policy::{STRICT, Sent, net, rule, sent, set_outlets};
use crate::world::{
    NEIGHBOUR2, OTHER_REMOTE, PORT, REMOTE, host_tcp, host_udp, liveness, path1, selection,
};

/// Path 1, and no other.
const HOME: u8 = 7;

/// Path and port of each mapping, by [`MappingKey::via`].
fn mappings(gateway: &Gateway) -> BTreeMap<u8, (u8, u16)> {
    let mut mappings = BTreeMap::new();
    let each = |key: &MappingKey, found: &[mwb_common::maps::Mapping]| {
        for mapping in found {
            mappings.insert(key.via, (mapping.path, u16::from_be_bytes(mapping.port)));
        }
    };
    gateway.tables().mappings().for_each(each).expect("a read");
    mappings
}

fn to_other(packet: &Packet) -> Packet {
    packet.with(|p| p.destination = OTHER_REMOTE.into())
}

/// What is to OTHER_REMOTE leaves by an outlet.
fn set_up(gateway: &mut Gateway, outlet: u8) {
    set_outlets(gateway);
    gateway.set_outlet(HOME, &compile(&[Share { path: 1, weight: 1 }], &[1], index::COUNTER));
    let other = vec![net(&format!("{OTHER_REMOTE}/32"))];
    gateway.set_policy(&[rule(Action::Outlet(outlet), |r| r.destinations = Some(other))]);
}

#[test]
fn an_endpoint_has_a_mapping_for_an_outlet_that_the_other_is_not_good_for() {
    let name = "an_endpoint_has_a_mapping_for_an_outlet_that_the_other_is_not_good_for";
    in_a_gateway(name, |gateway, _| {
        set_up(gateway, STRICT);
        for packet in [host_udp(PORT), host_udp(PORT)] {
            assert_eq!(sent(gateway, &packet), Sent::By(1));
            assert_eq!(sent(gateway, &to_other(&packet)), Sent::By(2));
            assert_eq!(sent(gateway, &packet), Sent::By(1));
        }
        let both = [(0, (1, PORT)), (OUTLET_VIA + STRICT, (2, PORT))].into();
        assert_eq!(mappings(gateway), both);
        // Another flow of the outlet takes the mapping that is there.
        let again = to_other(&host_udp(PORT));
        let again = again.with(|p| {
            p.transport =
                crate::packet::Transport::Udp { source: PORT, destination: 1, checksum: true };
        });
        assert_eq!(sent(gateway, &again), Sent::By(2));
        assert_eq!(mappings(gateway), both);
    });
}

#[test]
fn a_mapping_that_is_good_for_the_outlet_is_used() {
    in_a_gateway("a_mapping_that_is_good_for_the_outlet_is_used", |gateway, _| {
        set_up(gateway, HOME);
        assert_eq!(sent(gateway, &host_udp(PORT)), Sent::By(1));
        assert_eq!(sent(gateway, &to_other(&host_udp(PORT))), Sent::By(1));
        assert_eq!(mappings(gateway), [(0, (1, PORT))].into());
        let mut outlets = Vec::new();
        gateway
            .tables()
            .flows4()
            .for_each(|key, flows| {
                if key.scope == 0 {
                    outlets.push((key.destination, flows[0].choice.outlet(), flows[0].choice.how));
                }
            })
            .expect("a read");
        outlets.sort_unstable();
        assert_eq!(
            outlets,
            [
                (REMOTE.octets(), 0, how::SLOT),
                (OTHER_REMOTE.octets(), HOME, how::SLOT | how::MAPPED),
            ]
        );
        // It waits as its outlet does, although other paths live.
        gateway.set_liveness(&liveness(&[2]));
        assert_eq!(sent(gateway, &to_other(&host_udp(PORT))), Sent::By(1));
        assert_eq!(sent(gateway, &host_udp(PORT)), Sent::By(2));
    });
}

#[test]
fn a_fallback_is_no_reason_to_leave_by_it_for_good() {
    in_a_gateway("a_fallback_is_no_reason_to_leave_by_it_for_good", |gateway, _| {
        // The outlet prefers path 2; the endpoint's mapping is on path 1, its fallback.
        set_up(gateway, 2);
        assert_eq!(sent(gateway, &host_udp(PORT)), Sent::By(1));
        assert_eq!(sent(gateway, &to_other(&host_udp(PORT))), Sent::By(2));
    });
}

#[test]
fn mappings_of_outlets_move_with_their_outlets() {
    in_a_gateway("mappings_of_outlets_move_with_their_outlets", |gateway, _| {
        set_up(gateway, 2);
        assert_eq!(sent(gateway, &to_other(&host_tcp(PORT))), Sent::By(2));
        gateway.set_liveness(&liveness(&[1]));
        assert_eq!(sent(gateway, &to_other(&host_tcp(PORT))), Sent::By(1));
        assert_eq!(mappings(gateway), [(OUTLET_VIA + 2, (1, PORT))].into());
        gateway.set_liveness(&liveness(&[1, 2]));
        gateway.set_path(1, mwb_common::maps::Path { epoch: 1, ..path1() });
        assert_eq!(sent(gateway, &to_other(&host_tcp(PORT))), Sent::By(2));
        // The port that it had there before is kept from all until it is swept.
        let paths: Vec<(u8, u8)> =
            mappings(gateway).into_iter().map(|(via, (path, _))| (via, path)).collect();
        assert_eq!(paths, [(OUTLET_VIA + 2, 2)]);
    });
}

#[test]
fn a_wans_own_subnet_is_reached_by_it_whatever_the_rules_say() {
    in_a_gateway("a_wans_own_subnet_is_reached_by_it_whatever_the_rules_say", |gateway, _| {
        set_up(gateway, STRICT);
        let home = mwb_common::policy::Rule::any(Action::Outlet(HOME));
        gateway.set_policy(&[home]);
        let to_neighbour = host_udp(PORT).with(|p| p.destination = NEIGHBOUR2.into());
        assert_eq!(sent(gateway, &to_neighbour), Sent::By(2));
        assert_eq!(mappings(gateway), [(2, (2, PORT))].into());
        assert!(selection().has(1));
    });
}
