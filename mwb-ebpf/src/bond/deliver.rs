//! What came out of the bond goes to the LAN, if the next hop is known and its device
//! takes frames; else into the bond's device, where the kernel, or a steering gateway,
//! has it.

use aya_ebpf::{
    bindings::{BPF_FIB_LKUP_RET_NO_NEIGH, BPF_FIB_LKUP_RET_SUCCESS, xdp_md},
    helpers::{bpf_fib_lookup, bpf_xdp_adjust_head},
    maps::lpm_trie::Key,
};
use mwb_common::{
    maps::{Bond, bond_role, role, takes_xdp},
    parse::{Bytes as _, ETHERNET, Ipv4Header, Ipv6Header, ethertype},
    reason::Reason,
    wire::inner,
};

use super::{
    inside::{afresh, frame_of, hop, owner6},
    work::{Work, step},
};
use crate::{
    account::Account,
    deliver::parameters,
    frame::{AF_INET, AF_INET6, Frame as _, XdpFrame, fetch},
    maps::{BOND, DEVICES, HOPS, OWNERS4},
};

/// Hops that are kept, a power of two.
pub(crate) const HOPS_KEPT: usize = 256;
/// For so long, in ns.
const FRESH: u64 = 1_000_000_000;
/// Source of frames that we make for the kernel's end: locally administered.
const OUR_MAC: [u8; 6] = [0x02, 0, 0, 0, 0, 0];

/// Where a destination is, as of late.
#[repr(C, align(8))]
pub(crate) struct Hop {
    destination: [u8; 16],
    until: u64,
    /// The LAN port; 0 = it is the kernel's to deliver.
    device: u32,
    /// Of the route.
    mtu: u32,
    /// Destination and source.
    macs: [[u8; 6]; 2],
    family: u32,
}

/// Takes the outside off a packet, and says where what is inside goes.
#[inline(always)]
pub(super) fn deliver(frame: &mut XdpFrame, work: &mut Work, bond: &Bond) -> Result<(), Reason> {
    let (family, text) = (work.heading.inner, work.text);
    let length = work.end - text;
    let ttl = check(frame, family, text, length, &mut work.account)?;
    if bond.role == bond_role::SERVER && owner(frame, family, text)? != work.slot {
        return Err(Reason::InnerSource);
    }
    let context = frame.context.ctx;
    let direct = bond.role == bond_role::GATEWAY && ttl > 1;
    let place = if direct { bond_hop(context, text, family as u32, work.now) } else { 0 };
    // SAFETY: the helper checks its arguments.
    if unsafe { bpf_xdp_adjust_head(context, text.wrapping_sub(ETHERNET) as i32) } != 0 {
        return Err(Reason::InnerMalformed);
    }
    let kind = if family == inner::IPV6 { ethertype::IPV6 } else { ethertype::IPV4 };
    frame.write(12, kind.to_be_bytes())?;
    if place != 0
        && let Some(known) = HOPS.get(place - 1)
        && length <= known.mtu
    {
        frame.write(0, fetch(&known.macs))?;
        work.leaves(known.device, Reason::Unbonded, step::SEND);
        return hop(frame, family);
    }
    let device = DEVICES.get(bond.inner_device).ok_or(Reason::NoSession)?;
    frame.write(0, [fetch(&device.mac), OUR_MAC])?;
    work.leaves(bond.inner_device, Reason::ToDevice, step::SEND);
    Ok(())
}

/// Whether there is an IP packet of exactly this length; gives its TTL.
#[inline(always)]
fn check(
    frame: &XdpFrame,
    family: u8,
    text: u32,
    length: u32,
    account: &mut Account,
) -> Result<u8, Reason> {
    match family {
        inner::IPV4 => {
            let ip: Ipv4Header = frame.read(text).ok_or(Reason::InnerMalformed)?;
            let words = ip.version_length & 0xf;
            let total = u16::from_be_bytes(ip.total_length) as u32;
            if ip.version_length >> 4 != 4
                || words < 5
                || total != length
                || total < words as u32 * 4
            {
                return Err(Reason::InnerMalformed);
            }
            account.ipv4(ip.protocol);
            Ok(ip.ttl)
        }
        inner::IPV6 => {
            let ip: Ipv6Header = frame.read(text).ok_or(Reason::InnerMalformed)?;
            let total = u16::from_be_bytes(ip.payload_length) as u32 + 40;
            if ip.version_class_label[0] >> 4 != 6 || total != length {
                return Err(Reason::InnerMalformed);
            }
            account.ipv6(ip.next_header);
            Ok(ip.hop_limit)
        }
        _ => Err(Reason::InnerMalformed),
    }
}

/// Whose the inner source is.
#[inline(always)]
fn owner(frame: &XdpFrame, family: u8, text: u32) -> Result<u32, Reason> {
    afresh();
    if family == inner::IPV6 {
        let source: [u8; 16] = frame.read(text + 8).ok_or(Reason::InnerMalformed)?;
        return owner6(&source).map_err(|_| Reason::InnerSource);
    }
    let source: [u8; 4] = frame.read(text + 12).ok_or(Reason::InnerMalformed)?;
    Ok(OWNERS4.get(&Key::new(32, source)).ok_or(Reason::InnerSource)?.slot)
}

/// The number of the hop to the destination of the packet at `text`, from 1 on; 0 = it
/// is the kernel's to deliver. A global function: it is walked once.
#[inline(never)]
#[unsafe(no_mangle)]
extern "C" fn bond_hop(context: *mut xdp_md, text: u32, family: u32, now: u64) -> u32 {
    let frame = frame_of(context);
    let is_v6 = family == inner::IPV6 as u32;
    let mut destination = [0u32; 4];
    if is_v6 {
        let Some(address) = frame.read::<[u32; 4]>(text.wrapping_add(24)) else { return 0 };
        destination = address;
    } else {
        let Some(address) = frame.read::<u32>(text.wrapping_add(16)) else { return 0 };
        destination[0] = address;
    }
    let mixed = destination[0] ^ destination[1] ^ destination[2] ^ destination[3];
    let mixed = mixed.wrapping_mul(0x9e37_79b1) >> 24;
    let place = mixed & (HOPS_KEPT as u32 - 1);
    let Some(kept) = HOPS.get_ptr_mut(place) else { return 0 };
    // SAFETY: a per-CPU value, and programs do not preempt each other.
    let kept = unsafe { &mut *kept };
    let same = bytemuck::cast::<[u8; 16], [u32; 4]>(kept.destination) == destination;
    if !same || kept.family != family || kept.until < now {
        look_up(context, kept, destination, is_v6);
        kept.until = now + FRESH;
        kept.family = family;
    }
    if takes_frames(kept.device) { place + 1 } else { 0 }
}

/// Whether a device is a LAN port that takes frames from XDP. Asked for each packet: what
/// is sent to one that does not is lost.
#[inline(always)]
fn takes_frames(ifindex: u32) -> bool {
    DEVICES
        .get(ifindex)
        .is_some_and(|device| device.role == role::INSIDE && device.takes_xdp != takes_xdp::NONE)
}

#[inline(always)]
fn look_up(context: *mut xdp_md, kept: &mut Hop, destination: [u32; 4], is_v6: bool) {
    kept.destination = bytemuck::cast(destination);
    kept.device = 0;
    let (Ok(parameters), Some(bond)) = (parameters(), BOND.get(0)) else { return };
    parameters.ifindex = bond.outer_device;
    // A length, so that the kernel gives the route's MTU.
    parameters.__bindgen_anon_1.tot_len = 1;
    if is_v6 {
        parameters.family = AF_INET6 as u8;
        parameters.__bindgen_anon_4.ipv6_dst = destination;
    } else {
        parameters.family = AF_INET as u8;
        parameters.__bindgen_anon_4.ipv4_dst = destination[0];
    }
    let size = size_of_val(parameters) as i32;
    // SAFETY: the parameters outlive the call.
    let result = unsafe { bpf_fib_lookup(context.cast(), parameters, size, 0) } as u32;
    if result == BPF_FIB_LKUP_RET_NO_NEIGH {
        // The kernel resolves it: look again.
        kept.destination = [0; 16];
        return;
    }
    if result != BPF_FIB_LKUP_RET_SUCCESS || !takes_frames(parameters.ifindex) {
        return;
    }
    kept.device = parameters.ifindex;
    // SAFETY: a look-up that succeeded has left the MTU here.
    kept.mtu = unsafe { parameters.__bindgen_anon_1.mtu_result } as u32;
    kept.macs = [parameters.dmac, parameters.smac];
}
