use std::error::Error as StdError;
use std::thread;
use std::time::{Duration, Instant};

use super::{Settings, Writer, until_flush};
use crate::store::error::Error;
use crate::store::level::Retention;
use crate::store::reader;
use crate::store::record::{Change, Moment, Outcome, Round, State};

type Result<T = ()> = std::result::Result<T, Box<dyn StdError>>;

/// Long enough for any machine; never waited for to its end.
const LONG: Duration = Duration::from_secs(60);

fn round() -> Round {
    let outcome = Outcome::Answered(Duration::from_millis(12));
    Round { wan: "wan1".into(), method: "ping".into(), at: Moment::now(), outcome }
}

#[test]
fn what_was_handed_in_before_the_end_is_written_and_what_comes_later_is_counted() -> Result {
    let dir = tempfile::tempdir()?;
    let settings = Settings { path: dir.path().join("history.db"), ..Settings::default() };
    let writer = Writer::start(settings.clone())?;
    let since = Moment::now().wall_s() - 60;
    let others: Vec<_> = (0..4)
        .map(|_| {
            let writer = writer.clone();
            thread::spawn(move || (0..100).for_each(|_| writer.record(round())))
        })
        .collect();
    for other in others {
        other.join().map_err(|_| "a thread panicked")?;
    }
    writer.state(Change {
        wan: "wan1".into(),
        method: "".into(),
        at: Moment::now(),
        from: State::Unknown,
        to: State::Up,
        reason: "answers".to_owned(),
    });
    writer.close(LONG)?;
    assert_eq!((writer.dropped(), writer.condition().error), (0, None));
    let reader = reader(&settings.path)?;
    assert_eq!(reader.summary("wan1", "ping", since, since + 3600)?.tally.answered, 400);
    assert_eq!(reader.changes("wan1", 9)?.len(), 1);
    writer.record(round());
    assert_eq!(writer.dropped(), 1);
    writer.close(LONG)?;
    Ok(())
}

#[test]
fn a_full_channel_drops_and_counts_and_never_waits() {
    let (writer, messages) = Writer::unattended(8);
    for _ in 0..13 {
        writer.record(round());
    }
    assert_eq!(writer.dropped(), 5);
    assert_eq!(messages.try_iter().count(), 8);
    writer.forget("wan1");
    assert_eq!((writer.dropped(), messages.try_iter().count()), (5, 1));
}

#[test]
fn an_end_that_does_not_come_is_not_waited_for() {
    let (writer, _messages) = Writer::unattended(1);
    writer.record(round());
    let limit = Duration::from_millis(1);
    assert!(matches!(writer.close(limit), Err(Error::Slow(told)) if told == limit));
}

#[test]
fn the_thread_writes_and_ends_when_all_handles_are_gone() -> Result {
    let dir = tempfile::tempdir()?;
    let settings = Settings { path: dir.path().join("history.db"), ..Settings::default() };
    let writer = Writer::start(settings.clone())?;
    writer.record(round());
    drop(writer);
    let deadline = Instant::now() + LONG;
    loop {
        let sum = reader(&settings.path)?.summary("wan1", "", 0, i64::MAX / 2000)?;
        if sum.tally.answered == 1 {
            return Ok(());
        }
        assert!(Instant::now() < deadline, "not written");
        thread::sleep(Duration::from_millis(10));
    }
}

#[test]
fn a_disk_that_takes_nothing_does_not_stop_the_agent_and_is_told() -> Result {
    let settings = Settings { path: "/proc/self/history.db".into(), ..Settings::default() };
    let writer = Writer::start(settings)?;
    writer.record(round());
    let error = writer.close(LONG).err().ok_or("written")?;
    assert!(matches!(error, Error::Unwritten(_)), "{error}");
    let condition = writer.condition();
    // Once, and once more because it was the end.
    assert_eq!((condition.failed, condition.written), (2, 0));
    assert!(condition.error.is_some_and(|error| error.contains("cannot open the history")));
    Ok(())
}

#[test]
fn a_broken_file_costs_nothing_of_what_comes_even_at_the_end() -> Result {
    let dir = tempfile::tempdir()?;
    let path = dir.path().join("history.db");
    std::fs::write(&path, b"not a database".repeat(100))?;
    let writer = Writer::start(Settings { path: path.clone(), ..Settings::default() })?;
    writer.record(round());
    writer.close(LONG)?;
    assert_eq!(writer.condition().failed, 1);
    assert_eq!(reader(&path)?.summary("wan1", "", 0, i64::MAX / 2000)?.tally.answered, 1);
    Ok(())
}

#[test]
fn what_only_the_operator_can_mend_is_told_at_once() -> Result {
    let dir = tempfile::tempdir()?;
    let path = dir.path().join("history.db");
    rusqlite::Connection::open(&path)?.execute_batch("CREATE TABLE t (a)")?;
    let foreign = Writer::start(Settings { path, ..Settings::default() });
    assert!(matches!(foreign, Err(Error::Foreign { .. })));
    let retention = Retention { raw: Duration::ZERO, ..Retention::default() };
    let settings = Settings { path: dir.path().join("other.db"), retention, ..Settings::default() };
    assert!(matches!(Writer::start(settings), Err(Error::Retention { .. })));
    Ok(())
}

#[test]
fn a_flush_comes_shortly_after_the_end_of_a_period() {
    for (wall_ms, wait_ms) in [(0, 10_100), (1, 10_099), (9_999, 101), (-1, 101), (20_000, 10_100)]
    {
        assert_eq!(until_flush(wall_ms), Duration::from_millis(wait_ms), "{wall_ms}");
    }
}
