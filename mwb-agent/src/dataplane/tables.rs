//! The tables that the kernel side fills, for readers: counters, flows,
//! mappings, ports. Cheap to clone and free of locks, so that a dump of a full
//! table never holds up whoever writes the settings.

use std::os::fd::{AsFd as _, OwnedFd};
use std::sync::Arc;

use aya::maps::{Array, HashMap, IterableMap as _, MapData, PerCpuArray};
use bytemuck::Pod;
use mwb_common::maps::{
    Contact, Counters, Device, Direction, FORWARD, Flow, FlowKey4, FlowKey6, Fragment, Held,
    Mapping, MappingKey, PATH_SLOTS, PROTOCOLS, Path, PortKey, PortOwner, counter_entry,
    counter_place, held, names,
};
use mwb_common::reason::{Reason, Verdict};

use super::batch::Table;
use super::error::Error;
use super::maps::take;
use super::spec::CounterRow;

/// Handles of the tables that the kernel side fills.
#[derive(Clone)]
pub struct Tables {
    inner: Arc<Inner>,
}

struct Inner {
    flows4: Table<FlowKey4, Flow>,
    flows6: Table<FlowKey6, Flow>,
    mappings: Table<MappingKey, Mapping>,
    ports: Table<PortKey, PortOwner>,
    counters: Table<u32, Counters>,
    paths: Table<u32, Path>,
    devices: Table<u32, Device>,
    mappings_made: Table<[u8; 4], u32>,
    mappings_ended: Table<[u8; 4], u32>,
    contacts: Table<FlowKey4, Contact>,
    fragments: Table<FlowKey6, Fragment>,
    held: Table<u32, Held>,
    losses: Table<u32, u64>,
    hits: Table<u32, u64>,
}

/// Fragments that wait for the first of their datagram.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Waiting {
    /// Those whose time runs.
    pub in_time: usize,
    /// Those whose time is over: the kernel side drops and counts each when its
    /// place is wanted.
    pub late: usize,
    /// How many can wait.
    pub capacity: usize,
}

impl Tables {
    /// Takes the tables out of the object; `paths` and `devices` are lent,
    /// because the settings keep them.
    pub(super) fn take(
        object: &mut aya::Ebpf,
        paths: &Array<MapData, Path>,
        devices: &Array<MapData, Device>,
    ) -> Result<Self, Error> {
        // The kernel rounds the values of per-CPU maps up to 8 bytes each.
        const { assert!(size_of::<Counters>().is_multiple_of(8)) };
        let cpus = aya::util::nr_cpus().map_err(|(path, source)| Error::Cpus { path, source })?;
        let flows4: HashMap<_, FlowKey4, Flow> = take(object, names::FLOWS4)?;
        let flows6: HashMap<_, FlowKey6, Flow> = take(object, names::FLOWS6)?;
        let mappings: HashMap<_, MappingKey, Mapping> = take(object, names::MAPPINGS)?;
        let ports: HashMap<_, PortKey, PortOwner> = take(object, names::PORTS)?;
        let counters: PerCpuArray<_, Counters> = take(object, names::COUNTERS)?;
        let made: HashMap<_, [u8; 4], u32> = take(object, names::MAPPINGS_MADE)?;
        let ended: HashMap<_, [u8; 4], u32> = take(object, names::MAPPINGS_ENDED)?;
        let contacts: HashMap<_, FlowKey4, Contact> = take(object, names::CONTACTS)?;
        let fragments: HashMap<_, FlowKey6, Fragment> = take(object, names::FRAGMENTS)?;
        let held: Array<_, Held> = take(object, names::HELD)?;
        let losses: PerCpuArray<_, u64> = take(object, names::XMIT_LOSSES)?;
        let hits: PerCpuArray<_, u64> = take(object, names::POLICY_HITS)?;
        Ok(Self {
            inner: Arc::new(Inner {
                hits: table(hits.map(), names::POLICY_HITS, cpus)?,
                losses: table(losses.map(), names::XMIT_LOSSES, cpus)?,
                mappings_made: table(made.map(), names::MAPPINGS_MADE, 1)?,
                mappings_ended: table(ended.map(), names::MAPPINGS_ENDED, 1)?,
                contacts: table(contacts.map(), names::CONTACTS, 1)?,
                fragments: table(fragments.map(), names::FRAGMENTS, 1)?,
                held: table(held.map(), names::HELD, 1)?,
                flows4: table(flows4.map(), names::FLOWS4, 1)?,
                flows6: table(flows6.map(), names::FLOWS6, 1)?,
                mappings: table(mappings.map(), names::MAPPINGS, 1)?,
                ports: table(ports.map(), names::PORTS, 1)?,
                counters: table(counters.map(), names::COUNTERS, cpus)?,
                paths: table(paths.map(), names::PATHS, 1)?,
                devices: table(devices.map(), names::DEVICES, 1)?,
            }),
        })
    }

    /// IPv4 flows.
    #[must_use]
    pub fn flows4(&self) -> &Table<FlowKey4, Flow> {
        &self.inner.flows4
    }

    /// IPv6 flows.
    #[must_use]
    pub fn flows6(&self) -> &Table<FlowKey6, Flow> {
        &self.inner.flows6
    }

    /// Outside endpoints by inside endpoint.
    #[must_use]
    pub fn mappings(&self) -> &Table<MappingKey, Mapping> {
        &self.inner.mappings
    }

    /// Owners of outside ports.
    #[must_use]
    pub fn ports(&self) -> &Table<PortKey, PortOwner> {
        &self.inner.ports
    }

    /// Mappings ever made for an inside address, where they are limited. Only
    /// the kernel side counts.
    #[must_use]
    pub fn mappings_made(&self) -> &Table<[u8; 4], u32> {
        &self.inner.mappings_made
    }

    /// How many of them are over. Only the sweeper counts.
    #[must_use]
    pub fn mappings_ended(&self) -> &Table<[u8; 4], u32> {
        &self.inner.mappings_ended
    }

    /// Remote addresses that inside endpoints have sent to, where WANs filter by
    /// address.
    #[must_use]
    pub fn contacts(&self) -> &Table<FlowKey4, Contact> {
        &self.inner.contacts
    }

    /// Datagrams whose first fragment has passed lately.
    #[must_use]
    pub fn fragments(&self) -> &Table<FlowKey6, Fragment> {
        &self.inner.fragments
    }

    /// Places of fragments that wait for the first of their datagram.
    #[must_use]
    pub fn held_slots(&self) -> &Table<u32, Held> {
        &self.inner.held
    }

    /// How many fragments wait for the first of their datagram at `now`
    /// (`CLOCK_MONOTONIC` in nanoseconds).
    ///
    /// # Errors
    /// When the kernel refuses to read.
    pub fn waiting(&self, now: u64) -> Result<Waiting, Error> {
        let capacity = self.inner.held.capacity() as usize;
        let mut waiting = Waiting { capacity, ..Waiting::default() };
        self.inner.held.for_each(|_, slots| {
            for slot in slots.iter().filter(|slot| slot.state == held::WAITS) {
                let place = if slot.until < now { &mut waiting.late } else { &mut waiting.in_time };
                *place += 1;
            }
        })?;
        Ok(waiting)
    }

    /// Frames that XDP programs have redirected to a device (by interface index) and
    /// that it did not take; see [`DataPlane::unwatched`](super::DataPlane::unwatched).
    ///
    /// # Errors
    /// When the kernel refuses to read.
    pub fn losses(&self, ifindex: u32) -> Result<u64, Error> {
        Ok(self.inner.losses.read(&ifindex)?.unwrap_or_default().iter().sum())
    }

    /// What policy rules have counted, by [`mwb_common::policy::Rule::hits`]: flows that
    /// were opened, or packets that were blocked. Read in one batch.
    ///
    /// # Errors
    /// When the kernel refuses to read.
    pub fn policy_hits(&self) -> Result<Vec<u64>, Error> {
        let mut hits = vec![0; self.inner.hits.capacity() as usize];
        self.inner.hits.for_each(|&place, lanes| {
            if let Some(hits) = hits.get_mut(place as usize) {
                *hits = lanes.iter().sum();
            }
        })?;
        Ok(hits)
    }

    /// The port forwards as they are now.
    ///
    /// # Errors
    /// When the kernel refuses to read.
    pub fn forwards(&self) -> Result<Vec<(PortKey, MappingKey)>, Error> {
        let mut forwards = Vec::new();
        self.inner.ports.for_each(|key, owners| {
            let forward = |owner: &&PortOwner| owner.last_used == FORWARD;
            forwards.extend(owners.iter().filter(forward).map(|owner| (*key, owner.inside)));
        })?;
        Ok(forwards)
    }

    /// The path table as it is now, by path id.
    ///
    /// # Errors
    /// When the kernel refuses to read.
    pub fn paths(&self) -> Result<Vec<Path>, Error> {
        let mut paths = vec![Path::default(); PATH_SLOTS];
        self.inner.paths.for_each(|&id, values| {
            if let (Some(slot), Some(path)) = (paths.get_mut(id as usize), values.first()) {
                *slot = *path;
            }
        })?;
        Ok(paths)
    }

    /// Every configured entry of the device table, by interface index.
    ///
    /// # Errors
    /// When the kernel refuses to read.
    pub fn devices(&self) -> Result<Vec<(u32, Device)>, Error> {
        let mut devices = Vec::new();
        self.inner.devices.for_each(|&ifindex, values| {
            devices
                .extend(values.iter().filter(|d| **d != Device::default()).map(|d| (ifindex, *d)));
        })?;
        Ok(devices)
    }

    /// Every counter that is not zero, summed over the CPUs.
    ///
    /// # Errors
    /// When the kernel refuses to read.
    pub fn counters(&self) -> Result<Vec<CounterRow>, Error> {
        let mut rows = Vec::new();
        self.inner.counters.for_each(|&entry, lanes| rows.extend(counter_rows(entry, lanes)))?;
        Ok(rows)
    }

    pub(super) fn clear_counters(&self, entry: u32) -> Result<(), Error> {
        self.inner.counters.clear(&entry)
    }

    /// What was forwarded in one direction by one path, ever: one look-up, for who
    /// asks many times a second. `bonded`: what a bond has forwarded counts.
    ///
    /// # Errors
    /// When the kernel refuses to read.
    pub fn forwarded(
        &self,
        direction: Direction,
        path: u8,
        bonded: bool,
    ) -> Result<Forwarded, Error> {
        let mut total = Forwarded::default();
        let entry = counter_entry(direction, path);
        let lanes = self.inner.counters.read(&entry)?.unwrap_or_default();
        for row in counter_rows(entry, &lanes) {
            let reason = row.reason;
            if reason == Reason::Hairpinned {
                total.turned += row.packets;
            } else if reason.verdict() == Verdict::Forward && (bonded || !reason.is_of_bond()) {
                total.packets += row.packets;
                total.bytes += row.bytes;
            }
        }
        total.syns = lanes.iter().map(|lane| lane.syns).sum();
        Ok(total)
    }
}

/// What was forwarded in one direction by one path, ever.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Forwarded {
    /// Packets.
    pub packets: u64,
    /// Bytes from the IP header on.
    pub bytes: u64,
    /// Of the packets of steered flows those that ask for a TCP connection (out), or answer
    /// one that does (in).
    pub syns: u64,
    /// Packets that were to go out to an address of the WAN itself, and were turned round:
    /// not among `packets`. Coming in they are among them.
    pub turned: u64,
}

/// The counters of an entry that are not zero, summed over the CPUs. A place that no
/// reason has, has none.
fn counter_rows(entry: u32, lanes: &[Counters]) -> impl Iterator<Item = CounterRow> {
    let of_entry = Direction::ALL
        .into_iter()
        .flat_map(|direction| (0..=u8::MAX).take(PATH_SLOTS).map(move |path| (direction, path)));
    let named = of_entry.zip(0..).find(|&(_, index)| index == entry).map(|(named, _)| named);
    let places = Reason::ALL
        .iter()
        .flat_map(|&reason| (0..).zip(PROTOCOLS).map(move |protocol| (reason, protocol)));
    named.into_iter().flat_map(move |(direction, path)| {
        places.clone().filter_map(move |(reason, (number, protocol))| {
            let place = counter_place(reason, number);
            let of_place = lanes.iter().filter_map(|lane| lane.of.get(place));
            let (packets, bytes) = of_place.fold((0, 0), |(packets, bytes), counter| {
                (packets + counter.packets, bytes + counter.bytes)
            });
            let row = CounterRow { direction, path, reason, protocol, packets, bytes };
            (packets != 0).then_some(row)
        })
    })
}

pub(super) fn table<K: Pod, V: Pod>(
    map: &MapData,
    name: &'static str,
    lanes: usize,
) -> Result<Table<K, V>, Error> {
    let call = |call| move |source| Error::Call { map: name, call, source };
    let fd: OwnedFd = map.fd().as_fd().try_clone_to_owned().map_err(call("dup"))?;
    let info = map.info().map_err(Error::map(name))?;
    // What the kernel writes into our buffers must be what they are sized for.
    let sizes = (size_of::<K>(), size_of::<V>());
    if (info.key_size() as usize, info.value_size() as usize) != sizes {
        return Err(call("BPF_OBJ_GET_INFO_BY_FD")(std::io::Error::other(format!(
            "keys of {} and values of {} bytes, expected {sizes:?}",
            info.key_size(),
            info.value_size()
        ))));
    }
    Ok(Table::new(fd, name, lanes, info.max_entries()))
}

#[cfg(test)]
mod tests {
    use bytemuck::Zeroable as _;
    use mwb_common::maps::{COUNTER_ENTRIES, Counter};

    use super::*;

    #[test]
    fn a_counter_row_names_where_it_was_counted() {
        for direction in Direction::ALL {
            for path in [0, 1, 32] {
                for &reason in Reason::ALL {
                    for (number, protocol) in (0_u8..).zip(PROTOCOLS) {
                        let entry = counter_entry(direction, path);
                        assert!((entry as usize) < COUNTER_ENTRIES);
                        let mut lanes = [Counters::zeroed(); 2];
                        for (lane, packets) in lanes.iter_mut().zip([1, 2]) {
                            let counter = Counter { packets, bytes: 10 };
                            lane.of[counter_place(reason, number)] = counter;
                        }
                        let rows: Vec<_> = counter_rows(entry, &lanes).collect();
                        let row =
                            CounterRow { direction, path, reason, protocol, packets: 3, bytes: 20 };
                        assert_eq!(rows, [row]);
                    }
                }
            }
        }
    }
}
