//! `bond-goodput` and `striped`: what one TCP download gets of a bond over unlike links, as
//! a fraction of what the same bond carries over its best link alone, and over all of them
//! one after the other. A bond is never to be worse than its best link, and is to have the
//! sum of links that differ by no more than five times in rate and 100 ms in delay.
//!
//! Rates and delays are of each direction. Kernel MPTCP stands beside it, over the same
//! links, from the gateway itself.

use std::thread;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use serde_json::json;

use super::{
    Bench, mptcp,
    report::{Better, Headline, Report, Row, figure},
};
use crate::lab::{
    BondConfig, BondTables, Direction, Gateway, Lab, LabSpec, LinkSpec, Loss, Server, Shape,
    address::NET4,
    traffic::{Bulk, Transport, download, upload},
    wait_until,
};

/// This benchmark in the registry.
pub(super) const BENCH: Bench = Bench {
    name: "bond-goodput",
    about: "one TCP download by a bond of unlike links against its best link alone",
    run,
};

/// The other one.
pub(super) const STRIPED: Bench = Bench {
    name: "striped",
    about: "one TCP download by a bond of links that differ in delay against the sum of them",
    run: run_striped,
};

/// What the worst fraction of the best link ought to be at least, and that of the sum.
const TARGET: f64 = 0.95;
const TARGET_OF_SUM: f64 = 0.93;
/// A link that loses this part of what it gets carries no connection worth the name: by
/// itself it counts as nothing, without half a minute of waiting for a handshake.
const HOPELESS: f64 = 0.5;
/// How long a bond may take to come up, or to hear of a cut.
const PATIENCE: Duration = Duration::from_secs(45);

/// A link: Mbit/s and ms, each way, and the part of packets that it loses.
#[derive(Clone, Copy, Debug)]
struct Link(u64, u64, f64);

/// Links that are bonded.
#[derive(Clone, Copy, Debug)]
struct Case {
    name: &'static str,
    links: &'static [Link],
    /// Length of a download in seconds.
    seconds: u64,
    /// What the last link has from the middle of every download on, in Mbit/s.
    throttled: Option<u64>,
    /// What repairs losses.
    repair: Option<&'static str>,
    /// An upload in place of a download.
    up: bool,
    /// How long the links are there before the first download: by then the ends know what
    /// each carries and loses.
    known: Duration,
}

/// What nothing special is about.
const PLAIN: Case = Case {
    name: "",
    links: &[],
    seconds: 4,
    throttled: None,
    repair: None,
    up: false,
    known: Duration::ZERO,
};

const CASES: [Case; 8] = [
    Case {
        name: "50/20 + 50/20",
        links: &[Link(50, 20, 0.0), Link(50, 20, 0.0)],
        seconds: 4,
        ..PLAIN
    },
    Case {
        name: "100/10 + 20/60",
        links: &[Link(100, 10, 0.0), Link(20, 60, 0.0)],
        seconds: 4,
        ..PLAIN
    },
    Case {
        name: "30/30 + 10/80, 1 % lost",
        links: &[Link(30, 30, 0.01), Link(10, 80, 0.01)],
        seconds: 6,
        ..PLAIN
    },
    Case {
        name: "up: 30/30 + 10/80, 1 % lost",
        links: &[Link(30, 30, 0.01), Link(10, 80, 0.01)],
        seconds: 6,
        up: true,
        ..PLAIN
    },
    Case {
        name: "100/5 + 5/300",
        links: &[Link(100, 5, 0.0), Link(5, 300, 0.0)],
        seconds: 4,
        ..PLAIN
    },
    Case {
        name: "50/20 + 50/20, 50 % lost on one",
        links: &[Link(50, 20, 0.0), Link(50, 20, 0.5)],
        seconds: 3,
        ..PLAIN
    },
    Case {
        name: "50/20 + 50/20, one at 5 from half time on",
        links: &[Link(50, 20, 0.0), Link(50, 20, 0.0)],
        seconds: 4,
        throttled: Some(5),
        ..PLAIN
    },
    Case {
        name: "four of 25/20",
        links: &[Link(25, 20, 0.0), Link(25, 20, 0.0), Link(25, 20, 0.0), Link(25, 20, 0.0)],
        seconds: 3,
        ..PLAIN
    },
];

/// What most hosts have, and what the largest senders have.
const CONGESTION: [Option<&str>; 2] = [Some("cubic"), Some("bbr")];

/// A flow takes some seconds to fill links that are far apart: the second half is what it has
/// then.
const STRIPED_SECONDS: u64 = 14;
/// Probes find out what a link loses.
const KNOWN: Duration = Duration::from_secs(5);

const STRIPED_CASES: [Case; 5] = [
    Case {
        name: "50/20 + 50/20",
        links: &[Link(50, 20, 0.0), Link(50, 20, 0.0)],
        seconds: STRIPED_SECONDS,
        known: KNOWN,
        ..PLAIN
    },
    Case {
        name: "50/10 + 50/60",
        links: &[Link(50, 10, 0.0), Link(50, 60, 0.0)],
        seconds: STRIPED_SECONDS,
        known: KNOWN,
        ..PLAIN
    },
    Case {
        name: "100/10 + 20/60",
        links: &[Link(100, 10, 0.0), Link(20, 60, 0.0)],
        seconds: STRIPED_SECONDS,
        known: KNOWN,
        ..PLAIN
    },
    Case {
        name: "60/5 + 30/105",
        links: &[Link(60, 5, 0.0), Link(30, 105, 0.0)],
        seconds: STRIPED_SECONDS,
        known: KNOWN,
        ..PLAIN
    },
    Case {
        name: "50/20 + 50/20, 5 % lost on one, parity",
        links: &[Link(50, 20, 0.0), Link(50, 20, 0.05)],
        seconds: STRIPED_SECONDS,
        repair: Some("fec"),
        known: KNOWN,
        ..PLAIN
    },
];

impl Case {
    fn spec(&self) -> LabSpec {
        LabSpec::shaped(self.links.iter().zip(1..).map(|(link, seed)| {
            let &Link(rate, delay, loss) = link;
            let loss = if loss > 0.0 { Loss::Random(loss) } else { Loss::None };
            let spec = LinkSpec::new(rate * 1_000_000, Duration::from_millis(delay));
            let spec = spec.with_loss(loss);
            Shape {
                up: LinkSpec { seed, ..spec.clone() },
                down: LinkSpec { seed: seed + 100, ..spec },
                ..Shape::default()
            }
        }))
    }

    fn length(&self) -> Duration {
        Duration::from_secs(self.seconds)
    }

    /// What is done to the links in the middle of a download.
    fn turn(&self, lab: &Lab) -> Result<()> {
        self.throttled.map_or(Ok(()), |rate| self.set_last(lab, rate))
    }

    /// Undoes it.
    fn turn_back(&self, lab: &Lab) -> Result<()> {
        let Some(&Link(rate, ..)) = self.links.last() else { return Ok(()) };
        self.throttled.map_or(Ok(()), |_| self.set_last(lab, rate))
    }

    fn set_last(&self, lab: &Lab, rate: u64) -> Result<()> {
        let last = lab.wan(self.links.len() - 1);
        let set = |direction| last.change(direction, |spec| spec.rate = Some(rate * 1_000_000));
        Direction::BOTH.into_iter().try_for_each(set)
    }
}

/// Bits per second: of a whole download, and of its second half.
#[derive(Clone, Copy, Debug)]
struct Rates {
    whole: f64,
    late: f64,
}

impl Rates {
    const NONE: Self = Self { whole: 0.0, late: 0.0 };

    fn of(bulk: &Bulk) -> Self {
        Self { whole: bulk.rate(), late: bulk.late_rate() }
    }
}

struct Measured {
    case: Case,
    congestion: Option<&'static str>,
    alone: Vec<Rates>,
    bond: Rates,
    mptcp: Option<Rates>,
}

impl Measured {
    fn best(&self) -> f64 {
        self.alone.iter().map(|rates| rates.whole).fold(0.0, f64::max)
    }

    fn of_best(&self) -> f64 {
        self.bond.whole / self.best()
    }

    fn of_sum(&self) -> f64 {
        self.bond.whole / self.alone.iter().map(|rates| rates.whole).sum::<f64>()
    }

    /// Of connections that have grown.
    fn of_sum_late(&self) -> f64 {
        self.bond.late / self.alone.iter().map(|rates| rates.late).sum::<f64>()
    }

    fn row(&self) -> Row {
        let megabits = |rate: f64| figure(rate / 1e6, 1);
        let sum: f64 = self.alone.iter().map(|rates| rates.whole).sum();
        let alone: Vec<String> =
            self.alone.iter().map(|rates| format!("{:.1}", rates.whole / 1e6)).collect();
        let mptcp = self.mptcp.map_or(f64::NAN, |rates| rates.whole);
        Row(vec![
            ("links", self.case.name.into()),
            ("congestion", self.congestion.unwrap_or("default").into()),
            ("alone_mbit", alone.join(" ").as_str().into()),
            ("bond_mbit", megabits(self.bond.whole)),
            ("of_best", figure(self.of_best(), 2)),
            ("of_sum", figure(self.of_sum(), 2)),
            ("of_sum_late", figure(self.of_sum_late(), 2)),
            ("mptcp_mbit", megabits(mptcp)),
            ("mptcp_of_best", figure(mptcp / self.best(), 2)),
            ("mptcp_of_sum", figure(mptcp / sum, 2)),
        ])
    }
}

fn run(_object: &[u8]) -> Result<Report> {
    let results = measure_all(&BENCH, &CASES, &[None])?;
    let worst = worst(&results, Measured::of_best);
    let name = "worst fraction of what the best link alone gives, one TCP download";
    Ok(report(&BENCH, (name, worst, TARGET), &results))
}

fn run_striped(_object: &[u8]) -> Result<Report> {
    let results = measure_all(&STRIPED, &STRIPED_CASES, &CONGESTION)?;
    let clean: Vec<_> = results.iter().filter(|result| result.case.repair.is_none()).collect();
    let worst = worst(clean, Measured::of_sum_late);
    let name = "worst fraction of what all links give one after the other, one TCP download that \
                has grown";
    Ok(report(&STRIPED, (name, worst, TARGET_OF_SUM), &results))
}

fn worst<'a>(
    results: impl IntoIterator<Item = &'a Measured>,
    fraction: impl Fn(&'a Measured) -> f64,
) -> f64 {
    results.into_iter().map(fraction).fold(f64::INFINITY, f64::min)
}

fn report(bench: &Bench, (name, value, target): (&str, f64, f64), results: &[Measured]) -> Report {
    Report {
        bench: bench.name,
        headline: Headline {
            name: name.to_owned(),
            value: (value * 1000.0).round() / 1000.0,
            target,
            better: Better::Higher,
        },
        rows: results.iter().map(Measured::row).collect(),
    }
}

/// Each case under each congestion control; none: the kernel's choice.
fn measure_all(
    bench: &Bench,
    cases: &[Case],
    congestion: &[Option<&'static str>],
) -> Result<Vec<Measured>> {
    let mut results = Vec::new();
    let all = cases.iter().flat_map(|&case| congestion.iter().map(move |&under| (case, under)));
    for (case, under) in all {
        let result = measure(case, under).with_context(|| case.name)?;
        let alone: Vec<u64> = result.alone.iter().map(|rates| (rates.whole / 1e6) as u64).collect();
        eprintln!(
            "{}: {}, {}: {:.2} of the best link, {:.2} of the sum, {:.2} in the second half \
             ({:.0} Mbit/s, alone {alone:?})",
            bench.name,
            case.name,
            under.unwrap_or("default"),
            result.of_best(),
            result.of_sum(),
            result.of_sum_late(),
            result.bond.whole / 1e6
        );
        results.push(result);
    }
    Ok(results)
}

fn measure(case: Case, congestion: Option<&'static str>) -> Result<Measured> {
    let mut bond = Bond::start(&case, congestion)?;
    // First, as a user meets it: nothing is known of the links, and none was ever cut.
    let all = bond.carry(&case)?;
    let mut alone = Vec::new();
    for (only, &Link(.., loss)) in case.links.iter().enumerate() {
        if loss >= HOPELESS {
            alone.push(Rates::NONE);
            continue;
        }
        // First the one that is to stay: the last path alive is never given up.
        bond.lab.wan(only).carrier(true)?;
        let others = (0..case.links.len()).filter(|&index| index != only);
        others.into_iter().try_for_each(|index| bond.lab.wan(index).carrier(false))?;
        bond.wait_for(1)?;
        alone.push(bond.carry(&case)?);
    }
    drop(bond);
    let act = |lab: &Lab| case.turn(lab);
    // It stands beside downloads.
    let mptcp =
        if case.up { None } else { mptcp::measure(&case.spec(), congestion, case.length(), act)? };
    Ok(Measured { case, congestion, alone, bond: all, mptcp: mptcp.as_ref().map(Rates::of) })
}

/// A bond at work.
struct Bond {
    gateway: Gateway,
    server: Server,
    /// What its downloads are sent under.
    congestion: Option<&'static str>,
    // Last: what runs in the lab goes before it.
    lab: Lab,
}

impl Bond {
    fn start(case: &Case, congestion: Option<&'static str>) -> Result<Self> {
        let lab = Lab::new(&case.spec().with_server())?;
        let mut config = BondConfig::new(&lab)?;
        if let Some(repair) = case.repair {
            let rules = json!([{"class": "auto", "repair": repair, "protocol": "tcp"}]);
            config = config
                .with_gateway("classes.rules", rules.clone())
                .with_server("classes.rules", rules);
        }
        let server = Server::launch(&lab, &config.server)?;
        let gateway = Gateway::launch(&lab, &config.gateway)?;
        let mut bond = Self { gateway, server, lab, congestion };
        bond.wait_for(case.links.len())?;
        thread::sleep(case.known);
        Ok(bond)
    }

    /// Waits until so many paths are there for data at both ends: joined, and not held
    /// for down. Parked ones count, they are the bond's own choice.
    fn wait_for(&mut self, paths: usize) -> Result<()> {
        wait_until("the paths that are there live, and no others", PATIENCE, || {
            ensure!(self.gateway.process().is_running()?, "the gateway's agent has ended");
            ensure!(self.server.process().is_running()?, "the server's agent has ended");
            let answered = |tables: BondTables| tables.answered();
            let living = [
                answered(BondTables::open(&self.gateway)?)?,
                answered(BondTables::open(&self.server)?)?,
            ];
            ensure!(living == [paths; 2], "{living:?} live");
            Ok(true)
        })
        .map(drop)
        .with_context(|| format!("{}\n{}", self.gateway.log(), self.server.log()))
    }

    fn carry(&self, case: &Case) -> Result<Rates> {
        let Self { lab, congestion, .. } = self;
        let turn = || case.turn(lab);
        let (client, server, length) = (lab.host(), lab.net(), case.length());
        let bulk = if case.up {
            upload(client, server, NET4.into(), Transport::Tcp, *congestion, length, turn)?
        } else {
            download(client, server, NET4.into(), Transport::Tcp, *congestion, length, turn)?
        };
        case.turn_back(lab)?;
        Ok(Rates::of(&bulk))
    }
}
