//! What a watcher is made of, from the schedule that it is given.

use std::time::{Duration, Instant};

use super::super::auto::Auto;
use super::super::evidence::MethodId;
use super::super::pace::{self, Pace};
use super::super::plan::{Kind, Plan, Way};
use super::super::probes::Probes;
use super::super::quality::Quality;
use super::super::watch::Schedule;

/// Calm after which a WAN that carries traffic is asked half as often.
const CALM: Duration = Duration::from_secs(5 * 60);
/// The shortest and the longest interval, whatever was configured.
const QUICKEST: Duration = Duration::from_millis(100);
const SLOWEST: Duration = Duration::from_secs(5);

pub(super) fn probes(schedule: &Schedule) -> Probes {
    let is_slow = |way: &Way| way.kind() != Kind::Ping;
    let timeout = schedule.plan.ways.iter().any(is_slow).then_some(schedule.plan.timeout);
    Probes::new(schedule.interval, schedule.settings.retries, timeout)
}

pub(super) fn qualities(schedule: &Schedule) -> Vec<Quality> {
    schedule.plan.ways.iter().map(|_| Quality::new(schedule.thresholds)).collect()
}

pub(super) fn pace(schedule: &Schedule) -> Pace {
    let interval = schedule.interval;
    let mut pace = Pace::new(pace::Settings {
        interval,
        retries: schedule.settings.retries,
        quickest: QUICKEST.min(interval),
        slowest: SLOWEST.max(interval),
        calm: CALM,
    });
    if let Some(budget) = schedule.budget {
        // One that is too small was refused with the configuration.
        if let Err(error) = pace.budget(budget, schedule.plan.bytes()) {
            tracing::warn!(%error, "checks without a budget");
        }
    }
    pace
}

/// A choice among the ways, if there is one.
pub(super) fn auto(plan: &Plan, now: Instant, seed: u64) -> Option<Auto> {
    let ids: Vec<MethodId> =
        (0..plan.ways.len()).filter_map(|way| u8::try_from(way).ok().map(MethodId)).collect();
    (ids.len() > 1).then(|| Auto::new(&ids, now, seed)).flatten()
}
