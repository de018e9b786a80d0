//! Random rules and packets: the programs find the rule that each rule's own meaning says.

use std::net::{IpAddr, Ipv4Addr};

use mwb_agent::dataplane::Hook;
use mwb_common::policy::{Action, Asked, NameBits, Properties, Rule, first_match};

use crate::gateway::Gateway;
use crate::lasting::in_a_gateway;
use crate::packet::{ICMP, ICMP6, Packet, TCP, Transport, UDP};
use crate::policy::{Sent, net, sent};
use crate::random::Random;
use crate::world::{FRIEND, HOST, HOST_MAC, HOST6, OTHER_REMOTE, PORT, REMOTE, REMOTE6, SILENT6};
use crate::world::{STRANGER_MAC, host_echo, host_tcp, host_udp, v6};

/// Prefixes that packets of the world are in, and some more.
const SOURCES: [&str; 6] = [
    "192.0.2.9/32",
    "192.0.2.8/31",
    "192.0.2.0/24",
    "2001:db8:a:1::9/128",
    "2001:db8:a::/48",
    "0.0.0.0/0",
];
const DESTINATIONS: [&str; 6] = [
    "203.0.113.7/32",
    "203.0.113.0/28",
    "203.0.113.8/30",
    "2001:db8:ff::7/128",
    "2001:db8::/32",
    "198.51.100.0/24",
];
const PORTS: [u16; 4] = [1, 80, 443, 65_535];

fn some<T: Clone>(random: &mut Random, choices: &[T]) -> Option<Vec<T>> {
    random.chance(30).then(|| {
        let count = random.below(3);
        (0..count).map(|_| random.pick(choices).clone()).collect()
    })
}

fn random_rule(random: &mut Random, hits: u16) -> Rule {
    let nets = |list: Option<Vec<&str>>| list.map(|list| list.into_iter().map(net).collect());
    let ranges = |list: Option<Vec<u16>>| {
        list.map(|list| list.into_iter().map(|port| (port, port.saturating_add(400))).collect())
    };
    Rule {
        sources: nets(some(random, &SOURCES)),
        destinations: nets(some(random, &DESTINATIONS)),
        names: None,
        source_ports: ranges(some(random, &[PORT, PORT + 200, PORT + 600])),
        ports: ranges(some(random, &PORTS)),
        protocols: some(random, &[ICMP, TCP, UDP, ICMP6]),
        dscp: some(random, &[0, 10, 46]),
        devices: some(random, &[1, 2]),
        macs: some(random, &[HOST_MAC, STRANGER_MAC]),
        marks: None,
        active: random.chance(90),
        hits,
        action: *random.pick(&[Action::Block, Action::Default, Action::Outlet(1)]),
    }
}

/// A packet from a port of its own, and what rules see of it.
fn random_packet(random: &mut Random, port: u16) -> (Packet, Asked) {
    let kinds: [fn(u16) -> Packet; 3] = [host_udp, host_tcp, host_echo];
    let mut packet = random.pick(&kinds)(port);
    let is_v6 = random.chance(50);
    if is_v6 {
        packet = v6(&packet);
    }
    let four = |choices: &[Ipv4Addr], random: &mut Random| IpAddr::from(*random.pick(choices));
    (packet.source, packet.destination) = if is_v6 {
        ((*random.pick(&[HOST6, SILENT6])).into(), REMOTE6.into())
    } else {
        (four(&[HOST, FRIEND], random), four(&[REMOTE, OTHER_REMOTE], random))
    };
    packet.from = *random.pick(&[HOST_MAC, STRANGER_MAC]);
    packet.tos = *random.pick(&[0_u8, 10, 46, 63]) << 2;
    let service = *random.pick(&PORTS);
    let (protocol, port_to) = match &mut packet.transport {
        Transport::Tcp { destination, .. } => (TCP, destination),
        Transport::Udp { destination, .. } => (UDP, destination),
        _ => (if is_v6 { ICMP6 } else { ICMP }, &mut 0),
    };
    *port_to = service;
    let properties = Properties {
        ifindex: 1,
        mark: 0,
        source_port: port,
        port: service,
        protocol,
        dscp: packet.tos >> 2,
        mac: packet.from,
    };
    let asked = Asked {
        source: packet.source,
        destination: packet.destination,
        names: NameBits::NONE,
        packet: properties,
    };
    (packet, asked)
}

fn hits_of(gateway: &Gateway, before: &[u64]) -> Vec<u16> {
    let now = gateway.hits();
    (0..).zip(now.iter().zip(before)).filter(|(_, (a, b))| a != b).map(|(n, _)| n).collect()
}

#[test]
fn the_programs_find_the_rule_that_its_own_meaning_says() {
    in_a_gateway("the_programs_find_the_rule_that_its_own_meaning_says", |gateway, form| {
        crate::policy::set_outlets(gateway);
        let seed = if form == Hook::Xdp { 11 } else { 12 };
        let random = &mut Random::new(seed);
        let mut port = PORT;
        let (mut matched, mut blocked) = (0, 0);
        for count in [1, 10, 70, 200, 1_024] {
            let rules: Vec<Rule> = (0..count).map(|hits| random_rule(random, hits)).collect();
            gateway.set_policy(&rules);
            for _ in 0..120 {
                let (packet, asked) = random_packet(random, port);
                port += 1;
                let before = gateway.hits();
                let expected = first_match(&rules, &asked);
                let how = sent(gateway, &packet);
                let found: Vec<usize> =
                    hits_of(gateway, &before).into_iter().map(usize::from).collect();
                let wanted: Vec<usize> = expected.into_iter().collect();
                assert_eq!(found, wanted, "{asked:?} with {count} rules");
                let end = match expected.map(|number| rules[number].action) {
                    Some(Action::Block) => {
                        blocked += 1;
                        Sent::Ended(mwb_common::reason::Reason::PolicyBlocked)
                    }
                    Some(Action::Outlet(_)) => Sent::By(2),
                    Some(Action::Default) | None => Sent::By(1),
                };
                matched += usize::from(expected.is_some());
                assert_eq!(how, end, "{asked:?} with {count} rules");
            }
        }
        assert!(matched > 100 && blocked > 20, "{matched} matched, {blocked} blocked");
    });
}
