//! What is measured of a session's paths and what follows: how the kernel side reckons
//! arrivals, and what is told of paths that die, come back, are parked or move.

use mwb_common::maps::{PathState, bond_path_flag};
use mwb_common::select::pace::is_idle;

use super::core::Core;
use super::estimate::{PathFacts, Reason, Train};
use super::mtu::{Facts, Search};
use super::pace;
use super::paths::Link;
use super::session::Session;
use crate::dataplane::{Error, monotonic};
use crate::events::EventKind;

/// No probe is answered after so long, in ns.
const PATIENCE: u64 = 3_000_000_000;

/// What was last told of a path.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Told {
    /// Whether it was alive, once it has been.
    alive: Option<bool>,
    parked: Option<Reason>,
    moves: Option<u32>,
}

/// Probes of the search for how long packets may be. Those that are too long are lost, and
/// say nothing of how much else is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct SizedProbes {
    /// When one was sent that was not answered yet, and when the last answer was.
    waits: Option<(u64, u64)>,
    /// How many never were.
    lost: u64,
}

impl SizedProbes {
    /// The last answer came at `answered`; a probe is to be sent now, if `again`.
    fn look(&mut self, now: u64, answered: u64, again: bool) {
        if let Some((sent, before)) = self.waits {
            let late = now.saturating_sub(sent) > PATIENCE;
            if answered != before {
                self.waits = None;
            } else if again || late {
                (self.waits, self.lost) = (None, self.lost + 1);
            }
        }
        if again {
            self.waits = Some((now, answered));
        }
    }
}

/// Takes in what the kernel side has counted since the last time. `capacity` is what the
/// operator says of a path.
pub(super) fn estimate(
    core: &mut Core,
    session: &mut Session,
    capacity: impl Fn(u8, &Link) -> Option<u64>,
) -> Result<(), Error> {
    let now = monotonic();
    let facts = session.paths.iter().map(|(path, link)| PathFacts {
        path: *path,
        state: PathState {
            reply_packets: link.state.reply_packets.wrapping_add(link.sized.lost),
            ..link.state
        },
        capacity: capacity(*path, link),
        usable: !link.has(bond_path_flag::DOWN),
    });
    let facts: Vec<PathFacts> = facts.collect();
    // Both ends should have the same.
    session.estimator.set_hold(u64::try_from(core.settings.hold.as_nanos()).unwrap_or(u64::MAX));
    session.estimator.set_repairs(core.settings.repairs());
    session.set_reserve(&core.maps, core.settings.reserve())?;
    let verdict = session.estimator.update(now, &facts);
    (session.stripe, session.repaired) = (verdict.stripe, verdict.repaired);
    for verdict in verdict.paths {
        session.reckon(&core.maps, &verdict, &core.settings)?;
        let path = verdict.path;
        if let Some(link) = session.paths.get_mut(&path) {
            link.verdict = verdict;
        }
    }
    if let Some(train) = verdict.train {
        send_train(core, session, train);
    }
    Ok(())
}

fn send_train(core: &mut Core, session: &mut Session, train: Train) {
    let Train { path, probes } = train;
    let Some(length) = session.paths.get(&path).map(|link| link.entry.mtu) else { return };
    let at = monotonic();
    let sent = (0..probes).take_while(|_| core.probe_exactly(session.slot, path, length)).count();
    session.estimator.sent_train(path, at, sent as u64 * u64::from(length));
}

/// Searches for how long packets may be on each path.
pub(super) fn search(core: &mut Core, session: &mut Session) -> Result<(), Error> {
    let now = monotonic();
    let paths: Vec<u8> = session.paths.keys().copied().collect();
    for path in paths {
        let Some(link) = session.paths.get_mut(&path) else { continue };
        // The far end's interface may take less, and its answers are as short as its probes.
        let Some(most) = core.network.uplink(link.via()).map(|uplink| uplink.mtu) else { continue };
        let (is_v6, remote) = (link.remote().is_ipv6(), link.remote());
        let before = link.searched.replace((remote, most));
        let is_same = before == Some((remote, most));
        let before_is_v6 = before.map(|(remote, _)| remote.is_ipv6());
        let search = match &mut link.search {
            Some(search) if is_same => search,
            // Another way, another length.
            Some(search) if before_is_v6 == Some(is_v6) => {
                search.restart(most);
                search
            }
            other => other.insert(Search::new(is_v6, most)),
        };
        let facts = Facts {
            alive: link.state.alive_until > now,
            idle: is_idle(&link.entry, &link.state, now),
            rtt: link.state.rtt,
            sized: link.state.sized,
            sized_at: link.state.sized_at,
            loss: link.verdict.loss,
        };
        let length = search.poll(now, &facts);
        let mtu = search.mtu();
        link.sized.look(now, link.state.sized_at, length.is_some());
        session.set_mtu(&core.maps, path, mtu)?;
        if let Some(length) = length {
            core.probe_exactly(session.slot, path, length);
        }
    }
    Ok(())
}

/// Tells what has become of paths. `name` is what people call one, and its WAN if it is
/// one of ours.
pub(super) fn tell(
    core: &Core,
    session: &mut Session,
    name: impl Fn(u8) -> (String, Option<String>),
) {
    let now = monotonic();
    for (path, link) in &mut session.paths {
        let before = link.told.clone();
        let alive = link.is_alive(now);
        let parked = link.verdict.parked;
        let remote = link.remote();
        let told = Told {
            // A path that was never answered has not died.
            alive: if alive { Some(true) } else { before.alive.map(|_| false) },
            parked,
            moves: Some(link.state.moves),
        };
        if told == before {
            continue;
        }
        let (name, wan) = name(*path);
        let publish = |message: String, why: String| {
            core.publish(EventKind::BondPath, wan.as_deref(), message, why);
        };
        match (before.alive, told.alive) {
            (Some(true), Some(false)) => {
                let after = pace::of(&core.settings, link, now).dead_after.as_millis();
                publish(format!("{name} is dead"), format!("no answer to probes for {after} ms"));
            }
            (None | Some(false), Some(true)) => {
                let rtt = link.rtt().unwrap_or_default().as_secs_f64() * 1e3;
                publish(format!("{name} is alive"), format!("probes are answered in {rtt:.1} ms"));
            }
            _ => {}
        }
        if before.parked != parked {
            match parked {
                Some(reason) => publish(
                    format!("{name} is parked: it carries packets only if no other can"),
                    reason.name().to_owned(),
                ),
                None => publish(format!("{name} is not parked any more"), String::new()),
            }
        }
        if before.moves.is_some_and(|moves| moves != link.state.moves) {
            let times = link.state.moves;
            publish(format!("{name} has moved to {remote}"), format!("{times} times in all"));
        }
        link.told = told;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_probe_that_is_too_long_is_lost_once() {
        let mut sized = SizedProbes::default();
        sized.look(1, 0, true);
        sized.look(2, 0, false);
        assert_eq!(sized.lost, 0, "it may still be answered");
        // Sent again: the first was lost; and the second is answered.
        sized.look(300, 0, true);
        assert_eq!(sized.lost, 1);
        sized.look(400, 390, false);
        sized.look(500, 390, true);
        assert_eq!(sized.lost, 1);
        // The last of a search has no other behind it.
        sized.look(500 + PATIENCE, 390, false);
        assert_eq!(sized.lost, 1);
        sized.look(501 + PATIENCE, 390, false);
        sized.look(502 + PATIENCE, 390, false);
        assert_eq!(sized.lost, 2);
    }
}
