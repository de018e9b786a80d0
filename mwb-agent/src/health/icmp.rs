//! The ICMP echo checker.
//!
//! Each round asks every target of a family that the WAN has; any answer
//! proves the WAN. Without a target of such a family the WAN's own gateways
//! are asked, which proves the first hop only.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use tokio::io::unix::AsyncFd;

use super::echo::{self, Stamp};
use super::socket::{BUFFER, Family, PacketSocket};
use super::{Answer, Cause, Checker, Hop, Link, NextHop};

/// Identifier of path 0; path `n` has this plus `n`. NAT gives identifiers
/// from 10000 on, so that no probe looks like a host's echo.
const IDENTIFIERS: u16 = 9_900;

/// Probes one WAN by ICMP echo.
#[derive(Debug)]
pub struct IcmpChecker {
    identifier: u16,
    token: [u8; 8],
    targets: Vec<IpAddr>,
    link: Link,
    v4: Option<AsyncFd<PacketSocket>>,
    v6: Option<AsyncFd<PacketSocket>>,
}

impl IcmpChecker {
    /// A checker for the WAN with this path id. `token` should be random: an
    /// answer is known by it.
    #[must_use]
    pub fn new(path: u8, token: [u8; 8]) -> Self {
        let identifier = IDENTIFIERS + u16::from(path);
        let (targets, link) = (Vec::new(), Link::default());
        Self { identifier, token, targets, link, v4: None, v6: None }
    }

    /// Whom to ask over IPv4 and IPv6.
    fn targets(&self) -> (Vec<Ipv4Addr>, Vec<Ipv6Addr>) {
        let (mut v4, mut v6) = (Vec::new(), Vec::new());
        for target in &self.targets {
            match target {
                IpAddr::V4(target) if self.link.v4.is_some() => v4.push(*target),
                IpAddr::V6(target) if self.link.v6.is_some() => v6.push(*target),
                _ => {}
            }
        }
        if v4.is_empty() && v6.is_empty() {
            v4.extend(self.link.v4.and_then(|hop| hop.gateway));
            v6.extend(self.link.v6.and_then(|hop| hop.gateway));
        }
        (v4, v6)
    }
}

impl Checker for IcmpChecker {
    fn aim(&mut self, targets: &[IpAddr]) {
        self.targets = targets.to_vec();
    }

    fn bind(&mut self, link: &Link) -> io::Result<()> {
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

    fn send(&mut self, round: u16) -> Result<(), Cause> {
        let stamp = Stamp { identifier: self.identifier, sequence: round, token: self.token };
        let (targets4, targets6) = self.targets();
        let has_address = self.link.v4.is_some() || self.link.v6.is_some();
        let mut result = Err(if has_address { Cause::NoTarget } else { Cause::NoAddress });
        for target in targets4 {
            note(
                &mut result,
                send(self.link.v4, self.v4.as_ref(), |source| {
                    echo::request4(source, target, &stamp)
                }),
            );
        }
        for target in targets6 {
            note(
                &mut result,
                send(self.link.v6, self.v6.as_ref(), |source| {
                    echo::request6(source, target, &stamp)
                }),
            );
        }
        result
    }

    fn take(&mut self) -> Option<Answer> {
        let mut buffer = [0; BUFFER];
        for socket in [&self.v4, &self.v6].into_iter().flatten() {
            // Read whether or not the reactor has said so: a late task must
            // see what came in before it judges what did not.
            while let Ok(packet) = socket.get_ref().receive(&mut buffer) {
                if let Some((from, round)) = echo::reply(packet, self.identifier, &self.token) {
                    return Some(Answer { round, from });
                }
            }
        }
        None
    }

    async fn ready(&mut self) {
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

/// One probe that got out makes a round; else the last failure is the reason.
fn note(result: &mut Result<(), Cause>, one: Result<(), Cause>) {
    if result.is_err() {
        *result = one;
    }
}
