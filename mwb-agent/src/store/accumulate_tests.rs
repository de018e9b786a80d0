use std::time::Duration;

use super::{Accumulator, Batch, Key, MAX_CHANGES, MAX_ROWS, MAX_SERIES, Run, Tail};
use crate::store::record::{Change, Moment, Outcome, Round, State};
use crate::store::tally::Tally;

const START_MS: i64 = 1_700_000_000_000;

/// Both clocks run alike from `START_MS` on.
fn at(ms: u64) -> Moment {
    Moment { wall_ms: START_MS + ms as i64, steady_ms: 5_000 + ms }
}

fn round(wan: &str, method: &str, at: Moment, us: Option<u64>) -> Round {
    let outcome = match us {
        Some(us) => Outcome::Answered(Duration::from_micros(us)),
        None => Outcome::Lost,
    };
    Round { wan: wan.into(), method: method.into(), at, outcome }
}

fn change(wan: &str, at: Moment, from: State, to: State) -> Change {
    Change { wan: wan.into(), method: "".into(), at, from, to, reason: "test".to_owned() }
}

fn row<'a>(batch: &'a Batch, start_ms: i64, wan: &str, method: &str) -> Option<&'a Tally> {
    let key = Key { start_s: (START_MS + start_ms) / 1000, wan: wan.into(), method: method.into() };
    batch.rows.get(&key)
}

/// All rows of a series in one.
fn sum(batch: &Batch, method: &str) -> Tally {
    let mut sum = Tally::default();
    for (_, tally) in batch.rows.iter().filter(|(key, _)| &*key.method == method) {
        sum.merge(tally);
    }
    sum
}

#[test]
fn a_round_counts_for_its_method_and_for_all_together() {
    let mut accumulator = Accumulator::default();
    accumulator.round(&round("wan1", "ping", at(0), Some(10_000)));
    accumulator.round(&round("wan1", "http", at(1), Some(50_000)));
    accumulator.round(&round("wan1", "ping", at(9_999), None));
    accumulator.round(&round("wan1", "ping", at(10_000), None));
    let batch = accumulator.take(at(10_000));
    let told = |method, start| {
        row(&batch, start, "wan1", method).map(|row| (row.answered, row.lost, row.sum_us))
    };
    assert_eq!(told("ping", 0), Some((1, 1, 10_000)));
    assert_eq!(told("http", 0), Some((1, 0, 50_000)));
    assert_eq!(told("", 0), Some((2, 1, 60_000)));
    assert_eq!(told("", 10_000), Some((0, 1, 0)));
    assert_eq!(told("http", 10_000), None);
}

#[test]
fn jitter_follows_rfc_3550_within_a_method_and_does_not_mix_methods() {
    let mut accumulator = Accumulator::default();
    for (method, us) in [("ping", 1000), ("http", 90_000), ("ping", 1160), ("http", 90_000)] {
        accumulator.round(&round("wan1", method, at(0), Some(us)));
    }
    let batch = accumulator.take(at(1));
    // J = 0 + (160 - 0) / 16 = 10 µs; http stays even.
    assert_eq!(sum(&batch, "ping").jitter_us(), Some(10.0));
    assert_eq!(sum(&batch, "http").jitter_us(), Some(0.0));
    assert_eq!(sum(&batch, "").jitter_us(), Some(5.0));
}

#[test]
fn time_in_states_is_split_by_periods_and_changes() {
    let mut accumulator = Accumulator::default();
    accumulator.change(change("wan1", at(4_000), State::Unknown, State::Up));
    accumulator.change(change("wan1", at(12_000), State::Up, State::Down));
    let batch = accumulator.take(at(31_000));
    let states = |start| row(&batch, start, "wan1", "").map(|row| row.states_ms);
    assert_eq!(states(0), Some([0, 6_000, 0, 0, 0]));
    assert_eq!(states(10_000), Some([0, 2_000, 0, 0, 8_000]));
    assert_eq!(states(20_000), Some([0, 0, 0, 0, 10_000]));
    assert_eq!(states(30_000), Some([0, 0, 0, 0, 1_000]));
    assert_eq!(batch.changes.len(), 2);
    // What has been handed out is not counted again.
    let batch = accumulator.take(at(32_000));
    assert_eq!(sum(&batch, "").states_ms, [0, 0, 0, 0, 1_000]);
}

#[test]
fn a_wan_that_is_forgotten_spends_no_more_time() {
    let mut accumulator = Accumulator::default();
    accumulator.change(change("wan1", at(0), State::Unknown, State::Up));
    accumulator.forget(&"wan1".into(), at(3_000));
    assert_eq!(sum(&accumulator.take(at(60_000)), "").states_ms, [0, 3_000, 0, 0, 0]);
}

#[test]
fn a_clock_that_jumps_loses_and_doubles_neither_rounds_nor_time() {
    let year_ms = 365 * 86_400_000_i64;
    for jump_ms in [-10 * year_ms, -25_000, -1, 1, 25_000, 10 * year_ms] {
        let mut accumulator = Accumulator::default();
        let mut batches = Vec::new();
        accumulator.change(change("wan1", at(0), State::Unknown, State::Up));
        for second in 0..60 {
            let mut now = at(second * 1000);
            if second >= 30 {
                now.wall_ms += jump_ms;
            }
            accumulator.round(&round("wan1", "ping", now, Some(1000)));
            if second % 7 == 0 || second == 59 {
                batches.push(accumulator.take(now));
            }
        }
        let mut all = Tally::default();
        for batch in &batches {
            all.merge(&sum(batch, ""));
        }
        assert_eq!((all.answered, all.lost), (60, 0), "{jump_ms}");
        assert_eq!(all.states_ms, [0, 59_000, 0, 0, 0], "{jump_ms}");
    }
}

#[test]
fn a_batch_that_was_not_written_comes_again_with_what_came_since() {
    let run = |outcomes: &[bool], give_back: usize| {
        let mut accumulator = Accumulator::default();
        for (index, &answered) in outcomes.iter().enumerate() {
            let now = at(index as u64 * 4_000);
            accumulator.round(&round("wan1", "ping", now, answered.then_some(700)));
            if index % give_back == 0 {
                let batch = accumulator.take(now);
                accumulator.give_back(batch);
            }
        }
        accumulator.change(change("wan1", at(99_000), State::Unknown, State::Up));
        accumulator.take(at(100_000))
    };
    let outcomes = [true, true, false, true, true, true, false, false];
    for length in 1..=outcomes.len() {
        let never = run(&outcomes[..length], usize::MAX);
        for each in 1..4 {
            assert_eq!(run(&outcomes[..length], each), never, "{length} rounds, each {each}");
        }
    }
}

#[test]
fn the_last_run_says_whether_it_goes_on_with_the_one_before() {
    let series = ("wan1".into(), "ping".into());
    let mut accumulator = Accumulator::default();
    let mut tail = |outcomes: &[bool]| {
        for &answered in outcomes {
            accumulator.round(&round("wan1", "ping", at(0), answered.then_some(1)));
        }
        accumulator.take(at(0)).tails.get(&series).copied()
    };
    let told = |answered, length, whole| Some(Tail { run: Run { answered, length }, whole });
    assert_eq!(tail(&[true, true]), told(true, 2, true));
    assert_eq!(tail(&[true, false, false]), told(false, 2, false));
    assert_eq!(tail(&[]), None);
}

#[test]
fn a_million_rounds_of_32_wans_take_a_row_for_each_period_and_series() {
    let mut accumulator = Accumulator::default();
    let wans: Vec<String> = (0..32).map(|number| format!("wan{number}")).collect();
    let mut counted = 0;
    // Each WAN every 10 ms.
    for tick in 0..31_250_u64 {
        for (number, wan) in wans.iter().enumerate() {
            let us = (tick * 7919 + number as u64 * 104_729) % 500_000;
            accumulator.round(&round(wan, "ping", at(tick * 10), Some(us)));
        }
        if tick % 1000 == 999 {
            assert!(accumulator.batch.rows.len() <= 2 * 2 * 32);
            let batch = accumulator.take(at(tick * 10));
            counted += sum(&batch, "").answered;
        }
    }
    counted += sum(&accumulator.take(at(312_500)), "").answered;
    assert_eq!((counted, accumulator.given_up()), (1_000_000, 0));
}

#[test]
fn what_waits_for_the_disk_is_bounded_and_the_oldest_is_given_up() {
    let mut accumulator = Accumulator::default();
    let periods = MAX_ROWS as u64;
    for period in 0..periods {
        accumulator.round(&round("wan1", "ping", at(period * 10_000), Some(1)));
        accumulator.change(change("wan1", at(period * 10_000), State::Up, State::Down));
        let batch = accumulator.take(at(period * 10_000));
        accumulator.give_back(batch);
    }
    let given_up = accumulator.given_up();
    let batch = accumulator.take(at((periods - 1) * 10_000));
    assert_eq!((batch.rows.len(), batch.changes.len()), (MAX_ROWS, MAX_CHANGES));
    assert_eq!(given_up, periods + periods - MAX_CHANGES as u64);
    assert!(row(&batch, 0, "wan1", "").is_none());
    assert!(row(&batch, (periods as i64 - 1) * 10_000, "wan1", "").is_some());
}

#[test]
fn ever_new_names_do_not_fill_the_memory() {
    let mut accumulator = Accumulator::default();
    for number in 0..2 * MAX_SERIES {
        accumulator.round(&round(&format!("wan{number}"), "ping", at(0), None));
    }
    assert!(accumulator.wans.len() <= MAX_SERIES);
    assert_eq!(accumulator.given_up(), (2 * MAX_SERIES - MAX_SERIES / 2) as u64);
    accumulator.forget(&"wan0".into(), at(0));
    accumulator.round(&round("another", "ping", at(0), None));
    assert!(row(&accumulator.take(at(0)), 0, "another", "ping").is_some());
}

#[test]
fn a_reason_is_cut_between_two_letters() {
    let mut accumulator = Accumulator::default();
    let mut long = change("wan1", at(0), State::Up, State::Down);
    long.reason = "ö".repeat(400) + "x";
    accumulator.change(long);
    long = change("wan1", at(0), State::Up, State::Down);
    long.reason = "x".to_owned() + &"ö".repeat(400);
    accumulator.change(long);
    let lengths: Vec<usize> =
        accumulator.take(at(0)).changes.iter().map(|change| change.reason.len()).collect();
    assert_eq!(lengths, [500, 499]);
}
