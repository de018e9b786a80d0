//! Rows of the table `period` as tallies, and numbers as SQLite has them.
//!
//! Must not know: which row is wanted.

use std::path::Path;

use rusqlite::Row;

use super::error::Error;
use super::histogram::Histogram;
use super::tally::Tally;

/// The columns of a tally, in the order that [`tally`] reads them.
pub(super) const COLUMNS: &str = "answered, lost, min_us, max_us, sum_us, jitter_sum, jitter_count, \
     unknown_ms, up_ms, degraded_ms, testing_ms, down_ms, histogram";

/// The first column after those.
pub(super) const AFTER: usize = 13;

/// An error that does not yet say where.
#[derive(Debug)]
pub(super) enum SqlError {
    Sql(rusqlite::Error),
    Damaged(String),
}

impl From<rusqlite::Error> for SqlError {
    fn from(error: rusqlite::Error) -> Self {
        match error {
            // Nothing but these types was ever written to the columns.
            rusqlite::Error::InvalidColumnType(..)
            | rusqlite::Error::FromSqlConversionFailure(..)
            | rusqlite::Error::IntegralValueOutOfRange(..) => Self::Damaged(error.to_string()),
            error => Self::Sql(error),
        }
    }
}

impl SqlError {
    pub(super) fn at(self, path: &Path, what: &'static str) -> Error {
        let path = path.to_owned();
        match self {
            Self::Sql(source) => Error::Work { path, what, source },
            Self::Damaged(what) => Error::Damaged { path, what },
        }
    }
}

/// A count as SQLite has it.
pub(super) fn stored(count: u64) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}

/// A count that was [`stored`].
pub(super) fn number(row: &Row<'_>, column: usize) -> Result<u64, rusqlite::Error> {
    let found: i64 = row.get(column)?;
    u64::try_from(found).map_err(|_| rusqlite::Error::IntegralValueOutOfRange(column, found))
}

/// The tally of a row whose first columns are [`COLUMNS`].
pub(super) fn tally(row: &Row<'_>) -> Result<Tally, SqlError> {
    let bytes = row.get_ref(12)?.as_blob().map_err(|_| damaged("no histogram"))?;
    let histogram = Histogram::from_bytes(bytes).ok_or_else(|| damaged("a broken histogram"))?;
    let range: (Option<u32>, Option<u32>) = (row.get(2)?, row.get(3)?);
    let mut states_ms = [0; 5];
    for (at, state) in states_ms.iter_mut().enumerate() {
        *state = number(row, 7 + at)?;
    }
    Ok(Tally {
        answered: number(row, 0)?,
        lost: number(row, 1)?,
        range_us: range.0.zip(range.1).filter(|(min, max)| min <= max),
        sum_us: number(row, 4)?,
        histogram,
        jitter_sum: number(row, 5)?,
        jitter_count: number(row, 6)?,
        states_ms,
    })
}

fn damaged(what: &str) -> SqlError {
    SqlError::Damaged(format!("{what} in a row"))
}
