use super::*;
use crate::failover::tests::{member, state};
use crate::failover::{Carries, Memory, decide};
use crate::health::State;
use proptest::prelude::*;

const MINUTE: Duration = Duration::from_secs(60);

/// A gateway whose members a test changes from round to round.
struct World {
    balance: Balance,
    members: Vec<Member>,
    drains: Drains,
    memory: Memory,
    now: Instant,
}

impl World {
    /// WANs 1, 2, … with these priorities and one policy for all.
    fn new(failback: Failback, priorities: &[u8]) -> Self {
        let members = (1u8..).zip(priorities).map(|(path, &priority)| {
            let mut member = member(path, priority, State::Up);
            member.failback = failback;
            member
        });
        Self {
            balance: Balance::RoundRobin,
            members: members.collect(),
            drains: Drains::default(),
            memory: Memory::default(),
            now: Instant::now(),
        }
    }

    /// Time passes, then the WANs have these states.
    fn after(&mut self, time: Duration, states: &[State]) -> Vec<Step> {
        self.now += time;
        for (member, state) in self.members.iter_mut().zip(states) {
            member.state = *state;
        }
        let decision = decide(self.balance, &self.members, &mut self.memory, self.now);
        self.drains.enter(self.balance, &decision, &self.members, self.now)
    }

    fn until(&self, path: usize) -> Option<Duration> {
        let member = &self.members[path - 1];
        self.drains.until(member.path, member.failback).map(|until| until - self.now)
    }
}

use State::{Degraded, Down, Testing, Up};

#[test]
fn cut_moves_the_flows_when_a_better_wan_is_back() {
    let mut world = World::new(Failback::Cut, &[0, 1]);
    assert_eq!(world.after(MINUTE, &[Up, Up]), []);
    assert_eq!(world.after(MINUTE, &[Down, Up]), []);
    assert_eq!(world.after(MINUTE, &[Testing, Up]), []);
    assert_eq!(world.after(MINUTE, &[Up, Up]), [Step::Cut { path: 2 }]);
    assert_eq!(world.after(MINUTE, &[Up, Up]), []);
}

#[test]
fn stay_moves_nothing() {
    let mut world = World::new(Failback::Stay, &[0, 1]);
    world.after(MINUTE, &[Down, Up]);
    assert_eq!(world.after(MINUTE, &[Up, Up]), [Step::Left { path: 2, stay: None }]);
    assert_eq!(world.after(60 * MINUTE, &[Up, Up]), []);
    assert_eq!(world.until(2), None);
}

#[test]
fn drain_cuts_after_its_time() {
    let mut world = World::new(Failback::Drain(5 * MINUTE), &[0, 1]);
    world.after(MINUTE, &[Down, Up]);
    let left = Step::Left { path: 2, stay: Some(5 * MINUTE) };
    assert_eq!(world.after(MINUTE, &[Up, Up]), [left]);
    assert_eq!(world.until(2), Some(5 * MINUTE));
    assert_eq!(world.after(4 * MINUTE, &[Up, Up]), []);
    assert_eq!(world.until(2), Some(MINUTE));
    assert_eq!(world.after(MINUTE, &[Up, Up]), [Step::Cut { path: 2 }]);
    assert_eq!((world.until(2), world.after(9 * MINUTE, &[Up, Up])), (None, vec![]));
}

#[test]
fn a_drain_ends_when_the_wan_is_used_again() {
    let mut world = World::new(Failback::Drain(5 * MINUTE), &[0, 1]);
    world.after(MINUTE, &[Down, Up]);
    world.after(MINUTE, &[Up, Up]);
    assert_eq!(world.after(MINUTE, &[Down, Up]), [Step::Kept { path: 2 }]);
    assert_eq!(world.after(9 * MINUTE, &[Down, Up]), []);
    // Its time begins anew with the next return of the better one.
    let left = Step::Left { path: 2, stay: Some(5 * MINUTE) };
    assert_eq!(world.after(MINUTE, &[Up, Up]), [left]);
}

#[test]
fn a_wan_that_died_meanwhile_loses_its_idle_flows_too() {
    let mut world = World::new(Failback::Cut, &[0, 1, 2]);
    assert_eq!(world.after(MINUTE, &[Down, Up, Up]), []);
    assert_eq!(world.after(MINUTE, &[Down, Down, Up]), []);
    let both = [Step::Cut { path: 2 }, Step::Cut { path: 3 }];
    assert_eq!(world.after(MINUTE, &[Up, Down, Up]), both);
}

#[test]
fn a_wan_that_is_left_for_a_worse_one_keeps_its_flows() {
    let mut world = World::new(Failback::Cut, &[0, 1]);
    world.after(MINUTE, &[Up, Up]);
    assert_eq!(world.after(MINUTE, &[Degraded, Up]), []);
    assert_eq!(world.after(MINUTE, &[Up, Up]), [Step::Cut { path: 2 }]);
}

#[test]
fn wans_of_one_priority_do_not_draw_flows_from_each_other() {
    let mut world = World::new(Failback::Cut, &[0, 0]);
    for states in [[Up, Up], [Degraded, Up], [Up, Degraded], [Up, Up], [Down, Up], [Up, Up]] {
        assert_eq!(world.after(MINUTE, &states), []);
    }
}

#[test]
fn in_mode_failover_the_order_of_the_file_decides() {
    let mut world = World::new(Failback::Cut, &[0, 0]);
    world.balance = Balance::Failover;
    world.after(MINUTE, &[Down, Up]);
    assert_eq!(world.after(MINUTE, &[Up, Up]), [Step::Cut { path: 2 }]);
}

#[test]
fn a_forced_wan_is_better_than_any_until_it_is_not_forced_any_more() {
    let mut world = World::new(Failback::Cut, &[0, 0, 1]);
    world.after(MINUTE, &[Up, Up, Up]);
    world.members[2].forced = true;
    let left = [Step::Cut { path: 1 }, Step::Cut { path: 2 }];
    assert_eq!(world.after(MINUTE, &[Up, Up, Up]), left);
    world.members[2].forced = false;
    assert_eq!(world.after(MINUTE, &[Up, Up, Up]), [Step::Cut { path: 3 }]);
}

#[test]
fn a_drain_survives_that_nothing_is_usable() {
    let mut world = World::new(Failback::Drain(5 * MINUTE), &[0, 1]);
    world.after(MINUTE, &[Down, Up]);
    world.after(MINUTE, &[Up, Up]);
    assert_eq!(world.after(MINUTE, &[Down, Down]), []);
    assert_eq!(world.after(5 * MINUTE, &[Up, Down]), [Step::Cut { path: 2 }]);
}

#[test]
fn one_family_is_left_while_the_other_is_not() {
    let mut world = World::new(Failback::Cut, &[0, 1]);
    world.members[1].v6 = Carries::Yes;
    world.after(MINUTE, &[Down, Up]);
    // The better WAN carries IPv4 only: IPv6 stays where it is, IPv4 goes.
    assert_eq!(world.after(MINUTE, &[Up, Up]), [Step::Cut { path: 2 }]);
    assert_eq!(world.after(MINUTE, &[Up, Up]), []);
}

#[test]
fn what_an_earlier_run_has_left_is_drained_anew() {
    let mut world = World::new(Failback::Drain(5 * MINUTE), &[0, 1]);
    world.drains = Drains::new([1, 2]);
    let left = Step::Left { path: 2, stay: Some(5 * MINUTE) };
    assert_eq!(world.after(MINUTE, &[Up, Up]), [left]);
    assert_eq!(world.after(5 * MINUTE, &[Up, Up]), [Step::Cut { path: 2 }]);
}

#[test]
fn a_path_that_is_another_wans_has_no_flows_to_drain() {
    let mut world = World::new(Failback::Cut, &[0, 1]);
    world.after(MINUTE, &[Down, Up]);
    world.drains.forget(2);
    assert_eq!(world.after(MINUTE, &[Up, Up]), []);
}

#[test]
fn a_policy_that_changes_counts_from_when_the_wan_was_left() {
    let mut world = World::new(Failback::Stay, &[0, 1]);
    world.after(MINUTE, &[Down, Up]);
    world.after(MINUTE, &[Up, Up]);
    world.members[1].failback = Failback::Drain(5 * MINUTE);
    assert_eq!(world.after(MINUTE, &[Up, Up]), []);
    assert_eq!(world.until(2), Some(4 * MINUTE));
    world.members[1].failback = Failback::Cut;
    assert_eq!(world.after(MINUTE, &[Up, Up]), [Step::Cut { path: 2 }]);
}

fn failback() -> impl Strategy<Value = Failback> {
    prop_oneof![
        Just(Failback::Stay),
        Just(Failback::Cut),
        (1u32..4).prop_map(|minutes| Failback::Drain(MINUTE * minutes)),
    ]
}

proptest! {
    #[test]
    fn flows_are_cut_only_for_a_better_wan_and_not_before_their_time(
        balance in prop::sample::select(&Balance::ALL),
        policies in prop::collection::vec((0u8..3, failback()), 4),
        rounds in prop::collection::vec((prop::collection::vec(state(), 4), 0usize..6), 1..40),
    ) {
        let mut world = World::new(Failback::Stay, &[0; 4]);
        world.balance = balance;
        for (member, (priority, failback)) in world.members.iter_mut().zip(&policies) {
            (member.priority, member.failback) = (*priority, *failback);
        }
        // By path: since when it has not shared without a break, and whether
        // it has shared since its flows were last cut.
        let mut idle_since = [None; 5];
        let mut used = [false; 5];
        for (states, forced) in rounds {
            for (index, member) in world.members.iter_mut().enumerate() {
                member.forced = index == forced;
            }
            let steps = world.after(MINUTE / 2, &states);
            let decision = decide(balance, &world.members, &mut world.memory, world.now);
            let sharing = decision.active();
            let alive = sharing.iter().any(|path| decision.alive.contains(path));
            for member in &world.members {
                let path = usize::from(member.path);
                if alive && sharing.contains(&member.path) {
                    (used[path], idle_since[path]) = (true, None);
                } else if alive {
                    idle_since[path].get_or_insert(world.now);
                }
                let cut = steps.contains(&Step::Cut { path: member.path });
                if cut {
                    prop_assert!(used[path] && !sharing.contains(&member.path));
                    used[path] = false;
                    let idle = idle_since[path].map_or(Duration::ZERO, |since| world.now - since);
                    match member.failback {
                        Failback::Stay => prop_assert!(false, "cut although they may stay"),
                        Failback::Cut => {}
                        Failback::Drain(time) => prop_assert!(idle >= time),
                    }
                    let better = |path: &u8| {
                        let other = &world.members[usize::from(*path) - 1];
                        is_forced(other) || other.priority < member.priority
                            || balance == Balance::Failover
                                && (other.priority, other.path) < (member.priority, member.path)
                    };
                    prop_assert!(sharing.iter().all(better));
                }
                // Cut at once means at once.
                let best = sharing.iter().filter_map(|path| world.members.get(usize::from(*path) - 1));
                let outranked = best.map(|m| (!is_forced(m), m.priority)).min()
                    .is_some_and(|best| best < (!is_forced(member), member.priority));
                if alive && outranked && !sharing.contains(&member.path) && member.failback == Failback::Cut {
                    prop_assert!(!used[path]);
                }
                // What waits has a time, and it is not over.
                if let Some(until) = world.drains.until(member.path, member.failback) {
                    prop_assert!(until > world.now || !alive);
                }
            }
        }
    }
}
