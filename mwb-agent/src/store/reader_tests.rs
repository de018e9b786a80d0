use std::error::Error as StdError;
use std::path::Path;
use std::time::Duration;

use super::{Period, Reader, grouped, reader};
use crate::store::accumulate::{Accumulator, Batch, Key};
use crate::store::db::Store;
use crate::store::error::Error;
use crate::store::level::{LEVELS, Retention, start_of};
use crate::store::record::{Change, Moment, Outcome, Round, State};
use crate::store::tally::Tally;

type Result<T = ()> = std::result::Result<T, Box<dyn StdError>>;

/// The start of an hour.
const START_S: i64 = 1_700_002_800;

/// A lost round each 10 s, in seconds from the start.
fn lost(from: i64, to: i64) -> Batch {
    let mut batch = Batch::default();
    let mut tally = Tally::default();
    tally.add_loss();
    for second in (from..to).step_by(10) {
        let key = Key { start_s: START_S + second, wan: "wan1".into(), method: "".into() };
        batch.rows.insert(key, tally.clone());
    }
    batch
}

fn written(path: &Path, batch: &Batch, rolled_up_at: i64) -> Result<(Store, Reader)> {
    let mut store = Store::open(path)?;
    store.write(batch)?;
    store.roll_up(START_S + rolled_up_at)?;
    Ok((store, reader(path)?))
}

fn told(periods: &[Period]) -> Vec<(i64, i64, u64)> {
    let told = |period: &Period| (period.start_s - START_S, period.length_s, period.tally.lost);
    periods.iter().map(told).collect()
}

#[test]
fn the_level_is_the_coarsest_that_gives_as_many_periods() -> Result {
    let dir = tempfile::tempdir()?;
    let (_store, reader) = written(&dir.path().join("history.db"), &lost(0, 7200), 7200)?;
    let ask = |to: i64, at_most| reader.periods("wan1", "", START_S, START_S + to, at_most);
    assert_eq!(told(&ask(30, 3)?), [(0, 10, 1), (10, 10, 1), (20, 10, 1)]);
    assert_eq!(told(&ask(60, 3)?), [(0, 20, 2), (20, 20, 2), (40, 20, 2)]);
    assert_eq!(told(&ask(900, 3)?), [(0, 300, 30), (300, 300, 30), (600, 300, 30)]);
    assert_eq!(told(&ask(7200, 2)?), [(0, 3600, 360), (3600, 3600, 360)]);
    assert_eq!(ask(7200, 0)?, ask(7200, 2)?);
    // Across a boundary the periods are longer.
    let across = reader.periods("wan1", "", START_S + 10, START_S + 40, 2)?;
    assert_eq!(across.iter().map(|period| period.tally.lost).sum::<u64>(), 3);
    assert!(across.len() <= 2 && across[0].length_s > 10, "{across:?}");
    assert_eq!(told(&ask(0, 3)?), []);
    assert!(reader.periods("wan2", "", START_S, START_S + 60, 3)?.is_empty());
    Ok(())
}

#[test]
fn what_is_not_yet_rolled_up_is_there_at_every_level() -> Result {
    let dir = tempfile::tempdir()?;
    // An hour and a half and a bit: rows of all three levels wait.
    let (_store, reader) = written(&dir.path().join("history.db"), &lost(0, 5720), 5720)?;
    let all = |at_most| -> Result<u64> {
        let periods = reader.periods("wan1", "", START_S, START_S + 7200, at_most)?;
        Ok(periods.iter().map(|period| period.tally.lost).sum())
    };
    assert_eq!((all(1)?, all(2)?, all(24)?, all(720)?), (572, 572, 572, 572));
    Ok(())
}

#[test]
fn times_whose_short_periods_are_gone_are_told_by_longer_ones() -> Result {
    let dir = tempfile::tempdir()?;
    let (mut store, reader) = written(&dir.path().join("history.db"), &lost(0, 86_400), 86_400)?;
    let retention = Retention { raw: Duration::from_secs(3600), ..Retention::default() };
    store.retain(START_S + 86_400, 0, &retention)?;
    let ask = |from: i64, to: i64, at_most| {
        reader.periods("wan1", "", START_S + from, START_S + to, at_most)
    };
    // Still there, gone, and gone in part.
    assert_eq!(told(&ask(86_000, 86_020, 2)?), [(86_000, 10, 1), (86_010, 10, 1)]);
    assert_eq!(told(&ask(600, 660, 6)?), [(600, 300, 30)]);
    let mixed = told(&ask(80_400, 84_000, 360)?);
    assert_eq!(mixed.len(), 12);
    assert!(mixed.iter().all(|&(_, length, lost)| (length, lost) == (300, 30)), "{mixed:?}");
    Ok(())
}

#[test]
fn slices_without_data_are_not_there() -> Result {
    let dir = tempfile::tempdir()?;
    let mut batch = lost(0, 20);
    batch.rows.extend(lost(40, 60).rows);
    let (_store, reader) = written(&dir.path().join("history.db"), &batch, 60)?;
    let periods = reader.periods("wan1", "", START_S, START_S + 60, 6)?;
    assert_eq!(told(&periods), [(0, 10, 1), (10, 10, 1), (40, 10, 1), (50, 10, 1)]);
    Ok(())
}

#[test]
fn a_span_never_has_more_periods_than_wished() {
    for length in LEVELS {
        for at_most in [2, 7, 72, 300] {
            for span in [1, 9, 10, 11, 719, 3600, 86_399, 2 * 86_400 + 1, 730 * 86_400] {
                for since in [0, 1, 9, 299, 3599, START_S + 7] {
                    let group = grouped(length, since, since + span, at_most);
                    let count =
                        (start_of(since + span - 1, group) - start_of(since, group)) / group + 1;
                    assert_eq!(group % length, 0);
                    assert!(count <= at_most, "{length} {at_most} {span} {since}: {count}");
                }
            }
        }
    }
}

#[test]
fn a_summary_has_the_rounds_of_the_method_and_the_states_of_the_wan() -> Result {
    let dir = tempfile::tempdir()?;
    let path = dir.path().join("history.db");
    let at = |second: i64| Moment {
        wall_ms: (START_S + second) * 1000,
        steady_ms: second.unsigned_abs() * 1000,
    };
    let mut accumulator = Accumulator::default();
    let mut change = |second, from, to| {
        let reason = format!("at {second}");
        let change =
            Change { wan: "wan1".into(), method: "ping".into(), at: at(second), from, to, reason };
        accumulator.change(change);
    };
    change(0, State::Unknown, State::Up);
    change(500, State::Up, State::Down);
    change(560, State::Down, State::Testing);
    change(600, State::Testing, State::Up);
    for second in 0..1000 {
        let (method, us) = if second % 4 == 0 { ("http", 80_000) } else { ("ping", 10_000) };
        let outcome = match (500..560).contains(&second) {
            true => Outcome::Lost,
            false => Outcome::Answered(Duration::from_micros(us)),
        };
        accumulator.round(&Round {
            wan: "wan1".into(),
            method: method.into(),
            at: at(second),
            outcome,
        });
    }
    let (_store, reader) = written(&path, &accumulator.take(at(1000)), 1000)?;

    let all = reader.summary("wan1", "", START_S, START_S + 1000)?;
    assert_eq!((all.tally.answered, all.tally.lost), (940, 60));
    assert_eq!(all.availability, Some(0.9));
    assert_eq!((all.outages.count, all.outages.longest_ms), (1, 100_000));
    assert_eq!(all.run.map(|run| (run.answered, run.length)), Some((true, 440)));
    let ping = reader.summary("wan1", "ping", START_S, START_S + 1000)?;
    assert_eq!((ping.tally.answered, ping.tally.lost), (705, 45));
    assert_eq!(ping.tally.range_us, Some((10_000, 10_000)));
    assert_eq!((ping.availability, ping.outages), (all.availability, all.outages));
    let changes = reader.changes("wan1", 2)?;
    let reasons: Vec<&str> = changes.iter().map(|change| &*change.reason).collect();
    assert_eq!(reasons, ["at 600", "at 560"]);
    assert_eq!((changes[0].from, changes[0].to), (State::Testing, State::Up));
    assert_eq!(changes[0].at.wall_ms, at(600).wall_ms);
    let series = reader.series()?;
    let names: Vec<(&str, &str)> = series.iter().map(|(wan, method)| (&**wan, &**method)).collect();
    assert_eq!(names, [("wan1", ""), ("wan1", "http"), ("wan1", "ping")]);
    Ok(())
}

#[test]
fn an_outage_is_not_drawn_out_over_time_that_nobody_watched() -> Result {
    let dir = tempfile::tempdir()?;
    let mut batch = lost(0, 60);
    batch.changes.push_back(Change {
        wan: "wan1".into(),
        method: "".into(),
        at: Moment { wall_ms: (START_S + 30) * 1000, steady_ms: 0 },
        from: State::Up,
        to: State::Down,
        reason: String::new(),
    });
    let (_store, reader) = written(&dir.path().join("history.db"), &batch, 60)?;
    let outages = reader.summary("wan1", "", START_S, START_S + 86_400)?.outages;
    assert_eq!((outages.count, outages.total_ms), (1, 30_000));
    assert_eq!(outages.open_since_ms, Some((START_S + 30) * 1000));
    Ok(())
}

#[test]
fn a_reader_sees_what_is_written_later_and_cannot_write() -> Result {
    let dir = tempfile::tempdir()?;
    let path = dir.path().join("history.db");
    let (mut store, reader) = written(&path, &lost(0, 10), 10)?;
    store.write(&lost(10, 20))?;
    assert_eq!(reader.summary("wan1", "", START_S, START_S + 60)?.tally.lost, 2);
    assert!(reader.db.execute_batch("DELETE FROM period").is_err());
    Ok(())
}

#[test]
fn where_there_is_no_history_the_error_says_so() -> Result {
    let dir = tempfile::tempdir()?;
    let path = dir.path().join("history.db");
    assert!(matches!(reader(&path), Err(Error::Missing { .. })));
    std::fs::write(&path, b"")?;
    assert!(matches!(reader(&path), Err(Error::Missing { .. })));
    assert!(!dir.path().join("history.db-wal").exists());
    Ok(())
}
