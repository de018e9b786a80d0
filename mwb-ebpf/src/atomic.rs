//! Atomic words of map values. The standard library has no atomic add and no
//! compare-and-exchange for BPF; the instructions are there.

use core::arch::asm;

/// Adds to a word; gives what it was.
///
/// # Safety
/// `word` points into a map value.
#[inline(always)]
pub(crate) unsafe fn fetch_add(word: *mut u64, value: u64) -> u64 {
    let mut value = value;
    // SAFETY: the caller's.
    unsafe {
        asm!("{value} = atomic_fetch_add((u64 *)({word} + 0), {value})",
            value = inout(reg) value, word = in(reg) word);
    }
    value
}

/// Adds to a word of 32 bits.
///
/// # Safety
/// `word` points into a map value.
#[inline(always)]
pub(crate) unsafe fn add32(word: *mut u32, value: u32) {
    // SAFETY: the caller's.
    unsafe {
        asm!("lock *(u32 *)({word} + 0) += {value}",
            value = in(reg) value as u64, word = in(reg) word);
    }
}

/// Makes a word `new` if it is `old`; says whether it was.
///
/// # Safety
/// `word` points into a map value.
#[inline(always)]
pub(crate) unsafe fn change(word: *mut u64, old: u64, new: u64) -> bool {
    let found: u64;
    // SAFETY: the caller's. The instruction compares with r0 and leaves there
    // what it found.
    unsafe {
        asm!("r0 = cmpxchg_64({word} + 0, r0, {new})",
            word = in(reg) word, new = in(reg) new, inlateout("r0") old => found);
    }
    found == old
}

/// Adds to a word of 32 bits; gives what it was.
///
/// # Safety
/// `word` points into a map value.
#[inline(always)]
pub(crate) unsafe fn fetch_add32(word: *mut u32, value: u32) -> u32 {
    let mut value = value;
    // SAFETY: the caller's.
    unsafe {
        asm!("{value} = atomic_fetch_add((u32 *)({word} + 0), {value})",
            value = inout(wreg) value, word = in(reg) word);
    }
    value
}
