//! Flows, mappings, ports and fragments: what packets leave behind in the tables.

use bytemuck::{Pod, Zeroable};

use super::{HELD_BYTES, SLOTS};
use crate::policy::OUTLETS;

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
    /// The slot that was looked at, if one was, and the outlet whose slots these were:
    /// see [`Choice::slot`] and [`Choice::outlet`].
    pub place: u16,
    /// One of [`how`].
    pub how: u8,
    /// [`Path::epoch`] it was made under.
    pub epoch: u8,
}

/// Bits of [`Choice::place`] for the slot.
const SLOT_BITS: u32 = SLOTS.trailing_zeros();
const _: () = assert!(OUTLETS << SLOT_BITS == 1 << 16);

impl Choice {
    /// A [`Choice::place`]; of `slot` the bits that count.
    #[inline(always)]
    #[must_use]
    pub const fn place_of(outlet: u8, slot: u32) -> u16 {
        (outlet as u16) << SLOT_BITS | slot as u16 & (SLOTS as u16 - 1)
    }

    /// The slot that was looked at, if one was: below [`SLOTS`].
    #[inline(always)]
    #[must_use]
    pub const fn slot(self) -> u16 {
        self.place & (SLOTS as u16 - 1)
    }

    /// The outlet whose selection counts for it; 0 = no rule of policy says another.
    #[inline(always)]
    #[must_use]
    pub const fn outlet(self) -> u8 {
        (self.place >> SLOT_BITS) as u8
    }
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
    /// Path id if the destination is on that WAN's own subnet; [`OUTLET_VIA`] and the
    /// outlet, if a rule of policy says one that the mapping of other destinations is not
    /// good for; else 0.
    pub via: u8,
}

/// [`MappingKey::via`] is an outlet from here on.
pub const OUTLET_VIA: u8 = 128;

impl MappingKey {
    /// The path that its destinations leave no choice about; 0 = none.
    #[inline(always)]
    #[must_use]
    pub const fn path(&self) -> u8 {
        if self.via < OUTLET_VIA { self.via } else { 0 }
    }

    /// The outlet that chooses its path.
    #[inline(always)]
    #[must_use]
    pub const fn outlet(&self) -> u8 {
        if self.via < OUTLET_VIA { 0 } else { (self.via - OUTLET_VIA) & (OUTLETS as u8 - 1) }
    }
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
