//! `hitless`: what a stream loses when the WAN dies that carries it, by the class that it
//! has. 2,000 packets a second each way; each WAN is cut in turn, in each way that a WAN is
//! cut. The peer is the same stream of no class, by the same bond.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use serde_json::{Value, json};

use super::{
    Bench,
    report::{Better, Headline, Report, Row, figure},
};
use crate::lab::{
    BondConfig, BondTables, Direction, Gateway, Lab, LabSpec, Server, Wan,
    address::NET4,
    traffic::{Course, Duplex},
    wait_until,
};

/// This benchmark in the registry.
pub(super) const BENCH: Bench = Bench {
    name: "hitless",
    about: "packets of a stream that are lost when a WAN is cut, sent twice or sent again",
    run,
};

/// Where the stream goes, and how often.
const PORT: u16 = 4_500;
const EVERY: Duration = Duration::from_micros(500);
/// Packets sent before a cut, while it lasts, and behind it.
const CALM: usize = 1_500;
/// What was sent so shortly before the end of a look is still on its way.
const ON_ITS_WAY: Duration = Duration::from_millis(300);
/// How long a path may take to come back.
const PATIENCE: Duration = Duration::from_secs(20);

/// The class of a rule, and what repairs its losses.
type Rule = (&'static str, Option<&'static str>);

/// What the stream is, by rule; without one it is what nothing is promised of.
const CLASSES: [(&str, Option<Rule>); 3] = [
    ("sent again", Some(("auto", Some("retransmit")))),
    ("sent twice", Some(("duplicate", None))),
    ("none", None),
];

/// Ways to cut a WAN.
const CUTS: [(&str, &[Direction]); 3] = [
    ("carrier lost", &[]),
    ("blackhole up", &[Direction::Up]),
    ("blackhole down", &[Direction::Down]),
];

fn cut(wan: &Wan, ways: &[Direction], is_cut: bool) -> Result<()> {
    if ways.is_empty() { wan.carrier(!is_cut) } else { wan.blackhole(ways, is_cut) }
}

/// Of both directions, and both WANs.
#[derive(Clone, Copy, Debug, Default)]
struct Measured {
    sent: u64,
    lost: u64,
    twice: u64,
    /// Arrivals before one that was sent earlier.
    disorder: u64,
    silence: Duration,
}

impl Measured {
    fn add(&mut self, course: &Course) {
        self.sent += course.sent.len() as u64;
        self.lost += course.lost();
        let came: Vec<Instant> = course.arrived.iter().flatten().copied().collect();
        self.disorder += came.windows(2).filter(|pair| pair[1] < pair[0]).count() as u64;
        self.silence = self.silence.max(course.silence());
    }
}

fn run(_object: &[u8]) -> Result<Report> {
    let (mut rows, mut lost) = (Vec::new(), 0);
    for (class, rule) in CLASSES {
        for (how, ways) in CUTS {
            let measured = measure(rule, ways).with_context(|| format!("{class}, {how}"))?;
            eprintln!("{}: {class}, {how}: {measured:?}", BENCH.name);
            if rule.is_some() {
                lost += measured.lost;
            }
            rows.push(Row(vec![
                ("class", class.into()),
                ("cut", how.into()),
                ("sent", (measured.sent as usize).into()),
                ("lost", (measured.lost as usize).into()),
                ("twice", (measured.twice as usize).into()),
                ("out_of_order", (measured.disorder as usize).into()),
                ("longest_silence_ms", figure(measured.silence.as_secs_f64() * 1e3, 1)),
            ]));
        }
    }
    Ok(Report {
        bench: BENCH.name,
        headline: Headline {
            name: "packets lost of those that are sent again or twice, at six cuts each".to_owned(),
            value: lost as f64,
            target: 0.0,
            better: Better::Lower,
        },
        rows,
    })
}

fn rules(rule: Option<Rule>) -> Value {
    let Some((class, repair)) = rule else { return json!([]) };
    let mut rule = json!({"class": class, "protocol": "udp", "port": PORT});
    if let Some(repair) = repair {
        rule["repair"] = json!(repair);
    }
    json!([rule])
}

fn measure(rule: Option<Rule>, ways: &[Direction]) -> Result<Measured> {
    let lab = Lab::new(&LabSpec::relayed(2).with_server())?;
    let config = BondConfig::new(&lab)?
        .with_gateway("classes.rules", rules(rule))
        .with_server("classes.rules", rules(rule));
    let mut server = Server::launch(&lab, &config.server)?;
    let mut gateway = Gateway::launch(&lab, &config.gateway)?;
    let mut both_live = || {
        wait_until("both paths live", PATIENCE, || {
            ensure!(gateway.process().is_running()?, "the gateway's agent has ended");
            ensure!(server.process().is_running()?, "the server's agent has ended");
            let living =
                [BondTables::open(&gateway)?.living()?, BondTables::open(&server)?.living()?];
            ensure!(living == [2, 2], "{living:?} live");
            Ok(true)
        })
        .map(drop)
    };
    both_live()?;
    let to = SocketAddr::new(NET4.into(), PORT);
    let duplex = Duplex::start(lab.host(), lab.net(), to, EVERY)?;
    let mut measured = Measured::default();
    for wan in 0..2 {
        duplex.go_on(CALM, EVERY)?;
        let since = Instant::now();
        cut(lab.wan(wan), ways, true)?;
        duplex.go_on(CALM, EVERY)?;
        let until = Instant::now().checked_sub(ON_ITS_WAY).context("a clock that runs")?;
        let report = duplex.report();
        for course in [report.there, report.back] {
            let mut course = course.since(since);
            let count = course.sent.partition_point(|&sent| sent < until);
            course.sent.truncate(count);
            course.arrived.truncate(count);
            measured.add(&course);
        }
        cut(lab.wan(wan), ways, false)?;
        both_live()?;
    }
    let report = duplex.stop()?;
    measured.twice = report.there.duplicated + report.back.duplicated;
    Ok(measured)
}
