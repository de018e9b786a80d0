//! Which path a packet takes, and what its bucket and the path's queue learn of it.

use mwb_common::integrity::Suite;
use mwb_common::maps::{
    BondPath, FlowKey6, SLOTS, Selection, bond_choice, bond_path_flag, bucket_flag,
};
use mwb_common::reason::Reason;
use mwb_common::select::arrival::QUEUE;
use mwb_common::wire::flag;

use crate::bond_packet::{inner_of, opened};
use crate::bond_world::{DP_MAC, Door, End, MWB0_MAC, Side, path};
use crate::network::in_the_world;
use crate::packet::Packet;
use crate::world::{HOST, HOST6, PORT, REMOTE, REMOTE6, SERVICE, host_udp, selection, v6};

const SUITE: Suite = Suite::SipHash;
const SIDE: Side = Side::Gateway;

/// An end whose session chooses so, with every slot of its table on path 1.
fn choosing(lan: u32, choice: u8) -> End {
    let mut end = End::new(lan, SIDE);
    end.reset(SUITE, false);
    end.change_session(|session| session.choice = choice);
    end
}

/// Sends it from the device: by which path, with which flags and numbers.
fn send(end: &mut End, packet: &Packet) -> (u8, u8, u32) {
    let packet = packet.with(|p| (p.to, p.from) = (DP_MAC, MWB0_MAC));
    let sent = end.run(Door::Device, &packet.bytes());
    let (header, text) = opened(SIDE, SUITE, &sent.packet, false);
    assert_eq!(text, inner_of(&packet));
    (header.path, header.flags, header.flow_sequence)
}

fn set_flags(end: &End, id: u8, flags: u32) {
    let flags = bond_path_flag::PRESENT | flags;
    end.set_path(id, &BondPath { flags, ..path(SIDE, id, false) });
}

fn kill(end: &End, ids: &[u8]) {
    for id in [1, 2] {
        let until = if ids.contains(&id) { 5 } else { u64::MAX };
        end.change_state(id, |state| state.alive_until = until);
    }
}

#[test]
fn a_slot_table_shares_packets_by_a_running_number_or_flows_by_their_bucket() {
    let name = "a_slot_table_shares_packets_by_a_running_number_or_flows_by_their_bucket";
    in_the_world(name, |lan| {
        let mut slots = [1; SLOTS];
        slots.iter_mut().skip(2).step_by(3).for_each(|slot| *slot = 2);
        let table = Selection { slots, ..selection() };
        let mut end = choosing(lan, bond_choice::COUNTER);
        end.maps().set_selection(SIDE.slot(), &table).expect("a write");
        for number in 0..9_u32 {
            let (path, flags, sequence) = send(&mut end, &host_udp(PORT));
            let expected = if number % 3 == 2 { 2 } else { 1 };
            // Such a flow goes by several paths.
            assert_eq!((path, flags, sequence), (expected, flag::ORDERED, number + 1));
        }
        assert_eq!(end.maps().session_state(SIDE.slot()).expect("one").cursor, 9);
        let mut end = choosing(lan, bond_choice::BUCKET);
        end.maps().set_selection(SIDE.slot(), &table).expect("a write");
        let mut seen = [0; 3];
        for port in 0..60 {
            let (path, flags, _) = send(&mut end, &host_udp(port));
            assert_eq!(flags, 0);
            assert_eq!(send(&mut end, &host_udp(port)).0, path);
            seen[usize::from(path)] += 1;
        }
        assert!(seen[1] > seen[2] && seen[2] > 5, "{seen:?}");
    });
}

#[test]
fn a_path_that_does_not_live_is_taken_only_if_none_does() {
    in_the_world("a_path_that_does_not_live_is_taken_only_if_none_does", |lan| {
        use bond_path_flag::{DOWN, PARKED};
        for choice in [bond_choice::COUNTER, bond_choice::BUCKET, bond_choice::ARRIVAL] {
            let mut end = choosing(lan, choice);
            let mut by = |dead: &[u8], flags1, flags2| {
                set_flags(&end, 1, flags1);
                set_flags(&end, 2, flags2);
                kill(&end, dead);
                let (path, ..) = send(&mut end, &host_udp(PORT));
                let forced = [1, 2].map(|id| end.state(id).forced);
                for id in [1, 2] {
                    end.change_state(id, |state| (state.forced, state.busy_until) = (0, 0));
                }
                (path, forced)
            };
            assert_eq!(by(&[], 0, 0), (1, [0, 0]));
            assert_eq!(by(&[1], 0, 0), (2, [0, 0]));
            assert_eq!(by(&[], DOWN, 0), (2, [0, 0]));
            assert_eq!(by(&[], PARKED, 0), (2, [0, 0]));
            // What is parked lives, and is better than what does not.
            assert_eq!(by(&[2], PARKED, 0), (1, [0, 0]));
            assert_eq!(by(&[], PARKED, DOWN), (1, [0, 0]));
            // The last path is never killed.
            let (path, forced) = by(&[1, 2], 0, 0);
            assert!(matches!((path, forced), (1, [1, 0]) | (2, [0, 1])), "{path} {forced:?}");
            let (path, forced) = by(&[1], 0, DOWN);
            assert!(matches!((path, forced), (1, [1, 0]) | (2, [0, 1])), "{path} {forced:?}");
        }
    });
}

#[test]
fn a_path_that_cannot_carry_the_packet_is_not_chosen() {
    in_the_world("a_path_that_cannot_carry_the_packet_is_not_chosen", |lan| {
        for choice in [bond_choice::COUNTER, bond_choice::BUCKET, bond_choice::ARRIVAL] {
            let mut end = choosing(lan, choice);
            let packet = host_udp(PORT).with(|p| p.payload = vec![0; 500 - 28]);
            let outer = 500 + 28 + 32;
            let narrow = BondPath { mtu: outer - 1, ..path(SIDE, 1, false) };
            end.set_path(1, &narrow);
            assert_eq!(send(&mut end, &packet).0, 2);
            end.change_state(2, |state| state.busy_until = 0);
            end.set_path(1, &BondPath { mtu: outer, ..narrow });
            end.set_path(2, &BondPath { flags: 0, ..path(SIDE, 2, false) });
            assert_eq!(send(&mut end, &packet).0, 1);
            // Without a next hop of its family a WAN carries nothing.
            end.set_path(2, &path(SIDE, 2, true));
            end.set_path(1, &BondPath { via: 9, ..path(SIDE, 1, false) });
            let packet = packet.with(|p| (p.to, p.from) = (DP_MAC, MWB0_MAC));
            let (sent, row) = end.counted(Door::Device, &packet.bytes());
            assert_eq!((row.reason, row.path), (Reason::Bonded, 2));
            assert_eq!(sent.packet[12..14], [0x86, 0xdd]);
        }
    });
}

#[test]
fn a_packet_goes_where_it_arrives_first_and_a_small_flow_stays() {
    in_the_world("a_packet_goes_where_it_arrives_first_and_a_small_flow_stays", |lan| {
        let mut end = choosing(lan, bond_choice::ARRIVAL);
        let with_delay = |end: &End, id, delay| {
            end.set_path(id, &BondPath { delay, ..path(SIDE, id, false) });
        };
        with_delay(&end, 1, 10_000_000);
        assert_eq!(send(&mut end, &host_udp(PORT)).0, 2);
        assert_eq!(send(&mut end, &host_udp(PORT + 1)).0, 2);
        // It is better elsewhere now, but not by much: what is new goes there, what is on
        // its way stays.
        with_delay(&end, 1, 0);
        with_delay(&end, 2, 4_000_000);
        assert_eq!(send(&mut end, &host_udp(PORT)).0, 2);
        assert_eq!(send(&mut end, &host_udp(PORT + 2)).0, 1);
        with_delay(&end, 2, 1_000_000_000);
        assert_eq!(send(&mut end, &host_udp(PORT)).0, 1);
    });
}

#[test]
fn an_elephant_is_striped_among_the_paths_that_the_agent_names() {
    in_the_world("an_elephant_is_striped_among_the_paths_that_the_agent_names", |lan| {
        let mut end = choosing(lan, bond_choice::ARRIVAL);
        let bond =
            mwb_common::maps::Bond { elephant_bytes: 1_500, ..crate::bond_world::bond(SIDE) };
        end.maps().set_bond(&bond).expect("a write");
        for id in [1, 2] {
            // A second for 1,000 bytes, within the bound: queues show at once.
            let slow = BondPath { byte_time: u32::MAX, ..path(SIDE, id, false) };
            end.set_path(id, &slow);
        }
        end.change_session(|session| session.stripe = 0b110);
        let packet = host_udp(PORT).with(|p| p.payload = vec![0; 1_000 - 28]);
        let sent: Vec<_> = (0..8).map(|_| send(&mut end, &packet)).collect();
        assert_eq!(sent[0].1, 0, "it is none yet");
        assert!(sent[4..].iter().all(|(_, flags, _)| *flags == flag::ORDERED), "{sent:?}");
        for id in [1, 2] {
            assert!(sent[4..].iter().any(|(path, ..)| *path == id), "{sent:?}");
        }
        let bucket = end.maps().buckets(SIDE.slot()).expect("buckets");
        let [(_, bucket)] = bucket.as_slice() else { panic!("one flow, not {bucket:?}") };
        assert_eq!(bucket.flags, bucket_flag::ELEPHANT | bucket_flag::STRIPED);
    });
}

#[test]
fn a_bucket_knows_its_flow_and_a_path_its_queue() {
    in_the_world("a_bucket_knows_its_flow_and_a_path_its_queue", |lan| {
        let mut end = choosing(lan, bond_choice::BUCKET);
        // 1,000 ns for a byte.
        end.set_path(1, &BondPath { byte_time: 1_024_000, ..path(SIDE, 1, false) });
        let packet = v6(&host_udp(PORT)).with(|p| p.payload = vec![0; 100 - 48]);
        let before = monotonic();
        for number in 1..=3 {
            assert_eq!(send(&mut end, &packet).2, number);
        }
        let after = monotonic();
        let all = end.maps().buckets(SIDE.slot()).expect("buckets");
        let [(number, bucket)] = all.as_slice() else { panic!("one flow, not {all:?}") };
        let key = FlowKey6 {
            source: HOST6.octets(),
            destination: REMOTE6.octets(),
            source_port: PORT.to_be_bytes(),
            destination_port: SERVICE.to_be_bytes(),
            protocol: 17,
            scope: 6,
            reserved: [0; 2],
        };
        assert_eq!(bucket.key, key);
        assert_eq!((bucket.packets, bucket.bytes, bucket.sequence), (3, 300, 3));
        assert_eq!((bucket.path, bucket.flags), (1, 0));
        assert!((before..=after).contains(&bucket.opened));
        assert!((bucket.opened..=after).contains(&bucket.last_seen));
        assert!(*number < 4_096);
        let state = end.state(1);
        let each = 160 * 1_000;
        assert_eq!(state.sent_bytes, 3 * 160);
        let busy = state.busy_until;
        assert!((bucket.opened + each..=bucket.last_seen + 3 * each).contains(&busy), "{busy}");
        // The queue has a bound.
        end.change_state(1, |state| state.busy_until = u64::MAX >> 1);
        send(&mut end, &packet);
        assert!(end.state(1).busy_until <= monotonic() + QUEUE);
        // Fragments have no ports, and one bucket for all of a flow.
        let fragment = host_udp(PORT).with(|p| (p.fragment, p.divisible) = ((0, true), true));
        let other = host_udp(PORT + 1).with(|p| (p.fragment, p.divisible) = ((3, false), true));
        send(&mut end, &fragment);
        send(&mut end, &other);
        let all = end.maps().buckets(SIDE.slot()).expect("buckets");
        let of_fragments: Vec<_> = all.iter().filter(|(_, bucket)| bucket.key.scope == 4).collect();
        let [(_, bucket)] = of_fragments.as_slice() else { panic!("one bucket, not {all:?}") };
        assert_eq!((bucket.packets, bucket.key.source_port), (2, [0; 2]));
        assert_eq!(bucket.key.source[..4], HOST.octets());
        assert_eq!(bucket.key.destination[..4], REMOTE.octets());
    });
}

fn monotonic() -> u64 {
    let now = nix::time::clock_gettime(nix::time::ClockId::CLOCK_MONOTONIC).expect("a clock");
    std::time::Duration::from(now).as_nanos() as u64
}
