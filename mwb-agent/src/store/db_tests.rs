use std::collections::BTreeMap;
use std::error::Error as StdError;
use std::time::Duration;

use proptest::prelude::*;

use super::Store;
use crate::store::accumulate::{Accumulator, Batch};
use crate::store::error::Error;
use crate::store::level::{LEVELS, start_of};
use crate::store::record::{Change, Moment, Outcome, Round, State};
use crate::store::tally::Tally;

type Result<T = ()> = std::result::Result<T, Box<dyn StdError>>;

/// Rows of a level by series and start.
pub(super) type Rows = BTreeMap<(i64, i64), Tally>;

/// What a level shows: its rows, and those of finer levels that are not yet in them.
pub(super) fn view(store: &Store, level: usize) -> Result<Rows> {
    let mut all = Rows::new();
    for (finer, length) in LEVELS.into_iter().enumerate().take(level + 1) {
        let mut rows = store.db().prepare(&format!(
            "SELECT {}, series, start FROM period WHERE length = ?1 AND (rolled = 0 OR ?2)",
            super::COLUMNS
        ))?;
        let mut rows = rows.query((length, finer == level))?;
        while let Some(row) = rows.next()? {
            let start = start_of(row.get("start")?, LEVELS[level]);
            let tally = super::tally(row).map_err(|error| format!("{error:?}"))?;
            all.entry((row.get("series")?, start)).or_default().merge(&tally);
        }
    }
    Ok(all)
}

fn moment(second: i64, steady_s: u64) -> Moment {
    Moment { wall_ms: second * 1000, steady_ms: steady_s * 1000 }
}

/// A round of `wan<n>` at a second of the wall's clock.
fn round(wan: u8, method: &str, second: i64, us: Option<u32>) -> Round {
    let outcome = match us {
        Some(us) => Outcome::Answered(Duration::from_micros(us.into())),
        None => Outcome::Lost,
    };
    let wan = format!("wan{wan}").into();
    Round { wan, method: method.into(), at: moment(second, 0), outcome }
}

fn batch(rounds: &[Round]) -> Batch {
    let mut accumulator = Accumulator::default();
    rounds.iter().for_each(|round| accumulator.round(round));
    accumulator.take(moment(0, 0))
}

/// Rounds, in the order that they come; now and then the clock goes back.
fn rounds() -> impl Strategy<Value = Vec<(u8, bool, i64, Option<u32>)>> {
    let at = prop_oneof![3 => 0_i64..20_000, 1 => -40_000_i64..40_000];
    prop::collection::vec((0_u8..3, any::<bool>(), at, prop::option::of(1_u32..2_000_000)), 1..120)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn rolled_up_rounds_are_what_counting_them_by_the_hour_gives(
        rounds in rounds(),
        writes in 1_usize..8,
        end in 0_i64..60_000,
    ) {
        let start = 1_700_000_000;
        let rounds: Vec<Round> = rounds
            .into_iter()
            .map(|(wan, pings, second, us)| {
                round(wan, if pings { "ping" } else { "http" }, start + second, us)
            })
            .collect();
        let dir = tempfile::tempdir()?;
        let mut store = Store::open(&dir.path().join("history.db"))?;
        let mut now = start;
        for part in rounds.chunks(rounds.len().div_ceil(writes)) {
            // Parts of one series, so that jitter is the accumulator's only concern.
            store.write(&batch(part))?;
            now = now.max(part.iter().map(|round| round.at.wall_s()).max().unwrap_or(now));
            store.roll_up(now)?;
        }
        store.roll_up(start + end)?;
        store.roll_up(start + end)?;

        let mut direct: [Rows; 3] = Default::default();
        for part in rounds.chunks(rounds.len().div_ceil(writes)) {
            for (key, tally) in batch(part).rows {
                let series = store.db().query_row(
                    "SELECT id FROM series WHERE wan = ?1 AND method = ?2",
                    [&*key.wan, &*key.method],
                    |row| row.get(0),
                )?;
                for (rows, length) in direct.iter_mut().zip(LEVELS) {
                    let start = start_of(key.start_s, length);
                    rows.entry((series, start)).or_default().merge(&tally);
                }
            }
        }
        for (level, direct) in direct.iter().enumerate() {
            let view = view(&store, level).map_err(|error| TestCaseError::fail(error.to_string()))?;
            prop_assert_eq!(&view, direct, "level {}", level);
        }
    }
}

#[test]
fn what_is_over_is_rolled_up_and_what_is_not_waits() -> Result {
    let dir = tempfile::tempdir()?;
    let mut store = Store::open(&dir.path().join("history.db"))?;
    let hour = start_of(1_700_000_000, 3600);
    store.write(&batch(&[
        round(1, "", hour, Some(1)),
        round(1, "", hour + 290, None),
        round(1, "", hour + 300, None),
    ]))?;
    let rows = |store: &Store| -> Result<Vec<(i64, i64, bool)>> {
        Ok(store
            .db()
            .prepare("SELECT length, start, rolled FROM period ORDER BY length, start")?
            .query_map([], |row| Ok((row.get(0)?, row.get::<_, i64>(1)? - hour, row.get(2)?)))?
            .collect::<std::result::Result<_, _>>()?)
    };
    store.roll_up(hour + 299)?;
    assert_eq!(rows(&store)?, [(10, 0, false), (10, 290, false), (10, 300, false)]);
    store.roll_up(hour + 300)?;
    let wanted = [(10, 0, true), (10, 290, true), (10, 300, false), (300, 0, false)];
    assert_eq!(rows(&store)?, wanted);
    store.roll_up(hour + 3600)?;
    let wanted = [
        (10, 0, true),
        (10, 290, true),
        (10, 300, true),
        (300, 0, true),
        (300, 300, true),
        (3600, 0, true),
    ];
    assert_eq!(rows(&store)?, wanted);
    Ok(())
}

#[test]
fn the_rest_of_a_period_after_a_restart_goes_to_the_same_row() -> Result {
    let dir = tempfile::tempdir()?;
    let path = dir.path().join("history.db");
    let (first, second) =
        (round(1, "ping", 1_700_000_001, Some(9)), round(1, "ping", 1_700_000_008, None));
    for part in [&first, &second] {
        Store::open(&path)?.write(&batch(std::slice::from_ref(part)))?;
    }
    let store = Store::open(&path)?;
    let mut apart = Tally::default();
    apart.add_answer(9, None);
    apart.add_loss();
    let rows: Vec<Tally> = view(&store, 0)?.into_values().collect();
    assert_eq!(rows, [apart.clone(), apart]);
    Ok(())
}

#[test]
fn a_run_goes_on_over_writes_and_restarts_until_it_breaks() -> Result {
    let dir = tempfile::tempdir()?;
    let path = dir.path().join("history.db");
    let mut told = Vec::new();
    for outcomes in [&[true, true][..], &[true], &[true, false], &[false, false], &[true]] {
        let rounds: Vec<Round> = outcomes
            .iter()
            .map(|answered| round(1, "ping", 1_700_000_000, answered.then_some(1)))
            .collect();
        let mut store = Store::open(&path)?;
        store.write(&batch(&rounds))?;
        let run = crate::store::reader(&path)?.summary("wan1", "ping", 0, 1)?.run;
        told.push(run.map(|run| (run.answered, run.length)));
    }
    let wanted = [(true, 2), (true, 3), (false, 1), (false, 3), (true, 1)].map(Some);
    assert_eq!(told, wanted);
    Ok(())
}

#[test]
fn a_full_disk_is_an_error_and_nothing_of_the_batch_is_written() -> Result {
    let dir = tempfile::tempdir()?;
    let mut store = Store::open(&dir.path().join("history.db"))?;
    let pages: i64 = store.db().pragma_query_value(None, "page_count", |row| row.get(0))?;
    store.db().pragma_update_and_check(None, "max_page_count", pages, |_| Ok(()))?;
    let mut full = Batch::default();
    for _ in 0..500 {
        full.changes.push_back(Change {
            wan: "wan1".into(),
            method: "ping".into(),
            at: moment(0, 0),
            from: State::Up,
            to: State::Down,
            reason: "x".repeat(200),
        });
    }
    let error = store.write(&full).err().map(|error| error.to_string()).unwrap_or_default();
    assert!(error.contains("cannot write to the history: database or disk is full"), "{error}");
    let count = |store: &Store| -> Result<i64> {
        Ok(store.db().query_row("SELECT count(*) FROM change", [], |row| row.get(0))?)
    };
    assert_eq!(count(&store)?, 0);
    store.db().pragma_update_and_check(None, "max_page_count", 10_000, |_| Ok(()))?;
    store.write(&full)?;
    assert_eq!(count(&store)?, 500);
    Ok(())
}

#[test]
fn a_newer_schema_and_a_foreign_file_are_refused_and_left_alone() -> Result {
    let dir = tempfile::tempdir()?;
    let newer = dir.path().join("newer.db");
    Store::open(&newer)?.db().pragma_update(None, "user_version", 7)?;
    let foreign = dir.path().join("foreign.db");
    rusqlite::Connection::open(&foreign)?.execute_batch("CREATE TABLE t (a)")?;
    let before = std::fs::read(&foreign)?;

    let error = Store::open(&newer).err().ok_or("opened")?;
    assert!(matches!(error, Error::Newer { found: 7, known: 1, .. }), "{error}");
    assert!(error.to_string().contains("newer.db: the history has schema 7, and this release"));
    assert!(matches!(crate::store::reader(&newer), Err(Error::Newer { .. })));
    assert!(matches!(Store::open(&foreign), Err(Error::Foreign { .. })));
    assert_eq!(std::fs::read(&foreign)?, before);
    Ok(())
}

#[test]
fn a_row_that_no_release_writes_is_damage() -> Result {
    let dir = tempfile::tempdir()?;
    let mut store = Store::open(&dir.path().join("history.db"))?;
    let rounds = batch(&[round(1, "ping", 1_700_000_000, Some(5))]);
    for broken in ["histogram = x'80'", "lost = -1", "min_us = -3"] {
        store.db().execute_batch("DELETE FROM period")?;
        store.write(&rounds)?;
        store.db().execute_batch(&format!("UPDATE period SET {broken}"))?;
        let error = store.write(&rounds).err().ok_or("written")?;
        assert!(error.is_damage(), "{broken}: {error}");
    }
    Ok(())
}
