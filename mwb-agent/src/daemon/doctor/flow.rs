//! What passed between two samples, and what of it is lost or costs too much.

use std::collections::BTreeMap;

use mwb_common::reason::{Reason, Verdict};

use super::facts::Facts;
use super::sample::{Backlog, CpuTimes, DeviceCounts, Sample};
use super::{finding, with_fix};
use crate::api::doctor::Area::{Cpu, Kernel, Queue};
use crate::api::doctor::Finding;
use crate::api::doctor::Severity::{Bad, Ok, Warn};

/// A CPU that is busy for so much of the time has no reserve.
pub(super) const BUSY: f64 = 0.90;

/// Differences of two samples.
#[derive(Clone, Debug, Default)]
pub(super) struct Passed {
    pub(super) seconds: f64,
    /// By device.
    pub(super) devices: BTreeMap<String, DeviceCounts>,
    /// Parts of each CPU's time.
    pub(super) cpus: Vec<CpuParts>,
    /// By CPU.
    pub(super) backlogs: Vec<Backlog>,
    /// Packets that were dropped, by reason.
    pub(super) drops: BTreeMap<Reason, u64>,
    pub(super) forwarded: u64,
    pub(super) programs: Vec<ProgramPassed>,
    /// Frames lost behind an XDP redirect, by interface index.
    pub(super) losses: BTreeMap<u32, u64>,
}

/// What a CPU did, each 0 to 1.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct CpuParts {
    pub(super) busy: f64,
    pub(super) softirq: f64,
}

/// What a program did.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct ProgramPassed {
    pub(super) name: &'static str,
    /// Per second.
    pub(super) runs: f64,
    /// Mean time of a run.
    pub(super) nanoseconds: f64,
    /// Whether the kernel counted at all.
    pub(super) measured: bool,
}

impl Passed {
    pub(super) fn between(first: &Sample, second: &Sample) -> Self {
        let seconds = second.at.duration_since(first.at).as_secs_f64().max(1e-3);
        let devices = second.devices.iter().map(|(name, now)| {
            let before = first.devices.get(name).copied().unwrap_or(*now);
            (name.clone(), less(*now, before))
        });
        let cpus = second.cpus.iter().zip(&first.cpus).map(|(now, before)| parts(now, before));
        let backlogs = second.backlogs.iter().zip(&first.backlogs).map(|(now, before)| Backlog {
            processed: now.processed.wrapping_sub(before.processed),
            dropped: now.dropped.wrapping_sub(before.dropped),
            squeezed: now.squeezed.wrapping_sub(before.squeezed),
        });
        let count = |sample: &Sample, reason: Reason| -> u64 {
            sample.packets.iter().filter(|row| row.reason == reason).map(|row| row.packets).sum()
        };
        let grown = |reason: Reason| count(second, reason).saturating_sub(count(first, reason));
        let all = || Reason::ALL.iter().copied();
        let forwarded =
            all().filter(|reason| reason.verdict() == Verdict::Forward).map(grown).sum();
        let drops = all()
            .filter(|reason| reason.verdict() == Verdict::Drop)
            .map(|reason| (reason, grown(reason)))
            .filter(|(_, packets)| *packets > 0)
            .collect();
        Self {
            seconds,
            devices: devices.collect(),
            cpus: cpus.collect(),
            backlogs: backlogs.collect(),
            drops,
            forwarded,
            programs: programs(first, second, seconds),
            losses: grown_losses(first, second),
        }
    }
}

fn grown_losses(first: &Sample, second: &Sample) -> BTreeMap<u32, u64> {
    let before = |ifindex: &u32| first.losses.get(ifindex).copied().unwrap_or(0);
    second
        .losses
        .iter()
        .map(|(ifindex, frames)| (*ifindex, frames.saturating_sub(before(ifindex))))
        .filter(|(_, frames)| *frames > 0)
        .collect()
}

fn less(now: DeviceCounts, before: DeviceCounts) -> DeviceCounts {
    DeviceCounts {
        received: now.received.saturating_sub(before.received),
        received_bytes: now.received_bytes.saturating_sub(before.received_bytes),
        receive_drops: now.receive_drops.saturating_sub(before.receive_drops),
        sent: now.sent.saturating_sub(before.sent),
        sent_bytes: now.sent_bytes.saturating_sub(before.sent_bytes),
        send_drops: now.send_drops.saturating_sub(before.send_drops),
    }
}

fn parts(now: &CpuTimes, before: &CpuTimes) -> CpuParts {
    let total = now.total.saturating_sub(before.total).max(1) as f64;
    CpuParts {
        busy: (1.0 - now.idle.saturating_sub(before.idle) as f64 / total).max(0.0),
        softirq: now.softirq.saturating_sub(before.softirq) as f64 / total,
    }
}

fn programs(first: &Sample, second: &Sample, seconds: f64) -> Vec<ProgramPassed> {
    let runs: Vec<ProgramPassed> = second
        .programs
        .iter()
        .zip(&first.programs)
        .map(|(now, before)| {
            let count = now.count.saturating_sub(before.count);
            let time = now.time.saturating_sub(before.time).as_nanos() as f64;
            ProgramPassed {
                name: now.name,
                runs: count as f64 / seconds,
                nanoseconds: time / count.max(1) as f64,
                measured: false,
            }
        })
        .collect();
    // The kernel counts for all programs or for none.
    let measured = runs.iter().any(|program| program.runs > 0.0);
    runs.into_iter().map(|program| ProgramPassed { measured, ..program }).collect()
}

pub(super) fn judge(facts: &Facts, passed: &Passed, out: &mut Vec<Finding>) {
    devices(facts, passed, out);
    backlogs(passed, out);
    drops(passed, out);
    cpus(passed, out);
    if passed.forwarded > 0 && !passed.programs.iter().any(|program| program.measured) {
        let fact = "programs were not measured: the agent itself may not switch that on";
        let fix = "run `mwb doctor` as root";
        out.push(with_fix(finding(Kernel, "bpf stats", Warn, fact), fix));
    }
}

fn devices(facts: &Facts, passed: &Passed, out: &mut Vec<Finding>) {
    let there = facts.devices.iter().filter(|device| device.there);
    for device in there {
        let Some(counts) = passed.devices.get(&device.name) else { continue };
        let name = device.name.as_str();
        let before = out.len();
        if counts.receive_drops > 0 {
            let fact = format!(
                "{} of {} packets were dropped on receive",
                counts.receive_drops,
                counts.received + counts.receive_drops
            );
            let fix =
                format!("a larger ring (`ethtool -G {name} rx N`), more queues, or a faster CPU");
            out.push(with_fix(finding(Queue, name, Bad, fact), fix));
        }
        if counts.send_drops > 0 {
            let fact = format!(
                "{} of {} packets were dropped on transmit: its queue was full",
                counts.send_drops,
                counts.sent + counts.send_drops
            );
            let fix = format!(
                "the link is slower than what is sent: shape it, or lengthen the queue \
                 (`ip link set {name} txqueuelen N`)"
            );
            out.push(with_fix(finding(Queue, name, Bad, fact), fix));
        }
        if let Some(frames) = device.ifindex.and_then(|ifindex| passed.losses.get(&ifindex)) {
            let fact = format!("{frames} frames that XDP redirected to it were not taken");
            let fix = format!(
                "its transmit ring was full or it takes no such frames: fewer senders, a larger \
                 ring (`ethtool -G {name} tx N`), or `hook: tcx`"
            );
            out.push(with_fix(finding(Queue, name, Bad, fact), fix));
        }
        if out.len() == before {
            out.push(finding(Queue, name, Ok, "no packet was dropped by the device"));
        }
    }
}

fn backlogs(passed: &Passed, out: &mut Vec<Finding>) {
    let dropped: u64 = passed.backlogs.iter().map(|cpu| cpu.dropped).sum();
    let squeezed: u64 = passed.backlogs.iter().map(|cpu| cpu.squeezed).sum();
    if dropped > 0 {
        let fact = format!("{dropped} packets found a CPU's queue full");
        let fix = "sysctl net.core.netdev_max_backlog, or spread packets over more CPUs (RPS)";
        out.push(with_fix(finding(Queue, "backlog", Bad, fact), fix));
    } else {
        out.push(finding(Queue, "backlog", Ok, "no CPU's queue was full"));
    }
    // Once in a while is normal: the next turn takes what is left.
    if squeezed as f64 / passed.seconds.max(1e-3) > 10.0 {
        let fact = format!("{squeezed} times a CPU had to stop with packets left");
        let fix = "sysctl net.core.netdev_budget=600 net.core.netdev_budget_usecs=8000";
        out.push(with_fix(finding(Queue, "budget", Warn, fact), fix));
    }
}

/// Drops for want of something; the others are as they should be.
pub(super) const fn shortage(reason: Reason) -> Option<&'static str> {
    Some(match reason {
        Reason::NoPath => "give a WAN an address and a gateway of this family",
        Reason::PortsExhausted => "widen nat.ports, add a WAN, or limit sources",
        Reason::FlowTableFull => "set a larger nat.flows (after `mwb-agent --detach`)",
        Reason::HandoverFailed => "set `hook: tcx` for the device: its driver has no metadata",
        Reason::NoRoute => "add a route to the LAN host, or look who makes it up",
        _ => return None,
    })
}

fn drops(passed: &Passed, out: &mut Vec<Finding>) {
    let mut others = 0;
    for (reason, packets) in &passed.drops {
        match shortage(*reason) {
            Some(fix) => {
                let fact = format!("{packets} packets were dropped: {}", reason.describe());
                out.push(with_fix(finding(Queue, reason.name(), Bad, fact), fix));
            }
            None => others += packets,
        }
    }
    let fact = match (others, passed.drops.is_empty()) {
        (_, true) => "the data plane dropped nothing".to_owned(),
        (0, _) => return,
        (others, _) => {
            format!("{others} packets were dropped as they should be (`mwb counters` says why)")
        }
    };
    out.push(finding(Queue, "data plane", Ok, fact));
}

fn cpus(passed: &Passed, out: &mut Vec<Finding>) {
    for (cpu, parts) in passed.cpus.iter().enumerate() {
        let subject = format!("cpu{cpu}");
        let fact = format!(
            "{:.0} % busy, {:.0} % with packets",
            parts.busy * 100.0,
            parts.softirq * 100.0
        );
        if parts.softirq >= BUSY {
            let fix =
                "spread receive queues over more CPUs (`ethtool -L`, /proc/irq/*/smp_affinity)";
            out.push(with_fix(finding(Cpu, &subject, Warn, fact), fix));
        } else {
            out.push(finding(Cpu, &subject, Ok, fact));
        }
    }
}
