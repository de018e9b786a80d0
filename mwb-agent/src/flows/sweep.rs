//! Taking the snapshot and carrying the plan out, in batches.
//!
//! Between snapshot and removal packets go on arriving, so every entry is read
//! again right before it goes, and stays if anything about it changed. Of a
//! flow the inbound entry goes first: while the outbound one stands, the kernel
//! side makes no new pair that we could tear apart.

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use mwb_common::maps::{Flow, MappingKey, PortKey};
use nix::time::{ClockId, clock_gettime};
use tokio::sync::watch;
use tokio::task::spawn_blocking;
use tokio::time::{MissedTickBehavior, interval};

use super::plan::{Dead, Key, Plan, Snapshot, Suspects, Timeouts, Usage, outside, plan};
use super::sources::{Counts, Source, settle};
use crate::dataplane::{Error, Table, Tables};

/// Entries that are read again and deleted in one go: the fewer, the shorter
/// the time between the two.
const BATCH: usize = 256;

/// Sweeps the tables of one data plane.
pub struct Sweeper {
    tables: Tables,
    timeouts: Timeouts,
    suspects: Suspects,
    /// Sources that had no mapping at the last sweep.
    idle: HashSet<Source>,
}

impl Sweeper {
    /// Touches nothing yet.
    #[must_use]
    pub fn new(tables: Tables, timeouts: Timeouts) -> Self {
        Self { tables, timeouts, suspects: Suspects::default(), idle: HashSet::new() }
    }

    /// Sweeps every `period` on a thread for blocking work and tells how full
    /// the tables are, until nobody listens any more. What fails is logged and
    /// tried again in the next round. A sweep goes by the timeouts that hold
    /// when it begins.
    pub async fn run(
        mut self,
        period: Duration,
        timeouts: watch::Receiver<Timeouts>,
        usage: watch::Sender<Usage>,
    ) {
        let mut ticks = interval(period);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                _ = ticks.tick() => {}
                () = usage.closed() => return,
            }
            self.timeouts = *timeouts.borrow();
            let sweep = spawn_blocking(move || {
                let result = self.sweep();
                (self, result)
            });
            let result = match sweep.await {
                Ok((sweeper, result)) => {
                    self = sweeper;
                    result
                }
                Err(error) => {
                    tracing::error!(%error, "expiry of flows has ended");
                    return;
                }
            };
            match result {
                Ok(figures) => {
                    usage.send_replace(figures);
                }
                Err(error) => tracing::warn!(%error, "a sweep of the flow tables failed"),
            }
        }
    }

    /// One sweep. Takes milliseconds to a second: not for the runtime's threads.
    ///
    /// # Errors
    /// When the kernel refuses to read or delete.
    pub fn sweep(&mut self) -> Result<Usage, Error> {
        let (snapshot, mut counts) = self.snapshot()?;
        let Plan { flows4, flows6, mappings, ports, suspects, mut usage } =
            plan(&snapshot, &self.timeouts, &self.suspects);
        drop(snapshot);
        self.suspects = suspects;

        let planned = flows4.len() + flows6.len() + mappings.len() + ports.len();
        usage.flows4 += self.end_flows(self.tables.flows4(), &flows4)?;
        usage.flows6 += self.end_flows(self.tables.flows6(), &flows6)?;

        // Mappings before ports: a mapping must never stand without its port.
        for batch in mappings.chunks(BATCH) {
            let mut keys = Vec::with_capacity(batch.len());
            for (key, before) in batch {
                if self.tables.mappings().get(key)?.as_ref() == Some(before) {
                    keys.push(*key);
                } else {
                    usage.mappings += 1;
                }
            }
            self.tables.mappings().remove(&keys)?;
            for key in &keys {
                *counts.removed.entry(key.address).or_default() += 1;
            }
        }
        self.settle(&counts)?;
        for batch in ports.chunks(BATCH) {
            let mut keys = Vec::with_capacity(batch.len());
            for (key, before) in batch {
                let unchanged = self.tables.ports().get(key)?.as_ref() == Some(before);
                if unchanged && !self.is_mapped(&before.inside, key)? {
                    keys.push(*key);
                } else if let Some(used) = usage.ports_used.get_mut(usize::from(key.path)) {
                    *used += 1;
                }
            }
            self.tables.ports().remove(&keys)?;
        }
        if planned > 0 {
            tracing::debug!(
                flows4 = flows4.len(),
                flows6 = flows6.len(),
                mappings = mappings.len(),
                ports = ports.len(),
                "expired"
            );
        }
        Ok(usage)
    }

    /// Reads all tables, in the order that `Snapshot` and `Counts` ask for.
    fn snapshot(&self) -> Result<(Snapshot, Counts), Error> {
        let now = monotonic();
        let flows4 = dump(self.tables.flows4())?;
        let flows6 = dump(self.tables.flows6())?;
        let before = dump(self.tables.mappings_made())?.into_iter().collect();
        let mappings = dump(self.tables.mappings())?;
        let after = dump(self.tables.mappings_made())?.into_iter().collect();
        let ended = dump(self.tables.mappings_ended())?.into_iter().collect();
        let mut present = HashMap::<Source, u32>::new();
        for (key, _) in &mappings {
            *present.entry(key.address).or_default() += 1;
        }
        let snapshot = Snapshot {
            now,
            flows4,
            flows6,
            mappings,
            ports: dump(self.tables.ports())?,
            paths: self.tables.paths()?,
            flow_capacity: self.tables.flows4().capacity() as usize / 2,
            waiting: self.tables.waiting(now)?,
        };
        Ok((snapshot, Counts { before, after, ended, present, removed: HashMap::new() }))
    }

    /// Writes how many mappings of each source are over. A table that is full
    /// costs the source its count, not the others theirs.
    fn settle(&mut self, counts: &Counts) -> Result<(), Error> {
        let settlement = settle(counts, &self.idle);
        for (source, ended) in &settlement.ended {
            if let Err(error) = self.tables.mappings_ended().put(source, ended) {
                tracing::debug!(%error, "ended mappings of a source are not counted");
            }
        }
        // Made ones first: for a moment the source has less than none, and may
        // open; the other way round it would have all at once, and may not.
        self.tables.mappings_made().remove(&settlement.forgotten)?;
        self.tables.mappings_ended().remove(&settlement.forgotten)?;
        self.idle = settlement.idle;
        Ok(())
    }

    /// Ends flows that nothing happened to since the snapshot; returns how many
    /// were spared.
    fn end_flows<K: Key + bytemuck::Pod>(
        &self,
        table: &Table<K, Flow>,
        dead: &[Dead<K>],
    ) -> Result<usize, Error> {
        let mut spared = 0;
        for batch in dead.chunks(BATCH) {
            let (mut inbound, mut outbound) = (Vec::new(), Vec::new());
            for flow in batch {
                if !is_still_over(table, flow)? {
                    // Flows are counted by their outbound entries.
                    spared += usize::from(flow.entry.0.scope() == 0);
                    continue;
                }
                for (key, _) in std::iter::once(flow.entry).chain(flow.twin) {
                    if key.scope() == 0 { outbound.push(key) } else { inbound.push(key) }
                }
            }
            table.remove(&inbound)?;
            table.remove(&outbound)?;
        }
        Ok(spared)
    }

    /// Whether the mapping of an inside endpoint is on this port by now.
    fn is_mapped(&self, inside: &MappingKey, port: &PortKey) -> Result<bool, Error> {
        let mapping = self.tables.mappings().get(inside)?;
        Ok(mapping.is_some_and(|mapping| outside(inside, &mapping) == *port))
    }
}

/// Whether a flow is as it was: unused, and no half of it got company.
fn is_still_over<K: Key + bytemuck::Pod>(
    table: &Table<K, Flow>,
    flow: &Dead<K>,
) -> Result<bool, Error> {
    let (key, before) = flow.entry;
    if table.get(&key)?.is_none_or(|now| now != before) {
        return Ok(false);
    }
    match flow.twin {
        Some((key, before)) => Ok(table.get(&key)?.is_some_and(|now| now == before)),
        None if flow.void => Ok(true),
        None => {
            let twin = key.twin(&before);
            Ok(table.get(&twin)?.is_none_or(|now| twin.twin(&now) != key))
        }
    }
}

fn dump<K: bytemuck::Pod, V: bytemuck::Pod>(table: &Table<K, V>) -> Result<Vec<(K, V)>, Error> {
    let mut entries = Vec::new();
    table.for_each(|key, values| {
        entries.extend(values.first().map(|value| (*key, *value)));
    })?;
    Ok(entries)
}

/// The kernel side's clock.
fn monotonic() -> u64 {
    // It fails only for clocks that do not exist.
    clock_gettime(ClockId::CLOCK_MONOTONIC)
        .map_or(0, |time| u64::try_from(Duration::from(time).as_nanos()).unwrap_or(u64::MAX))
}
