//! `flows`: the gateway's NAT against the kernel's with few flows, many, and
//! very many, and with flows that nobody has seen before.
//!
//! Flows take turns, so that with 60,000 of them no packet finds its own in a
//! cache. Both sides hold all of them: our tables by their defaults (two entries
//! a flow of 262,144; 131,072 mappings), the kernel's if `nf_conntrack_max` lets
//! it, which is looked at before.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};

use super::{
    Bench,
    comparison::{Rounds, in_turn, worst},
    gateway::Gateway,
    lane::{ENDPOINTS, Lane, Load, Rate, Way},
    report::{Better, Headline, Report, Row, figure},
};

/// This benchmark in the registry.
pub(super) const BENCH: Bench = Bench {
    name: "flows",
    about: "NAT of 1, 1,000 and 60,000 flows, and of new ones, against Linux masquerade",
    run,
};

/// What the worst ratio ought to be at least.
const TARGET: f64 = 1.5;
const FLOWS: [usize; 3] = [1, 1_000, 60_000];
const BYTES: usize = 64;
/// Repetitions with known flows; an odd number has a middle.
const ROUNDS: usize = 7;
/// Length of one, in time of the core.
const TIME: Duration = Duration::from_millis(250);
/// Flows that are new at once: each has an inside endpoint of its own, and an
/// outside port.
const NEW: usize = ENDPOINTS;
/// Repetitions with new flows; each has gateways of its own.
const NEW_ROUNDS: usize = 5;

fn run(object: &[u8]) -> Result<Report> {
    let mut results = Vec::new();
    eprintln!("{}: building two lanes", BENCH.name);
    let mut lanes = lanes(object)?;
    for flows in FLOWS {
        // Back needs the flows of out.
        for way in [Way::Out, Way::Back] {
            let load = Load { way, bytes: BYTES, flows };
            for lane in &mut lanes {
                lane.aim(load)?;
            }
            let rounds = Rounds::measure(&mut lanes, ROUNDS, |lane| lane.measure(TIME))?;
            let what = match way {
                Way::Out => "known, out",
                Way::Back => "known, back",
            };
            results.push(told(Comparison { what, flows, rounds }));
        }
    }
    drop(lanes);
    let rounds = (0..NEW_ROUNDS).map(|round| open(object, round)).collect::<Result<_>>()?;
    results.push(told(Comparison { what: "new, out", flows: NEW, rounds }));
    Ok(Report {
        bench: BENCH.name,
        headline: Headline {
            name: "worst ratio of packets or new flows per second, gateway to Linux masquerade"
                .to_owned(),
            value: worst(results.iter().map(|result| result.rounds.ratio())),
            target: TARGET,
            better: Better::Higher,
        },
        rows: results.iter().map(Comparison::row).collect(),
    })
}

/// Ours and the kernel's.
fn lanes(object: &[u8]) -> Result<[Lane<Gateway>; 2]> {
    let ours = Lane::new(object, Gateway::ours)?;
    let kernel = Lane::new(object, |lab| Gateway::kernel(object, lab))?;
    let most = kernel.gateway().read_sysctl("net/netfilter/nf_conntrack_max")?;
    let most: usize = most.parse().context("nf_conntrack_max is a number")?;
    let wanted = FLOWS.into_iter().max().unwrap_or_default() + NEW;
    ensure!(
        most >= wanted,
        "the kernel holds {most} flows here, {wanted} are compared: \
         raise net.netfilter.nf_conntrack_max"
    );
    Ok([ours, kernel])
}

/// New flows at gateways that know none.
fn open(object: &[u8], round: usize) -> Result<[Rate; 2]> {
    let mut lanes = lanes(object)?;
    for lane in &mut lanes {
        // Neighbours, caches, page pools: by a flow that is not one of those.
        lane.aim(Load { way: Way::Out, bytes: BYTES, flows: 1 })?;
    }
    in_turn(&mut lanes, round, |lane| lane.open_flows(NEW))
}

/// The repetitions of one load.
struct Comparison {
    what: &'static str,
    flows: usize,
    rounds: Rounds<Rate, 2>,
}

fn told(comparison: Comparison) -> Comparison {
    let Comparison { what, flows, .. } = comparison;
    eprintln!("{}: {flows} flows, {what}: {:.2}", BENCH.name, comparison.rounds.ratio());
    comparison
}

impl Comparison {
    fn row(&self) -> Row {
        let rounds = &self.rounds;
        let lost = |lane: usize| figure(100.0 * rounds.of_lane(lane, |rate| rate.lost), 2);
        Row(vec![
            ("flows", self.flows.into()),
            ("packets", self.what.into()),
            ("ours_per_second", figure(rounds.rate(0), 0)),
            ("kernel_per_second", figure(rounds.rate(1), 0)),
            ("ratio", figure(rounds.ratio(), 2)),
            ("spread_percent", figure(rounds.spread(), 1)),
            ("ours_lost_percent", lost(0)),
            ("kernel_lost_percent", lost(1)),
        ])
    }
}
