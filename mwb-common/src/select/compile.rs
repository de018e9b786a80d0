//! The agent's half of the path choice: weights to slots. Must not know: what
//! the weights mean.

use bytemuck::Zeroable as _;

use crate::maps::{MAX_PATHS, SLOTS, Selection};

/// What one path gets of the slots, relative to the others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Share {
    /// Path id, from 1; each id at most once.
    pub path: u8,
    /// Any unit; 0 takes no part.
    pub weight: u32,
}

/// Compiles shares and a ranking to what the kernel reads.
///
/// The slots are apportioned by largest remainder (Hamilton), except that every
/// positive weight gets at least one. They are interleaved so that after any
/// number of slots each path is less than one slot away from its part: a run
/// of `n` slots, wherever it begins, has less than two too many or too few of
/// any path. Of `shares` and `ranking` the first [`MAX_PATHS`] with an id from
/// 1 to [`MAX_PATHS`] are taken. `index` is one of [`crate::maps::index`].
#[must_use]
pub fn compile(shares: &[Share], ranking: &[u8], index: u8) -> Selection {
    let mut selection = Selection::zeroed();
    selection.index = index;
    for (rank, path) in selection.ranking.iter_mut().zip(ranking.iter().copied().filter(is_path)) {
        *rank = path;
    }
    let mut taken = [Share { path: 0, weight: 0 }; MAX_PATHS];
    let mut count = 0;
    for share in shares.iter().filter(|share| share.weight > 0 && is_path(&share.path)) {
        let Some(place) = taken.get_mut(count) else { break };
        *place = *share;
        count += 1;
    }
    if let Some(taken) = taken.get(..count).filter(|taken| !taken.is_empty()) {
        selection.targets = taken.iter().fold(0, |bits, share| bits | 1 << (share.path - 1));
        let quota = apportion(taken);
        interleave(taken, &quota, &mut selection.slots);
    }
    selection
}

fn is_path(path: &u8) -> bool {
    (1..=MAX_PATHS).contains(&usize::from(*path))
}

/// Slots per share; their sum is [`SLOTS`]. `shares` is not empty and has
/// positive weights only.
fn apportion(shares: &[Share]) -> [u32; MAX_PATHS] {
    let slots = SLOTS as u64;
    let total: u64 = shares.iter().map(|share| u64::from(share.weight)).sum();
    let mut quota = [0; MAX_PATHS];
    // Below one slot: one is given, and these no longer count.
    let (mut left, mut weight) = (slots, total);
    for (quota, share) in quota.iter_mut().zip(shares) {
        if u64::from(share.weight) * slots < total {
            *quota = 1;
            left -= 1;
            weight -= u64::from(share.weight);
        }
    }
    let (slots, total) = (left, weight);
    let mut remainders = [None; MAX_PATHS];
    for ((quota, remainder), share) in quota.iter_mut().zip(&mut remainders).zip(shares) {
        if *quota == 0 {
            let scaled = u64::from(share.weight) * slots;
            // Against the reduced total a share just above one slot may fall
            // below it again.
            *quota = ((scaled / total) as u32).max(1);
            *remainder = Some(scaled % total);
            left = left.saturating_sub(u64::from(*quota));
        }
    }
    while left > 0 {
        let mut best: Option<usize> = None;
        for (i, remainder) in remainders.iter().enumerate() {
            if remainder.is_some() && best.is_none_or(|best| remainders[best] < *remainder) {
                best = Some(i);
            }
        }
        let Some(best) = best else { break };
        quota[best] += 1;
        remainders[best] = None;
        left -= 1;
    }
    // The lifts above may have given one too many: the largest pays.
    let mut sum: u32 = quota.iter().sum();
    while sum > SLOTS as u32 {
        if let Some(largest) = quota.iter_mut().max() {
            *largest -= 1;
        }
        sum -= 1;
    }
    quota
}

/// Earliest deadline first (Pfair): the `k`-th slot of a share of `q` may come
/// from slot `(k - 1) * SLOTS / q` on and must come before slot
/// `k * SLOTS / q`. As the quotas add up to all slots, every deadline is met.
fn interleave(shares: &[Share], quota: &[u32; MAX_PATHS], slots: &mut [u8; SLOTS]) {
    let all = SLOTS as u32;
    let mut given = [0u32; MAX_PATHS];
    for (now, slot) in (0u32..).zip(slots.iter_mut()) {
        let mut best: Option<(u32, usize)> = None;
        for (i, (&quota, &given)) in quota.iter().zip(&given).enumerate().take(shares.len()) {
            if given >= quota || given * all / quota > now {
                continue;
            }
            let deadline = ((given + 1) * all).div_ceil(quota);
            if best.is_none_or(|(earliest, _)| deadline < earliest) {
                best = Some((deadline, i));
            }
        }
        if let Some((_, i)) = best {
            *slot = shares[i].path;
            given[i] += 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::maps::index;
    use proptest::prelude::*;

    fn shares(weights: &[u32]) -> Vec<Share> {
        (1u8..).zip(weights).map(|(path, &weight)| Share { path, weight }).collect()
    }

    fn count(selection: &Selection, path: u8) -> i64 {
        selection.slots.iter().filter(|&&slot| slot == path).count() as i64
    }

    /// Weights of up to all paths, with very unequal ones and zeros among them.
    fn weights() -> impl Strategy<Value = Vec<u32>> {
        let weight = prop_oneof![
            3 => 1u32..=1000,
            1 => Just(0u32),
            1 => Just(1u32),
            1 => any::<u32>(),
        ];
        prop::collection::vec(weight, 1..=MAX_PATHS)
    }

    #[test]
    fn equal_weights_take_turns() {
        let selection = compile(&shares(&[7, 7]), &[2, 1], index::COUNTER);
        assert_eq!(selection.slots[..4], [1, 2, 1, 2]);
        assert_eq!(count(&selection, 1), 512);
        assert_eq!(selection.ranking[..3], [2, 1, 0]);
        assert_eq!(selection.index, index::COUNTER);
    }

    #[test]
    fn a_heavy_path_is_spread_between_the_light_ones() {
        let selection = compile(&shares(&[2, 1, 1]), &[1, 2, 3], index::FLOW_HASH);
        assert_eq!(selection.slots[..8], [1, 2, 1, 3, 1, 2, 1, 3]);
        assert_eq!(selection.index, index::FLOW_HASH);
    }

    #[test]
    fn without_a_positive_weight_every_slot_is_none() {
        assert_eq!(compile(&shares(&[0, 0]), &[], 0).slots, [0; SLOTS]);
        assert_eq!(compile(&[], &[], 0).slots, [0; SLOTS]);
    }

    #[test]
    fn ids_that_are_no_paths_are_left_out() {
        let bad = [
            Share { path: 0, weight: 5 },
            Share { path: 33, weight: 5 },
            Share { path: 4, weight: 1 },
        ];
        let selection = compile(&bad, &[0, 4, 200], 0);
        assert_eq!(selection.slots, [4; SLOTS]);
        assert_eq!(selection.targets, 1 << 3);
        assert_eq!(selection.ranking[..2], [4, 0]);
    }

    proptest! {
        #[test]
        fn every_slot_is_given_and_every_positive_weight_has_one(weights in weights()) {
            prop_assume!(weights.iter().any(|&weight| weight > 0));
            let selection = compile(&shares(&weights), &[], 0);
            prop_assert!(selection.slots.iter().all(|&slot| slot > 0));
            for (path, weight) in (1u8..).zip(&weights) {
                prop_assert_eq!(count(&selection, path) > 0, *weight > 0);
                prop_assert_eq!(selection.has(path), *weight > 0);
            }
        }

        #[test]
        fn slots_are_in_proportion_within_one(weights in prop::collection::vec(1u32..=1000, 1..=8)) {
            // No weight here is below one slot's worth more than a few times
            // over, so that lifting it costs the others less than a slot each.
            let total: u64 = weights.iter().map(|&weight| u64::from(weight)).sum();
            let lifted = weights.iter().filter(|&&weight| u64::from(weight) * 1024 < total).count();
            prop_assume!(lifted == 0);
            let selection = compile(&shares(&weights), &[], 0);
            for (path, &weight) in (1u8..).zip(&weights) {
                let exact = f64::from(weight) * 1024.0 / total as f64;
                prop_assert!((count(&selection, path) as f64 - exact).abs() < 1.0, "{} for {}", count(&selection, path), exact);
            }
        }

        #[test]
        fn lifting_small_weights_costs_the_others_one_slot_each_at_most(weights in weights()) {
            let total: u64 = weights.iter().map(|&weight| u64::from(weight)).sum();
            prop_assume!(total > 0);
            let lifted = weights.iter().filter(|&&w| w > 0 && u64::from(w) * 1024 < 2 * total).count();
            let selection = compile(&shares(&weights), &[], 0);
            for (path, &weight) in (1u8..).zip(&weights) {
                let exact = f64::from(weight) * 1024.0 / total as f64;
                let off = (count(&selection, path) as f64 - exact).abs();
                prop_assert!(off < 1.0 + lifted as f64, "{} for {}", count(&selection, path), exact);
            }
        }

        #[test]
        fn any_run_of_slots_is_in_proportion_within_two(weights in weights(), start in 0..SLOTS, length in 1..SLOTS) {
            let selection = compile(&shares(&weights), &[], 0);
            for path in 1..=weights.len() as u8 {
                let run = (start..start + length).filter(|i| selection.slots[i % SLOTS] == path).count() as f64;
                let exact = count(&selection, path) as f64 * length as f64 / SLOTS as f64;
                prop_assert!((run - exact).abs() < 2.0, "path {}: {} of {}", path, run, exact);
            }
        }
    }
}
