use std::time::Duration;

use super::{COLUMNS, View, draw};
use crate::store::{Change, Histogram, Moment, Outages, Period, Run, State, Summary, Tally};

/// 2026-03-01 00:00:00 UTC.
const START_S: i64 = 1_772_323_200;
const DAY_S: i64 = 86_400;

fn tally(latency: Option<Duration>, rounds: u64, lost: u64, states_ms: [u64; 5]) -> Tally {
    let mut tally = Tally { lost, states_ms, ..Tally::default() };
    if let Some(latency) = latency {
        let us = latency.as_micros() as u32;
        let mut histogram = Histogram::default();
        (lost..rounds).for_each(|_| histogram.add(us));
        tally.answered = rounds - lost;
        tally.range_us = Some((us, us));
        tally.sum_us = u64::from(us) * tally.answered;
        tally.histogram = histogram;
        tally.jitter_count = tally.answered - 1;
        tally.jitter_sum = tally.jitter_count * 16 * 800;
    }
    tally
}

const UP: [u64; 5] = [0, 1_200_000, 0, 0, 0];

/// A day in 72 periods of 20 minutes, each as `of` says by its number.
fn day(of: impl Fn(u64) -> Option<Tally>) -> Vec<Period> {
    (0..72)
        .filter_map(|number| {
            let start_s = START_S + number as i64 * 1200;
            of(number).map(|tally| Period { start_s, length_s: 1200, tally })
        })
        .collect()
}

fn change(second: i64, from: State, to: State, reason: &str, method: &str) -> Change {
    let at = Moment { wall_ms: (START_S + second) * 1000, steady_ms: 0 };
    Change { wan: "wan1".into(), method: method.into(), at, from, to, reason: reason.to_owned() }
}

fn summary(periods: &[Period], outages: Outages) -> Summary {
    let mut tally = Tally::default();
    periods.iter().for_each(|period| tally.merge(&period.tally));
    Summary { availability: tally.availability(), tally, outages, run: None }
}

fn text(periods: &[Period], summary: &Summary, changes: &[Change], ascii: bool) -> String {
    let (wan, method) = ("wan1", "");
    let (since_s, until_s) = (START_S, START_S + DAY_S);
    draw(&View { wan, method, since_s, until_s, periods, summary, changes }, ascii)
}

/// A day with all that can be seen: a wave, losses of each size, all states.
fn full() -> (Vec<Period>, Summary, Vec<Change>) {
    let periods = day(|number| {
        let wave = number.abs_diff(36);
        let latency = Duration::from_micros(8_000 + wave * wave * 25);
        let (lost, states) = match number {
            10 => (1, UP),
            20 => (20, [0, 900_000, 300_000, 0, 0]),
            21 => (100, [0, 0, 1_200_000, 0, 0]),
            22 => (600, [0, 600_000, 0, 100_000, 500_000]),
            23 => (0, [0, 1_100_000, 0, 100_000, 0]),
            _ => (0, UP),
        };
        Some(tally(Some(latency), 1200, lost, states))
    });
    let outages = Outages { count: 1, longest_ms: 600_000, total_ms: 600_000, open_since_ms: None };
    let mut summary = summary(&periods, outages);
    summary.run = Some(Run { answered: true, length: 57_600 });
    let changes = vec![
        change(28_000, State::Testing, State::Up, "stable for 100 s", "ping"),
        change(27_900, State::Down, State::Testing, "answers again", "ping"),
        change(27_400, State::Degraded, State::Down, "no carrier", ""),
    ];
    (periods, summary, changes)
}

#[test]
fn a_full_day() {
    let (periods, summary, changes) = full();
    let drawn = text(&periods, &summary, &changes, false);
    assert_eq!(drawn, include_str!("testdata/history-full.txt"));
}

#[test]
fn a_full_day_without_block_characters() {
    let (periods, summary, mut changes) = full();
    // Whatever a reason holds.
    changes[2].reason = "Kabel lose: \u{fc}\u{1b}[31m".to_owned();
    let drawn = text(&periods, &summary, &changes, true);
    assert!(drawn.bytes().all(|byte| byte == b'\n' || (b' '..=b'~').contains(&byte)));
    assert_eq!(drawn, include_str!("testdata/history-ascii.txt"));
}

#[test]
fn gaps_stay_blank() {
    let periods = day(|number| {
        let is_there = !(15..30).contains(&number) && number != 50;
        is_there.then(|| tally(Some(Duration::from_millis(20)), 1200, 0, UP))
    });
    let drawn = text(&periods, &summary(&periods, Outages::default()), &[], false);
    assert_eq!(drawn, include_str!("testdata/history-gaps.txt"));
}

#[test]
fn one_sample() {
    let periods = day(|number| {
        let states = [0, 10_000, 0, 0, 0];
        (number == 71).then(|| tally(Some(Duration::from_micros(345)), 1, 0, states))
    });
    let drawn = text(&periods, &summary(&periods, Outages::default()), &[], false);
    assert_eq!(drawn, include_str!("testdata/history-one.txt"));
}

#[test]
fn no_data() {
    let changes = [change(-9_000, State::Unknown, State::Up, "answers", "ping")];
    let drawn = text(&[], &Summary::default(), &changes, false);
    assert_eq!(drawn, include_str!("testdata/history-none.txt"));
}

#[test]
fn down_all_day() {
    let periods = day(|_| Some(tally(None, 1200, 1200, [0, 0, 0, 0, 1_200_000])));
    let outages = Outages {
        count: 1,
        longest_ms: 86_400_000,
        total_ms: 86_400_000,
        open_since_ms: Some(START_S * 1000),
    };
    let mut summary = summary(&periods, outages);
    summary.run = Some(Run { answered: false, length: 86_400 });
    let drawn = text(&periods, &summary, &[], false);
    assert_eq!(drawn, include_str!("testdata/history-down.txt"));
}

#[test]
fn latencies_from_a_tenth_of_a_millisecond_to_a_second() {
    let periods = day(|number| {
        let us = 100.0 * 10_f64.powf(number as f64 / 71.0 * 4.0);
        Some(tally(Some(Duration::from_micros(us as u64)), 1200, 0, UP))
    });
    let drawn = text(&periods, &summary(&periods, Outages::default()), &[], false);
    assert_eq!(drawn, include_str!("testdata/history-range.txt"));
}

#[test]
fn no_line_is_wider_than_the_columns_and_the_axis_whatever_the_span() {
    for (length_s, count) in [(10, 7), (10, 2_000), (300, 1), (300, 500), (3600, 17_520)] {
        let periods: Vec<Period> = (0..count)
            .map(|number| Period {
                start_s: START_S + number * length_s,
                length_s,
                tally: tally(Some(Duration::from_millis(9)), 10, 1, UP),
            })
            .collect();
        let summary = summary(&periods, Outages::default());
        for since_s in [START_S, START_S + 7, START_S - 5 * length_s] {
            let until_s = START_S + count * length_s;
            let view = View {
                wan: "wan1",
                method: "ping",
                since_s,
                until_s,
                periods: &periods,
                summary: &summary,
                changes: &[],
            };
            let drawn = draw(&view, false);
            let chart = drawn.lines().filter(|line| line.contains(['│', '┤', '└']));
            assert_eq!(chart.clone().count(), 11);
            assert!(chart.clone().all(|line| line.chars().count() <= 9 + COLUMNS), "{drawn}");
            // Every column of the data is drawn: none is lost to rounding.
            let drawn_columns = chart
                .filter(|line| line.contains("loss"))
                .map(|line| line.chars().filter(|mark| "!#:.".contains(*mark)).count() as i64);
            let columns = drawn_columns.sum::<i64>();
            assert!(
                columns > 0 && columns <= count && columns * 2 * length_s >= count.min(36),
                "{drawn}"
            );
        }
    }
}
