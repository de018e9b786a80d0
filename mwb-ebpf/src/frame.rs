//! A packet in either form: XDP buffer or skb. Stages are generic over [`Frame`]
//! and know nothing else of where a packet lives.

use core::{arch::asm, ffi::c_void, ptr};

use aya_ebpf::{
    bindings::{
        __sk_buff, BPF_F_MARK_MANGLED_0, BPF_F_PSEUDO_HDR, TC_ACT_SHOT, bpf_redir_neigh, xdp_md,
    },
    helpers::{
        bpf_l4_csum_replace, bpf_redirect, bpf_redirect_neigh, bpf_skb_change_head,
        bpf_skb_pull_data, bpf_skb_vlan_pop, bpf_xdp_adjust_meta, bpf_xdp_get_buff_len,
    },
    programs::{TcContext, XdpContext},
};
use bytemuck::Pod;
use mwb_common::{
    checksum::{update, update_udp},
    maps::{Device, HANDOVER, device_flag, takes_xdp},
    parse::{Bytes, ETHERNET, Ipv6, Refusal, read_ipv6},
    reason::Reason,
};

use crate::maps::{DEVICES, PATHS};

/// Highest offset that is looked at: headers end long before.
const MAX_OFFSET: u32 = 0x7ff;

/// Headers are made linear up to here.
const HEADERS: u32 = 192;

/// The identifier in a VLAN tag.
const VLAN_ID: u32 = 0xfff;

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

/// Writes the mark of an skb, which goes with it where a stage sends it on to
/// come in again.
///
/// # Safety
/// `skb` is a program's context, which is valid while the program runs.
#[inline(always)]
pub(crate) unsafe fn set_mark(skb: *mut __sk_buff, mark: u32) {
    const OFFSET: usize = core::mem::offset_of!(__sk_buff, mark);
    // LLVM would add the offset to the pointer first, which the verifier refuses.
    // SAFETY: the caller's.
    unsafe {
        asm!("*(u32 *)({skb} + {offset}) = {mark}",
            skb = in(reg) skb, offset = const OFFSET, mark = in(reg) mark as u64);
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
    /// Writes `value` at `offset`.
    fn write<T: Pod>(&mut self, offset: u32, value: T) -> Result<(), Reason>;
    /// Updates a transport checksum for changed addresses and ports.
    fn adjust_transport(&mut self, change: TransportChange) -> Result<(), Reason>;
    /// Sends it out of a device; gives the program's return code.
    fn redirect(&self, ifindex: u32) -> i32;
    /// The same, with the kernel filling in the link-layer header.
    fn redirect_unresolved(&self, ifindex: u32, next_hop: NextHop) -> i32;
}

/// XDP form.
pub(crate) struct XdpFrame {
    pub(crate) context: XdpContext,
}

impl XdpFrame {
    /// Marks the packet for the TC form of the same device.
    #[inline(always)]
    pub(crate) fn hand_over(&self) -> bool {
        let context = self.context.ctx;
        // SAFETY: the helper checks its arguments.
        if unsafe { bpf_xdp_adjust_meta(context, -(size_of::<u32>() as i32)) } != 0 {
            return false;
        }
        let meta = self.context.metadata();
        if opaque((meta + size_of::<u32>()) as u64) as usize > self.context.metadata_end() {
            return false;
        }
        // SAFETY: the comparison shows that the word lies in the metadata.
        unsafe { *(meta as *mut u32) = HANDOVER };
        true
    }

    /// Whether it is in one buffer.
    #[inline(always)]
    fn is_linear(&self) -> bool {
        // SAFETY: the helper has no preconditions.
        self.len() as u64 == unsafe { bpf_xdp_get_buff_len(self.context.ctx) }
    }
}

impl Bytes for XdpFrame {
    #[inline(always)]
    fn read<T: Pod>(&self, offset: u32) -> Option<T> {
        let pointer = at::<T>(self.context.data(), self.context.data_end(), offset)?;
        // SAFETY: `at` checked the bounds; any bytes make a `Pod`.
        Some(unsafe { load(pointer) })
    }

    #[inline(always)]
    fn len(&self) -> u32 {
        (self.context.data_end() - self.context.data()) as u32
    }

    /// A jumbo frame goes on in further buffers, of which only the helper knows.
    #[inline(always)]
    fn reaches_to(&self, end: u32) -> bool {
        // SAFETY: the helper has no preconditions.
        end <= self.len() || end as u64 <= unsafe { bpf_xdp_get_buff_len(self.context.ctx) }
    }
}

impl Frame for XdpFrame {
    const RESOLVES: bool = false;
    const SLOW: bool = false;
    const V4: bool = true;
    const V6: bool = true;

    #[inline(always)]
    fn reaches(&self, ifindex: u32) -> bool {
        let takes = DEVICES.get(ifindex).map_or(takes_xdp::NONE, |device| device.takes_xdp);
        takes >= takes_xdp::FRAGMENTED || takes == takes_xdp::LINEAR && self.is_linear()
    }

    #[inline(always)]
    fn context(&self) -> *mut c_void {
        self.context.ctx.cast()
    }

    #[inline(always)]
    fn ingress(&self) -> u32 {
        self.context.ingress_ifindex() as u32
    }

    #[inline(always)]
    fn is_untagged_vlan(&self) -> bool {
        false
    }

    #[inline(always)]
    fn packets(&self) -> u32 {
        1
    }

    #[inline(always)]
    fn read_ipv6(&self, offset: u32, packet: &mut Ipv6) -> Result<(), Reason> {
        refusal(read_ipv6_xdp(self.context.ctx, offset, packet))
    }

    #[inline(always)]
    fn largest(&self, length: u32, _headers: u32) -> u32 {
        length
    }

    #[inline(always)]
    fn write<T: Pod>(&mut self, offset: u32, value: T) -> Result<(), Reason> {
        let pointer = at::<T>(self.context.data(), self.context.data_end(), offset)
            .ok_or(Reason::Malformed)?;
        // SAFETY: `at` checked the bounds.
        unsafe { store(pointer, value) };
        Ok(())
    }

    #[inline(always)]
    fn adjust_transport(&mut self, change: TransportChange) -> Result<(), Reason> {
        let pointer = at::<[u8; 2]>(self.context.data(), self.context.data_end(), change.check)
            .ok_or(Reason::Malformed)?;
        let delta = change.address_delta + change.port_delta;
        // SAFETY: `at` checked the bounds, for the read and for the write.
        unsafe {
            let old = load(pointer);
            let new = if change.zero_is_none { update_udp(old, delta) } else { update(old, delta) };
            store(pointer, new);
        }
        Ok(())
    }

    #[inline(always)]
    fn redirect(&self, ifindex: u32) -> i32 {
        // SAFETY: the helper checks its arguments.
        unsafe { bpf_redirect(ifindex, 0) as i32 }
    }

    #[inline(always)]
    fn redirect_unresolved(&self, ifindex: u32, _next_hop: NextHop) -> i32 {
        self.redirect(ifindex)
    }
}

/// Ways of a [`TcFrame`]: the fast path, and the slow paths, which are a program
/// for each address family: together they would be too much for the stack.
pub(crate) const FAST: u8 = 0;
pub(crate) const SLOW4: u8 = 4;
pub(crate) const SLOW6: u8 = 6;

/// TC form; `WAY` is one of [`FAST`], [`SLOW4`], [`SLOW6`].
pub(crate) struct TcFrame<const WAY: u8> {
    pub(crate) context: TcContext,
}

impl<const WAY: u8> TcFrame<WAY> {
    /// Gives it the form that the stages know: an Ethernet header (of zeros, if
    /// the device has none: the kernel drops it again where it is not wanted),
    /// no tag that says a priority only, and linear headers.
    #[inline(always)]
    pub(crate) fn prepare(&self, device: &Device) {
        let skb = self.context.skb.skb;
        // SAFETY: the context is valid while the program runs; the helpers check
        // their arguments. A failure leaves a frame that the parser refuses.
        unsafe {
            if (*skb).vlan_present != 0 && (*skb).vlan_tci & VLAN_ID == 0 {
                bpf_skb_vlan_pop(skb);
            }
            if device.flags & device_flag::NO_ETHERNET != 0 {
                let protocol = (*skb).protocol as u16;
                if bpf_skb_change_head(skb, ETHERNET, 0) == 0
                    && let Some(kind) =
                        at::<[u8; 2]>(self.context.data(), self.context.data_end(), 12)
                {
                    store(kind, protocol.to_ne_bytes());
                }
            }
        }
        self.linearise();
    }

    /// Whether a stage has sent it on to this device itself; forgets it.
    #[inline(always)]
    pub(crate) fn is_turned_round(&self) -> bool {
        let skb = self.context.skb.skb;
        // SAFETY: the context is valid while the program runs.
        unsafe {
            let turned = (*skb).mark == HANDOVER;
            if turned {
                set_mark(skb, 0);
            }
            turned
        }
    }

    /// Makes the headers linear, as direct access needs it.
    #[inline(always)]
    fn linearise(&self) {
        let length = self.context.len();
        let wanted = if length < HEADERS { length } else { HEADERS };
        if ((self.context.data_end() - self.context.data()) as u32) < wanted {
            // A failure leaves the headers short, and the parser says so.
            // SAFETY: the helper checks its arguments.
            unsafe { bpf_skb_pull_data(self.context.skb.skb, wanted) };
        }
    }

    /// Whether the XDP form of the device handed the packet over.
    #[inline(always)]
    pub(crate) fn is_handed_over(&self) -> bool {
        // SAFETY: the context is valid while the program runs.
        let meta = unsafe { (*self.context.skb.skb).data_meta } as usize;
        if opaque((meta + size_of::<u32>()) as u64) as usize > self.context.data() {
            return false;
        }
        // SAFETY: the comparison shows that the word lies in the metadata.
        unsafe { *(meta as *const u32) == HANDOVER }
    }
}

impl<const WAY: u8> Bytes for TcFrame<WAY> {
    #[inline(always)]
    fn read<T: Pod>(&self, offset: u32) -> Option<T> {
        let pointer = at::<T>(self.context.data(), self.context.data_end(), offset)?;
        // SAFETY: `at` checked the bounds; any bytes make a `Pod`.
        Some(unsafe { load(pointer) })
    }

    #[inline(always)]
    fn len(&self) -> u32 {
        self.context.len()
    }
}

impl<const WAY: u8> Frame for TcFrame<WAY> {
    const RESOLVES: bool = true;
    const SLOW: bool = WAY != FAST;
    const V4: bool = WAY != SLOW6;
    const V6: bool = WAY != SLOW4;

    #[inline(always)]
    fn reaches(&self, _ifindex: u32) -> bool {
        true
    }

    #[inline(always)]
    fn context(&self) -> *mut c_void {
        self.context.skb.skb.cast()
    }

    #[inline(always)]
    fn ingress(&self) -> u32 {
        // SAFETY: the context is valid while the program runs.
        unsafe { (*self.context.skb.skb).ifindex }
    }

    #[inline(always)]
    fn is_untagged_vlan(&self) -> bool {
        // SAFETY: the context is valid while the program runs.
        unsafe { (*self.context.skb.skb).vlan_present != 0 }
    }

    #[inline(always)]
    fn packets(&self) -> u32 {
        // SAFETY: the context is valid while the program runs.
        let segments = unsafe { (*self.context.skb.skb).gso_segs };
        if segments == 0 { 1 } else { segments }
    }

    #[inline(always)]
    fn read_ipv6(&self, offset: u32, packet: &mut Ipv6) -> Result<(), Reason> {
        refusal(read_ipv6_tc(self.context.skb.skb, offset, packet))
    }

    #[inline(always)]
    fn largest(&self, length: u32, headers: u32) -> u32 {
        // SAFETY: the context is valid while the program runs.
        let segment = unsafe { (*self.context.skb.skb).gso_size };
        if segment == 0 { length } else { headers + segment }
    }

    #[inline(always)]
    fn write<T: Pod>(&mut self, offset: u32, value: T) -> Result<(), Reason> {
        let pointer = at::<T>(self.context.data(), self.context.data_end(), offset)
            .ok_or(Reason::Malformed)?;
        // SAFETY: `at` checked the bounds.
        unsafe { store(pointer, value) };
        Ok(())
    }

    #[inline(always)]
    fn adjust_transport(&mut self, change: TransportChange) -> Result<(), Reason> {
        // The helper knows whether the checksum is complete or only holds the
        // pseudo-header, which a port is not part of.
        let zero = if change.zero_is_none { BPF_F_MARK_MANGLED_0 as u64 } else { 0 };
        for (delta, flags) in
            [(change.address_delta, BPF_F_PSEUDO_HDR as u64 | zero), (change.port_delta, zero)]
        {
            if delta == 0 {
                continue;
            }
            // SAFETY: the helper checks its arguments.
            let result = unsafe {
                bpf_l4_csum_replace(self.context.skb.skb, change.check, 0, delta as u64, flags)
            };
            if result != 0 {
                return Err(Reason::Malformed);
            }
        }
        Ok(())
    }

    #[inline(always)]
    fn redirect(&self, ifindex: u32) -> i32 {
        // SAFETY: the helper checks its arguments.
        unsafe { bpf_redirect(ifindex, 0) as i32 }
    }

    #[inline(always)]
    fn redirect_unresolved(&self, ifindex: u32, next_hop: NextHop) -> i32 {
        // SAFETY: all-zero is a valid value of this plain struct.
        let mut parameters: bpf_redir_neigh = unsafe { core::mem::zeroed() };
        if next_hop.family == 0 {
            // SAFETY: without parameters there is nothing to read.
            return unsafe { bpf_redirect_neigh(ifindex, ptr::null_mut(), 0, 0) as i32 };
        }
        let Some(path) = PATHS.get(next_hop.path) else { return TC_ACT_SHOT };
        parameters.nh_family = next_hop.family;
        if next_hop.family == AF_INET {
            parameters.__bindgen_anon_1.ipv4_nh = u32::from_ne_bytes(path.gateway4);
        } else {
            parameters.__bindgen_anon_1.ipv6_nh = bytemuck::cast(path.gateway6);
        }
        let size = size_of::<bpf_redir_neigh>() as i32;
        // SAFETY: `parameters` outlives the call, which copies it.
        unsafe { bpf_redirect_neigh(ifindex, &mut parameters, size, 0) as i32 }
    }
}

/// [`read_ipv6`] as a global function: the verifier walks the loop over extension
/// headers once, and what follows it once, not once for each way out of the loop.
/// 0 = done, else the reason.
#[inline(never)]
#[unsafe(no_mangle)]
extern "C" fn read_ipv6_xdp(context: *mut xdp_md, offset: u32, packet: *mut Ipv6) -> u32 {
    try_read_ipv6(&XdpFrame { context: XdpContext::new(context) }, offset, packet)
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
