//! ICMP echo by one WAN.
//!
//! A round asks targets of the families that the WAN has; without one of those
//! the WAN's own gateways, which proves the first hop only.

use std::io;
use std::net::IpAddr;

use tokio::io::unix::AsyncFd;

use super::echo::{self, Stamp};
use super::plan::{Echo, turn};
use super::socket::{BUFFER, Family, PacketSocket};
use super::{Cause, Hop, Link, NextHop};

/// Identifier of path 0; path `n` has this plus `n`. NAT gives identifiers
/// from 10000 on, so that no probe looks like a host's echo.
const IDENTIFIERS: u16 = 9_900;

/// Sends echo requests by one WAN, and hears the replies.
#[derive(Debug)]
pub struct Icmp {
    identifier: u16,
    token: [u8; 8],
    echo: Echo,
    targets: Vec<IpAddr>,
    per_round: Option<u32>,
    rounds: u64,
    link: Link,
    v4: Option<AsyncFd<PacketSocket>>,
    v6: Option<AsyncFd<PacketSocket>>,
}

/// A reply.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reply {
    /// Number of the round.
    pub round: u16,
    /// Who answered.
    pub from: IpAddr,
    /// Which one of those that can be asked that is.
    pub who: usize,
}

impl Icmp {
    /// For the WAN with this path id. `token` should be random: an answer is
    /// known by it.
    #[must_use]
    pub fn new(path: u8, token: [u8; 8]) -> Self {
        Self {
            identifier: IDENTIFIERS + u16::from(path),
            token,
            echo: Echo::default(),
            targets: Vec::new(),
            per_round: None,
            rounds: 0,
            link: Link::default(),
            v4: None,
            v6: None,
        }
    }

    /// Takes how and whom to ask from now on.
    pub fn aim(&mut self, echo: Echo, targets: &[IpAddr], per_round: Option<u32>) {
        (self.echo, self.per_round) = (echo, per_round);
        self.targets = targets.to_vec();
    }

    /// Takes a new state of the device, and opens what must be opened for it.
    ///
    /// # Errors
    /// When a socket cannot be had.
    pub fn bind(&mut self, link: &Link) -> io::Result<()> {
        let moved = self.link.ifindex != link.ifindex;
        self.link = link.clone();
        if moved {
            (self.v4, self.v6) = (None, None);
        }
        let Some(ifindex) = link.ifindex else { return Ok(()) };
        if link.v4.is_some() && self.v4.is_none() {
            let socket = PacketSocket::open(Family::V4, ifindex, self.identifier)?;
            self.v4 = Some(register(socket)?);
        }
        if link.v6.is_some() && self.v6.is_none() {
            let socket = PacketSocket::open(Family::V6, ifindex, self.identifier)?;
            self.v6 = Some(register(socket)?);
        }
        Ok(())
    }

    /// Whom the WAN's families let us ask.
    fn reachable(&self) -> Vec<IpAddr> {
        let (has4, has6) = (self.link.v4.is_some(), self.link.v6.is_some());
        let fits = |target: &&IpAddr| if target.is_ipv4() { has4 } else { has6 };
        let named: Vec<IpAddr> = self.targets.iter().filter(fits).copied().collect();
        if !named.is_empty() {
            return named;
        }
        let gateway4 = self.link.v4.and_then(|hop| hop.gateway).map(IpAddr::V4);
        let gateway6 = self.link.v6.and_then(|hop| hop.gateway).map(IpAddr::V6);
        gateway4.into_iter().chain(gateway6).collect()
    }

    /// Sends one round; how many targets it asks.
    ///
    /// # Errors
    /// The reason why not a single request could be sent.
    pub fn send(&mut self, round: u16) -> Result<u32, Cause> {
        let Echo { size, dont_fragment, count } = self.echo;
        let (identifier, token) = (self.identifier, self.token);
        let stamp = Stamp { identifier, sequence: round, token, size, dont_fragment };
        let has_address = self.link.v4.is_some() || self.link.v6.is_some();
        let mut failure = if has_address { Cause::NoTarget } else { Cause::NoAddress };
        let reachable = self.reachable();
        let mut asked = 0;
        for index in turn(reachable.len(), self.per_round, self.rounds) {
            let Some(target) = reachable.get(index) else { continue };
            let mut sent = false;
            for _ in 0..count {
                let result = match *target {
                    IpAddr::V4(target) => send(self.link.v4, self.v4.as_ref(), |source| {
                        echo::request4(source, target, &stamp)
                    }),
                    IpAddr::V6(target) => send(self.link.v6, self.v6.as_ref(), |source| {
                        echo::request6(source, target, &stamp)
                    }),
                };
                match result {
                    Ok(()) => sent = true,
                    Err(cause) => failure = cause,
                }
            }
            asked += u32::from(sent);
        }
        self.rounds += 1;
        if asked == 0 { Err(failure) } else { Ok(asked) }
    }

    /// The next reply that has already arrived; does not wait.
    pub fn take(&mut self) -> Option<Reply> {
        let mut buffer = [0; BUFFER];
        for socket in [&self.v4, &self.v6].into_iter().flatten() {
            // Read whether or not the reactor has said so: a late task must
            // see what came in before it judges what did not.
            while let Ok(packet) = socket.get_ref().receive(&mut buffer) {
                let reply = echo::reply(packet, self.identifier, &self.token);
                if let Some((from, round)) = reply
                    && let Some(who) = self.reachable().iter().position(|one| *one == from)
                {
                    return Some(Reply { round, from, who });
                }
            }
        }
        None
    }

    /// Waits until [`Icmp::take`] may have something. Cancel-safe.
    pub async fn ready(&self) {
        tokio::select! {
            () = readable(self.v4.as_ref()) => {}
            () = readable(self.v6.as_ref()) => {}
        }
    }
}

fn register(socket: PacketSocket) -> io::Result<AsyncFd<PacketSocket>> {
    // SAFETY: a `PacketSocket` owns one descriptor, gives always that one, and
    // does not close it before it is dropped.
    Ok(unsafe { AsyncFd::register(socket) }?)
}

/// Waits for a packet; for ever if there is no socket.
async fn readable(socket: Option<&AsyncFd<PacketSocket>>) {
    match socket {
        Some(socket) => {
            if let Ok(mut guard) = socket.readable().await {
                // `take` reads until there is nothing left.
                guard.clear_ready();
            }
        }
        None => std::future::pending().await,
    }
}

fn send<A: Copy>(
    hop: Option<Hop<A>>,
    socket: Option<&AsyncFd<PacketSocket>>,
    packet: impl FnOnce(A) -> Vec<u8>,
) -> Result<(), Cause> {
    let (Some(hop), Some(socket)) = (hop, socket) else { return Err(Cause::NoAddress) };
    let mac = match hop.mac {
        NextHop::Mac(mac) => Some(mac),
        NextHop::NotNeeded => None,
        NextHop::Unresolved => return Err(Cause::NextHopUnresolved),
    };
    let sent = socket.get_ref().send(&packet(hop.source), mac);
    sent.map_err(|error| Cause::NotSent(error.to_string()))
}
