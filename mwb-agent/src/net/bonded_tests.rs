//! The device of a bond in a network of its own.

use std::net::UdpSocket;
use std::process::Command;
use std::time::{Duration, Instant};

use ipnet::IpNet;
use socket2::{Domain, Protocol, SockAddr, Socket, Type};

use super::testing::{in_network, ip};
use super::{Bonded, BondedRoute, BondedSpec, Error, Requests, features};
use crate::rights;

pub(super) fn net(text: &str) -> IpNet {
    text.parse().unwrap_or_else(|error| panic!("{text}: {error}"))
}

/// The device of a gateway.
pub(super) fn gateway() -> BondedSpec {
    BondedSpec {
        instance: "test".to_owned(),
        device: "mwb0".to_owned(),
        data_plane_end: "mwb0-dp".to_owned(),
        mtu: 1500,
        addresses: vec![net("192.0.2.62/32"), net("2001:db8:a:f::1/128")],
        routes: Some(BondedRoute::everything(Some(1420))),
        owned: Vec::new(),
    }
}

/// What `ip` prints.
fn said(line: &str) -> String {
    let output = Command::new("ip").args(line.split_whitespace()).output();
    let output = output.unwrap_or_else(|error| panic!("ip {line}: {error}"));
    assert!(output.status.success(), "ip {line}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// Routes that we have made, without the spaces at the end of lines.
pub(super) fn routes(family: &str) -> Vec<String> {
    let all = said(&format!("{family} route show proto 77"));
    all.lines().map(|line| line.trim_end().to_owned()).collect()
}

/// All that the device has, as text.
fn everything() -> String {
    [
        said("-d link show mwb0"),
        said("-d link show mwb0-dp"),
        said("addr show dev mwb0"),
        said("neigh show dev mwb0"),
        said("-4 route"),
        said("-6 route"),
        format!("{:?}", features("mwb0")),
    ]
    .concat()
}

/// The same once the kernel has found the carrier, which takes it a moment.
async fn settled() -> String {
    let deadline = Instant::now() + Duration::from_secs(2);
    let is_up = |device: &str| said(&format!("link show {device}")).contains("state UP");
    while !(is_up("mwb0") && is_up("mwb0-dp")) {
        assert!(Instant::now() < deadline, "no carrier: {}", everything());
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    everything()
}

#[test]
fn the_device_of_a_bond_is_made_whole() {
    in_network("the_device_of_a_bond_is_made_whole", || async {
        ip("link set lo up");
        let bonded = Bonded::ensure(&Requests::open()?, &gateway()).await?;
        let link = said("-d link show mwb0");
        for part in ["mwb0@mwb0-dp", "NOARP,UP,LOWER_UP", "mtu 1500", "addrgenmode none"] {
            assert!(link.contains(part), "no `{part}` in: {link}");
        }
        assert!(link.contains("alias mwb bond of instance test"), "{link}");
        let other = said("link show mwb0-dp");
        assert!(other.contains("NOARP,UP,LOWER_UP") && other.contains("mtu 1500"), "{other}");
        assert!(link.starts_with(&format!("{}:", bonded.kernel_end)), "{bonded:?} {link}");
        assert!(other.starts_with(&format!("{}:", bonded.data_plane_end)), "{bonded:?} {other}");
        let mac = bonded.data_plane_mac.map(|byte| format!("{byte:02x}")).join(":");
        assert!(other.contains(&mac), "{other}");
        let neighbours = said("neigh show dev mwb0 nud permanent");
        for next_hop in ["169.254.77.1", "fe80::77"] {
            assert!(
                neighbours.contains(&format!("{next_hop} lladdr {mac} PERMANENT")),
                "{neighbours}"
            );
        }
        let halves = ["0.0.0.0/1", "128.0.0.0/1"];
        let expected =
            halves.map(|to| format!("{to} via 169.254.77.1 dev mwb0 onlink mtu lock 1420"));
        assert_eq!(routes("-4"), expected);
        let six = routes("-6");
        assert_eq!(six.len(), 2, "{six:?}");
        for (line, to) in six.iter().zip(["::/1", "8000::/1"]) {
            let begin = format!("{to} via fe80::77 dev mwb0 metric 1024");
            assert!(line.starts_with(&begin) && line.contains("mtu lock 1420"), "{line}");
        }
        let addresses = said("-o addr show dev mwb0");
        assert_eq!(addresses.lines().count(), 2, "no link-local one: {addresses}");
        assert!(!addresses.contains("tentative"), "{addresses}");
        let on = features("mwb0").expect("it is there");
        assert_eq!((on["tx-checksum-ip-generic"], on["rx-gro"]), (false, true));
        let segments = on.iter().filter(|(name, on)| name.ends_with("segmentation") && **on);
        assert_eq!(segments.count(), 0, "{on:?}");
        // What the gateway itself sends has the address inside.
        assert!(said("route get 203.0.113.1").contains("via 169.254.77.1 dev mwb0 src 192.0.2.62"));
        assert!(said("route get 2001:db8:ff::1").contains("src 2001:db8:a:f::1"));
        Ok::<_, Error>(())
    });
}

#[test]
fn what_is_right_is_taken_over_untouched_and_what_was_begun_is_finished() {
    in_network("what_is_right_is_taken_over_untouched_and_what_was_begun_is_finished", || async {
        let requests = Requests::open()?;
        // As far as an agent comes that is killed right after the first step.
        ip("link add mwb0 type veth peer name mwb0-dp");
        let first = Bonded::ensure(&requests, &gateway()).await?;
        let before = settled().await;
        assert!(before.contains("192.0.2.62/32") && before.contains("::/1"), "{before}");
        assert_eq!(Bonded::ensure(&Requests::open()?, &gateway()).await?, first);
        assert_eq!(everything(), before, "at once");
        // Somebody has meddled with it.
        ip("link set mwb0-dp down");
        ip("addr flush dev mwb0");
        ip("route flush proto 77");
        ip("link set mwb0 mtu 1300 arp on");
        assert_eq!(Bonded::ensure(&requests, &gateway()).await?, first);
        assert_eq!(settled().await, before);
        Ok::<_, Error>(())
    });
}

#[test]
fn what_is_wanted_otherwise_is_changed_and_routes_of_others_stay() {
    in_network("what_is_wanted_otherwise_is_changed_and_routes_of_others_stay", || async {
        let requests = Requests::open()?;
        let first = Bonded::ensure(&requests, &gateway()).await?;
        ip("route add 198.51.100.0/24 dev mwb0 proto static");
        ip("route add 203.0.113.0/24 dev mwb0-dp proto 77");
        let client = |to: &str, mtu| BondedRoute { destination: net(to), mtu };
        let server = BondedSpec {
            mtu: 9000,
            addresses: vec![net("10.100.0.1/16"), net("2001:db8:a:f::1/128")],
            routes: Some(vec![
                client("192.0.2.0/26", Some(1400)),
                client("2001:db8:a::/52", None),
                client("0.0.0.0/1", Some(1380)),
                client("128.0.0.0/1", None),
            ]),
            ..gateway()
        };
        assert_eq!(Bonded::ensure(&requests, &server).await?, first, "it is the same device");
        let expected = [
            "0.0.0.0/1 via 169.254.77.1 dev mwb0 onlink mtu lock 1380",
            "128.0.0.0/1 via 169.254.77.1 dev mwb0 onlink mtu lock 1420",
            "192.0.2.0/26 via 169.254.77.1 dev mwb0 onlink mtu lock 1400",
            "203.0.113.0/24 dev mwb0-dp scope link",
        ];
        assert_eq!(routes("-4"), expected, "an MTU that is not given stays");
        let six = routes("-6");
        assert!(
            matches!(&six[..], [one] if one.starts_with("2001:db8:a::/52 via fe80::77")),
            "{six:?}"
        );
        assert!(said("route show proto static").contains("198.51.100.0/24"));
        let addresses = said("-o addr show dev mwb0");
        assert!(
            addresses.contains("10.100.0.1/16") && !addresses.contains("192.0.2.62"),
            "{addresses}"
        );
        assert!(said("link show mwb0").contains("mtu 9000"));
        assert!(said("link show mwb0-dp").contains("mtu 9000"));
        Ok::<_, Error>(())
    });
}

#[test]
fn a_foreign_device_of_the_name_is_refused_and_left_alone() {
    in_network("a_foreign_device_of_the_name_is_refused_and_left_alone", || async {
        let requests = Requests::open()?;
        let worlds: &[(&[&str], &str)] = &[
            (&["tuntap add dev mwb0 mode tun"], "it has no other end `mwb0-dp`"),
            (&["tuntap add dev mwb0-dp mode tun"], "its other end is not `mwb0`"),
            (&["link add mwb0 type veth peer name else0"], "it has no other end `mwb0-dp`"),
            (
                &["tuntap add dev mwb0 mode tun", "tuntap add dev mwb0-dp mode tun"],
                "not the ends of one veth",
            ),
            (
                &[
                    "link add mwb0 type veth peer name a0",
                    "link add mwb0-dp type veth peer name b0",
                ],
                "not the ends of one veth",
            ),
        ];
        for (commands, why) in worlds {
            commands.iter().for_each(|line| ip(line));
            let before = said("-d link");
            let error = Bonded::ensure(&requests, &gateway()).await.expect_err(why).to_string();
            assert!(error.contains(why) && error.contains("another `device`"), "{error}");
            assert_eq!(said("-d link"), before);
            for device in ["mwb0", "mwb0-dp"] {
                let there = [format!(" {device}:"), format!(" {device}@")];
                if there.iter().any(|name| said("link").contains(name)) {
                    ip(&format!("link del {device}"));
                }
            }
        }
        Bonded::ensure(&requests, &gateway()).await?;
        let other = BondedSpec { instance: "other".to_owned(), ..gateway() };
        let error = Bonded::ensure(&requests, &other).await.expect_err("another's").to_string();
        assert!(error.contains("mwb bond of instance test"), "{error}");
        Ok::<_, Error>(())
    });
}

#[test]
fn a_route_of_somebody_else_is_not_replaced() {
    in_network("a_route_of_somebody_else_is_not_replaced", || async {
        let requests = Requests::open()?;
        ip("link add vpn0 type veth peer name far0");
        ip("link set vpn0 up");
        ip("link set far0 up");
        ip("route add 128.0.0.0/1 dev vpn0");
        let error = Bonded::ensure(&requests, &gateway()).await.expect_err("it is taken");
        assert!(error.to_string().contains("the route 128.0.0.0/1 should lead to mwb0"), "{error}");
        assert!(said("route show 128.0.0.0/1").contains("dev vpn0"));
        // With another metric it stands beside ours.
        ip("route del 128.0.0.0/1 dev vpn0");
        ip("route add 128.0.0.0/1 dev vpn0 metric 50");
        Bonded::ensure(&requests, &gateway()).await?;
        assert!(said("route get 203.0.113.1").contains("dev mwb0"));
        Ok::<_, Error>(())
    });
}

#[test]
fn the_devices_of_one_instance_are_removed_and_no_others() {
    in_network("the_devices_of_one_instance_are_removed_and_no_others", || async {
        let requests = Requests::open()?;
        Bonded::ensure(&requests, &gateway()).await?;
        let other = BondedSpec {
            instance: "other".to_owned(),
            device: "mwb1".to_owned(),
            data_plane_end: "mwb1-dp".to_owned(),
            routes: Some(Vec::new()),
            ..gateway()
        };
        Bonded::ensure(&requests, &other).await?;
        ip("link add wan0 type veth peer name far0");
        assert_eq!(Bonded::remove(&requests, "test").await?, ["mwb0"]);
        assert_eq!(Bonded::remove(&requests, "test").await?, [] as [&str; 0]);
        let links = said("link");
        assert!(links.contains("mwb1@mwb1-dp") && links.contains("wan0"), "{links}");
        assert!(!links.contains("mwb0"), "{links}");
        assert_eq!(routes("-4"), [] as [&str; 0]);
        Ok::<_, Error>(())
    });
}

#[test]
fn the_rights_that_stay_are_enough_for_the_device_of_a_bond() {
    in_network("the_rights_that_stay_are_enough_for_the_device_of_a_bond", || async {
        if let Err(error) = rights::give_up() {
            println!("skipped: the_rights_that_stay_are_enough_for_the_device_of_a_bond: {error}");
            return Ok(());
        }
        let requests = Requests::open()?;
        Bonded::ensure(&requests, &gateway()).await?;
        let narrow = BondedSpec { mtu: 1280, routes: Some(Vec::new()), ..gateway() };
        Bonded::ensure(&requests, &narrow).await?;
        assert!(said("link show mwb0").contains("mtu 1280"));
        assert_eq!(Bonded::remove(&requests, "test").await?, ["mwb0"]);
        Ok::<_, Error>(())
    });
}

#[test]
fn routes_stay_as_they_are_until_it_is_said_what_they_should_be() {
    in_network("routes_stay_as_they_are_until_it_is_said_what_they_should_be", || async {
        let requests = Requests::open()?;
        let silent = BondedSpec { routes: None, ..gateway() };
        Bonded::ensure(&requests, &silent).await?;
        assert_eq!((routes("-4"), routes("-6")), (Vec::new(), Vec::new()));
        Bonded::ensure(&requests, &gateway()).await?;
        let before = (routes("-4"), routes("-6"));
        Bonded::ensure(&requests, &silent).await?;
        assert_eq!((routes("-4").len(), (routes("-4"), routes("-6"))), (2, before));
        Ok::<_, Error>(())
    });
}

#[test]
fn without_ipv6_a_bond_carries_ipv4() {
    in_network("without_ipv6_a_bond_carries_ipv4", || async {
        for of in ["all", "default"] {
            // Of this network alone.
            let setting = format!("/proc/sys/net/ipv6/conf/{of}/disable_ipv6");
            if let Err(error) = std::fs::write(&setting, "1") {
                println!("skipped: without_ipv6_a_bond_carries_ipv4: {setting}: {error}");
                return Ok(());
            }
        }
        let requests = Requests::open()?;
        let spec = BondedSpec { addresses: vec![net("192.0.2.62/32")], ..gateway() };
        let first = Bonded::ensure(&requests, &spec).await?;
        assert_eq!((routes("-4").len(), routes("-6").len()), (2, 0));
        assert_eq!(Bonded::ensure(&requests, &spec).await?, first);
        // Switched off here alone, it would go another way.
        std::fs::write("/proc/sys/net/ipv6/conf/all/disable_ipv6", "0").expect("it was so");
        std::fs::write("/proc/sys/net/ipv6/conf/mwb0/disable_ipv6", "1").expect("it was so");
        let error = Bonded::ensure(&requests, &spec).await.expect_err("refused").to_string();
        assert!(error.contains("IPv6 is switched off on mwb0"), "{error}");
        Ok::<_, Error>(())
    });
}

#[test]
fn a_packet_is_whole_when_the_data_plane_sees_it() {
    in_network("a_packet_is_whole_when_the_data_plane_sees_it", || async {
        let bonded = Bonded::ensure(&Requests::open()?, &gateway()).await?;
        let everything = i32::from((libc::ETH_P_ALL as u16).to_be());
        let wire = Socket::new(Domain::PACKET, Type::RAW, Some(Protocol::from(everything)));
        let wire = wire.expect("a packet socket");
        wire.bind(&packet_address(bonded.data_plane_end, everything)).expect("bound");
        wire.set_read_timeout(Some(Duration::from_secs(2))).expect("a deadline");
        let socket = UdpSocket::bind("192.0.2.62:0").expect("a socket");
        socket.send_to(&[0x55; 1000], "203.0.113.1:9").expect("sent");
        let frame = next_ipv4(&wire);
        assert_eq!(frame[..6], bonded.data_plane_mac, "to the data plane's end");
        assert_eq!(
            (frame.len(), udp_sum(&frame)),
            (14 + 20 + 8 + 1000, 0),
            "its checksum is there"
        );
        // Nothing is longer than what the route lets through.
        socket.send_to(&[0x55; 4000], "203.0.113.1:9").expect("sent");
        for _ in 0..3 {
            let frame = next_ipv4(&wire);
            assert!(frame.len() <= 14 + 1420, "{}", frame.len());
        }
        Ok::<_, Error>(())
    });
}

fn packet_address(ifindex: u32, protocol: i32) -> SockAddr {
    // SAFETY: the storage is of the size of any address, and what is written is a whole
    // `sockaddr_ll`.
    let (_, address) = unsafe {
        SockAddr::try_init(|storage, length| {
            let address = storage.cast::<libc::sockaddr_ll>();
            (*address).sll_family = libc::AF_PACKET as u16;
            (*address).sll_protocol = protocol as u16;
            (*address).sll_ifindex = ifindex.cast_signed();
            *length = size_of::<libc::sockaddr_ll>() as libc::socklen_t;
            Ok(())
        })
    }
    .expect("an address");
    address
}

/// The next frame with an IPv4 packet.
fn next_ipv4(wire: &Socket) -> Vec<u8> {
    use std::io::Read as _;
    loop {
        let mut frame = vec![0; 65_536];
        let length = (&*wire).read(&mut frame).expect("a frame within 2 s");
        frame.truncate(length);
        if frame.get(12..14) == Some(&[8, 0]) {
            return frame;
        }
    }
}

/// What is wrong with the checksum of a UDP datagram: 0 if it is right (RFC 1071).
fn udp_sum(frame: &[u8]) -> u32 {
    let datagram = &frame[34..];
    let length = u16::try_from(datagram.len()).expect("it is short").to_be_bytes();
    let pseudo = [&frame[26..34], &[0, 17], &length].concat();
    let bytes = [&pseudo, datagram].concat();
    let word = |pair: &[u8]| u32::from(pair[0]) << 8 | u32::from(*pair.get(1).unwrap_or(&0));
    // In ones' complement 0xffff is 0.
    bytes.chunks(2).map(word).sum::<u32>() % 0xffff
}
