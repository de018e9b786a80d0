//! `policy`: the gateway with 1,000 policy rules against itself without any.
//!
//! Open flows do not meet the rules, new ones do. Each of the 1,000 fits every packet here
//! in all that it asks for but one thing, and the last fits in everything, so that nothing
//! is decided early and every flow leaves by an outlet of its own.

use std::time::Duration;

use anyhow::Result;
use serde_json::{Value, json};

use super::{
    Bench,
    comparison::{Rounds, in_turn, worst},
    gateway::Gateway,
    lane::{ENDPOINTS, Lane, Load, Rate, Way},
    report::{Better, Headline, Report, Row, figure},
};

/// This benchmark in the registry.
pub(super) const BENCH: Bench = Bench {
    name: "policy",
    about: "open and new flows with 1,000 policy rules against the same without rules",
    run,
};

/// What the worst ratio ought to be at least.
const TARGET: f64 = 0.8;
const RULES: usize = 1_000;
const FLOWS: [usize; 2] = [1, 1_000];
const BYTES: usize = 64;
/// Repetitions with open flows; an odd number has a middle.
const ROUNDS: usize = 7;
/// Length of one, in time of the core.
const TIME: Duration = Duration::from_millis(250);
/// Flows that are new at once.
const NEW: usize = ENDPOINTS;
/// Repetitions with new flows; each has gateways of its own.
const NEW_ROUNDS: usize = 3;

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
                Way::Out => "open, out",
                Way::Back => "open, back",
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
            name: "worst ratio of packets or new flows per second, 1,000 rules to none".to_owned(),
            value: worst(results.iter().map(|result| result.rounds.ratio())),
            target: TARGET,
            better: Better::Higher,
        },
        rows: results.iter().map(Comparison::row).collect(),
    })
}

/// With the rules, and without.
fn lanes(object: &[u8]) -> Result<[Lane<Gateway>; 2]> {
    let with = |lab: &crate::lab::Lab| {
        Gateway::ours_with(lab, |config| config.with("policy", json!({ "rules": rules() })))
    };
    Ok([Lane::new(object, with)?, Lane::new(object, Gateway::ours)?])
}

/// Rules that ask for the host, its prefix, its protocol and its LAN port, and for another
/// destination, port or code point than its packets have; and one that takes them.
fn rules() -> Vec<Value> {
    let number = |index: usize, from: usize, many: usize| from + index % many;
    let mut rules: Vec<Value> = (0..RULES - 1)
        .map(|index| {
            let own = match index % 3 {
                0 => ("destination", json!(format!("198.51.{}.0/24", number(index / 3, 128, 128)))),
                1 => ("port", json!(format!("{0}-{0}", number(index, 2_000, 5_000)))),
                _ => ("dscp", json!(number(index, 1, 63))),
            };
            let mut rule = json!({
                "source": [format!("192.0.2.{}/{}", 0, number(index, 24, 5)), "192.0.2.10/32"],
                "source_port": format!("{}-65535", 1 + index),
                "protocol": ["udp", "tcp"],
                "lan": "lan0",
                "use": "block",
            });
            rule[own.0] = own.1;
            rule
        })
        .collect();
    rules.push(json!({"use": "wan0"}));
    rules
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
            ("rules_per_second", figure(rounds.rate(0), 0)),
            ("none_per_second", figure(rounds.rate(1), 0)),
            ("ratio", figure(rounds.ratio(), 2)),
            ("spread_percent", figure(rounds.spread(), 1)),
            ("rules_lost_percent", lost(0)),
            ("none_lost_percent", lost(1)),
        ])
    }
}
