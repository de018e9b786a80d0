//! Counting: every packet once, under its direction, path, reason and protocol.

use mwb_common::{
    maps::{Direction, counter_index},
    nat::protocol,
    reason::Reason,
};

use crate::maps::COUNTERS;

/// What is known so far of the packet that is being counted.
pub(crate) struct Account {
    pub(crate) direction: Direction,
    /// The path that carries it, 0 until one is known.
    pub(crate) path: u8,
    /// Index into `maps::PROTOCOLS`.
    pub(crate) protocol: u8,
    /// Bytes from the IP header on; of other frames, behind Ethernet.
    pub(crate) bytes: u32,
}

impl Account {
    #[inline(always)]
    pub(crate) fn new(direction: Direction) -> Self {
        Self { direction, path: 0, protocol: 0, bytes: 0 }
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

    /// Counts the packet.
    #[inline(always)]
    pub(crate) fn close(&self, reason: Reason, packets: u32) {
        let slot = counter_index(self.direction, self.path, reason, self.protocol);
        if let Some(counter) = COUNTERS.get_ptr_mut(slot) {
            // SAFETY: a per-CPU value, and programs do not preempt each other.
            unsafe {
                (*counter).packets += packets as u64;
                (*counter).bytes += self.bytes as u64;
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
