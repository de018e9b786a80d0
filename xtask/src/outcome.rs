//! What became of one test, whoever ran it. Knows nothing of how tests run.

use serde::{Deserialize, Serialize};

/// How a test ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Verdict {
    /// It held.
    Passed,
    /// It did not: everything a reader needs to see why.
    Failed(String),
    /// It cannot run on this machine: why.
    Skipped(String),
}

/// One finished test.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Outcome {
    /// The test's name as `--list` shows it and `--only` matches it.
    pub name: String,
    /// How it ended.
    pub result: Verdict,
    /// How long it took, in seconds of wall clock.
    pub seconds: f64,
}
