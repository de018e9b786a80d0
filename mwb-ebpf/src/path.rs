//! The WAN choice as the kernel does it: liveness, selection, prefixes.

use core::{arch::asm, ptr};

use aya_ebpf::{helpers::bpf_ktime_get_coarse_ns, maps::lpm_trie::Key};
use mwb_common::{
    maps::{Family, PATH_SLOTS, Path, Prefix, index, path_flag, prefix_class},
    reason::Reason,
    select,
};

use crate::{
    frame::opaque,
    maps::{CURSORS, LIVENESS, PATHS, PREFIXES4, PREFIXES6, SELECTIONS},
};

/// Time of this packet in ns: 14 ns to read, at the cost of a 4 ms grain.
#[inline(always)]
pub(crate) fn now() -> u64 {
    // SAFETY: the helper has no preconditions.
    unsafe { bpf_ktime_get_coarse_ns() }
}

/// Which paths are alive at a time.
pub(crate) struct Alive {
    now: u64,
    until: *const u64,
}

impl Alive {
    #[inline(always)]
    pub(crate) fn at(now: u64) -> Result<Self, Reason> {
        let until = LIVENESS.get_ptr(0).ok_or(Reason::NoPath)?.cast();
        Ok(Self { now, until })
    }

    /// Whether a path is alive; 0 never is.
    #[inline(always)]
    pub(crate) fn is(&self, path: u8) -> bool {
        let slot = opaque(path) as usize;
        if slot >= PATH_SLOTS {
            return false;
        }
        // SAFETY: `until` points to PATH_SLOTS words in a map value.
        unsafe { ptr::read_volatile(self.until.add(slot)) > self.now }
    }

    /// Whether any path of the family's ranking is.
    #[inline(always)]
    pub(crate) fn any(&self, family: Family) -> bool {
        pick(family as u32, 0, self.now) & PICKED_ALIVE != 0
    }
}

/// In the result of [`pick`]: the path is alive.
const PICKED_ALIVE: u32 = 0x100;

/// The path for a slot, with [`PICKED_ALIVE`]; 0 = none. A global function: the
/// verifier walks its loop once, not once for each state of each caller.
#[inline(never)]
#[unsafe(no_mangle)]
extern "C" fn pick(family: u32, slot: u32, now: u64) -> u32 {
    let Ok(alive) = Alive::at(now) else { return 0 };
    let Some(selection) = SELECTIONS.get(family) else { return 0 };
    let path = select::pick(selection, slot, |path| alive.is(path));
    if alive.is(path) { path as u32 | PICKED_ALIVE } else { path as u32 }
}

/// A path entry that may carry the family.
#[inline(always)]
pub(crate) fn path(id: u8, family: u32) -> Option<&'static Path> {
    let path = PATHS.get(id as u32)?;
    let wanted = path_flag::PRESENT | family;
    if id != 0 && path.flags & wanted == wanted { Some(path) } else { None }
}

/// Chooses a path for a new flow; 0 = none.
#[inline(always)]
pub(crate) fn choose(family: Family, hash: u32, alive: &Alive) -> Result<u8, Reason> {
    let selection = SELECTIONS.get(family as u32).ok_or(Reason::NoPath)?;
    let slot = if selection.index == index::FLOW_HASH { hash } else { advance(family) };
    Ok(pick(family as u32, slot, alive.now) as u8)
}

/// Takes the next slot number; each is given out once, whatever the CPU.
#[inline(always)]
fn advance(family: Family) -> u32 {
    let Some(cursor) = CURSORS.get_ptr_mut(family as u32) else { return 0 };
    let mut value = 1u64;
    // SAFETY: `cursor` points to a map value; core has no fetch_add for BPF.
    unsafe {
        asm!("{value} = atomic_fetch_add((u64 *)({cursor} + 0), {value})",
            value = inout(reg) value, cursor = in(reg) cursor);
    }
    value as u32
}

/// Where a destination that has no flow belongs.
pub(crate) enum Place {
    /// Through a WAN of our choice (0) or this one.
    Wan(u8),
    /// Not ours.
    Kernel(Reason),
    /// The LAN.
    Lan,
}

#[inline(always)]
fn place(prefix: Option<&Prefix>) -> Place {
    match prefix {
        Some(prefix) => match prefix.class {
            prefix_class::LOCAL => Place::Kernel(Reason::Local),
            prefix_class::MULTICAST => Place::Kernel(Reason::Multicast),
            prefix_class::BYPASS => Place::Kernel(Reason::Bypass),
            prefix_class::LAN => Place::Lan,
            _ => Place::Wan(prefix.path),
        },
        None => Place::Wan(0),
    }
}

#[inline(always)]
pub(crate) fn place4(address: [u8; 4]) -> Place {
    place(PREFIXES4.get(&Key::new(32, address)))
}

/// A subprogram: its key would not fit on the caller's stack.
#[inline(never)]
fn find6(address: &[u8; 16]) -> Place {
    place(PREFIXES6.get(&Key::new(128, *address)))
}

#[inline(always)]
pub(crate) fn place6(address: [u8; 16]) -> Place {
    find6(&address)
}
