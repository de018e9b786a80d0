//! Blocks with parity: the agent has a copy of what goes by a path that loses, and of what
//! came; its parity is sent by another path, and what it has computed goes on.

use mwb_common::classes::repair;
use mwb_common::maps::{BOND_PATHS, Back, Bond, Handed, bond_path_flag, handed};
use mwb_common::reason::Reason;
use mwb_common::wire::{Header, Kind, flag, inner};

use crate::bond_again::{SUITE, outward, repairing};
use crate::bond_packet::{Sealed, inner_of, opened};
use crate::bond_turns::read;
use crate::bond_world::{Door, End, Side, bond, path};
use crate::gateway::{XDP_DROP, XDP_REDIRECT};
use crate::network::in_the_world;
use crate::packet::Packet;
use crate::world::{PORT, host_udp, v6};

const BLOCK: u8 = flag::ORDERED | flag::FEC;
const BUCKET: u16 = 9;

fn protecting(lan: u32, side: Side) -> End {
    repairing(lan, side, repair::FEC, u64::MAX)
}

/// Has a path lose packets, or not.
fn protect(end: &End, id: u8, more: u32) {
    let entry = path(end.side, id, false);
    end.set_path(id, &mwb_common::maps::BondPath { flags: entry.flags | more, ..entry });
}

/// From the client's host to the server, and back.
fn inward(side: Side) -> Packet {
    let host = host_udp(PORT);
    match side {
        Side::Server => host,
        Side::Gateway => host.with(|p| (p.source, p.destination) = (host.destination, host.source)),
    }
}

/// Comes in by a path.
fn come(end: &mut End, header: Header, text: &[u8]) -> Reason {
    let side = end.side;
    let sealed = Sealed { side: side.other(), suite: SUITE, header, text, is_v6: false };
    let door = Door::Wan(if side == Side::Gateway { header.path } else { 1 });
    end.reason(door, &sealed.arriving())
}

fn data(side: Side, path: u8, sequence: u64, number: u32) -> Header {
    Header {
        kind: Kind::Data,
        flags: BLOCK,
        path,
        inner: inner::IPV4,
        session: side.session(),
        sequence,
        bucket: BUCKET,
        taken: 0,
        flow_sequence: number,
    }
}

#[test]
fn what_goes_by_a_path_that_loses_is_of_a_block() {
    in_the_world("what_goes_by_a_path_that_loses_is_of_a_block", |lan| {
        for side in [Side::Gateway, Side::Server] {
            for packet in [host_udp(PORT), v6(&host_udp(PORT))] {
                let mut end = protecting(lan, side);
                let (door, packet) = outward(side, &packet);
                let out = end.run(door, &packet.bytes());
                assert_eq!(opened(side, SUITE, &out.packet, false).0.flags, 0);
                assert_eq!(read(&end), []);

                protect(&end, 1, bond_path_flag::PROTECTED);
                let (out, row) = end.counted(door, &packet.bytes());
                assert_eq!((out.verdict, row.reason), (XDP_REDIRECT, Reason::Bonded));
                let (header, text) = opened(side, SUITE, &out.packet, false);
                assert_eq!((header.path, header.flags), (1, BLOCK));
                let [(head, told)] = read(&end).try_into().expect("one");
                assert_eq!(told, text);
                assert_eq!((head.kind, head.path), (handed::SENT, 1));
                assert_eq!((head.sequence, head.number), (header.sequence, header.flow_sequence));
                assert_eq!((head.bucket, head.inner), (header.bucket, header.inner));
                assert_eq!((head.flags, head.session), (BLOCK, side.session()));

                // Nobody is there who makes parity.
                end.maps().set_lease(0).expect("a write");
                let out = end.run(door, &packet.bytes());
                let (header, _) = opened(side, SUITE, &out.packet, false);
                assert_eq!(header.flags, flag::ORDERED, "it was of a block a moment ago");
                assert_eq!((read(&end), end.state(1).untold), (vec![], 0));
            }
        }
    });
}

#[test]
fn parity_goes_by_another_path_than_its_data() {
    in_the_world("parity_goes_by_another_path_than_its_data", |lan| {
        for side in [Side::Gateway, Side::Server] {
            let mut end = protecting(lan, side);
            let text: Vec<u8> = (0..200).collect();
            let of = |path| {
                let (slot, session) = (side.slot(), side.session());
                Handed { slot, session, path, ..Handed::default() }
            };
            let send = |end: &mut End, path: u8| {
                let head = Back::parity(&of(path));
                let frame = [bytemuck::bytes_of(&head), &text[..]].concat();
                let (out, row) = end.counted(Door::Device, &frame);
                if out.verdict != XDP_REDIRECT {
                    return Err(row.reason);
                }
                assert_eq!(row.reason, Reason::ParitySent);
                let (header, inside) = opened(side, SUITE, &out.packet, false);
                assert_eq!(inside, text);
                assert_eq!((header.kind, header.flags), (Kind::Parity, 0));
                assert_eq!((header.bucket, header.flow_sequence, header.inner), (0, 0, 0));
                assert_eq!(row.path, header.path);
                Ok(header.path)
            };
            assert_eq!(send(&mut end, 1), Ok(2));
            assert_eq!(send(&mut end, 2), Ok(1));
            assert_eq!([1, 2].map(|path| end.state(path).parity), [1, 1]);
            assert_eq!(end.state(2).parity_bytes, end.state(2).sent_bytes);
            assert_eq!(end.state(2).again, 0);
            assert_eq!(read(&end), [], "nobody repairs parity");

            // Where no other path lives: by that of its data.
            end.change_state(2, |state| state.alive_until = 1);
            assert_eq!(send(&mut end, 1), Ok(1));
            // Nor by one that stands by.
            end.change_state(2, |state| state.alive_until = u64::MAX);
            protect(&end, 2, bond_path_flag::PARKED);
            assert_eq!(send(&mut end, 1), Ok(1));
            assert_eq!(send(&mut end, 2), Ok(1));
            // No metered path carries more than its budget.
            end.maps().set_bond(&Bond { copy_budget: 0, rules: 1, ..bond(side) }).expect("a write");
            protect(&end, 2, bond_path_flag::METERED);
            assert_eq!(send(&mut end, 1), Ok(1));
            protect(&end, 1, bond_path_flag::METERED);
            assert_eq!(send(&mut end, 1), Err(Reason::NoBondPath));

            let known = of(1);
            for bad in [
                Handed { slot: 0, ..known },
                Handed { slot: 9, ..known },
                Handed { path: 0, ..known },
                Handed { path: BOND_PATHS as u8, ..known },
                Handed { session: 77, ..known },
            ] {
                let frame = [bytemuck::bytes_of(&Back::parity(&bad)), &text[..]].concat();
                assert_eq!(end.run(Door::Device, &frame).verdict, XDP_DROP, "{bad:?}");
            }
        }
    });
}

#[test]
fn parity_that_comes_is_the_agents() {
    in_the_world("parity_that_comes_is_the_agents", |lan| {
        for side in [Side::Gateway, Side::Server] {
            let mut end = protecting(lan, side);
            let text: Vec<u8> = (0..180).collect();
            let parity = |path, sequence| Header {
                kind: Kind::Parity,
                flags: 0,
                inner: inner::NONE,
                bucket: 0,
                ..data(side, path, sequence, 0)
            };
            assert_eq!(come(&mut end, parity(2, 1), &text), Reason::ParityTaken);
            let [(head, told)] = read(&end).try_into().expect("one");
            assert_eq!((head.kind, head.path, told), (handed::PARITY, 2, text.clone()));
            assert_eq!((head.slot, head.session), (side.slot(), side.session()));
            assert_eq!(come(&mut end, parity(2, 1), &text), Reason::Replayed);
            assert_eq!(read(&end), []);
            end.maps().set_lease(0).expect("a write");
            assert_eq!(come(&mut end, parity(2, 2), &text), Reason::ParityTaken);
            assert_eq!((read(&end), end.state(2).untold), (vec![], 1));
            assert_eq!(end.state(2).received, 2);
        }
    });
}

#[test]
fn data_of_a_block_is_copied_to_the_agent_and_goes_on() {
    in_the_world("data_of_a_block_is_copied_to_the_agent_and_goes_on", |lan| {
        for side in [Side::Gateway, Side::Server] {
            let mut end = protecting(lan, side);
            let text = inner_of(&inward(side));
            assert_eq!(come(&mut end, data(side, 1, 5, 1), &text), Reason::ToDevice);
            let [(head, told)] = read(&end).try_into().expect("one");
            assert_eq!(told, text);
            assert_eq!((head.kind, head.path, head.sequence), (handed::TAKEN, 1, 5));
            assert_eq!((head.number, head.bucket, head.flags), (1, BUCKET, BLOCK));
            // Its path has brought it, whether it is news or not.
            assert_eq!(come(&mut end, data(side, 2, 3, 1), &text), Reason::Duplicate);
            let [(head, _)] = read(&end).try_into().expect("one");
            assert_eq!((head.kind, head.path, head.sequence), (handed::TAKEN, 2, 3));
            // What the agent has until its turn it has already.
            assert_eq!(come(&mut end, data(side, 1, 6, 3), &text), Reason::Ahead);
            let [(head, told)] = read(&end).try_into().expect("one");
            assert_eq!((head.kind, head.path, head.sequence), (handed::AHEAD, 1, 6));
            assert_eq!((head.flags, told), (BLOCK, text));
        }
    });
}

#[test]
fn what_was_computed_goes_on_once_and_in_its_turn() {
    in_the_world("what_was_computed_goes_on_once_and_in_its_turn", |lan| {
        for side in [Side::Gateway, Side::Server] {
            let mut end = protecting(lan, side);
            let text = inner_of(&inward(side));
            let known = Handed {
                slot: side.slot(),
                session: side.session(),
                number: 1,
                bucket: BUCKET,
                path: 1,
                inner: inner::IPV4,
                flags: flag::ORDERED,
                ..Handed::default()
            };
            let give = |end: &mut End, head: Handed, text: &[u8]| {
                let frame = [bytemuck::bytes_of(&Back::recovered(&head)), text].concat();
                let (out, row) = end.counted(Door::Device, &frame);
                (out.verdict, row.reason)
            };
            assert_eq!(give(&mut end, known, &text), (XDP_REDIRECT, Reason::ToDevice));
            assert_eq!(give(&mut end, known, &text), (XDP_DROP, Reason::Duplicate));
            // It was not lost after all.
            assert_eq!(come(&mut end, data(side, 2, 1, 1), &text), Reason::Duplicate);
            read(&end);
            let third = Handed { number: 3, ..known };
            assert_eq!(give(&mut end, third, &text), (XDP_DROP, Reason::Ahead));
            let [(head, told)] = read(&end).try_into().expect("one");
            assert_eq!((head.kind, head.number, head.next), (handed::AHEAD, 3, 2));
            assert_eq!((head.path, head.session, told), (1, side.session(), text.clone()));
            // What has no turn goes on.
            let free = Handed { number: 9, flags: 0, ..known };
            assert_eq!(give(&mut end, free, &text), (XDP_REDIRECT, Reason::ToDevice));
            let no_packet = Handed { number: 10, flags: 0, ..known };
            assert_eq!(give(&mut end, no_packet, &[0; 60]), (XDP_DROP, Reason::InnerMalformed));
            for bad in [
                Handed { slot: 0, ..known },
                Handed { slot: 9, ..known },
                Handed { path: 0, ..known },
                Handed { path: 16, ..known },
                Handed { inner: inner::NONE, ..known },
                Handed { session: 77, ..known },
            ] {
                assert_eq!(give(&mut end, bad, &text).0, XDP_DROP, "{bad:?}");
            }
            // It ends before it has said what it is.
            let head = Back::recovered(&known);
            let begin = &bytemuck::bytes_of(&head)[..16];
            assert_eq!(end.run(Door::Device, begin).verdict, XDP_DROP);
        }
    });
}
