//! Names what limits the gateway: the first place on a packet's way where
//! packets are lost or nothing is left in reserve.

use super::facts::Facts;
use super::flow::{BUSY, Passed, shortage};
use crate::api::doctor::Bottleneck;

/// A link that carries so much of what it can is what limits.
const FULL_LINK: f64 = 0.95;

pub(super) fn find(facts: &Facts, passed: &Passed) -> Option<Bottleneck> {
    cpu(passed)
        .or_else(|| receive(facts, passed))
        .or_else(|| backlog(passed))
        .or_else(|| data_plane(passed))
        .or_else(|| link(facts, passed))
        .or_else(|| redirect(facts, passed))
        .or_else(|| transmit(facts, passed))
}

/// A CPU without reserve is why its queues overflow, so it comes first.
fn cpu(passed: &Passed) -> Option<Bottleneck> {
    let (number, parts) = passed
        .cpus
        .iter()
        .enumerate()
        .filter(|(_, parts)| parts.softirq >= BUSY)
        .max_by(|(_, a), (_, b)| a.softirq.total_cmp(&b.softirq))?;
    let ours: f64 = passed
        .programs
        .iter()
        .filter(|program| program.measured)
        .map(|program| program.runs * program.nanoseconds / 1e9)
        .sum();
    let idle = passed.cpus.iter().filter(|parts| parts.busy < 0.5).count();
    let share = if passed.programs.iter().any(|program| program.measured) {
        format!("; our programs take {ours:.2} CPUs in all")
    } else {
        String::new()
    };
    let fix = if idle > 0 {
        format!(
            "{idle} CPUs have time: spread receive queues over them (`ethtool -L`, smp_affinity)"
        )
    } else {
        "more or faster CPUs".to_owned()
    };
    Some(Bottleneck {
        what: format!("cpu{number}"),
        fact: format!("{:.0} % of its time goes to packets{share}", parts.softirq * 100.0),
        fix,
    })
}

fn receive(facts: &Facts, passed: &Passed) -> Option<Bottleneck> {
    let drops = |name: &str| passed.devices.get(name).map_or(0, |counts| counts.receive_drops);
    let device = facts.devices.iter().max_by_key(|device| drops(&device.name))?;
    let lost = drops(&device.name);
    (lost > 0).then(|| Bottleneck {
        what: format!("receive queue of {}", device.name),
        fact: format!("{lost} packets were lost in {:.1} s", passed.seconds),
        fix: format!("a larger ring: ethtool -G {} rx N", device.name),
    })
}

fn backlog(passed: &Passed) -> Option<Bottleneck> {
    let lost: u64 = passed.backlogs.iter().map(|cpu| cpu.dropped).sum();
    (lost > 0).then(|| Bottleneck {
        what: "queue of received packets".to_owned(),
        fact: format!("{lost} packets were lost in {:.1} s", passed.seconds),
        fix: "a larger net.core.netdev_max_backlog, or native XDP, which does not use it"
            .to_owned(),
    })
}

fn data_plane(passed: &Passed) -> Option<Bottleneck> {
    let short =
        |(reason, packets): (&_, &u64)| shortage(*reason).map(|fix| (*reason, *packets, fix));
    let (reason, packets, fix) =
        passed.drops.iter().filter_map(short).max_by_key(|(_, packets, _)| *packets)?;
    Some(Bottleneck {
        what: reason.name().to_owned(),
        fact: format!("{packets} packets were dropped in {:.1} s", passed.seconds),
        fix: fix.to_owned(),
    })
}

fn link(facts: &Facts, passed: &Passed) -> Option<Bottleneck> {
    for device in &facts.devices {
        let Some(counts) = passed.devices.get(&device.name) else { continue };
        let per_second = |bytes: u64| bytes as f64 * 8.0 / passed.seconds.max(1e-3);
        let ways = [
            ("to", per_second(counts.sent_bytes), device.capacity.0),
            ("from", per_second(counts.received_bytes), device.capacity.1),
        ];
        for (way, rate, capacity) in ways {
            let Some(room) = capacity.or(device.speed) else { continue };
            if rate < room as f64 * FULL_LINK {
                continue;
            }
            return Some(Bottleneck {
                what: device.wan.clone().unwrap_or_else(|| device.name.clone()),
                fact: format!(
                    "{:.1} Mbit/s {way} it, of {:.1} Mbit/s",
                    rate / 1e6,
                    room as f64 / 1e6
                ),
                fix: "the link is full: a faster one, or another WAN beside it".to_owned(),
            });
        }
    }
    None
}

fn redirect(facts: &Facts, passed: &Passed) -> Option<Bottleneck> {
    let (ifindex, lost) = passed.losses.iter().max_by_key(|(_, lost)| **lost)?;
    let device = facts.devices.iter().find(|device| device.ifindex == Some(*ifindex))?;
    Some(Bottleneck {
        what: format!("transmit ring of {}", device.name),
        fact: format!("{lost} redirected frames were lost in {:.1} s", passed.seconds),
        fix: format!("a larger ring: ethtool -G {} tx N", device.name),
    })
}

fn transmit(facts: &Facts, passed: &Passed) -> Option<Bottleneck> {
    let drops = |name: &str| passed.devices.get(name).map_or(0, |counts| counts.send_drops);
    let device = facts.devices.iter().max_by_key(|device| drops(&device.name))?;
    let lost = drops(&device.name);
    (lost > 0).then(|| Bottleneck {
        what: format!("transmit queue of {}", device.name),
        fact: format!("{lost} packets were lost in {:.1} s", passed.seconds),
        fix: "the link takes less than is sent: shape it to its rate, or add a WAN".to_owned(),
    })
}
