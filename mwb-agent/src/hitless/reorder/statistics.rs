//! What is counted of a session.

use super::Why;

/// Upper bounds of [`Statistics::delays`], in ns, inclusive.
pub const DELAY_BOUNDS: [u64; 10] = [
    100_000,
    500_000,
    1_000_000,
    2_000_000,
    5_000_000,
    10_000_000,
    20_000_000,
    50_000_000,
    100_000_000,
    200_000_000,
];

/// Counts of one session since its first packet.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Statistics {
    /// Packets taken.
    pub taken: u64,
    /// Of them, those dropped because one with their number was held.
    pub repeated: u64,
    /// Of them, those released, by why in the order of [`Why::ALL`].
    pub released: [u64; Why::ALL.len()],
    /// Of them, those held now.
    pub held: u64,
    /// What the held ones take, in bytes, as [`super::Limits`] counts.
    pub bytes: usize,
    /// The most that they ever took when a packet had been taken.
    pub most_bytes: usize,
    /// Numbers that were given up. Those that came after all are among the late ones.
    pub skipped: u64,
    /// How often a sender counted anew.
    pub restarts: u64,
    /// Packets released, by how long they were held: up to each of [`DELAY_BOUNDS`] but more
    /// than the one before, and more than the last.
    pub delays: [u64; DELAY_BOUNDS.len() + 1],
    /// How long all of them were held together, in ns.
    pub delay_sum: u64,
}

impl Statistics {
    /// Packets released for this reason.
    #[must_use]
    pub fn released(&self, why: Why) -> u64 {
        self.released[why as usize]
    }

    pub(super) fn note_released(&mut self, why: Why, waited: u64) {
        self.released[why as usize] += 1;
        self.delays[DELAY_BOUNDS.partition_point(|bound| *bound < waited)] += 1;
        self.delay_sum = self.delay_sum.saturating_add(waited);
    }

    pub(super) fn note_most(&mut self) {
        self.most_bytes = self.most_bytes.max(self.bytes);
    }
}
