//! One block at the receiver, and what follows from its parity.

use super::aging::{ALLOCATION, Aging};
use super::body::{self, Body, Member};
use super::code::{self, MOST_PARITY};

/// Data packets that came, as shards without what fills them up.
pub(super) type Shards = Aging<Member, Box<[u8]>>;

/// How a block came to its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    /// All its data came by itself.
    Complete,
    /// What was missing was recovered.
    Recovered,
    /// Too much was missing, for too long.
    GivenUp,
}

/// A block that some parity came of.
#[derive(Clone, Debug)]
pub(super) struct Block {
    path: u8,
    /// Sequence of its first member.
    first: u64,
    /// How far each further member is from the one before.
    gaps: Box<[u8]>,
    parity: u8,
    length: usize,
    /// Bit *i* for member *i*: it did not come yet.
    missing: u32,
    /// Parity shards, by their index.
    shards: [Option<Box<[u8]>>; MOST_PARITY],
    outcome: Option<Outcome>,
}

impl Block {
    /// What a block of such bodies costs at most, in bytes, but for what it waits for.
    pub(super) fn cost(body: &Body<'_>) -> usize {
        size_of::<Self>() + 2 * ALLOCATION + body.gaps.len() + Self::shard_cost(body.shard)
    }

    fn shard_cost(shard: &[u8]) -> usize {
        shard.len() + ALLOCATION
    }

    /// The block of a body, before any of its data and parity came.
    pub(super) fn new(body: &Body<'_>) -> Self {
        Self {
            path: body.block.path,
            first: body.first,
            gaps: body.gaps.into(),
            parity: body.parity,
            length: body.shard.len(),
            missing: 0,
            shards: [const { None }; MOST_PARITY],
            outcome: None,
        }
    }

    /// Whether the body agrees with those that came before.
    pub(super) fn has(&self, body: &Body<'_>) -> bool {
        self.first == body.first
            && *self.gaps == *body.gaps
            && self.parity == body.parity
            && self.length == body.shard.len()
    }

    /// Bytes in use now, but for what it waits for.
    pub(super) fn memory(&self) -> usize {
        let shards = self.shards.iter().flatten().map(|shard| Self::shard_cost(shard));
        size_of::<Self>() + 2 * ALLOCATION + self.gaps.len() + shards.sum::<usize>()
    }

    pub(super) fn outcome(&self) -> Option<Outcome> {
        self.outcome
    }

    /// Ends the block: its parity is not needed any more. Returns how much it had.
    pub(super) fn end(&mut self, outcome: Outcome) -> usize {
        self.outcome = Some(outcome);
        let had = self.shards.iter().flatten().count();
        self.shards = [const { None }; MOST_PARITY];
        had
    }

    /// Members that did not come, with their places.
    pub(super) fn missing(&self) -> impl Iterator<Item = (usize, Member)> {
        self.places().filter(|(place, _)| self.missing & 1 << place != 0)
    }

    /// Whether all came.
    pub(super) fn is_complete(&self) -> bool {
        self.missing == 0
    }

    /// Whether there is as much parity as is missing.
    pub(super) fn can_recover(&self) -> bool {
        self.shards.iter().flatten().count() == self.missing.count_ones() as usize
    }

    /// Sets which members did not come.
    pub(super) fn look(&mut self, came: impl Fn(&Member) -> bool) {
        let bits = self.places().filter(|(_, member)| !came(member));
        self.missing = bits.fold(0, |bits, (place, _)| bits | 1 << place);
    }

    /// One that was missing came.
    pub(super) fn came(&mut self, member: Member) {
        let place = self.places().position(|(_, other)| other == member);
        if let Some(place) = place {
            self.missing &= !(1 << place);
        }
    }

    /// Keeps a parity shard, if it is the first of its index.
    pub(super) fn add(&mut self, body: &Body<'_>) -> bool {
        match self.shards.get_mut(usize::from(body.index)) {
            Some(place @ None) => {
                *place = Some(body.shard.into());
                true
            }
            _ => false,
        }
    }

    /// Computes the missing shards, in the order of [`missing`](Self::missing), filled up
    /// to the length of the block. It uses its parity up, of which there is just as much.
    /// None if other shards are not there, or cannot be of this block.
    pub(super) fn recover(&mut self, data: &Shards) -> Option<Vec<Vec<u8>>> {
        let lost: Vec<usize> = self.missing().map(|(place, _)| place).collect();
        let (mut used, mut left): (Vec<usize>, Vec<Box<[u8]>>) = (Vec::new(), Vec::new());
        for (index, shard) in self.shards.iter_mut().enumerate() {
            if let Some(shard) = shard.take() {
                used.push(index);
                left.push(shard);
            }
        }
        let rows = code::rows(self.gaps.len() + 1)?;
        let inverse = code::invert(rows, &used, &lost)?;
        for (place, member) in self.places().filter(|(place, _)| !lost.contains(place)) {
            let shard = data.get(&member).filter(|shard| shard.len() <= self.length)?;
            for (index, left) in used.iter().zip(&mut left) {
                code::add(rows[*index][place], shard, left);
            }
        }
        let solve = |factors: &[u8; MOST_PARITY]| {
            let mut shard = vec![0; self.length];
            for (factor, left) in factors.iter().zip(&left) {
                code::add(*factor, left, &mut shard);
            }
            shard
        };
        Some(inverse.iter().take(lost.len()).map(solve).collect())
    }

    fn places(&self) -> impl Iterator<Item = (usize, Member)> {
        body::members(self.path, self.first, &self.gaps).enumerate()
    }
}
