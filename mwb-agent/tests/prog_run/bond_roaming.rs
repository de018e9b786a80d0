//! Where the far end of a path is.

use std::net::{IpAddr, Ipv4Addr};

use mwb_common::integrity::Suite;
use mwb_common::maps::tick;
use mwb_common::reason::Reason;

use crate::bond_packet::{Sealed, opened, outside};
use crate::bond_probes::{LEAST, probe_to, tick_for};
use crate::bond_world::{Door, End, SERVER_PORT, SUITES, Side, address, remote};
use crate::gateway::XDP_REDIRECT;
use crate::network::in_the_world;

/// A frame to the server from somewhere.
fn from_elsewhere(sealed: &Sealed<'_>, source: (IpAddr, u16)) -> Vec<u8> {
    let frame = sealed.arriving();
    let macs = [core::array::from_fn(|i| frame[i]), core::array::from_fn(|i| frame[6 + i])];
    let destination = (address(Side::Server, 1, source.0.is_ipv6()), SERVER_PORT);
    outside(macs, source, destination, &sealed.payload())
}

#[test]
fn the_far_end_of_a_server_s_path_is_where_its_newest_packet_came_from() {
    let name = "the_far_end_of_a_server_s_path_is_where_its_newest_packet_came_from";
    in_the_world(name, |lan| {
        let side = Side::Server;
        let mut end = End::new(lan, side);
        let four: (IpAddr, u16) = (Ipv4Addr::new(198, 51, 100, 222).into(), 1_234);
        let six: (IpAddr, u16) = ("2001:db8:77::9".parse().expect("an address"), 4_321);
        for suite in SUITES {
            end.reset(suite, false);
            let probe = |sequence| probe_to(side, suite, false, sequence, LEAST);
            let home = (address(Side::Gateway, 1, false), 7_001);
            let answered = |end: &mut End, sequence, source: (IpAddr, u16)| {
                let back = end.run(Door::Wan(1), &from_elsewhere(&probe(sequence), source));
                assert_eq!(back.verdict, XDP_REDIRECT);
                opened(side, suite, &back.packet, source.0.is_ipv6());
            };
            answered(&mut end, 10, home);
            assert_eq!((end.state(1).moves, end.state(1).moved), (0, 0));
            for (moves, sequence, source) in [(1, 20, four), (2, 30, six), (3, 40, home)] {
                answered(&mut end, sequence, source);
                // Older ones from where it was, or from anywhere, move nothing.
                answered(&mut end, sequence - 1, home);
                answered(&mut end, sequence - 2, ([9, 9, 9, 9].into(), 9));
                let state = end.state(1);
                let (address, is_v6) = remote(source.0);
                assert_eq!((state.moves, state.moved), (moves, 8));
                assert_eq!((state.remote, state.is_v6, state.via), (address, is_v6, 1));
                assert_eq!(state.remote_port, source.1.to_be_bytes());
                // What is sent goes there.
                let sent = end.run(Door::Device, &tick_for(side, tick::SHORT, 1, 60));
                let is_v6 = source.0.is_ipv6();
                let (header, text) = opened(side, suite, &sent.packet, is_v6);
                let ours = (crate::bond_world::address(side, 1, is_v6), SERVER_PORT);
                let macs = [
                    core::array::from_fn(|i| sent.packet[i]),
                    core::array::from_fn(|i| sent.packet[6 + i]),
                ];
                let sealed = Sealed { side, suite, header, text: &text, is_v6 };
                assert_eq!(sent.packet, outside(macs, ours, source, &sealed.payload()));
            }
            // A replay from elsewhere moves nothing, and one that is no packet of ours.
            let replayed = from_elsewhere(&probe(40), four);
            assert_eq!(end.reason(Door::Wan(1), &replayed), Reason::Replayed);
            let mut forged = from_elsewhere(&probe(50), four);
            let last = forged.len() - 1;
            forged[last] ^= 1;
            assert_eq!(end.reason(Door::Wan(1), &forged), Reason::BadCheck);
            assert_eq!(end.state(1).moves, 3);
            // The agent has a new place for it: that counts.
            let path = crate::bond_world::path(side, 1, false);
            end.set_path(1, &mwb_common::maps::BondPath { generation: 8, ..path });
            let sent = end.run(Door::Device, &tick_for(side, tick::SHORT, 1, 60));
            let (header, text) = opened(side, suite, &sent.packet, false);
            let sealed = Sealed { side, suite, header, text: &text, is_v6: false };
            assert_eq!(sent.packet, sealed.frame());
        }
        // A gateway's far end is where it was told.
        let mut gateway = End::new(lan, Side::Gateway);
        let probe = probe_to(Side::Gateway, Suite::ChaCha20Poly1305, false, 10, LEAST);
        let mut frame = probe.arriving();
        frame[26..30].copy_from_slice(&[9, 9, 9, 9]);
        assert_eq!(gateway.reason(Door::Wan(1), &frame), Reason::ProbeReflected);
        assert_eq!((gateway.state(1).moves, gateway.state(1).moved), (0, 0));
    });
}
