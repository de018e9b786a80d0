//! What of handshakes the kernel side gives the agent: which lengths they have, and how many
//! at most. Nothing of one is known before the agent looks: where many come from one
//! address, others must still get through. Must not know: keys, what is in a message.

use crate::maps::Budget;

/// Bytes behind UDP of an initiation, a response and a cookie message (docs/protocol.md).
pub const LENGTHS: [u32; 3] = [188, 124, 88];

/// Whether there is a message with this number, of this length.
#[must_use]
#[inline(always)]
pub const fn is_message(number: u8, length: u32) -> bool {
    match number {
        1 => length == LENGTHS[0],
        2 => length == LENGTHS[1],
        3 => length == LENGTHS[2],
        _ => false,
    }
}

/// Shares of a CPU's budget, by source; a power of two.
pub const SHARES: usize = 64;

/// The share of a source: an IPv4 address, or the first half of one of IPv6, of which anybody
/// has the second half. `seed` is nobody's to know, or somebody could choose whom to keep out.
#[must_use]
#[inline(always)]
pub const fn share_of(source: [u32; 2], seed: u32) -> u32 {
    // 2^64 less the golden ratio's part of it.
    const FACTOR: u64 = 0x9e37_79b9_7f4a_7c15;
    let [high, low] = source;
    let mut hash = (high as u64) << 32 | low as u64;
    hash = (hash ^ (seed as u64) << 16).wrapping_mul(FACTOR);
    hash ^= hash >> 32;
    hash = (hash ^ seed as u64).wrapping_mul(FACTOR);
    (hash >> 58) as u32
}

/// How much of something there may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limit {
    /// In a second.
    pub per_second: u64,
    /// At once.
    pub at_once: u64,
}

/// Handshakes of a share, on a CPU. There is no other bound: 768 of all shares are less than
/// the agent can look at, and one of all would be what floods from everywhere take from those
/// who only ask.
pub const SHARE: Limit = Limit { per_second: 12, at_once: 16 };

/// What has not been used for so long, in ns, fills every budget.
const LONG: u64 = 4_000_000_000;

impl Limit {
    /// Fills a budget up to now, a time in ns, and takes one out, if there is one.
    #[inline(always)]
    pub fn take(&self, budget: &mut Budget, now: u64) -> bool {
        let since = now.wrapping_sub(budget.filled);
        let since = if since > LONG { LONG } else { since };
        let new = since * self.per_second / 1_000_000_000;
        if new > 0 {
            budget.filled = now;
            let all = budget.tokens + new;
            budget.tokens = if all > self.at_once { self.at_once } else { all };
        }
        if budget.tokens == 0 {
            return false;
        }
        budget.tokens -= 1;
        true
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    const SECOND: u64 = 1_000_000_000;

    #[test]
    fn a_message_has_the_length_of_its_number() {
        let known: Vec<(u8, u32)> = (0..=255)
            .flat_map(|number| (0..2_000).map(move |length| (number, length)))
            .filter(|(number, length)| is_message(*number, *length))
            .collect();
        assert_eq!(known, [(1, 188), (2, 124), (3, 88)]);
    }

    #[test]
    fn sources_are_spread_over_the_shares_by_a_seed() {
        for seed in [1, 0x8000_0000, u32::MAX] {
            for shift in [0, 8, 24] {
                let mut counts = BTreeMap::<u32, u32>::new();
                for source in 0..256u32 {
                    *counts.entry(share_of([source << shift, 0], seed)).or_default() += 1;
                    assert_eq!(share_of([source, 0], seed), share_of([source, 0], seed));
                }
                assert!(counts.keys().all(|share| (*share as usize) < SHARES));
                // By chance 63 shares have one, and the fullest some ten.
                let most = counts.values().max().copied().unwrap_or(0);
                assert!(counts.len() > 50 && most < 16, "{seed} {shift}: {most}");
            }
        }
        let with = |seed| (0..64).map(|n| share_of([n, 0], seed)).collect::<Vec<_>>();
        assert_ne!(with(1), with(2));
        assert_ne!(share_of([1, 1], 7), share_of([1, 4], 7));
    }

    #[test]
    fn a_budget_fills_to_what_may_be_at_once_and_not_beyond() {
        let limit = Limit { per_second: 10, at_once: 3 };
        let mut budget = Budget::default();
        let mut many =
            |now, tries: u32| (0..tries).filter(|_| limit.take(&mut budget, now)).count();
        assert_eq!(many(100 * SECOND, 9), 3);
        assert_eq!(many(100 * SECOND + SECOND / 20, 9), 0);
        assert_eq!(many(100 * SECOND + SECOND / 5, 9), 2);
        assert_eq!(many(101 * SECOND, 9), 3);
        // Clocks of CPUs are not one.
        assert_eq!(many(99 * SECOND, 9), 3);
        assert_eq!(many(99 * SECOND, 9), 0);
    }

    /// Ten seconds of floods by sources of so many shares, 100 packets a millisecond; and one
    /// of another share that asks ten times a second. How many of each get through.
    fn flooded(sources: usize) -> (u32, u32) {
        let mut shares = [Budget::default(); SHARES];
        let mut passes =
            |share: usize, now| u32::from(SHARE.take(&mut shares[share % SHARES], now));
        let (mut flood, mut one) = (0, 0);
        for ms in 0..10_000 {
            let now = 100 * SECOND + ms * SECOND / 1_000;
            flood += (0..100).map(|packet| passes(1 + packet % sources, now)).sum::<u32>();
            if ms % 100 == 99 {
                one += passes(0, now);
            }
        }
        (flood, one)
    }

    #[test]
    fn who_asks_is_heard_while_others_flood() {
        let (flood, one) = flooded(1);
        assert!((110..=136).contains(&flood), "{flood}");
        assert_eq!(one, 100);
        // From everywhere but one share, at all times.
        let (flood, one) = flooded(63);
        assert!((6_900..=8_600).contains(&flood), "{flood}");
        assert_eq!(one, 100);
    }
}
