//! Into the bond: what a LAN port or the bond's device brings is sealed and sent.

use aya_ebpf::{
    bindings::xdp_md,
    helpers::{bpf_ktime_get_ns, bpf_xdp_adjust_head, bpf_xdp_adjust_tail},
    maps::lpm_trie::Key,
    programs::XdpContext,
};
use mwb_common::{
    checksum::{delta2, update},
    integrity::Suite,
    maps::{Bond, FlowKey6, bond_role, bucket, path_index, role, session_flag, tick},
    nat::protocol,
    parse::{
        Bytes as _, ETHERNET, Ipv6, Transport, ethertype, parse_ethernet, parse_ipv4, tcp_flag,
    },
    reason::Reason,
    wire::{Kind, inner},
};

use super::{
    choose::{Chosen, bond_choose},
    copy::{bond_copy, bond_twice, is_copy},
    outer::{Way, bond_outer, overhead},
    packet::LONGEST,
    probe::{bond_probe, takes_turn},
    send::bond_send,
    work::{Heading, Work, step},
};
use crate::{
    addressed_to,
    frame::{Frame as _, TransportChange, XdpFrame, opaque},
    maps::{BOND, DEVICES, OWNERS4, OWNERS6, SESSIONS},
    opening::{code, decoded},
    path::{Place, place4, place6},
    stage::clamp_mss,
};

/// The steps of a packet. Each is a global function that says 0, or a reason and one, and
/// has [`Work`] for itself: it is asked for anew behind each.
#[inline(always)]
pub(super) fn process(context: *mut xdp_md) -> Result<(), Reason> {
    decoded(bond_parse(context))?;
    let next = Work::room()?.next;
    if next == step::TICK {
        decoded(bond_probe(context))?;
    } else if next == step::COPY {
        decoded(bond_copy(context))?;
        decoded(bond_wrap(context))?;
    } else {
        let chosen = Chosen::said(bond_choose());
        let work = Work::room()?;
        work.account.path = chosen.path()?;
        work.flow_sequence = chosen.flow_sequence();
        if chosen.is_tick() {
            return decoded(bond_round(context));
        }
        if chosen.is_copied() {
            return decoded(bond_twice(context));
        }
        work.heading.flags = chosen.flags();
        decoded(bond_wrap(context))?;
    }
    decoded(bond_send(context))
}

/// What it is, and whose.
#[inline(never)]
#[unsafe(no_mangle)]
extern "C" fn bond_parse(context: *mut xdp_md) -> u32 {
    code(parse(context))
}

#[inline(always)]
fn parse(context: *mut xdp_md) -> Result<(), Reason> {
    let mut frame = frame_of(context);
    let work = Work::room()?;
    let device = DEVICES.get(work.came_by).ok_or(Reason::NotOurs)?;
    let link = parse_ethernet(&frame).map_err(|_| Reason::Malformed)?;
    work.account.bytes = frame.len().saturating_sub(link.network);
    if link.tags != 0 {
        return Err(Reason::Tagged);
    }
    let bond = BOND.get(0).ok_or(Reason::NoSession)?;
    work.from_device = device.role == role::DEVICE;
    if work.from_device
        && (link.ethertype.to_be_bytes() == tick::ETHERTYPE || takes_turn(&frame, bond))
    {
        work.next = step::TICK;
        return Ok(());
    }
    if !work.from_device && matches!(link.ethertype, ethertype::IPV4 | ethertype::IPV6) {
        addressed_to(&frame, device)?;
    }
    match link.ethertype {
        ethertype::IPV4 => parse4(&frame, work, bond)?,
        ethertype::IPV6 => parse6(&mut frame, work, bond)?,
        _ => return Err(Reason::NotIp),
    }
    let length = work.end.wrapping_sub(ETHERNET);
    work.account.bytes = length;
    work.slot &= bond.slot_mask;
    let session = SESSIONS.get(work.slot).ok_or(Reason::NoSession)?;
    if session.ours == 0 || session.flags & session_flag::PRESENT == 0 {
        return Err(Reason::NoSession);
    }
    let suite = Suite::from_number(session.suite).ok_or(Reason::NoSession)?;
    // What lies in several buffers is as good as too big: the kernel brings it back in one.
    let most = LONGEST - ETHERNET - overhead(suite, true);
    if length > session.mtu || length > most || work.end > opaque(frame.len()) as u32 {
        return Err(Reason::BondTooBig);
    }
    trim(&frame, work.end)?;
    work.heading.bucket = bucket_of(&frame, work, bond)?;
    work.now = time();
    if work.from_device && is_copy(&frame) {
        work.next = step::COPY;
    }
    Ok(())
}

/// The way of a packet from the LAN that is not for the bond.
#[inline(always)]
fn is_ours(place: &Place) -> Result<(), Reason> {
    match place {
        Place::Kernel(reason) => Err(*reason),
        Place::Own(_) | Place::Lan => Err(Reason::Local),
        Place::Wan(_) => Ok(()),
    }
}

#[inline(always)]
fn parse4(frame: &XdpFrame, work: &mut Work, bond: &Bond) -> Result<(), Reason> {
    let ip = parse_ipv4(frame, ETHERNET).map_err(|_| Reason::Malformed)?;
    work.account.ipv4(ip.header.protocol);
    let destination = ip.header.destination;
    if work.from_device {
        if destination[0] >= 224 {
            return Err(Reason::Multicast);
        }
    } else {
        is_ours(&place4(destination))?;
        if ip.header.ttl <= 1 {
            return Err(Reason::TtlExpired);
        }
    }
    work.slot = if bond.role == bond_role::SERVER {
        OWNERS4.get(&Key::new(32, destination)).ok_or(Reason::NoSession)?.slot
    } else {
        bond.slot
    };
    let (source, destination) = (padded(ip.header.source), padded(destination));
    work.key = key(source, destination, ip.header.protocol, inner::IPV4);
    work.heading = Heading::new(Kind::Data, 0, 0, inner::IPV4, 0);
    work.dscp = ip.header.tos >> 2;
    (work.protocol, work.whole) = (ip.header.protocol, !ip.is_fragment());
    (work.transport, work.end) = (ip.transport, ip.end);
    Ok(())
}

#[inline(always)]
fn parse6(frame: &mut XdpFrame, work: &mut Work, bond: &Bond) -> Result<(), Reason> {
    let mut ip = Ipv6::zeroed();
    // Headers that are not known are the receiver's to refuse.
    match frame.read_ipv6(ETHERNET, &mut ip) {
        Ok(()) => {}
        Err(Reason::Malformed) => return Err(Reason::Malformed),
        Err(_) => (ip.protocol, ip.fragment) = (0, true),
    }
    work.account.ipv6(ip.protocol);
    let destination = ip.header.destination;
    if work.from_device {
        // ff00::/8, fe80::/10
        if destination[0] == 0xff || destination[0] == 0xfe && destination[1] & 0xc0 == 0x80 {
            return Err(Reason::Multicast);
        }
    } else {
        is_ours(&place6(&destination))?;
        if ip.header.hop_limit <= 1 {
            return Err(Reason::TtlExpired);
        }
    }
    work.slot = if bond.role == bond_role::SERVER { owner6(&destination)? } else { bond.slot };
    work.key = key(ip.header.source, destination, ip.protocol, inner::IPV6);
    work.heading = Heading::new(Kind::Data, 0, 0, inner::IPV6, 0);
    let [high, low, ..] = ip.header.version_class_label;
    work.dscp = (high << 4 | low >> 4) >> 2;
    (work.protocol, work.whole) = (ip.protocol, !ip.fragment);
    (work.transport, work.end) = (ip.transport, ip.end);
    Ok(())
}

/// An IPv4 address with zeros behind it. In words: LLVM would write it byte by byte, and
/// what then reads words has to wait for that.
#[inline(always)]
fn padded(address: [u8; 4]) -> [u8; 16] {
    bytemuck::cast([u32::from_ne_bytes(address), 0, 0, 0])
}

/// The key of a flow, but for its ports.
#[inline(always)]
const fn key(source: [u8; 16], destination: [u8; 16], protocol: u8, scope: u8) -> FlowKey6 {
    FlowKey6 {
        source,
        destination,
        source_port: [0; 2],
        destination_port: [0; 2],
        protocol,
        scope,
        reserved: [0; 2],
    }
}

/// Whose an IPv6 address is. A subprogram: its key would not fit on the caller's stack.
#[inline(never)]
pub(super) fn owner6(address: &[u8; 16]) -> Result<u32, Reason> {
    Ok(OWNERS6.get(&Key::new(128, *address)).ok_or(Reason::NoSession)?.slot)
}

/// Its bucket. Fragments have no ports, lest they part from each other.
#[inline(always)]
fn bucket_of(frame: &XdpFrame, work: &mut Work, bond: &Bond) -> Result<u16, Reason> {
    if work.whole
        && matches!(work.protocol, protocol::TCP | protocol::UDP | protocol::SCTP)
        && work.transport + 4 <= work.end
    {
        let [a, b, c, d]: [u8; 4] = frame.read(work.transport).ok_or(Reason::Malformed)?;
        (work.key.source_port, work.key.destination_port) = ([a, b], [c, d]);
    }
    Ok(bucket(&work.key, bond.seed))
}

/// It goes round through the bond's device, with a copy that makes a probe.
#[inline(never)]
#[unsafe(no_mangle)]
extern "C" fn bond_round(context: *mut xdp_md) -> u32 {
    code(round(context))
}

#[inline(always)]
fn round(context: *mut xdp_md) -> Result<(), Reason> {
    let mut frame = frame_of(context);
    let work = Work::room()?;
    if !work.from_device {
        hop(&mut frame, work.heading.inner)?;
    }
    frame.write(0, tick::destination(tick::SHORT, work.slot, work.account.path))?;
    work.leaves(0, Reason::Ticked, step::SEND);
    Ok(())
}

/// It gets its outside.
#[inline(never)]
#[unsafe(no_mangle)]
pub(super) extern "C" fn bond_wrap(context: *mut xdp_md) -> u32 {
    code(wrap(context))
}

#[inline(always)]
fn wrap(context: *mut xdp_md) -> Result<(), Reason> {
    let mut frame = frame_of(context);
    let work = Work::room()?;
    let session = SESSIONS.get(work.slot).ok_or(Reason::NoSession)?;
    let suite = Suite::from_number(session.suite).ok_or(Reason::NoSession)?;
    work.index = path_index(work.slot, work.account.path);
    work.heading.path = work.account.path;
    let way = Way::of(work.index).ok_or(Reason::NoBondPath)?;
    let more = overhead(suite, way.is_v6);
    if !work.from_device {
        hop(&mut frame, work.heading.inner)?;
    }
    if work.protocol == protocol::TCP && work.whole {
        clamp(&mut frame, work, session.mtu)?;
    }
    // SAFETY: the helper checks its arguments.
    if unsafe { bpf_xdp_adjust_head(context, -(more as i32)) } != 0 {
        return Err(Reason::BondTooBig);
    }
    work.is_v6 = way.is_v6;
    work.leaves(way.wan.ifindex, Reason::Bonded, step::SEAL);
    decoded(bond_outer(context, work.index, work.end - ETHERNET + more))
}

/// Now, in ns.
#[inline(always)]
pub(super) fn time() -> u64 {
    // SAFETY: the helper has no preconditions.
    unsafe { bpf_ktime_get_ns() }
}

/// Takes off what is behind the packet: the padding of a short frame.
#[inline(always)]
pub(super) fn trim(frame: &XdpFrame, end: u32) -> Result<(), Reason> {
    // Hidden, or LLVM adds to the pointer what it is to subtract from the difference.
    let more = (opaque(frame.len()) as u32).wrapping_sub(end) as i32;
    // SAFETY: the helper checks its arguments.
    if more > 0 && unsafe { bpf_xdp_adjust_tail(frame.context.ctx, -more) } != 0 {
        return Err(Reason::Malformed);
    }
    Ok(())
}

/// Takes a hop off the packet's life: it is forwarded.
#[inline(always)]
pub(super) fn hop(frame: &mut XdpFrame, family: u8) -> Result<(), Reason> {
    if family == inner::IPV6 {
        let [next, limit]: [u8; 2] = frame.read(ETHERNET + 6).ok_or(Reason::Malformed)?;
        return frame.write(ETHERNET + 6, [next, limit.wrapping_sub(1)]);
    }
    let [ttl, protocol, high, low]: [u8; 4] = frame.read(ETHERNET + 8).ok_or(Reason::Malformed)?;
    let less = ttl.wrapping_sub(1);
    let [high, low] = update([high, low], delta2([ttl, protocol], [less, protocol]));
    frame.write(ETHERNET + 8, [less, protocol, high, low])
}

/// Bounds what a SYN says of the segments that the other side may send, so that they fit
/// into the bond.
#[inline(always)]
fn clamp(frame: &mut XdpFrame, work: &Work, mtu: u32) -> Result<(), Reason> {
    let header = work.transport;
    if header + 20 > work.end {
        return Ok(());
    }
    let [words, flags]: [u8; 2] = frame.read(header + 12).ok_or(Reason::Malformed)?;
    let payload = header + (words >> 4) as u32 * 4;
    if flags & tcp_flag::SYN == 0 || payload > work.end {
        return Ok(());
    }
    let transport = Transport {
        ports: [0; 4],
        tcp_flags: flags,
        check: header + 16,
        source_field: header,
        destination_field: header + 2,
        payload,
        opens: true,
    };
    let heads = if work.heading.inner == inner::IPV6 { 60 } else { 40 };
    let delta = clamp_mss(frame, &transport, mtu.saturating_sub(heads))?;
    if delta == 0 {
        return Ok(());
    }
    frame.adjust_transport(TransportChange {
        check: transport.check,
        zero_is_none: false,
        address_delta: 0,
        port_delta: delta,
    })
}

/// Has the packet's place read again: LLVM would keep it over a branch, as a number of 32
/// bits, and the verifier does not know it any more then.
#[inline(always)]
pub(super) fn afresh() {
    // SAFETY: it does nothing.
    unsafe { core::arch::asm!("", options(nostack)) };
}

/// The frame of a context.
#[inline(always)]
pub(super) fn frame_of(context: *mut xdp_md) -> XdpFrame {
    XdpFrame::new(XdpContext::new(context))
}
