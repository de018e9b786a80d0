//! How packets are shared among a session's paths: the modes of balance, compiled to what
//! the kernel side reads. The rules are those of flows (`failover`); what differs is that
//! here a path is known by its own probes.

use std::time::Instant;

use mwb_common::maps::{ANNOUNCED, bond_choice, bond_path_flag};

use super::core::Core;
use super::paths::Link;
use super::session::Session;
use crate::config::{Balance, Failback};
use crate::dataplane::{Error, monotonic};
use crate::failover::{self, Carries, Load, Member, Memory, Plan};
use crate::health::{Measured, State};

/// What is wanted of a path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Wanted {
    pub(super) priority: u8,
    pub(super) weight: u16,
    /// What it carries to the far end in bit/s.
    pub(super) capacity: Option<u64>,
}

/// What one decision must know of the one before.
#[derive(Default)]
pub(super) struct Shares {
    memory: Memory,
    written: Option<(Balance, Plan)>,
}

/// Shares a session's packets among its paths.
pub(super) fn share(
    core: &Core,
    session: &mut Session,
    balance: Balance,
    wanted: impl Fn(u8, &Link) -> Wanted,
) -> Result<(), Error> {
    let now = monotonic();
    let members: Vec<Member> = session
        .paths
        .iter()
        .map(|(path, link)| member(*path, link, wanted(*path, link), now))
        .collect();
    let plan = failover::decide(balance, &members, &mut session.shares.memory, Instant::now()).v4;
    let is_arrival = balance == Balance::Adaptive;
    let mut stripe = 0;
    for member in &members {
        let shares = plan.shares.contains_key(&member.path);
        // The kernel side takes whoever arrives first: those that are not to carry
        // anything while a better one lives stand aside.
        let parked = is_arrival && (!shares || is_parked(session, member.path));
        session.set_flags(&core.maps, member.path, bond_path_flag::PARKED, parked)?;
        stripe |= u32::from(shares && is_arrival && !parked) << member.path;
    }
    let choice = match balance {
        Balance::Adaptive => bond_choice::ARRIVAL,
        Balance::PerFlow => bond_choice::BUCKET,
        _ => bond_choice::COUNTER,
    };
    let decision = (balance, plan);
    if session.shares.written.as_ref() != Some(&decision) {
        core.maps.set_selection(session.slot, &decision.1.compile())?;
        session.shares.written = Some(decision);
    }
    // Bit 0 is that of turns.
    let may = if stripe == 0 { 0 } else { stripe | stripe << ANNOUNCED | 1 };
    let stripe = (may & session.stripe, may as u16 & session.repaired);
    session.set_choice(&core.maps, choice, stripe)
}

fn is_parked(session: &Session, path: u8) -> bool {
    session.paths.get(&path).is_some_and(|link| link.verdict.parked.is_some())
}

fn member(path: u8, link: &Link, wanted: Wanted, now: u64) -> Member {
    let alive = link.is_alive(now) && !link.has(bond_path_flag::DOWN);
    let state = match (alive, link.verdict.parked) {
        (true, None) => State::Up,
        // A worse priority goes before what is worse than nothing.
        (true, Some(_)) => State::Degraded,
        (false, _) => State::Down,
    };
    Member {
        path,
        priority: wanted.priority,
        weight: u32::from(wanted.weight),
        forced: false,
        failback: Failback::Stay,
        state,
        v4: Carries::Yes,
        v6: Carries::No,
        measured: Measured { rtt: link.rtt(), jitter: None, loss: Some(link.verdict.loss) },
        up: Load { rate: link.rate.now, peak: link.rate.peak, capacity: wanted.capacity },
        // Both directions are full for themselves: each end shares its own.
        down: Load { rate: 0.0, peak: 0.0, capacity: wanted.capacity },
    }
}

#[cfg(test)]
#[path = "share_tests.rs"]
pub(super) mod tests;
