//! Division of IPv4 packets that are too big for the next link and may be
//! divided (RFC 791, 3.2; RFC 4787, REQ-13 a). Slow path only.

use core::ffi::c_void;

use aya_ebpf::{
    bindings::__sk_buff,
    helpers::{bpf_clone_redirect, bpf_skb_change_tail, bpf_skb_load_bytes, bpf_skb_store_bytes},
    programs::TcContext,
};
use mwb_common::{
    checksum::{delta2, update},
    parse::{Bytes, ETHERNET, Ipv4},
    reason::Reason,
};

use crate::{
    Action, answer,
    frame::{FAST, Frame, TcFrame, opaque},
    maps::PAYLOAD,
};

/// Longest payload that is divided; a power of two.
pub(crate) const LONGEST: usize = 8_192;
/// Most pieces of one packet.
const PIECES: u32 = 8;
/// Where the payload begins: only headers without options are divided.
const PAYLOAD_AT: u32 = ETHERNET + 20;
const DO_NOT: u16 = 0x4000;
const MORE: u16 = 0x2000;

/// Whether a packet may be divided, and can be: not one of segments, nor one
/// whose checksum the kernel is still to complete over the whole.
#[inline(always)]
pub(crate) fn is_divisible<F: Frame>(frame: &F, ip: &Ipv4) -> bool {
    ip.header.version_length == 0x45
        && u16::from_be_bytes(ip.header.fragment) & DO_NOT == 0
        && ((ip.end - ip.offset) as usize) < LONGEST
        && frame.packets() == 1
        && (ip.is_fragment() || !answer::is_pending4(frame.context()))
}

/// Sends a packet out of a device in pieces of at most `mtu` bytes; 0 = it cannot
/// be. A global function: the verifier walks its loop once.
#[inline(never)]
#[unsafe(no_mangle)]
extern "C" fn divide(skb: *mut __sk_buff, mtu: u32, device: u32) -> u32 {
    let mut frame = TcFrame::<FAST> { context: TcContext::new(skb) };
    let Some([_, _, high, low, _, _, fragment_high, fragment_low, _, _, check_high, check_low]) =
        frame.read::<[u8; 12]>(ETHERNET)
    else {
        return 0;
    };
    let (total, field) = ([high, low], [fragment_high, fragment_low]);
    let payload = (u16::from_be_bytes(total) as u32).wrapping_sub(20);
    // In whole units of the offset.
    let room = mtu.wrapping_sub(20) & !7;
    let Some(bytes) = PAYLOAD.get_ptr_mut(0) else { return 0 };
    let bytes: *mut u8 = bytes.cast();
    let mask = LONGEST as u32 - 1;
    if room == 0 || room > mask || payload == 0 || payload > mask {
        return 0;
    }
    // The masks are for the verifier.
    let size = (opaque(payload - 1) as u32 & mask) + 1;
    // SAFETY: the context is valid while the program runs; the buffer is a per-CPU
    // value of twice LONGEST, and programs do not preempt each other.
    unsafe {
        if bpf_skb_load_bytes(skb.cast(), PAYLOAD_AT, bytes.cast(), size) != 0 {
            return 0;
        }
        let mut piece = 0;
        let mut offset = 0;
        while piece < PIECES && offset < payload {
            piece += 1;
            let left = payload - offset;
            let length = if left > room { room } else { left };
            let more = if left > room { MORE } else { 0 };
            let new_total = ((length + 20) as u16).to_be_bytes();
            // The packet may be a fragment itself: offsets add up, and more comes
            // after its last piece if it did before.
            let new_field =
                ((u16::from_be_bytes(field) + (offset / 8) as u16) | more).to_be_bytes();
            let delta = delta2(total, new_total) + delta2(field, new_field);
            let check = update([check_high, check_low], delta);
            let from = bytes.add(opaque(offset) as usize & mask as usize);
            let length = (opaque(length - 1) as u32 & mask) + 1;
            if bpf_skb_change_tail(skb, PAYLOAD_AT + length, 0) != 0
                || bpf_skb_store_bytes(skb, PAYLOAD_AT, from.cast::<c_void>(), length, 0) != 0
                || frame.write(ETHERNET + 2, new_total).is_err()
                || frame.write(ETHERNET + 6, new_field).is_err()
                || frame.write(ETHERNET + 10, check).is_err()
            {
                return 0;
            }
            // What a queue refuses (above 0) is its own to count.
            if bpf_clone_redirect(skb, device, 0) < 0 {
                return 0;
            }
            offset += room;
        }
        (offset >= payload) as u32
    }
}

/// Sends a packet out of a device in pieces of at most `mtu` bytes.
#[inline(always)]
pub(crate) fn send<F: Frame>(frame: &F, mtu: u32, device: u32) -> Result<Action, Reason> {
    match divide(frame.context().cast(), mtu, device) {
        0 => Err(Reason::TooBig),
        _ => Ok(Action::DIVIDED),
    }
}
