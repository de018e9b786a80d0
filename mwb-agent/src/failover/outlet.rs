//! An outlet: some of the WANs, for flows that a policy rule sends there.
//!
//! It is decided by the same code as the choice for all other flows, for the same WANs
//! with other priorities: those of the outlet are one group and the best one, in the
//! order in which the operator names them. With a fallback the others follow as they
//! are, else they are left out.

use std::time::Instant;

use super::{Carries, Held, Member, Memory, Plan, candidates, plan};
use crate::config::Balance;

/// What an outlet is made of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Targets {
    /// Path ids, the first choice first.
    pub paths: Vec<u8>,
    /// How new flows are shared among them.
    pub balance: Balance,
    /// No other path is ever used.
    pub strict: bool,
}

/// Decides for one outlet, for IPv4 and IPv6. `members` are all WANs, in the order of the
/// configuration.
pub fn decide_outlet(
    targets: &Targets,
    members: &[Member],
    memory: &mut Memory,
    now: Instant,
) -> [Plan; 2] {
    let members = arranged(targets, members);
    let family = |carries: fn(&Member) -> Carries, held: &mut Held| {
        plan(targets.balance, &candidates(&members, carries), held, now)
    };
    [family(|m| m.v4, &mut memory.v4), family(|m| m.v6, &mut memory.v6)]
}

/// The members as the outlet sees them.
fn arranged(targets: &Targets, members: &[Member]) -> Vec<Member> {
    let own = targets.paths.iter().filter_map(|path| members.iter().find(|m| m.path == *path));
    let mut arranged: Vec<Member> =
        own.map(|member| Member { priority: 0, ..member.clone() }).collect();
    if targets.strict {
        return arranged;
    }
    let others: Vec<&Member> =
        members.iter().filter(|member| !targets.paths.contains(&member.path)).collect();
    // The operator's will counts among them, not against the rule.
    let rank = |member: &Member| (!member.forced, member.priority);
    let mut ranks: Vec<(bool, u8)> = others.iter().map(|member| rank(member)).collect();
    ranks.sort_unstable();
    ranks.dedup();
    arranged.extend(others.into_iter().map(|member| {
        let place = ranks.iter().position(|other| *other == rank(member)).unwrap_or_default();
        let priority = u8::try_from(place + 1).unwrap_or(u8::MAX);
        Member { priority, forced: false, ..member.clone() }
    }));
    arranged
}

#[cfg(test)]
#[path = "outlet_tests.rs"]
mod tests;
