//! What a data plane keeps of its bond, read from where it is pinned: to the packet,
//! and also while no agent runs.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result};
use aya::{
    Pod,
    maps::{Array, Map, MapData, PerCpuArray},
};
use mwb_common::{
    maps::{
        BOND_PATHS, Bond, BondPath, COUNTER_ENTRIES, Counters, PROTOCOLS, PathState, Selection,
        Session, bond_path_flag, counter_place, names, path_index, session_flag,
    },
    reason::Reason,
};

use super::agent::Agent;

/// The pinned tables of one agent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BondTables {
    maps: PathBuf,
}

/// A path of a session, as both wrote it: the agent and the kernel side.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PathView {
    /// Slot of its session.
    pub slot: u32,
    /// Its id in packets.
    pub id: u8,
    /// What the agent says.
    pub path: BondPath,
    /// What the kernel side keeps.
    pub state: PathState,
}

impl PathView {
    /// Whether it is used for data: nobody holds it for down, and a probe was
    /// answered in time.
    #[must_use]
    pub fn is_living(&self, now: u64) -> bool {
        self.path.flags & (bond_path_flag::DOWN | bond_path_flag::PARKED) == 0
            && self.state.alive_until > now
    }
}

impl BondTables {
    /// Those of a running agent, or of one that has left its data plane behind.
    ///
    /// # Errors
    /// When nothing is pinned.
    pub fn open(agent: &Agent) -> Result<Self> {
        let instance = Path::new(crate::lab::PINS).join(agent.instance());
        let version = fs::read_dir(&instance)
            .with_context(|| format!("nothing at {}", instance.display()))?
            .next()
            .with_context(|| format!("nothing in {}", instance.display()))??;
        Ok(Self { maps: version.path().join("maps") })
    }

    /// The settings.
    ///
    /// # Errors
    /// When the table cannot be read.
    pub fn bond(&self) -> Result<Bond> {
        Ok(self.array::<Bond>(names::BOND)?.get(&0, 0)?)
    }

    /// Writes the settings, as nobody but a benchmark does.
    ///
    /// # Errors
    /// When the table cannot be written.
    pub fn put_bond(&self, bond: &Bond) -> Result<()> {
        Ok(self.array::<Bond>(names::BOND)?.set(0, bond, 0)?)
    }

    /// The sessions there are, by slot.
    ///
    /// # Errors
    /// When the table cannot be read.
    pub fn sessions(&self) -> Result<Vec<(u32, Session)>> {
        let table = self.array::<Session>(names::SESSIONS)?;
        let all = (0..table.len()).map(|slot| Ok((slot, table.get(&slot, 0)?)));
        let is_there =
            |session: &Session| session.ours != 0 && session.flags & session_flag::PRESENT != 0;
        let present = |row: &Result<(u32, Session)>| {
            row.as_ref().map_or(true, |(_, session)| is_there(session))
        };
        all.filter(present).collect()
    }

    /// The paths of all sessions.
    ///
    /// # Errors
    /// When a table cannot be read.
    pub fn paths(&self) -> Result<Vec<PathView>> {
        let paths = self.array::<BondPath>(names::BOND_PATHS)?;
        let states = self.array::<PathState>(names::PATH_STATES)?;
        let mut found = Vec::new();
        for (slot, _) in self.sessions()? {
            for id in 1..u8::try_from(BOND_PATHS)? {
                let index = path_index(slot, id);
                let path = paths.get(&index, 0)?;
                if path.flags & bond_path_flag::PRESENT != 0 {
                    found.push(PathView { slot, id, path, state: states.get(&index, 0)? });
                }
            }
        }
        Ok(found)
    }

    /// How many paths are used for data at this moment.
    ///
    /// # Errors
    /// When a table cannot be read.
    pub fn living(&self) -> Result<usize> {
        let now = monotonic()?;
        Ok(self.paths()?.iter().filter(|path| path.is_living(now)).count())
    }

    /// How many paths answer probes and are not held for down: those for data, and those
    /// that are spared for being worse than nothing.
    ///
    /// # Errors
    /// When a table cannot be read.
    pub fn answered(&self) -> Result<usize> {
        let now = monotonic()?;
        let is_up = |path: &&PathView| {
            path.path.flags & bond_path_flag::DOWN == 0 && path.state.alive_until > now
        };
        Ok(self.paths()?.iter().filter(is_up).count())
    }

    /// Which paths packets are shared among, by the newest table of each session: the
    /// session's slot and the path's id.
    ///
    /// # Errors
    /// When a table cannot be read.
    pub fn shared(&self) -> Result<BTreeSet<(u32, u8)>> {
        let selections = self.array::<Selection>(names::SESSION_SELECTIONS)?;
        let mut paths = BTreeSet::new();
        for (slot, _) in self.sessions()? {
            let named = selections.get(&slot, 0)?.slots;
            paths.extend(named.into_iter().filter(|&path| path != 0).map(|path| (slot, path)));
        }
        Ok(paths)
    }

    /// Packets counted so far under a reason, both directions, all paths.
    ///
    /// # Errors
    /// When the table cannot be read.
    pub fn counted(&self, reason: Reason) -> Result<u64> {
        let map = Map::PerCpuArray(self.map(names::COUNTERS)?);
        let counters: PerCpuArray<MapData, Counters> = PerCpuArray::try_from(map)?;
        let mut packets = 0;
        for entry in 0..u32::try_from(COUNTER_ENTRIES)? {
            let lanes = counters.get(&entry, 0)?;
            for protocol in 0..u8::try_from(PROTOCOLS.len())? {
                let place = counter_place(reason, protocol);
                packets += lanes.iter().map(|lane| lane.of[place].packets).sum::<u64>();
            }
        }
        Ok(packets)
    }

    fn array<T: Pod>(&self, name: &str) -> Result<Array<MapData, T>> {
        let map = Map::Array(self.map(name)?);
        Array::try_from(map).with_context(|| format!("{name} is not what it was"))
    }

    fn map(&self, name: &str) -> Result<MapData> {
        let pin = self.maps.join(name);
        MapData::from_pin(&pin).with_context(|| format!("cannot open {}", pin.display()))
    }
}

/// The kernel side's clock, in ns.
fn monotonic() -> Result<u64> {
    let time = nix::time::clock_gettime(nix::time::ClockId::CLOCK_MONOTONIC)?;
    Ok(u64::try_from(std::time::Duration::from(time).as_nanos())?)
}
