//! The XDP form of a packet: a buffer as it came off a wire.

use core::ffi::c_void;

use aya_ebpf::{
    helpers::{bpf_redirect, bpf_xdp_adjust_meta, bpf_xdp_get_buff_len},
    programs::XdpContext,
};
use bytemuck::Pod;
use mwb_common::{
    checksum::{update, update_udp},
    maps::{FlowKey4, HANDOVER, takes_xdp},
    parse::{Bytes, Ipv6},
    reason::Reason,
};

use super::{Frame, NextHop, TransportChange, at, load, opaque, read_ipv6_xdp, refusal, store};
use crate::{flow4::open4_xdp, maps::DEVICES, policy::Wanted, stage::find_mss_xdp};

/// XDP form.
pub(crate) struct XdpFrame {
    pub(crate) context: XdpContext,
    /// The device that it counts as having come by; 0 = the one that it came by.
    by: u32,
}

impl XdpFrame {
    /// As it came.
    #[inline(always)]
    pub(crate) const fn new(context: XdpContext) -> Self {
        Self { context, by: 0 }
    }

    /// As if it had come by another device.
    #[inline(always)]
    pub(crate) const fn by(context: XdpContext, ifindex: u32) -> Self {
        Self { context, by: ifindex }
    }

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
        if self.by == 0 { self.context.ingress_ifindex() as u32 } else { self.by }
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
    fn open4(&self, key: &FlowKey4, now: u64, asked: u32, wanted: Wanted) -> u32 {
        open4_xdp(self.context.ctx, key, now, asked, wanted.said())
    }

    #[inline(always)]
    fn mark(&self) -> u32 {
        0
    }

    #[inline(always)]
    fn find_mss(&self, header: u32, end: u32) -> u32 {
        find_mss_xdp(self.context.ctx, header, end)
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
