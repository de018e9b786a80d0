//! Typed writes: what the agent tells the kernel side. Every setter is one map
//! update, so a packet sees the old value or the new one.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, Ipv6Addr};

use aya::Pod;
use aya::maps::lpm_trie::{Key, LpmTrie};
use aya::maps::{Array, Map, MapData, MapError, ProgramArray};
use aya::programs::ProgramFd;
use mwb_common::maps::{
    Control, DEVICE_SLOTS, Device, Family, Liveness, MAX_PATHS, PREFIX_ENTRIES, Path, Prefix,
    Selection, names,
};
use mwb_common::policy::{OUTLETS, selection_index};

use super::error::Error;
use super::spec::PrefixRule;
use super::tables::Tables;

/// Handles of the maps that the agent writes.
pub(super) struct Settings {
    devices: Array<MapData, Device>,
    control: Array<MapData, Control>,
    paths: Array<MapData, Path>,
    liveness: Array<MapData, Liveness>,
    selections: Array<MapData, Selection>,
    prefixes4: LpmTrie<MapData, [u8; 4], Prefix>,
    prefixes6: LpmTrie<MapData, [u8; 16], Prefix>,
    /// The kernel empties it when the last handle goes that is no program's.
    slow: ProgramArray<MapData>,
    /// The same.
    next: ProgramArray<MapData>,
}

impl Settings {
    pub(super) fn take(object: &mut aya::Ebpf) -> Result<Self, Error> {
        Ok(Self {
            devices: take(object, names::DEVICES)?,
            control: take(object, names::CONTROL)?,
            paths: take(object, names::PATHS)?,
            liveness: take(object, names::LIVENESS)?,
            selections: take(object, names::SELECTIONS)?,
            prefixes4: take(object, names::PREFIXES4)?,
            prefixes6: take(object, names::PREFIXES6)?,
            slow: take(object, names::SLOW)?,
            next: take(object, names::NEXT)?,
        })
    }

    pub(super) fn tables(&self, object: &mut aya::Ebpf) -> Result<Tables, Error> {
        Tables::take(object, &self.paths, &self.devices)
    }

    /// Puts a program into the slow path: a packet meets the one that was there
    /// or this one.
    pub(super) fn set_slow(&mut self, index: u32, program: &ProgramFd) -> Result<(), Error> {
        self.slow.set(index, program, 0).map_err(Error::map(names::SLOW))
    }

    /// Puts a program where programs of the XDP form call it.
    pub(super) fn set_next(&mut self, index: u32, program: &ProgramFd) -> Result<(), Error> {
        self.next.set(index, program, 0).map_err(Error::map(names::NEXT))
    }

    pub(super) fn device(&self, ifindex: u32) -> Result<Device, Error> {
        self.devices.get(&ifindex, 0).map_err(Error::map(names::DEVICES))
    }

    pub(super) fn set_device(
        &mut self,
        name: &str,
        ifindex: u32,
        device: Device,
    ) -> Result<(), Error> {
        if ifindex == 0 || ifindex as usize >= DEVICE_SLOTS {
            return Err(Error::IfindexTooHigh { device: name.to_owned(), ifindex });
        }
        self.devices.set(ifindex, device, 0).map_err(Error::map(names::DEVICES))
    }

    pub(super) fn set_control(&mut self, control: &Control) -> Result<(), Error> {
        self.control.set(0, *control, 0).map_err(Error::map(names::CONTROL))
    }

    pub(super) fn control(&self) -> Result<Control, Error> {
        self.control.get(&0, 0).map_err(Error::map(names::CONTROL))
    }

    pub(super) fn liveness(&self) -> Result<Liveness, Error> {
        self.liveness.get(&0, 0).map_err(Error::map(names::LIVENESS))
    }

    pub(super) fn set_path(&mut self, id: u8, path: &Path) -> Result<(), Error> {
        if id == 0 || usize::from(id) > MAX_PATHS {
            return Err(Error::PathId(id));
        }
        self.paths.set(u32::from(id), *path, 0).map_err(Error::map(names::PATHS))
    }

    pub(super) fn path(&self, id: u8) -> Result<Path, Error> {
        if id == 0 || usize::from(id) > MAX_PATHS {
            return Err(Error::PathId(id));
        }
        self.paths.get(&u32::from(id), 0).map_err(Error::map(names::PATHS))
    }

    pub(super) fn set_liveness(&mut self, liveness: &Liveness) -> Result<(), Error> {
        self.liveness.set(0, *liveness, 0).map_err(Error::map(names::LIVENESS))
    }

    pub(super) fn selection(&self, outlet: u8, family: Family) -> Result<Selection, Error> {
        self.selections.get(&place(outlet, family)?, 0).map_err(Error::map(names::SELECTIONS))
    }

    pub(super) fn set_selection(
        &mut self,
        outlet: u8,
        family: Family,
        selection: &Selection,
    ) -> Result<(), Error> {
        let place = place(outlet, family)?;
        self.selections.set(place, *selection, 0).map_err(Error::map(names::SELECTIONS))
    }

    pub(super) fn set_prefixes(
        &mut self,
        v4: &[PrefixRule<Ipv4Addr>],
        v6: &[PrefixRule<Ipv6Addr>],
    ) -> Result<(), Error> {
        let v4 = v4.iter().map(|rule| (rule.length, rule.address.octets(), rule.prefix));
        let v6 = v6.iter().map(|rule| (rule.length, rule.address.octets(), rule.prefix));
        apply(&mut self.prefixes4, names::PREFIXES4, table(v4))?;
        apply(&mut self.prefixes6, names::PREFIXES6, table(v6))
    }
}

/// Where an outlet's selection is.
fn place(outlet: u8, family: Family) -> Result<u32, Error> {
    if usize::from(outlet) >= OUTLETS {
        return Err(Error::Outlet(outlet));
    }
    Ok(selection_index(outlet, family))
}

/// A prefix table in the order of (length, network address).
type Table<const N: usize> = BTreeMap<(u8, [u8; N]), Prefix>;

/// Clears host bits, so that equal prefixes are equal keys; the last rule for a
/// prefix wins.
fn table<const N: usize>(rules: impl Iterator<Item = (u8, [u8; N], Prefix)>) -> Table<N> {
    rules
        .map(|(length, mut address, prefix)| {
            let length = usize::from(length).min(N * 8);
            for (i, byte) in address.iter_mut().enumerate() {
                let kept = length.saturating_sub(i * 8).min(8);
                // A shift by 8 is an overflow for u8; u16 has room for it.
                *byte &= (0xff00_u16 >> kept).to_be_bytes()[1];
            }
            ((u8::try_from(length).unwrap_or(u8::MAX), address), prefix)
        })
        .collect()
}

/// Applies the difference: first what is new or changed, then what is gone, so
/// that no packet meets a table with less than both have.
fn apply<const N: usize>(
    trie: &mut LpmTrie<MapData, [u8; N], Prefix>,
    name: &'static str,
    wanted: Table<N>,
) -> Result<(), Error>
where
    [u8; N]: Pod,
{
    if wanted.len() > PREFIX_ENTRIES {
        return Err(Error::TooManyPrefixes {
            map: name,
            count: wanted.len(),
            limit: PREFIX_ENTRIES,
        });
    }
    let present: Table<N> = trie
        .iter()
        .map(|entry| {
            let (key, prefix) = entry?;
            let length = u8::try_from(key.prefix_len()).unwrap_or(u8::MAX);
            Ok(((length, key.data()), prefix))
        })
        .collect::<Result<_, MapError>>()
        .map_err(Error::map(name))?;
    let key = |&(length, address): &(u8, [u8; N])| Key::new(u32::from(length), address);
    for (prefix, value) in &wanted {
        if present.get(prefix) != Some(value) {
            trie.insert(&key(prefix), value, 0).map_err(Error::map(name))?;
        }
    }
    for prefix in present.keys().filter(|prefix| !wanted.contains_key(*prefix)) {
        trie.remove(&key(prefix)).map_err(Error::map(name))?;
    }
    Ok(())
}

/// Takes a map out of the object under its type.
pub(super) fn take<M>(object: &mut aya::Ebpf, name: &'static str) -> Result<M, Error>
where
    M: TryFrom<Map, Error = MapError>,
{
    let map = object.take_map(name).ok_or(Error::Missing(name))?;
    M::try_from(map).map_err(Error::map(name))
}

#[cfg(test)]
mod tests {
    use super::super::testing::{in_network, maps_alone};
    use super::*;

    #[test]
    fn prefix_tables_become_what_is_asked_for() {
        in_network("prefix_tables_become_what_is_asked_for", || {
            let mut plane = maps_alone("prefixes");
            let rule = |last: u8, length, class| PrefixRule {
                address: Ipv4Addr::new(192, 0, 2, last),
                length,
                prefix: Prefix { class, ..Prefix::default() },
            };
            let wide = PrefixRule {
                address: Ipv6Addr::LOCALHOST,
                length: 128,
                prefix: Prefix { class: 1, ..Prefix::default() },
            };
            // One stays, one changes, one goes, one comes.
            for rules in [
                vec![rule(1, 32, 1), rule(2, 32, 1), rule(0, 24, 2)],
                vec![rule(1, 32, 1), rule(2, 32, 3), rule(0, 25, 2)],
                vec![],
            ] {
                plane.set_prefixes(&rules, &[wide]).expect("a write");
                let mut found: Vec<_> = plane
                    .settings
                    .prefixes4
                    .iter()
                    .map(|entry| entry.expect("an entry"))
                    .map(|(key, prefix)| (key.prefix_len(), key.data()[3], prefix.class))
                    .collect();
                found.sort_unstable();
                let mut wanted: Vec<_> = rules
                    .iter()
                    .map(|r| (u32::from(r.length), r.address.octets()[3], r.prefix.class))
                    .collect();
                wanted.sort_unstable();
                assert_eq!(found, wanted);
            }
            assert_eq!(plane.settings.prefixes6.iter().count(), 1);
        });
    }

    #[test]
    fn a_device_beyond_the_table_is_refused() {
        in_network("a_device_beyond_the_table_is_refused", || {
            let mut plane = maps_alone("devices");
            let limit = u32::try_from(DEVICE_SLOTS).expect("a small table");
            assert!(plane.set_device(limit - 1, Device::default()).is_ok());
            for ifindex in [0, limit] {
                let error = plane.set_device(ifindex, Device::default());
                assert!(matches!(error, Err(Error::IfindexTooHigh { .. })), "{ifindex}");
            }
        });
    }

    #[test]
    fn host_bits_of_a_prefix_are_ignored() {
        let prefix = Prefix { class: 1, ..Prefix::default() };
        let table = table([(20, [10, 1, 255, 9], prefix), (0, [9; 4], prefix)].into_iter());
        let keys: Vec<_> = table.into_keys().collect();
        assert_eq!(keys, [(0, [0; 4]), (20, [10, 1, 240, 0])]);
    }

    #[test]
    fn a_full_length_prefix_keeps_every_bit() {
        let prefix = Prefix::default();
        let table = table([(32, [255; 4], prefix), (200, [254; 4], prefix)].into_iter());
        let keys: Vec<_> = table.into_keys().collect();
        assert_eq!(keys, [(32, [254; 4]), (32, [255; 4])]);
    }
}
