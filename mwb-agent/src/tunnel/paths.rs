//! The paths of a session: what is written of each, and what the kernel side had of it at
//! the last look.

use std::net::SocketAddr;
use std::time::Duration;

use mwb_common::maps::{BondPath, PathState, bond_path_flag, session_flag};

use super::address;
use super::estimate::PathVerdict;
use super::measure::{SizedProbes, Told};
use super::message::Join;
use super::mtu::{self, Outer, Search};
use super::rate::Rate;
use super::session::Session;
use super::settings::Settings;
use crate::dataplane::{BondMaps, Error, monotonic};

/// A path of a session.
#[derive(Clone, Debug, Default)]
pub(super) struct Link {
    /// The entry as it is in the map.
    pub(super) entry: BondPath,
    /// What the kernel side had at the last look.
    pub(super) state: PathState,
    /// What leaves by it, and what comes.
    pub(super) rate: Rate,
    pub(super) rate_in: Rate,
    /// How good it is.
    pub(super) verdict: PathVerdict,
    pub(super) told: Told,
    /// How long its packets may be.
    pub(super) search: Option<Search>,
    /// Probes of that search.
    pub(super) sized: SizedProbes,
    /// The way that was searched: the far end, and what our interface takes.
    pub(super) searched: Option<(SocketAddr, u32)>,
    /// What the gateway wants of it; of a server's path only.
    pub(super) join: Option<Join>,
}

impl Link {
    /// Where its packets go.
    pub(super) fn remote(&self) -> SocketAddr {
        address::current(&self.entry, &self.state)
    }

    /// The WAN its packets leave by.
    pub(super) fn via(&self) -> u8 {
        match address::moved(&self.entry, &self.state) {
            Some(_) => self.state.via,
            None => self.entry.via,
        }
    }

    /// Whether its probes are answered.
    pub(super) fn is_alive(&self, now: u64) -> bool {
        self.state.alive_until > now
    }

    /// Its smoothed round-trip time, if one is known.
    pub(super) fn rtt(&self) -> Option<Duration> {
        (self.state.rtt > 0).then(|| Duration::from_nanos(self.state.rtt))
    }

    pub(super) fn has(&self, flag: u32) -> bool {
        self.entry.flags & flag != 0
    }
}

/// [`BondPath::loss`], or what it was if that is nearly the same: each change is a write.
fn rounded(loss: f64, before: u32) -> u32 {
    let now = (loss.clamp(0.0, 1.0) * 65_536.0).ceil() as u32;
    if now.abs_diff(before) <= before / 8 { before } else { now }
}

/// A path that is not there, as one is left behind.
fn blank(before: &BondPath) -> BondPath {
    BondPath { generation: before.generation, ..BondPath::default() }
}

impl Session {
    /// A path with this far end by this WAN, new or another than before. Whether anything
    /// is different now.
    pub(super) fn join(
        &mut self,
        maps: &BondMaps,
        path: u8,
        remote: SocketAddr,
        via: u8,
    ) -> Result<bool, Error> {
        let before = self.paths.get(&path);
        if before.is_some_and(|link| (link.remote(), link.via()) == (remote, via)) {
            return Ok(false);
        }
        let mut link = match before {
            Some(before) => before.clone(),
            // Where a path that was here before had moved to is not where this one is.
            None => Link { entry: blank(&maps.path(self.slot, path)?), ..Link::default() },
        };
        link.entry = address::with_remote(&link.entry, remote);
        link.entry.via = via;
        link.entry.flags |= bond_path_flag::PRESENT;
        if link.entry.mtu == 0 {
            link.entry.mtu = mtu::FIRST;
        }
        self.paths.insert(path, link);
        // The smaller packets come first, then the path that may need them.
        self.fit(maps)?;
        self.write_path(maps, path)?;
        Ok(true)
    }

    /// Takes a path away.
    pub(super) fn leave(&mut self, maps: &BondMaps, path: u8) -> Result<(), Error> {
        let Some(gone) = self.paths.remove(&path) else { return Ok(()) };
        // Its sequences and its window stay: a path that comes back goes on with them.
        maps.set_path(self.slot, path, &blank(&gone.entry))?;
        self.fit(maps)
    }

    /// Sets or clears flags of a path. Whether any is different now.
    pub(super) fn set_flags(
        &mut self,
        maps: &BondMaps,
        path: u8,
        flags: u32,
        on: bool,
    ) -> Result<bool, Error> {
        let Some(link) = self.paths.get_mut(&path) else { return Ok(false) };
        let now = if on { link.entry.flags | flags } else { link.entry.flags & !flags };
        if now == link.entry.flags {
            return Ok(false);
        }
        link.entry.flags = now;
        self.write_path(maps, path)?;
        Ok(true)
    }

    /// What the kernel side reckons with: the time of a byte, the delays, and whether what is
    /// lost is computed from parity.
    pub(super) fn reckon(
        &mut self,
        maps: &BondMaps,
        verdict: &PathVerdict,
        settings: &Settings,
    ) -> Result<(), Error> {
        let PathVerdict { path, byte_time, delay, striped_delay, loss, .. } = *verdict;
        self.change(maps, path, |entry| {
            let is = entry.flags & bond_path_flag::PROTECTED != 0;
            let protects = settings.protects(loss, is);
            let protected = if protects { bond_path_flag::PROTECTED } else { 0 };
            let flags = entry.flags & !bond_path_flag::PROTECTED | protected;
            let loss = if protects { rounded(loss, entry.loss) } else { 0 };
            BondPath { byte_time, delay, striped_delay, loss, flags, ..*entry }
        })
    }

    /// What the path takes, in bytes from the outer IP header on. Whether that is less or
    /// more than before.
    pub(super) fn set_mtu(&mut self, maps: &BondMaps, path: u8, mtu: u32) -> Result<bool, Error> {
        let before = self.paths.get(&path).map(|link| link.entry.mtu);
        self.change(maps, path, |entry| BondPath { mtu, ..*entry })?;
        self.fit(maps)?;
        Ok(before.is_some_and(|before| before != mtu))
    }

    /// How much shorter inner packets are than the paths take, in bytes.
    pub(super) fn set_reserve(&mut self, maps: &BondMaps, reserve: u32) -> Result<(), Error> {
        if self.reserve == reserve {
            return Ok(());
        }
        self.reserve = reserve;
        self.fit(maps)
    }

    fn change(
        &mut self,
        maps: &BondMaps,
        path: u8,
        change: impl FnOnce(&BondPath) -> BondPath,
    ) -> Result<(), Error> {
        let Some(link) = self.paths.get_mut(&path) else { return Ok(()) };
        let now = change(&link.entry);
        if now == link.entry {
            return Ok(());
        }
        link.entry = now;
        self.write_path(maps, path)
    }

    fn write_path(&self, maps: &BondMaps, path: u8) -> Result<(), Error> {
        let entry = self.paths.get(&path).map(|link| link.entry).unwrap_or_default();
        maps.set_path(self.slot, path, &entry)
    }

    /// Bounds inner packets by what the paths take.
    fn fit(&mut self, maps: &BondMaps) -> Result<(), Error> {
        let now = monotonic();
        let paths = self.paths.values().map(|link| Outer {
            mtu: link.entry.mtu,
            is_v6: link.remote().is_ipv6(),
            settled: link.search.as_ref().is_some_and(Search::is_settled),
            alive: link.is_alive(now) && !link.has(bond_path_flag::DOWN),
        });
        let mtu = mtu::inner(self.suite, &paths.collect::<Vec<_>>(), self.reserve);
        if mtu != self.entry.mtu {
            self.entry.mtu = mtu;
            // A session that is not there yet is written as a whole.
            if self.entry.flags & session_flag::PRESENT != 0 {
                self.write(maps)?;
            }
        }
        Ok(())
    }
}
