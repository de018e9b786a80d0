//! What the kernel side decides by, read at one moment: settings as they stand
//! in the maps, not as somebody meant to write them.

use std::net::IpAddr;
use std::sync::Arc;

use aya::maps::{Map, MapData};
use bytemuck::{Pod, Zeroable};
use ipnet::IpNet;
use mwb_common::maps::{
    CONTACT_ENTRIES, Contact, Control, FlowKey4, Liveness, PATH_SLOTS, Path, Prefix,
    SOURCE_ENTRIES, Selection, names,
};
use mwb_common::policy::SELECTION_ENTRIES;
use nix::time::{ClockId, clock_gettime};

use super::batch::Table;
use super::error::Error;
use super::tables::table;

/// The settings of the kernel side at one moment.
#[derive(Clone)]
pub struct Rulebook {
    /// When, in nanoseconds of `CLOCK_MONOTONIC`.
    pub now: u64,
    /// Port range, seed, limits.
    pub control: Control,
    /// Until when each path is alive.
    pub liveness: Liveness,
    /// Paths by id.
    pub paths: Vec<Path>,
    /// Path choices by [`mwb_common::policy::selection_index`].
    pub selections: Vec<Selection>,
    /// The next slot number, the same.
    pub cursors: Vec<u64>,
    /// Rules for destinations, of both families.
    pub prefixes: Vec<(IpNet, Prefix)>,
}

/// A key of `BPF_MAP_TYPE_LPM_TRIE`: length in bits, address.
#[repr(C)]
#[derive(Clone, Copy, Pod, Zeroable)]
struct Key4 {
    length: u32,
    address: [u8; 4],
}

/// The same for IPv6.
#[repr(C)]
#[derive(Clone, Copy, Pod, Zeroable)]
struct Key6 {
    length: u32,
    address: [u8; 16],
}

/// Handles for reading a [`Rulebook`], from any thread. Cheap to clone.
#[derive(Clone)]
pub struct Rules {
    inner: Arc<Inner>,
}

struct Inner {
    control: Table<u32, Control>,
    liveness: Table<u32, Liveness>,
    paths: Table<u32, Path>,
    selections: Table<u32, Selection>,
    cursors: Table<u32, u64>,
    prefixes4: Table<Key4, Prefix>,
    prefixes6: Table<Key6, Prefix>,
    made: Table<[u8; 4], u32>,
    ended: Table<[u8; 4], u32>,
    contacts: Table<FlowKey4, Contact>,
}

impl Rules {
    /// Copies the handles, before others take the maps.
    pub(super) fn of(object: &aya::Ebpf) -> Result<Self, Error> {
        Ok(Self {
            inner: Arc::new(Inner {
                control: open(object, names::CONTROL)?,
                liveness: open(object, names::LIVENESS)?,
                paths: open(object, names::PATHS)?,
                selections: open(object, names::SELECTIONS)?,
                cursors: open(object, names::CURSORS)?,
                prefixes4: open(object, names::PREFIXES4)?,
                prefixes6: open(object, names::PREFIXES6)?,
                made: open(object, names::MAPPINGS_MADE)?,
                ended: open(object, names::MAPPINGS_ENDED)?,
                contacts: open(object, names::CONTACTS)?,
            }),
        })
    }

    /// Reads everything. Some hundred system calls at most.
    ///
    /// # Errors
    /// When the kernel refuses to read.
    pub fn read(&self) -> Result<Rulebook, Error> {
        let Inner { control, liveness, paths, selections, cursors, prefixes4, prefixes6, .. } =
            &*self.inner;
        let zero = Liveness { alive_until: [0; PATH_SLOTS] };
        let mut book = Rulebook {
            now: monotonic(),
            control: control.get(&0)?.unwrap_or_default(),
            liveness: liveness.get(&0)?.unwrap_or(zero),
            paths: vec![Path::default(); PATH_SLOTS],
            selections: vec![Selection::zeroed(); SELECTION_ENTRIES],
            cursors: vec![0; SELECTION_ENTRIES],
            prefixes: Vec::new(),
        };
        paths.for_each(|&id, values| put(&mut book.paths, id, values))?;
        selections.for_each(|&place, values| put(&mut book.selections, place, values))?;
        cursors.for_each(|&place, values| put(&mut book.cursors, place, values))?;
        prefixes4.for_each(|key, values| book.add(key.address.into(), key.length, values))?;
        prefixes6.for_each(|key, values| book.add(key.address.into(), key.length, values))?;
        Ok(book)
    }

    /// How many rules the fuller one of the two prefix tables has.
    ///
    /// # Errors
    /// When the kernel refuses to read.
    pub fn prefix_count(&self) -> Result<usize, Error> {
        let (mut v4, mut v6) = (0, 0);
        self.inner.prefixes4.for_each(|_, _| v4 += 1)?;
        self.inner.prefixes6.for_each(|_, _| v6 += 1)?;
        Ok(v4.max(v6))
    }

    /// How many mappings an inside address has, as the kernel side reckons it
    /// when they are limited.
    ///
    /// # Errors
    /// When the kernel refuses to read.
    pub fn mappings_of(&self, address: [u8; 4]) -> Result<u32, Error> {
        let made = self.inner.made.get(&address)?.unwrap_or_default();
        let ended = self.inner.ended.get(&address)?.unwrap_or_default();
        Ok(u32::try_from(made.wrapping_sub(ended).cast_signed()).unwrap_or(0))
    }

    /// How many inside addresses are counted, and how many could be.
    ///
    /// # Errors
    /// When the kernel refuses to read.
    pub fn sources(&self) -> Result<(usize, usize), Error> {
        let mut count = 0;
        self.inner.made.for_each(|_, _| count += 1)?;
        Ok((count, SOURCE_ENTRIES))
    }

    /// How many remote addresses are remembered, and how many can be; the
    /// longest unused make room.
    ///
    /// # Errors
    /// When the kernel refuses to read.
    pub fn contacts(&self) -> Result<(usize, usize), Error> {
        let mut count = 0;
        self.inner.contacts.for_each(|_, _| count += 1)?;
        Ok((count, CONTACT_ENTRIES))
    }
}

impl Rulebook {
    fn add(&mut self, address: IpAddr, length: u32, values: &[Prefix]) {
        let net = u8::try_from(length).ok().and_then(|length| IpNet::new(address, length).ok());
        self.prefixes.extend(net.zip(values.first().copied()));
    }
}

/// Puts what an array has at a place to the same place.
fn put<V: Copy>(to: &mut [V], place: u32, values: &[V]) {
    if let (Some(slot), Some(value)) = (to.get_mut(place as usize), values.first()) {
        *slot = *value;
    }
}

/// The time of the kernel side.
pub(crate) fn monotonic() -> u64 {
    let time = clock_gettime(ClockId::CLOCK_MONOTONIC).map(std::time::Duration::from);
    time.map_or(0, |time| u64::try_from(time.as_nanos()).unwrap_or(u64::MAX))
}

pub(super) fn open<K: Pod, V: Pod>(
    object: &aya::Ebpf,
    name: &'static str,
) -> Result<Table<K, V>, Error> {
    let map = object.map(name).ok_or(Error::Missing(name))?;
    table(data(map).ok_or(Error::Missing(name))?, name, 1)
}

/// What the map types that are read here have in common.
fn data(map: &Map) -> Option<&MapData> {
    match map {
        Map::Array(data) | Map::HashMap(data) | Map::LruHashMap(data) | Map::LpmTrie(data) => {
            Some(data)
        }
        _ => None,
    }
}
