//! What a server's clients say of their paths, and what is done about it.

use mwb_common::maps::BOND_PATHS;
use mwb_common::wire::Kind;

use super::core::Core;
use super::gateway::{is_path, strange};
use super::message::{Join, Joined, Leave, Message, News, Verdict};
use super::paths::Link;
use super::secure::{Envelope, Opened, Refused, envelope};
use super::server::{Server, client_name, tell_renewed};
use super::session::Session;
use super::share::{self, Wanted};
use super::sockets::Received;
use super::{carriers, measure, pace, server};
use crate::bond::PublicKey;
use crate::dataplane::Error;
use crate::events::EventKind;

impl Server {
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
        let Some(key) = self.client_of(envelope) else {
            return Ok(Err(Refused::UnknownSession));
        };
        let Some(of) = self.of.get_mut(&key) else { return Ok(Err(Refused::UnknownSession)) };
        let is_next = of.next.as_ref().is_some_and(|next| is_its(next, envelope));
        let session = if is_next { &mut of.next } else { &mut of.current };
        let Some(session) = session else { return Ok(Err(Refused::UnknownSession)) };
        let (opened, first) = match session.open(&core.maps, envelope, &received.packet)? {
            Ok(opened) => opened,
            Err(refused) => return Ok(Err(refused)),
        };
        if is_next {
            self.replace(core, &key)?;
        } else if first {
            self.settle(core)?;
            tell_renewed(core, self.name(&key), opened.epoch);
        }
        let name = self.name(&key).to_owned();
        let Some(session) = self.of.get_mut(&key).and_then(|of| of.current.as_mut()) else {
            return Ok(Ok(()));
        };
        if opened.kind == Kind::Ack {
            return Ok(core.acked(session, &opened.text));
        }
        heed(core, session, &name, &opened, received)?;
        Ok(Ok(()))
    }

    fn client_of(&self, envelope: Envelope) -> Option<PublicKey> {
        let has = |of: &server::Of| {
            of.current.iter().chain(&of.next).any(|session| is_its(session, envelope))
        };
        self.of.iter().find(|(_, of)| has(of)).map(|(key, _)| *key)
    }

    /// Measures paths, and shares packets among them as each client says.
    pub(super) fn measure_paths(&mut self, core: &mut Core) -> Result<(), Error> {
        for (key, of) in &mut self.of {
            let Some(session) = &mut of.current else { continue };
            // Of a path that was taken over, what its client has said is in the maps.
            pace::set_metered(core, session, |_, _, link| link.join.map(|join| join.metered))?;
            let capacity = |link: &Link| link.join.map(|join| join.capacity).filter(|c| *c > 0);
            measure::estimate(core, session, |_, link| capacity(link))?;
            measure::search(core, session)?;
            let client = client_name(&self.server, key);
            measure::tell(core, session, |path| (format!("path {path} of client {client}"), None));
            // Of a session that was taken over, what its client wants is in the maps.
            if !session.has_keys() && session.paths.values().all(|link| link.join.is_none()) {
                continue;
            }
            let balance = session.balance();
            share::share(core, session, balance, |_, link| {
                let join = link.join;
                Wanted {
                    priority: join.map_or(0, |join| join.priority),
                    weight: join.map_or(1, |join| join.weight),
                    capacity: capacity(link),
                }
            })?;
        }
        Ok(())
    }

    /// From where on a flow is an elephant: there is one number for all clients, the least
    /// that any of them has asked for; none while nobody has.
    pub(super) fn elephant_bytes(&self) -> Option<u32> {
        let sessions = self.of.values().filter_map(|of| of.current.as_ref());
        let joins = sessions.flat_map(|session| session.paths.values()).filter_map(|l| l.join);
        joins.map(|join| join.elephant_bytes).filter(|bytes| *bytes > 0).min()
    }
}

fn is_its(session: &Session, envelope: Envelope) -> bool {
    session.ours.get() == envelope.session
}

fn heed(
    core: &mut Core,
    session: &mut Session,
    name: &str,
    opened: &Opened,
    received: &Received,
) -> Result<(), Error> {
    match Message::decode(&opened.text) {
        // A path speaks for itself: who can send by another one proves nothing of it.
        Ok(Message::Join(join)) if join.path == opened.path => {
            join_path(core, session, name, opened.epoch, join, received)
        }
        Ok(Message::Leave(leave)) => leave_path(core, session, name, opened.epoch, leave),
        Ok(Message::Down(down)) => carriers::take(core, session, opened.epoch, down),
        // What a server says, not what it is told.
        Ok(Message::Join(_) | Message::Joined(_)) => Ok(()),
        Err(error) => {
            strange(core, name, error);
            Ok(())
        }
    }
}

fn join_path(
    core: &mut Core,
    session: &mut Session,
    name: &str,
    epoch: u32,
    join: Join,
    received: &Received,
) -> Result<(), Error> {
    let Join { path, serial, .. } = join;
    let answer = |core: &mut Core, session: &mut Session, verdict| {
        let text = Message::Joined(Joined { path, serial, verdict }).encode();
        core.tell_by(session, path, received.via, received.from, &text);
    };
    if !is_path(path) {
        if core.may_say(&format!("no room {name} {path}")) {
            let most = BOND_PATHS - 1;
            tracing::warn!(client = name, path, most, "there is no room for a path");
        }
        answer(core, session, Verdict::NoRoom);
        return Ok(());
    }
    let is_new = !session.paths.contains_key(&path);
    match session.newest.entry(path).or_default().take(epoch, serial) {
        News::Old => return Ok(()),
        // It may have been overtaken by what came from where the path is now.
        News::Again if !is_new => {
            answer(core, session, Verdict::Taken);
            carriers::remind(core, session, path, received.via, received.from);
            return Ok(());
        }
        News::Again | News::New => {}
    }
    session.join(&core.maps, path, received.from, received.via)?;
    if let Some(link) = session.paths.get_mut(&path) {
        link.join = Some(join);
    }
    if is_new {
        carriers::apply(core, session)?;
    }
    answer(core, session, Verdict::Taken);
    carriers::remind(core, session, path, received.via, received.from);
    if is_new {
        core.probe(session.slot, path);
        let message = format!("path {path} of client {name} has joined");
        core.publish(EventKind::BondPath, None, message, format!("from {}", received.from));
    }
    Ok(())
}

fn leave_path(
    core: &Core,
    session: &mut Session,
    name: &str,
    epoch: u32,
    leave: Leave,
) -> Result<(), Error> {
    let Leave { path, serial } = leave;
    if !is_path(path) || session.newest.entry(path).or_default().take(epoch, serial) != News::New {
        return Ok(());
    }
    if !session.paths.contains_key(&path) {
        return Ok(());
    }
    session.leave(&core.maps, path)?;
    let message = format!("path {path} of client {name} has left");
    core.publish(EventKind::BondPath, None, message, String::new());
    Ok(())
}

#[cfg(test)]
mod tests {
    use mwb_common::maps::bond_path_flag;

    use super::super::message::Down;
    use super::share::tests::in_session;
    use super::*;
    use crate::config::Balance;

    fn join(serial: u32) -> Join {
        Join {
            path: 2,
            serial,
            priority: 0,
            balance: Balance::Adaptive,
            weight: 1,
            capacity: 0,
            elephant_bytes: 0,
            metered: false,
        }
    }

    #[test]
    fn a_join_that_was_overtaken_brings_no_path_back_that_has_left() {
        let name = "a_join_that_was_overtaken_brings_no_path_back_that_has_left";
        in_session(name, |core, session| {
            let from = ([198, 51, 100, 2], 7_000).into();
            let received = Received { via: 2, from, packet: Vec::new() };
            let mut says = |core: &mut Core, serial, leaves: bool| {
                let said = if leaves {
                    leave_path(core, session, "site1", 0, Leave { path: 2, serial })
                } else {
                    join_path(core, session, "site1", 0, join(serial), &received)
                };
                said.expect("a write");
                core.maps.path(0, 2).expect("a read").flags & bond_path_flag::PRESENT != 0
            };
            assert!(says(core, 2, false));
            assert!(!says(core, 3, true));
            assert!(!says(core, 2, false), "it was sent before the path left");
            assert!(!says(core, 3, true), "once more");
            assert!(says(core, 4, false));
            assert!(says(core, 3, true), "so was this");
        });
    }

    #[test]
    fn a_path_that_comes_back_is_held_for_down_while_the_far_end_says_so() {
        let name = "a_path_that_comes_back_is_held_for_down_while_the_far_end_says_so";
        in_session(name, |core, session| {
            let from = ([198, 51, 100, 2], 7_000).into();
            let received = Received { via: 2, from, packet: Vec::new() };
            let down = Down { serial: 1, paths: [2].into_iter().collect() };
            carriers::take(core, session, 0, down).expect("a write");
            leave_path(core, session, "site1", 0, Leave { path: 2, serial: 1 }).expect("a write");
            join_path(core, session, "site1", 0, join(2), &received).expect("a write");
            let flags = core.maps.path(0, 2).expect("a read").flags;
            assert_eq!(flags, bond_path_flag::PRESENT | bond_path_flag::DOWN);
        });
    }
}
