//! The network as the kernel has it: devices, addresses, routes, neighbours.
//!
//! [`Watcher`] keeps a [`Snapshot`] up to date; [`Requests`] reads once and asks
//! the kernel to resolve a neighbour. What is on which device, and what
//! follows from it, is read off a snapshot by pure functions.
//!
//! The only module that knows netlink. Must not know: maps, what a WAN is.

mod driver;
mod dump;
mod features;
mod peer;
mod snapshot;
#[cfg(test)]
pub(crate) mod testing;
#[cfg(test)]
mod tests;
mod watcher;

pub use driver::driver;
pub use dump::Requests;
pub use features::features;
pub use snapshot::{Address, Device, Neighbour, Peer, Reachability, Route, Snapshot, Watched};
pub use watcher::Watcher;

/// What can go wrong between us and the kernel's network configuration.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A netlink socket could not be opened.
    #[error("opening a netlink socket: {0}")]
    Open(#[source] std::io::Error),
    /// A dump failed.
    #[error("reading {what} by netlink: {source}")]
    Dump {
        /// Of what.
        what: &'static str,
        /// Why.
        source: Box<rtnetlink::Error>,
    },
    /// The kernel does not resolve a neighbour.
    #[error("asking the kernel to resolve {address}: {source}")]
    Resolve {
        /// The neighbour.
        address: std::net::IpAddr,
        /// Why.
        source: Box<rtnetlink::Error>,
    },
    /// The driver of a device could not be asked for.
    #[error("reading the driver of {device}: {source}")]
    Driver {
        /// The device.
        device: String,
        /// Why.
        source: std::io::Error,
    },
}
