//! What is kept of the WANs' past, and where.

use std::path::PathBuf;
use std::time::Duration;

use super::read::read_path;
use super::reader::{Cursor, Fault};
use super::schema;

/// The history on disk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct History {
    /// The file.
    pub file: PathBuf,
    /// How long periods of 10 s are kept.
    pub fine: Duration,
    /// How long periods of 5 minutes are kept; not less than `fine`.
    pub medium: Duration,
    /// How long periods of an hour are kept; not less than `medium`.
    pub coarse: Duration,
    /// How long changes of state are kept, but for the last 100 of each WAN.
    pub changes: Duration,
}

const DAY: Duration = Duration::from_secs(86_400);

/// The section `history`.
pub(super) fn read_history(at: &Cursor<'_>) -> Result<History, Fault> {
    let history = at.fields(&schema::HISTORY)?;
    let kept =
        |key, days: u32| history.or(key, DAY * days, |at| at.duration(&schema::HISTORY_KEPT));
    let read = History {
        file: history.or("file", PathBuf::from("/var/lib/mwb/history.db"), |at| {
            read_path(at, "/var/lib/mwb/history.db")
        })?,
        fine: kept("fine", 1)?,
        medium: kept("medium", 30)?,
        coarse: kept("coarse", 730)?,
        changes: kept("changes", 365)?,
    };
    let order = [
        ("medium", read.medium, "fine", read.fine),
        ("coarse", read.coarse, "medium", read.medium),
    ];
    for (key, longer, other, shorter) in order {
        if longer < shorter {
            let at = history.get(key).or_else(|| history.get(other));
            let message =
                format!("`{key}` is kept for less time than `{other}`, of which it is made");
            let fix = format!("keep `{key}` at least as long as `{other}`");
            return Err(at.map_or_else(
                || history.fault(message.clone(), fix.clone()),
                |at| at.fault(message.clone(), fix.clone()),
            ));
        }
    }
    Ok(read)
}
