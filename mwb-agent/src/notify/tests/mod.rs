//! The notifier as a whole, with receivers that misbehave.

mod bus;
mod changes;
mod commands;
mod http;
mod ram;
mod restarts;
mod webhooks;

use std::collections::HashMap;
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

pub(super) use ram::Ram;

use super::world::World;
use super::*;
use crate::events::{Bus, EventKind};

const SECRET: &[u8] = b"0123456789abcdef0123456789abcdef";
/// Long past what any of these tests takes.
const DEADLINE: Duration = Duration::from_secs(30);

/// Waits until it holds; with a paused clock that is no real time.
async fn wait_until(what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = Instant::now() + DEADLINE;
    while !holds() {
        assert!(Instant::now() < deadline, "in vain: {what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

fn publish(bus: &Bus, count: u64) {
    for n in 1..=count {
        bus.publish(EventKind::WanState, Some("fiber"), format!("event {n}"), "a test");
    }
}

/// A folder with a secret in it.
struct Home(tempfile::TempDir);

impl Home {
    fn new() -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let home = Self(folder);
        fs::write(home.secret(), SECRET).expect("written");
        fs::set_permissions(home.secret(), fs::Permissions::from_mode(0o600)).expect("its own");
        home
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn secret(&self) -> PathBuf {
        self.path("secret")
    }

    /// Quick ones: these tests run in real time.
    fn settings(&self) -> Settings {
        let backoff =
            Backoff { first: Duration::from_millis(1), longest: Duration::from_millis(20) };
        Settings { folder: self.path("notify"), queue: 2_000, backoff, ..Settings::new("gw-1") }
    }

    fn webhook(&self, name: &str, url: &str) -> Receiver {
        let kind = Kind::Webhook {
            url: url.to_owned(),
            secret_file: self.secret(),
            timeout: Duration::from_secs(5),
            keep: DEFAULT_KEEP,
        };
        Receiver { name: name.to_owned(), filter: Filter::default(), kind }
    }
}

/// The status of one receiver.
fn status(notifier: &Notifier, name: &str) -> ReceiverStatus {
    let all = notifier.status().receivers;
    all.into_iter().find(|receiver| receiver.name == name).expect("configured")
}

/// Time that goes with the runtime's clock, chance that is one, disks in memory.
fn world(ram: &Ram) -> World {
    let begun = Instant::now();
    // Events have the time of the machine.
    let first = std::time::UNIX_EPOCH.elapsed().expect("after 1970");
    World {
        clock: Arc::new(move || {
            u64::try_from((first + begun.elapsed()).as_millis()).unwrap_or(u64::MAX)
        }),
        chance: Arc::new(|| 1.0),
        disks: Arc::new(ram.clone()),
    }
}

/// What a webhook does with a request.
#[derive(Clone, Copy, Debug)]
enum Answer {
    Status(u16),
    Later(u16, Duration),
    /// The connection breaks before it has the request.
    Lost,
    /// The connection breaks after it has it.
    LostAfter,
    Never,
}

/// Webhooks without a network.
#[derive(Clone, Default)]
struct Fake(Arc<Mutex<Webhooks>>);

#[derive(Default)]
struct Webhooks {
    /// By URL; without one 200.
    answers: HashMap<String, Answer>,
    /// What has come to which URL, when.
    got: Vec<(String, Body, Instant)>,
    /// Requests that are under way.
    now: HashMap<String, usize>,
    /// There were two at once for one URL.
    two_at_once: bool,
}

impl Fake {
    fn lock(&self) -> MutexGuard<'_, Webhooks> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn answers(&self, url: &str, answer: Answer) {
        self.lock().answers.insert(url.to_owned(), answer);
    }

    /// Ids of what has come to it.
    fn ids(&self, url: &str) -> Vec<u64> {
        self.lock().got.iter().filter(|got| got.0 == url).map(|got| got.1.id).collect()
    }

    fn arrived(&self, url: &str, answer: Answer, body: &[u8]) {
        let mut hooks = self.lock();
        *hooks.now.entry(url.to_owned()).or_default() -= 1;
        if !matches!(answer, Answer::Lost) {
            let body = serde_json::from_slice(body).expect("a body");
            hooks.got.push((url.to_owned(), body, Instant::now()));
        }
    }

    /// When something has come to it.
    fn times(&self, url: &str) -> Vec<Instant> {
        self.lock().got.iter().filter(|got| got.0 == url).map(|got| got.2).collect()
    }
}

impl Post for Fake {
    async fn post(
        &self,
        url: &str,
        _: &[(&str, String)],
        body: Vec<u8>,
        _: Duration,
    ) -> Result<Reply, String> {
        let answer = {
            let mut hooks = self.lock();
            let now = hooks.now.entry(url.to_owned()).or_default();
            *now += 1;
            hooks.two_at_once |= *now > 1;
            hooks.answers.get(url).copied().unwrap_or(Answer::Status(200))
        };
        tokio::task::yield_now().await;
        self.arrived(url, answer, &body);
        match answer {
            Answer::Status(status) => Ok(Reply { status, retry_after: None }),
            Answer::Later(status, after) => Ok(Reply { status, retry_after: Some(after) }),
            Answer::Lost | Answer::LostAfter => Err("connection reset".to_owned()),
            Answer::Never => std::future::pending().await,
        }
    }
}
