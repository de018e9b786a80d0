//! What is noted of the arrivals of one stream of numbered datagrams. Knows
//! nothing of sockets.

use std::{
    collections::BTreeSet,
    net::SocketAddr,
    time::{Duration, Instant},
};

/// What arrived of one direction of a stream.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct UdpDirection {
    /// Different datagrams that arrived.
    pub received: u64,
    /// Datagrams that never did.
    pub lost: u64,
    /// Runs of one or more of them that follow each other.
    pub lost_runs: u64,
    /// Arrivals of a datagram that had arrived already.
    pub duplicated: u64,
    /// Arrivals behind one with a higher number.
    pub reordered: u64,
    /// Longest time between two arrivals.
    pub longest_gap: Duration,
    /// From the first arrival to the last.
    pub span: Duration,
}

impl UdpDirection {
    /// Nothing of `sent` arrived.
    pub(super) fn all_lost(sent: u64) -> Self {
        Self { lost: sent, lost_runs: u64::from(sent > 0), ..Self::default() }
    }
}

#[derive(Debug, Default)]
pub(super) struct Record {
    /// A bit for every datagram.
    seen: Vec<u64>,
    received: u64,
    highest: Option<u64>,
    duplicated: u64,
    reordered: u64,
    first: Option<Instant>,
    last: Option<Instant>,
    longest_gap: Duration,
    pub(super) sources: BTreeSet<SocketAddr>,
}

impl Record {
    /// Takes in the arrival of a datagram.
    pub(super) fn arrives(&mut self, sequence: u64, source: SocketAddr) {
        let now = Instant::now();
        if let Some(last) = self.last.replace(now) {
            self.longest_gap = self.longest_gap.max(now - last);
        }
        self.first.get_or_insert(now);
        self.sources.insert(source);
        if !self.is_new(sequence) {
            self.duplicated += 1;
        } else if self.highest.is_some_and(|highest| sequence < highest) {
            self.reordered += 1;
        }
        self.highest = self.highest.max(Some(sequence));
    }

    fn is_new(&mut self, sequence: u64) -> bool {
        let Ok(word) = usize::try_from(sequence / 64) else { return false };
        if self.seen.len() <= word {
            self.seen.resize(word + 1, 0);
        }
        let bit = 1 << (sequence % 64);
        let new = self.seen[word] & bit == 0;
        self.seen[word] |= bit;
        self.received += u64::from(new);
        new
    }

    fn has(&self, sequence: u64) -> bool {
        let word = usize::try_from(sequence / 64).ok().and_then(|word| self.seen.get(word));
        word.is_some_and(|word| word >> (sequence % 64) & 1 == 1)
    }

    fn lost_runs(&self, sent: u64) -> u64 {
        let begins =
            |&sequence: &u64| !self.has(sequence) && (sequence == 0 || self.has(sequence - 1));
        (0..sent).filter(begins).count() as u64
    }

    /// What arrived of `sent`.
    pub(super) fn report(&self, sent: u64) -> UdpDirection {
        UdpDirection {
            received: self.received,
            lost: sent.saturating_sub(self.received),
            lost_runs: self.lost_runs(sent),
            duplicated: self.duplicated,
            reordered: self.reordered,
            longest_gap: self.longest_gap,
            span: self.first.zip(self.last).map_or(Duration::ZERO, |(first, last)| last - first),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;

    #[test]
    fn a_record_tells_loss_duplicates_and_disorder_apart() {
        let source = SocketAddr::from((Ipv4Addr::LOCALHOST, 1));
        let mut record = Record::default();
        for sequence in [0, 1, 3, 2, 3, 6] {
            record.arrives(sequence, source);
        }
        let report = record.report(9);
        assert_eq!((report.received, report.lost, report.lost_runs), (5, 4, 2));
        assert_eq!((report.duplicated, report.reordered), (1, 1));
    }
}
