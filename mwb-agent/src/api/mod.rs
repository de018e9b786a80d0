//! What the agent tells the outside and is told by it: JSON over HTTP on a unix
//! socket and on loopback TCP, and Prometheus metrics.
//!
//! Must not know: maps, netlink. It asks a [`Source`] for snapshots, and hands
//! changes on.

use std::future::Future;

use crate::events::Bus;

mod access;
pub mod change;
pub mod client;
mod http;
mod listen;
mod metrics;
mod post;
pub mod snapshot;
#[cfg(test)]
mod tests;

pub use access::{Token, TokenError};
pub use change::Changes;
pub use listen::{ListenError, Listeners, serve};
pub use post::{ApplyBody, FailoverBody};
use snapshot::{CounterRow, Status};

/// Where answers come from.
pub trait Source: Send + Sync + 'static {
    /// The state of everything now.
    fn status(&self) -> impl Future<Output = Result<Status, Unavailable>> + Send;

    /// The data plane's counters, without rows that are zero.
    fn counters(&self) -> impl Future<Output = Result<Vec<CounterRow>, Unavailable>> + Send;

    /// The event bus.
    fn events(&self) -> &Bus;

    /// Where changes go.
    fn changes(&self) -> &Changes;
}

/// Why a snapshot could not be taken.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{0}")]
pub struct Unavailable(pub String);
