//! `policy`: the gateway with 1,000 policy rules against itself without any.
//!
//! Open flows do not meet the rules, new ones do. Each of the 1,000 fits every packet here
//! in all that it asks for but one thing, and the last fits in everything, so that nothing
//! is decided early and every flow leaves by an outlet of its own.

use anyhow::Result;
use serde_json::{Value, json};

use super::{
    Bench,
    gateway::Gateway,
    lane::Lane,
    opened::Two,
    report::{Better, Headline, Report},
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

fn run(object: &[u8]) -> Result<Report> {
    let two = Two {
        bench: BENCH.name,
        lanes: &|| lanes(object),
        flows: &FLOWS,
        open: ["open, out", "open, back"],
        new_rounds: 3,
        columns: [
            ["rules_per_second", "rules_lost_percent"],
            ["none_per_second", "none_lost_percent"],
        ],
    };
    let (value, rows) = two.compare()?;
    Ok(Report {
        bench: BENCH.name,
        headline: Headline {
            name: "worst ratio of packets or new flows per second, 1,000 rules to none".to_owned(),
            value,
            target: TARGET,
            better: Better::Higher,
        },
        rows,
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
