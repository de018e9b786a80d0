//! What happens to the WANs during a run, and when.

use std::time::Duration;

use anyhow::Result;

use crate::lab::{Direction, Wan};

/// A story for a run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum Scenario {
    /// A bond to a server; its first WAN loses its carrier, and gets it back.
    #[default]
    Bond,
    /// The first WAN loses its carrier, and gets it back.
    Cut,
    /// The first WAN swallows everything upwards, carrier on, and heals.
    Blackhole,
    /// Nothing happens.
    Steady,
}

/// A cut without a given length of run is made after this, and healed after
/// twice this.
const FIRST_ACT: Duration = Duration::from_secs(10);

impl Scenario {
    /// Name on the command line.
    pub(super) fn name(self) -> &'static str {
        match self {
            Scenario::Bond => "bond",
            Scenario::Cut => "cut",
            Scenario::Blackhole => "blackhole",
            Scenario::Steady => "steady",
        }
    }

    /// When the WAN is cut and when it is healed, from the start.
    pub(super) fn acts(self, length: Option<Duration>) -> Option<(Duration, Duration)> {
        if self == Scenario::Steady {
            return None;
        }
        // In the middle, with time to come back before the end.
        Some(match length {
            Some(length) => (length.mul_f64(0.35), length.mul_f64(0.6)),
            None => (FIRST_ACT, 2 * FIRST_ACT),
        })
    }

    /// Cuts the WAN, or heals it.
    pub(super) fn apply(self, wan: &Wan, cut: bool) -> Result<()> {
        match self {
            Scenario::Bond | Scenario::Cut => wan.carrier(!cut),
            Scenario::Blackhole => wan.blackhole(&[Direction::Up], cut),
            Scenario::Steady => Ok(()),
        }
    }

    /// What is done, for people.
    pub(super) fn tell(self, cut: bool) -> &'static str {
        match (self, cut) {
            (Scenario::Bond | Scenario::Cut, true) => "the first WAN loses its carrier",
            (Scenario::Bond | Scenario::Cut, false) => "the first WAN has its carrier back",
            (Scenario::Blackhole, true) => "the first WAN swallows everything upwards",
            (Scenario::Blackhole, false) => "the first WAN carries again",
            (Scenario::Steady, _) => "nothing happens",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wan_is_cut_and_healed_within_the_run() {
        let length = Duration::from_secs(20);
        for scenario in [Scenario::Bond, Scenario::Cut, Scenario::Blackhole] {
            let acts = scenario.acts(Some(length));
            assert!(acts.is_some_and(|(cut, heal)| cut < heal && heal < length.mul_f64(0.7)));
        }
        assert_eq!(Scenario::Steady.acts(Some(length)), None);
    }
}
