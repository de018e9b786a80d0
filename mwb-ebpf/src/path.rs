//! The WAN choice as the kernel does it: liveness, selection, prefixes.

use core::ptr;

use aya_ebpf::{helpers::bpf_ktime_get_coarse_ns, maps::lpm_trie::Key};
use mwb_common::{
    maps::{Choice, Family, PATH_SLOTS, Path, Prefix, SLOTS, how, index, path_flag, prefix_class},
    policy::selection_index,
    reason::Reason,
    select,
};

use crate::{
    atomic::fetch_add,
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

    /// Whether any path of a selection is.
    #[inline(always)]
    pub(crate) fn any(&self, selection: u32) -> bool {
        matches!(picked_how(pick(selection, 0, self.now)), how::SLOT | how::RANKING)
    }
}

/// The path for a slot of a selection in the low byte (0 = none), and how it was found, one of
/// [`how`], in the next. A global function: the verifier walks its loop once,
/// not once for each state of each caller.
#[inline(never)]
#[unsafe(no_mangle)]
extern "C" fn pick(selection: u32, slot: u32, now: u64) -> u32 {
    let Ok(alive) = Alive::at(now) else { return 0 };
    let Some(selection) = SELECTIONS.get(selection) else { return 0 };
    let path = select::pick(selection, slot, |path| alive.is(path));
    let how = if !alive.is(path) {
        how::NONE_ALIVE
    } else if path == selection.slots[slot as usize & (SLOTS - 1)] {
        how::SLOT
    } else {
        how::RANKING
    };
    path as u32 | (how as u32) << 8
}

#[inline(always)]
const fn picked_how(picked: u32) -> u8 {
    (picked >> 8) as u8
}

/// A path entry that may carry the family.
#[inline(always)]
pub(crate) fn path(id: u8, family: u32) -> Option<&'static Path> {
    let path = PATHS.get(id as u32)?;
    let wanted = path_flag::PRESENT | family;
    if id != 0 && path.flags & wanted == wanted { Some(path) } else { None }
}

/// Chooses a path of an outlet for a new flow; 0 = none. The epoch is still to be filled
/// in.
#[inline(always)]
pub(crate) fn choose(
    outlet: u8,
    family: Family,
    hash: u32,
    now: u64,
) -> Result<(u8, Choice), Reason> {
    let place = selection_index(outlet, family);
    let selection = SELECTIONS.get(place).ok_or(Reason::NoPath)?;
    let slot = if selection.index == index::FLOW_HASH { hash } else { advance(place) };
    let picked = pick(place, slot, now);
    let place = Choice::place_of(outlet, slot);
    Ok((picked as u8, Choice { place, how: picked_how(picked), epoch: 0 }))
}

/// Whether a path has slots in an outlet's selection.
#[inline(always)]
pub(crate) fn is_target(outlet: u8, family: Family, path: u8) -> bool {
    SELECTIONS.get(selection_index(outlet, family)).is_some_and(|selection| selection.has(path))
}

/// Whether what was chosen so stands: it does if it had no choice; else only in
/// the path's epoch, and while the path is alive unless none of its outlet is.
#[inline(always)]
pub(crate) fn stands(choice: Choice, id: u8, path: &Path, alive: &Alive, family: Family) -> bool {
    !how::is_free(choice.how)
        || choice.epoch == path.epoch
            && (alive.is(id) || !alive.any(selection_index(choice.outlet(), family)))
}

/// Takes the next slot number; each is given out once, whatever the CPU.
#[inline(always)]
fn advance(selection: u32) -> u32 {
    let Some(cursor) = CURSORS.get_ptr_mut(selection) else { return 0 };
    // SAFETY: `cursor` points to a map value.
    unsafe { fetch_add(cursor, 1) as u32 }
}

/// Where a destination that has no flow belongs.
#[derive(Clone, Copy)]
pub(crate) enum Place {
    /// Through a WAN of our choice (0) or this one.
    Wan(u8),
    /// The gateway's own address on this WAN.
    Own(u8),
    /// Not ours.
    Kernel(Reason),
    /// The LAN.
    Lan,
}

impl Place {
    /// From the class and path of a prefix, as a global function is given them.
    #[inline(always)]
    pub(crate) fn of(said: u16) -> Self {
        let [class, path] = said.to_le_bytes();
        match class {
            prefix_class::LOCAL if path != 0 => Self::Own(path),
            prefix_class::LOCAL => Self::Kernel(Reason::Local),
            prefix_class::MULTICAST => Self::Kernel(Reason::Multicast),
            prefix_class::BYPASS => Self::Kernel(Reason::Bypass),
            prefix_class::LAN => Self::Lan,
            _ => Self::Wan(path),
        }
    }
}

/// What [`Place::of`] is given; 0: it has no prefix, so it is for a WAN of our choice.
#[inline(always)]
fn said(prefix: Option<&Prefix>) -> u16 {
    prefix.map_or(0, |prefix| u16::from_le_bytes([prefix.class, prefix.path]))
}

#[inline(always)]
pub(crate) fn place4(address: [u8; 4]) -> Place {
    Place::of(said4(address))
}

/// The place of an address, for [`Place::of`].
#[inline(always)]
pub(crate) fn said4(address: [u8; 4]) -> u16 {
    said(PREFIXES4.get(&Key::new(32, address)))
}

#[inline(always)]
pub(crate) fn place6(address: &[u8; 16]) -> Place {
    Place::of(said6(address))
}

/// The same of IPv6. A subprogram: its key would not fit on the caller's stack.
#[inline(never)]
pub(crate) fn said6(address: &[u8; 16]) -> u16 {
    said(PREFIXES6.get(&Key::new(128, *address)))
}
