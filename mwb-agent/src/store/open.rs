//! The file: opening, schema, and what is done with one that is broken.
//!
//! Must not know: what the rows mean.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rusqlite::{Connection, OpenFlags, TransactionBehavior};

use super::error::Error;

/// Schemas, oldest first: each makes the one with its number out of the one before.
/// `user_version` says which the file has.
const SCHEMAS: [&str; 1] = [
    // `length` is the level. `rolled` says that the row is part of a longer one.
    "CREATE TABLE series (
         id INTEGER PRIMARY KEY,
         wan TEXT NOT NULL,
         method TEXT NOT NULL,
         run_answered INTEGER NOT NULL DEFAULT 0,
         run_length INTEGER NOT NULL DEFAULT 0,
         UNIQUE (wan, method)
     ) STRICT;
     CREATE TABLE period (
         length INTEGER NOT NULL,
         series INTEGER NOT NULL REFERENCES series (id),
         start INTEGER NOT NULL,
         rolled INTEGER NOT NULL,
         answered INTEGER NOT NULL,
         lost INTEGER NOT NULL,
         min_us INTEGER,
         max_us INTEGER,
         sum_us INTEGER NOT NULL,
         jitter_sum INTEGER NOT NULL,
         jitter_count INTEGER NOT NULL,
         unknown_ms INTEGER NOT NULL,
         up_ms INTEGER NOT NULL,
         degraded_ms INTEGER NOT NULL,
         testing_ms INTEGER NOT NULL,
         down_ms INTEGER NOT NULL,
         histogram BLOB NOT NULL,
         PRIMARY KEY (length, series, start)
     ) STRICT, WITHOUT ROWID;
     CREATE INDEX period_unrolled ON period (length, series, start) WHERE rolled = 0;
     CREATE TABLE change (
         id INTEGER PRIMARY KEY,
         wan TEXT NOT NULL,
         method TEXT NOT NULL,
         at_ms INTEGER NOT NULL,
         from_state INTEGER NOT NULL,
         to_state INTEGER NOT NULL,
         reason TEXT NOT NULL
     ) STRICT;
     CREATE INDEX change_wan ON change (wan, id);
     CREATE TABLE believed (
         one INTEGER PRIMARY KEY CHECK (one = 1),
         wall_s INTEGER NOT NULL,
         leapt_s INTEGER NOT NULL
     ) STRICT;",
];

/// The newest schema known.
const NEWEST: i64 = SCHEMAS.len() as i64;

/// `application_id` of the file: `mwbh`.
const OWNER: i64 = 0x6d77_6268;

/// How long a writer or reader waits for the other.
const BUSY: Duration = Duration::from_secs(2);

/// Opens the history for writing; makes or brings up to date what needs it.
pub(super) fn for_writing(path: &Path) -> Result<Connection, Error> {
    let open = |source| Error::Open { path: path.to_owned(), source };
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE
        | OpenFlags::SQLITE_OPEN_CREATE
        | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let mut db = Connection::open_with_flags(path, flags).map_err(open)?;
    db.busy_timeout(BUSY).map_err(open)?;
    db.set_prepared_statement_cache_capacity(32);
    // Before anything is changed in it.
    let found = schema(&db, path)?;
    db.pragma_update_and_check(None, "journal_mode", "WAL", |_| Ok(())).map_err(open)?;
    // A power cut may lose the last seconds, but breaks nothing.
    db.pragma_update(None, "synchronous", "NORMAL").map_err(open)?;
    db.pragma_update_and_check(None, "journal_size_limit", 4 << 20, |_| Ok(())).map_err(open)?;
    if found < NEWEST {
        let tx = db.transaction_with_behavior(TransactionBehavior::Immediate).map_err(open)?;
        // Another writer may have been faster.
        let found = schema(&tx, path)?;
        for (number, statements) in (1..).zip(SCHEMAS).filter(|&(number, _)| number > found) {
            tx.execute_batch(statements).map_err(open)?;
            tx.pragma_update(None, "user_version", number).map_err(open)?;
            tx.pragma_update(None, "application_id", OWNER).map_err(open)?;
        }
        tx.commit().map_err(open)?;
    }
    Ok(db)
}

/// Opens the history for reading only.
pub(super) fn for_reading(path: &Path) -> Result<Connection, Error> {
    if !path.exists() {
        return Err(Error::Missing { path: path.to_owned() });
    }
    let open = |source| Error::Open { path: path.to_owned(), source };
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let db = Connection::open_with_flags(path, flags).map_err(open)?;
    db.busy_timeout(BUSY).map_err(open)?;
    match schema(&db, path)? {
        0 => Err(Error::Missing { path: path.to_owned() }),
        _ => Ok(db),
    }
}

/// The schema of the file, 0 if it is new.
fn schema(db: &Connection, path: &Path) -> Result<i64, Error> {
    let open = |source| Error::Open { path: path.to_owned(), source };
    let pragma = |name| db.pragma_query_value(None, name, |row| row.get::<_, i64>(0)).map_err(open);
    let (owner, found) = (pragma("application_id")?, pragma("user_version")?);
    let objects: i64 =
        db.query_row("SELECT count(*) FROM sqlite_schema", [], |row| row.get(0)).map_err(open)?;
    match (owner, found) {
        (OWNER, 1..=NEWEST) => Ok(found),
        (OWNER, _) => Err(Error::Newer { path: path.to_owned(), found, known: NEWEST }),
        (0, 0) if objects == 0 => Ok(0),
        _ => Err(Error::Foreign { path: path.to_owned() }),
    }
}

/// Reads the whole file and looks whether it holds together.
pub(super) fn check(db: &Connection, path: &Path) -> Result<(), Error> {
    let found = db
        .query_row("PRAGMA quick_check(1)", [], |row| row.get::<_, String>(0))
        .map_err(|source| Error::Work { path: path.to_owned(), what: "check it", source })?;
    if found == "ok" {
        return Ok(());
    }
    Err(Error::Damaged { path: path.to_owned(), what: found.replace('\n', "; ") })
}

/// Moves a broken file and its log aside; nobody may have it open. Returns where
/// it is now: `<path>.corrupt-<now_s>`.
pub(super) fn aside(path: &Path, now_s: i64) -> Result<PathBuf, Error> {
    let failed = |source| Error::Aside { path: path.to_owned(), source };
    let with = |end: &str| {
        let mut name = path.as_os_str().to_owned();
        name.push(end);
        PathBuf::from(name)
    };
    let mut end = format!(".corrupt-{now_s}");
    let mut number = 1;
    while with(&end).exists() {
        number += 1;
        end = format!(".corrupt-{now_s}-{number}");
    }
    // The log first: a new file must never find the old one's.
    for (part, moves) in [("-shm", false), ("-wal", true)] {
        let from = with(part);
        if from.exists() {
            if moves {
                fs::rename(&from, with(&format!("{end}{part}")))
            } else {
                fs::remove_file(&from)
            }
            .map_err(failed)?;
        }
    }
    fs::rename(path, with(&end)).map_err(failed)?;
    Ok(with(&end))
}
