//! IPv4: the way of a packet in both directions, and its rewriting.

use mwb_common::{
    checksum::{delta2, update},
    maps::{Device, Flow, path_flag},
    nat::{fragment_key4, key4, next_hop_is_fresh, protocol, v4},
    parse::{Ipv4, Refusal, Transport, parse_ipv4, parse_transport, tcp_flag},
    reason::{Reason, Verdict},
};

use crate::{
    Action, Packed,
    account::Account,
    admit, answer, deliver, divide,
    flow4::{entry, established, expected, open},
    fragment::{self, LEFT_TO_KERNEL},
    frame::{Frame, NextHop, TransportChange},
    maps::DEVICES,
    path::{Alive, now, path, place4},
    quoted,
    stage::{Stop, clamp_mss, inside_reason, is_refusal, may_open, outside_reason, refused, seen},
};

/// IPv4 and TCP headers without options: what a segment takes of the MTU.
const SEGMENT_HEADERS: u32 = 40;

/// A packet from the LAN.
#[inline(always)]
pub(crate) fn outward<F: Frame>(
    frame: &mut F,
    network: u32,
    account: &mut Account,
) -> Result<Action, Reason> {
    let ip = parse_ipv4(frame, network).map_err(|_| Reason::Malformed)?;
    account.ipv4(ip.header.protocol);
    account.bytes = ip.end - network;
    let now = now();
    let transport = match read_transport(frame, &ip, account) {
        Ok(transport) => transport,
        Err(Stop::IcmpError) if F::SLOW => return quoted::outward4(frame, &ip, account).unpack(),
        Err(Stop::Slow | Stop::IcmpError) => return Ok(Action::SLOW),
        Err(Stop::Held) => return Ok(Action::LATER),
        Err(Stop::Kernel) => return Err(Reason::Local),
        Err(stop) => {
            let reason = match stop {
                Stop::Refused(refusal) => refused(refusal),
                _ => Reason::FragmentOrphan,
            };
            return Err(inside_reason(place4(ip.header.destination), reason));
        }
    };
    let key = key4(ip.header.source, ip.header.destination, transport.ports, ip.header.protocol, 0);
    let alive = Alive::at(now)?;
    let (flow, path) = match established(&key, &alive) {
        Some(found) => found,
        None => {
            if let Err(reason) = open(frame, &key, now, may_open(ip.header.ttl, &transport)) {
                return if is_refusal(reason) {
                    refuse(frame, &ip, now, reason).unpack()
                } else {
                    close(frame, &ip, &transport, account, reason)
                };
            }
            // It was made for this packet: liveness is not asked again.
            entry(&key).ok_or(Reason::FlowTableFull)?
        }
    };
    account.path = flow.path;
    if F::SLOW && is_first_fragment(&ip) && remember(frame, &ip, &transport, 0) {
        return Ok(Action::LATER);
    }
    if ip.header.ttl <= 1 {
        return Err(Reason::TtlExpired);
    }
    let turns = ip.header.destination == path.address4;
    let too_big = frame.largest(ip.end - network, transport.payload - network) > path.mtu;
    if !F::SLOW && (turns || too_big) {
        return Ok(Action::SLOW);
    }
    if !turns && too_big {
        if F::SLOW && divide::is_divisible(frame, &ip) {
            seen(flow, frame, &transport, account, now);
            return leave_divided(frame, &ip, &transport, flow).unpack();
        }
        let source = place4(ip.header.source);
        return answer::answer4(frame, &ip, source, answer::Error::TooBig(path.mtu));
    }
    let resolved = path.flags & path_flag::NEXT_HOP4 != 0;
    if !(F::RESOLVES || resolved && frame.reaches(path.ifindex)) {
        return Ok(Action::HAND_OVER);
    }
    seen(flow, frame, &transport, account, now);
    let clamped = clamp_mss(frame, &transport, path.mtu - SEGMENT_HEADERS)?;
    rewrite(frame, &ip, &transport, flow, transport.source_field, clamped)?;
    frame.write(network + 12, v4(&flow.address))?;
    if turns {
        let device = DEVICES.get(path.ifindex).ok_or(Reason::NoPath)?;
        frame.write(0, device.mac)?;
        return Ok(Action::turn_round(path.ifindex));
    }
    if !resolved {
        return Ok(Action::resolve(path.ifindex, NextHop::v4(flow.path)));
    }
    frame.write(0, path.next_hop_mac4)?;
    frame.write(6, path.source_mac)?;
    Ok(Action::redirect(path.ifindex))
}

/// A packet from a WAN.
#[inline(always)]
pub(crate) fn inward<F: Frame>(
    frame: &mut F,
    network: u32,
    device: &Device,
    account: &mut Account,
) -> Result<Action, Reason> {
    let ip = parse_ipv4(frame, network).map_err(|_| Reason::Malformed)?;
    account.ipv4(ip.header.protocol);
    account.path = device.path;
    account.bytes = ip.end - network;
    let now = now();
    let transport = match read_transport(frame, &ip, account) {
        Ok(transport) => transport,
        Err(Stop::IcmpError) if F::SLOW => return quoted::inward4(frame, &ip, account).unpack(),
        Err(Stop::Slow | Stop::IcmpError) => return Ok(Action::SLOW),
        Err(Stop::Held) => return Ok(Action::LATER),
        Err(Stop::Kernel) => return Err(Reason::OutsideFragment),
        Err(stop) => {
            let reason = match stop {
                Stop::Refused(Refusal::Malformed) => Reason::Malformed,
                Stop::Refused(_) => Reason::NoMapping,
                _ => Reason::FragmentOrphan,
            };
            return Err(unmatched(&ip, reason));
        }
    };
    let key = key4(
        ip.header.source,
        ip.header.destination,
        transport.ports,
        ip.header.protocol,
        device.path,
    );
    let path = path(device.path, path_flag::HAS_V4);
    let found = path.and_then(|path| expected(&key, path));
    let flow = match found {
        Some(flow) => flow,
        None => {
            let admitted = match path {
                Some(path) if may_enter(&transport) => admit::admissible(&key, path),
                _ => None,
            };
            let (Some(inside), Some(path)) = (admitted, path) else {
                let reason = if is_dhcp(&ip, &transport) {
                    Reason::NoMapping
                } else if path
                    .is_some_and(|path| admit::is_kept_out(&key, path, transport.tcp_flags))
                {
                    Reason::Filtered
                } else {
                    unmatched(&ip, Reason::NoMapping)
                };
                return close(frame, &ip, &transport, account, reason);
            };
            if !F::SLOW {
                return Ok(Action::SLOW);
            }
            admit::open(&key, &inside, now)?;
            expected(&key, path).ok_or(Reason::FlowTableFull)?
        }
    };
    if F::SLOW && is_first_fragment(&ip) && remember(frame, &ip, &transport, device.path) {
        return Ok(Action::LATER);
    }
    if ip.header.ttl <= 1 {
        if !F::SLOW {
            return Ok(Action::SLOW);
        }
        let source = place4(ip.header.source);
        return answer::answer4(frame, &ip, source, answer::Error::Expired);
    }
    let host = v4(&flow.address);
    let most = path.map_or(0, |path| path.mtu) - SEGMENT_HEADERS;
    if !next_hop_is_fresh(flow.next_hop_until, now) {
        match deliver::find4(frame, &ip, flow, now)? {
            0 => {}
            _ if !F::RESOLVES => return Ok(Action::HAND_OVER),
            ifindex => {
                seen(flow, frame, &transport, account, now);
                let clamped = clamp_mss(frame, &transport, most)?;
                rewrite(frame, &ip, &transport, flow, transport.destination_field, clamped)?;
                frame.write(network + 16, host)?;
                return Ok(Action::resolve(ifindex, NextHop::ROUTE));
            }
        }
    }
    let too_big = frame.largest(ip.end - network, transport.payload - network) > flow.mtu;
    if !F::SLOW && too_big {
        return Ok(Action::SLOW);
    }
    if too_big {
        if F::SLOW && divide::is_divisible(frame, &ip) {
            seen(flow, frame, &transport, account, now);
            return arrive_divided(frame, &ip, &transport, flow).unpack();
        }
        let source = place4(ip.header.source);
        return answer::answer4(frame, &ip, source, answer::Error::TooBig(flow.mtu));
    }
    if !frame.reaches(flow.ifindex) {
        return Ok(Action::HAND_OVER);
    }
    seen(flow, frame, &transport, account, now);
    let clamped = clamp_mss(frame, &transport, most)?;
    rewrite(frame, &ip, &transport, flow, transport.destination_field, clamped)?;
    frame.write(network + 16, host)?;
    frame.write(0, flow.destination_mac)?;
    frame.write(6, flow.source_mac)?;
    Ok(Action::redirect(flow.ifindex))
}

/// Whether such a packet may open a flow from a WAN: of TCP, the first of a
/// connection only.
#[inline(always)]
fn may_enter(transport: &Transport) -> bool {
    let flags = transport.tcp_flags;
    transport.opens && (flags == 0 || flags & (tcp_flag::SYN | tcp_flag::ACK) == tcp_flag::SYN)
}

/// Sends a packet to a WAN in pieces. A subprogram, like the next: what it does
/// is rare, and would be on the stack of all. Without a resolved next hop the
/// pieces go to nobody; it is resolved soon.
#[inline(never)]
fn leave_divided<F: Frame>(frame: &mut F, ip: &Ipv4, transport: &Transport, flow: &Flow) -> Packed {
    Packed::from(try_leave_divided(frame, ip, transport, flow))
}

#[inline(always)]
fn try_leave_divided<F: Frame>(
    frame: &mut F,
    ip: &Ipv4,
    transport: &Transport,
    flow: &Flow,
) -> Result<Action, Reason> {
    let path = path(flow.path, path_flag::HAS_V4).ok_or(Reason::NoPath)?;
    rewrite(frame, ip, transport, flow, transport.source_field, 0)?;
    frame.write(ip.offset + 12, v4(&flow.address))?;
    frame.write(0, path.next_hop_mac4)?;
    frame.write(6, path.source_mac)?;
    divide::send(frame, path.mtu, path.ifindex)
}

/// Sends a packet to an inside host in pieces.
#[inline(never)]
fn arrive_divided<F: Frame>(
    frame: &mut F,
    ip: &Ipv4,
    transport: &Transport,
    flow: &Flow,
) -> Packed {
    Packed::from(try_arrive_divided(frame, ip, transport, flow))
}

#[inline(always)]
fn try_arrive_divided<F: Frame>(
    frame: &mut F,
    ip: &Ipv4,
    transport: &Transport,
    flow: &Flow,
) -> Result<Action, Reason> {
    rewrite(frame, ip, transport, flow, transport.destination_field, 0)?;
    frame.write(ip.offset + 16, v4(&flow.address))?;
    frame.write(0, flow.destination_mac)?;
    frame.write(6, flow.source_mac)?;
    divide::send(frame, flow.mtu, flow.ifindex)
}

#[inline(always)]
fn is_first_fragment(ip: &Ipv4) -> bool {
    ip.is_fragment() && !ip.is_later_fragment()
}

/// The transport header, or that of a fragment's datagram.
#[inline(always)]
fn read_transport<F: Frame>(frame: &F, ip: &Ipv4, account: &Account) -> Result<Transport, Stop> {
    if ip.is_fragment() && !F::SLOW {
        return Err(Stop::Slow);
    }
    if F::SLOW && ip.is_later_fragment() {
        return fragment::later(recall(frame, ip, account), ip.transport);
    }
    if ip.header.protocol == protocol::ICMPV6 {
        return Err(Stop::Refused(Refusal::Unsupported));
    }
    let whole = !(F::SLOW && ip.is_fragment());
    Ok(parse_transport(frame, ip.header.protocol, ip.transport, ip.end, whole)?)
}

/// The ports of a later fragment's datagram. A subprogram, as the next one.
#[inline(never)]
fn recall<F: Frame>(frame: &F, ip: &Ipv4, account: &Account) -> u64 {
    fragment::recall(frame, &fragment_key4(&ip.header, account.path), account)
}

/// Leaves the ports of a first fragment to the others; true: those that waited
/// have come in again, and so has this one. `scope` may have [`LEFT_TO_KERNEL`].
/// A subprogram: the key would not fit on the caller's stack.
#[inline(never)]
fn remember<F: Frame>(frame: &F, ip: &Ipv4, transport: &Transport, scope: u8) -> bool {
    let (kernel, scope) = (scope & LEFT_TO_KERNEL != 0, scope & !LEFT_TO_KERNEL);
    let key = fragment_key4(&ip.header, scope);
    fragment::first(frame, &key, transport.ports, ip.header.protocol, kernel)
}

/// Ends a packet that there is no room for, and tells its sender as often as may
/// be. A subprogram: it is rare.
#[inline(never)]
fn refuse<F: Frame>(frame: &mut F, ip: &Ipv4, now: u64, reason: Reason) -> Packed {
    Packed::from(match (F::SLOW, answer::may_answer(now)) {
        (_, false) => Err(reason),
        (false, true) => Ok(Action::SLOW),
        (true, true) => {
            let source = place4(ip.header.source);
            answer::answer4(frame, ip, source, answer::Error::Refused(reason))
        }
    })
}

/// Ends a packet without a flow. If the kernel gets a first fragment, it gets
/// the others too.
#[inline(always)]
fn close<F: Frame>(
    frame: &F,
    ip: &Ipv4,
    transport: &Transport,
    account: &Account,
    reason: Reason,
) -> Result<Action, Reason> {
    if reason.verdict() == Verdict::Forward {
        return Ok(Action::SLOW);
    }
    if F::SLOW
        && is_first_fragment(ip)
        && reason.verdict() == Verdict::Kernel
        && remember(frame, ip, transport, account.path | LEFT_TO_KERNEL)
    {
        return Ok(Action::LATER);
    }
    Err(reason)
}

/// The reason of a packet from a WAN that is of no flow.
#[inline(always)]
pub(crate) fn unmatched(ip: &Ipv4, reason: Reason) -> Reason {
    outside_reason(place4(ip.header.destination), || place4(ip.header.source), reason)
}

/// An answer to the gateway's own DHCP client may carry an address that is not
/// configured yet.
#[inline(always)]
fn is_dhcp(ip: &Ipv4, transport: &Transport) -> bool {
    ip.header.protocol == protocol::UDP && transport.ports == [0, 67, 0, 68]
}

/// TTL, header checksum, transport checksum and port. The caller writes the
/// address. `more` is what another change adds to the transport's checksum.
#[inline(always)]
fn rewrite<F: Frame>(
    frame: &mut F,
    ip: &Ipv4,
    transport: &Transport,
    flow: &Flow,
    port_field: u32,
    more: u32,
) -> Result<(), Reason> {
    if transport.check != 0 {
        let protocol = ip.header.protocol;
        frame.adjust_transport(TransportChange {
            check: transport.check,
            zero_is_none: protocol == protocol::UDP,
            // ICMP has no pseudo-header (RFC 792).
            address_delta: if protocol == protocol::ICMP { 0 } else { flow.address_delta },
            port_delta: flow.port_delta + more,
        })?;
        frame.write(port_field, flow.port)?;
    }
    rewrite_header(frame, ip, flow.address_delta)
}

/// TTL and header checksum. The caller writes the address.
#[inline(always)]
pub(crate) fn rewrite_header<F: Frame>(
    frame: &mut F,
    ip: &Ipv4,
    address_delta: u32,
) -> Result<(), Reason> {
    let protocol = ip.header.protocol;
    let ttl = ip.header.ttl - 1;
    let delta = address_delta + delta2([ip.header.ttl, protocol], [ttl, protocol]);
    let check = update(ip.header.check, delta);
    frame.write(ip.offset + 8, [ttl, protocol, check[0], check[1]])
}
