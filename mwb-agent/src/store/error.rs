//! What can go wrong with the history.

use std::io;
use std::path::PathBuf;
use std::time::Duration;

use rusqlite::ErrorCode;

/// What went wrong, where, and how to mend it.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The file was written by a newer release.
    #[error(
        "{}: the history has schema {found}, and this release knows schemas up to {known}: \
         use the newer release, or move the file away to begin a new history", path.display()
    )]
    Newer {
        /// The file.
        path: PathBuf,
        /// Its schema.
        found: i64,
        /// The newest schema known here.
        known: i64,
    },
    /// The file is a database of something else.
    #[error(
        "{}: this is an SQLite database, but not a history of WANs: name another file",
        path.display()
    )]
    Foreign {
        /// The file.
        path: PathBuf,
    },
    /// There is no history to read.
    #[error("{}: no history here: the agent makes the file when it starts", path.display())]
    Missing {
        /// The file.
        path: PathBuf,
    },
    /// The file cannot be opened.
    #[error(
        "{}: cannot open the history: {source} (the directory must be there, and the agent \
         must be allowed to write to it)", path.display()
    )]
    Open {
        /// The file.
        path: PathBuf,
        /// What SQLite says.
        source: rusqlite::Error,
    },
    /// A step of work on the file failed.
    #[error("{}: cannot {what}: {source}", path.display())]
    Work {
        /// The file.
        path: PathBuf,
        /// What was being done.
        what: &'static str,
        /// What SQLite says.
        source: rusqlite::Error,
    },
    /// A row holds what no release writes.
    #[error("{}: the history is damaged: {what}", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        what: String,
    },
    /// A damaged file was moved aside; the next batch begins a new one.
    #[error(
        "{source}. It was moved to {} and a new history is begun: what it held is there, \
         as far as it can be read", aside.display()
    )]
    Begun {
        /// The file.
        path: PathBuf,
        /// Where the damaged one is now.
        aside: PathBuf,
        /// What was wrong.
        source: Box<Error>,
    },
    /// A damaged file could not be moved aside.
    #[error("{}: cannot move the damaged history aside: {source}", path.display())]
    Aside {
        /// The file.
        path: PathBuf,
        /// What the kernel says.
        source: io::Error,
    },
    /// A level is kept too short a time.
    #[error(
        "history.retention.{level}: {} s is too short: at least {} s, so that it can become \
         part of longer periods first", wished.as_secs(), least.as_secs()
    )]
    Retention {
        /// Name of the level.
        level: &'static str,
        /// What was wished.
        wished: Duration,
        /// The least possible.
        least: Duration,
    },
    /// The thread could not be started.
    #[error("cannot start the thread that writes the history: {0}")]
    Thread(#[from] io::Error),
    /// What was pending was not written within the limit.
    #[error("the history was not written to its end within {} s", .0.as_secs_f64())]
    Slow(Duration),
    /// What was pending could not be written.
    #[error("the end of the history was not written: {0}")]
    Unwritten(String),
}

impl Error {
    /// Whether the file itself is broken, so that a new one must be begun.
    pub(crate) fn is_damage(&self) -> bool {
        match self {
            Error::Damaged { .. } => true,
            Error::Open { source, .. } | Error::Work { source, .. } => matches!(
                source.sqlite_error_code(),
                Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase)
            ),
            _ => false,
        }
    }
}
