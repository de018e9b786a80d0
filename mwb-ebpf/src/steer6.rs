//! IPv6: prefix translation (RFC 6296) with a flow for the sticky path and
//! against unsolicited traffic.

use mwb_common::{
    maps::{Device, path_flag},
    nat::{fragment_key6, key6, next_hop_is_fresh},
    parse::{Ipv6, Refusal, Transport, parse_transport},
    reason::{Reason, Verdict},
};

use crate::{
    Action, Packed,
    account::Account,
    answer, deliver,
    flow6::{entry, established, expected, open},
    fragment::{self, LEFT_TO_KERNEL},
    frame::{Frame, NextHop, TransportChange},
    path::{Alive, now, path, place6},
    quoted,
    stage::{Stop, clamp_mss, inside_reason, is_refusal, may_open, outside_reason, refused, seen},
};

/// IPv6 and TCP headers without options: what a segment takes of the MTU.
const SEGMENT_HEADERS: u32 = 60;

/// A packet from the LAN.
#[inline(always)]
pub(crate) fn outward<F: Frame>(
    frame: &mut F,
    network: u32,
    account: &mut Account,
) -> Result<Action, Reason> {
    let mut ip = Ipv6::zeroed();
    frame.read_ipv6(network, &mut ip)?;
    account.ipv6(ip.protocol);
    account.bytes = ip.end - network;
    let now = now();
    let transport = match read_transport(frame, &ip, account) {
        Ok(transport) => transport,
        Err(Stop::IcmpError) if F::SLOW => return quoted::outward6(frame, &ip, account).unpack(),
        Err(Stop::Slow | Stop::IcmpError) => return Ok(Action::SLOW),
        Err(Stop::Held) => return Ok(Action::LATER),
        Err(Stop::Kernel) => return Err(Reason::Local),
        Err(stop) => {
            let reason = match stop {
                Stop::Refused(refusal) => refused(refusal),
                _ => Reason::FragmentOrphan,
            };
            return Err(inside_reason(place6(&ip.header.destination), reason));
        }
    };
    let key = key6(ip.header.source, ip.header.destination, transport.ports, ip.protocol, 0);
    let alive = Alive::at(now)?;
    let (flow, path) = match established(&key, &alive) {
        Some(found) => found,
        None => {
            if let Err(reason) = open(frame, &key, now, may_open(ip.header.hop_limit, &transport)) {
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
    if F::SLOW && ip.fragment && !ip.later && remember(frame, &ip, &transport, 0) {
        return Ok(Action::LATER);
    }
    if ip.header.hop_limit <= 1 {
        return Err(Reason::TtlExpired);
    }
    if frame.largest(ip.end - network, transport.payload - network) > path.mtu {
        if !F::SLOW {
            return Ok(Action::SLOW);
        }
        let source = place6(&ip.header.source);
        return answer::answer6(frame, &ip, source, answer::Error::TooBig(path.mtu));
    }
    let resolved = path.flags & path_flag::NEXT_HOP6 != 0;
    if !(F::RESOLVES || resolved && frame.reaches(path.ifindex)) {
        return Ok(Action::HAND_OVER);
    }
    seen(flow, frame, &transport, account, now);
    clamp(frame, &transport, path.mtu)?;
    count_hop(frame, &ip)?;
    frame.write(network + 8, flow.address)?;
    if !resolved {
        return Ok(Action::resolve(path.ifindex, NextHop::v6(flow.path)));
    }
    frame.write(0, path.next_hop_mac6)?;
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
    let mut ip = Ipv6::zeroed();
    frame.read_ipv6(network, &mut ip)?;
    account.ipv6(ip.protocol);
    account.path = device.path;
    account.bytes = ip.end - network;
    let now = now();
    let transport = match read_transport(frame, &ip, account) {
        Ok(transport) => transport,
        Err(Stop::IcmpError) if F::SLOW => return quoted::inward6(frame, &ip, account).unpack(),
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
    let key =
        key6(ip.header.source, ip.header.destination, transport.ports, ip.protocol, device.path);
    let path = path(device.path, path_flag::HAS_V6);
    let Some(flow) = path.and_then(|path| expected(&key, path)) else {
        let reason = unmatched(&ip, Reason::NoMapping);
        return close(frame, &ip, &transport, account, reason);
    };
    if F::SLOW && ip.fragment && !ip.later && remember(frame, &ip, &transport, device.path) {
        return Ok(Action::LATER);
    }
    if ip.header.hop_limit <= 1 {
        if !F::SLOW {
            return Ok(Action::SLOW);
        }
        let source = place6(&ip.header.source);
        return answer::answer6(frame, &ip, source, answer::Error::Expired);
    }
    let most = path.map_or(0, |path| path.mtu);
    if !next_hop_is_fresh(flow.next_hop_until, now) {
        match deliver::find6(frame, &ip, flow, now)? {
            0 => {}
            _ if !F::RESOLVES => return Ok(Action::HAND_OVER),
            ifindex => {
                seen(flow, frame, &transport, account, now);
                clamp(frame, &transport, most)?;
                count_hop(frame, &ip)?;
                frame.write(network + 24, flow.address)?;
                return Ok(Action::resolve(ifindex, NextHop::ROUTE));
            }
        }
    }
    if frame.largest(ip.end - network, transport.payload - network) > flow.mtu {
        if !F::SLOW {
            return Ok(Action::SLOW);
        }
        let source = place6(&ip.header.source);
        return answer::answer6(frame, &ip, source, answer::Error::TooBig(flow.mtu));
    }
    if !frame.reaches(flow.ifindex) {
        return Ok(Action::HAND_OVER);
    }
    seen(flow, frame, &transport, account, now);
    clamp(frame, &transport, most)?;
    count_hop(frame, &ip)?;
    frame.write(network + 24, flow.address)?;
    frame.write(0, flow.destination_mac)?;
    frame.write(6, flow.source_mac)?;
    Ok(Action::redirect(flow.ifindex))
}

/// The transport header, or that of a fragment's datagram.
#[inline(always)]
fn read_transport<F: Frame>(frame: &F, ip: &Ipv6, account: &Account) -> Result<Transport, Stop> {
    if ip.fragment && !F::SLOW {
        return Err(Stop::Slow);
    }
    if F::SLOW && ip.later {
        return fragment::later(recall(frame, ip, account), ip.transport);
    }
    if ip.protocol == mwb_common::nat::protocol::ICMP {
        return Err(Stop::Refused(Refusal::Unsupported));
    }
    let whole = !(F::SLOW && ip.fragment);
    Ok(parse_transport(frame, ip.protocol, ip.transport, ip.end, whole)?)
}

/// As for IPv4.
#[inline(never)]
fn recall<F: Frame>(frame: &F, ip: &Ipv6, account: &Account) -> u64 {
    let key = fragment_key6(&ip.header, ip.identification, account.path);
    fragment::recall(frame, &key, account)
}

/// As for IPv4.
#[inline(never)]
fn remember<F: Frame>(frame: &F, ip: &Ipv6, transport: &Transport, scope: u8) -> bool {
    let (kernel, scope) = (scope & LEFT_TO_KERNEL != 0, scope & !LEFT_TO_KERNEL);
    let key = fragment_key6(&ip.header, ip.identification, scope);
    fragment::first(frame, &key, transport.ports, ip.protocol, kernel)
}

/// As for IPv4: ends a packet that there is no room for.
#[inline(never)]
fn refuse<F: Frame>(frame: &mut F, ip: &Ipv6, now: u64, reason: Reason) -> Packed {
    Packed::from(match (F::SLOW, answer::may_answer(now)) {
        (_, false) => Err(reason),
        (false, true) => Ok(Action::SLOW),
        (true, true) => {
            let source = place6(&ip.header.source);
            answer::answer6(frame, ip, source, answer::Error::Refused(reason))
        }
    })
}

/// As for IPv4: ends a packet without a flow.
#[inline(always)]
fn close<F: Frame>(
    frame: &F,
    ip: &Ipv6,
    transport: &Transport,
    account: &Account,
    reason: Reason,
) -> Result<Action, Reason> {
    if F::SLOW
        && ip.fragment
        && !ip.later
        && reason.verdict() == Verdict::Kernel
        && remember(frame, ip, transport, account.path | LEFT_TO_KERNEL)
    {
        return Ok(Action::LATER);
    }
    Err(reason)
}

/// The reason of a packet from a WAN that is of no flow.
#[inline(always)]
pub(crate) fn unmatched(ip: &Ipv6, reason: Reason) -> Reason {
    outside_reason(place6(&ip.header.destination), || place6(&ip.header.source), reason)
}

#[inline(always)]
pub(crate) fn count_hop<F: Frame>(frame: &mut F, ip: &Ipv6) -> Result<(), Reason> {
    frame.write(ip.offset + 6, [ip.header.next_header, ip.header.hop_limit - 1])
}

/// Bounds the maximum segment size of a SYN to a WAN's MTU.
#[inline(always)]
fn clamp<F: Frame>(frame: &mut F, transport: &Transport, mtu: u32) -> Result<(), Reason> {
    let port_delta = clamp_mss(frame, transport, mtu - SEGMENT_HEADERS)?;
    if port_delta == 0 {
        return Ok(());
    }
    let check = transport.check;
    frame.adjust_transport(TransportChange {
        check,
        zero_is_none: false,
        address_delta: 0,
        port_delta,
    })
}
