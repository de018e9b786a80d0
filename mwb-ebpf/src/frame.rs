//! A packet in either form: XDP buffer or skb. Stages are generic over [`Frame`]
//! and know nothing else of where a packet lives.

use core::{arch::asm, ffi::c_void};

use aya_ebpf::{
    bindings::{__sk_buff, xdp_md},
    programs::{TcContext, XdpContext},
};
use bytemuck::Pod;
use mwb_common::{
    maps::FlowKey4,
    parse::{Bytes, Ipv6, Refusal, read_ipv6},
    reason::Reason,
};

use crate::policy::Wanted;

mod tc;
mod xdp;

pub(crate) use tc::{FAST, SLOW4, SLOW6, TcFrame, set_mark};
pub(crate) use xdp::XdpFrame;

/// Highest offset that is looked at: headers end long before.
const MAX_OFFSET: u32 = 0x7ff;

/// Hides a value's origin from LLVM, so that a range check on it is not moved
/// or merged away before the verifier sees it. Emits one move.
#[inline(always)]
pub(crate) fn opaque<T: Into<u64>>(value: T) -> u64 {
    let mut value: u64 = value.into();
    // SAFETY: a register is moved onto itself.
    unsafe { asm!("{0} = {0}", inout(reg) value, options(pure, nomem, nostack)) };
    value
}

/// The one accessor of packet memory: a pointer to the `T` at `offset`, or none
/// if any byte of it lies behind `end`.
///
/// Contract: `data` and `end` are a context's current `data` and `data_end`. The
/// pointer dies with the next helper that moves packet memory, so it is used at
/// once and never kept.
#[inline(always)]
pub(crate) fn at<T: Pod>(data: usize, end: usize, offset: u32) -> Option<*mut T> {
    if offset > MAX_OFFSET {
        return None;
    }
    // The mask repeats the comparison in a form that the verifier keeps.
    let start = data + (opaque(offset) & MAX_OFFSET as u64) as usize;
    if opaque((start + size_of::<T>()) as u64) as usize > end {
        return None;
    }
    Some(start as *mut T)
}

macro_rules! access {
    ($load:ident, $store:ident, $type:ty, $read:literal, $write:literal) => {
        /// Reads a word of any alignment in one instruction.
        #[inline(always)]
        unsafe fn $load(pointer: *const u8) -> $type {
            let value: u64;
            // SAFETY: the caller has a pointer that `at` made.
            unsafe {
                asm!($read, out(reg) value, in(reg) pointer, options(pure, readonly, nostack));
            }
            value as $type
        }

        /// Writes a word of any alignment in one instruction.
        #[inline(always)]
        unsafe fn $store(pointer: *mut u8, value: $type) {
            // SAFETY: the caller has a pointer that `at` made.
            unsafe { asm!($write, in(reg) pointer, in(reg) value as u64, options(nostack)) };
        }
    };
}

// To LLVM packet memory has no alignment: it would go byte by byte. The eBPF
// JITs of x86-64 and arm64 access unaligned words as they are.
access!(load4, store4, u32, "{0} = *(u32 *)({1} + 0)", "*(u32 *)({0} + 0) = {1}");
access!(load2, store2, u16, "{0} = *(u16 *)({1} + 0)", "*(u16 *)({0} + 0) = {1}");

/// Reads what [`at`] gave.
#[inline(always)]
unsafe fn load<T: Pod>(pointer: *const T) -> T {
    const { assert!(size_of::<T>().is_multiple_of(2)) };
    let mut value = T::zeroed();
    let bytes = bytemuck::bytes_of_mut(&mut value);
    let from: *const u8 = pointer.cast();
    let mut i = 0;
    while i + 4 <= size_of::<T>() {
        // SAFETY: within the `T`.
        let word = unsafe { load4(from.add(i)) };
        bytes[i..i + 4].copy_from_slice(&word.to_ne_bytes());
        i += 4;
    }
    if i + 2 <= size_of::<T>() {
        // SAFETY: within the `T`.
        let word = unsafe { load2(from.add(i)) };
        bytes[i..i + 2].copy_from_slice(&word.to_ne_bytes());
    }
    value
}

/// A value that has no alignment and lies in a map, read in words as [`load`] does.
#[inline(always)]
pub(crate) fn fetch<T: Pod>(value: &T) -> T {
    // SAFETY: a reference can be read.
    unsafe { load(value) }
}

/// Writes what [`at`] gave.
#[inline(always)]
unsafe fn store<T: Pod>(pointer: *mut T, value: T) {
    const { assert!(size_of::<T>().is_multiple_of(2)) };
    let bytes = bytemuck::bytes_of(&value);
    let to: *mut u8 = pointer.cast();
    let mut i = 0;
    while i + 4 <= size_of::<T>() {
        let word = u32::from_ne_bytes([bytes[i], bytes[i + 1], bytes[i + 2], bytes[i + 3]]);
        // SAFETY: within the `T`.
        unsafe { store4(to.add(i), word) };
        i += 4;
    }
    if i + 2 <= size_of::<T>() {
        // SAFETY: within the `T`.
        unsafe { store2(to.add(i), u16::from_ne_bytes([bytes[i], bytes[i + 1]])) };
    }
}

/// Next hop that the kernel is asked to resolve.
#[derive(Clone, Copy)]
pub(crate) struct NextHop {
    /// One of the kernel's numbers; 0: as its routing table has it.
    family: u32,
    /// Path whose gateway it is.
    path: u32,
}

impl NextHop {
    /// As the kernel's routing table has it.
    pub(crate) const ROUTE: Self = Self { family: 0, path: 0 };

    /// In 16 bits.
    #[inline(always)]
    pub(crate) const fn packed(self) -> u16 {
        (self.family as u8 as u16) << 8 | self.path as u8 as u16
    }

    /// The inverse of [`NextHop::packed`].
    #[inline(always)]
    pub(crate) const fn unpacked(packed: u16) -> Self {
        Self { family: (packed >> 8) as u32, path: (packed & 0xff) as u32 }
    }

    /// The IPv4 gateway of a path.
    #[inline(always)]
    pub(crate) const fn v4(path: u8) -> Self {
        Self { family: AF_INET, path: path as u32 }
    }

    /// Its IPv6 gateway.
    #[inline(always)]
    pub(crate) const fn v6(path: u8) -> Self {
        Self { family: AF_INET6, path: path as u32 }
    }
}

/// What a transport checksum has to take in.
pub(crate) struct TransportChange {
    /// Offset of the checksum field.
    pub(crate) check: u32,
    /// UDP over IPv4: 0 means "none".
    pub(crate) zero_is_none: bool,
    /// Change of the pseudo-header.
    pub(crate) address_delta: u32,
    /// Change of the transport header.
    pub(crate) port_delta: u32,
}

/// A packet that can be read, written and sent.
pub(crate) trait Frame: Bytes {
    /// Whether [`Frame::redirect_unresolved`] works; otherwise such a packet is
    /// handed to the form where it does, unchanged.
    const RESOLVES: bool;
    /// Whether this is the slow path: what is rare and long is done there, on an
    /// skb.
    const SLOW: bool;
    /// Whether IPv4 comes this way.
    const V4: bool;
    /// Whether IPv6 does.
    const V6: bool;

    /// Whether [`Frame::redirect`] to this device works; if not, as above.
    fn reaches(&self, ifindex: u32) -> bool;

    /// The program's context, for helpers.
    fn context(&self) -> *mut c_void;
    /// Index of the device it came in through.
    fn ingress(&self) -> u32;
    /// Whether a VLAN tag was taken off the frame before it got here.
    fn is_untagged_vlan(&self) -> bool;
    /// Packets on the wire that it stands for.
    fn packets(&self) -> u32;
    /// Largest layer-3 packet on the wire of a packet of `length` bytes, `headers`
    /// of them before the transport's payload.
    fn largest(&self, length: u32, headers: u32) -> u32;
    /// Reads an IPv6 header at `offset` and what is behind it; says whether it
    /// could.
    fn read_ipv6(&self, offset: u32, packet: &mut Ipv6) -> Result<(), Reason>;
    /// Makes both entries of a new IPv4 flow; takes [`crate::opening::asked`] and says a
    /// [`crate::opening::code`].
    fn open4(&self, key: &FlowKey4, now: u64, asked: u32, wanted: Wanted) -> u32;
    /// Its firewall mark; 0 where there is none.
    fn mark(&self) -> u32;
    /// Where a SYN's maximum segment size is, and what: see
    /// [`crate::stage::find_mss_tc`].
    fn find_mss(&self, header: u32, end: u32) -> u32;
    /// Writes `value` at `offset`.
    fn write<T: Pod>(&mut self, offset: u32, value: T) -> Result<(), Reason>;
    /// Updates a transport checksum for changed addresses and ports.
    fn adjust_transport(&mut self, change: TransportChange) -> Result<(), Reason>;
    /// Sends it out of a device; gives the program's return code.
    fn redirect(&self, ifindex: u32) -> i32;
    /// The same, with the kernel filling in the link-layer header.
    fn redirect_unresolved(&self, ifindex: u32, next_hop: NextHop) -> i32;
}

/// [`read_ipv6`] as a global function: the verifier walks the loop over extension
/// headers once, and what follows it once, not once for each way out of the loop.
/// 0 = done, else the reason.
#[inline(never)]
#[unsafe(no_mangle)]
extern "C" fn read_ipv6_xdp(context: *mut xdp_md, offset: u32, packet: *mut Ipv6) -> u32 {
    try_read_ipv6(&XdpFrame::new(XdpContext::new(context)), offset, packet)
}

/// The same for the TC form.
#[inline(never)]
#[unsafe(no_mangle)]
extern "C" fn read_ipv6_tc(context: *mut __sk_buff, offset: u32, packet: *mut Ipv6) -> u32 {
    try_read_ipv6(&TcFrame::<FAST> { context: TcContext::new(context) }, offset, packet)
}

#[inline(always)]
fn try_read_ipv6<F: Frame>(frame: &F, offset: u32, packet: *mut Ipv6) -> u32 {
    // SAFETY: the callers pass a packet on their stack.
    let Some(packet) = (unsafe { packet.as_mut() }) else { return REFUSED };
    match read_ipv6(frame, offset, packet) {
        Ok(()) => 0,
        Err(Refusal::Malformed) => REFUSED,
        Err(_) => REFUSED_UNSUPPORTED,
    }
}

const REFUSED: u32 = 1;
const REFUSED_UNSUPPORTED: u32 = 2;

#[inline(always)]
const fn refusal(code: u32) -> Result<(), Reason> {
    match code {
        0 => Ok(()),
        REFUSED_UNSUPPORTED => Err(Reason::UnsupportedProtocol),
        _ => Err(Reason::Malformed),
    }
}

/// Address families as the kernel numbers them.
pub(crate) const AF_INET: u32 = 2;
pub(crate) const AF_INET6: u32 = 10;
