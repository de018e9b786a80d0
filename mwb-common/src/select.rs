//! The path choice: what the agent compiles and what the kernel does with it.

use crate::maps::{MAX_PATHS, SLOTS, Selection};

pub mod arrival;
pub mod pace;

#[cfg(not(target_arch = "bpf"))]
mod compile;

#[cfg(not(target_arch = "bpf"))]
pub use compile::{Share, compile};

/// Picks a path id for slot `index`, or 0 when no path can carry the family.
///
/// The slot's path if it is alive, else the first living one of the ranking,
/// else the slot's path as if it were alive: the last path is never killed.
#[inline(always)]
pub fn pick(selection: &Selection, index: u32, alive: impl Fn(u8) -> bool) -> u8 {
    let slot = selection.slots[index as usize & (SLOTS - 1)];
    if alive(slot) {
        return slot;
    }
    let mut i = 0;
    while i < MAX_PATHS {
        let path = selection.ranking[i];
        if path == 0 {
            break;
        }
        if alive(path) {
            return path;
        }
        i += 1;
    }
    slot
}
