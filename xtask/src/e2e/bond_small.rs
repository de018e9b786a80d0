//! Many small flows beside a greedy one in a bond: they wait for no longer than what goes by
//! the same links at the same time and is not in the bond.

use std::{
    net::{IpAddr, Ipv4Addr, SocketAddr},
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};

use super::{
    Case, Lane,
    bond_scene::{BondScene, play},
};
use crate::lab::{
    Lab, LabSpec, LinkSpec, Shape,
    address::{NET4, provider4},
    is_emulated,
    traffic::{Fleet, FleetServers, FlowRecord, Iperf, IperfServer},
};

/// Of each link, in bit/s, and the way by it.
const RATE: u64 = 30_000_000;
const DELAY: Duration = Duration::from_millis(20);
/// Small flows, and the datagrams that they send a second all together.
const FLOWS: usize = 100;
const PACKETS: u32 = 500;
/// The same of each stream outside the bond.
const REFERENCE: (usize, u32) = (4, 100);
/// How long the greedy one runs, in seconds: until it has filled both links, and then some.
const SECONDS: u32 = 6;
/// Runs, of which one has to do: a busy machine may hold up any.
const TRIES: usize = 3;
/// By how much longer the small flows' way may be, for all but one in a hundred.
const MORE: Duration = Duration::from_millis(5);

pub(super) fn cases() -> Vec<Case> {
    vec![Case::new(
        Lane::Alone,
        "small_flows_beside_a_greedy_one_wait_for_no_more_than_others",
        || {
            let link = LinkSpec::new(if is_emulated() { RATE / 5 } else { RATE }, DELAY);
            let spec = LabSpec::shaped([0, 1].map(|_| Shape::both(&link)));
            play(BondScene::new(spec, |config| config)?, small_flows_do_not_wait)
        },
    )]
}

/// An address of the Internet that the gateway reaches by one WAN, past the bond.
fn beside(lab: &Lab, wan: usize) -> Result<IpAddr> {
    let address = Ipv4Addr::from(u32::from(NET4) + 1 + u32::try_from(wan)?);
    // One of them is there.
    lab.net().ip(&format!("addr replace {address}/32 dev lo\n"))?;
    lab.gw().ip(&format!(
        "route add default via {} dev wan{wan} table {table}\n\
         rule add to {address} lookup {table} priority {table}\n",
        provider4(wan),
        table = 100 + wan,
    ))?;
    Ok(address.into())
}

fn small_flows_do_not_wait(scene: &mut BondScene) -> Result<()> {
    let lab = &scene.lab;
    let outside = [beside(lab, 0)?, beside(lab, 1)?];
    let mut told = Vec::new();
    loop {
        let [inside, outside] = longest(lab, outside)?;
        // Half of it is the way that the greedy one does not go.
        if is_emulated() || inside < outside + 2 * MORE {
            return Ok(());
        }
        told.push(format!("{inside:?}, outside {outside:?}"));
        ensure!(told.len() < TRIES, "too long each time: {}", told.join("; "));
    }
}

/// What all but one in a hundred round trips of small flows are shorter than, and those
/// outside the bond by the worse of the links.
fn longest(lab: &Lab, outside: [IpAddr; 2]) -> Result<[Duration; 2]> {
    let greedy = IperfServer::start(lab.net(), SocketAddr::new(NET4.into(), 5201))?;
    let servers = FleetServers::start(lab.net(), &[NET4.into()])?;
    let references = [
        FleetServers::start(lab.net(), &outside[..1])?,
        FleetServers::start(lab.net(), &outside[1..])?,
    ];
    let run = Iperf::tcp(SECONDS).reversed().start(lab.host(), &greedy)?;
    let small = Fleet::start(lab.host(), &servers, FLOWS, PACKETS)?;
    let (flows, rate) = REFERENCE;
    let others = [
        Fleet::start(lab.gw(), &references[0], flows, rate)?,
        Fleet::start(lab.gw(), &references[1], flows, rate)?,
    ];
    let report = run.finish()?;
    let small = small.stop()?;
    let [first, second] = others.map(Fleet::stop);
    let (first, second) = (round_trips(&first?), round_trips(&second?));
    let small = round_trips(&small);
    println!(
        "the greedy one has {:.1} Mbit/s; round trips, one in two and all but one in a hundred: \
         small flows {:?}, outside by each WAN {:?} and {:?}",
        report.received_rate / 1e6,
        shown(&small),
        shown(&first),
        shown(&second),
    );
    ensure!(report.received_rate > 0.5 * RATE as f64 || is_emulated(), "not greedy: {report:?}");
    let most = small.len().min(first.len()).min(second.len());
    ensure!(most > 100, "too few to say: {most}");
    Ok([at(&small, 99)?, at(&first, 99)?.max(at(&second, 99)?)])
}

/// All round trips, the shortest first.
fn round_trips(flows: &[FlowRecord]) -> Vec<Duration> {
    let mut all: Vec<Duration> =
        flows.iter().flat_map(|flow| flow.round_trips.iter().copied()).collect();
    all.sort_unstable();
    all
}

/// What so many of a hundred are no longer than.
fn at(sorted: &[Duration], percent: usize) -> Result<Duration> {
    sorted.get(sorted.len() * percent / 100).copied().context("nothing was answered")
}

fn shown(sorted: &[Duration]) -> [Option<Duration>; 2] {
    [50, 99].map(|percent| at(sorted, percent).ok())
}
