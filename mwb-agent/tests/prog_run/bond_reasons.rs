//! A row for each reason of the bond: what comes in, at which end, and what it ends as.

use mwb_common::classes::{ClassRule, class};
use mwb_common::integrity::Suite;
use mwb_common::maps::{Back, Bond, BondPath, Handed, tick};
use mwb_common::reason::{Reason, Verdict};
use mwb_common::wire::{Header, Kind, flag, inner};

use crate::bond_packet::{Sealed, inner_of};
use crate::bond_world::{DP_MAC, Door, End, LOOPBACK, MWB0_MAC, Side, bond, path};
use crate::gateway::{XDP_DROP, XDP_PASS, XDP_REDIRECT};
use crate::network::in_the_world;
use crate::packet::Packet;
use crate::world::{PORT, REMOTE, host_udp};

const SUITE: Suite = Suite::ChaCha20Poly1305;

/// A row of the table.
struct Row {
    name: &'static str,
    side: Side,
    given: fn(&mut End),
    door: Door,
    frame: fn(Side) -> Vec<u8>,
    reason: Reason,
}

/// A packet of the far end with this header and text.
fn from_far(side: Side, change: impl FnOnce(&mut Header), text: &[u8]) -> Vec<u8> {
    let mut header = Header {
        kind: Kind::Data,
        flags: 0,
        path: 1,
        inner: inner::IPV4,
        session: side.session(),
        sequence: 5_000,
        bucket: 9,
        taken: 0,
        flow_sequence: 5,
    };
    change(&mut header);
    Sealed { side: side.other(), suite: SUITE, header, text, is_v6: false }.arriving()
}

/// What the far end would send through the bond.
fn packet_from(side: Side) -> Packet {
    let packet = host_udp(PORT);
    match side {
        Side::Gateway => packet,
        Side::Server => {
            packet.with(|p| (p.source, p.destination) = (packet.destination, packet.source))
        }
    }
}

fn data(side: Side) -> Vec<u8> {
    from_far(side, |_| {}, &inner_of(&packet_from(side.other())))
}

fn copy(side: Side) -> Vec<u8> {
    let text = inner_of(&packet_from(side.other()));
    from_far(side, |header| (header.flags, header.path) = (flag::DUPLICATE, 2), &text)
}

fn ahead(side: Side) -> Vec<u8> {
    let text = inner_of(&packet_from(side.other()));
    from_far(side, |header| header.flags = flag::ORDERED, &text)
}

fn parity(side: Side) -> Vec<u8> {
    let (slot, session) = (side.slot(), side.session());
    let data = Handed { slot, session, path: 1, ..Handed::default() };
    [bytemuck::bytes_of(&Back::parity(&data)), &b"hello"[..]].concat()
}

fn of_kind(side: Side, kind: Kind, text: &[u8]) -> Vec<u8> {
    from_far(side, |header| (header.kind, header.inner) = (kind, inner::NONE), text)
}

fn from_device(side: Side) -> Vec<u8> {
    packet_from(side).with(|p| (p.to, p.from) = (DP_MAC, MWB0_MAC)).bytes()
}

fn tick_for(side: Side, path: u8) -> Vec<u8> {
    let to = tick::destination(tick::SHORT, side.slot(), path);
    [&to[..], &MWB0_MAC, &tick::ETHERTYPE, &[0; 60]].concat()
}

fn run_first(end: &mut End, frame: Vec<u8>) {
    let came = end.run(Door::Wan(1), &frame);
    assert_eq!(came.verdict, XDP_REDIRECT, "the row builds on it");
}

fn rows() -> Vec<Row> {
    let row = |name, side, door, frame: fn(Side) -> Vec<u8>, reason| Row {
        name,
        side,
        given: |_| {},
        door,
        frame,
        reason,
    };
    use Door::{Device, Lan, Wan};
    use Side::{Gateway, Server};
    vec![
        row("a packet of a LAN host", Gateway, Lan, |_| host_udp(PORT).bytes(), Reason::Bonded),
        row(
            "a packet that a server routes to a client",
            Server,
            Device,
            from_device,
            Reason::Bonded,
        ),
        Row {
            given: |end| end.lan_takes_xdp(),
            ..row("to a LAN host whose port takes frames", Gateway, Wan(1), data, Reason::Unbonded)
        },
        row("to a LAN host whose port takes none", Gateway, Wan(1), data, Reason::ToDevice),
        row("to a server", Server, Wan(1), data, Reason::ToDevice),
        row(
            "a probe",
            Server,
            Wan(1),
            |side| of_kind(side, Kind::Probe, &[0; 48]),
            Reason::ProbeReflected,
        ),
        row("a tick", Gateway, Device, |side| tick_for(side, 1), Reason::ProbeSent),
        row(
            "a reply",
            Gateway,
            Wan(1),
            |side| of_kind(side, Kind::ProbeReply, &[0; 48]),
            Reason::ProbeAnswered,
        ),
        row(
            "a message",
            Server,
            Wan(1),
            |side| of_kind(side, Kind::Control, b"hello"),
            Reason::BondMessage,
        ),
        row(
            "what calls itself a handshake, and is as long as none",
            Server,
            Wan(1),
            |side| of_kind(side, Kind::Handshake, b"hello"),
            Reason::BondMalformed,
        ),
        row(
            "parity",
            Server,
            Wan(1),
            |side| of_kind(side, Kind::Parity, b"hello"),
            Reason::ParityTaken,
        ),
        Row {
            given: |end| end.plane.set_ticks(LOOPBACK).expect("a device"),
            ..row("parity of ours", Server, Device, parity, Reason::ParitySent)
        },
        row(
            "of a session that is not there",
            Server,
            Wan(1),
            |side| from_far(side, |header| header.session += 1 << 8, b"hello"),
            Reason::UnknownSession,
        ),
        row(
            "of a path that has not joined",
            Server,
            Wan(1),
            |side| from_far(side, |header| header.path = 3, b"hello"),
            Reason::UnknownPath,
        ),
        row(
            "of an epoch without keys",
            Server,
            Wan(1),
            |side| from_far(side, |header| header.flags = flag::EPOCH, b"hello"),
            Reason::UnknownEpoch,
        ),
        row(
            "with a byte more than was sealed",
            Server,
            Wan(1),
            |side| {
                let mut frame = data(side);
                let last = frame.len() - 1;
                frame[last] ^= 1;
                frame
            },
            Reason::BadCheck,
        ),
        Row {
            given: |end| end.maps().set_lease(u64::MAX).expect("a write"),
            ..row("a packet that is ahead of its turn", Server, Wan(1), ahead, Reason::Ahead)
        },
        Row {
            given: |end| run_first(end, data(Server)),
            ..row("a packet that was here", Server, Wan(1), data, Reason::Replayed)
        },
        Row {
            given: |end| {
                let text = inner_of(&packet_from(Gateway));
                run_first(end, from_far(Server, |header| header.sequence = 50_000, &text));
            },
            ..row("a packet of long ago", Server, Wan(1), data, Reason::ReplayTooOld)
        },
        Row {
            given: |end| {
                let text = inner_of(&packet_from(Gateway));
                run_first(end, from_far(Server, |header| header.flags = flag::DUPLICATE, &text));
            },
            ..row("a copy of what came by another path", Server, Wan(1), copy, Reason::Duplicate)
        },
        row(
            "from an address that is not the client's",
            Server,
            Wan(1),
            |side| {
                let spoofed = host_udp(PORT).with(|p| p.source = REMOTE.into());
                from_far(side, |_| {}, &inner_of(&spoofed))
            },
            Reason::InnerSource,
        ),
        row(
            "with no packet inside",
            Server,
            Wan(1),
            |side| from_far(side, |_| {}, b"no packet"),
            Reason::InnerMalformed,
        ),
        Row {
            given: |end| end.change_session(|session| session.flags = 0),
            ..row(
                "when there is no session",
                Gateway,
                Lan,
                |_| host_udp(PORT).bytes(),
                Reason::NoSession,
            )
        },
        row(
            "larger than any path takes",
            Gateway,
            Lan,
            |_| host_udp(PORT).with(|p| p.payload = vec![0; 1_400]).bytes(),
            Reason::BondTooBig,
        ),
        Row {
            given: |end| {
                for id in [1, 2] {
                    end.set_path(id, &BondPath { flags: 0, ..path(Gateway, id, false) });
                }
            },
            ..row(
                "when no path is there",
                Gateway,
                Lan,
                |_| host_udp(PORT).bytes(),
                Reason::NoBondPath,
            )
        },
        row("a tick for no path", Gateway, Device, |side| tick_for(side, 9), Reason::TickIgnored),
        Row {
            given: |end| {
                end.plane.set_ticks(LOOPBACK).expect("a device");
                end.change_state(1, |state| state.probe_due = 0);
            },
            ..row("when a probe is late", Gateway, Lan, |_| host_udp(PORT).bytes(), Reason::Ticked)
        },
        Row {
            given: |end| {
                end.plane.set_ticks(LOOPBACK).expect("a device");
                let rule = ClassRule { class: class::DUPLICATE, ..ClassRule::ALL };
                end.maps().set_classes(&[rule]).expect("a write");
                end.maps().set_bond(&Bond { rules: 1, ..bond(Gateway) }).expect("a write");
            },
            ..row(
                "of a class that is sent twice",
                Gateway,
                Lan,
                |_| host_udp(PORT).bytes(),
                Reason::Copied,
            )
        },
    ]
}

/// Given by rate: `bond_order.rs` has a test for it.
const WITHOUT_ROW: Reason = Reason::MessageLimited;

/// The reasons that have a row here, or a test of their own.
pub(crate) fn covered() -> Vec<Reason> {
    rows().iter().map(|row| row.reason).chain([WITHOUT_ROW]).collect()
}

/// The quickest test that walks through the programs of the bond.
#[test]
fn one_packet_comes_to_each_end_of_a_bond() {
    in_the_world("one_packet_comes_to_each_end_of_a_bond", |lan| {
        let mut ends = [Side::Gateway, Side::Server].map(|side| End::new(lan, side));
        for row in rows() {
            let [gateway, server] = &mut ends;
            let end = if row.side == Side::Gateway { gateway } else { server };
            end.reset(SUITE, false);
            (row.given)(end);
            let frame = (row.frame)(row.side);
            let (came, counted) = end.counted(row.door, &frame);
            assert_eq!(counted.reason, row.reason, "{}", row.name);
            let verdict = match row.reason.verdict() {
                Verdict::Forward => XDP_REDIRECT,
                Verdict::Kernel => XDP_PASS,
                Verdict::Drop => XDP_DROP,
            };
            assert_eq!(came.verdict, verdict, "{}", row.name);
            if verdict == XDP_PASS {
                assert_eq!(came.packet, frame, "{}", row.name);
            }
        }
    });
}
