//! Checks receivers before anything is changed, and reads their secrets.
//!
//! Must not know: queues, tasks.

use std::collections::HashSet;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use hyper::Uri;

use super::receiver::{Filter, Kind, Receiver};
use super::sign::{Secret, SecretError};

/// Why receivers cannot be as they are configured.
#[derive(Debug, thiserror::Error)]
pub enum NotifyError {
    /// The name cannot be that of a folder.
    #[error(
        "the receiver `{0}`: a name has 1 to 63 letters, digits, `-`, `_` and `.`, and begins with a letter or a digit"
    )]
    Name(String),
    /// Two have it.
    #[error("two receivers are named `{0}`; give each a name of its own")]
    Twice(String),
    /// The URL is not one that can be asked.
    #[error(
        "the receiver `{receiver}`: url `{url}` must be http://HOST/… or https://HOST/…, without user and password"
    )]
    Url {
        /// Whose.
        receiver: String,
        /// What is configured.
        url: String,
    },
    /// The secret cannot be had.
    #[error("the receiver `{receiver}`: {error}")]
    Secret {
        /// Whose.
        receiver: String,
        /// Why.
        error: SecretError,
    },
    /// The command is not one.
    #[error("the receiver `{receiver}`: command must begin with the absolute path of a program")]
    Command {
        /// Whose.
        receiver: String,
    },
    /// A number that must not be zero is.
    #[error("the receiver `{receiver}`: {what} must be more than 0")]
    Zero {
        /// Whose.
        receiver: String,
        /// Which.
        what: &'static str,
    },
    /// The queue cannot be had.
    #[error("the queue of the receiver `{receiver}` in {folder}: {error}")]
    Queue {
        /// Whose.
        receiver: String,
        /// Where the queues are.
        folder: PathBuf,
        /// What the system says.
        error: io::Error,
    },
    /// There is nothing to make unique ids of.
    #[error("the system gives no random bytes, and deliveries would have no ids of their own")]
    NoRandomness,
    /// A task of the runtime ended early.
    #[error("the agent is ending")]
    Ending,
    /// There is no such receiver.
    #[error("there is no receiver named `{0}`")]
    Unknown(String),
    /// The receiver did not take a test.
    #[error("the receiver `{receiver}` did not take the test: {why}")]
    Failed {
        /// Which.
        receiver: String,
        /// Why.
        why: String,
    },
}

impl NotifyError {
    /// Whose fault it is, if it is a configured receiver's.
    #[must_use]
    pub fn receiver(&self) -> Option<&str> {
        match self {
            Self::Name(receiver)
            | Self::Twice(receiver)
            | Self::Url { receiver, .. }
            | Self::Secret { receiver, .. }
            | Self::Command { receiver }
            | Self::Zero { receiver, .. }
            | Self::Queue { receiver, .. }
            | Self::Failed { receiver, .. } => Some(receiver),
            Self::NoRandomness | Self::Ending | Self::Unknown(_) => None,
        }
    }
}

/// A receiver that can be told.
#[derive(Debug)]
pub(super) struct Prepared {
    pub(super) name: String,
    pub(super) filter: Filter,
    pub(super) target: Target,
}

#[derive(Debug)]
pub(super) enum Target {
    Webhook(WebhookTarget),
    Exec(ExecTarget),
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct WebhookTarget {
    pub(super) url: String,
    pub(super) secret: Secret,
    pub(super) timeout: Duration,
    pub(super) keep: Duration,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct ExecTarget {
    pub(super) command: Vec<String>,
    pub(super) timeout: Duration,
    pub(super) at_once: usize,
}

/// Whether these could be told, but for their queues.
///
/// # Errors
/// With what is wrong about the first that could not.
pub fn check(receivers: Vec<Receiver>) -> Result<(), NotifyError> {
    prepare(receivers).map(drop)
}

/// All of them, or what is wrong with the first that is not right.
pub(super) fn prepare(receivers: Vec<Receiver>) -> Result<Vec<Prepared>, NotifyError> {
    let mut names = HashSet::new();
    receivers
        .into_iter()
        .map(|receiver| {
            let prepared = one(receiver)?;
            if names.insert(prepared.name.clone()) {
                Ok(prepared)
            } else {
                Err(NotifyError::Twice(prepared.name))
            }
        })
        .collect()
}

fn one(receiver: Receiver) -> Result<Prepared, NotifyError> {
    let Receiver { name, filter, kind } = receiver;
    if !is_name(&name) {
        return Err(NotifyError::Name(name));
    }
    let zero = |what| NotifyError::Zero { receiver: name.clone(), what };
    let target = match kind {
        Kind::Webhook { url, secret_file, timeout, keep } => {
            if !is_url(&url) {
                return Err(NotifyError::Url { receiver: name, url });
            }
            positive(timeout).ok_or_else(|| zero("timeout"))?;
            positive(keep).ok_or_else(|| zero("keep"))?;
            let secret = Secret::load(&secret_file)
                .map_err(|error| NotifyError::Secret { receiver: name.clone(), error })?;
            Target::Webhook(WebhookTarget { url, secret, timeout, keep })
        }
        Kind::Exec { command, timeout, at_once } => {
            if !is_command(&command) {
                return Err(NotifyError::Command { receiver: name });
            }
            positive(timeout).ok_or_else(|| zero("timeout"))?;
            if at_once == 0 {
                return Err(zero("at_once"));
            }
            Target::Exec(ExecTarget { command, timeout, at_once })
        }
    };
    Ok(Prepared { name, filter, target })
}

/// Also used for folders that an earlier run left.
pub(super) fn is_name(name: &str) -> bool {
    name.len() <= 63
        && name.starts_with(|first: char| first.is_ascii_alphanumeric())
        && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte))
}

fn is_url(url: &str) -> bool {
    url.parse::<Uri>().is_ok_and(|uri| {
        matches!(uri.scheme_str(), Some("http" | "https"))
            && uri.host().is_some_and(|host| !host.is_empty())
            && uri.authority().is_some_and(|authority| !authority.as_str().contains('@'))
    })
}

fn is_command(command: &[String]) -> bool {
    let program = command.first().is_some_and(|program| Path::new(program).is_absolute());
    program && !command.iter().any(|word| word.contains('\0'))
}

fn positive(time: Duration) -> Option<Duration> {
    (!time.is_zero()).then_some(time)
}

#[cfg(test)]
#[path = "prepare_tests.rs"]
mod tests;
