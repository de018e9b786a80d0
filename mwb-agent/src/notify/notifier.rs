//! Takes events from the bus and puts each where its receivers find it.
//!
//! Must not know: how a receiver is told.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::sync::broadcast::error::RecvError;
use tokio::sync::{broadcast, oneshot, watch};
use tokio::task::JoinHandle;
use utoipa::ToSchema;

use super::body::{Body, Origin};
use super::inbox::Inbox;
use super::post::{AnyPost, Post};
use super::prepare::{NotifyError, Prepared, prepare};
use super::receiver::Receiver;
use super::retry::Backoff;
use super::sign::hex;
use super::staff::{Handle, Staff};
use super::status::{Status, Tally};
use super::world::World;
use crate::events::{Bus, Event};

/// What all receivers share.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// Where the queues of webhooks are, each in a folder of its receiver's name.
    pub folder: PathBuf,
    /// This gateway's host name.
    pub gateway: String,
    /// How many events may wait for a receiver; then the oldest go.
    pub queue: usize,
    /// How long webhooks are left alone after a failure.
    pub backoff: Backoff,
    /// Receivers whose queues stay, though they are not told at the start.
    pub keep: BTreeSet<String>,
}

impl Settings {
    /// The usual ones.
    #[must_use]
    pub fn new(gateway: impl Into<String>) -> Self {
        Self {
            folder: PathBuf::from("/var/lib/mwb/notify"),
            gateway: gateway.into(),
            queue: 1_000,
            backoff: Backoff::default(),
            keep: BTreeSet::new(),
        }
    }
}

/// A test that a receiver took.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Tested {
    /// Which delivery it was.
    pub delivery: String,
    /// What the receiver said.
    pub result: String,
    /// How long it took, in milliseconds, with the wait for what it was just told.
    pub took_ms: u64,
}

/// A test on its way to a receiver.
pub(super) struct Test {
    pub(super) body: Body,
    pub(super) result: oneshot::Sender<Result<String, String>>,
}

/// What a receiver's task shares with those who feed it and ask about it.
pub(super) struct Shared {
    pub(super) name: String,
    pub(super) inbox: Inbox<Body>,
    pub(super) tally: Tally,
}

/// Tells receivers what happens. Dropped, it stops at once; webhooks are told by
/// the next run what is in their queues. Only one at a time may use a folder: end
/// it with [`Notifier::stop`] before another begins.
pub struct Notifier {
    core: Arc<Core>,
    /// Changes of the receivers come one after another.
    staff: tokio::sync::Mutex<Staff>,
    listening: Task,
    stop: watch::Sender<bool>,
    tests: AtomicU64,
}

/// What the listening task needs.
struct Core {
    bus: Bus,
    origin: Origin,
    receivers: Receivers,
    lagged: AtomicU64,
    missed: AtomicU64,
    world: World,
}

/// Who is told, by name.
#[derive(Clone, Default)]
pub(super) struct Receivers(Arc<Mutex<BTreeMap<String, Handle>>>);

impl Receivers {
    pub(super) fn lock(&self) -> MutexGuard<'_, BTreeMap<String, Handle>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A task that ends with this value.
pub(super) struct Task(pub(super) JoinHandle<()>);

impl Drop for Task {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl Notifier {
    /// Tells `receivers` of the events with an id above `from` that the bus still
    /// has (0: all), and of each from now on. Queues of webhooks that an earlier
    /// run left are worked off; those of receivers that are no more are deleted.
    /// Needs a runtime of tokio.
    ///
    /// # Errors
    /// When a receiver cannot be as it is configured, or there are no random bytes.
    pub async fn start<P: Post + 'static>(
        bus: Bus,
        from: u64,
        settings: Settings,
        receivers: Vec<Receiver>,
        post: P,
    ) -> Result<Self, NotifyError> {
        let world = World::real(&settings.folder);
        Self::start_in(world, bus, from, settings, receivers, Arc::new(post)).await
    }

    pub(super) async fn start_in(
        world: World,
        bus: Bus,
        from: u64,
        settings: Settings,
        receivers: Vec<Receiver>,
        post: Arc<dyn AnyPost>,
    ) -> Result<Self, NotifyError> {
        let mut run = [0; 8];
        getrandom::fill(&mut run).map_err(|_| NotifyError::NoRandomness)?;
        let (stop, stopping) = watch::channel(false);
        let receiving = Receivers::default();
        let core = Arc::new(Core {
            bus,
            origin: Origin { gateway: settings.gateway.clone(), run: hex(&run) },
            receivers: receiving.clone(),
            lagged: AtomicU64::new(0),
            missed: AtomicU64::new(0),
            world: world.clone(),
        });
        // Before the events are looked for, so that none falls between.
        let live = core.bus.subscribe();
        let mut staff = Staff::new(settings, world, post, receiving);
        staff.set(prepared(receivers).await?).await?;
        staff.remove_leftovers().await;
        let listening = Task(tokio::spawn(Arc::clone(&core).listen(live, from, stopping)));
        let staff = tokio::sync::Mutex::new(staff);
        Ok(Self { core, staff, listening, stop, tests: AtomicU64::new(0) })
    }

    /// From now on these are told. Those whose names (and kinds, webhook or
    /// command) stay keep what waits for them, and are tried at once with what is
    /// new about them. The queues of the others are deleted.
    ///
    /// # Errors
    /// When one cannot be as it is configured; then nothing has changed.
    pub async fn set_receivers(&self, receivers: Vec<Receiver>) -> Result<(), NotifyError> {
        let mut staff = self.staff.lock().await;
        staff.set(prepared(receivers).await?).await
    }

    /// How it goes.
    #[must_use]
    pub fn status(&self) -> Status {
        Status {
            lagged: self.core.lagged.load(Ordering::Relaxed),
            missed: self.core.missed.load(Ordering::Relaxed),
            receivers: self.core.receivers.lock().values().map(Handle::status).collect(),
        }
    }

    /// Tells one receiver that this is a test, once, whatever its filter, and past
    /// what waits for it.
    ///
    /// # Errors
    /// When there is no such receiver, or it did not take it.
    pub async fn test(&self, receiver: &str) -> Result<Tested, NotifyError> {
        let begun = tokio::time::Instant::now();
        let number = self.tests.fetch_add(1, Ordering::Relaxed) + 1;
        let body = self.core.origin.test(receiver, number, (self.core.world.clock)());
        let delivery = body.delivery.clone();
        let tests = self.core.receivers.lock().get(receiver).map(Handle::tests);
        let Some(tests) = tests else { return Err(NotifyError::Unknown(receiver.to_owned())) };
        let failed = |why| NotifyError::Failed { receiver: receiver.to_owned(), why };
        let gone = || failed("it was removed meanwhile".to_owned());
        let (sender, result) = oneshot::channel();
        tests.send(Test { body, result: sender }).await.map_err(|_| gone())?;
        let result = result.await.map_err(|_| gone())?.map_err(failed)?;
        let took_ms = u64::try_from(begun.elapsed().as_millis()).unwrap_or(u64::MAX);
        Ok(Tested { delivery, result, took_ms })
    }

    /// Stops: what has been published until now goes to the queues, and what can be
    /// told within `grace` is told. Commands that run after it are killed.
    pub async fn stop(mut self, grace: Duration) {
        // Whoever does not listen has stopped.
        let _ = self.stop.send(true);
        let ending = async {
            let _ = (&mut self.listening.0).await;
            self.staff.get_mut().ended().await;
        };
        if tokio::time::timeout(grace, ending).await.is_err() {
            tracing::info!("not all receivers could be told before the end");
        }
    }
}

/// Reads files, so not on a thread of the runtime.
async fn prepared(receivers: Vec<Receiver>) -> Result<Vec<Prepared>, NotifyError> {
    tokio::task::spawn_blocking(|| prepare(receivers)).await.map_err(|_| NotifyError::Ending)?
}

impl Core {
    /// Hands on each event once and in order. It never waits for a receiver.
    async fn listen(
        self: Arc<Self>,
        mut live: broadcast::Receiver<Event>,
        from: u64,
        mut stop: watch::Receiver<bool>,
    ) {
        let mut last = self.catch_up(from);
        loop {
            tokio::select! {
                received = live.recv() => match received {
                    // Those up to `last` came from the ring already.
                    Ok(event) if event.id <= last => {}
                    Ok(event) => {
                        last = event.id;
                        self.hand_on(&event);
                    }
                    Err(RecvError::Lagged(events)) => {
                        self.lagged.fetch_add(events, Ordering::Relaxed);
                        last = self.catch_up(last);
                    }
                    Err(RecvError::Closed) => return,
                },
                _ = stop.wait_for(|stop| *stop) => {
                    self.catch_up(last);
                    // What has come is with the receivers before they stop.
                    self.receivers.lock().values().for_each(Handle::stop);
                    return;
                }
            }
        }
    }

    /// Hands on what the ring has after `last`; says which is the last now.
    fn catch_up(&self, mut last: u64) -> u64 {
        for event in self.bus.since(last) {
            let missed = event.id.saturating_sub(last + 1);
            if missed > 0 {
                self.missed.fetch_add(missed, Ordering::Relaxed);
                tracing::warn!(events = missed, "events went by that no receiver is told of");
            }
            last = event.id;
            self.hand_on(&event);
        }
        last
    }

    fn hand_on(&self, event: &Event) {
        for (name, receiver) in self.receivers.lock().iter() {
            receiver.hand(event, || self.origin.body(name, event));
        }
    }
}
