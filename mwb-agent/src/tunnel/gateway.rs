//! The gateway's end at work: who is asked for a session and when, what comes of the
//! answer, and which session is in use.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use mwb_common::integrity::seal::Sender;
use mwb_common::maps::BOND_PATHS;
use mwb_common::wire::Kind;

use super::aging::Age;
use super::carriers;
use super::core::{Core, elephant_bytes};
use super::endpoints::Endpoints;
use super::joins::Joins;
use super::measure;
use super::message::{Message, NoMessage};
use super::pace;
use super::secure::{Refused, envelope};
use super::session::Session;
use super::share::{self, Wanted};
use super::sockets::Received;
use crate::bond::{Established, Initiator, PrivateKey, Suites, Taken};
use crate::config::{Bond, suite_name};
use crate::dataplane::{Error, monotonic};
use crate::events::EventKind;

/// The gateway's end.
pub(super) struct Gateway {
    pub(super) bond: Bond,
    pub(super) endpoints: Endpoints,
    pub(super) initiator: Initiator,
    /// The one in use.
    pub(super) session: Option<Session>,
    /// The one before, until the server has heard of the one in use.
    pub(super) former: Option<Session>,
    /// Where the last initiation by each path went.
    pub(super) asked: BTreeMap<u8, SocketAddr>,
    /// Since when nobody has answered, and how often we have asked since then.
    pub(super) unanswered: Option<(Instant, u32)>,
    /// Paths that could be asked by at the last look.
    pub(super) usable: BTreeSet<u8>,
    pub(super) joins: Joins,
}

impl Gateway {
    /// The end with this key. Takes over the session that an agent before us has left.
    pub(super) fn new(core: &mut Core, bond: Bond, private: PrivateKey) -> Result<Self, Error> {
        let suites = [bond.suite].into_iter().collect::<Suites>();
        let mut gateway = Self {
            endpoints: Endpoints::new(bond.servers.clone()),
            initiator: Initiator::new(private, bond.server_public_key, suites),
            bond,
            session: None,
            former: None,
            asked: BTreeMap::new(),
            unanswered: None,
            usable: BTreeSet::new(),
            joins: Joins::default(),
        };
        gateway.take_over(core)?;
        gateway.ask(core);
        Ok(gateway)
    }

    fn take_over(&mut self, core: &mut Core) -> Result<(), Error> {
        let in_use = core.maps.bond()?.slot;
        for slot in 0..core.maps.slots() {
            let found = Session::take_over(&core.maps, slot)?;
            match found.filter(|found| slot == in_use && found.peer == self.bond.server_public_key)
            {
                Some(mut session) => {
                    session.reserve = core.settings.reserve();
                    self.session = Some(session);
                }
                None if core.maps.session(slot)?.ours != 0 => core.maps.clear(slot)?,
                None => {}
            }
        }
        self.write_bond(core)
    }

    /// The settings of the kernel side follow.
    pub(super) fn write_bond(&self, core: &Core) -> Result<(), Error> {
        let slot = self.session.as_ref().map_or(0, |session| session.slot);
        core.write_bond(slot, Some(elephant_bytes(self.bond.elephant)))
    }

    /// The network is another one.
    pub(super) fn follow(&mut self, core: &mut Core) -> Result<(), Error> {
        self.write_bond(core)?;
        let usable: BTreeSet<u8> = self.reachable(&core.network).into_keys().collect();
        let gained = usable.iter().any(|path| !self.usable.contains(path));
        self.usable = usable;
        // Who has waited for a path does not wait for the next try as well.
        if gained && self.unanswered.is_some() {
            self.ask(core);
        }
        if let Some(session) = &mut self.session {
            carriers::watch(core, session)?;
        }
        self.turn(core)
    }

    /// What time brings about: asks, renews, throws away.
    pub(super) fn turn(&mut self, core: &mut Core) -> Result<(), Error> {
        let now = Instant::now();
        self.endpoints.take_answers();
        self.look(core)?;
        self.expire(core, now)?;
        let due = self.session.as_ref().is_some_and(|session| session.is_due(now));
        if due && self.unanswered.is_none() {
            self.ask(core);
        }
        self.poll(core, now);
        self.complain(core, now);
        self.join_paths(core, now)?;
        if let Some(session) = &mut self.session {
            measure_paths(core, session)?;
        }
        core.beat(pace::targets(&core.settings, self.session.iter()));
        Ok(())
    }

    fn look(&mut self, core: &mut Core) -> Result<(), Error> {
        let Some(session) = &mut self.session else { return Ok(()) };
        session.look(&core.maps)?;
        carriers::watch(core, session)?;
        if session.is_heard()
            && let Some(former) = self.former.take()
        {
            former.end(&core.maps)?;
        }
        Ok(())
    }

    fn expire(&mut self, core: &mut Core, now: Instant) -> Result<(), Error> {
        if let Some(former) = &mut self.former
            && former.expire(&core.maps, now, false)? == Age::Over
            && let Some(former) = self.former.take()
        {
            former.end(&core.maps)?;
        }
        let Some(session) = &mut self.session else { return Ok(()) };
        let hears = session.hears(monotonic());
        match session.expire(&core.maps, now, hears)? {
            Age::Good => return Ok(()),
            Age::Overdue => {
                let message = "the keys of the bond are older than 180 s".to_owned();
                let why = "packets of the server come, so it goes on with them; but the \
                           server's agent does not answer: does it run?";
                core.publish(EventKind::BondSession, None, message, why.to_owned());
                return Ok(());
            }
            Age::Over => {}
        }
        if let Some(session) = self.session.take() {
            session.end(&core.maps)?;
        }
        let message = "the bond's session has ended".to_owned();
        let why = "its keys are older than 180 s, the server has not agreed on new ones, and \
                   no packets of it come";
        core.publish(EventKind::BondSession, None, message, why.to_owned());
        self.ask(core);
        Ok(())
    }

    /// A packet of type 6.
    pub(super) fn take_handshake(
        &mut self,
        core: &mut Core,
        received: &Received,
    ) -> Result<(), Error> {
        match self.initiator.take(Instant::now(), &received.packet) {
            Ok(Taken::Established(established)) => {
                // What is written on the outside of an answer is no proof of where the
                // server is: packets go where the initiation went.
                let to = self.asked.get(&received.via).copied().unwrap_or(received.from);
                self.establish(core, &established, received.via, to)
            }
            Ok(Taken::Cookie) => {
                core.counts.cookies += 1;
                Ok(())
            }
            Err(ignored) => {
                core.counts.ignored += 1;
                self.explain(core, ignored, received);
                Ok(())
            }
        }
    }

    /// A packet of type 4.
    pub(super) fn take_message(
        &mut self,
        core: &mut Core,
        received: &Received,
    ) -> Result<Result<(), Refused>, Error> {
        let envelope = match envelope(&received.packet) {
            Ok(envelope) => envelope,
            Err(refused) => return Ok(Err(refused)),
        };
        let is_its = |session: &&mut Session| session.ours.get() == envelope.session;
        let Some(session) = self.session.as_mut().filter(is_its) else {
            return Ok(Err(Refused::UnknownSession));
        };
        let opened = match session.open(&core.maps, envelope, &received.packet)? {
            Ok((opened, _)) => opened,
            Err(refused) => return Ok(Err(refused)),
        };
        if opened.kind == Kind::Ack {
            return Ok(core.acked(session, &opened.text));
        }
        match Message::decode(&opened.text) {
            Ok(Message::Joined(joined)) => self.joined(core, joined, received.via)?,
            Ok(Message::Down(down)) => carriers::take(core, session, opened.epoch, down)?,
            // What a gateway says, not what it is told.
            Ok(Message::Join(_) | Message::Leave(_)) => {}
            Err(error) => strange(core, "the server", error),
        }
        Ok(Ok(()))
    }

    /// For how long the server has been asked without an answer.
    pub(super) fn unanswered_for(&self) -> Option<Duration> {
        self.unanswered.map(|(since, _)| since.elapsed())
    }

    /// Whether a handshake is under way.
    pub(super) fn is_asking(&self) -> bool {
        self.unanswered.is_some()
    }

    fn establish(
        &mut self,
        core: &mut Core,
        established: &Established,
        via: u8,
        to: SocketAddr,
    ) -> Result<(), Error> {
        self.unanswered = None;
        core.counts.established += 1;
        let suite = suite_name(established.suite);
        match &mut self.session {
            Some(session) if established.epoch != 0 => {
                session.renew(&core.maps, established)?;
                let message = format!("the bond has new keys, epoch {}", established.epoch);
                core.publish(EventKind::BondSession, None, message, String::new());
            }
            _ => {
                self.begin(core, established, via, to)?;
                let message = format!("the bond has a session with {to}");
                let why = format!("suite {suite}, by {}", core.name(via).unwrap_or_default());
                core.publish(EventKind::BondSession, None, message, why);
            }
        }
        self.joins.again();
        let slot = self.session.as_ref().map_or(0, |session| session.slot);
        // The server seals with the new keys only once it has heard them.
        core.probe(slot, via);
        self.join_paths(core, Instant::now())
    }

    /// Puts a new session into use.
    fn begin(
        &mut self,
        core: &mut Core,
        established: &Established,
        via: u8,
        to: SocketAddr,
    ) -> Result<(), Error> {
        let slot = established.ours.get() % core.maps.slots();
        let before = self.session.take();
        let server = self.bond.server_public_key;
        let mut session =
            Session::install(&core.maps, slot, server, established, Sender::Initiator, 0)?;
        session.reserve = core.settings.reserve();
        session.join(&core.maps, via, to, via)?;
        session.present(&core.maps)?;
        self.session = Some(session);
        self.write_bond(core)?;
        // What stood in the same slot is gone; another one goes when the server has heard.
        if let Some(older) = self.former.take().filter(|older| older.slot != slot) {
            older.end(&core.maps)?;
        }
        self.former = before.filter(|before| before.slot != slot);
        Ok(())
    }
}

/// Measures paths, and shares packets among them as the configuration says.
fn measure_paths(core: &mut Core, session: &mut Session) -> Result<(), Error> {
    let capacities: BTreeMap<u8, Option<u64>> =
        core.network.uplinks.iter().map(|uplink| (uplink.path, uplink.capacity_up)).collect();
    pace::set_metered(core, session, |network, path, _| {
        network.uplink(path).map(|uplink| uplink.metered)
    })?;
    measure::estimate(core, session, |path, _| capacities.get(&path).copied().flatten())?;
    measure::search(core, session)?;
    measure::tell(core, session, |path| {
        let name = core.name(path);
        (format!("{} of the bond", name.as_deref().unwrap_or("a path")), name)
    });
    share::share(core, session, core.network.balance, |path, _| {
        let uplink = core.network.uplink(path);
        Wanted {
            priority: uplink.map_or(u8::MAX, |uplink| uplink.priority),
            weight: uplink.map_or(1, |uplink| uplink.weight),
            capacity: uplink.and_then(|uplink| uplink.capacity_up),
        }
    })
}

/// Who is authentic says what nobody understands.
pub(super) fn strange(core: &mut Core, who: &str, error: NoMessage) {
    if core.may_say(&format!("strange {who}")) {
        tracing::warn!(who, %error, "a message of the bond is not understood");
    }
}

/// Whether a path of a bond can have the number of a WAN.
pub(super) fn is_path(path: u8) -> bool {
    (1..BOND_PATHS).contains(&usize::from(path))
}
