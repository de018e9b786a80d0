//! What is put together for a flow that is being opened. It lies in a map: on the
//! stack there is no room for it, and on Linux 6.1 no table takes a key that a
//! global function was given.

use mwb_common::{
    maps::{Contact, Flow, FlowKey4, FlowKey6, Mapping, MappingKey},
    reason::Reason,
};

use crate::{maps::OPENING, path::Place, unpacked};

/// Both entries of the flow, and the mapping behind it.
#[repr(C, align(8))]
pub(crate) struct Opening {
    pub(crate) flow: Flow,
    pub(crate) mapping: Mapping,
    pub(crate) contact: Contact,
    pub(crate) endpoint: MappingKey,
    pub(crate) key4: FlowKey4,
    pub(crate) answer4: FlowKey4,
    pub(crate) contact_key: FlowKey4,
    pub(crate) key6: FlowKey6,
    pub(crate) answer6: FlowKey6,
}

impl Opening {
    /// Room for one. Nobody keeps it beyond the flow's insertion.
    #[inline(always)]
    pub(crate) fn room() -> Result<&'static mut Self, Reason> {
        let opening = OPENING.get_ptr_mut(0).ok_or(Reason::FlowTableFull)?;
        // SAFETY: a per-CPU value, programs do not preempt each other, and one
        // opens one flow at a time.
        Ok(unsafe { &mut *opening })
    }
}

/// What a global function is given of a flow that is to be opened: where its destination
/// belongs, for [`Place::of`], above whether it may be.
#[inline(always)]
pub(crate) fn asked(to: u16, may_open: Result<(), Reason>) -> u32 {
    (to as u32) << 16 | code(may_open)
}

/// The inverse of [`asked`].
#[inline(always)]
pub(crate) fn answered(asked: u32) -> (Place, Result<(), Reason>) {
    (Place::of((asked >> 16) as u16), decoded(asked & 0xffff))
}

/// What a global function says: 0, or a reason and one. It can say a number only.
#[inline(always)]
pub(crate) fn code(result: Result<(), Reason>) -> u32 {
    match result {
        Ok(()) => 0,
        Err(reason) => reason as u32 + 1,
    }
}

/// The inverse of [`code`].
#[inline(always)]
pub(crate) fn decoded(code: u32) -> Result<(), Reason> {
    if code == 0 { Ok(()) } else { Err(unpacked((code - 1) as u8)) }
}
