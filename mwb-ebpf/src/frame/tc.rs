//! The TC form of a packet: an skb, which may stand for many packets and have a
//! checksum that is still to be completed.

use core::{arch::asm, ffi::c_void, ptr};

use aya_ebpf::{
    bindings::{__sk_buff, BPF_F_MARK_MANGLED_0, BPF_F_PSEUDO_HDR, TC_ACT_SHOT, bpf_redir_neigh},
    helpers::{
        bpf_l4_csum_replace, bpf_redirect, bpf_redirect_neigh, bpf_redirect_peer,
        bpf_skb_change_head, bpf_skb_pull_data, bpf_skb_vlan_pop,
    },
    programs::TcContext,
};
use bytemuck::Pod;
use mwb_common::{
    maps::{Device, FlowKey4, HANDOVER, device_flag},
    nat::protocol,
    parse::{Bytes, ETHERNET, Ipv6, ethertype},
    reason::Reason,
};

use super::{
    AF_INET, Frame, NextHop, TransportChange, at, load, opaque, read_ipv6_tc, refusal, store,
};
use crate::{
    flow4::{OPENS_SLOWLY, open4_tc},
    maps::{DEVICES, PATHS},
    policy::Wanted,
    stage::find_mss_tc,
};

/// Headers are made linear up to here.
const HEADERS: u32 = 192;

/// The identifier in a VLAN tag.
const VLAN_ID: u32 = 0xfff;

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
        let linear = (self.context.data_end() - self.context.data()) as u32;
        if linear < wanted && !self.has_tcp_headers(linear) {
            // A failure leaves the headers short, and the parser says so.
            // SAFETY: the helper checks its arguments.
            unsafe { bpf_skb_pull_data(self.context.skb.skb, wanted) };
        }
    }

    /// Whether all headers of a TCP segment are linear as they are. Bytes of the
    /// payload must not be pulled to them: with those in its head the receiver
    /// cannot merge the segment with the one before it.
    #[inline(always)]
    fn has_tcp_headers(&self, linear: u32) -> bool {
        let half = |offset: u32| self.read::<[u8; 2]>(offset).unwrap_or([0; 2]);
        let (is_tcp, transport) = match u16::from_be_bytes(half(ETHERNET - 2)) {
            ethertype::IPV4 if half(ETHERNET)[0] == 0x45 => {
                (half(ETHERNET + 8)[1] == protocol::TCP, ETHERNET + 20)
            }
            ethertype::IPV6 => (half(ETHERNET + 6)[0] == protocol::TCP, ETHERNET + 40),
            _ => return false,
        };
        let [length, _] = half(transport + 12);
        is_tcp && length >= 0x50 && transport + (length >> 4) as u32 * 4 <= linear
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
    fn open4(&self, key: &FlowKey4, now: u64, asked: u32, wanted: Wanted) -> u32 {
        let slow = if Self::SLOW { OPENS_SLOWLY } else { 0 };
        open4_tc(self.context.skb.skb, key, now, asked, wanted.said() as u64 | slow)
    }

    #[inline(always)]
    fn mark(&self) -> u32 {
        // SAFETY: the context is valid while the program runs.
        unsafe { (*self.context.skb.skb).mark }
    }

    #[inline(always)]
    fn find_mss(&self, header: u32, end: u32) -> u32 {
        find_mss_tc(self.context.skb.skb, header, end)
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
        let to_peer =
            DEVICES.get(ifindex).is_some_and(|device| device.flags & device_flag::TO_PEER != 0);
        // SAFETY: the helpers check their arguments.
        unsafe {
            if to_peer {
                bpf_redirect_peer(ifindex, 0) as i32
            } else {
                bpf_redirect(ifindex, 0) as i32
            }
        }
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
