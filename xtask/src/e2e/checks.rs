//! What any gateway must carry: used with ours, and with plain Linux to prove
//! the checks themselves.

use std::{
    collections::BTreeMap,
    net::{IpAddr, SocketAddr},
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};

use crate::lab::{
    Lab,
    address::{NET4, NET6, is_outside6, wan4, wan6},
    is_emulated,
    traffic::{
        EchoServer, FileServer, Iperf, IperfServer, UdpServer, UdpStream, curl, ping, tcp_connects,
        transfer,
    },
};

/// Both address families of the lab's Internet.
pub(super) const FAMILIES: [IpAddr; 2] = [IpAddr::V4(NET4), IpAddr::V6(NET6)];

/// The WAN whose address a server saw.
pub(super) fn wan_of(lab: &Lab, seen: IpAddr) -> Result<usize> {
    (0..lab.wans().len())
        .find(|&index| match seen {
            IpAddr::V4(seen) => seen == wan4(index),
            IpAddr::V6(seen) => seen == wan6(index) || is_outside6(index, seen),
        })
        .with_context(|| format!("{seen} is no WAN's address"))
}

/// How many of `count` new connections left by each WAN.
pub(super) fn spread(lab: &Lab, to: SocketAddr, count: usize) -> Result<Vec<usize>> {
    let mut by_wan = vec![0; lab.wans().len()];
    let seen: BTreeMap<IpAddr, usize> = tcp_connects(lab.host(), to, count)?;
    for (address, times) in seen {
        by_wan[wan_of(lab, address)?] += times;
    }
    Ok(by_wan)
}

/// Twenty echo requests, none lost.
pub(super) fn pings_pass(lab: &Lab) -> Result<()> {
    for to in FAMILIES {
        let report = ping(lab.host(), to, 20, Duration::from_millis(10), &[])?;
        ensure!(report.received == 20 && report.duplicates == 0, "{}", report.output);
    }
    Ok(())
}

/// A file fetched by curl has the right hash.
pub(super) fn downloads_are_whole(lab: &Lab, bytes: u64) -> Result<()> {
    for to in FAMILIES {
        let server = FileServer::start(lab.net(), SocketAddr::new(to, 80))?;
        let download = curl(lab.host(), &server.url(bytes), &[])?;
        download.expect_content(bytes).with_context(|| format!("from {to}"))?;
    }
    Ok(())
}

/// Known content echoed over TCP comes back unchanged.
pub(super) fn transfers_are_whole(lab: &Lab, bytes: u64) -> Result<()> {
    for to in FAMILIES {
        let server = EchoServer::start(lab.net(), SocketAddr::new(to, 7))?;
        transfer(lab.host(), server.address(), bytes).with_context(|| format!("with {to}"))?;
    }
    Ok(())
}

/// A stream of numbered datagrams and its echoes arrive, each once.
pub(super) fn datagrams_arrive_once(lab: &Lab, count: u64) -> Result<()> {
    // Emulated, a machine is held up for longer than its queues are.
    let (count, interval) = if is_emulated() {
        (count / 5, Duration::from_millis(1))
    } else {
        (count, Duration::from_micros(100))
    };
    for to in FAMILIES {
        let server = UdpServer::start(lab.net(), SocketAddr::new(to, 7))?;
        let report = UdpStream::new(count, interval).run(lab.host(), &server)?;
        let back = report.back.context("echoes were asked for")?;
        ensure!(
            report.there.received == count && back.received == count,
            "not everything arrived: {report:?}"
        );
        ensure!(report.there.duplicated + back.duplicated == 0, "duplicates: {report:?}");
        for source in &report.sources {
            wan_of(lab, source.ip())?;
        }
    }
    Ok(())
}

/// TCP and UDP by iperf3 in both directions, both families.
pub(super) fn bulk_flows(lab: &Lab, seconds: u32) -> Result<()> {
    // Emulated, four streams of 10 Mbit/s are more than the machine can offer.
    let (least_tcp, offered) = if is_emulated() { (20e6, 1_000_000) } else { (200e6, 10_000_000) };
    for to in FAMILIES {
        let server = IperfServer::start(lab.net(), SocketAddr::new(to, 5201))?;
        for run in [Iperf::tcp(seconds), Iperf::tcp(seconds).reversed()] {
            let report = run.run(lab.host(), &server).with_context(|| format!("{run:?} {to}"))?;
            // Far below what any hook reaches, far above what a path with wrong
            // checksums or merged frames would crawl at.
            ensure!(report.received_rate > least_tcp, "{run:?} {to}: {report:?}");
        }
    }
    // All at once: they are far from filling anything.
    let udp = Iperf::udp(offered, seconds);
    let mut running = Vec::new();
    for (to, run, port) in FAMILIES
        .into_iter()
        .flat_map(|to| [(to, udp.clone(), 5202), (to, udp.clone().reversed(), 5203)])
    {
        let server = IperfServer::start(lab.net(), SocketAddr::new(to, port))?;
        let started = run.start(lab.host(), &server)?;
        running.push((to, run, server, started));
    }
    for (to, run, _server, started) in running {
        let report = started.finish().with_context(|| format!("{run:?} {to}"))?;
        // iperf3's socket holds what comes in some 80 ms: on a busy machine a few
        // datagrams find it full. The exact count is taken by numbered datagrams.
        ensure!(report.loss.is_some_and(|loss| loss < 0.05), "{run:?} {to}: {report:?}");
        ensure!(report.received_rate > 0.9 * offered as f64, "{run:?} {to}: {report:?}");
    }
    Ok(())
}
