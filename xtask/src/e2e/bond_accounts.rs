//! What is sent into a bond is delivered, lost, or counted under a reason; and what each
//! path loses is known to the packet.

use std::{
    net::SocketAddr,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use mwb_common::reason::Reason;

use super::{
    Case, Lane,
    bond_scene::{BondScene, End, bonded},
    checks,
};
use crate::lab::{
    Direction, Lab, LabSpec,
    address::BOND_PORT,
    is_emulated,
    traffic::{UdpServer, UdpStream},
    wait_until,
};

const PATHS: usize = 8;
/// Reasons under which an end counts what it sends by a path.
const SENT: [Reason; 3] = [Reason::Bonded, Reason::ProbeSent, Reason::ProbeReflected];
/// Reasons under which it counts what it has taken from one.
const TAKEN: [Reason; 4] =
    [Reason::ToDevice, Reason::Unbonded, Reason::ProbeReflected, Reason::ProbeAnswered];

pub(super) fn cases() -> Vec<Case> {
    vec![bonded(
        Lane::Alone,
        "every_packet_of_eight_lossy_paths_is_accounted_for",
        || LabSpec::direct(PATHS),
        |config| config.with_gateway("balance", "round_robin"),
        every_packet_is_accounted_for,
    )]
}

/// Packets by path, and by reason, as both ends have them.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Books {
    /// Sent and taken by each path, the gateway's first.
    paths: [Vec<(u64, u64)>; 2],
    /// Under [`SENT`] and [`TAKEN`].
    sent: [u64; 2],
    taken: [u64; 2],
}

impl Books {
    fn read(scene: &BondScene) -> Result<Self> {
        let paths = |end: End| -> Result<Vec<(u64, u64)>> {
            let path = |wan| scene.path(end, wan).map(|path| path.state);
            (0..PATHS).map(path).map(|state| state.map(|s| (s.sent, s.received))).collect()
        };
        let count = |end: End, reasons: &[Reason]| -> Result<u64> {
            let tables = scene.tables(end)?;
            reasons.iter().map(|&reason| tables.counted(reason)).sum()
        };
        Ok(Self {
            paths: [paths(End::Gateway)?, paths(End::Server)?],
            sent: [count(End::Gateway, &SENT)?, count(End::Server, &SENT)?],
            taken: [count(End::Gateway, &TAKEN)?, count(End::Server, &TAKEN)?],
        })
    }

    /// When nothing is on its way any more.
    fn settled(scene: &BondScene) -> Result<Self> {
        let mut last = (Self::read(scene)?, Instant::now());
        wait_until("nothing is on its way", Duration::from_secs(10), || {
            let now = Self::read(scene)?;
            if now != last.0 {
                last = (now, Instant::now());
            }
            Ok(last.1.elapsed() > Duration::from_millis(400))
        })?;
        Ok(last.0)
    }
}

fn every_packet_is_accounted_for(scene: &mut BondScene) -> Result<()> {
    for end in End::BOTH {
        let what = format!("all paths have a share at the {end:?}");
        wait_until(&what, Duration::from_secs(5), || {
            Ok(scene.tables(end)?.shared()?.len() == PATHS)
        })?;
    }
    // Without agents nothing is sent but what traffic makes, and no handshake begins.
    scene.gateway.kill()?;
    scene.server.kill()?;
    let before = Books::settled(scene)?;
    for wan in 0..PATHS {
        lose(&scene.lab, wan, 10 * (wan as u64 + 1))?;
    }
    let count = if is_emulated() { 2_000 } else { 12_000 };
    let (mut there, mut back) = (0, 0);
    for to in checks::FAMILIES {
        let server = UdpServer::start(scene.lab.net(), SocketAddr::new(to, 7))?;
        let stream = UdpStream::new(count, Duration::from_micros(200));
        let report = stream.run(scene.lab.host(), &server)?;
        let echoes = report.back.context("echoes were asked for")?;
        ensure!(report.there.duplicated + echoes.duplicated == 0, "duplicates: {report:?}");
        ensure!(report.there.lost > 0 && echoes.lost > report.there.lost, "no loss: {report:?}");
        there += report.there.received;
        back += echoes.received;
    }
    let after = Books::settled(scene)?;

    let grown = |end: usize, wan: usize| {
        let ((sent, taken), (sent_before, taken_before)) =
            (after.paths[end][wan], before.paths[end][wan]);
        (sent - sent_before, taken - taken_before)
    };
    let mut dropped_in_all = 0;
    for wan in 0..PATHS {
        for (from, to, direction) in [(0, 1, Direction::Up), (1, 0, Direction::Down)] {
            let (sent, taken) = (grown(from, wan).0, grown(to, wan).1);
            let dropped = dropped(&scene.lab, wan, direction)?;
            ensure!(dropped > 0, "WAN {wan} lost nothing {direction:?}");
            ensure!(
                sent - taken == dropped,
                "WAN {wan} {direction:?}: {sent} sent, {taken} taken, {dropped} dropped on the way"
            );
            dropped_in_all += dropped;
        }
    }
    // The counters say the same as the paths.
    for end in 0..2 {
        let all = |side: fn((u64, u64)) -> u64| -> u64 {
            (0..PATHS).map(|wan| side(grown(end, wan))).sum()
        };
        let (sent, taken) =
            (after.sent[end] - before.sent[end], after.taken[end] - before.taken[end]);
        ensure!(all(|(sent, _)| sent) == sent, "end {end}: {sent} counted as sent: {after:?}");
        ensure!(all(|(_, taken)| taken) == taken, "end {end}: {taken} counted as taken: {after:?}");
    }
    // And what came out is what arrived.
    let out = |end: End| -> Result<u64> {
        let tables = scene.tables(end)?;
        Ok(tables.counted(Reason::ToDevice)? + tables.counted(Reason::Unbonded)?)
    };
    let (server, gateway) = (out(End::Server)?, out(End::Gateway)?);
    ensure!(server >= there && gateway >= back, "{server} and {gateway} came out");
    ensure!(dropped_in_all > 100, "only {dropped_in_all} dropped");
    Ok(())
}

/// Lets a provider drop so many of a thousand packets of the bond, and count them.
pub(super) fn lose(lab: &Lab, wan: usize, part: u64) -> Result<()> {
    lab.isp(wan).nft(&format!(
        "table inet lossy {{\n  counter up {{}}\n  counter down {{}}\n  chain forward {{\n    \
         type filter hook forward priority 0;\n    \
         iifname \"gw0\" udp dport {BOND_PORT} numgen random mod 1000 < {part} counter name up drop\n    \
         iifname \"up0\" udp sport {BOND_PORT} numgen random mod 1000 < {part} counter name down drop\n  \
         }}\n}}\n"
    ))
}

pub(super) fn dropped(lab: &Lab, wan: usize, direction: Direction) -> Result<u64> {
    let name = match direction {
        Direction::Up => "up",
        Direction::Down => "down",
    };
    let text = lab.isp(wan).run("nft", ["-j", "list", "counter", "inet", "lossy", name])?;
    let rows: serde_json::Value = serde_json::from_str(&text).context("nft gave no JSON")?;
    let rows = rows["nftables"].as_array().context("a list")?;
    let packets = rows.iter().find_map(|row| row["counter"]["packets"].as_u64());
    packets.with_context(|| format!("no count in {text}"))
}
