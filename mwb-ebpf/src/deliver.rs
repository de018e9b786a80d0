//! The next hop towards an inside host, by the kernel's routing table. A look-up
//! costs about 300 ns, so flows keep its result for a second.

use core::mem::zeroed;

use aya_ebpf::{
    bindings::{
        BPF_FIB_LKUP_RET_FRAG_NEEDED, BPF_FIB_LKUP_RET_NO_NEIGH, BPF_FIB_LKUP_RET_SUCCESS,
        bpf_fib_lookup as Parameters,
    },
    helpers::bpf_fib_lookup,
};
use mwb_common::{
    maps::{Flow, role},
    nat::next_hop_until,
    parse::{Ipv4, Ipv6},
    reason::Reason,
};

use crate::{
    frame::{AF_INET, AF_INET6, Frame},
    maps::DEVICES,
};

/// A resolved next hop.
pub(crate) struct NextHop {
    ifindex: u32,
    mtu: u32,
    destination_mac: [u8; 6],
    source_mac: [u8; 6],
}

impl NextHop {
    /// Keeps it in a flow.
    #[inline(always)]
    pub(crate) fn store(&self, flow: &mut Flow, now: u64) {
        flow.ifindex = self.ifindex;
        flow.mtu = self.mtu;
        flow.destination_mac = self.destination_mac;
        flow.source_mac = self.source_mac;
        flow.next_hop_until = next_hop_until(now);
    }
}

/// Result of a look-up; `A` is an address.
pub(crate) enum Found<A> {
    Resolved(NextHop),
    /// Device, and the address whose neighbour is not resolved.
    Unresolved(u32, A),
}

/// Next hop to the inside host `host` of an IPv4 packet.
#[inline(always)]
pub(crate) fn find4<F: Frame>(
    frame: &F,
    ip: &Ipv4,
    host: [u8; 4],
) -> Result<Found<[u8; 4]>, Reason> {
    // SAFETY: all-zero is a valid value of this plain struct.
    let mut parameters: Parameters = unsafe { zeroed() };
    parameters.family = AF_INET as u8;
    parameters.l4_protocol = ip.header.protocol;
    parameters.ifindex = frame.ingress();
    parameters.__bindgen_anon_2.tos = ip.header.tos;
    parameters.__bindgen_anon_3.ipv4_src = u32::from_ne_bytes(ip.header.source);
    parameters.__bindgen_anon_4.ipv4_dst = u32::from_ne_bytes(host);
    Ok(match find(frame, &mut parameters)? {
        Some(next_hop) => Found::Resolved(next_hop),
        None => {
            // SAFETY: the helper has left the gateway's or the host's address.
            let address = unsafe { parameters.__bindgen_anon_4.ipv4_dst };
            Found::Unresolved(parameters.ifindex, address.to_ne_bytes())
        }
    })
}

/// Next hop to the inside host `host` of an IPv6 packet.
#[inline(always)]
pub(crate) fn find6<F: Frame>(
    frame: &F,
    ip: &Ipv6,
    host: [u8; 16],
) -> Result<Found<[u8; 16]>, Reason> {
    // SAFETY: all-zero is a valid value of this plain struct.
    let mut parameters: Parameters = unsafe { zeroed() };
    parameters.family = AF_INET6 as u8;
    parameters.l4_protocol = ip.protocol;
    parameters.ifindex = frame.ingress();
    parameters.__bindgen_anon_3.ipv6_src = bytemuck::cast(ip.header.source);
    parameters.__bindgen_anon_4.ipv6_dst = bytemuck::cast(host);
    Ok(match find(frame, &mut parameters)? {
        Some(next_hop) => Found::Resolved(next_hop),
        None => {
            // SAFETY: the helper has left the gateway's or the host's address.
            let address = unsafe { parameters.__bindgen_anon_4.ipv6_dst };
            Found::Unresolved(parameters.ifindex, bytemuck::cast(address))
        }
    })
}

#[inline(always)]
fn find<F: Frame>(frame: &F, parameters: &mut Parameters) -> Result<Option<NextHop>, Reason> {
    let size = size_of::<Parameters>() as i32;
    // SAFETY: the parameters outlive the call.
    let result = unsafe { bpf_fib_lookup(frame.context(), parameters, size, 0) };
    match result as u32 {
        BPF_FIB_LKUP_RET_SUCCESS | BPF_FIB_LKUP_RET_NO_NEIGH => {}
        BPF_FIB_LKUP_RET_FRAG_NEEDED => return Err(Reason::TooBig),
        _ => return Err(Reason::NoRoute),
    }
    // Without a route of its own an inside address follows the default route
    // back to a WAN.
    match DEVICES.get(parameters.ifindex) {
        Some(device) if device.role == role::INSIDE => {}
        _ => return Err(Reason::NoRoute),
    }
    if result as u32 == BPF_FIB_LKUP_RET_NO_NEIGH {
        return Ok(None);
    }
    Ok(Some(NextHop {
        ifindex: parameters.ifindex,
        // SAFETY: a look-up that succeeded has left the MTU here.
        mtu: unsafe { parameters.__bindgen_anon_1.mtu_result } as u32,
        destination_mac: parameters.dmac,
        source_mac: parameters.smac,
    }))
}
