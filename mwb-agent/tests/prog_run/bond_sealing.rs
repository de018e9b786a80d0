//! Into the bond and out of it, to the byte: each family inside and outside, each suite,
//! both directions; and that nothing else comes out.

use std::collections::BTreeSet;

use mwb_common::integrity::Suite;
use mwb_common::integrity::seal::{Key, Sender};
use mwb_common::maps::{FlowKey6, bucket};
use mwb_common::reason::Reason;
use mwb_common::wire::{Header, Kind, flag, inner};

use crate::bond_packet::{Sealed, inner_of, outside};
use crate::bond_world::{DP_MAC, Door, End, MWB0_MAC, SUITES, Side, bond, key};
use crate::gateway::{XDP_DROP, XDP_PASS, XDP_REDIRECT};
use crate::network::in_the_world;
use crate::packet::{Packet, TCP, Transport, UDP};
use crate::world::{HOST_MAC, LAN_MAC, PORT, host_udp, v6};

/// Lengths around every border of words, blocks and turns.
const LENGTHS: [usize; 16] = [0, 1, 7, 8, 9, 15, 16, 17, 31, 47, 63, 64, 65, 128, 777, 1_340];

/// From HOST to REMOTE, or the answer of REMOTE to HOST.
pub(crate) fn towards(side: Side, is_v6: bool, length: usize) -> Packet {
    let udp = host_udp(PORT).with(|p| p.payload = (0..length).map(|i| (i * 7) as u8).collect());
    let packet = if is_v6 { v6(&udp) } else { udp };
    if side == Side::Gateway {
        return packet;
    }
    packet.with(|p| (p.source, p.destination) = (packet.destination, packet.source))
}

/// As the kernel routes it into the bond's device.
pub(crate) fn through_device(packet: &Packet) -> Packet {
    packet.with(|p| (p.to, p.from) = (DP_MAC, MWB0_MAC))
}

fn bucket_of(packet: &Packet) -> u16 {
    let address = |address| crate::bond_world::remote(address).0;
    let (protocol, [source_port, destination_port]) = match packet.transport {
        Transport::Udp { source, destination, .. } => (UDP, [source, destination]),
        Transport::Tcp { source, destination, .. } => (TCP, [source, destination]),
        _ => panic!("only with ports"),
    };
    let key = FlowKey6 {
        source: address(packet.source),
        destination: address(packet.destination),
        source_port: source_port.to_be_bytes(),
        destination_port: destination_port.to_be_bytes(),
        protocol,
        scope: if packet.source.is_ipv4() { 4 } else { 6 },
        reserved: [0; 2],
    };
    bucket(&key, bond(Side::Gateway).seed)
}

fn family(packet: &Packet) -> u8 {
    if packet.source.is_ipv4() { inner::IPV4 } else { inner::IPV6 }
}

/// The header that a data packet of `end` has by path 1.
fn data(end: &End, packet: &Packet, sequence: u64, flow_sequence: u32) -> Header {
    Header {
        inner: family(packet),
        bucket: bucket_of(packet),
        taken: 0,
        flow_sequence,
        ..end.header(Kind::Data, 1, sequence)
    }
}

/// Runs a test at both ends with each suite, and each family inside and outside.
fn in_all_ways(name: &str, test: impl Fn(&mut End, Suite, [bool; 2]) + Sync) {
    in_the_world(name, |lan| {
        for side in [Side::Gateway, Side::Server] {
            let mut end = End::new(lan, side);
            for suite in SUITES {
                for families in [[false, false], [false, true], [true, false], [true, true]] {
                    end.reset(suite, families[1]);
                    test(&mut end, suite, families);
                }
            }
        }
    });
}

#[test]
fn what_goes_into_the_bond_leaves_sealed_to_the_byte() {
    let name = "what_goes_into_the_bond_leaves_sealed_to_the_byte";
    in_all_ways(name, |end, suite, [inside6, outside6]| {
        let side = end.side;
        for (number, length) in (1..).zip(LENGTHS) {
            let packet = through_device(&towards(side, inside6, length));
            let sent = end.run(Door::Device, &packet.bytes());
            let sequence = u64::from(number);
            let expected = Sealed {
                side,
                suite,
                header: data(end, &packet, sequence, number),
                text: &inner_of(&packet),
                is_v6: outside6,
            };
            let what = format!("{side:?} {suite:?} {inside6} in {outside6}, {length}");
            assert_eq!(sent.verdict, XDP_REDIRECT, "{what}");
            assert_eq!(sent.packet, expected.frame(), "{what}");
            assert_eq!(end.state(1).sent, sequence, "{what}");
        }
        let sent: usize = LENGTHS
            .iter()
            .map(|length| towards(side, inside6, *length))
            .map(|packet| {
                let head = if suite == Suite::ChaCha20Poly1305 { 40 } else { 32 };
                inner_of(&packet).len() + head + if outside6 { 48 } else { 28 }
            })
            .sum();
        assert_eq!(end.state(1).sent_bytes, sent as u64);
    });
}

#[test]
fn a_packet_of_the_lan_goes_into_the_bond_with_a_hop_less_and_without_padding() {
    let name = "a_packet_of_the_lan_goes_into_the_bond_with_a_hop_less_and_without_padding";
    in_the_world(name, |lan| {
        let mut end = End::new(lan, Side::Gateway);
        for is_v6 in [false, true] {
            let packet = towards(Side::Gateway, is_v6, 3).with(|p| p.padding = 14);
            end.reset(Suite::SipHash, false);
            let (sent, row) = end.counted(Door::Lan, &packet.bytes());
            let out = packet.with(|p| p.ttl -= 1);
            let expected = Sealed {
                side: Side::Gateway,
                suite: Suite::SipHash,
                header: data(&end, &packet, 1, 1),
                text: &inner_of(&out),
                is_v6: false,
            };
            assert_eq!(sent.packet, expected.frame());
            assert_eq!((row.reason, row.path), (Reason::Bonded, 1));
            assert_eq!(row.protocol, if is_v6 { "udp6" } else { "udp4" });
            assert_eq!(row.bytes, inner_of(&packet).len() as u64);
        }
    });
}

#[test]
fn what_comes_out_of_the_bond_is_what_went_in() {
    let name = "what_comes_out_of_the_bond_is_what_went_in";
    in_all_ways(name, |end, suite, [inside6, outside6]| {
        let side = end.side;
        let mut bytes = 0;
        for (number, length) in (1..).zip(LENGTHS) {
            let packet = towards(side.other(), inside6, length);
            let header = far(side).header_to(&packet, 1, number);
            let frame = arriving(side, suite, outside6, &packet, header);
            bytes += frame.len() as u64 - 14;
            let came = end.run(Door::Wan(1), &frame);
            let what = format!("{side:?} {suite:?} {inside6} in {outside6}, {length}");
            assert_eq!(came.verdict, XDP_REDIRECT, "{what}");
            let out = packet.with(|p| (p.to, p.from) = (MWB0_MAC, DP_MAC));
            assert_eq!(came.packet, out.bytes(), "{what}");
        }
        let state = end.state(1);
        assert_eq!((state.received, state.received_bytes), (LENGTHS.len() as u64, bytes));
        assert!(state.heard > 0);
    });
}

/// What the far end of a session would say.
struct Far(Side);

fn far(side: Side) -> Far {
    Far(side)
}

impl Far {
    fn header_to(&self, packet: &Packet, path: u8, sequence: u64) -> Header {
        Header {
            kind: Kind::Data,
            flags: 0,
            path,
            inner: family(packet),
            session: self.0.session(),
            sequence,
            bucket: bucket_of(packet),
            taken: 0,
            flow_sequence: sequence as u32,
        }
    }
}

/// A data packet to `side`, sealed.
fn arriving(side: Side, suite: Suite, is_v6: bool, packet: &Packet, header: Header) -> Vec<u8> {
    Sealed { side: side.other(), suite, header, text: &inner_of(packet), is_v6 }.arriving()
}

#[test]
fn a_lan_host_whose_port_takes_frames_gets_its_packet_with_a_hop_less() {
    let name = "a_lan_host_whose_port_takes_frames_gets_its_packet_with_a_hop_less";
    in_the_world(name, |lan| {
        let mut end = End::new(lan, Side::Gateway);
        for is_v6 in [false, true] {
            let packet = towards(Side::Server, is_v6, 100);
            let next = |number| far(Side::Gateway).header_to(&packet, 1, number);
            end.reset(Suite::Crc32, false);
            end.lan_takes_xdp();
            // What was kept of an earlier look is not older than a second.
            std::thread::sleep(std::time::Duration::from_millis(1_100));
            for number in [1, 2] {
                let frame = arriving(Side::Gateway, Suite::Crc32, false, &packet, next(number));
                let (came, row) = end.counted(Door::Wan(1), &frame);
                let out = packet.with(|p| {
                    (p.to, p.from) = (HOST_MAC, LAN_MAC);
                    p.ttl -= 1;
                });
                assert_eq!((came.verdict, row.reason), (XDP_REDIRECT, Reason::Unbonded));
                assert_eq!(came.packet, out.bytes());
                assert_eq!((row.path, row.bytes), (1, frame.len() as u64 - 14));
            }
            // The end of its hops is the kernel's to answer.
            let last = packet.with(|p| p.ttl = 1);
            let frame = arriving(Side::Gateway, Suite::Crc32, false, &last, next(3));
            let (came, row) = end.counted(Door::Wan(1), &frame);
            assert_eq!(row.reason, Reason::ToDevice);
            assert_eq!(came.packet, last.with(|p| (p.to, p.from) = (MWB0_MAC, DP_MAC)).bytes());
        }
    });
}

#[test]
fn whatever_bit_is_flipped_nothing_comes_out_and_nothing_is_taken_for_seen() {
    let name = "whatever_bit_is_flipped_nothing_comes_out_and_nothing_is_taken_for_seen";
    in_the_world(name, |lan| {
        let mut end = End::new(lan, Side::Server);
        let packet = towards(Side::Gateway, false, 33);
        for suite in SUITES {
            for is_v6 in [false, true] {
                end.reset(suite, is_v6);
                let header = far(Side::Server).header_to(&packet, 1, 70);
                let good = arriving(Side::Server, suite, is_v6, &packet, header);
                let at = if is_v6 { 62 } else { 42 };
                let before = end.counters();
                for bit in 8 * at..8 * good.len() {
                    let mut bad = good.clone();
                    bad[bit / 8] ^= 1 << (bit % 8);
                    let came = end.run(Door::Wan(1), &bad);
                    // A bit of the type makes it a message, which the agent checks.
                    let message = came.verdict == XDP_PASS && matches!(bit - 8 * at, 0..=3);
                    assert!(came.verdict == XDP_DROP || message, "{suite:?} {is_v6} {bit}");
                    if message {
                        assert_eq!(came.packet, bad);
                    }
                }
                let moved = crate::moved::difference(&before, end.counters());
                let reasons: BTreeSet<Reason> = moved.iter().map(|row| row.reason).collect();
                let expected = [
                    Reason::BondMessage,
                    Reason::BondMalformed,
                    Reason::UnknownSession,
                    Reason::UnknownPath,
                    Reason::UnknownEpoch,
                    Reason::BadCheck,
                ];
                assert_eq!(reasons, BTreeSet::from(expected));
                let bad_text: u64 = moved
                    .iter()
                    .filter(|row| row.reason == Reason::BadCheck)
                    .map(|row| row.packets)
                    .sum();
                assert!(bad_text >= 8 * (good.len() - at - 24) as u64);
                assert_eq!(end.state(1).received, 0);
                assert_eq!(end.run(Door::Wan(1), &good).verdict, XDP_REDIRECT);
            }
        }
    });
}

#[test]
fn a_packet_that_ends_too_soon_is_dropped_at_every_length() {
    in_the_world("a_packet_that_ends_too_soon_is_dropped_at_every_length", |lan| {
        let mut end = End::new(lan, Side::Server);
        let packet = towards(Side::Gateway, false, 20);
        for suite in SUITES {
            for is_v6 in [false, true] {
                end.reset(suite, is_v6);
                let sealed = Sealed {
                    side: Side::Gateway,
                    suite,
                    header: far(Side::Server).header_to(&packet, 1, 1),
                    text: &inner_of(&packet),
                    is_v6,
                };
                let (good, payload) = (sealed.arriving(), sealed.payload());
                let at = good.len() - payload.len();
                // Its headers say what there is.
                for length in 0..payload.len() {
                    let source = crate::bond_world::address(Side::Gateway, 1, is_v6);
                    let destination = crate::bond_world::address(Side::Server, 1, is_v6);
                    let macs =
                        [core::array::from_fn(|i| good[i]), core::array::from_fn(|i| good[6 + i])];
                    let ports = (7_001, 7_000);
                    let frame = outside(
                        macs,
                        (source, ports.0),
                        (destination, ports.1),
                        &payload[..length],
                    );
                    let came = end.run(Door::Wan(1), &frame);
                    assert_eq!(came.verdict, XDP_DROP, "{suite:?} {is_v6} {length}");
                }
                // They say more than there is.
                for length in at..good.len() {
                    let came = end.run(Door::Wan(1), &good[..length]);
                    assert_eq!(came.verdict, XDP_DROP, "{suite:?} {is_v6} {length}");
                }
                // Bytes behind a packet are none of it.
                let padded = [&good[..], &[0xee; 9]].concat();
                let came = end.run(Door::Wan(1), &padded);
                assert_eq!(came.verdict, XDP_REDIRECT);
                let out = packet.with(|p| (p.to, p.from) = (MWB0_MAC, DP_MAC));
                assert_eq!(came.packet, out.bytes());
            }
        }
    });
}

#[test]
fn only_the_far_end_s_key_of_the_direction_and_epoch_opens() {
    in_the_world("only_the_far_end_s_key_of_the_direction_and_epoch_opens", |lan| {
        for side in [Side::Gateway, Side::Server] {
            let mut end = End::new(lan, side);
            let packet = towards(side.other(), false, 20);
            for suite in [Suite::ChaCha20Poly1305, Suite::SipHash] {
                end.reset(suite, false);
                end.change_session(|session| session.opens = 3);
                let header = far(side).header_to(&packet, 1, 1);
                let sealed =
                    |header| Sealed { side: side.other(), suite, header, text: &[], is_v6: false };
                let odd = Header { flags: flag::EPOCH, ..header };
                for (header, key, sender) in [
                    (header, key(side, 0), side.other().sender()),
                    (header, key(side.other(), 1), side.other().sender()),
                    (odd, key(side.other(), 0), side.other().sender()),
                    (header, Key::new([0; 32]), side.other().sender()),
                ] {
                    let text = inner_of(&packet);
                    let sealed = Sealed { text: &text, ..sealed(header) };
                    let payload = sealed.sealed_with(&key, sender);
                    let mut frame = sealed.arriving();
                    let at = frame.len() - payload.len();
                    frame.splice(at.., payload);
                    assert_eq!(end.reason(Door::Wan(1), &frame), Reason::BadCheck);
                }
                // The nonce has the sender: our own packets are not the far end's.
                if suite == Suite::ChaCha20Poly1305 {
                    let text = inner_of(&packet);
                    let sealed = Sealed { text: &text, ..sealed(header) };
                    let wrong = match side.other().sender() {
                        Sender::Initiator => Sender::Responder,
                        Sender::Responder => Sender::Initiator,
                    };
                    let payload = sealed.sealed_with(&key(side.other(), 0), wrong);
                    let mut frame = sealed.arriving();
                    let at = frame.len() - payload.len();
                    frame.splice(at.., payload);
                    assert_eq!(end.reason(Door::Wan(1), &frame), Reason::BadCheck);
                }
            }
        }
    });
}
