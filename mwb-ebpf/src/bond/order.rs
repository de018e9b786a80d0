//! Packets that have a turn (`mwb_common::turns`): what is ahead of it goes to the agent,
//! and what the agent gives back goes on from here.

use core::mem::MaybeUninit;

use aya_ebpf::{
    bindings::{bpf_spin_lock, xdp_action, xdp_md},
    helpers::{bpf_spin_lock, bpf_spin_unlock, bpf_xdp_adjust_head, bpf_xdp_load_bytes},
    macros::xdp,
    programs::XdpContext,
};
use mwb_common::{
    integrity::Suite,
    maps::{
        BOND_PATHS as PATHS_OF_SESSION, Back, Bond, Direction, GuardedTurns, Handed, LONG_TEXT,
        PathState, SHORT_TEXT, back, bucket_index, handed, next, path_index, session_flag, tick,
    },
    parse::{Bytes as _, ETHERNET},
    reason::Reason,
    turns::{Turn, Turns},
    wire::{Kind, flag, inner},
};

use super::{
    choose::{NOT_PARKED, bond_second, look_around},
    conclude, count,
    deliver::deliver,
    direct,
    inside::{bond_wrap, frame_of, time},
    is_server,
    outer::{Way, overhead},
    packet::LONGEST,
    send::bond_send,
    window::new_in_bucket,
    work::{Heading, Work, step},
};
use crate::{
    account::Account,
    atomic::fetch_add,
    frame::{XdpFrame, opaque},
    maps::{BOND, HANDED, LEASE, SESSIONS, TURNS},
    opening::{code, decoded},
};

/// [`GuardedTurns`] with the lock under the type by which the kernel knows it.
#[repr(C)]
pub(crate) struct TurnsGuard {
    lock: bpf_spin_lock,
    reserved: u32,
    turns: Turns,
}

const _: () = assert!(size_of::<TurnsGuard>() == size_of::<GuardedTurns>());

/// A record of either length.
#[repr(C)]
struct Record<const TEXT: usize> {
    head: Handed,
    text: [u8; TEXT],
}

/// Between two words to the agent that it is asked what came by a path, in ns.
const ASKED_EVERY: u64 = 8_000_000;
/// Length of what a frame from the agent has before its text.
const HEAD: u32 = size_of::<Back>() as u32;

/// Gives a packet its turn: an error says that the agent has it until then.
#[inline(always)]
pub(super) fn wait(context: *mut xdp_md, work: &Work) -> Result<(), Reason> {
    let index = bucket_index(work.slot, work.heading.bucket);
    if bond_turn_of(index, work.flow_sequence, work.heading.path as u32) == 0 {
        return Ok(());
    }
    if bond_hand(context, work.text, work.end.wrapping_sub(work.text), handed::AHEAD as u32) == 0 {
        return Err(Reason::Ahead);
    }
    bond_refuse(index, work.flow_sequence);
    Ok(())
}

/// Gives the agent a copy of a packet that is to be repaired if it gets lost, before it is
/// sealed: `length` bytes at `text`. `state` is its path's.
#[inline(always)]
pub(super) fn tell(context: *mut xdp_md, text: u32, length: u32, state: *mut PathState) {
    if !has_agent(time()) || bond_hand(context, text, length, handed::SENT as u32) != 0 {
        // SAFETY: a map value.
        unsafe { fetch_add(&raw mut (*state).untold, 1) };
    }
}

/// Gives the agent a copy of what came: one of [`handed`] by which others are recovered.
#[inline(always)]
pub(super) fn copy(context: *mut xdp_md, work: &Work, kind: u8, state: &mut PathState) {
    let length = work.end.wrapping_sub(work.text);
    if !has_agent(work.now) || bond_hand(context, work.text, length, kind as u32) != 0 {
        // SAFETY: a map value.
        unsafe { fetch_add(&raw mut state.untold, 1) };
    }
}

/// Tells the agent that the far end wants to know what came by a path.
#[inline(always)]
pub(super) fn ask(context: *mut xdp_md, work: &Work, state: &mut PathState) {
    if work.now.saturating_sub(state.asked) > ASKED_EVERY && has_agent(work.now) {
        state.asked = work.now;
        bond_hand(context, 0, 1, handed::ASKED as u32);
    }
}

/// Whether the agent takes what it is handed.
#[inline(always)]
pub(super) fn has_agent(now: u64) -> bool {
    LEASE.get(0).is_some_and(|until| *until > now)
}

/// Whether a packet is the agent's until its turn. What is known of the turns then is in
/// [`Work`]. A global function: the verifier walks it once.
#[inline(never)]
#[unsafe(no_mangle)]
extern "C" fn bond_turn_of(index: u32, number: u32, path: u32) -> u32 {
    let (Some(guard), Ok(work)) = (TURNS.get_ptr_mut(index), Work::room()) else { return 0 };
    let now = work.now;
    let agent = has_agent(now);
    // SAFETY: a map value, and the lock is held while it is used.
    unsafe {
        bpf_spin_lock(&raw mut (*guard).lock);
        let turns = &mut (*guard).turns;
        let turn = turns.take(number, path as u8, now, agent);
        let (next, count, ways) = (turns.next, turns.handed, turns.ways());
        bpf_spin_unlock(&raw mut (*guard).lock);
        (work.turn, work.handed, work.ways) = (next, count, ways as u32);
        if matches!(turn, Turn::Ahead) { 1 } else { 0 }
    }
}

/// The agent could not be handed it.
#[inline(never)]
#[unsafe(no_mangle)]
extern "C" fn bond_refuse(index: u32, number: u32) -> u32 {
    let Some(guard) = TURNS.get_ptr_mut(index) else { return 0 };
    // SAFETY: as above.
    unsafe {
        bpf_spin_lock(&raw mut (*guard).lock);
        (*guard).turns.refuse(number);
        bpf_spin_unlock(&raw mut (*guard).lock);
    }
    0
}

/// Hands the agent the `length` bytes at `offset`; says 0, or 1 if it has no room. A global
/// function.
#[inline(never)]
#[unsafe(no_mangle)]
extern "C" fn bond_hand(context: *mut xdp_md, offset: u32, length: u32, kind: u32) -> u32 {
    if length <= SHORT_TEXT as u32 {
        record::<SHORT_TEXT>(context, offset, length, kind)
    } else {
        record::<LONG_TEXT>(context, offset, length, kind)
    }
}

#[inline(always)]
fn record<const TEXT: usize>(context: *mut xdp_md, offset: u32, length: u32, kind: u32) -> u32 {
    let Ok(work) = Work::room() else { return 1 };
    if length == 0 || length > TEXT as u32 {
        return 1;
    }
    // The mask is for the verifier.
    let length = (opaque(length - 1) as u32 & (TEXT as u32 - 1)) + 1;
    let Some(mut entry) = HANDED.reserve_untyped::<Record<TEXT>>(0) else { return 1 };
    let head = Handed {
        came: work.now,
        sequence: work.sequence,
        slot: work.slot,
        number: work.flow_sequence,
        next: work.turn,
        count: work.handed,
        bucket: work.heading.bucket,
        ways: work.ways as u16,
        length: length as u16,
        kind: kind as u8,
        path: work.heading.path,
        inner: work.heading.inner,
        flags: work.heading.flags,
        reserved: [0; 2],
        session: work.session,
    };
    let record: *mut Record<TEXT> = MaybeUninit::as_mut_ptr(&mut entry);
    // SAFETY: the record is ours until it is submitted, and the helper checks its arguments.
    let loaded = unsafe {
        (&raw mut (*record).head).write(head);
        bpf_xdp_load_bytes(context, offset, (&raw mut (*record).text).cast(), length)
    };
    if loaded != 0 {
        entry.discard(0);
        return 1;
    }
    entry.submit(0);
    0
}

/// Whether a frame of the device is one from the agent.
#[inline(always)]
pub(super) fn is_back(frame: &XdpFrame) -> bool {
    let kinds = (frame.read::<[u8; 2]>(0), frame.read::<[u8; 2]>(12));
    matches!(kinds, (Some(kind), Some(ethertype)) if Back::is(kind, ethertype))
}

/// What the agent gives back.
#[xdp(frags)]
pub(crate) fn bond_back(context: XdpContext) -> u32 {
    let frame = XdpFrame::new(context);
    if Work::begin(Direction::In).is_err() {
        return xdp_action::XDP_ABORTED;
    }
    let context: *mut xdp_md = frame.context.ctx;
    let result = process(context);
    let reason = count(&frame, result);
    if reason == Some(Reason::ToDevice) && is_server() {
        direct::call(&frame, next::OPENED);
    }
    conclude(&frame, result, reason, xdp_action::XDP_DROP)
}

/// The steps of a packet, as those of what goes into the bond.
#[inline(always)]
fn process(context: *mut xdp_md) -> Result<(), Reason> {
    decoded(bond_given_back(context))?;
    if Work::room()?.next == step::GIVEN {
        decoded(bond_given(context))?;
        decoded(bond_wrap(context))?;
        let work = Work::room()?;
        if work.heading.kind == Kind::Parity as u8 {
            work.reason = Reason::ParitySent as u32;
        }
        decoded(bond_send(context))?;
    }
    Ok(())
}

/// It goes where it belongs. A global function.
#[inline(never)]
#[unsafe(no_mangle)]
extern "C" fn bond_given_back(context: *mut xdp_md) -> u32 {
    code(given_back(context))
}

#[inline(always)]
fn given_back(context: *mut xdp_md) -> Result<(), Reason> {
    let mut frame = frame_of(context);
    let work = Work::room()?;
    let bond = BOND.get(0).ok_or(Reason::TickIgnored)?;
    let (back, path) = about(&frame, work, bond)?;
    let kind = back.destination[1];
    if kind == back::AGAIN[1] || kind == back::PARITY[1] {
        work.next = step::GIVEN;
        return Ok(());
    }
    let bucket = u16::from_be_bytes(back.bucket);
    work.heading = Heading::new(Kind::Data, back.flags, path, back.inner, bucket);
    (work.text, work.end) = (HEAD, opaque(frame.len()) as u32);
    (work.account.path, work.account.bytes) = (path, work.end.wrapping_sub(HEAD));
    if kind == back::RECOVERED[1] {
        work.flow_sequence = back.number();
        new_in_bucket(bucket_index(work.slot, bucket), work.flow_sequence)?;
        if back.flags & flag::ORDERED != 0 {
            wait(context, work)?;
        }
        return deliver(&mut frame, work, bond);
    }
    let done = u32::from_be_bytes(back.done) as u64;
    let done = if back.flags == 0 { u64::MAX } else { done };
    bond_pass(bucket_index(work.slot, bucket), back.number(), done);
    deliver(&mut frame, work, bond)
}

/// What a frame from the agent says, and of which path; its session is there.
#[inline(always)]
fn about(frame: &XdpFrame, work: &mut Work, bond: &Bond) -> Result<(Back, u8), Reason> {
    let back: Back = frame.read(0).ok_or(Reason::TickIgnored)?;
    let (slot, path) = tick::target(back.destination);
    let is_parity = back.destination[1] == back::PARITY[1];
    let known = matches!(back.inner, inner::IPV4 | inner::IPV6) || is_parity;
    if !known || slot > bond.slot_mask || path == 0 || path >= PATHS_OF_SESSION as u8 {
        return Err(Reason::TickIgnored);
    }
    let session = SESSIONS.get(slot).ok_or(Reason::TickIgnored)?;
    // What is of another session than the slot's is of none. A packet whose turn it is was
    // opened already.
    let of = u32::from_be_bytes(back.done);
    let is_turn = back.destination[1] == back::TURN[1];
    if session.ours == 0
        || session.flags & session_flag::PRESENT == 0
        || !is_turn && of != session.ours
    {
        return Err(Reason::UnknownSession);
    }
    (work.slot, work.session, work.now) = (slot, session.ours, time());
    Ok((back, path))
}

/// What the agent sends again, and parity, goes into the bond. A global function.
#[inline(never)]
#[unsafe(no_mangle)]
extern "C" fn bond_given(context: *mut xdp_md) -> u32 {
    code(given(context))
}

#[inline(always)]
fn given(context: *mut xdp_md) -> Result<(), Reason> {
    let frame = frame_of(context);
    let work = Work::room()?;
    work.account = Account::new(Direction::Out);
    let bond = BOND.get(0).ok_or(Reason::TickIgnored)?;
    let (back, path) = about(&frame, work, bond)?;
    let session = SESSIONS.get(work.slot).ok_or(Reason::TickIgnored)?;
    let suite = Suite::from_number(session.suite).ok_or(Reason::NoSession)?;
    // SAFETY: the helper checks its arguments.
    if unsafe { bpf_xdp_adjust_head(context, (HEAD - ETHERNET) as i32) } != 0 {
        return Err(Reason::TickIgnored);
    }
    work.end = opaque(frame_of(context).len()) as u32;
    let length = work.end.wrapping_sub(ETHERNET);
    let is_parity = back.destination[1] == back::PARITY[1];
    let most = LONGEST - ETHERNET - overhead(suite, true);
    if length == 0 || length > most || !is_parity && length > session.mtu {
        return Err(Reason::BondTooBig);
    }
    (work.account.bytes, work.head) = (length, overhead(suite, false));
    look_around(work, work.slot, work.now);
    let bucket = u16::from_be_bytes(back.bucket);
    let itself = 1 << (path & 15) as u32;
    let not = if is_parity { itself | NOT_PARKED } else { itself };
    let mut other = bond_second(work.slot, length, not) as u8;
    if other == 0 && is_parity {
        // By the path of its data, or not at all.
        other = bond_second(work.slot, length, !(itself | NOT_PARKED)) as u8;
    } else if other == 0 {
        // The same once more is better than nothing.
        other = path;
    }
    let way = Way::of(path_index(work.slot, other)).filter(Way::is_usable);
    let way = way.ok_or(Reason::NoBondPath)?;
    let outside = length + overhead(suite, way.is_v6);
    // SAFETY: a map value.
    unsafe {
        let state = way.state;
        let (packets, bytes) = if is_parity {
            (&raw mut (*state).parity, &raw mut (*state).parity_bytes)
        } else {
            (&raw mut (*state).again, &raw mut (*state).again_bytes)
        };
        fetch_add(packets, 1);
        fetch_add(bytes, outside as u64);
    }
    work.heading = if is_parity {
        Heading::new(Kind::Parity, 0, other, inner::NONE, 0)
    } else {
        let flags = back.flags & flag::ALL & !(flag::EPOCH | flag::FEC) | flag::RETRANSMITTED;
        Heading::new(Kind::Data, flags, other, back.inner, bucket)
    };
    (work.account.path, work.flow_sequence) = (other, back.number());
    (work.from_device, work.whole, work.protocol) = (true, false, 0);
    Ok(())
}

/// Notes that the agent has given a packet back. `done`: how many it is done with, or more
/// than there can be. A global function.
#[inline(never)]
#[unsafe(no_mangle)]
extern "C" fn bond_pass(index: u32, number: u32, done: u64) -> u32 {
    let (Some(guard), Ok(work)) = (TURNS.get_ptr_mut(index), Work::room()) else { return 0 };
    let now = work.now;
    let done = if done > u32::MAX as u64 { None } else { Some(done as u32) };
    // SAFETY: as above.
    unsafe {
        bpf_spin_lock(&raw mut (*guard).lock);
        (*guard).turns.give_back(number, now, done);
        bpf_spin_unlock(&raw mut (*guard).lock);
    }
    0
}
