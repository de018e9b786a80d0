//! Messages in TCP connections, of the resolver's direction: each behind its length (RFC
//! 1035, 4.2.2). The packets are seen in the order in which they were sent, so what does
//! not follow is either known already or has been missed. Pure. Must not know: what a
//! message says.

use std::collections::BTreeMap;

use super::packet::{Pair, Segment};

/// Connections that are followed at a time; beyond that the one longest silent goes.
const MOST: usize = 256;
/// Bytes of parts of messages that are kept for all of them together.
const MOST_BYTES: usize = 4 << 20;
/// A connection that is silent for so long is forgotten, in ns.
const SILENT: u64 = 120_000_000_000;

/// Connections, and the parts of messages that have come by them.
#[derive(Debug, Default)]
pub(super) struct Streams {
    open: BTreeMap<Pair, Stream>,
    bytes: usize,
    /// How often one was given up before its end, with what it still had to say.
    pub(super) given_up: u64,
}

#[derive(Debug)]
struct Stream {
    /// Sequence number of the byte that comes next.
    next: u32,
    /// What is not a whole message yet.
    part: Vec<u8>,
    /// When it last said something.
    last: u64,
}

impl Streams {
    /// Takes a segment, and gives each message that it completes. `now` in ns.
    pub(super) fn take(
        &mut self,
        pair: Pair,
        segment: Segment<'_>,
        now: u64,
        mut each: impl FnMut(&[u8]),
    ) {
        let Segment { sequence, begins, ends, bytes } = segment;
        let first = if begins { sequence.wrapping_add(1) } else { sequence };
        if begins && self.open.get(&pair).is_none_or(|stream| stream.next != first) {
            self.remove(&pair);
            self.make_room();
            self.open.insert(pair, Stream { next: first, part: Vec::new(), last: now });
        }
        // One whose beginning was not seen: where messages begin is not known.
        let Some(stream) = self.open.get_mut(&pair) else { return };
        // How much of it is known already.
        let known = stream.next.wrapping_sub(first);
        if known > u32::MAX / 2 {
            self.give_up(&pair);
            return;
        }
        if let Some(new @ [_, ..]) = bytes.get(known as usize..) {
            stream.last = now;
            stream.next = first.wrapping_add(u32::try_from(bytes.len()).unwrap_or(u32::MAX));
            self.bytes -= stream.part.len();
            stream.part.extend_from_slice(new);
            let mut rest = &stream.part[..];
            while let [high, low, behind @ ..] = rest
                && let length = usize::from(u16::from_be_bytes([*high, *low]))
                && let Some(message) = behind.get(..length)
            {
                each(message);
                rest = &behind[length..];
            }
            stream.part = rest.to_vec();
            self.bytes += stream.part.len();
        }
        if ends {
            self.remove(&pair);
        }
        while self.bytes > MOST_BYTES {
            self.give_up_oldest(|stream| !stream.part.is_empty());
        }
    }

    /// Forgets those that have been silent for long.
    pub(super) fn expire(&mut self, now: u64) {
        let silent = |stream: &Stream| now.saturating_sub(stream.last) > SILENT;
        let gone: Vec<Pair> =
            self.open.iter().filter(|(_, stream)| silent(stream)).map(|(pair, _)| *pair).collect();
        gone.iter().for_each(|pair| self.remove(pair));
    }

    fn make_room(&mut self) {
        while self.open.len() >= MOST {
            self.give_up_oldest(|_| true);
        }
    }

    fn give_up_oldest(&mut self, of: impl Fn(&Stream) -> bool) {
        let all = self.open.iter().filter(|(_, stream)| of(stream));
        let oldest = all.min_by_key(|(_, stream)| stream.last);
        let Some(pair) = oldest.map(|(pair, _)| *pair) else { return };
        self.give_up(&pair);
    }

    fn give_up(&mut self, pair: &Pair) {
        self.remove(pair);
        self.given_up += 1;
    }

    fn remove(&mut self, pair: &Pair) {
        if let Some(stream) = self.open.remove(pair) {
            self.bytes -= stream.part.len();
        }
    }
}

#[cfg(test)]
#[path = "streams_tests.rs"]
mod tests;
