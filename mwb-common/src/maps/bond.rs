//! Maps of the bond: what the agent writes about sessions and paths, and what the
//! kernel side keeps of them. Who writes a struct is said at each: nothing is
//! written by both, so that neither undoes what the other did.
//!
//! A session has a *slot*, its index in [`Session`]s. The low bits of the id that we
//! chose for it are its slot, so that a packet finds it without a search. What a
//! session has several of lies in one array for all: paths at
//! [`path_index`], buckets at [`super::bucket_index`].

use bytemuck::{Pod, Zeroable};

use crate::{integrity::seal::Key, window::PathWindow};

/// Slots of sessions, at least, and a power of two. A gateway has one session, and
/// for a moment two, while a new one takes an old one's place.
pub const SESSION_SLOTS: usize = 4;
/// Length of a session's paths by path id; ids run from 1.
pub const BOND_PATHS: usize = 16;
/// Entries of the tables that tell a session by inner addresses.
pub const OWNER_ENTRIES: usize = 4_096;

/// Index of a path of a session.
#[must_use]
#[inline(always)]
pub const fn path_index(slot: u32, path: u8) -> u32 {
    slot * BOND_PATHS as u32 + (path as u32 & (BOND_PATHS as u32 - 1))
}

/// Values of [`Bond::role`].
pub mod bond_role {
    /// There is no bond.
    pub const NONE: u8 = 0;
    /// All that leaves the LAN goes into session [`super::Bond::slot`], and what
    /// comes out goes to the LAN.
    pub const GATEWAY: u8 = 1;
    /// The destination tells the session ([`super::Owner`]), and what comes out of one
    /// goes to the device, where it enters the inside of a steering gateway.
    pub const SERVER: u8 = 2;
}

/// Settings of the bond. The agent writes them.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Pod, Zeroable)]
pub struct Bond {
    /// Between two probes of a path, in ns.
    pub probe_interval: u64,
    /// A path counts as alive for so long after an answered probe, in ns.
    pub dead_after: u64,
    /// The first of the two for a path that is idle ([`crate::select::pace`]).
    pub idle_interval: u64,
    /// The second.
    pub idle_dead_after: u64,
    /// Interface index of the data plane's end of the device: what is sent by it comes
    /// in through the kernel's end.
    pub inner_device: u32,
    /// Interface index of the kernel's end: what is sent by it comes in through the
    /// data plane's.
    pub outer_device: u32,
    /// Seed of the bucket hash.
    pub seed: u32,
    /// How many session slots there are, less one.
    pub slot_mask: u32,
    /// Of a gateway: the slot of the session in use.
    pub slot: u32,
    /// Bytes in 100 ms from where on a flow is an elephant.
    pub elephant_bytes: u32,
    /// UDP port of the bond at this end.
    pub port: [u8; 2],
    /// One of [`bond_role`].
    pub role: u8,
    /// The [`crate::classes::ClassRule`]s in use, see [`crate::classes::InUse`].
    pub rules: u8,
    /// Bytes a second of copies that a metered path carries.
    pub copy_budget: u32,
}

/// Bits of [`Session::flags`].
pub mod session_flag {
    /// The slot is in use.
    pub const PRESENT: u8 = 1;
    /// The far end may come from another address (it is a client).
    pub const ROAMS: u8 = 2;
}

/// Values of [`Session::choice`]: how a packet gets its path.
pub mod bond_choice {
    /// By the slot table, with a running number for each packet.
    pub const COUNTER: u8 = 0;
    /// By the slot table, with the bucket.
    pub const BUCKET: u8 = 1;
    /// Where it arrives first; small flows stay where they are.
    pub const ARRIVAL: u8 = 2;
}

/// The bit of path 0 in the upper half of [`Session::stripe`].
pub const ANNOUNCED: u32 = 16;

/// A session. The agent writes it.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, Pod, Zeroable)]
pub struct Session {
    /// Its id in packets to us; 0 = the slot is free.
    pub ours: u32,
    /// Its id in packets to the far end.
    pub theirs: u32,
    /// Largest inner packet that each path takes, in bytes.
    pub mtu: u32,
    /// Number of the newest keys.
    pub epoch: u32,
    /// Paths among which elephants are striped, by bit; of one, they take that one. Bit 0:
    /// their packets have turns even so. From bit [`ANNOUNCED`] on, in the same way, those
    /// whose probes say that they bring packets with turns, or will.
    pub stripe: u32,
    /// Number of a [`crate::integrity::Suite`].
    pub suite: u8,
    /// Number of the [`crate::integrity::seal::Sender`] that we are.
    pub sender: u8,
    /// Bits of [`session_flag`].
    pub flags: u8,
    /// One of [`bond_choice`].
    pub choice: u8,
    /// Parities of the epochs whose packets are opened: bit 0 and bit 1.
    pub opens: u8,
    /// Parity of the epoch that seals, unless [`SessionState::heard`] says that a packet
    /// of the newest was opened: then that one seals. A responder's new keys seal nothing
    /// before.
    pub seals: u8,
    /// The low half of `stripe` for elephants whose losses are repaired.
    pub repaired: u16,
    /// Zero.
    pub reserved: [u8; 4],
    /// Keys that seal, by parity.
    pub seal: [Key; 2],
    /// Keys that open, by parity.
    pub open: [Key; 2],
    /// Static public key of the far end. For the agent.
    pub peer: [u8; 32],
    /// When the newest keys were made. For the agent.
    pub established: u64,
}

/// What the kernel side keeps of a session. Zeroed by the agent when the slot gets a
/// new one.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Pod, Zeroable)]
pub struct SessionState {
    /// Newest epoch of which a packet was opened, plus one; 0 = none was.
    pub heard: u32,
    /// Running number of packets, for slot tables.
    pub cursor: u32,
}

/// Bits of [`BondPath::flags`].
pub mod bond_path_flag {
    /// The path has joined the session.
    pub const PRESENT: u32 = 1;
    /// It is not to be used while another can be: the agent has seen its carrier go, or
    /// the far end said so.
    pub const DOWN: u32 = 1 << 1;
    /// It is worse than nothing: it is probed, and carries data only if no other can.
    pub const PARKED: u32 = 1 << 2;
    /// Each byte costs: while it carries nothing it is probed seldom
    /// ([`crate::select::pace`]).
    pub const METERED: u32 = 1 << 3;
    /// Packets of a class with parity that go by it are put in blocks that get some.
    pub const PROTECTED: u32 = 1 << 4;
}

/// A path of a session. The agent writes it.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Pod, Zeroable)]
pub struct BondPath {
    /// Bits of [`bond_path_flag`].
    pub flags: u32,
    /// Largest packet that passes, in bytes from the outer IP header on.
    pub mtu: u32,
    /// What it takes to send a byte, in units of 2^-10 ns; 0 = not known, and taken as
    /// nothing.
    pub byte_time: u32,
    /// How much longer a packet is on its way than on the quickest path, when nothing
    /// waits before it, in ns.
    pub delay: u32,
    /// The same for elephants: less, as their packets wait at the far end for what comes
    /// by the longer path.
    pub striped_delay: u32,
    /// The far end, as long as it has not moved; IPv4 in the first four bytes.
    pub remote: [u8; 16],
    /// Its UDP port.
    pub remote_port: [u8; 2],
    /// Outer packets are IPv6.
    pub is_v6: u8,
    /// Id of the WAN it leaves by: an index of `PATHS`.
    pub via: u8,
    /// Incremented when `remote` is a new one, for [`PathState::moved`].
    pub generation: u32,
    /// The part of its packets that it loses, in 2^-16. For the agent.
    pub loss: u32,
}

/// What the kernel side keeps of a path, of both directions. Zeroed by the agent when
/// the session is a new one.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Pod, Zeroable)]
pub struct PathState {
    /// Sequence of the last packet sent: how many there were.
    pub sent: u64,
    /// Bytes of them from the outer IP header on.
    pub sent_bytes: u64,
    /// When the next probe is due. Odd: a packet is on its way round that makes one.
    pub probe_due: u64,
    /// Until when the path counts as alive: some time after it was last known that
    /// something of ours has arrived.
    pub alive_until: u64,
    /// When the last packet that was sent will have left, as far as is known.
    pub busy_until: u64,
    /// When an authentic packet last came.
    pub heard: u64,
    /// When data last went by the path, either way.
    pub used_at: u64,
    /// Packets taken.
    pub received: u64,
    /// Bytes of them from the outer IP header on.
    pub received_bytes: u64,
    /// Packets that were ours to send by this path when it was not alive, nor any
    /// other.
    pub forced: u64,
    /// The newest reply: when its probe left.
    pub reply_sent_at: u64,
    /// When it came.
    pub reply_at: u64,
    /// When its probe came to the far end, of the far end's clock.
    pub reply_received_at: u64,
    /// Sequence of its probe.
    pub reply_sequence: u64,
    /// Packets that the far end had taken.
    pub reply_packets: u64,
    /// Bytes of them.
    pub reply_bytes: u64,
    /// Smoothed round-trip time in ns (RFC 6298); 0 = none yet.
    pub rtt: u64,
    /// Its variation in ns.
    pub rtt_variation: u64,
    /// When the newest reply came to a probe of [`super::tick::EXACT`] length.
    pub sized_at: u64,
    /// Length of that probe in bytes from the outer IP header on.
    pub sized: u32,
    /// Where the far end has moved to counts if this is [`BondPath::generation`]
    /// plus one; 0 = it has not.
    pub moved: u32,
    /// Where it is.
    pub remote: [u8; 16],
    /// Its UDP port.
    pub remote_port: [u8; 2],
    /// Outer packets are IPv6.
    pub is_v6: u8,
    /// Id of the WAN its packets come by.
    pub via: u8,
    /// Times it has moved.
    pub moves: u32,
    /// What the newest packet says of how many of ours were taken
    /// ([`crate::wire::Header::taken`]).
    pub taken: u32,
    /// The far end's elephants go by it, or may soon, said its last probe: 1.
    pub announced: u32,
    /// How long the last probe of the far end was on its way, in ns of two clocks: only what
    /// is more than on another path means anything.
    pub lag: u64,
    /// When it came.
    pub lag_at: u64,
    /// Packets sent of which another path had the first copy.
    pub copies: u64,
    /// Bytes of them from the outer IP header on.
    pub copied_bytes: u64,
    /// When the far end last wanted to know what came.
    pub asked: u64,
    /// Packets sent again by it.
    pub again: u64,
    /// Bytes of them from the outer IP header on.
    pub again_bytes: u64,
    /// Parity sent by it.
    pub parity: u64,
    /// Bytes of it from the outer IP header on.
    pub parity_bytes: u64,
    /// Packets that the agent was to have a copy of, to repair what gets lost, and was not
    /// given one.
    pub untold: u64,
    /// Until when the budget for copies is spent ([`crate::classes::spend`]).
    pub budget_spent: u64,
}

/// The replay window of a path. The kernel side writes it, holding the lock; the agent
/// zeroes it when the session is a new one.
#[repr(C)]
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
pub struct GuardedPathWindow {
    /// The kernel's `bpf_spin_lock`.
    pub lock: u32,
    /// Zero.
    pub reserved: u32,
    /// What has been seen.
    pub window: PathWindow,
}

/// Whose inner addresses a prefix has. The agent writes it.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Pod, Zeroable)]
pub struct Owner {
    /// Slot of the session.
    pub slot: u32,
}

layouts!(
    Bond = 64,
    Session = 200,
    SessionState = 8,
    BondPath = 48,
    PathState = 280,
    GuardedPathWindow = 528,
    Owner = 4,
);
