//! Which rule a packet meets, when not all is known about it.

use std::net::IpAddr;

use mwb_common::policy::{Asked, NameBits, Properties, Rule};

/// What is known about the first packet of a flow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Known {
    /// Source address.
    pub source: IpAddr,
    /// Destination address.
    pub destination: IpAddr,
    /// Names that the destination is an address of, by number.
    pub names: NameBits,
    /// Source and destination port, of protocols that have them.
    pub ports: (u16, u16),
    /// IP protocol.
    pub protocol: u8,
    /// Interface index of the device it comes in through.
    pub device: Option<u32>,
    /// Source MAC.
    pub mac: Option<[u8; 6]>,
    /// Differentiated services code point.
    pub dscp: Option<u8>,
    /// Firewall mark.
    pub mark: Option<u32>,
}

/// What rules say about it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Met {
    /// Place of the rule that it meets, if what is not known is as most packets have it:
    /// no mark, code point 0, and no device or MAC that a rule names.
    pub rule: Option<usize>,
    /// Places of rules before it that would take it if something that is not known were
    /// as they ask for, with what they ask for.
    pub else_by: Vec<(usize, Vec<&'static str>)>,
}

/// Asks the rules in their order.
#[must_use]
pub fn ask(rules: &[Rule], known: &Known) -> Met {
    let mut met = Met::default();
    for (place, rule) in rules.iter().enumerate() {
        if rule.matches(&asked(known)) && !asks_unnamed(rule, known) {
            met.rule = Some(place);
            break;
        }
        if let Some(missing) = would(rule, known) {
            met.else_by.push((place, missing));
        }
    }
    met
}

/// Whether a rule asks for a device or MAC that is not known.
fn asks_unnamed(rule: &Rule, known: &Known) -> bool {
    (rule.devices.is_some() && known.device.is_none())
        || (rule.macs.is_some() && known.mac.is_none())
}

/// What must be so that a rule takes the packet, if it then does.
fn would(rule: &Rule, known: &Known) -> Option<Vec<&'static str>> {
    let mut bare = rule.clone();
    let mut missing = Vec::new();
    // An empty list is never met, whatever the packet has.
    if known.device.is_none() && bare.devices.take_if(|list| !list.is_empty()).is_some() {
        missing.push("lan");
    }
    if known.mac.is_none() && bare.macs.take_if(|list| !list.is_empty()).is_some() {
        missing.push("mac");
    }
    if known.dscp.is_none() && bare.dscp.take_if(|list| !list.contains(&0)).is_some() {
        missing.push("dscp");
    }
    if known.mark.is_none() && bare.marks.take().is_some() {
        missing.push("mark");
    }
    (!missing.is_empty() && bare.matches(&asked(known))).then_some(missing)
}

fn asked(known: &Known) -> Asked {
    let packet = Properties {
        ifindex: known.device.unwrap_or(0),
        mark: known.mark.unwrap_or(0),
        source_port: known.ports.0,
        port: known.ports.1,
        protocol: known.protocol,
        dscp: known.dscp.unwrap_or(0),
        mac: known.mac.unwrap_or_default(),
    };
    let Known { source, destination, names, .. } = *known;
    Asked { source, destination, names, packet }
}

#[cfg(test)]
mod tests {
    use mwb_common::policy::{Action, Mark};

    use super::*;

    const PACKET: Known = Known {
        source: IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 10)),
        destination: IpAddr::V4(std::net::Ipv4Addr::new(203, 0, 113, 5)),
        names: NameBits::NONE,
        ports: (5_000, 443),
        protocol: 6,
        device: None,
        mac: None,
        dscp: None,
        mark: None,
    };
    const MAC: [u8; 6] = [2, 0, 0, 0, 0, 1];

    fn any() -> Rule {
        Rule::any(Action::Block)
    }

    #[test]
    fn what_is_not_known_is_named_by_the_rules_that_ask_for_it() {
        let rules = [
            Rule { dscp: Some(vec![46]), ..any() },
            Rule { devices: Some(vec![3]), macs: Some(vec![MAC]), ..any() },
            Rule { marks: Some(vec![Mark { value: 7, mask: u32::MAX }]), ..any() },
            Rule { ports: Some(vec![(80, 80)]), dscp: Some(vec![46]), ..any() },
            Rule { devices: Some(vec![]), ..any() },
            any(),
            Rule { dscp: Some(vec![8]), ..any() },
        ];
        let met = ask(&rules, &PACKET);
        assert_eq!(met.rule, Some(5));
        assert_eq!(met.else_by, [(0, vec!["dscp"]), (1, vec!["lan", "mac"]), (2, vec!["mark"])]);
        let met = ask(&rules, &Known { dscp: Some(46), ..PACKET });
        assert_eq!((met.rule, met.else_by), (Some(0), vec![]));
        let met = ask(&rules, &Known { dscp: Some(0), device: Some(3), mac: Some(MAC), ..PACKET });
        assert_eq!((met.rule, met.else_by), (Some(1), vec![]));
        let met = ask(&rules, &Known { dscp: Some(0), device: Some(4), mark: Some(7), ..PACKET });
        assert_eq!((met.rule, met.else_by), (Some(2), vec![]));
    }

    #[test]
    fn a_packet_without_a_code_point_named_has_the_usual_one() {
        let rules = [Rule { dscp: Some(vec![0, 46]), ..any() }];
        assert_eq!(ask(&rules, &PACKET), Met { rule: Some(0), else_by: vec![] });
    }

    #[test]
    fn a_rule_that_does_not_count_now_takes_nothing() {
        let rules = [Rule { active: false, dscp: Some(vec![46]), ..any() }];
        assert_eq!(ask(&rules, &PACKET), Met::default());
    }
}
