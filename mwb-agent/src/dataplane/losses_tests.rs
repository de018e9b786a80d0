//! Frames that really get lost, on devices of a namespace.

use std::io::Write as _;
use std::time::{Duration, Instant};

use etherparse::PacketBuilder;
use mwb_common::maps::{
    Control, Family, Liveness, MAX_PATHS, PATH_SLOTS, Path, SLOTS, Selection, index, path_flag,
};
use socket2::{Domain, SockAddr, SockAddrStorage, Socket, Type};

use super::super::testing::{Instance, in_network, make_veth, run, wan};
use super::super::{DataPlane, DeviceSpec, HookChoice, Role};

const LAN_MAC: [u8; 6] = [2, 0, 0, 0, 1, 1];

/// A socket that puts frames onto a device.
fn sender(device: &str) -> Socket {
    // Of no protocol: it only sends.
    let socket = Socket::new(Domain::PACKET, Type::RAW, None).expect("a packet socket");
    let index = nix::net::if_::if_nametoindex(device).expect("a device");
    let mut storage = SockAddrStorage::zeroed();
    // SAFETY: `sockaddr_ll` is one of the addresses that the storage is for.
    let address = unsafe { storage.view_as::<libc::sockaddr_ll>() };
    address.sll_family = libc::sa_family_t::try_from(libc::AF_PACKET).expect("a family");
    address.sll_ifindex = i32::try_from(index).expect("an index");
    let length = libc::socklen_t::try_from(size_of::<libc::sockaddr_ll>()).expect("a length");
    // SAFETY: the storage holds an address of that length.
    let address = unsafe { SockAddr::new(storage, length) };
    socket.bind(&address).expect("bound");
    socket
}

fn frame() -> Vec<u8> {
    let builder = PacketBuilder::ethernet2([2, 0, 0, 0, 0, 9], LAN_MAC)
        .ipv4([192, 0, 2, 9], [203, 0, 113, 7], 64)
        .udp(40_000, 443);
    let mut frame = Vec::new();
    builder.write(&mut frame, b"sixteen bytes...").expect("room");
    frame
}

/// A gateway whose every flow goes out of `ifindex`.
fn steer(plane: &mut DataPlane, ifindex: u32) {
    let control = Control { port_min: 10_000, port_max: 65_535, seed: 1, ..Control::default() };
    plane.set_control(&control).expect("a write");
    let path = Path {
        ifindex,
        flags: path_flag::PRESENT | path_flag::HAS_V4 | path_flag::NEXT_HOP4,
        generation: 1,
        mtu: 1_500,
        address4: [198, 51, 100, 2],
        gateway4: [198, 51, 100, 1],
        ..Path::default()
    };
    plane.set_path(1, &path).expect("a write");
    plane.set_liveness(&Liveness { alive_until: [u64::MAX; PATH_SLOTS] }).expect("a write");
    let mut ranking = [0; MAX_PATHS];
    ranking[0] = 1;
    let selection = Selection {
        slots: [1; SLOTS],
        ranking,
        index: index::COUNTER,
        reserved: [0; 3],
        targets: 1,
    };
    plane.set_selection(Family::V4, &selection).expect("a write");
    plane.set_prefixes(&[], &[]).expect("a write");
}

/// Waits until this many frames are known to be lost on a device.
fn await_losses(plane: &DataPlane, ifindex: u32, frames: u64) {
    let deadline = Instant::now() + Duration::from_secs(10);
    let mut losses = 0;
    while Instant::now() < deadline {
        losses = plane.tables().losses(ifindex).expect("a read");
        if losses == frames {
            return;
        }
    }
    panic!("{losses} instead of {frames} on device {ifindex}");
}

fn lan(ifindex: u32) -> DeviceSpec {
    DeviceSpec {
        role: Role::Inside,
        path: 0,
        mac: LAN_MAC,
        ..wan("lan0", ifindex, HookChoice::Xdp)
    }
}

#[test]
fn frames_that_a_device_cannot_take_from_xdp_are_counted() {
    in_network("frames_that_a_device_cannot_take_from_xdp_are_counted", || {
        let instance = Instance::new("losses");
        let mut plane = instance.open();
        if let Some(why) = plane.unwatched() {
            println!(
                "skipped: frames_that_a_device_cannot_take_from_xdp_are_counted: \
                 this kernel does not let us watch: {why}"
            );
            return;
        }
        let inside = make_veth("lan0");
        run("ip link set lan0p up");
        plane.attach(&lan(inside)).expect("attached");
        // Its other end has neither XDP nor GRO: the kernel queues nothing for it.
        let outside = make_veth("wan0");
        plane.attach(&wan("wan0", outside, HookChoice::Xdp)).expect("attached");
        steer(&mut plane, outside);
        let mut socket = sender("lan0p");
        for _ in 0..3 {
            socket.write_all(&frame()).expect("sent");
        }
        await_losses(&plane, outside, 3);

        // With GRO it may be queued, but an end that is down takes nothing.
        run("ethtool -K wan0p gro on");
        run("ip link set wan0p down");
        run("ip link set wan0 up");
        socket.write_all(&frame()).expect("sent");
        await_losses(&plane, outside, 4);
    });
}

#[test]
fn losses_of_another_network_are_not_counted() {
    in_network("losses_of_another_network_are_not_counted", || {
        let (ours, theirs) = (Instance::new("loss-ours"), Instance::new("loss-theirs"));
        let mut plane = ours.open();
        if let Some(why) = plane.unwatched() {
            println!(
                "skipped: losses_of_another_network_are_not_counted: \
                 this kernel does not let us watch: {why}"
            );
            return;
        }
        let ifindex = make_veth("lan0");
        plane.attach(&lan(ifindex)).expect("attached");
        std::thread::scope(|scope| {
            scope.spawn(|| {
                in_network("losses_of_another_network_are_not_counted", || {
                    // Device indexes of a network begin at 1: these are the same.
                    let inside = make_veth("lan0");
                    run("ip link set lan0p up");
                    let mut plane = theirs.open();
                    plane.attach(&lan(inside)).expect("attached");
                    steer(&mut plane, inside);
                    assert_eq!(inside, ifindex);
                    sender("lan0p").write_all(&frame()).expect("sent");
                    await_losses(&plane, inside, 1);
                });
            });
        });
        assert_eq!(plane.tables().losses(ifindex).expect("a read"), 0);
    });
}
