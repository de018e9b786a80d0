//! What is known of the packet that is being worked on. It lies in a map: what a program
//! calls shares 512 bytes of stack with it, and of what lies in a map the verifier keeps
//! no account, so that it walks each step once.

use mwb_common::{
    integrity::aead::Aead,
    maps::{Budget, Direction, FlowKey6},
    reason::Reason,
    select::arrival::Choice,
    wire::Kind,
};

use crate::{account::Account, maps::WORK};

/// One for each CPU; but for the budgets nobody keeps it beyond a packet.
#[repr(C, align(8))]
pub(crate) struct Work {
    /// The cipher's.
    pub(super) aead: Aead,
    /// The flow of a packet that goes into the bond.
    pub(super) key: FlowKey6,
    /// The choice of its path.
    pub(super) choice: Choice,
    /// Messages that the agent may be given: handshakes of other versions, messages of
    /// sessions, and acknowledgements.
    pub(super) messages: [Budget; 3],
    /// How it is counted.
    pub(super) account: Account,
    /// When it came, in ns.
    pub(super) now: u64,
    /// Paths that it can take, by bit: those that live, those that are parked as well,
    /// all.
    pub(super) living: u32,
    pub(super) parked: u32,
    pub(super) usable: u32,
    /// A path whose probe the agent has let pass; 0 = none. One that was due before `late`
    /// is such, or, if it is idle, before `late_idle`.
    pub(super) due: u32,
    /// What sealing adds to it, with an outer IPv4 header.
    pub(super) head: u32,
    pub(super) late: u64,
    pub(super) late_idle: u64,
    /// Paths of session `present_of` that were there at `present_at`, by bit.
    pub(super) present: u32,
    pub(super) present_of: u32,
    pub(super) present_at: u64,
    /// The check, as little-endian words.
    pub(super) check: [u32; 4],
    /// A turn of the cipher has failed.
    pub(super) failed: u32,
    /// The session, and the path by its index.
    pub(super) slot: u32,
    pub(super) index: u32,
    /// Where the protocol's header begins in the frame, what is behind it, and where the
    /// packet ends.
    pub(super) at: u32,
    pub(super) text: u32,
    pub(super) end: u32,
    /// Where the transport header of an inner packet begins.
    pub(super) transport: u32,
    /// The device that a packet for the bond came by.
    pub(super) came_by: u32,
    /// The device it leaves by; 0 = round through the bond's.
    pub(super) device: u32,
    /// What it is counted as then: number of a [`Reason`].
    pub(super) reason: u32,
    /// Of the header.
    pub(super) heading: Heading,
    pub(super) session: u32,
    pub(super) flow_sequence: u32,
    pub(super) sequence: u64,
    /// The number whose turn it is in the bucket, how many packets of it the agent was
    /// handed, and by which paths they come.
    pub(super) turn: u32,
    pub(super) handed: u32,
    pub(super) ways: u32,
    /// What the packet says of how many of ours were taken.
    pub(super) taken: u32,
    /// One of [`step`].
    pub(super) next: u32,
    /// Protocol of an inner packet.
    pub(super) protocol: u8,
    /// Its differentiated services code point.
    pub(super) dscp: u8,
    /// The second path of a packet that is sent twice.
    pub(super) other: u8,
    /// Its ports are there.
    pub(super) whole: bool,
    /// It came in through the bond's device.
    pub(super) from_device: bool,
    /// The outer packet is IPv6.
    pub(super) is_v6: bool,
}

/// What a header says besides numbers.
#[derive(Clone, Copy)]
#[repr(C)]
pub(super) struct Heading {
    /// Number of a [`Kind`].
    pub(super) kind: u8,
    pub(super) flags: u8,
    pub(super) path: u8,
    pub(super) inner: u8,
    pub(super) bucket: u16,
    pub(super) reserved: u16,
}

impl Heading {
    #[inline(always)]
    pub(super) const fn new(kind: Kind, flags: u8, path: u8, inner: u8, bucket: u16) -> Self {
        Self { kind: kind as u8, flags, path, inner, bucket, reserved: 0 }
    }
}

/// Values of [`Work::next`].
pub(super) mod step {
    /// It goes on as an inner packet.
    pub(in super::super) const PACKET: u32 = 0;
    /// It makes a probe.
    pub(in super::super) const TICK: u32 = 1;
    /// It is ready to be sealed.
    pub(in super::super) const SEAL: u32 = 2;
    /// It is ready to be sent.
    pub(in super::super) const SEND: u32 = 3;
    /// It is not for the bond.
    pub(in super::super) const OTHER: u32 = 4;
    /// It is one of two copies.
    pub(in super::super) const COPY: u32 = 5;
    /// The agent has it sent.
    pub(in super::super) const GIVEN: u32 = 6;
}

impl Work {
    #[inline(always)]
    pub(super) fn room() -> Result<&'static mut Self, Reason> {
        let work = WORK.get_ptr_mut(0).ok_or(Reason::NoSession)?;
        // SAFETY: a per-CPU value, and programs do not preempt each other.
        Ok(unsafe { &mut *work })
    }

    /// Begins with a packet.
    #[inline(always)]
    pub(super) fn begin(direction: Direction) -> Result<&'static mut Self, Reason> {
        let work = Self::room()?;
        work.account = Account::new(direction);
        work.next = step::PACKET;
        Ok(work)
    }

    /// What becomes of it when all is done.
    #[inline(always)]
    pub(super) fn leaves(&mut self, device: u32, reason: Reason, next: u32) {
        (self.device, self.reason, self.next) = (device, reason as u32, next);
    }
}
