//! What becomes of flows on a WAN that new flows have left for a better one:
//! they stay, may stay for a time, or are cut at once, as the WAN's failback
//! policy says.
//!
//! "Better" is what the operator has said: the forced WAN, then the priority,
//! and in mode `failover` the order of the file. Flows on a WAN that is merely
//! not the best at the moment (degraded, or slower than the leader of
//! `least_latency`) stay, whatever the policy.
//!
//! It goes by what is, not by what changes: a WAN that has been used counts as
//! left whenever a better one shares and it does not, be it that it died in
//! between, and as used again as soon as that ends.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use super::{Decision, Member, is_forced};
use crate::config::{Balance, Failback};

/// What happens to the flows of a WAN.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// A better WAN carries the new flows. Its own stay for this time; `None`:
    /// until they end. Not told of a WAN whose flows are cut at once.
    Left {
        /// Path id.
        path: u8,
        /// For how long they may stay.
        stay: Option<Duration>,
    },
    /// Flows that could use another WAN must be made anew.
    Cut {
        /// Path id.
        path: u8,
    },
    /// They were to be cut later, and are not: it is used again, or nothing
    /// better is.
    Kept {
        /// Path id.
        path: u8,
    },
}

/// Remembers where flows may be, per family.
#[derive(Clone, Debug, Default)]
pub struct Drains {
    families: [BTreeMap<u8, Flows>; 2],
}

/// Where flows of a WAN stand.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Flows {
    /// There may be some, and nothing better has the new ones.
    Used,
    /// They have been left since then.
    Left(Instant),
}

impl Drains {
    /// Begins with WANs that may have flows of an earlier run of the agent.
    #[must_use]
    pub fn new(used: impl IntoIterator<Item = u8>) -> Self {
        let family: BTreeMap<u8, Flows> =
            used.into_iter().map(|path| (path, Flows::Used)).collect();
        Self { families: [family.clone(), family] }
    }

    /// Takes note of a decision and tells what follows.
    pub fn enter(
        &mut self,
        balance: Balance,
        decision: &Decision,
        members: &[Member],
        now: Instant,
    ) -> Vec<Step> {
        let before = self.clone();
        let mut in_order = [true; 2];
        let families = self.families.iter_mut().zip([&decision.v4, &decision.v6]);
        for ((family, plan), in_order) in families.zip(&mut in_order) {
            family.retain(|path, _| members.iter().any(|member| member.path == *path));
            // Who is used for want of any is no better than another.
            *in_order = plan.shares.keys().any(|path| decision.alive.contains(path));
            if !*in_order {
                continue;
            }
            let rank = |(order, member): (usize, &Member)| {
                let order = if balance == Balance::Failover { order } else { 0 };
                (!is_forced(member), member.priority, order)
            };
            let shares = |member: &Member| plan.shares.contains_key(&member.path);
            let best = members.iter().enumerate().filter(|(_, m)| shares(m)).map(rank).min();
            for (order, member) in members.iter().enumerate() {
                let is_left =
                    !shares(member) && best.is_some_and(|best| best < rank((order, member)));
                match family.get(&member.path) {
                    _ if shares(member) => family.insert(member.path, Flows::Used),
                    Some(Flows::Used) if is_left => family.insert(member.path, Flows::Left(now)),
                    Some(Flows::Left(_)) if !is_left => family.insert(member.path, Flows::Used),
                    _ => None,
                };
            }
        }
        members.iter().filter_map(|member| self.step(&before, in_order, member, now)).collect()
    }

    fn step(
        &mut self,
        before: &Self,
        in_order: [bool; 2],
        member: &Member,
        now: Instant,
    ) -> Option<Step> {
        let path = member.path;
        let (old, since) = (before.left_since(path), self.left_since(path));
        let due = |since: Instant| match member.failback {
            Failback::Stay => false,
            Failback::Cut => true,
            Failback::Drain(time) => now.duration_since(since) >= time,
        };
        let is_due = |flows: &Flows| matches!(flows, Flows::Left(since) if due(*since));
        let mut cut = false;
        for (family, _) in self.families.iter_mut().zip(in_order).filter(|(_, in_order)| *in_order)
        {
            if family.get(&path).is_some_and(is_due) {
                family.remove(&path);
                cut = true;
            }
        }
        if cut {
            return Some(Step::Cut { path });
        }
        match (old, since, member.failback) {
            (None, Some(_), Failback::Drain(time)) => Some(Step::Left { path, stay: Some(time) }),
            (None, Some(_), _) => Some(Step::Left { path, stay: None }),
            (Some(_), None, Failback::Drain(_)) => Some(Step::Kept { path }),
            _ => None,
        }
    }

    /// Since when flows of a WAN have been left, by the family that was first.
    fn left_since(&self, path: u8) -> Option<Instant> {
        let since = |family: &BTreeMap<u8, Flows>| match family.get(&path) {
            Some(Flows::Left(since)) => Some(*since),
            _ => None,
        };
        self.families.iter().filter_map(since).min()
    }

    /// A path is another WAN's from now on.
    pub fn forget(&mut self, path: u8) {
        for family in &mut self.families {
            family.remove(&path);
        }
    }

    /// When the flows of a WAN will be cut, if they will.
    #[must_use]
    pub fn until(&self, path: u8, failback: Failback) -> Option<Instant> {
        match failback {
            Failback::Drain(time) => self.left_since(path).map(|since| since + time),
            Failback::Stay | Failback::Cut => None,
        }
    }
}

#[cfg(test)]
#[path = "drain_tests.rs"]
mod tests;
