//! What a WAN brings that is not for the bond.

use std::net::IpAddr;

use mwb_common::maps::bond_role;
use mwb_common::reason::Reason;

use crate::bond_packet::outside;
use crate::bond_world::{Door, End, Side, UPLINK_MAC, address, bond};
use crate::gateway::{XDP_DROP, XDP_PASS};
use crate::network::in_the_world;
use crate::packet::{Packet, Transport};
use crate::world::{BYPASSED, HOST, HOST6, PORT, REMOTE, STRANGER_MAC, WAN1, host_udp};

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
