//! `failover-gap`: how long new flows fail after a WAN is cut, in every way that
//! the lab can cut one, at the settings that a gateway has without being told.
//!
//! A lab has as many WANs as there can be, which are cut one after the other, so
//! that none has to come back. All that are left share the flows (the default
//! mode), and the gap ends with the last flow that fails, however few they are.
//! Each cut comes at another moment between two probes.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};

use super::{
    Bench,
    lane::mac_of,
    report::{Better, Headline, Report, Row, figure},
    stats::median,
    stream::{self, Outage, Stream},
};
use crate::lab::{
    Direction, Gateway, GatewayConfig, Lab, LabSpec, Loss,
    address::{MAX_WANS, wan4},
    wait_for, wait_until,
};

/// This benchmark in the registry.
pub(super) const BENCH: Bench = Bench {
    name: "failover-gap",
    about: "time until 1,000 new flows a second run again after a WAN is cut",
    run,
};

/// What the worst gap ought to be at most, in milliseconds.
const TARGET: f64 = 1000.0;
/// Cuts of one kind with one hook.
const CUTS: usize = 2;
/// Hooks that each kind is tried with.
const HOOKS: [&str; 2] = ["xdp", "tcx"];
/// A flow without an answer after this has failed: a hundred round trips.
const TIMELY: Duration = Duration::from_millis(300);
/// How long all flows must be answered before an outage counts as over.
const CALM: Duration = Duration::from_millis(700);
/// How long it may last at all.
const PATIENCE: Duration = Duration::from_secs(20);
/// The cut of WAN `n` comes this much later, times `n`, after a calm stream: not
/// a multiple of the probes' interval.
const PHASE: Duration = Duration::from_millis(67);

/// A way to cut a WAN off.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Cut {
    Carrier,
    AdminDown,
    BlackholeUp,
    BlackholeDown,
    BlackholeBoth,
    Loss,
    Uplink,
    Neighbour,
    Address,
    Device,
}

impl Cut {
    const ALL: [Cut; 10] = [
        Cut::Carrier,
        Cut::AdminDown,
        Cut::BlackholeUp,
        Cut::BlackholeDown,
        Cut::BlackholeBoth,
        Cut::Loss,
        Cut::Uplink,
        Cut::Neighbour,
        Cut::Address,
        Cut::Device,
    ];

    fn name(self) -> &'static str {
        match self {
            Cut::Carrier => "carrier lost",
            Cut::AdminDown => "device set down",
            Cut::BlackholeUp => "blackhole up",
            Cut::BlackholeDown => "blackhole down",
            Cut::BlackholeBoth => "blackhole both ways",
            Cut::Loss => "loss of 100 %",
            Cut::Uplink => "cut behind the provider",
            Cut::Neighbour => "provider's gateway gone",
            Cut::Address => "address removed",
            Cut::Device => "device removed",
        }
    }

    /// Whether the WAN carries nothing any more: without its IPv4 address it goes
    /// on with IPv6.
    fn ends_ipv6(self) -> bool {
        self != Cut::Address
    }

    fn apply(self, lab: &Lab, index: usize) -> Result<()> {
        let wan = lab.wan(index);
        match self {
            Cut::Carrier => wan.carrier(false),
            Cut::AdminDown => lab.gw().ip(&format!("link set wan{index} down\n")),
            Cut::BlackholeUp => wan.blackhole(&[Direction::Up], true),
            Cut::BlackholeDown => wan.blackhole(&[Direction::Down], true),
            Cut::BlackholeBoth => wan.blackhole(&Direction::BOTH, true),
            Cut::Loss => Direction::BOTH
                .iter()
                .try_for_each(|&way| wan.change(way, |spec| spec.loss = Loss::Random(1.0))),
            Cut::Uplink => wan.uplink(false),
            // It answers nobody any more, and has no way back to the gateway.
            Cut::Neighbour => lab.isp(index).ip("addr flush dev gw0\n"),
            Cut::Address => lab.gw().ip(&format!("addr del {}/28 dev wan{index}\n", wan4(index))),
            Cut::Device => lab.gw().ip(&format!("link del wan{index}\n")),
        }
    }
}

/// What the cuts of one kind did.
struct Measured {
    cut: Cut,
    hook: &'static str,
    outages: Vec<Outage>,
}

impl Measured {
    /// The gaps in milliseconds.
    fn gaps(&self) -> impl Iterator<Item = f64> {
        self.outages.iter().map(|outage| outage.gap.as_secs_f64() * 1e3)
    }

    fn worst(&self) -> f64 {
        self.gaps().fold(0.0, f64::max)
    }

    fn row(&self) -> Row {
        let failed = self.outages.iter().map(|outage| outage.failed).max();
        Row(vec![
            ("cut", self.cut.name().into()),
            ("hook", self.hook.into()),
            ("worst_ms", figure(self.worst(), 0)),
            ("median_ms", figure(median(self.gaps()), 0)),
            ("most_failed_flows", failed.unwrap_or_default().into()),
            ("cuts", self.outages.len().into()),
        ])
    }
}

fn run(_object: &[u8]) -> Result<Report> {
    let mut results: Vec<Measured> = Vec::new();
    for hook in HOOKS {
        let all: Vec<Cut> = (0..CUTS).flat_map(|_| Cut::ALL).collect();
        let first = results.len();
        results.extend(Cut::ALL.map(|cut| Measured { cut, hook, outages: Vec::new() }));
        for cuts in all.chunks(MAX_WANS - 1) {
            for (cut, outage) in measure(cuts, hook)? {
                let ours = results.iter_mut().skip(first).find(|result| result.cut == cut);
                ours.context("a result for each cut")?.outages.push(outage);
            }
        }
    }
    let worst = results.iter().map(Measured::worst).fold(0.0, f64::max);
    Ok(Report {
        bench: BENCH.name,
        headline: Headline {
            name: "worst time in ms until 1,000 new flows a second run again after a cut"
                .to_owned(),
            value: worst.round(),
            target: TARGET,
            better: Better::Lower,
        },
        rows: results.iter().map(Measured::row).collect(),
    })
}

/// Cuts one WAN after the other in a lab of their own.
fn measure(cuts: &[Cut], hook: &str) -> Result<Vec<(Cut, Outage)>> {
    let lab = Lab::new(&LabSpec::relayed(cuts.len() + 1))?;
    // What the lab's configuration shortens for tests is what it is by default.
    let config = GatewayConfig::new(&lab)
        .with("hook", hook)
        .with("balance", "adaptive")
        .with("failover.failback_after", "5s");
    let mut gateway = Gateway::start(&lab, &config)?;
    let macs = (mac_of(lab.host(), "lan0")?, mac_of(lab.gw(), "lan0")?);
    let mut stream = Stream::start(&lab, macs)?;
    let mut outages = Vec::new();
    for (index, &cut) in cuts.iter().enumerate() {
        let what = || format!("{}, hook {hook}", cut.name());
        let outage = one(&lab, &mut gateway, &mut stream, index, cut).with_context(what)?;
        eprintln!("{}: {}: {:.0} ms", BENCH.name, what(), outage.gap.as_secs_f64() * 1e3);
        outages.push((cut, outage));
    }
    ensure!(gateway.process().is_running()?, "the agent has ended:\n{}", gateway.log());
    Ok(outages)
}

/// Cuts a WAN and waits until the stream runs again.
fn one(
    lab: &Lab,
    gateway: &mut Gateway,
    stream: &mut Stream,
    index: usize,
    cut: Cut,
) -> Result<Outage> {
    gateway.wait_for_status("the WAN carries flows", PATIENCE, |status| {
        status.wans.get(index).is_some_and(|wan| wan.state == "up" && wan.active)
    })?;
    let calm = Instant::now();
    settle(stream, calm).context("before the cut")?;
    let due = Instant::now() + PHASE * u32::try_from(index)?;
    wait_until("the moment of the cut", PATIENCE, || Ok(Instant::now() >= due))?;
    let since = Instant::now();
    cut.apply(lab, index)?;
    let outage = settle(stream, since)?;
    if cut.ends_ipv6() {
        gateway.wait_for_status("the cut WAN carries no flows", PATIENCE, |status| {
            status.wans.get(index).is_some_and(|wan| !wan.active)
        })?;
    }
    Ok(outage)
}

/// Waits until the stream runs again and gives how long it did not.
fn settle(stream: &mut Stream, since: Instant) -> Result<Outage> {
    wait_for("every new flow is answered again", PATIENCE, || {
        stream.check()?;
        Ok(stream::outage(&stream.attempts(), since, Instant::now(), TIMELY, CALM))
    })
    .map(|(outage, _)| outage)
}
