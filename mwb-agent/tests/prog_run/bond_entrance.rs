//! What goes into the bond and what does not: what is the kernel's, what has no session or
//! path, and what of a SYN is changed on the way in.

use mwb_common::integrity::Suite;
use mwb_common::maps::bond_choice;
use mwb_common::reason::Reason;

use crate::bond_packet::{inner_of, opened};
use crate::bond_sealing::{through_device, towards};
use crate::bond_world::{Door, End, MTU, Side};
use crate::gateway::{XDP_DROP, XDP_PASS};
use crate::network::in_the_world;
use crate::packet::{SYN, Transport};
use crate::world::{
    BYPASSED, GATEWAY, HOST, HOST6, PORT, REMOTE, REMOTE6, SERVICE, WAN1, host_tcp, host_udp, v6,
};

#[test]
fn a_syn_says_no_more_than_fits_into_the_bond() {
    in_the_world("a_syn_says_no_more_than_fits_into_the_bond", |lan| {
        let mut end = End::new(lan, Side::Gateway);
        let mss = |value: u16| {
            let [high, low] = value.to_be_bytes();
            vec![1, 2, 4, high, low, 1, 1, 1]
        };
        for is_v6 in [false, true] {
            let most = MTU as u16 - if is_v6 { 60 } else { 40 };
            for (said, expected) in [(1_460, most), (most, most), (500, 500)] {
                end.reset(Suite::SipHash, false);
                let syn = host_tcp(PORT).with(|p| {
                    p.tcp_options = mss(said);
                    p.payload.clear();
                });
                let syn = if is_v6 { v6(&syn) } else { syn };
                let sent = end.run(Door::Lan, &syn.bytes());
                let out = syn.with(|p| {
                    p.tcp_options = mss(expected);
                    p.ttl -= 1;
                });
                let (_, text) = opened(Side::Gateway, Suite::SipHash, &sent.packet, false);
                assert_eq!(text, inner_of(&out), "{said}");
            }
        }
        let plain = host_tcp(PORT).with(|p| {
            p.tcp_options = mss(1_460);
            p.transport = Transport::Tcp { source: PORT, destination: SERVICE, flags: 0x10 };
        });
        let sent = end.run(Door::Device, &through_device(&plain).bytes());
        let (_, text) = opened(Side::Gateway, Suite::SipHash, &sent.packet, false);
        assert_eq!(text, inner_of(&plain));
        assert_eq!(SYN, 2);
    });
}

#[test]
fn what_is_the_kernel_s_goes_to_the_kernel() {
    in_the_world("what_is_the_kernel_s_goes_to_the_kernel", |lan| {
        let mut end = End::new(lan, Side::Gateway);
        let to = |address: std::net::IpAddr| host_udp(PORT).with(|p| p.destination = address);
        let long = |length| host_udp(PORT).with(|p| p.payload = vec![0; length]);
        let fits = MTU as usize - 28;
        for (packet, reason) in [
            (to(GATEWAY.into()), Reason::Local),
            (to(WAN1.into()), Reason::Local),
            (to(BYPASSED.into()), Reason::Bypass),
            (to("224.0.0.251".parse().expect("an address")), Reason::Multicast),
            (v6(&host_udp(PORT)).with(|p| p.destination = HOST6.into()), Reason::Local),
            (host_udp(PORT).with(|p| p.ttl = 1), Reason::TtlExpired),
            (v6(&host_udp(PORT)).with(|p| p.ttl = 1), Reason::TtlExpired),
            (host_udp(PORT).with(|p| p.tags = vec![(0x8100, 5)]), Reason::Tagged),
            (host_udp(PORT).with(|p| p.to = [2, 9, 9, 9, 9, 9]), Reason::OtherHost),
            (long(fits + 1), Reason::BondTooBig),
        ] {
            let bytes = packet.bytes();
            let (came, row) = end.counted(Door::Lan, &bytes);
            assert_eq!((came.verdict, row.reason), (XDP_PASS, reason), "{packet:?}");
            assert_eq!(came.packet, bytes);
        }
        assert_eq!(end.reason(Door::Lan, &long(fits).bytes()), Reason::Bonded);
        // Behind the device is nobody: what is not for the bond has been on its way to it.
        for (packet, reason) in [
            (long(fits + 1), Reason::BondTooBig),
            (to("224.0.0.251".parse().expect("an address")), Reason::Multicast),
            (
                v6(&host_udp(PORT))
                    .with(|p| p.destination = "ff02::2".parse().expect("an address")),
                Reason::Multicast,
            ),
            (
                v6(&host_udp(PORT))
                    .with(|p| p.destination = "fe80::2".parse().expect("an address")),
                Reason::Multicast,
            ),
        ] {
            let (came, row) = end.counted(Door::Device, &through_device(&packet).bytes());
            assert_eq!((came.verdict, row.reason), (XDP_DROP, reason), "{packet:?}");
        }
    });
}

#[test]
fn without_a_session_or_a_path_nothing_leaves() {
    in_the_world("without_a_session_or_a_path_nothing_leaves", |lan| {
        let mut end = End::new(lan, Side::Gateway);
        let frame = host_udp(PORT).bytes();
        end.change_session(|session| session.flags = 0);
        assert_eq!(end.reason(Door::Lan, &frame), Reason::NoSession);
        end.reset(Suite::SipHash, false);
        for id in [1, 2] {
            let path = mwb_common::maps::BondPath {
                flags: 0,
                ..crate::bond_world::path(Side::Gateway, id, false)
            };
            end.set_path(id, &path);
        }
        for choice in [bond_choice::BUCKET, bond_choice::COUNTER, bond_choice::ARRIVAL] {
            end.change_session(|session| session.choice = choice);
            assert_eq!(end.reason(Door::Lan, &frame), Reason::NoBondPath);
        }
        // A server has one session for each client, and none for others.
        let mut server = End::new(lan, Side::Server);
        let to = |address: std::net::IpAddr| {
            through_device(&towards(Side::Server, address.is_ipv6(), 5))
                .with(|p| p.destination = address)
                .bytes()
        };
        for (address, reason) in [
            (HOST.into(), Reason::Bonded),
            (HOST6.into(), Reason::Bonded),
            ("192.0.2.77".parse().expect("an address"), Reason::NoSession),
            (REMOTE.into(), Reason::NoSession),
            (REMOTE6.into(), Reason::NoSession),
        ] {
            assert_eq!(server.reason(Door::Device, &to(address)), reason, "{address}");
        }
    });
}
