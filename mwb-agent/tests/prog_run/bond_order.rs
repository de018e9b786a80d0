//! What has been seen before, which keys are in force, what is the agent's, and what is
//! not for the bond.

use std::net::IpAddr;

use mwb_common::integrity::Suite;
use mwb_common::maps::bond_role;
use mwb_common::reason::Reason;
use mwb_common::window::{FLOW_REACH, PATH_REACH};
use mwb_common::wire::{Header, Kind, flag, inner};

use crate::bond_world::{
    AT_SERVER, DP_MAC, Door, EPOCH, End, MWB0_MAC, Sealed, Side, UPLINK_MAC, address, bond,
    inner_of, opened, outside,
};
use crate::gateway::{XDP_DROP, XDP_PASS, XDP_REDIRECT};
use crate::in_the_world;
use crate::packet::{Packet, Transport};
use crate::world::{BYPASSED, HOST, HOST6, PORT, REMOTE, STRANGER_MAC, WAN1, host_udp, v6};

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
        for repeats in [flag::DUPLICATE, flag::RETRANSMITTED, flag::FEC, flag::ORDERED] {
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
            let plain = Header { flags: 0, ..copy(7, 1, 500, 9) };
            assert_eq!(end.reason(Door::Wan(1), &frame(SUITE, plain, &packet)), Reason::ToDevice);
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
        let handshake = message(Kind::Handshake, 0);
        let (came, row) = end.counted(Door::Wan(1), &handshake);
        assert_eq!((came.verdict, row.reason), (XDP_PASS, Reason::BondMessage));
        // Who speaks another version is the agent's to name; what else it sends is nothing.
        let [mut other, mut data] = [handshake.clone(), handshake.clone()];
        (other[AT], data[AT]) = (0x26, 0x20);
        let (came, row) = end.counted(Door::Wan(1), &other);
        assert_eq!((came.verdict, row.reason), (XDP_PASS, Reason::BondMessage));
        assert_eq!(came.packet, other);
        assert_eq!(end.reason(Door::Wan(1), &data), Reason::BondMalformed);
        let before = end.counters();
        let program = end.enter(Door::Wan(1));
        // All on one CPU, and within far less than a second.
        end.plane.test_run(program, &handshake, None, 5_000).expect("a run");
        let moved = crate::moved::difference(&before, end.counters());
        let count = |reason| {
            moved.iter().filter(|row| row.reason == reason).map(|row| row.packets).sum::<u64>()
        };
        assert!(count(Reason::MessageLimited) > 4_000, "{moved:?}");
        assert_eq!(count(Reason::MessageLimited) + count(Reason::BondMessage), 5_000);
        assert_eq!(
            end.reason(Door::Wan(1), &message(Kind::Parity, AT_SERVER)),
            Reason::BondMalformed
        );
    });
}

/// A UDP packet to an end of the bond, from somewhere.
fn udp_to(to: (IpAddr, u16), mac: [u8; 6]) -> Vec<u8> {
    let source = if to.0.is_ipv6() { HOST6.into() } else { IpAddr::from(REMOTE) };
    outside([mac, STRANGER_MAC], (source, 5_000), to, b"hello")
}

#[test]
fn what_is_not_for_the_bond_goes_to_the_kernel_or_nowhere_on_a_gateway() {
    let name = "what_is_not_for_the_bond_goes_to_the_kernel_or_nowhere_on_a_gateway";
    in_the_world(name, |lan| {
        let side = Side::Gateway;
        let mut end = End::new(lan, side);
        let mac = crate::world::WAN1_MAC;
        let (four, six) = (address(side, 1, false), address(side, 1, true));
        let port = crate::bond_world::GATEWAY_PORT;
        let wan = |packet: Packet| packet.with(|p| (p.to, p.from) = (mac, STRANGER_MAC));
        let echo = wan(host_udp(PORT).with(|p| {
            (p.source, p.destination) = (REMOTE.into(), WAN1.into());
            p.transport = Transport::Echo { reply: true, id: 7 };
        }));
        let fragment = echo.with(|p| p.fragment = (0, true));
        let options = wan(host_udp(PORT).with(|p| {
            (p.source, p.destination) = (REMOTE.into(), WAN1.into());
            p.transport = Transport::Udp { source: 5, destination: port, checksum: true };
            p.options = vec![1, 1, 1, 0];
        }));
        for (bytes, reason) in [
            (udp_to((four, port), mac), Reason::BondMalformed),
            (udp_to((six, port), mac), Reason::BondMalformed),
            (udp_to((four, port + 1), mac), Reason::NoMapping),
            (udp_to((six, port + 1), mac), Reason::NoMapping),
            (echo.bytes(), Reason::NoMapping),
            (fragment.bytes(), Reason::OutsideFragment),
            (options.bytes(), Reason::NoMapping),
            (udp_to((HOST.into(), port), mac), Reason::Unsolicited),
            (udp_to((HOST6.into(), port), mac), Reason::Unsolicited),
            (udp_to((REMOTE.into(), port), mac), Reason::Unsolicited),
            (udp_to((BYPASSED.into(), port), mac), Reason::Bypass),
            (udp_to((four, port + 1), STRANGER_MAC), Reason::OtherHost),
            (udp_to((four, port), STRANGER_MAC), Reason::OtherHost),
            (echo.with(|p| p.tags = vec![(0x8100, 5)]).bytes(), Reason::Tagged),
            ([&mac[..], &STRANGER_MAC, &[0x08, 0x06], &[0; 46]].concat(), Reason::NotIp),
        ] {
            let (came, row) = end.counted(Door::Wan(1), &bytes);
            assert_eq!(row.reason, reason);
            let drop = matches!(reason, Reason::BondMalformed | Reason::Unsolicited);
            assert_eq!(came.verdict, if drop { XDP_DROP } else { XDP_PASS }, "{reason:?}");
            assert_eq!(came.packet, bytes);
        }
        // The other WAN's address is not this one's.
        let other = udp_to((address(side, 2, false), port), mac);
        assert_eq!(end.reason(Door::Wan(1), &other), Reason::NoMapping);
    });
}

#[test]
fn what_is_not_for_the_bond_is_the_steering_programme_s_on_a_server() {
    let name = "what_is_not_for_the_bond_is_the_steering_programme_s_on_a_server";
    in_the_world(name, |lan| {
        let mut end = End::new(lan, Side::Server);
        assert_eq!(bond(Side::Server).role, bond_role::SERVER);
        let mac = UPLINK_MAC;
        // A SYN to nobody's port, as a gateway without a bond has it; and a tag that says a
        // priority only, which XDP hands over.
        let stray = udp_to((REMOTE.into(), 9), mac);
        assert_eq!(end.reason(Door::Wan(1), &stray), Reason::Unsolicited);
        let server = address(Side::Server, 1, false);
        let four = |port| udp_to((server, port), mac);
        assert_eq!(
            end.reason(Door::Wan(1), &four(crate::bond_world::SERVER_PORT)),
            Reason::BondMalformed
        );
        let tagged = host_udp(PORT).with(|p| {
            (p.to, p.from, p.tags) = (mac, STRANGER_MAC, vec![(0x8100, 0)]);
        });
        let before = end.counters();
        let came = end.run(Door::Wan(1), &tagged.bytes());
        assert_eq!(came.verdict, XDP_PASS);
        let mark = mwb_common::maps::HANDOVER.to_ne_bytes();
        assert_eq!(came.packet[..4], mark);
        assert_eq!(before, end.counters());
    });
}

#[test]
fn a_device_that_is_not_ours_keeps_its_packets() {
    in_the_world("a_device_that_is_not_ours_keeps_its_packets", |lan| {
        use mwb_agent::dataplane::ProgramId;
        use mwb_common::maps::Device;
        let end = &mut End::new(lan, Side::Gateway);
        let bytes = host_udp(PORT).bytes();
        end.plane.set_device(crate::bond_world::LOOPBACK, Device::default()).expect("a write");
        for program in [ProgramId::BondInside, ProgramId::BondOutside] {
            let before = end.counters();
            let came = end.plane.test_run(program, &bytes, None, 1).expect("a run");
            assert_eq!((came.verdict, came.packet), (XDP_PASS, bytes.clone()));
            let moved = crate::moved::difference(&before, end.counters());
            let reasons: Vec<_> = moved.iter().map(|row| row.reason).collect();
            assert_eq!(reasons, [Reason::NotOurs]);
        }
    });
}
