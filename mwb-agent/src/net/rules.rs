//! The rules that lead to the tables of WANs: which there should be, in which order, and
//! why in that order. Pure.
//!
//! | priority | rule | why here |
//! |---|---|---|
//! | 7700 | `oif <WAN> lookup main suppress_prefixlength 1` | what the main table knows by that device better than its default route: a router in its subnet, the link itself |
//! | 7701 | `oif <WAN> lookup <table>` | else what is bound to the device leaves by it, whatever default routes main has |
//! | 7702 | `oif <WAN> unreachable` | and by nothing else |
//! | 7703 | `to <subnet of a WAN> goto 7705` | main leads there by that WAN, with the wrong address if it is another's: it is not asked |
//! | 7704 | `from <address of a WAN> lookup main suppress_prefixlength 1` | answers to the LAN |
//! | 7705 + n | `from <address of a WAN> lookup <table>` | what has the address leaves by its WAN; n counts WANs that have the same one |
//! | 7740 | `from <address of a WAN> unreachable` | no provider takes the address of another |
//! | 7750 ‥ 8898 | what is handed in ([`KernelRule`]), one after the other | a socket that names its WAN goes before all of them |
//!
//! Main is asked by each of them for itself, not once for all: what none of them selects
//! goes on to the rules of others as if ours were not there. Routes of length 0 and 1 are
//! not main's better knowledge: halves of all addresses are how a bond, or another VPN,
//! has its default route.
//!
//! Must not know: what a WAN is beyond its table, device and addresses, who is usable and
//! why.

use std::net::IpAddr;
use std::ops::RangeInclusive;

use ipnet::IpNet;

use super::Error;
use super::tables::{WanTable, Wanted, number};

/// The priorities of our rules.
pub const PRIORITIES: RangeInclusive<u32> = 7_700..=8_899;
/// Of sockets that are bound to the device of a WAN.
const BOUND: u32 = *PRIORITIES.start();
/// Of the subnets of WANs.
const SUBNETS: u32 = 7_703;
/// Of addresses of WANs.
const ADDRESSES: u32 = 7_704;
/// Where those of them that end stand: behind one for each path id.
const ADDRESSES_END: u32 = 7_740;
/// The first that is handed in.
const FIRST: u32 = 7_750;
/// A rule that is there only to see what the kernel makes of it.
const TRIAL: u32 = *PRIORITIES.end();
/// The main table (`RT_TABLE_MAIN`).
const MAIN: u32 = 254;
/// Longest prefix of the main table that is no better knowledge than a default route.
pub(super) const HALVES: u32 = 1;
/// A rule that is handed in: what of all traffic it is for, and what becomes of that. What
/// the main table knows better than by a default route goes there all the same: to the
/// LAN, to the subnets of WANs.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct KernelRule {
    /// Source.
    pub from: Option<IpNet>,
    /// Destination.
    pub to: Option<IpNet>,
    /// IP protocol.
    pub protocol: Option<u8>,
    /// Source ports, first and last; of 1 to 65534, the kernel takes no others.
    pub source_ports: Option<(u16, u16)>,
    /// Destination ports.
    pub ports: Option<(u16, u16)>,
    /// Differentiated services code point, 0 to 63 (RFC 2474). Needs Linux 6.12.
    pub dscp: Option<u8>,
    /// Came in by this device; `lo` is what the machine itself sends.
    pub device_in: Option<String>,
    /// Mark, and the bits of it that count.
    pub mark: Option<(u32, u32)>,
    /// What becomes of it.
    pub action: KernelAction,
}

/// What becomes of the traffic that a rule selects.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum KernelAction {
    /// It leaves by the first WAN of these that is usable; where that has no route, by the
    /// next one.
    Tables {
        /// Path ids, the best first.
        paths: Vec<u8>,
        /// By these and by nothing else: without one of them it is unreachable. Otherwise
        /// it goes by the main table then, whatever the next rules say.
        strict: bool,
    },
    /// It goes by the main table, whatever the next rules say.
    Main,
    /// It is refused, and the sender told.
    #[default]
    Unreachable,
    /// It vanishes.
    Blackhole,
}

/// What of all traffic a rule is for.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Selector {
    pub(super) from: Option<IpNet>,
    pub(super) to: Option<IpNet>,
    pub(super) protocol: Option<u8>,
    pub(super) source_ports: Option<(u16, u16)>,
    pub(super) ports: Option<(u16, u16)>,
    pub(super) dscp: Option<u8>,
    pub(super) device_in: Option<String>,
    pub(super) device_out: Option<String>,
    pub(super) mark: Option<(u32, u32)>,
}

/// What a rule does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Then {
    /// Asks the main table for what is longer than [`HALVES`].
    Main,
    Table(u32),
    Goto(u32),
    Unreachable,
    Blackhole,
}

/// A rule of ours.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Rule {
    pub(super) priority: u32,
    pub(super) v6: bool,
    pub(super) selector: Selector,
    pub(super) then: Then,
}

/// The rules that there should be, in their order.
pub(super) fn rules(wanted: &Wanted) -> Result<Vec<Rule>, Error> {
    let mut rules = Vec::new();
    for v6 in [false, true] {
        for wan in &wanted.wans {
            let bound = Selector { device_out: Some(wan.device.clone()), ..Selector::default() };
            let table = Then::Table(number(wan.path));
            for (priority, then) in (BOUND..).zip([Then::Main, table, Then::Unreachable]) {
                rules.push(Rule { priority, v6, selector: bound.clone(), then });
            }
        }
        rules.extend(of_addresses(wanted, v6));
    }
    rules.extend(handed_in(wanted)?);
    rules.sort();
    rules.dedup();
    Ok(rules)
}

fn of_addresses(wanted: &Wanted, v6: bool) -> Vec<Rule> {
    let mut rules = Vec::new();
    let all = wanted.wans.iter().flat_map(|wan| &wan.addresses);
    let mut addresses: Vec<IpAddr> = all.copied().filter(|ip| ip.is_ipv6() == v6).collect();
    addresses.sort();
    addresses.dedup();
    let mut add = |priority, selector: &Selector, then| {
        rules.push(Rule { priority, v6, selector: selector.clone(), then });
    };
    for subnet in wanted.apart.iter().filter(|net| is_v6(net) == v6) {
        // The target is there as long as somebody has an address.
        if !addresses.is_empty() {
            let to = Selector { to: Some(*subnet), ..Selector::default() };
            add(SUBNETS, &to, Then::Goto(ADDRESSES + 1));
        }
    }
    for address in addresses {
        let from = Selector { from: Some(IpNet::from(address)), ..Selector::default() };
        add(ADDRESSES, &from, Then::Main);
        let mut holders: Vec<&WanTable> =
            wanted.wans.iter().filter(|wan| wan.addresses.contains(&address)).collect();
        holders.sort_by_key(|wan| !wan.usable);
        for (priority, wan) in (ADDRESSES + 1..ADDRESSES_END).zip(holders) {
            add(priority, &from, Then::Table(number(wan.path)));
        }
        add(ADDRESSES_END, &from, Then::Unreachable);
    }
    rules
}

fn handed_in(wanted: &Wanted) -> Result<Vec<Rule>, Error> {
    let mut rules = Vec::new();
    let mut priorities = FIRST..TRIAL;
    for (index, rule) in wanted.rules.iter().enumerate() {
        check(rule).map_err(|why| Error::Rule { index, why })?;
        for then in steps(rule, wanted) {
            let priority = priorities.next().ok_or(Error::TooManyRules(wanted.rules.len()))?;
            for v6 in [false, true] {
                if families(rule).any(|family| family == v6) {
                    rules.push(Rule { priority, v6, selector: rule.selector(), then });
                }
            }
        }
    }
    Ok(rules)
}

fn steps(rule: &KernelRule, wanted: &Wanted) -> Vec<Then> {
    let (tables, end) = match &rule.action {
        KernelAction::Tables { paths, strict } => {
            let is_usable =
                |path: &&u8| wanted.wans.iter().any(|wan| wan.path == **path && wan.usable);
            let tables: Vec<Then> =
                paths.iter().filter(is_usable).map(|path| Then::Table(number(*path))).collect();
            // In the end as all others, whatever the next rules say.
            (tables, if *strict { Then::Unreachable } else { Then::Table(MAIN) })
        }
        KernelAction::Main => (Vec::new(), Then::Table(MAIN)),
        KernelAction::Unreachable => (Vec::new(), Then::Unreachable),
        KernelAction::Blackhole => (Vec::new(), Then::Blackhole),
    };
    std::iter::once(Then::Main).chain(tables).chain([end]).collect()
}

fn is_v6(net: &IpNet) -> bool {
    net.addr().is_ipv6()
}

/// Families that a rule is for: IPv6 is `true`.
fn families(rule: &KernelRule) -> impl Iterator<Item = bool> {
    let named = rule.from.or(rule.to).map(|net| is_v6(&net));
    [false, true].into_iter().filter(move |family| named.is_none_or(|named| named == *family))
}

/// What the kernel would refuse, or take for something else.
fn check(rule: &KernelRule) -> Result<(), String> {
    if rule.from.zip(rule.to).is_some_and(|(from, to)| is_v6(&from) != is_v6(&to)) {
        return Err("its source is of one family, its destination of the other".to_owned());
    }
    for (first, last) in rule.source_ports.into_iter().chain(rule.ports) {
        if first == 0 || first > last || last == u16::MAX {
            return Err(format!("ports {first} to {last}: the kernel takes 1 to 65534, in order"));
        }
    }
    if let Some(dscp) = rule.dscp.filter(|dscp| *dscp > 63) {
        return Err(format!("DSCP {dscp}: there are 0 to 63"));
    }
    if rule.protocol == Some(0) {
        return Err("protocol 0: the kernel takes it for any".to_owned());
    }
    if rule.mark.is_some_and(|(_, mask)| mask == 0) {
        return Err("a mark of which no bit counts".to_owned());
    }
    match &rule.device_in {
        Some(device) if device.is_empty() || device.len() >= libc::IFNAMSIZ => {
            Err(format!("`{device}` is no name that a device can have"))
        }
        _ => Ok(()),
    }
}

/// The kernel does not keep that a rule is for everybody.
fn selects(net: &IpNet) -> bool {
    net.prefix_len() > 0
}

impl KernelRule {
    fn selector(&self) -> Selector {
        Selector {
            from: self.from.map(|net| net.trunc()).filter(selects),
            to: self.to.map(|net| net.trunc()).filter(selects),
            protocol: self.protocol,
            source_ports: self.source_ports,
            ports: self.ports,
            dscp: self.dscp,
            device_in: self.device_in.clone(),
            device_out: None,
            mark: self.mark,
        }
    }
}

impl Rule {
    /// One that selects nobody, by a code point: an older kernel forgets that part.
    pub(super) fn trial() -> Self {
        let nobody = IpNet::from(IpAddr::from([127, 255, 255, 254]));
        let selector = Selector { from: Some(nobody), dscp: Some(1), ..Selector::default() };
        Self { priority: TRIAL, v6: false, selector, then: Then::Unreachable }
    }
}
