//! What runs beside the control loop and follows the configuration: probes of
//! each WAN, expiry of flows, the reading of rates.

use std::collections::BTreeSet;
use std::time::Instant;

use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::{MissedTickBehavior, interval};

use super::control::Control;
use super::rates::Totals;
use super::start::random;
use super::{DECIDE, SWEEP};
use crate::config::{Balance, Config, Role};
use crate::dataplane::Tables;
use crate::flows::{Sweeper, Timeouts, Usage};
use crate::health::icmp::IcmpChecker;
use crate::health::machine::Settings;
use crate::health::quality::Thresholds;
use crate::health::watch::Schedule;
use crate::health::{self, Report};
use crate::net::Watched;

/// What was read of the counters, and when.
pub(super) type Sample = (Instant, Totals);

/// The tasks, and how they are told. They end with this value.
pub(super) struct Followers {
    tasks: JoinSet<()>,
    schedules: watch::Sender<Schedule>,
    timeouts: watch::Sender<Timeouts>,
    /// Paths whose rates are wanted.
    counted: watch::Sender<Vec<u8>>,
    /// Devices of which more is read.
    devices: watch::Sender<Watched>,
    reports: mpsc::Sender<Report>,
    /// Who is probed: path id and device.
    probed: BTreeSet<(u8, String)>,
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
        let (schedules, _) = watch::channel(schedule(config));
        let (timeouts, timeouts_now) = watch::channel(self::timeouts(config));
        let (counted, counted_now) = watch::channel(Vec::new());
        let mut tasks = JoinSet::new();
        let sweeper = Sweeper::new(tables.clone(), self::timeouts(config));
        tasks.spawn(sweeper.run(SWEEP, timeouts_now, usage_sender));
        let samples = count(&mut tasks, tables.clone(), counted_now, config.role == Role::Gateway);
        let probed = BTreeSet::new();
        let mut followers = Self { tasks, schedules, timeouts, counted, devices, reports, probed };
        followers.follow(control);
        (followers, Heard { reports: heard, samples, usage })
    }

    /// Tells them what is different now. A task that nothing changes for does
    /// not notice.
    pub(super) fn follow(&mut self, control: &Control) {
        let config = &control.config;
        tell(&self.schedules, schedule(config));
        tell(&self.timeouts, timeouts(config));
        let counted = if needs_rates(config) { control.paths() } else { Vec::new() };
        tell(&self.counted, counted);
        tell(&self.devices, watched(config));
        let devices = config.wans.iter().map(|wan| &wan.device);
        let mut probed = BTreeSet::new();
        for ((path, start, link), device) in control.watched().into_iter().zip(devices) {
            let who = (path, device.clone());
            if !self.probed.contains(&who) {
                let checker = IcmpChecker::new(path, random().to_ne_bytes());
                let (schedule, reports) = (self.schedules.subscribe(), self.reports.clone());
                self.tasks.spawn(health::watch(path, start, schedule, checker, link, reports));
            }
            probed.insert(who);
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

/// How WANs are watched, for a configuration.
fn schedule(config: &Config) -> Schedule {
    let crate::config::Health { method, interval, retries, targets, degraded } = &config.health;
    let crate::config::HealthMethod::Ping = method;
    let crate::config::Failover { failback_after, hold_down_max, .. } = config.failover;
    Schedule {
        interval: *interval,
        settings: Settings { retries: *retries, failback_after, hold_down_max },
        thresholds: Thresholds {
            latency: degraded.latency,
            jitter: degraded.jitter,
            loss: degraded.loss,
            recover_after: failback_after,
        },
        targets: targets.clone(),
    }
}

/// Whether decisions rest on what flows over the WANs.
fn needs_rates(config: &Config) -> bool {
    let configured =
        |wan: &crate::config::Wan| wan.capacity.up.is_some() && wan.capacity.down.is_some();
    let needed = |balance| match balance {
        Balance::LeastUsed => true,
        Balance::Adaptive => config.wans.iter().filter(|wan| configured(wan)).count() > 1,
        _ => false,
    };
    let outlets = config.policy.outlets();
    needed(config.balance) || outlets.iter().filter_map(|outlet| outlet.balance).any(needed)
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
