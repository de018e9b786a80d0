//! How long a run is and where its random choices begin, as the variables
//! `MWB_FUZZ_…` of `cargo xtask fuzz` say it.

use std::path::PathBuf;
use std::time::{Duration, Instant};

/// What the environment says.
pub(crate) struct Plan {
    pub(crate) seed: u64,
    pub(crate) inputs: u64,
    pub(crate) until: Option<Instant>,
    pub(crate) workers: usize,
    pub(crate) repeat: Option<PathBuf>,
    pub(crate) directory: PathBuf,
    form: Option<String>,
}

impl Plan {
    /// Without being told it runs `short` inputs from `seed` on.
    pub(crate) fn read(seed: u64, short: u64) -> Plan {
        let text = |name: &str| std::env::var(format!("MWB_FUZZ_{name}")).ok();
        let number = |name: &str| {
            text(name).map(|text| text.parse::<u64>().unwrap_or_else(|_| panic!("{name}={text}")))
        };
        let seconds = number("SECONDS").map(Duration::from_secs);
        Plan {
            seed: number("SEED").unwrap_or(seed),
            inputs: number("INPUTS").unwrap_or(if seconds.is_some() { u64::MAX } else { short }),
            until: seconds.map(|seconds| Instant::now() + seconds),
            workers: number("WORKERS").map_or(1, |workers| workers as usize),
            repeat: text("REPEAT").map(PathBuf::from),
            directory: text("FAILURES")
                .map_or_else(|| std::env::temp_dir().join("mwb-fuzz"), PathBuf::from),
            form: text("FORM"),
        }
    }

    /// Those of all forms that are to run; there must be one.
    pub(crate) fn forms<T: Copy>(&self, all: &[(&'static str, T)]) -> Vec<T> {
        let wanted = |name: &str| self.form.as_deref().is_none_or(|form| form == name);
        let forms: Vec<T> =
            all.iter().filter(|(name, _)| wanted(name)).map(|(_, form)| *form).collect();
        assert!(!forms.is_empty(), "FORM={:?}", self.form);
        forms
    }

    /// Whether it has run long enough when so many inputs are done, of `inputs`.
    pub(crate) fn is_over(&self, done: u64, inputs: u64) -> bool {
        done >= inputs || self.until.is_some_and(|until| Instant::now() >= until)
    }
}
