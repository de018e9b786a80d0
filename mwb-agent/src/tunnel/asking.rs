//! How a gateway asks for sessions and keys: by which WANs and where, when again, and what
//! the operator hears of a server that does not answer.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::time::{Duration, Instant, SystemTime};

use super::core::Core;
use super::gateway::{Gateway, is_path};
use super::network::Network;
use super::refusals::other_version;
use super::session::Session;
use super::sockets::Received;
use crate::bond::packet::Malformed;
use crate::bond::{Ignored, Os, Poll, Sending, SessionId, Wish};
use crate::dataplane::monotonic;
use crate::events::EventKind;

/// An operator hears of a server that does not answer for so long.
const SILENT: Duration = Duration::from_secs(10);
/// While probes are answered the server's host is there, and an initiation that its agent has
/// not answered is sent again after no longer than this.
const HURRY: Duration = Duration::from_secs(2);
/// Of a clock that is behind by less nobody needs to know.
const CLOCK: Duration = Duration::from_secs(5);

impl Gateway {
    /// Begins a handshake: for new keys if there is a session, else for a session.
    pub(super) fn ask(&mut self, core: &Core) {
        let running = self.session.as_ref().and_then(Session::running);
        let wish = match running {
            Some(running) => Some(Wish::GoOn(running)),
            None => self.fresh(core).map(Wish::New),
        };
        if let Some(wish) = wish {
            self.initiator.start(Instant::now(), wish);
            self.unanswered = Some((Instant::now(), 0));
        }
    }

    fn fresh(&self, core: &Core) -> Option<SessionId> {
        let sessions = self.session.iter().chain(&self.former);
        core.fresh(&sessions.map(|session| session.slot).collect())
    }

    /// The WANs that the server can be asked by, and where.
    pub(super) fn reachable(&self, network: &Network) -> BTreeMap<u8, SocketAddr> {
        let tries = self.unanswered.map_or(0, |(_, tries)| tries);
        let paths = self.usable.len().max(1) as u32;
        let uplinks = network.uplinks.iter().filter(|uplink| is_path(uplink.path));
        uplinks
            .filter_map(|uplink| Some((uplink.path, self.endpoints.choose(uplink, tries / paths)?)))
            .collect()
    }

    /// Sends the initiations that are due.
    pub(super) fn poll(&mut self, core: &mut Core, now: Instant) {
        let at = monotonic();
        let mut links = self.session.iter().flat_map(|session| session.paths.values());
        if links.any(|link| link.is_alive(at)) {
            self.initiator.hurry(now, HURRY);
        }
        let reachable = self.reachable(&core.network);
        let paths: Vec<u8> = reachable.keys().copied().collect();
        loop {
            match self.initiator.poll(now, SystemTime::now(), &paths, &mut Os) {
                Ok(Poll::Send(sending)) => self.send(core, sending, &reachable),
                Ok(Poll::Idle | Poll::Wait(_) | Poll::NoPath) => return,
                Err(error) => {
                    if core.may_say("initiate") {
                        tracing::error!(%error, "the bond cannot ask for a session");
                    }
                    return;
                }
            }
        }
    }

    fn send(&mut self, core: &mut Core, sending: Sending, to: &BTreeMap<u8, SocketAddr>) {
        let Sending { path, packet, clock_behind } = sending;
        if let Some(behind) = clock_behind.filter(|behind| *behind >= CLOCK)
            && core.may_say("clock")
        {
            let seconds = behind.as_secs();
            tracing::warn!(seconds, "the clock was set back; the server hears the later time");
        }
        let Some(&to) = to.get(&path) else { return };
        self.asked.insert(path, to);
        if let Some((_, tries)) = &mut self.unanswered {
            *tries += 1;
            // A name may stand for another address by now.
            if *tries > 1 {
                self.endpoints.resolve();
            }
        }
        core.counts.initiations += 1;
        core.send(path, to, &packet);
    }

    /// Says who does not answer.
    pub(super) fn complain(&mut self, core: &mut Core, now: Instant) {
        let Some((since, tries)) = self.unanswered else { return };
        if now.duration_since(since) < SILENT || !core.may_say("silent") {
            return;
        }
        let seconds = now.duration_since(since).as_secs();
        let (message, why) = if self.usable.is_empty() {
            let why = if self.endpoints.is_known() {
                "no WAN with a carrier, an address and a known next hop leads to it".to_owned()
            } else {
                format!("its name is not known: {}", self.endpoints.trouble())
            };
            (format!("the server has not been asked for {seconds} s"), why)
        } else {
            let servers: BTreeSet<String> = self.asked.values().map(ToString::to_string).collect();
            let servers = servers.into_iter().collect::<Vec<_>>().join(", ");
            let why = format!(
                "{tries} initiations since then: is `server_public_key` that of the server, \
                 does it have our public key among its clients, do its clock and ours agree, \
                 and does nothing on the way stop UDP to {servers}?"
            );
            (format!("no answer from {servers} for {seconds} s"), why)
        };
        core.publish(EventKind::BondSession, None, message, why);
    }

    pub(super) fn explain(&self, core: &mut Core, ignored: Ignored, received: &Received) {
        let versions;
        let why = match ignored {
            Ignored::Malformed(Malformed::Version(version)) => {
                versions = other_version(version);
                versions.as_str()
            }
            Ignored::WrongMac | Ignored::BadNoise => {
                "it is not sealed by the server whose `server_public_key` we have"
            }
            Ignored::NotAsked => "it has a suite or an epoch that was not asked for",
            Ignored::BadPayload | Ignored::Malformed(_) => "it is of no version that we speak",
            // Late answers are ordinary.
            _ => return,
        };
        if core.may_say(&format!("ignored {}", received.from.ip())) {
            tracing::warn!(from = %received.from, why, "an answer to a handshake is ignored");
        }
    }
}
