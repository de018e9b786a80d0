//! Which WAN is used and why: a pure function of what the operator wants, what
//! health says, what was decided before, and the time.
//!
//! **Who is usable.** `up`, `unknown` and `degraded` WANs are; `testing` and
//! `down` ones are not, and are dead to the kernel at once. A degraded WAN is
//! used only when no WAN at all is up or unknown: the thresholds are the
//! operator's statement of what is not good enough. If nothing is usable,
//! every WAN that could carry the family is used as if it were: the last path
//! is never killed.
//!
//! **Who shares.** Of the usable WANs the good ones (then the degraded ones)
//! with the best priority share, as the mode says; the ranking goes on through
//! the others, by health, priority, the mode's preference and their order. A
//! WAN that the operator forces goes before all of them as long as it is usable.
//!
//! **Who has been left.** [`Drains`] says when flows on a WAN must follow the
//! new ones to a better WAN.
//!
//! Must not know: sockets, maps of the kernel beyond the slot table.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use mwb_common::maps::{Selection, index};
use mwb_common::select::{Share, compile};

use crate::config::{Balance, Failback};
use crate::health::{Measured, State};

mod change;
mod drain;
mod modes;
mod outlet;

pub use change::{Change, Ledger};
pub use drain::{Drains, Step};
pub use outlet::{Targets, decide_outlet};

/// What is known about one WAN when a decision is made.
#[derive(Clone, Debug, PartialEq)]
pub struct Member {
    /// Path id.
    pub path: u8,
    /// 0 is the best.
    pub priority: u8,
    /// Share among WANs of one priority; positive.
    pub weight: u32,
    /// The operator wants new flows here and nowhere else, while it is usable.
    pub forced: bool,
    /// What becomes of its flows when new ones go to a better WAN.
    pub failback: Failback,
    /// Health.
    pub state: State,
    /// Whether it carries IPv4.
    pub v4: Carries,
    /// Whether it carries IPv6.
    pub v6: Carries,
    /// How good it is.
    pub measured: Measured,
    /// What flows over it now.
    pub up: Load,
    /// What flows over it now.
    pub down: Load,
}

/// Whether a WAN carries a family.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Carries {
    /// It has no address or no gateway of the family.
    No,
    /// It should, but the next hop does not tell its MAC: the WAN may work for
    /// the other family. Taken only if no usable WAN is better off.
    Mute,
    /// It does.
    Yes,
}

/// One direction of a WAN, in bit/s.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Load {
    /// What flows now.
    pub rate: f64,
    /// The highest rate that was ever seen.
    pub peak: f64,
    /// What it can carry, as far as the operator says.
    pub capacity: Option<u64>,
}

/// What one decision must know of the one before.
#[derive(Clone, Debug, Default)]
pub struct Memory {
    v4: Held,
    v6: Held,
}

impl Memory {
    /// Has the next decision's shares written however little they differ: the
    /// operator has changed what they rest on.
    pub fn forget_shares(&mut self) {
        for held in [&mut self.v4, &mut self.v6] {
            held.shares.clear();
        }
    }
}

/// The same for one family.
#[derive(Clone, Debug, Default)]
struct Held {
    leader: Leader,
    shares: BTreeMap<u8, u32>,
}

/// The WAN that `least_latency` uses, and since when another has been better.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Leader {
    path: Option<u8>,
    challenged_since: Option<Instant>,
}

/// Which path gets what, for one family.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Plan {
    /// Who shares new flows, by path id; the weights have no unit.
    pub shares: BTreeMap<u8, u32>,
    /// Path ids, best first.
    pub ranking: Vec<u8>,
    /// One of [`index`].
    pub index: u8,
}

impl Plan {
    /// The slot table and the ranking for the kernel.
    #[must_use]
    pub fn compile(&self) -> Selection {
        let shares = self.shares.iter().map(|(&path, &weight)| Share { path, weight });
        compile(&shares.collect::<Vec<_>>(), &self.ranking, self.index)
    }

    /// Part of the new flows that `path` gets, 0 to 1.
    #[must_use]
    pub fn part(&self, path: u8) -> f64 {
        let total: u64 = self.shares.values().map(|&weight| u64::from(weight)).sum();
        let own = self.shares.get(&path).copied().unwrap_or(0);
        if total == 0 { 0.0 } else { f64::from(own) / total as f64 }
    }
}

/// What the kernel is to do.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Decision {
    /// IPv4.
    pub v4: Plan,
    /// IPv6.
    pub v6: Plan,
    /// Ids of the paths that are alive.
    pub alive: Vec<u8>,
}

impl Decision {
    /// Ids of the paths that new flows of either family are sent to.
    #[must_use]
    pub fn active(&self) -> Vec<u8> {
        let mut active: Vec<u8> =
            self.v4.shares.keys().chain(self.v6.shares.keys()).copied().collect();
        active.sort_unstable();
        active.dedup();
        active
    }
}

/// Decides. `members` are in the order of the configuration.
pub fn decide(balance: Balance, members: &[Member], memory: &mut Memory, now: Instant) -> Decision {
    Decision {
        v4: plan(balance, &candidates(members, |m| m.v4), &mut memory.v4, now),
        v6: plan(balance, &candidates(members, |m| m.v6), &mut memory.v6, now),
        alive: members.iter().filter(|m| m.state.is_usable()).map(|m| m.path).collect(),
    }
}

fn candidates(members: &[Member], carries: fn(&Member) -> Carries) -> Vec<&Member> {
    let able = |m: &&Member| carries(m) != Carries::No;
    let speaks = |m: &&Member| carries(m) == Carries::Yes;
    if members.iter().any(|m| speaks(&m) && m.state.is_usable()) {
        members.iter().filter(speaks).collect()
    } else {
        members.iter().filter(able).collect()
    }
}

fn plan(balance: Balance, candidates: &[&Member], held: &mut Held, now: Instant) -> Plan {
    let usable: Vec<&Member> = candidates.iter().copied().filter(|m| m.state.is_usable()).collect();
    let listed = if usable.is_empty() { candidates } else { &usable };
    let Some(best) = listed.iter().map(|member| tier(member)).min() else { return Plan::default() };
    let group: Vec<&Member> = listed.iter().copied().filter(|m| tier(m) == best).collect();
    // Who leads by the operator's will does not lead by its own.
    let forced = group.iter().any(|member| is_forced(member));
    let mut nobody = Leader::default();
    let leader = if forced { &mut nobody } else { &mut held.leader };
    let shares = modes::shares(balance, &group, leader, now);
    if differ(&held.shares, &shares) {
        held.shares = shares;
    }
    let shares = held.shares.clone();
    let mut ranked: Vec<(usize, &Member)> = listed.iter().copied().enumerate().collect();
    ranked.sort_by_key(|&(order, member)| {
        let share = shares.get(&member.path).copied().unwrap_or(0);
        (tier(member), std::cmp::Reverse(share), modes::preference(balance, member), order)
    });
    Plan {
        shares,
        ranking: ranked.into_iter().map(|(_, member)| member.path).collect(),
        index: if balance == Balance::PerFlow { index::FLOW_HASH } else { index::COUNTER },
    }
}

/// Whether shares differ by enough to be written: measured weights are never
/// quite the same twice.
fn differ(before: &BTreeMap<u8, u32>, after: &BTreeMap<u8, u32>) -> bool {
    let total = |shares: &BTreeMap<u8, u32>| shares.values().map(|&w| f64::from(w)).sum::<f64>();
    let (old, new) = (total(before), total(after));
    !before.keys().eq(after.keys())
        || before.values().zip(after.values()).any(|(&before, &after)| {
            (f64::from(before) / old - f64::from(after) / new).abs() > SHARE_STEP
        })
}

/// Lower is better: the operator's will, then health, then the configuration's
/// order.
fn tier(member: &Member) -> (bool, u8, u8) {
    let health = match member.state {
        State::Up | State::Unknown => 0,
        State::Degraded => 1,
        State::Testing => 2,
        State::Down => 3,
    };
    (!is_forced(member), health, member.priority)
}

/// Whether the operator's will counts: a WAN that does not work is left like
/// any other.
fn is_forced(member: &Member) -> bool {
    member.forced && member.state.is_usable()
}

/// Shares are written when one has changed by more than this part of all.
const SHARE_STEP: f64 = 0.01;
/// How much better another WAN must be before `least_latency` moves to it.
const LATENCY_MARGIN: f64 = 0.2;
/// The same in time, for links that are close to each other.
const LATENCY_STEP: Duration = Duration::from_millis(5);
/// For how long it must be so.
const LATENCY_HOLD: Duration = Duration::from_secs(2);

#[cfg(test)]
mod tests;
