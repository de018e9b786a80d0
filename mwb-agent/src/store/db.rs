//! The history on disk: batches in, longer periods out of shorter ones, and what
//! is too old away. Each of the three is one transaction.
//!
//! **Roll-up.** A row is written to the 10 s level. When a longer period is over,
//! the rows in it that are not `rolled` are added to its row, and marked, in one
//! transaction; so each counts once, whenever the agent is killed. What comes late
//! for a row that is marked (the wall's clock went back) is added to the longer ones
//! too. At any time the rows of a level, with the unmarked ones of finer levels, are
//! all that was written; that is how the reader looks at it.
//!
//! Must not know: threads, how rounds are counted.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use rusqlite::{Connection, OptionalExtension, Transaction, TransactionBehavior, params};

use super::accumulate::{Batch, Run, joined};
use super::error::Error;
use super::level::{LEVELS, Retention, TOP, start_of};
use super::open;
use super::retain::{self, Believed};
use super::row::{AFTER, COLUMNS, SqlError, number, stored, tally};
use super::tally::Tally;

/// The open history.
pub struct Store {
    db: Connection,
    path: PathBuf,
}

impl Store {
    /// Opens a history for writing, and makes it if it is not there.
    ///
    /// # Errors
    /// [`Error::Newer`], [`Error::Foreign`], or [`Error::Open`] with what SQLite says.
    pub fn open(path: &Path) -> Result<Self, Error> {
        Ok(Self { db: open::for_writing(path)?, path: path.to_owned() })
    }

    /// Reads all of the file and looks whether it holds together.
    ///
    /// # Errors
    /// [`Error::Damaged`], or what SQLite says.
    pub fn check(&self) -> Result<(), Error> {
        open::check(&self.db, &self.path)
    }

    /// Adds a batch to what is there.
    pub(crate) fn write(&mut self, batch: &Batch) -> Result<(), Error> {
        self.work("write to the history", |tx| {
            for (key, tally) in &batch.rows {
                let series = series(tx, &key.wan, &key.method)?;
                add(tx, 0, series, key.start_s, tally)?;
            }
            for ((wan, method), tail) in &batch.tails {
                let series = series(tx, wan, method)?;
                let before = tx
                    .prepare_cached("SELECT run_answered, run_length FROM series WHERE id = ?1")?
                    .query_row([series], |row| {
                        Ok(Run { answered: row.get(0)?, length: number(row, 1)? })
                    })?;
                let before = (before.length > 0).then_some(before);
                let run = joined(before, *tail);
                tx.prepare_cached(
                    "UPDATE series SET run_answered = ?2, run_length = ?3 WHERE id = ?1",
                )?
                .execute(params![series, run.answered, stored(run.length)])?;
            }
            for change in &batch.changes {
                tx.prepare_cached(
                    "INSERT INTO change (wan, method, at_ms, from_state, to_state, reason)
                     VALUES (?1, ?2, ?3, ?4, ?5, ?6)",
                )?
                .execute(params![
                    &*change.wan,
                    &*change.method,
                    change.at.wall_ms,
                    change.from as i64,
                    change.to as i64,
                    change.reason,
                ])?;
            }
            Ok(())
        })
    }

    /// Makes longer periods of those that are over at `now_s`. Doing it again, or
    /// later, or after a crash changes nothing.
    pub(crate) fn roll_up(&mut self, now_s: i64) -> Result<(), Error> {
        self.work("sum up the history", |tx| {
            for level in 0..TOP {
                let longer = LEVELS[level + 1];
                let over = start_of(now_s, longer);
                let mut sums: BTreeMap<(i64, i64), Tally> = BTreeMap::new();
                {
                    let mut rows = tx.prepare_cached(&format!(
                        "SELECT {COLUMNS}, series, start FROM period INDEXED BY period_unrolled
                         WHERE rolled = 0 AND length = ?1 AND start < ?2"
                    ))?;
                    let mut rows = rows.query([LEVELS[level], over])?;
                    while let Some(row) = rows.next()? {
                        let (series, start): (i64, i64) = (row.get(AFTER)?, row.get(AFTER + 1)?);
                        let sum = sums.entry((series, start_of(start, longer))).or_default();
                        sum.merge(&tally(row)?);
                    }
                }
                if sums.is_empty() {
                    continue;
                }
                for ((series, start), sum) in sums {
                    add(tx, level + 1, series, start, &sum)?;
                }
                tx.prepare_cached(
                    "UPDATE period INDEXED BY period_unrolled SET rolled = 1
                     WHERE rolled = 0 AND length = ?1 AND start < ?2",
                )?
                .execute([LEVELS[level], over])?;
            }
            Ok(())
        })
    }

    /// Deletes what is older than the retention says, once the wall's clock is
    /// believed (see [`Believed`]). `steady_s` have passed since the last call.
    /// Returns whether it was believed.
    pub(crate) fn retain(
        &mut self,
        now_s: i64,
        steady_s: i64,
        retention: &Retention,
    ) -> Result<bool, Error> {
        self.work("delete old history", |tx| {
            let mut believed = Believed::load(tx)?;
            let is_believed = believed.looks_at(now_s, steady_s);
            believed.save(tx)?;
            if is_believed {
                retain::delete(tx, now_s, retention)?;
            }
            Ok(is_believed)
        })
    }

    fn work<T>(
        &mut self,
        what: &'static str,
        steps: impl FnOnce(&Transaction<'_>) -> Result<T, SqlError>,
    ) -> Result<T, Error> {
        let done = (|| {
            let tx = self.db.transaction_with_behavior(TransactionBehavior::Immediate)?;
            let done = steps(&tx)?;
            tx.commit()?;
            Ok(done)
        })();
        done.map_err(|error: SqlError| error.at(&self.path, what))
    }

    #[cfg(test)]
    pub(super) fn db(&self) -> &Connection {
        &self.db
    }
}

/// The number of a series, which it gets if it has none.
fn series(tx: &Transaction<'_>, wan: &str, method: &str) -> Result<i64, SqlError> {
    let found = tx
        .prepare_cached("SELECT id FROM series WHERE wan = ?1 AND method = ?2")?
        .query_row([wan, method], |row| row.get(0))
        .optional()?;
    if let Some(id) = found {
        return Ok(id);
    }
    tx.prepare_cached("INSERT INTO series (wan, method) VALUES (?1, ?2)")?
        .execute([wan, method])?;
    Ok(tx.last_insert_rowid())
}

/// Adds to the row of a period, and to the longer ones that it is part of already.
fn add(
    tx: &Transaction<'_>,
    first: usize,
    series: i64,
    start: i64,
    more: &Tally,
) -> Result<(), SqlError> {
    for (level, length) in LEVELS.into_iter().enumerate().skip(first) {
        let start = start_of(start, length);
        let found = tx
            .prepare_cached(&format!(
                "SELECT {COLUMNS}, rolled FROM period
                 WHERE length = ?1 AND series = ?2 AND start = ?3"
            ))?
            .query_and_then([length, series, start], |row| {
                Ok::<_, SqlError>((tally(row)?, row.get::<_, bool>(AFTER)?))
            })?
            .next()
            .transpose()?;
        // The coarsest level is part of nothing, so it never waits.
        let (mut sum, rolled) = found.unwrap_or((Tally::default(), level == TOP));
        sum.merge(more);
        let (min, max) = sum.range_us.unzip();
        let [unknown, up, degraded, testing, down] = sum.states_ms.map(stored);
        tx.prepare_cached(&format!(
            "INSERT OR REPLACE INTO period ({COLUMNS}, length, series, start, rolled)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15, ?16, ?17)"
        ))?
        .execute(params![
            stored(sum.answered),
            stored(sum.lost),
            min,
            max,
            stored(sum.sum_us),
            stored(sum.jitter_sum),
            stored(sum.jitter_count),
            unknown,
            up,
            degraded,
            testing,
            down,
            sum.histogram.to_bytes(),
            length,
            series,
            start,
            rolled,
        ])?;
        if !rolled {
            break;
        }
    }
    Ok(())
}

#[cfg(test)]
#[path = "crash_tests.rs"]
mod crash_tests;
#[cfg(test)]
#[path = "db_tests.rs"]
mod tests;
