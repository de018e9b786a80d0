//! The receivers' tasks: they come and go with the configuration.
//!
//! Must not know: the bus.

use std::collections::BTreeMap;
use std::io;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::{mpsc, watch};

use super::body::Body;
use super::exec::Exec;
use super::inbox::Inbox;
use super::notifier::{Receivers, Settings, Shared, Task, Test};
use super::post::AnyPost;
use super::prepare::{ExecTarget, NotifyError, Prepared, Target, WebhookTarget, is_name};
use super::queue::Queue;
use super::receiver::Filter;
use super::status::{ReceiverStatus, Tally};
use super::webhook::{State, Webhook};
use super::world::World;
use crate::events::Event;

/// What others have of a receiver.
pub(super) struct Handle {
    filter: Filter,
    shared: Arc<Shared>,
    tests: mpsc::Sender<Test>,
    stop: watch::Sender<bool>,
    aim: Aim,
}

/// Where a receiver's task looks for what is configured now.
enum Aim {
    Webhook(watch::Sender<WebhookTarget>),
    Exec(watch::Sender<ExecTarget>),
}

/// A receiver's task, and its queue if it is on disk.
struct Member {
    task: Task,
    queue: Option<Arc<Mutex<Queue>>>,
}

/// All of them.
pub(super) struct Staff {
    settings: Settings,
    world: World,
    post: Arc<dyn AnyPost>,
    receivers: Receivers,
    members: BTreeMap<String, Member>,
}

impl Handle {
    /// Puts an event where the task finds it, if it is one for the receiver.
    pub(super) fn hand(&self, event: &Event, body: impl FnOnce() -> Body) {
        if self.filter.takes(event) {
            self.shared.tally.overflowed(self.shared.inbox.push(body()));
        }
    }

    pub(super) fn status(&self) -> ReceiverStatus {
        let mut status = self.shared.tally.lock().clone();
        status.queued += self.shared.inbox.len() as u64;
        status
    }

    pub(super) fn tests(&self) -> mpsc::Sender<Test> {
        self.tests.clone()
    }

    /// The task does what it can do now, and ends.
    pub(super) fn stop(&self) {
        self.stop.send_replace(true);
    }

    /// Whether it can take over what is configured now.
    fn fits(&self, prepared: &Prepared) -> bool {
        matches!(
            (&self.aim, &prepared.target),
            (Aim::Webhook(_), Target::Webhook(_)) | (Aim::Exec(_), Target::Exec(_))
        )
    }

    fn change(&mut self, prepared: Prepared) {
        self.filter = prepared.filter;
        match (&self.aim, prepared.target) {
            (Aim::Webhook(aim), Target::Webhook(target)) => replace(aim, target),
            (Aim::Exec(aim), Target::Exec(target)) => replace(aim, target),
            // Another kind is another receiver.
            (Aim::Webhook(_), Target::Exec(_)) | (Aim::Exec(_), Target::Webhook(_)) => {}
        }
    }
}

fn replace<T: PartialEq>(aim: &watch::Sender<T>, target: T) {
    aim.send_if_modified(|now| {
        let changed = *now != target;
        if changed {
            *now = target;
        }
        changed
    });
}

/// A receiver that is new, with all that can fail behind it.
struct Candidate {
    name: String,
    filter: Filter,
    tools: Tools,
}

enum Tools {
    /// With how many events of its queue were too many.
    Webhook(WebhookTarget, Queue, u64),
    Exec(ExecTarget),
}

impl Staff {
    pub(super) fn new(
        settings: Settings,
        world: World,
        post: Arc<dyn AnyPost>,
        receivers: Receivers,
    ) -> Self {
        Self { settings, world, post, receivers, members: BTreeMap::new() }
    }

    /// Makes it so that these are told.
    pub(super) async fn set(&mut self, wanted: Vec<Prepared>) -> Result<(), NotifyError> {
        let (staying, coming): (Vec<Prepared>, Vec<Prepared>) = {
            let receivers = self.receivers.lock();
            wanted.into_iter().partition(|prepared| {
                receivers.get(&prepared.name).is_some_and(|handle| handle.fits(prepared))
            })
        };
        // What can fail comes first.
        let mut candidates = Vec::new();
        for prepared in coming {
            candidates.push(self.equip(prepared).await?);
        }
        let mut leaving: Vec<String> = self.receivers.lock().keys().cloned().collect();
        leaving.retain(|name| !staying.iter().any(|prepared| prepared.name == *name));
        for name in leaving {
            self.dismiss(&name).await;
        }
        let mut receivers = self.receivers.lock();
        for prepared in staying {
            if let Some(handle) = receivers.get_mut(&prepared.name) {
                handle.change(prepared);
            }
        }
        for candidate in candidates {
            let name = candidate.name.clone();
            let (handle, member) = self.hire(candidate);
            receivers.insert(name.clone(), handle);
            self.members.insert(name, member);
        }
        Ok(())
    }

    async fn equip(&self, prepared: Prepared) -> Result<Candidate, NotifyError> {
        let Prepared { name, filter, target } = prepared;
        let tools = match target {
            Target::Exec(target) => Tools::Exec(target),
            Target::Webhook(target) => {
                let (disks, limit, folder) =
                    (Arc::clone(&self.world.disks), self.settings.queue, name.clone());
                let opened = blocking(move || Queue::open(disks.open(&folder)?, limit)).await;
                let (queue, dropped) = opened.map_err(|error| NotifyError::Queue {
                    receiver: name.clone(),
                    folder: self.settings.folder.clone(),
                    error,
                })?;
                Tools::Webhook(target, queue, dropped)
            }
        };
        Ok(Candidate { name, filter, tools })
    }

    fn hire(&self, candidate: Candidate) -> (Handle, Member) {
        let Candidate { name, filter, tools } = candidate;
        let kind = match tools {
            Tools::Webhook(..) => "webhook",
            Tools::Exec(_) => "exec",
        };
        let inbox = Inbox::new(self.settings.queue);
        let shared = Arc::new(Shared { tally: Tally::new(&name, kind), inbox, name });
        // One waits while one runs.
        let (tests, testing) = mpsc::channel(1);
        let (stop, stopping) = watch::channel(false);
        let world = self.world.clone();
        let (aim, task, queue) = match tools {
            Tools::Webhook(target, queue, dropped) => {
                shared.tally.overflowed(dropped);
                shared.tally.lock().queued = queue.len() as u64;
                let (aim, target) = watch::channel(target);
                let queue = Arc::new(Mutex::new(queue));
                let webhook = Webhook {
                    shared: Arc::clone(&shared),
                    target,
                    tests: testing,
                    stop: stopping,
                    world,
                    queue: Arc::clone(&queue),
                    post: Arc::clone(&self.post),
                    backoff: self.settings.backoff,
                    state: State::default(),
                };
                (Aim::Webhook(aim), tokio::spawn(webhook.run()), Some(queue))
            }
            Tools::Exec(target) => {
                let (aim, target) = watch::channel(target);
                let shared = Arc::clone(&shared);
                let exec = Exec { shared, target, tests: testing, stop: stopping, world };
                (Aim::Exec(aim), tokio::spawn(exec.run()), None)
            }
        };
        let handle = Handle { filter, shared, tests, stop, aim };
        (handle, Member { task: Task(task), queue })
    }

    /// Ends a receiver's task and deletes its queue.
    async fn dismiss(&mut self, name: &str) {
        self.receivers.lock().remove(name);
        let Some(mut member) = self.members.remove(name) else { return };
        member.task.0.abort();
        // That it was aborted is what is wanted.
        let _ = (&mut member.task.0).await;
        let Some(queue) = member.queue else { return };
        let removed =
            blocking(move || queue.lock().unwrap_or_else(PoisonError::into_inner).remove()).await;
        self.told(name, removed);
    }

    /// Deletes the queues of receivers that an earlier run had and this one has
    /// not.
    pub(super) async fn remove_leftovers(&self) {
        let disks = Arc::clone(&self.world.disks);
        let names = blocking(move || disks.names()).await.unwrap_or_default();
        for name in names {
            let ours = self.members.get(&name).is_some_and(|member| member.queue.is_some());
            if ours || self.settings.keep.contains(&name) || !is_name(&name) {
                continue;
            }
            let (disks, folder) = (Arc::clone(&self.world.disks), name.clone());
            let removed =
                blocking(move || Queue::open(disks.open(&folder)?, usize::MAX)?.0.remove()).await;
            self.told(&name, removed);
        }
    }

    fn told(&self, receiver: &str, removed: io::Result<()>) {
        let folder = self.settings.folder.display();
        match removed {
            Ok(()) => tracing::info!(receiver, "the queue of a removed receiver is deleted"),
            Err(error) => tracing::warn!(
                receiver,
                %error,
                "the queue of a removed receiver in {folder} cannot be deleted; delete it by hand"
            ),
        }
    }

    /// All tasks have ended.
    pub(super) async fn ended(&mut self) {
        for member in self.members.values_mut() {
            // One that panicked has ended as well.
            let _ = (&mut member.task.0).await;
        }
    }
}

/// Does what a disk may take its time for.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> io::Result<T> + Send + 'static,
) -> io::Result<T> {
    tokio::task::spawn_blocking(work).await.map_err(io::Error::other)?
}
