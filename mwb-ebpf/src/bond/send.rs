//! A packet whose text and outside are in place gets its number and its header, and is
//! sealed.

use aya_ebpf::bindings::xdp_md;
use mwb_common::{
    integrity::Suite,
    maps::{BOND_PATHS as PATHS_OF_SESSION, Session, SessionState},
    parse::{Bytes as _, ETHERNET},
    reason::Reason,
    wire::{Header, Kind, flag, header_length},
};

use super::{
    inside::frame_of,
    order::tell,
    outer::{bond_sum6, outer_length},
    seal::{seal, which},
    work::Work,
};
use crate::{
    atomic::fetch_add,
    frame::{Frame as _, opaque},
    maps::{PATH_STATES, SESSION_STATES, SESSIONS},
    opening::code,
};

/// The parity of the epoch that seals.
#[inline(always)]
fn sealing(session: &Session, state: &SessionState) -> u32 {
    if state.heard == session.epoch.wrapping_add(1) { session.epoch } else { session.seals as u32 }
}

/// Numbers and seals the packet, which is the whole frame. Says 0, or a reason and one.
#[inline(never)]
#[unsafe(no_mangle)]
pub(super) extern "C" fn bond_send(context: *mut xdp_md) -> u32 {
    code(send(context))
}

#[inline(always)]
fn send(context: *mut xdp_md) -> Result<(), Reason> {
    let work = Work::room()?;
    let (slot, index) = (work.index / PATHS_OF_SESSION as u32, work.index);
    let session = SESSIONS.get(slot).ok_or(Reason::NoSession)?;
    let known = SESSION_STATES.get(slot).ok_or(Reason::NoSession)?;
    let state = PATH_STATES.get_ptr_mut(index).ok_or(Reason::NoBondPath)?;
    let parity = sealing(session, known) & 1;
    let mut frame = frame_of(context);
    let whole = opaque(frame.len()) as u32;
    // SAFETY: a map value.
    let (sequence, taken) = unsafe {
        fetch_add(&raw mut (*state).sent_bytes, whole.wrapping_sub(ETHERNET) as u64);
        (fetch_add(&raw mut (*state).sent, 1) + 1, (*state).received as u16)
    };
    let epoch = if parity == 0 { 0 } else { flag::EPOCH };
    let heading = work.heading;
    let header = Header {
        kind: match heading.kind {
            0 => Kind::Data,
            1 => Kind::Probe,
            2 => Kind::ProbeReply,
            _ => Kind::Parity,
        },
        flags: heading.flags | epoch,
        path: heading.path,
        inner: heading.inner,
        session: session.theirs,
        sequence,
        bucket: heading.bucket,
        taken,
        flow_sequence: work.flow_sequence,
    };
    let at = ETHERNET + outer_length(work.is_v6);
    frame.write(at, header.encode())?;
    if heading.flags & (flag::ACKED | flag::FEC) != 0 {
        (work.sequence, work.session) = (sequence, session.ours);
        let suite = Suite::from_number(session.suite).ok_or(Reason::NoSession)?;
        let text = at + header_length(suite);
        tell(context, text, whole.wrapping_sub(text), state);
    }
    let long = session.suite == Suite::ChaCha20Poly1305 as u8;
    if seal(context, at, which(slot, false, parity), long) != 0 {
        return Err(Reason::BondTooBig);
    }
    if work.is_v6 && bond_sum6(context) != 0 {
        return Err(Reason::BondTooBig);
    }
    Ok(())
}
