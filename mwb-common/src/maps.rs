//! The map layout: keys, values, indexes and names, shared by the kernel side
//! and the agent. Every struct is `repr(C)` without implicit padding (proved by
//! `bytemuck::Pod`) and has its size asserted. Addresses, ports and MACs are in
//! network byte order; times are nanoseconds of `CLOCK_MONOTONIC`.
//!
//! A change of any layout here increments [`ABI_VERSION`], which is part of the
//! pin path: an agent never opens maps of another layout.

use bytemuck::{Pod, Zeroable};

pub use crate::counters::{COUNTER_SLOTS, Counter, Direction, PROTOCOLS, counter_index};

/// Version of everything in this file; part of the pin path.
pub const ABI_VERSION: u32 = 1;

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

/// Map names as they stand in the object file and under the pin directory.
pub mod names {
    /// `Array<Device>` by interface index.
    pub const DEVICES: &str = "DEVICES";
    /// `Array<Control>` with one entry.
    pub const CONTROL: &str = "CONTROL";
    /// `Array<Path>` by path id.
    pub const PATHS: &str = "PATHS";
    /// `Array<Liveness>` with one entry.
    pub const LIVENESS: &str = "LIVENESS";
    /// `Array<Selection>` by [`super::Family`].
    pub const SELECTIONS: &str = "SELECTIONS";
    /// `Array<u64>` by [`super::Family`]: the running slot index.
    pub const CURSORS: &str = "CURSORS";
    /// `LpmTrie<[u8; 4], Prefix>`.
    pub const PREFIXES4: &str = "PREFIXES4";
    /// `LpmTrie<[u8; 16], Prefix>`.
    pub const PREFIXES6: &str = "PREFIXES6";
    /// `HashMap<FlowKey4, Flow>`.
    pub const FLOWS4: &str = "FLOWS4";
    /// `HashMap<FlowKey6, Flow>`.
    pub const FLOWS6: &str = "FLOWS6";
    /// `HashMap<MappingKey, Mapping>`.
    pub const MAPPINGS: &str = "MAPPINGS";
    /// `HashMap<PortKey, PortOwner>`.
    pub const PORTS: &str = "PORTS";
    /// `PerCpuArray<Counter>` by [`super::counter_index`].
    pub const COUNTERS: &str = "COUNTERS";

    /// Every map that is pinned.
    pub const PINNED: &[&str] = &[
        DEVICES, CONTROL, PATHS, LIVENESS, SELECTIONS, CURSORS, PREFIXES4, PREFIXES6, FLOWS4,
        FLOWS6, MAPPINGS, PORTS, COUNTERS,
    ];

    /// Program names in the object file: entry point and form.
    pub mod programs {
        /// LAN side, XDP form.
        pub const INSIDE_XDP: &str = "inside_xdp";
        /// LAN side, TCX/clsact form.
        pub const INSIDE_TC: &str = "inside_tc";
        /// WAN side, XDP form.
        pub const OUTSIDE_XDP: &str = "outside_xdp";
        /// WAN side, TCX/clsact form.
        pub const OUTSIDE_TC: &str = "outside_tc";
        /// All of them.
        pub const ALL: &[&str] = &[INSIDE_XDP, INSIDE_TC, OUTSIDE_XDP, OUTSIDE_TC];
    }
}

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
}

/// Values of [`Device::hook`].
pub mod hook {
    /// The XDP form does the work; the TC form only takes packets that the XDP
    /// form hands over (see [`super::HANDOVER`]).
    pub const XDP: u8 = 1;
    /// The TC form does the work alone.
    pub const TC: u8 = 2;
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
    /// 1 if it takes frames that XDP redirects to it: it runs a native XDP
    /// program itself. To others the XDP form sends by way of the TC form; the
    /// kernel would drop such frames without a word.
    pub takes_xdp: u8,
    /// The device's MAC: frames to other stations are not ours. All zero: not
    /// compared.
    pub mac: [u8; 6],
    /// Zero.
    pub reserved2: [u8; 2],
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
    /// NPTv6 adjustment (RFC 6296, 3.1), as [`crate::nptv6::adjustment`] gives it.
    pub npt_adjustment: u16,
    /// Length of both NPTv6 prefixes in bits, at most 64.
    pub npt_length: u8,
    /// Zero.
    pub reserved: u8,
    /// Our MAC on the WAN.
    pub source_mac: [u8; 6],
    /// MAC of the IPv4 next hop.
    pub next_hop_mac4: [u8; 6],
    /// MAC of the IPv6 next hop.
    pub next_hop_mac6: [u8; 6],
    /// Zero.
    pub reserved2: [u8; 2],
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
    pub reserved: [u8; 7],
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

/// An IPv4 flow as the packet shows it on the wire.
///
/// For ICMP echo the identifier stands in the place of the sender's port, and
/// the other port is 0: requests have it in `source_port`, replies in
/// `destination_port`.
#[repr(C, align(8))]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Pod, Zeroable)]
pub struct FlowKey4 {
    /// Source address.
    pub source: [u8; 4],
    /// Destination address.
    pub destination: [u8; 4],
    /// Source port.
    pub source_port: [u8; 2],
    /// Destination port.
    pub destination_port: [u8; 2],
    /// IP protocol number.
    pub protocol: u8,
    /// 0 from the LAN, else the id of the path it came from.
    pub scope: u8,
    /// Zero.
    pub reserved: [u8; 2],
}

/// An IPv6 flow as the packet shows it on the wire; see [`FlowKey4`].
#[repr(C, align(8))]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Pod, Zeroable)]
pub struct FlowKey6 {
    /// Source address.
    pub source: [u8; 16],
    /// Destination address.
    pub destination: [u8; 16],
    /// Source port.
    pub source_port: [u8; 2],
    /// Destination port.
    pub destination_port: [u8; 2],
    /// Upper-layer protocol number.
    pub protocol: u8,
    /// 0 from the LAN, else the id of the path it came from.
    pub scope: u8,
    /// Zero.
    pub reserved: [u8; 2],
}

/// One direction of a flow: all that a packet of it needs, in one cache line.
/// A flow has two entries, keyed by what each direction looks like on arrival.
#[repr(C, align(8))]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Pod, Zeroable)]
pub struct Flow {
    /// When the last packet of this direction passed; 0 = none yet.
    pub last_seen: u64,
    /// Inbound: until when the next hop may be used, in units of 2^20 ns of the
    /// clock, wrapping; see [`crate::nat::next_hop_is_fresh`].
    pub next_hop_until: u32,
    /// Inbound: MTU towards the host in bytes (layer 3).
    pub mtu: u32,
    /// [`Path::generation`] it was made under.
    pub generation: u32,
    /// What the address change adds to a ones' complement sum.
    pub address_delta: u32,
    /// What the port change adds to a ones' complement sum.
    pub port_delta: u32,
    /// The address that replaces the source (outbound) or the destination
    /// (inbound); IPv4 in the first four bytes.
    pub address: [u8; 16],
    /// The port that replaces it; IPv6 keeps its ports.
    pub port: [u8; 2],
    /// The path that carries the flow.
    pub path: u8,
    /// Every TCP flag seen in this direction, ORed.
    pub tcp_flags: u8,
    /// Inbound: interface index towards the host.
    pub ifindex: u32,
    /// Inbound: MAC of the host or its router.
    pub destination_mac: [u8; 6],
    /// Inbound: our MAC towards it.
    pub source_mac: [u8; 6],
}

/// An inside endpoint (RFC 4787, 4.1).
#[repr(C, align(8))]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Pod, Zeroable)]
pub struct MappingKey {
    /// Inside address.
    pub address: [u8; 4],
    /// Inside port or ICMP identifier.
    pub port: [u8; 2],
    /// IP protocol number.
    pub protocol: u8,
    /// Path id if the destination is on that WAN's own subnet, else 0.
    pub via: u8,
}

/// The outside endpoint that an inside endpoint has, whatever it talks to.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Pod, Zeroable)]
pub struct Mapping {
    /// When a flow was last made from it.
    pub last_used: u64,
    /// [`Path::generation`] it was made under.
    pub generation: u32,
    /// Outside port or ICMP identifier.
    pub port: [u8; 2],
    /// The path whose address it is on.
    pub path: u8,
    /// Zero.
    pub reserved: u8,
}

/// An outside port of a path.
#[repr(C, align(4))]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Pod, Zeroable)]
pub struct PortKey {
    /// Outside port or ICMP identifier.
    pub port: [u8; 2],
    /// IP protocol number.
    pub protocol: u8,
    /// Path id.
    pub path: u8,
}

/// Whose port it is.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Pod, Zeroable)]
pub struct PortOwner {
    /// When it was claimed or a flow last made from it.
    pub last_used: u64,
    /// The inside endpoint.
    pub inside: MappingKey,
}

macro_rules! sizes {
    ($($type:ty = $size:literal),+ $(,)?) => { $(const _: () = assert!(size_of::<$type>() == $size);)+ };
}

sizes!(
    Device = 12,
    Control = 8,
    Path = 96,
    Liveness = 264,
    Selection = 1064,
    Prefix = 4,
    FlowKey4 = 16,
    FlowKey6 = 40,
    Flow = 64,
    MappingKey = 8,
    Mapping = 16,
    PortKey = 4,
    PortOwner = 16,
    Counter = 16,
);

#[cfg(feature = "aya")]
mod pod {
    macro_rules! pod {
        ($($type:ident),+) => {
            // SAFETY: `bytemuck::Pod` is derived for each: plain data without padding.
            $(unsafe impl aya::Pod for super::$type {})+
        };
    }
    pod!(
        Device, Control, Path, Liveness, Selection, Prefix, FlowKey4, FlowKey6, Flow, MappingKey,
        Mapping, PortKey, PortOwner, Counter
    );
}
