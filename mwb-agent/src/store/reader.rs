//! Questions to the history, while it is written or not.
//!
//! Must not know: how it is written, how answers are shown.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use rusqlite::{Connection, OptionalExtension, params};

use super::accumulate::Run;
use super::error::Error;
use super::level::{LEVELS, TOP, start_of};
use super::open;
use super::record::{Change, Moment, State};
use super::row::{AFTER, COLUMNS, SqlError, number, tally};
use super::tally::Tally;
use super::uptime::{Outages, outages};

/// Periods that a summary is made of, at most: what it holds is then right to some
/// 0.3 % of its span at both ends.
const SUMMARY_PERIODS: usize = 300;

/// What happened in one stretch of time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Period {
    /// Second of its start since 1970, a multiple of `length_s`.
    pub start_s: i64,
    /// Its length in seconds.
    pub length_s: i64,
    /// What it holds.
    pub tally: Tally,
}

/// What is said about a span in one piece.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Summary {
    /// All its periods together. Those at the ends count as a whole.
    pub tally: Tally,
    /// Part of the time, 0 to 1, that the WAN was up or degraded; see
    /// [`Tally::availability`].
    pub availability: Option<f64>,
    /// Its outages.
    pub outages: Outages,
    /// Answers or losses in a row at the last write, whatever the span.
    pub run: Option<Run>,
}

/// A connection that only reads.
pub struct Reader {
    db: Connection,
    path: PathBuf,
}

/// Opens a history for reading.
///
/// # Errors
/// [`Error::Missing`] without a history there, [`Error::Newer`], [`Error::Foreign`],
/// or [`Error::Open`] with what SQLite says.
pub fn reader(path: &Path) -> Result<Reader, Error> {
    Ok(Reader { db: open::for_reading(path)?, path: path.to_owned() })
}

impl Reader {
    /// The WANs that there is something about, and their methods, by name. `""`
    /// stands for all methods together.
    ///
    /// # Errors
    /// What SQLite says.
    pub fn series(&self) -> Result<Vec<(String, String)>, Error> {
        self.ask(|db| {
            let found = db
                .prepare_cached("SELECT wan, method FROM series ORDER BY wan, method")?
                .query_map([], |row| Ok((row.get(0)?, row.get(1)?)))?
                .collect::<Result<_, _>>()?;
            Ok(found)
        })
    }

    /// What is known of a WAN from second `since_s` to before `until_s`, in at most
    /// `at_most` periods of one length (fewer than 2 are taken as 2: a span can lie
    /// across a boundary of any length), oldest first; those without data are not
    /// there. The length is a multiple of 10 s, 5 min or 1 h: of the finest that is
    /// needed for as many periods and that is still kept for all the span.
    ///
    /// # Errors
    /// What SQLite says, or [`Error::Damaged`].
    pub fn periods(
        &self,
        wan: &str,
        method: &str,
        since_s: i64,
        until_s: i64,
        at_most: usize,
    ) -> Result<Vec<Period>, Error> {
        if until_s <= since_s {
            return Ok(Vec::new());
        }
        self.ask(|db| {
            let Some(series) = series(db, wan, method)? else { return Ok(Vec::new()) };
            let at_most = i64::try_from(at_most).unwrap_or(i64::MAX).max(2);
            let level = level(db, series, since_s, until_s, at_most)?;
            let length_s = grouped(LEVELS[level], since_s, until_s, at_most);
            let span = (since_s, until_s);
            let mut sums = sums(db, series, level, length_s, span)?;
            // The state is the WAN's, so it is kept with all methods together.
            if !method.is_empty()
                && let Some(all) = self::series(db, wan, "")?
            {
                for (start, all) in self::sums(db, all, level, length_s, span)? {
                    sums.entry(start).or_default().states_ms = all.states_ms;
                }
            }
            Ok(sums
                .into_iter()
                .map(|(start_s, tally)| Period { start_s, length_s, tally })
                .collect())
        })
    }

    /// The last changes of a WAN's state, newest first.
    ///
    /// # Errors
    /// What SQLite says, or [`Error::Damaged`].
    pub fn changes(&self, wan: &str, limit: usize) -> Result<Vec<Change>, Error> {
        self.ask(|db| {
            let mut rows = db.prepare_cached(
                "SELECT method, at_ms, from_state, to_state, reason FROM change
                 WHERE wan = ?1 ORDER BY id DESC LIMIT ?2",
            )?;
            let mut rows = rows.query(params![wan, i64::try_from(limit).unwrap_or(i64::MAX)])?;
            let mut found = Vec::new();
            while let Some(row) = rows.next()? {
                let state = |number: i64| {
                    State::from_number(number)
                        .ok_or_else(|| SqlError::Damaged(format!("there is no state {number}")))
                };
                found.push(Change {
                    wan: wan.into(),
                    method: row.get::<_, String>(0)?.into(),
                    at: Moment { wall_ms: row.get(1)?, steady_ms: 0 },
                    from: state(row.get(2)?)?,
                    to: state(row.get(3)?)?,
                    reason: row.get(4)?,
                });
            }
            Ok(found)
        })
    }

    /// A WAN from second `since_s` to before `until_s` in one piece. Outages are the
    /// WAN's, whatever the method.
    ///
    /// # Errors
    /// What SQLite says, or [`Error::Damaged`].
    pub fn summary(
        &self,
        wan: &str,
        method: &str,
        since_s: i64,
        until_s: i64,
    ) -> Result<Summary, Error> {
        let mut tally = Tally::default();
        for period in self.periods(wan, method, since_s, until_s, SUMMARY_PERIODS)? {
            tally.merge(&period.tally);
        }
        let availability = tally.availability();
        let mut changes = self.changes(wan, usize::MAX)?;
        changes.reverse();
        let (last_s, run) = self.ask(|db| Ok((last(db, wan)?, run(db, wan, method)?)))?;
        let until_ms = last_s.unwrap_or(until_s).min(until_s).saturating_mul(1000);
        let outages = outages(&changes, since_s.saturating_mul(1000), until_ms);
        Ok(Summary { tally, availability, outages, run })
    }

    fn ask<T>(
        &self,
        question: impl FnOnce(&Connection) -> Result<T, SqlError>,
    ) -> Result<T, Error> {
        // One view of the file for all of a question: a roll-up between two of its
        // steps would have rows counted twice or not at all.
        let asked = || {
            let view = self.db.unchecked_transaction()?;
            question(&view)
        };
        asked().map_err(|error: SqlError| error.at(&self.path, "read the history"))
    }
}

fn series(db: &Connection, wan: &str, method: &str) -> Result<Option<i64>, SqlError> {
    let found = db
        .prepare_cached("SELECT id FROM series WHERE wan = ?1 AND method = ?2")?
        .query_row([wan, method], |row| row.get(0))
        .optional()?;
    Ok(found)
}

/// What a level has of a span, in groups of its periods, by start.
fn sums(
    db: &Connection,
    series: i64,
    level: usize,
    length_s: i64,
    (since_s, until_s): (i64, i64),
) -> Result<BTreeMap<i64, Tally>, SqlError> {
    let first = start_of(since_s, LEVELS[level]);
    let end = start_of(until_s - 1, LEVELS[level]) + LEVELS[level];
    let mut sums: BTreeMap<i64, Tally> = BTreeMap::new();
    // The rows of the level, and what is not yet part of them.
    for (finer, length) in LEVELS.into_iter().enumerate().take(level + 1) {
        let (index, only) = match finer == level {
            true => ("", ""),
            false => ("INDEXED BY period_unrolled", "AND rolled = 0"),
        };
        let mut rows = db.prepare_cached(&format!(
            "SELECT {COLUMNS}, start FROM period {index}
             WHERE length = ?1 AND series = ?2 AND start >= ?3 AND start < ?4 {only}"
        ))?;
        let mut rows = rows.query([length, series, first, end])?;
        while let Some(row) = rows.next()? {
            let start: i64 = row.get(AFTER)?;
            sums.entry(start_of(start, length_s)).or_default().merge(&tally(row)?);
        }
    }
    Ok(sums)
}

/// The coarsest level that gives as many periods; a coarser one if that knows of
/// older times within the span.
fn level(
    db: &Connection,
    series: i64,
    since_s: i64,
    until_s: i64,
    at_most: i64,
) -> Result<usize, SqlError> {
    let slice = until_s.saturating_sub(since_s) / at_most;
    let mut level = (0..=TOP).rev().find(|&level| LEVELS[level] <= slice).unwrap_or(0);
    let oldest = |level: usize| -> Result<Option<i64>, rusqlite::Error> {
        db.prepare_cached(
            "SELECT min(start) FROM period
             WHERE length = ?1 AND series = ?2 AND start > ?3 - ?1 AND start < ?4",
        )?
        .query_row([LEVELS[level], series, since_s, until_s], |row| row.get(0))
    };
    let mut known = oldest(level)?;
    for (coarser, length) in LEVELS.into_iter().enumerate().skip(level + 1) {
        let more = oldest(coarser)?;
        // All of a row must be older: the first one starts before what it is made of.
        let older = match (more, known) {
            (Some(more), Some(known)) => more.saturating_add(length) <= known,
            (Some(_), None) => true,
            (None, _) => false,
        };
        if older {
            (level, known) = (coarser, more);
        }
    }
    Ok(level)
}

/// The least multiple of `length` that divides the span into at most so many.
fn grouped(length: i64, since_s: i64, until_s: i64, at_most: i64) -> i64 {
    let span = until_s.saturating_sub(since_s);
    let mut group = length.saturating_mul((span / at_most / length).max(1));
    while (start_of(until_s - 1, group) - start_of(since_s, group)) / group >= at_most {
        group = group.saturating_add(length);
    }
    group
}

/// The end of the newest period of a WAN, in seconds.
fn last(db: &Connection, wan: &str) -> Result<Option<i64>, SqlError> {
    let mut newest: Option<i64> = None;
    for length in LEVELS {
        let start: Option<i64> = db
            .prepare_cached(
                "SELECT max(start) FROM period WHERE length = ?1
                 AND series = (SELECT id FROM series WHERE wan = ?2 AND method = '')",
            )?
            .query_row(params![length, wan], |row| row.get(0))?;
        newest = newest.max(start.map(|start| start.saturating_add(length)));
    }
    Ok(newest)
}

fn run(db: &Connection, wan: &str, method: &str) -> Result<Option<Run>, SqlError> {
    let found = db
        .prepare_cached(
            "SELECT run_answered, run_length FROM series WHERE wan = ?1 AND method = ?2",
        )?
        .query_row([wan, method], |row| Ok(Run { answered: row.get(0)?, length: number(row, 1)? }))
        .optional()?;
    Ok(found.filter(|run| run.length > 0))
}

#[cfg(test)]
#[path = "reader_tests.rs"]
mod tests;
