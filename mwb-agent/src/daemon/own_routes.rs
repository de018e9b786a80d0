//! A routing table for each WAN of a gateway: what should be there, from the configuration,
//! the network and health, and a task that keeps it so.
//!
//! Must not know: how tables and rules are made.

use std::net::IpAddr;
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::net::{SocketAddr, UnixListener};
use std::time::Duration;

use ipnet::IpNet;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::{MissedTickBehavior, interval};

use super::control::{Control, acted_upon};
use super::own_rules::kernel_rules;
use crate::config::{Config, Gateway, Role};
use crate::events::{Bus, EventKind};
use crate::net::{Device, Error, KernelRule, Requests, Snapshot, Tables, WanTable, Wanted};

/// Time between two looks whether all is still there: nobody says when a rule goes.
const LOOK: Duration = Duration::from_secs(5);
/// Abstract name of a socket that nobody connects to: who has it keeps the tables of this
/// network namespace. There is one set of them, however many agents run.
const OWNER: &str = "mwb/routing-tables";

/// The task. It ends with this value; what it has made stays.
pub(super) struct OwnRoutes {
    wanted: watch::Sender<Wanted>,
    task: JoinHandle<()>,
}

impl Drop for OwnRoutes {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl OwnRoutes {
    /// Starts it on a gateway; a server has uplinks, and sends as its kernel says.
    /// `requests` are its own: a socket makes one dump at a time.
    pub(super) fn start(control: &Control, requests: Requests, first: &Snapshot) -> Option<Self> {
        if control.config.role != Role::Gateway {
            return None;
        }
        let (sender, wanted) = watch::channel(of_control(control, first));
        let task = tokio::spawn(keep(requests, wanted, control.bus.clone()));
        Some(Self { wanted: sender, task })
    }

    /// Tells it of the network and of health, if anything is new.
    pub(super) fn tell(&self, control: &Control, now: &Snapshot) {
        let now = of_control(control, now);
        self.wanted.send_if_modified(|before| {
            let changed = *before != now;
            *before = now;
            changed
        });
    }
}

fn of_control(control: &Control, network: &Snapshot) -> Wanted {
    let config = &control.config;
    let wans = control.wans.iter().zip(&config.wans);
    let wans = wans.map(|(wan, of)| (wan.path, acted_upon(wan, of).is_usable()));
    let path = |name: &str| {
        let mut wans = control.wans.iter().zip(&config.wans);
        wans.find(|(_, configured)| configured.name == name).map(|(wan, _)| wan.path)
    };
    let is_active = |index| control.policies.is_active(index);
    let rules = kernel_rules(&config.policy, path, is_active);
    Wanted { rules, ..wanted(config, &wans.collect::<Vec<_>>(), network) }
}

/// What should be there. `wans` says of each WAN its path id and whether it is usable.
fn wanted(config: &Config, wans: &[(u8, bool)], network: &Snapshot) -> Wanted {
    let is_wan = |device: &Device| config.wans.iter().any(|wan| wan.device == device.name);
    // An address that is somebody else's too is sent from as the kernel says: unnumbered
    // links have that of the LAN.
    let is_shared = |ip: IpAddr| {
        let others = network.devices.iter().filter(|device| !is_wan(device));
        others.flat_map(|device| &device.addresses).any(|address| address.ip == ip)
    };
    // Where a bond's device has no address of a family, the kernel may take a WAN's for what
    // should go into the bond: that is not to leave in the clear.
    let is_free = |ip: IpAddr| {
        let same = |net: &IpNet| net.addr().is_ipv6() == ip.is_ipv6();
        config.bond.as_ref().is_none_or(|bond| bond.addresses.iter().any(same))
    };
    let tables = config.wans.iter().zip(wans).map(|(wan, &(path, usable))| {
        let mut table =
            WanTable { path, device: wan.device.clone(), usable, ..WanTable::default() };
        let Some(device) = network.device(&wan.device) else { return table };
        // Without a carrier the kernel may have no routes there, and sends nothing.
        table.ifindex = device.carrier.then_some(device.ifindex);
        let own: Vec<IpAddr> =
            device.addresses.iter().filter(|address| address.global).map(|a| a.ip).collect();
        table.subnets = device.subnets().filter(|net| !is_alone(net, &own)).collect();
        let speaks = |v6: bool| own.iter().any(|ip| ip.is_ipv6() == v6);
        let known4 = network.gateway4(device.ifindex);
        table.gateway4 = way(wan.gateway4, known4, device).filter(|_| speaks(false));
        let known6 = network.gateway6(device.ifindex);
        table.gateway6 = way(wan.gateway6, known6, device).filter(|_| speaks(true));
        let named = own.into_iter().filter(|ip| is_free(*ip) && !is_shared(*ip));
        table.addresses = named.collect();
        table
    });
    let tables: Vec<WanTable> = tables.collect();
    let mut apart: Vec<IpNet> = tables.iter().flat_map(|table| table.subnets.clone()).collect();
    apart.retain(|subnet| is_apart(subnet, config, network));
    apart.sort();
    apart.dedup();
    Wanted { wans: tables, apart, rules: Vec::new() }
}

/// Where a default route leads: to a next hop, or to everybody on the link. `None`: there
/// is none.
fn way<A: Copy>(
    configured: Gateway<A>,
    known: Option<Option<A>>,
    device: &Device,
) -> Option<Option<A>> {
    match configured {
        Gateway::Address(gateway) => Some(Some(gateway)),
        // Nobody need say where frames have no destination.
        Gateway::Auto if !device.resolves => Some(known.flatten()),
        Gateway::Auto => known,
    }
}

/// A subnet of nobody but ourselves.
fn is_alone(net: &IpNet, own: &[IpAddr]) -> bool {
    net.prefix_len() == net.max_prefix_len() && own.contains(&net.addr())
}

/// Whether nobody else's route lies in the subnet of a WAN: then main knows nothing about
/// it but the link.
fn is_apart(subnet: &IpNet, config: &Config, network: &Snapshot) -> bool {
    let wans = || config.wans.iter().filter_map(|wan| network.device(&wan.device));
    let is_wan = |ifindex: u32| wans().any(|device| device.ifindex == ifindex);
    !network.routes.iter().any(|route| {
        subnet.contains(&route.destination)
            && (route.destination != *subnet || !is_wan(route.ifindex))
    })
}

/// Keeps the tables as they should be, for as long as somebody says how.
async fn keep(requests: Requests, mut wanted: watch::Receiver<Wanted>, bus: Bus) {
    let mut looks = interval(LOOK);
    looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut owner: Option<UnixListener> = None;
    let mut told: Option<String> = None;
    loop {
        tokio::select! {
            changed = wanted.changed() => if changed.is_err() { return },
            _ = looks.tick() => {}
        }
        if owner.is_none() {
            match own() {
                Ok(socket) => owner = Some(socket),
                Err(why) => {
                    tell(&bus, &mut told, why);
                    continue;
                }
            }
        }
        let now = wanted.borrow_and_update().clone();
        match Tables::ensure(&requests, &now).await {
            Ok(changes) => {
                if !changes.is_none() {
                    tracing::info!(changes.made, changes.removed, "routing tables of the WANs");
                }
                told = None;
            }
            Err(error) => {
                // As much as there can be: those for sockets stand without the policy's.
                if let Some(rules) = without(&error, &now.rules) {
                    let least = Wanted { rules, ..now };
                    if let Err(error) = Tables::ensure(&requests, &least).await {
                        tracing::debug!(%error, "nor without rules of the policy");
                    }
                }
                tell(&bus, &mut told, error.to_string());
            }
        }
    }
}

/// The rules of the policy but for those that are refused; `None` if they are not to blame:
/// then those that stand stay.
fn without(error: &Error, rules: &[KernelRule]) -> Option<Vec<KernelRule>> {
    match error {
        Error::NoDscp => Some(rules.iter().filter(|rule| rule.dscp.is_none()).cloned().collect()),
        Error::Rule { index, .. } => {
            let others = rules.iter().enumerate().filter(|(place, _)| place != index);
            Some(others.map(|(_, rule)| rule.clone()).collect())
        }
        Error::TooManyRules(_) => Some(Vec::new()),
        _ => None,
    }
}

/// Nobody else keeps them while this is there; it ends with the process, whatever ends it.
fn own() -> Result<UnixListener, String> {
    let bound =
        SocketAddr::from_abstract_name(OWNER).and_then(|address| UnixListener::bind_addr(&address));
    bound.map_err(|error| match error.kind() {
        std::io::ErrorKind::AddrInUse => {
            "another agent keeps those of this network; give each gateway a network namespace \
             of its own"
                .to_owned()
        }
        _ => format!("the socket @{OWNER}: {error}"),
    })
}

/// Tells what is wrong, once.
fn tell(bus: &Bus, told: &mut Option<String>, why: String) {
    if told.as_ref() != Some(&why) {
        let message = "the routing tables of the WANs are not as they should be";
        bus.publish(EventKind::System, None, message, why.clone());
        *told = Some(why);
    }
}

#[cfg(test)]
#[path = "own_routes_tests.rs"]
mod tests;
