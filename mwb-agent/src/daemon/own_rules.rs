//! Policy rules for what the gateway itself sends, and for what its data plane leaves to
//! the kernel: the same rules once more, as the kernel's routing takes them. Pure.
//!
//! Must not know: netlink.

use std::ops::RangeInclusive;

use crate::config::{Fallback, Policy, PolicyAction, PolicyMatch};
use crate::net::{KernelAction, KernelRule};

/// More rules than there is room for are refused by whoever lays them down; none need be
/// made beyond that.
const MOST: usize = 2_000;
/// The kernel takes no port above it.
const LAST_PORT: u16 = u16::MAX - 1;
/// Protocols that have ports: TCP, UDP, SCTP.
const WITH_PORTS: [u8; 3] = [6, 17, 132];

/// The policy as rules of the kernel, in its order. `path` knows the id of a WAN by its
/// name, `is_active` whether the rule of that place counts at this time. Rules by MAC are
/// for packets from the LAN only: no packet of our own has one. Those by name are too: the
/// kernel's know no addresses that come and go.
pub(super) fn kernel_rules(
    policy: &Policy,
    path: impl Fn(&str) -> Option<u8>,
    is_active: impl Fn(usize) -> bool,
) -> Vec<KernelRule> {
    let mut rules = Vec::new();
    for (index, rule) in policy.rules.iter().enumerate() {
        let PolicyMatch { macs, domains, .. } = &rule.matches;
        if !is_active(index) || !macs.is_empty() || !domains.is_empty() {
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

/// One rule for each combination of what is listed: the kernel's take one of each. What it
/// cannot have is left out: port 65535, and IP protocol 0, which it takes for any.
fn selections(matches: &PolicyMatch) -> Vec<KernelRule> {
    let has_ports = !matches.ports.is_empty() || !matches.source_ports.is_empty();
    // The kernel looks for ports where the protocol is said only.
    let protocols: &[u8] =
        if has_ports && matches.protocols.is_empty() { &WITH_PORTS } else { &matches.protocols };
    let protocols = protocols.iter().map(|number| (*number != 0).then_some(*number));
    let range = |range: &RangeInclusive<u16>| {
        let pair = (*range.start(), (*range.end()).min(LAST_PORT));
        (pair.0 <= pair.1).then_some(pair)
    };
    let mut rules = vec![KernelRule::default()];
    each(&mut rules, matches.source.iter().map(|net| Some(*net)), |rule, net| {
        rule.from = Some(net);
        true
    });
    each(&mut rules, matches.destination.iter().map(|net| Some(*net)), |rule, net| {
        rule.to = Some(net);
        // A pair of families has no packet.
        rule.from.is_none_or(|from| from.addr().is_ipv4() == net.addr().is_ipv4())
    });
    each(&mut rules, protocols, |rule, number| {
        rule.protocol = Some(number);
        true
    });
    each(&mut rules, matches.source_ports.iter().map(range), |rule, ports| {
        rule.source_ports = Some(ports);
        true
    });
    each(&mut rules, matches.ports.iter().map(range), |rule, ports| {
        rule.ports = Some(ports);
        true
    });
    each(&mut rules, matches.dscps.iter().map(|dscp| Some(*dscp)), |rule, dscp| {
        rule.dscp = Some(dscp);
        true
    });
    each(&mut rules, matches.lan.iter().map(Some), |rule, lan| {
        rule.device_in = Some(lan.clone());
        true
    });
    each(&mut rules, matches.marks.iter().map(|mark| Some(*mark)), |rule, mark| {
        rule.mark = Some((mark, u32::MAX));
        true
    });
    rules
}

/// Has each rule once for each of the values; once as it is if nothing is listed. `set` says
/// whether there is such a packet; a value that is `None` has no rule.
fn each<T: Clone>(
    rules: &mut Vec<KernelRule>,
    values: impl Iterator<Item = Option<T>>,
    set: impl Fn(&mut KernelRule, T) -> bool,
) {
    let values: Vec<Option<T>> = values.collect();
    if values.is_empty() {
        return;
    }
    for rule in std::mem::take(rules) {
        for value in values.iter().flatten() {
            // Beyond what is taken in the end nothing need be kept.
            if rules.len() > MOST {
                return;
            }
            let mut one = rule.clone();
            if set(&mut one, value.clone()) {
                rules.push(one);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use ipnet::IpNet;

    use super::*;
    use crate::config::{Domain, Outlet, PolicyRule};

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
    fn rules_of_another_time_or_by_mac_or_name_are_left_out_and_the_order_stays() {
        let lan = PolicyMatch { lan: vec!["lan0".to_owned()], ..PolicyMatch::default() };
        let mac = PolicyMatch { macs: vec![[2; 6]], ..PolicyMatch::default() };
        let domains = Domain::parse("*.example.net").into_iter().collect();
        let named = PolicyMatch { domains, ..PolicyMatch::default() };
        let policy = Policy {
            rules: vec![
                rule(PolicyMatch::default(), PolicyAction::Block),
                rule(mac, PolicyAction::Block),
                rule(named, PolicyAction::Block),
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
    fn what_the_kernel_cannot_have_is_left_out() {
        let made = |matches| {
            let policy = Policy { rules: vec![rule(matches, PolicyAction::Block)] };
            kernel_rules(&policy, path, |_| true)
        };
        let ports = made(PolicyMatch {
            ports: vec![1024..=65535, 65535..=65535],
            ..PolicyMatch::default()
        });
        let parts: Vec<_> = ports.iter().map(|rule| (rule.protocol, rule.ports)).collect();
        let all = Some((1024, 65534));
        assert_eq!(parts, [(Some(6), all), (Some(17), all), (Some(132), all)]);
        let any = made(PolicyMatch { protocols: vec![0, 47], ..PolicyMatch::default() });
        assert_eq!(any.iter().map(|rule| rule.protocol).collect::<Vec<_>>(), [Some(47)]);
        assert_eq!(made(PolicyMatch { protocols: vec![0], ..PolicyMatch::default() }), []);
    }

    #[test]
    fn pairs_of_families_take_no_room() {
        let nets = |v6: bool| {
            (0..1000u32).map(move |n| match v6 {
                false => net(&format!("10.{}.{}.0/24", n / 256, n % 256)),
                true => net(&format!("2001:db8:{n:x}::/48")),
            })
        };
        let matches = PolicyMatch {
            source: nets(false).chain(nets(true)).collect(),
            destination: vec![net("192.0.2.0/24")],
            ..PolicyMatch::default()
        };
        let policy = Policy { rules: vec![rule(matches, PolicyAction::Block)] };
        assert_eq!(kernel_rules(&policy, path, |_| true).len(), 1000);
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
