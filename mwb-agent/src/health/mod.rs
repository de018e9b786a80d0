//! Watches each WAN: sends probes that leave by exactly that WAN, and turns
//! what comes back into a state with a reason.
//!
//! [`Checker`] is one way to probe ([`icmp`] so far); [`watch`] drives it;
//! [`probes`], [`quality`], [`machine`] and [`hold`] are the pure parts: what a
//! missing answer means, how good the link is, what state follows, and how long
//! a link must prove itself after an outage.
//!
//! A WAN has one state for both families: any target that answers proves it.
//!
//! Must not know: maps, netlink. It is told what there is to know about the
//! device as a [`Link`].

use std::future::Future;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

pub mod echo;
pub mod hold;
pub mod icmp;
pub mod machine;
pub mod probes;
pub mod quality;
mod socket;
#[cfg(test)]
mod tests;
pub mod watch;

pub use hold::Held;
pub use machine::{Cause, Machine, Reason, State, Transition};
pub use quality::Measured;
pub use watch::{Report, Start, watch};

/// What a checker must know to send by one WAN and no other.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Link {
    /// Interface index; `None` while there is no such device.
    pub ifindex: Option<u32>,
    /// Whether the device is up and has a carrier.
    pub carrier: bool,
    /// How IPv4 leaves; `None` if the WAN has none.
    pub v4: Option<Hop<Ipv4Addr>>,
    /// How IPv6 leaves; `None` if the WAN has none.
    pub v6: Option<Hop<Ipv6Addr>>,
}

/// How packets of one family leave by a WAN.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Hop<A> {
    /// Our address on the WAN.
    pub source: A,
    /// The next hop; `None` on a link that has none (point to point).
    pub gateway: Option<A>,
    /// How frames reach it.
    pub mac: NextHop,
}

/// How frames reach the next hop.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NextHop {
    /// With this MAC as destination.
    Mac([u8; 6]),
    /// The device has no link-layer addresses.
    NotNeeded,
    /// The next hop has not told its MAC.
    Unresolved,
}

/// An answer to a round of probes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Answer {
    /// Number of the round.
    pub round: u16,
    /// Who answered.
    pub from: IpAddr,
}

/// A way to ask whether a WAN works.
///
/// A checker only sends and hears. When an answer is late and what follows is
/// decided by who drives it. Rounds are numbered by the caller.
pub trait Checker: Send {
    /// Takes whom to ask from now on.
    fn aim(&mut self, targets: &[IpAddr]);

    /// Takes a new state of the device; open what must be opened for it.
    fn bind(&mut self, link: &Link) -> io::Result<()>;

    /// Sends one round of probes by the link it was bound to.
    ///
    /// # Errors
    /// The reason why not a single probe could be sent.
    fn send(&mut self, round: u16) -> Result<(), Cause>;

    /// The next answer that has already arrived; must not wait.
    fn take(&mut self) -> Option<Answer>;

    /// Waits until [`Checker::take`] may have something. Cancel-safe.
    fn ready(&mut self) -> impl Future<Output = ()> + Send;
}
