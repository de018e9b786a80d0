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
    nat::{next_hop_until, v4},
    parse::{Ipv4, Ipv6},
    reason::Reason,
};

use crate::{
    frame::{AF_INET, AF_INET6, Frame},
    maps::{DEVICES, LOOKUP},
};

/// The helper's parameters. In a map: they would take an eighth of the stack.
#[repr(C, align(8))]
pub(crate) struct Lookup(Parameters);

#[inline(always)]
pub(crate) fn parameters() -> Result<&'static mut Parameters, Reason> {
    let lookup = LOOKUP.get_ptr_mut(0).ok_or(Reason::NoRoute)?;
    // SAFETY: a per-CPU value, programs do not preempt each other, and nobody keeps
    // it beyond one look-up. All-zero is a valid value of this plain struct.
    unsafe {
        *lookup = zeroed();
        Ok(&mut (*lookup).0)
    }
}

/// Looks up the next hop to the inside host of an IPv4 packet. 0: `flow` has it
/// now; else the device, whose neighbour is not resolved. A subprogram: it is
/// rare.
#[inline(never)]
pub(crate) fn find4<F: Frame>(
    frame: &F,
    ip: &Ipv4,
    flow: &mut Flow,
    now: u64,
) -> Result<u32, Reason> {
    let parameters = parameters()?;
    parameters.family = AF_INET as u8;
    parameters.l4_protocol = ip.header.protocol;
    parameters.ifindex = frame.ingress();
    parameters.__bindgen_anon_2.tos = ip.header.tos;
    parameters.__bindgen_anon_3.ipv4_src = u32::from_ne_bytes(ip.header.source);
    parameters.__bindgen_anon_4.ipv4_dst = u32::from_ne_bytes(v4(&flow.address));
    find(frame, parameters, flow, now)
}

/// [`find4`] for IPv6.
#[inline(never)]
pub(crate) fn find6<F: Frame>(
    frame: &F,
    ip: &Ipv6,
    flow: &mut Flow,
    now: u64,
) -> Result<u32, Reason> {
    let parameters = parameters()?;
    parameters.family = AF_INET6 as u8;
    parameters.l4_protocol = ip.protocol;
    parameters.ifindex = frame.ingress();
    parameters.__bindgen_anon_3.ipv6_src = bytemuck::cast(ip.header.source);
    parameters.__bindgen_anon_4.ipv6_dst = bytemuck::cast(flow.address);
    find(frame, parameters, flow, now)
}

#[inline(always)]
fn find<F: Frame>(
    frame: &F,
    parameters: &mut Parameters,
    flow: &mut Flow,
    now: u64,
) -> Result<u32, Reason> {
    // A length, so that the kernel gives the route's MTU; a small one, since of what
    // does not fit it would say no more than that, and we have an answer to send.
    parameters.__bindgen_anon_1.tot_len = 1;
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
        return Ok(parameters.ifindex);
    }
    flow.ifindex = parameters.ifindex;
    // SAFETY: a look-up that succeeded has left the MTU here.
    flow.mtu = unsafe { parameters.__bindgen_anon_1.mtu_result } as u32;
    flow.destination_mac = parameters.dmac;
    flow.source_mac = parameters.smac;
    flow.next_hop_until = next_hop_until(now);
    Ok(0)
}
