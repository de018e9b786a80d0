use std::net::IpAddr;

use mwb_common::policy::{Asked, NameBits, Properties, first_match};
use proptest::prelude::*;

use super::*;
use crate::config::parse;

const FILE: &str = "\
version: 1
mode: steer
lan: [lan0, lan1]
wans:
  - {name: fiber, device: wan0}
  - {name: lte, device: wan1, priority: 1}
policy:
  rules:
";

fn config(rules: &[String]) -> Config {
    let rules: Vec<String> = rules.iter().map(|rule| format!("    - {rule}\n")).collect();
    let text = format!("{FILE}{}", rules.concat());
    parse(&text, "f").unwrap_or_else(|error| panic!("{}", error.render()))
}

fn compiled(config: &Config, ports: &[(&str, u32)], active: Option<Vec<bool>>) -> Vec<Rule> {
    let mut numbers = Numbers::default();
    numbers.follow(config);
    let mut slots = Slots::default();
    slots.follow(&config.policy, |_| 0);
    let facts = Facts {
        names: config.policy.domains().into_iter().cloned().zip(5..).collect(),
        ports: ports.iter().map(|(name, index)| ((*name).to_owned(), *index)).collect(),
        active: active.unwrap_or_else(|| vec![true; config.policy.rules.len()]),
    };
    rules(config, &facts, &numbers, &slots)
}

const PACKET: Properties = Properties {
    ifindex: 7,
    mark: 16,
    source_port: 5_000,
    port: 443,
    protocol: 17,
    dscp: 46,
    mac: [2, 0, 0, 0, 0, 1],
};

fn asked(packet: Properties) -> Asked {
    let address = |text: &str| text.parse::<IpAddr>().expect(text);
    let mut names = NameBits::NONE;
    names.add(6);
    Asked { source: address("192.0.2.10"), destination: address("203.0.113.5"), names, packet }
}

#[test]
fn each_key_asks_for_what_it_says() {
    for (rule, expected) in [
        ("source: 192.0.2.0/28", true),
        ("source: 192.0.2.16/28", false),
        ("source: [192.0.2.16/28, 192.0.2.10/32]", true),
        ("destination: 203.0.113.0/24", true),
        ("destination: \"2001:db8::/32\"", false),
        ("domain: [example.net, \"*.example.org\"]", true),
        ("domain: example.net", false),
        ("destination: 203.0.113.0/24, domain: [example.net, example.org]", true),
        ("destination: 198.51.100.0/24, domain: [example.net, example.org]", false),
        ("protocol: udp", true),
        ("protocol: [tcp, sctp]", false),
        ("port: 443", true),
        ("port: [80, 400-442]", false),
        ("source_port: 1024-65535", true),
        ("source_port: 443", false),
        ("dscp: ef", true),
        ("dscp: cs0", false),
        ("lan: lan0", true),
        ("lan: lan1", false),
        ("mac: \"02:00:00:00:00:01\"", true),
        ("mac: \"02:00:00:00:00:02\"", false),
        ("mark: 0x10", true),
        ("mark: [0x11, 0x110]", false),
    ] {
        let config = config(&[format!("{{{rule}, use: lte}}")]);
        let rules = compiled(&config, &[("lan0", 7), ("lan1", 8)], None);
        let matched = first_match(&rules, &asked(PACKET)).is_some();
        assert_eq!(matched, expected, "{rule}");
    }
}

#[test]
fn a_rule_for_a_port_that_is_not_there_is_for_no_port() {
    let config = config(&["{lan: lan1, use: block}".to_owned()]);
    let rules = compiled(&config, &[("lan0", 7)], None);
    for ifindex in [0, 7, 8] {
        assert_eq!(first_match(&rules, &asked(Properties { ifindex, ..PACKET })), None);
    }
}

#[test]
fn actions_and_counters_are_those_of_the_rule() {
    let rules = [
        "{port: 443, time: {days: mon}, use: block}",
        "{dscp: 0, use: default}",
        "{name: a, port: 443, use: lte}",
        "{use: {priority: 1}}",
    ];
    let config = config(&rules.map(str::to_owned));
    let rules = compiled(&config, &[], None);
    let actions: Vec<Action> = rules.iter().map(|rule| rule.action).collect();
    assert_eq!(actions[..2], [Action::Block, Action::Default]);
    assert!(matches!(actions[2], Action::Outlet(1..=63)));
    assert_eq!(actions[2], actions[3]);
    assert_eq!(rules.iter().map(|rule| rule.hits).collect::<Vec<_>>(), [0, 1, 2, 3]);
    assert_eq!(first_match(&rules, &asked(PACKET)), Some(0));
    let later = compiled(&config, &[], Some(vec![false, true, true, true]));
    assert_eq!(first_match(&later, &asked(PACKET)), Some(2));
}

#[test]
fn a_rule_with_a_time_counts_while_that_is() {
    let rules = ["{time: {days: tue}, use: block}", "{use: lte}"];
    let config = config(&rules.map(str::to_owned));
    let at = |day| active(&config.policy.rules, Moment { day, minute: 600 });
    assert_eq!(at(0), [false, true]);
    assert_eq!(at(1), [true, true]);
}

proptest! {
    /// What the words say, against ranges and lists that are asked by hand.
    #[test]
    fn the_first_rule_of_the_file_that_fits_is_met(
        wanted in prop::collection::vec((0_u16..4, 1_u16..6, 1_u16..6, prop::bool::ANY), 1..12),
        port in 1_u16..6,
        udp: bool,
    ) {
        let mut seen = std::collections::BTreeSet::new();
        let wanted: Vec<_> = wanted
            .into_iter()
            .map(|(kind, a, b, udp)| (kind, a.min(b), a.max(b), udp))
            .filter(|wanted| seen.insert(*wanted))
            .collect();
        let text = |(kind, low, high, udp): &(u16, u16, u16, bool)| {
            let protocol = if *udp { "udp" } else { "tcp" };
            let host = 10 + kind;
            format!(
                "{{source: 192.0.2.{host}/32, port: {low}-{high}, protocol: {protocol}, use: block}}"
            )
        };
        let config = config(&wanted.iter().map(text).collect::<Vec<_>>());
        let protocol = if udp { 17 } else { 6 };
        let expected = wanted.iter().position(|(kind, low, high, of_udp)| {
            *kind == 0 && (*low..=*high).contains(&port) && *of_udp == udp
        });
        let packet = asked(Properties { port, protocol, ..PACKET });
        prop_assert_eq!(first_match(&compiled(&config, &[], None), &packet), expected);
    }
}
