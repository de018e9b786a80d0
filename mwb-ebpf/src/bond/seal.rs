//! Sealing and opening by each suite. Global functions: the verifier walks the loops
//! of each once.

use core::ffi::c_void;

use aya_ebpf::{bindings::xdp_md, helpers::bpf_loop};
use mwb_common::{
    integrity::{
        Suite,
        aead::{Aead, difference},
        crc32::crc32,
        seal::{Key, crc_check, nonce},
        siphash::siphash,
    },
    maps::Session,
    parse::Bytes,
    wire::{FIELDS, Fields, header_length},
};

use super::{packet::Packet, work::Work};
use crate::{frame::opaque, maps::SESSIONS};

/// Which key, besides the slot: bit 0 is the epoch's parity.
const ODD: u32 = 1;
/// It opens.
const OPEN: u32 = 2;
/// Bits of these.
const WHICH: u32 = 2;

/// The number of a key.
#[inline(always)]
pub(super) const fn which(slot: u32, open: bool, parity: u32) -> u32 {
    slot << WHICH | if open { OPEN } else { 0 } | parity & ODD
}

#[inline(always)]
fn key(session: &Session, which: u32) -> &Key {
    let keys = if which & OPEN != 0 { &session.open } else { &session.seal };
    &keys[(which & ODD) as usize]
}

/// Makes the check of the packet whose header begins at `at`, encrypting or
/// decrypting what is behind it if the suite does. Leaves it in [`Work::check`]; says 0,
/// or 1 if there is no such packet.
#[inline(always)]
fn check(context: *mut xdp_md, at: u32, which: u32) -> u32 {
    let Some(session) = SESSIONS.get(which >> WHICH) else { return 1 };
    match Suite::from_number(session.suite) {
        Some(Suite::Crc32) => bond_crc32(context, at),
        Some(Suite::SipHash) => bond_siphash(context, at, which),
        Some(Suite::ChaCha20Poly1305) if which & OPEN == 0 => bond_encrypt(context, at, which),
        Some(Suite::ChaCha20Poly1305) => bond_decrypt(context, at, which),
        None => 1,
    }
}

/// Writes the check of a packet; says 0, or 1 if it cannot be sealed.
#[inline(always)]
pub(super) fn seal(context: *mut xdp_md, at: u32, which: u32, long: bool) -> u32 {
    use mwb_common::integrity::BytesMut as _;
    if check(context, at, which) != 0 {
        return 1;
    }
    let Ok(work) = Work::room() else { return 1 };
    let mut packet = Packet::of(context);
    let place = at.wrapping_add(FIELDS);
    let [first, second, third, fourth] = work.check;
    let written = if long {
        packet.write(place, [first, second, third, fourth])
    } else {
        packet.write(place, [first, second])
    };
    if written.is_some() { 0 } else { 1 }
}

/// Opens a packet; says 0, or 1 if it is not what was sealed.
#[inline(never)]
#[unsafe(no_mangle)]
pub(super) extern "C" fn bond_open(context: *mut xdp_md, at: u32, which: u32) -> u32 {
    let Some(session) = SESSIONS.get(which >> WHICH) else { return 1 };
    let packet = Packet::of(context);
    let place = at.wrapping_add(FIELDS);
    let theirs = if session.suite == Suite::ChaCha20Poly1305 as u8 {
        packet.read::<[u32; 4]>(place)
    } else {
        packet.read::<[u32; 2]>(place).map(|[first, second]| [first, second, 0, 0])
    };
    let Some(theirs) = theirs else { return 1 };
    if check(context, at, which | OPEN) != 0 {
        return 1;
    }
    let Ok(work) = Work::room() else { return 1 };
    // One branch, on all of it: time says nothing of where they differ.
    if opaque(difference(work.check, theirs)) == 0 { 0 } else { 1 }
}

#[inline(always)]
fn short(check: [u8; 8]) -> u32 {
    let Ok(work) = Work::room() else { return 1 };
    let [first, second]: [u32; 2] = bytemuck::cast(check);
    work.check = [first, second, 0, 0];
    0
}

/// See [`check`]. The check in the packet is 0 afterwards.
#[inline(never)]
#[unsafe(no_mangle)]
extern "C" fn bond_crc32(context: *mut xdp_md, at: u32) -> u32 {
    use mwb_common::integrity::BytesMut as _;
    let mut packet = Packet::of(context);
    if packet.write(at.wrapping_add(FIELDS), [0u8; 8]).is_none() {
        return 1;
    }
    let Some(length) = packet.behind(at) else { return 1 };
    match crc32(&packet, at, length) {
        Some(crc) => short(crc_check(crc)),
        None => 1,
    }
}

/// See [`check`].
#[inline(never)]
#[unsafe(no_mangle)]
extern "C" fn bond_siphash(context: *mut xdp_md, at: u32, which: u32) -> u32 {
    let Some(session) = SESSIONS.get(which >> WHICH) else { return 1 };
    let packet = Packet::of(context);
    let Some(words) = packet.read::<[u64; 3]>(at) else { return 1 };
    let text = at.wrapping_add(header_length(Suite::SipHash));
    let Some(length) = packet.behind(text) else { return 1 };
    match siphash(key(session, which).siphash(), words, &packet, text, length) {
        Some(hash) => short(hash.to_le_bytes()),
        None => 1,
    }
}

/// See [`check`].
#[inline(never)]
#[unsafe(no_mangle)]
extern "C" fn bond_encrypt(context: *mut xdp_md, at: u32, which: u32) -> u32 {
    cipher::<false>(context, at, which)
}

/// See [`check`].
#[inline(never)]
#[unsafe(no_mangle)]
extern "C" fn bond_decrypt(context: *mut xdp_md, at: u32, which: u32) -> u32 {
    cipher::<true>(context, at, which)
}

/// What the turns of the cipher are given.
struct Turns {
    context: *mut xdp_md,
    work: *mut Work,
}

#[inline(always)]
fn cipher<const OPENS: bool>(context: *mut xdp_md, at: u32, which: u32) -> u32 {
    let Some(session) = SESSIONS.get(which >> WHICH) else { return 1 };
    let Ok(work) = Work::room() else { return 1 };
    let packet = Packet::of(context);
    let Some(fields) = packet.read::<Fields>(at) else { return 1 };
    let text = at.wrapping_add(header_length(Suite::ChaCha20Poly1305));
    let Some(length) = packet.behind(text) else { return 1 };
    // The far end is the other sender.
    let sender = session.sender ^ OPENS as u8;
    let nonce = nonce(sender, &fields);
    let key = key(session, which).words();
    work.aead = Aead::new(key, nonce, bytemuck::cast(fields), text, length);
    work.failed = 0;
    let mut turns = Turns { context, work };
    let callback = turn::<OPENS> as *mut c_void;
    // SAFETY: the callback is one, and what it is given outlives the call.
    let done = unsafe { bpf_loop(Aead::turns(length), callback, (&raw mut turns).cast(), 0) };
    if done < 0 || work.failed != 0 {
        return 1;
    }
    work.aead.conclude();
    work.check = work.aead.result();
    0
}

/// A turn; 1 ends the loop, and leaves [`Work::failed`].
extern "C" fn turn<const OPENS: bool>(index: u32, turns: *mut Turns) -> i64 {
    // SAFETY: the loop passes what `cipher` gave it.
    let (context, work) = unsafe { ((*turns).context, &mut *(*turns).work) };
    let mut packet = Packet::of(context);
    if work.aead.turn::<OPENS, Packet>(&mut packet, index).is_some() {
        return 0;
    }
    work.failed = 1;
    1
}
