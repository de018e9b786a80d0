use super::*;
use crate::config::Balance;
use crate::failover::tests::{decided, member, state};
use crate::failover::{Memory, decide};
use proptest::prelude::*;
use std::time::Instant;

/// Runs states through the ledger; priorities are the order.
fn ledger(balance: Balance, same_priority: bool, rounds: &[&[State]]) -> Vec<Vec<Change>> {
    let (mut ledger, mut memory) = (Ledger::default(), Memory::default());
    let mut told = Vec::new();
    for states in rounds {
        let members: Vec<Member> = (1u8..)
            .zip(*states)
            .map(|(path, &state)| member(path, if same_priority { 0 } else { path }, state))
            .collect();
        let decision = decide(balance, &members, &mut memory, Instant::now());
        told.push(ledger.enter(&decision, &members));
    }
    told
}

#[test]
fn a_failover_and_its_failback_are_told_once() {
    use State::{Down, Testing, Up};
    for same in [true, false] {
        let balance = if same { Balance::RoundRobin } else { Balance::Failover };
        let told = ledger(
            balance,
            same,
            &[&[Up, Up], &[Down, Up], &[Down, Up], &[Testing, Up], &[Up, Up]],
        );
        let failover = vec![Change::Failover { from: 1, to: vec![2] }];
        let failback = vec![Change::Failback { to: 1 }];
        assert_eq!(told, [vec![], failover, vec![], vec![], failback]);
    }
}

#[test]
fn the_loss_of_an_idle_wan_is_no_failover() {
    use State::{Down, Up};
    let told = ledger(Balance::Failover, false, &[&[Up, Up], &[Up, Down], &[Up, Up]]);
    assert_eq!(told, [vec![], vec![], vec![]]);
}

#[test]
fn leaving_a_degraded_wan_is_a_failover_and_the_return_a_failback() {
    use State::{Degraded, Up};
    let told = ledger(Balance::Failover, false, &[&[Up, Up], &[Degraded, Up], &[Up, Up]]);
    let failover = vec![Change::Failover { from: 1, to: vec![2] }];
    assert_eq!(told, [vec![], failover, vec![Change::Failback { to: 1 }]]);
}

#[test]
fn a_family_that_only_one_wan_carries_does_not_hide_the_others_failover() {
    let mut ledger = Ledger::default();
    let mut members = [member(1, 0, State::Up), member(2, 0, State::Up)];
    members[0].v6 = Carries::Yes;
    let mut enter =
        |members: &[Member]| ledger.enter(&decided(Balance::RoundRobin, members), members);
    assert_eq!(enter(&members), []);
    members[0].state = State::Down;
    assert_eq!(enter(&members), [Change::Failover { from: 1, to: vec![2] }]);
    members[0].state = State::Up;
    assert_eq!(enter(&members), [Change::Failback { to: 1 }]);
}

#[test]
fn a_failover_of_both_families_is_told_once() {
    let mut ledger = Ledger::default();
    let mut members = [member(1, 0, State::Up), member(2, 1, State::Up), member(3, 2, State::Up)];
    for member in &mut members {
        member.v6 = Carries::Yes;
    }
    members[1].v6 = Carries::No;
    let mut enter =
        |members: &[Member]| ledger.enter(&decided(Balance::Failover, members), members);
    assert_eq!(enter(&members), []);
    members[0].state = State::Down;
    assert_eq!(enter(&members), [Change::Failover { from: 1, to: vec![2, 3] }]);
    members[0].state = State::Up;
    assert_eq!(enter(&members), [Change::Failback { to: 1 }]);
}

#[test]
fn a_wan_that_was_down_at_a_restart_fails_back() {
    let mut ledger = Ledger::new([1]);
    let mut members = [member(1, 0, State::Down), member(2, 0, State::Up)];
    let mut enter =
        |members: &[Member]| ledger.enter(&decided(Balance::RoundRobin, members), members);
    assert_eq!(enter(&members), []);
    members[0].state = State::Up;
    assert_eq!(enter(&members), [Change::Failback { to: 1 }]);
}

#[test]
fn a_wan_that_loses_its_address_is_left() {
    let mut ledger = Ledger::default();
    let mut members = [member(1, 0, State::Up), member(2, 0, State::Up)];
    let mut enter =
        |members: &[Member]| ledger.enter(&decided(Balance::RoundRobin, members), members);
    assert_eq!(enter(&members), []);
    members[0].v4 = Carries::No;
    assert_eq!(enter(&members), [Change::Failover { from: 1, to: vec![2] }]);
}

#[test]
fn a_path_that_is_another_wans_has_no_failover_to_come_back_from() {
    let mut ledger = Ledger::default();
    let mut members = [member(1, 0, State::Down), member(2, 0, State::Up)];
    let enter = |ledger: &mut Ledger, members: &[Member]| {
        ledger.enter(&decided(Balance::RoundRobin, members), members)
    };
    members[0].state = State::Up;
    assert_eq!(enter(&mut ledger, &members), []);
    members[0].state = State::Down;
    assert_eq!(enter(&mut ledger, &members).len(), 1);
    ledger.forget(1);
    members[0].state = State::Up;
    assert_eq!(enter(&mut ledger, &members), []);
}

#[test]
fn when_all_are_down_that_is_told_and_the_first_to_return_takes_over() {
    use State::{Down, Up};
    let told = ledger(
        Balance::RoundRobin,
        true,
        &[&[Up, Up], &[Down, Up], &[Down, Down], &[Up, Down], &[Up, Up]],
    );
    assert_eq!(
        told,
        [
            vec![],
            vec![Change::Failover { from: 1, to: vec![2] }],
            vec![Change::NothingUsable],
            vec![Change::Failover { from: 2, to: vec![1] }, Change::Failback { to: 1 }],
            vec![Change::Failback { to: 2 }],
        ]
    );
}

proptest! {
    #[test]
    fn every_failback_follows_a_failover(
        balance in prop::sample::select(&Balance::ALL),
        rounds in prop::collection::vec(prop::collection::vec(state(), 4), 1..30),
    ) {
        let rounds: Vec<&[State]> = rounds.iter().map(Vec::as_slice).collect();
        let mut given_up = std::collections::BTreeSet::new();
        for change in ledger(balance, false, &rounds).into_iter().flatten() {
            match change {
                Change::Failover { from, to } => {
                    prop_assert!(given_up.insert(from));
                    prop_assert!(!to.contains(&from) && !to.is_empty());
                }
                Change::Failback { to } => prop_assert!(given_up.remove(&to)),
                Change::NothingUsable => {}
            }
        }
    }
}
