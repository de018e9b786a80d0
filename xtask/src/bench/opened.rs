//! Two gateways against each other with flows that are open, a few or many, and with flows
//! that nobody has seen before.

use std::time::Duration;

use anyhow::Result;

use super::{
    comparison::{Rounds, in_turn, worst},
    gateway::Gateway,
    lane::{ENDPOINTS, Lane, Load, Rate, Way},
    report::{Row, figure},
};

/// Flows that are new at once: each has an inside endpoint of its own, and an outside port.
pub(super) const NEW: usize = ENDPOINTS;
const BYTES: usize = 64;
/// Repetitions with open flows; an odd number has a middle.
const ROUNDS: usize = 7;
/// Length of one, in time of the core.
const TIME: Duration = Duration::from_millis(250);

/// What is compared.
pub(super) struct Two<'a> {
    /// Name of the benchmark.
    pub(super) bench: &'static str,
    /// The gateway in question, and the one that it is compared with.
    pub(super) lanes: &'a dyn Fn() -> Result<[Lane<Gateway>; 2]>,
    /// How many flows are open at once, in turn.
    pub(super) flows: &'a [usize],
    /// What open flows are called in rows, by [`Way`]: out, back.
    pub(super) open: [&'static str; 2],
    /// Repetitions with new flows; each has gateways of its own.
    pub(super) new_rounds: usize,
    /// Columns of both: packets or flows a second, and what was lost in percent.
    pub(super) columns: [[&'static str; 2]; 2],
}

impl Two<'_> {
    /// The worst ratio of packets or new flows a second, and the rows.
    pub(super) fn compare(&self) -> Result<(f64, Vec<Row>)> {
        let mut results = Vec::new();
        eprintln!("{}: building two lanes", self.bench);
        let mut lanes = (self.lanes)()?;
        for &flows in self.flows {
            // Back needs the flows of out.
            for (way, what) in [Way::Out, Way::Back].into_iter().zip(self.open) {
                let load = Load { way, bytes: BYTES, flows };
                for lane in &mut lanes {
                    lane.aim(load)?;
                }
                let rounds = Rounds::measure(&mut lanes, ROUNDS, |lane| lane.measure(TIME))?;
                results.push(self.told(flows, what, rounds));
            }
        }
        drop(lanes);
        let rounds =
            (0..self.new_rounds).map(|round| self.new_flows(round)).collect::<Result<_>>()?;
        results.push(self.told(NEW, "new, out", rounds));
        let (ratios, rows): (Vec<f64>, Vec<Row>) = results.into_iter().unzip();
        Ok((worst(ratios), rows))
    }

    /// At gateways that know none.
    fn new_flows(&self, round: usize) -> Result<[Rate; 2]> {
        let mut lanes = (self.lanes)()?;
        for lane in &mut lanes {
            // Neighbours, caches, page pools: by a flow that is not one of those.
            lane.aim(Load { way: Way::Out, bytes: BYTES, flows: 1 })?;
        }
        in_turn(&mut lanes, round, |lane| lane.open_flows(NEW))
    }

    /// The repetitions of one load.
    fn told(&self, flows: usize, what: &'static str, rounds: Rounds<Rate, 2>) -> (f64, Row) {
        let ratio = rounds.ratio();
        eprintln!("{}: {flows} flows, {what}: {ratio:.2}", self.bench);
        let lost = |lane: usize| figure(100.0 * rounds.of_lane(lane, |rate| rate.lost), 2);
        let [first, second] = self.columns;
        let row = Row(vec![
            ("flows", flows.into()),
            ("packets", what.into()),
            (first[0], figure(rounds.rate(0), 0)),
            (second[0], figure(rounds.rate(1), 0)),
            ("ratio", figure(ratio, 2)),
            ("spread_percent", figure(rounds.spread(), 1)),
            (first[1], lost(0)),
            (second[1], lost(1)),
        ]);
        (ratio, row)
    }
}
