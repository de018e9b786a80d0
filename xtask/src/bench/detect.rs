//! `detect`: how long after a WAN has broken its state says so, over a hundred faults of
//! all kinds that follow each other at random, on several WANs at once, at the settings
//! that a gateway has without being told. And how often a WAN is called down that is not.
//!
//! The sequence is the same each time: its choices come of a seed.

use std::{
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use anyhow::{Context as _, Result, anyhow, ensure};

use super::{
    Bench,
    report::{Better, Headline, Report, Row, figure},
};
use crate::lab::{
    Direction, Gateway, GatewayConfig, Lab, LabSpec, LinkSpec, Shape,
    address::NET4,
    api::Api,
    traffic::{Fleet, FleetServers},
};

/// This benchmark in the registry.
pub(super) const BENCH: Bench = Bench {
    name: "detect",
    about: "time until a broken WAN is down, over a hundred faults at random",
    run,
};

/// What the 99th percentile ought to be at most, in milliseconds.
const TARGET: f64 = 1000.0;
/// WANs that are broken and mended, each at its own pace; one more never is.
const WANS: usize = 4;
/// Faults of each.
const FAULTS: usize = 25;
/// Flows that use all WANs, and their datagrams a second together.
const FLOWS: usize = 200;
const RATE: u32 = 2_000;
const SEED: u64 = 0x6d77_625f_6465_7465;
const PATIENCE: Duration = Duration::from_secs(20);
/// Between two looks at what the agent has told.
const LOOK: Duration = Duration::from_millis(10);

/// A way to break a WAN.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fault {
    Up,
    Down,
    Both,
    Uplink,
    Carrier,
}

impl Fault {
    const ALL: [Fault; 5] = [Fault::Up, Fault::Down, Fault::Both, Fault::Uplink, Fault::Carrier];

    fn name(self) -> &'static str {
        match self {
            Fault::Up => "blackhole up",
            Fault::Down => "blackhole down",
            Fault::Both => "blackhole both ways",
            Fault::Uplink => "cut behind the provider",
            Fault::Carrier => "carrier lost",
        }
    }

    fn apply(self, lab: &Lab, wan: usize, broken: bool) -> Result<()> {
        let wan = lab.wan(wan);
        match self {
            Fault::Up => wan.blackhole(&[Direction::Up], broken),
            Fault::Down => wan.blackhole(&[Direction::Down], broken),
            Fault::Both => wan.blackhole(&Direction::BOTH, broken),
            Fault::Uplink => wan.uplink(!broken),
            Fault::Carrier => wan.carrier(!broken),
        }
    }
}

/// SplitMix64 (Steele, Lea and Flood, 2014).
struct Random(u64);

impl Random {
    fn below(&mut self, end: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut bits = self.0;
        bits = (bits ^ bits >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        bits = (bits ^ bits >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        (bits ^ bits >> 31) % end
    }
}

/// What came of one fault.
#[derive(Clone, Copy, Debug)]
struct Found {
    fault: Fault,
    after: Duration,
}

fn run(_object: &[u8]) -> Result<Report> {
    let delays = [5, 20, 40, 80, 20];
    let link = |ms: u64| Shape::both(&LinkSpec::new(100_000_000, Duration::from_millis(ms)));
    let lab = Lab::new(&LabSpec::shaped(delays.map(link)))?;
    // What the lab's configuration shortens for tests is what it is by default, but for how
    // long a WAN must prove itself: a hundred times that would take too long.
    let config = GatewayConfig::new(&lab)
        .with("balance", "round_robin")
        .with("failover.hold_down_max", "1s");
    let gateway = Gateway::start(&lab, &config)?;
    let servers = FleetServers::start(lab.net(), &[NET4.into()])?;
    let fleet = Fleet::start(lab.host(), &servers, FLOWS, RATE)?;
    fleet.wait_for_answers(3, PATIENCE)?;
    let over = AtomicBool::new(false);
    let (found, downs) = thread::scope(|scope| {
        let watch = {
            let (api, over) = (Api::new(gateway.api().socket()), &over);
            scope.spawn(move || count_downs(&api, over))
        };
        let tasks: Vec<_> = (0..WANS)
            .map(|wan| {
                let (lab, api) = (&lab, Api::new(gateway.api().socket()));
                scope.spawn(move || break_and_mend(lab, &api, wan))
            })
            .collect();
        let found = tasks.into_iter().try_fold(Vec::new(), |mut all, task| {
            all.extend(task.join().map_err(|_| anyhow!("a task has panicked"))??);
            Ok::<_, anyhow::Error>(all)
        });
        over.store(true, Ordering::Relaxed);
        let downs = watch.join().map_err(|_| anyhow!("the watch has panicked"))??;
        Ok::<_, anyhow::Error>((found?, downs))
    })?;
    // A quick answer is worth nothing from one who is often wrong.
    for (wan, down) in downs.into_iter().enumerate() {
        let broken = if wan < WANS { FAULTS } else { 0 };
        ensure!(down == broken, "wan{wan} was broken {broken} times, and down {down} times");
    }
    let mut rows: Vec<Row> = Fault::ALL
        .iter()
        .map(|&fault| row(fault.name(), found.iter().filter(|one| one.fault == fault)))
        .collect();
    rows.push(row("all", found.iter()));
    let all = sorted(found.iter());
    Ok(Report {
        bench: BENCH.name,
        headline: Headline {
            name: format!("time in ms until a broken WAN is down, 99 of 100 of {}", all.len()),
            value: at(&all, 0.99).round(),
            target: TARGET,
            better: Better::Lower,
        },
        rows,
    })
}

/// How often each WAN is told to be down, until it is `over`.
fn count_downs(api: &Api, over: &AtomicBool) -> Result<[usize; WANS + 1]> {
    let mut downs = [0; WANS + 1];
    let mut since = api.events(0)?.last().map_or(0, |event| event.id);
    loop {
        let last = over.load(Ordering::Relaxed);
        for event in api.events(since)? {
            ensure!(event.id == since + 1, "events between {since} and {} are gone", event.id);
            since = event.id;
            for (wan, downs) in downs.iter_mut().enumerate() {
                *downs += usize::from(event.message.starts_with(&format!("wan{wan} is down,")));
            }
        }
        if last {
            return Ok(downs);
        }
        thread::sleep(LOOK * 10);
    }
}

fn row<'a>(name: &'static str, found: impl Iterator<Item = &'a Found>) -> Row {
    let all = sorted(found);
    Row(vec![
        ("fault", name.into()),
        ("faults", all.len().into()),
        ("median_ms", figure(at(&all, 0.5), 0)),
        ("p99_ms", figure(at(&all, 0.99), 0)),
        ("worst_ms", figure(at(&all, 1.0), 0)),
    ])
}

fn sorted<'a>(found: impl Iterator<Item = &'a Found>) -> Vec<f64> {
    let mut all: Vec<f64> = found.map(|one| one.after.as_secs_f64() * 1e3).collect();
    all.sort_by(f64::total_cmp);
    all
}

/// The nearest rank.
fn at(sorted: &[f64], part: f64) -> f64 {
    let rank = (sorted.len() as f64 * part).ceil() as usize;
    sorted.get(rank.saturating_sub(1)).copied().unwrap_or(f64::NAN)
}

/// Breaks a WAN again and again, and waits each time until it is found and is used again.
fn break_and_mend(lab: &Lab, api: &Api, wan: usize) -> Result<Vec<Found>> {
    let mut random = Random(SEED ^ wan as u64);
    let name = format!("wan{wan}");
    let mut found = Vec::new();
    for number in 0..FAULTS {
        thread::sleep(Duration::from_millis(200 + random.below(600)));
        let fault = Fault::ALL[random.below(Fault::ALL.len() as u64) as usize];
        let since = api.events(0)?.last().map_or(0, |event| event.id);
        let begun = SystemTime::now().duration_since(UNIX_EPOCH)?;
        fault.apply(lab, wan, true)?;
        let what = || format!("{name}, fault {number}: {}", fault.name());
        let down = told(api, since, &name, "down").with_context(what)?;
        found.push(Found { fault, after: Duration::from_millis(down).saturating_sub(begun) });
        let since = api.events(since)?.last().map_or(since, |event| event.id);
        fault.apply(lab, wan, false)?;
        told(api, since, &name, "up").with_context(what)?;
    }
    eprintln!("{}: {name} was broken and mended {FAULTS} times", BENCH.name);
    Ok(found)
}

/// When a WAN was told to be in a state, in milliseconds since 1970.
fn told(api: &Api, since: u64, wan: &str, state: &str) -> Result<u64> {
    let start = Instant::now();
    let said = format!("{wan} is {state},");
    loop {
        let events = api.events(since)?;
        let event = events
            .iter()
            .find(|event| event.kind == "wan_state" && event.message.starts_with(&said));
        if let Some(event) = event {
            return Ok(event.unix_ms);
        }
        ensure!(start.elapsed() < PATIENCE, "never {state}: {events:#?}");
        thread::sleep(LOOK);
    }
}
