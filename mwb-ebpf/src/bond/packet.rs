//! Packet memory for the suites: read and written in words of 64 bits, without a
//! look at the context for each. Dies with the next helper that moves the packet.

use core::arch::asm;

use aya_ebpf::{bindings::xdp_md, programs::XdpContext};
use bytemuck::Pod;
use mwb_common::{
    integrity::{BytesMut, WORDS},
    parse::Bytes,
};

use crate::frame::{at, opaque};

/// Longest frame that is sealed or opened: what the accessor reaches.
pub(super) const LONGEST: u32 = 0x7ff;

/// Where a packet lies.
pub(super) struct Packet {
    data: usize,
    end: usize,
}

impl Packet {
    #[inline(always)]
    pub(super) fn of(context: *mut xdp_md) -> Self {
        let context = XdpContext::new(context);
        Self { data: context.data(), end: context.data_end() }
    }

    /// Bytes behind `offset`, if they can all be reached.
    #[inline(always)]
    pub(super) fn behind(&self, offset: u32) -> Option<u32> {
        let length = (opaque((self.end - self.data) as u32) as u32).wrapping_sub(offset);
        if length <= LONGEST { Some(length) } else { None }
    }
}

#[inline(always)]
unsafe fn load8(pointer: *const u8) -> u64 {
    let value: u64;
    // SAFETY: the caller has a pointer that `at` made.
    unsafe {
        asm!("{0} = *(u64 *)({1} + 0)", out(reg) value, in(reg) pointer,
            options(pure, readonly, nostack));
    }
    value
}

#[inline(always)]
unsafe fn store8(pointer: *mut u8, value: u64) {
    // SAFETY: the caller has a pointer that `at` made.
    unsafe {
        asm!("*(u64 *)({0} + 0) = {1}", in(reg) pointer, in(reg) value, options(nostack));
    }
}

impl Bytes for Packet {
    #[inline(always)]
    fn read<T: Pod>(&self, offset: u32) -> Option<T> {
        const { assert!(size_of::<T>().is_multiple_of(8)) };
        let pointer = at::<T>(self.data, self.end, offset)?.cast::<u8>();
        let mut value = T::zeroed();
        let bytes = bytemuck::bytes_of_mut(&mut value);
        let mut i = 0;
        while i < size_of::<T>() {
            // SAFETY: `at` checked the bounds of the whole `T`.
            let word = unsafe { load8(pointer.add(i)) };
            bytes[i..i + 8].copy_from_slice(&word.to_ne_bytes());
            i += 8;
        }
        Some(value)
    }

    #[inline(always)]
    fn len(&self) -> u32 {
        (self.end - self.data) as u32
    }
}

impl BytesMut for Packet {
    #[inline(always)]
    fn write<T: Pod>(&mut self, offset: u32, value: T) -> Option<()> {
        const { assert!(size_of::<T>().is_multiple_of(8)) };
        let pointer = at::<T>(self.data, self.end, offset)?.cast::<u8>();
        let bytes = bytemuck::bytes_of(&value);
        let mut i = 0;
        while i < size_of::<T>() {
            let mut word = [0; 8];
            word.copy_from_slice(&bytes[i..i + 8]);
            // SAFETY: `at` checked the bounds of the whole `T`.
            unsafe { store8(pointer.add(i), u64::from_ne_bytes(word)) };
            i += 8;
        }
        Some(())
    }

    #[inline(always)]
    fn change(&mut self, offset: u32, mut made: impl FnMut(usize, u64) -> u64) -> Option<()> {
        let pointer = at::<[u64; WORDS]>(self.data, self.end, offset)?.cast::<u8>();
        let mut number = 0;
        while number < WORDS {
            // SAFETY: `at` checked the bounds of all.
            unsafe {
                let word = pointer.add(8 * number);
                store8(word, made(number, load8(word).to_le()).to_le());
            }
            number += 1;
        }
        Some(())
    }
}
