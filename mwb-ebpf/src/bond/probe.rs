//! Probes: made of ticks, answered, and what an answer says.

use core::cmp::{max, min};

use aya_ebpf::{
    bindings::xdp_md,
    helpers::{bpf_xdp_adjust_head, bpf_xdp_adjust_tail},
};
use bytemuck::Zeroable as _;
use mwb_common::{
    integrity::Suite,
    maps::{
        ANNOUNCED, BOND_PATHS as PATHS_OF_SESSION, Bond, BondPath, PathState, Probe, ProbeReply,
        path_index, session_flag, tick,
    },
    parse::{Bytes as _, ETHERNET},
    reason::Reason,
    select::pace::pace,
    wire::{Kind, flag, inner},
};

use super::{
    inside::{frame_of, time, trim},
    outer::{Way, bond_outer, bond_turn, overhead},
    packet::LONGEST,
    work::{Heading, Work, step},
};
use crate::{
    atomic::change,
    frame::{Frame as _, XdpFrame, opaque},
    maps::{BOND, PATH_STATES, SESSIONS},
    opening::{code, decoded},
};

/// What is behind the header of a probe, at least: as much as its reply has, so that
/// nobody gets more than he has sent.
const LEAST: u32 = size_of::<ProbeReply>() as u32;
/// Round-trip times above this, in ns, are no answers.
const LONG_AGO: u64 = 60_000_000_000;

/// Whether a packet that has come round is the one of the two that makes a probe.
#[inline(always)]
pub(super) fn takes_turn(frame: &XdpFrame, bond: &Bond) -> bool {
    let Some(destination) = frame.read::<[u8; 6]>(0) else { return false };
    let (slot, path) = tick::target(destination);
    if [destination[0], destination[1]] != tick::SHORT || slot > bond.slot_mask {
        return false;
    }
    let Some(state) = PATH_STATES.get_ptr_mut(path_index(slot, path)) else { return false };
    // SAFETY: a map value.
    unsafe {
        let due = (*state).probe_due;
        due & 1 != 0 && change(&raw mut (*state).probe_due, due, due - 1)
    }
}

/// Makes a tick a probe; says 0, or a reason and one.
#[inline(never)]
#[unsafe(no_mangle)]
pub(super) extern "C" fn bond_probe(context: *mut xdp_md) -> u32 {
    code(probe(context))
}

#[inline(always)]
fn probe(context: *mut xdp_md) -> Result<(), Reason> {
    let mut frame = frame_of(context);
    let work = Work::room()?;
    let bond = BOND.get(0).ok_or(Reason::TickIgnored)?;
    let destination: [u8; 6] = frame.read(0).ok_or(Reason::Malformed)?;
    let kind = [destination[0], destination[1]];
    let (slot, path) = tick::target(destination);
    let exact = kind == tick::EXACT;
    let known = exact || kind == tick::SHORT;
    if !known || slot > bond.slot_mask || path == 0 || path >= PATHS_OF_SESSION as u8 {
        return Err(Reason::TickIgnored);
    }
    let session = SESSIONS.get(slot).ok_or(Reason::TickIgnored)?;
    if session.ours == 0 || session.flags & session_flag::PRESENT == 0 {
        return Err(Reason::TickIgnored);
    }
    let suite = Suite::from_number(session.suite).ok_or(Reason::TickIgnored)?;
    let index = path_index(slot, path);
    let way = Way::of(index).filter(Way::is_usable).ok_or(Reason::TickIgnored)?;
    let head = overhead(suite, way.is_v6);
    let present = (opaque(frame.len()) as u32).wrapping_sub(ETHERNET);
    let length = if exact { present } else { head + LEAST };
    if length < head + LEAST || length > way.wan.mtu || length > LONGEST - ETHERNET {
        return Err(Reason::TickIgnored);
    }
    let more = length.wrapping_sub(present) as i32;
    // All of it is written anew, so it may grow in front, where there always is room.
    let refused = match more {
        0 => 0,
        // SAFETY: the helper checks its arguments.
        1.. => unsafe { bpf_xdp_adjust_head(context, -more) },
        // SAFETY: as above.
        _ => unsafe { bpf_xdp_adjust_tail(context, more) },
    };
    if refused != 0 {
        return Err(Reason::TickIgnored);
    }
    (work.account.path, work.account.bytes) = (path, length);
    let now = time();
    if !exact {
        // SAFETY: a map value.
        unsafe {
            // A packet that is on its way round makes its probe all the same.
            let due = (*way.state).probe_due;
            let next = now + pace(bond, way.path, &*way.state, now).interval;
            if due & 1 == 0 {
                (*way.state).probe_due = next & !1;
            }
        }
    }
    frame.write(ETHERNET + head, ProbeReply::zeroed())?;
    frame.write(ETHERNET + head, Probe { sent_at: now.to_be_bytes() })?;
    (work.index, work.is_v6, work.flow_sequence) = (index, way.is_v6, 0);
    let announced = session.stripe >> ANNOUNCED >> (path & 15) & 1 != 0;
    let flags = if announced { flag::ORDERED } else { 0 };
    work.heading = Heading::new(Kind::Probe, flags, path, inner::NONE, 0);
    work.leaves(way.wan.ifindex, Reason::ProbeSent, step::SEAL);
    decoded(bond_outer(context, index, length))
}

/// Makes a probe its answer, to where it came from. `state` is the path's.
#[inline(always)]
pub(super) fn reflect(
    frame: &mut XdpFrame,
    work: &mut Work,
    state: &mut PathState,
) -> Result<(), Reason> {
    let text = work.text;
    if work.end < text + LEAST {
        return Err(Reason::BondMalformed);
    }
    let probe: Probe = frame.read(text).ok_or(Reason::BondMalformed)?;
    state.lag = work.now.wrapping_sub(u64::from_be_bytes(probe.sent_at));
    state.lag_at = work.now;
    state.announced = (work.heading.flags & flag::ORDERED != 0) as u32;
    let reply = ProbeReply {
        sent_at: probe.sent_at,
        received_at: work.now.to_be_bytes(),
        sequence: work.sequence.to_be_bytes(),
        packets: state.received.to_be_bytes(),
        bytes: state.received_bytes.to_be_bytes(),
        length: ((work.end - ETHERNET) as u16).to_be_bytes(),
        reserved: [0; 6],
    };
    frame.write(text, reply)?;
    let end = text + LEAST;
    trim(frame, end)?;
    work.flow_sequence = 0;
    work.heading = Heading::new(Kind::ProbeReply, 0, work.heading.path, inner::NONE, 0);
    work.leaves(frame.ingress(), Reason::ProbeReflected, step::SEAL);
    decoded(bond_turn(frame.context.ctx, work.is_v6 as u32, end - ETHERNET))
}

/// Takes what a reply says of its path, unless a later one was there before or its probe
/// was not sent.
#[inline(always)]
pub(super) fn take_reply(
    frame: &XdpFrame,
    work: &Work,
    bond: &Bond,
    path: &BondPath,
    state: &mut PathState,
) -> Result<(), Reason> {
    let reply: ProbeReply = frame.read(work.text).ok_or(Reason::BondMalformed)?;
    let sequence = u64::from_be_bytes(reply.sequence);
    if sequence <= state.reply_sequence || sequence > state.sent {
        return Ok(());
    }
    let (now, sent_at) = (work.now, u64::from_be_bytes(reply.sent_at));
    state.reply_sequence = sequence;
    state.reply_sent_at = sent_at;
    state.reply_at = now;
    state.reply_received_at = u64::from_be_bytes(reply.received_at);
    state.reply_packets = u64::from_be_bytes(reply.packets);
    state.reply_bytes = u64::from_be_bytes(reply.bytes);
    let length = u16::from_be_bytes(reply.length) as u32;
    // Longer than the shortest.
    if length > work.text - ETHERNET + LEAST {
        (state.sized, state.sized_at) = (length, now);
    }
    let sample = now.wrapping_sub(sent_at);
    if sent_at < now && sample <= LONG_AGO {
        smooth(state, sample);
    }
    state.alive_until = now + pace(bond, path, state, now).dead_after;
    Ok(())
}

/// RFC 6298, 2.
#[inline(always)]
fn smooth(state: &mut PathState, sample: u64) {
    if state.rtt == 0 {
        state.rtt = sample;
        state.rtt_variation = sample / 2;
        return;
    }
    let off = max(state.rtt, sample) - min(state.rtt, sample);
    state.rtt_variation = (3 * state.rtt_variation + off) / 4;
    state.rtt = (7 * state.rtt + sample) / 8;
}
