//! Probes: what makes them, what answers them, and what an answer says.

use std::time::Duration;

use mwb_common::integrity::Suite;
use mwb_common::maps::{ANNOUNCED, PathState, Probe, ProbeReply, tick};
use mwb_common::reason::Reason;
use mwb_common::wire::{Header, Kind, flag, header_length, inner};

use crate::bond_packet::{Sealed, inner_of, opened};
use crate::bond_world::{DEAD_AFTER, DP_MAC, Door, End, INTERVAL, MWB0_MAC, SUITES, Side};
use crate::gateway::{XDP_DROP, XDP_REDIRECT};
use crate::network::in_the_world;
use crate::world::{PORT, host_udp};

/// Bytes behind the header of the shortest probe, and of every reply.
pub(crate) const LEAST: usize = 48;

pub(crate) fn monotonic() -> u64 {
    let now = nix::time::clock_gettime(nix::time::ClockId::CLOCK_MONOTONIC).expect("a clock");
    Duration::from(now).as_nanos() as u64
}

/// A frame that makes a probe of the path.
pub(crate) fn tick_for(side: Side, kind: [u8; 2], path: u8, length: usize) -> Vec<u8> {
    let to = tick::destination(kind, side.slot(), path);
    let mut frame = [&to[..], &MWB0_MAC, &tick::ETHERTYPE].concat();
    frame.resize(length, 0);
    frame
}

fn outer(suite: Suite, is_v6: bool) -> usize {
    header_length(suite) as usize + if is_v6 { 48 } else { 28 }
}

#[test]
fn a_tick_makes_a_probe_of_the_least_length_or_of_its_own() {
    in_the_world("a_tick_makes_a_probe_of_the_least_length_or_of_its_own", |lan| {
        for side in [Side::Gateway, Side::Server] {
            let mut end = End::new(lan, side);
            for suite in SUITES {
                for is_v6 in [false, true] {
                    end.reset(suite, is_v6);
                    let least = outer(suite, is_v6) + LEAST;
                    let mut sequence = 0;
                    let sizes = [
                        (tick::SHORT, 60, least),
                        (tick::SHORT, 1_400, least),
                        (tick::EXACT, 14 + least, least),
                        (tick::EXACT, 14 + 1_500, 1_500),
                    ];
                    for (kind, frame, length) in sizes {
                        sequence += 1;
                        end.change_state(1, |state| state.probe_due = 4);
                        let before = monotonic();
                        let (sent, row) =
                            end.counted(Door::Device, &tick_for(side, kind, 1, frame));
                        let after = monotonic();
                        assert_eq!((sent.verdict, row.reason), (XDP_REDIRECT, Reason::ProbeSent));
                        assert_eq!((row.path, row.bytes), (1, length as u64));
                        let (header, text) = opened(side, suite, &sent.packet, is_v6);
                        assert_eq!(header, end.header(Kind::Probe, 1, sequence));
                        let probe: Probe = bytemuck::pod_read_unaligned(&text[..8]);
                        let sent_at = u64::from_be_bytes(probe.sent_at);
                        assert!((before..=after).contains(&sent_at), "{before} {sent_at} {after}");
                        assert!(text[8..].iter().all(|byte| *byte == 0));
                        let sealed = Sealed { side, suite, header, text: &text, is_v6 };
                        assert_eq!(sent.packet, sealed.frame());
                        assert_eq!(sent.packet.len(), 14 + length);
                        let due = end.state(1).probe_due;
                        let expected =
                            if kind == tick::SHORT { (sent_at + INTERVAL) & !1 } else { 4 };
                        assert_eq!(due, expected);
                    }
                }
            }
        }
    });
}

#[test]
fn a_probe_says_that_elephants_go_by_its_path_or_will() {
    in_the_world("a_probe_says_that_elephants_go_by_its_path_or_will", |lan| {
        for side in [Side::Gateway, Side::Server] {
            let suite = Suite::SipHash;
            let mut end = End::new(lan, side);
            end.reset(suite, false);
            for (stripe, path, flags) in [
                (0, 1, 0),
                (0b0110, 1, 0),
                (0b0100 << ANNOUNCED, 1, 0),
                (0b0100 << ANNOUNCED, 2, flag::ORDERED),
                (0b0110 << ANNOUNCED | 0b0010, 1, flag::ORDERED),
            ] {
                end.change_session(|session| session.stripe = stripe);
                let sent = end.run(Door::Device, &tick_for(side, tick::SHORT, path, 60));
                let (header, text) = opened(side, suite, &sent.packet, false);
                assert_eq!((header.kind, header.flags), (Kind::Probe, flags), "{stripe:b}");
                // As the far end hears it, in a probe of its own.
                let sequence = end.state(path).received + 1;
                let header = Header { session: side.session(), sequence, ..header };
                let other = side.other();
                let sealed = Sealed { side: other, suite, header, text: &text, is_v6: false };
                let door = Door::Wan(if side == Side::Gateway { path } else { 1 });
                let before = monotonic();
                let (reply, row) = end.counted(door, &sealed.arriving());
                assert_eq!(row.reason, Reason::ProbeReflected);
                let (header, _) = opened(side, suite, &reply.packet, false);
                assert_eq!((header.kind, header.flags), (Kind::ProbeReply, 0));
                let state = end.state(path);
                assert_eq!(state.announced, u32::from(flags != 0));
                let probe: Probe = bytemuck::pod_read_unaligned(&text[..8]);
                let lag = state.lag_at - u64::from_be_bytes(probe.sent_at);
                assert!(state.lag_at >= before && state.lag == lag, "{state:?}");
            }
        }
    });
}

#[test]
fn a_probe_is_sent_by_a_path_that_is_down_or_dead_but_not_by_one_that_cannot_be() {
    let name = "a_probe_is_sent_by_a_path_that_is_down_or_dead_but_not_by_one_that_cannot_be";
    in_the_world(name, |lan| {
        use mwb_common::maps::{
            BondPath,
            bond_path_flag::{DOWN, PARKED, PRESENT},
        };
        let side = Side::Gateway;
        let mut end = End::new(lan, side);
        let short = tick_for(side, tick::SHORT, 1, 60);
        let path = crate::bond_world::path(side, 1, false);
        for flags in [PRESENT | DOWN, PRESENT | PARKED] {
            end.set_path(1, &BondPath { flags, ..path });
            end.change_state(1, |state| state.alive_until = 0);
            assert_eq!(end.reason(Door::Device, &short), Reason::ProbeSent);
        }
        let ignored = |end: &mut End, frame: &[u8], what: &str| {
            let (came, row) = end.counted(Door::Device, frame);
            assert_eq!((came.verdict, row.reason), (XDP_DROP, Reason::TickIgnored), "{what}");
        };
        end.set_path(1, &BondPath { flags: 0, ..path });
        ignored(&mut end, &short, "a path that has not joined");
        end.set_path(1, &path);
        let wan = end.plane.path(1).expect("a WAN");
        let dark = mwb_common::maps::Path {
            flags: wan.flags & !mwb_common::maps::path_flag::NEXT_HOP4,
            ..wan
        };
        end.plane.set_path(1, &dark).expect("a write");
        ignored(&mut end, &short, "no next hop");
        end.plane.set_path(1, &wan).expect("a write");
        let least = outer(Suite::ChaCha20Poly1305, false) + LEAST;
        ignored(&mut end, &tick_for(side, tick::EXACT, 1, 14 + least - 1), "too short");
        ignored(
            &mut end,
            &tick_for(side, tick::EXACT, 1, 14 + 1_501),
            "longer than the link takes",
        );
        for path in [0, 3, 16, 17, 255] {
            ignored(&mut end, &tick_for(side, tick::SHORT, path, 60), "no such path");
        }
        ignored(&mut end, &tick_for(side, [2, 3], 1, 60), "of no kind");
        ignored(&mut end, &tick_for(Side::Server, tick::SHORT, 1, 60), "no session there");
        let far =
            [&tick::destination(tick::SHORT, 1 << 20, 1)[..], &MWB0_MAC, &tick::ETHERTYPE].concat();
        ignored(&mut end, &[far, vec![0; 60]].concat(), "no such slot");
        // From anywhere else it is no tick.
        assert_eq!(end.reason(Door::Lan, &short), Reason::NotIp);
        assert_eq!(end.reason(Door::Device, &short), Reason::ProbeSent);
    });
}

pub(crate) fn probe_to(
    side: Side,
    suite: Suite,
    is_v6: bool,
    sequence: u64,
    length: usize,
) -> Sealed<'static> {
    let text = vec![0x5a; length].leak();
    let header = Header {
        kind: Kind::Probe,
        flags: 0,
        path: 1,
        inner: inner::NONE,
        session: side.session(),
        sequence,
        bucket: 0,
        taken: 0,
        flow_sequence: 0,
    };
    Sealed { side: side.other(), suite, header, text, is_v6 }
}

#[test]
fn a_probe_comes_back_as_its_reply_to_where_it_came_from() {
    in_the_world("a_probe_comes_back_as_its_reply_to_where_it_came_from", |lan| {
        for side in [Side::Gateway, Side::Server] {
            let mut end = End::new(lan, side);
            for suite in SUITES {
                for is_v6 in [false, true] {
                    end.reset(suite, is_v6);
                    let mut bytes = 0;
                    for (count, length) in (1..).zip([LEAST, 49, 64, 1_300]) {
                        let probe = probe_to(side, suite, is_v6, 10 * count, length);
                        let frame = probe.arriving();
                        bytes += frame.len() as u64 - 14;
                        let before = monotonic();
                        let (back, row) = end.counted(Door::Wan(1), &frame);
                        let after = monotonic();
                        assert_eq!(
                            (back.verdict, row.reason),
                            (XDP_REDIRECT, Reason::ProbeReflected)
                        );
                        assert_eq!((row.path, row.bytes), (1, frame.len() as u64 - 14));
                        let (header, text) = opened(side, suite, &back.packet, is_v6);
                        let taken = count as u16;
                        let expected = Header { taken, ..end.header(Kind::ProbeReply, 1, count) };
                        assert_eq!(header, expected);
                        let reply: ProbeReply = bytemuck::pod_read_unaligned(&text);
                        let received_at = u64::from_be_bytes(reply.received_at);
                        assert!((before..=after).contains(&received_at));
                        let expected = ProbeReply {
                            sent_at: [0x5a; 8],
                            received_at: reply.received_at,
                            sequence: (10 * count).to_be_bytes(),
                            packets: count.to_be_bytes(),
                            bytes: bytes.to_be_bytes(),
                            length: (frame.len() as u16 - 14).to_be_bytes(),
                            reserved: [0; 6],
                        };
                        assert_eq!(reply, expected);
                        // Where it came from, and by the same link.
                        let sealed = Sealed { side, suite, header, text: &text, is_v6 };
                        let mut out = sealed.frame();
                        out[..6].copy_from_slice(&frame[6..12]);
                        out[6..12].copy_from_slice(&frame[..6]);
                        assert_eq!(back.packet, out, "{side:?} {suite:?} {is_v6} {length}");
                    }
                }
            }
        }
    });
}

#[test]
fn a_probe_that_is_shorter_than_its_reply_is_not_answered() {
    in_the_world("a_probe_that_is_shorter_than_its_reply_is_not_answered", |lan| {
        let mut end = End::new(lan, Side::Server);
        for (sequence, length) in (1..).zip([0, 8, LEAST - 1]) {
            let probe = probe_to(Side::Server, Suite::ChaCha20Poly1305, false, sequence, length);
            assert_eq!(end.reason(Door::Wan(1), &probe.arriving()), Reason::BondMalformed);
        }
    });
}

/// A reply as the far end sends it.
fn reply_to(side: Side, is_v6: bool, sequence: u64, reply: ProbeReply) -> Vec<u8> {
    let header = Header {
        kind: Kind::ProbeReply,
        ..probe_to(side, Suite::SipHash, is_v6, sequence, 0).header
    };
    let text = bytemuck::bytes_of(&reply);
    Sealed { side: side.other(), suite: Suite::SipHash, header, text, is_v6 }.arriving()
}

pub(crate) fn saying(sent_at: u64, sequence: u64, length: u16) -> ProbeReply {
    ProbeReply {
        sent_at: sent_at.to_be_bytes(),
        received_at: 77_u64.to_be_bytes(),
        sequence: sequence.to_be_bytes(),
        packets: 5_u64.to_be_bytes(),
        bytes: 600_u64.to_be_bytes(),
        length: length.to_be_bytes(),
        reserved: [0; 6],
    }
}

#[test]
fn an_answered_probe_makes_a_path_alive_and_says_what_it_is_like() {
    in_the_world("an_answered_probe_makes_a_path_alive_and_says_what_it_is_like", |lan| {
        let side = Side::Gateway;
        let mut end = End::new(lan, side);
        for is_v6 in [false, true] {
            end.reset(Suite::SipHash, is_v6);
            end.change_state(1, |state| (state.alive_until, state.sent) = (0, 40));
            let least = (outer(Suite::SipHash, is_v6) + LEAST) as u16;
            let sent_at = monotonic() - 30_000_000;
            let before = monotonic();
            let frame = reply_to(side, is_v6, 1, saying(sent_at, 20, least));
            let (came, row) = end.counted(Door::Wan(1), &frame);
            let after = monotonic();
            assert_eq!((came.verdict, row.reason), (XDP_DROP, Reason::ProbeAnswered));
            let state = end.state(1);
            let now = state.reply_at;
            assert!((before..=after).contains(&now));
            let rtt = now - sent_at;
            let expected = PathState {
                sent: 40,
                probe_due: state.probe_due,
                alive_until: now + DEAD_AFTER,
                heard: now,
                received: 1,
                received_bytes: frame.len() as u64 - 14,
                reply_sent_at: sent_at,
                reply_at: now,
                reply_received_at: 77,
                reply_sequence: 20,
                reply_packets: 5,
                reply_bytes: 600,
                rtt,
                rtt_variation: rtt / 2,
                ..PathState::default()
            };
            assert_eq!(state, expected);
            // The next is smoothed (RFC 6298), and longer: its length passes.
            let sent_at = monotonic() - 90_000_000;
            end.run(Door::Wan(1), &reply_to(side, is_v6, 2, saying(sent_at, 21, 1_492)));
            let state = end.state(1);
            let sample = state.reply_at - sent_at;
            assert_eq!(state.rtt_variation, (3 * (rtt / 2) + sample.abs_diff(rtt)) / 4);
            assert_eq!(state.rtt, (7 * rtt + sample) / 8);
            assert_eq!((state.sized, state.sized_at), (1_492, state.reply_at));
            // An older answer, one that was given already, and one to a probe that was not
            // sent say nothing; that they came is a fact of the path all the same.
            for (number, sequence) in [(3, 20), (4, 21), (5, 41)] {
                let before = end.state(1);
                let frame = reply_to(side, is_v6, number, saying(1, sequence, 1_500));
                assert_eq!(end.reason(Door::Wan(1), &frame), Reason::ProbeAnswered);
                let after = end.state(1);
                let expected = PathState {
                    heard: after.heard,
                    received: number,
                    received_bytes: after.received_bytes,
                    ..before
                };
                assert_eq!(after, expected);
            }
            // A clock that is not ours gives no round-trip time.
            let frame = reply_to(side, is_v6, 6, saying(u64::MAX, 30, least));
            end.run(Door::Wan(1), &frame);
            let after = end.state(1);
            assert_eq!((after.rtt, after.reply_sequence), (state.rtt, 30));
        }
    });
}

#[test]
fn data_makes_a_path_alive_only_if_it_says_that_more_of_ours_was_taken() {
    let name = "data_makes_a_path_alive_only_if_it_says_that_more_of_ours_was_taken";
    in_the_world(name, |lan| {
        let side = Side::Gateway;
        let mut end = End::new(lan, side);
        let packet = host_udp(PORT);
        let text = inner_of(&packet);
        let suite = Suite::ChaCha20Poly1305;
        // Its own sequence, what it says, and whether that is news. The first has heard of
        // nothing; one that was overtaken says how it was before; and the count wraps.
        for (sequence, taken, alive) in [
            (1, 0, false),
            (3, 7, true),
            (4, 7, false),
            (2, 6, false),
            (5, 7, false),
            (6, u16::MAX, true),
            (7, 0, true),
        ] {
            end.change_state(1, |state| state.alive_until = 3);
            let header = Header {
                kind: Kind::Data,
                inner: inner::IPV4,
                taken,
                ..probe_to(side, suite, false, sequence, 0).header
            };
            let sealed = Sealed { side: side.other(), suite, header, text: &text, is_v6: false };
            assert_eq!(end.reason(Door::Wan(1), &sealed.arriving()), Reason::ToDevice);
            let state = end.state(1);
            let until = if alive { state.heard + DEAD_AFTER } else { 3 };
            assert_eq!(state.alive_until, until, "{taken} in {sequence}");
        }
        // What we send says what was taken: seven packets.
        let door = Door::Lan;
        let out = end.run(door, &packet.bytes());
        let said = [out.packet[14 + 28 + 18], out.packet[14 + 28 + 19]];
        assert_eq!(u16::from_be_bytes(said), 7);
    });
}

#[test]
fn data_makes_the_probe_that_the_agent_has_let_pass() {
    in_the_world("data_makes_the_probe_that_the_agent_has_let_pass", |lan| {
        let side = Side::Gateway;
        let mut end = End::new(lan, side);
        let packet = host_udp(PORT);
        let late = |end: &End| {
            let now = monotonic();
            end.change_state(2, |state| state.probe_due = now - INTERVAL / 2 - 1_000_000);
        };
        late(&end);
        // Without the device there is no way round.
        assert_eq!(end.reason(Door::Lan, &packet.bytes()), Reason::Bonded);
        end.plane.set_ticks(crate::bond_world::LOOPBACK).expect("a device");
        end.change_state(2, |state| state.probe_due = monotonic() + 1_000_000_000);
        assert_eq!(end.reason(Door::Lan, &packet.bytes()), Reason::Bonded);
        late(&end);
        let before = monotonic();
        let (round, row) = end.counted(Door::Lan, &packet.bytes());
        assert_eq!((round.verdict, row.reason, row.path), (XDP_REDIRECT, Reason::Ticked, 2));
        let to = tick::destination(tick::SHORT, side.slot(), 2);
        let expected = packet.with(|p| (p.to, p.ttl) = (to, p.ttl - 1));
        assert_eq!(round.packet, expected.bytes());
        let due = end.state(2).probe_due;
        assert!(due >= before + INTERVAL && due % 2 == 1, "{due}");
        // A tick of the agent that comes in between takes nothing from it.
        let tick = tick_for(side, tick::SHORT, 2, 60);
        assert_eq!(end.reason(Door::Device, &tick), Reason::ProbeSent);
        assert_eq!(end.state(2).probe_due, due);
        // Of the two that come in again, the first makes the probe.
        let (sent, row) = end.counted(Door::Device, &round.packet);
        assert_eq!((row.reason, row.path), (Reason::ProbeSent, 2));
        assert_eq!(end.state(2).probe_due % 2, 0);
        end.change_state(2, |state| state.probe_due = (monotonic() + 60_000_000_000) & !1);
        let (again, row) = end.counted(Door::Device, &round.packet);
        assert_eq!(row.reason, Reason::Bonded);
        let (_, text) = opened(side, Suite::ChaCha20Poly1305, &again.packet, false);
        assert_eq!(text, inner_of(&packet.with(|p| p.ttl -= 1)));
        let (header, text) = opened(side, Suite::ChaCha20Poly1305, &sent.packet, false);
        assert_eq!((header.kind, header.path, text.len()), (Kind::Probe, 2, LEAST));
        assert!(text[8..].iter().all(|byte| *byte == 0));
        assert_eq!(DP_MAC[0], 2);
    });
}
