//! Groups of names: what they cost, and what is refused.

use std::net::Ipv4Addr;

use super::*;

fn packet() -> Asked {
    let address = Ipv4Addr::new(192, 0, 2, 1).into();
    let packet = Properties { protocol: 17, ..Properties::default() };
    Asked { source: address, destination: address, names: NameBits::NONE, packet }
}

fn named(names: &[u16]) -> Rule {
    Rule { names: Some(names.to_vec()), ..Rule::any(Action::Outlet(3)) }
}

#[test]
fn a_group_that_matches_as_another_is_one_write() {
    let mut policy = Policy::default();
    policy.set_rules(&[named(&[5, 7]), named(&[8]), Rule::any(Action::Block)]).expect("room");
    let mut bits = NameBits::NONE;
    bits.add(5);
    let writes = policy.set_group(1, bits).expect("room");
    assert!(matches!(writes[..], [Write::Set { .. }, Write::Places { .. }]), "{writes:?}");
    bits.add(6);
    for group in 2..1_024 {
        let writes = policy.set_group(group, bits).expect("room");
        assert!(matches!(writes[..], [Write::Places { .. }]), "{writes:?}");
    }
    assert_eq!(policy.set_group(9, bits).expect("room"), []);
    for number in [0, 1_024] {
        assert_eq!(policy.set_group(number, bits), Err(TooMuch::Names { number }));
    }
    let refused = policy.set_rules(&[named(&[1_024])]);
    assert_eq!(refused, Err(TooMuch::Names { number: 1_024 }));
}

#[test]
fn numbers_that_are_given_back_are_taken_again() {
    // Each group has a set of its own, far more than there are numbers, in turn.
    let rules: Vec<Rule> = (0..1_000).map(|name| named(&[name])).collect();
    let mut policy = Policy::default();
    policy.set_rules(&rules).expect("room");
    for turn in 0..3 * POLICY_SETS {
        let mut bits = NameBits::NONE;
        bits.add(turn % 1_000);
        policy.set_group(1, bits).expect("room");
    }
}

#[test]
fn rules_that_ask_for_no_name_have_no_names_asked_for() {
    let mut policy = Policy::default();
    policy.set_rules(&[Rule::any(Action::Block)]).expect("room");
    assert_eq!(policy.image().state().asks, 0);
    let mut bits = NameBits::NONE;
    bits.add(1);
    assert_eq!(policy.set_group(1, bits).expect("room"), []);
    policy.set_rules(&[named(&[1]), Rule::any(Action::Block)]).expect("room");
    assert_eq!(policy.image().state().asks, asks::NAME);
    let by = |group| policy.image().first(&packet(), group).map(|rule| rule.outlet);
    assert_eq!((by(0), by(1), by(2)), (Some(0), Some(3), Some(0)));
    policy.set_rules(&[]).expect("room");
    assert_eq!(policy.image().state().asks, 0);
}

#[test]
fn an_address_is_of_its_group_until_its_time_is_over() {
    let named = Named::new(1_023, 5_000_000_000);
    assert_eq!(named.group(), 1_023);
    assert_eq!((named.group_at(0), named.group_at(4_999_900_000)), (1_023, 1_023));
    assert_eq!((named.group_at(5_000_000_000), named.group_at(u64::MAX)), (0, 0));
    assert_eq!(
        NamedAddress::v4([192, 0, 2, 1]).0,
        Ipv4Addr::new(192, 0, 2, 1).to_ipv6_mapped().octets()
    );
}
