//! Policy rules as they stand in the kernel's tables, and what an agent finds of them.

use std::net::IpAddr;

use ipnet::IpNet;
use mwb_common::policy::{
    Action, Asked, NameBits, Named, NamedAddress, OUTLETS, POLICY_RULES, PolicyRule, Properties,
    Rule, TooMuch, action,
};

use super::testing::{in_network, maps_alone};
use super::*;

fn net(text: &str) -> IpNet {
    text.parse().expect("a prefix")
}

fn to(nets: &[&str], action: Action) -> Rule {
    let destinations = Some(nets.iter().map(|text| net(text)).collect());
    Rule { destinations, ..Rule::any(action) }
}

fn asked(destination: &str) -> Asked {
    let address = |text: &str| text.parse::<IpAddr>().expect("an address");
    let packet = Properties { protocol: 17, port: 443, ..Properties::default() };
    let (source, destination) = (address("192.0.2.9"), address(destination));
    Asked { source, destination, names: NameBits::NONE, packet }
}

/// What the kernel's tables say, read from them.
fn found(plane: &DataPlane, destination: &str) -> Option<PolicyRule> {
    found_of(plane, destination, 0)
}

/// The same of an address of a group of names.
fn found_of(plane: &DataPlane, destination: &str, group: u16) -> Option<PolicyRule> {
    plane.policy.read().expect("a read").first(&asked(destination), group)
}

fn names(numbers: &[usize]) -> NameBits {
    let mut names = NameBits::NONE;
    numbers.iter().for_each(|number| names.add(*number));
    names
}

fn of_name(number: u16, action: Action) -> Rule {
    Rule { names: Some(vec![number]), ..Rule::any(action) }
}

fn by(outlet: u8) -> Option<PolicyRule> {
    Some(PolicyRule { action: action::OUTLET, outlet, hits: 0 })
}

#[test]
fn the_tables_say_what_was_asked_for_last() {
    in_network("the_tables_say_what_was_asked_for_last", || {
        let mut plane = maps_alone("policy");
        let first = [
            to(&["203.0.113.7/32"], Action::Outlet(1)),
            to(&["203.0.113.0/24", "2001:db8:ff::/48"], Action::Outlet(2)),
        ];
        plane.set_policy(&first).expect("room");
        assert_eq!(found(&plane, "203.0.113.7"), by(1));
        assert_eq!(found(&plane, "203.0.113.8"), by(2));
        assert_eq!(found(&plane, "2001:db8:ff::1"), by(2));
        assert_eq!(found(&plane, "198.51.100.1"), None);
        plane.set_policy(&[to(&["198.51.100.0/24"], Action::Outlet(3))]).expect("room");
        assert_eq!(found(&plane, "203.0.113.7"), None);
        assert_eq!(found(&plane, "198.51.100.1"), by(3));
        plane.set_policy(&[]).expect("a write");
        assert_eq!(found(&plane, "198.51.100.1"), None);
    });
}

#[test]
fn an_agent_that_finds_rules_replaces_them_whole() {
    in_network("an_agent_that_finds_rules_replaces_them_whole", || {
        let mut plane = maps_alone("policy");
        plane.set_policy(&[to(&["203.0.113.7/32"], Action::Outlet(1))]).expect("room");
        plane.set_policy(&[to(&["203.0.113.8/32"], Action::Outlet(2))]).expect("room");
        // As after a start: only the tables know.
        plane.policy.policy = None;
        plane.set_policy(&[to(&["203.0.113.9/32"], Action::Outlet(3))]).expect("room");
        for (last, expected) in [(7, None), (8, None), (9, by(3))] {
            assert_eq!(found(&plane, &format!("203.0.113.{last}")), expected, "{last}");
        }
    });
}

#[test]
fn rules_that_do_not_fit_leave_those_before() {
    in_network("rules_that_do_not_fit_leave_those_before", || {
        let mut plane = maps_alone("policy");
        plane.set_policy(&[to(&["203.0.113.7/32"], Action::Outlet(1))]).expect("room");
        let many = vec![Rule::any(Action::Block); POLICY_RULES + 1];
        let refused = plane.set_policy(&many);
        assert!(matches!(refused, Err(Error::Policy(TooMuch::Rules { .. }))), "{refused:?}");
        assert_eq!(found(&plane, "203.0.113.7"), by(1));
    });
}

#[test]
fn every_outlet_has_a_selection_of_its_own_and_others_are_refused() {
    in_network("every_outlet_has_a_selection_of_its_own_and_others_are_refused", || {
        let mut plane = maps_alone("policy");
        let selection = |path| {
            let share = mwb_common::select::Share { path, weight: 1 };
            mwb_common::select::compile(&[share], &[path], 0)
        };
        let last = u8::try_from(OUTLETS - 1).expect("a small number");
        for (outlet, path) in [(0, 1), (1, 2), (last, 3)] {
            plane.set_outlet(outlet, Family::V6, &selection(path)).expect("a write");
        }
        assert_eq!(plane.selection(Family::V6).expect("a read"), selection(1));
        assert_eq!(plane.outlet(1, Family::V6).expect("a read"), selection(2));
        assert_eq!(plane.outlet(last, Family::V6).expect("a read"), selection(3));
        assert!(!plane.outlet(1, Family::V4).expect("a read").has(2));
        let refused = plane.set_outlet(last + 1, Family::V4, &selection(1));
        assert!(matches!(refused, Err(Error::Outlet(_))), "{refused:?}");
    });
}

#[test]
fn groups_of_names_mean_the_same_to_the_next_agent() {
    in_network("groups_of_names_mean_the_same_to_the_next_agent", || {
        let mut plane = maps_alone("policy");
        plane.set_name_group(1, names(&[7])).expect("a write");
        plane
            .set_policy(&[of_name(7, Action::Outlet(1)), of_name(8, Action::Outlet(2))])
            .expect("room");
        plane.set_name_group(2, names(&[8, 9])).expect("a write");
        for (group, expected) in [(0, None), (1, by(1)), (2, by(2)), (3, None)] {
            assert_eq!(found_of(&plane, "203.0.113.7", group), expected, "{group}");
        }
        // As after a start: only the tables know.
        plane.policy.policy = None;
        plane
            .set_policy(&[of_name(9, Action::Outlet(3)), of_name(7, Action::Block)])
            .expect("room");
        for (group, expected) in [(1, Some(action::BLOCK)), (2, Some(action::OUTLET)), (3, None)] {
            let found = found_of(&plane, "203.0.113.7", group);
            assert_eq!(found.map(|rule| rule.action), expected, "{group}");
        }
        let refused = plane.set_name_group(1_024, names(&[1]));
        assert!(refused.is_err(), "{refused:?}");
    });
}

#[test]
fn addresses_and_names_are_found_as_they_were_left() {
    in_network("addresses_and_names_are_found_as_they_were_left", || {
        let plane = maps_alone("policy");
        let tables = plane.named();
        let (first, second) = (NamedAddress::v4([203, 0, 113, 7]), NamedAddress([7; 16]));
        tables.put(first, Named::new(1, 1 << 20)).expect("room");
        tables.put(second, Named::new(2, 1 << 30)).expect("room");
        tables.put(first, Named::new(3, 1 << 40)).expect("room");
        tables.remove(second).expect("a write");
        tables.remove(second).expect("it is gone already");
        assert_eq!(tables.addresses().expect("a read"), [(first, Named::new(3, 1 << 40))]);
        tables.set_name(1_023, 77).expect("a write");
        assert!(tables.set_name(1_024, 77).is_err());
        let names = tables.names().expect("a read");
        assert_eq!((names.len(), names[1_023], names[0]), (1_024, 77, 0));
        assert_eq!(tables.groups().expect("a read").len(), 1_024);
    });
}
