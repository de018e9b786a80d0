//! IPv6: prefix translation (RFC 6296) with a flow for the sticky path and
//! against unsolicited traffic.

use mwb_common::{
    maps::{Device, Family, Flow, FlowKey6, Path, path_flag},
    nat::{hash6, inbound6, key6, next_hop_is_fresh},
    nptv6::Translation,
    parse::{Ipv6, Refusal, Transport, parse_ipv6, parse_transport},
    reason::Reason,
};

use crate::{
    Action,
    account::Account,
    deliver,
    frame::{Frame, NextHop},
    maps::{CONTROL, FLOWS6},
    path::{Alive, Place, choose, now, path, place6},
    stage::{Refused, inside_reason, may_open, outside_reason, seen, source_may_open},
};

/// A packet from the LAN.
#[inline(always)]
pub(crate) fn outward<F: Frame>(
    frame: &mut F,
    network: u32,
    account: &mut Account,
) -> Result<Action, Reason> {
    let ip = parse(frame, network)?;
    account.ipv6(ip.protocol);
    let transport = match read_transport(frame, &ip) {
        Ok(transport) => transport,
        Err(refused) => return Err(refused.inside(place6(ip.header.destination))),
    };
    let key = key6(ip.header.source, ip.header.destination, transport.ports, ip.protocol, 0);
    let now = now();
    let alive = Alive::at(now)?;
    let (flow, path) = match established(&key, &alive) {
        Some(found) => found,
        None => {
            open(&key, now, may_open(ip.header.hop_limit, &transport))?;
            // It was made for this packet: liveness is not asked again.
            entry(&key).ok_or(Reason::FlowTableFull)?
        }
    };
    account.path = flow.path;
    if ip.header.hop_limit <= 1 {
        return Err(Reason::TtlExpired);
    }
    if frame.largest(network, transport.payload) > path.mtu {
        return Err(Reason::TooBig);
    }
    let resolved = path.flags & path_flag::NEXT_HOP6 != 0;
    if !(F::RESOLVES || resolved && frame.reaches(path.ifindex)) {
        return Ok(Action::HandOver);
    }
    seen(flow, &transport, now);
    frame.write(network + 6, [ip.header.next_header, ip.header.hop_limit - 1])?;
    frame.write(network + 8, flow.address)?;
    if !resolved {
        return Ok(Action::Resolve(path.ifindex, NextHop::V6(path.gateway6)));
    }
    frame.write(0, path.next_hop_mac6)?;
    frame.write(6, path.source_mac)?;
    Ok(Action::Redirect(path.ifindex))
}

/// A packet from a WAN.
#[inline(always)]
pub(crate) fn inward<F: Frame>(
    frame: &mut F,
    network: u32,
    device: Device,
    account: &mut Account,
) -> Result<Action, Reason> {
    let ip = parse(frame, network)?;
    account.ipv6(ip.protocol);
    account.path = device.path;
    let transport = match read_transport(frame, &ip) {
        Ok(transport) => transport,
        Err(refused) => return Err(unmatched(&ip, refused.outside())),
    };
    let key =
        key6(ip.header.source, ip.header.destination, transport.ports, ip.protocol, device.path);
    // SAFETY: a racing update of a flow's plain fields does no harm.
    let found = FLOWS6.get_ptr_mut(key).map(|flow| unsafe { &mut *flow });
    let Some(flow) = found.filter(|flow| {
        path(device.path, path_flag::HAS_V6).is_some_and(|p| p.generation == flow.generation)
    }) else {
        return Err(unmatched(&ip, Reason::NoMapping));
    };
    if ip.header.hop_limit <= 1 {
        return Err(Reason::TtlExpired);
    }
    let now = now();
    let host = flow.address;
    if !next_hop_is_fresh(flow.next_hop_until, now) {
        match deliver::find6(frame, &ip, host)? {
            deliver::Found::Resolved(next_hop) => next_hop.store(flow, now),
            deliver::Found::Unresolved(..) if !F::RESOLVES => return Ok(Action::HandOver),
            deliver::Found::Unresolved(ifindex, gateway) => {
                seen(flow, &transport, now);
                frame.write(network + 6, [ip.header.next_header, ip.header.hop_limit - 1])?;
                frame.write(network + 24, host)?;
                return Ok(Action::Resolve(ifindex, NextHop::V6(gateway)));
            }
        }
    }
    if frame.largest(network, transport.payload) > flow.mtu {
        return Err(Reason::TooBig);
    }
    if !frame.reaches(flow.ifindex) {
        return Ok(Action::HandOver);
    }
    seen(flow, &transport, now);
    frame.write(network + 6, [ip.header.next_header, ip.header.hop_limit - 1])?;
    frame.write(network + 24, host)?;
    frame.write(0, flow.destination_mac)?;
    frame.write(6, flow.source_mac)?;
    Ok(Action::Redirect(flow.ifindex))
}

#[inline(always)]
fn parse<F: Frame>(frame: &F, network: u32) -> Result<Ipv6, Reason> {
    parse_ipv6(frame, network).map_err(|refusal| match refusal {
        Refusal::Unsupported => Reason::UnsupportedProtocol,
        _ => Reason::Malformed,
    })
}

#[inline(always)]
fn read_transport<F: Frame>(frame: &F, ip: &Ipv6) -> Result<Transport, Refused> {
    if ip.fragment {
        return Err(Refused::Fragment);
    }
    if ip.protocol == mwb_common::nat::protocol::ICMP {
        return Err(Refused::Parse(Refusal::Unsupported));
    }
    parse_transport(frame, ip.protocol, ip.transport, ip.end).map_err(Refused::Parse)
}

#[inline(always)]
fn unmatched(ip: &Ipv6, reason: Reason) -> Reason {
    outside_reason(place6(ip.header.destination), || place6(ip.header.source), reason)
}

/// As for IPv4: the entry that is valid now, with its path.
#[inline(always)]
fn established(key: &FlowKey6, alive: &Alive) -> Option<(&'static mut Flow, &'static Path)> {
    let (flow, path) = entry(key)?;
    if !alive.is(flow.path) && alive.any(Family::V6) {
        return None;
    }
    Some((flow, path))
}

/// The entry of an outbound flow, if it is of its path's generation.
#[inline(always)]
fn entry(key: &FlowKey6) -> Option<(&'static mut Flow, &'static Path)> {
    // SAFETY: a racing update of a flow's plain fields does no harm.
    let flow = unsafe { &mut *FLOWS6.get_ptr_mut(key)? };
    let path = path(flow.path, path_flag::HAS_V6)?;
    if path.generation == flow.generation { Some((flow, path)) } else { None }
}

/// Makes both entries of a new flow. A subprogram of its own, so that the path
/// of established flows keeps its registers and stack.
#[inline(never)]
fn open(key: &FlowKey6, now: u64, may_open: Result<(), Reason>) -> Result<(), Reason> {
    let via = match place6(key.destination) {
        Place::Wan(via) => via,
        place => return Err(inside_reason(place, Reason::Local)),
    };
    may_open?;
    source_may_open(place6(key.source))?;
    let alive = &Alive::at(now)?;
    let chosen = if via != 0 {
        via
    } else {
        let seed = CONTROL.get(0).ok_or(Reason::NoPath)?.seed;
        choose(Family::V6, hash6(key, seed), alive)?
    };
    let path = path(chosen, path_flag::HAS_V6).ok_or(Reason::NoPath)?;
    let translation = Translation {
        inside: path.inside6,
        outside: path.outside6,
        length: path.npt_length,
        adjustment: path.npt_adjustment,
    };
    let outside = translation.outward(key.source).ok_or(Reason::ForeignSource)?;
    record(key, &inbound6(key, outside, chosen), path.generation, now)
}

/// Enters both directions of a flow. A subprogram of its own: an entry would not
/// fit on the caller's stack beside what it calls.
#[inline(never)]
#[expect(
    clippy::needless_borrows_for_generic_args,
    reason = "a copy of a flow takes 64 of the 512 bytes of stack"
)]
fn record(key: &FlowKey6, answer: &FlowKey6, generation: u32, now: u64) -> Result<(), Reason> {
    // One entry on the stack serves both directions.
    let mut flow = Flow { generation, path: answer.scope, address: key.source, ..Flow::default() };
    FLOWS6.insert(answer, &flow, 0).map_err(|_| Reason::FlowTableFull)?;
    flow.address = answer.destination;
    flow.last_seen = now;
    if FLOWS6.insert(key, &flow, 0).is_err() {
        let _ = FLOWS6.remove(answer);
        return Err(Reason::FlowTableFull);
    }
    Ok(())
}
