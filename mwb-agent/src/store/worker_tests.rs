use std::error::Error as StdError;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::{MOST_ASIDE, Message, Worker};
use crate::store::db::Store;
use crate::store::error::Error;
use crate::store::level::Retention;
use crate::store::reader;
use crate::store::record::{Moment, Outcome, Round};

type Result<T = ()> = std::result::Result<T, Box<dyn StdError>>;

const START_S: i64 = 1_700_000_000;

fn at(second: i64) -> Moment {
    Moment { wall_ms: (START_S + second) * 1000, steady_ms: second.unsigned_abs() * 1000 }
}

fn round(second: i64) -> Message {
    let outcome = Outcome::Answered(Duration::from_millis(20));
    Message::Round(Round { wan: "wan1".into(), method: "ping".into(), at: at(second), outcome })
}

fn worker(path: &Path) -> Worker {
    Worker::new(path.to_owned(), Retention::default(), None)
}

fn answered(path: &Path) -> Result<u64> {
    let sum = reader(path)?.summary("wan1", "ping", START_S - 100, START_S + 100_000)?;
    Ok(sum.tally.answered)
}

fn moved_aside(path: &Path) -> Result<Vec<PathBuf>> {
    let dir = path.parent().ok_or("no directory")?;
    let mut found = Vec::new();
    for entry in fs::read_dir(dir)? {
        let entry = entry?.path();
        if entry.to_string_lossy().contains(".db.corrupt-") {
            found.push(entry);
        }
    }
    found.sort();
    Ok(found)
}

/// A history of some pages, without a log.
fn filled(path: &Path) -> Result {
    let mut worker = worker(path);
    for second in 0..3_000 {
        worker.takes(round(second * 10));
    }
    worker.flush(at(30_000))?;
    Ok(())
}

#[test]
fn a_broken_file_is_moved_aside_and_nothing_of_the_batch_is_lost() -> Result {
    type Breaks = fn(Vec<u8>) -> Vec<u8>;
    let cases: [(&str, Breaks); 4] = [
        ("random bytes", |file| {
            let mut random = 0x9e37_79b9_u32;
            file.iter()
                .map(|_| {
                    random = random.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                    (random >> 24) as u8
                })
                .collect()
        }),
        ("cut off", |mut file| {
            file.truncate(file.len() / 2 + 100);
            file
        }),
        ("cut off in its first page", |mut file| {
            file.truncate(1000);
            file
        }),
        ("a page of zeros", |mut file| {
            let middle = file.len() / 2 / 4096 * 4096;
            file[middle..middle + 4096].fill(0);
            file
        }),
    ];
    for (name, breaks) in cases {
        let dir = tempfile::tempdir()?;
        let path = dir.path().join("history.db");
        filled(&path)?;
        let broken = breaks(fs::read(&path)?);
        fs::write(&path, &broken)?;

        let mut worker = worker(&path);
        worker.takes(round(40_000));
        let error = worker.flush(at(40_000)).err().ok_or(name)?;
        let Error::Begun { aside, .. } = &error else {
            return Err(format!("{name}: {error}").into());
        };
        assert_eq!(fs::read(aside)?, broken, "{name}");
        assert_eq!(
            *aside,
            PathBuf::from(format!("{}.corrupt-{}", path.display(), START_S + 40_000))
        );
        assert!(error.to_string().contains("a new history is begun"), "{error}");
        worker.takes(round(40_001));
        worker.flush(at(40_010))?;
        assert_eq!(answered(&path)?, 2, "{name}");
    }
    Ok(())
}

#[test]
fn a_disk_that_breaks_each_file_is_not_filled_with_them() -> Result {
    let dir = tempfile::tempdir()?;
    let path = dir.path().join("history.db");
    let mut worker = worker(&path);
    for second in 0..10 {
        fs::write(&path, b"no database at all, but long enough to have a header of one".repeat(9))?;
        worker.takes(round(second));
        assert!(worker.flush(at(second)).is_err());
    }
    assert_eq!(moved_aside(&path)?.len(), MOST_ASIDE as usize);
    fs::remove_file(&path)?;
    worker.flush(at(20))?;
    assert_eq!(answered(&path)?, 10);
    Ok(())
}

#[test]
fn two_broken_files_of_one_second_have_two_names() -> Result {
    let dir = tempfile::tempdir()?;
    let path = dir.path().join("history.db");
    let mut worker = worker(&path);
    for _ in 0..2 {
        fs::write(&path, b"not a database".repeat(100))?;
        assert!(worker.flush(at(0)).is_err());
    }
    assert_eq!(moved_aside(&path)?.len(), 2);
    Ok(())
}

#[test]
fn a_directory_that_takes_nothing_is_an_error_for_each_batch_and_no_more() -> Result {
    // Nobody may make files there, root neither.
    let mut worker = worker(Path::new("/proc/self/history.db"));
    for second in 0..5 {
        worker.takes(round(second));
        let error = worker.flush(at(second)).err().ok_or("written")?.to_string();
        assert!(error.starts_with("/proc/self/history.db: cannot open the history: "), "{error}");
        assert!(error.contains("must be allowed to write to it"), "{error}");
    }
    Ok(())
}

#[test]
fn what_could_not_be_written_is_written_when_there_is_a_directory() -> Result {
    let dir = tempfile::tempdir()?;
    let path = dir.path().join("missing").join("history.db");
    let mut worker = worker(&path);
    for second in 0..30 {
        worker.takes(round(second));
        assert!(worker.flush(at(second)).is_err());
    }
    fs::create_dir(dir.path().join("missing"))?;
    worker.flush(at(30))?;
    assert_eq!((answered(&path)?, worker.given_up()), (30, 0));
    Ok(())
}

#[test]
fn an_hour_of_flushes_is_rolled_up_as_it_goes() -> Result {
    let dir = tempfile::tempdir()?;
    let path = dir.path().join("history.db");
    let mut worker = worker(&path);
    for second in (0..7200).step_by(10) {
        worker.takes(round(second));
        worker.flush(at(second + 9))?;
    }
    let store = Store::open(&path)?;
    let count = |length: i64| {
        let text = "SELECT count(*) FROM period WHERE length = ?1 AND series = 1";
        store.db().query_row(text, [length], |row| row.get::<_, i64>(0))
    };
    // From 22:13:20 on, two hours: the last of each is not over.
    assert_eq!((count(10)?, count(300)?, count(3600)?), (720, 24, 2));
    assert_eq!(answered(&path)?, 720);
    Ok(())
}
