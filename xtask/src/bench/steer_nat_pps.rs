//! `steer-nat-pps`: packets per second of the gateway's NAT against the
//! kernel's, on one core, end to end.
//!
//! Both stand in the same topology and get the same frames from the same
//! generator. End to end is what arrives at the sink; since generator, gateway
//! and sink share the core, the generator's cost dilutes the ratio. `net` takes
//! it out: nanoseconds per packet above the floor, where the sink drops frames
//! on the gateway's first device.

use std::time::Duration;

use anyhow::Result;

use super::{
    Bench,
    comparison::{Rounds, worst},
    gateway::Gateway,
    lane::{Lane, Load, Rate, Way},
    prog_run::Cost,
    report::{Better, Headline, Report, Row, figure},
};

/// This benchmark in the registry.
pub(super) const BENCH: Bench = Bench {
    name: "steer-nat-pps",
    about: "NAT of the gateway against Linux masquerade, packets per second of one core",
    run,
};

/// What the worst ratio ought to be at least.
const TARGET: f64 = 2.7;
const SIZES: [usize; 2] = [64, 1400];
const FLOWS: [usize; 2] = [1, 1000];
/// Repetitions; an odd number has a middle.
const ROUNDS: usize = 11;
/// Length of a repetition, in time of the core: a busy machine takes longer.
const TIME: Duration = Duration::from_millis(250);

/// Index of a lane.
const OURS: usize = 0;
const KERNEL: usize = 1;
const FLOOR: usize = 2;

fn run(object: &[u8]) -> Result<Report> {
    eprintln!("{}: building three lanes", BENCH.name);
    let mut lanes = [
        Lane::new(object, Gateway::ours)?,
        Lane::new(object, |lab| Gateway::kernel(object, lab))?,
        Lane::new(object, |_| Ok(Gateway::Floor))?,
    ];
    let mut results = Vec::new();
    let mut costs = Vec::new();
    for flows in FLOWS {
        for bytes in SIZES {
            // Back last: it needs the flows of out.
            for way in [Way::Out, Way::Back] {
                let load = Load { way, bytes, flows };
                for lane in &mut lanes {
                    lane.aim(load)?;
                }
                let rounds = Rounds::measure(&mut lanes, ROUNDS, |lane| lane.measure(TIME))?;
                let (name, ratio) = (way.name(), rounds.ratio());
                eprintln!("{}: {name} {bytes} bytes, {flows} flows: {ratio:.2}", BENCH.name);
                results.push(Comparison { load, rounds });
                if bytes == SIZES[0] {
                    costs.push(cost_row(load, lanes[OURS].program_cost(object, load)?));
                }
            }
        }
    }
    // All of one way together.
    results.sort_by_key(|result| result.load.way == Way::Back);
    Ok(Report {
        bench: BENCH.name,
        headline: Headline {
            name: "worst ratio of packets per second, gateway to Linux masquerade".to_owned(),
            value: worst(results.iter().map(|result| result.rounds.ratio())),
            target: TARGET,
            better: Better::Higher,
        },
        rows: results.iter().map(Comparison::row).chain(costs).collect(),
    })
}

/// What the repetitions of one load say.
struct Comparison {
    load: Load,
    rounds: Rounds<Rate, 3>,
}

impl Comparison {
    fn row(&self) -> Row {
        let rounds = &self.rounds;
        // Of the medians, not of each round: a difference of two noisy times may
        // be anything, even negative.
        let ns = |lane: usize| 1e9 / rounds.rate(lane);
        let net = |lane: usize| ns(lane) - ns(FLOOR);
        let lost = |lane: usize| figure(100.0 * rounds.of_lane(lane, |rate| rate.lost), 2);
        Row(vec![
            ("direction", self.load.way.name().into()),
            ("bytes", self.load.bytes.into()),
            ("flows", self.load.flows.into()),
            ("ours_pps", figure(rounds.rate(OURS), 0)),
            ("kernel_pps", figure(rounds.rate(KERNEL), 0)),
            ("floor_pps", figure(rounds.rate(FLOOR), 0)),
            ("ratio", figure(rounds.ratio(), 2)),
            ("spread_percent", figure(rounds.spread(), 1)),
            ("ours_net_ns", figure(net(OURS), 0)),
            ("kernel_net_ns", figure(net(KERNEL), 0)),
            ("ratio_net", figure(net(KERNEL) / net(OURS), 1)),
            ("ours_lost_percent", lost(OURS)),
            ("kernel_lost_percent", lost(KERNEL)),
        ])
    }
}

fn cost_row(load: Load, cost: Cost) -> Row {
    let program = match load.way {
        Way::Out => "inside_xdp",
        Way::Back => "outside_xdp",
    };
    Row(vec![
        ("program", program.into()),
        ("flows", load.flows.into()),
        ("run_ns", figure(cost.total, 0)),
        ("floor_ns", figure(cost.floor, 0)),
        ("net_ns", figure(cost.total - cost.floor, 0)),
    ])
}
