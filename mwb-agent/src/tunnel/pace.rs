//! How often paths are probed: which ones are metered, and what the ticks do about it.
//! The rule is the kernel side's too (`mwb_common::select::pace`), which probes by data
//! when the ticks are late.

use std::time::Duration;

use mwb_common::maps::bond_path_flag;
use mwb_common::select::pace::{is_idle, pace};

use super::core::Core;
use super::network::Network;
use super::paths::Link;
use super::session::Session;
use super::settings::Settings;
use super::ticks::Target;
use crate::dataplane::{Error, monotonic};

/// How a path is probed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Pace {
    /// In every so many rounds of ticks.
    pub(super) every: u32,
    /// Between two probes.
    pub(super) interval: Duration,
    /// It counts as alive for so long after an answer.
    pub(super) dead_after: Duration,
}

/// How a path is probed at present, as of the last look.
pub(super) fn of(settings: &Settings, link: &Link, now: u64) -> Pace {
    let pace = pace(&settings.paces(), &link.entry, &link.state, now);
    let is_idle = is_idle(&link.entry, &link.state, now);
    Pace {
        every: if is_idle { settings.idle.every } else { 1 },
        interval: Duration::from_nanos(pace.interval),
        dead_after: Duration::from_nanos(pace.dead_after),
    }
}

/// Writes down which paths are metered. What `metered` does not know stays as it was.
pub(super) fn set_metered(
    core: &mut Core,
    session: &mut Session,
    metered: impl Fn(&Network, u8, &Link) -> Option<bool>,
) -> Result<(), Error> {
    let known = session.paths.iter().filter_map(|(path, link)| {
        let metered = metered(&core.network, *path, link)?;
        Some((*path, metered))
    });
    let known: Vec<(u8, bool)> = known.collect();
    for (path, on) in known {
        // It may be idle at once: it needs an answer that is good until its next probe.
        if session.set_flags(&core.maps, path, bond_path_flag::METERED, on)? && on {
            core.probe(session.slot, path);
        }
    }
    Ok(())
}

/// All paths of some sessions, and how often each is probed.
pub(super) fn targets<'s>(
    settings: &Settings,
    sessions: impl Iterator<Item = &'s Session>,
) -> Vec<Target> {
    let now = monotonic();
    let of_session = |session: &'s Session| {
        let slot = session.slot;
        session.paths.iter().map(move |(&path, link)| {
            let Pace { every, .. } = of(settings, link, now);
            Target { slot, path, every }
        })
    };
    sessions.flat_map(of_session).collect()
}
