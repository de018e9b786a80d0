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
    gateway::Gateway,
    lane::{ENDPOINTS, Lane, Load, Rate, Way},
    report::{Better, Headline, Report, Row, figure},
    stats::{median, spread},
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
            let rounds = measure(&mut lanes, load)?;
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
    let worst = results.iter().map(Comparison::ratio).fold(f64::INFINITY, f64::min);
    Ok(Report {
        bench: BENCH.name,
        headline: Headline {
            name: "worst ratio of packets or new flows per second, gateway to Linux masquerade"
                .to_owned(),
            value: (worst * 100.0).round() / 100.0,
            target: TARGET,
            better: Better::Higher,
        },
        rows: results.iter().map(Comparison::row).collect(),
    })
}

/// Ours and the kernel's.
fn lanes(object: &[u8]) -> Result<[Lane; 2]> {
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

/// Repetitions with known flows: both in turn, the other one first each time.
fn measure(lanes: &mut [Lane; 2], load: Load) -> Result<Vec<[Rate; 2]>> {
    for lane in lanes.iter_mut() {
        lane.aim(load)?;
    }
    (0..ROUNDS).map(|round| both(lanes, round, |lane| lane.measure(TIME))).collect()
}

/// New flows at gateways that know none.
fn open(object: &[u8], round: usize) -> Result<[Rate; 2]> {
    let mut lanes = lanes(object)?;
    for lane in &mut lanes {
        // Neighbours, caches, page pools: by a flow that is not one of those.
        lane.aim(Load { way: Way::Out, bytes: BYTES, flows: 1 })?;
    }
    both(&mut lanes, round, |lane| lane.open_flows(NEW))
}

fn both(
    lanes: &mut [Lane; 2],
    round: usize,
    measure: impl Fn(&mut Lane) -> Result<Rate>,
) -> Result<[Rate; 2]> {
    let [ours, kernel] = lanes;
    if round.is_multiple_of(2) {
        let first = measure(ours)?;
        Ok([first, measure(kernel)?])
    } else {
        let first = measure(kernel)?;
        Ok([measure(ours)?, first])
    }
}

/// The repetitions of one load.
struct Comparison {
    what: &'static str,
    flows: usize,
    rounds: Vec<[Rate; 2]>,
}

fn told(comparison: Comparison) -> Comparison {
    let Comparison { what, flows, .. } = comparison;
    eprintln!("{}: {flows} flows, {what}: {:.2}", BENCH.name, comparison.ratio());
    comparison
}

impl Comparison {
    fn of(&self, value: impl Fn(&[Rate; 2]) -> f64) -> f64 {
        median(self.rounds.iter().map(value))
    }

    /// The middle one of the rounds' ratios, each of neighbours in time.
    fn ratio(&self) -> f64 {
        self.of(ratio)
    }

    fn row(&self) -> Row {
        Row(vec![
            ("flows", self.flows.into()),
            ("packets", self.what.into()),
            ("ours_per_second", figure(self.of(|[ours, _]| ours.pps), 0)),
            ("kernel_per_second", figure(self.of(|[_, kernel]| kernel.pps), 0)),
            ("ratio", figure(self.ratio(), 2)),
            ("spread_percent", figure(spread(self.rounds.iter().map(ratio)), 1)),
            ("ours_lost_percent", figure(100.0 * self.of(|[ours, _]| ours.lost), 2)),
            ("kernel_lost_percent", figure(100.0 * self.of(|[_, kernel]| kernel.lost), 2)),
        ])
    }
}

fn ratio([ours, kernel]: &[Rate; 2]) -> f64 {
    ours.pps / kernel.pps
}
