//! Makes a failing episode as short as it easily gets, and writes it down.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use crate::campaign::{Failure, Line as _, Subject};

/// How long it may take.
const PATIENCE: Duration = Duration::from_secs(20);

/// Leaves out steps, half of them at first, as long as it fails.
pub(crate) fn shrink<S: Subject>(subject: &mut S, failure: Failure<S::Step>) -> Failure<S::Step> {
    let end = Instant::now() + PATIENCE;
    let Failure { mut wrong, mut steps } = failure;
    let mut size = steps.len() / 2;
    while size > 0 {
        let mut at = 0;
        while at < steps.len() && Instant::now() < end {
            let mut fewer = steps.clone();
            fewer.drain(at..(at + size).min(fewer.len()));
            // Nothing runs without a setting.
            let set = fewer.first().is_some_and(S::Step::begins);
            match subject.replay(&fewer) {
                Err(still) if set => (wrong, steps) = (still, fewer),
                _ => at += size,
            }
        }
        size /= 2;
    }
    Failure { wrong, steps }
}

/// Writes the steps to a file, with how to run them again; gives its name.
pub(crate) fn write_down<S: Subject>(
    directory: &Path,
    form: &str,
    seed: u64,
    failure: &Failure<S::Step>,
) -> std::io::Result<PathBuf> {
    std::fs::create_dir_all(directory)?;
    let file = directory.join(format!("{form}-{seed:016x}.txt"));
    let remarks: String = failure.wrong.lines().map(|line| format!("# {line}\n")).collect();
    let again = format!(
        "# Run it again: cargo xtask fuzz {} --repeat {} --form {form}\n",
        S::TARGET,
        file.display()
    );
    std::fs::write(&file, again + &remarks + &S::Step::write(&failure.steps))?;
    Ok(file)
}
