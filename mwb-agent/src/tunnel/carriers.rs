//! What must not be used: paths whose WAN has lost its carrier here, and those of which
//! the far end says so. Either stays so until its probes are answered again.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::time::Instant;

use mwb_common::maps::bond_path_flag;

use super::core::Core;
use super::joins::REPEATS;
use super::message::{Down, Message, Newest, News, PathSet};
use super::paths::Link;
use super::session::Session;
use crate::dataplane::{Error, monotonic};

/// What both ends say of a session's paths.
#[derive(Debug, Default)]
pub(super) struct Carriers {
    ours: BTreeSet<u8>,
    theirs: PathSet,
    /// Of what was said last, and in which epoch.
    serial: u32,
    epoch: u32,
    newest: Newest,
    /// What the maps have, and what the far end was told, is of an agent before us.
    inherited: bool,
}

impl Carriers {
    /// Of a session that was taken over.
    pub(super) fn inherited() -> Self {
        Self { inherited: true, ..Self::default() }
    }
}

/// Sees which paths have lost their carrier or have it back, and tells the far end.
pub(super) fn watch(core: &mut Core, session: &mut Session) -> Result<(), Error> {
    let now = monotonic();
    let has_carrier = |via: u8| {
        let uplink = core.network.uplink(via);
        uplink.is_some_and(|uplink| uplink.ifindex.is_some() && uplink.carrier)
    };
    let before = &session.carriers.ours;
    let is_down = |path: &u8, link: &Link| {
        !has_carrier(link.via()) || before.contains(path) && !link.is_alive(now)
    };
    let paths = session.paths.iter().filter(|(path, link)| is_down(path, link));
    let ours: BTreeSet<u8> = paths.map(|(path, _)| *path).collect();
    let inherited = std::mem::take(&mut session.carriers.inherited);
    if ours == session.carriers.ours && !inherited {
        return Ok(());
    }
    session.carriers.ours = ours;
    apply(core, session)?;
    let text = text(session, true);
    tell_all(core, session, &text);
    Ok(())
}

/// What must not be used, as a message. Serials begin anew with each epoch.
fn text(session: &mut Session, is_new: bool) -> Vec<u8> {
    let epoch = session.sealing_epoch();
    let carriers = &mut session.carriers;
    if carriers.epoch != epoch || carriers.serial == 0 {
        (carriers.epoch, carriers.serial) = (epoch, 1);
    } else if is_new {
        carriers.serial += 1;
    }
    let paths = carriers.ours.iter().copied().collect();
    Message::Down(Down { serial: carriers.serial, paths }).encode()
}

/// Says once more by one path what must not be used, if anything was ever said.
pub(super) fn remind(core: &mut Core, session: &mut Session, path: u8, via: u8, to: SocketAddr) {
    if session.carriers.serial > 0 {
        let text = text(session, false);
        core.tell_by(session, path, via, to, &text);
    }
}

/// Says something by all paths that can be used, and says it again.
pub(super) fn tell_all(core: &mut Core, session: &mut Session, text: &[u8]) {
    let now = Instant::now();
    let links = session.paths.iter().filter(|(_, link)| !link.has(bond_path_flag::DOWN));
    let ways: Vec<_> = links.map(|(path, link)| (*path, link.via(), link.remote())).collect();
    for (path, via, to) in ways {
        core.tell_by(session, path, via, to, text);
        for repeat in REPEATS {
            if let Some(packet) = session.seal(path, text) {
                core.send_later(now + repeat, via, to, packet);
            }
        }
    }
}

/// The far end says what must not be used.
pub(super) fn take(
    core: &Core,
    session: &mut Session,
    epoch: u32,
    down: Down,
) -> Result<(), Error> {
    if session.carriers.newest.take(epoch, down.serial) == News::New {
        session.carriers.theirs = down.paths;
        apply(core, session)?;
    }
    Ok(())
}

/// Writes down of every path whether it may be used.
pub(super) fn apply(core: &Core, session: &mut Session) -> Result<(), Error> {
    let paths: Vec<u8> = session.paths.keys().copied().collect();
    for path in paths {
        let Carriers { ours, theirs, .. } = &session.carriers;
        let down = ours.contains(&path) || theirs.contains(path);
        session.set_flags(&core.maps, path, bond_path_flag::DOWN, down)?;
    }
    Ok(())
}
