//! The agent is killed, or the machine loses power, at any moment: what is found
//! then is the file with some first part of its log.

use std::error::Error;
use std::fs;
use std::path::Path;

use super::Store;
use super::tests::view;
use crate::store::accumulate::{Batch, Key};
use crate::store::level::Retention;
use crate::store::tally::Tally;

type Result<T = ()> = std::result::Result<T, Box<dyn Error>>;

const START_S: i64 = 1_700_002_800;
/// Series that each batch has a round of.
const SERIES: u64 = 3;

/// One lost round in each series.
fn batch(second: i64) -> Batch {
    let mut batch = Batch::default();
    let mut tally = Tally::default();
    tally.add_loss();
    for method in ["", "ping", "http"] {
        let key = Key { start_s: second, wan: "wan1".into(), method: method.into() };
        batch.rows.insert(key, tally.clone());
    }
    batch
}

/// Rounds that a level shows.
fn shown(store: &Store, level: usize) -> Result<u64> {
    Ok(view(store, level)?.values().map(|tally| tally.lost).sum())
}

/// Whole batches only, and every level shows the same.
fn consistent(store: &Store) -> Result<u64> {
    store.check()?;
    let rounds = shown(store, 0)?;
    assert_eq!(rounds % SERIES, 0, "a part of a batch");
    assert_eq!((shown(store, 1)?, shown(store, 2)?), (rounds, rounds));
    Ok(rounds / SERIES)
}

/// Opens a copy that has only so much of the log.
fn after_a_cut(from: &Path, to: &Path, log: &[u8]) -> Result<Store> {
    fs::copy(from, to)?;
    fs::write(to.with_extension("db-wal"), log)?;
    let shared = to.with_extension("db-shm");
    if shared.exists() {
        fs::remove_file(shared)?;
    }
    Ok(Store::open(to)?)
}

#[test]
fn a_cut_anywhere_in_the_log_leaves_whole_batches_and_levels_that_agree() -> Result {
    let dir = tempfile::tempdir()?;
    let (path, copy) = (dir.path().join("history.db"), dir.path().join("copy.db"));
    let mut store = Store::open(&path)?;
    // What was there before the log is in the file, and nothing of the log will be.
    store.db().query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(()))?;
    store.db().pragma_update_and_check(None, "wal_autocheckpoint", 0, |_| Ok(()))?;
    // Over two hours, so that both roll-ups happen; a late one among them.
    let seconds: Vec<i64> = (0..25).map(|step| START_S + step * 290 / 10 * 10).collect();
    for (number, &second) in seconds.iter().enumerate() {
        store.write(&batch(if number == 20 { START_S } else { second }))?;
        store.roll_up(second)?;
    }
    assert_eq!(consistent(&store)?, seconds.len() as u64);
    let log = fs::read(path.with_extension("db-wal"))?;
    let mut seen = 0;
    // Odd, so that cuts lie within frames and between them.
    for cut in (0..=log.len()).step_by(3037).chain([log.len()]) {
        let mut store = after_a_cut(&path, &copy, &log[..cut])?;
        let found = consistent(&store)?;
        assert!(found >= seen, "a longer log has less");
        assert!(cut > 0 || found == 0, "the file has what only the log should have");
        seen = found;
        // And it goes on from there.
        store.roll_up(START_S + 10_000)?;
        store.write(&batch(START_S))?;
        assert_eq!(consistent(&store)?, found + 1);
        drop(store);
        fs::remove_file(&copy)?;
    }
    assert_eq!(seen, seconds.len() as u64);
    Ok(())
}

#[test]
fn work_that_ends_at_any_statement_leaves_nothing_behind() -> Result {
    let dir = tempfile::tempdir()?;
    let path = dir.path().join("history.db");
    let mut store = Store::open(&path)?;
    store.write(&batch(START_S))?;
    store.write(&batch(START_S + 300))?;
    // The change of any one row fails, of whatever table, by one statement later each time.
    for table in ["period", "series", "believed"] {
        for step in 0..12 {
            let before = view(&store, 0)?;
            store.db().execute_batch(&format!(
                "CREATE TEMP TABLE left (n); INSERT INTO left VALUES ({step});
                 CREATE TEMP TRIGGER ends_i BEFORE INSERT ON main.{table} BEGIN
                     UPDATE left SET n = n - 1;
                     SELECT RAISE(ABORT, 'ended here') FROM left WHERE n < 0;
                 END;
                 CREATE TEMP TRIGGER ends_u BEFORE UPDATE ON main.{table} BEGIN
                     UPDATE left SET n = n - 1;
                     SELECT RAISE(ABORT, 'ended here') FROM left WHERE n < 0;
                 END;"
            ))?;
            let late = START_S + 8000;
            let is_written = store.write(&batch(START_S + 600)).is_ok();
            let after = view(&store, 0)?;
            assert_eq!(is_written, after != before, "{table} {step}");
            consistent(&store)?;
            let rolls = store.roll_up(late);
            consistent(&store)?;
            let keeps = store.retain(late, 0, &Retention::default());
            consistent(&store)?;
            if step == 0 && table == "period" {
                assert!(rolls.is_err());
            }
            if step == 0 && table == "believed" {
                assert!(keeps.is_err());
            }
            store
                .db()
                .execute_batch("DROP TRIGGER ends_i; DROP TRIGGER ends_u; DROP TABLE left")?;
        }
    }
    Ok(())
}

#[test]
fn a_store_that_is_dropped_without_an_end_is_whole() -> Result {
    let dir = tempfile::tempdir()?;
    let path = dir.path().join("history.db");
    for number in 1..=5 {
        let mut store = Store::open(&path)?;
        store.write(&batch(START_S + number))?;
        drop(store);
        assert_eq!(consistent(&Store::open(&path)?)?, number as u64);
    }
    Ok(())
}
