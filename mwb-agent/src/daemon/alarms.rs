//! Notices in the counters that address translation has run out of room. Pure.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use mwb_common::reason::Reason;

use crate::dataplane::CounterRow;

/// A shortage that goes on is told again after this time.
const AGAIN: Duration = Duration::from_secs(60);

/// Packets that were refused for want of room.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Shortage {
    /// The WAN they were meant for; 0: none chosen yet.
    pub(super) path: u8,
    /// Of what.
    pub(super) reason: Reason,
    /// How many since the last time it was told.
    pub(super) packets: u64,
}

/// Compares readings of the counters.
#[derive(Debug, Default)]
pub(super) struct Alarms {
    /// Packets and time when it was last told, by path and reason.
    told: HashMap<(u8, Reason), (u64, Option<Instant>)>,
    /// What was there when we started is history.
    begun: bool,
}

impl Alarms {
    /// What is new in a reading.
    pub(super) fn check(&mut self, rows: &[CounterRow], now: Instant) -> Vec<Shortage> {
        let mut counts: HashMap<(u8, Reason), u64> = HashMap::new();
        for row in rows {
            if matches!(
                row.reason,
                Reason::PortsExhausted | Reason::FlowTableFull | Reason::SourceLimit
            ) {
                *counts.entry((row.path, row.reason)).or_default() += row.packets;
            }
        }
        let mut shortages = Vec::new();
        for ((path, reason), count) in counts {
            let (told, when) = self
                .told
                .entry((path, reason))
                .or_insert_with(|| (if self.begun { 0 } else { count }, None));
            // A path that another WAN has taken over counts anew.
            *told = count.min(*told);
            let quiet = when.is_some_and(|when| now.duration_since(when) < AGAIN);
            if count > *told && !quiet {
                shortages.push(Shortage { path, reason, packets: count - *told });
                (*told, *when) = (count, Some(now));
            }
        }
        self.begun = true;
        shortages.sort_by_key(|shortage| (shortage.path, shortage.reason));
        shortages
    }
}

#[cfg(test)]
mod tests {
    use mwb_common::maps::Direction;

    use super::*;

    fn rows(reason: Reason, packets: u64) -> Vec<CounterRow> {
        vec![CounterRow {
            direction: Direction::Out,
            path: 2,
            reason,
            protocol: "udp4",
            packets,
            bytes: packets * 100,
        }]
    }

    #[test]
    fn a_shortage_is_told_when_it_begins_and_again_while_it_lasts() {
        let (mut alarms, start) = (Alarms::default(), Instant::now());
        let mut at = |second, packets| {
            let now = start + Duration::from_secs(second);
            let told = alarms.check(&rows(Reason::PortsExhausted, packets), now);
            told.iter().map(|shortage| (shortage.path, shortage.packets)).collect::<Vec<_>>()
        };
        // What an earlier agent has seen is not told.
        assert_eq!(at(0, 7), []);
        assert_eq!(at(5, 10), [(2, 3)]);
        assert_eq!(at(10, 500), []);
        assert_eq!(at(64, 1000), []);
        assert_eq!(at(65, 1000), [(2, 990)]);
        assert_eq!(at(200, 1000), []);
    }

    #[test]
    fn a_path_that_another_wan_has_taken_over_is_counted_anew() {
        let (mut alarms, now) = (Alarms::default(), Instant::now());
        assert_eq!(alarms.check(&rows(Reason::PortsExhausted, 500), now), []);
        let told = alarms.check(&rows(Reason::PortsExhausted, 3), now);
        assert_eq!(told, [], "how much of it is new cannot be known");
        let told = alarms.check(&rows(Reason::PortsExhausted, 5), now);
        assert_eq!(told.iter().map(|shortage| shortage.packets).collect::<Vec<_>>(), [2]);
    }

    #[test]
    fn other_drops_are_no_shortage() {
        let (mut alarms, now) = (Alarms::default(), Instant::now());
        assert_eq!(alarms.check(&[], now), []);
        assert_eq!(alarms.check(&rows(Reason::TooBig, 9), now), []);
        assert_eq!(alarms.check(&rows(Reason::FlowTableFull, 9), now).len(), 1);
        assert_eq!(alarms.check(&rows(Reason::SourceLimit, 9), now).len(), 1);
    }
}
