//! Which tests a command is to run, of those there are.

/// Parts of names, on the command line.
#[derive(Clone, Debug, Default, clap::Args)]
pub struct Only {
    /// Run only tests whose name contains one of these.
    #[arg(long = "only", value_name = "PATTERN,…", value_delimiter = ',')]
    pub patterns: Vec<String>,
}

impl Only {
    /// Whether a test of this name is to run.
    pub fn wants(&self, name: &str) -> bool {
        self.patterns.is_empty() || self.patterns.iter().any(|pattern| name.contains(pattern))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn only(patterns: &[&str]) -> Only {
        Only { patterns: patterns.iter().map(|&pattern| pattern.to_owned()).collect() }
    }

    #[test]
    fn a_pattern_takes_any_part_of_a_name() {
        assert!(only(&["ping"]).wants("e2e/ping_by_xdp"));
        assert!(!only(&["ping"]).wants("check/format"));
        assert!(only(&["ping", "form"]).wants("check/format"));
        assert!(Only::default().wants("anything"));
    }
}
