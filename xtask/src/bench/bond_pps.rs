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
    lane::{Rate, Way},
    report::{Better, Headline, Report, Row, figure},
    seal_cost::{self, Costs},
    stats::{median, spread},
    tunnel::TunnelLane,
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
const ROUNDS: usize = 5;
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
                let rounds = measure(&mut lanes, way, bytes)?;
                let result = Comparison { suite, way, bytes, rounds };
                eprintln!(
                    "{}: {suite}, {} {bytes} bytes: {:.2}",
                    BENCH.name,
                    result.way(),
                    result.ratio()
                );
                results.push(result);
            }
            let limit = (bytes == 1400).then_some(limit);
            costs.extend(cost_rows(suite, bytes, seal_cost::measure(object, &bond, bytes)?, limit));
        }
    }
    let worst = results
        .iter()
        .filter(|result| (result.suite, result.bytes) == HEADLINE)
        .map(Comparison::ratio)
        .fold(f64::INFINITY, f64::min);
    Ok(Report {
        bench: BENCH.name,
        headline: Headline {
            name: "worse direction's ratio of packets per second of 64 bytes, bond with siphash \
                   to kernel VXLAN"
                .to_owned(),
            value: (worst * 100.0).round() / 100.0,
            target: TARGET,
            better: Better::Higher,
        },
        rows: results.iter().map(Comparison::row).chain(costs).collect(),
    })
}

/// Repetitions: all lanes in turn, another one first each time, so that whatever else
/// the machine does hits all alike.
fn measure(lanes: &mut [&mut TunnelLane; 3], way: Way, bytes: usize) -> Result<Vec<[Rate; 3]>> {
    for lane in lanes.iter_mut() {
        lane.aim(way, bytes)?;
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
    Ok(rounds)
}

/// What the repetitions of one load say.
struct Comparison {
    suite: &'static str,
    way: Way,
    bytes: usize,
    rounds: Vec<[Rate; 3]>,
}

impl Comparison {
    fn of(&self, value: impl Fn(&[Rate; 3]) -> f64) -> f64 {
        median(self.rounds.iter().map(value))
    }

    /// The middle one of the rounds' ratios, each of neighbours in time.
    fn ratio(&self) -> f64 {
        self.of(ratio)
    }

    fn way(&self) -> &'static str {
        match self.way {
            Way::Out => "out",
            Way::Back => "back",
        }
    }

    fn row(&self) -> Row {
        Row(vec![
            ("suite", self.suite.into()),
            ("direction", self.way().into()),
            ("bytes", self.bytes.into()),
            ("bond_pps", figure(self.of(|[bond, ..]| bond.pps), 0)),
            ("vxlan_pps", figure(self.of(|[_, vxlan, _]| vxlan.pps), 0)),
            ("ratio", figure(self.ratio(), 2)),
            ("vxlan_nat_pps", figure(self.of(|[.., nat]| nat.pps), 0)),
            ("ratio_nat", figure(self.of(|[bond, _, nat]| bond.pps / nat.pps), 2)),
            ("spread_percent", figure(spread(self.rounds.iter().map(ratio)), 1)),
            ("bond_lost_percent", figure(100.0 * self.of(|[bond, ..]| bond.lost), 2)),
            ("vxlan_lost_percent", figure(100.0 * self.of(|[_, vxlan, _]| vxlan.lost), 2)),
        ])
    }
}

fn ratio([bond, vxlan, _]: &[Rate; 3]) -> f64 {
    bond.pps / vxlan.pps
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
