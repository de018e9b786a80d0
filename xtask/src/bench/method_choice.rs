//! `method-choice`: how `method: auto` finds the check that tells the truth, against Thompson
//! sampling, in simulated situations. The agent's own code runs; the link is made up.

use anyhow::{Context as _, Result, ensure};

use super::{
    Bench, code,
    report::{Better, Headline, Report, Row, figure},
};

/// This benchmark in the registry.
pub(super) const BENCH: Bench = Bench {
    name: "method-choice",
    about: "the choice of a health check by averages, against Thompson sampling (simulated)",
    run,
};

/// Strategies as the simulation calls them, and for people.
const STRATEGIES: [(&str, &str); 4] = [
    ("averages", "averages"),
    ("guarded", "Thompson with the same guards"),
    ("guarded-short", "the same with a short memory"),
    ("plain", "Thompson"),
];
/// What is less than this, in seconds, is by chance: other seeds move the sum as much.
const SCATTER: f64 = 1.0;
/// Situations that the simulation has.
const SITUATIONS: usize = 8;

/// What one strategy came to in one situation.
#[derive(Debug, PartialEq)]
struct Line<'a> {
    situation: &'a str,
    strategy: &'static str,
    /// Percent of the rounds.
    truthful: f64,
    /// Seconds in an hour.
    wrong: f64,
    /// In an hour; no number where nobody is trusted for longer than a round.
    changes: f64,
}

fn run(_: &[u8]) -> Result<Report> {
    let text = code::figures("method_choice")?;
    let lines = text.lines().filter_map(read).collect::<Result<Vec<_>>>()?;
    for (_, name) in STRATEGIES {
        let count = lines.iter().filter(|line| line.strategy == name).count();
        ensure!(count == SITUATIONS, "{count} situations of {name} in {text:?}");
    }
    let wrong = |name: &str| -> f64 {
        lines.iter().filter(|line| line.strategy == name).map(|line| line.wrong).sum()
    };
    let [ours, peers @ ..] = STRATEGIES.map(|(_, name)| wrong(name));
    let best = peers.into_iter().fold(f64::INFINITY, f64::min);
    let row = |line: &Line<'_>| {
        Row(vec![
            ("situation", line.situation.into()),
            ("strategy", line.strategy.into()),
            ("rounds on a truthful method, %", figure(line.truthful, 1)),
            ("seconds of a wrong verdict in an hour", figure(line.wrong, 1)),
            ("changes in an hour", figure(line.changes, 1)),
        ])
    };
    Ok(Report {
        bench: BENCH.name,
        headline: Headline {
            name: "seconds of a wrong verdict in an hour of each situation, more than by the best \
                   Thompson sampling"
                .to_owned(),
            value: ((ours - best) * 10.0).round() / 10.0,
            target: SCATTER,
            better: Better::Lower,
        },
        rows: lines.iter().map(row).collect(),
    })
}

/// A line of the simulation; `None` if it is none.
fn read(line: &str) -> Option<Result<Line<'_>>> {
    let mut parts = line.split('\t');
    let (situation, name) = (parts.next()?, parts.next()?);
    let strategy = STRATEGIES.iter().find(|(short, _)| *short == name)?.1;
    let mut number = || -> Result<f64> {
        let text = parts.next().with_context(|| format!("too few figures in {line:?}"))?;
        text.parse().with_context(|| format!("{text:?} in {line:?} is no figure"))
    };
    let mut whole = || {
        Ok(Line { situation, strategy, truthful: number()?, wrong: number()?, changes: number()? })
    };
    Some(whole())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_of_figures_are_read_and_others_are_none() {
        let line = read("all is well\tguarded\t99.5\t0.0\t1.5").and_then(Result::ok);
        let wanted = Line {
            situation: "all is well",
            strategy: "Thompson with the same guards",
            truthful: 99.5,
            wrong: 0.0,
            changes: 1.5,
        };
        assert_eq!(line, Some(wanted));
        assert!(read("   Compiling mwb-agent").is_none());
        assert!(read("all is well\tplain\t99.5\tmuch").is_some_and(|line| line.is_err()));
    }
}
