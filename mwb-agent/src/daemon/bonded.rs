//! The device of a bond: what it should be, from the configuration, the network and the
//! sessions, and a task that keeps it so.

use std::collections::BTreeMap;
use std::time::Duration;

use mwb_common::maps::session_flag;
use tokio::sync::watch;
use tokio::time::{MissedTickBehavior, interval};

use crate::bond::keys::LENGTH;
use crate::config::{Config, Tunnel};
use crate::dataplane::{BondMaps, Error};
use crate::events::{Bus, EventKind};
use crate::net::{self, Bonded, BondedRoute, BondedSpec, Requests, Snapshot};
use crate::tunnel::mtu::LEAST_INNER;

/// Time between two looks at what sessions carry.
const LOOK: Duration = Duration::from_secs(1);
/// What a packet with its outer header has at most where nobody has set up more.
const USUAL: u32 = 1_500;
/// No link that is in use has a larger MTU.
const JUMBO: u32 = 9_216;

/// The longest inner packet of each session, by the far end's key.
pub(super) type Mtus = BTreeMap<[u8; LENGTH], u32>;

/// What the device should be; `None` without a bond.
pub(super) fn spec(
    config: &Config,
    instance: &str,
    network: &Snapshot,
    mtus: &Mtus,
) -> Option<BondedSpec> {
    let tunnel = config.tunnel()?;
    Some(BondedSpec {
        instance: instance.to_owned(),
        device: tunnel.device.to_owned(),
        data_plane_end: tunnel.data_plane_end(),
        mtu: largest(&tunnel, network),
        addresses: tunnel.addresses.to_vec(),
        routes: Some(routes(config, mtus)),
        // What of a server's prefix is no client's would go back to the provider, who would
        // send it here again.
        owned: config.server.as_ref().and(config.ipv6_prefix).into_iter().collect(),
    })
}

/// Probes of every length that a WAN takes come in by the device, and what comes out
/// of a bond is as long as the far end made it: the device lets pass what any link does.
fn largest(tunnel: &Tunnel<'_>, network: &Snapshot) -> u32 {
    let own = [tunnel.device.to_owned(), tunnel.data_plane_end(), "lo".to_owned()];
    let others = network.devices.iter().filter(|device| !own.contains(&device.name));
    others.map(|device| device.mtu).max().unwrap_or(0).clamp(USUAL, JUMBO)
}

fn routes(config: &Config, mtus: &Mtus) -> Vec<BondedRoute> {
    let of_gateway = config.bond.iter().flat_map(|bond| {
        BondedRoute::everything(mtus.get(bond.server_public_key.bytes()).copied())
    });
    let clients = config.server.iter().flat_map(|server| &server.clients);
    let of_server = clients.flat_map(|client| {
        let mtu = mtus.get(client.public_key.bytes()).copied();
        client.prefixes.iter().map(move |&destination| BondedRoute { destination, mtu })
    });
    of_gateway.chain(of_server).map(fitting).collect()
}

/// No host sends IPv6 packets that are shorter because a route is (RFC 8200, 5). What does
/// not fit narrow paths that live alone is counted behind the device, and lost.
fn fitting(route: BondedRoute) -> BondedRoute {
    let least = if route.destination.addr().is_ipv6() { LEAST_INNER } else { 0 };
    BondedRoute { mtu: route.mtu.map(|mtu| mtu.max(least)), ..route }
}

/// What sessions carry now. While one takes an old one's place, the shorter counts.
fn mtus(maps: &BondMaps) -> Result<Mtus, Error> {
    let mut mtus = Mtus::new();
    for slot in 0..maps.slots() {
        let session = maps.session(slot)?;
        if session.flags & session_flag::PRESENT != 0 && session.mtu != 0 {
            let mtu = mtus.entry(session.peer).or_insert(session.mtu);
            *mtu = session.mtu.min(*mtu);
        }
    }
    Ok(mtus)
}

/// Keeps the device as it should be, for as long as there are snapshots.
pub(super) async fn keep(
    config: Config,
    instance: String,
    requests: Requests,
    maps: BondMaps,
    mut network: watch::Receiver<Snapshot>,
    bus: Bus,
) {
    let mut looks = interval(LOOK);
    looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut known = Mtus::new();
    let mut made: Option<BondedSpec> = None;
    let mut told: Option<String> = None;
    loop {
        let changed = tokio::select! {
            changed = network.changed() => match changed {
                Ok(()) => true,
                Err(_) => return,
            },
            _ = looks.tick() => false,
        };
        match mtus(&maps) {
            // A session that is made anew has what the one before had until it knows.
            Ok(now) => known.extend(now),
            Err(error) => tracing::warn!(%error, "what sessions carry is not known"),
        }
        let wanted = spec(&config, &instance, &network.borrow_and_update(), &known);
        let Some(wanted) = wanted else { return };
        if !changed && made.as_ref() == Some(&wanted) {
            continue;
        }
        match Bonded::ensure(&requests, &wanted).await {
            Ok(_) => (made, told) = (Some(wanted), None),
            Err(error) => {
                made = None;
                tell(&bus, &mut told, &error);
            }
        }
    }
}

/// Tells what is wrong, once.
fn tell(bus: &Bus, told: &mut Option<String>, error: &net::Error) {
    let why = error.to_string();
    if told.as_ref() != Some(&why) {
        bus.publish(
            EventKind::System,
            None,
            "the device of the bond is not as it should be",
            why.clone(),
        );
        *told = Some(why);
    }
}

#[cfg(test)]
#[path = "bonded_tests.rs"]
mod tests;
