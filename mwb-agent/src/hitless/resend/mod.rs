//! The sender's side of selective retransmission between the two ends of a bond: which
//! packets of a session are sent again, and when. Pure: it is shown each packet of the
//! class as it is sent and each acknowledgement as it comes, and says what is to be sent
//! again. One engine for each session.
//!
//! **Places.** A packet is known by its bucket and its number there. Where it was sent is
//! a place: a path and a sequence of the path. Each sending adds a place, and the packet
//! is acknowledged when any of them is ([`Ack`]). Then it is forgotten, and is never sent
//! again. Only the newest place can be lost.
//!
//! **Lost by gap**: so many sequences of the path were taken above the packet
//! ([`Settings::disorder`]) by the newest acknowledgement, which does not have it. One that
//! is older than the newest proves what was taken, but no loss.
//!
//! **Lost by time**: nothing was heard of the packet for the round trip of the path, four
//! times its variation, [`Settings::ack_interval`] and 10 ms; twice as long with each try.
//! That is for what gaps do not show: the last packets before a pause, the last tries, and
//! what is too far below the highest sequence for an acknowledgement to tell. The receiver
//! has to acknowledge at least each 1,024 packets of a path: of what no acknowledgement has
//! told, all is sent again that the budget allows.
//!
//! **Lost with the path**: all that was sent by it and is not acknowledged, at once, when
//! the path goes down.
//!
//! **Given up**: a packet is sent again at most [`Settings::tries`] times, and never later
//! than [`Settings::deadline`] after it was sent first. Then it is dropped.
//!
//! **Budget.** Bytes sent again are paid for, at the time that they are given out, from
//! one token bucket. It begins full with [`Settings::budget_burst`] bytes, holds no more
//! than that, and earns [`Settings::budget_percent`] of each byte sent first. Who waits for
//! it is served oldest first until its deadline, and younger losses stand behind. What is
//! lost with its path is paid from the same bucket, and does not wait for others. If the
//! bucket has too little for the packet, then the packet goes at no cost, once; from then on
//! it is as any other. Three things follow:
//!
//! - When a path dies for the first time in a packet's life, nothing of it waits, however
//!   much that is: it can be no more than what was sent in one deadline.
//! - The death of paths never makes the others carry any byte at no cost more than once,
//!   whether one path dies or all do in turn, and however often. Over any time, what is sent
//!   again is at most the burst, the percentage of what was sent first, and once what was
//!   held when its path died.
//! - It takes first what the bucket has, so that other losses wait until more is earned:
//!   the living paths, which have just got the load of the dead one, are spared more.
//!
//! **Silence.** If packets are sent and no acknowledgement of any path comes for
//! [`Settings::silence`], the agent of the far end is away, and so it is before the first
//! one. A missing acknowledgement says nothing then: nothing is sent again but what is lost
//! with its path. With the next acknowledgement it goes on, and the waits begin anew.
//!
//! **Memory** is bounded. The oldest packet is forgotten for a new one.
//!
//! Must not know: sockets, clocks, how the far end makes acknowledgements, what path is
//! taken.

mod ack;
mod budget;
mod engine;
mod store;

use std::sync::Arc;

pub use ack::{Ack, LAST_PATH, LENGTH, NoAck, REACH};
pub use engine::Resend;

/// How a session's packets are sent again. Times are in ns.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Settings {
    /// Bytes that are used at most, with all tables, as they are reckoned: 384 for each
    /// packet besides its own, and 64 for each time that it was sent again. A packet that
    /// does not fit alone is not held.
    pub memory: usize,
    /// How long after a packet was sent first it may be sent again.
    pub deadline: u64,
    /// How often a packet is sent again at most.
    pub tries: u8,
    /// How many later packets of the same path arrive before a missing one is lost. 0 is as
    /// 1: the highest always is later.
    pub disorder: u32,
    /// How long the far end waits at most with an acknowledgement.
    pub ack_interval: u64,
    /// How long without an acknowledgement the far end's agent is away.
    pub silence: u64,
    /// Bytes sent again, in percent of those sent first.
    pub budget_percent: u32,
    /// Bytes that may be sent again at once, at the start and after a time without losses.
    pub budget_burst: u64,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            memory: 8 << 20,
            deadline: 200_000_000,
            tries: 3,
            disorder: 3,
            ack_interval: 10_000_000,
            silence: 500_000_000,
            budget_percent: 25,
            budget_burst: 256 << 10,
        }
    }
}

/// A packet to be sent again. When it is, [`Resend::sent`] has to be told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Again {
    /// The bucket of its flow, as before.
    pub bucket: u16,
    /// Its number in the bucket, as before.
    pub number: u32,
    /// The inner protocol, as before.
    pub inner: u8,
    /// The path that it was lost on: any other is better.
    pub not_by: u8,
    /// How often it has been sent again, with this time.
    pub tries: u8,
    /// What was sent.
    pub bytes: Arc<[u8]>,
}

/// What has happened since the engine was made, in packets where nothing else is said.
/// Each packet sent is acknowledged, expired, forgotten or held.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Statistics {
    /// Sent for the first time.
    pub sent: u64,
    /// Bytes of those.
    pub sent_bytes: u64,
    /// Acknowledged while they were held.
    pub acknowledged: u64,
    /// Losses that later packets have shown.
    pub lost_by_gap: u64,
    /// Losses that time has shown.
    pub lost_by_time: u64,
    /// Losses with the path. One that had been found and waits for the budget is not
    /// counted again.
    pub lost_by_path_down: u64,
    /// Given out to be sent again, each time.
    pub again: u64,
    /// Bytes of those.
    pub again_bytes: u64,
    /// Bytes of those that went at no cost.
    pub free_bytes: u64,
    /// Losses that had to wait for the budget. They may have been sent later.
    pub refused: u64,
    /// Dropped at their deadline. They may have arrived.
    pub expired: u64,
    /// Dropped for want of memory. They may have arrived.
    pub forgotten: u64,
    /// Held now.
    pub held: usize,
    /// Bytes in use now, of [`Settings::memory`].
    pub held_bytes: usize,
}

#[cfg(test)]
mod tests;
