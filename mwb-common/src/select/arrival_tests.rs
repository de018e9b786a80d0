use bytemuck::Zeroable as _;
use proptest::prelude::*;

use super::*;
use crate::maps::BOND_PATHS;

const NOW: u64 = 1_000_000_000_000;
const ALIVE: u64 = NOW + 3_600_000_000_000;
const MS: u64 = 1_000_000;
const NEW: Flow = Flow { path: 0, pause: 0, elephant: false };

/// [`BondPath::byte_time`] of a rate.
fn byte_time(mbit: u64) -> u32 {
    u32::try_from(8_000 * 1024 / mbit).unwrap_or(u32::MAX)
}

fn path(mbit: u64, delay_ms: u64) -> Facts {
    let delay = u32::try_from(delay_ms * MS).unwrap_or(u32::MAX);
    let byte_time = byte_time(mbit);
    Facts {
        flags: bond_path_flag::PRESENT,
        byte_time,
        delay,
        striped_delay: delay,
        alive_until: ALIVE,
        busy_until: 0,
    }
}

/// Paths get ids from 1.
fn choose(now: u64, stripe: u32, flow: Flow, length: u32, paths: &[Facts]) -> Chosen {
    let mut choice = Choice::new(now, stripe, flow);
    for (id, facts) in (1..).zip(paths) {
        choice.consider(id, length, facts);
    }
    choice.decide()
}

fn send(now: u64, length: u32, path: &mut Facts) -> u64 {
    path.busy_until = busy(now, path.busy_until, length, path.byte_time);
    path.busy_until + u64::from(path.delay)
}

#[test]
fn a_new_flow_goes_where_its_packet_arrives_first() {
    let mut paths = [path(100, 10), path(20, 60)];
    assert_eq!(choose(NOW, 0, NEW, 1_400, &paths).path, 1);
    paths[0].busy_until = NOW + 60 * MS;
    assert_eq!(choose(NOW, 0, NEW, 1_400, &paths).path, 2);
}

#[test]
fn a_path_that_takes_longer_for_a_byte_is_later_for_a_long_packet_only() {
    let paths = [path(1, 0), path(100, 5)];
    assert_eq!(choose(NOW, 0, NEW, 100, &paths).path, 1);
    assert_eq!(choose(NOW, 0, NEW, 1_400, &paths).path, 2);
}

#[test]
fn a_path_that_no_answer_comes_by_is_left_at_once() {
    let mut paths = [path(100, 10), path(1, 200)];
    paths[0].alive_until = NOW;
    let flow = Flow { path: 1, ..NEW };
    let chosen = choose(NOW, 0b10, Flow { elephant: true, ..flow }, 1_400, &paths);
    assert_eq!(chosen, Chosen { path: 2, striped: false, forced: false });
    assert_eq!(choose(NOW, 0, flow, 1_400, &paths).path, 2);
}

#[test]
fn a_path_that_is_down_or_parked_waits_for_the_others_to_die() {
    for flag in [bond_path_flag::DOWN, bond_path_flag::PARKED] {
        let mut paths = [path(100, 10), path(1, 200)];
        paths[0].flags |= flag;
        assert_eq!(choose(NOW, 0, Flow { path: 1, ..NEW }, 1_400, &paths).path, 2);
        paths[1].alive_until = 0;
        let chosen = choose(NOW, 0, Flow { path: 2, ..NEW }, 1_400, &paths);
        let forced = flag == bond_path_flag::DOWN;
        // If none lives, the flow stays: all are as good as its own.
        assert_eq!(chosen.forced, forced, "{flag}");
        assert_eq!(chosen.path, 1, "{flag}");
    }
}

#[test]
fn if_none_lives_the_packet_goes_nevertheless_and_is_marked() {
    let mut dead = path(10, 10);
    dead.alive_until = 0;
    let chosen = choose(NOW, 0, NEW, 1_400, &[dead, dead]);
    assert_eq!(chosen, Chosen { path: 1, striped: false, forced: true });
    assert_eq!(choose(NOW, 0, NEW, 1_400, &[]), Chosen { path: 0, striped: false, forced: false });
}

#[test]
fn a_small_flow_stays_within_its_patience_and_leaves_beyond() {
    let mut paths = [path(1_000_000, 0), path(1_000_000, 0)];
    let flow = Flow { path: 2, pause: 0, elephant: false };
    paths[1].busy_until = NOW + PATIENCE - MS;
    assert_eq!(choose(NOW, 0, flow, 1_400, &paths).path, 2);
    paths[1].busy_until = NOW + PATIENCE + MS;
    assert_eq!(choose(NOW, 0, flow, 1_400, &paths).path, 1);
}

#[test]
fn a_flow_moves_in_a_pause_only_if_nothing_is_overtaken() {
    let mut paths = [path(1_000_000, 0), path(1_000_000, 0)];
    paths[1].busy_until = NOW + 10 * MS;
    let at =
        |pause, elephant| choose(NOW, 0, Flow { path: 2, pause, elephant }, 1_400, &paths).path;
    for elephant in [false, true] {
        assert_eq!(at(10 * MS + GRAIN - 1, elephant), 2);
        assert_eq!(at(10 * MS + GRAIN + MS, elephant), 1);
    }
    paths[1].busy_until = NOW + GRAIN - MS;
    let flow = Flow { path: 2, pause: u64::from(u32::MAX), elephant: false };
    assert_eq!(choose(NOW, 0, flow, 1_400, &paths).path, 2, "for next to nothing");
}

#[test]
fn an_elephant_goes_home_and_does_not_flee_from_its_own_queue() {
    let mut paths = [path(100, 10), path(20, 0)];
    let flow = Flow { path: 2, pause: 0, elephant: true };
    assert_eq!(choose(NOW, 0b10, flow, 1_400, &paths).path, 1);
    paths[0].busy_until = NOW + QUEUE;
    let chosen = choose(NOW, 0b10, Flow { path: 1, ..flow }, 1_400, &paths);
    assert_eq!(chosen, Chosen { path: 1, striped: false, forced: false });
    let chosen = choose(NOW, 0, Flow { path: 1, ..flow }, 1_400, &paths);
    assert_eq!(chosen.path, 1, "nor without a home");
    let chosen = choose(NOW, 0, Flow { path: 1, elephant: false, ..flow }, 1_400, &paths);
    assert_eq!(chosen.path, 2, "but a small one does");
}

#[test]
fn equal_paths_share_an_elephant_evenly() {
    let mut paths = [path(50, 0), path(50, 0), path(50, 0), path(50, 0)];
    let mut taken = [0u32; 4];
    let mut flow = Flow { path: 1, pause: 0, elephant: true };
    for number in 0..4_000u64 {
        let now = NOW + number * 50_000;
        let chosen = choose(now, 0b11110, flow, 1_400, &paths);
        assert!(chosen.striped);
        flow.path = chosen.path;
        let index = usize::from(chosen.path) - 1;
        send(now, 1_400, &mut paths[index]);
        taken[index] += 1;
    }
    // Four at 50 Mbit/s are not full at 20,000 packets a second of 224 Mbit/s: over it.
    assert!(taken.iter().all(|taken| taken.abs_diff(1_000) <= 1), "{taken:?}");
}

#[test]
fn paths_that_are_not_equal_share_it_in_proportion_once_they_are_full() {
    let mut paths = [path(100, 10), path(20, 60)];
    let mut bytes = [0u64; 2];
    // 119 Mbit/s for 4 s.
    for number in 0..42_500u64 {
        let now = NOW + number * 94_118;
        let flow = Flow { path: 1, pause: 94_118, elephant: true };
        let index = usize::from(choose(now, 0b110, flow, 1_400, &paths).path) - 1;
        send(now, 1_400, &mut paths[index]);
        bytes[index] += 1_400;
    }
    let part = bytes[1] as f64 / (bytes[0] + bytes[1]) as f64;
    assert!((0.14..0.18).contains(&part), "{part}");
}

#[test]
fn a_flow_is_an_elephant_by_what_it_carries_in_a_tenth_of_a_second() {
    let mut weight = Weight::default();
    // 5 Mbit/s are 62,500 bytes in 100 ms.
    for number in 0..44 {
        weight = weight.count(NOW + number, 1_400, 62_500);
        assert!(!weight.elephant, "{number}");
    }
    let quick = weight.count(NOW + 44, 1_400, 62_500);
    assert!(quick.elephant);
    let late = weight.count(NOW + WINDOW, 1_400, 62_500);
    assert!(!late.elephant && late.bytes == 1_400);
}

#[test]
fn an_elephant_that_wavers_stays_one_and_one_that_rests_is_none() {
    let limit = 62_500;
    let elephant = Weight { from: NOW, bytes: 0, elephant: false }.count(NOW, limit, limit);
    assert!(elephant.elephant);
    // Half the rate, in bursts of a round-trip time of 300 ms.
    let mut wavering = elephant;
    for burst in 1..40u64 {
        wavering = wavering.count(NOW + burst * 300 * MS, limit * 3 / 2, limit);
        assert!(wavering.elephant, "{burst}");
    }
    // A tenth of it.
    let mut resting = elephant;
    let mut windows = 0;
    while resting.elephant {
        windows += 1;
        resting = resting.count(NOW + windows * WINDOW, limit / 10, limit);
        assert!(windows < 30);
    }
    assert!(windows > 9, "{windows}");
    assert_eq!(resting.bytes, limit / 10);
    assert!(!elephant.count(NOW + 8 * WINDOW, 100, limit).elephant);
}

#[test]
fn facts_are_those_of_the_maps() {
    let path =
        BondPath { flags: 1, byte_time: 2, delay: 3, striped_delay: 4, ..BondPath::zeroed() };
    let state = PathState { alive_until: 5, busy_until: 6, ..PathState::zeroed() };
    let facts =
        Facts { flags: 1, byte_time: 2, delay: 3, striped_delay: 4, alive_until: 5, busy_until: 6 };
    assert_eq!(Facts::of(&path, &state), facts);
}

fn any_path() -> impl Strategy<Value = Facts> {
    (any::<[bool; 3]>(), 0u32..1 << 20, any::<[u32; 2]>(), 0u64..2 * QUEUE).prop_map(
        |([down, parked, alive], byte_time, [delay, striped_delay], busy)| Facts {
            flags: bond_path_flag::PRESENT
                | if down { bond_path_flag::DOWN } else { 0 }
                | if parked { bond_path_flag::PARKED } else { 0 },
            byte_time,
            delay,
            striped_delay,
            alive_until: if alive { ALIVE } else { NOW - 1 },
            busy_until: NOW - QUEUE + busy,
        },
    )
}

fn any_flow() -> impl Strategy<Value = Flow> {
    (0u8..BOND_PATHS as u8, any::<u32>(), any::<bool>()).prop_map(|(path, pause, elephant)| Flow {
        path,
        pause: u64::from(pause),
        elephant,
    })
}

proptest! {
    #[test]
    fn no_path_that_does_not_live_is_taken_while_another_does(
        paths in prop::collection::vec(any_path(), 1..BOND_PATHS), flow in any_flow(),
        stripe: u32, length in 0u32..65_536,
    ) {
        let chosen = choose(NOW, stripe, flow, length, &paths);
        prop_assert!(chosen.path != 0);
        let taken = &paths[usize::from(chosen.path) - 1];
        let parked = |facts: &Facts| facts.flags & bond_path_flag::PARKED != 0;
        let any_lives = paths.iter().any(|facts| facts.lives(NOW));
        let any_good = paths.iter().any(|facts| facts.lives(NOW) && !parked(facts));
        prop_assert_eq!(taken.lives(NOW), any_lives);
        prop_assert_eq!(chosen.forced, !any_lives);
        prop_assert!(!any_good || !parked(taken));
        prop_assert_eq!(chosen.striped, flow.elephant && (stripe as u16).count_ones() > 1);
        let of_stripe = |id: u8| stripe >> id & 1 == 1;
        let any_of_stripe = (1u8..)
            .zip(&paths)
            .any(|(id, facts)| of_stripe(id) && facts.lives(NOW) && !parked(facts));
        prop_assert!(!flow.elephant || !any_of_stripe || of_stripe(chosen.path));
    }

    #[test]
    fn only_paths_that_were_considered_are_taken(
        paths in prop::collection::vec((any_path(), any::<bool>()), 1..BOND_PATHS),
        flow in any_flow(), stripe: u32,
    ) {
        // What is too small for the packet is not considered.
        let mut choice = Choice::new(NOW, stripe, flow);
        for (id, (facts, fits)) in (1u8..).zip(&paths) {
            if *fits {
                choice.consider(id, 1_400, facts);
            }
        }
        let chosen = choice.decide().path;
        if paths.iter().any(|(_, fits)| *fits) {
            prop_assert!(paths[usize::from(chosen) - 1].1);
        } else {
            prop_assert_eq!(chosen, 0);
        }
    }

    #[test]
    fn a_small_flow_does_not_move_without_a_gain(
        mut paths in prop::collection::vec(any_path(), 1..BOND_PATHS),
        own in 0usize..BOND_PATHS, pause: u32,
    ) {
        let own = own % paths.len();
        paths[own].flags = bond_path_flag::PRESENT;
        paths[own].alive_until = ALIVE;
        let flow = Flow { path: own as u8 + 1, pause: u64::from(pause), elephant: false };
        let own = &paths[own];
        let chosen = choose(NOW, u32::MAX, flow, 1_400, &paths).path;
        if chosen != flow.path {
            let arrival = |facts: &Facts| {
                facts.busy_until.max(NOW) + sending(1_400, facts.byte_time)
                    + u64::from(facts.delay)
            };
            prop_assert!(arrival(own) > arrival(&paths[usize::from(chosen) - 1]) + GRAIN);
        }
    }

    /// Packets of one length that are sent by arrival come in the order that they were
    /// sent in, if rates and delays are what they are taken for.
    #[test]
    fn what_is_sent_by_arrival_comes_in_order(
        rates in prop::collection::vec((1u64..200, 0u64..100), 2..5),
        gaps in prop::collection::vec(0u64..2 * MS, 1..500), length in 60u32..1_500,
    ) {
        let mut paths: Vec<Facts> = rates.iter().map(|&(rate, delay)| path(rate, delay)).collect();
        let (mut now, mut last) = (NOW, 0);
        let flow = Flow { path: 1, pause: 0, elephant: true };
        for gap in gaps {
            now += gap;
            let full = |path: &Facts| path.busy_until + 20 * MS > now + QUEUE;
            // What is beyond the bound of the queues is lost, not late.
            prop_assume!(!paths.iter().any(full));
            let chosen = choose(now, u32::MAX, flow, length, &paths);
            let arrival = send(now, length, &mut paths[usize::from(chosen.path) - 1]);
            prop_assert!(arrival >= last, "{arrival} after {last}");
            last = arrival;
        }
    }

    #[test]
    fn a_queue_has_a_bound_and_never_ends_before_now(
        before: u32, length in 0u32..65_536, byte_time: u32,
    ) {
        let end = busy(NOW, NOW - QUEUE + u64::from(before) % (2 * QUEUE), length, byte_time);
        prop_assert!((NOW..=NOW + QUEUE).contains(&end));
    }

    #[test]
    fn weights_have_no_overflow(
        from: u32, elapsed: u64, bytes: u32, length: u32, limit: u32, elephant: bool,
    ) {
        let weight = Weight { from: u64::from(from), bytes, elephant };
        let counted = weight.count(u64::from(from).saturating_add(elapsed), length, limit);
        prop_assert!(counted.elephant || counted.bytes < limit.max(1));
    }
}
