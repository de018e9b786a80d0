//! Packets that nobody thought of: random ones to the bond's port never come out of it,
//! and whatever goes into it comes out at the other end as it was. The same every time.

use std::collections::BTreeMap;

use mwb_common::integrity::Suite;
use mwb_common::reason::Reason;

use crate::bond_packet::outside;
use crate::bond_world::{
    DP_MAC, Door, End, GATEWAY_PORT, MWB0_MAC, ROUTER_MAC, SERVER_PORT, SUITES, Side, UPLINK_MAC,
    address,
};
use crate::gateway::{XDP_DROP, XDP_PASS, XDP_REDIRECT};
use crate::moved::difference;
use crate::network::in_the_world;
use crate::packet::Transport;
use crate::random::Random;
use crate::world::{PORT, host_udp, v6};

/// Packets of each kind.
const PACKETS: usize = 6_000;

fn bytes(random: &mut Random, length: usize) -> Vec<u8> {
    (0..length).map(|_| random.byte()).collect()
}

/// Random bytes, or such with a header that is more or less one.
fn payload(random: &mut Random, side: Side) -> Vec<u8> {
    let length = random.below(200);
    let mut bytes = bytes(random, length);
    let mut put = |at: usize, value: &[u8], chance: usize, random: &mut Random| {
        if bytes.len() >= at + value.len() && random.below(100) < chance {
            bytes[at..at + value.len()].copy_from_slice(value);
        }
    };
    let kind = 0x10 | random.below(8) as u8;
    put(0, &[kind], 90, random);
    let flags = random.below(32) as u8;
    put(1, &[flags], 90, random);
    let path = 1 + random.below(2) as u8;
    put(2, &[path], 90, random);
    let inner = [0, 4, 6][random.below(3)];
    put(3, &[inner], 90, random);
    put(4, &side.session().to_be_bytes(), 90, random);
    put(18, &[0, 0], 90, random);
    bytes
}

#[test]
fn random_bytes_to_the_bond_s_port_never_come_out() {
    in_the_world("random_bytes_to_the_bond_s_port_never_come_out", |lan| {
        for side in [Side::Gateway, Side::Server] {
            let mut end = End::new(lan, side);
            let mut random = Random::new(0x6d77_6207);
            for suite in [Suite::ChaCha20Poly1305, Suite::SipHash] {
                for is_v6 in [false, true] {
                    end.reset(suite, is_v6);
                    end.change_session(|session| session.opens = 3);
                    let before = end.counters();
                    let (here, there) = (address(side, 1, is_v6), address(side.other(), 1, is_v6));
                    let ports = match side {
                        Side::Gateway => (SERVER_PORT, GATEWAY_PORT),
                        Side::Server => (GATEWAY_PORT, SERVER_PORT),
                    };
                    let macs = match side {
                        Side::Gateway => [crate::world::WAN1_MAC, crate::world::ISP1_MAC],
                        Side::Server => [UPLINK_MAC, ROUTER_MAC],
                    };
                    for number in 0..PACKETS {
                        let payload = payload(&mut random, side);
                        let mut frame = outside(macs, (there, ports.0), (here, ports.1), &payload);
                        // Now and then what is in front of it is spoilt as well.
                        if random.below(4) == 0 {
                            let at = 12 + random.below(frame.len() - 12);
                            frame[at] ^= 1 << random.below(8);
                        }
                        let came = end.run(Door::Wan(1), &frame);
                        let what = format!("{side:?} {suite:?} {is_v6} {number}: {frame:02x?}");
                        assert!(matches!(came.verdict, XDP_DROP | XDP_PASS), "{what}");
                        if came.verdict == XDP_PASS {
                            let unmarked = came.packet.len() - frame.len();
                            assert_eq!(came.packet[unmarked..], frame, "{what}");
                        }
                    }
                    assert_eq!(end.state(1).received + end.state(2).received, 0);
                    let mut ends: BTreeMap<Reason, u64> = BTreeMap::new();
                    for row in difference(&before, end.counters()) {
                        *ends.entry(row.reason).or_default() += row.packets;
                    }
                    // All that a packet can fail by, it has failed by.
                    for reason in [
                        Reason::BondMessage,
                        Reason::BondMalformed,
                        Reason::UnknownSession,
                        Reason::UnknownPath,
                        Reason::BadCheck,
                    ] {
                        assert!(ends.contains_key(&reason), "{reason:?} in {ends:?}");
                    }
                }
            }
        }
    });
}

#[test]
fn whatever_goes_into_the_bond_comes_out_at_the_other_end_as_it_was() {
    let name = "whatever_goes_into_the_bond_comes_out_at_the_other_end_as_it_was";
    in_the_world(name, |lan| {
        let mut gateway = End::new(lan, Side::Gateway);
        let mut server = End::new(lan, Side::Server);
        let mut random = Random::new(0x6d77_6208);
        for suite in SUITES {
            for is_v6 in [false, true] {
                gateway.reset(suite, is_v6);
                server.reset(suite, is_v6);
                for number in 0..PACKETS / 3 {
                    let length = random.below(1_300);
                    let protocol = random.below(256) as u8;
                    let bytes = bytes(&mut random, length);
                    let packet = host_udp(PORT).with(|p| {
                        p.transport = Transport::Raw { protocol, bytes };
                        p.payload.clear();
                        p.ttl = random.below(256) as u8;
                        p.options = vec![1; 4 * random.below(4)];
                        if random.below(3) == 0 {
                            p.fragment = (random.below(8_192) as u16, random.below(2) == 0);
                        }
                        p.padding = random.below(8);
                        (p.to, p.from) = (DP_MAC, MWB0_MAC);
                    });
                    let mut packet = packet;
                    if random.below(2) == 0 {
                        packet = v6(&packet);
                        // An extension header that contradicts itself is no packet.
                        if matches!(protocol, 0 | 43 | 44 | 60) {
                            continue;
                        }
                    }
                    let tcp = protocol == 6;
                    let sent = gateway.run(Door::Device, &packet.bytes());
                    let what = format!("{suite:?} {is_v6} {number}: {packet:?}");
                    assert_eq!(sent.verdict, XDP_REDIRECT, "{what}");
                    let mut frame = sent.packet;
                    frame[..6].copy_from_slice(&UPLINK_MAC);
                    frame[6..12].copy_from_slice(&ROUTER_MAC);
                    let came = server.run(Door::Wan(1), &frame);
                    assert_eq!(came.verdict, XDP_REDIRECT, "{what}");
                    let out =
                        packet.with(|p| (p.to, p.from, p.padding) = (MWB0_MAC, DP_MAC, 0)).bytes();
                    // What says that it is a SYN may have its segment size bounded.
                    if !tcp {
                        assert_eq!(came.packet, out, "{what}");
                    }
                }
                assert!(server.state(1).received > PACKETS as u64 / 4);
                assert_eq!(server.state(1).received, gateway.state(1).sent);
            }
        }
    });
}
