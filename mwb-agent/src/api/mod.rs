//! What the agent tells the outside: JSON over HTTP on a unix socket and on
//! loopback TCP, and Prometheus metrics. Read-only.
//!
//! Must not know: maps, netlink. It asks a [`Source`] for snapshots.

use std::future::Future;

use crate::events::Bus;

pub mod client;
mod http;
mod listen;
mod metrics;
pub mod snapshot;
#[cfg(test)]
mod tests;

pub use listen::{ListenError, Listeners, serve};
use snapshot::{CounterRow, Status};

/// Where answers come from.
pub trait Source: Send + Sync + 'static {
    /// The state of everything now.
    fn status(&self) -> impl Future<Output = Result<Status, Unavailable>> + Send;

    /// The data plane's counters, without rows that are zero.
    fn counters(&self) -> impl Future<Output = Result<Vec<CounterRow>, Unavailable>> + Send;

    /// The event bus.
    fn events(&self) -> &Bus;
}

/// Why a snapshot could not be taken.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{0}")]
pub struct Unavailable(pub String);
