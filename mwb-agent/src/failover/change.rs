//! What a new decision means for the operator: failovers and failbacks.

use std::collections::BTreeSet;

use super::{Decision, Member};
use crate::health::State;

/// A change of who carries traffic.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// New flows leave this WAN because it is not fit, for others.
    Failover {
        /// Path id of the WAN that is given up.
        from: u8,
        /// Path ids of those that carry on.
        to: Vec<u8>,
    },
    /// A WAN that was given up carries new flows again.
    Failback {
        /// Path id.
        to: u8,
    },
    /// No WAN is usable any more: all are used as if they were.
    NothingUsable,
}

/// Remembers which WANs traffic had to leave.
///
/// A shift between fit WANs, as `least_latency` makes it, is neither failover
/// nor failback; nor is the loss of a WAN that carried nothing.
#[derive(Clone, Debug, Default)]
pub struct Ledger {
    given_up: BTreeSet<u8>,
    active: BTreeSet<u8>,
    stranded: bool,
}

impl Ledger {
    /// Begins with WANs that an earlier run of the agent had given up.
    #[must_use]
    pub fn new(given_up: impl IntoIterator<Item = u8>) -> Self {
        Self { given_up: given_up.into_iter().collect(), ..Self::default() }
    }

    /// Takes a decision into the books and tells what it changes.
    pub fn enter(&mut self, decision: &Decision, members: &[Member]) -> Vec<Change> {
        let active: BTreeSet<u8> = decision.active().into_iter().collect();
        let stranded = decision.alive.is_empty() && !members.is_empty();
        let mut changes = Vec::new();
        if stranded {
            // Who is used now is used for want of any: that moves nobody.
            if !self.stranded {
                changes.push(Change::NothingUsable);
            }
        } else {
            let fit = |path: u8| {
                let member = members.iter().find(|member| member.path == path);
                member.is_some_and(|m| matches!(m.state, State::Up | State::Unknown))
            };
            for &from in self.active.difference(&active) {
                if !fit(from) && !active.is_empty() && self.given_up.insert(from) {
                    changes.push(Change::Failover { from, to: active.iter().copied().collect() });
                }
            }
            for &to in &active {
                if self.given_up.remove(&to) {
                    changes.push(Change::Failback { to });
                }
            }
        }
        self.active = active;
        self.stranded = stranded;
        changes
    }
}
