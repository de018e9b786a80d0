//! How the control loop begins: it takes over what an earlier run of the agent
//! has left in the data plane, so that a restart, or an upgrade, moves no flow.
//!
//! 1. A WAN is found again by its device, and keeps its path id.
//! 2. A WAN that was dead while others lived stays so until it proves itself;
//!    all others count as alive from the first write on.
//! 3. The path choice stays as it is until health has spoken: until then nothing
//!    is known that would make a better one.
//! 4. Programs are replaced in place, LAN ports last, and what the configuration
//!    does not name any more goes at the very end.

use std::collections::hash_map::RandomState;
use std::hash::{BuildHasher, Hasher};
use std::sync::Arc;
use std::time::{Duration, Instant};

use mwb_common::maps::{
    Control as ControlEntry, Family, MAX_PATHS, Path, Selection, filtering, path_flag,
};
use tokio::sync::watch;

use super::beat::Plane;
use super::control::{Control, Wan};
use super::domains::Domains;
use super::forwards::Forwards;
use super::identity;
use super::leaving::Leaving;
use super::policy::Policies;
use super::ports::Port;
use super::rates::Rates;
use super::view::View;
use super::wan;
use crate::config::{self, Config, Failback, Filtering};
use crate::dataplane::Error;
use crate::events::Bus;
use crate::failover::{Drains, Ledger, Memory, Plan};
use crate::health::{Asking, Held, Link, Measured, Reason, Start, State};
use crate::net::Snapshot;

/// How long the path choice of the agent before us may stay.
const SETTLE: Duration = Duration::from_secs(2);

/// What an earlier run has left.
struct Pinned {
    /// By path id from 1.
    paths: Vec<Path>,
    selections: [Selection; 2],
    /// Ids of paths that were dead while others lived.
    dead: Vec<u8>,
}

impl Pinned {
    fn read(plane: &Plane) -> Result<Self, Error> {
        plane.with(|plane| {
            let ids = 1..=u8::try_from(MAX_PATHS).unwrap_or(u8::MAX);
            let paths: Vec<Path> =
                ids.clone().map(|id| plane.path(id)).collect::<Result<_, _>>()?;
            let liveness = plane.liveness()?;
            let some_lived = liveness.alive_until.iter().any(|until| *until > 0);
            let present = |id: &u8| {
                let path = paths.get(usize::from(*id) - 1);
                path.is_some_and(|path| path.flags & path_flag::PRESENT != 0)
            };
            let is_dead = |id: &u8| {
                liveness.alive_until.get(usize::from(*id)) == Some(&0) && some_lived && present(id)
            };
            let dead = ids.filter(is_dead).collect();
            let selections = [plane.selection(Family::V4)?, plane.selection(Family::V6)?];
            Ok(Self { paths, selections, dead })
        })
    }

    fn path(&self, id: u8) -> Path {
        self.paths.get(usize::from(id).wrapping_sub(1)).copied().unwrap_or_default()
    }
}

impl Wan {
    /// A WAN that gets a path id; `pinned` is what the path table has there.
    pub(super) fn new(
        path: u8,
        config: &Config,
        configured: &config::Wan,
        network: &Snapshot,
        pinned: Path,
    ) -> Self {
        let own = pinned.device == identity::padded(&configured.device);
        let before = if own { pinned } else { identity::vacated(&pinned) };
        let present = wan::present(config, configured, network, &before);
        let (link, _) = watch::channel(present.link.clone());
        Self {
            path,
            port: Port::wan(path, config, configured),
            present,
            written: pinned,
            link,
            state: State::Unknown,
            reason: Reason::Started,
            measured: Measured::default(),
            held: Held { time: config.failover.failback_after, ..Held::default() },
            asking: Asking::default(),
            failovers: 0,
            last_change: None,
            is_new: false,
            mute: [None; 2],
        }
    }
}

impl Control {
    /// Takes over where an earlier run of the agent has left.
    pub(super) fn new(
        config: Config,
        plane: Plane,
        bus: Bus,
        network: &Snapshot,
        view: watch::Sender<Arc<View>>,
    ) -> Result<Self, Error> {
        write_control(&plane, &config)?;
        let pinned = Pinned::read(&plane)?;
        let known = identity::known(&pinned.paths);
        let ids = identity::assign(&known, &config.wans);
        let mut wans = Vec::new();
        for (&path, configured) in ids.iter().zip(&config.wans) {
            let before = pinned.path(path);
            let mut wan = Wan::new(path, &config, configured, network, before);
            let same = known.contains(&(path, identity::padded(&configured.device)))
                && before.address4 == wan.present.path.address4;
            if before.device != identity::padded(&configured.device) {
                forget_counters(&plane, path, &before);
            }
            if same && pinned.dead.contains(&path) {
                (wan.state, wan.reason) = (State::Down, Reason::DownBeforeRestart);
            }
            wans.push(wan);
        }
        // Attaching takes time, in which the tick goes on with these.
        let alive = wans.iter().filter(|wan| wan.state.is_usable()).map(|wan| wan.path).collect();
        plane.set_alive(alive)?;
        let down = wans.iter().filter(|wan| wan.state == State::Down).map(|wan| wan.path);
        let ledger = Ledger::new(down);
        // What may have been draining when the agent before us ended does anew.
        let drains = Drains::new(wans.iter().zip(&config.wans).filter_map(|(wan, configured)| {
            let before = known.iter().any(|(known, _)| *known == wan.path);
            let drains = matches!(configured.failback, Failback::Drain(_));
            (before && drains).then_some(wan.path)
        }));
        let kept = pinned.selections.map(|selection| {
            let used = |id: &u8| *id != 0;
            let known = |id: &u8| known.iter().any(|(known, _)| known == id) && ids.contains(id);
            let good = selection.slots.iter().any(used)
                && selection
                    .slots
                    .iter()
                    .chain(&selection.ranking)
                    .filter(|id| used(id))
                    .all(known);
            // The plan behind it is not known: any other is a new one.
            good.then(|| (Plan::default(), selection))
        });
        let leaving =
            Leaving::of_paths((1u8..).zip(&pinned.paths).filter(|(id, _)| !ids.contains(id)));
        let domains = Domains::new(&plane);
        let mut policies = Policies::default();
        policies.follow(&config, &read_hits(&plane));
        Ok(Self {
            lan: config.lan.iter().map(|lan| Port::lan(&config, lan)).collect(),
            device: config.tunnel().as_ref().map(Port::bond),
            ticks: None,
            config,
            plane,
            bus,
            wans,
            rules: None,
            forwards: Forwards::default(),
            leaving,
            settles: Some(Instant::now() + SETTLE),
            memory: Memory::default(),
            ledger,
            drains,
            forced: None,
            decision: None,
            policies,
            domains,
            written: kept,
            failovers: 0,
            last_failover: None,
            rates: Rates::new(),
            view,
        })
    }

    /// What each WAN's health task begins with.
    pub(super) fn watched(&self) -> Vec<(u8, Start, watch::Receiver<Link>)> {
        let start = |wan: &Wan| if wan.state == State::Down { Start::Down } else { Start::Unknown };
        self.wans.iter().map(|wan| (wan.path, start(wan), wan.link.subscribe())).collect()
    }

    /// Whether the path choice of the agent before us stays for now.
    pub(super) fn settles(&mut self, now: Instant) -> bool {
        let heard = self.wans.iter().all(|wan| wan.state != State::Unknown);
        if heard || self.settles.is_some_and(|until| now >= until) {
            self.settles = None;
        }
        self.settles.is_some()
    }

    /// Writes everything for the first time, in the order in which a packet
    /// must not find a part missing; LAN ports come last.
    pub(super) fn begin(&mut self, network: &Snapshot) -> Result<(), Error> {
        self.write_rules(network)?;
        // Packets of WANs go on to it.
        self.follow_device(network)?;
        self.follow_wans(network)?;
        self.decide(Instant::now())?;
        for port in &mut self.lan {
            port.follow(&self.plane, &self.bus, network)?;
        }
        self.leave()?;
        self.follow_forwards()?;
        let ours: Vec<String> = self.devices().map(str::to_owned).collect();
        let others = self.plane.with(|plane| plane.detach_others(&ours))?;
        if !others.is_empty() {
            tracing::info!(
                devices = others.join(", "),
                "detached what the configuration no longer names"
            );
        }
        self.publish();
        Ok(())
    }

    /// Every device that the configuration names, and the one of the bond that the data
    /// plane has.
    pub(super) fn devices(&self) -> impl Iterator<Item = &str> {
        let lan = self.config.lan.iter().map(|lan| lan.device.as_str());
        let device = self.device.iter().map(|port| port.device.as_str());
        lan.chain(self.config.wans.iter().map(|wan| wan.device.as_str())).chain(device)
    }
}

/// What rules' counters have. Where they cannot be read, rules count what others did too.
pub(super) fn read_hits(plane: &Plane) -> Vec<u64> {
    plane.with(|plane| plane.tables()).policy_hits().unwrap_or_else(|error| {
        tracing::warn!(%error, "counters of policy rules");
        Vec::new()
    })
}

/// A WAN that gets a path id begins to count at zero. In a table that is new
/// there is nothing to forget.
pub(super) fn forget_counters(plane: &Plane, path: u8, pinned: &Path) {
    if *pinned == Path::default() {
        return;
    }
    if let Err(error) = plane.with(|plane| plane.tables()).forget_path(path) {
        tracing::warn!(%error, path, "counters of another WAN are counted on");
    }
}

/// The seed stays the same over restarts, so that `per_flow` does.
pub(super) fn write_control(plane: &Plane, config: &Config) -> Result<(), Error> {
    let before = plane.with(|plane| plane.control())?;
    let seed = if before.seed == 0 { random() as u32 | 1 } else { before.seed };
    let now = control_entry(config, seed);
    if now == before { Ok(()) } else { plane.with(|plane| plane.set_control(&now)) }
}

fn control_entry(config: &Config, seed: u32) -> ControlEntry {
    ControlEntry {
        port_min: config.nat.port_min,
        port_max: config.nat.port_max,
        seed,
        source_limit: config.nat.mappings_per_source,
        filtering: match config.nat.filtering {
            Filtering::AddressAndPortDependent => filtering::ADDRESS_AND_PORT,
            Filtering::AddressDependent => filtering::ADDRESS,
            Filtering::EndpointIndependent => filtering::ENDPOINT_INDEPENDENT,
        },
        ..ControlEntry::default()
    }
}

/// A number that an outsider cannot guess: the standard library's hashers are
/// keyed by the system's random source.
pub(super) fn random() -> u64 {
    RandomState::new().build_hasher().finish()
}

#[cfg(test)]
#[path = "start_tests.rs"]
mod tests;
