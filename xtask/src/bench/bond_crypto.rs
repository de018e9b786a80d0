//! `bond-crypto`: an encrypted bond against WireGuard in user space (boringtun), over one
//! unshaped path: what a TCP download gets, and how many packets come through when more
//! are sent than fit.
//!
//! Sender, both tunnels' ends and receiver share the machine's cores. A bond's server
//! translates addresses besides; boringtun's only routes.

use std::{
    net::SocketAddrV4,
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Result, anyhow, ensure};

use super::{
    Bench,
    boringtun::{self, Boringtun},
    frames::{self, Endpoints},
    lane::mac_of,
    report::{Better, Headline, Report, Row, figure},
    sink::Sink,
    stats::{median, spread},
};
use crate::lab::{
    BondConfig, BondTables, Gateway, Lab, LabSpec, Server,
    address::{HOST4, NET4},
    raw::RawSocket,
    traffic::{Transport, download, ping},
    wait_until,
};

/// This benchmark in the registry.
pub(super) const BENCH: Bench = Bench {
    name: "bond-crypto",
    about: "an encrypted bond of one path against boringtun, TCP and packets per second",
    run,
};

/// What the worst ratio ought to be at least.
const TARGET: f64 = 2.0;
/// Repetitions; an odd number has a middle.
const ROUNDS: usize = 5;
/// Length of one.
const LENGTH: Duration = Duration::from_secs(2);
/// How long a tunnel may take to come up.
const PATIENCE: Duration = Duration::from_secs(20);
/// Bytes of frames for packets per second.
const SIZES: [usize; 2] = [64, 1400];

/// What is in the middle of a lane.
enum Tunnel {
    Bond { _gateway: Box<Gateway>, _server: Box<Server> },
    Boringtun { _tunnel: Box<Boringtun> },
}

/// A lab with a tunnel in it.
struct Lane {
    _tunnel: Tunnel,
    // Last: what runs in the lab goes before it.
    lab: Lab,
}

impl Lane {
    fn bond() -> Result<Self> {
        let lab = Lab::new(&LabSpec::direct(1).with_server())?;
        let config = BondConfig::new(&lab)?;
        let server = Server::launch(&lab, &config.server)?;
        let gateway = Gateway::launch(&lab, &config.gateway)?;
        wait_until("the bond lives at both ends", PATIENCE, || {
            Ok(BondTables::open(&gateway)?.living()? == 1
                && BondTables::open(&server)?.living()? == 1)
        })?;
        Self::proved(lab, Tunnel::Bond { _gateway: Box::new(gateway), _server: Box::new(server) })
    }

    /// With the hosts' offloads on, which a tunnel in user space gains by.
    fn boringtun() -> Result<Self> {
        let lab = Lab::new(&LabSpec::direct(1).with_server().with_offloads())?;
        let tunnel = Boringtun::start(&lab)?;
        Self::proved(lab, Tunnel::Boringtun { _tunnel: Box::new(tunnel) })
    }

    fn proved(lab: Lab, tunnel: Tunnel) -> Result<Self> {
        wait_until("the Internet is reached through the tunnel", PATIENCE, || {
            Ok(ping(lab.host(), NET4.into(), 1, Duration::ZERO, &[])?.received == 1)
        })?;
        Ok(Self { _tunnel: tunnel, lab })
    }

    /// Bits per second of a download.
    fn goodput(&self) -> Result<f64> {
        let Self { lab, .. } = self;
        let nothing = || Ok(());
        let to = NET4.into();
        Ok(download(lab.host(), lab.net(), to, Transport::Tcp, None, LENGTH, nothing)?.rate())
    }

    /// Packets per second that arrive of as many as the host can send.
    fn rate(&self, object: &[u8], bytes: usize) -> Result<f64> {
        let Self { lab, .. } = self;
        let macs = (mac_of(lab.host(), "lan0")?, mac_of(lab.gw(), "lan0")?);
        let endpoints = Endpoints {
            source: SocketAddrV4::new(HOST4, 20_000),
            destination: SocketAddrV4::new(NET4, 9),
        };
        let frame = frames::build(0, macs, endpoints, bytes)?;
        let sink = Sink::new(object, lab.net(), "srv0")?;
        let socket = lab.host().enter(|| RawSocket::open("lan0"))?;
        let frames = vec![frame; 64];
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
            thread::sleep(LENGTH / 2);
            let arrived = sink.taken()? - before;
            let took = start.elapsed();
            stop.store(true, Ordering::Relaxed);
            sender.join().map_err(|_| anyhow!("the sender panicked"))??;
            ensure!(arrived > 0, "nothing arrives");
            Ok(arrived as f64 / took.as_secs_f64())
        })
    }
}

/// What is compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum What {
    Download,
    Packets(usize),
}

impl What {
    fn name(self) -> String {
        match self {
            What::Download => "TCP download, Mbit/s".to_owned(),
            What::Packets(bytes) => format!("packets per second, {bytes} bytes"),
        }
    }

    fn measure(self, lane: &Lane, object: &[u8]) -> Result<f64> {
        match self {
            What::Download => Ok(lane.goodput()? / 1e6),
            What::Packets(bytes) => lane.rate(object, bytes),
        }
    }
}

fn run(object: &[u8]) -> Result<Report> {
    boringtun::program()?;
    let (bond, peer) = (Lane::bond()?, Lane::boringtun()?);
    let mut rows = Vec::new();
    let mut worst = f64::INFINITY;
    for what in [What::Download, What::Packets(SIZES[0]), What::Packets(SIZES[1])] {
        let mut rounds = Vec::new();
        for round in 0..ROUNDS {
            rounds.push(if round % 2 == 0 {
                let first = what.measure(&bond, object)?;
                (first, what.measure(&peer, object)?)
            } else {
                let first = what.measure(&peer, object)?;
                (what.measure(&bond, object)?, first)
            });
        }
        let ratio = median(rounds.iter().map(|(bond, peer)| bond / peer));
        eprintln!("{}: {}: {ratio:.2}", BENCH.name, what.name());
        worst = worst.min(ratio);
        rows.push(Row(vec![
            ("what", what.name().as_str().into()),
            ("bond", figure(median(rounds.iter().map(|(bond, _)| *bond)), 0)),
            ("boringtun", figure(median(rounds.iter().map(|(_, peer)| *peer)), 0)),
            ("ratio", figure(ratio, 2)),
            ("spread_percent", figure(spread(rounds.iter().map(|(bond, peer)| bond / peer)), 1)),
        ]));
    }
    Ok(Report {
        bench: BENCH.name,
        headline: Headline {
            name: "worst ratio, bond with chacha20poly1305 to boringtun".to_owned(),
            value: (worst * 100.0).round() / 100.0,
            target: TARGET,
            better: Better::Higher,
        },
        rows,
    })
}
