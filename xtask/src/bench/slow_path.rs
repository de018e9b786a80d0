//! `slow-path`: packets that the agent has a hand in against the same that the kernel side
//! sends on alone. A bond of two paths, of which one is a little longer; packets go by them in
//! turn, so that half come ahead of their turn. Then both agents are killed, and the same
//! packets go as they come: that is the peer, in the same lab.
//!
//! And what it takes to make parity, against the bare code.

use std::{
    net::SocketAddrV4,
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, anyhow, ensure};
use serde_json::{Value, json};

use super::{
    Bench,
    frames::{self, Endpoints},
    lane::mac_of,
    report::{Better, Headline, Report, Row, figure},
    sink::Sink,
};
use crate::{
    exec,
    lab::{
        BondConfig, BondTables, Gateway, Lab, LabSpec, Process, Server,
        address::{HOST4, NET4},
        raw::RawSocket,
        wait_until,
    },
    setup, workspace,
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
const LENGTH: Duration = Duration::from_secs(2);
/// Longest time that building the figures of the code may take.
const LIMIT: Duration = Duration::from_secs(10 * 60);
/// How long a bond may take to come up, or a lease to end.
const PATIENCE: Duration = Duration::from_secs(20);
/// Bytes of frames.
const SIZES: [usize; 2] = [64, 1400];
/// Flows.
const FLOWS: usize = 16;
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

#[derive(Clone, Copy, Debug)]
struct Measured {
    /// Packets per second, with agents and without.
    agents: f64,
    alone: f64,
    /// Part of what arrived that the server's agent had.
    ahead: f64,
    /// CPU time of both agents, in seconds for each Gbit that arrived.
    cpu: f64,
}

impl Measured {
    fn row(&self, what: &str) -> Row {
        Row(vec![
            ("what", what.into()),
            ("agents", figure(self.agents, 0)),
            ("peer", figure(self.alone, 0)),
            ("ratio", figure(self.agents / self.alone, 2)),
            ("ahead_percent", figure(self.ahead * 100.0, 0)),
            ("agents_cpu_s_per_gbit", figure(self.cpu, 2)),
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

fn measure(object: &[u8], repair: Option<&str>, bytes: usize) -> Result<Measured> {
    let lab = Lab::new(&LabSpec::direct(1).and_relayed().with_server())?;
    let config = configured(&lab, repair)?;
    let mut server = Server::launch(&lab, &config.server)?;
    let mut gateway = Gateway::launch(&lab, &config.gateway)?;
    wait_until("the bond lives at both ends", PATIENCE, || {
        let living = [BondTables::open(&gateway)?.living()?, BondTables::open(&server)?.living()?];
        ensure!(living == [2, 2], "{living:?} live");
        Ok(true)
    })?;
    let ahead = |server: &Server| -> Result<u64> {
        let rows = server.api().counters()?;
        Ok(rows.iter().filter(|row| row.reason == "ahead").map(|row| row.packets).sum())
    };
    let (spent, before) = (cpu(gateway.process())? + cpu(server.process())?, ahead(&server)?);
    let (arrived, took) = flood(&lab, object, bytes)?;
    let spent = cpu(gateway.process())? + cpu(server.process())? - spent;
    let ahead = (ahead(&server)? - before) as f64 / arrived as f64;
    let bits = arrived as f64 * bytes as f64 * 8.0;
    gateway.kill()?;
    server.kill()?;
    // What the lease still has.
    thread::sleep(LENGTH / 8);
    let (alone, alone_took) = flood(&lab, object, bytes)?;
    Ok(Measured {
        agents: arrived as f64 / took.as_secs_f64(),
        alone: alone as f64 / alone_took.as_secs_f64(),
        ahead,
        cpu: spent.as_secs_f64() / (bits / 1e9),
    })
}

/// As many packets as the host can send: how many arrive, and in what time.
fn flood(lab: &Lab, object: &[u8], bytes: usize) -> Result<(u64, Duration)> {
    let macs = (mac_of(lab.host(), "lan0")?, mac_of(lab.gw(), "lan0")?);
    let frame = |flow: usize| {
        let endpoints = Endpoints {
            source: SocketAddrV4::new(HOST4, 20_000 + flow as u16),
            destination: SocketAddrV4::new(NET4, 9),
        };
        frames::build(flow, macs, endpoints, bytes)
    };
    let frames: Vec<Vec<u8>> =
        (0..4 * FLOWS).map(|number| frame(number % FLOWS)).collect::<Result<_>>()?;
    let sink = Sink::new(object, lab.net(), "srv0")?;
    let socket = lab.host().enter(|| RawSocket::open("lan0"))?;
    let stop = AtomicBool::new(false);
    thread::scope(|scope| {
        let sender = scope.spawn(|| -> Result<()> {
            while !stop.load(Ordering::Relaxed) {
                socket.send(&frames)?;
            }
            Ok(())
        });
        // Queues first.
        thread::sleep(LENGTH / 8);
        let (start, before) = (Instant::now(), sink.taken()?);
        thread::sleep(LENGTH);
        let (arrived, took) = (sink.taken()? - before, start.elapsed());
        stop.store(true, Ordering::Relaxed);
        sender.join().map_err(|_| anyhow!("the sender panicked"))??;
        ensure!(arrived > 0, "nothing arrives");
        Ok((arrived, took))
    })
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
    let mut command = workspace::cargo(&setup::ensure()?.toolchain)?;
    command.args(["bench", "--package", "mwb-agent", "--bench", "parity"]);
    let mut text = String::new();
    exec::watch("cargo bench", &mut command, LIMIT, |line| {
        text.push_str(line);
        text.push('\n');
    })?;
    let figure = |name: &str| -> Result<f64> {
        let line = text.lines().find_map(|line| line.strip_prefix(name));
        Ok(line.with_context(|| format!("no figure `{name}`"))?.trim().parse()?)
    };
    Ok((figure("encoder")?, figure("bare")?))
}
