//! The compiled tables against the plain meaning of rules, for rules and packets that
//! have few different values, so that they meet.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;
use proptest::prelude::*;

use super::*;

fn address() -> impl Strategy<Value = IpAddr> {
    prop_oneof![
        (0..4_u8, 0..4_u8).prop_map(|(a, b)| IpAddr::from([192, 0, a, b << 6])),
        (0..4_u16, 0..4_u16)
            .prop_map(|(a, b)| Ipv6Addr::new(0x2001, 0xdb8, a, 0, 0, 0, 0, b).into()),
    ]
}

fn net() -> impl Strategy<Value = IpNet> {
    (address(), 0..=128_u8).prop_map(|(address, length)| {
        let length = if address.is_ipv4() { length / 4 } else { length };
        IpNet::new(address, length).expect("a length that fits")
    })
}

fn port() -> impl Strategy<Value = u16> {
    prop_oneof![0..4_u16, 79..82_u16, Just(u16::MAX)]
}

fn protocol() -> impl Strategy<Value = u8> {
    prop::sample::select(vec![1, 6, 17, 47, 58, 132])
}

fn mark_word() -> impl Strategy<Value = u32> {
    prop::sample::select(vec![0, 1, 0x10, 0x100, 0x0101_0101, 0xff00_0010, u32::MAX])
}

/// A condition that most rules do not have.
fn maybe<T: Clone + std::fmt::Debug>(
    one: impl Strategy<Value = T>,
) -> impl Strategy<Value = Option<Vec<T>>> {
    prop::option::weighted(0.4, prop::collection::vec(one, 0..3))
}

/// The names of the groups that addresses are of here.
fn groups() -> [NameBits; 4] {
    let of = |names: &[usize]| {
        let mut bits = NameBits::NONE;
        names.iter().for_each(|name| bits.add(*name));
        bits
    };
    [of(&[]), of(&[0]), of(&[1, 1_023]), of(&[0, 1])]
}

/// Rules to be, where groups have these names.
fn with_groups() -> Policy {
    Policy::found(Image::default(), &groups())
}

fn name() -> impl Strategy<Value = u16> {
    prop::sample::select(vec![0, 1, 2, 1_023])
}

fn action() -> impl Strategy<Value = Action> {
    prop_oneof![Just(Action::Default), Just(Action::Block), (1..64_u8).prop_map(Action::Outlet)]
}

fn rule() -> impl Strategy<Value = Rule> {
    let ports = || maybe((port(), port()));
    let mark = (mark_word(), mark_word()).prop_map(|(value, mask)| Mark { value, mask });
    let mac = (0..3_u8).prop_map(|last| [2, 0, 0, 0, 0, last]);
    (
        (maybe(net()), maybe(net()), ports(), ports(), maybe(protocol())),
        (maybe(0..3_u8), maybe(1..4_u32), maybe(mac), maybe(mark), maybe(name())),
        (prop::bool::weighted(0.9), 0..8_u16, action()),
    )
        .prop_map(|(first, second, (active, hits, action))| {
            let (sources, destinations, source_ports, ports, protocols) = first;
            let (dscp, devices, macs, marks, names) = second;
            Rule {
                sources,
                destinations,
                names,
                source_ports,
                ports,
                protocols,
                dscp,
                devices,
                macs,
                marks,
                active,
                hits,
                action,
            }
        })
}

fn rules() -> impl Strategy<Value = Vec<Rule>> {
    prop::collection::vec(rule(), 0..80)
}

fn asked() -> impl Strategy<Value = Asked> {
    let ends = (address(), address(), prop::sample::select(groups().to_vec()));
    (ends, port(), port(), protocol(), 0..3_u8, 1..4_u32, 0..3_u8, mark_word()).prop_map(
        |(ends, source_port, port, protocol, dscp, ifindex, mac, mark)| {
            let mac = [2, 0, 0, 0, 0, mac];
            let packet = Properties { ifindex, mark, source_port, port, protocol, dscp, mac };
            let (source, destination, names) = ends;
            Asked { source, destination, names, packet }
        },
    )
}

fn expected(rules: &[Rule], asked: &Asked) -> Option<(u8, u8, u16)> {
    first_match(rules, asked).map(|number| match rules[number].action {
        Action::Default => (action::DEFAULT, 0, rules[number].hits),
        Action::Outlet(outlet) => (action::OUTLET, outlet, rules[number].hits),
        Action::Block => (action::BLOCK, 0, rules[number].hits),
    })
}

fn found(image: &Image, asked: &Asked) -> Option<(u8, u8, u16)> {
    let group = groups().iter().position(|names| *names == asked.names).expect("a group");
    let rule = image.first(asked, u16::try_from(group).expect("a small number"));
    rule.map(|rule| (rule.action, rule.outlet, rule.hits))
}

/// Has writes done in a copy of the tables that knows nothing else.
fn written(image: &mut Image, writes: &[Write]) {
    writes.iter().for_each(|write| image.note(write));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]

    #[test]
    fn the_tables_say_what_the_rules_say_whatever_they_said_before(
        generations in prop::collection::vec(rules(), 1..5),
        packets in prop::collection::vec(asked(), 40),
    ) {
        let (mut policy, mut kernel) = (with_groups(), Image::default());
        for rules in &generations {
            written(&mut kernel, &policy.set_rules(rules).expect("room"));
            for packet in &packets {
                let expected = expected(rules, packet);
                prop_assert_eq!(found(&kernel, packet), expected, "{:?}", packet);
                prop_assert_eq!(found(policy.image(), packet), expected);
            }
        }
    }

    #[test]
    fn a_group_that_changes_is_worth_a_compilation(
        mut rules in prop::collection::vec(rule(), 1..20),
        changes in prop::collection::vec((1..4_u16, prop::collection::vec(name(), 0..3)), 1..30),
        packets in prop::collection::vec(asked(), 40),
    ) {
        let (mut policy, mut kernel) = (with_groups(), Image::default());
        written(&mut kernel, &policy.set_rules(&rules).expect("room"));
        let mut now = groups();
        for (group, names) in changes {
            let mut bits = NameBits::NONE;
            names.iter().for_each(|name| bits.add(usize::from(*name)));
            now[usize::from(group)] = bits;
            written(&mut kernel, &policy.set_group(group, bits).expect("room"));
            for packet in &packets {
                let group = groups().iter().position(|names| *names == packet.names);
                let asked = Asked { names: now[group.expect("a group")], ..*packet };
                prop_assert_eq!(found(&kernel, packet), expected(&rules, &asked), "{:?}", asked);
            }
        }
        // And what comes then starts from what is there.
        rules.rotate_left(1);
        written(&mut kernel, &policy.set_rules(&rules).expect("room"));
        for packet in &packets {
            let group = groups().iter().position(|names| *names == packet.names);
            let asked = Asked { names: now[group.expect("a group")], ..*packet };
            prop_assert_eq!(found(&kernel, packet), expected(&rules, &asked));
        }
    }

    #[test]
    fn who_finds_tables_goes_on_from_them(
        generations in prop::collection::vec(rules(), 1..4),
        then in prop::collection::vec(rules(), 1..3),
        packets in prop::collection::vec(asked(), 20),
    ) {
        let (mut policy, mut kernel) = (with_groups(), Image::default());
        for rules in &generations {
            written(&mut kernel, &policy.set_rules(rules).expect("room"));
        }
        let mut after = Policy::found(kernel.clone(), &groups());
        for rules in &then {
            let writes = after.set_rules(rules).expect("room");
            let as_before = policy.set_rules(rules).expect("room");
            prop_assert_eq!(writes.len(), as_before.len());
            written(&mut kernel, &writes);
            for packet in &packets {
                prop_assert_eq!(found(&kernel, packet), expected(rules, packet));
            }
        }
    }

    #[test]
    fn no_write_of_a_change_touches_the_bank_in_use(first in rules(), second in rules()) {
        let mut policy = with_groups();
        policy.set_rules(&first).expect("room");
        let before = policy.image().clone();
        let (mut shown, packets) = (before.clone(), samples());
        let writes = policy.set_rules(&second).expect("room");
        for write in writes.iter().take(writes.len().saturating_sub(1)) {
            prop_assert!(!matches!(write, Write::State(_)));
            shown.note(write);
        }
        for packet in &packets {
            prop_assert_eq!(found(&shown, packet), found(&before, packet));
        }
    }

    #[test]
    fn the_lowest_bit_is_found(bits: u64) {
        prop_assume!(bits != 0);
        prop_assert_eq!(lowest(bits), bits.trailing_zeros());
    }
}

fn samples() -> Vec<Asked> {
    let packet = Properties { protocol: 17, port: 80, source_port: 1, ..Properties::default() };
    let addresses = [Ipv4Addr::new(192, 0, 1, 0), Ipv4Addr::new(192, 0, 2, 64)];
    let of = |destination: &Ipv4Addr| Asked {
        source: addresses[0].into(),
        destination: (*destination).into(),
        names: NameBits::NONE,
        packet,
    };
    addresses.iter().map(of).collect()
}

/// A rule for a port of its own.
fn of_port(port: u16) -> Rule {
    Rule { ports: Some(vec![(port, port)]), hits: port % 1_000, ..Rule::any(Action::Outlet(1)) }
}

#[test]
fn the_lowest_bit_of_each_place_is_found() {
    for place in 0..64 {
        assert_eq!(lowest(1 << place), place);
        assert_eq!(lowest(u64::MAX << place), place);
    }
}

#[test]
fn a_thousand_and_twenty_four_rules_fit_and_the_last_is_found() {
    let mut rules: Vec<Rule> = (1..=1_024).map(of_port).collect();
    let mut policy = Policy::default();
    policy.set_rules(&rules).expect("room");
    assert_eq!(policy.image().state().words, 16);
    let of = |port| {
        let packet = Properties { protocol: 6, port, ..Properties::default() };
        Asked { packet, ..samples()[0] }
    };
    for port in [1, 64, 65, 1_023, 1_024] {
        assert_eq!(found(policy.image(), &of(port)), Some((action::OUTLET, 1, port % 1_000)));
    }
    assert_eq!(found(policy.image(), &of(1_025)), None);
    rules.push(Rule::any(Action::Block));
    assert_eq!(policy.set_rules(&rules), Err(TooMuch::Rules { count: 1_025 }));
    assert_eq!(found(policy.image(), &of(1_024)), Some((action::OUTLET, 1, 24)));
}

#[test]
fn every_mark_of_a_rule_counts_as_one() {
    let marks = |count: u32| Some((0..count).map(|value| Mark { value, mask: u32::MAX }).collect());
    let rule = |count| Rule { marks: marks(count), ..Rule::any(Action::Block) };
    let mut policy = Policy::default();
    assert!(policy.set_rules(&[rule(1_000), rule(24)]).is_ok());
    assert_eq!(policy.set_rules(&[rule(1_001), rule(24)]), Err(TooMuch::Rules { count: 1_025 }));
}

#[test]
fn outlets_and_counters_that_are_not_there_are_refused() {
    let mut policy = Policy::default();
    for outlet in [0, 64, 255] {
        let refused = policy.set_rules(&[Rule::any(Action::Outlet(outlet))]);
        assert_eq!(refused, Err(TooMuch::Outlet { rule: 0 }));
    }
    let hits = Rule { hits: 1_024, ..Rule::any(Action::Block) };
    assert_eq!(policy.set_rules(&[hits]), Err(TooMuch::Hits { rule: 0 }));
}

#[test]
fn a_device_that_has_no_place_is_refused_and_meets_rules_that_name_none() {
    let of = |devices: &[u32]| Rule { devices: Some(devices.to_vec()), ..Rule::any(Action::Block) };
    let mut policy = Policy::default();
    let refused = policy.set_rules(&[of(&[1]), of(&[65_536])]);
    assert_eq!(refused, Err(TooMuch::Device { ifindex: 65_536 }));
    policy.set_rules(&[of(&[1, 65_535]), Rule::any(Action::Outlet(1))]).expect("room");
    let through = |ifindex| {
        let packet = Properties { ifindex, ..samples()[0].packet };
        found(policy.image(), &Asked { packet, ..samples()[0] }).expect("a rule").0
    };
    for (ifindex, action) in [
        (1, action::BLOCK),
        (2, action::OUTLET),
        (65_535, action::BLOCK),
        (65_536, action::OUTLET),
        (u32::MAX, action::OUTLET),
    ] {
        assert_eq!(through(ifindex), action, "{ifindex}");
    }
}

#[test]
fn more_different_sets_than_there_are_numbers_are_refused_and_nothing_changes() {
    // Each address alone, and each pair of neighbours, by two rules of eight thousand.
    let address = |n: u32| IpNet::from(IpAddr::from(Ipv4Addr::from(0xc000_0000 + n)));
    let rule = |bit: u32| {
        let nets = (0..9_000).filter(|n| n >> bit & 1 != 0).map(address).collect();
        Rule { destinations: Some(nets), ..Rule::any(Action::Block) }
    };
    let rules: Vec<Rule> = (0..14).map(rule).collect();
    let mut policy = Policy::default();
    let refused = policy.set_rules(&rules);
    assert!(matches!(refused, Err(TooMuch::Sets { count }) if count > POLICY_SETS), "{refused:?}");
    assert_eq!(policy.image().state(), PolicyState::default());
}

#[test]
fn more_prefixes_than_there_is_room_for_are_refused() {
    let address = |n: u32| IpNet::from(IpAddr::from(Ipv4Addr::from(0xc000_0000 + n)));
    let nets: Vec<IpNet> = (0..POLICY_PREFIXES as u32 / 2 - 2).map(address).collect();
    let mut rule = Rule { destinations: Some(nets), ..Rule::any(Action::Block) };
    let mut policy = Policy::default();
    policy.set_rules(std::slice::from_ref(&rule)).expect("room");
    let one_more = address(1 << 20);
    rule.destinations.as_mut().expect("a list").push(one_more);
    let full = policy.set_rules(&[rule]);
    assert!(matches!(full, Err(TooMuch::Prefixes { .. })), "{full:?}");
}

#[test]
fn a_change_writes_little_more_than_itself() {
    let mut rules: Vec<Rule> = (1..=200).map(of_port).collect();
    let mut policy = Policy::default();
    policy.set_rules(&rules).expect("room");
    policy.set_rules(&rules).expect("room");
    // Both banks say it now: only the switch is left.
    assert_eq!(policy.set_rules(&rules).expect("room").len(), 1);
    rules[7].active = false;
    let writes = policy.set_rules(&rules).expect("room");
    assert!(writes.len() <= 3, "{writes:?}");
    policy.set_rules(&rules).expect("room");
    // A rule of its own port: three places of ports, what tells that there is one more
    // rule, and the rule.
    rules.push(of_port(10_000));
    let writes = policy.set_rules(&rules).expect("room");
    let places = writes.iter().filter(|write| matches!(write, Write::Places { .. })).count();
    assert!(places <= 2, "{places} entries of places");
    assert!(writes.len() < 300, "{}", writes.len());
}

#[test]
fn without_rules_nothing_is_asked() {
    let mut policy = Policy::default();
    assert_eq!(policy.set_rules(&[]).expect("room"), []);
    policy.set_rules(&[Rule::any(Action::Block)]).expect("room");
    let writes = policy.set_rules(&[]).expect("room");
    assert!(matches!(writes[..], [Write::State(PolicyState { words: 0, .. })]), "{writes:?}");
    assert_eq!(found(policy.image(), &samples()[0]), None);
}
