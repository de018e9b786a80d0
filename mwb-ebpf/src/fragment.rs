//! Fragments (RFC 4787, REQ-14). The first one of a datagram has the ports, and
//! leaves them behind for the others; those that come before it wait. Slow path
//! only, where every frame is an skb.
//!
//! What waits lies in `HELD`, in one of a few slots that follow from its key.
//! When the first one comes, it and all that waited are sent on to the device
//! that they came in through, and are processed as if they had come in order.

use core::ffi::c_void;

use aya_ebpf::{
    bindings::{__sk_buff, BPF_F_INGRESS, BPF_F_RECOMPUTE_CSUM},
    helpers::{bpf_clone_redirect, bpf_skb_change_tail, bpf_skb_load_bytes, bpf_skb_store_bytes},
};
use mwb_common::{
    maps::{Direction, FlowKey6, Fragment, HANDOVER, HELD_BYTES, HELD_SLOTS, Held, held},
    parse::{ETHERNET, Transport},
    reason::Reason,
};

use crate::{
    account::Account,
    atomic,
    frame::{Frame, opaque, set_mark},
    maps::{FRAGMENTS, HELD},
    path::now,
    stage::Stop,
};

/// How long a datagram's ports are known (RFC 8200, 4.5: its fragments must be
/// together within 60 s; Linux gives them 30).
const KNOWN_FOR: u64 = 30_000_000_000;
/// How long a fragment waits for the first one.
const WAITS_FOR: u64 = 2_000_000_000;
/// Bit beside a path id: the datagram is the kernel's.
pub(crate) const LEFT_TO_KERNEL: u8 = 0x80;
/// Slots in which the fragments of one datagram may wait.
const WAITING: u32 = 8;

/// What [`recall`] says of a fragment in the upper half of its result; in the
/// lower half of [`KNOWN`] are the ports. Plain numbers: the kernel's BTF has no
/// way to say how Rust would lay out a result with both.
const KNOWN: u32 = 0;
const WAITS: u32 = 1;
const KERNEL: u32 = 2;
const ORPHAN: u32 = 3;

/// The ports of a fragment's datagram, see [`KNOWN`]; without them the fragment
/// waits, if it can.
#[inline(always)]
pub(crate) fn recall<F: Frame>(frame: &F, key: &FlowKey6, account: &Account) -> u64 {
    let now = now();
    let known = match known(key, now) {
        Some(known) => known,
        None => {
            let held = hold(frame.context().cast(), key, origin(account), now);
            // Or the first one has come in the meantime.
            match if held == HELD_NOT { known(key, now) } else { None } {
                Some(known) => known,
                None if held == HELD_YES => return (WAITS as u64) << 32,
                None => return (ORPHAN as u64) << 32,
            }
        }
    };
    let say = if known.kernel != 0 { KERNEL } else { KNOWN };
    (say as u64) << 32 | u32::from_ne_bytes(known.ports) as u64
}

/// The transport header of a later fragment, whose payload begins at `offset`,
/// from what [`recall`] says.
#[inline(always)]
pub(crate) fn later(recalled: u64, offset: u32) -> Result<Transport, Stop> {
    match (recalled >> 32) as u32 {
        KNOWN => Ok(Transport {
            ports: (recalled as u32).to_ne_bytes(),
            tcp_flags: 0,
            check: 0,
            source_field: offset,
            destination_field: offset,
            payload: offset,
            opens: false,
        }),
        WAITS => Err(Stop::Held),
        KERNEL => Err(Stop::Kernel),
        _ => Err(Stop::Orphan),
    }
}

#[inline(always)]
const fn origin(account: &Account) -> u32 {
    u32::from_le_bytes([account.path, account.protocol, account.direction as u8, 0])
}

#[inline(always)]
fn known(key: &FlowKey6, now: u64) -> Option<Fragment> {
    // SAFETY: plain fields of an entry that may become another's: the worst is
    // one fragment of a datagram with the other's ports, whose checksum fails.
    let known = unsafe { *FRAGMENTS.get_ptr(key)? };
    (known.until > now).then_some(known)
}

/// Remembers what a first fragment has shown. If others waited for it, all have
/// come in again, and the frame is no more: true.
#[inline(always)]
pub(crate) fn first<F: Frame>(
    frame: &F,
    key: &FlowKey6,
    ports: [u8; 4],
    protocol: u8,
    kernel: bool,
) -> bool {
    let fragment = Fragment {
        until: now() + KNOWN_FOR,
        ports,
        protocol,
        kernel: kernel as u8,
        reserved: [0; 2],
    };
    let _ = FRAGMENTS.insert(key, fragment, 0);
    release(frame.context().cast(), key) != 0
}

/// The first slot for a key.
#[inline(always)]
fn place(key: &FlowKey6) -> u32 {
    let words: [u32; 10] = bytemuck::cast(*key);
    let mixed = words[8] ^ words[3] ^ words[0] ^ words[9];
    mixed ^ mixed >> 16 ^ mixed >> 8
}

#[inline(always)]
fn slot(place: u32, turn: u32) -> Option<*mut Held> {
    HELD.get_ptr_mut(place.wrapping_add(turn) & (HELD_SLOTS as u32 - 1))
}

const HELD_YES: u32 = 0;
const HELD_NOT: u32 = 1;
const HELD_FULL: u32 = 2;

/// Lets a fragment wait. `origin` is path, protocol and direction, from the low
/// byte on. A global function, like the next one: the verifier walks its loop
/// once, not once for each state of each caller.
#[inline(never)]
#[unsafe(no_mangle)]
extern "C" fn hold(skb: *mut __sk_buff, key: *const FlowKey6, origin: u32, now: u64) -> u32 {
    // SAFETY: the context is valid while the program runs; slots are map values,
    // and what is in one belongs to the CPU that made its state BUSY.
    unsafe {
        // On this stack: on Linux 6.1 a table takes no key out of a caller's.
        let Some(&key) = key.as_ref() else { return HELD_FULL };
        let length = opaque((*skb).len) as u32;
        if length < ETHERNET || length as usize > HELD_BYTES {
            return HELD_FULL;
        }
        let place = place(&key);
        let mut turn = 0;
        while turn < WAITING {
            let Some(held) = slot(place, turn) else { return HELD_FULL };
            turn += 1;
            let state = &raw mut (*held).state;
            if !atomic::change(state, held::FREE, held::BUSY) {
                if (*held).until > now || !atomic::change(state, held::WAITS, held::BUSY) {
                    continue;
                }
                count_orphan(held);
            }
            let bytes: *mut c_void = (&raw mut (*held).bytes).cast();
            // The mask is for the verifier.
            let size = (opaque(length - 1) as u32 & (HELD_BYTES as u32 - 1)) + 1;
            if bpf_skb_load_bytes(skb.cast(), 0, bytes, size) != 0 {
                atomic::change(state, held::BUSY, held::FREE);
                return HELD_FULL;
            }
            (*held).key = key;
            (*held).until = now + WAITS_FOR;
            (*held).length = size;
            [(*held).path, (*held).protocol, (*held).direction, _] = origin.to_le_bytes();
            atomic::change(state, held::BUSY, held::WAITS);
            // The first one may have come and looked before this.
            if known(&key, now).is_some() && atomic::change(state, held::WAITS, held::FREE) {
                return HELD_NOT;
            }
            return HELD_YES;
        }
    }
    HELD_FULL
}

/// Sends the frame and all that waited for it to the device that they came in
/// through; false: nothing waited, and the frame is as it was.
#[inline(never)]
#[unsafe(no_mangle)]
extern "C" fn release(skb: *mut __sk_buff, key: *const FlowKey6) -> u32 {
    // SAFETY: the callers pass a key on their stack.
    let Some(key) = (unsafe { key.as_ref() }) else { return 0 };
    // SAFETY: the context is valid while the program runs.
    let ingress = unsafe { (*skb).ifindex };
    let place = place(key);
    let mut any = 0;
    let mut turn = 0;
    while turn < WAITING {
        let Some(held) = slot(place, turn) else { return any };
        turn += 1;
        // SAFETY: as in `hold`. The key may change while it is compared; then the
        // change of state fails, or it is a key of ours again.
        unsafe {
            let state = &raw mut (*held).state;
            if *state != held::WAITS || !same(&(*held).key, key) {
                continue;
            }
            if !atomic::change(state, held::WAITS, held::BUSY) {
                continue;
            }
            if !same(&(*held).key, key) {
                atomic::change(state, held::BUSY, held::WAITS);
                continue;
            }
            if any == 0 {
                let mark = (*skb).mark;
                set_mark(skb, HANDOVER);
                if bpf_clone_redirect(skb, ingress, BPF_F_INGRESS as u64) != 0 {
                    // The backlog is full: the first one goes on alone.
                    set_mark(skb, mark);
                    atomic::change(state, held::BUSY, held::WAITS);
                    return 0;
                }
                any = 1;
            }
            let size =
                (opaque((*held).length.wrapping_sub(1)) as u32 & (HELD_BYTES as u32 - 1)) + 1;
            let bytes: *const c_void = (&raw const (*held).bytes).cast();
            if bpf_skb_change_tail(skb, size, 0) != 0
                || bpf_skb_store_bytes(skb, 0, bytes, size, BPF_F_RECOMPUTE_CSUM as u64) != 0
                || bpf_clone_redirect(skb, ingress, BPF_F_INGRESS as u64) != 0
            {
                count_orphan(held);
            }
            atomic::change(state, held::BUSY, held::FREE);
        }
    }
    any
}

#[inline(always)]
fn same(a: &FlowKey6, b: &FlowKey6) -> bool {
    let (a, b): ([u64; 5], [u64; 5]) = (bytemuck::cast(*a), bytemuck::cast(*b));
    // One comparison: the verifier would follow each of five.
    let mut differs = 0;
    let mut i = 0;
    while i < a.len() {
        differs |= a[i] ^ b[i];
        i += 1;
    }
    opaque(differs) == 0
}

/// Counts a fragment that has waited in vain.
///
/// # Safety
/// `held` is a slot that this CPU has made BUSY.
#[inline(always)]
unsafe fn count_orphan(held: *mut Held) {
    // SAFETY: the caller's.
    let held = unsafe { &*held };
    Account {
        direction: if held.direction == 0 { Direction::Out } else { Direction::In },
        path: held.path,
        protocol: held.protocol,
        bytes: held.length.saturating_sub(ETHERNET),
        is_syn: false,
    }
    .add(Reason::FragmentOrphan, 1);
}
