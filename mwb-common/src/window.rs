//! Which packets have been seen: of a path, by its sequence (replay), and of a
//! flow, by its own (copies that came by several paths). Sliding bitmaps of whole
//! words (RFC 6479): what slides out at the end is cleared a word at a time.

use bytemuck::{Pod, Zeroable};

/// Bits of a word.
const WORD: u64 = 64;
/// Words of a path's bitmap, a power of two.
const PATH_WORDS: usize = 64;
/// Words of a flow's.
const FLOW_WORDS: usize = 64;
/// Packets behind the newest of a path that are still told apart, at least.
pub const PATH_REACH: u64 = (PATH_WORDS as u64 - 1) * WORD;
/// The same of a flow.
pub const FLOW_REACH: u32 = (FLOW_WORDS as u32 - 1) * WORD as u32;

/// Why a packet is not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Seen {
    /// It was here before.
    Before,
    /// It is too old to know.
    TooOld,
}

/// Marks bit `number` of a ring of words, after those between `newest` and it
/// have been cleared.
#[inline(always)]
fn mark<const WORDS: usize>(bits: &mut [u64; WORDS], newest: u64, number: u64) -> Result<(), Seen> {
    const { assert!(WORDS.is_power_of_two()) };
    let (from, to) = (newest / WORD, number / WORD);
    if number > newest {
        let mut step = 0;
        while step < WORDS as u64 && step < to - from {
            bits[(to - step) as usize % WORDS] = 0;
            step += 1;
        }
    }
    let word = &mut bits[to as usize % WORDS];
    let bit = 1 << (number % WORD);
    if *word & bit != 0 {
        return Err(Seen::Before);
    }
    *word |= bit;
    Ok(())
}

/// What has been seen of a path under one key.
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
#[repr(C)]
pub struct PathWindow {
    newest: u64,
    bits: [u64; PATH_WORDS],
}

impl PathWindow {
    /// Nothing seen.
    pub const EMPTY: Self = Self { newest: 0, bits: [0; PATH_WORDS] };

    /// Takes the packet with this sequence, from 1 on, if it is a new one. Only
    /// what is authentic may be taken: it moves the window.
    ///
    /// # Errors
    /// When it is not new, or may not be.
    #[inline(always)]
    pub fn take(&mut self, sequence: u64) -> Result<(), Seen> {
        if sequence <= self.newest.saturating_sub(PATH_REACH) {
            return Err(Seen::TooOld);
        }
        mark(&mut self.bits, self.newest, sequence)?;
        if sequence > self.newest {
            self.newest = sequence;
        }
        Ok(())
    }

    /// Which of the sequences below the highest have been taken: bit *i* says it of the one
    /// that is *i* + 1 below.
    #[must_use]
    pub fn below<const WORDS: usize>(&self) -> [u64; WORDS] {
        const { assert!(WORDS < PATH_WORDS) };
        core::array::from_fn(|word| {
            let mut taken = 0;
            for bit in 0..WORD {
                let below = word as u64 * WORD + bit + 1;
                if let Some(sequence) = self.newest.checked_sub(below)
                    && sequence != 0
                    && self.bits[(sequence / WORD) as usize % PATH_WORDS] >> (sequence % WORD) & 1
                        != 0
                {
                    taken |= 1 << bit;
                }
            }
            taken
        })
    }

    /// The highest sequence taken; 0 while none is.
    #[inline(always)]
    #[must_use]
    pub const fn newest(&self) -> u64 {
        self.newest
    }
}

/// What has been seen of a flow. Its numbers wrap.
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
#[repr(C)]
pub struct FlowWindow {
    /// The highest number, counted on beyond 32 bits; 0 while nothing was seen.
    newest: u64,
    bits: [u64; FLOW_WORDS],
}

impl FlowWindow {
    /// Nothing seen.
    pub const EMPTY: Self = Self { newest: 0, bits: [0; FLOW_WORDS] };

    /// Takes the packet with this number if it is a new one. The first is taken
    /// whatever its number is.
    ///
    /// # Errors
    /// When it is not new, or may not be.
    #[inline(always)]
    pub fn take(&mut self, number: u32) -> Result<(), Seen> {
        let number = self.counted_on(number);
        if number + FLOW_REACH as u64 <= self.newest {
            return Err(Seen::TooOld);
        }
        mark(&mut self.bits, self.newest, number)?;
        if number > self.newest {
            self.newest = number;
        }
        Ok(())
    }

    /// The number nearest to the newest that ends in these 32 bits (RFC 1982).
    #[inline(always)]
    const fn counted_on(&self, number: u32) -> u64 {
        // Far enough from 0 that what is older than the first has a place.
        const FIRST: u64 = 1 << 32;
        if self.newest == 0 {
            return FIRST | number as u64;
        }
        let ahead = number.wrapping_sub(self.newest as u32) as i32 as i64;
        self.newest.wrapping_add_signed(ahead)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn each_is_taken_once_in_any_order() {
        let mut window = PathWindow::EMPTY;
        for sequence in [1, 3, 2, PATH_REACH, 4] {
            assert_eq!(window.take(sequence), Ok(()), "{sequence}");
            assert_eq!(window.take(sequence), Err(Seen::Before), "{sequence}");
        }
        assert_eq!(window.newest(), PATH_REACH);
    }

    #[test]
    fn what_was_taken_below_the_highest_is_known() {
        let mut window = PathWindow::EMPTY;
        assert_eq!(window.below::<2>(), [0; 2]);
        for sequence in [1, 2, 4, 100] {
            window.take(sequence).expect("new");
        }
        // 99 is bit 0, 64 below it is the next word.
        let bit = |sequence: u64| 1u128 << (99 - sequence);
        let [low, high] = window.below::<2>();
        let all = u128::from(high) << 64 | u128::from(low);
        assert_eq!(all, bit(1) | bit(2) | bit(4));
        window.take(1 << 30).expect("new");
        assert_eq!(window.below::<16>(), [0; 16]);
        for below in [1, 64, 65, 1_024, 1_025] {
            window.take((1 << 30) - below).expect("new");
        }
        let words = window.below::<16>();
        assert_eq!((words[0], words[1], words[15]), (1 | 1 << 63, 1, 1 << 63));
    }

    #[test]
    fn what_is_too_old_to_know_is_refused_and_so_is_zero() {
        let mut window = PathWindow::EMPTY;
        assert_eq!(window.take(0), Err(Seen::TooOld));
        assert_eq!(window.take(1 << 40), Ok(()));
        assert_eq!(window.take((1 << 40) - PATH_REACH), Err(Seen::TooOld));
        assert_eq!(window.take((1 << 40) - PATH_REACH + 1), Ok(()));
        assert_eq!(window.take(u64::MAX), Ok(()));
        assert_eq!(window.take(u64::MAX), Err(Seen::Before));
        assert_eq!(window.take(1 << 41), Err(Seen::TooOld));
    }

    #[test]
    fn a_flow_may_begin_anywhere_and_wrap() {
        for first in [0, 1, 63, u32::MAX, u32::MAX - 70, 1 << 31] {
            let mut window = FlowWindow::EMPTY;
            for step in 0..200 {
                assert_eq!(window.take(first.wrapping_add(step)), Ok(()), "{first} + {step}");
                assert_eq!(window.take(first.wrapping_add(step)), Err(Seen::Before));
            }
            assert_eq!(window.take(first.wrapping_sub(1)), Ok(()), "before {first}");
            assert_eq!(window.take(first.wrapping_sub(FLOW_REACH)), Err(Seen::TooOld));
        }
    }

    proptest! {
        /// Against a set of all that were ever taken.
        #[test]
        fn a_path_takes_what_is_new_and_in_reach(
            steps in prop::collection::vec((-5000i64..5000, 1usize..4), 1..300),
        ) {
            let mut window = PathWindow::EMPTY;
            let (mut taken, mut newest) = (BTreeSet::new(), 0u64);
            for (step, times) in steps {
                let sequence = newest.saturating_add_signed(step);
                for _ in 0..times {
                    let expected = if sequence == 0 || sequence + PATH_REACH <= newest {
                        Err(Seen::TooOld)
                    } else if taken.insert(sequence) {
                        Ok(())
                    } else {
                        Err(Seen::Before)
                    };
                    newest = newest.max(if expected.is_ok() { sequence } else { 0 });
                    prop_assert_eq!(window.take(sequence), expected);
                }
            }
        }

        #[test]
        fn a_flow_takes_what_is_new_and_in_reach(
            first: u32,
            steps in prop::collection::vec((-1500i64..1500, 1usize..4), 1..300),
        ) {
            let mut window = FlowWindow::EMPTY;
            let mut taken = BTreeSet::from([1u64 << 40 | u64::from(first)]);
            let mut newest = 1u64 << 40 | u64::from(first);
            prop_assert_eq!(window.take(first), Ok(()));
            for (step, times) in steps {
                let number = newest.wrapping_add_signed(step);
                for _ in 0..times {
                    let expected = if number + u64::from(FLOW_REACH) <= newest {
                        Err(Seen::TooOld)
                    } else if taken.insert(number) {
                        Ok(())
                    } else {
                        Err(Seen::Before)
                    };
                    newest = newest.max(if expected.is_ok() { number } else { 0 });
                    prop_assert_eq!(window.take(number as u32), expected);
                }
            }
        }
    }
}
