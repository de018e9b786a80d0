//! Tables and rules in a network of their own: the kernel says which way packets go.

use std::process::Command;
use std::time::{Duration, Instant};

use super::super::testing::{in_network, ip};
use super::super::{KernelAction, Requests};
use super::*;

/// What `ip` prints, without the spaces at the end of lines; its error where it fails.
pub(super) fn said(line: &str) -> String {
    let output = Command::new("ip").args(line.split_whitespace()).output();
    let output = output.unwrap_or_else(|error| panic!("ip {line}: {error}"));
    let text = if output.status.success() { output.stdout } else { output.stderr };
    let text = String::from_utf8_lossy(&text).into_owned();
    text.lines().map(|line| line.trim_end().to_owned() + "\n").collect()
}

/// All rules and routes, as text.
pub(super) fn everything() -> String {
    ["-4 rule", "-6 rule", "-4 route show table all", "-6 route show table all"].map(said).concat()
}

/// Which way a packet goes.
pub(super) fn way(packet: &str) -> String {
    said(&format!("route get {packet}"))
}

fn ifindex(device: &str) -> Option<u32> {
    nix::net::if_::if_nametoindex(device).ok()
}

/// A device that is up, and its far end.
pub(super) fn make_device(device: &str) {
    ip(&format!("link add {device} type veth peer name {device}-far"));
    for end in [format!("{device}-far"), device.to_owned()] {
        // Addresses that come later would be differences that are not ours.
        ip(&format!("link set {end} addrgenmode none"));
        ip(&format!("link set {end} up"));
    }
}

pub(super) fn give_addresses(number: u8) {
    ip(&format!("addr add 198.51.100.{}/28 dev wan{number}", 16 * number - 14));
    ip(&format!("addr add 2001:db8:{number}::2/64 dev wan{number} nodad"));
}

/// Two WANs in two subnets and a LAN; the machine's own default route is by the first.
/// It forwards, if the kernel lets us say so.
pub(super) async fn make_world() {
    let forwards = ["/proc/sys/net/ipv4/ip_forward", "/proc/sys/net/ipv6/conf/all/forwarding"];
    for setting in forwards {
        // Of this network alone.
        if let Err(error) = std::fs::write(setting, "1") {
            println!("{setting}: {error}");
        }
    }
    ip("link set lo up");
    ["lan0", "wan1", "wan2"].into_iter().for_each(make_device);
    ip("addr add 10.1.0.1/24 dev lan0");
    ip("addr add 2001:db8:a:1::1/64 dev lan0 nodad");
    for number in [1, 2] {
        give_addresses(number);
        let gateway = 16 * number - 15;
        ip(&format!("route add default via 198.51.100.{gateway} dev wan{number} metric {number}"));
        ip(&format!("route add default via 2001:db8:{number}::1 dev wan{number} metric {number}"));
    }
    complete().await;
}

/// Without it nothing that came in has a way.
fn forwards() -> bool {
    std::fs::read_to_string("/proc/sys/net/ipv4/ip_forward").is_ok_and(|is| is.trim() == "1")
}

/// The kernel does its part of IPv6 when it has time.
pub(super) async fn complete() {
    let deadline = Instant::now() + Duration::from_secs(5);
    let has = |text: String| said("-6 route show table local").contains(&text);
    let devices = ["lan0", "wan1", "wan2"];
    let ends = || devices.iter().flat_map(|device| [(*device).to_owned(), format!("{device}-far")]);
    let own = ["2001:db8:a:1::1 dev lan0", "2001:db8:1::2 dev wan1", "2001:db8:2::2 dev wan2"];
    while !ends().all(|end| has(format!("ff00::/8 dev {end} ")))
        || !own.iter().all(|own| has(format!("local {own}")))
    {
        assert!(Instant::now() < deadline, "{}", everything());
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

fn wan(path: u8) -> WanTable {
    let gateway = if path == 1 { 1 } else { 17 };
    let parse = |text: String| text.parse().unwrap_or_else(|error| panic!("{text}: {error}"));
    WanTable {
        path,
        device: format!("wan{path}"),
        ifindex: ifindex(&format!("wan{path}")),
        addresses: vec![
            parse(format!("198.51.100.{}", gateway + 1)),
            parse(format!("2001:db8:{path}::2")),
        ],
        subnets: vec![
            net(&format!("198.51.100.{}/28", gateway - 1)),
            net(&format!("2001:db8:{path}::/64")),
        ],
        gateway4: Some(Some(Ipv4Addr::new(198, 51, 100, gateway))),
        gateway6: Some(format!("2001:db8:{path}::1").parse().ok()),
        usable: true,
    }
}

pub(super) fn wanted() -> Wanted {
    let wans = vec![wan(1), wan(2)];
    let apart = wans.iter().flat_map(|wan| wan.subnets.clone()).collect();
    Wanted { wans, apart, rules: Vec::new() }
}

fn net(text: &str) -> IpNet {
    text.parse().unwrap_or_else(|error| panic!("{text}: {error}"))
}

/// The second time nothing is asked of the kernel.
pub(super) async fn settle(requests: &Requests, wanted: &Wanted) -> Result<Changes, Error> {
    let changes = Tables::ensure(requests, wanted).await?;
    let before = everything();
    assert!(Tables::ensure(requests, wanted).await?.is_none(), "{before}");
    assert_eq!(everything(), before);
    Ok(changes)
}

#[test]
fn what_is_bound_to_a_wan_or_has_its_address_leaves_by_it() {
    in_network("what_is_bound_to_a_wan_or_has_its_address_leaves_by_it", || async {
        make_world().await;
        let before = everything();
        let requests = Requests::open()?;
        let changes = settle(&requests, &wanted()).await?;
        // Of each family 2 routes for each WAN, 3 rules for each device, 3 for each address,
        // one for each subnet.
        assert_eq!(changes, Changes { made: 2 * (4 + 6 + 6 + 2), removed: 0 });
        assert_eq!(
            said("route show table 7701"),
            "default via 198.51.100.1 dev wan1 proto 77\n\
             198.51.100.0/28 dev wan1 proto 77 scope link\n"
        );
        let six = said("-6 route show table 7702");
        assert!(six.contains("default via 2001:db8:2::1 dev wan2 proto 77 metric 1024"), "{six}");
        assert!(six.contains("2001:db8:2::/64 dev wan2 proto 77 metric 1024"), "{six}");
        for (far, sources) in [
            ("203.0.113.1", ["198.51.100.2", "198.51.100.18"]),
            ("2001:db8:ff::1", ["2001:db8:1::2", "2001:db8:2::2"]),
        ] {
            let unbound = way(far);
            assert!(unbound.contains("dev wan1"), "{unbound}");
            for (device, source) in ["wan1", "wan2"].into_iter().zip(sources) {
                let bound = way(&format!("{far} oif {device}"));
                assert!(bound.contains(&format!("dev {device}")), "{bound}");
                assert!(bound.contains(&format!("src {source}")), "{bound}");
                let from = way(&format!("{far} from {source}"));
                assert!(from.contains(&format!("dev {device}")), "{from}");
            }
        }
        // The LAN is where it is, whoever speaks to it.
        for packet in ["10.1.0.9 from 198.51.100.18", "2001:db8:a:1::9 from 2001:db8:2::2"] {
            assert!(way(packet).contains("dev lan0"), "{}", way(packet));
        }
        // Another WAN's subnet is reached by one's own WAN, and straight by all others.
        for (packet, device) in [
            ("198.51.100.5 from 198.51.100.18", "via 198.51.100.17 dev wan2"),
            ("198.51.100.5 from 198.51.100.2", "dev wan1"),
            ("198.51.100.5 oif wan2", "via 198.51.100.17 dev wan2"),
            ("198.51.100.21", "dev wan2"),
            ("2001:db8:1::5 from 2001:db8:2::2", "via 2001:db8:2::1 dev wan2"),
        ] {
            assert!(way(packet).contains(device), "{packet}: {}", way(packet));
        }
        Tables::remove(&requests).await?;
        assert_eq!(everything(), before);
        assert!(Tables::remove(&requests).await?.is_none());
        Ok::<_, Error>(())
    });
}

#[test]
fn what_the_main_table_knows_better_by_a_wan_holds_for_its_sockets() {
    in_network("what_the_main_table_knows_better_by_a_wan_holds_for_its_sockets", || async {
        make_world().await;
        ip("route add 203.0.113.0/24 via 198.51.100.9 dev wan1");
        // A bond, or another VPN.
        for half in ["0.0.0.0/1", "128.0.0.0/1"] {
            ip(&format!("route add {half} via 10.1.0.77 dev lan0"));
        }
        let requests = Requests::open()?;
        settle(&requests, &wanted()).await?;
        for (packet, way_out) in [
            ("192.0.2.1", "via 10.1.0.77 dev lan0"),
            ("203.0.113.1 oif wan1", "via 198.51.100.9 dev wan1"),
            ("203.0.113.1 oif wan2", "via 198.51.100.17 dev wan2"),
            ("192.0.2.1 oif wan2", "via 198.51.100.17 dev wan2"),
            ("192.0.2.1 from 198.51.100.18", "via 198.51.100.17 dev wan2"),
            ("192.0.2.1 from 198.51.100.2", "via 198.51.100.1 dev wan1"),
        ] {
            assert!(way(packet).contains(way_out), "{packet}: {}", way(packet));
        }
        Ok::<_, Error>(())
    });
}

#[test]
fn wans_that_look_all_alike_are_told_apart_by_their_devices() {
    in_network("wans_that_look_all_alike_are_told_apart_by_their_devices", || async {
        make_world().await;
        ip("addr flush dev wan2 scope global");
        ip("addr add 198.51.100.2/28 dev wan2");
        ip("addr add 2001:db8:1::2/64 dev wan2 nodad");
        let requests = Requests::open()?;
        let twin =
            WanTable { path: 2, device: "wan2".to_owned(), ifindex: ifindex("wan2"), ..wan(1) };
        let apart = twin.subnets.clone();
        let mut both = Wanted { wans: vec![wan(1), twin], apart, rules: Vec::new() };
        settle(&requests, &both).await?;
        for far in ["203.0.113.1", "198.51.100.1", "2001:db8:ff::1"] {
            for device in ["wan1", "wan2"] {
                let bound = way(&format!("{far} oif {device}"));
                assert!(bound.contains(&format!("dev {device}")), "{bound}");
            }
        }
        // Who has the address is the first one that is usable.
        assert!(way("203.0.113.1 from 198.51.100.2").contains("dev wan1"));
        both.wans[0].usable = false;
        settle(&requests, &both).await?;
        assert!(way("203.0.113.1 from 198.51.100.2").contains("dev wan2"));
        // And the other one where the kernel alone knows that its device is gone.
        ip("link del wan2");
        assert!(way("203.0.113.1 from 198.51.100.2").contains("dev wan1"));
        Ok::<_, Error>(())
    });
}

#[test]
fn without_a_way_nothing_leaves_by_another_wan() {
    in_network("without_a_way_nothing_leaves_by_another_wan", || async {
        make_world().await;
        let requests = Requests::open()?;
        let mut wanted = wanted();
        (wanted.wans[1].gateway4, wanted.wans[1].gateway6) = (None, None);
        ip("-4 route del default dev wan2");
        ip("-6 route del default dev wan2");
        settle(&requests, &wanted).await?;
        for packet in ["203.0.113.1 from 198.51.100.18", "2001:db8:ff::1 from 2001:db8:2::2"] {
            assert!(way(packet).contains("unreachable"), "{packet}: {}", way(packet));
        }
        assert!(way("2001:db8:ff::1 oif wan2").contains("unreachable"));
        // Where a device is named the kernel takes everybody for a neighbour (ip(7)).
        let bound = way("203.0.113.1 oif wan2");
        assert!(bound.contains("dev wan2") && !bound.contains("via"), "{bound}");
        assert!(way("203.0.113.1").contains("dev wan1"));
        Ok::<_, Error>(())
    });
}

#[test]
fn a_gateway_outside_the_subnet_and_a_link_without_gateways_work() {
    in_network("a_gateway_outside_the_subnet_and_a_link_without_gateways_work", || async {
        make_world().await;
        let requests = Requests::open()?;
        let mut wanted = wanted();
        wanted.wans[0].gateway4 = Some(Some(Ipv4Addr::new(192, 0, 2, 1)));
        wanted.wans[0].gateway6 = Some("fe80::1".parse().ok());
        (wanted.wans[1].gateway4, wanted.wans[1].gateway6) = (Some(None), Some(None));
        settle(&requests, &wanted).await?;
        let outside = said("route show table 7701");
        assert!(outside.contains("default via 192.0.2.1 dev wan1 proto 77 onlink"), "{outside}");
        assert!(said("-6 route show table 7701").contains("default via fe80::1 dev wan1"));
        let direct = said("route show table 7702");
        assert!(direct.contains("default dev wan2 proto 77 scope link"), "{direct}");
        let far6 = Some("2001:db8:f::1".parse().ok());
        wanted.wans[0].gateway6 = far6;
        wanted.wans[0].gateway4 = Some(Some(Ipv4Addr::new(198, 51, 100, 7)));
        let changes = settle(&requests, &wanted).await?;
        assert_eq!(changes, Changes { made: 2, removed: 0 }, "in one step, never without a way");
        assert!(way("203.0.113.1 oif wan1").contains("via 198.51.100.7 dev wan1"));
        assert!(way("2001:db8:ff::1 oif wan1").contains("via 2001:db8:f::1 dev wan1"));
        Ok::<_, Error>(())
    });
}

#[test]
fn rules_that_are_handed_in_prefer_a_wan_or_insist_on_it() {
    in_network("rules_that_are_handed_in_prefer_a_wan_or_insist_on_it", || async {
        make_world().await;
        if !forwards() {
            println!("skipped: rules_that_are_handed_in_prefer_a_wan_or_insist_on_it: no sysctl");
            return Ok(());
        }
        let requests = Requests::open()?;
        let from = |text: &str| KernelRule { from: Some(net(text)), ..KernelRule::default() };
        let by = |paths: &[u8], strict| KernelAction::Tables { paths: paths.to_vec(), strict };
        let mut wanted = wanted();
        wanted.rules = vec![
            KernelRule { action: by(&[2], false), ..from("10.1.0.10/32") },
            KernelRule { action: by(&[2], true), ..from("10.1.0.11/32") },
            KernelRule { action: by(&[2, 1], true), ..from("10.1.0.12/32") },
            KernelRule { action: KernelAction::Unreachable, ..from("10.1.0.13/32") },
            KernelRule { action: KernelAction::Blackhole, ..from("2001:db8:a:1::d/128") },
        ];
        let get = |host: &str| {
            let lan = if host.contains(':') { "2001:db8:a:1::" } else { "10.1.0." };
            let far = if host.contains(':') { "2001:db8:ff::1" } else { "203.0.113.1" };
            way(&format!("{far} from {lan}{} iif lan0", host.trim_start_matches(':')))
        };
        let with = |usable: [bool; 2]| {
            let mut now = wanted.clone();
            (now.wans[0].usable, now.wans[1].usable) = (usable[0], usable[1]);
            now
        };
        for (usable, ways) in [
            ([true, true], ["dev wan2", "dev wan2", "dev wan2"]),
            ([true, false], ["dev wan1", "unreachable", "dev wan1"]),
            ([false, false], ["dev wan1", "unreachable", "unreachable"]),
            ([false, true], ["dev wan2", "dev wan2", "dev wan2"]),
        ] {
            settle(&requests, &with(usable)).await?;
            for (host, expected) in ["10", "11", "12"].iter().zip(ways) {
                assert!(get(host).contains(expected), "{usable:?} {host}: {}", get(host));
            }
            assert!(get("13").contains("unreachable"), "{}", get("13"));
            assert!(get(":d").contains("Invalid argument"), "a black hole: {}", get(":d"));
        }
        // What of the LAN is known better stays in the LAN.
        assert!(way("10.1.0.9 from 10.1.0.13 iif wan1").contains("dev lan0"));
        Ok::<_, Error>(())
    });
}

#[test]
fn a_rule_selects_by_all_that_it_names() {
    in_network("a_rule_selects_by_all_that_it_names", || async {
        make_world().await;
        if !forwards() {
            println!("skipped: a_rule_selects_by_all_that_it_names: no sysctl");
            return Ok(());
        }
        let requests = Requests::open()?;
        let mut wanted = wanted();
        let action = KernelAction::Tables { paths: vec![2], strict: false };
        wanted.rules = vec![
            KernelRule {
                from: Some(net("10.1.0.0/24")),
                to: Some(net("203.0.113.0/24")),
                protocol: Some(6),
                source_ports: Some((1, 9_999)),
                ports: Some((443, 443)),
                device_in: Some("lan0".to_owned()),
                mark: Some((0x10, 0xf0)),
                action: action.clone(),
                ..KernelRule::default()
            },
            KernelRule {
                from: Some(net("0.0.0.0/0")),
                dscp: Some(46),
                action,
                ..KernelRule::default()
            },
        ];
        settle(&requests, &wanted).await?;
        let whole =
            "203.0.113.1 from 10.1.0.10 iif lan0 ipproto tcp sport 5000 dport 443 mark 0x1f";
        assert!(way(whole).contains("dev wan2"), "{}", way(whole));
        for (part, other) in [
            ("203.0.113.1", "192.0.2.1"),
            ("tcp", "udp"),
            ("5000", "10000"),
            ("443", "80"),
            ("0x1f", "0x2f"),
        ] {
            let changed = whole.replace(part, other);
            assert!(way(&changed).contains("dev wan1"), "{changed}: {}", way(&changed));
        }
        for (tos, device) in [("0xb8", "dev wan2"), ("0x28", "dev wan1")] {
            let packet = format!("203.0.113.1 from 10.1.0.10 iif lan0 tos {tos}");
            assert!(way(&packet).contains(device), "{packet}: {}", way(&packet));
        }
        Ok::<_, Error>(())
    });
}
