//! What is lost behind an XDP redirect. The kernel queues such a frame and sends
//! it after the program has ended; if it cannot, it drops the frame and tells
//! nobody but its tracepoints. These programs listen there, and count by device.
//!
//! Tracepoints are the whole machine's: devices of other network namespaces have
//! indexes of their own, so the namespace is compared.

use aya_ebpf::{
    Global, helpers::bpf_probe_read_kernel, macros::raw_tracepoint, programs::RawTracePointContext,
};
use mwb_common::maps::{KernelLayout, role};

use crate::maps::{DEVICES, XMIT_LOSSES};

/// Set by the agent, which knows the running kernel's types.
#[unsafe(no_mangle)]
static KERNEL_LAYOUT: Global<KernelLayout> =
    Global::new(KernelLayout { ifindex: 0, network: 0, inode: 0, ours: 0 });

/// A driver has taken fewer frames than it was given: `from_dev`, `to_dev`,
/// `sent`, `drops`, `err`.
#[raw_tracepoint(tracepoint = "xdp_devmap_xmit")]
pub(crate) fn devmap_xmit(context: RawTracePointContext) -> i32 {
    let drops: i32 = context.arg(3);
    if drops > 0 {
        let device: u64 = context.arg(1);
        let layout = KERNEL_LAYOUT.load();
        if is_ours(device, &layout) {
            let ifindex: u32 = read(device, layout.ifindex).unwrap_or(0);
            count(ifindex, drops as u64);
        }
    }
    0
}

/// A frame was not queued: `dev`, `xdp`, `tgt`, `err`, `map_type`, `map_id`,
/// `index`, which is the device's without a map.
#[raw_tracepoint(tracepoint = "xdp_redirect_err")]
pub(crate) fn redirect_err(context: RawTracePointContext) -> i32 {
    if is_ours(context.arg(0), &KERNEL_LAYOUT.load()) {
        count(context.arg(6), 1);
    }
    0
}

/// Whether a device is of our network namespace.
#[inline(always)]
fn is_ours(device: u64, layout: &KernelLayout) -> bool {
    let network: Option<u64> = read(device, layout.network);
    let inode: Option<u32> = network.and_then(|network| read(network, layout.inode));
    inode == Some(layout.ours)
}

/// A word of kernel memory.
#[inline(always)]
fn read<T>(structure: u64, offset: u32) -> Option<T> {
    let place = (structure + offset as u64) as *const T;
    // SAFETY: the helper takes any address, and fails where nothing is; what it
    // reads are plain integers.
    unsafe { bpf_probe_read_kernel(place) }.ok()
}

#[inline(always)]
fn count(ifindex: u32, frames: u64) {
    if DEVICES.get(ifindex).is_none_or(|device| device.role == role::NONE) {
        return;
    }
    if let Some(lost) = XMIT_LOSSES.get_ptr_mut(ifindex) {
        // SAFETY: a per-CPU value, and the tracepoints are met with preemption
        // off.
        unsafe { *lost += frames };
    }
}
