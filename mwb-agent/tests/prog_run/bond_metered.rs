//! Metered paths: while one carries nothing it is probed seldom and lives longer on each
//! answer; with the first packet of data that is over.

use std::time::Duration;

use mwb_common::integrity::Suite;
use mwb_common::maps::{BondPath, PathState, bond_path_flag, tick};
use mwb_common::reason::Reason;
use mwb_common::select::pace::{IDLE_AFTER, OVERLAP};
use mwb_common::wire::{Header, Kind, inner};

use crate::bond_packet::{Sealed, inner_of};
use crate::bond_probes::{LEAST, monotonic, probe_to, saying, tick_for};
use crate::bond_world::{
    DEAD_AFTER, Door, End, IDLE_DEAD_AFTER, IDLE_INTERVAL, INTERVAL, LOOPBACK, Side, path,
};
use crate::network::in_the_world;
use crate::world::{PORT, host_udp};

const SECOND: u64 = 1_000_000_000;
/// What the agent has to notice that a path is in use again.
const NOTICE: u64 = 200_000_000;

/// Both paths over IPv4; the second is metered. On a machine that has just begun nothing
/// can have been idle for long: waits until it can.
fn metered(lan: u32, side: Side) -> End {
    let idle = IDLE_AFTER + OVERLAP + SECOND;
    std::thread::sleep(Duration::from_nanos(idle.saturating_sub(monotonic())));
    let mut end = End::new(lan, side);
    end.reset(Suite::SipHash, false);
    let flags = bond_path_flag::PRESENT | bond_path_flag::METERED;
    end.set_path(2, &BondPath { flags, ..path(side, 2, false) });
    end
}

#[test]
fn an_idle_metered_path_has_fewer_probes_and_lives_longer_on_each_answer() {
    let name = "an_idle_metered_path_has_fewer_probes_and_lives_longer_on_each_answer";
    in_the_world(name, |lan| {
        for side in [Side::Gateway, Side::Server] {
            let mut end = metered(lan, side);
            let mut number = 0;
            // The path, for how long nobody has used it, and how it is probed then.
            for (id, rest, interval, dead_after) in [
                (2, IDLE_AFTER + OVERLAP + 1, IDLE_INTERVAL, IDLE_DEAD_AFTER),
                (2, IDLE_AFTER + 1, INTERVAL, IDLE_DEAD_AFTER),
                (2, 0, INTERVAL, DEAD_AFTER),
                (1, IDLE_AFTER + OVERLAP + 1, INTERVAL, DEAD_AFTER),
            ] {
                number += 1;
                let used_at = monotonic() - rest;
                end.change_state(id, |state| (state.used_at, state.sent) = (used_at, 40));
                let frame = tick_for(side, tick::SHORT, id, 60);
                let before = monotonic();
                assert_eq!(end.reason(Door::Device, &frame), Reason::ProbeSent);
                let after = monotonic();
                let due = end.state(id).probe_due;
                assert!((before + interval - 1..=after + interval).contains(&due), "{id} {due}");
                let reply = saying(monotonic(), 20 + number, 0);
                let sealed =
                    by_path(side, id, Kind::ProbeReply, number, bytemuck::bytes_of(&reply));
                assert_eq!(end.reason(Door::Wan(door(side, id)), &sealed), Reason::ProbeAnswered);
                let state = end.state(id);
                assert_eq!(state.alive_until, state.reply_at + dead_after, "{id} {rest}");
                assert_eq!(state.used_at, used_at, "probes and answers are no use of it");
            }
        }
    });
}

#[test]
fn data_by_other_paths_makes_the_probe_of_an_idle_metered_path_only_when_that_is_late() {
    let name = "data_by_other_paths_makes_the_probe_of_an_idle_metered_path_only_when_that_is_late";
    in_the_world(name, |lan| {
        let mut end = metered(lan, Side::Gateway);
        end.plane.set_ticks(LOOPBACK).expect("a device");
        let packet = host_udp(PORT).bytes();
        let due = |end: &End, ago: u64| {
            end.change_state(2, |state| state.probe_due = (monotonic() - ago) & !1);
        };
        // Late for any other.
        due(&end, INTERVAL);
        let (_, row) = end.counted(Door::Lan, &packet);
        assert_eq!((row.reason, row.path), (Reason::Bonded, 1));
        due(&end, IDLE_INTERVAL / 2 + 1_000_000);
        let before = monotonic();
        let (_, row) = end.counted(Door::Lan, &packet);
        assert_eq!((row.reason, row.path), (Reason::Ticked, 2));
        let due = end.state(2).probe_due;
        assert!(due >= before + IDLE_INTERVAL && due % 2 == 1, "{due}");
        // Two packets and a probe on its way, and still nobody has used it.
        assert_eq!(end.state(2).used_at, 0);
        assert_ne!(end.state(1).used_at, 0);
    });
}

#[test]
fn data_by_an_idle_metered_path_makes_it_one_that_has_to_answer_soon() {
    in_the_world("data_by_an_idle_metered_path_makes_it_one_that_has_to_answer_soon", |lan| {
        let mut end = metered(lan, Side::Gateway);
        end.plane.set_ticks(LOOPBACK).expect("a device");
        let packet = host_udp(PORT).bytes();
        end.change_state(1, |state| state.alive_until = 0);
        end.change_state(2, |state| {
            let now = monotonic();
            (state.alive_until, state.probe_due) = (now + 60 * SECOND, (now + 60 * SECOND) & !1);
            (state.rtt, state.rtt_variation) = (40_000_000, 5_000_000);
        });
        let before = monotonic();
        let (_, row) = end.counted(Door::Lan, &packet);
        let after = monotonic();
        assert_eq!((row.reason, row.path), (Reason::Bonded, 2), "it lives");
        let state = end.state(2);
        assert!((before..=after).contains(&state.used_at));
        let until = state.used_at + NOTICE + 60_000_000 + DEAD_AFTER;
        assert_eq!((state.alive_until, state.probe_due), (until, 0));
        // The next packet makes the probe, and then it is one in each interval.
        let before = monotonic();
        let (round, row) = end.counted(Door::Lan, &packet);
        assert_eq!((row.reason, row.path), (Reason::Ticked, 2));
        let due = end.state(2).probe_due;
        assert!((before + INTERVAL..before + INTERVAL + SECOND / 2).contains(&due), "{due}");
        assert_eq!(end.reason(Door::Device, &round.packet), Reason::ProbeSent);
        end.change_state(2, |state| state.probe_due = (monotonic() + 60 * SECOND) & !1);
        assert_eq!(end.reason(Door::Lan, &packet), Reason::Bonded);
        let state = end.state(2);
        assert_eq!(state.alive_until, until, "more packets make it live no longer");
    });
}

#[test]
fn data_that_comes_by_a_metered_path_is_a_use_of_it_and_probes_are_not() {
    let name = "data_that_comes_by_a_metered_path_is_a_use_of_it_and_probes_are_not";
    in_the_world(name, |lan| {
        for side in [Side::Gateway, Side::Server] {
            let mut end = metered(lan, side);
            let wan = Door::Wan(door(side, 2));
            let idle = |state: &mut PathState| {
                let now = monotonic();
                (state.alive_until, state.probe_due) =
                    (now + 60 * SECOND, (now + 60 * SECOND) & !1);
            };
            end.change_state(2, idle);
            let probe = by_path(side, 2, Kind::Probe, 1, &[0; LEAST]);
            assert_eq!(end.reason(wan, &probe), Reason::ProbeReflected);
            assert_eq!(end.state(2).used_at, 0);
            let data = by_path(side, 2, Kind::Data, 2, &inner_of(&host_udp(PORT)));
            let before = monotonic();
            let (_, row) = end.counted(wan, &data);
            assert_eq!((row.reason, row.path), (Reason::ToDevice, 2));
            let state = end.state(2);
            assert!((before..=monotonic()).contains(&state.used_at));
            let until = state.used_at + NOTICE + DEAD_AFTER;
            assert_eq!((state.alive_until, state.probe_due), (until, 0));
            // What comes once more is nothing new, and no use.
            end.change_state(2, |state| state.used_at = 7);
            assert_eq!(end.reason(wan, &data), Reason::Replayed);
            assert_eq!(end.state(2).used_at, 7);
        }
    });
}

/// The WAN that a path's packets come by.
fn door(side: Side, id: u8) -> u8 {
    if side == Side::Gateway { id } else { 1 }
}

/// A packet of the far end, by a path.
fn by_path(side: Side, id: u8, kind: Kind, sequence: u64, text: &[u8]) -> Vec<u8> {
    let inner = if kind == Kind::Data { inner::IPV4 } else { inner::NONE };
    let suite = Suite::SipHash;
    let base = probe_to(side, suite, false, sequence, 0).header;
    let header = Header { kind, path: id, inner, ..base };
    Sealed { side: side.other(), suite, header, text, is_v6: false }.arriving()
}
