//! IPv6: prefix translation (RFC 6296) with a flow for the sticky path and
//! against unsolicited traffic.

use mwb_common::{
    maps::{Choice, Device, Family, Flow, FlowKey6, Path, how, path_flag},
    nat::{fragment_key6, hash6, inbound6, key6, next_hop_is_fresh},
    nptv6::Translation,
    parse::{Ipv6, Refusal, Transport, parse_transport},
    reason::{Reason, Verdict},
};

use crate::{
    Action, Packed,
    account::Account,
    answer, deliver,
    fragment::{self, LEFT_TO_KERNEL},
    frame::{Frame, NextHop, TransportChange},
    maps::{CONTROL, FLOWS6},
    opening::{Opening, code, decoded},
    path::{Alive, Place, choose, now, path, place6, stands},
    quoted,
    stage::{
        Stop, clamp_mss, inside_reason, is_refusal, may_open, outside_reason, refused, seen,
        source_may_open,
    },
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
            if let Err(reason) = open(&key, now, may_open(ip.header.hop_limit, &transport)) {
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

/// The entry of an inbound flow, if it is of its path's generation.
#[inline(always)]
fn expected(key: &FlowKey6, path: &Path) -> Option<&'static mut Flow> {
    // SAFETY: as for IPv4.
    let flow = unsafe { &mut *FLOWS6.get_ptr_mut(key)? };
    (path.generation == flow.generation).then_some(flow)
}

/// As for IPv4: the entry that is valid now, with its path.
#[inline(always)]
fn established(key: &FlowKey6, alive: &Alive) -> Option<(&'static mut Flow, &'static Path)> {
    let (flow, path) = entry(key)?;
    stands(flow.choice, flow.path, path, alive, Family::V6).then_some((flow, path))
}

/// The entry of an outbound flow, if it is of its path's generation.
#[inline(always)]
pub(crate) fn entry(key: &FlowKey6) -> Option<(&'static mut Flow, &'static Path)> {
    // SAFETY: as for IPv4.
    let flow = unsafe { &mut *FLOWS6.get_ptr_mut(key)? };
    let path = path(flow.path, path_flag::HAS_V6)?;
    if path.generation == flow.generation { Some((flow, path)) } else { None }
}

/// Writes an inside address as it looks on a path; says whether it can look so. A
/// subprogram: it would take much of the caller's stack.
#[inline(never)]
pub(crate) fn outside(path: &Path, source: &[u8; 16], to: &mut [u8; 16]) -> bool {
    let translation = Translation {
        inside: path.inside6,
        outside: path.outside6,
        length: path.npt_length,
        adjustment: path.npt_adjustment,
    };
    match translation.outward(*source) {
        Some(address) => {
            *to = address;
            true
        }
        None => false,
    }
}

/// Makes both entries of a new flow.
#[inline(always)]
fn open(key: &FlowKey6, now: u64, may_open: Result<(), Reason>) -> Result<(), Reason> {
    decoded(open6(key, now, code(may_open)))
}

/// [`open`] as a global function: the verifier walks it once, not once for each
/// state of each caller.
#[inline(never)]
#[unsafe(no_mangle)]
extern "C" fn open6(key: *const FlowKey6, now: u64, may_open: u32) -> u32 {
    code(try_open(key, now, may_open))
}

#[inline(always)]
fn try_open(key: *const FlowKey6, now: u64, may_open: u32) -> Result<(), Reason> {
    let Opening { flow, key6, answer6, .. } = Opening::room()?;
    // SAFETY: the callers pass a key on their stack.
    *key6 = *unsafe { key.as_ref() }.ok_or(Reason::FlowTableFull)?;
    let key = &*key6;
    let via = match place6(&key.destination) {
        Place::Wan(via) => via,
        place => return Err(inside_reason(place, Reason::Local)),
    };
    decoded(may_open)?;
    source_may_open(place6(&key.source))?;
    let (chosen, choice) = if via != 0 {
        (via, Choice { how: how::VIA, ..Choice::default() })
    } else {
        let seed = CONTROL.get(0).ok_or(Reason::NoPath)?.seed;
        choose(Family::V6, hash6(key, seed), now)?
    };
    let path = path(chosen, path_flag::HAS_V6).ok_or(Reason::NoPath)?;
    *answer6 = inbound6(key, [0; 16], chosen);
    if !outside(path, &key.source, &mut answer6.destination) {
        return Err(Reason::ForeignSource);
    }
    let answer = &*answer6;
    let choice = Choice { epoch: path.epoch, ..choice };
    let generation = path.generation;
    *flow = Flow { opened: now, generation, path: chosen, choice, ..Flow::default() };
    flow.address = key.source;
    FLOWS6.insert(answer, &*flow, 0).map_err(|_| Reason::FlowTableFull)?;
    flow.address = answer.destination;
    flow.last_seen = now;
    if FLOWS6.insert(key, &*flow, 0).is_err() {
        let _ = FLOWS6.remove(answer);
        return Err(Reason::FlowTableFull);
    }
    Ok(())
}
