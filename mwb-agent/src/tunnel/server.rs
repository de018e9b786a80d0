//! The server's end at work: who gets a session, when it takes an old one's place, and
//! whose addresses lead into it.
//!
//! Whatever an initiation brings about, the session and the keys from before stay in use
//! until a packet was opened with the new ones: the initiation may be one that somebody
//! has recorded.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use ipnet::IpNet;
use mwb_common::integrity::seal::Sender;
use mwb_common::maps::session_flag;

use super::aging::Age;
use super::carriers;
use super::core::Core;
use super::gateway::is_path;
use super::pace;
use super::session::Session;
use super::sockets::Received;
use crate::bond::{
    Answer, Client, Clients, Established, Os, PrivateKey, PublicKey, Question, Responder,
};
use crate::config::{self, suite_name};
use crate::dataplane::{Error, monotonic};
use crate::events::EventKind;

/// Initiations in a second from where on those who cannot be reached are not answered.
const LOAD: u32 = 100;
/// Where the path of a handshake packet stands.
const PATH_AT: usize = 2;

/// The server's end.
pub(super) struct Server {
    pub(super) server: config::Server,
    responder: Responder,
    pub(super) clients: Clients,
    pub(super) of: BTreeMap<PublicKey, Of>,
    load: Load,
    /// As they are in the maps.
    owners: BTreeMap<IpNet, u32>,
}

/// What a client has.
#[derive(Default)]
pub(super) struct Of {
    /// The session that a packet was opened of.
    pub(super) current: Option<Session>,
    /// One that would take its place.
    pub(super) next: Option<Session>,
}

/// How many initiations come.
#[derive(Default)]
struct Load {
    since: Option<Instant>,
    count: u32,
    before: u32,
}

impl Load {
    /// One more. Whether they are too many.
    fn is_too_much(&mut self, now: Instant) -> bool {
        let second = Duration::from_secs(1);
        match self.since.map(|since| now.saturating_duration_since(since)) {
            Some(age) if age < second => self.count += 1,
            age => {
                self.before = if age.is_some_and(|age| age < 2 * second) { self.count } else { 0 };
                (self.since, self.count) = (Some(now), 1);
            }
        }
        self.count.max(self.before) > LOAD
    }
}

impl Server {
    /// The end with this key. Takes over the sessions that an agent before us has left.
    pub(super) fn new(
        core: &mut Core,
        server: config::Server,
        private: PrivateKey,
    ) -> Result<Self, Error> {
        let clients = server.clients.iter().map(|client| {
            let known = Client { suites: client.suites.clone(), last: None, running: None };
            (client.public_key, known)
        });
        let mut end = Self {
            responder: Responder::new(private),
            clients: clients.collect(),
            of: BTreeMap::new(),
            load: Load::default(),
            owners: BTreeMap::new(),
            server,
        };
        end.take_over(core)?;
        Ok(end)
    }

    fn take_over(&mut self, core: &mut Core) -> Result<(), Error> {
        for slot in 0..core.maps.slots() {
            let found = Session::take_over(&core.maps, slot)?;
            let known =
                |found: &Session| self.clients.contains_key(&found.peer) && found.is_heard();
            let Some(mut found) = found.filter(known) else {
                if core.maps.session(slot)?.ours != 0 {
                    core.maps.clear(slot)?;
                }
                continue;
            };
            found.reserve = core.settings.reserve();
            // Of two that were heard the newer one is in use.
            let current = &mut self.of.entry(found.peer).or_default().current;
            let older = match current.take() {
                Some(other) if other.is_newer_than(&found) => {
                    *current = Some(other);
                    Some(found)
                }
                other => {
                    *current = Some(found);
                    other
                }
            };
            if let Some(older) = older {
                older.end(&core.maps)?;
            }
        }
        self.settle(core)
    }

    /// What is in use decides who owns which addresses, and what a handshake goes on from.
    pub(super) fn settle(&mut self, core: &Core) -> Result<(), Error> {
        let mut owners = BTreeMap::new();
        for client in &self.server.clients {
            let current = self.of.get(&client.public_key).and_then(|of| of.current.as_ref());
            if let Some(session) = current {
                owners.extend(client.prefixes.iter().map(|prefix| (*prefix, session.slot)));
            }
            if let Some(known) = self.clients.get_mut(&client.public_key) {
                known.running = current.and_then(Session::running);
            }
        }
        if owners != self.owners {
            core.maps.set_owners(&owners)?;
            self.owners = owners;
        }
        Ok(())
    }

    /// What people call a client.
    pub(super) fn name(&self, key: &PublicKey) -> &str {
        client_name(&self.server, key)
    }

    /// The settings of the kernel side follow.
    pub(super) fn write_bond(&self, core: &Core) -> Result<(), Error> {
        core.write_bond(0, self.elephant_bytes())
    }

    /// The network is another one.
    pub(super) fn follow(&mut self, core: &mut Core) -> Result<(), Error> {
        self.write_bond(core)?;
        for session in self.of.values_mut().filter_map(|of| of.current.as_mut()) {
            carriers::watch(core, session)?;
        }
        self.turn(core)
    }

    /// What time brings about.
    pub(super) fn turn(&mut self, core: &mut Core) -> Result<(), Error> {
        let now = Instant::now();
        let keys: Vec<PublicKey> = self.of.keys().copied().collect();
        let mut changed = false;
        for key in keys {
            changed |= self.look(core, &key)?;
            changed |= self.expire(core, &key, now)?;
        }
        self.of.retain(|_, of| of.current.is_some() || of.next.is_some());
        if changed {
            self.settle(core)?;
        }
        self.measure_paths(core)?;
        self.write_bond(core)?;
        let sessions = self.of.values().flat_map(|of| of.current.iter().chain(&of.next));
        // Nothing is sent of a session before its client was heard.
        let heard = sessions.filter(|session| session.is_heard());
        core.beat(pace::targets(&core.settings, heard));
        Ok(())
    }

    /// Looks at what the kernel side has opened. Whether anything is new.
    fn look(&mut self, core: &mut Core, key: &PublicKey) -> Result<bool, Error> {
        let Some(of) = self.of.get_mut(key) else { return Ok(false) };
        let mut news = false;
        if let Some(current) = &mut of.current {
            let heard = current.look(&core.maps)?;
            carriers::watch(core, current)?;
            if heard {
                let epoch = current.epoch();
                tell_renewed(core, client_name(&self.server, key), epoch);
            }
            news |= heard;
        }
        if let Some(next) = &mut of.next
            && next.look(&core.maps)?
        {
            self.replace(core, key)?;
            news = true;
        }
        Ok(news)
    }

    /// A packet of the next session was opened: it takes the place of the current one.
    pub(super) fn replace(&mut self, core: &mut Core, key: &PublicKey) -> Result<(), Error> {
        let name = self.name(key).to_owned();
        let Some(of) = self.of.get_mut(key) else { return Ok(()) };
        let Some(next) = of.next.take() else { return Ok(()) };
        let (suite, from) =
            (suite_name(next.suite), next.paths.values().next().map(|p| p.remote()));
        let older = of.current.replace(next);
        // First its addresses lead to the new one, then the old one goes.
        self.settle(core)?;
        if let Some(older) = older {
            older.end(&core.maps)?;
        }
        let message = format!("client {name} has a session");
        let from = from.map_or_else(String::new, |from| format!(", from {from}"));
        core.publish(EventKind::BondSession, None, message, format!("suite {suite}{from}"));
        Ok(())
    }

    fn expire(&mut self, core: &mut Core, key: &PublicKey, now: Instant) -> Result<bool, Error> {
        let name = self.name(key).to_owned();
        let Some(of) = self.of.get_mut(key) else { return Ok(false) };
        if let Some(next) = &mut of.next
            && next.expire(&core.maps, now, false)? == Age::Over
            && let Some(next) = of.next.take()
        {
            next.end(&core.maps)?;
        }
        let Some(current) = &mut of.current else { return Ok(false) };
        let hears = current.hears(monotonic());
        match current.expire(&core.maps, now, hears)? {
            Age::Good => return Ok(false),
            Age::Overdue => {
                let message = format!("the keys of client {name} are older than 180 s");
                let why = "its packets come, so the session goes on with them; but its agent \
                           has not asked for new ones: does it run?";
                core.publish(EventKind::BondSession, None, message, why.to_owned());
                return Ok(false);
            }
            Age::Over => {}
        }
        let gone = of.current.take();
        self.settle(core)?;
        if let Some(gone) = gone {
            gone.end(&core.maps)?;
        }
        let message = format!("the session of client {name} has ended");
        let why = "its keys are older than 180 s, it has not asked for new ones, and no \
                   packets of it come"
            .to_owned();
        core.publish(EventKind::BondSession, None, message, why);
        Ok(true)
    }

    /// A packet of type 6.
    pub(super) fn take_handshake(
        &mut self,
        core: &mut Core,
        received: &Received,
    ) -> Result<(), Error> {
        let now = Instant::now();
        core.counts.initiations += 1;
        let sessions = self.of.values().flat_map(|of| of.current.iter().chain(&of.next));
        let used: BTreeSet<u32> = sessions.map(|session| session.slot).collect();
        let Some(fresh) = core.fresh(&used) else {
            if core.may_say("slots") {
                tracing::error!("all session slots are in use: an initiation is not answered");
            }
            return Ok(());
        };
        let question = Question {
            packet: &received.packet,
            from: received.from,
            now,
            under_load: self.load.is_too_much(now),
            fresh,
        };
        match self.responder.answer(&question, &mut self.clients, &mut Os) {
            Ok(Answer::Response { packet, client, established }) => {
                // Before the answer: what the client sends next must find its session.
                self.establish(core, client, &established, received)?;
                core.send(received.via, received.from, &packet);
                Ok(())
            }
            Ok(Answer::CookieWanted { packet }) => {
                core.counts.cookies += 1;
                core.send(received.via, received.from, &packet);
                Ok(())
            }
            Err(refusal) => {
                if let Some(count) = core.counts.refused.get_mut(refusal.number()) {
                    *count += 1;
                }
                self.explain(core, refusal, received.from);
                Ok(())
            }
        }
    }

    /// The session in a slot.
    pub(super) fn session_of(&mut self, slot: u32) -> Option<&mut Session> {
        let current = self.of.values_mut().filter_map(|of| of.current.as_mut());
        let mut its = current.filter(|session| session.slot == slot);
        its.next()
    }

    fn establish(
        &mut self,
        core: &mut Core,
        client: PublicKey,
        established: &Established,
        received: &Received,
    ) -> Result<(), Error> {
        core.counts.established += 1;
        let of = self.of.entry(client).or_default();
        if established.epoch != 0 {
            let current = of.current.as_mut();
            if let Some(session) = current.filter(|session| session.ours == established.ours) {
                session.renew(&core.maps, established)?;
            }
            return Ok(());
        }
        if let Some(unheard) = of.next.take() {
            unheard.end(&core.maps)?;
        }
        let slot = established.ours.get() % core.maps.slots();
        let mut session = Session::install(
            &core.maps,
            slot,
            client,
            established,
            Sender::Responder,
            session_flag::ROAMS,
        )?;
        session.reserve = core.settings.reserve();
        let path = received.packet.get(PATH_AT).copied().filter(|path| is_path(*path));
        if let Some(path) = path {
            session.join(&core.maps, path, received.from, received.via)?;
        }
        session.present(&core.maps)?;
        of.next = Some(session);
        Ok(())
    }
}

/// What people call a client.
pub(super) fn client_name<'s>(server: &'s config::Server, key: &PublicKey) -> &'s str {
    let client = server.clients.iter().find(|client| client.public_key == *key);
    client.map_or("?", |client| client.name.as_str())
}

/// A packet was opened with a client's new keys.
pub(super) fn tell_renewed(core: &Core, client: &str, epoch: u32) {
    let message = format!("client {client} has new keys, epoch {epoch}");
    core.publish(EventKind::BondSession, None, message, String::new());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_is_under_load_from_too_many_a_second_until_a_second_has_fewer() {
        let (mut load, start) = (Load::default(), Instant::now());
        let mut come = |from: u64, count: u64| {
            let at = |ms| start + Duration::from_millis(ms);
            (0..count).filter(|n| load.is_too_much(at(from + n * 900 / count))).count()
        };
        // A hundred clients that start at once are welcome.
        assert_eq!(come(0, 100), 0);
        assert_eq!(come(5_000, 250), 150);
        // What comes in the second after that meets a server that is careful.
        assert_eq!(come(6_000, 50), 50);
        assert_eq!(come(7_000, 50), 0);
        assert_eq!(come(60_000, 100), 0);
    }
}
