//! What an operator may change, as the API hands it to the control loop.
//!
//! A change goes through a channel and is answered: the loop makes changes one
//! after the other, between two decisions.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::sync::{mpsc, oneshot};
use utoipa::ToSchema;

/// Changes that may wait for the control loop.
const WAITING: usize = 8;

/// What is to be changed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// Read the agent's file again and apply the difference.
    Reload,
    /// Apply the difference to the text of a configuration file.
    Apply {
        /// The file's text.
        text: String,
        /// If set, the former configuration comes back by itself after this
        /// time unless [`Change::Confirm`] comes before.
        confirm: Option<Duration>,
    },
    /// Keep what was applied for a trial: it becomes the agent's file.
    Confirm,
    /// Send all new flows to one WAN while it works.
    Failover {
        /// Its name.
        wan: String,
        /// For how long; `None`: until [`Change::FailoverAuto`].
        lasting: Option<Duration>,
    },
    /// Decide by health and configuration again.
    FailoverAuto,
    /// Say what [`Change::Failover`] to this WAN would do, or [`Change::FailoverAuto`]
    /// without one, and change nothing.
    Rehearse {
        /// Its name.
        wan: Option<String>,
    },
}

/// That a change was made.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Done {
    /// One sentence for people.
    pub message: String,
    /// What is different now, one entry each; empty: nothing is.
    pub changes: Vec<String>,
    /// Until when it must be confirmed, in milliseconds since 1970, if it must.
    pub confirm_until_unix_ms: Option<u64>,
}

/// Why a change was not made. Nothing is different then.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// What was asked for is wrong: a file with an error, an unknown WAN.
    #[error("{0}")]
    Wrong(String),
    /// It cannot be done in this state: nothing to confirm, another trial runs.
    #[error("{0}")]
    Conflict(String),
    /// The system did not let us.
    #[error("{0}")]
    Failed(String),
}

/// Hands changes to the control loop. Clones share one channel.
#[derive(Clone, Debug)]
pub struct Changes {
    sender: mpsc::Sender<Request>,
}

/// A change that waits for its answer.
#[derive(Debug)]
pub struct Request {
    /// What is to be changed.
    pub change: Change,
    reply: oneshot::Sender<Result<Done, Refusal>>,
}

/// A way for changes, and its end at the control loop.
#[must_use]
pub fn channel() -> (Changes, mpsc::Receiver<Request>) {
    let (sender, receiver) = mpsc::channel(WAITING);
    (Changes { sender }, receiver)
}

impl Changes {
    /// Has a change made and waits for the answer.
    ///
    /// # Errors
    /// When it is refused, or nobody is there to make it.
    pub async fn make(&self, change: Change) -> Result<Done, Refusal> {
        let gone = || Refusal::Failed("the agent is about to stop".to_owned());
        let (reply, answer) = oneshot::channel();
        self.sender.send(Request { change, reply }).await.map_err(|_| gone())?;
        answer.await.map_err(|_| gone())?
    }
}

impl Request {
    /// Tells whoever asked. That nobody waits any more is no error: the change
    /// was made all the same.
    pub fn answer(self, answer: Result<Done, Refusal>) {
        let _ = self.reply.send(answer);
    }

    /// The change, and a way to answer it later.
    #[must_use]
    pub fn take(self) -> (Change, Reply) {
        (self.change, Reply(self.reply))
    }
}

/// The answer's way back.
#[derive(Debug)]
pub struct Reply(oneshot::Sender<Result<Done, Refusal>>);

impl Reply {
    /// Tells whoever asked, see [`Request::answer`].
    pub fn send(self, answer: Result<Done, Refusal>) {
        let _ = self.0.send(answer);
    }
}
