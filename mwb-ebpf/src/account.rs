//! Counting: every packet once, under its direction, path, reason and protocol.

use mwb_common::{
    maps::{COUNTERS as PLACES, Counter, Direction, counter_entry, counter_place},
    nat::protocol,
    parse::tcp_flag,
    reason::Reason,
};

use crate::{
    frame::{Frame, opaque},
    maps::COUNTERS,
};

/// What is known so far of the packet that is being counted.
pub(crate) struct Account {
    pub(crate) direction: Direction,
    /// The path that carries it, 0 until one is known.
    pub(crate) path: u8,
    /// Index into `maps::PROTOCOLS`.
    pub(crate) protocol: u8,
    /// Bytes from the IP header on; of other frames, behind Ethernet.
    pub(crate) bytes: u32,
    /// A SYN that goes out, or the answer to one that comes in: see `Counters::syns`.
    pub(crate) is_syn: bool,
}

impl Account {
    #[inline(always)]
    pub(crate) fn new(direction: Direction) -> Self {
        Self { direction, path: 0, protocol: 0, bytes: 0, is_syn: false }
    }

    /// Notes an IPv4 protocol.
    #[inline(always)]
    pub(crate) fn ipv4(&mut self, number: u8) {
        self.protocol = class(number);
    }

    /// Notes an IPv6 upper-layer protocol.
    #[inline(always)]
    pub(crate) fn ipv6(&mut self, number: u8) {
        self.protocol = 4 + class(number);
    }

    /// Notes the TCP flags of a packet that is forwarded.
    #[inline(always)]
    pub(crate) fn tcp(&mut self, flags: u8) {
        let answer = if matches!(self.direction, Direction::In) { tcp_flag::ACK } else { 0 };
        self.is_syn = flags & (tcp_flag::SYN | tcp_flag::ACK) == tcp_flag::SYN | answer;
    }

    /// Whether an IPv6 protocol is noted.
    #[inline(always)]
    pub(crate) fn is_ipv6(&self) -> bool {
        self.protocol >= 4
    }

    /// Counts the packet.
    #[inline(always)]
    pub(crate) fn close<F: Frame>(&self, frame: &F, reason: Reason, packets: u32) {
        #[cfg(feature = "trace")]
        trace::packet(frame, self, reason);
        #[cfg(not(feature = "trace"))]
        let _ = frame;
        self.add(reason, packets);
    }

    /// Counts packets that are not at hand any more.
    #[inline(always)]
    pub(crate) fn add(&self, reason: Reason, packets: u32) {
        let place = counter_place(reason, self.protocol) as u64;
        if let Some(counters) = COUNTERS.get_ptr_mut(counter_entry(self.direction, self.path)) {
            // Read back from the map, the place is no number that the verifier knows: it
            // need not walk what follows once for each. The mask changes nothing.
            // SAFETY: a per-CPU value, programs do not preempt each other, and the
            // place is inside.
            unsafe {
                (&raw mut (*counters).place).write_volatile(place);
                let place = (&raw const (*counters).place).read_volatile();
                let place = opaque(place) as usize & (PLACES - 1);
                let counter = (&raw mut (*counters).of).cast::<Counter>().add(place);
                (*counter).packets += packets as u64;
                (*counter).bytes += self.bytes as u64;
                (*counters).syns += self.is_syn as u64;
            }
        }
    }
}

#[inline(always)]
fn class(number: u8) -> u8 {
    match number {
        protocol::TCP => 1,
        protocol::UDP => 2,
        protocol::ICMP | protocol::ICMPV6 => 3,
        _ => 0,
    }
}

/// One log line a packet, for debugging one packet at a time; not in a release
/// object.
#[cfg(feature = "trace")]
mod trace {
    use core::ffi::c_void;

    use aya_ebpf::EbpfContext;
    use mwb_common::reason::Reason;

    use super::Account;
    use crate::frame::Frame;

    struct Context(*mut c_void);

    impl EbpfContext for Context {
        fn as_ptr(&self) -> *mut c_void {
            self.0
        }
    }

    #[inline(always)]
    pub(super) fn packet<F: Frame>(frame: &F, account: &Account, reason: Reason) {
        aya_log_ebpf::info!(
            &Context(frame.context()),
            "device {} direction {} path {} protocol {} bytes {} reason {}",
            frame.ingress(),
            account.direction as u8,
            account.path,
            account.protocol,
            account.bytes,
            reason as u8
        );
    }
}
