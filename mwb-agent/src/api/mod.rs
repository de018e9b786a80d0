//! What the agent tells the outside and is told by it: JSON over HTTP on a unix
//! socket and on loopback TCP, and Prometheus metrics.
//!
//! Must not know: maps, netlink. It asks a [`Source`] for snapshots, and hands
//! changes on.

use std::future::Future;
use std::time::Duration;

use crate::events::Bus;
use crate::explain::{Entry, Packet};
use crate::notify;

mod access;
pub mod bond;
pub mod change;
pub mod client;
pub mod doctor;
pub mod explain;
pub mod flows;
mod http;
mod listen;
mod metrics;
mod metrics_bond;
mod openapi;
pub mod past;
pub mod policy;
mod post;
mod read;
pub mod snapshot;
#[cfg(test)]
mod tests;

pub use access::{Token, TokenError};
pub use change::Changes;
use doctor::Report;
use explain::Explanation;
use flows::{FlowList, FlowQuery};
pub use listen::{ListenError, Listeners, serve};
use past::{History, HistoryQuery};
use policy::{AddressStatus, PolicyStatus};
pub use post::{ApplyBody, FailoverBody};
use snapshot::{CounterRow, Status};

/// Where answers come from.
pub trait Source: Send + Sync + 'static {
    /// The state of everything now.
    fn status(&self) -> impl Future<Output = Result<Status, Unavailable>> + Send;

    /// The data plane's counters, without rows that are zero.
    fn counters(&self) -> impl Future<Output = Result<Vec<CounterRow>, Unavailable>> + Send;

    /// The policy rules.
    fn policy(&self) -> impl Future<Output = Result<PolicyStatus, Unavailable>> + Send;

    /// Addresses of the names that a policy rule asks for.
    fn addresses(
        &self,
        rule: &str,
    ) -> impl Future<Output = Result<Vec<AddressStatus>, Unavailable>> + Send;

    /// Open flows. Reads whole tables.
    fn flows(&self, query: FlowQuery)
    -> impl Future<Output = Result<FlowList, Unavailable>> + Send;

    /// Why a packet goes where it goes.
    fn why(
        &self,
        packet: Packet,
        entry: Entry,
    ) -> impl Future<Output = Result<Explanation, Unavailable>> + Send;

    /// What is right and wrong, watched for some time.
    fn doctor(&self, watch: Duration) -> impl Future<Output = Result<Report, Unavailable>> + Send;

    /// The past of a WAN.
    fn history(
        &self,
        query: HistoryQuery,
    ) -> impl Future<Output = Result<History, Unavailable>> + Send;

    /// How it goes with those who are told of what happens.
    fn notified(&self) -> impl Future<Output = Result<notify::Status, Unavailable>> + Send;

    /// Tells one of them that this is a test.
    fn test_receiver(
        &self,
        name: &str,
    ) -> impl Future<Output = Result<notify::Tested, String>> + Send;

    /// The event bus.
    fn events(&self) -> &Bus;

    /// Where changes go.
    fn changes(&self) -> &Changes;
}

/// Why a snapshot could not be taken.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{0}")]
pub struct Unavailable(pub String);
