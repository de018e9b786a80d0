//! Flows of IPv6: finding them, and making both entries of a new one.

use mwb_common::{
    maps::{Choice, Family, Flow, FlowKey6, Path, how, path_flag},
    nat::{hash6, inbound6},
    nptv6::Translation,
    reason::Reason,
};

use crate::{
    frame::Frame,
    maps::{CONTROL, FLOWS6},
    opening::{Opening, answered, asked, code, decoded},
    path::{Alive, Place, choose, path, place6, said6, stands},
    policy::{self, Wanted},
    stage::{inside_reason, source_may_open},
};

/// The entry of an inbound flow, if it is of its path's generation.
#[inline(always)]
pub(crate) fn expected(key: &FlowKey6, path: &Path) -> Option<&'static mut Flow> {
    // SAFETY: as for IPv4.
    let flow = unsafe { &mut *FLOWS6.get_ptr_mut(key)? };
    (path.generation == flow.generation).then_some(flow)
}

/// As for IPv4: the entry that is valid now, with its path.
#[inline(always)]
pub(crate) fn established(
    key: &FlowKey6,
    alive: &Alive,
) -> Option<(&'static mut Flow, &'static Path)> {
    let (flow, path) = entry(key)?;
    stands(flow.choice, flow.path, path, alive, Family::V6).then_some((flow, path))
}

/// The entry of an outbound flow, if it is of its path's generation.
#[inline(always)]
pub(crate) fn entry(key: &FlowKey6) -> Option<(&'static mut Flow, &'static Path)> {
    // SAFETY: as for IPv4.
    let flow = unsafe { &mut *FLOWS6.get_ptr_mut(key)? };
    let path = path(flow.path, path_flag::HAS_V6)?;
    if path.generation == flow.generation { Some((flow, path)) } else { None }
}

/// Writes an inside address as it looks on a path; says whether it can look so. A
/// subprogram: it would take much of the caller's stack.
#[inline(never)]
pub(crate) fn outside(path: &Path, source: &[u8; 16], to: &mut [u8; 16]) -> bool {
    let translation = Translation {
        inside: path.inside6,
        outside: path.outside6,
        length: path.npt_length,
        adjustment: path.npt_adjustment,
    };
    match translation.outward(*source) {
        Some(address) => {
            *to = address;
            true
        }
        None => false,
    }
}

/// Makes both entries of a new flow.
#[inline(always)]
pub(crate) fn open<F: Frame>(
    frame: &F,
    key: &FlowKey6,
    now: u64,
    may_open: Result<(), Reason>,
) -> Result<(), Reason> {
    let to = said6(&key.destination);
    let wanted = match may_open {
        Ok(()) => policy::rule6(frame, key, Place::of(to))?,
        Err(_) => policy::NONE,
    };
    decoded(open6(key, now, asked(to, may_open), wanted.said()))
}

/// [`open`] as a global function: the verifier walks it once, not once for each
/// state of each caller.
#[inline(never)]
#[unsafe(no_mangle)]
extern "C" fn open6(key: *const FlowKey6, now: u64, asked: u32, wanted: u32) -> u32 {
    code(try_open(key, now, asked, Wanted::of(wanted)))
}

#[inline(always)]
fn try_open(key: *const FlowKey6, now: u64, asked: u32, wanted: Wanted) -> Result<(), Reason> {
    let Opening { flow, key6, answer6, .. } = Opening::room()?;
    // SAFETY: the callers pass a key on their stack.
    *key6 = *unsafe { key.as_ref() }.ok_or(Reason::FlowTableFull)?;
    let key = &*key6;
    let (to, may_open) = answered(asked);
    let via = match to {
        Place::Wan(via) => via,
        place => return Err(inside_reason(place, Reason::Local)),
    };
    may_open?;
    source_may_open(place6(&key.source))?;
    wanted.may_open()?;
    let (chosen, choice) = if via != 0 {
        (via, Choice { how: how::VIA, ..Choice::default() })
    } else {
        let seed = CONTROL.get(0).ok_or(Reason::NoPath)?.seed;
        choose(wanted.outlet(), Family::V6, hash6(key, seed), now)?
    };
    let path = path(chosen, path_flag::HAS_V6).ok_or(Reason::NoPath)?;
    *answer6 = inbound6(key, [0; 16], chosen);
    if !outside(path, &key.source, &mut answer6.destination) {
        return Err(Reason::ForeignSource);
    }
    let answer = &*answer6;
    let choice = Choice { epoch: path.epoch, ..choice };
    let generation = path.generation;
    *flow = Flow { opened: now, generation, path: chosen, choice, ..Flow::default() };
    flow.address = key.source;
    FLOWS6.insert(answer, &*flow, 0).map_err(|_| Reason::FlowTableFull)?;
    flow.address = answer.destination;
    flow.last_seen = now;
    if FLOWS6.insert(key, &*flow, 0).is_err() {
        let _ = FLOWS6.remove(answer);
        return Err(Reason::FlowTableFull);
    }
    wanted.count();
    Ok(())
}
