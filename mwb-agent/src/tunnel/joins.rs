//! How the gateway's paths join its session: by a message that each path carries itself,
//! until the server has answered, and again from time to time.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use mwb_common::maps::bond_path_flag;

use super::carriers;
use super::core::{Core, elephant_bytes};
use super::gateway::{Gateway, is_path};
use super::message::{Join, Joined, Leave, Message, Verdict};
use super::network::Uplink;
use super::paths::Link;
use crate::dataplane::{Error, monotonic};
use crate::events::EventKind;

/// Between two messages that nobody has answered: of a path whose probes are not either, and
/// of one whose probes are, which takes two round trips, but this at least.
const UNANSWERED: Duration = Duration::from_secs(1);
const ALIVE: Duration = Duration::from_millis(500);
/// Between two messages otherwise.
const ANSWERED: Duration = Duration::from_secs(15);
/// The same of one of the paths that live: a server's agent that was restarted can say
/// nothing, for it has no keys, and is to be noticed.
const SPEAKS: Duration = Duration::from_millis(1_500);
/// So many without an answer, and the next goes to another address of the server.
const TRIES: u32 = 3;
/// When a message that is not answered is said once more.
pub(super) const REPEATS: [Duration; 2] = [Duration::from_millis(10), Duration::from_millis(50)];

/// An answer to a probe that came longer ago, in ns, says nothing of what passes now: one
/// of a path that is idle may count as alive for longer than the messages are tried.
const PASSES: u64 = 2_000_000_000;

/// What has been said of each path.
#[derive(Default)]
pub(super) struct Joins {
    serial: u32,
    of: BTreeMap<u8, OfPath>,
}

struct OfPath {
    said: Join,
    to: SocketAddr,
    /// When it was said last, or answered.
    at: Instant,
    /// How often it was said since it was answered.
    tries: u32,
}

impl OfPath {
    /// How long after [`Self::at`] it is said again.
    fn wait(&self, link: Option<&Link>, speaks: bool) -> Duration {
        if self.tries == 0 {
            return if speaks { SPEAKS } else { ANSWERED };
        }
        match link.filter(|link| link.is_alive(monotonic())) {
            Some(link) => (2 * link.rtt().unwrap_or_default()).clamp(ALIVE, UNANSWERED),
            None => UNANSWERED,
        }
    }
}

impl Joins {
    /// Every path is to join once more: the session is another one, or the keys are.
    pub(super) fn again(&mut self) {
        *self = Self::default();
    }
}

/// Whether packets of a path come through.
fn passes(link: &Link, now: u64) -> bool {
    link.is_alive(now) && now.saturating_sub(link.state.reply_at) < PASSES
}

impl Gateway {
    /// Says what is due of each path.
    pub(super) fn join_paths(&mut self, core: &mut Core, now: Instant) -> Result<(), Error> {
        self.leave_paths(core)?;
        if !self.session.as_ref().is_some_and(super::session::Session::has_keys) {
            return Ok(());
        }
        let mut lost_keys = false;
        let speaker = self.speaker(core);
        for uplink in core.network.uplinks.clone() {
            let path = uplink.path;
            let Some(to) = self.join_to(&uplink) else { continue };
            let said = self.join_of(core, &uplink);
            let (said, tries) = match self.joins.of.get_mut(&path) {
                Some(of) if Join { serial: of.said.serial, ..said } == of.said && of.to == to => {
                    let link = self.session.as_ref().and_then(|s| s.paths.get(&path));
                    if now < of.at + of.wait(link, speaker == Some(path)) {
                        continue;
                    }
                    (of.at, of.tries) = (now, of.tries + 1);
                    (of.said, of.tries)
                }
                other => {
                    self.joins.serial += 1;
                    let said = Join { serial: self.joins.serial, ..said };
                    let tries = other.map_or(1, |of| of.tries + 1);
                    let of = OfPath { said, to, at: now, tries };
                    self.joins.of.insert(path, of);
                    (said, tries)
                }
            };
            if let Some(session) = &mut self.session {
                core.tell_by(session, path, path, to, &Message::Join(said).encode());
                carriers::remind(core, session, path, path, to);
                let passes = session.paths.get(&path).is_some_and(|link| passes(link, monotonic()));
                lost_keys |= passes && tries > TRIES;
            }
        }
        // Its packets come through, its agent does not understand us: it was restarted.
        if lost_keys && !self.is_asking() {
            self.ask(core);
        }
        Ok(())
    }

    /// The path that is spoken by most: the best one that lives.
    fn speaker(&self, core: &Core) -> Option<u8> {
        let (session, now) = (self.session.as_ref()?, monotonic());
        let aside = bond_path_flag::DOWN | bond_path_flag::PARKED;
        let living = core.network.uplinks.iter().filter_map(|uplink| {
            let link = session.paths.get(&uplink.path).filter(|link| link.is_alive(now))?;
            Some((link.has(aside), uplink.priority, uplink.path))
        });
        living.min().map(|(_, _, path)| path)
    }

    /// Where a path's messages go: where its packets do, or may.
    fn join_to(&self, uplink: &Uplink) -> Option<SocketAddr> {
        let session = self.session.as_ref()?;
        let tries = self.joins.of.get(&uplink.path).map_or(0, |of| of.tries);
        let joined = session.paths.get(&uplink.path).map(Link::remote);
        let fits = |to: &SocketAddr| is_path(uplink.path) && uplink.reaches(*to);
        // A path that does not answer where it has joined tries another address in turn.
        match joined.filter(fits) {
            Some(joined) if tries <= TRIES => Some(joined),
            _ => self.endpoints.choose(uplink, tries / TRIES).filter(fits),
        }
    }

    fn join_of(&self, core: &Core, uplink: &Uplink) -> Join {
        Join {
            path: uplink.path,
            serial: 0,
            priority: uplink.priority,
            balance: core.network.balance,
            weight: uplink.weight.max(1),
            capacity: uplink.capacity_down.unwrap_or(0),
            elephant_bytes: elephant_bytes(self.bond.elephant),
            metered: uplink.metered,
        }
    }

    /// The server's answer, which came by a WAN.
    pub(super) fn joined(&mut self, core: &mut Core, joined: Joined, via: u8) -> Result<(), Error> {
        let path = joined.path;
        let Some(of) = self.joins.of.get_mut(&path) else { return Ok(()) };
        if joined.serial != of.said.serial || via != path {
            return Ok(());
        }
        (of.tries, of.at) = (0, Instant::now());
        let to = of.to;
        let name = core.name(path).unwrap_or_default();
        if joined.verdict == Verdict::NoRoom {
            if core.may_say(&format!("no room {path}")) {
                let message = format!("{name} cannot join the bond");
                let why = format!("the server has no room for a path {path}");
                core.publish(EventKind::BondPath, Some(&name), message, why);
            }
            return Ok(());
        }
        let Some(session) = &mut self.session else { return Ok(()) };
        let is_new = !session.paths.contains_key(&path);
        if session.join(&core.maps, path, to, path)? {
            core.probe(session.slot, path);
            if is_new {
                carriers::apply(core, session)?;
                let message = format!("{name} has joined the bond");
                core.publish(EventKind::BondPath, Some(&name), message, format!("server at {to}"));
            }
        }
        Ok(())
    }

    /// Takes paths away whose WAN is none any more, and tells the server.
    fn leave_paths(&mut self, core: &mut Core) -> Result<(), Error> {
        let Some(session) = &mut self.session else { return Ok(()) };
        let gone: Vec<u8> = session
            .paths
            .keys()
            .copied()
            .filter(|path| core.network.uplink(*path).is_none())
            .collect();
        for path in gone {
            self.joins.serial += 1;
            self.joins.of.remove(&path);
            session.leave(&core.maps, path)?;
            let text = Message::Leave(Leave { path, serial: self.joins.serial }).encode();
            carriers::tell_all(core, session, &text);
            let message = format!("path {path} has left the bond");
            let why = "its WAN is not in the configuration any more".to_owned();
            core.publish(EventKind::BondPath, None, message, why);
        }
        Ok(())
    }
}
