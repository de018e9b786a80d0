//! `slow-path`: how many packets come through that the agent has a hand in, against as many
//! that the kernel side sends on alone. A bond of two paths, of which one is a little longer;
//! packets go by them in turn, so that many come ahead of their turn. Then both agents are
//! killed, and the same packets go as they come: that is the peer, in the same lab.
//!
//! And what it takes to make parity, against the bare code.

use std::{
    net::SocketAddrV4,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use serde_json::{Value, json};

use super::{
    Bench, code,
    frames::{self, Endpoints},
    lane::mac_of,
    report::{Better, Headline, Report, Row, figure},
    sink::Sink,
};
use crate::lab::{
    BondConfig, BondTables, Gateway, Lab, LabSpec, LinkSpec, Process, Server, Shape,
    address::{HOST4, NET4},
    raw::RawSocket,
    wait_until,
};

/// This benchmark in the registry.
pub(super) const BENCH: Bench = Bench {
    name: "slow-path",
    about: "packets that the agent reorders, repeats or has parity for, against the kernel side",
    run,
};

/// How many times what the bare code takes a block may take at most.
const TARGET: f64 = 3.0;
/// Length of a measurement.
const LENGTH: Duration = Duration::from_secs(1);
/// Between two.
const PAUSE: Duration = Duration::from_millis(250);
/// Packets per second that are offered, one rate after the other.
const RATES: [usize; 8] = [8_000, 12_000, 18_000, 27_000, 40_000, 60_000, 90_000, 135_000];
/// Batches of them in a second.
const PER_SECOND: usize = 500;
/// A rate comes through if this part of it arrives.
const WHOLE: f64 = 0.995;
/// How long the two paths are.
const DELAYS: [Duration; 2] = [Duration::ZERO, Duration::from_millis(3)];
/// How long a bond may take to come up, or a lease to end.
const PATIENCE: Duration = Duration::from_secs(20);
/// Bytes of frames.
const SIZES: [usize; 2] = [64, 1300];
/// Flows: an odd number, or each would stay on one of two paths.
const FLOWS: usize = 15;
/// A block: packets of data and of parity.
const BLOCK: (usize, usize) = (32, 4);

/// What the agent does.
const WORK: [(&str, Option<&str>); 3] = [
    ("puts in order", None),
    ("and sends again", Some("retransmit")),
    ("and has parity", Some("fec")),
];

fn run(object: &[u8]) -> Result<Report> {
    let encoding = encoding()?;
    let mut rows = vec![Row(vec![
        ("what", "parity of 32 packets of 1,400 bytes (4), ns".into()),
        ("agents", figure(encoding.0, 0)),
        ("peer", figure(encoding.1, 0)),
        ("ratio", figure(encoding.0 / encoding.1, 2)),
    ])];
    for (work, repair) in WORK {
        for bytes in SIZES {
            let measured = measure(object, repair, bytes).with_context(|| work)?;
            eprintln!("{}: {work}, {bytes} bytes: {measured:?}", BENCH.name);
            rows.push(measured.row(&format!("{work}, packets per second of {bytes} bytes")));
        }
    }
    Ok(Report {
        bench: BENCH.name,
        headline: Headline {
            name: "making parity, times what the bare code takes".to_owned(),
            value: (encoding.0 / encoding.1 * 100.0).round() / 100.0,
            target: TARGET,
            better: Better::Lower,
        },
        rows,
    })
}

/// What came of one measurement.
#[derive(Clone, Copy, Debug, Default)]
struct Load {
    /// Packets per second, sent and arrived.
    offered: f64,
    arrived: f64,
    /// Part of what arrived that the server's agent had.
    ahead: f64,
    /// CPU time of both agents, in seconds for each Gbit that arrived.
    cpu: f64,
}

#[derive(Clone, Copy, Debug)]
struct Measured {
    /// The most that came through, with agents and without.
    agents: Load,
    alone: Load,
}

impl Measured {
    fn row(&self, what: &str) -> Row {
        Row(vec![
            ("what", what.into()),
            ("agents", figure(self.agents.arrived, 0)),
            ("peer", figure(self.alone.arrived, 0)),
            ("ratio", figure(self.agents.arrived / self.alone.arrived, 2)),
            ("ahead_percent", figure(self.agents.ahead * 100.0, 0)),
            ("agents_cpu_s_per_gbit", figure(self.agents.cpu, 2)),
        ])
    }
}

fn rules(repair: Option<&str>) -> Value {
    let Some(repair) = repair else { return json!([]) };
    json!([{"class": "auto", "protocol": "udp", "repair": repair}])
}

fn configured(lab: &Lab, repair: Option<&str>) -> Result<BondConfig> {
    let config = BondConfig::new(lab)?
        .with_gateway("balance", "round_robin")
        .with_gateway("classes.rules", rules(repair))
        .with_server("classes.rules", rules(repair));
    if repair != Some("fec") {
        return Ok(config);
    }
    let (block, parity) = BLOCK;
    let fec = json!({"block": block, "parity": parity});
    Ok(config.with_gateway("fec", fec.clone()).with_server("fec", fec))
}

/// Both agents and what they are at work in.
struct Bond {
    gateway: Gateway,
    server: Server,
    // Last: what runs in the lab goes before it.
    lab: Lab,
}

fn measure(object: &[u8], repair: Option<&str>, bytes: usize) -> Result<Measured> {
    let link = |delay| LinkSpec { delay, ..LinkSpec::default() };
    let shape = |delay| Shape { up: link(delay), down: link(delay), ..Shape::default() };
    let lab = Lab::new(&LabSpec::shaped(DELAYS.map(shape)).with_server())?;
    let config = configured(&lab, repair)?;
    let server = Server::launch(&lab, &config.server)?;
    let gateway = Gateway::launch(&lab, &config.gateway)?;
    let mut bond = Bond { gateway, server, lab };
    wait_until("the bond lives at both ends", PATIENCE, || {
        let ends = [BondTables::open(&bond.gateway)?, BondTables::open(&bond.server)?];
        let living = [ends[0].living()?, ends[1].living()?];
        ensure!(living == [2, 2], "{living:?} live");
        Ok(true)
    })?;
    let agents = bond.most(object, bytes, true)?;
    bond.gateway.kill()?;
    bond.server.kill()?;
    // What the lease still has.
    thread::sleep(PAUSE);
    let alone = bond.most(object, bytes, false)?;
    Ok(Measured { agents, alone })
}

impl Bond {
    /// The greatest rate of which nearly all comes through.
    fn most(&mut self, object: &[u8], bytes: usize, agents: bool) -> Result<Load> {
        let mut most = Load::default();
        for rate in RATES {
            let load = self.load(object, bytes, rate, agents)?;
            if load.arrived < WHOLE * load.offered {
                break;
            }
            most = load;
            // What waits in queues.
            thread::sleep(PAUSE);
        }
        ensure!(most.arrived > 0.0, "nothing comes through at {} packets per second", RATES[0]);
        Ok(most)
    }

    fn load(&mut self, object: &[u8], bytes: usize, rate: usize, agents: bool) -> Result<Load> {
        let before = self.spent(agents)?;
        let Self { lab, .. } = self;
        let macs = (mac_of(lab.host(), "lan0")?, mac_of(lab.gw(), "lan0")?);
        let frame = |flow: usize| {
            let endpoints = Endpoints {
                source: SocketAddrV4::new(HOST4, 20_000 + flow as u16),
                destination: SocketAddrV4::new(NET4, 9),
            };
            frames::build(flow, macs, endpoints, bytes)
        };
        let frames: Vec<Vec<u8>> =
            (0..rate / PER_SECOND).map(|number| frame(number % FLOWS)).collect::<Result<_>>()?;
        let sink = Sink::new(object, lab.net(), "srv0")?;
        let socket = lab.host().enter(|| RawSocket::open("lan0"))?;
        let (start, mut sent) = (Instant::now(), 0);
        for batch in 1..=PER_SECOND as u32 * LENGTH.as_secs() as u32 {
            socket.send(&frames)?;
            sent += frames.len();
            let next = start + batch * (Duration::from_secs(1) / PER_SECOND as u32);
            thread::sleep(next.saturating_duration_since(Instant::now()));
        }
        let took = start.elapsed().as_secs_f64();
        thread::sleep(PAUSE);
        let arrived = sink.taken()? as f64;
        let after = self.spent(agents)?;
        let cpu = (after.0 - before.0).as_secs_f64();
        Ok(Load {
            offered: sent as f64 / took,
            arrived: arrived / took,
            ahead: (after.1 - before.1) as f64 / arrived.max(1.0),
            cpu: cpu / (arrived.max(1.0) * bytes as f64 * 8.0 / 1e9),
        })
    }

    /// CPU time of both agents so far, and packets that the server's had.
    fn spent(&mut self, agents: bool) -> Result<(Duration, u64)> {
        if !agents {
            return Ok((Duration::ZERO, 0));
        }
        let time = cpu(self.gateway.process())? + cpu(self.server.process())?;
        let rows = self.server.api().counters()?;
        let ahead = rows.iter().filter(|row| row.reason == "ahead").map(|row| row.packets);
        Ok((time, ahead.sum()))
    }
}

/// CPU time that a process has had (proc(5), stat).
fn cpu(process: &Process) -> Result<Duration> {
    let stat = std::fs::read_to_string(format!("/proc/{}/stat", process.id()))?;
    // The name may have blanks.
    let (_, rest) = stat.rsplit_once(')').context("a name in stat")?;
    let fields: Vec<&str> = rest.split_whitespace().collect();
    let ticks: u64 = [11, 12]
        .into_iter()
        .map(|at: usize| fields.get(at).context("times in stat")?.parse::<u64>().context("a time"))
        .sum::<Result<u64>>()?;
    let per_second = nix::unistd::sysconf(nix::unistd::SysconfVar::CLK_TCK)?.context("a clock")?;
    Ok(Duration::from_secs_f64(ticks as f64 / per_second as f64))
}

/// What parity of a block takes, in ns: the encoder, and the bare code.
fn encoding() -> Result<(f64, f64)> {
    let text = code::figures("parity")?;
    let figure = |name: &str| -> Result<f64> {
        let line = text.lines().find_map(|line| line.strip_prefix(name));
        Ok(line.with_context(|| format!("no figure `{name}`"))?.trim().parse()?)
    };
    Ok((figure("encoder")?, figure("bare")?))
}
