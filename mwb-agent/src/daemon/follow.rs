//! What runs beside the control loop and follows the configuration: probes of
//! each WAN, expiry of flows, the reading of rates.

use std::collections::BTreeMap;
use std::time::Instant;

use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::{MissedTickBehavior, interval};

use super::asking;
use super::control::Control;
use super::rates::Totals;
use super::start::random;
use super::{DECIDE, SWEEP};
use crate::config::{Config, Health, Role, Wan};
use crate::dataplane::Tables;
use crate::events::EventKind;
use crate::flows::{Sweeper, Timeouts, Usage};
use crate::health::machine::Settings;
use crate::health::prober::Prober;
use crate::health::quality::Thresholds;
use crate::health::watch::Schedule;
use crate::health::{self, Passed, Plan, Report, Told};
use crate::net::Watched;

/// What was read of the counters, and when.
pub(super) type Sample = (Instant, Totals);

/// The tasks, and how they are told. They end with this value.
pub(super) struct Followers {
    tasks: JoinSet<()>,
    timeouts: watch::Sender<Timeouts>,
    /// Paths whose rates are wanted.
    counted: watch::Sender<Vec<u8>>,
    /// Devices of which more is read.
    devices: watch::Sender<Watched>,
    reports: mpsc::Sender<Report>,
    /// Who is probed, by path id and device.
    probed: BTreeMap<(u8, String), Probed>,
}

/// How a task that probes is told.
struct Probed {
    schedule: watch::Sender<Schedule>,
    passed: watch::Sender<Passed>,
}

/// What the tasks say.
pub(super) struct Heard {
    pub(super) reports: mpsc::Receiver<Report>,
    pub(super) samples: mpsc::Receiver<Sample>,
    pub(super) usage: watch::Receiver<Usage>,
}

impl Followers {
    /// Starts them. `devices` is how the network's watcher is told.
    pub(super) fn start(
        control: &Control,
        tables: &Tables,
        devices: watch::Sender<Watched>,
    ) -> (Self, Heard) {
        let config = &control.config;
        let (reports, heard) = mpsc::channel(64);
        let (usage_sender, usage) = watch::channel(Usage::default());
        let (timeouts, timeouts_now) = watch::channel(self::timeouts(config));
        let (counted, counted_now) = watch::channel(Vec::new());
        let mut tasks = JoinSet::new();
        let sweeper = Sweeper::new(tables.clone(), self::timeouts(config));
        tasks.spawn(sweeper.run(SWEEP, timeouts_now, usage_sender));
        let samples = count(&mut tasks, tables.clone(), counted_now, config.role == Role::Gateway);
        let probed = BTreeMap::new();
        let mut followers = Self { tasks, timeouts, counted, devices, reports, probed };
        followers.follow(control);
        (followers, Heard { reports: heard, samples, usage })
    }

    /// Tells those that probe what has passed their WANs.
    pub(super) fn passed(&self, totals: &Totals) {
        for ((path, _), probed) in &self.probed {
            let of = |totals: &[super::rates::Total]| {
                totals.get(usize::from(*path)).copied().unwrap_or_default()
            };
            let (up, down) = (of(&totals.up), of(&totals.down));
            // Each time, though nothing has passed: that is known then.
            let passed = Passed {
                out: up.packets,
                back: down.packets,
                syns: up.syns,
                answers: down.syns,
                turned: up.turned,
            };
            probed.passed.send_replace(passed);
        }
    }

    /// Tells them what is different now. A task that nothing changes for does
    /// not notice.
    pub(super) fn follow(&mut self, control: &Control) {
        let config = &control.config;
        tell(&self.timeouts, timeouts(config));
        tell(&self.counted, control.paths());
        tell(&self.devices, watched(config));
        let (plans, errors) = asking::plans_anyhow(config);
        for error in errors {
            let message = "a WAN is asked by ping, as it cannot be asked as it should be";
            control.bus.publish(EventKind::System, None, message, error);
        }
        let mut probed = BTreeMap::new();
        let wans = control.watched().into_iter().zip(&config.wans).zip(plans);
        for (((path, start, link), wan), plan) in wans {
            let who = (path, wan.device.clone());
            let schedule = schedule(config, wan, plan);
            let told = self.probed.remove(&who).unwrap_or_else(|| {
                let (schedule, schedules) = watch::channel(schedule.clone());
                let (passed, passes) = watch::channel(Passed::default());
                let told = Told { schedule: schedules, link, passed: passes };
                let prober = Prober::new(&wan.name, path, &wan.device, random().to_ne_bytes());
                let reports = self.reports.clone();
                self.tasks.spawn(health::watch(path, start, random(), told, prober, reports));
                Probed { schedule, passed }
            });
            tell(&told.schedule, schedule);
            probed.insert(who, told);
        }
        // The tasks of others end with their link.
        self.probed = probed;
        while self.tasks.try_join_next().is_some() {}
    }
}

/// Wakes nobody for nothing.
fn tell<T: PartialEq>(sender: &watch::Sender<T>, now: T) {
    sender.send_if_modified(|before| {
        let changed = *before != now;
        *before = now;
        changed
    });
}

fn timeouts(config: &Config) -> Timeouts {
    let timeouts = config.nat.timeouts;
    Timeouts {
        udp: timeouts.udp,
        icmp: timeouts.icmp,
        tcp_established: timeouts.tcp_established,
        tcp_transitory: timeouts.tcp_transitory,
    }
}

/// Devices of which more is read than that they are there.
pub(super) fn watched(config: &Config) -> Watched {
    Watched {
        lan: config.lan.iter().map(|lan| lan.device.clone()).collect(),
        wans: config.wans.iter().map(|wan| wan.device.clone()).collect(),
    }
}

/// How a WAN is watched, for a configuration.
fn schedule(config: &Config, wan: &Wan, plan: Plan) -> Schedule {
    let Health { interval, retries, degraded, metered_budget, .. } = &wan.health;
    let crate::config::Failover { failback_after, hold_down_max, .. } = config.failover;
    Schedule {
        interval: *interval,
        settings: Settings { retries: *retries, failback_after, hold_down_max },
        budget: wan.metered.then_some(*metered_budget),
        plan,
        thresholds: Thresholds {
            latency: degraded.latency,
            jitter: degraded.jitter,
            loss: degraded.loss,
            recover_after: failback_after,
        },
    }
}

/// Reads what was forwarded by the paths that are wanted, again and again, on a
/// thread for blocking work. `bonded`: by a bond too.
fn count(
    tasks: &mut JoinSet<()>,
    tables: Tables,
    mut wanted: watch::Receiver<Vec<u8>>,
    bonded: bool,
) -> mpsc::Receiver<Sample> {
    let (sender, receiver) = mpsc::channel(1);
    let mut ticks = interval(DECIDE);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    tasks.spawn(async move {
        loop {
            ticks.tick().await;
            if wanted.wait_for(|paths| !paths.is_empty()).await.is_err() {
                return;
            }
            let (reader, paths) = (tables.clone(), wanted.borrow().clone());
            let read = move || (Instant::now(), Totals::read(&reader, &paths, bonded));
            let sample = match tokio::task::spawn_blocking(read).await {
                Ok((at, Ok(totals))) => (at, totals),
                Ok((_, Err(error))) => {
                    tracing::warn!(%error, "counters could not be read");
                    continue;
                }
                Err(_) => return,
            };
            if sender.send(sample).await.is_err() {
                return;
            }
        }
    });
    receiver
}
