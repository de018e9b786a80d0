//! On real devices: what the machine itself answers is heard, and nothing else.

use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};

use etherparse::PacketBuilder;
use nix::net::if_::if_nametoindex;

use super::super::socket::address;
use super::*;
use crate::dataplane::testing::{in_network, make_veth, maps_alone, run};

const PATIENCE: Duration = Duration::from_secs(10);
const OUR_MAC: [u8; 6] = [2, 0, 0, 0, 0, 1];
const HOST_MAC: [u8; 6] = [2, 0, 0, 0, 0, 9];

/// A LAN port with a host behind it that never says anything.
fn port(name: &str, net: u8) -> u32 {
    let ifindex = make_veth(name);
    run(&format!("ip link set {name} address 02:00:00:00:00:01"));
    run(&format!("ip link set {name}p up"));
    run(&format!("ip address add 192.0.2.{net}/28 dev {name}"));
    run(&format!("ip neighbour add 192.0.2.{} dev {name} lladdr 02:00:00:00:00:09", net + 1));
    ifindex
}

/// A listener and what it hears: the last byte of each packet.
fn listener() -> (Listener, Receiver<Option<u8>>) {
    let filter = maps_alone("answers").answers_filter().expect("a filter");
    let (sender, heard) = channel();
    let hear = move |heard: Heard<'_>| {
        if let Heard::Packet(packet) = heard {
            // Whoever asked is gone at the end of a test.
            let _ = sender.send(packet.last().copied());
        }
    };
    (Listener::start(filter, hear).expect("a thread"), heard)
}

fn hears_on(listener: &Listener, devices: &[&str]) {
    let wanted = devices.iter().map(|name| {
        let ifindex = if_nametoindex(*name).expect("a device");
        (ifindex, (*name).to_owned())
    });
    listener.listen(wanted.collect());
    waits_until(|| listener.ears().devices == devices);
}

fn waits_until(is: impl Fn() -> bool) {
    let end = Instant::now() + PATIENCE;
    while !is() {
        assert!(Instant::now() < end, "it does not come to pass");
        thread::sleep(Duration::from_millis(5));
    }
}

/// The machine itself says something to a host.
fn says(from: (u8, u16), to: (u8, u16), word: u8) {
    let address = |(last, port)| SocketAddr::from((Ipv4Addr::new(192, 0, 2, last), port));
    let socket = UdpSocket::bind(address(from)).expect("an address of ours");
    socket.send_to(&[0, word], address(to)).expect("sent");
}

/// A host says something: to the machine, or through it.
fn forges(device: &str, from: (u8, u16), to: (u8, u16), word: u8) {
    let mut packet = Vec::new();
    PacketBuilder::ethernet2(HOST_MAC, OUR_MAC)
        .ipv4([192, 0, 2, from.0], [192, 0, 2, to.0], 64)
        .udp(from.1, to.1)
        .write(&mut packet, &[0, word])
        .expect("a packet");
    let all = socket2::Protocol::from(0);
    let socket = socket2::Socket::new(socket2::Domain::PACKET, socket2::Type::RAW, Some(all));
    let socket = socket.expect("a socket");
    let ifindex = if_nametoindex(device).expect("a device");
    socket.bind(&address(ifindex)).expect("bound");
    socket.send(&packet).expect("sent");
}

#[test]
fn only_what_the_machine_itself_answers_is_heard() {
    in_network("only_what_the_machine_itself_answers_is_heard", || {
        port("lan0", 1);
        port("lan1", 17);
        run("sysctl -qw net.ipv4.ip_forward=1");
        let (listener, heard) = listener();
        hears_on(&listener, &["lan0", "lan1"]);
        says((1, 53), (2, 4_000), 1);
        // Of another port, to the port, from a host to us, and from one host to the other,
        // as itself and as us.
        says((1, 54), (2, 4_000), 2);
        says((1, 4_000), (2, 53), 3);
        forges("lan0p", (2, 53), (1, 4_000), 4);
        forges("lan0p", (2, 53), (18, 4_000), 5);
        forges("lan0p", (17, 53), (18, 4_000), 6);
        says((17, 53), (18, 4_000), 7);
        let mut words: Vec<_> =
            (0..2).map(|_| heard.recv_timeout(PATIENCE).expect("an answer")).collect();
        words.sort_unstable();
        assert_eq!(words, [Some(1), Some(7)]);
        assert!(heard.try_recv().is_err());
    });
}

#[test]
fn devices_come_and_go() {
    in_network("devices_come_and_go", || {
        port("lan0", 1);
        let (listener, heard) = listener();
        hears_on(&listener, &["lan0"]);
        says((1, 53), (2, 4_000), 1);
        assert_eq!(heard.recv_timeout(PATIENCE), Ok(Some(1)));
        run("ip link set lan0 down");
        run("ip link set lan0 up");
        run("ip neighbour replace 192.0.2.2 dev lan0 lladdr 02:00:00:00:00:09");
        says((1, 53), (2, 4_000), 2);
        assert_eq!(heard.recv_timeout(PATIENCE), Ok(Some(2)));
        // Another of the same name.
        run("ip link del lan0");
        port("lan0", 1);
        hears_on(&listener, &["lan0"]);
        let before = heard.try_iter().count();
        assert_eq!(before, 0);
        waits_until(|| {
            says((1, 53), (2, 4_000), 3);
            heard.recv_timeout(Duration::from_millis(20)).is_ok()
        });
        hears_on(&listener, &[]);
        while heard.recv_timeout(Duration::from_millis(100)).is_ok() {}
        says((1, 53), (2, 4_000), 4);
        assert!(heard.recv_timeout(Duration::from_millis(100)).is_err());
        // It ends with its handle, and gives up what it hears with.
        drop(listener);
        assert_eq!(heard.recv_timeout(PATIENCE), Err(RecvTimeoutError::Disconnected));
    });
}

#[test]
fn a_device_that_is_not_there_is_told() {
    in_network("a_device_that_is_not_there_is_told", || {
        let (listener, _heard) = listener();
        listener.listen([(77, "lan7".to_owned())].into());
        waits_until(|| listener.ears().deaf.iter().any(|(device, _)| device == "lan7"));
    });
}
