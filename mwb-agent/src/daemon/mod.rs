//! The daemon: opens the data plane, starts what watches, and runs the loop
//! that ties them together.
//!
//! Start-up takes over what an earlier run has pinned, and changes nothing
//! that is still right: a restart moves no flow. The end leaves everything
//! pinned and forwarding.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::{MissedTickBehavior, interval};

mod advice;
mod alarms;
mod asking;
mod beat;
mod bond;
mod bonded;
mod bucket_view;
mod carriers;
mod changes;
mod client;
mod clock;
mod control;
mod differences;
mod doctor;
mod domains;
mod file;
#[cfg(test)]
mod fixture;
mod flow_view;
mod follow;
mod forced;
mod forwards;
mod identity;
mod leaving;
mod left;
#[cfg(test)]
mod live_tests;
mod look;
mod own_routes;
mod own_rules;
mod past;
mod policy;
mod ports;
mod prefixes;
mod prepare;
mod rates;
mod reload;
mod revision;
mod revision_bond;
mod revision_health;
mod start;
mod status;
mod telling;
mod view;
mod wan;

use alarms::{Alarms, Shortage};
use beat::Plane;
use bond::Bond;
use changes::{Changer, Configurable};
use control::Control;
use follow::{Followers, Heard};
use look::Look;
use own_routes::OwnRoutes;
use past::Past;
pub use prepare::{Prepared, prepare};
use telling::Telling;
use view::{Answers, View};

use crate::api::change::{self, Change, Done, Refusal};
use crate::api::{self, ListenError, TokenError};
use crate::bond::keys::KeyFileError;
use crate::config::{Config, Role};
use crate::dataplane::{self, DataPlane, Tables};
use crate::events::{Bus, EventKind};
use crate::net::{self, Bonded, BondedSpec, Requests, Snapshot, Watched, Watcher};

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
    /// Who may change something could not be said.
    #[error(transparent)]
    Token(#[from] TokenError),
    /// Webhooks cannot be called.
    #[error("{0}")]
    Client(String),
    /// Nobody can be told.
    #[error(transparent)]
    Notify(#[from] crate::notify::NotifyError),
    /// Our end of a bond has no key.
    #[error(transparent)]
    Key(#[from] KeyFileError),
    /// The key is that of another end.
    #[error("{}: {why}", file.display())]
    WrongKey {
        /// The file that it is in.
        file: std::path::PathBuf,
        /// Whose, and how to mend it.
        why: String,
    },
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

/// Runs the daemon until SIGTERM or SIGINT. `config` is what `file` says,
/// `prepared` what [`prepare`] made for it.
///
/// # Errors
/// When it cannot start. What happens later is an event or in the log.
pub async fn run(
    config: Config,
    file: &Path,
    options: &dataplane::Options,
    prepared: Prepared,
) -> Result<(), Error> {
    let Prepared { listeners, token, private } = prepared;
    let system = |what| move |source| Error::System { what, source };
    // Signals first: one that comes while we start must find us listening.
    let mut terminate = signal(SignalKind::terminate()).map_err(system("SIGTERM"))?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(system("SIGINT"))?;
    let started = Instant::now();
    let bus = Bus::default();
    let requests = Requests::open()?;
    make_device(&requests, &config, &options.instance).await?;
    let (devices, watched) = watch::channel(follow::watched(&config));
    let (watcher, mut network) = Watcher::start(requests.clone(), watched).await?;
    let first = network.borrow_and_update().clone();
    if let Some((missing, there)) = Control::missing_lan(&config, &first) {
        return Err(Error::LanMissing(missing, there));
    }
    let missing = |wan: &&crate::config::Wan| first.device(&wan.device).is_none();
    if config.wans.iter().all(|wan| missing(&wan)) {
        tracing::warn!("not one WAN device is there yet; waiting for them");
    }
    advice::tell(&bus, &config);
    let mut past = Past::start(config.history.as_ref(), &bus);
    let telling = Telling::start(&bus, &config).await?;

    let plane = DataPlane::open(options)?;
    let tables = plane.tables();
    let plane = Plane::new(plane, dead_after(&config));

    let (view_sender, view) = watch::channel(Arc::new(View::default()));
    let mode = config.mode.name();
    let role = config.role;
    let what = if role == Role::Server { "role server".to_owned() } else { format!("mode {mode}") };
    let running = format!("{what}, balance {}", config.balance.name());
    let mut control = Control::new(config, plane.clone(), bus.clone(), &first, view_sender)?;
    control.begin(&first)?;
    plane.start().map_err(system("starting the liveness thread"))?;

    let (bond, shown) = Bond::start(&control, private, &first);
    let mut tasks = JoinSet::new();
    if control.config.tunnel().is_some() {
        let (config, instance) = (control.config.clone(), options.instance.clone());
        let maps = plane.with(|plane| plane.bond());
        // Of its own: a socket makes one dump at a time.
        let (requests, network) = (Requests::open()?, network.clone());
        tasks.spawn(bonded::keep(config, instance, requests, maps, network, bus.clone()));
    }
    let own_routes = OwnRoutes::start(&control, Requests::open()?, &first);
    tasks.spawn(watcher.run());
    let (mut followers, heard) = Followers::start(&control, &tables, devices);
    let Heard { mut reports, mut samples, usage } = heard;
    let mut shortages = check(&mut tasks, tables.clone());
    let mut changer = Changer::new(file.to_owned(), bus.clone());
    let (changes, mut wishes) = change::channel();
    let domains = control.domains.clone();
    let look = Look::new(&control, view.clone(), network.clone(), usage.clone(), shown.clone());
    let answers = Answers {
        instance: options.instance.clone(),
        role,
        mode,
        started,
        view,
        usage,
        tables,
        bond: shown,
        domains,
        bus: bus.clone(),
        changes,
        look,
        past: past.clone(),
        telling: telling.clone(),
    };
    let api = tokio::spawn(api::serve(listeners, Arc::new(answers), token));
    bus.publish(
        EventKind::AgentStarted,
        None,
        format!("agent {} runs", env!("CARGO_PKG_VERSION")),
        running,
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
                let now = network.borrow().clone();
                let (wish, reply) = wish.take();
                let mut live =
                    Live { control: &mut control, followers: &mut followers, telling: &telling, past: &past, network: &now };
                reply.send(live.make(wish, &mut changer));
                resolve(&requests, &control, &now);
                Ok(())
            }
            () = until(changer.deadline()) => {
                let now = network.borrow().clone();
                let mut live =
                    Live { control: &mut control, followers: &mut followers, telling: &telling, past: &past, network: &now };
                changer.expire(&mut live, Instant::now());
                Ok(())
            }
            Ok(()) = network.changed() => {
                let now = network.borrow_and_update().clone();
                // A carrier that is gone is gone at once, whatever takes long here.
                bond.tell(&control, &now);
                let done = control.network(&now);
                resolve(&requests, &control, &now);
                done
            }
            Some((at, totals)) = samples.recv() => {
                followers.passed(&totals);
                control.rates.sample(at, totals);
                Ok(())
            }
            Some(shortage) = shortages.recv() => {
                control.exhausted(&shortage);
                Ok(())
            }
            // Behind what is rarer: there may always be one.
            Some(report) = reports.recv() => {
                if let Some((_, wan)) = control.wan(report.path) {
                    past.enter(&wan.name, &report);
                }
                control.report(report)
            }
            _ = decide.tick() => control.decide(Instant::now()),
            _ = look.tick() => {
                past.tell(&bus);
                let now = network.borrow().clone();
                let done = control.network(&now);
                resolve(&requests, &control, &now);
                done
            }
        };
        if let Err(error) = done {
            tracing::error!(%error, "the data plane could not be told");
        }
        bond.tell(&control, &network.borrow());
        if let Some(own_routes) = &own_routes {
            own_routes.tell(&control, &network.borrow());
        }
    };
    bus.publish(EventKind::AgentStopping, None, "the agent stops; the data plane goes on", why);
    api.abort();
    // Dropping the listeners removes the socket; the answer does not matter.
    let _ = api.await;
    telling.stop().await;
    // Its thread ends meanwhile.
    tokio::task::spawn_blocking(move || past.close()).await.map_err(|error| Error::System {
        what: "ending the history",
        source: std::io::Error::other(error),
    })
}

/// All that takes part when the configuration changes.
struct Live<'a> {
    control: &'a mut Control,
    followers: &'a mut Followers,
    telling: &'a Telling,
    past: &'a Past,
    network: &'a Snapshot,
}

impl Live<'_> {
    fn make(&mut self, wish: Change, changer: &mut Changer) -> Result<Done, Refusal> {
        let now = Instant::now();
        match wish {
            Change::Reload => changer.reload(self, now),
            Change::Apply { text, confirm } => changer.apply(self, text, confirm, now),
            Change::Confirm => changer.confirm(now),
            Change::Failover { wan, lasting } => self.control.force(&wan, lasting),
            Change::FailoverAuto => self.control.release(),
            Change::Rehearse { wan } => self.control.rehearse(wan.as_deref()),
        }
    }
}

impl Configurable for Live<'_> {
    fn config(&self) -> &Config {
        &self.control.config
    }

    fn check(&self, new: &Config) -> Result<(), Refusal> {
        if let Some((missing, there)) = Control::missing_lan(new, self.network) {
            return Err(Refusal::Wrong(Error::LanMissing(missing, there).to_string()));
        }
        telling::check(new).map_err(Refusal::Wrong)?;
        asking::plans(new).map(drop).map_err(Refusal::Wrong)
    }

    fn take(&mut self, new: Config) {
        let gone = |wan: &&crate::config::Wan| new.wans.iter().all(|other| other.name != wan.name);
        self.control.config.wans.iter().filter(gone).for_each(|wan| self.past.forget(&wan.name));
        self.telling.follow(&new);
        self.control.reconfigure(new, self.network);
        self.followers.follow(self.control);
    }
}

/// Makes the device of a bond: it is a LAN port of a server, and has programs. New routes
/// lead there only once these run: until then the machine goes on as it was.
async fn make_device(requests: &Requests, config: &Config, instance: &str) -> Result<(), Error> {
    let network = requests.snapshot(&Watched::default()).await?;
    if let Some(spec) = bonded::spec(config, instance, &network, &bonded::Mtus::new()) {
        Bonded::ensure(requests, &BondedSpec { routes: None, ..spec }).await?;
    }
    Ok(())
}

/// For how long a path counts as alive when nobody says so any more.
fn dead_after(config: &Config) -> Duration {
    let of = |wan: &crate::config::Wan| {
        wan.health.interval * wan.health.retries + wan.health.interval / 2
    };
    config.wans.iter().map(of).max().unwrap_or_default()
}

/// The end of a time; without one, never.
async fn until(time: Option<Instant>) {
    match time {
        Some(time) => tokio::time::sleep_until(time.into()).await,
        None => std::future::pending().await,
    }
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
