use super::*;
use crate::daemon::fixture::{OUR_MAC, ROUTER_MAC, config, neighbour, network, route};
use crate::net::Reachability;
use ipnet::IpNet;

fn now(index: usize, network: &Snapshot, before: &Path) -> Present {
    let config = config();
    present(&config, &config.wans[index], network, before)
}

fn has(present: &Present, flag: u32) -> bool {
    present.path.flags & flag != 0
}

#[test]
fn a_wan_is_what_its_device_and_default_route_say() {
    let wan = now(0, &network(), &Path::default());
    let path = wan.path;
    assert_eq!((path.ifindex, path.mtu, path.generation), (3, 1500, 1));
    assert_eq!((path.address4, path.gateway4), ([198, 51, 100, 2], [198, 51, 100, 1]));
    assert_eq!(Ipv6Addr::from(path.gateway6).to_string(), "fe80::1");
    assert_eq!(Ipv6Addr::from(path.inside6).to_string(), "2001:db8:a::");
    assert_eq!(Ipv6Addr::from(path.outside6).to_string(), "2001:db8:101::");
    assert_eq!(path.npt_length, 48);
    assert_eq!(path.npt_adjustment, nptv6::adjustment(path.inside6, path.outside6, 48));
    assert_eq!(
        (path.source_mac, path.next_hop_mac4, path.next_hop_mac6),
        (OUR_MAC, ROUTER_MAC, ROUTER_MAC)
    );
    let all = path_flag::PRESENT
        | path_flag::HAS_V4
        | path_flag::HAS_V6
        | path_flag::NEXT_HOP4
        | path_flag::NEXT_HOP6;
    assert_eq!(path.flags, all);
    assert_eq!(wan.link.ifindex, Some(3));
    assert_eq!(wan.link.v4.map(|hop| hop.mac), Some(NextHop::Mac(ROUTER_MAC)));
    assert_eq!(wan.link.v6.map(|hop| hop.source.to_string()).as_deref(), Some("2001:db8:101::2"));
}

#[test]
fn a_configured_gateway_counts_and_a_wan_without_prefix_has_no_ipv6() {
    let wan = now(1, &network(), &Path::default());
    assert_eq!(wan.path.gateway4, [203, 0, 113, 9]);
    assert_eq!(wan.path.flags, path_flag::PRESENT | path_flag::HAS_V4);
    assert_eq!(wan.link.v4.map(|hop| hop.mac), Some(NextHop::Unresolved));
    assert_eq!(wan.link.v6, None);
}

#[test]
fn a_generation_lasts_as_long_as_the_addresses() {
    let mut network = network();
    let first = now(0, &network, &Path::default()).path;
    // Another gateway, MAC, MTU or no carrier at all: flows stay valid.
    network.routes.clear();
    network.neighbours.clear();
    network.devices[2].mtu = 1400;
    network.devices[2].carrier = false;
    let second = now(0, &network, &first).path;
    assert_eq!(second.generation, first.generation);
    assert_eq!(second.flags & path_flag::NEXT_HOP4, 0);
    // The device goes and comes back with the same address, then another.
    let gone = now(0, &Snapshot::default(), &second);
    assert_eq!((gone.path.flags, gone.path.generation), (0, first.generation));
    assert_eq!(gone.link, Link::default());
    let back = now(0, &network, &gone.path).path;
    assert_eq!(back.generation, first.generation);
    network.devices[2].addresses[0].ip = IpAddr::V4(Ipv4Addr::new(198, 51, 100, 3));
    let moved = now(0, &network, &back).path;
    assert_eq!(moved.generation, first.generation + 1);
    assert_eq!(moved.address4, [198, 51, 100, 3]);
}

#[test]
fn a_lost_default_route_is_remembered_while_the_address_stays() {
    let mut network = network();
    let first = now(0, &network, &Path::default()).path;
    network.routes.clear();
    let wan = now(0, &network, &first);
    assert!(has(&wan, path_flag::HAS_V4 | path_flag::HAS_V6));
    assert_eq!(wan.path.gateway4, [198, 51, 100, 1]);
    network.devices[2].addresses[0].ip = IpAddr::V4(Ipv4Addr::new(198, 51, 100, 3));
    let wan = now(0, &network, &first);
    assert!(!has(&wan, path_flag::HAS_V4));
    assert_eq!((wan.link.v4, wan.path.generation), (None, first.generation + 1));
    // Not even later: the gateway belongs to the address of before.
    assert_eq!(now(0, &network, &wan.path).link.v4, None);
}

#[test]
fn a_wan_without_an_address_is_present_and_carries_nothing() {
    let mut network = network();
    network.devices[3].addresses.clear();
    let wan = now(1, &network, &Path::default());
    assert_eq!(wan.path.flags, path_flag::PRESENT);
    assert_eq!(wan.path.generation, 0);
    assert_eq!(wan.link.ifindex, Some(4));
}

#[test]
fn a_point_to_point_wan_needs_no_next_hop() {
    let mut network = network();
    network.devices[2].resolves = false;
    network.devices[2].mac = None;
    network.routes[0].gateway = None;
    let ready = path_flag::HAS_V4 | path_flag::NEXT_HOP4 | path_flag::HAS_V6 | path_flag::NEXT_HOP6;
    let wan = now(0, &network, &Path::default());
    assert_eq!(wan.path.flags, path_flag::PRESENT | ready);
    assert_eq!((wan.path.next_hop_mac4, wan.path.next_hop_mac6), ([0; 6], [0; 6]));
    assert_eq!(wan.link.v4.map(|hop| (hop.gateway, hop.mac)), Some((None, NextHop::NotNeeded)));
    assert_eq!(to_resolve(&wan, &network), []);
    // Not even a route, as the kernel's own traffic may have another one.
    network.routes.clear();
    assert_eq!(now(0, &network, &Path::default()).path.flags, path_flag::PRESENT | ready);
}

#[test]
fn the_far_end_of_a_point_to_point_wan_is_asked_if_no_gateway_is_named() {
    let mut network = network();
    network.devices[2].resolves = false;
    network.routes[0].gateway = None;
    let peer: IpNet = "203.0.113.77/32".parse().unwrap_or_default();
    network.devices[2].addresses[0].net = peer;
    let gateway = |network: &Snapshot| now(0, network, &Path::default()).link.v4?.gateway;
    assert_eq!(gateway(&network).map(IpAddr::V4), Some(peer.addr()));
    network.routes[0].gateway = Some(Ipv4Addr::new(192, 0, 2, 7).into());
    assert_eq!(gateway(&network), Some(Ipv4Addr::new(192, 0, 2, 7)));
}

#[test]
fn a_gateway_outside_the_subnet_is_a_next_hop_like_any_other() {
    // A host route on the link, and a link-local one, as some providers have it.
    for gateway in ["203.0.113.1", "169.254.0.1"] {
        let mut network = network();
        network.devices[2].addresses[0].net = "198.51.100.2/32".parse().unwrap_or_default();
        network.routes[0].gateway = gateway.parse().ok();
        network.neighbours.clear();
        let wan = now(0, &network, &Path::default());
        assert_eq!(Ipv4Addr::from(wan.path.gateway4).to_string(), gateway);
        assert!(has(&wan, path_flag::HAS_V4) && !has(&wan, path_flag::NEXT_HOP4));
        let asked: Vec<String> =
            to_resolve(&wan, &network).into_iter().map(|(_, ip)| ip.to_string()).collect();
        assert_eq!(asked, [gateway, "fe80::1"]);
        network.neighbours.push(neighbour(3, gateway, Reachability::Fresh));
        let wan = now(0, &network, &wan.path);
        assert_eq!(wan.path.next_hop_mac4, ROUTER_MAC);
        assert!(has(&wan, path_flag::NEXT_HOP4));
    }
}

#[test]
fn two_wans_with_one_subnet_gateway_and_address_have_their_own_next_hops() {
    let mut network = network();
    network.devices[3].addresses = network.devices[2].addresses.clone();
    network.routes.push(route("0.0.0.0/0", Some("198.51.100.1"), 4));
    let mut config = config();
    config.wans[1].gateway4 = Gateway::Auto;
    let other = [2, 0, 0, 0, 0, 0x77];
    let mut far = neighbour(4, "198.51.100.1", Reachability::Fresh);
    far.mac = Some(other);
    network.neighbours.push(far);
    let both = config.wans.iter().map(|wan| present(&config, wan, &network, &Path::default()).path);
    let both: Vec<Path> = both.collect();
    assert_eq!(both[0].address4, both[1].address4);
    assert_eq!((both[0].next_hop_mac4, both[1].next_hop_mac4), (ROUTER_MAC, other));
    assert_eq!((both[0].ifindex, both[1].ifindex), (3, 4));
}

#[test]
fn next_hops_are_resolved_when_unknown_stale_or_failed() {
    let mut network = network();
    let asked = |network: &Snapshot| {
        let wan = now(0, network, &Path::default());
        to_resolve(&wan, network).into_iter().map(|(_, ip)| ip.to_string()).collect::<Vec<_>>()
    };
    assert_eq!(asked(&network), ["fe80::1"]);
    network.neighbours[1] = neighbour(3, "fe80::1", Reachability::Incomplete);
    assert_eq!(asked(&network), [] as [&str; 0]);
    network.neighbours[0] = neighbour(3, "198.51.100.1", Reachability::Failed);
    assert_eq!(asked(&network), ["198.51.100.1"]);
    network.neighbours.clear();
    assert_eq!(asked(&network), ["198.51.100.1", "fe80::1"]);
    network.devices[2].carrier = false;
    assert_eq!(asked(&network), [] as [&str; 0]);
}

#[test]
fn in_a_bond_a_wan_carries_ipv6_by_its_own_address() {
    let config = crate::daemon::fixture::bonded();
    let network = network();
    let fiber = present(&config, &config.wans[0], &network, &Path::default());
    assert_eq!(Ipv6Addr::from(fiber.path.address6).to_string(), "2001:db8:101::2");
    assert!(has(&fiber, path_flag::NEXT_HOP4) && has(&fiber, path_flag::NEXT_HOP6));
    assert_eq!(fiber.path.next_hop_mac6, ROUTER_MAC);
    assert_eq!((fiber.path.npt_length, fiber.path.outside6), (0, [0; 16]));
    // With an address, but no way to the next hop.
    let lte = present(&config, &config.wans[1], &network, &Path::default());
    assert_eq!(Ipv6Addr::from(lte.path.address6).to_string(), "2001:db8:102::2");
    assert!(!has(&lte, path_flag::NEXT_HOP6));
    // Without one.
    let mut without = network.clone();
    without.devices[2].addresses.retain(|address| address.ip.is_ipv4());
    let fiber = present(&config, &config.wans[0], &without, &fiber.path);
    assert_eq!((fiber.path.address6, has(&fiber, path_flag::NEXT_HOP6)), ([0; 16], false));
    // Where nothing is bonded nobody asks for it.
    assert_eq!(now(0, &network, &Path::default()).path.address6, [0; 16]);
}

#[test]
fn in_a_bond_the_next_hop_of_ipv6_is_asked_for() {
    let config = crate::daemon::fixture::bonded();
    let mut network = network();
    network.neighbours.clear();
    let fiber = present(&config, &config.wans[0], &network, &Path::default());
    let wanted: Vec<String> =
        to_resolve(&fiber, &network).into_iter().map(|(_, ip)| ip.to_string()).collect();
    assert_eq!(wanted, ["198.51.100.1", "fe80::1"]);
}
