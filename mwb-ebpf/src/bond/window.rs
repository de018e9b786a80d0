//! What has been seen before, of a path and of a flow, under the kernel's locks.

use aya_ebpf::{
    bindings::bpf_spin_lock,
    helpers::{bpf_spin_lock, bpf_spin_unlock},
};
use mwb_common::{
    maps::{GuardedFlowWindow, GuardedPathWindow},
    reason::Reason,
    window::{FlowWindow, PathWindow, Seen},
};

use crate::maps::{FLOW_WINDOWS, PATH_WINDOWS};

/// [`GuardedPathWindow`] with the lock under the type by which the kernel knows it.
#[repr(C)]
pub(crate) struct PathGuard {
    lock: bpf_spin_lock,
    reserved: u32,
    window: PathWindow,
}

/// [`GuardedFlowWindow`], the same.
#[repr(C)]
pub(crate) struct FlowGuard {
    lock: bpf_spin_lock,
    reserved: u32,
    window: FlowWindow,
}

const _: () = assert!(size_of::<PathGuard>() == size_of::<GuardedPathWindow>());
const _: () = assert!(size_of::<FlowGuard>() == size_of::<GuardedFlowWindow>());

const NEW: u32 = 0;
const NEWEST: u32 = 1;
const BEFORE: u32 = 2;
const TOO_OLD: u32 = 3;

#[inline(always)]
const fn code(taken: Result<(), Seen>) -> u32 {
    match taken {
        Ok(()) => NEW,
        Err(Seen::Before) => BEFORE,
        Err(Seen::TooOld) => TOO_OLD,
    }
}

/// A global function: the verifier walks its loop once.
#[inline(never)]
#[unsafe(no_mangle)]
extern "C" fn take_path(index: u32, sequence: u64) -> u32 {
    let Some(guard) = PATH_WINDOWS.get_ptr_mut(index) else { return TOO_OLD };
    // SAFETY: a map value, and the lock is held while the window is used.
    unsafe {
        bpf_spin_lock(&raw mut (*guard).lock);
        let window = &mut (*guard).window;
        let newest = sequence > window.newest();
        let taken = code(window.take(sequence));
        bpf_spin_unlock(&raw mut (*guard).lock);
        if taken == NEW && newest { NEWEST } else { taken }
    }
}

/// The same for a flow.
#[inline(never)]
#[unsafe(no_mangle)]
extern "C" fn take_flow(index: u32, number: u32) -> u32 {
    let Some(guard) = FLOW_WINDOWS.get_ptr_mut(index) else { return TOO_OLD };
    // SAFETY: as above.
    unsafe {
        bpf_spin_lock(&raw mut (*guard).lock);
        let taken = code((*guard).window.take(number));
        bpf_spin_unlock(&raw mut (*guard).lock);
        taken
    }
}

/// Takes an authentic packet of a path; says whether it is the newest.
#[inline(always)]
pub(super) fn new_on_path(index: u32, sequence: u64) -> Result<bool, Reason> {
    match take_path(index, sequence) {
        NEW => Ok(false),
        NEWEST => Ok(true),
        BEFORE => Err(Reason::Replayed),
        _ => Err(Reason::ReplayTooOld),
    }
}

/// Takes a packet of a bucket that may come more than once.
#[inline(always)]
pub(super) fn new_in_bucket(index: u32, number: u32) -> Result<(), Reason> {
    if take_flow(index, number) == NEW { Ok(()) } else { Err(Reason::Duplicate) }
}
