//! Outages, out of changes of state. Pure.
//!
//! Must not know: where the changes come from.

use super::record::{Change, State};

/// The outages of a WAN in a span. One begins when the WAN goes down and ends when
/// it is up or degraded again (or unknown: the agent was started anew); the time that
/// it is tested is part of it. Those that reach beyond the span count as far as they
/// are within.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Outages {
    /// How many.
    pub count: u64,
    /// The longest, in milliseconds.
    pub longest_ms: u64,
    /// All together, in milliseconds.
    pub total_ms: u64,
    /// Since when one lasts that reaches beyond the end of the span, in milliseconds
    /// since 1970.
    pub open_since_ms: Option<i64>,
}

/// The outages between two moments in milliseconds since 1970; `changes` in the order
/// that they were kept in, with what was before the span.
pub(crate) fn outages(changes: &[Change], since_ms: i64, until_ms: i64) -> Outages {
    let mut all = Outages::default();
    let mut down_at: Option<i64> = None;
    let ends = |all: &mut Outages, began: i64, to: i64| {
        let reaches_end = to > until_ms;
        let (from, to) = (began.max(since_ms), to.min(until_ms));
        if from < to {
            if reaches_end {
                all.open_since_ms = Some(began);
            }
            let lasted = from.abs_diff(to);
            all.count += 1;
            all.longest_ms = all.longest_ms.max(lasted);
            all.total_ms = all.total_ms.saturating_add(lasted);
        }
    };
    for change in changes {
        match change.to {
            State::Down => down_at = down_at.or(Some(change.at.wall_ms)),
            State::Testing => {}
            State::Up | State::Degraded | State::Unknown => {
                if let Some(from) = down_at.take() {
                    ends(&mut all, from, change.at.wall_ms);
                }
            }
        }
    }
    if let Some(from) = down_at {
        ends(&mut all, from, i64::MAX);
    }
    all
}

#[cfg(test)]
mod tests {
    use super::{Outages, outages};
    use crate::store::record::{Change, Moment, State};

    fn changes(steps: &[(i64, State)]) -> Vec<Change> {
        let mut from = State::Unknown;
        steps
            .iter()
            .map(|&(wall_ms, to)| {
                let at = Moment { wall_ms, steady_ms: 0 };
                let change = Change {
                    wan: "wan1".into(),
                    method: "".into(),
                    at,
                    from,
                    to,
                    reason: String::new(),
                };
                from = to;
                change
            })
            .collect()
    }

    #[test]
    fn testing_is_part_of_an_outage_and_degraded_is_not() {
        let steps = [
            (0, State::Up),
            (100, State::Down),
            (130, State::Testing),
            (140, State::Down),
            (150, State::Testing),
            (160, State::Up),
            (200, State::Degraded),
            (300, State::Down),
            (310, State::Degraded),
        ];
        let found = outages(&changes(&steps), 0, 1000);
        let wanted = Outages { count: 2, longest_ms: 60, total_ms: 70, open_since_ms: None };
        assert_eq!(found, wanted);
    }

    #[test]
    fn an_outage_counts_as_far_as_it_is_within_the_span() {
        let steps = [(0, State::Down), (100, State::Up), (900, State::Down), (1500, State::Up)];
        let found = outages(&changes(&steps), 40, 1000);
        let wanted = Outages { count: 2, longest_ms: 100, total_ms: 160, open_since_ms: Some(900) };
        assert_eq!(found, wanted);
        assert_eq!(outages(&changes(&steps), 100, 900), Outages::default());
    }

    #[test]
    fn an_outage_that_lasts_says_since_when() {
        let found = outages(&changes(&[(0, State::Up), (700, State::Down)]), 0, 1000);
        let wanted = Outages { count: 1, longest_ms: 300, total_ms: 300, open_since_ms: Some(700) };
        assert_eq!(found, wanted);
    }

    #[test]
    fn a_restart_within_an_outage_does_not_make_two() {
        let mut steps = changes(&[(0, State::Down), (500, State::Down), (800, State::Up)]);
        steps[1].from = State::Unknown;
        assert_eq!(outages(&steps, 0, 1000).count, 1);
    }
}
