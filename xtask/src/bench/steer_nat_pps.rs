//! `steer-nat-pps`: packets per second of the gateway's NAT against the
//! kernel's, on one core, end to end.
//!
//! Both stand in the same topology and get the same frames from the same
//! generator. End to end is what arrives at the sink; since generator, gateway
//! and sink share the core, the generator's cost dilutes the ratio. `net` takes
//! it out: nanoseconds per packet above the floor, where the sink drops frames
//! on the gateway's first device.

use std::time::Duration;

use anyhow::{Context as _, Result};

use super::{
    Bench,
    gateway::Gateway,
    lane::{Lane, Load, Rate, Way},
    prog_run::Cost,
    report::{Better, Headline, Report, Row, figure},
    stats::{median, spread},
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
                results.push(Comparison { load, rounds: measure(&mut lanes, load)? });
                if bytes == SIZES[0] {
                    costs.push(cost_row(load, lanes[OURS].program_cost(object, load)?));
                }
            }
        }
    }
    // All of one way together.
    results.sort_by_key(|result| result.load.way == Way::Back);
    let worst = results.iter().map(Comparison::ratio).fold(f64::INFINITY, f64::min);
    Ok(Report {
        bench: BENCH.name,
        headline: Headline {
            name: "worst ratio of packets per second, gateway to Linux masquerade".to_owned(),
            value: (worst * 100.0).round() / 100.0,
            target: TARGET,
            better: Better::Higher,
        },
        rows: results.iter().map(Comparison::row).chain(costs).collect(),
    })
}

/// Repetitions of one load: all lanes in turn, another one first each time, so
/// that whatever else the machine does hits all alike.
fn measure(lanes: &mut [Lane; 3], load: Load) -> Result<Vec<[Rate; 3]>> {
    for lane in lanes.iter_mut() {
        lane.aim(load)?;
    }
    let mut rounds = Vec::new();
    for round in 0..ROUNDS {
        let mut rates = [Rate::default(); 3];
        for turn in 0..lanes.len() {
            let which = (round + turn) % lanes.len();
            let (lane, rate) =
                lanes.iter_mut().zip(&mut rates).nth(which).context("three lanes")?;
            *rate = lane.measure(TIME)?;
        }
        rounds.push(rates);
    }
    let comparison = Comparison { load, rounds };
    eprintln!(
        "{}: {} {} bytes, {} flows: {:.2}",
        BENCH.name,
        comparison.way(),
        load.bytes,
        load.flows,
        comparison.ratio(),
    );
    Ok(comparison.rounds)
}

/// What the repetitions of one load say.
struct Comparison {
    load: Load,
    rounds: Vec<[Rate; 3]>,
}

impl Comparison {
    fn of(&self, value: impl Fn(&[Rate; 3]) -> f64) -> f64 {
        median(self.rounds.iter().map(value))
    }

    /// End to end: the middle one of the rounds' ratios, each of neighbours in
    /// time.
    fn ratio(&self) -> f64 {
        self.of(ratio)
    }

    fn way(&self) -> &'static str {
        match self.load.way {
            Way::Out => "out",
            Way::Back => "back",
        }
    }

    fn row(&self) -> Row {
        // Of the medians, not of each round: a difference of two noisy times may
        // be anything, even negative.
        let ns = |lane: usize| 1e9 / self.of(|rates| pps(rates, lane));
        let net = |lane: usize| ns(lane) - ns(FLOOR);
        Row(vec![
            ("direction", self.way().into()),
            ("bytes", self.load.bytes.into()),
            ("flows", self.load.flows.into()),
            ("ours_pps", figure(self.of(|rates| pps(rates, OURS)), 0)),
            ("kernel_pps", figure(self.of(|rates| pps(rates, KERNEL)), 0)),
            ("floor_pps", figure(self.of(|rates| pps(rates, FLOOR)), 0)),
            ("ratio", figure(self.ratio(), 2)),
            ("spread_percent", figure(spread(self.rounds.iter().map(ratio)), 1)),
            ("ours_net_ns", figure(net(OURS), 0)),
            ("kernel_net_ns", figure(net(KERNEL), 0)),
            ("ratio_net", figure(net(KERNEL) / net(OURS), 1)),
            ("ours_lost_percent", figure(100.0 * self.of(|rates| lost(rates, OURS)), 2)),
            ("kernel_lost_percent", figure(100.0 * self.of(|rates| lost(rates, KERNEL)), 2)),
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

fn ratio(rates: &[Rate; 3]) -> f64 {
    pps(rates, OURS) / pps(rates, KERNEL)
}

fn pps(rates: &[Rate; 3], lane: usize) -> f64 {
    rates.get(lane).map_or(f64::NAN, |rate| rate.pps)
}

fn lost(rates: &[Rate; 3], lane: usize) -> f64 {
    rates.get(lane).map_or(f64::NAN, |rate| rate.lost)
}
