//! ICMP errors that the gateway sends itself: too big (RFC 1191, 8201), the end
//! of a packet's hops on its way in from a WAN, and a flow that cannot be opened
//! for want of room (RFC 6888, REQ-11). Slow path only: the packet becomes its
//! own answer.

use core::ffi::c_void;

use aya_ebpf::{
    bindings::{__sk_buff, bpf_adj_room_mode::BPF_ADJ_ROOM_MAC},
    helpers::{bpf_csum_diff, bpf_skb_adjust_room, bpf_skb_change_tail, bpf_skb_pull_data},
    programs::TcContext,
};
use mwb_common::{
    checksum::fold,
    maps::{Budget, Device},
    nat::protocol,
    parse::{Bytes, ETHERNET, Ipv4, Ipv6, ethertype},
    reason::Reason,
};

use crate::{
    Action,
    frame::{FAST, Frame, TcFrame, at},
    maps::{BUDGET, DEVICES},
    path::{Place, now},
    sum::word,
};

/// ICMP errors that a CPU sends in a second, and at once.
const PER_SECOND: u64 = 1_000;
const BURST: u64 = 50;

/// What the error says.
#[derive(Clone, Copy)]
pub(crate) enum Error {
    /// Too big for a link of this MTU.
    TooBig(u32),
    /// The TTL or hop limit has come to its end.
    Expired,
    /// There is no room for its flow.
    Refused(Reason),
}

impl Error {
    #[inline(always)]
    fn reason(self) -> Reason {
        match self {
            Error::TooBig(_) => Reason::TooBig,
            Error::Expired => Reason::Expired,
            Error::Refused(reason) => reason,
        }
    }

    /// The reason of a packet that is not answered: there are too many. One that
    /// is refused is so in either case.
    #[inline(always)]
    fn unanswered(self) -> Reason {
        match self {
            Error::Refused(reason) => reason,
            _ => Reason::AnswerLimited,
        }
    }
}

/// Answers an IPv4 packet. `source` is where its source address belongs.
#[inline(always)]
pub(crate) fn answer4<F: Frame>(
    frame: &mut F,
    ip: &Ipv4,
    source: Place,
    error: Error,
) -> Result<Action, Reason> {
    let reason = error.reason();
    // RFC 1122, 3.2.2: not about a later fragment, nor to what is no host.
    if ip.is_later_fragment() || matches!(source, Place::Kernel(Reason::Multicast)) {
        return Err(reason);
    }
    let device = DEVICES.get(frame.ingress()).ok_or(reason)?;
    // RFC 792: type, code, and the MTU in the last two bytes (RFC 1191, 4).
    let head: u64 = match error {
        Error::TooBig(mtu) => 3 << 56 | 4 << 48 | (mtu & 0xffff) as u64,
        Error::Expired => 11 << 56,
        // Host unreachable.
        Error::Refused(_) => 3 << 56 | 1 << 48,
    };
    if device.address4 == [0; 4] {
        return Err(reason);
    }
    if !take_token() {
        return Err(error.unanswered());
    }
    build4(frame.context(), ip.header.source, device.address4, head).map_err(|()| reason)?;
    Ok(Action::answer(reason))
}

/// Answers an IPv6 packet.
#[inline(always)]
pub(crate) fn answer6<F: Frame>(
    frame: &mut F,
    ip: &Ipv6,
    source: Place,
    error: Error,
) -> Result<Action, Reason> {
    let reason = error.reason();
    // As for IPv4: it does not say whose it is. And RFC 4443, 2.4 e.
    if ip.later || matches!(source, Place::Kernel(Reason::Multicast)) {
        return Err(reason);
    }
    let device = DEVICES.get(frame.ingress()).ok_or(reason)?;
    let head: u64 = match error {
        Error::TooBig(mtu) => 2 << 56 | mtu as u64,
        Error::Expired => 3 << 56,
        // Address unreachable.
        Error::Refused(_) => 1 << 56 | 3 << 48,
    };
    if device.address6 == [0; 16] {
        return Err(reason);
    }
    if !take_token() {
        return Err(error.unanswered());
    }
    build6(frame.context(), &ip.header.source, device, head).map_err(|()| reason)?;
    Ok(Action::answer(reason))
}

/// Whether this CPU may send an ICMP error now. The fast path asks before it
/// sends a packet the long way round only to be answered.
#[inline(never)]
pub(crate) fn may_answer(now: u64) -> bool {
    bucket().is_some_and(|budget| budget.tokens > 0 || new_tokens(budget, now) > 0)
}

/// Takes one from the bucket of this CPU.
#[inline(never)]
fn take_token() -> bool {
    let Some(budget) = bucket() else { return false };
    let now = now();
    let new = new_tokens(budget, now);
    if new > 0 {
        budget.filled = now;
        budget.tokens = core::cmp::min(budget.tokens + new, BURST);
    }
    if budget.tokens == 0 {
        return false;
    }
    budget.tokens -= 1;
    true
}

#[inline(always)]
fn bucket() -> Option<&'static mut Budget> {
    // SAFETY: a per-CPU value, and programs do not preempt each other.
    Some(unsafe { &mut *BUDGET.get_ptr_mut(0)? })
}

/// What has come in since the bucket was filled. A second's worth fills it,
/// whatever has gone before.
#[inline(always)]
fn new_tokens(budget: &Budget, now: u64) -> u64 {
    let since = now.wrapping_sub(budget.filled);
    if since > 1_000_000_000 { BURST } else { since * PER_SECOND / 1_000_000_000 }
}

/// What is put between the Ethernet header and the packet, and where that is
/// then.
const ROOM4: u32 = 20 + 8;
const QUOTE4: u32 = ETHERNET + ROOM4;
const ROOM6: u32 = 40 + 8;
const QUOTE6: u32 = ETHERNET + ROOM6;
/// The shortest step of a quote; a shorter packet is quoted whole. Where a
/// checksum is pending, the kernel cuts no packet in front of its field.
const SHORTEST: u32 = 128;

/// Makes the frame an ICMP error to `to` about itself. A subprogram of its own:
/// every helper here moves packet memory.
#[inline(never)]
fn build4(context: *mut c_void, to: [u8; 4], from: [u8; 4], head: u64) -> Result<(), ()> {
    let mut frame = slow_frame(context);
    // Without what a link has added to make a frame long enough.
    let packet = u16::from_be_bytes(frame.read(ETHERNET + 2).ok_or(())?) as u32;
    // RFC 1812, 4.3.2.3: as much as fits into 576 bytes, in steps.
    let quote = if packet >= 512 { 512 } else { SHORTEST };
    let pending = pending4(&frame)?;
    make_room(&frame, packet, quote, ROOM4)?;
    // The IP header in front of a pending sum sums to nothing.
    let sum = if pending == COMPLETE { quoted_sum(&frame, QUOTE4, quote)? } else { pending };
    turn_addresses(&mut frame, ethertype::IPV4)?;
    let [high, low] = ((shorter(packet, quote) + ROOM4) as u16).to_be_bytes();
    // Precedence 6, as RFC 1812, 4.3.2.5 has it; not to be divided; TTL 64.
    let start = [0x45, 0xc0, high, low, 0, 0, 0x40, 0, 64, protocol::ICMP, 0, 0];
    put(&mut frame, ETHERNET, start)?;
    put(&mut frame, ETHERNET + 12, from)?;
    put(&mut frame, ETHERNET + 16, to)?;
    let check = (!fold(part::<20>(&frame, ETHERNET)?)).to_ne_bytes();
    put(&mut frame, ETHERNET + 10, check)?;
    put_icmp(&mut frame, ETHERNET + 20, head, sum)?;
    end(&frame, QUOTE4, packet, quote)
}

/// [`pending`] for an IPv4 packet.
#[inline(always)]
fn pending4<F: Frame>(frame: &F) -> Result<u32, ()> {
    let [version_length, _, high, low]: [u8; 4] = frame.read(ETHERNET).ok_or(())?;
    let [_, protocol]: [u8; 2] = frame.read(ETHERNET + 8).ok_or(())?;
    let header = (version_length & 0x0f) as u32 * 4;
    let length = u16::from_be_bytes([high, low]).wrapping_sub(header as u16).to_be_bytes();
    let pseudo = part::<8>(frame, ETHERNET + 12)? + word(0, protocol) + word(length[0], length[1]);
    Ok(pending(frame, ETHERNET + header, protocol, pseudo))
}

/// Whether the kernel is still to complete the checksum of an IPv4 packet.
#[inline(never)]
pub(crate) fn is_pending4(context: *mut c_void) -> bool {
    !matches!(pending4(&slow_frame(context)), Ok(COMPLETE))
}

/// [`build4`] for IPv6.
#[inline(never)]
fn build6(context: *mut c_void, to: &[u8; 16], device: &Device, head: u64) -> Result<(), ()> {
    let mut frame = slow_frame(context);
    let packet = u16::from_be_bytes(frame.read(ETHERNET + 4).ok_or(())?) as u32 + 40;
    // RFC 4443, 2.4 c: as much as fits into 1280 bytes, in steps.
    let quote = if packet >= 1024 {
        1024
    } else if packet >= 512 {
        512
    } else {
        SHORTEST
    };
    let [high, low, protocol, _]: [u8; 4] = frame.read(ETHERNET + 4).ok_or(())?;
    let pseudo = part::<32>(&frame, ETHERNET + 8)? + word(0, protocol) + word(high, low);
    let pending = pending(&frame, ETHERNET + 40, protocol, pseudo);
    make_room(&frame, packet, quote, ROOM6)?;
    let sum = if pending == COMPLETE {
        quoted_sum(&frame, QUOTE6, quote)?
    } else {
        pending + part::<40>(&frame, QUOTE6)?
    };
    turn_addresses(&mut frame, ethertype::IPV6)?;
    let [high, low] = ((shorter(packet, quote) + 8) as u16).to_be_bytes();
    put(&mut frame, ETHERNET, [0x60, 0, 0, 0, high, low, protocol::ICMPV6, 64])?;
    put(&mut frame, ETHERNET + 8, device.address6)?;
    put(&mut frame, ETHERNET + 24, *to)?;
    let pseudo = part::<32>(&frame, ETHERNET + 8)? + word(high, low) + word(0, protocol::ICMPV6);
    put_icmp(&mut frame, ETHERNET + 40, head, sum + pseudo)?;
    end(&frame, QUOTE6, packet, quote)
}

#[inline(always)]
const fn shorter(a: u32, b: u32) -> u32 {
    if a < b { a } else { b }
}

/// Ends an answer behind what it quotes, where the packet is shorter than the
/// shortest step: the zeros behind it add nothing to a sum.
#[inline(always)]
fn end<F: Frame>(frame: &F, offset: u32, packet: u32, quote: u32) -> Result<(), ()> {
    if packet >= quote {
        return Ok(());
    }
    // SAFETY: the helper checks its arguments.
    let done = unsafe { bpf_skb_change_tail(frame.context().cast(), offset + packet, 0) == 0 };
    if done { Ok(()) } else { Err(()) }
}

/// In the slow path every frame is an skb.
#[inline(always)]
fn slow_frame(context: *mut c_void) -> TcFrame<FAST> {
    TcFrame { context: TcContext::new(context.cast()) }
}

/// In the place of a sum that is pending: there is none. An `Option` would leave
/// its value undefined, which LLVM may store and the verifier does not read.
const COMPLETE: u32 = u32::MAX;

/// The sum over the transport part of a packet whose checksum the kernel is
/// still to complete, else [`COMPLETE`].
///
/// Such a checksum field has the sum of the pseudo-header in it, and the kernel
/// fills in the complement of the sum of all from the transport header on.
/// Whatever the bytes and wherever they are cut, the sum over them is then the
/// complement of what the field had before. A packet that is complete looks
/// like one that is not once in 65,536 times.
#[inline(always)]
fn pending<F: Frame>(frame: &F, transport: u32, protocol: u8, pseudo: u32) -> u32 {
    let field = match protocol {
        protocol::TCP => 16,
        protocol::UDP => 6,
        _ => return COMPLETE,
    };
    let check = u16::from_ne_bytes(frame.read(transport + field).unwrap_or([0; 2]));
    if check != 0 && check == fold(pseudo) { !check as u32 } else { COMPLETE }
}

/// Cuts the frame to what is quoted, with zeros behind a packet that is shorter,
/// and makes room behind its Ethernet header.
#[inline(always)]
fn make_room<F: Frame>(frame: &F, packet: u32, quote: u32, room: u32) -> Result<(), ()> {
    let skb: *mut __sk_buff = frame.context().cast();
    // SAFETY: the helpers check their arguments. Cutting also ends segmentation.
    let done = unsafe {
        (packet >= quote || bpf_skb_change_tail(skb, ETHERNET + packet, 0) == 0)
            && bpf_skb_change_tail(skb, ETHERNET + quote, 0) == 0
            && bpf_skb_adjust_room(skb, room as i32, BPF_ADJ_ROOM_MAC, 0) == 0
            && bpf_skb_pull_data(skb, ETHERNET + quote + room) == 0
    };
    if done { Ok(()) } else { Err(()) }
}

/// The sum over the quoted packet.
#[inline(always)]
fn quoted_sum<F: Frame>(frame: &F, offset: u32, quote: u32) -> Result<u32, ()> {
    match quote {
        1024 => Ok(part::<512>(frame, offset)? + part::<512>(frame, offset + 512)?),
        512 => part::<512>(frame, offset),
        _ => part::<{ SHORTEST as usize }>(frame, offset),
    }
}

/// The sum over `N` bytes; the helper takes 512 at once.
#[inline(always)]
fn part<const N: usize>(frame: &impl Frame, offset: u32) -> Result<u32, ()> {
    let skb: *mut __sk_buff = frame.context().cast();
    // SAFETY: the context is valid while the program runs, and `at` checks the
    // bounds.
    let sum = unsafe {
        let bytes = at::<[u8; N]>((*skb).data as usize, (*skb).data_end as usize, offset);
        bpf_csum_diff(core::ptr::null_mut(), 0, bytes.ok_or(())?.cast(), N as u32, 0)
    };
    if sum < 0 { Err(()) } else { Ok(fold(sum as u32) as u32) }
}

/// The frame goes back to where it came from.
#[inline(always)]
fn turn_addresses<F: Frame>(frame: &mut F, kind: u16) -> Result<(), ()> {
    let to: [u8; 6] = frame.read(0).ok_or(())?;
    let from: [u8; 6] = frame.read(6).ok_or(())?;
    put(frame, 0, from)?;
    put(frame, 6, to)?;
    put(frame, 12, kind.to_be_bytes())
}

/// Writes an ICMP header with the checksum over it and what `sum` holds.
#[inline(always)]
fn put_icmp<F: Frame>(frame: &mut F, offset: u32, head: u64, sum: u32) -> Result<(), ()> {
    let [a, b, _, _, e, f, g, h] = head.to_be_bytes();
    let check = (!fold(sum + word(a, b) + word(e, f) + word(g, h))).to_ne_bytes();
    put(frame, offset, [a, b, check[0], check[1], e, f, g, h])
}

#[inline(always)]
fn put<F: Frame, const N: usize>(frame: &mut F, offset: u32, bytes: [u8; N]) -> Result<(), ()> {
    frame.write(offset, bytes).map_err(|_| ())
}
