//! The map layout: keys, values, indexes and names, shared by the kernel side
//! and the agent. Every struct is `repr(C)` without implicit padding (proved by
//! `bytemuck::Pod`) and has its size asserted. Addresses, ports and MACs are in
//! network byte order; times are nanoseconds of `CLOCK_MONOTONIC`.
//!
//! A change of any layout here increments [`ABI_VERSION`], which is part of the
//! pin path: an agent never opens maps of another layout.

use bytemuck::{Pod, Zeroable};

/// Asserts the size of each struct, and has it taken for a value of a map.
macro_rules! layouts {
    ($($type:ident = $size:literal),+ $(,)?) => {
        $(const _: () = assert!(size_of::<$type>() == $size);)+
        // SAFETY: `bytemuck::Pod` is derived for each: plain data without padding.
        $(#[cfg(feature = "aya")] unsafe impl aya::Pod for $type {})+
    };
}

mod bond;
mod bucket;
mod flow;
mod handing;
pub mod names;
mod probe;

pub use bond::*;
pub use bucket::*;
pub use flow::*;
pub use handing::*;
pub use probe::*;

pub use crate::counters::{
    COUNTER_ENTRIES, COUNTERS, Counter, Counters, Direction, PROTOCOLS, counter_entry,
    counter_place,
};

/// Version of everything in this file; part of the pin path.
pub const ABI_VERSION: u32 = 10;

/// Highest path id. Ids run from 1; 0 means "none".
pub const MAX_PATHS: usize = 32;
/// Length of arrays that are indexed by path id.
pub const PATH_SLOTS: usize = MAX_PATHS + 1;
/// Highest interface index (exclusive) the device table can hold.
pub const DEVICE_SLOTS: usize = 65_536;
/// Default size of the flow tables; a flow takes two entries.
pub const FLOW_ENTRIES: usize = 262_144;
/// Default size of the mapping and port tables.
pub const MAPPING_ENTRIES: usize = 131_072;
/// Entries of each prefix table.
pub const PREFIX_ENTRIES: usize = 4_096;
/// Slots of a path choice; a power of two.
pub const SLOTS: usize = 1_024;
/// Inside addresses whose mappings are counted, when they are limited.
pub const SOURCE_ENTRIES: usize = 65_536;
/// Remote addresses that inside endpoints have sent to, when WANs filter by
/// address; the longest unused make room.
pub const CONTACT_ENTRIES: usize = 131_072;
/// Datagrams whose fragments can be on their way at once; the longest unused
/// make room.
pub const FRAGMENT_ENTRIES: usize = 8_192;
/// Fragments that can wait for the first of their datagram.
pub const HELD_SLOTS: usize = 256;
/// Longest frame that can wait, in bytes.
pub const HELD_BYTES: usize = 2_048;

/// Address family as an index.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Family {
    /// IPv4.
    V4 = 0,
    /// IPv6.
    V6 = 1,
}

/// Values of [`Device::role`].
pub mod role {
    /// Not configured: every packet goes to the kernel.
    pub const NONE: u8 = 0;
    /// A LAN port.
    pub const INSIDE: u8 = 1;
    /// A WAN port.
    pub const OUTSIDE: u8 = 2;
    /// The data plane's end of the bond's device; its [`super::Device::mac`] is that of
    /// the kernel's end.
    pub const DEVICE: u8 = 3;
}

/// Values of [`Device::hook`].
pub mod hook {
    /// The XDP form does the work; the TC form only takes packets that the XDP
    /// form hands over (see [`super::HANDOVER`]).
    pub const XDP: u8 = 1;
    /// The TC form does the work alone.
    pub const TC: u8 = 2;
}

/// Indexes into the program array of the slow path.
pub mod slow {
    /// [`super::names::programs::INSIDE_SLOW4`].
    pub const INSIDE4: u32 = 0;
    /// [`super::names::programs::INSIDE_SLOW6`].
    pub const INSIDE6: u32 = 1;
    /// [`super::names::programs::OUTSIDE_SLOW4`].
    pub const OUTSIDE4: u32 = 2;
    /// [`super::names::programs::OUTSIDE_SLOW6`].
    pub const OUTSIDE6: u32 = 3;
    /// Length of the array.
    pub const PROGRAMS: usize = 4;
}

/// Indexes into the program array of the XDP form.
pub mod next {
    /// [`super::names::programs::UPLINK_XDP`]: what comes to a server and is not for the
    /// bond.
    pub const OUTSIDE: u32 = 0;
    /// [`super::names::programs::BOND_OPENED`]: what a server has opened.
    pub const OPENED: u32 = 1;
    /// [`super::names::programs::BOND_INTO`]: what is for a client of a server.
    pub const INTO: u32 = 2;
    /// [`super::names::programs::BOND_BACK`]: what the agent gives back.
    pub const BACK: u32 = 3;
    /// Length of the array.
    pub const PROGRAMS: usize = 4;
}

/// Metadata word in front of a packet that the XDP form hands to the TC form,
/// which can let the kernel resolve a neighbour without losing the packet.
pub const HANDOVER: u32 = 0x6d77_6201;

/// What a network device is to us.
#[repr(C, align(4))]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Pod, Zeroable)]
pub struct Device {
    /// One of [`role`].
    pub role: u8,
    /// Path id of a WAN port, else 0.
    pub path: u8,
    /// One of [`hook`].
    pub hook: u8,
    /// One of [`takes_xdp`].
    pub takes_xdp: u8,
    /// The device's MAC: frames to other stations are not ours. All zero: not
    /// compared.
    pub mac: [u8; 6],
    /// Bits of [`device_flag`].
    pub flags: u8,
    /// Zero.
    pub reserved: u8,
    /// Our IPv4 address on it, the source of ICMP errors; zero = none are sent.
    pub address4: [u8; 4],
    /// Our IPv6 address on it, the same.
    pub address6: [u8; 16],
}

/// Values of [`Device::takes_xdp`](super::maps::Device): which frames the XDP
/// form may redirect to a device. Others go by way of the TC form; the kernel
/// would drop them without a word.
pub mod takes_xdp {
    /// None: it runs no native XDP program itself.
    pub const NONE: u8 = 0;
    /// Frames in one buffer.
    pub const LINEAR: u8 = 1;
    /// Frames in several buffers (jumbo) too.
    pub const FRAGMENTED: u8 = 2;
}

/// Bits of [`Device::flags`].
pub mod device_flag {
    /// Packets have no Ethernet header (tun, ppp, wireguard). TC form only.
    pub const NO_ETHERNET: u8 = 1;
    /// A veth whose other end packets may enter straight away: it is in another
    /// network namespace, and nothing on the way would miss them. TC form only.
    pub const TO_PEER: u8 = 2;
}

/// Settings that are read when a flow is made.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Pod, Zeroable)]
pub struct Control {
    /// Lowest NAT port, host byte order.
    pub port_min: u16,
    /// Highest NAT port (inclusive), host byte order.
    pub port_max: u16,
    /// Seed of flow hashes and port choice.
    pub seed: u32,
    /// Mappings that one inside address may have; 0 = as many as there are.
    pub source_limit: u32,
    /// One of [`filtering`].
    pub filtering: u8,
    /// Zero.
    pub reserved: [u8; 3],
}

/// Values of [`Control::filtering`]: who may send to a mapping from a WAN (RFC
/// 4787, 5).
pub mod filtering {
    /// Only endpoints that the inside endpoint has sent to.
    pub const ADDRESS_AND_PORT: u8 = 0;
    /// Any port of addresses that the inside endpoint has sent to.
    pub const ADDRESS: u8 = 1;
    /// Anybody.
    pub const ENDPOINT_INDEPENDENT: u8 = 2;
}

/// Bits of [`Path::flags`].
pub mod path_flag {
    /// The entry is in use.
    pub const PRESENT: u32 = 1;
    /// `address4` may be used as source.
    pub const HAS_V4: u32 = 1 << 1;
    /// `inside6`/`outside6` are set: IPv6 by NPTv6.
    pub const HAS_V6: u32 = 1 << 2;
    /// `next_hop_mac4` is resolved.
    pub const NEXT_HOP4: u32 = 1 << 3;
    /// `next_hop_mac6` is resolved.
    pub const NEXT_HOP6: u32 = 1 << 4;
}

/// A WAN link.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Pod, Zeroable)]
pub struct Path {
    /// Interface index.
    pub ifindex: u32,
    /// Bits of [`path_flag`].
    pub flags: u32,
    /// Incremented when an address of the WAN changes; flows of another
    /// generation are void.
    pub generation: u32,
    /// MTU of the device in bytes (layer 3).
    pub mtu: u32,
    /// The WAN's IPv4 address.
    pub address4: [u8; 4],
    /// IPv4 next hop.
    pub gateway4: [u8; 4],
    /// IPv6 next hop.
    pub gateway6: [u8; 16],
    /// NPTv6 inside prefix, host bits zero.
    pub inside6: [u8; 16],
    /// NPTv6 outside prefix of the same length, host bits zero.
    pub outside6: [u8; 16],
    /// The WAN's own IPv6 address, the outer source of a bond; zero = it has none.
    pub address6: [u8; 16],
    /// NPTv6 adjustment (RFC 6296, 3.1), as [`crate::nptv6::adjustment`] gives it.
    pub npt_adjustment: u16,
    /// Length of both NPTv6 prefixes in bits, at most 64.
    pub npt_length: u8,
    /// Flows that were made under another epoch and could as well use another
    /// path are made anew, see [`Choice::epoch`].
    pub epoch: u8,
    /// Our MAC on the WAN.
    pub source_mac: [u8; 6],
    /// MAC of the IPv4 next hop.
    pub next_hop_mac4: [u8; 6],
    /// MAC of the IPv6 next hop.
    pub next_hop_mac6: [u8; 6],
    /// Zero.
    pub reserved2: [u8; 2],
    /// Name of the device, zero-padded. For the agent, which finds its path ids
    /// again by it.
    pub device: [u8; 16],
    /// Name of the WAN, zero-padded. For the agent.
    pub name: [u8; 16],
}

/// Until when each path counts as alive, by path id. One entry, written in one
/// go: all living paths carry the same time, so that when the agent dies they
/// all run out at one instant and liveness is ignored from then on.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Pod, Zeroable)]
pub struct Liveness {
    /// Time until which the path is alive; 0 = dead now.
    pub alive_until: [u64; PATH_SLOTS],
}

/// Values of [`Selection::index`].
pub mod index {
    /// Slot by a running counter.
    pub const COUNTER: u8 = 0;
    /// Slot by the hash of the flow.
    pub const FLOW_HASH: u8 = 1;
}

/// A compiled path choice for one address family.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Pod, Zeroable)]
pub struct Selection {
    /// Path id per slot; 0 = none.
    pub slots: [u8; SLOTS],
    /// Path ids, best first, 0 = end: walked when the slot's path is dead.
    pub ranking: [u8; MAX_PATHS],
    /// One of [`index`].
    pub index: u8,
    /// Zero.
    pub reserved: [u8; 3],
    /// The paths that have a slot: path `n` is bit `n - 1`.
    pub targets: u32,
}

impl Selection {
    /// Whether a path has a slot.
    #[inline(always)]
    #[must_use]
    pub const fn has(&self, path: u8) -> bool {
        path != 0 && path as usize <= MAX_PATHS && self.targets >> ((path - 1) & 31) & 1 != 0
    }
}

/// Values of [`Prefix::class`].
pub mod prefix_class {
    /// An address of the gateway itself.
    pub const LOCAL: u8 = 1;
    /// Multicast, broadcast, link-local.
    pub const MULTICAST: u8 = 2;
    /// Left to the kernel by configuration.
    pub const BYPASS: u8 = 3;
    /// On a WAN's own subnet: reached through that WAN ([`Prefix::path`](super::Prefix)).
    pub const VIA_PATH: u8 = 4;
    /// On the LAN: between LAN ports the kernel forwards, and nothing from a WAN
    /// gets there unasked.
    pub const LAN: u8 = 5;
}

/// Value of a prefix table.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Pod, Zeroable)]
pub struct Prefix {
    /// One of [`prefix_class`].
    pub class: u8,
    /// Path id for [`prefix_class::VIA_PATH`], else 0.
    pub path: u8,
    /// Zero.
    pub reserved: [u8; 2],
}

layouts!(
    Device = 32,
    Control = 16,
    Path = 144,
    Liveness = 264,
    Selection = 1064,
    Prefix = 4,
    FlowKey4 = 16,
    FlowKey6 = 40,
    Choice = 4,
    Flow = 96,
    MappingKey = 8,
    Mapping = 24,
    PortKey = 4,
    PortOwner = 16,
    Counter = 16,
    Counters = 8208,
    Contact = 16,
    Fragment = 16,
    Held = 2112,
    Budget = 16,
    KernelLayout = 16,
);
