//! How much later packets come by one path than by another: for so long one that is ahead
//! of its turn waits for those before it.
//!
//! Probes say when they left, of the far end's clock. The clocks are two, but the same two
//! for all paths: what is longer on one path than on another is known.

use std::collections::BTreeMap;

use mwb_common::maps::{BOND_PATHS, BondPath, PathState, bond_path_flag};

use crate::dataplane::BondMaps;

/// Between two looks at a session, in ns.
const LOOK: u64 = 50_000_000;
/// How long what was seen counts, in ns: queues grow and shrink within it.
const RECENT: u64 = 1_000_000_000;
/// A probe so long ago says nothing of a path any more, in ns.
const OLD: u64 = 5_000_000_000;
/// A quarter more is waited, and so much, in ns: a queue grows between two probes.
const MARGIN: u64 = 5_000_000;

/// Spreads by session.
pub(super) struct Spreads {
    /// The longest wait, in ns.
    most: u64,
    sessions: BTreeMap<u32, Spread>,
}

#[derive(Default)]
struct Spread {
    looked: u64,
    deadline: u64,
    /// By path: the least and the greatest lag of late, and of the time before.
    lags: BTreeMap<u8, [Lag; 2]>,
    since: u64,
    /// Paths by which the far end says that packets may come ahead of their turn, by bit.
    announced: u16,
}

/// Least and greatest, in ns of two clocks.
#[derive(Clone, Copy)]
struct Lag {
    least: i64,
    greatest: i64,
}

impl Lag {
    const NONE: Self = Self { least: i64::MAX, greatest: i64::MIN };

    fn and(self, other: Self) -> Self {
        Self { least: self.least.min(other.least), greatest: self.greatest.max(other.greatest) }
    }
}

impl Spreads {
    /// Nothing known. `most`: the longest wait, in ns.
    pub(super) const fn new(most: u64) -> Self {
        Self { most, sessions: BTreeMap::new() }
    }

    /// How long a packet of a session that comes now waits for its turn, in ns, and by which
    /// paths others may come, by bit: `ways`, as far as they are there, and those that the far
    /// end has announced.
    pub(super) fn of(&mut self, maps: &BondMaps, slot: u32, ways: u16, now: u64) -> (u64, u16) {
        let most = self.most;
        let spread = self.sessions.entry(slot).or_default();
        if spread.looked == 0 || now.saturating_sub(spread.looked) > LOOK {
            spread.looked = now;
            let paths = (1..BOND_PATHS as u8).filter_map(|path| {
                Some((path, maps.path(slot, path).ok()?, maps.path_state(slot, path).ok()?))
            });
            spread.look(now, paths);
            spread.deadline = spread.wait().min(most);
        }
        (spread.deadline, ways & spread.present() | spread.announced)
    }
}

impl Spread {
    fn look(&mut self, now: u64, paths: impl Iterator<Item = (u8, BondPath, PathState)>) {
        if now.saturating_sub(self.since) > RECENT {
            for [late, before] in self.lags.values_mut() {
                (*before, *late) = (*late, Lag::NONE);
            }
            self.since = now;
        }
        self.announced = 0;
        for (path, entry, state) in paths {
            let known = state.lag_at != 0 && now.saturating_sub(state.lag_at) < OLD;
            if entry.flags & bond_path_flag::PRESENT == 0 || !known {
                self.lags.remove(&path);
                continue;
            }
            if state.announced != 0 {
                self.announced |= 1 << (path & 15);
            }
            let lag = state.lag.cast_signed();
            let [late, _] = self.lags.entry(path).or_insert([Lag::NONE; 2]);
            *late = late.and(Lag { least: lag, greatest: lag });
        }
    }

    /// The paths, by bit.
    fn present(&self) -> u16 {
        self.lags.keys().fold(0, |bits, path| bits | 1 << (path & 15))
    }

    /// How long to wait, in ns. Where the far end has said by which paths, no other is waited
    /// for.
    fn wait(&self) -> u64 {
        let counts = |path: &u8| self.announced == 0 || self.announced >> (path & 15) & 1 != 0;
        let lags = self.lags.iter().filter(|(path, _)| counts(path));
        let lags = lags.map(|(_, [late, before])| late.and(*before));
        let all = lags.fold(Lag::NONE, Lag::and);
        // Nothing, or clocks that have been set.
        let spread = all.greatest.checked_sub(all.least).unwrap_or(0).max(0).cast_unsigned();
        spread.saturating_add(spread / 4).saturating_add(MARGIN)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: u64 = 1_000_000;

    fn path(path: u8, lag_ms: i64, at: u64) -> (u8, BondPath, PathState) {
        let entry = BondPath { flags: bond_path_flag::PRESENT, ..BondPath::default() };
        // Of clocks that are far apart.
        let lag = (lag_ms * 1_000_000 - 7_000_000_000_000).cast_unsigned();
        (path, entry, PathState { lag, lag_at: at, ..PathState::default() })
    }

    #[test]
    fn a_packet_waits_for_the_slowest_path_and_a_quarter_more() {
        let mut spread = Spread::default();
        let now = 100_000 * MS;
        spread.look(now, [path(1, 10, now), path(2, 50, now), path(4, 30, now)].into_iter());
        assert_eq!(spread.wait(), 50 * MS + MARGIN);
        // A queue that was there a moment ago counts, and then does not any more.
        spread.look(now + 50 * MS, [path(1, 10, now), path(2, 20, now)].into_iter());
        assert_eq!(spread.wait(), 50 * MS + MARGIN);
        for step in 1..5 {
            let now = now + step * (RECENT + 1);
            spread.look(now, [path(1, 10, now), path(2, 20, now)].into_iter());
        }
        assert_eq!(spread.wait(), 10 * MS * 5 / 4 + MARGIN);
    }

    #[test]
    fn paths_that_were_announced_are_the_ones_that_count() {
        let mut spread = Spread::default();
        let now = 100_000 * MS;
        let far = |lag, announced| {
            let (id, entry, state) = path(3, lag, now);
            (id, entry, PathState { announced, ..state })
        };
        let mut near = [path(1, 10, now), path(2, 50, now)];
        spread.look(now, near.into_iter().chain([far(310, 0)]));
        assert_eq!((spread.wait(), spread.announced), (375 * MS + MARGIN, 0));
        for (_, _, state) in &mut near {
            state.announced = 1;
        }
        spread.look(now, near.into_iter().chain([far(310, 0)]));
        assert_eq!((spread.wait(), spread.announced), (50 * MS + MARGIN, 0b0110));
        assert_eq!(spread.present(), 0b1110);
    }

    #[test]
    fn what_is_not_known_any_more_is_not_waited_for() {
        let mut spread = Spread::default();
        let now = 100_000 * MS;
        assert_eq!(spread.wait(), MARGIN);
        spread.look(now, [path(1, 10, now), path(2, 90, now)].into_iter());
        assert_eq!(spread.wait(), 100 * MS + MARGIN);
        let later = now + OLD + 1;
        spread.look(later, [path(1, 10, later), path(2, 90, now)].into_iter());
        assert_eq!(spread.wait(), MARGIN);
        let gone = (1, BondPath::default(), path(1, 10, later).2);
        spread.look(later + 1, [gone].into_iter());
        assert_eq!(spread.wait(), MARGIN);
    }
}
