//! What has been seen before, which keys are in force, and what is the agent's.

use std::net::IpAddr;

use mwb_common::integrity::Suite;
use mwb_common::reason::Reason;
use mwb_common::window::{FLOW_REACH, PATH_REACH};
use mwb_common::wire::{Header, Kind, flag, inner};

use crate::bond_packet::{Sealed, inner_of, opened, outside};
use crate::bond_world::{
    AT_SERVER, DP_MAC, Door, EPOCH, End, GATEWAY_PORT, MWB0_MAC, ROUTER_MAC, SERVER_PORT, Side,
    UPLINK_MAC, address,
};
use crate::gateway::{XDP_DROP, XDP_PASS, XDP_REDIRECT};
use crate::network::in_the_world;
use crate::packet::Packet;
use crate::world::{HOST, HOST6, PORT, REMOTE, host_udp, v6};

/// From the client's HOST, as it comes to the server.
fn data(sequence: u64, path: u8) -> Header {
    Header {
        kind: Kind::Data,
        flags: 0,
        path,
        inner: inner::IPV4,
        session: AT_SERVER,
        sequence,
        bucket: 9,
        taken: 0,
        flow_sequence: sequence as u32,
    }
}

fn frame(suite: Suite, header: Header, packet: &Packet) -> Vec<u8> {
    Sealed { side: Side::Gateway, suite, header, text: &inner_of(packet), is_v6: false }.arriving()
}

const SUITE: Suite = Suite::SipHash;

#[test]
fn a_sequence_is_taken_once_on_its_path() {
    in_the_world("a_sequence_is_taken_once_on_its_path", |lan| {
        let mut end = End::new(lan, Side::Server);
        end.reset(SUITE, false);
        let packet = host_udp(PORT);
        let mut come =
            |sequence, path| end.reason(Door::Wan(1), &frame(SUITE, data(sequence, path), &packet));
        for (sequence, path, reason) in [
            (10, 1, Reason::ToDevice),
            (10, 1, Reason::Replayed),
            (9, 1, Reason::ToDevice),
            (9, 1, Reason::Replayed),
            // Each path counts for itself.
            (10, 2, Reason::ToDevice),
            (10, 2, Reason::Replayed),
            (PATH_REACH + 20, 1, Reason::ToDevice),
            (20, 1, Reason::ReplayTooOld),
            (21, 1, Reason::ToDevice),
            (10, 1, Reason::ReplayTooOld),
            (u64::MAX, 1, Reason::ToDevice),
            (u64::MAX, 1, Reason::Replayed),
            (PATH_REACH + 21, 1, Reason::ReplayTooOld),
            (11, 2, Reason::ToDevice),
        ] {
            assert_eq!(come(sequence, path), reason, "{sequence} by {path}");
        }
    });
}

#[test]
fn a_packet_cannot_be_moved_to_another_path_session_or_epoch() {
    in_the_world("a_packet_cannot_be_moved_to_another_path_session_or_epoch", |lan| {
        let mut end = End::new(lan, Side::Server);
        let packet = host_udp(PORT);
        for suite in [Suite::ChaCha20Poly1305, Suite::SipHash] {
            end.reset(suite, false);
            end.change_session(|session| session.opens = 3);
            // Another client's session, in another slot.
            let other = mwb_common::maps::Session {
                ours: AT_SERVER + 1,
                seal: [mwb_common::integrity::seal::Key::new([1; 32]); 2],
                open: [mwb_common::integrity::seal::Key::new([2; 32]); 2],
                ..crate::bond_world::session(Side::Server, suite)
            };
            end.maps().set_session(3, &other).expect("a write");
            let path = crate::bond_world::path(Side::Server, 1, false);
            end.maps().set_path(3, 1, &path).expect("a write");
            let good = frame(suite, data(1, 1), &packet);
            let with = |at: usize, byte: u8| {
                let mut frame = good.clone();
                frame[42 + at] = byte;
                frame
            };
            for (bad, reason) in [
                (with(2, 2), Reason::BadCheck),
                (with(7, 3), Reason::BadCheck),
                (with(1, flag::EPOCH), Reason::BadCheck),
                (with(2, 3), Reason::UnknownPath),
                (with(2, 16), Reason::UnknownPath),
                (with(2, 255), Reason::UnknownPath),
                (with(4, 7), Reason::UnknownSession),
                (with(7, 1), Reason::UnknownSession),
                (good.clone(), Reason::ToDevice),
            ] {
                assert_eq!(end.reason(Door::Wan(1), &bad), reason);
            }
            end.change_session(|session| session.opens = 1);
            assert_eq!(end.reason(Door::Wan(1), &with(1, flag::EPOCH)), Reason::UnknownEpoch);
            end.change_session(|session| session.flags = 0);
            assert_eq!(end.reason(Door::Wan(1), &good), Reason::UnknownSession);
        }
    });
}

#[test]
fn a_copy_is_taken_once_by_whatever_path_it_comes() {
    in_the_world("a_copy_is_taken_once_by_whatever_path_it_comes", |lan| {
        let mut end = End::new(lan, Side::Server);
        let packet = host_udp(PORT);
        for repeats in [flag::DUPLICATE, flag::RETRANSMITTED, flag::FEC] {
            end.reset(SUITE, false);
            let copy = |sequence, path, flow_sequence, bucket| Header {
                flags: repeats,
                flow_sequence,
                bucket,
                ..data(sequence, path)
            };
            for (header, reason) in [
                (copy(1, 1, 500, 9), Reason::ToDevice),
                (copy(1, 2, 500, 9), Reason::Duplicate),
                (copy(2, 2, 501, 9), Reason::ToDevice),
                (copy(2, 1, 501, 9), Reason::Duplicate),
                (copy(3, 1, 500, 10), Reason::ToDevice),
                (copy(4, 1, 501 + FLOW_REACH, 9), Reason::ToDevice),
                (copy(5, 1, 499, 9), Reason::Duplicate),
                (copy(6, 1, 502, 9), Reason::ToDevice),
            ] {
                let came = end.reason(Door::Wan(1), &frame(SUITE, header, &packet));
                assert_eq!(came, reason, "{header:?}");
            }
            // What may come once only has no turn to take.
            for (sequence, flags) in [(7, 0), (8, flag::ORDERED)] {
                let plain = Header { flags, ..copy(sequence, 1, 500, 9) };
                let came = end.reason(Door::Wan(1), &frame(SUITE, plain, &packet));
                assert_eq!(came, Reason::ToDevice, "as late as it likes");
            }
        }
    });
}

#[test]
fn a_responder_seals_with_new_keys_when_it_has_opened_with_them() {
    in_the_world("a_responder_seals_with_new_keys_when_it_has_opened_with_them", |lan| {
        let mut end = End::new(lan, Side::Server);
        let packet = host_udp(PORT);
        let back = packet
            .with(|p| {
                (p.source, p.destination) = (packet.destination, packet.source);
                (p.to, p.from) = (DP_MAC, MWB0_MAC);
            })
            .bytes();
        for suite in [Suite::ChaCha20Poly1305, Suite::SipHash, Suite::Crc32] {
            end.reset(suite, false);
            let sealed_by = |end: &mut End| {
                let sent = end.run(Door::Device, &back);
                opened(Side::Server, suite, &sent.packet, false).0.flags & flag::EPOCH
            };
            assert_eq!(sealed_by(&mut end), 0);
            end.run(Door::Wan(1), &frame(suite, data(1, 1), &packet));
            let heard =
                |end: &End| end.maps().session_state(Side::Server.slot()).expect("one").heard;
            assert_eq!(heard(&end), EPOCH + 1);
            // First come the keys of the odd parity, then the epoch.
            end.change_session(|session| {
                session.epoch = EPOCH + 1;
                session.opens = 3;
            });
            assert_eq!(sealed_by(&mut end), 0);
            end.run(Door::Wan(1), &frame(suite, data(2, 1), &packet));
            assert_eq!((heard(&end), sealed_by(&mut end)), (EPOCH + 1, 0));
            let odd = Header { flags: flag::EPOCH, ..data(3, 1) };
            let bad = {
                let mut bad = frame(suite, odd, &packet);
                let last = bad.len() - 1;
                bad[last] ^= 1;
                bad
            };
            assert_eq!(end.reason(Door::Wan(1), &bad), Reason::BadCheck);
            assert_eq!((heard(&end), sealed_by(&mut end)), (EPOCH + 1, 0));
            assert_eq!(end.reason(Door::Wan(1), &frame(suite, odd, &packet)), Reason::ToDevice);
            assert_eq!((heard(&end), sealed_by(&mut end)), (EPOCH + 2, 1));
            // What was on its way with the old ones still opens.
            assert_eq!(
                end.reason(Door::Wan(1), &frame(suite, data(4, 1), &packet)),
                Reason::ToDevice
            );
            assert_eq!((heard(&end), sealed_by(&mut end)), (EPOCH + 2, 1));
            end.change_session(|session| session.opens = 2);
            let late = frame(suite, data(5, 1), &packet);
            assert_eq!(end.reason(Door::Wan(1), &late), Reason::UnknownEpoch);
        }
    });
}

#[test]
fn an_initiator_seals_with_new_keys_at_once() {
    in_the_world("an_initiator_seals_with_new_keys_at_once", |lan| {
        let mut end = End::new(lan, Side::Gateway);
        end.reset(SUITE, false);
        end.change_session(|session| {
            (session.epoch, session.opens, session.seals) = (EPOCH + 1, 3, 1);
        });
        let sent = end.run(Door::Lan, &host_udp(PORT).bytes());
        assert_eq!(opened(Side::Gateway, SUITE, &sent.packet, false).0.flags, flag::EPOCH);
    });
}

#[test]
fn a_client_sends_from_its_own_addresses_only() {
    in_the_world("a_client_sends_from_its_own_addresses_only", |lan| {
        let mut end = End::new(lan, Side::Server);
        end.reset(SUITE, false);
        let from = |address: IpAddr| {
            let packet = if address.is_ipv6() { v6(&host_udp(PORT)) } else { host_udp(PORT) };
            packet.with(|p| p.source = address)
        };
        for (sequence, (source, reason)) in (1..).zip([
            (HOST.into(), Reason::ToDevice),
            (HOST6.into(), Reason::ToDevice),
            // A longer prefix has it.
            (IpAddr::from([192, 0, 2, 77]), Reason::InnerSource),
            (REMOTE.into(), Reason::InnerSource),
            (IpAddr::from([127, 0, 0, 1]), Reason::InnerSource),
            ("2001:db8:bad::1".parse().expect("an address"), Reason::InnerSource),
            ("fe80::1".parse().expect("an address"), Reason::InnerSource),
        ]) {
            let packet = from(source);
            let inner = if source.is_ipv6() { inner::IPV6 } else { inner::IPV4 };
            let header = Header { inner, ..data(sequence, 1) };
            let (came, row) = end.counted(Door::Wan(1), &frame(SUITE, header, &packet));
            assert_eq!(row.reason, reason, "{source}");
            let verdict = if reason == Reason::ToDevice { XDP_REDIRECT } else { XDP_DROP };
            assert_eq!(came.verdict, verdict);
        }
    });
}

#[test]
fn what_is_inside_is_an_ip_packet_of_just_that_length() {
    in_the_world("what_is_inside_is_an_ip_packet_of_just_that_length", |lan| {
        for side in [Side::Gateway, Side::Server] {
            let mut end = End::new(lan, side);
            end.reset(SUITE, false);
            let mut sequence = 0;
            for packet in [host_udp(PORT), v6(&host_udp(PORT))] {
                let good = inner_of(&packet);
                let is_v6 = packet.source.is_ipv6();
                let mut come = |text: &[u8], inner: u8| {
                    sequence += 1;
                    let session = side.session();
                    let header = Header { inner, session, ..data(sequence, 1) };
                    let sealed =
                        Sealed { side: side.other(), suite: SUITE, header, text, is_v6: false };
                    end.reason(Door::Wan(1), &sealed.arriving())
                };
                let (ours, theirs) = if is_v6 { (6, 4) } else { (4, 6) };
                assert_eq!(come(&good, ours), Reason::ToDevice);
                assert_eq!(come(&good, theirs), Reason::InnerMalformed);
                assert_eq!(come(&good, 0), Reason::InnerMalformed);
                assert_eq!(come(&[&good[..], &[0]].concat(), ours), Reason::InnerMalformed);
                for length in 0..good.len() {
                    assert_eq!(come(&good[..length], ours), Reason::InnerMalformed);
                }
                if !is_v6 {
                    let with = |at: usize, byte: u8| {
                        let mut text = good.clone();
                        text[at] = byte;
                        text
                    };
                    for bad in [with(0, 0x44), with(0, 0x65), with(0, 0x4f)] {
                        assert_eq!(come(&bad, ours), Reason::InnerMalformed);
                    }
                }
            }
        }
    });
}

/// Where the header begins in a frame of IPv4.
const AT: usize = 14 + 20 + 8;

/// Many of one packet, all on one CPU, and within far less than a second: how many the agent
/// was given, and how many were over the rate.
fn flood(end: &mut End, frame: &[u8], times: u32) -> (u64, u64) {
    let before = end.counters();
    let program = end.enter(Door::Wan(1));
    end.plane.test_run(program, frame, None, times).expect("a run");
    let moved = crate::moved::difference(&before, end.counters());
    let count = |reason| {
        moved.iter().filter(|row| row.reason == reason).map(|row| row.packets).sum::<u64>()
    };
    let (passed, limited) = (count(Reason::BondMessage), count(Reason::MessageLimited));
    assert_eq!(passed + limited, u64::from(times), "{moved:?}");
    (passed, limited)
}

/// What stands for a handshake to the server before the agent looks at it.
fn handshake(from: IpAddr, number: u8, length: usize) -> Vec<u8> {
    let mut payload = vec![0; length];
    (payload[0], payload[2], payload[15]) = (0x16, 1, 1);
    if let Some(message) = payload.get_mut(24) {
        *message = number;
    }
    let to = (address(Side::Server, 1, from.is_ipv6()), SERVER_PORT);
    outside([UPLINK_MAC, ROUTER_MAC], (from, GATEWAY_PORT), to, &payload)
}

#[test]
fn one_who_floods_with_handshakes_keeps_others_not_out() {
    in_the_world("one_who_floods_with_handshakes_keeps_others_not_out", |lan| {
        let mut end = End::new(lan, Side::Server);
        end.reset(SUITE, false);
        for is_v6 in [false, true] {
            let from = address(Side::Gateway, 1, is_v6);
            // Each has the one length of its kind.
            for (number, length) in [(1, 188), (2, 124), (3, 88)] {
                let right = handshake(from, number, length);
                let (came, row) = end.counted(Door::Wan(1), &right);
                assert_eq!((came.verdict, row.reason), (XDP_PASS, Reason::BondMessage));
                assert_eq!(came.packet, right);
                for wrong in [24, length - 1, length + 1, 1_400] {
                    let frame = handshake(from, number, wrong);
                    assert_eq!(end.reason(Door::Wan(1), &frame), Reason::BondMalformed, "{wrong}");
                }
                let frame = handshake(from, number % 3 + 1, length);
                assert_eq!(end.reason(Door::Wan(1), &frame), Reason::BondMalformed);
            }
            let (passed, _) = flood(&mut end, &handshake(from, 1, 188), 5_000);
            assert!(passed <= 28, "{passed} of 5,000");
            let others = (1..=20u8).filter(|last| {
                let other = match from {
                    IpAddr::V4(_) => IpAddr::from([198, 51, 100, *last]),
                    IpAddr::V6(_) => {
                        IpAddr::from([0x2001, 0xdb8, 0x77, (*last).into(), 0, 0, 0, 1])
                    }
                };
                end.reason(Door::Wan(1), &handshake(other, 1, 188)) == Reason::BondMessage
            });
            // The share of the one who floods has a 64th of all others.
            let others = others.count();
            assert!(others >= 16, "{others} of 20 were heard");
        }
    });
}

#[test]
fn who_speaks_another_version_is_the_agent_s_to_name_now_and_then() {
    in_the_world("who_speaks_another_version_is_the_agent_s_to_name", |lan| {
        let mut end = End::new(lan, Side::Server);
        end.reset(SUITE, false);
        let [mut other, mut data] =
            [77, 188].map(|length| handshake(address(Side::Gateway, 1, false), 1, length));
        (other[AT], data[AT]) = (0x26, 0x20);
        let (came, row) = end.counted(Door::Wan(1), &other);
        assert_eq!((came.verdict, row.reason), (XDP_PASS, Reason::BondMessage));
        assert_eq!(came.packet, other);
        // What else it sends is nothing.
        assert_eq!(end.reason(Door::Wan(1), &data), Reason::BondMalformed);
        let (passed, _) = flood(&mut end, &other, 5_000);
        assert!(passed <= 20, "{passed} of 5,000");
    });
}

#[test]
fn messages_are_the_agent_s_up_to_a_rate() {
    in_the_world("messages_are_the_agent_s_up_to_a_rate", |lan| {
        let mut end = End::new(lan, Side::Server);
        end.reset(SUITE, false);
        let message = |kind, session| {
            let header = Header { kind, session, inner: inner::NONE, ..data(1, 1) };
            Sealed { side: Side::Gateway, suite: SUITE, header, text: b"hello", is_v6: false }
                .arriving()
        };
        // A second without any fills what a CPU has.
        std::thread::sleep(std::time::Duration::from_millis(1_100));
        for kind in [Kind::Control, Kind::Ack] {
            let bytes = message(kind, AT_SERVER);
            let (came, row) = end.counted(Door::Wan(1), &bytes);
            assert_eq!((came.verdict, row.reason), (XDP_PASS, Reason::BondMessage));
            assert_eq!(came.packet, bytes);
            assert_eq!(end.reason(Door::Wan(1), &message(kind, 0x77)), Reason::UnknownSession);
        }
        let (passed, limited) = flood(&mut end, &message(Kind::Control, AT_SERVER), 5_000);
        assert!((1..1_000).contains(&passed), "{passed} of 5,000, and {limited} limited");
    });
}
