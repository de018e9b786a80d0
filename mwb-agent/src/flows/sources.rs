//! How many mappings an inside address has, for the limit on them (RFC 6888,
//! REQ-4), as a pure function of what was read.
//!
//! The kernel side counts the mappings it makes, the sweeper those that are
//! over, each in a table that only it writes; what is in use is the difference,
//! wrapping. A source whose count stood still while the mappings were read is
//! set right to the mapping: whatever went wrong before (an agent that died
//! between a removal and its count, a table that was full) ends there.

use std::collections::{HashMap, HashSet};

/// An inside IPv4 address.
pub(super) type Source = [u8; 4];

/// What was read.
#[derive(Clone, Debug, Default)]
pub(super) struct Counts {
    /// Mappings made, before the mappings were read.
    pub(super) before: HashMap<Source, u32>,
    /// Mappings made, after.
    pub(super) after: HashMap<Source, u32>,
    /// Mappings that are over, as counted so far.
    pub(super) ended: HashMap<Source, u32>,
    /// Mappings there were.
    pub(super) present: HashMap<Source, u32>,
    /// Those of them that are removed now.
    pub(super) removed: HashMap<Source, u32>,
}

/// What to write.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Settlement {
    /// Counts of ended mappings, where they change.
    pub(super) ended: Vec<(Source, u32)>,
    /// Sources that have had nothing in two sweeps running: both their counts
    /// go, that of made ones first.
    pub(super) forgotten: Vec<Source>,
    /// Sources that have nothing now: for the next settlement.
    pub(super) idle: HashSet<Source>,
}

/// Settles the counts of all sources. `idle` is that of the settlement before.
#[must_use]
pub(super) fn settle(counts: &Counts, idle: &HashSet<Source>) -> Settlement {
    let mut settlement = Settlement::default();
    let of = |map: &HashMap<Source, u32>, source| map.get(source).copied().unwrap_or(0);
    let known: HashSet<&Source> = counts.after.keys().chain(counts.ended.keys()).collect();
    for source in known {
        let (made, ended) = (of(&counts.after, source), of(&counts.ended, source));
        let (present, removed) = (of(&counts.present, source), of(&counts.removed, source));
        let stood_still = of(&counts.before, source) == made;
        let settled = if stood_still {
            made.wrapping_sub(present).wrapping_add(removed)
        } else {
            ended.wrapping_add(removed)
        };
        if stood_still && present == removed {
            settlement.idle.insert(*source);
            if idle.contains(source) {
                settlement.forgotten.push(*source);
                continue;
            }
        }
        if settled != ended {
            settlement.ended.push((*source, settled));
        }
    }
    settlement
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOST: Source = [192, 0, 2, 9];

    fn one(count: u32) -> HashMap<Source, u32> {
        HashMap::from([(HOST, count)])
    }

    /// Made before and after, ended, present, removed.
    fn counts(made: (u32, u32), ended: u32, present: u32, removed: u32) -> Counts {
        Counts {
            before: one(made.0),
            after: one(made.1),
            ended: one(ended),
            present: one(present),
            removed: one(removed),
        }
    }

    fn settled(counts: &Counts) -> Settlement {
        settle(counts, &HashSet::new())
    }

    #[test]
    fn what_is_removed_is_counted() {
        // Three made, one ended before, two there: one of them goes.
        let settlement = settled(&counts((3, 3), 1, 2, 1));
        assert_eq!(settlement.ended, [(HOST, 2)]);
        assert!(settlement.idle.is_empty());
    }

    #[test]
    fn a_settled_source_is_left_alone() {
        assert_eq!(settled(&counts((3, 3), 1, 2, 0)), Settlement::default());
    }

    #[test]
    fn a_wrong_count_is_set_right_once_nothing_is_made_meanwhile() {
        // Two are there, but the counts say three.
        assert_eq!(settled(&counts((3, 3), 0, 2, 0)).ended, [(HOST, 1)]);
        // One more may be among those there, or not: nothing is known.
        assert_eq!(settled(&counts((2, 3), 0, 2, 0)).ended, []);
        assert_eq!(settled(&counts((2, 3), 0, 2, 1)).ended, [(HOST, 1)]);
    }

    #[test]
    fn counts_wrap() {
        assert_eq!(settled(&counts((1, 1), u32::MAX, 2, 1)).ended, [(HOST, 0)]);
        // The count of a made one was lost.
        assert_eq!(settled(&counts((0, 0), 0, 1, 0)).ended, [(HOST, u32::MAX)]);
    }

    #[test]
    fn a_source_without_mappings_is_forgotten_at_the_second_look() {
        let counts = counts((3, 3), 3, 0, 0);
        let first = settled(&counts);
        assert_eq!((first.forgotten.len(), first.idle.len()), (0, 1));
        let second = settle(&counts, &first.idle);
        assert_eq!(second.forgotten, [HOST]);
        assert_eq!(second.ended, []);
    }

    #[test]
    fn a_source_that_is_not_counted_stays_so() {
        let counts = Counts { present: one(2), removed: one(1), ..Counts::default() };
        assert_eq!(settled(&counts), Settlement::default());
    }
}
