//! What holds whatever is wanted and whatever is there.

use netlink_packet_route::route::RouteProtocol;
use netlink_packet_route::rule::RuleAttribute;
use proptest::prelude::*;

use super::super::rules::Then;
use super::super::{KernelAction, PRIORITIES, ROUTE_PROTOCOL};
use super::*;

/// The kernel of a test: what is ours in it, as it would tell.
fn world(rules: &[Rule], routes: &[TableRoute]) -> There {
    There {
        rules: rules.iter().filter_map(|rule| rule_message::there(rule.message())).collect(),
        routes: routes.iter().filter_map(|route| table_routes::there(route.message())).collect(),
        has_ipv6: true,
    }
}

fn address() -> impl Strategy<Value = IpAddr> {
    (1_u8..6, any::<bool>()).prop_map(|(last, v6)| {
        let six = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, u16::from(last));
        if v6 { six.into() } else { Ipv4Addr::new(198, 51, 100, last).into() }
    })
}

fn subnet() -> impl Strategy<Value = IpNet> {
    (address(), 24_u8..33).prop_map(|(ip, length)| IpNet::new_assert(ip, length).trunc())
}

fn wan_table(path: u8) -> impl Strategy<Value = WanTable> {
    let gateway4 = proptest::option::of(proptest::option::of(
        (1_u8..4).prop_map(|last| Ipv4Addr::new(198, 51, 100, last)),
    ));
    let gateway6 = proptest::option::of(proptest::option::of(
        (1_u16..4).prop_map(|last| Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, last)),
    ));
    let addresses = proptest::collection::vec(address(), 0..4);
    let subnets = proptest::collection::vec(subnet(), 0..3);
    let ifindex = proptest::option::of(2_u32..5);
    (ifindex, addresses, subnets, gateway4, gateway6, any::<bool>()).prop_map(
        move |(ifindex, addresses, subnets, gateway4, gateway6, usable)| WanTable {
            path,
            device: format!("wan{path}"),
            ifindex,
            addresses,
            subnets,
            gateway4,
            gateway6,
            usable,
        },
    )
}

fn action() -> impl Strategy<Value = KernelAction> {
    prop_oneof![
        (proptest::collection::vec(1_u8..6, 0..4), any::<bool>())
            .prop_map(|(paths, strict)| KernelAction::Tables { paths, strict }),
        Just(KernelAction::Main),
        Just(KernelAction::Unreachable),
        Just(KernelAction::Blackhole),
    ]
}

fn port_range() -> impl Strategy<Value = Option<(u16, u16)>> {
    proptest::option::of((1_u16..100, 100_u16..65_535))
}

fn kernel_rule() -> impl Strategy<Value = KernelRule> {
    let device = proptest::option::of(Just("lan0".to_owned()));
    let mark = proptest::option::of((any::<u32>(), 1_u32..));
    let protocol = proptest::option::of(1_u8..);
    let nets = proptest::option::of(subnet());
    (
        nets,
        protocol,
        port_range(),
        port_range(),
        proptest::option::of(0_u8..64),
        device,
        mark,
        action(),
    )
        .prop_map(|(from, protocol, source_ports, ports, dscp, device_in, mark, action)| {
            KernelRule {
                from,
                to: None,
                protocol,
                source_ports,
                ports,
                dscp,
                device_in,
                mark,
                action,
            }
        })
}

prop_compose! {
    fn anything()(
        wans in (1_usize..6).prop_flat_map(|count| {
            (1..=count as u8).map(|path| wan_table(path).boxed()).collect::<Vec<_>>()
        }),
        apart in proptest::collection::vec(subnet(), 0..4),
        rules in proptest::collection::vec(kernel_rule(), 0..6),
    ) -> Wanted {
        Wanted { wans, apart, rules }
    }
}

fn rules_of(wanted: &Wanted) -> Vec<Rule> {
    rules::rules(wanted).unwrap_or_else(|error| panic!("{error}: {wanted:?}"))
}

proptest! {
    #[test]
    fn from_whatever_is_there_one_round_leads_to_what_is_wanted(
        before in anything(),
        after in anything(),
    ) {
        let there = world(&rules_of(&before), &table_routes::routes(&before));
        let (rules, routes) = (rules_of(&after), table_routes::routes(&after));
        let plan = plan(&there, &rules, &routes);
        // As the kernel would do it.
        let mut now: Vec<Rule> = rules_of(&before);
        for rule in &plan.rules {
            prop_assert!(!now.contains(rule), "{rule:?} is there");
            now.push((*rule).clone());
        }
        for old in &plan.old_rules {
            let place = now.iter().position(|rule| old.rule.as_ref() == Some(rule));
            now.remove(place.expect("it was there"));
        }
        now.sort();
        prop_assert_eq!(&now, &rules);
        let mut now: Vec<TableRoute> = table_routes::routes(&before);
        for (route, replace) in &plan.routes {
            let same = |old: &TableRoute| {
                old.table == route.table && old.destination == route.destination
            };
            prop_assert_eq!(now.iter().any(same), *replace);
            now.retain(|old| !same(old));
            now.push((*route).clone());
        }
        for old in &plan.old_routes {
            now.retain(|route| old.route.as_ref() != Some(route));
        }
        prop_assert_eq!(now.len(), routes.len());
        prop_assert!(routes.iter().all(|route| now.contains(route)));
        let after = world(&rules, &routes);
        let again = super::plan(&after, &rules, &routes);
        prop_assert!(again.rules.is_empty() && again.routes.is_empty());
        prop_assert!(again.old_rules.is_empty() && again.old_routes.is_empty());
    }

    #[test]
    fn what_is_removed_is_all_of_ours_and_nothing_of_others(
        wanted in anything(),
        protocol in (0_u8..).prop_filter("another's", |protocol| *protocol != ROUTE_PROTOCOL),
        outside in (0_u32..60_000).prop_filter("out of ours", |is| !PRIORITIES.contains(is)),
    ) {
        let (rules, routes) = (rules_of(&wanted), table_routes::routes(&wanted));
        let there = world(&rules, &routes);
        let plan = plan(&there, &[], &[]);
        prop_assert_eq!(plan.old_rules.len(), rules.len());
        prop_assert_eq!(plan.old_routes.len(), routes.len());
        prop_assert!(plan.rules.is_empty() && plan.routes.is_empty());
        for rule in &rules {
            // The same, but for whose it is.
            let mut message = rule.message();
            for attribute in &mut message.attributes {
                if let RuleAttribute::Protocol(is) = attribute {
                    *is = RouteProtocol::from(protocol);
                }
            }
            prop_assert!(rule_message::there(message).is_none());
            let elsewhere = Rule { priority: outside, ..rule.clone() };
            prop_assert!(rule_message::there(elsewhere.message()).is_none());
        }
        for route in &routes {
            let mut message = route.message();
            message.header.protocol = RouteProtocol::from(protocol);
            let foreign = table_routes::there(message).expect("it is in the table");
            prop_assert!(!foreign.is_ours);
            let foreign = There { rules: Vec::new(), routes: vec![foreign], has_ipv6: true };
            prop_assert!(super::plan(&foreign, &[], &[]).old_routes.is_empty());
            let elsewhere = TableRoute { table: route.table + 100, ..route.clone() };
            prop_assert!(table_routes::there(elsewhere.message()).is_none());
        }
    }

    #[test]
    fn a_rule_is_read_as_it_was_written(wanted in anything()) {
        for rule in rules_of(&wanted) {
            let there = rule_message::there(rule.message()).and_then(|there| there.rule);
            prop_assert_eq!(there, Some(rule));
        }
        for route in table_routes::routes(&wanted) {
            let there = table_routes::there(route.message()).and_then(|there| there.route);
            prop_assert_eq!(there, Some(route));
        }
    }

    #[test]
    fn whoever_has_an_address_or_a_device_of_a_wan_has_an_end(wanted in anything()) {
        let rules = rules_of(&wanted);
        for rule in rules.iter().filter(|rule| rule.priority < 7_750) {
            let ends = |other: &&Rule| {
                other.then == Then::Unreachable
                    && other.v6 == rule.v6
                    && other.selector == rule.selector
                    && other.priority >= rule.priority
            };
            let goes_on = matches!(rule.then, Then::Goto(target)
                if rules.iter().any(|other| other.priority == target && other.v6 == rule.v6));
            prop_assert!(goes_on || rules.iter().any(|other| ends(&other)), "{rule:?}");
        }
    }
}

#[test]
fn what_the_kernel_would_refuse_or_misread_is_refused_here() {
    let net = |text: &str| text.parse::<IpNet>().ok();
    let device = |name: &str| Some(name.to_owned());
    let wrong = [
        (KernelRule { ports: Some((0, 9)), ..KernelRule::default() }, "1 to 65534"),
        (KernelRule { ports: Some((9, 8)), ..KernelRule::default() }, "9 to 8"),
        (KernelRule { source_ports: Some((1, 65_535)), ..KernelRule::default() }, "1 to 65534"),
        (KernelRule { dscp: Some(64), ..KernelRule::default() }, "DSCP 64"),
        (KernelRule { protocol: Some(0), ..KernelRule::default() }, "protocol 0"),
        (KernelRule { mark: Some((1, 0)), ..KernelRule::default() }, "no bit counts"),
        (KernelRule { device_in: device("a-name-too-long0"), ..KernelRule::default() }, "no name"),
        (
            KernelRule {
                from: net("192.0.2.0/24"),
                to: net("2001:db8::/32"),
                ..KernelRule::default()
            },
            "of one family",
        ),
    ];
    for (rule, why) in wrong {
        let wanted = Wanted { rules: vec![KernelRule::default(), rule], ..Wanted::default() };
        let error = rules::rules(&wanted).expect_err(why).to_string();
        assert!(error.contains(why) && error.contains("rule 1"), "{error}");
    }
}

#[test]
fn more_rules_than_there_are_priorities_are_refused() {
    let of = |count| Wanted { rules: vec![KernelRule::default(); count], ..Wanted::default() };
    // Each takes two: what main knows better, and the end.
    let most = rules::rules(&of(574)).expect("they fit");
    assert_eq!(most.len(), 2 * 2 * 574);
    assert!(most.iter().all(|rule| (7_750..=8_898).contains(&rule.priority)));
    let error = rules::rules(&of(575)).expect_err("one too many").to_string();
    assert!(error.contains("575 rules"), "{error}");
}
