//! Packets that are sent twice: they go round through the bond's device with a copy, and
//! each of the two takes a path of its own. Both have one number in their bucket, by which
//! the far end knows the second for what it is.

use aya_ebpf::bindings::xdp_md;
use mwb_common::{
    integrity::Suite,
    maps::{COPIED, bucket_index, has_turns, path_index, tick, turn_clock},
    parse::{Bytes as _, ETHERNET},
    reason::Reason,
    wire::flag,
};

use super::{
    inside::{frame_of, hop},
    outer::{Way, overhead},
    work::{Work, step},
};
use crate::{
    atomic::{change, fetch_add},
    frame::{Frame as _, XdpFrame},
    maps::{BUCKETS, SESSIONS},
    opening::code,
};

/// Whether a frame of the device is one of two copies.
#[inline(always)]
pub(super) fn is_copy(frame: &XdpFrame) -> bool {
    frame.read::<[[u8; 6]; 2]>(0).is_some_and(|addresses| tick::copied(addresses).is_some())
}

/// It goes round with a copy.
#[inline(never)]
#[unsafe(no_mangle)]
pub(super) extern "C" fn bond_twice(context: *mut xdp_md) -> u32 {
    code(twice(context))
}

#[inline(always)]
fn twice(context: *mut xdp_md) -> Result<(), Reason> {
    let mut frame = frame_of(context);
    let work = Work::room()?;
    if !work.from_device {
        hop(&mut frame, work.heading.inner)?;
    }
    let paths = [work.account.path, work.other];
    frame.write(0, tick::copies(paths, work.flow_sequence))?;
    work.leaves(0, Reason::Copied, step::SEND);
    Ok(())
}

/// One of two gets its path and its number.
#[inline(never)]
#[unsafe(no_mangle)]
pub(super) extern "C" fn bond_copy(context: *mut xdp_md) -> u32 {
    code(copy(context))
}

#[inline(always)]
fn copy(context: *mut xdp_md) -> Result<(), Reason> {
    let frame = frame_of(context);
    let work = Work::room()?;
    let addresses: [[u8; 6]; 2] = frame.read(0).ok_or(Reason::Malformed)?;
    let (paths, number) = tick::copied(addresses).ok_or(Reason::Malformed)?;
    let second = is_second(bucket_index(work.slot, work.heading.bucket), number);
    let path = if second { paths[1] } else { paths[0] };
    let index = path_index(work.slot, path);
    let way = Way::of(index).filter(Way::is_usable).ok_or(Reason::NoBondPath)?;
    if second {
        let session = SESSIONS.get(work.slot).ok_or(Reason::NoSession)?;
        let suite = Suite::from_number(session.suite).ok_or(Reason::NoSession)?;
        let length = work.end - ETHERNET + overhead(suite, way.is_v6);
        // SAFETY: a map value.
        unsafe {
            fetch_add(&raw mut (*way.state).copies, 1);
            fetch_add(&raw mut (*way.state).copied_bytes, length as u64);
        }
    }
    work.account.path = path;
    work.flow_sequence = number;
    let turned = BUCKETS.get(bucket_index(work.slot, work.heading.bucket)).map_or(0, |b| b.turned);
    let ordered = if has_turns(turned, turn_clock(work.now)) { flag::ORDERED } else { 0 };
    work.heading.flags = flag::DUPLICATE | ordered;
    Ok(())
}

/// Whether the other copy was here already.
#[inline(always)]
fn is_second(bucket: u32, number: u32) -> bool {
    let Some(entry) = BUCKETS.get_ptr_mut(bucket) else { return false };
    // SAFETY: a map value, and a place that it has.
    unsafe {
        let place = (&raw mut (*entry).copied).cast::<u64>().add(number as usize & 3);
        let (seen, mark) = (*place, number as u64 | COPIED);
        // Who finds that another was quicker, is the second.
        seen == mark || !change(place, seen, mark)
    }
}
