//! The task of a receiver that is a command.
//!
//! Must not know: how a command is run, the bus.

use std::sync::Arc;

use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;

use super::body::Body;
use super::command;
use super::notifier::{Shared, Test};
use super::prepare::ExecTarget;
use super::world::World;

pub(super) struct Exec {
    pub(super) shared: Arc<Shared>,
    pub(super) target: watch::Receiver<ExecTarget>,
    pub(super) tests: mpsc::Receiver<Test>,
    pub(super) stop: watch::Receiver<bool>,
    pub(super) world: World,
}

impl Exec {
    /// Runs commands until it is to stop and none waits. Dropped, it kills those
    /// that run.
    pub(super) async fn run(mut self) {
        let mut running = JoinSet::new();
        loop {
            let stopping = *self.stop.borrow_and_update();
            let target = self.target.borrow_and_update().clone();
            while running.len() < target.at_once {
                let Some(body) = self.shared.inbox.pop() else { break };
                running.spawn(one(
                    Arc::clone(&self.shared),
                    self.world.clone(),
                    target.clone(),
                    body,
                ));
                self.shared.tally.lock().queued = running.len() as u64;
            }
            if stopping && running.is_empty() {
                return;
            }
            tokio::select! {
                Some(_) = running.join_next() => {
                    self.shared.tally.lock().queued = running.len() as u64;
                }
                Some(test) = self.tests.recv(), if running.len() < target.at_once => {
                    running.spawn(try_out(target, test));
                }
                () = self.shared.inbox.news(), if running.len() < target.at_once => {}
                Ok(()) = self.target.changed() => {}
                // Whoever no longer says when to stop has stopped.
                Ok(()) = self.stop.changed() => {}
                else => return,
            }
        }
    }
}

async fn one(shared: Arc<Shared>, world: World, target: ExecTarget, body: Body) {
    match command::run(&target, &body).await {
        Ok(()) => shared.tally.lock().delivered += 1,
        Err(why) => {
            tracing::warn!(
                receiver = body.receiver,
                delivery = body.delivery,
                why,
                "an event's command failed"
            );
            shared.tally.lock().dropped.failed += 1;
            shared.tally.error((world.clock)(), why);
        }
    }
}

async fn try_out(target: ExecTarget, test: Test) {
    let result = command::run(&target, &test.body).await;
    // Nobody waiting for it any more is no error.
    let _ = test.result.send(result.map(|()| "the command succeeded".to_owned()));
}
