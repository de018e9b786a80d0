//! Packets that have a turn: what is ahead of it is handed to the agent, and what that gives
//! back goes on.

use mwb_common::integrity::Suite;
use mwb_common::maps::{Back, Handed, LONG_TEXT, SHORT_TEXT, back, handed};
use mwb_common::reason::Reason;
use mwb_common::turns::Turns;
use mwb_common::wire::{Header, Kind, flag, inner};

use crate::bond_packet::{Sealed, inner_of};
use crate::bond_world::{DP_MAC, Door, End, MWB0_MAC, Side};
use crate::gateway::{XDP_DROP, XDP_REDIRECT};
use crate::network::in_the_world;
use crate::packet::Packet;
use crate::world::{PORT, host_udp, v6};

const SUITE: Suite = Suite::SipHash;
const BUCKET: u16 = 9;

/// An end whose agent takes what it is handed until `lease`.
fn leased(lan: u32, side: Side, lease: u64) -> End {
    let mut end = End::new(lan, side);
    end.reset(SUITE, false);
    end.maps().set_lease(lease).expect("a write");
    end
}

/// From the client's host to the server, and back.
fn towards(side: Side, packet: Packet) -> Packet {
    match side {
        Side::Server => packet,
        Side::Gateway => {
            packet.with(|p| (p.source, p.destination) = (packet.destination, packet.source))
        }
    }
}

fn header(side: Side, number: u32, path: u8) -> Header {
    Header {
        kind: Kind::Data,
        flags: flag::ORDERED,
        path,
        inner: inner::IPV4,
        session: side.session(),
        sequence: u64::from(number),
        bucket: BUCKET,
        taken: 0,
        flow_sequence: number,
    }
}

fn door(side: Side, path: u8) -> Door {
    Door::Wan(if side == Side::Gateway { path } else { 1 })
}

/// Comes in; says its verdict and reason.
fn come(end: &mut End, header: Header, text: &[u8]) -> (u32, Reason) {
    let side = end.side;
    let sealed = Sealed { side: side.other(), suite: SUITE, header, text, is_v6: false };
    let (out, row) = end.counted(door(side, header.path), &sealed.arriving());
    assert_eq!(row.path, header.path);
    (out.verdict, row.reason)
}

/// All that the agent was handed.
pub(crate) fn read(end: &End) -> Vec<(Handed, Vec<u8>)> {
    let ring = end.maps().handed();
    let mut packets = Vec::new();
    ring.lock().expect("a ring").read(usize::MAX, |head, text| {
        packets.push((*head, text.to_vec()));
    });
    packets
}

fn frame(head: &Handed, done: Option<u32>, text: &[u8]) -> Vec<u8> {
    [bytemuck::bytes_of(&Back::turn(head, done)), text].concat()
}

fn turns(end: &End) -> Turns {
    end.maps().turns(end.side.slot(), BUCKET).expect("turns")
}

const NOW: (u32, Reason) = (XDP_REDIRECT, Reason::ToDevice);
const AHEAD: (u32, Reason) = (XDP_DROP, Reason::Ahead);

#[test]
fn what_is_ahead_of_its_turn_is_the_agent_s_until_it_gives_it_back() {
    in_the_world("what_is_ahead_of_its_turn_is_the_agent_s_until_it_gives_it_back", |lan| {
        for side in [Side::Gateway, Side::Server] {
            let mut end = leased(lan, side, u64::MAX);
            for (packet, inside) in
                [(host_udp(PORT), inner::IPV4), (v6(&host_udp(PORT)), inner::IPV6)]
            {
                end.reset(SUITE, false);
                let text = inner_of(&towards(side, packet));
                let with = |number, path| Header { inner: inside, ..header(side, number, path) };
                assert_eq!(come(&mut end, with(1, 1), &text), NOW);
                assert_eq!(come(&mut end, with(3, 2), &text), AHEAD);
                assert_eq!(come(&mut end, with(2, 1), &text), AHEAD, "behind one that is");
                let packets = read(&end);
                for ((head, bytes), (number, path, count)) in
                    packets.iter().zip([(3, 2, 1), (2, 1, 2)])
                {
                    let expected = Handed {
                        came: head.came,
                        sequence: u64::from(number),
                        slot: side.slot(),
                        number,
                        next: 2,
                        count,
                        bucket: BUCKET,
                        // Which they are is not known yet.
                        ways: u16::MAX,
                        length: text.len() as u16,
                        kind: handed::AHEAD,
                        path,
                        inner: inside,
                        flags: flag::ORDERED,
                        reserved: [0; 2],
                        session: side.session(),
                    };
                    assert_eq!((head, bytes), (&expected, &text));
                }
                let [(third, _), (second, _)] = packets.try_into().expect("two");
                for (head, done) in [(second, None), (third, Some(2))] {
                    let (out, row) = end.counted(Door::Device, &frame(&head, done, &text));
                    assert_eq!((out.verdict, row.reason), NOW);
                    assert_eq!(row.path, head.path);
                    assert_eq!(out.packet[..12], [MWB0_MAC, DP_MAC].concat());
                    assert_eq!(out.packet[14..], text);
                    assert_eq!(turns(&end).is_out(), done.is_none());
                }
                assert_eq!(turns(&end).next, 4);
                assert_eq!(come(&mut end, with(4, 2), &text), NOW);
                assert_eq!(read(&end), []);
            }
        }
    });
}

#[test]
fn without_an_agent_packets_go_on_as_they_come() {
    in_the_world("without_an_agent_packets_go_on_as_they_come", |lan| {
        let mut end = leased(lan, Side::Server, 1);
        let text = inner_of(&host_udp(PORT));
        for (number, path) in [(1, 1), (9, 2), (2, 1), (11, 2), (10, 1)] {
            assert_eq!(come(&mut end, header(Side::Server, number, path), &text), NOW);
        }
        // It goes away with one that it was handed.
        end.maps().set_lease(u64::MAX).expect("a write");
        assert_eq!(come(&mut end, header(Side::Server, 20, 2), &text), AHEAD);
        end.maps().set_lease(0).expect("a write");
        assert_eq!(come(&mut end, header(Side::Server, 12, 1), &text), NOW);
        assert!(!turns(&end).is_out());
    });
}

#[test]
fn what_has_no_turn_is_never_handed_over() {
    in_the_world("what_has_no_turn_is_never_handed_over", |lan| {
        let mut end = leased(lan, Side::Server, u64::MAX);
        let text = inner_of(&host_udp(PORT));
        for (number, flags) in [(1, 0), (5, 0), (3, flag::DUPLICATE), (9, flag::DUPLICATE)] {
            let header = Header { flags, ..header(Side::Server, number, 1) };
            assert_eq!(come(&mut end, header, &text), NOW);
        }
        assert_eq!((turns(&end), read(&end)), (Turns::default(), vec![]));
    });
}

#[test]
fn packets_of_each_length_are_handed_over_until_there_is_no_room() {
    in_the_world("packets_of_each_length_are_handed_over_until_there_is_no_room", |lan| {
        let side = Side::Server;
        let mut end = leased(lan, side, u64::MAX);
        let of = |length: usize| {
            inner_of(&host_udp(PORT).with(|packet| packet.payload = vec![7; length - 28]))
        };
        assert_eq!(come(&mut end, header(side, 1, 1), &of(28)), NOW);
        let mut number = 2;
        for length in [28, 29, SHORT_TEXT - 1, SHORT_TEXT, SHORT_TEXT + 1, 1_400] {
            number += 1;
            let text = of(length);
            assert_eq!(come(&mut end, header(side, number, 1), &text), AHEAD, "{length}");
            let [(head, bytes)] = read(&end).try_into().expect("one");
            assert_eq!((usize::from(head.length), bytes), (length, text));
        }
        let text = of(1_400);
        let most = mwb_common::maps::HANDED_BYTES / (size_of::<Handed>() + LONG_TEXT);
        let mut taken = 0;
        loop {
            number += 1;
            let sealed = Sealed {
                side: side.other(),
                suite: SUITE,
                header: header(side, number, 1),
                text: &text,
                is_v6: false,
            };
            let out = end.run(door(side, 1), &sealed.arriving());
            if out.verdict != XDP_DROP {
                break;
            }
            taken += 1;
            assert!(taken <= most, "more than there is room for");
        }
        assert!(taken > most * 9 / 10, "{taken} of {most}");
        assert_eq!(read(&end).len(), taken);
    });
}

#[test]
fn a_frame_that_says_no_such_thing_goes_nowhere() {
    in_the_world("a_frame_that_says_no_such_thing_goes_nowhere", |lan| {
        let side = Side::Server;
        let mut end = leased(lan, side, u64::MAX);
        let text = inner_of(&host_udp(PORT));
        let good = Handed {
            slot: side.slot(),
            number: 7,
            bucket: BUCKET,
            path: 1,
            inner: inner::IPV4,
            ..Handed::default()
        };
        for (bad, reason) in [
            (Handed { slot: 4, ..good }, Reason::TickIgnored),
            (Handed { slot: 0, ..good }, Reason::UnknownSession),
            (Handed { path: 0, ..good }, Reason::TickIgnored),
            (Handed { path: 16, ..good }, Reason::TickIgnored),
            (Handed { inner: inner::NONE, ..good }, Reason::TickIgnored),
            (Handed { inner: inner::IPV6, ..good }, Reason::InnerMalformed),
            (good, Reason::ToDevice),
        ] {
            assert_eq!(end.reason(Door::Device, &frame(&bad, None, &text)), reason, "{bad:?}");
        }
        let whole = frame(&good, None, &text);
        for length in 14..whole.len() {
            let reason = end.reason(Door::Device, &whole[..length]);
            let short = length < size_of::<Back>();
            let expected = if short { Reason::TickIgnored } else { Reason::InnerMalformed };
            assert_eq!(reason, expected, "{length} bytes");
        }
        // From the LAN it is nothing.
        assert_eq!(&whole[..2], &back::TURN);
        assert_eq!(end.reason(Door::Lan, &whole), Reason::NotIp);
    });
}
