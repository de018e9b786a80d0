//! What the rules of classes say of a packet that goes into the bond, and how often.

use mwb_common::classes::{self, CLASS_RULES, InUse, class};

use super::work::Work;
use crate::maps::{BOND, CLASS_COUNTS, CLASSES};

/// What a rule says of a packet, as a global function can say it.
#[derive(Clone, Copy)]
pub(super) struct Ruled(u32);

impl Ruled {
    /// What [`bond_class`] has said.
    #[inline(always)]
    pub(super) const fn said(value: u32) -> Self {
        Self(value)
    }

    /// `number` is the rule's place; behind the last one if there is none.
    #[inline(always)]
    const fn new(number: u32, class: u8, repair: u8, paths: u16) -> Self {
        Self(
            (class & 15) as u32
                | (repair as u32 & 15) << 4
                | (number & 255) << 8
                | (paths as u32) << 16,
        )
    }

    /// One of [`class`].
    #[inline(always)]
    pub(super) const fn class(self) -> u8 {
        self.0 as u8 & 15
    }

    /// Bits of [`mwb_common::classes::repair`].
    #[inline(always)]
    pub(super) const fn repair(self) -> u8 {
        self.0 as u8 >> 4
    }

    /// See [`classes::among`].
    #[inline(always)]
    pub(super) const fn among(self) -> u32 {
        classes::among((self.0 >> 16) as u16)
    }

    /// See [`classes::falls_back`].
    #[inline(always)]
    pub(super) const fn falls_back(self) -> bool {
        classes::falls_back((self.0 >> 16) as u16)
    }

    /// Counts a packet, if there are rules.
    #[inline(always)]
    pub(super) fn count(self, length: u32) {
        if BOND.get(0).is_none_or(|bond| InUse(bond.rules).count() == 0) {
            return;
        }
        if let Some(count) = CLASS_COUNTS.get_ptr_mut(self.0 >> 8 & 255) {
            // SAFETY: a per-CPU value, and programs do not preempt each other.
            unsafe {
                (*count).packets += 1;
                (*count).bytes += length as u64;
            }
        }
    }
}

/// What the first rule that matches the packet says, a [`Ruled`]. A global function: the
/// verifier walks its loop once.
#[inline(never)]
#[unsafe(no_mangle)]
pub(super) extern "C" fn bond_class(length: u32) -> u32 {
    let none = Ruled::new(CLASS_RULES as u32, class::AUTO, 0, 0).0;
    let (Ok(work), Some(bond)) = (Work::room(), BOND.get(0)) else { return none };
    let rules = InUse(bond.rules);
    let mut number = 0;
    while number < CLASS_RULES as u32 && number < rules.count() {
        let Some(rule) = CLASSES.get(rules.first() + number) else { break };
        if rule.matches(&work.key, work.dscp, length) {
            return Ruled::new(number, rule.class, rule.repair, rule.paths).0;
        }
        number += 1;
    }
    none
}
