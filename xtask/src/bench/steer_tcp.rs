//! `steer-tcp`: bulk TCP through the gateway's TC form on veth, against the
//! kernel's masquerade on the same kind of devices.
//!
//! Every offload is on, as between local hosts, containers and bridges: senders
//! give the gateway segments of 64 KB whose checksums are still to be made. Both
//! gateways stand in the same topology, with the server at the other end of the
//! WAN; the same hosts send with one iperf3 stream. Sender, gateway and receiver share the machine's cores, so the figure
//! is that of the whole machine, not of the gateway alone.

use std::{net::SocketAddr, time::Duration};

use anyhow::{Result, ensure};

use super::{
    Bench,
    comparison::{Rated, Rounds, worst},
    report::{Better, Headline, Report, Row, figure},
};
use crate::lab::{
    Gateway, GatewayConfig, KernelGateway, KernelRouting, Lab, LabSpec,
    address::{provider4, wan4},
    traffic::{EchoServer, EchoStream, Iperf, IperfReport, IperfServer},
};

/// This benchmark in the registry.
pub(super) const BENCH: Bench = Bench {
    name: "steer-tcp",
    about: "bulk TCP through the TC hook against Linux masquerade, bits per second",
    run,
};

/// What the worse direction's ratio ought to be at least.
const TARGET: f64 = 1.1;
/// Repetitions of each direction; an odd number has a middle.
const ROUNDS: usize = 9;
/// Length of one run in seconds: all of them take about two minutes.
const SECONDS: u32 = 3;
/// How long a connection may take.
const PATIENCE: Duration = Duration::from_secs(5);
/// Where iperf3 listens.
const PORT: u16 = 5201;
/// Where the server listens that says by which address it is seen.
const WHO_PORT: u16 = 7;

const OURS: usize = 0;
const KERNEL: usize = 1;

/// What stands in the middle of a lane.
enum Middle {
    Ours(Box<Gateway>),
    Kernel { _nat: KernelGateway },
}

/// A lab with a gateway and a server in it.
struct Lane {
    middle: Middle,
    server: IperfServer,
    // Last: what runs in the lab goes before it.
    lab: Lab,
}

impl Lane {
    fn new(start: impl FnOnce(&Lab) -> Result<Middle>) -> Result<Self> {
        let lab = Lab::new(&LabSpec::direct(1).with_offloads())?;
        let middle = start(&lab)?;
        // Next to the gateway: a router behind it would cost both lanes the same and
        // make them look alike.
        let server = IperfServer::start(lab.isp(0), SocketAddr::new(provider4(0).into(), PORT))?;
        let lane = Self { middle, server, lab };
        lane.prove_translation()?;
        Ok(lane)
    }

    fn ours(lab: &Lab) -> Result<Middle> {
        let config = GatewayConfig::new(lab).with("hook", "tcx");
        let gateway = Gateway::start(lab, &config)?;
        let status = gateway.api().status()?;
        let lan = status.lan.iter().map(|lan| &lan.hook);
        for hook in lan.chain(status.wans.iter().map(|wan| &wan.hook)) {
            ensure!(hook.as_deref() == Some("tcx"), "a device is in hook {hook:?}: {status:#?}");
        }
        Ok(Middle::Ours(Box::new(gateway)))
    }

    fn kernel(lab: &Lab) -> Result<Middle> {
        Ok(Middle::Kernel { _nat: KernelGateway::start(lab, KernelRouting::First)? })
    }

    /// Fails unless the server sees the WAN's address.
    fn prove_translation(&self) -> Result<()> {
        let address = SocketAddr::new(provider4(0).into(), WHO_PORT);
        let server = EchoServer::start(self.lab.isp(0), address)?;
        let stream = EchoStream::connect(self.lab.host(), server.address(), PATIENCE)?;
        let seen = stream.seen_as().ip();
        ensure!(seen == wan4(0), "the server sees {seen}, not {}", wan4(0));
        Ok(())
    }

    /// One run. That the traffic went through the data plane is proved by its
    /// counters, not assumed.
    fn measure(&mut self, way: Way) -> Result<IperfReport> {
        let before = self.carried(way)?;
        let iperf = match way {
            Way::Up => Iperf::tcp(SECONDS),
            Way::Down => Iperf::tcp(SECONDS).reversed(),
        };
        let report = iperf.run(self.lab.host(), &self.server)?;
        if let (Some(before), Some(after)) = (before, self.carried(way)?) {
            let carried = after - before;
            ensure!(
                carried >= report.received_bytes,
                "the data plane counted {carried} bytes, {} arrived",
                report.received_bytes
            );
        }
        if let Middle::Ours(gateway) = &mut self.middle {
            ensure!(gateway.process().is_running()?, "the agent has ended:\n{}", gateway.log());
        }
        Ok(report)
    }

    /// TCP bytes that our data plane has forwarded; `None` of the kernel.
    fn carried(&self, way: Way) -> Result<Option<u64>> {
        let Middle::Ours(gateway) = &self.middle else { return Ok(None) };
        let direction = match way {
            Way::Up => "out",
            Way::Down => "in",
        };
        let rows = gateway.api().counters()?;
        let forwarded = rows.iter().filter(|row| {
            row.direction == direction && row.reason == "forwarded" && row.protocol == "tcp4"
        });
        Ok(Some(forwarded.map(|row| row.bytes).sum()))
    }
}

/// Which way the bulk goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Way {
    Up,
    Down,
}

impl Way {
    const BOTH: [Way; 2] = [Way::Up, Way::Down];

    fn name(self) -> &'static str {
        match self {
            Way::Up => "up",
            Way::Down => "down",
        }
    }
}

fn run(_object: &[u8]) -> Result<Report> {
    eprintln!("{}: building two lanes", BENCH.name);
    let mut lanes = [Lane::new(Lane::ours)?, Lane::new(Lane::kernel)?];
    let mut results = Vec::new();
    for way in Way::BOTH {
        // One of each that does not count: page pools, CPU caches, TCP metrics.
        for lane in &mut lanes {
            lane.measure(way)?;
        }
        let rounds = Rounds::measure(&mut lanes, ROUNDS, |lane| lane.measure(way))?;
        eprintln!("{}: {}: {:.2}", BENCH.name, way.name(), rounds.ratio());
        results.push(Comparison { way, rounds });
    }
    Ok(Report {
        bench: BENCH.name,
        headline: Headline {
            name: "worse direction's ratio of TCP throughput, gateway to Linux masquerade"
                .to_owned(),
            value: worst(results.iter().map(|result| result.rounds.ratio())),
            target: TARGET,
            better: Better::Higher,
        },
        rows: results.iter().map(Comparison::row).collect(),
    })
}

/// The repetitions of one direction.
struct Comparison {
    way: Way,
    rounds: Rounds<IperfReport, 2>,
}

impl Comparison {
    fn row(&self) -> Row {
        let rounds = &self.rounds;
        let gigabits = |lane: usize| figure(rounds.rate(lane) / 1e9, 2);
        let sent_again = |lane: usize| {
            let each = |report: &IperfReport| report.retransmits.map_or(f64::NAN, |n| n as f64);
            figure(rounds.of_lane(lane, each), 0)
        };
        Row(vec![
            ("direction", self.way.name().into()),
            ("ours_gbit", gigabits(OURS)),
            ("kernel_gbit", gigabits(KERNEL)),
            ("ratio", figure(rounds.ratio(), 2)),
            ("spread_percent", figure(rounds.spread(), 1)),
            ("ours_retransmits", sent_again(OURS)),
            ("kernel_retransmits", sent_again(KERNEL)),
            ("rounds", rounds.len().into()),
        ])
    }
}

impl Rated for IperfReport {
    fn rate(&self) -> f64 {
        self.received_rate
    }
}
