//! Rules in the form of netlink (include/uapi/linux/fib_rules.h).
//!
//! Must not know: which rules there should be.

use std::net::IpAddr;

use ipnet::IpNet;
use netlink_packet_route::AddressFamily;
use netlink_packet_route::route::{RouteHeader, RouteProtocol};
use netlink_packet_route::rule::{
    RuleAction, RuleAttribute, RuleFlags, RuleMessage, RulePortRange,
};
use rtnetlink::packet_core::{DefaultNla, Nla as _};

use super::ROUTE_PROTOCOL;
use super::rules::{HALVES, PRIORITIES, Rule, Selector, Then};

/// Selects by code point; the library does not know it yet. Linux 6.12.
const FRA_DSCP: u16 = 25;
/// `FRA_SUPPRESS_PREFIXLEN` of a rule that suppresses nothing.
const NOTHING: u32 = u32::MAX;

/// A rule that is there, of our protocol number and in our range.
#[derive(Clone, Debug)]
pub(super) struct RuleThere {
    pub(super) priority: u32,
    /// `None`: it has what none of ours has.
    pub(super) rule: Option<Rule>,
    pub(super) message: RuleMessage,
}

impl Rule {
    /// As netlink has it, to be made and to be removed.
    pub(super) fn message(&self) -> RuleMessage {
        let mut message = RuleMessage::default();
        let Selector { from, to, protocol, source_ports, ports, dscp, .. } = &self.selector;
        let Selector { device_in, device_out, mark, .. } = &self.selector;
        let header = &mut message.header;
        header.family = if self.v6 { AddressFamily::Inet6 } else { AddressFamily::Inet };
        header.src_len = from.map_or(0, |net| net.prefix_len());
        header.dst_len = to.map_or(0, |net| net.prefix_len());
        let attributes = &mut message.attributes;
        header.action = match self.then {
            Then::Main => {
                header.table = RouteHeader::RT_TABLE_MAIN;
                attributes.push(RuleAttribute::SuppressPrefixLen(HALVES));
                RuleAction::ToTable
            }
            Then::Table(table) => {
                attributes.push(RuleAttribute::Table(table));
                RuleAction::ToTable
            }
            Then::Goto(priority) => {
                attributes.push(RuleAttribute::Goto(priority));
                RuleAction::Goto
            }
            Then::Unreachable => RuleAction::Unreachable,
            Then::Blackhole => RuleAction::Blackhole,
        };
        attributes.push(RuleAttribute::Priority(self.priority));
        attributes.push(RuleAttribute::Protocol(RouteProtocol::Other(ROUTE_PROTOCOL)));
        attributes.extend(from.map(|net| RuleAttribute::Source(net.addr())));
        attributes.extend(to.map(|net| RuleAttribute::Destination(net.addr())));
        attributes.extend(protocol.map(|is| RuleAttribute::IpProtocol(is.into())));
        let range = |(start, end)| RulePortRange { start, end };
        attributes.extend(source_ports.map(|is| RuleAttribute::SourcePortRange(range(is))));
        attributes.extend(ports.map(|is| RuleAttribute::DestinationPortRange(range(is))));
        attributes.extend(dscp.map(|is| RuleAttribute::Other(DefaultNla::new(FRA_DSCP, vec![is]))));
        attributes.extend(device_in.clone().map(RuleAttribute::Iifname));
        attributes.extend(device_out.clone().map(RuleAttribute::Oifname));
        if let Some((mark, mask)) = mark {
            attributes.extend([RuleAttribute::FwMark(*mark), RuleAttribute::FwMask(*mask)]);
        }
        message
    }
}

/// `None`: it is somebody else's.
pub(super) fn there(message: RuleMessage) -> Option<RuleThere> {
    let header = &message.header;
    let net = |ip: IpAddr, length| IpNet::new(ip, length).ok();
    let (mut priority, mut protocol, mut table) = (0, None, u32::from(header.table));
    let (mut target, mut suppressed) = (0, NOTHING);
    let mut is_known = header.tos == 0 && !header.flags.contains(RuleFlags::Invert);
    let (mut mark, mut mask) = (None, None);
    let mut selector = Selector::default();
    for attribute in &message.attributes {
        match attribute {
            RuleAttribute::Priority(is) => priority = *is,
            RuleAttribute::Protocol(is) => protocol = Some(*is),
            RuleAttribute::Table(is) => table = *is,
            RuleAttribute::Goto(is) => target = *is,
            RuleAttribute::SuppressPrefixLen(is) => suppressed = *is,
            RuleAttribute::Source(ip) => selector.from = net(*ip, header.src_len),
            RuleAttribute::Destination(ip) => selector.to = net(*ip, header.dst_len),
            RuleAttribute::IpProtocol(is) => selector.protocol = Some((*is).into()),
            RuleAttribute::SourcePortRange(is) => {
                selector.source_ports = Some((is.start, is.end));
            }
            RuleAttribute::DestinationPortRange(is) => selector.ports = Some((is.start, is.end)),
            RuleAttribute::Iifname(is) => selector.device_in = Some(is.clone()),
            RuleAttribute::Oifname(is) => selector.device_out = Some(is.clone()),
            RuleAttribute::FwMark(is) => mark = Some(*is),
            RuleAttribute::FwMask(is) => mask = Some(*is),
            RuleAttribute::Other(other) if other.kind() == FRA_DSCP => {
                let mut value = [0];
                if other.value_len() == value.len() {
                    other.emit_value(&mut value);
                    selector.dscp = Some(value[0]);
                }
            }
            RuleAttribute::TunId(_)
            | RuleAttribute::UidRange(_)
            | RuleAttribute::L3MDev(true)
            | RuleAttribute::Realm(_) => is_known = false,
            _ => {}
        }
    }
    if protocol != Some(RouteProtocol::Other(ROUTE_PROTOCOL)) || !PRIORITIES.contains(&priority) {
        return None;
    }
    selector.mark = mask.map(|mask| (mark.unwrap_or(0), mask));
    let then = match header.action {
        RuleAction::ToTable
            if table == u32::from(RouteHeader::RT_TABLE_MAIN) && suppressed == HALVES =>
        {
            Some(Then::Main)
        }
        RuleAction::ToTable if suppressed == NOTHING => Some(Then::Table(table)),
        RuleAction::Goto => Some(Then::Goto(target)),
        RuleAction::Unreachable => Some(Then::Unreachable),
        RuleAction::Blackhole => Some(Then::Blackhole),
        _ => None,
    };
    let v6 = header.family == AddressFamily::Inet6;
    let rule = then.filter(|_| is_known).map(|then| Rule { priority, v6, selector, then });
    Some(RuleThere { priority, rule, message })
}
