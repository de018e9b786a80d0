//! What a new decision means for the operator: failovers and failbacks.

use std::collections::{BTreeMap, BTreeSet};

use super::{Carries, Decision, Member};
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

/// Remembers which WANs traffic had to leave, per family.
///
/// A shift between fit WANs, as `least_latency` makes it, is neither failover
/// nor failback; nor is the loss of a WAN that carried nothing, or of the only
/// one that carries a family: who is used for want of any moves nobody. A WAN
/// that both families leave or return to is told of once.
#[derive(Clone, Debug, Default)]
pub struct Ledger {
    families: [Family; 2],
    /// Given up before this run of the agent, and not used since.
    inherited: BTreeSet<u8>,
    stranded: bool,
}

#[derive(Clone, Debug, Default)]
struct Family {
    active: BTreeSet<u8>,
    given_up: BTreeSet<u8>,
}

impl Ledger {
    /// Begins with WANs that an earlier run of the agent had given up.
    #[must_use]
    pub fn new(given_up: impl IntoIterator<Item = u8>) -> Self {
        Self { inherited: given_up.into_iter().collect(), ..Self::default() }
    }

    /// Takes a decision into the books and tells what it changes.
    pub fn enter(&mut self, decision: &Decision, members: &[Member]) -> Vec<Change> {
        let before = self.given_up();
        let mut to: BTreeMap<u8, BTreeSet<u8>> = BTreeMap::new();
        let carries: [fn(&Member) -> Carries; 2] = [|m| m.v4, |m| m.v6];
        let plans = [&decision.v4, &decision.v6];
        for ((family, plan), carries) in self.families.iter_mut().zip(plans).zip(carries) {
            let fit = |path: u8| {
                members.iter().any(|m| {
                    let good = matches!(m.state, State::Up | State::Unknown);
                    m.path == path && good && carries(m) == Carries::Yes
                })
            };
            let active: BTreeSet<u8> = plan.shares.keys().copied().collect();
            if active.iter().any(|path| decision.alive.contains(path)) {
                for from in family.active.difference(&active) {
                    if !fit(*from) && family.given_up.insert(*from) {
                        to.entry(*from).or_default().extend(&active);
                    }
                }
                family.given_up.retain(|path| !active.contains(path));
                self.inherited.retain(|path| !active.contains(path));
            }
            family.active = active;
        }
        let after = self.given_up();
        let mut changes = Vec::new();
        let stranded = decision.alive.is_empty() && !members.is_empty();
        if stranded && !self.stranded {
            changes.push(Change::NothingUsable);
        }
        self.stranded = stranded;
        for from in after.difference(&before) {
            let to = to.remove(from).unwrap_or_default().into_iter().collect();
            changes.push(Change::Failover { from: *from, to });
        }
        changes.extend(before.difference(&after).map(|to| Change::Failback { to: *to }));
        changes
    }

    /// A path is another WAN's from now on: what is known of it is not true of
    /// that one.
    pub fn forget(&mut self, path: u8) {
        self.inherited.remove(&path);
        for family in &mut self.families {
            family.active.remove(&path);
            family.given_up.remove(&path);
        }
    }

    /// WANs that some family has left.
    fn given_up(&self) -> BTreeSet<u8> {
        let own = self.families.iter().flat_map(|family| &family.given_up);
        own.chain(&self.inherited).copied().collect()
    }
}

#[cfg(test)]
#[path = "change_tests.rs"]
mod tests;
