//! Watches each WAN: sends probes that leave by exactly that WAN, and turns
//! what comes back into a state with a reason.
//!
//! A [`Checker`] asks ([`prober`]: echo requests by [`icmp`], all else by
//! [`methods`]); [`watch`] drives it. Pure are [`plan`], what is asked and of whom;
//! [`probes`], what a missing answer means; [`quality`], how good the link is;
//! [`machine`], what state follows; [`hold`], how long a link must prove itself
//! after an outage; [`pace`], how often it is asked and what its traffic proves;
//! [`auto`] and [`evidence`], which way to ask tells the truth. `watcher` puts
//! them together.
//!
//! A WAN has one state for both families: any target that answers proves it.
//!
//! Must not know: maps, netlink. It is told what there is to know about the
//! device as a [`Link`].

use std::future::Future;
use std::io;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::time::Duration;

pub mod auto;
mod budget;
pub mod echo;
pub mod evidence;
pub mod hold;
pub mod icmp;
pub mod machine;
pub mod methods;
pub mod pace;
mod passive;
pub mod plan;
pub mod prober;
pub mod probes;
pub mod quality;
mod random;
mod socket;
#[cfg(test)]
mod tests;
pub mod watch;
mod watcher;

pub use hold::Held;
pub use machine::{Cause, Machine, Reason, State, Transition};
pub use plan::{Kind, Plan};
pub use quality::Measured;
pub use watch::{Asking, Ended, Passed, Report, Scored, Start, Told, watch};

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
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// Number of the round.
    pub round: u16,
    /// What was asked, by its place in the plan.
    pub way: usize,
    /// Who was, by its place among those that can be; below 64.
    pub who: usize,
    /// What came of it.
    pub outcome: Outcome,
}

/// What came of asking.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// An answer as it should be.
    Good {
        /// How long the target took, where that is not the time until now.
        time: Option<Duration>,
        /// It says that it works, and that something is not well.
        warning: bool,
    },
    /// Another one, and what is wrong with it.
    Wrong(String),
    /// Nothing that says more than that the target does not want to: a closed port, a
    /// connection that breaks.
    Refused(String),
    /// None, for good.
    Silence,
}

/// A way to ask whether a WAN works.
///
/// A checker only sends and hears. When an answer is late and what follows is
/// decided by who drives it. Rounds are numbered by the caller.
pub trait Checker: Send {
    /// Takes what to ask, and whom, from now on.
    fn aim(&mut self, plan: &Plan);

    /// Takes a new state of the device; open what must be opened for it.
    fn bind(&mut self, link: &Link) -> io::Result<()>;

    /// Sends one round of probes by the link it was bound to, in the way of that
    /// place in the plan. How many targets are asked; 0: those that were asked
    /// before are still to answer.
    ///
    /// # Errors
    /// The reason why not a single probe could be sent.
    fn send(&mut self, round: u16, way: usize) -> Result<u32, Cause>;

    /// The next answer that has already arrived; must not wait.
    fn take(&mut self) -> Option<Answer>;

    /// Waits until [`Checker::take`] may have something. Cancel-safe.
    fn ready(&mut self) -> impl Future<Output = ()> + Send;
}
