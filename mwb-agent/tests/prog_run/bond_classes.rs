//! Classes of service: what a rule makes of a packet, and packets that are sent twice.

use mwb_common::classes::{ClassCount, ClassRule, ONLY, class, class_test};
use mwb_common::integrity::Suite;
use mwb_common::maps::{Bond, BondPath, bond_choice, bond_path_flag, bucket_flag, tick};
use mwb_common::reason::Reason;
use mwb_common::wire::{Header, Kind, flag, inner};

use crate::bond_packet::{Sealed, inner_of, opened};
use crate::bond_probes::monotonic;
use crate::bond_world::{DP_MAC, Door, End, LOOPBACK, MWB0_MAC, Side, bond, path};
use crate::gateway::{XDP_DROP, XDP_REDIRECT};
use crate::network::in_the_world;
use crate::packet::{Packet, Transport};
use crate::world::{PORT, host_udp, v6};

const SUITE: Suite = Suite::SipHash;
const SECOND: u64 = 1_000_000_000;

/// An end with these rules; copies on metered paths have `budget` bytes a second.
fn ruled(lan: u32, side: Side, rules: &[ClassRule], budget: u32) -> End {
    let mut end = End::new(lan, side);
    end.reset(SUITE, false);
    end.plane.set_ticks(LOOPBACK).expect("a device");
    end.maps().set_bond(&Bond { copy_budget: budget, ..bond(side) }).expect("a write");
    end.maps().set_classes(rules).expect("a write");
    end
}

fn of_class(class: u8) -> ClassRule {
    ClassRule { class, ..ClassRule::ALL }
}

/// Sends it twice: both copies, as they leave.
fn twice(end: &mut End, door: Door, packet: &Packet) -> [Header; 2] {
    let (round, row) = end.counted(door, &packet.bytes());
    assert_eq!((round.verdict, row.reason), (XDP_REDIRECT, Reason::Copied));
    let side = end.side;
    [0, 1].map(|_| {
        let (sent, row) = end.counted(Door::Device, &round.packet);
        assert_eq!((sent.verdict, row.reason), (XDP_REDIRECT, Reason::Bonded));
        let (header, text) = opened(side, SUITE, &sent.packet, false);
        assert_eq!(row.path, header.path);
        let ttl = u8::from(door == Door::Lan);
        assert_eq!(text, inner_of(&packet.with(|p| p.ttl -= ttl)));
        header
    })
}

#[test]
fn a_packet_of_the_class_goes_by_both_paths_under_one_number() {
    in_the_world("a_packet_of_the_class_goes_by_both_paths_under_one_number", |lan| {
        for side in [Side::Gateway, Side::Server] {
            let mut end = ruled(lan, side, &[of_class(class::DUPLICATE)], 0);
            let door = if side == Side::Gateway { Door::Lan } else { Door::Device };
            let host = host_udp(PORT);
            let packet = match side {
                Side::Gateway => host,
                Side::Server => host.with(|p| {
                    (p.source, p.destination) = (host.destination, host.source);
                    (p.to, p.from) = (DP_MAC, MWB0_MAC);
                }),
            };
            for number in 1..4 {
                let [first, second] = twice(&mut end, door, &packet);
                assert_eq!([first.path, second.path], [1, 2]);
                assert_eq!([first.flags, second.flags], [flag::DUPLICATE; 2]);
                assert_eq!([first.flow_sequence, second.flow_sequence], [number; 2]);
                assert_eq!(first.bucket, second.bucket);
                assert_eq!([first.sequence, second.sequence], [u64::from(number); 2]);
            }
            let copies = [1, 2].map(|id| (end.state(id).copies, end.state(id).copied_bytes));
            assert_eq!((copies[0], copies[1].0), ((0, 0), 3));
            assert_eq!(copies[1].1, end.state(2).sent_bytes);
        }
    });
}

#[test]
fn copies_of_packets_in_between_keep_apart() {
    in_the_world("copies_of_packets_in_between_keep_apart", |lan| {
        let mut end = ruled(lan, Side::Gateway, &[of_class(class::DUPLICATE)], 0);
        let packet = host_udp(PORT).bytes();
        let rounds = [0; 3].map(|_| end.counted(Door::Lan, &packet).0.packet);
        // As two CPUs would have them: not one packet after the other.
        let mut paths = [0, 1, 2, 1, 0, 2].map(|packet| {
            let sent = end.run(Door::Device, &rounds[packet]);
            let (header, _) = opened(Side::Gateway, SUITE, &sent.packet, false);
            (header.flow_sequence, header.path)
        });
        paths.sort_unstable();
        assert_eq!(paths, [(1, 1), (1, 2), (2, 1), (2, 2), (3, 1), (3, 2)]);
    });
}

#[test]
fn the_far_end_takes_one_of_two_copies() {
    in_the_world("the_far_end_takes_one_of_two_copies", |lan| {
        for side in [Side::Gateway, Side::Server] {
            let mut end = End::new(lan, side);
            end.reset(SUITE, false);
            let far = host_udp(PORT);
            let packet = match side {
                Side::Server => far,
                Side::Gateway => {
                    far.with(|p| (p.source, p.destination) = (far.destination, far.source))
                }
            };
            let text = inner_of(&packet);
            let mut take = |path: u8, sequence: u64, number: u32| {
                let header = Header {
                    kind: Kind::Data,
                    flags: flag::DUPLICATE,
                    path,
                    inner: inner::IPV4,
                    session: side.session(),
                    sequence,
                    bucket: 9,
                    taken: 0,
                    flow_sequence: number,
                };
                let sealed =
                    Sealed { side: side.other(), suite: SUITE, header, text: &text, is_v6: false };
                let door = Door::Wan(if side == Side::Gateway { path } else { 1 });
                let (out, row) = end.counted(door, &sealed.arriving());
                (out.verdict, row.reason)
            };
            let (came, again) = ((XDP_REDIRECT, Reason::ToDevice), (XDP_DROP, Reason::Duplicate));
            assert_eq!(take(1, 1, 1), came);
            assert_eq!(take(2, 1, 1), again);
            assert_eq!(take(2, 2, 2), came, "the other path may be the quicker");
            assert_eq!(take(1, 2, 2), again);
            assert_eq!(take(2, 3, 3), came, "its copy is lost");
        }
    });
}

#[test]
fn a_packet_is_sent_once_where_no_second_path_can_have_it() {
    in_the_world("a_packet_is_sent_once_where_no_second_path_can_have_it", |lan| {
        let side = Side::Gateway;
        let mut end = ruled(lan, side, &[of_class(class::DUPLICATE)], 1_000);
        let packet = host_udp(PORT).bytes();
        let reason = |end: &mut End| end.reason(Door::Lan, &packet);
        assert_eq!(reason(&mut end), Reason::Copied);
        end.change_state(2, |state| state.alive_until = 5);
        assert_eq!(reason(&mut end), Reason::Bonded, "it is dead");
        end.change_state(2, |state| state.alive_until = u64::MAX);
        end.set_path(2, &BondPath { mtu: 80, ..path(side, 2, false) });
        assert_eq!(reason(&mut end), Reason::Bonded, "it is too small");
        end.set_path(2, &BondPath::default());
        // What paths there are is looked for anew after a while.
        std::thread::sleep(std::time::Duration::from_millis(1));
        assert_eq!(reason(&mut end), Reason::Bonded, "it is not there");
        end.set_path(2, &path(side, 2, false));
        std::thread::sleep(std::time::Duration::from_millis(1));
        assert_eq!(reason(&mut end), Reason::Copied);
    });
}

#[test]
fn copies_on_a_metered_path_have_a_budget() {
    in_the_world("copies_on_a_metered_path_have_a_budget", |lan| {
        let side = Side::Gateway;
        let packet = host_udp(PORT).bytes();
        let length = (packet.len() - 14) as u32;
        for (id, spared) in [(1, false), (2, true)] {
            let mut end = ruled(lan, side, &[of_class(class::DUPLICATE)], 2 * length);
            let flags = bond_path_flag::PRESENT | bond_path_flag::METERED;
            end.set_path(id, &BondPath { flags, ..path(side, id, false) });
            end.change_state(id, |state| state.used_at = monotonic());
            let reasons: Vec<Reason> = (0..5).map(|_| end.reason(Door::Lan, &packet)).collect();
            let copied = reasons.iter().filter(|reason| **reason == Reason::Copied).count();
            // What a second saves up, and nothing for the first copy.
            assert_eq!(copied, if spared { 2 } else { 5 }, "{id} {reasons:?}");
            let spent = end.state(id).budget_spent;
            assert_eq!(spent == 0, !spared);
            end.change_state(id, |state| {
                state.budget_spent = state.budget_spent.saturating_sub(SECOND / 2);
            });
            assert_eq!(end.reason(Door::Lan, &packet), Reason::Copied, "half a second later");
        }
    });
}

#[test]
fn the_first_rule_that_matches_says_the_class() {
    in_the_world("the_first_rule_that_matches_says_the_class", |lan| {
        let ports = |port: u16, class: u8| ClassRule {
            ports: [port, port],
            tests: class_test::PORT,
            class,
            ..ClassRule::ALL
        };
        let dscp = ClassRule { dscp: 46, tests: class_test::DSCP, ..of_class(class::PIN) };
        let short = ClassRule { lengths: [0, 40], ..of_class(class::STRIPE) };
        let rules =
            [ports(PORT, class::AUTO), ports(PORT, class::DUPLICATE), dscp, short, ports(9, 3)];
        let mut end = ruled(lan, Side::Gateway, &rules, 0);
        let mut classed = |packet: &Packet| {
            end.run(Door::Lan, &packet.bytes());
            let buckets = end.maps().buckets(Side::Gateway.slot()).expect("a read");
            let newest = buckets.iter().max_by_key(|(_, bucket)| bucket.last_seen);
            newest.expect("a bucket").1.class
        };
        let udp = host_udp(PORT);
        let four = |destination: u16| {
            let transport = Transport::Udp { source: PORT + 1, destination, checksum: true };
            udp.with(|p| p.transport = transport)
        };
        assert_eq!(classed(&udp), class::AUTO);
        assert_eq!(classed(&four(9)), class::DUPLICATE);
        assert_eq!(classed(&four(10)), class::AUTO, "none matches");
        assert_eq!(classed(&four(10).with(|p| p.tos = 46 << 2 | 1)), class::PIN);
        let six = v6(&four(10));
        assert_eq!(classed(&six.with(|p| p.tos = 46 << 2 | 2)), class::PIN);
        assert_eq!(classed(&six), class::AUTO);
    });
}

#[test]
fn an_elephant_that_is_pinned_stays_and_a_mouse_that_is_striped_does_not() {
    let name = "an_elephant_that_is_pinned_stays_and_a_mouse_that_is_striped_does_not";
    in_the_world(name, |lan| {
        for (class, elephant, striped) in [
            (class::AUTO, true, true),
            (class::AUTO, false, false),
            (class::PIN, true, false),
            (class::STRIPE, false, true),
        ] {
            let mut end = ruled(lan, Side::Gateway, &[of_class(class)], 0);
            end.change_session(|session| {
                (session.choice, session.stripe) = (bond_choice::ARRIVAL, 0b110);
            });
            let elephant_bytes = if elephant { 1 } else { 1 << 20 };
            let set = Bond { rules: 1, elephant_bytes, ..bond(Side::Gateway) };
            end.maps().set_bond(&set).expect("a write");
            let packet = host_udp(PORT).bytes();
            let flags: Vec<u8> = (0..2)
                .map(|_| {
                    let sent = end.run(Door::Lan, &packet);
                    opened(Side::Gateway, SUITE, &sent.packet, false).0.flags
                })
                .collect();
            assert_eq!(flags[1] == flag::ORDERED, striped, "{class} {elephant}");
            let buckets = end.maps().buckets(Side::Gateway.slot()).expect("a read");
            let weighs = buckets[0].1.flags & bucket_flag::ELEPHANT != 0;
            assert_eq!(weighs, elephant, "what a flow weighs is its own");
        }
    });
}

#[test]
fn a_frame_of_the_lan_is_no_copy_whatever_its_addresses() {
    in_the_world("a_frame_of_the_lan_is_no_copy_whatever_its_addresses", |lan| {
        let mut end = ruled(lan, Side::Gateway, &[], 0);
        let [to, from] = tick::copies([2, 2], 77);
        let forged = host_udp(PORT).with(|p| (p.to, p.from) = (to, from));
        assert_eq!(end.reason(Door::Lan, &forged.bytes()), Reason::OtherHost);
        // Of a path that is not there, from the device.
        let [to, from] = tick::copies([7, 7], 1);
        let strange = host_udp(PORT).with(|p| (p.to, p.from) = (to, from));
        assert_eq!(end.reason(Door::Device, &strange.bytes()), Reason::NoBondPath);
    });
}

#[test]
fn a_rule_keeps_packets_to_its_paths() {
    in_the_world("a_rule_keeps_packets_to_its_paths", |lan| {
        for side in [Side::Gateway, Side::Server] {
            for choice in [bond_choice::ARRIVAL, bond_choice::BUCKET, bond_choice::COUNTER] {
                let second = 1 << 2;
                for (paths, dead) in [(second, 1), (second | ONLY, 2)] {
                    let rule = ClassRule { paths, ..of_class(class::AUTO) };
                    let mut end = ruled(lan, side, &[rule], 0);
                    end.change_session(|session| session.choice = choice);
                    let path = |end: &mut End| {
                        let (door, packet) = going(side);
                        let (sent, row) = end.counted(door, &packet.bytes());
                        assert_eq!((sent.verdict, row.reason), (XDP_REDIRECT, Reason::Bonded));
                        opened(side, SUITE, &sent.packet, false).0.path
                    };
                    assert_eq!([0; 4].map(|_| path(&mut end)), [2; 4]);
                    // Without it: another, or none but it.
                    end.change_state(2, |state| state.alive_until = 5);
                    assert_eq!(path(&mut end), dead, "{side:?} {choice} {paths:#x}");
                    end.set_path(2, &BondPath::default());
                    std::thread::sleep(std::time::Duration::from_millis(1));
                    let (door, packet) = going(side);
                    let left = if dead == 1 { Reason::Bonded } else { Reason::NoBondPath };
                    assert_eq!(end.reason(door, &packet.bytes()), left);
                }
            }
        }
    });
}

/// A packet that goes into the bond at an end.
fn going(side: Side) -> (Door, Packet) {
    let host = host_udp(PORT);
    match side {
        Side::Gateway => (Door::Lan, host),
        Side::Server => {
            let back = host.with(|p| {
                (p.source, p.destination) = (host.destination, host.source);
                (p.to, p.from) = (DP_MAC, MWB0_MAC);
            });
            (Door::Device, back)
        }
    }
}

#[test]
fn copies_keep_to_the_paths_of_their_rule() {
    in_the_world("copies_keep_to_the_paths_of_their_rule", |lan| {
        let rule = ClassRule { paths: 1 << 1, ..of_class(class::DUPLICATE) };
        let mut end = ruled(lan, Side::Gateway, &[rule], 0);
        let packet = host_udp(PORT).bytes();
        assert_eq!(end.reason(Door::Lan, &packet), Reason::Bonded, "there is no second one");
        let both = ClassRule { paths: 0b110, ..rule };
        end.maps().set_classes(&[both]).expect("a write");
        assert_eq!(end.reason(Door::Lan, &packet), Reason::Copied);
    });
}

#[test]
fn what_a_rule_blocks_is_dropped_and_all_is_counted_by_rule() {
    in_the_world("what_a_rule_blocks_is_dropped_and_all_is_counted_by_rule", |lan| {
        let of_port = |port: u16, class: u8| ClassRule {
            ports: [port, port],
            tests: class_test::PORT,
            ..of_class(class)
        };
        let rules = [of_port(23, class::BLOCK), of_port(53, class::DUPLICATE)];
        let mut end = ruled(lan, Side::Gateway, &rules, 0);
        let udp = host_udp(PORT);
        let to = |destination: u16| {
            let transport = Transport::Udp { source: PORT, destination, checksum: true };
            udp.with(|p| p.transport = transport)
        };
        let sizes = [23, 53, 99].map(|port| (to(port).bytes().len() - 14) as u64);
        for (port, times, reason) in
            [(23, 3, Reason::PolicyBlocked), (53, 2, Reason::Copied), (99, 1, Reason::Bonded)]
        {
            for _ in 0..times {
                let packet = to(port).bytes();
                let (out, row) = end.counted(Door::Lan, &packet);
                assert_eq!(row.reason, reason);
                assert_eq!(out.verdict == XDP_DROP, reason == Reason::PolicyBlocked);
            }
        }
        let counts = end.maps().class_counts(2).expect("a read");
        let expected = [(3, sizes[0]), (2, sizes[1]), (1, sizes[2])];
        let expected =
            expected.map(|(packets, size)| ClassCount { packets, bytes: packets * size });
        assert_eq!(counts, expected);
        // Others begin with nothing.
        end.maps().set_classes(&rules[1..]).expect("a write");
        assert_eq!(end.maps().class_counts(1).expect("a read"), [ClassCount::default(); 2]);
    });
}
