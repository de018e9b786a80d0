//! Turns: the order in which a receiver gives on the packets of a bucket that come by
//! several paths. The kernel side gives on what has its turn; what is ahead of it, and all
//! that comes while something is, the agent has until then.
//!
//! Nothing here waits: who holds packets, and for how long, is the agent's to decide. Where
//! it is away, packets are given on as they come.

use bytemuck::{Pod, Zeroable};

/// Numbers that a packet can be ahead of its turn, or behind it. One that is further away
/// is of a sender that has begun anew.
pub const TURN_REACH: u32 = 4_096;
/// A bucket in which nothing has come for so long, in ns, begins anew: with what comes first,
/// unless those before it may still be on their way by longer paths.
const IDLE: u64 = 500_000_000;
/// Then they are so many at most. More had no turn, or are lost.
const NEAR: i32 = 8;
/// The first number of a bucket in a session.
const FIRST: u32 = 1;
/// What the agent has not given back for so long, in ns, is lost: more than twice what it
/// may hold a packet for.
const LOST: u64 = 1_000_000_000;
/// The time that paths are noted for, in ns.
const PERIOD: u64 = 500_000_000;

/// What is known of the turns of a bucket.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Pod, Zeroable)]
pub struct Turns {
    /// When the last packet came; 0 = none has.
    pub seen: u64,
    /// When the agent last gave one back, or was handed one while it had none.
    pub moved: u64,
    /// Since when `paths` are noted.
    pub since: u64,
    /// The number whose turn it is.
    pub next: u32,
    /// Packets that the agent was handed. It wraps.
    pub handed: u32,
    /// How many of them it is done with, at least.
    pub returned: u32,
    /// Paths that have brought packets since then, by bit.
    pub paths: u16,
    /// Those of the time before.
    pub before: u16,
}

/// What becomes of a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Turn {
    /// It is given on.
    Now,
    /// The agent is handed it.
    Ahead,
}

impl Turns {
    /// Takes a packet that came by `path` at `now`, in ns. `agent`: it would take packets.
    #[inline(always)]
    pub fn take(&mut self, number: u32, path: u8, now: u64, agent: bool) -> Turn {
        if self.seen == 0 {
            self.next = FIRST;
        }
        let idle = self.seen == 0 || now.wrapping_sub(self.seen) > IDLE;
        self.seen = now;
        if idle {
            // Which ways it goes is not known: it may be any.
            (self.paths, self.before, self.since) = (0, u16::MAX, now);
        }
        self.note(path, now);
        if self.is_out() && (!agent || now.wrapping_sub(self.moved) > LOST) {
            self.returned = self.handed;
        }
        if self.is_out() {
            self.handed = self.handed.wrapping_add(1);
            return Turn::Ahead;
        }
        let ahead = self.ahead(number);
        let reach = if idle { NEAR } else { TURN_REACH as i32 };
        if ahead > 0 && ahead <= reach && agent {
            self.handed = self.handed.wrapping_add(1);
            self.moved = now;
            return Turn::Ahead;
        }
        self.follow(number);
        Turn::Now
    }

    /// The agent could not be handed a packet after all: it is given on.
    #[inline(always)]
    pub fn refuse(&mut self, number: u32) {
        self.handed = self.handed.wrapping_sub(1);
        if !self.is_out() {
            self.follow(number);
        }
    }

    /// The agent gives a packet back at `now`, in ns. `done`: so many of those that it was
    /// handed it is done with, if it knows.
    #[inline(always)]
    pub fn give_back(&mut self, number: u32, now: u64, done: Option<u32>) {
        self.moved = now;
        self.follow(number);
        if let Some(done) = done
            && self.handed.wrapping_sub(done) < self.handed.wrapping_sub(self.returned)
        {
            self.returned = done;
        }
    }

    /// Paths by which packets of the bucket may come, by bit.
    #[must_use]
    #[inline(always)]
    pub const fn ways(&self) -> u16 {
        self.paths | self.before
    }

    /// Whether the agent has packets.
    #[must_use]
    #[inline(always)]
    pub const fn is_out(&self) -> bool {
        self.handed != self.returned
    }

    #[inline(always)]
    const fn ahead(&self, number: u32) -> i32 {
        number.wrapping_sub(self.next) as i32
    }

    /// The turn is that of the number behind this one, unless that was before.
    #[inline(always)]
    const fn follow(&mut self, number: u32) {
        let ahead = self.ahead(number);
        if ahead >= 0 || ahead < -(TURN_REACH as i32) {
            self.next = number.wrapping_add(1);
        }
    }

    #[inline(always)]
    const fn note(&mut self, path: u8, now: u64) {
        let past = now.wrapping_sub(self.since);
        if past > PERIOD {
            self.before = self.paths;
            self.paths = 0;
            self.since = now;
        }
        self.paths |= 1 << (path & 15);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const MS: u64 = 1_000_000;

    /// Of a bucket whose packet 10 has just come.
    fn begun(now: u64) -> Turns {
        let mut turns = Turns::default();
        assert_eq!(turns.take(10, 1, now, true), Turn::Now);
        turns
    }

    #[test]
    fn what_has_its_turn_and_what_is_late_is_given_on() {
        let mut turns = begun(MS);
        for (number, next) in [(11, 12), (12, 13), (5, 13), (13, 14)] {
            assert_eq!(turns.take(number, 1, MS, true), Turn::Now, "{number}");
            assert_eq!(turns.next, next, "{number}");
        }
        assert!(!turns.is_out());
    }

    #[test]
    fn from_the_first_that_is_ahead_on_the_agent_has_all_until_it_is_done() {
        let mut turns = begun(MS);
        for number in [12, 13, 11, 9] {
            assert_eq!(turns.take(number, 2, MS, true), Turn::Ahead, "{number}");
        }
        for (number, done) in [(9, None), (11, None), (12, None)] {
            turns.give_back(number, MS, done);
            assert!(turns.is_out());
        }
        assert_eq!(turns.take(14, 1, MS, true), Turn::Ahead);
        turns.give_back(13, MS, Some(4));
        assert!(turns.is_out(), "the fifth is still there");
        turns.give_back(14, MS, Some(5));
        assert_eq!((turns.is_out(), turns.next), (false, 15));
        assert_eq!(turns.take(15, 1, MS, true), Turn::Now);
    }

    #[test]
    fn without_the_agent_all_are_given_on_as_they_come() {
        let mut turns = begun(MS);
        assert_eq!(turns.take(13, 2, MS, false), Turn::Now);
        assert_eq!(turns.next, 14);
        assert_eq!(turns.take(16, 2, MS, true), Turn::Ahead);
        assert_eq!(turns.take(14, 1, MS, false), Turn::Now, "it went away with one");
        assert!(!turns.is_out());
    }

    #[test]
    fn what_it_does_not_give_back_is_lost() {
        let mut turns = begun(MS);
        assert_eq!(turns.take(12, 1, MS, true), Turn::Ahead);
        assert_eq!(turns.take(13, 1, MS + LOST, true), Turn::Ahead);
        assert_eq!(turns.take(11, 1, MS + LOST + 1, true), Turn::Now);
        assert!(!turns.is_out());
        // Late, it changes nothing any more.
        turns.give_back(12, MS + LOST + 2, Some(1));
        assert_eq!((turns.is_out(), turns.next), (false, 13));
    }

    #[test]
    fn what_finds_no_room_is_given_on() {
        let mut turns = begun(MS);
        assert_eq!(turns.take(13, 1, MS, true), Turn::Ahead);
        turns.refuse(13);
        assert_eq!((turns.is_out(), turns.next), (false, 14));
        assert_eq!(turns.take(16, 1, MS, true), Turn::Ahead);
        assert_eq!(turns.take(17, 1, MS, true), Turn::Ahead);
        turns.refuse(17);
        assert_eq!((turns.is_out(), turns.next), (true, 14), "another is still to come back");
    }

    #[test]
    fn a_pause_and_a_far_number_begin_anew() {
        let mut turns = begun(MS);
        assert_eq!(turns.take(900, 1, MS + IDLE + 1, true), Turn::Now);
        assert_eq!(turns.next, 901);
        for far in [901 + TURN_REACH + 1, 7, 3_000_000_000, u32::MAX - 9] {
            assert_eq!(turns.take(far, 1, MS + IDLE + 1, true), Turn::Now, "{far}");
            assert_eq!(turns.next, far.wrapping_add(1));
        }
    }

    #[test]
    fn the_first_waits_for_those_that_left_before_it_and_no_longer_than_for_some() {
        for (first, turn) in [(1, Turn::Now), (3, Turn::Ahead), (9, Turn::Ahead), (10, Turn::Now)] {
            assert_eq!(Turns::default().take(first, 1, MS, true), turn, "{first}");
            assert_eq!(Turns::default().take(first, 1, MS, false), Turn::Now, "{first}");
        }
        let mut turns = begun(MS);
        assert_eq!(turns.take(13, 1, MS + IDLE + 1, true), Turn::Ahead, "after a pause");
    }

    #[test]
    fn paths_are_those_of_late() {
        let mut turns = begun(MS);
        let mut now = MS;
        for (pause, path, ways) in [
            (PERIOD / 2, 3, u16::MAX),
            (PERIOD / 2 + 1, 3, 1 << 1 | 1 << 3),
            (PERIOD, 3, 1 << 1 | 1 << 3),
            (1, 3, 1 << 3),
            (PERIOD / 2, 2, 1 << 2 | 1 << 3),
            // After a pause it may be any.
            (IDLE + 1, 1, u16::MAX),
        ] {
            now += pause;
            turns.take(turns.next, path, now, true);
            assert_eq!(turns.ways(), ways, "{now}");
        }
    }

    proptest! {
        /// An agent that gives back in order, at whatever time: what is given on never goes
        /// back but for late ones, and in the end nothing is out.
        #[test]
        fn order_holds_with_an_agent_that_keeps_it(
            first: u32,
            shuffle in prop::collection::vec(0usize..6, 1..200),
        ) {
            let mut numbers: Vec<u32> =
                (0..shuffle.len() as u32).map(|step| first.wrapping_add(step)).collect();
            for (place, by) in shuffle.iter().enumerate() {
                let other = (place + by).min(numbers.len() - 1);
                numbers.swap(place, other);
            }
            let mut turns = Turns { seen: MS, next: first, ..Turns::default() };
            let mut held = std::collections::BTreeSet::new();
            let mut given: Vec<u32> = Vec::new();
            for number in numbers {
                let place = number.wrapping_sub(first);
                if turns.take(number, 1, MS, true) == Turn::Now {
                    given.push(place);
                    continue;
                }
                held.insert(place);
                while held.first() == Some(&turns.next.wrapping_sub(first)) {
                    let place = held.pop_first().expect("it is there");
                    let done = held.is_empty().then_some(turns.handed);
                    turns.give_back(first.wrapping_add(place), MS, done);
                    given.push(place);
                }
            }
            let all: Vec<u32> = (0..shuffle.len() as u32).collect();
            prop_assert_eq!(given, all);
            prop_assert!(!turns.is_out());
        }
    }
}
