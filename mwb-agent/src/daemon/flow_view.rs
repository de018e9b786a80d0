//! The flow tables as the API shows them: pairs of entries become flows, which
//! are filtered and sorted. Pure but for [`read`].

use std::cmp::Ordering;
use std::collections::HashMap;
use std::hash::Hash;
use std::net::IpAddr;

use mwb_common::maps::{Choice, Flow, FlowKey4, FlowKey6, how};
use mwb_common::nat::{inbound4, inbound6, protocol, v4};
use mwb_common::parse::tcp_flag;

use super::bucket_view;
use crate::api::flows::{
    DEFAULT_TOP, Endpoint, FlowChoice, FlowList, FlowQuery, FlowRow, How, LARGEST_TOP, Protocol,
    Sort, TcpState,
};
use crate::api::snapshot::Traffic;
use crate::dataplane::{BondMaps, Error, Tables};

/// Both directions of a flow.
pub(crate) struct Pair<K> {
    /// As the LAN shows it.
    pub(crate) key: K,
    /// From the LAN.
    pub(crate) out: Flow,
    /// From the WAN; `None` while it is being made or expires.
    pub(crate) back: Option<Flow>,
}

/// Reads the flow tables. Takes up to a second: not for the runtime's threads.
///
/// # Errors
/// When the kernel refuses to read.
pub(super) fn read(
    tables: &Tables,
    bond: &BondMaps,
    query: &FlowQuery,
    names: &[String],
    now: u64,
) -> Result<FlowList, Error> {
    let (mut forth, mut back) = (Vec::new(), HashMap::new());
    tables.flows4().for_each(|key, values| sort_in(key, values, &mut forth, &mut back))?;
    let mut rows: Vec<FlowRow> =
        pair(forth, &back, |key, flow| inbound4(key, v4(&flow.address), flow.port, flow.path))
            .filter_map(|pair| row4(&pair, names, now))
            .collect();
    drop(back);
    let (mut forth, mut back) = (Vec::new(), HashMap::new());
    tables.flows6().for_each(|key, values| sort_in(key, values, &mut forth, &mut back))?;
    let six = pair(forth, &back, |key: &FlowKey6, flow| inbound6(key, flow.address, flow.path));
    rows.extend(six.filter_map(|pair| row6(&pair, names, now)));
    let (bonded, elephant_bps) = bucket_view::read(bond, names, now)?;
    rows.extend(bonded);
    Ok(FlowList { elephant_bps, ..select(rows, query) })
}

/// What both kinds of keys say.
trait Scoped: Copy + Eq + Hash {
    fn scope(&self) -> u8;
}

impl Scoped for FlowKey4 {
    fn scope(&self) -> u8 {
        self.scope
    }
}

impl Scoped for FlowKey6 {
    fn scope(&self) -> u8 {
        self.scope
    }
}

fn sort_in<K: Scoped>(
    key: &K,
    values: &[Flow],
    forth: &mut Vec<(K, Flow)>,
    back: &mut HashMap<K, Flow>,
) {
    let Some(flow) = values.first() else { return };
    if key.scope() == 0 {
        forth.push((*key, *flow));
    } else {
        back.insert(*key, *flow);
    }
}

fn pair<K: Scoped>(
    forth: Vec<(K, Flow)>,
    back: &HashMap<K, Flow>,
    twin: impl Fn(&K, &Flow) -> K,
) -> impl Iterator<Item = Pair<K>> {
    forth.into_iter().map(move |(key, out)| {
        let back = back.get(&twin(&key, &out)).copied();
        Pair { key, out, back }
    })
}

/// An IPv4 flow for people; `None` if its protocol is not one of ours.
pub(crate) fn row4(pair: &Pair<FlowKey4>, names: &[String], now: u64) -> Option<FlowRow> {
    let key = &pair.key;
    let inside = (IpAddr::from(key.source), key.source_port);
    let outside = (IpAddr::from(v4(&pair.out.address)), pair.out.port);
    let remote = (IpAddr::from(key.destination), key.destination_port);
    row(key.protocol, [inside, outside, remote], &pair.out, pair.back.as_ref(), names, now)
}

/// The same for IPv6, where ports stay.
pub(crate) fn row6(pair: &Pair<FlowKey6>, names: &[String], now: u64) -> Option<FlowRow> {
    let key = &pair.key;
    let inside = (IpAddr::from(key.source), key.source_port);
    let outside = (IpAddr::from(pair.out.address), key.source_port);
    let remote = (IpAddr::from(key.destination), key.destination_port);
    row(key.protocol, [inside, outside, remote], &pair.out, pair.back.as_ref(), names, now)
}

fn row(
    number: u8,
    [inside, outside, remote]: [(IpAddr, [u8; 2]); 3],
    out: &Flow,
    back: Option<&Flow>,
    names: &[String],
    now: u64,
) -> Option<FlowRow> {
    let proto = protocol_of(number)?;
    let ported = !matches!(proto, Protocol::Gre | Protocol::Esp);
    let echo = matches!(proto, Protocol::Icmp | Protocol::Icmpv6);
    let end = |(address, port): (IpAddr, [u8; 2]), has_port: bool| Endpoint {
        address,
        port: has_port.then(|| u16::from_be_bytes(port)),
    };
    let last = out.last_seen.max(back.map_or(0, |flow| flow.last_seen)).max(out.opened);
    let seconds = |then: u64| now.saturating_sub(then) as f64 / 1e9;
    let traffic = |flow: &Flow| Traffic { packets: flow.packets, bytes: flow.bytes };
    Some(FlowRow {
        proto,
        inside: end(inside, ported),
        outside: end(outside, ported),
        // The identifier of an echo stands at the sender.
        remote: end(remote, ported && !echo),
        wan: wan_name(names, out.path),
        age_seconds: seconds(out.opened),
        idle_seconds: seconds(last),
        sent: traffic(out),
        received: back.map(traffic).unwrap_or_default(),
        state: (proto == Protocol::Tcp).then(|| tcp_state(out, back)),
        choice: choice(out.choice),
        bond: None,
    })
}

/// A path's WAN; one of an earlier configuration has none.
pub(crate) fn wan_name(names: &[String], path: u8) -> String {
    let name = usize::from(path).checked_sub(1).and_then(|index| names.get(index));
    name.filter(|name| !name.is_empty()).cloned().unwrap_or_else(|| format!("path{path}"))
}

/// A translated protocol by its number.
pub(crate) const fn protocol_of(number: u8) -> Option<Protocol> {
    Some(match number {
        protocol::TCP => Protocol::Tcp,
        protocol::UDP => Protocol::Udp,
        protocol::ICMP => Protocol::Icmp,
        protocol::ICMPV6 => Protocol::Icmpv6,
        protocol::SCTP => Protocol::Sctp,
        protocol::GRE => Protocol::Gre,
        protocol::ESP => Protocol::Esp,
        _ => return None,
    })
}

/// The same line that expiry draws between opening, established and closing.
fn tcp_state(out: &Flow, back: Option<&Flow>) -> TcpState {
    let flags = out.tcp_flags | back.map_or(0, |flow| flow.tcp_flags);
    let answered = out.last_seen != 0 && back.is_some_and(|flow| flow.last_seen != 0);
    if flags & tcp_flag::RST != 0 {
        TcpState::Reset
    } else if flags & tcp_flag::FIN != 0 {
        TcpState::Closing
    } else if answered && flags & tcp_flag::SYN != 0 {
        TcpState::Established
    } else {
        TcpState::Opening
    }
}

/// A choice for people.
pub(crate) fn choice(choice: Choice) -> FlowChoice {
    let how = match choice.how & !how::MAPPED {
        how::RANKING => How::Ranking,
        how::NONE_ALIVE => How::NoneAlive,
        how::VIA => How::Via,
        how::INBOUND => How::Inbound,
        _ => How::Slot,
    };
    let slot = matches!(how, How::Slot | How::Ranking | How::NoneAlive).then_some(choice.slot());
    FlowChoice { how, slot, mapped: choice.how & how::MAPPED != 0 }
}

/// What was asked for, in its order.
fn select(mut rows: Vec<FlowRow>, query: &FlowQuery) -> FlowList {
    let open = rows.len() as u64;
    rows.retain(|row| matches(row, query));
    let matching = rows.len() as u64;
    rows.sort_by(|a, b| order(a, b, query.sort));
    rows.truncate(query.top.unwrap_or(DEFAULT_TOP).min(LARGEST_TOP));
    FlowList { open, matching, flows: rows, elephant_bps: None }
}

fn matches(row: &FlowRow, query: &FlowQuery) -> bool {
    let ports = [row.inside.port, row.outside.port, row.remote.port];
    query.wan.as_ref().is_none_or(|wan| row.wan == *wan)
        && query.proto.is_none_or(|proto| row.proto == proto)
        && query.source.is_none_or(|net| net.0.contains(&row.inside.address))
        && query.destination.is_none_or(|net| net.0.contains(&row.remote.address))
        && query.port.is_none_or(|port| ports.contains(&Some(port)))
        && query.state.is_none_or(|state| row.state == Some(state))
}

/// Largest first; flows that are equal keep an order of their own, so that two
/// looks at the same flows show the same list.
fn order(a: &FlowRow, b: &FlowRow, sort: Sort) -> Ordering {
    let by = match sort {
        Sort::Bytes => b.bytes().cmp(&a.bytes()),
        Sort::Packets => b.packets().cmp(&a.packets()),
        Sort::Age => b.age_seconds.total_cmp(&a.age_seconds),
        Sort::Idle => b.idle_seconds.total_cmp(&a.idle_seconds),
        Sort::Rate => b.rate().total_cmp(&a.rate()),
    };
    let name = |row: &FlowRow| {
        let end = |end: Endpoint| (end.address, end.port);
        (row.proto.name(), end(row.inside), end(row.remote))
    };
    by.then_with(|| name(a).cmp(&name(b)))
}

#[cfg(test)]
#[path = "flow_view_tests.rs"]
mod tests;
