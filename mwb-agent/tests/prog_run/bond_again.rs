//! Packets that may have to be sent again: the agent is told of each, sends what was lost by
//! another path, and hears when the far end wants to know what came.

use mwb_common::classes::{ClassRule, class, repair};
use mwb_common::integrity::Suite;
use mwb_common::maps::{Back, Bond, Handed, handed};
use mwb_common::reason::Reason;
use mwb_common::wire::{Header, Kind, flag, inner};

use crate::bond_packet::{Sealed, inner_of, opened};
use crate::bond_turns::read;
use crate::bond_world::{DP_MAC, Door, End, MWB0_MAC, Side, bond};
use crate::gateway::{XDP_DROP, XDP_REDIRECT};
use crate::network::in_the_world;
use crate::packet::Packet;
use crate::world::{PORT, host_udp, v6};

pub(crate) const SUITE: Suite = Suite::ChaCha20Poly1305;
const AGAIN: u8 = flag::ORDERED | flag::ACKED;

/// An end whose packets are all repaired if they get lost.
pub(crate) fn repairing(lan: u32, side: Side, repair: u8, lease: u64) -> End {
    let mut end = End::new(lan, side);
    end.reset(SUITE, false);
    let rule = ClassRule { class: class::AUTO, repair, ..ClassRule::ALL };
    end.maps().set_classes(&[rule]).expect("a write");
    end.maps().set_bond(&Bond { rules: 1, ..bond(side) }).expect("a write");
    end.plane.set_ticks(crate::bond_world::LOOPBACK).expect("a device");
    end.maps().set_lease(lease).expect("a write");
    end
}

/// What goes into the bond at an end.
pub(crate) fn outward(side: Side, packet: &Packet) -> (Door, Packet) {
    match side {
        Side::Gateway => (Door::Lan, packet.clone()),
        Side::Server => (
            Door::Device,
            packet.with(|p| {
                (p.source, p.destination) = (packet.destination, packet.source);
                (p.to, p.from) = (DP_MAC, MWB0_MAC);
            }),
        ),
    }
}

#[test]
fn the_agent_is_told_of_each_that_may_be_lost() {
    in_the_world("the_agent_is_told_of_each_that_may_be_lost", |lan| {
        for side in [Side::Gateway, Side::Server] {
            let mut end = repairing(lan, side, repair::RETRANSMIT, u64::MAX);
            for packet in [host_udp(PORT), v6(&host_udp(PORT))] {
                let (door, packet) = outward(side, &packet);
                let (out, row) = end.counted(door, &packet.bytes());
                assert_eq!((out.verdict, row.reason), (XDP_REDIRECT, Reason::Bonded));
                let (header, text) = opened(side, SUITE, &out.packet, false);
                assert_eq!(header.flags, AGAIN);
                let [(head, told)] = read(&end).try_into().expect("one");
                assert_eq!(told, text);
                let known = Handed {
                    came: head.came,
                    sequence: header.sequence,
                    slot: side.slot(),
                    number: header.flow_sequence,
                    next: head.next,
                    count: head.count,
                    bucket: header.bucket,
                    ways: head.ways,
                    length: text.len() as u16,
                    kind: handed::SENT,
                    path: header.path,
                    inner: header.inner,
                    flags: AGAIN,
                    reserved: [0; 2],
                    session: side.session(),
                };
                assert_eq!(head, known);
            }
            assert_eq!(end.state(1).untold, 0);
            // Nobody is there who would send it again: it says so.
            end.maps().set_lease(0).expect("a write");
            let (door, packet) = outward(side, &host_udp(PORT));
            let out = end.run(door, &packet.bytes());
            let (header, _) = opened(side, SUITE, &out.packet, false);
            assert_eq!(header.flags, flag::ORDERED, "those before it may come again");
            assert_eq!((read(&end), end.state(1).untold), (vec![], 0));
        }
    });
}

#[test]
fn what_is_sent_again_goes_by_another_path_under_its_number() {
    in_the_world("what_is_sent_again_goes_by_another_path_under_its_number", |lan| {
        for side in [Side::Gateway, Side::Server] {
            let mut end = repairing(lan, side, repair::RETRANSMIT, u64::MAX);
            let text = inner_of(&host_udp(PORT));
            let lost = Handed {
                slot: side.slot(),
                session: side.session(),
                number: 77,
                bucket: 9,
                path: 1,
                inner: inner::IPV4,
                flags: AGAIN,
                ..Handed::default()
            };
            let send = |end: &mut End, lost: Handed| {
                let frame = [bytemuck::bytes_of(&Back::again(&lost)), &text[..]].concat();
                let out = end.run(Door::Device, &frame);
                if out.verdict != XDP_REDIRECT {
                    return Err(out.verdict);
                }
                let (header, inside) = opened(side, SUITE, &out.packet, false);
                assert_eq!(inside, text);
                assert_eq!(header.flags, AGAIN | flag::RETRANSMITTED);
                assert_eq!((header.flow_sequence, header.bucket), (77, 9));
                let [(head, told)] = read(end).try_into().expect("one");
                assert_eq!((head.path, head.sequence), (header.path, header.sequence));
                assert_eq!((head.number, head.kind, told), (77, handed::SENT, text.clone()));
                Ok(header.path)
            };
            assert_eq!(send(&mut end, lost), Ok(2));
            assert_eq!(send(&mut end, Handed { path: 2, ..lost }), Ok(1));
            let again = [1, 2].map(|path| end.state(path).again);
            assert_eq!(again, [1, 1]);
            assert_eq!(end.state(2).again_bytes, end.state(2).sent_bytes);
            // Where no other path lives, the same once more.
            end.change_state(2, |state| state.alive_until = 1);
            assert_eq!(send(&mut end, lost), Ok(1));
            for bad in [
                Handed { slot: 0, ..lost },
                Handed { slot: 9, ..lost },
                Handed { path: 0, ..lost },
                Handed { path: 16, ..lost },
                Handed { inner: inner::NONE, ..lost },
                Handed { session: 77, ..lost },
            ] {
                assert_eq!(send(&mut end, bad), Err(XDP_DROP), "{bad:?}");
            }
        }
    });
}

#[test]
fn the_far_end_is_heard_when_it_wants_to_know_what_came() {
    in_the_world("the_far_end_is_heard_when_it_wants_to_know_what_came", |lan| {
        for side in [Side::Gateway, Side::Server] {
            let mut end = repairing(lan, side, repair::RETRANSMIT, u64::MAX);
            let host = host_udp(PORT);
            let packet = match side {
                Side::Server => host,
                Side::Gateway => {
                    host.with(|p| (p.source, p.destination) = (host.destination, host.source))
                }
            };
            let text = inner_of(&packet);
            let come = |end: &mut End, sequence: u64, path: u8, number: u32| {
                let header = Header {
                    kind: Kind::Data,
                    flags: AGAIN,
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
                end.reason(door, &sealed.arriving())
            };
            assert_eq!(come(&mut end, 1, 1, 1), Reason::ToDevice);
            let asked = |end: &End| -> Vec<(u8, u8, u32)> {
                let told = read(end).into_iter();
                told.map(|(head, _)| (head.kind, head.path, head.session)).collect()
            };
            assert_eq!(asked(&end), [(handed::ASKED, 1, side.session())]);
            // At once again is no news; by another path it is.
            end.change_state(1, |state| state.asked = u64::MAX);
            assert_eq!(come(&mut end, 2, 1, 2), Reason::ToDevice);
            assert_eq!(come(&mut end, 1, 2, 3), Reason::ToDevice);
            assert_eq!(asked(&end), [(handed::ASKED, 2, side.session())]);
            // It is taken once.
            assert_eq!(come(&mut end, 2, 2, 2), Reason::Duplicate);
            let seen = end.maps().path_window(side.slot(), 1).expect("a window");
            assert_eq!((seen.newest(), seen.below::<1>()), (2, [1]));
        }
    });
}
