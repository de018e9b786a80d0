//! The lab's tests: those that may run side by side do, the others follow one at a time.
//! What has failed beside others runs once more alone, and both are told.
//!
//! Must not know: what a test does, and how it is kept apart from others.

use std::sync::{Mutex, mpsc};
use std::thread;

use super::report::Report;
use crate::e2e::{Case, Lane, Ran};
use crate::outcome::Verdict;

/// Tests at once, at most, where nobody says how many: each holds some hundred MiB.
const MOST: usize = 8;

/// How many tests run at once where nobody says.
pub(super) fn usual() -> usize {
    lanes_for(thread::available_parallelism().map_or(1, usize::from))
}

/// A test waits for a good part of its time.
fn lanes_for(processors: usize) -> usize {
    (processors + processors / 2).min(MOST)
}

/// Runs the tests; by one lane in the order that they have, each alone.
pub(super) fn run(cases: Vec<Case>, lanes: usize, report: &mut Report) {
    let (together, alone): (Vec<_>, Vec<_>) =
        cases.into_iter().partition(|case| lanes > 1 && case.lane() == Lane::Together);
    let mut again = Vec::new();
    at_once(together, lanes, Case::run_apart, |case, ran| {
        if let Verdict::Failed(why) = &ran.outcome.result {
            eprintln!("      {} has failed beside others, and will run alone", case.name());
            again.push((case, why.clone()));
        } else {
            report.add_ran(ran);
        }
    });
    for (case, before) in again {
        let ran = judge_again(case.run_apart(), before, report);
        report.add_ran(ran);
    }
    for case in alone {
        report.add_ran(case.run_apart());
    }
}

/// The second run of a test that has failed beside others: if it passes, it is counted as one
/// that does so only alone; if not, both reasons are told.
fn judge_again(mut ran: Ran, before: String, report: &mut Report) -> Ran {
    let again = match &ran.outcome.result {
        Verdict::Passed => {
            report.note_only_alone(&ran.outcome.name, before);
            return ran;
        }
        Verdict::Failed(why) | Verdict::Skipped(why) => why,
    };
    ran.outcome.result = Verdict::Failed(format!("beside others:\n{before}\n\nalone:\n{again}"));
    ran
}

/// Does `job` for each of `work`, in their order, on so many threads, and hands each result
/// to `done` as it comes.
pub(super) fn at_once<T: Send, R: Send>(
    work: Vec<T>,
    threads: usize,
    job: impl Fn(&T) -> R + Sync,
    mut done: impl FnMut(T, R),
) {
    let threads = threads.max(1).min(work.len());
    let queue = Mutex::new(work.into_iter());
    let (sender, results) = mpsc::channel();
    thread::scope(|scope| {
        for _ in 0..threads {
            let (queue, sender, job) = (&queue, sender.clone(), &job);
            scope.spawn(move || {
                loop {
                    let next = queue.lock().map(|mut work| work.next());
                    let Ok(Some(one)) = next else { break };
                    let result = job(&one);
                    if sender.send((one, result)).is_err() {
                        break;
                    }
                }
            });
        }
        drop(sender);
        for (one, result) in results {
            done(one, result);
        }
    });
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::time::{Duration, Instant};

    use super::*;
    use crate::outcome::Outcome;

    /// Waits until so many are at work at once; says whether they were.
    fn meet(at_work: &AtomicUsize, count: usize) -> bool {
        at_work.fetch_add(1, Ordering::SeqCst);
        let begun = Instant::now();
        while at_work.load(Ordering::SeqCst) < count {
            if begun.elapsed() > Duration::from_secs(20) {
                return false;
            }
            thread::yield_now();
        }
        true
    }

    #[test]
    fn as_many_are_at_work_as_there_are_threads() {
        let at_work = AtomicUsize::new(0);
        let mut met = Vec::new();
        at_once(vec![(); 3], 3, |()| meet(&at_work, 3), |(), all| met.push(all));
        assert_eq!(met, [true; 3]);
    }

    #[test]
    fn never_more_are_at_work_than_there_are_threads_and_each_is_done_once() {
        let (at_work, most) = (AtomicUsize::new(0), AtomicUsize::new(0));
        let mut found = BTreeSet::new();
        let job = |&one: &usize| {
            most.fetch_max(at_work.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
            thread::yield_now();
            at_work.fetch_sub(1, Ordering::SeqCst);
            2 * one
        };
        at_once((0..500).collect(), 2, job, |one, twice| {
            assert_eq!(twice, 2 * one);
            assert!(found.insert(one), "{one} twice");
        });
        assert_eq!(found.len(), 500);
        assert!(most.load(Ordering::SeqCst) <= 2, "{most:?}");
    }

    fn ran(result: Verdict) -> Ran {
        let outcome = Outcome { name: "e2e/x".into(), result, seconds: 1.0 };
        Ran { outcome, printed: String::new() }
    }

    #[test]
    fn a_test_that_passes_only_alone_is_counted_as_such() {
        let mut report = Report::default();
        let second = judge_again(ran(Verdict::Passed), "too slow".into(), &mut report);
        report.add_ran(second);
        assert_eq!(report.count(), "1 passed, 0 failed, 1 only alone");
        assert!(report.is_good());
    }

    #[test]
    fn a_test_that_fails_both_times_has_failed_for_both_reasons() {
        let mut report = Report::default();
        let second = ran(Verdict::Failed("no echo".into()));
        let Verdict::Failed(why) =
            judge_again(second, "too slow".into(), &mut report).outcome.result
        else {
            panic!("passed")
        };
        assert!(why.contains("too slow") && why.contains("no echo"), "{why}");
        assert_eq!(report.count(), "0 passed, 0 failed");
    }

    #[test]
    fn there_are_half_as_many_lanes_again_as_processors_and_a_bound() {
        assert_eq!([1, 2, 4, 64].map(lanes_for), [1, 3, 6, 8]);
    }
}
