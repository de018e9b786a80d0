//! The network as the kernel has it: devices, addresses, routes, neighbours.
//!
//! [`Bonded`] makes the device of a bond, [`Tables`] a routing table for each WAN and the
//! rules that lead there; nothing else is ever changed.
//!
//! [`Watcher`] keeps a [`Snapshot`] up to date; [`Requests`] reads once and asks
//! the kernel to resolve a neighbour. What is on which device, and what
//! follows from it, is read off a snapshot by pure functions.
//!
//! The only module that knows netlink. Must not know: maps, what a WAN is.

mod bonded;
mod bonded_routes;
#[cfg(test)]
mod bonded_tests;
mod carrier;
mod driver;
mod dump;
mod features;
#[cfg(test)]
mod owned_tests;
mod peer;
mod rule_message;
mod rules;
mod snapshot;
mod table_routes;
mod tables;
#[cfg(test)]
pub(crate) mod testing;
#[cfg(test)]
mod tests;
mod watcher;

pub use bonded::{Bonded, BondedSpec};
pub use bonded_routes::{BondedRoute, ROUTE_PROTOCOL};
pub use carrier::CarrierSocket;
pub use driver::driver;
pub use dump::Requests;
pub use features::features;
pub use rules::{KernelAction, KernelRule, PRIORITIES};
pub use snapshot::{Address, Device, Neighbour, Peer, Reachability, Route, Snapshot, Watched};
pub use tables::{Changes, TABLES, Tables, WanTable, Wanted, number as table_number};
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
    /// There is a device of the name that the bond's should have.
    #[error(
        "device `{device}` is there and not the bond's: {why}; rename or remove it, or give the \
         bond another `device`"
    )]
    Foreign {
        /// Its name.
        device: String,
        /// How that is known.
        why: String,
    },
    /// Somebody else has a route that the bond needs.
    #[error(
        "the route {destination} should lead to {device}, and there is another one to it; remove \
         that, or give it another metric"
    )]
    RouteTaken {
        /// Where to.
        destination: ipnet::IpNet,
        /// The bond's device.
        device: String,
    },
    /// Somebody else has routes in the table of a WAN.
    #[error(
        "routing table {table} should be a WAN's, and has routes of somebody else (`ip route show \
         table {table}`, protocol {protocol}); give those another table"
    )]
    TableTaken {
        /// Its number.
        table: u32,
        /// Whose, as a number of /etc/iproute2/rt_protos.
        protocol: u8,
    },
    /// A rule cannot be what it should be.
    #[error("rule {index} of those handed to the kernel: {why}")]
    Rule {
        /// Which, from 0.
        index: usize,
        /// Why.
        why: String,
    },
    /// There are not as many priorities.
    #[error("{0} rules take more of the kernel's priorities than ours, 7750 to 8898; use fewer")]
    TooManyRules(usize),
    /// The kernel cannot tell packets by it.
    #[error("this kernel has no rules by DSCP: that needs Linux 6.12; leave out `dscp`")]
    NoDscp,
    /// IPv6 would leave by a WAN and not by the bond.
    #[error(
        "IPv6 is switched off on {0}, and not on the whole machine: what the bond should carry \
         would leave in the clear; `sysctl -w net.ipv6.conf.{0}.disable_ipv6=0`, or set it to 1 \
         for `all`"
    )]
    Ipv6Off(String),
    /// The kernel refused a change.
    #[error("{what}: {source}")]
    Change {
        /// Of what.
        what: String,
        /// Why.
        source: Box<rtnetlink::Error>,
    },
    /// What a device does with packets could not be switched.
    #[error("switching offloads of {device}: {source}")]
    Features {
        /// The device.
        device: String,
        /// Why.
        source: std::io::Error,
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
