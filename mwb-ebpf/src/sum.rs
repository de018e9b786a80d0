//! Checksums over as much of a packet as it has. Slow path only.

use core::ffi::c_void;

use aya_ebpf::{
    bindings::__sk_buff,
    helpers::{bpf_csum_diff, bpf_skb_load_bytes},
};
use mwb_common::{
    checksum::fold,
    nat::protocol,
    parse::{Ipv4, Ipv6},
};

use crate::{frame::opaque, maps::PAYLOAD};

/// What the helper sums at once.
const STEP: u32 = 512;
/// Steps in the largest frame (9,216 bytes); what is longer is not summed.
const STEPS: u32 = 18;
/// In the place of the sum of what cannot be read.
const UNREAD: u32 = u32::MAX;

/// The sum over `length` bytes from `offset`, `seed` included, folded to 16 bits.
/// A global function: the verifier walks its loop once.
#[inline(never)]
#[unsafe(no_mangle)]
extern "C" fn sum(skb: *mut __sk_buff, offset: u32, length: u32, seed: u32) -> u32 {
    let Some(bytes) = PAYLOAD.get_ptr_mut(0) else { return UNREAD };
    let bytes: *mut u8 = bytes.cast();
    let (mut sum, mut done, mut step) = (seed, 0, 0);
    while done < length {
        if step >= STEPS {
            return UNREAD;
        }
        step += 1;
        let left = length - done;
        let size = if left > STEP { STEP } else { left };
        // The mask is for the verifier.
        let size = (opaque(size - 1) as u32 & (STEP - 1)) + 1;
        // What the last word lacks is zero.
        let last = (size & (STEP - 4)) as usize;
        // SAFETY: the buffer is a per-CPU value longer than STEP, and programs do
        // not preempt each other; the helpers check their arguments.
        unsafe {
            bytes.add(last).cast::<u32>().write_unaligned(0);
            if bpf_skb_load_bytes(skb.cast(), offset + done, bytes.cast(), size) != 0 {
                return UNREAD;
            }
            let words = bytes.cast::<u32>();
            let more = bpf_csum_diff(core::ptr::null_mut(), 0, words, (size + 3) & !3, sum);
            if more < 0 {
                return UNREAD;
            }
            sum = more as u32;
        }
        done += STEP;
    }
    fold(sum) as u32
}

/// A word of a sum.
#[inline(always)]
pub(crate) fn word(high: u8, low: u8) -> u32 {
    u16::from_ne_bytes([high, low]) as u32
}

/// Whether the checksum of a whole ICMP message is right (RFC 792).
#[inline(always)]
pub(crate) fn is_intact4(context: *mut c_void, ip: &Ipv4) -> bool {
    sum(context.cast(), ip.transport, ip.end.wrapping_sub(ip.transport), 0) == 0xffff
}

/// Whether the checksum of a whole ICMPv6 message is right (RFC 4443, 2.3).
#[inline(always)]
pub(crate) fn is_intact6(context: *mut c_void, ip: &Ipv6) -> bool {
    let length = ip.end.wrapping_sub(ip.transport);
    let [_, _, high, low] = length.to_be_bytes();
    let addresses = sum(context.cast(), ip.offset + 8, 32, 0);
    if addresses == UNREAD {
        return false;
    }
    let pseudo = addresses + word(high, low) + word(0, protocol::ICMPV6);
    sum(context.cast(), ip.transport, length, pseudo) == 0xffff
}
