//! ICMP errors about translated packets (RFC 5508, 4; RFC 6296 for IPv6): what
//! they quote is translated back, so that path-MTU discovery, traceroute and
//! "port unreachable" reach the socket that they are about. Slow path only.
//!
//! An error keeps no flow alive (RFC 5508, REQ-6).

use aya_ebpf::{bindings::__sk_buff, programs::TcContext};
use mwb_common::{
    checksum::{delta2, delta4, update, update_udp},
    maps::{Flow, path_flag},
    nat::{key4, key6, next_hop_is_fresh, protocol, v4},
    parse::{Ipv4, Ipv4Header, Ipv6, Ipv6Header, NOT_QUOTED, Transport, parse_quoted},
    reason::Reason,
};

use crate::{
    Action, Packed,
    account::Account,
    deliver, flow4, flow6,
    frame::{Frame, NextHop, SLOW4, SLOW6, TcFrame},
    maps::{DEVICES, FLOWS4, FLOWS6},
    path::{now, path, place4, place6},
    stage::inside_reason,
    steer4, steer6,
    sum::{is_intact4, is_intact6},
};

/// Length of an ICMP error's own header.
const ICMP: u32 = 8;

/// The packet that an ICMP error is about.
struct Quote<H> {
    header: H,
    offset: u32,
    transport: Transport,
}

#[inline(always)]
fn quote4<F: Frame>(frame: &F, ip: &Ipv4) -> Option<Quote<Ipv4Header>> {
    let offset = ip.transport + ICMP;
    let header: Ipv4Header = frame.read(offset)?;
    let length = (header.version_length & 0x0f) as u32 * 4;
    let later = u16::from_be_bytes(header.fragment) & 0x1fff != 0;
    if header.version_length >> 4 != 4 || length < 20 || later {
        return None;
    }
    let transport = parse_quoted(frame, header.protocol, offset + length, ip.end).ok()?;
    Some(Quote { header, offset, transport })
}

/// RFC 5508, REQ-3: an error with a wrong checksum goes no further. That of one
/// in fragments is left to its receiver, and so is that of the header it quotes:
/// routers count its TTL down and leave the sum as it was.
#[inline(always)]
fn is_right4<F: Frame>(frame: &F, ip: &Ipv4) -> bool {
    ip.is_fragment() || is_intact4(frame.context(), ip)
}

#[inline(always)]
fn is_right6<F: Frame>(frame: &F, ip: &Ipv6) -> bool {
    ip.fragment || is_intact6(frame.context(), ip)
}

/// Ports of the opposite direction.
#[inline(always)]
const fn turned([a, b, c, d]: [u8; 4]) -> [u8; 4] {
    [c, d, a, b]
}

/// An error from a WAN about a packet that has left by it.
#[inline(always)]
pub(crate) fn inward4<F: Frame>(frame: &F, ip: &Ipv4, account: &mut Account) -> Packed {
    Packed::said(inward_error4(frame.context().cast(), ip, account))
}

/// [`inward4`] as a global function: the verifier walks it once.
#[inline(never)]
#[unsafe(no_mangle)]
extern "C" fn inward_error4(skb: *mut __sk_buff, ip: *const Ipv4, account: *mut Account) -> u64 {
    let mut frame = TcFrame::<SLOW4> { context: TcContext::new(skb) };
    // SAFETY: the callers pass both on their stack.
    let (Some(ip), Some(account)) = (unsafe { (ip.as_ref(), account.as_mut()) }) else {
        return Packed::from(Err(Reason::Malformed)).value();
    };
    Packed::from(try_inward4(&mut frame, ip, account)).value()
}

#[inline(always)]
fn try_inward4<F: Frame>(frame: &mut F, ip: &Ipv4, account: &Account) -> Result<Action, Reason> {
    let quote = quote4(frame, ip).ok_or_else(|| steer4::unmatched(ip, Reason::OutsideIcmpError))?;
    let inner = quote.header;
    let ports = turned(quote.transport.ports);
    let key = key4(inner.destination, inner.source, ports, inner.protocol, account.path);
    let flow = FLOWS4.get_ptr_mut(key).ok_or(Reason::OutsideIcmpError);
    let flow = flow.map_err(|reason| steer4::unmatched(ip, reason))?;
    // SAFETY: plain fields of an entry that may become another's: then a next
    // hop is noted there that a second later is looked up again.
    let flow = unsafe { &mut *flow };
    let current = path(account.path, path_flag::HAS_V4)
        .is_some_and(|path| path.generation == flow.generation);
    if !current || inner.source != ip.header.destination {
        return Err(steer4::unmatched(ip, Reason::OutsideIcmpError));
    }
    if !is_right4(frame, ip) {
        return Err(Reason::Malformed);
    }
    if ip.header.ttl <= 1 {
        return Err(Reason::Expired);
    }
    let now = now();
    let host = v4(&flow.address);
    let mut unresolved = 0;
    if !next_hop_is_fresh(flow.next_hop_until, now) {
        unresolved = deliver::find4(frame, ip, flow, now)?;
    }
    translate_quote4(frame, ip, &quote, flow, Side::Source)?;
    steer4::rewrite_header(frame, ip, flow.address_delta)?;
    frame.write(ip.offset + 16, host)?;
    if unresolved != 0 {
        return Ok(Action::resolve(unresolved, NextHop::ROUTE));
    }
    frame.write(0, flow.destination_mac)?;
    frame.write(6, flow.source_mac)?;
    Ok(Action::redirect(flow.ifindex))
}

/// An error from the LAN about a packet that came from a WAN.
#[inline(always)]
pub(crate) fn outward4<F: Frame>(frame: &F, ip: &Ipv4, account: &mut Account) -> Packed {
    Packed::said(outward_error4(frame.context().cast(), ip, account))
}

/// [`outward4`] as a global function: the verifier walks it once.
#[inline(never)]
#[unsafe(no_mangle)]
extern "C" fn outward_error4(skb: *mut __sk_buff, ip: *const Ipv4, account: *mut Account) -> u64 {
    let mut frame = TcFrame::<SLOW4> { context: TcContext::new(skb) };
    // SAFETY: the callers pass both on their stack.
    let (Some(ip), Some(account)) = (unsafe { (ip.as_ref(), account.as_mut()) }) else {
        return Packed::from(Err(Reason::Malformed)).value();
    };
    Packed::from(try_outward4(&mut frame, ip, account)).value()
}

#[inline(always)]
fn try_outward4<F: Frame>(
    frame: &mut F,
    ip: &Ipv4,
    account: &mut Account,
) -> Result<Action, Reason> {
    let unmatched = || inside_reason(place4(ip.header.destination), Reason::InsideIcmpError);
    let quote = quote4(frame, ip).ok_or_else(unmatched)?;
    let inner = quote.header;
    let ports = turned(quote.transport.ports);
    let key = key4(inner.destination, inner.source, ports, inner.protocol, 0);
    let (flow, path) = flow4::entry(&key).ok_or_else(unmatched)?;
    if inner.source != ip.header.destination {
        return Err(unmatched());
    }
    account.path = flow.path;
    if !is_right4(frame, ip) {
        return Err(Reason::Malformed);
    }
    if ip.header.ttl <= 1 {
        return Err(Reason::TtlExpired);
    }
    translate_quote4(frame, ip, &quote, flow, Side::Destination)?;
    // A router of the LAN has no mapping of its own: it speaks with the WAN's
    // address (RFC 5508, REQ-5 c).
    let source = v4(&flow.address);
    steer4::rewrite_header(frame, ip, delta4(ip.header.source, source))?;
    frame.write(ip.offset + 12, source)?;
    // About a packet that was turned round: so is the error (RFC 5508, REQ-7).
    if ip.header.destination == path.address4 {
        let device = DEVICES.get(path.ifindex).ok_or(Reason::NoPath)?;
        frame.write(0, device.mac)?;
        return Ok(Action::turn_round(path.ifindex));
    }
    if path.flags & path_flag::NEXT_HOP4 == 0 {
        return Ok(Action::resolve(path.ifindex, NextHop::v4(flow.path)));
    }
    frame.write(0, path.next_hop_mac4)?;
    frame.write(6, path.source_mac)?;
    Ok(Action::redirect(path.ifindex))
}

/// Which end of the quoted packet is ours.
#[derive(Clone, Copy)]
enum Side {
    Source,
    Destination,
}

/// Gives the quoted packet the address and port that it has on the other side,
/// and makes its checksums and that of the error right.
#[inline(always)]
fn translate_quote4<F: Frame>(
    frame: &mut F,
    ip: &Ipv4,
    quote: &Quote<Ipv4Header>,
    flow: &Flow,
    side: Side,
) -> Result<(), Reason> {
    let Quote { header, offset, transport } = quote;
    let (address, field) = match side {
        Side::Source => (offset + 12, transport.source_field),
        Side::Destination => (offset + 16, transport.destination_field),
    };
    frame.write(address, v4(&flow.address))?;
    let check = update(header.check, flow.address_delta);
    frame.write(offset + 10, check)?;
    let mut delta = flow.address_delta + delta2(header.check, check);
    if transport.check != 0 {
        frame.write(field, flow.port)?;
        delta += flow.port_delta;
        if transport.check != NOT_QUOTED {
            let old: [u8; 2] = frame.read(transport.check).ok_or(Reason::Malformed)?;
            let new = match header.protocol {
                // ICMP has no pseudo-header (RFC 792).
                protocol::ICMP => update(old, flow.port_delta),
                protocol::UDP => update_udp(old, flow.address_delta + flow.port_delta),
                _ => update(old, flow.address_delta + flow.port_delta),
            };
            frame.write(transport.check, new)?;
            delta += delta2(old, new);
        }
    }
    let old: [u8; 2] = frame.read(ip.transport + 2).ok_or(Reason::Malformed)?;
    frame.write(ip.transport + 2, update(old, delta))
}

#[inline(always)]
fn quote6<F: Frame>(frame: &F, ip: &Ipv6) -> Option<Quote<Ipv6Header>> {
    let offset = ip.transport + ICMP;
    let header: Ipv6Header = frame.read(offset)?;
    if header.version_class_label[0] >> 4 != 6 {
        return None;
    }
    let transport = parse_quoted(frame, header.next_header, offset + 40, ip.end).ok()?;
    Some(Quote { header, offset, transport })
}

/// [`inward4`] for IPv6, where the translation of an address changes no sum.
#[inline(always)]
pub(crate) fn inward6<F: Frame>(frame: &F, ip: &Ipv6, account: &mut Account) -> Packed {
    Packed::said(inward_error6(frame.context().cast(), ip, account))
}

/// [`inward6`] as a global function: the verifier walks it once.
#[inline(never)]
#[unsafe(no_mangle)]
extern "C" fn inward_error6(skb: *mut __sk_buff, ip: *const Ipv6, account: *mut Account) -> u64 {
    let mut frame = TcFrame::<SLOW6> { context: TcContext::new(skb) };
    // SAFETY: the callers pass both on their stack.
    let (Some(ip), Some(account)) = (unsafe { (ip.as_ref(), account.as_mut()) }) else {
        return Packed::from(Err(Reason::Malformed)).value();
    };
    Packed::from(try_inward6(&mut frame, ip, account)).value()
}

#[inline(always)]
fn try_inward6<F: Frame>(frame: &mut F, ip: &Ipv6, account: &Account) -> Result<Action, Reason> {
    let unmatched = || steer6::unmatched(ip, Reason::OutsideIcmpError);
    let quote = quote6(frame, ip).ok_or_else(unmatched)?;
    let inner = &quote.header;
    if inner.source != ip.header.destination {
        return Err(unmatched());
    }
    let ports = turned(quote.transport.ports);
    let key = key6(inner.destination, inner.source, ports, inner.next_header, account.path);
    let flow = FLOWS6.get_ptr_mut(key).ok_or_else(unmatched)?;
    // SAFETY: as in `inward4`.
    let flow = unsafe { &mut *flow };
    let current = path(account.path, path_flag::HAS_V6)
        .is_some_and(|path| path.generation == flow.generation);
    if !current {
        return Err(unmatched());
    }
    if !is_right6(frame, ip) {
        return Err(Reason::Malformed);
    }
    if ip.header.hop_limit <= 1 {
        return Err(Reason::Expired);
    }
    let now = now();
    let mut unresolved = 0;
    if !next_hop_is_fresh(flow.next_hop_until, now) {
        unresolved = deliver::find6(frame, ip, flow, now)?;
    }
    frame.write(quote.offset + 8, flow.address)?;
    frame.write(ip.offset + 24, flow.address)?;
    steer6::count_hop(frame, ip)?;
    if unresolved != 0 {
        return Ok(Action::resolve(unresolved, NextHop::ROUTE));
    }
    frame.write(0, flow.destination_mac)?;
    frame.write(6, flow.source_mac)?;
    Ok(Action::redirect(flow.ifindex))
}

/// [`outward4`] for IPv6.
#[inline(always)]
pub(crate) fn outward6<F: Frame>(frame: &F, ip: &Ipv6, account: &mut Account) -> Packed {
    Packed::said(outward_error6(frame.context().cast(), ip, account))
}

/// [`outward6`] as a global function: the verifier walks it once.
#[inline(never)]
#[unsafe(no_mangle)]
extern "C" fn outward_error6(skb: *mut __sk_buff, ip: *const Ipv6, account: *mut Account) -> u64 {
    let mut frame = TcFrame::<SLOW6> { context: TcContext::new(skb) };
    // SAFETY: the callers pass both on their stack.
    let (Some(ip), Some(account)) = (unsafe { (ip.as_ref(), account.as_mut()) }) else {
        return Packed::from(Err(Reason::Malformed)).value();
    };
    Packed::from(try_outward6(&mut frame, ip, account)).value()
}

#[inline(always)]
fn try_outward6<F: Frame>(
    frame: &mut F,
    ip: &Ipv6,
    account: &mut Account,
) -> Result<Action, Reason> {
    let unmatched = || inside_reason(place6(&ip.header.destination), Reason::InsideIcmpError);
    let quote = quote6(frame, ip).ok_or_else(unmatched)?;
    let inner = &quote.header;
    if inner.source != ip.header.destination {
        return Err(unmatched());
    }
    let ports = turned(quote.transport.ports);
    let key = key6(inner.destination, inner.source, ports, inner.next_header, 0);
    let (flow, path) = flow6::entry(&key).ok_or_else(unmatched)?;
    account.path = flow.path;
    if !is_right6(frame, ip) {
        return Err(Reason::Malformed);
    }
    if ip.header.hop_limit <= 1 {
        return Err(Reason::TtlExpired);
    }
    frame.write(quote.offset + 24, flow.address)?;
    // The error may come from a router of the LAN.
    let mut source = [0; 16];
    if !flow6::outside(path, &ip.header.source, &mut source) {
        return Err(Reason::ForeignSource);
    }
    frame.write(ip.offset + 8, source)?;
    steer6::count_hop(frame, ip)?;
    if path.flags & path_flag::NEXT_HOP6 == 0 {
        return Ok(Action::resolve(path.ifindex, NextHop::v6(flow.path)));
    }
    frame.write(0, path.next_hop_mac6)?;
    frame.write(6, path.source_mac)?;
    Ok(Action::redirect(path.ifindex))
}
