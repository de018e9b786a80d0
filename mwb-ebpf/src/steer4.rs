//! IPv4: flows, mappings and the rewriting of both directions.

use mwb_common::{
    checksum::{delta2, update},
    maps::{Device, Family, Flow, FlowKey4, MappingKey, Path, path_flag},
    nat::{inbound4, key4, next_hop_is_fresh, protocol, rewrite4, v4},
    parse::{Ipv4, Refusal, Transport, parse_ipv4, parse_transport},
    reason::Reason,
};

use crate::{
    Action,
    account::Account,
    deliver,
    frame::{Frame, NextHop, TransportChange},
    maps::FLOWS4,
    nat,
    path::{Alive, Place, now, path, place4},
    stage::{Refused, inside_reason, may_open, outside_reason, seen, source_may_open},
};

/// A packet from the LAN.
#[inline(always)]
pub(crate) fn outward<F: Frame>(
    frame: &mut F,
    network: u32,
    account: &mut Account,
) -> Result<Action, Reason> {
    let ip = parse_ipv4(frame, network).map_err(|_| Reason::Malformed)?;
    account.ipv4(ip.header.protocol);
    let transport = match read_transport(frame, &ip) {
        Ok(transport) => transport,
        Err(refused) => return Err(refused.inside(place4(ip.header.destination))),
    };
    let key = key4(ip.header.source, ip.header.destination, transport.ports, ip.header.protocol, 0);
    let now = now();
    let alive = Alive::at(now)?;
    let (flow, path) = match established(&key, &alive) {
        Some(found) => found,
        None => {
            open(frame, &key, now, may_open(ip.header.ttl, &transport))?;
            // It was made for this packet: liveness is not asked again.
            entry(&key).ok_or(Reason::FlowTableFull)?
        }
    };
    account.path = flow.path;
    if ip.header.ttl <= 1 {
        return Err(Reason::TtlExpired);
    }
    if frame.largest(network, transport.payload) > path.mtu {
        return Err(Reason::TooBig);
    }
    let resolved = path.flags & path_flag::NEXT_HOP4 != 0;
    if !(F::RESOLVES || resolved && frame.reaches(path.ifindex)) {
        return Ok(Action::HandOver);
    }
    seen(flow, &transport, now);
    rewrite(frame, &ip, &transport, flow, transport.source_field)?;
    frame.write(network + 12, v4(&flow.address))?;
    if !resolved {
        return Ok(Action::Resolve(path.ifindex, NextHop::V4(path.gateway4)));
    }
    frame.write(0, path.next_hop_mac4)?;
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
    let ip = parse_ipv4(frame, network).map_err(|_| Reason::Malformed)?;
    account.ipv4(ip.header.protocol);
    account.path = device.path;
    let transport = match read_transport(frame, &ip) {
        Ok(transport) => transport,
        Err(refused) => return Err(unmatched(&ip, refused.outside())),
    };
    let key = key4(
        ip.header.source,
        ip.header.destination,
        transport.ports,
        ip.header.protocol,
        device.path,
    );
    // SAFETY: a racing update of a flow's plain fields does no harm.
    let found = FLOWS4.get_ptr_mut(key).map(|flow| unsafe { &mut *flow });
    let Some(flow) = found.filter(|flow| {
        path(device.path, path_flag::HAS_V4).is_some_and(|p| p.generation == flow.generation)
    }) else {
        return Err(if is_dhcp(&ip, &transport) {
            Reason::NoMapping
        } else {
            unmatched(&ip, Reason::NoMapping)
        });
    };
    if ip.header.ttl <= 1 {
        return Err(Reason::TtlExpired);
    }
    let now = now();
    let host = v4(&flow.address);
    if !next_hop_is_fresh(flow.next_hop_until, now) {
        match deliver::find4(frame, &ip, host)? {
            deliver::Found::Resolved(next_hop) => next_hop.store(flow, now),
            deliver::Found::Unresolved(..) if !F::RESOLVES => return Ok(Action::HandOver),
            deliver::Found::Unresolved(ifindex, gateway) => {
                seen(flow, &transport, now);
                rewrite(frame, &ip, &transport, flow, transport.destination_field)?;
                frame.write(network + 16, host)?;
                return Ok(Action::Resolve(ifindex, NextHop::V4(gateway)));
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
    rewrite(frame, &ip, &transport, flow, transport.destination_field)?;
    frame.write(network + 16, host)?;
    frame.write(0, flow.destination_mac)?;
    frame.write(6, flow.source_mac)?;
    Ok(Action::Redirect(flow.ifindex))
}

#[inline(always)]
fn read_transport<F: Frame>(frame: &F, ip: &Ipv4) -> Result<Transport, Refused> {
    if ip.is_fragment() {
        return Err(Refused::Fragment);
    }
    if ip.header.protocol == protocol::ICMPV6 {
        return Err(Refused::Parse(Refusal::Unsupported));
    }
    parse_transport(frame, ip.header.protocol, ip.transport, ip.end).map_err(Refused::Parse)
}

#[inline(always)]
fn unmatched(ip: &Ipv4, reason: Reason) -> Reason {
    outside_reason(place4(ip.header.destination), || place4(ip.header.source), reason)
}

/// An answer to the gateway's own DHCP client may carry an address that is not
/// configured yet.
#[inline(always)]
fn is_dhcp(ip: &Ipv4, transport: &Transport) -> bool {
    ip.header.protocol == protocol::UDP && transport.ports == [0, 67, 0, 68]
}

/// The entry of an outbound flow that is valid now, with its path: of the path's
/// generation, and on a living path unless none lives.
#[inline(always)]
fn established(key: &FlowKey4, alive: &Alive) -> Option<(&'static mut Flow, &'static Path)> {
    let (flow, path) = entry(key)?;
    if !alive.is(flow.path) && alive.any(Family::V4) {
        return None;
    }
    Some((flow, path))
}

/// The entry of an outbound flow, if it is of its path's generation.
#[inline(always)]
fn entry(key: &FlowKey4) -> Option<(&'static mut Flow, &'static Path)> {
    // SAFETY: a racing update of a flow's plain fields does no harm.
    let flow = unsafe { &mut *FLOWS4.get_ptr_mut(key)? };
    let path = path(flow.path, path_flag::HAS_V4)?;
    if path.generation == flow.generation { Some((flow, path)) } else { None }
}

/// Makes both entries of a new flow. A subprogram of its own, so that the path
/// of established flows keeps its registers and stack.
#[inline(never)]
#[expect(
    clippy::needless_borrows_for_generic_args,
    reason = "a copy of a flow takes 64 of the 512 bytes of stack"
)]
fn open<F: Frame>(
    frame: &F,
    key: &FlowKey4,
    now: u64,
    may_open: Result<(), Reason>,
) -> Result<(), Reason> {
    let via = match place4(key.destination) {
        Place::Wan(via) => via,
        place => return Err(inside_reason(place, Reason::Local)),
    };
    may_open?;
    source_may_open(place4(key.source))?;
    let alive = &Alive::at(now)?;
    let endpoint =
        MappingKey { address: key.source, port: key.source_port, protocol: key.protocol, via };
    let mapping = nat::mapping(frame, &endpoint, key, now, alive)?;
    let path = path(mapping.path, path_flag::HAS_V4).ok_or(Reason::NoPath)?;
    let outside = (path.address4, mapping.port);
    let inside = (key.source, key.source_port);
    let answer = inbound4(key, outside.0, outside.1, mapping.path);
    let mut flow = rewrite4(outside, inside, mapping.path, path.generation);
    FLOWS4.insert(answer, &flow, 0).map_err(|_| Reason::FlowTableFull)?;
    flow = rewrite4(inside, outside, mapping.path, path.generation);
    flow.last_seen = now;
    if FLOWS4.insert(key, &flow, 0).is_err() {
        // Nobody else makes this entry: the port is this endpoint's.
        let _ = FLOWS4.remove(answer);
        return Err(Reason::FlowTableFull);
    }
    nat::confirm(&endpoint, &mapping, now).inspect_err(|_| {
        let _ = FLOWS4.remove(key);
        let _ = FLOWS4.remove(answer);
    })
}

/// TTL, header checksum, transport checksum and port. The caller writes the
/// address.
#[inline(always)]
fn rewrite<F: Frame>(
    frame: &mut F,
    ip: &Ipv4,
    transport: &Transport,
    flow: &Flow,
    port_field: u32,
) -> Result<(), Reason> {
    let protocol = ip.header.protocol;
    frame.adjust_transport(TransportChange {
        check: transport.check,
        zero_is_none: protocol == protocol::UDP,
        // ICMP has no pseudo-header (RFC 792).
        address_delta: if protocol == protocol::ICMP { 0 } else { flow.address_delta },
        port_delta: flow.port_delta,
    })?;
    frame.write(port_field, flow.port)?;
    let ttl = ip.header.ttl - 1;
    let delta = flow.address_delta + delta2([ip.header.ttl, protocol], [ttl, protocol]);
    let check = update(ip.header.check, delta);
    frame.write(ip.offset + 8, [ttl, protocol, check[0], check[1]])
}
