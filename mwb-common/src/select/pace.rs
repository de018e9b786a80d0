//! How often a path of a bond is probed, and for how long an answer is good.
//!
//! Both are the bond's, but for a *metered* path that has carried no data for
//! [`IDLE_AFTER`]: that one lives longer on each answer, and is *idle*, with fewer probes,
//! when it has had some answers of that kind: else it would die in between. Either end
//! finds that out from its own packets, so they need not agree on it.
//!
//! The first packet of data, in either direction, ends it: the next probe is due at once,
//! and what is left of the long life is cut to what an answer takes to come ([`carry`]).
//! So a path that has died in silence is found out soon after it is needed.

use core::cmp::min;

use crate::maps::{Bond, BondPath, PathState, bond_path_flag};

/// A metered path that has carried no data for so long lives longer on each answer, in ns.
pub const IDLE_AFTER: u64 = 10_000_000_000;
/// And is idle after so much more.
pub const OVERLAP: u64 = 1_000_000_000;
/// For so long an agent may not have noticed that a path is in use again, in ns: it looks
/// every 100 ms, then its next round of probes has to come.
const NOTICE: u64 = 200_000_000;

/// How a path is probed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pace {
    /// Between two probes, in ns.
    pub interval: u64,
    /// It counts as alive for so long after an answer, in ns.
    pub dead_after: u64,
}

/// For how long a metered path has carried nothing, in ns; 0 for any other.
#[inline(always)]
const fn rest(path: &BondPath, state: &PathState, now: u64) -> u64 {
    if path.flags & bond_path_flag::METERED == 0 { 0 } else { now.saturating_sub(state.used_at) }
}

/// Whether a path is probed seldom at present.
#[must_use]
#[inline(always)]
pub const fn is_idle(path: &BondPath, state: &PathState, now: u64) -> bool {
    rest(path, state, now) > IDLE_AFTER + OVERLAP
}

/// How a path is probed at present.
#[must_use]
#[inline(always)]
pub const fn pace(bond: &Bond, path: &BondPath, state: &PathState, now: u64) -> Pace {
    let rest = rest(path, state, now);
    Pace {
        interval: if rest > IDLE_AFTER + OVERLAP {
            bond.idle_interval
        } else {
            bond.probe_interval
        },
        dead_after: if rest > IDLE_AFTER { bond.idle_dead_after } else { bond.dead_after },
    }
}

/// Notes that data goes by a path, either way.
#[inline(always)]
pub fn carry(bond: &Bond, path: &BondPath, state: &mut PathState, now: u64) {
    if path.flags & bond_path_flag::METERED != 0 {
        // An odd time is a packet's that is on its way round, and makes the probe.
        if is_idle(path, state, now) && state.probe_due & 1 == 0 {
            state.probe_due = 0;
        }
        // Each answer from now on says less than this; RFC 6298, 2.3.
        let answer = state.rtt + 4 * state.rtt_variation;
        state.alive_until = min(state.alive_until, now + NOTICE + answer + bond.dead_after);
    }
    state.used_at = now;
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: u64 = 1_000_000;
    const SECOND: u64 = 1_000 * MS;

    fn bond() -> Bond {
        Bond {
            probe_interval: 50 * MS,
            dead_after: 150 * MS,
            idle_interval: SECOND,
            idle_dead_after: 3_500 * MS,
            ..Bond::default()
        }
    }

    fn path(flags: u32) -> BondPath {
        BondPath { flags: bond_path_flag::PRESENT | flags, ..BondPath::default() }
    }

    #[test]
    fn only_a_metered_path_without_data_is_probed_seldom() {
        let now = 100 * SECOND;
        let used = |ago: u64| PathState { used_at: now - ago, ..PathState::default() };
        let seldom = Pace { interval: SECOND, dead_after: 3_500 * MS };
        let often = Pace { interval: 50 * MS, dead_after: 150 * MS };
        let between = Pace { interval: 50 * MS, dead_after: 3_500 * MS };
        let metered = path(bond_path_flag::METERED);
        for (path, ago, expected) in [
            (metered, IDLE_AFTER + OVERLAP + 1, seldom),
            (metered, now, seldom),
            (metered, IDLE_AFTER + OVERLAP, between),
            (metered, IDLE_AFTER + 1, between),
            (metered, IDLE_AFTER, often),
            (metered, 0, often),
            (path(0), now, often),
            (path(bond_path_flag::PARKED), now, often),
        ] {
            assert_eq!(pace(&bond(), &path, &used(ago), now), expected, "{ago}");
        }
        // Another CPU may have noted a packet of later.
        let state = PathState { used_at: now + 1, ..PathState::default() };
        assert_eq!(pace(&bond(), &metered, &state, now), often);
    }

    #[test]
    fn data_ends_idleness_and_leaves_time_for_one_answer() {
        let (now, metered) = (100 * SECOND, path(bond_path_flag::METERED));
        let mut state = PathState {
            alive_until: now + 3 * SECOND,
            probe_due: now + SECOND,
            rtt: 40 * MS,
            rtt_variation: 5 * MS,
            ..PathState::default()
        };
        carry(&bond(), &metered, &mut state, now);
        assert!(!is_idle(&metered, &state, now));
        let until = now + 200 * MS + 60 * MS + 150 * MS;
        assert_eq!((state.used_at, state.probe_due, state.alive_until), (now, 0, until));
        // What comes after it makes the time no longer, and an answer's is shorter anyway.
        state.probe_due = now + 50 * MS;
        carry(&bond(), &metered, &mut state, now + 100 * MS);
        assert_eq!((state.probe_due, state.alive_until), (now + 50 * MS, until));
        state.alive_until = now + 180 * MS;
        carry(&bond(), &metered, &mut state, now + 120 * MS);
        assert_eq!(state.alive_until, now + 180 * MS);
    }

    #[test]
    fn a_probe_that_is_on_its_way_round_stays_the_one_that_is_due() {
        let (now, metered) = (100 * SECOND, path(bond_path_flag::METERED));
        let mut state = PathState { probe_due: now | 1, ..PathState::default() };
        carry(&bond(), &metered, &mut state, now);
        assert_eq!((state.probe_due, state.used_at), (now | 1, now));
    }

    #[test]
    fn of_a_path_that_is_not_metered_only_the_time_is_noted() {
        let now = 100 * SECOND;
        let before = PathState {
            alive_until: now + 9 * SECOND,
            probe_due: now + SECOND,
            ..PathState::default()
        };
        let mut state = before;
        carry(&bond(), &path(0), &mut state, now);
        assert_eq!(state, PathState { used_at: now, ..before });
    }
}
