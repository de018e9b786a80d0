//! From packets to what they say of names' addresses, and counts of what came of them.
//! Pure. Must not know: which names anybody wants.

use super::answer::{Answer, learn};
use super::packet::{self, Carried};
use super::streams::Streams;

/// What has come of packets.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Messages that say addresses of a name.
    pub answers: u64,
    /// Messages that say none: errors, other types of record, empty and cut ones.
    pub without_address: u64,
    /// Packets and messages that could not be read: fragments, and what is not DNS.
    pub unreadable: u64,
    /// TCP connections of which a part was missed, or that were too many.
    pub given_up: u64,
}

/// Reads packets.
#[derive(Debug, Default)]
pub struct Reader {
    streams: Streams,
    counts: Counts,
}

impl Reader {
    /// Takes a packet from its IP header on, and gives what it says. `now` in ns.
    pub fn take(&mut self, packet: &[u8], now: u64) -> Vec<Answer> {
        let mut found = Vec::new();
        let Self { streams, counts } = self;
        let mut read = |message: &[u8]| match learn(message) {
            Ok(Some(answer)) => {
                counts.answers += 1;
                found.push(answer);
            }
            Ok(None) => counts.without_address += 1,
            Err(_) => counts.unreadable += 1,
        };
        match packet::read(packet) {
            Some((_, Carried::Datagram(message))) => read(message),
            Some((pair, Carried::Segment(segment))) => streams.take(pair, segment, now, read),
            None => counts.unreadable += 1,
        }
        found
    }

    /// Forgets connections that have been silent for long.
    pub fn expire(&mut self, now: u64) {
        self.streams.expire(now);
    }

    /// What has come of all packets so far.
    #[must_use]
    pub fn counts(&self) -> Counts {
        Counts { given_up: self.streams.given_up, ..self.counts }
    }
}

#[cfg(test)]
#[path = "reader_tests.rs"]
mod tests;
