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
pub const ABI_VERSION: u32 = 2;

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
    /// `HashMap<[u8; 4], u32>`: mappings ever made for an inside address. Only
    /// the kernel side counts.
    pub const MAPPINGS_MADE: &str = "MAPPINGS_MADE";
    /// `HashMap<[u8; 4], u32>`: how many of them are over. Only the agent counts.
    pub const MAPPINGS_ENDED: &str = "MAPPINGS_ENDED";
    /// `LruHashMap<FlowKey4, Contact>` by the key of an inbound packet without
    /// its source port.
    pub const CONTACTS: &str = "CONTACTS";
    /// `LruHashMap<FlowKey6, Fragment>`, see [`super::Fragment`].
    pub const FRAGMENTS: &str = "FRAGMENTS";
    /// `Array<Held>`.
    pub const HELD: &str = "HELD";
    /// `PerCpuArray<Budget>` with one entry: ICMP errors that may be sent.
    pub const BUDGET: &str = "BUDGET";
    /// `ProgramArray` by [`super::slow`].
    pub const SLOW: &str = "SLOW";

    /// `PerCpuArray<u64>` by interface index: frames that XDP programs have
    /// redirected to a device and that it did not take.
    pub const XMIT_LOSSES: &str = "XMIT_LOSSES";
    /// Global of type [`super::KernelLayout`].
    pub const KERNEL_LAYOUT: &str = "KERNEL_LAYOUT";

    /// Every map that is pinned.
    pub const PINNED: &[&str] = &[
        DEVICES,
        CONTROL,
        PATHS,
        LIVENESS,
        SELECTIONS,
        CURSORS,
        PREFIXES4,
        PREFIXES6,
        FLOWS4,
        FLOWS6,
        MAPPINGS,
        PORTS,
        COUNTERS,
        MAPPINGS_MADE,
        MAPPINGS_ENDED,
        CONTACTS,
        FRAGMENTS,
        HELD,
        BUDGET,
        SLOW,
        XMIT_LOSSES,
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
        /// LAN side, IPv4: what is rare and long, called by `inside_tc`.
        pub const INSIDE_SLOW4: &str = "inside_slow4";
        /// The same for IPv6.
        pub const INSIDE_SLOW6: &str = "inside_slow6";
        /// WAN side, IPv4: what is rare and long, called by `outside_tc`.
        pub const OUTSIDE_SLOW4: &str = "outside_slow4";
        /// The same for IPv6.
        pub const OUTSIDE_SLOW6: &str = "outside_slow6";
        /// Counts what a device's driver does not take from XDP.
        pub const DEVMAP_XMIT: &str = "devmap_xmit";
        /// Counts what does not get as far as the driver.
        pub const REDIRECT_ERR: &str = "redirect_err";
        /// Those that only watch, with their tracepoints: a kernel may refuse
        /// them.
        pub const WATCHING: &[(&str, &str)] =
            &[(DEVMAP_XMIT, "xdp_devmap_xmit"), (REDIRECT_ERR, "xdp_redirect_err")];
        /// All that packets go through.
        pub const ALL: &[&str] = &[
            INSIDE_XDP,
            INSIDE_TC,
            INSIDE_SLOW4,
            INSIDE_SLOW6,
            OUTSIDE_XDP,
            OUTSIDE_TC,
            OUTSIDE_SLOW4,
            OUTSIDE_SLOW6,
        ];
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

/// How a path was chosen, for explanations and for moving flows.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Pod, Zeroable)]
pub struct Choice {
    /// The slot that was looked at, if one was: below [`SLOTS`].
    pub slot: u16,
    /// One of [`how`].
    pub how: u8,
    /// [`Path::epoch`] it was made under.
    pub epoch: u8,
}

/// Values of [`Choice::how`].
pub mod how {
    /// The slot's path.
    pub const SLOT: u8 = 1;
    /// The slot's path was dead: the first living one of the ranking.
    pub const RANKING: u8 = 2;
    /// No path was alive: the slot's path as if it were.
    pub const NONE_ALIVE: u8 = 3;
    /// The destination is on that WAN's own subnet, or one of its addresses.
    pub const VIA: u8 = 4;
    /// Opened from that WAN.
    pub const INBOUND: u8 = 5;
    /// Bit: the inside endpoint had a mapping there already; the rest says how
    /// that one's path was chosen.
    pub const MAPPED: u8 = 0x80;

    /// Whether another path would do as well.
    #[inline(always)]
    #[must_use]
    pub const fn is_free(how: u8) -> bool {
        let how = how & !MAPPED;
        how >= SLOT && how <= NONE_ALIVE
    }
}

/// One direction of a flow: all that a packet of it needs. A flow has two
/// entries, keyed by what each direction looks like on arrival.
#[repr(C, align(8))]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Pod, Zeroable)]
pub struct Flow {
    /// When the last packet of this direction passed; 0 = none yet.
    pub last_seen: u64,
    /// When the flow was made.
    pub opened: u64,
    /// Packets of this direction; a segmentation skb counts as those it stands
    /// for. CPUs that carry one flow at once may lose some.
    pub packets: u64,
    /// Their bytes from the IP header on.
    pub bytes: u64,
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
    /// How the path was chosen.
    pub choice: Choice,
    /// Zero.
    pub reserved: [u8; 4],
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
    /// How the path was chosen.
    pub choice: Choice,
    /// Zero.
    pub reserved2: [u8; 4],
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

/// Whose port it is. A port forward is an owner that is there for good.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Pod, Zeroable)]
pub struct PortOwner {
    /// When it was claimed or a flow last made from it; [`FORWARD`]: a port
    /// forward, which anybody may send to and which does not expire.
    pub last_used: u64,
    /// The inside endpoint; of a port forward, with [`MappingKey::via`] = the path.
    pub inside: MappingKey,
}

/// [`PortOwner::last_used`] of a port forward.
pub const FORWARD: u64 = u64::MAX;

/// That an inside endpoint has sent to a remote address. Good as long as the
/// outside port is that endpoint's.
#[repr(C, align(8))]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Pod, Zeroable)]
pub struct Contact {
    /// The inside endpoint.
    pub inside: MappingKey,
    /// [`Path::generation`] it was made under.
    pub generation: u32,
    /// Zero.
    pub reserved: [u8; 4],
}

/// What the first fragment of a datagram has shown. Its key is a [`FlowKey6`]
/// with the addresses (IPv4 in the first four bytes), the identification in the
/// place of the ports (IPv4: in the first two bytes), the protocol of an IPv4
/// header or 44, and the scope.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Pod, Zeroable)]
pub struct Fragment {
    /// Until when it counts.
    pub until: u64,
    /// The ports, as [`crate::parse::Transport::ports`] has them.
    pub ports: [u8; 4],
    /// Protocol of the transport header.
    pub protocol: u8,
    /// 1: the datagram is left to the kernel.
    pub kernel: u8,
    /// Zero.
    pub reserved: [u8; 2],
}

/// A fragment that waits for the first of its datagram.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Pod, Zeroable)]
pub struct Held {
    /// One of [`held`].
    pub state: u64,
    /// Until when it waits.
    pub until: u64,
    /// As for [`Fragment`].
    pub key: FlowKey6,
    /// Length of the frame.
    pub length: u32,
    /// Path it came from, 0 from the LAN.
    pub path: u8,
    /// Index into `PROTOCOLS`.
    pub protocol: u8,
    /// A [`Direction`].
    pub direction: u8,
    /// Zero.
    pub reserved: u8,
    /// The frame.
    pub bytes: [u8; HELD_BYTES],
}

/// Values of [`Held::state`].
pub mod held {
    /// Nothing in it.
    pub const FREE: u64 = 0;
    /// A CPU is at it.
    pub const BUSY: u64 = 1;
    /// A fragment waits.
    pub const WAITS: u64 = 2;
}

/// ICMP errors that this CPU may send: a token bucket (RFC 1812, 4.3.2.8; RFC
/// 4443, 2.4 f).
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Pod, Zeroable)]
pub struct Budget {
    /// When tokens were last added.
    pub filled: u64,
    /// Tokens.
    pub tokens: u64,
}

/// Where the running kernel keeps what the watching programs read, in bytes from
/// the start of each struct, and the network they watch.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Pod, Zeroable)]
pub struct KernelLayout {
    /// `net_device.ifindex`.
    pub ifindex: u32,
    /// `net_device.nd_net`, a pointer to `struct net`.
    pub network: u32,
    /// `net.ns.inum`, 32 bits.
    pub inode: u32,
    /// The inode number of our network namespace.
    pub ours: u32,
}

macro_rules! sizes {
    ($($type:ty = $size:literal),+ $(,)?) => { $(const _: () = assert!(size_of::<$type>() == $size);)+ };
}

sizes!(
    Device = 32,
    Control = 16,
    Path = 128,
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
    Contact = 16,
    Fragment = 16,
    Held = 2112,
    Budget = 16,
    KernelLayout = 16,
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
        Device,
        Control,
        Path,
        Liveness,
        Selection,
        Prefix,
        FlowKey4,
        FlowKey6,
        Flow,
        MappingKey,
        Mapping,
        PortKey,
        PortOwner,
        Counter,
        Choice,
        Contact,
        Fragment,
        Held,
        Budget,
        KernelLayout
    );
}
