//! The task of a receiver that is a webhook: one request at a time, in order,
//! until it is answered.
//!
//! Must not know: how HTTP is spoken, the bus.

use std::io;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::{mpsc, watch};
use tokio::time::Instant;

use super::body::Body;
use super::notifier::{Shared, Test};
use super::post::{AnyPost, Reply};
use super::prepare::WebhookTarget;
use super::queue::{Head, Queue};
use super::retry::{Backoff, Verdict, judge};
use super::world::World;

/// How soon a disk that refused is asked again.
const DISK_AGAIN: Duration = Duration::from_secs(5);
/// So many events are written with one sync of the folder.
const BATCH: usize = 64;

pub(super) struct Webhook {
    pub(super) shared: Arc<Shared>,
    pub(super) target: watch::Receiver<WebhookTarget>,
    pub(super) tests: mpsc::Receiver<Test>,
    pub(super) stop: watch::Receiver<bool>,
    pub(super) world: World,
    pub(super) queue: Arc<Mutex<Queue>>,
    pub(super) post: Arc<dyn AnyPost>,
    pub(super) backoff: Backoff,
    pub(super) state: State,
}

/// What the task knows between two requests.
#[derive(Debug, Default)]
pub(super) struct State {
    /// In a row.
    failures: u32,
    /// Not before then.
    next: Option<Instant>,
    /// The entry of the last attempt.
    tried: Option<u64>,
    /// The disk refused; it is asked again then.
    disk: Option<Instant>,
}

enum Woken {
    Test(Test),
    Target,
    Other,
}

impl Webhook {
    /// Tells of events until it is to stop, and then of those that can be told at
    /// once. Dropped at any point, it leaves on disk what is not done.
    pub(super) async fn run(mut self) {
        loop {
            self.store().await;
            let stopping = *self.stop.borrow_and_update();
            if self.target.has_changed().unwrap_or(false) {
                self.target.mark_unchanged();
                // Somebody mended it, perhaps.
                self.due(None);
            }
            if let Ok(test) = self.tests.try_recv() {
                self.try_out(test).await;
            }
            let head = if self.is_due() { self.head().await } else { None };
            match head {
                Some((number, body)) => self.attempt(number, body).await,
                None if stopping => return,
                None => match self.wait().await {
                    Woken::Test(test) => self.try_out(test).await,
                    Woken::Target => self.due(None),
                    Woken::Other => {}
                },
            }
        }
    }

    /// Waits for something to do.
    async fn wait(&mut self) -> Woken {
        tokio::select! {
            Some(test) = self.tests.recv() => Woken::Test(test),
            Ok(()) = self.target.changed() => Woken::Target,
            Ok(()) = self.stop.changed() => Woken::Other,
            () = self.shared.inbox.news(), if self.state.disk.is_none() => Woken::Other,
            () = until(self.state.next) => Woken::Other,
            () = until(self.state.disk) => Woken::Other,
        }
    }

    /// Moves what has come to the disk.
    async fn store(&mut self) {
        if self.state.disk.is_some_and(|again| again > Instant::now()) {
            return;
        }
        self.state.disk = None;
        loop {
            let bodies = self.shared.inbox.take(BATCH);
            if bodies.is_empty() {
                return;
            }
            let shared = Arc::clone(&self.shared);
            let done = self
                .on_disk(move |queue| {
                    let rendered: Vec<Vec<u8>> = bodies.iter().map(Body::to_json).collect();
                    let result = queue.store(&rendered);
                    shared.tally.overflowed(result.dropped);
                    // What is not on disk waits in its place for another attempt.
                    let rest = bodies.into_iter().skip(result.stored).collect();
                    shared.tally.overflowed(shared.inbox.put_back(rest));
                    result.error.map_or(Ok(()), Err)
                })
                .await;
            if let Err(error) = done {
                self.disk_refused("events cannot be queued", &error);
                return;
            }
        }
    }

    /// The oldest event that is still wanted.
    async fn head(&mut self) -> Option<(u64, Vec<u8>)> {
        // Its time has come; if there is none, nothing is waited for.
        self.state.next = None;
        self.shared.tally.lock().next_attempt_unix_ms = None;
        loop {
            match self.on_disk(Queue::head).await {
                Ok(Head::None) => return None,
                Ok(Head::Damaged(what)) => {
                    tracing::warn!(receiver = self.shared.name, "{what}");
                    self.shared.tally.lock().dropped.damaged += 1;
                    self.shared.tally.error((self.world.clock)(), what);
                }
                Ok(Head::Entry(number, body)) => {
                    let keep = self.target.borrow().keep;
                    if !self.is_expired(&body, keep) {
                        return Some((number, body));
                    }
                    tracing::warn!(
                        receiver = self.shared.name,
                        delivery = delivery(&body),
                        "the webhook did not take an event for {keep:?}; it is dropped",
                    );
                    self.shared.tally.lock().dropped.expired += 1;
                    self.finish(number).await;
                }
                Err(error) => {
                    self.disk_refused("the oldest event cannot be read", &error);
                    self.state.next = self.state.disk;
                    return None;
                }
            }
        }
    }

    /// One request for the oldest event, and what follows from its answer.
    async fn attempt(&mut self, number: u64, body: Vec<u8>) {
        if self.state.tried.replace(number) == Some(number) {
            self.shared.tally.lock().retried += 1;
        }
        let delivery = delivery(&body);
        let answer = self.request(body).await;
        let receiver = &self.shared.name;
        match judge(answer) {
            Verdict::Delivered => {
                if self.state.failures > 0 {
                    tracing::info!(receiver, delivery, "the webhook takes events again");
                }
                self.shared.tally.lock().delivered += 1;
                self.finish(number).await;
                self.due(None);
            }
            Verdict::Refused(why) => {
                tracing::warn!(
                    receiver,
                    delivery,
                    why,
                    "the webhook refused an event; it is dropped"
                );
                self.shared.tally.lock().dropped.refused += 1;
                self.shared.tally.error((self.world.clock)(), why);
                self.finish(number).await;
                self.due(None);
            }
            Verdict::Again(why, asked) => {
                // Told once, not with each attempt of a long night.
                if self.state.failures == 0 {
                    tracing::warn!(
                        receiver,
                        delivery,
                        why,
                        "the webhook did not take an event; it is tried again"
                    );
                } else {
                    tracing::debug!(receiver, delivery, why, "the webhook did not take an event");
                }
                self.shared.tally.error((self.world.clock)(), why);
                let shared = Arc::clone(&self.shared);
                let later = move |queue: &mut Queue| {
                    shared.tally.overflowed(queue.later());
                    Ok(())
                };
                // It fails only when the runtime ends.
                let _ = self.on_disk(later).await;
                self.state.failures = self.state.failures.saturating_add(1);
                let chance = (self.world.chance)();
                self.due(Some(self.backoff.wait(self.state.failures, chance, asked)));
            }
        }
    }

    /// One request. What comes meanwhile does not wait for its answer in memory.
    async fn request(&mut self, body: Vec<u8>) -> Result<Reply, String> {
        let target = self.target.borrow().clone();
        let answer = send(Arc::clone(&self.post), target, (self.world.clock)(), body);
        let mut answer = std::pin::pin!(answer);
        loop {
            tokio::select! {
                answer = &mut answer => return answer,
                () = self.shared.inbox.news() => self.store().await,
            }
        }
    }

    /// The oldest event is done with.
    async fn finish(&mut self, number: u64) {
        // It fails only when the runtime ends.
        let _ = self
            .on_disk(move |queue| {
                queue.done(number);
                Ok(())
            })
            .await;
    }

    /// Outside the queue, and once.
    async fn try_out(&mut self, test: Test) {
        let body = test.body.to_json();
        let answer = self.request(body).await;
        let status = answer.as_ref().map_or(0, |reply| reply.status);
        let result = match judge(answer) {
            Verdict::Delivered => Ok(format!("it answers {status}")),
            Verdict::Refused(why) | Verdict::Again(why, _) => Err(why),
        };
        // Nobody waiting for it any more is no error.
        let _ = test.result.send(result);
    }

    /// Does something with the queue where it may take its time.
    async fn on_disk<T: Send + 'static>(
        &self,
        work: impl FnOnce(&mut Queue) -> io::Result<T> + Send + 'static,
    ) -> io::Result<T> {
        let (queue, shared) = (Arc::clone(&self.queue), Arc::clone(&self.shared));
        let task = tokio::task::spawn_blocking(move || {
            let mut queue = queue.lock().unwrap_or_else(PoisonError::into_inner);
            let result = work(&mut queue);
            shared.tally.lock().queued = queue.len() as u64;
            result
        });
        task.await.map_err(io::Error::other)?
    }

    fn disk_refused(&mut self, what: &str, error: &io::Error) {
        let message = format!("{what}: {error}");
        tracing::warn!(receiver = self.shared.name, "{message}");
        self.shared.tally.error((self.world.clock)(), message);
        self.state.disk = Some(Instant::now() + DISK_AGAIN);
    }

    /// The next attempt is after this time; at once, and as if nothing had
    /// failed, without one.
    fn due(&mut self, wait: Option<Duration>) {
        if wait.is_none() {
            self.state.failures = 0;
        }
        self.state.next = wait.map(|wait| Instant::now() + wait);
        let unix_ms = wait.map(|wait| {
            (self.world.clock)().saturating_add(u64::try_from(wait.as_millis()).unwrap_or(u64::MAX))
        });
        self.shared.tally.lock().next_attempt_unix_ms = unix_ms;
    }

    fn is_due(&self) -> bool {
        self.state.next.is_none_or(|next| next <= Instant::now())
    }

    fn is_expired(&self, body: &[u8], keep: Duration) -> bool {
        // What an older agent wrote may be something else: then it is sent.
        let happened = serde_json::from_slice::<Body>(body).map(|body| body.unix_ms);
        happened
            .is_ok_and(|ms| Duration::from_millis((self.world.clock)().saturating_sub(ms)) > keep)
    }
}

/// One signed request.
async fn send(
    post: Arc<dyn AnyPost>,
    target: WebhookTarget,
    unix_ms: u64,
    body: Vec<u8>,
) -> Result<Reply, String> {
    let timestamp = unix_ms / 1_000;
    let headers = [
        ("Content-Type", "application/json".to_owned()),
        ("User-Agent", concat!("mwb-agent/", env!("CARGO_PKG_VERSION")).to_owned()),
        ("X-MWB-Timestamp", timestamp.to_string()),
        ("X-MWB-Signature", target.secret.sign(timestamp, &body)),
    ];
    // Whatever the client makes of the time, it is over after it.
    let answer = post.post_boxed(&target.url, &headers, body, target.timeout);
    tokio::time::timeout(target.timeout, answer)
        .await
        .unwrap_or_else(|_| Err(format!("it did not answer within {:?}", target.timeout)))
}

fn delivery(body: &[u8]) -> String {
    serde_json::from_slice::<Body>(body).map(|body| body.delivery).unwrap_or_default()
}

async fn until(time: Option<Instant>) {
    match time {
        Some(time) => tokio::time::sleep_until(time).await,
        None => std::future::pending().await,
    }
}
