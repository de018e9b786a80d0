//! What each mode makes of a group of WANs.
//!
//! `adaptive` gives a WAN `weight × spare × delay × loss`:
//!
//! - `spare` is its unused capacity (see [`spare`]) relative to the largest in
//!   the group, at least 1/10; 1 for all if one of them has no configured
//!   capacity, because a guess would punish the link that is in use;
//! - `delay` is the lowest `d` in the group over its own, at least 1/10, where
//!   `d` is the smoothed round-trip time, but at least 10 ms, plus four times
//!   the jitter; 1 while it is not measured;
//! - `loss` is `1 / (1 + loss / 1 %)`, at least 1/10.
//!
//! A factor below 1/10 would say no more, and starve a link whose measurement
//! could then not improve. At last every WAN of the group is lifted to 1/64 of
//! the best.

use std::collections::BTreeMap;
use std::time::Instant;

use super::{LATENCY_HOLD, LATENCY_MARGIN, LATENCY_STEP, Leader, Load, Member};
use crate::config::Balance;

/// Scale of computed weights: the best of a group has this.
const FULL: f64 = 1024.0;
/// What every WAN of a group gets at least, as part of the best.
const LEAST: f64 = 1.0 / 64.0;
/// What a factor of `adaptive` is at least.
const FLOOR: f64 = 0.1;
/// Below this, round-trip times say nothing about a link.
const DELAY_GRAIN: f64 = 0.010;
/// A link with this part of its probes lost counts half.
const LOSS_HALF: f64 = 0.01;
/// What a link without configured capacity is taken to carry at least, in
/// bit/s, and as part of the largest in its group: else one that was never
/// used never would be.
const CAPACITY_LEAST: f64 = 1e6;
const CAPACITY_PART: f64 = 0.25;

/// Weights of the group's members by path id; all positive. The group is not
/// empty.
pub(super) fn shares(
    balance: Balance,
    group: &[&Member],
    leader: &mut Leader,
    now: Instant,
) -> BTreeMap<u8, u32> {
    let weighted = |weight: fn(&Member) -> u32| {
        group.iter().map(|m| (m.path, weight(m).max(1))).collect::<BTreeMap<_, _>>()
    };
    match balance {
        Balance::RoundRobin => weighted(|_| 1),
        Balance::Weighted | Balance::PerFlow => weighted(|m| m.weight),
        Balance::Failover => group.first().map(|m| (m.path, 1)).into_iter().collect(),
        Balance::LeastLatency => {
            lead(group, leader, now).map(|path| (path, 1)).into_iter().collect()
        }
        Balance::LeastUsed => scaled(group, &spare(group)),
        Balance::Adaptive => scaled(group, &score(group)),
    }
}

/// Orders members that share equally or not at all, best first.
pub(super) fn preference(balance: Balance, member: &Member) -> u64 {
    match balance {
        Balance::LeastLatency | Balance::Adaptive => {
            member.measured.rtt.map_or(u64::MAX, |rtt| rtt.as_micros() as u64)
        }
        Balance::Weighted | Balance::PerFlow => u64::MAX - u64::from(member.weight),
        Balance::RoundRobin | Balance::LeastUsed | Balance::Failover => 0,
    }
}

fn scaled(group: &[&Member], values: &[f64]) -> BTreeMap<u8, u32> {
    let best = values.iter().copied().fold(f64::MIN_POSITIVE, f64::max);
    group
        .iter()
        .zip(values)
        .map(|(member, value)| (member.path, ((value / best).max(LEAST) * FULL).round() as u32))
        .collect()
}

/// The leader keeps the lead until another has been clearly better for a while.
fn lead(group: &[&Member], leader: &mut Leader, now: Instant) -> Option<u8> {
    let time = |member: &Member| member.measured.rtt.map(|rtt| rtt.as_secs_f64());
    let best = group
        .iter()
        .filter(|m| m.measured.rtt.is_some())
        .min_by_key(|m| m.measured.rtt)
        .or(group.first())?;
    let current = leader.path.and_then(|path| group.iter().find(|m| m.path == path));
    let challenged = match current {
        None => {
            *leader = Leader { path: Some(best.path), challenged_since: None };
            return leader.path;
        }
        Some(current) => match (time(best), time(current)) {
            (Some(best), Some(current)) => {
                best < current * (1.0 - LATENCY_MARGIN)
                    && best + LATENCY_STEP.as_secs_f64() < current
            }
            (Some(_), None) => true,
            (None, _) => false,
        },
    };
    if !challenged {
        leader.challenged_since = None;
    } else if now.duration_since(*leader.challenged_since.get_or_insert(now)) >= LATENCY_HOLD {
        *leader = Leader { path: Some(best.path), challenged_since: None };
    }
    leader.path
}

/// Unused capacity of each member in bit/s: what it can carry both ways
/// together, times the unused part of its busier direction, because a link
/// that is full one way is full for TCP.
///
/// Without a configured capacity the highest rate that was seen counts.
pub(super) fn spare(group: &[&Member]) -> Vec<f64> {
    let largest = |load: fn(&Member) -> Load| {
        let known = |load: Load| load.capacity.map_or(load.peak, |capacity| capacity as f64);
        group.iter().map(|m| known(load(m))).fold(0.0, f64::max)
    };
    let (up, down) = (largest(|m| m.up), largest(|m| m.down));
    let carries = |load: Load, largest: f64| match load.capacity {
        Some(capacity) => (capacity as f64).max(1.0),
        None => load.peak.max(largest * CAPACITY_PART).max(CAPACITY_LEAST),
    };
    group
        .iter()
        .map(|member| {
            let (up, down) = (carries(member.up, up), carries(member.down, down));
            let unused = |load: Load, carries: f64| (1.0 - load.rate / carries).clamp(0.0, 1.0);
            (up + down) * unused(member.up, up).min(unused(member.down, down))
        })
        .collect()
}

fn score(group: &[&Member]) -> Vec<f64> {
    let factor = |value: f64| value.clamp(FLOOR, 1.0);
    let configured = |m: &&Member| m.up.capacity.is_some() && m.down.capacity.is_some();
    let spare = if group.iter().all(configured) { spare(group) } else { vec![1.0; group.len()] };
    let most = spare.iter().copied().fold(f64::MIN_POSITIVE, f64::max);
    let delay = |member: &Member| {
        let rtt = member.measured.rtt?.as_secs_f64().max(DELAY_GRAIN);
        Some(rtt + 4.0 * member.measured.jitter.unwrap_or_default().as_secs_f64())
    };
    let least = group.iter().filter_map(|m| delay(m)).fold(f64::INFINITY, f64::min);
    group
        .iter()
        .zip(spare)
        .map(|(member, spare)| {
            let delay = delay(member).map_or(1.0, |delay| least / delay);
            let loss = 1.0 / (1.0 + member.measured.loss.unwrap_or(0.0) / LOSS_HALF);
            f64::from(member.weight) * factor(spare / most) * factor(delay) * factor(loss)
        })
        .collect()
}
