//! What was put in order, by how losses of it are repaired and by the path that brought it.
//! Pure.

use std::collections::BTreeMap;

use crate::hitless::reorder::{Flow, Released, Why};

/// How losses of a flow are repaired.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Care {
    /// Not at all.
    None,
    /// What is lost is sent again.
    Again,
    /// It is computed.
    Computed,
    /// Either.
    Both,
}

impl Care {
    pub(super) const fn of(again: bool, computed: bool) -> Self {
        match (again, computed) {
            (false, false) => Self::None,
            (true, false) => Self::Again,
            (false, true) => Self::Computed,
            (true, true) => Self::Both,
        }
    }

    /// As the configuration calls it.
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Again => "retransmit",
            Self::Computed => "fec",
            Self::Both => "fec, retransmit",
        }
    }
}

/// What was counted of one part.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Tally {
    /// Packets given on, in the order of [`Why::ALL`].
    pub(super) given: [u64; Why::ALL.len()],
    /// How long all of them have waited, in ns.
    pub(super) waited: u64,
}

/// A part of a session: how it is repaired, the path, and what was counted.
pub(super) type Part = (Care, u8, Tally);

/// The parts of all sessions.
#[derive(Debug, Default)]
pub(super) struct Parts {
    /// Of each flow of which something is here.
    cares: BTreeMap<Flow, Care>,
    tallies: BTreeMap<(u32, Care, u8), Tally>,
}

impl Parts {
    /// A packet of a flow came whose losses are repaired so.
    pub(super) fn came(&mut self, flow: Flow, care: Care) {
        self.cares.insert(flow, care);
    }

    /// It is given on.
    pub(super) fn given(&mut self, packet: &Released) {
        let care = self.cares.get(&packet.flow).copied().unwrap_or(Care::None);
        let tally = self.tallies.entry((packet.flow.slot, care, packet.path)).or_default();
        tally.given[packet.why as usize] += 1;
        tally.waited = tally.waited.saturating_add(packet.waited);
    }

    /// Nothing is here any more but of flows that `stay`.
    pub(super) fn retain(&mut self, stay: impl Fn(&Flow) -> bool) {
        self.cares.retain(|flow, _| stay(flow));
    }

    /// A session has ended.
    pub(super) fn forget(&mut self, slot: u32) {
        self.cares.retain(|flow, _| flow.slot != slot);
        self.tallies.retain(|(of, ..), _| *of != slot);
    }

    /// Those of a session.
    pub(super) fn of(&self, slot: u32) -> Vec<Part> {
        let range = (slot, Care::None, 0)..=(slot, Care::Both, u8::MAX);
        self.tallies.range(range).map(|(&(_, care, path), tally)| (care, path, *tally)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn packet(slot: u32, bucket: u16, path: u8, why: Why) -> Released {
        let flow = Flow { slot, bucket };
        Released { flow, number: 1, bytes: Vec::new(), path, waited: 7, why }
    }

    #[test]
    fn what_is_given_on_is_counted_by_repair_and_path() {
        let mut parts = Parts::default();
        parts.came(Flow { slot: 1, bucket: 5 }, Care::of(true, false));
        parts.came(Flow { slot: 2, bucket: 5 }, Care::of(true, true));
        for packet in [
            packet(1, 5, 1, Why::Turn),
            packet(1, 5, 1, Why::Deadline),
            packet(1, 5, 2, Why::Turn),
            packet(1, 6, 2, Why::Lost),
            packet(2, 5, 2, Why::Turn),
        ] {
            parts.given(&packet);
        }
        let tally = |given, waited| Tally { given, waited };
        let first = [
            (Care::None, 2, tally([0, 0, 1, 0, 0], 7)),
            (Care::Again, 1, tally([1, 0, 0, 1, 0], 14)),
            (Care::Again, 2, tally([1, 0, 0, 0, 0], 7)),
        ];
        assert_eq!(parts.of(1), first);
        parts.retain(|flow| flow.slot == 2);
        parts.given(&packet(1, 5, 1, Why::Turn));
        assert_eq!(parts.of(1)[0], (Care::None, 1, tally([1, 0, 0, 0, 0], 7)));
        parts.forget(1);
        assert!(parts.of(1).is_empty());
        assert_eq!(parts.of(2), [(Care::Both, 2, tally([1, 0, 0, 0, 0], 7))]);
    }
}
