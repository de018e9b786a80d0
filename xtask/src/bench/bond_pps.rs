//! `bond-pps`: packets per second through a bond against the kernel's VXLAN, end to end
//! and on one core, and what sealing and opening cost.
//!
//! All stand in the same topology and get the same frames from the same generator. A
//! bond proves every packet, and its server translates addresses; the VXLAN of the
//! headline does neither. Beside it one whose server masquerades: the same work.

use std::time::Duration;

use anyhow::{Context as _, Result};

use super::{
    Bench,
    comparison::{Rounds, worst},
    lane::{Load, Rate, Way},
    report::{Better, Headline, Report, Row, figure},
    seal_cost::{self, Costs},
    tunnel::{FLOWS, TunnelLane},
};

/// This benchmark in the registry.
pub(super) const BENCH: Bench = Bench {
    name: "bond-pps",
    about: "a bond against the kernel's VXLAN, packets per second of one core",
    run,
};

/// What the headline's ratio ought to be at least.
const TARGET: f64 = 2.0;
const SIZES: [usize; 3] = [64, 512, 1400];
/// Suites, and what each program may take for 1,400 bytes, in ns.
const SUITES: [(&str, f64); 3] =
    [("siphash", 1050.0), ("chacha20poly1305", 4700.0), ("crc32", 450.0)];
/// Suite and length of the headline.
const HEADLINE: (&str, usize) = ("siphash", 64);
/// Repetitions; an odd number has a middle.
const ROUNDS: usize = 11;
/// Length of a repetition, in time of the core: a busy machine takes longer.
const TIME: Duration = Duration::from_millis(120);

fn run(object: &[u8]) -> Result<Report> {
    eprintln!("{}: building a lane for each suite, and two of VXLAN", BENCH.name);
    let mut vxlan = TunnelLane::vxlan(object, false)?;
    let mut masquerading = TunnelLane::vxlan(object, true)?;
    let mut results = Vec::new();
    let mut costs = Vec::new();
    for (suite, limit) in SUITES {
        let mut bond = TunnelLane::bond(object, suite).with_context(|| suite.to_owned())?;
        for bytes in SIZES {
            // Back last: it needs the flows of out.
            for way in [Way::Out, Way::Back] {
                let mut lanes = [&mut bond, &mut vxlan, &mut masquerading];
                let load = Load { way, bytes, flows: FLOWS };
                for lane in &mut lanes {
                    lane.aim(load)?;
                }
                let rounds = Rounds::measure(&mut lanes, ROUNDS, |lane| lane.measure(TIME))?;
                let (name, ratio) = (way.name(), rounds.ratio());
                eprintln!("{}: {suite}, {name} {bytes} bytes: {ratio:.2}", BENCH.name);
                results.push(Comparison { suite, way, bytes, rounds });
            }
            let limit = (bytes == 1400).then_some(limit);
            costs.extend(cost_rows(suite, bytes, seal_cost::measure(object, &bond, bytes)?, limit));
        }
    }
    let headline = results.iter().filter(|result| (result.suite, result.bytes) == HEADLINE);
    Ok(Report {
        bench: BENCH.name,
        headline: Headline {
            name: "worse direction's ratio of packets per second of 64 bytes, bond with siphash \
                   to kernel VXLAN"
                .to_owned(),
            value: worst(headline.map(|result| result.rounds.ratio())),
            target: TARGET,
            better: Better::Higher,
        },
        rows: results.iter().map(Comparison::row).chain(costs).collect(),
    })
}

/// Indices of lanes.
const BOND: usize = 0;
const VXLAN: usize = 1;
const NAT: usize = 2;

/// What the repetitions of one load say.
struct Comparison {
    suite: &'static str,
    way: Way,
    bytes: usize,
    rounds: Rounds<Rate, 3>,
}

impl Comparison {
    fn row(&self) -> Row {
        let rounds = &self.rounds;
        let lost = |lane: usize| figure(100.0 * rounds.of_lane(lane, |rate| rate.lost), 2);
        Row(vec![
            ("suite", self.suite.into()),
            ("direction", self.way.name().into()),
            ("bytes", self.bytes.into()),
            ("bond_pps", figure(rounds.rate(BOND), 0)),
            ("vxlan_pps", figure(rounds.rate(VXLAN), 0)),
            ("ratio", figure(rounds.ratio(), 2)),
            ("vxlan_nat_pps", figure(rounds.rate(NAT), 0)),
            ("ratio_nat", figure(rounds.ratio_to(NAT), 2)),
            ("spread_percent", figure(rounds.spread(), 1)),
            ("bond_lost_percent", lost(BOND)),
            ("vxlan_lost_percent", lost(VXLAN)),
        ])
    }
}

fn cost_rows(suite: &'static str, bytes: usize, costs: Costs, limit: Option<f64>) -> [Row; 2] {
    [("bond_inside", costs.seal), ("bond_outside", costs.open)].map(|(program, cost)| {
        Row(vec![
            ("suite", suite.into()),
            ("program", program.into()),
            ("bytes", bytes.into()),
            ("run_ns", figure(cost.total, 0)),
            ("floor_ns", figure(cost.floor, 0)),
            ("net_ns", figure(cost.total - cost.floor, 0)),
            ("limit_ns", figure(limit.unwrap_or(f64::NAN), 0)),
        ])
    })
}
