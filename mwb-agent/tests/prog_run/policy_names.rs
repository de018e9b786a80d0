//! Policy rules by name: which group an address is of, for how long, and what that changes.

use std::net::IpAddr;

use mwb_common::policy::{Action, Rule};

use crate::gateway::Gateway;
use crate::lasting::in_a_gateway;
use crate::policy::{STRICT, Sent, net, rule, sent, set_outlets};
use crate::world::{OTHER_REMOTE, PORT, REMOTE, REMOTE6, host_tcp, host_udp, v6};

fn by_name(names: &[u16], action: Action) -> Rule {
    rule(action, |r| r.names = Some(names.to_vec()))
}

#[test]
fn an_address_of_a_name_is_steered_until_its_time_is_over() {
    in_a_gateway("an_address_of_a_name_is_steered_until_its_time_is_over", |gateway, _| {
        set_outlets(gateway);
        gateway.set_name_group(1, &[7]);
        gateway.set_policy(&[by_name(&[3, 7], Action::Outlet(STRICT))]);
        gateway.set_name_group(2, &[8]);
        let packets = |port| [host_udp(port), host_tcp(port), v6(&host_udp(port))];
        let mut port = PORT;
        let mut all_leave_by = |gateway: &mut Gateway, path: u8, what: &str| {
            for packet in packets(port) {
                assert_eq!(sent(gateway, &packet), Sent::By(path), "{what}");
            }
            port += 1;
        };
        all_leave_by(gateway, 1, "no address is known");
        let addresses = [IpAddr::from(REMOTE), IpAddr::from(REMOTE6)];
        let name = |gateway: &mut Gateway, group, seconds| {
            addresses.iter().for_each(|one| gateway.name_address(*one, group, seconds));
        };
        name(gateway, 1, 60);
        all_leave_by(gateway, 2, "its addresses are known");
        name(gateway, 2, 60);
        all_leave_by(gateway, 1, "they are of another name");
        gateway.set_name_group(2, &[8, 3]);
        all_leave_by(gateway, 2, "they are of both");
        name(gateway, 2, -1);
        all_leave_by(gateway, 1, "their time is over");
        name(gateway, 1, 60);
        all_leave_by(gateway, 2, "they have another time");
        // Another bank of tables says the same of what is known.
        gateway.set_policy(&[
            rule(Action::Block, |r| r.ports = Some(vec![(1, 1)])),
            by_name(&[7], Action::Outlet(STRICT)),
        ]);
        all_leave_by(gateway, 2, "a rule more");
        gateway.set_policy(&[by_name(&[8], Action::Outlet(STRICT))]);
        all_leave_by(gateway, 1, "a rule for another name");
    });
}

#[test]
fn a_rule_by_name_stands_in_the_order_of_all() {
    in_a_gateway("a_rule_by_name_stands_in_the_order_of_all", |gateway, _| {
        set_outlets(gateway);
        let near = |net: &str| {
            rule(Action::Default, |r| r.destinations = Some(vec![crate::policy::net(net)]))
        };
        let named = by_name(&[7], Action::Outlet(STRICT));
        let here = format!("{REMOTE}/32");
        let both = Rule { destinations: Some(vec![net("198.51.100.0/24")]), ..named.clone() };
        let here_too = Rule { destinations: Some(vec![net(&here)]), ..named.clone() };
        gateway.set_name_group(1, &[7]);
        gateway.name_address(REMOTE.into(), 1, 60);
        for (port, (rules, path)) in (PORT..).zip([
            (vec![near(&here), named.clone()], 1),
            (vec![named.clone(), near(&here)], 2),
            (vec![both, near(&here)], 1),
            (vec![here_too], 2),
            (vec![near("198.51.100.0/24"), named], 2),
        ]) {
            gateway.set_policy(&rules);
            assert_eq!(sent(gateway, &host_udp(port)), Sent::By(path), "{rules:?}");
            // Of this one nobody knows a name.
            let other = host_udp(port).with(|p| p.destination = OTHER_REMOTE.into());
            assert_eq!(sent(gateway, &other), Sent::By(1), "{rules:?}");
        }
    });
}
