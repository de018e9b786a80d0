//! Policy rules for what the gateway itself sends, and for what its data plane leaves to
//! the kernel: the same rules once more, as the kernel's routing takes them. Pure.
//!
//! Must not know: netlink.

use ipnet::IpNet;

use crate::config::{Fallback, Policy, PolicyAction, PolicyMatch};
use crate::net::{KernelAction, KernelRule};

/// More rules than there is room for are refused by whoever lays them down; none need be
/// made beyond that.
const MOST: usize = 2_000;

/// The policy as rules of the kernel, in its order. `path` knows the id of a WAN by its
/// name, `is_active` whether the rule of that place counts at this time. Rules by MAC are
/// for packets from the LAN only: no packet of our own has one.
pub(super) fn kernel_rules(
    policy: &Policy,
    path: impl Fn(&str) -> Option<u8>,
    is_active: impl Fn(usize) -> bool,
) -> Vec<KernelRule> {
    let mut rules = Vec::new();
    for (index, rule) in policy.rules.iter().enumerate() {
        if !is_active(index) || !rule.matches.macs.is_empty() {
            continue;
        }
        let action = match &rule.action {
            PolicyAction::Outlet(outlet) => KernelAction::Tables {
                paths: outlet.wans.iter().filter_map(|wan| path(wan)).collect(),
                strict: outlet.fallback == Fallback::Strict,
            },
            PolicyAction::Block => KernelAction::Blackhole,
            PolicyAction::Default => KernelAction::Main,
        };
        let selected = selections(&rule.matches).into_iter();
        rules.extend(selected.map(|rule| KernelRule { action: action.clone(), ..rule }));
        if rules.len() > MOST {
            break;
        }
    }
    rules
}

/// One rule for each combination of what is listed: the kernel's take one of each.
fn selections(matches: &PolicyMatch) -> Vec<KernelRule> {
    let mut rules = vec![KernelRule::default()];
    each(&mut rules, &matches.source, |rule, net| rule.from = Some(*net));
    each(&mut rules, &matches.destination, |rule, net| rule.to = Some(*net));
    each(&mut rules, &matches.protocols, |rule, number| rule.protocol = Some(*number));
    let range = |range: &std::ops::RangeInclusive<u16>| (*range.start(), *range.end());
    each(&mut rules, &matches.source_ports, |rule, ports| rule.source_ports = Some(range(ports)));
    each(&mut rules, &matches.ports, |rule, ports| rule.ports = Some(range(ports)));
    each(&mut rules, &matches.dscps, |rule, dscp| rule.dscp = Some(*dscp));
    each(&mut rules, &matches.lan, |rule, lan| rule.device_in = Some(lan.clone()));
    each(&mut rules, &matches.marks, |rule, mark| rule.mark = Some((*mark, u32::MAX)));
    // A pair of families has no packet.
    let is_mixed = |from: &IpNet, to: &IpNet| from.addr().is_ipv4() != to.addr().is_ipv4();
    rules.retain(|rule| !rule.from.zip(rule.to).is_some_and(|(from, to)| is_mixed(&from, &to)));
    rules
}

/// Has each rule once for each of the values; once as it is without any.
fn each<T>(rules: &mut Vec<KernelRule>, values: &[T], set: impl Fn(&mut KernelRule, &T)) {
    if values.is_empty() {
        return;
    }
    let before = std::mem::take(rules);
    for rule in before {
        for value in values {
            // Beyond what is taken in the end nothing need be kept.
            if rules.len() > MOST {
                return;
            }
            let mut one = rule.clone();
            set(&mut one, value);
            rules.push(one);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Outlet, PolicyRule};

    fn net(text: &str) -> IpNet {
        text.parse().expect("a prefix")
    }

    fn rule(matches: PolicyMatch, action: PolicyAction) -> PolicyRule {
        PolicyRule { name: None, matches, time: None, action }
    }

    fn outlet(fallback: Fallback) -> PolicyAction {
        let wans = vec!["lte".to_owned(), "gone".to_owned(), "fiber".to_owned()];
        PolicyAction::Outlet(Outlet { wans, balance: None, fallback })
    }

    fn path(wan: &str) -> Option<u8> {
        ["fiber", "lte"]
            .iter()
            .position(|name| *name == wan)
            .and_then(|at| u8::try_from(at + 1).ok())
    }

    #[test]
    fn each_combination_is_a_rule_and_pairs_of_families_are_none() {
        let matches = PolicyMatch {
            source: vec![net("192.0.2.0/24"), net("2001:db8::/32")],
            destination: vec![net("203.0.113.0/24"), net("2001:db8:ff::/48")],
            protocols: vec![6],
            ports: vec![80..=80, 443..=444],
            ..PolicyMatch::default()
        };
        let policy = Policy { rules: vec![rule(matches, outlet(Fallback::Strict))] };
        let rules = kernel_rules(&policy, path, |_| true);
        let action = KernelAction::Tables { paths: vec![2, 1], strict: true };
        let of = |from: &str, to: &str, ports| KernelRule {
            from: Some(net(from)),
            to: Some(net(to)),
            protocol: Some(6),
            ports: Some(ports),
            action: action.clone(),
            ..KernelRule::default()
        };
        let expected = [
            of("192.0.2.0/24", "203.0.113.0/24", (80, 80)),
            of("192.0.2.0/24", "203.0.113.0/24", (443, 444)),
            of("2001:db8::/32", "2001:db8:ff::/48", (80, 80)),
            of("2001:db8::/32", "2001:db8:ff::/48", (443, 444)),
        ];
        assert_eq!(rules, expected);
    }

    #[test]
    fn rules_of_another_time_or_by_mac_are_left_out_and_the_order_stays() {
        let lan = PolicyMatch { lan: vec!["lan0".to_owned()], ..PolicyMatch::default() };
        let mac = PolicyMatch { macs: vec![[2; 6]], ..PolicyMatch::default() };
        let policy = Policy {
            rules: vec![
                rule(PolicyMatch::default(), PolicyAction::Block),
                rule(mac, PolicyAction::Block),
                rule(lan, PolicyAction::Default),
                rule(PolicyMatch::default(), outlet(Fallback::Prefer)),
            ],
        };
        let rules = kernel_rules(&policy, path, |index| index != 0);
        let expected = [
            KernelRule {
                device_in: Some("lan0".to_owned()),
                action: KernelAction::Main,
                ..KernelRule::default()
            },
            KernelRule {
                action: KernelAction::Tables { paths: vec![2, 1], strict: false },
                ..KernelRule::default()
            },
        ];
        assert_eq!(rules, expected);
    }

    #[test]
    fn no_more_are_made_than_show_that_they_are_too_many() {
        let matches = PolicyMatch {
            ports: (1..=400).map(|port| port..=port).collect(),
            source_ports: (1..=400).map(|port| port..=port).collect(),
            ..PolicyMatch::default()
        };
        let policy = Policy { rules: vec![rule(matches, PolicyAction::Block)] };
        let rules = kernel_rules(&policy, path, |_| true);
        assert!(rules.len() > MOST && rules.len() < 2 * MOST, "{}", rules.len());
    }
}
