//! `flows`: the gateway's NAT against the kernel's with few flows, many, and
//! very many, and with flows that nobody has seen before.
//!
//! Flows take turns, so that with 60,000 of them no packet finds its own in a
//! cache. Both sides hold all of them: our tables by their defaults (two entries
//! a flow of 262,144; 131,072 mappings), the kernel's if `nf_conntrack_max` lets
//! it, which is looked at before.

use anyhow::{Context as _, Result, ensure};

use super::{
    Bench,
    gateway::Gateway,
    lane::Lane,
    opened::{NEW, Two},
    report::{Better, Headline, Report},
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

fn run(object: &[u8]) -> Result<Report> {
    let two = Two {
        bench: BENCH.name,
        lanes: &|| lanes(object),
        flows: &FLOWS,
        open: ["known, out", "known, back"],
        new_rounds: 5,
        columns: [
            ["ours_per_second", "ours_lost_percent"],
            ["kernel_per_second", "kernel_lost_percent"],
        ],
    };
    let (value, rows) = two.compare()?;
    Ok(Report {
        bench: BENCH.name,
        headline: Headline {
            name: "worst ratio of packets or new flows per second, gateway to Linux masquerade"
                .to_owned(),
            value,
            target: TARGET,
            better: Better::Higher,
        },
        rows,
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
