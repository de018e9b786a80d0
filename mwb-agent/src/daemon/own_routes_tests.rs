use super::super::fixture;
use super::*;
use crate::net;
use crate::net::testing::in_network;

fn ips(texts: &[&str]) -> Vec<IpAddr> {
    texts.iter().map(|text| text.parse().expect("an address")).collect()
}

fn nets(texts: &[&str]) -> Vec<IpNet> {
    texts.iter().map(|text| text.parse().expect("a prefix")).collect()
}

const BOTH: [(u8, bool); 2] = [(1, true), (2, false)];

#[test]
fn a_table_is_what_the_device_has_and_the_configuration_says() {
    let wanted = wanted(&fixture::config(), &BOTH, &fixture::network());
    let fiber = WanTable {
        path: 1,
        device: "wan0".to_owned(),
        ifindex: Some(3),
        addresses: ips(&["198.51.100.2", "2001:db8:101::2"]),
        subnets: nets(&["198.51.100.0/24", "2001:db8:101::/64"]),
        gateway4: Some("198.51.100.1".parse().ok()),
        gateway6: Some("fe80::1".parse().ok()),
        usable: true,
    };
    let lte = WanTable {
        path: 2,
        device: "wan1".to_owned(),
        ifindex: Some(4),
        addresses: ips(&["203.0.113.2", "2001:db8:102::2"]),
        subnets: nets(&["203.0.113.0/24", "2001:db8:102::/64"]),
        gateway4: Some("203.0.113.9".parse().ok()),
        gateway6: None,
        usable: false,
    };
    assert_eq!(wanted.wans, [fiber, lte]);
    assert_eq!(wanted.rules, []);
    let subnets = ["198.51.100.0/24", "203.0.113.0/24", "2001:db8:101::/64", "2001:db8:102::/64"];
    assert_eq!(wanted.apart, nets(&subnets));
    // A bond goes over the same WANs.
    assert_eq!(super::wanted(&fixture::bonded(), &BOTH, &fixture::network()), wanted);
}

#[test]
fn a_device_that_is_away_has_rules_by_its_name_and_no_more() {
    let mut network = fixture::network();
    network.devices.remove(2);
    let wanted = wanted(&fixture::config(), &BOTH, &network);
    let expected =
        WanTable { path: 1, device: "wan0".to_owned(), usable: true, ..WanTable::default() };
    assert_eq!(wanted.wans[0], expected);
    assert_eq!(wanted.apart, nets(&["203.0.113.0/24", "2001:db8:102::/64"]));
}

#[test]
fn without_a_carrier_a_table_has_no_routes_and_addresses_lead_there_all_the_same() {
    let config = fixture::config();
    let lit = wanted(&config, &BOTH, &fixture::network());
    let mut network = fixture::network();
    network.devices[2].carrier = false;
    let mut dark = wanted(&config, &BOTH, &network);
    assert_eq!(dark.wans[0].ifindex, None);
    dark.wans[0].ifindex = Some(3);
    assert_eq!(dark, lit);
}

#[test]
fn without_an_address_or_a_gateway_there_is_no_default_route() {
    let config = fixture::config();
    let mut network = fixture::network();
    // The file names a gateway, the device has no address.
    network.devices[3].addresses.clear();
    network.routes.remove(0);
    let wanted = wanted(&config, &BOTH, &network);
    assert_eq!((wanted.wans[0].gateway4, wanted.wans[1].gateway4), (None, None));
    assert_eq!(wanted.wans[1].ifindex, Some(4));
}

#[test]
fn a_link_without_ethernet_needs_no_next_hop() {
    let config = fixture::config();
    let mut network = fixture::network();
    network.routes.remove(0);
    network.devices[2] =
        Device { resolves: false, ..fixture::device(3, "wan0", &["198.51.100.2/32"]) };
    let of = |network: &Snapshot| super::wanted(&config, &BOTH, network).wans.swap_remove(0);
    let table = of(&network);
    assert_eq!((table.gateway4, table.gateway6), (Some(None), None));
    assert_eq!(table.subnets, [], "nobody but ourselves");
    network.devices[2].addresses[0].net = nets(&["203.0.113.77/32"])[0];
    assert_eq!(of(&network).subnets, nets(&["203.0.113.77/32"]), "the far end");
}

#[test]
fn an_address_that_another_device_has_too_goes_as_the_kernel_says() {
    let config = fixture::config();
    let mut network = fixture::network();
    network.devices[1] = fixture::device(2, "lan0", &["198.51.100.2/32"]);
    let wanted = wanted(&config, &BOTH, &network);
    assert_eq!(wanted.wans[0].addresses, ips(&["2001:db8:101::2"]));
    assert_eq!(wanted.wans[0].gateway4, Some("198.51.100.1".parse().ok()));
}

#[test]
fn a_subnet_in_which_somebody_elses_route_lies_is_left_to_main() {
    let config = fixture::config();
    for (route, is_apart) in [
        (fixture::route("198.51.100.64/26", None, 2), false),
        (fixture::route("198.51.100.64/26", Some("198.51.100.9"), 3), false),
        (fixture::route("198.51.100.0/24", None, 5), false),
        (fixture::route("198.51.0.0/16", None, 5), true),
    ] {
        let mut network = fixture::network();
        network.routes.push(route);
        let wanted = wanted(&config, &BOTH, &network);
        let has = wanted.apart.contains(&nets(&["198.51.100.0/24"])[0]);
        assert_eq!(has, is_apart, "{route:?}");
    }
}

#[test]
fn who_keeps_the_tables_of_a_network_does_so_alone() {
    in_network("who_keeps_the_tables_of_a_network_does_so_alone", || async {
        let first = own().expect("nobody has it");
        let why = own().expect_err("it is taken");
        assert!(why.contains("another agent"), "{why}");
        drop(first);
        own().expect("it is free again");
        Ok::<_, net::Error>(())
    });
}

#[test]
fn what_is_wrong_is_told_once() {
    let bus = Bus::new(8);
    let mut told = None;
    for why in ["a", "a", "b", "b"] {
        tell(&bus, &mut told, why.to_owned());
    }
    let reasons: Vec<String> = bus.since(0).into_iter().map(|event| event.reason).collect();
    assert_eq!(reasons, ["a", "b"]);
}

#[test]
fn only_rules_that_are_to_blame_are_left_out() {
    let rule = |dscp| KernelRule { dscp, ..KernelRule::default() };
    let rules = [rule(None), rule(Some(46)), rule(None)];
    let left = |error| without(&error, &rules).map(|rules| rules.len());
    assert_eq!(left(Error::NoDscp), Some(2));
    assert_eq!(left(Error::Rule { index: 0, why: String::new() }), Some(2));
    assert_eq!(left(Error::TooManyRules(3)), Some(0));
    assert_eq!(left(Error::Ipv6Off("wan0".to_owned())), None);
}
