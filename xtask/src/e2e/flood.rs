//! Nobody outside can use anything up: a SYN flood from many addresses and a scan
//! of every port, beside a stream and a connection that must not notice.

use std::{
    net::{Ipv4Addr, SocketAddr},
    thread,
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};

use super::{
    Case, Lane,
    packets::{self, flag},
    port::Port,
    scene::{Scene, both_hooks},
};
use crate::lab::{
    LabSpec,
    address::{NET4, wan4},
    is_emulated,
    traffic::{EchoServer, EchoStream, UdpRun, UdpServer, UdpStream},
    wait_until,
};

const PATIENCE: Duration = Duration::from_secs(5);
/// Tables that may not grow.
const TABLES: [&str; 5] = ["FLOWS4", "FLOWS6", "MAPPINGS", "PORTS", "CONTACTS"];
/// SYNs, each from another place to another port.
const FLOOD: u32 = 40_000;
/// How many packets are sent before it is looked how everything is.
const CHUNK: usize = 8192;
/// How many are sent at once.
const BURST: usize = 32;
/// By how much the agent may grow meanwhile, in KiB: ten bytes for each of the
/// 163,000 packets after the first chunk would be more.
const ROOM: u64 = 1536;

pub(super) fn cases() -> Vec<Case> {
    both_hooks(
        Lane::Alone,
        "a_flood_from_a_wan_takes_no_memory_and_no_flow",
        || LabSpec::direct(1),
        |config| config,
        a_flood_hurts_nobody,
    )
}

/// A SYN from addresses that nobody has, to ports all over.
fn syn(number: u32) -> Result<Vec<u8>> {
    let [_, a, b, c] = number.to_be_bytes();
    let from = (Ipv4Addr::new(203, 0, 113, 128 + c % 64), u16::from_be_bytes([b, a ^ c]).max(1));
    let to = (wan4(0), (number.wrapping_mul(2_654_435_761) >> 16) as u16);
    packets::tcp(from.into(), to.into(), flag::SYN, (number, 0), b"")
}

const SCANNER: (Ipv4Addr, u16) = (Ipv4Addr::new(203, 0, 113, 200), 4444);

fn knock_tcp(port: u16) -> Result<Vec<u8>> {
    packets::tcp(SCANNER.into(), (wan4(0), port).into(), flag::SYN, (port.into(), 0), b"")
}

fn knock_udp(port: u16) -> Result<Vec<u8>> {
    packets::udp(SCANNER.into(), (wan4(0), port).into(), b"anybody?")
}

/// What runs beside the flood.
struct Beside {
    stream: UdpRun,
    kept: EchoStream,
    _servers: (UdpServer, EchoServer),
}

impl Beside {
    fn start(scene: &Scene) -> Result<Self> {
        let udp = UdpServer::start(scene.lab.net(), SocketAddr::from((NET4, 7)))?;
        let tcp = EchoServer::start(scene.lab.net(), SocketAddr::from((NET4, 7)))?;
        let kept = EchoStream::connect(scene.lab.host(), tcp.address(), PATIENCE)?;
        let stream = UdpStream::new(1_000_000, Duration::from_millis(2));
        let stream = stream.start(scene.lab.host(), &udp)?;
        wait_until("datagrams arrive", PATIENCE, || Ok(stream.report().there.received > 50))?;
        Ok(Self { stream, kept, _servers: (udp, tcp) })
    }

    /// Both go on.
    fn goes_on(&mut self) -> Result<()> {
        let before = self.stream.report().back.context("echoes were asked for")?.received;
        wait_until("echoes come", Duration::from_secs(2), || {
            let back = self.stream.report().back.context("echoes were asked for")?;
            Ok(back.received > before)
        })?;
        self.kept.exchange(b"still here").map(drop)
    }
}

/// No table grows, nor does the agent, and what runs beside goes on all the time.
fn a_flood_hurts_nobody(scene: &mut Scene) -> Result<()> {
    let mut beside = Beside::start(scene)?;
    // The agent takes memory for what it does every few seconds when it does it first.
    scene
        .gateway
        .wait_for_status("flows are counted", PATIENCE * 3, |status| status.nat.flows4 > 0)?;
    let sizes = |scene: &Scene| -> Result<Vec<usize>> {
        TABLES.iter().map(|table| scene.entries(table)).collect()
    };
    // Answers to probes are of other protocols.
    let refused = |scene: &Scene| {
        scene.packets(|row| {
            row.direction == "in"
                && row.verdict != "forward"
                && ["tcp4", "udp4"].contains(&row.protocol.as_str())
        })
    };
    let before = sizes(scene)?;
    let mut counted = refused(scene)?;
    let mut memory = None;
    // A pace that leaves the machine to others too.
    let pause = Duration::from_micros(if is_emulated() { 3000 } else { 300 });
    let wan = Port::between((scene.lab.isp(0), "gw0"), (scene.lab.gw(), "wan0"))?;
    let flood = (0..FLOOD).map(syn).collect::<Result<Vec<_>>>()?;
    let tcp = (1..=u16::MAX).map(knock_tcp).collect::<Result<Vec<_>>>()?;
    let udp = (1..=u16::MAX).map(knock_udp).collect::<Result<Vec<_>>>()?;
    for (what, packets) in [("a SYN flood", flood), ("a scan of TCP", tcp), ("a scan of UDP", udp)]
    {
        for chunk in packets.chunks(CHUNK) {
            for burst in chunk.chunks(BURST) {
                wan.send(burst)?;
                thread::sleep(pause);
            }
            counted += chunk.len() as u64;
            wait_until("all are refused and counted", PATIENCE, || {
                let now = refused(scene)?;
                ensure!(now == counted, "{now} were, not {counted}");
                Ok(true)
            })
            .context(what)?;
            beside.goes_on().context(what)?;
            match memory {
                Some(memory) => has_not_grown(scene, memory).context(what)?,
                None => memory = Some(scene.resident()?),
            }
        }
        let after = sizes(scene)?;
        ensure!(after == before, "{what}: {TABLES:?} had {before:?} entries, and have {after:?}");
    }
    // The agent has looked at all tables since, when it knows this one.
    let known = scene.gateway.api().status()?.nat.flows4;
    let _another = EchoStream::connect(scene.lab.host(), (NET4, 7).into(), PATIENCE)?;
    scene.gateway.wait_for_status("another flow is counted", PATIENCE * 3, |status| {
        status.nat.flows4 > known
    })?;
    has_not_grown(scene, memory.context("nothing was sent")?)?;
    let report = beside.stream.stop()?;
    let back = report.back.context("echoes were asked for")?;
    ensure!(report.there.lost + back.lost == 0, "the flood cost datagrams: {report:?}");
    ensure!(report.sources.len() == 1, "the flow moved: {report:?}");
    Ok(())
}

fn has_not_grown(scene: &mut Scene, memory: u64) -> Result<()> {
    let grown = scene.resident()?.saturating_sub(memory);
    ensure!(grown < ROOM, "the agent has grown by {grown} KiB");
    Ok(())
}
