//! A WAN is dialled anew under load and gets another address, or another prefix:
//! from the first packet with the new one on there is none with the old one.

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket},
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};

use super::{
    Case, Lane,
    change::reload,
    port::host_of,
    scene::{Hook, Scene, play},
};
use crate::lab::{
    LabSpec,
    address::{NET4, NET6, is_outside6, provider_uplink6, provider4, provider6, wan4, wan6},
    capture::{Capture, Passing, addresses},
    is_emulated,
    traffic::{EchoServer, EchoStream, UdpServer, UdpStream, WhoServer},
    wait_until,
};

const PATIENCE: Duration = Duration::from_secs(5);
/// From the change to the first packet with the new address, of flows that there
/// were and of new ones. The agent hears of an address at once; the rest is room
/// for a busy machine.
fn bound() -> Duration {
    // Emulated, a second is what a tenth of it is elsewhere.
    Duration::from_secs(if is_emulated() { 10 } else { 2 })
}

/// One way to get another address.
#[derive(Clone, Copy)]
struct Redial {
    /// Whom the hosts speak to.
    to: IpAddr,
    dial: fn(&mut Scene) -> Result<()>,
    is_old: fn(IpAddr) -> bool,
    is_new: fn(IpAddr) -> bool,
}

const REDIALS: [(&str, Redial); 2] = [
    (
        "nothing_leaves_with_the_old_address_of_a_wan",
        Redial {
            to: IpAddr::V4(NET4),
            dial: dial4,
            is_old: |seen| seen == wan4(0),
            is_new: |seen| seen == new4(),
        },
    ),
    (
        "nothing_leaves_with_the_old_prefix_of_a_wan",
        Redial {
            to: IpAddr::V6(NET6),
            dial: dial6,
            is_old: |seen| match seen {
                IpAddr::V4(_) => false,
                IpAddr::V6(seen) => is_outside6(0, seen) || seen == wan6(0),
            },
            is_new: |seen| match seen {
                IpAddr::V4(_) => false,
                IpAddr::V6(seen) => seen.segments()[..3] == NEW6,
            },
        },
    ),
];

/// The prefix that the provider delegates after a re-dial.
const NEW6: [u16; 3] = [0x2001, 0xdb8, 0x1f1];

fn new4() -> Ipv4Addr {
    Ipv4Addr::from(u32::from(wan4(0)) + 1)
}

pub(super) fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    for (name, redial) in REDIALS {
        for hook in Hook::BOTH {
            cases.push(Case::new(Lane::Together, &format!("{name}_by_{hook}"), move || {
                let scene = Scene::new(hook, LabSpec::direct(1), |config| config)?;
                play(scene, |scene| nothing_leaves_with_the_old_one(scene, &redial))
            }));
        }
    }
    cases
}

fn dial4(scene: &mut Scene) -> Result<()> {
    scene.lab.gw().ip(&format!(
        "addr del {}/28 dev wan0\naddr add {}/28 dev wan0\n\
         route replace default via {} metric 100\n",
        wan4(0),
        new4(),
        provider4(0)
    ))
}

/// The WAN's own address changes by itself; the prefix that is routed to it
/// stands in the configuration.
fn dial6(scene: &mut Scene) -> Result<()> {
    let [a, b, c] = NEW6;
    let prefix = format!("{a:x}:{b:x}:{c:x}::/48");
    let own = Ipv6Addr::from(u128::from(wan6(0)) + 1);
    scene.lab.net().ip(&format!("route add {prefix} via {}\n", provider_uplink6(0)))?;
    scene.lab.gw().ip(&format!(
        "addr del {}/64 dev wan0\naddr add {own}/64 dev wan0 nodad\n\
         route replace default via {} dev wan0 metric 100\n",
        wan6(0),
        provider6(0)
    ))?;
    scene.lab.isp(0).ip(&format!("route add {prefix} via {own}\n"))?;
    let config = scene.config.clone().with("wans.0.ipv6_prefix", prefix);
    reload(scene, config).map(drop)
}

fn nothing_leaves_with_the_old_one(scene: &mut Scene, redial: &Redial) -> Result<()> {
    let far = |port| SocketAddr::new(redial.to, port);
    let udp = UdpServer::start(scene.lab.net(), far(7))?;
    let tcp = EchoServer::start(scene.lab.net(), far(7))?;
    let who = WhoServer::start(scene.lab.net(), far(9))?;
    let mut kept = EchoStream::connect(scene.lab.host(), tcp.address(), PATIENCE)?;
    let interval = Duration::from_millis(if is_emulated() { 4 } else { 1 });
    let streams = (0..4)
        .map(|_| UdpStream::new(1_000_000, interval).start(scene.lab.host(), &udp))
        .collect::<Result<Vec<_>>>()?;
    wait_until("datagrams arrive", PATIENCE, || {
        Ok(streams.iter().all(|stream| stream.report().there.received > 50))
    })?;
    // All that leaves, probes of the gateway's own among it.
    let capture = Capture::start(scene.lab.isp(0), "gw0", Passing::In, "ip or ip6")?;
    let start = Instant::now();
    (redial.dial)(scene)?;
    wait_until("datagrams come from the new address", bound(), || {
        Ok(streams
            .iter()
            .all(|stream| stream.report().sources.iter().any(|one| (redial.is_new)(one.ip()))))
    })?;
    let socket = scene.lab.host().enter(|| Ok(UdpSocket::bind((host_of(redial.to), 0))?))?;
    let seen = who.ask(&socket)?.ip();
    ensure!((redial.is_new)(seen), "a new flow is seen as {seen}");
    let took = start.elapsed();
    ensure!(took < bound(), "flows, old and new, have the new address after {took:?}");
    // The server knows this connection by another address, and says so.
    let start = Instant::now();
    ensure!(kept.exchange(b"still there?").is_err(), "a connection moved to another address");
    ensure!(start.elapsed() < bound(), "the reset took {:?}", start.elapsed());
    EchoStream::connect(scene.lab.host(), tcp.address(), PATIENCE)?.exchange(b"anew")?;
    let before: Vec<u64> = streams.iter().map(|stream| stream.report().there.received).collect();
    wait_until("more datagrams arrive", PATIENCE, || {
        Ok(streams
            .iter()
            .zip(&before)
            .all(|(one, before)| one.report().there.received > before + 100))
    })?;
    let sources: Vec<IpAddr> =
        capture.finish()?.frames.iter().filter_map(|frame| Some(addresses(frame)?.0)).collect();
    let is_new = |source: &&IpAddr| (redial.is_new)(**source);
    let first = sources.iter().position(|source| is_new(&source)).context("none of the new one")?;
    let late = sources[first..].iter().filter(|&&source| (redial.is_old)(source)).count();
    ensure!(late == 0, "{late} packets with the old address after the first with the new one");
    ensure!(sources[..first].iter().any(|&source| (redial.is_old)(source)), "none of the old one");
    let after = sources[first..].iter().filter(is_new).count();
    ensure!(after > 400, "only {after} packets were seen");
    for stream in streams {
        let report = stream.stop()?;
        ensure!(report.there.longest_gap < Duration::from_secs(1), "silence: {report:?}");
        ensure!(report.back.is_some_and(|back| back.received > 200), "no echoes: {report:?}");
    }
    Ok(())
}
