//! The daemon: opens the data plane, starts what watches, and runs the loop
//! that ties them together.
//!
//! Start-up takes over what an earlier run has pinned, and changes nothing
//! that is still right: a restart moves no flow. The end leaves everything
//! pinned and forwarding.

use std::collections::hash_map::RandomState;
use std::hash::{BuildHasher, Hasher};
use std::sync::Arc;
use std::time::{Duration, Instant};

use mwb_common::maps::Control as ControlEntry;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::{MissedTickBehavior, interval};

mod alarms;
mod beat;
mod control;
mod differences;
#[cfg(test)]
mod fixture;
mod ports;
mod prefixes;
mod rates;
mod status;
mod view;
mod wan;

use alarms::{Alarms, Shortage};
use beat::Plane;
use control::Control;
use rates::Totals;
use view::{Answers, View};

use crate::api::change::{self, Refusal};
use crate::api::{self, ListenError, Listeners};
use crate::config::{Balance, Config};
use crate::dataplane::{self, DataPlane, Tables};
use crate::events::{Bus, EventKind};
use crate::flows::{Sweeper, Timeouts, Usage};
use crate::health::icmp::IcmpChecker;
use crate::health::machine::Settings;
use crate::health::quality::Thresholds;
use crate::health::watch::Schedule;
use crate::health::{self, Report};
use crate::net::{self, Requests, Snapshot, Watcher};

/// Time between two decisions when nothing happens.
const DECIDE: Duration = Duration::from_millis(100);
/// Time between two looks at next hops and refused attachments.
const LOOK: Duration = Duration::from_secs(1);
/// Time between two looks for shortages.
const CHECK: Duration = Duration::from_secs(5);
/// Time between two sweeps of the flow tables.
const SWEEP: Duration = Duration::from_secs(5);

/// Why the daemon cannot run.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The network cannot be read.
    #[error(transparent)]
    Net(#[from] net::Error),
    /// The data plane cannot be had.
    #[error(transparent)]
    DataPlane(#[from] dataplane::Error),
    /// Nobody could ask.
    #[error(transparent)]
    Listen(#[from] ListenError),
    /// LAN ports that are not there.
    #[error("no such device: {0} (lan); these are there: {1}")]
    LanMissing(String, String),
    /// The system refused something that the daemon needs.
    #[error("{what}: {source}")]
    System {
        /// What.
        what: &'static str,
        /// Why.
        source: std::io::Error,
    },
}

/// Runs the daemon until SIGTERM or SIGINT.
///
/// # Errors
/// When it cannot start. What happens later is an event or in the log.
pub async fn run(config: Config, options: &dataplane::Options) -> Result<(), Error> {
    let system = |what| move |source| Error::System { what, source };
    // Signals first: one that comes while we start must find us listening.
    let mut terminate = signal(SignalKind::terminate()).map_err(system("SIGTERM"))?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(system("SIGINT"))?;
    let started = Instant::now();
    let bus = Bus::default();
    // The socket next: whoever holds it is the only agent.
    let listeners = Listeners::bind(config.api.listen, &config.api.socket)?;

    let requests = Requests::open()?;
    let devices = config.wans.iter().map(|wan| wan.device.clone()).collect();
    let (watcher, mut network) = Watcher::start(requests.clone(), devices).await?;
    let first = network.borrow_and_update().clone();
    refuse_missing_lan(&config, &first)?;
    let missing = |wan: &&crate::config::Wan| first.device(&wan.device).is_none();
    if config.wans.iter().all(|wan| missing(&wan)) {
        tracing::warn!("not one WAN device is there yet; waiting for them");
    }

    let plane = DataPlane::open(options)?;
    let tables = plane.tables();
    let health = &config.health;
    let dead_after = health.interval * health.retries + health.interval / 2;
    let plane = Plane::new(plane, dead_after);
    write_control(&plane, &config)?;

    let (view_sender, view) = watch::channel(Arc::new(View::default()));
    let mut control =
        Control::new(config.clone(), plane.clone(), bus.clone(), &first, view_sender)?;
    control.begin(&first)?;
    plane.start().map_err(system("starting the liveness thread"))?;

    let mut tasks = JoinSet::new();
    tasks.spawn(watcher.run());
    let (reports, mut heard) = mpsc::channel(64);
    let schedules = watch::Sender::new(schedule(&config));
    watch_health(&mut tasks, &schedules, &control, &reports);
    let (usage_sender, usage) = watch::channel(Usage::default());
    tasks.spawn(Sweeper::new(tables.clone(), timeouts(&config)).run(SWEEP, usage_sender));
    let mut totals = needs_rates(&config)
        .then(|| count(&mut tasks, tables.clone(), u8::try_from(config.wans.len()).unwrap_or(0)));
    let mut shortages = check(&mut tasks, tables.clone());
    let (changes, mut wishes) = change::channel();
    let answers = Answers {
        instance: options.instance.clone(),
        mode: config.mode.name(),
        balance: config.balance.name(),
        started,
        view,
        usage,
        tables,
        bus: bus.clone(),
        changes,
    };
    let api = tokio::spawn(api::serve(listeners, Arc::new(answers), None));
    bus.publish(
        EventKind::AgentStarted,
        None,
        format!("agent {} runs", env!("CARGO_PKG_VERSION")),
        format!("mode {}, balance {}", config.mode.name(), config.balance.name()),
    );
    resolve(&requests, &control, &first);

    let mut decide = interval(DECIDE);
    decide.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut look = interval(LOOK);
    look.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let why = loop {
        let done = tokio::select! {
            biased;
            _ = terminate.recv() => break "SIGTERM",
            _ = interrupt.recv() => break "SIGINT",
            Some(wish) = wishes.recv() => {
                let refusal = Refusal::Failed("not in this build".to_owned());
                wish.answer(Err(refusal));
                Ok(())
            }
            Some(report) = heard.recv() => control.report(report),
            Ok(()) = network.changed() => {
                let now = network.borrow_and_update().clone();
                let done = control.network(&now);
                resolve(&requests, &control, &now);
                done
            }
            (at, totals) = next(&mut totals) => {
                control.rates.sample(at, totals);
                Ok(())
            }
            Some(shortage) = shortages.recv() => {
                control.exhausted(&shortage);
                Ok(())
            }
            _ = decide.tick() => control.decide(Instant::now()),
            _ = look.tick() => {
                let now = network.borrow().clone();
                let done = control.network(&now);
                resolve(&requests, &control, &now);
                done
            }
        };
        if let Err(error) = done {
            tracing::error!(%error, "the data plane could not be told");
        }
    };
    bus.publish(EventKind::AgentStopping, None, "the agent stops; the data plane goes on", why);
    api.abort();
    // Dropping the listeners removes the socket; the answer does not matter.
    let _ = api.await;
    Ok(())
}

fn refuse_missing_lan(config: &Config, network: &Snapshot) -> Result<(), Error> {
    let missing: Vec<&str> = config
        .lan
        .iter()
        .map(|lan| lan.device.as_str())
        .filter(|device| network.device(device).is_none())
        .collect();
    if missing.is_empty() {
        return Ok(());
    }
    let there: Vec<&str> = network.devices.iter().map(|device| device.name.as_str()).collect();
    Err(Error::LanMissing(missing.join(", "), there.join(", ")))
}

/// The seed stays the same over restarts, so that `per_flow` does.
fn write_control(plane: &Plane, config: &Config) -> Result<(), dataplane::Error> {
    let before = plane.with(|plane| plane.control())?;
    let seed = if before.seed == 0 { random() as u32 | 1 } else { before.seed };
    let now = ControlEntry {
        port_min: config.nat.port_min,
        port_max: config.nat.port_max,
        seed,
        ..ControlEntry::default()
    };
    if now == before { Ok(()) } else { plane.with(|plane| plane.set_control(&now)) }
}

/// A number that an outsider cannot guess: the standard library's hashers are
/// keyed by the system's random source.
fn random() -> u64 {
    RandomState::new().build_hasher().finish()
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

fn watch_health(
    tasks: &mut JoinSet<()>,
    schedules: &watch::Sender<Schedule>,
    control: &Control,
    reports: &mpsc::Sender<Report>,
) {
    for (path, start, link) in control.watched() {
        let checker = IcmpChecker::new(path, random().to_ne_bytes());
        let schedule = schedules.subscribe();
        tasks.spawn(health::watch(path, start, schedule, checker, link, reports.clone()));
    }
}

/// Whether decisions rest on what flows over the WANs.
fn needs_rates(config: &Config) -> bool {
    let configured =
        |wan: &crate::config::Wan| wan.capacity.up.is_some() && wan.capacity.down.is_some();
    match config.balance {
        Balance::LeastUsed => true,
        Balance::Adaptive => config.wans.iter().filter(|wan| configured(wan)).count() > 1,
        _ => false,
    }
}

/// What was read of the counters, and when.
type Sample = (Instant, Totals);

/// Reads what was forwarded, again and again, on a thread for blocking work.
fn count(tasks: &mut JoinSet<()>, tables: Tables, paths: u8) -> mpsc::Receiver<Sample> {
    let (sender, receiver) = mpsc::channel(1);
    let mut ticks = interval(DECIDE);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    tasks.spawn(async move {
        loop {
            ticks.tick().await;
            let reader = tables.clone();
            let read = move || (Instant::now(), Totals::read(&reader, paths));
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

/// Looks for shortages again and again, on a thread for blocking work.
fn check(tasks: &mut JoinSet<()>, tables: Tables) -> mpsc::Receiver<Shortage> {
    let (sender, receiver) = mpsc::channel(16);
    let mut ticks = interval(CHECK);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut alarms = Alarms::default();
    tasks.spawn(async move {
        loop {
            ticks.tick().await;
            let reader = tables.clone();
            let Ok(rows) = tokio::task::spawn_blocking(move || reader.counters()).await else {
                return;
            };
            for shortage in alarms.check(&rows.unwrap_or_default(), Instant::now()) {
                if sender.send(shortage).await.is_err() {
                    return;
                }
            }
        }
    });
    receiver
}

/// The next sample; never, if nobody counts.
async fn next(samples: &mut Option<mpsc::Receiver<Sample>>) -> Sample {
    if let Some(samples) = samples
        && let Some(sample) = samples.recv().await
    {
        return sample;
    }
    std::future::pending().await
}

/// Asks the kernel for the next hops that it should know and does not.
fn resolve(requests: &Requests, control: &Control, network: &Snapshot) {
    for (ifindex, address) in control.to_resolve(network) {
        let requests = requests.clone();
        tokio::spawn(async move {
            if let Err(error) = requests.resolve(ifindex, address).await {
                tracing::debug!(%error, "next hop");
            }
        });
    }
}
