use std::error::Error;
use std::time::Duration;

use super::{Believed, LEAP_S, PATIENCE_S};
use crate::store::accumulate::{Batch, Key};
use crate::store::db::Store;
use crate::store::level::{LEVELS, Retention};
use crate::store::record::{Change, Moment, State};
use crate::store::tally::Tally;

type Result = std::result::Result<(), Box<dyn Error>>;

const NOW_S: i64 = 1_700_000_400;
const YEAR_S: i64 = 365 * 86_400;

/// Rounds of one WAN, one in each of these periods of 10 s.
fn rounds(starts: impl IntoIterator<Item = i64>) -> Batch {
    let mut batch = Batch::default();
    for start_s in starts {
        let key = Key { start_s, wan: "wan1".into(), method: "".into() };
        let mut tally = Tally::default();
        tally.add_loss();
        batch.rows.insert(key, tally);
    }
    batch
}

fn starts(store: &Store, length: i64) -> std::result::Result<Vec<i64>, rusqlite::Error> {
    store
        .db()
        .prepare("SELECT start FROM period WHERE length = ?1 ORDER BY start")?
        .query_map([length], |row| row.get(0))?
        .collect()
}

#[test]
fn exactly_what_ended_before_the_limit_of_its_level_goes() -> Result {
    let dir = tempfile::tempdir()?;
    let mut store = Store::open(&dir.path().join("history.db"))?;
    let retention = Retention {
        raw: Duration::from_secs(600),
        five_minutes: Duration::from_secs(7200),
        hours: Duration::from_secs(20_000),
        ..Retention::default()
    };
    retention.check()?;
    let all: Vec<i64> = (NOW_S - 40_000..NOW_S).filter(|start| start % 10 == 0).collect();
    store.write(&rounds(all))?;
    store.roll_up(NOW_S)?;
    let before: Vec<Vec<i64>> = LEVELS
        .into_iter()
        .map(|length| starts(&store, length))
        .collect::<std::result::Result<_, _>>()?;
    assert!(store.retain(NOW_S, 0, &retention)?);
    for ((length, kept_s), before) in LEVELS.into_iter().zip(retention.seconds()).zip(before) {
        let wanted: Vec<i64> =
            before.iter().copied().filter(|start| start + length >= NOW_S - kept_s).collect();
        assert!(!wanted.is_empty() && wanted.len() < before.len());
        assert_eq!(starts(&store, length)?, wanted, "periods of {length} s");
    }
    Ok(())
}

#[test]
fn a_row_that_is_not_part_of_a_longer_one_stays_however_old() -> Result {
    let dir = tempfile::tempdir()?;
    let mut store = Store::open(&dir.path().join("history.db"))?;
    store.write(&rounds([NOW_S - 10 * YEAR_S]))?;
    store.retain(NOW_S, 0, &Retention::default())?;
    assert_eq!(starts(&store, 10)?.len(), 1);
    store.roll_up(NOW_S)?;
    store.retain(NOW_S, 0, &Retention::default())?;
    assert!(starts(&store, 10)?.is_empty());
    let series: i64 = store.db().query_row("SELECT count(*) FROM series", [], |row| row.get(0))?;
    assert_eq!(series, 0, "a WAN without any row is forgotten");
    Ok(())
}

#[test]
fn the_last_100_changes_stay_and_never_more_than_10_000() -> Result {
    let dir = tempfile::tempdir()?;
    let mut store = Store::open(&dir.path().join("history.db"))?;
    let mut batch = Batch::default();
    let mut change = |wan: &str, count: i64, wall_s: i64| {
        for number in 0..count {
            batch.changes.push_back(Change {
                wan: wan.into(),
                method: "".into(),
                at: Moment { wall_ms: wall_s * 1000, steady_ms: 0 },
                from: State::Up,
                to: State::Down,
                reason: number.to_string(),
            });
        }
    };
    change("old", 150, NOW_S - 2 * YEAR_S);
    change("few", 100, NOW_S - 2 * YEAR_S);
    change("many", 10_001, NOW_S);
    change("new", 200, NOW_S - YEAR_S + 1);
    change("both", 50, NOW_S - 2 * YEAR_S);
    change("both", 120, NOW_S);
    store.write(&batch)?;
    store.retain(NOW_S, 0, &Retention::default())?;
    let left = |wan: &str| {
        let text = "SELECT count(*), min(CAST(reason AS INTEGER)) FROM change WHERE wan = ?1";
        store.db().query_row(text, [wan], |row| Ok((row.get::<_, i64>(0)?, row.get::<_, i64>(1)?)))
    };
    assert_eq!(left("old")?, (100, 50));
    assert_eq!(left("few")?, (100, 0));
    assert_eq!(left("many")?, (10_000, 1));
    assert_eq!(left("new")?, (200, 0));
    assert_eq!(left("both")?, (120, 0));
    Ok(())
}

#[test]
fn a_clock_that_leaps_years_ahead_is_believed_after_a_day_of_running_time() {
    let mut believed = Believed { wall_s: None, leapt_s: 0 };
    assert!(believed.looks_at(NOW_S, 0));
    assert!(believed.looks_at(NOW_S + LEAP_S, 0), "a week without the agent");
    let far_s = NOW_S + 10 * YEAR_S;
    assert!(!believed.looks_at(far_s, 600));
    assert!(!believed.looks_at(far_s + PATIENCE_S, PATIENCE_S - 601));
    assert!(believed.looks_at(far_s + PATIENCE_S, 1));
    assert_eq!(believed, Believed { wall_s: Some(far_s + PATIENCE_S), leapt_s: 0 });
}

#[test]
fn a_leap_that_is_taken_back_is_forgotten() {
    let mut believed = Believed { wall_s: Some(NOW_S), leapt_s: 0 };
    assert!(!believed.looks_at(NOW_S + YEAR_S, PATIENCE_S - 1));
    assert!(believed.looks_at(NOW_S - YEAR_S, 10), "back is never too far");
    assert_eq!(believed, Believed { wall_s: Some(NOW_S), leapt_s: 0 });
    assert!(!believed.looks_at(NOW_S + YEAR_S, PATIENCE_S - 1));
}

#[test]
fn a_leap_deletes_nothing_even_over_a_restart() -> Result {
    let dir = tempfile::tempdir()?;
    let path = dir.path().join("history.db");
    let mut store = Store::open(&path)?;
    store.write(&rounds([NOW_S - 20, NOW_S - 10]))?;
    assert!(store.retain(NOW_S, 0, &Retention::default())?);
    for _ in 0..3 {
        store = Store::open(&path)?;
        store.roll_up(NOW_S + 10 * YEAR_S)?;
        assert!(!store.retain(NOW_S + 10 * YEAR_S, 20_000, &Retention::default())?);
        assert_eq!(starts(&store, 10)?.len(), 2);
    }
    Ok(())
}

#[test]
fn a_level_that_cannot_become_part_of_the_next_is_refused() {
    let day = Duration::from_secs(86_400);
    let cases = [
        Retention { raw: Duration::from_secs(599), ..Retention::default() },
        Retention {
            five_minutes: Duration::from_secs(7199),
            raw: Duration::from_secs(600),
            ..Retention::default()
        },
        Retention { raw: day * 31, ..Retention::default() },
        Retention { hours: day, ..Retention::default() },
    ];
    for (case, level) in cases.into_iter().zip(["raw", "five_minutes", "five_minutes", "hours"]) {
        let text = case.check().err().map(|error| error.to_string()).unwrap_or_default();
        assert!(text.starts_with(&format!("history.retention.{level}: ")), "{text}");
    }
    assert!(Retention::default().check().is_ok());
}
