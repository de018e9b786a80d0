//! Packets that are too big and may be divided: a test run really sends the
//! pieces, so they are caught at the other end of the LAN's device.

use std::io::{ErrorKind, Read as _};
use std::time::{Duration, Instant};

use mwb_agent::dataplane::Hook;
use mwb_common::maps::{Device, Path};
use mwb_common::reason::Reason;
use socket2::{Domain, Protocol, SockAddr, SockAddrStorage, Socket, Type};

use crate::gateway::From::{self, Lan, Wan};
use crate::gateway::{Gateway, TC_ACT_SHOT};
use crate::lasting::in_a_gateway;
use crate::packet::{Packet, fragments};
use crate::world::{PORT, answer, delivered, host_tcp, host_udp, out_by1, path1};

/// A socket that sees every frame of a device.
fn listener(device: &str) -> Socket {
    let all = u16::try_from(libc::ETH_P_ALL).expect("an EtherType").to_be();
    let socket = Socket::new(Domain::PACKET, Type::RAW, Some(Protocol::from(i32::from(all))))
        .expect("a packet socket");
    let index = nix::net::if_::if_nametoindex(device).expect("a device");
    let mut storage = SockAddrStorage::zeroed();
    // SAFETY: `sockaddr_ll` is one of the addresses that the storage is for.
    let address = unsafe { storage.view_as::<libc::sockaddr_ll>() };
    address.sll_family = libc::sa_family_t::try_from(libc::AF_PACKET).expect("a family");
    address.sll_protocol = all;
    address.sll_ifindex = i32::try_from(index).expect("an index");
    let length = libc::socklen_t::try_from(size_of::<libc::sockaddr_ll>()).expect("a length");
    // SAFETY: the storage holds an address of that length.
    socket.bind(&unsafe { SockAddr::new(storage, length) }).expect("bound");
    socket.set_read_timeout(Some(Duration::from_millis(20))).expect("an option");
    socket
}

/// Waits for these frames, in this order; what others send does not count.
fn await_frames(socket: &mut Socket, expected: &[Vec<u8>], about: &str) {
    let deadline = Instant::now() + Duration::from_secs(10);
    let mut seen: Vec<Vec<u8>> = Vec::new();
    let mut buffer = vec![0; 65_536];
    while seen.len() < expected.len() && Instant::now() < deadline {
        match socket.read(&mut buffer) {
            // Of the flow, or it would have other addresses.
            Ok(length) if buffer[..length].get(26..34) == expected[0].get(26..34) => {
                seen.push(buffer[..length].to_vec());
            }
            Ok(_) => {}
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {}
            Err(error) => panic!("{about}: {error}"),
        }
    }
    assert_eq!(seen, expected, "{about}");
}

fn large(packet: &Packet, length: usize) -> Packet {
    packet.with(|p| {
        p.payload = (0..length).map(|i| i.to_le_bytes()[0] ^ 0x3c).collect();
        p.divisible = true;
    })
}

fn check(gateway: &mut Gateway, socket: &mut Socket, from: From, frame: &[u8], out: &[Vec<u8>]) {
    let before = gateway.counters().expect("counters");
    let outcome = gateway.run(from, frame).expect("a test run");
    let about = format!("{} bytes from {from:?}", frame.len());
    assert_eq!(outcome.verdict, TC_ACT_SHOT, "the packet itself is no more: {about}");
    await_frames(socket, out, &about);
    let after = gateway.counters().expect("counters");
    let forwarded = |rows: &[mwb_agent::dataplane::CounterRow]| -> u64 {
        let of = rows.iter().filter(|row| row.reason == Reason::Forwarded);
        of.map(|row| row.packets).sum()
    };
    assert_eq!(forwarded(&after) - forwarded(&before), 1, "it counts once: {about}");
}

#[test]
fn what_is_too_big_and_may_be_divided_arrives_in_pieces() {
    in_a_gateway("what_is_too_big_and_may_be_divided_arrives_in_pieces", |gateway, form| {
        if form == Hook::Xdp {
            return;
        }
        let mut socket = listener("lan0p");
        let lan = nix::net::if_::if_nametoindex("lan0").expect("a device");
        // Out of the device whose other end we see, whatever the WAN.
        let narrow = |mtu| Path { ifindex: lan, mtu, ..path1() };
        let [udp, tcp] = [host_udp(PORT), host_tcp(PORT)];
        for (mtu, length) in [(1_500, 1_473), (1_500, 3_000), (577, 1_500), (1_280, 1_255)] {
            gateway.set_path(1, narrow(mtu));
            let room = (usize::try_from(mtu).expect("a small MTU") - 20) / 8 * 8;
            for sent in [&udp, &tcp] {
                let packet = large(sent, length);
                let pieces = fragments(&out_by1(&packet).bytes(), room);
                assert!(pieces.len() > 1, "it must not fit");
                check(gateway, &mut socket, Lan, &packet.bytes(), &pieces);
            }
        }
        for length in [1_473, 2_957, 3_000] {
            for sent in [&udp, &tcp] {
                let packet = large(&answer(&out_by1(sent)), length);
                let pieces = fragments(&delivered(&packet).bytes(), 1_480);
                check(gateway, &mut socket, Wan(1), &packet.bytes(), &pieces);
            }
        }
        gateway.set_device(lan, Device::default());
    });
}

#[test]
fn a_fragment_that_is_too_big_is_divided_where_it_stands() {
    in_a_gateway("a_fragment_that_is_too_big_is_divided_where_it_stands", |gateway, form| {
        if form == Hook::Xdp {
            return;
        }
        let mut socket = listener("lan0p");
        let lan = nix::net::if_::if_nametoindex("lan0").expect("a device");
        gateway.set_path(1, Path { ifindex: lan, mtu: 1_020, ..path1() });
        let whole = large(&host_udp(PORT), 3_000);
        let sent = fragments(&whole.bytes(), 2_000);
        // What each piece must be, whoever cut it: of the whole, at the same place.
        let leaving = fragments(&out_by1(&whole).bytes(), 1_000);
        check(gateway, &mut socket, Lan, &sent[0], &leaving[..2]);
        check(gateway, &mut socket, Lan, &sent[1], &leaving[2..]);
    });
}
