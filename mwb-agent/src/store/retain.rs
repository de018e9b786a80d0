//! What is too old, and whether the wall's clock may be believed about that.
//!
//! Must not know: what the rows mean.

use rusqlite::{OptionalExtension, Transaction, params};

use super::level::{LEVELS, Retention, TOP};
use super::record::millis;

/// A clock that is further ahead than this of all that was believed before is not
/// believed at once.
const LEAP_S: i64 = 7 * 86_400;
/// How long it must stay there, in running time of the agent.
const PATIENCE_S: i64 = 86_400;
/// Changes of each WAN that stay however old they are.
const CHANGES_KEPT: i64 = 100;
/// Most changes of each WAN.
const CHANGES_MOST: i64 = 10_000;

/// What the wall's clock is believed to have come to.
///
/// A clock that leaps years ahead would have all history deleted as too old. So one
/// that leaps by more than a week deletes nothing until the agent has run a day with
/// it; that counts over restarts. A clock that goes back never deletes too much.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Believed {
    /// The latest second that was believed; `None` in a new file.
    pub(super) wall_s: Option<i64>,
    /// Running time since a leap that is not yet believed.
    pub(super) leapt_s: i64,
}

impl Believed {
    /// Whether `now_s` is believed, `steady_s` after the last look.
    pub(super) fn looks_at(&mut self, now_s: i64, steady_s: i64) -> bool {
        match self.wall_s {
            Some(wall_s) if now_s.saturating_sub(wall_s) > LEAP_S => {
                self.leapt_s = self.leapt_s.saturating_add(steady_s.max(0));
                if self.leapt_s < PATIENCE_S {
                    return false;
                }
                self.wall_s = Some(now_s);
            }
            Some(wall_s) => self.wall_s = Some(wall_s.max(now_s)),
            None => self.wall_s = Some(now_s),
        }
        self.leapt_s = 0;
        true
    }

    pub(super) fn load(tx: &Transaction<'_>) -> Result<Self, rusqlite::Error> {
        let found = tx
            .prepare_cached("SELECT wall_s, leapt_s FROM believed")?
            .query_row([], |row| Ok(Self { wall_s: row.get(0)?, leapt_s: row.get(1)? }))
            .optional()?;
        Ok(found.unwrap_or(Self { wall_s: None, leapt_s: 0 }))
    }

    pub(super) fn save(self, tx: &Transaction<'_>) -> Result<(), rusqlite::Error> {
        tx.prepare_cached(
            "INSERT OR REPLACE INTO believed (one, wall_s, leapt_s) VALUES (1, ?1, ?2)",
        )?
        .execute(params![self.wall_s, self.leapt_s])?;
        Ok(())
    }
}

/// Deletes what ended longer ago than its level is kept, never a row that is not yet
/// part of a longer one.
pub(super) fn delete(
    tx: &Transaction<'_>,
    now_s: i64,
    retention: &Retention,
) -> Result<(), rusqlite::Error> {
    let all: Vec<i64> = tx
        .prepare_cached("SELECT id FROM series")?
        .query_map([], |row| row.get(0))?
        .collect::<Result<_, _>>()?;
    for (level, (length, kept_s)) in LEVELS.into_iter().zip(retention.seconds()).enumerate() {
        let first_kept = now_s.saturating_sub(kept_s).saturating_sub(length);
        for series in &all {
            tx.prepare_cached(
                "DELETE FROM period WHERE length = ?1 AND series = ?2 AND start < ?3 AND rolled = 1",
            )?
            .execute([length, *series, first_kept])?;
            if level == TOP {
                // A WAN that has been gone for longer than everything is kept.
                tx.prepare_cached(
                    "DELETE FROM series WHERE id = ?1 AND NOT EXISTS
                     (SELECT 1 FROM period WHERE series = ?1 AND length IN (10, 300, 3600))",
                )?
                .execute([series])?;
            }
        }
    }
    let wans: Vec<String> = tx
        .prepare_cached("SELECT DISTINCT wan FROM change")?
        .query_map([], |row| row.get(0))?
        .collect::<Result<_, _>>()?;
    let old_ms = now_s.saturating_mul(1000).saturating_sub(millis(retention.changes));
    for wan in wans {
        // Without so many there is no such row, and `id <= NULL` holds for none.
        tx.prepare_cached(
            "DELETE FROM change WHERE wan = ?1 AND (
                 id <= (SELECT id FROM change WHERE wan = ?1 ORDER BY id DESC LIMIT 1 OFFSET ?2)
                 OR (at_ms < ?4 AND
                     id <= (SELECT id FROM change WHERE wan = ?1 ORDER BY id DESC LIMIT 1 OFFSET ?3))
             )",
        )?
        .execute(params![wan, CHANGES_MOST, CHANGES_KEPT, old_ms])?;
    }
    Ok(())
}

#[cfg(test)]
#[path = "retain_tests.rs"]
mod tests;
