//! Tells what became of the tests: a line each, failures at the end, and one
//! last line that scripts read.

use std::process::ExitCode;

use crate::e2e::Ran;
use crate::outcome::{Outcome, Verdict};

/// All outcomes so far.
#[derive(Debug, Default)]
pub(crate) struct Report {
    outcomes: Vec<Outcome>,
    /// Tests that have failed beside others and passed alone: name, and why they failed.
    only_alone: Vec<(String, String)>,
}

impl Report {
    /// Prints and keeps them.
    pub(crate) fn add(&mut self, outcomes: impl IntoIterator<Item = Outcome>) {
        for outcome in outcomes {
            let alone = self.only_alone.iter().any(|(name, _)| *name == outcome.name);
            println!("{}{}", line(&outcome), if alone { ": only alone" } else { "" });
            self.outcomes.push(outcome);
        }
    }

    /// Prints and keeps the outcome of a test of the lab, behind what it printed; of one
    /// that failed that comes at the end.
    pub(crate) fn add_ran(&mut self, ran: Ran) {
        let failed = matches!(ran.outcome.result, Verdict::Failed(_));
        if !ran.printed.is_empty() && !failed {
            println!("{}", ran.printed);
        }
        self.add([ran.outcome]);
    }

    /// Notes that a test has failed beside others, and why, which did not when it ran alone.
    pub(crate) fn note_only_alone(&mut self, name: &str, why: String) {
        self.only_alone.push((name.to_owned(), why));
    }

    /// Adds a failure of what comes before the tests.
    pub(crate) fn add_failure(&mut self, name: &str, error: &anyhow::Error) {
        let result = Verdict::Failed(format!("{error:#}"));
        self.add([Outcome { name: name.to_owned(), result, seconds: 0.0 }]);
    }

    /// Prints failures and the count; nothing may be printed after it.
    #[must_use]
    pub(crate) fn finish(&self) -> ExitCode {
        for outcome in &self.outcomes {
            if let Verdict::Failed(why) = &outcome.result {
                println!("\n---- {} ----\n{}", outcome.name, why.trim_end());
            }
        }
        for (name, why) in &self.only_alone {
            println!("\n---- {name} failed beside others, and not alone ----\n{}", why.trim_end());
        }
        println!("\n{}", self.count());
        if self.is_good() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
    }

    /// Something ran and nothing failed.
    pub(crate) fn is_good(&self) -> bool {
        !self.outcomes.is_empty() && self.has_no_failure()
    }

    /// Nothing failed.
    pub(crate) fn has_no_failure(&self) -> bool {
        !self.outcomes.iter().any(|one| matches!(one.result, Verdict::Failed(_)))
    }

    /// The count in words.
    pub(crate) fn count(&self) -> String {
        let (mut passed, mut failed, mut skipped) = (0, 0, 0);
        for outcome in &self.outcomes {
            match outcome.result {
                Verdict::Passed => passed += 1,
                Verdict::Failed(_) => failed += 1,
                Verdict::Skipped(_) => skipped += 1,
            }
        }
        let mut text = format!("{passed} passed, {failed} failed");
        for (count, word) in [(skipped, "skipped"), (self.only_alone.len(), "only alone")] {
            if count > 0 {
                text += &format!(", {count} {word}");
            }
        }
        text
    }
}

fn line(outcome: &Outcome) -> String {
    let Outcome { name, result, seconds } = outcome;
    match result {
        Verdict::Passed => format!("passed   {seconds:7.2} s  {name}"),
        Verdict::Failed(_) => format!("FAILED   {seconds:7.2} s  {name}"),
        Verdict::Skipped(why) => format!("skipped  {seconds:7.2} s  {name}: {why}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report(results: &[Verdict]) -> Report {
        let outcomes = results
            .iter()
            .map(|result| Outcome { name: "n".into(), result: result.clone(), seconds: 0.0 })
            .collect();
        Report { outcomes, ..Report::default() }
    }

    #[test]
    fn the_last_line_names_what_was_skipped_only_if_something_was() {
        let failed = Verdict::Failed(String::new());
        assert_eq!(report(&[Verdict::Passed, failed]).count(), "1 passed, 1 failed");
        let skipped = Verdict::Skipped("no root".into());
        assert_eq!(report(&[skipped]).count(), "0 passed, 0 failed, 1 skipped");
    }

    #[test]
    fn no_test_at_all_is_not_success() {
        assert!(!report(&[]).is_good());
        assert!(report(&[Verdict::Passed]).is_good());
        assert!(!report(&[Verdict::Passed, Verdict::Failed(String::new())]).is_good());
    }

    #[test]
    fn a_skipped_test_says_why_on_its_line() {
        let outcome = Outcome {
            name: "lab".into(),
            result: Verdict::Skipped("no root".into()),
            seconds: 0.0,
        };
        assert!(line(&outcome).ends_with("lab: no root"));
    }
}
