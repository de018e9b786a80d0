//! What is counted, at one moment. Two of them and the time between say what
//! goes on now; counts since boot say only that something once did.

use std::collections::BTreeMap;
use std::fs;
use std::time::Instant;

use crate::daemon::beat::Plane;
use crate::dataplane::{CounterRow, Error, ProgramRuns, Tables};

/// Counters at one moment.
#[derive(Clone, Debug)]
pub(super) struct Sample {
    pub(super) at: Instant,
    /// By device name.
    pub(super) devices: BTreeMap<String, DeviceCounts>,
    /// By CPU.
    pub(super) cpus: Vec<CpuTimes>,
    /// By CPU.
    pub(super) backlogs: Vec<Backlog>,
    pub(super) packets: Vec<CounterRow>,
    pub(super) programs: Vec<ProgramRuns>,
    /// Frames lost behind an XDP redirect, by interface index.
    pub(super) losses: BTreeMap<u32, u64>,
}

/// What a device has counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct DeviceCounts {
    pub(super) received: u64,
    pub(super) received_bytes: u64,
    /// Dropped on receive: no room in the ring, or by the stack.
    pub(super) receive_drops: u64,
    pub(super) sent: u64,
    pub(super) sent_bytes: u64,
    /// Dropped on transmit: the queue is full.
    pub(super) send_drops: u64,
}

/// Time of a CPU in ticks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct CpuTimes {
    pub(super) idle: u64,
    /// Handling packets above all.
    pub(super) softirq: u64,
    pub(super) total: u64,
}

/// A CPU's queue of received packets.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Backlog {
    pub(super) processed: u64,
    /// The queue was full.
    pub(super) dropped: u64,
    /// It had to stop with packets left.
    pub(super) squeezed: u64,
}

impl Sample {
    /// Reads all of it: some milliseconds of blocking work.
    pub(super) fn take(plane: &Plane, tables: &Tables) -> Result<Self, Error> {
        let lost = |(ifindex, _): (u32, _)| Ok((ifindex, tables.losses(ifindex)?));
        Ok(Self {
            at: Instant::now(),
            devices: devices(&text("/proc/thread-self/net/dev")),
            cpus: cpus(&text("/proc/stat")),
            backlogs: backlogs(&text("/proc/net/softnet_stat")),
            packets: tables.counters()?,
            programs: plane.with(|plane| plane.program_runs()),
            losses: tables.devices()?.into_iter().map(lost).collect::<Result<_, Error>>()?,
        })
    }
}

/// A file that is not there says nothing.
fn text(path: &str) -> String {
    fs::read_to_string(path).unwrap_or_default()
}

fn devices(text: &str) -> BTreeMap<String, DeviceCounts> {
    let line = |line: &str| {
        let (name, figures) = line.split_once(':')?;
        let figures: Vec<u64> =
            figures.split_whitespace().filter_map(|figure| figure.parse().ok()).collect();
        let at = |index: usize| figures.get(index).copied();
        let counts = DeviceCounts {
            received_bytes: at(0)?,
            received: at(1)?,
            receive_drops: at(3)?,
            sent_bytes: at(8)?,
            sent: at(9)?,
            send_drops: at(11)?,
        };
        Some((name.trim().to_owned(), counts))
    };
    text.lines().filter_map(line).collect()
}

fn cpus(text: &str) -> Vec<CpuTimes> {
    let line = |line: &str| {
        let mut words = line.split_whitespace();
        // The first line is the sum of all.
        words.next().filter(|word| word.len() > 3 && word.starts_with("cpu"))?;
        let times: Vec<u64> = words.filter_map(|word| word.parse().ok()).collect();
        let at = |index: usize| times.get(index).copied();
        // Guest time is part of user time already.
        let total = times.iter().take(8).sum();
        Some(CpuTimes { idle: at(3)? + at(4)?, softirq: at(6)?, total })
    };
    text.lines().filter_map(line).collect()
}

fn backlogs(text: &str) -> Vec<Backlog> {
    let line = |line: &str| {
        let mut figures =
            line.split_whitespace().filter_map(|word| u64::from_str_radix(word, 16).ok());
        Some(Backlog {
            processed: figures.next()?,
            dropped: figures.next()?,
            squeezed: figures.next()?,
        })
    };
    text.lines().filter_map(line).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn devices_are_read_as_the_kernel_prints_them() {
        let text = "Inter-|   Receive                            |  Transmit\n \
            face |bytes    packets errs drop fifo frame compressed multicast|bytes packets\n    \
            lo:     840      10    0    0    0     0          0         0      840      10    0    0    0     0       0          0\n\
            wan0.7: 1000 20 1 3 0 0 0 5 2000 30 0 4 0 0 0 0\n";
        let devices = devices(text);
        assert_eq!(devices.keys().collect::<Vec<_>>(), ["lo", "wan0.7"]);
        let expected = DeviceCounts {
            received: 20,
            received_bytes: 1_000,
            receive_drops: 3,
            sent: 30,
            sent_bytes: 2_000,
            send_drops: 4,
        };
        assert_eq!(devices.get("wan0.7"), Some(&expected));
    }

    #[test]
    fn cpu_times_are_read_by_cpu() {
        let text = "cpu  10 0 10 100 0 0 30 0 0 0\ncpu0 5 0 5 50 2 1 20 3 5 0\ncpu1 5 0 5 48 0 0 10 0 0 0\nintr 1\n";
        let first = CpuTimes { idle: 52, softirq: 20, total: 86 };
        assert_eq!(cpus(text).first(), Some(&first));
        assert_eq!(cpus(text).len(), 2);
    }

    #[test]
    fn backlogs_are_hexadecimal() {
        let text = "0000ff10 00000002 0000000a 00000000 00000000\n00000001 00000000 00000000\n";
        let first = Backlog { processed: 0xff10, dropped: 2, squeezed: 10 };
        assert_eq!(backlogs(text).first(), Some(&first));
        assert_eq!(backlogs(text).len(), 2);
    }

    #[test]
    fn this_kernel_prints_them_so() {
        assert!(devices(&text("/proc/thread-self/net/dev")).contains_key("lo"));
        let busy = cpus(&text("/proc/stat"));
        assert!(!busy.is_empty() && busy.iter().all(|cpu| cpu.total > 0));
        assert!(!backlogs(&text("/proc/net/softnet_stat")).is_empty());
    }
}
