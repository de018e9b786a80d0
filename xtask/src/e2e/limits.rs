//! What is used up is refused and counted, and what is forgotten is given back.

use std::{
    collections::{HashMap, HashSet},
    net::{Ipv4Addr, SocketAddr},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use serde_json::json;

use super::{
    Case, Lane, is_whole,
    packets::{self, ICMP, Packet, TCP, UDP, flag},
    port::Port,
    scene::{Hook, Scene, both_hooks, play},
};
use crate::lab::{
    GatewayConfig, LabSpec,
    address::{HOST4, NET4, wan4},
    wait_until,
};

/// How many flows come and go over time, when it runs whole.
const FLOWS: u64 = 10_000_000;
/// Another host of the LAN.
const PEER4: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 11);

pub(super) fn cases() -> Vec<Case> {
    let mut cases = both_hooks(
        Lane::Alone,
        "65000_mappings_work_at_once_on_one_address",
        || LabSpec::direct(1),
        GatewayConfig::watching_gateways,
        many_mappings_work_at_once,
    );
    cases.extend(both_hooks(
        Lane::Together,
        "a_host_has_as_many_mappings_as_it_may",
        || LabSpec::direct(1),
        |config| {
            config
                .watching_gateways()
                .with("nat.mappings_per_source", 10)
                .with("nat.timeouts", json!({"udp": "1s", "icmp": "1s", "tcp_transitory": "1s"}))
        },
        a_host_has_its_share,
    ));
    for hook in Hook::BOTH {
        cases.push(Case::new(
            Lane::Alone,
            &format!("flows_that_come_and_go_leave_nothing_by_{hook}"),
            move || {
                let flows = if is_whole() { FLOWS } else { FLOWS / 100 };
                let scene = Scene::new(hook, LabSpec::direct(1), |config| {
                    config
                        .watching_gateways()
                        .with("nat.flows", if is_whole() { 1_048_576 } else { 131_072 })
                        .with(
                            "nat.timeouts",
                            json!({"udp": "1s", "icmp": "1s", "tcp_transitory": "1s"}),
                        )
                })?;
                play(scene, |scene| flows_leave_nothing(scene, flows))
            },
        ));
    }
    cases
}

/// An inside endpoint: protocol and port.
type Inside = (u8, u16);

/// Mappings of three protocols at once: the outside endpoints are all different,
/// and what is sent to each comes back to the right inside one.
fn many_mappings_work_at_once(scene: &mut Scene) -> Result<()> {
    const CHUNK: usize = 500;
    let (mut lan, mut wan) = (Port::lan(&scene.lab)?, Port::wan(&scene.lab, 0)?);
    let insides: Vec<Inside> = (0..22_000)
        .flat_map(|number| [(UDP, 1024 + number), (TCP, 1024 + number), (ICMP, number)])
        .take(65_000)
        .collect();
    let mut outside_of: HashMap<Inside, u16> = HashMap::new();
    for chunk in insides.chunks(CHUNK) {
        answered(
            chunk,
            |missing| {
                lan.send(&missing.iter().map(|&one| question(one)).collect::<Result<Vec<_>>>()?)
            },
            || {
                wan.pending(|packet, _| {
                    (packet.to.ip() == NET4).then(|| inside_in(packet).zip(Some(packet.from)))?
                })
            },
            |inside, from| {
                ensure!(from.ip() == wan4(0), "{inside:?} left as {from}");
                ensure!(from.port() >= 10_000, "{inside:?} left by port {}", from.port());
                outside_of.insert(inside, from.port());
                Ok(())
            },
        )?;
    }
    let distinct: HashSet<(u8, u16)> =
        outside_of.iter().map(|(inside, port)| (inside.0, *port)).collect();
    ensure!(
        outside_of.len() == insides.len() && distinct.len() == insides.len(),
        "{} outside endpoints for {} inside ones",
        distinct.len(),
        insides.len()
    );
    // Only when all are there is each proved to be still there.
    for chunk in insides.chunks(CHUNK) {
        answered(
            chunk,
            |missing| {
                let answers: Result<Vec<_>> = missing
                    .iter()
                    .map(|one| answer(*one, outside_of.get(one).copied().context("known")?))
                    .collect();
                wan.send(&answers?)
            },
            || lan.pending(|packet, _| Some((inside_in(packet)?, packet.to))),
            |inside, to| {
                let wanted = SocketAddr::from((HOST4, inside.1));
                ensure!(to == wanted, "what was for {wanted} came to {to}");
                Ok(())
            },
        )?;
    }
    scene
        .gateway
        .wait_for_status("the mappings are all counted", Duration::from_secs(15), |status| {
            status.nat.mappings >= 65_000 && status.nat.flows4 >= 65_000
        })
        .map(drop)
}

/// Sends until each has been heard: what a busy machine loses is sent again.
fn answered(
    all: &[Inside],
    mut send: impl FnMut(&[Inside]) -> Result<()>,
    mut heard: impl FnMut() -> Result<Vec<(Inside, SocketAddr)>>,
    mut check: impl FnMut(Inside, SocketAddr) -> Result<()>,
) -> Result<()> {
    let mut missing = all.to_vec();
    for _ in 0..10 {
        send(&missing)?;
        let sent = Instant::now();
        while !missing.is_empty() && sent.elapsed() < Duration::from_millis(500) {
            let found: HashMap<Inside, SocketAddr> = heard()?.into_iter().collect();
            for (&inside, &address) in &found {
                check(inside, address)?;
            }
            missing.retain(|one| !found.contains_key(one));
        }
        if missing.is_empty() {
            return Ok(());
        }
    }
    anyhow::bail!("{} of {} are never heard, {:?} first", missing.len(), all.len(), missing.first())
}

/// The inside endpoint that a packet carries in its payload.
fn inside_in(packet: &Packet) -> Option<Inside> {
    let mark: [u8; 3] = packet.payload.get(..3)?.try_into().ok()?;
    let inside = (mark[0], u16::from_be_bytes([mark[1], mark[2]]));
    (inside.0 == packet.protocol).then_some(inside)
}

fn mark((protocol, port): Inside) -> [u8; 3] {
    let [high, low] = port.to_be_bytes();
    [protocol, high, low]
}

fn question(inside: Inside) -> Result<Vec<u8>> {
    let (near, far) = (SocketAddr::from((HOST4, inside.1)), SocketAddr::from((NET4, 53)));
    match inside.0 {
        UDP => packets::udp(near, far, &mark(inside)),
        TCP => packets::tcp(near, far, flag::SYN, (1, 0), &mark(inside)),
        _ => packets::echo(near.ip(), far.ip(), inside.1, false, &mark(inside)),
    }
}

fn answer(inside: Inside, outside: u16) -> Result<Vec<u8>> {
    let (far, to) = (SocketAddr::from((NET4, 53)), SocketAddr::from((wan4(0), outside)));
    match inside.0 {
        UDP => packets::udp(far, to, &mark(inside)),
        TCP => packets::tcp(far, to, flag::SYN | flag::ACK, (9, 2), &mark(inside)),
        _ => packets::echo(far.ip(), to.ip(), outside, true, &mark(inside)),
    }
}

/// Ten pass, five are refused and counted, another host has ten of its own; and
/// what is forgotten may be used again.
fn a_host_has_its_share(scene: &mut Scene) -> Result<()> {
    let (lan, mut wan) = (Port::lan(&scene.lab)?, Port::wan(&scene.lab, 0)?);
    let far = SocketAddr::from((NET4, 53));
    let ask = |host: Ipv4Addr, port: u16| {
        packets::udp((host, port).into(), far, &[host.octets()[3], 0, port as u8])
    };
    for host in [HOST4, PEER4] {
        let before = scene.counted("out", "source_limit")?;
        for port in 4000..4015 {
            lan.send(&[ask(host, port)?])?;
        }
        wait_until("five are refused", Duration::from_secs(2), || {
            Ok(scene.counted("out", "source_limit")? == before + 5)
        })?;
        let mut ports = HashSet::new();
        wait_until("ten have left", Duration::from_secs(2), || {
            ports.extend(wan.pending(|packet, _| {
                let [octet, _, _] = packet.payload[..].try_into().ok()?;
                (octet == host.octets()[3]).then_some(packet.from.port())
            })?);
            Ok(ports.len() == 10)
        })?;
        // A mapping that is there serves any number of flows.
        lan.send(&[packets::udp((host, 4000).into(), (NET4, 54).into(), b"more")?])?;
        wan.hear("another flow of the same endpoint", |packet, _| {
            (packet.payload == b"more").then_some(())
        })?;
    }
    let ports = 6000_u16..;
    let mut ports = ports.into_iter();
    wait_until("a place is free again", Duration::from_secs(30), || {
        let port = ports.next().context("a port")?;
        lan.send(&[packets::udp((HOST4, port).into(), far, b"again")?])?;
        Ok(!wan.pending(|packet, _| (packet.payload == b"again").then_some(()))?.is_empty())
    })?;
    Ok(())
}

/// Flows of changing endpoints to changing places, far more over time than there
/// is room for at once; in the end nothing is left of them.
fn flows_leave_nothing(scene: &mut Scene, flows: u64) -> Result<()> {
    const CHUNK: u64 = 256;
    let lan = Port::lan(&scene.lab)?;
    let _silent = Port::wan(&scene.lab, 0)?;
    let start = Instant::now();
    // An eighth of the room a second: idle after one second, gone some sweeps later.
    let rate = if flows >= FLOWS { 1_048_576 / 16 } else { 131_072 / 8 };
    let memory = scene.resident()?;
    let mut made = 0;
    while made < flows {
        let packets = (made..made + CHUNK).map(flow).collect::<Result<Vec<_>>>()?;
        lan.send(&packets)?;
        made += CHUNK;
        let due = start + Duration::from_secs_f64(made as f64 / f64::from(rate));
        thread::sleep(due.saturating_duration_since(Instant::now()));
    }
    for reason in ["flow_table_full", "ports_exhausted"] {
        let refused = scene.counted("out", reason)?;
        ensure!(refused == 0, "{refused} flows were refused: {reason}");
    }
    let forwarded = scene.packets(|row| {
        row.direction == "out"
            && row.protocol == "udp4"
            && matches!(row.reason.as_str(), "forwarded" | "neighbour_unresolved")
    })?;
    ensure!(forwarded >= made, "{made} flows made, {forwarded} packets forwarded");
    scene.gateway.wait_for_status("all is forgotten", Duration::from_secs(30), |status| {
        status.nat.flows4 == 0 && status.nat.mappings == 0
    })?;
    wait_until("every table is empty", Duration::from_secs(10), || {
        for table in ["FLOWS4", "MAPPINGS", "PORTS"] {
            let left = scene.entries(table)?;
            ensure!(left == 0, "{left} entries are left in {table}");
        }
        Ok(true)
    })?;
    let grown = scene.resident()?.saturating_sub(memory);
    ensure!(grown < 256 << 10, "the agent has grown by {grown} KiB");
    Ok(())
}

/// Flow `number`: forty of an inside endpoint, then the next one.
fn flow(number: u64) -> Result<Vec<u8>> {
    let endpoint = number / 40;
    let host = Ipv4Addr::new(192, 0, 2, 10 + u8::try_from(endpoint / 50_000 % 50)?);
    let near = SocketAddr::from((host, 1024 + u16::try_from(endpoint % 50_000)?));
    let far = SocketAddr::from((NET4, 1 + u16::try_from(number % 60_000)?));
    packets::udp(near, far, b"come and go")
}
