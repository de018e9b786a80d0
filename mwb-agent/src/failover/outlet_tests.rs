use proptest::prelude::*;

use super::super::tests::member;
use super::super::{Carries, decide};
use super::*;
use crate::health::State;

fn prefer(paths: &[u8], balance: Balance) -> Targets {
    Targets { paths: paths.to_vec(), balance, strict: false }
}

fn strict(paths: &[u8], balance: Balance) -> Targets {
    Targets { strict: true, ..prefer(paths, balance) }
}

fn v4(targets: &Targets, members: &[Member]) -> Plan {
    let [v4, _] = decide_outlet(targets, members, &mut Memory::default(), Instant::now());
    v4
}

fn shares(plan: &Plan) -> Vec<u8> {
    plan.shares.keys().copied().collect()
}

#[test]
fn its_paths_share_whatever_their_priority_and_the_others_follow_by_theirs() {
    let members = [
        member(1, 0, State::Up),
        member(2, 7, State::Up),
        member(3, 2, State::Up),
        member(4, 9, State::Up),
    ];
    let plan = v4(&prefer(&[4, 1], Balance::RoundRobin), &members);
    assert_eq!(shares(&plan), [1, 4]);
    assert_eq!(plan.ranking, [4, 1, 3, 2]);
}

#[test]
fn the_first_named_has_all_with_failover() {
    let members = [member(1, 0, State::Up), member(2, 1, State::Up), member(3, 0, State::Up)];
    let plan = v4(&prefer(&[2, 3], Balance::Failover), &members);
    assert_eq!((shares(&plan), plan.ranking), (vec![2], vec![2, 3, 1]));
    let members = [member(1, 0, State::Up), member(2, 1, State::Down), member(3, 0, State::Up)];
    let plan = v4(&prefer(&[2, 3], Balance::Failover), &members);
    assert_eq!((shares(&plan), plan.ranking), (vec![3], vec![3, 1]));
}

#[test]
fn the_others_take_over_when_none_of_its_paths_is_usable() {
    let members = [member(1, 0, State::Down), member(2, 1, State::Up), member(3, 2, State::Up)];
    let plan = v4(&prefer(&[1], Balance::RoundRobin), &members);
    assert_eq!((shares(&plan), plan.ranking), (vec![2], vec![2, 3]));
}

#[test]
fn a_strict_one_waits_for_its_own() {
    let members = [member(1, 0, State::Down), member(2, 1, State::Up)];
    let plan = v4(&strict(&[1], Balance::RoundRobin), &members);
    assert_eq!((shares(&plan), plan.ranking), (vec![1], vec![1]));
}

#[test]
fn a_strict_one_leads_nowhere_if_its_paths_do_not_carry_the_family() {
    let mut only6 = member(1, 0, State::Up);
    (only6.v4, only6.v6) = (Carries::No, Carries::Yes);
    let members = [only6, member(2, 0, State::Up)];
    let targets = strict(&[1], Balance::Adaptive);
    let [v4, v6] = decide_outlet(&targets, &members, &mut Memory::default(), Instant::now());
    assert_eq!((shares(&v4), v4.ranking), (vec![], vec![]));
    assert_eq!(shares(&v6), [1]);
    let [v4, _] = decide_outlet(
        &prefer(&[1], Balance::Adaptive),
        &members,
        &mut Memory::default(),
        Instant::now(),
    );
    assert_eq!(shares(&v4), [2]);
}

#[test]
fn a_degraded_path_makes_way_for_good_ones_unless_it_is_strict() {
    let members = [member(1, 0, State::Degraded), member(2, 1, State::Up)];
    assert_eq!(shares(&v4(&prefer(&[1], Balance::Adaptive), &members)), [2]);
    assert_eq!(shares(&v4(&strict(&[1], Balance::Adaptive), &members)), [1]);
}

#[test]
fn what_the_operator_forces_counts_among_its_paths_or_among_the_others() {
    let mut members = [
        member(1, 0, State::Up),
        member(2, 0, State::Up),
        member(3, 5, State::Up),
        member(4, 1, State::Up),
    ];
    members[2].forced = true;
    let own = v4(&prefer(&[1, 3], Balance::RoundRobin), &members);
    assert_eq!((shares(&own), &own.ranking[..2]), (vec![3], &[3, 1][..]));
    let others = v4(&prefer(&[1, 2], Balance::RoundRobin), &members);
    assert_eq!((shares(&others), others.ranking), (vec![1, 2], vec![1, 2, 3, 4]));
}

#[test]
fn a_path_that_is_not_there_is_left_out() {
    let members = [member(1, 0, State::Up)];
    assert_eq!(shares(&v4(&strict(&[7, 1], Balance::RoundRobin), &members)), [1]);
    assert_eq!(v4(&strict(&[7], Balance::RoundRobin), &members), Plan::default());
}

const STATES: [State; 5] =
    [State::Up, State::Down, State::Degraded, State::Testing, State::Unknown];

proptest! {
    #[test]
    fn an_outlet_of_all_paths_with_one_priority_is_the_common_choice(
        states in prop::collection::vec(prop::sample::select(STATES.to_vec()), 1..8),
        balance in prop::sample::select(Balance::ALL.to_vec()),
        strict: bool,
    ) {
        let members: Vec<Member> =
            states.iter().zip(1..).map(|(state, path)| member(path, 0, *state)).collect();
        let paths = members.iter().map(|member| member.path).collect();
        let targets = Targets { paths, balance, strict };
        let now = Instant::now();
        let [v4, v6] = decide_outlet(&targets, &members, &mut Memory::default(), now);
        let common = decide(balance, &members, &mut Memory::default(), now);
        prop_assert_eq!((v4, v6), (common.v4, common.v6));
    }

    #[test]
    fn a_strict_outlet_never_names_another_path(
        states in prop::collection::vec(prop::sample::select(STATES.to_vec()), 1..8),
        balance in prop::sample::select(Balance::ALL.to_vec()),
        own in prop::collection::btree_set(1_u8..8, 1..4),
    ) {
        let members: Vec<Member> =
            states.iter().zip(1..).map(|(state, path)| member(path, path, *state)).collect();
        let targets = Targets { paths: own.iter().copied().collect(), balance, strict: true };
        let plan = v4(&targets, &members);
        prop_assert!(plan.shares.keys().chain(&plan.ranking).all(|path| own.contains(path)));
    }
}
