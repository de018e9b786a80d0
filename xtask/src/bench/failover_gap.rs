//! `failover-gap`: how long new flows fail after a WAN is cut, in every way that
//! the lab can cut one, at the settings that a gateway has without being told.
//!
//! A lab has one WAN more than cuts are tried in it, so that no WAN has to come
//! back. All WANs share the flows (the default mode), and the gap ends with the
//! last flow that fails, however few they are. What is cut comes at another
//! moment between two probes each time.

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
    Direction, Gateway, GatewayConfig, Lab, LabSpec, Loss, address::wan4, wait_for, wait_until,
};

/// This benchmark in the registry.
pub(super) const BENCH: Bench = Bench {
    name: "failover-gap",
    about: "time until 1,000 new flows a second run again after a WAN is cut",
    run,
};

/// What the worst gap ought to be at most, in milliseconds.
const TARGET: f64 = 1000.0;
/// Cuts of one kind, each of another WAN.
const CUTS: usize = 3;
/// Hooks that each kind is tried with.
const HOOKS: [&str; 2] = ["xdp", "tcx"];
/// A flow without an answer after this has failed: a hundred round trips.
const TIMELY: Duration = Duration::from_millis(300);
/// How long all flows must be answered before an outage counts as over.
const CALM: Duration = Duration::from_millis(700);
/// How long it may last at all.
const PATIENCE: Duration = Duration::from_secs(20);
/// The cut of round `n` comes this much later, times `n`, after a calm stream:
/// not a multiple of the probes' interval.
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
    let mut results = Vec::new();
    for hook in HOOKS {
        for cut in Cut::ALL {
            let outages =
                measure(cut, hook).with_context(|| format!("{}, hook {hook}", cut.name()))?;
            let result = Measured { cut, hook, outages };
            eprintln!("{}: {hook}: {}: {:.0} ms", BENCH.name, cut.name(), result.worst());
            results.push(result);
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

/// The outages of [`CUTS`] cuts of one kind, in a lab of their own.
fn measure(cut: Cut, hook: &'static str) -> Result<Vec<Outage>> {
    let lab = Lab::new(&LabSpec::relayed(CUTS + 1))?;
    // What the lab's configuration shortens for tests is what it is by default.
    let config = GatewayConfig::new(&lab)
        .with("hook", hook)
        .with("balance", "adaptive")
        .with("failover.failback_after", "5s");
    let mut gateway = Gateway::start(&lab, &config)?;
    let macs = (mac_of(lab.host(), "lan0")?, mac_of(lab.gw(), "lan0")?);
    let mut stream = Stream::start(&lab, macs)?;
    let mut outages = Vec::new();
    for index in 0..CUTS {
        gateway.wait_for_status("the WAN carries flows", PATIENCE, |status| {
            status.wans.get(index).is_some_and(|wan| wan.state == "up" && wan.active)
        })?;
        let calm = Instant::now();
        settle(&mut stream, calm).context("before the cut")?;
        let due = calm + CALM + PHASE * u32::try_from(index)?;
        wait_until("the moment of the cut", PATIENCE, || Ok(Instant::now() >= due))?;
        let since = Instant::now();
        cut.apply(&lab, index)?;
        let outage = settle(&mut stream, since)?;
        gateway.wait_for_status("the cut WAN carries no flows", PATIENCE, |status| {
            status.wans.get(index).is_some_and(|wan| !wan.active)
        })?;
        outages.push(outage);
    }
    ensure!(gateway.process().is_running()?, "the agent has ended:\n{}", gateway.log());
    Ok(outages)
}

/// Waits until the stream runs again and gives how long it did not.
fn settle(stream: &mut Stream, since: Instant) -> Result<Outage> {
    wait_for("every new flow is answered again", PATIENCE, || {
        stream.check()?;
        Ok(stream::outage(&stream.attempts(), since, Instant::now(), TIMELY, CALM))
    })
    .map(|(outage, _)| outage)
}
