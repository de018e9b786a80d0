//! Programs of the lab for benchmarks: a packet generator for live frames, a
//! counting sink, and the smallest program there is. Nothing here is part of
//! the gateway.
//!
//! A frame of a benchmark is UDP over IPv4 whose payload begins with [`MAGIC`]
//! and the number of its flow. `xtask/src/bench` makes the frames and knows the
//! same numbers.
#![feature(asm_experimental_arch)]
#![no_std]
#![no_main]

use core::arch::asm;

use aya_ebpf::{
    bindings::xdp_action,
    btf_maps::{Array, DevMap, PerCpuArray, ProgramArray},
    helpers::generated::{bpf_xdp_adjust_head, bpf_xdp_load_bytes, bpf_xdp_store_bytes},
    macros::{btf_map, xdp},
    programs::XdpContext,
};

/// Bytes of a frame that differ between flows, and the least length of one.
const HEAD: usize = 64;
/// Most flows of a generator.
const FLOWS: usize = 65_536;
/// Where the payload begins.
const PAYLOAD: usize = 42;
/// First word of the payload, as it stands in the packet.
const MAGIC: u32 = u32::from_ne_bytes(*b"mwb!");
/// Frames that the sink can keep.
const SAMPLES: usize = 1024;
/// Longest frame that the sink keeps.
const SAMPLE_BYTES: usize = 1528;
/// Frames that [`rerun_frames`] has in turn.
const FRAMES: usize = 2048;

/// What the generator sends next.
#[repr(C)]
struct Turn {
    /// Frames made so far.
    sent: u64,
    /// Flow of the next frame.
    next: u32,
    /// Number of flows.
    flows: u32,
}

/// Which frames the sink keeps: those whose number has no bit of `mask`, in
/// slot `number >> shift`.
#[repr(C)]
struct Sampling {
    mask: u64,
    shift: u64,
}

/// A kept frame.
#[repr(C)]
struct Sample {
    length: u64,
    frame: [u8; SAMPLE_BYTES],
}

/// The device that the generator sends out of.
#[btf_map]
static OUTPUT: DevMap<1> = DevMap::new();
/// The first bytes of a frame of each flow.
#[btf_map]
static HEADS: Array<[u64; HEAD / 8], FLOWS> = Array::new();
#[btf_map]
static TURN: Array<Turn, 1> = Array::new();
/// The program that [`rerun`] measures.
#[btf_map]
static SUBJECT: ProgramArray<1> = ProgramArray::new();
/// Frames that the sink has taken.
#[btf_map]
static TAKEN: PerCpuArray<u64, 1> = PerCpuArray::new();
#[btf_map]
static SAMPLING: Array<Sampling, 1> = Array::new();
#[btf_map]
static KEPT: Array<Sample, SAMPLES> = Array::new();
/// Length of the frame that [`rerun_grown`] begins every turn with.
#[btf_map]
static LENGTH: Array<u64, 1> = Array::new();
/// The frames of [`rerun_frames`], and the number of the next.
#[btf_map]
static WHOLE: Array<Sample, FRAMES> = Array::new();
#[btf_map]
static NEXT: Array<u64, 1> = Array::new();

/// Sends a frame of the next flow. Live frames are recycled the way the data
/// plane left them, so the whole head is written every time.
#[xdp(frags)]
pub(crate) fn generate(ctx: XdpContext) -> u32 {
    if write_head(&ctx).is_none() || write_tail(&ctx).is_none() {
        return xdp_action::XDP_ABORTED;
    }
    OUTPUT.redirect(0, 0).unwrap_or_else(|action| action)
}

/// Writes the head of the next flow and runs the program under measurement on
/// it: what test runs need whose subject changes the packet.
/// In several buffers like the subject: a program array has one kind or the other.
#[xdp(frags)]
pub(crate) fn rerun(ctx: XdpContext) -> u32 {
    if write_head(&ctx).is_some() {
        // SAFETY: the context is the one this program was called with.
        unsafe { SUBJECT.tail_call(&ctx, 0) };
    }
    xdp_action::XDP_ABORTED
}

/// The same for a subject that puts a header in front, or takes one away: the frame has
/// its length again before each turn.
#[xdp(frags)]
pub(crate) fn rerun_grown(ctx: XdpContext) -> u32 {
    let length = LENGTH.get(0).copied().unwrap_or_default();
    if set_length(&ctx, length).is_some() && write_head(&ctx).is_some() {
        // SAFETY: the context is the one this program was called with.
        unsafe { SUBJECT.tail_call(&ctx, 0) };
    }
    xdp_action::XDP_ABORTED
}

/// The same for a subject that takes every frame once only: each turn has a frame of its
/// own, whole.
#[xdp(frags)]
pub(crate) fn rerun_frames(ctx: XdpContext) -> u32 {
    if write_whole(&ctx).is_some() {
        // SAFETY: the context is the one this program was called with.
        unsafe { SUBJECT.tail_call(&ctx, 0) };
    }
    xdp_action::XDP_ABORTED
}

/// Counts and drops the frames of a benchmark; everything else (ARP, probes) is
/// the kernel's.
#[xdp(frags)]
pub(crate) fn sink(ctx: XdpContext) -> u32 {
    if !is_ours(&ctx) {
        return xdp_action::XDP_PASS;
    }
    let Some(taken) = TAKEN.get_ptr_mut(0) else { return xdp_action::XDP_ABORTED };
    // SAFETY: the slot is this CPU's own, and a program is not interrupted by
    // itself.
    let number = unsafe { *taken };
    // SAFETY: as above.
    unsafe { *taken = number + 1 };
    let Some(sampling) = SAMPLING.get(0) else { return xdp_action::XDP_ABORTED };
    if number & sampling.mask == 0 {
        keep(&ctx, (number >> (sampling.shift & 63)) as u32);
    }
    xdp_action::XDP_DROP
}

/// Does nothing: the floor of a test run, and what gives a veth its NAPI.
#[xdp(frags)]
pub(crate) fn pass(_ctx: XdpContext) -> u32 {
    xdp_action::XDP_PASS
}

#[inline(always)]
fn write_head(ctx: &XdpContext) -> Option<()> {
    let turn = TURN.get_ptr_mut(0)?;
    // SAFETY: one generator runs at a time; user space reads while none does.
    let turn = unsafe { &mut *turn };
    let index = turn.next;
    turn.next = if index + 1 >= turn.flows { 0 } else { index + 1 };
    turn.sent += 1;
    let head = HEADS.get(index)?;
    let frame = checked(ctx, HEAD)? as *mut [u64; HEAD / 8];
    // SAFETY: `checked` has proved HEAD bytes; packet words may be unaligned,
    // which the target allows (see build.rs).
    unsafe {
        let mut i = 0;
        while i < HEAD / 8 {
            (frame.cast::<u64>()).add(i).write_unaligned(head[i]);
            i += 1;
        }
    }
    Some(())
}

/// Writes what is behind the head of the first of [`WHOLE`], if there is one: what was
/// sealed and then lost comes back sealed.
#[inline(always)]
fn write_tail(ctx: &XdpContext) -> Option<()> {
    let frame = WHOLE.get_ptr_mut(0)?;
    // SAFETY: the map's value is there for good, and nobody writes it during a run.
    let length = opaque(unsafe { (*frame).length });
    if length <= HEAD as u64 {
        return Some(());
    }
    let rest = opaque(length - HEAD as u64);
    if !(1..=(SAMPLE_BYTES - HEAD) as u64).contains(&rest) {
        return None;
    }
    // SAFETY: `rest` is at most what `frame` holds behind its head.
    let refused = unsafe {
        let tail = (&raw mut (*frame).frame).cast::<u8>().add(HEAD);
        bpf_xdp_store_bytes(ctx.ctx, HEAD as u32, tail.cast(), rest as u32)
    };
    (refused == 0).then_some(())
}

/// Gives the frame this length, at its front.
#[inline(always)]
fn set_length(ctx: &XdpContext, length: u64) -> Option<()> {
    let grown = opaque((ctx.data_end() - ctx.data()) as u64) as i64 - length as i64;
    // SAFETY: the helper checks what it is given, and no pointer of before is used.
    let refused = grown != 0 && unsafe { bpf_xdp_adjust_head(ctx.ctx, grown as i32) } != 0;
    (!refused).then_some(())
}

#[inline(always)]
fn write_whole(ctx: &XdpContext) -> Option<()> {
    let next = NEXT.get_ptr_mut(0)?;
    // SAFETY: one test run at a time; user space writes while none does.
    let next = unsafe { &mut *next };
    let frame = WHOLE.get_ptr_mut((*next % FRAMES as u64) as u32)?;
    *next += 1;
    // SAFETY: the map's value is there for good, and nobody writes it during a test run.
    let length = opaque(unsafe { (*frame).length });
    if !(HEAD as u64..=SAMPLE_BYTES as u64).contains(&length) {
        return None;
    }
    set_length(ctx, length)?;
    // SAFETY: `length` is at most what `frame` holds.
    let refused =
        unsafe { bpf_xdp_store_bytes(ctx.ctx, 0, (&raw mut (*frame).frame).cast(), length as u32) };
    (refused == 0).then_some(())
}

#[inline(always)]
fn is_ours(ctx: &XdpContext) -> bool {
    let Some(frame) = checked(ctx, HEAD) else { return false };
    let frame = frame as *const u8;
    // SAFETY: `checked` has proved HEAD bytes, all offsets are below.
    unsafe {
        frame.add(12).cast::<u16>().read_unaligned() == 0x0800_u16.to_be()
            && frame.add(14).read() == 0x45
            && frame.add(23).read() == 17
            && frame.add(PAYLOAD).cast::<u32>().read_unaligned() == MAGIC
    }
}

#[inline(never)]
fn keep(ctx: &XdpContext, number: u32) {
    let Some(sample) = KEPT.get_ptr_mut(number & (SAMPLES as u32 - 1)) else { return };
    let length = opaque((ctx.data_end() - ctx.data()) as u64);
    if !(HEAD as u64..=SAMPLE_BYTES as u64).contains(&length) {
        return;
    }
    // SAFETY: `length` is at most what `frame` holds, and the slot is written by
    // one CPU at a time (its owner pins the generator).
    unsafe {
        (*sample).length = length;
        bpf_xdp_load_bytes(ctx.ctx, 0, (&raw mut (*sample).frame).cast(), length as u32);
    }
}

/// The frame's address if it has `length` bytes.
#[inline(always)]
fn checked(ctx: &XdpContext, length: usize) -> Option<usize> {
    let start = ctx.data();
    (opaque((start + length) as u64) <= ctx.data_end() as u64).then_some(start)
}

/// Keeps LLVM from rewriting a comparison into one that proves nothing to the
/// verifier (`p + 1 > end` into `p >= end`).
#[inline(always)]
fn opaque(mut value: u64) -> u64 {
    // SAFETY: moves a register onto itself.
    unsafe { asm!("{0} = {0}", inout(reg) value, options(pure, nomem, nostack)) };
    value
}

#[cfg(not(test))]
#[panic_handler]
fn panic(_info: &core::panic::PanicInfo<'_>) -> ! {
    loop {}
}

#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";
