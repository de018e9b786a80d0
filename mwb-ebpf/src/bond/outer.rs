//! The outside of a packet of the bond: Ethernet, IP and UDP, and where it goes.

use aya_ebpf::{
    bindings::xdp_md,
    helpers::{bpf_csum_diff, bpf_xdp_load_bytes},
    programs::XdpContext,
};
use bytemuck::{Pod, Zeroable};
use mwb_common::{
    checksum::fold,
    integrity::Suite,
    maps::{BondPath, Path, PathState, bond_path_flag, path_flag},
    nat::protocol,
    parse::{Bytes as _, ETHERNET, ethertype},
    reason::Reason,
    wire::header_length,
};

use crate::{
    frame::{Frame as _, XdpFrame, fetch, opaque},
    maps::{BOND, BOND_PATHS, PATH_STATES, PATHS, PAYLOAD},
    opening::code,
};

/// Lengths of the outer IP and UDP headers together.
const OUTER4: u32 = 28;
const OUTER6: u32 = 48;

/// Length of what is in front of the protocol's header, from the outer IP header on.
#[inline(always)]
pub(super) const fn outer_length(is_v6: bool) -> u32 {
    if is_v6 { OUTER6 } else { OUTER4 }
}

/// What sealing adds to a packet, from the outer IP header on.
#[inline(always)]
pub(super) const fn overhead(suite: Suite, is_v6: bool) -> u32 {
    outer_length(is_v6) + header_length(suite)
}

/// How a path of a session reaches the far end.
pub(super) struct Way {
    pub(super) path: &'static BondPath,
    pub(super) state: *mut PathState,
    /// The WAN.
    pub(super) wan: &'static Path,
    pub(super) is_v6: bool,
    /// The far end is where it has moved to.
    pub(super) moved: bool,
}

impl Way {
    /// The way of a path that is there.
    #[inline(always)]
    pub(super) fn of(index: u32) -> Option<Self> {
        let path = BOND_PATHS.get(index)?;
        if path.flags & bond_path_flag::PRESENT == 0 {
            return None;
        }
        let state = PATH_STATES.get_ptr_mut(index)?;
        // SAFETY: a map value.
        let known = unsafe { &*state };
        let moved = has_moved(path, known);
        let (is_v6, via) = if moved { (known.is_v6, known.via) } else { (path.is_v6, path.via) };
        let wan = PATHS.get(via as u32)?;
        Some(Self { path, state, wan, is_v6: is_v6 != 0, moved })
    }

    /// Whether a packet can be sent: the next hop is known, and an address of ours.
    #[inline(always)]
    pub(super) fn is_usable(&self) -> bool {
        let next_hop = if self.is_v6 { path_flag::NEXT_HOP6 } else { path_flag::NEXT_HOP4 };
        let wanted = path_flag::PRESENT | next_hop;
        let [a, b, c, d, ..] = self.wan.address6;
        let address = if self.is_v6 { [a, b, c, d] } else { self.wan.address4 };
        self.wan.flags & wanted == wanted && address != [0; 4]
    }
}

/// Whether the far end of a path counts as where it has moved to.
#[inline(always)]
pub(super) const fn has_moved(path: &BondPath, state: &PathState) -> bool {
    state.moved != 0 && state.moved == path.generation.wrapping_add(1)
}

#[repr(C)]
#[derive(Clone, Copy, Pod, Zeroable)]
struct Ethernet {
    destination: [u8; 6],
    source: [u8; 6],
    ethertype: [u8; 2],
}

#[repr(C)]
#[derive(Clone, Copy, Pod, Zeroable)]
struct Udp {
    source: [u8; 2],
    destination: [u8; 2],
    length: [u8; 2],
    check: [u8; 2],
}

#[repr(C)]
#[derive(Clone, Copy, Pod, Zeroable)]
struct Head4 {
    first: [u16; 4],
    ttl_protocol: u16,
    check: u16,
    source: [u16; 2],
    destination: [u16; 2],
    udp: Udp,
}

#[repr(C)]
#[derive(Clone, Copy, Pod, Zeroable)]
struct Head6 {
    first: [u16; 2],
    length: [u8; 2],
    next_limit: [u8; 2],
    source: [u8; 16],
    destination: [u8; 16],
    udp: Udp,
}

const _: () = assert!(size_of::<Head4>() == OUTER4 as usize);
const _: () = assert!(size_of::<Head6>() == OUTER6 as usize);

#[inline(always)]
const fn be(value: u32) -> [u8; 2] {
    (value as u16).to_be_bytes()
}

/// The head of an IPv4 packet of `length` bytes: it is not divided (so its
/// identification says nothing, RFC 6864), and has no UDP checksum: its own is better.
#[inline(always)]
fn head4(length: u32, source: [u8; 4], destination: [u8; 4], ports: [[u8; 2]; 2]) -> Head4 {
    let [source_port, destination_port] = ports;
    let mut head = Head4 {
        first: [
            u16::from_ne_bytes([0x45, 0]),
            u16::from_ne_bytes(be(length)),
            0,
            u16::from_ne_bytes([0x40, 0]),
        ],
        ttl_protocol: u16::from_ne_bytes([64, protocol::UDP]),
        check: 0,
        source: bytemuck::cast(source),
        destination: bytemuck::cast(destination),
        udp: Udp {
            source: source_port,
            destination: destination_port,
            length: be(length - 20),
            check: [0; 2],
        },
    };
    let sum = head.first[0] as u32
        + head.first[1] as u32
        + head.first[3] as u32
        + head.ttl_protocol as u32
        + head.source[0] as u32
        + head.source[1] as u32
        + head.destination[0] as u32
        + head.destination[1] as u32;
    head.check = !fold(sum);
    head
}

/// The same of IPv6; the UDP checksum is still to come.
#[inline(always)]
fn head6(length: u32, source: [u8; 16], destination: [u8; 16], ports: [[u8; 2]; 2]) -> Head6 {
    let [source_port, destination_port] = ports;
    let length = be(length - 40);
    Head6 {
        first: [u16::from_ne_bytes([0x60, 0]), 0],
        length,
        next_limit: [protocol::UDP, 64],
        source,
        destination,
        udp: Udp { source: source_port, destination: destination_port, length, check: [0; 2] },
    }
}

/// Writes the outside of a packet of `length` bytes from the outer IP header on, in
/// front of a header that has its place already. Says 0, or a reason and one.
#[inline(never)]
#[unsafe(no_mangle)]
pub(super) extern "C" fn bond_outer(context: *mut xdp_md, index: u32, length: u32) -> u32 {
    code(write(context, index, length))
}

#[inline(always)]
fn write(context: *mut xdp_md, index: u32, length: u32) -> Result<(), Reason> {
    let mut frame = XdpFrame::new(XdpContext::new(context));
    let way = Way::of(index).ok_or(Reason::NoBondPath)?;
    let port = BOND.get(0).ok_or(Reason::NoBondPath)?.port;
    // SAFETY: a map value.
    let state = unsafe { &*way.state };
    let (remote, remote_port) = if way.moved {
        (&state.remote, state.remote_port)
    } else {
        (&way.path.remote, way.path.remote_port)
    };
    let ports = [port, remote_port];
    let source = fetch(&way.wan.source_mac);
    if way.is_v6 {
        let destination = fetch(&way.wan.next_hop_mac6);
        let ethertype = ethertype::IPV6.to_be_bytes();
        frame.write(0, Ethernet { destination, source, ethertype })?;
        frame.write(ETHERNET, head6(length, fetch(&way.wan.address6), fetch(remote), ports))
    } else {
        let destination = fetch(&way.wan.next_hop_mac4);
        let ethertype = ethertype::IPV4.to_be_bytes();
        frame.write(0, Ethernet { destination, source, ethertype })?;
        let [a, b, c, d, ..] = fetch(remote);
        frame.write(ETHERNET, head4(length, way.wan.address4, [a, b, c, d], ports))
    }
}

/// Turns the outside of a packet round, for an answer of `length` bytes.
#[inline(never)]
#[unsafe(no_mangle)]
pub(super) extern "C" fn bond_turn(context: *mut xdp_md, is_v6: u32, length: u32) -> u32 {
    code(turn(context, is_v6 != 0, length))
}

#[inline(always)]
fn turn(context: *mut xdp_md, is_v6: bool, length: u32) -> Result<(), Reason> {
    let mut frame = XdpFrame::new(XdpContext::new(context));
    let [destination, source]: [[u8; 6]; 2] = frame.read(0).ok_or(Reason::BondMalformed)?;
    frame.write(0, [source, destination])?;
    if is_v6 {
        let head: Head6 = frame.read(ETHERNET).ok_or(Reason::BondMalformed)?;
        let ports = [head.udp.destination, head.udp.source];
        frame.write(ETHERNET, head6(length, head.destination, head.source, ports))
    } else {
        let head: Head4 = frame.read(ETHERNET).ok_or(Reason::BondMalformed)?;
        let ports = [head.udp.destination, head.udp.source];
        let [source, destination] =
            [head.destination, head.source].map(bytemuck::cast::<[u16; 2], [u8; 4]>);
        frame.write(ETHERNET, head4(length, source, destination, ports))
    }
}

/// What the helper sums at once.
const STEP: u32 = 512;
/// Steps in the longest packet.
const STEPS: u32 = 4;
/// From the Ethernet header to the IPv6 addresses, and to their end.
const ADDRESSES: u32 = ETHERNET + 8;
const UDP: u32 = ETHERNET + 40;

/// Writes the checksum of an outer IPv6 packet (RFC 8200, 8.1) that is the whole frame.
/// RFC 6935 lets tunnels do without, but what is on the way may not know.
#[inline(never)]
#[unsafe(no_mangle)]
pub(super) extern "C" fn bond_sum6(context: *mut xdp_md) -> u32 {
    let mut frame = XdpFrame::new(XdpContext::new(context));
    let length = (opaque(frame.len()) as u32).wrapping_sub(UDP);
    if length > STEP * STEPS {
        return 1;
    }
    let Some(bytes) = PAYLOAD.get_ptr_mut(0) else { return 1 };
    let bytes: *mut u8 = bytes.cast();
    // Addresses, length and protocol, then all from the UDP header on. The words of
    // the first two are the packet's, so that one pass does for them.
    let [high, low] = be(length);
    let mut sum =
        u16::from_ne_bytes([high, low]) as u32 + u16::from_ne_bytes([0, protocol::UDP]) as u32;
    let (mut from, end) = (ADDRESSES, length + UDP);
    let mut step = 0;
    while step <= STEPS && from < end {
        step += 1;
        let left = end - from;
        let size = if left > STEP { STEP } else { left };
        // The mask is for the verifier.
        let size = (opaque(size - 1) as u32 & (STEP - 1)) + 1;
        // What the last word lacks is zero.
        let last = (size & (STEP - 4)) as usize;
        // SAFETY: the buffer is a per-CPU value longer than a step and a word, and
        // programs do not preempt each other; the helpers check their arguments.
        unsafe {
            bytes.add(last).cast::<u32>().write_unaligned(0);
            if bpf_xdp_load_bytes(context, from, bytes.cast(), size) != 0 {
                return 1;
            }
            let words = bytes.cast::<u32>();
            let more = bpf_csum_diff(core::ptr::null_mut(), 0, words, (size + 3) & !3, sum);
            if more < 0 {
                return 1;
            }
            sum = more as u32;
        }
        from += STEP;
    }
    let check = match !fold(sum) {
        0 => 0xffff,
        check => check,
    };
    match frame.write(UDP + 6, check) {
        Ok(()) => 0,
        Err(_) => 1,
    }
}
