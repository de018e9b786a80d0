//! The sessions of a bond at work: the handshake over the WANs, what it leads to in the
//! data plane, and what both ends tell each other about paths.
//!
//! One task does it all, but for ticks. Forwarding waits for none of it: the kernel side
//! has what it needs in its maps, and goes on with that while this is held up, restarted
//! or gone.
//!
//! [`message`] is what is said, [`estimate`] how good each path is, [`mtu`] how long
//! packets may be. `gateway` and `server` are the two ends, `session` what a session is in
//! the maps, `secure` its keys for messages, `sockets` and `ticks` how packets are sent.
//!
//! Must not know: YAML, netlink, how packets are forwarded.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use mwb_common::maps::{Bond, bond_role};
use mwb_common::wire::Kind;
use tokio::sync::{mpsc, watch};
use tokio::time::{MissedTickBehavior, interval, sleep_until};

mod acks;
mod address;
mod aging;
mod asking;
mod carriers;
mod clients;
mod core;
mod device;
mod endpoints;
pub mod estimate;
mod gateway;
mod hold;
mod joins;
mod measure;
pub mod message;
pub mod mtu;
mod network;
mod pace;
mod parity;
mod parts;
mod paths;
mod rate;
mod refusals;
mod repair;
pub mod secure;
mod server;
mod session;
mod settings;
mod share;
mod slow;
mod sockets;
mod spread;
#[cfg(test)]
mod tests;
mod ticks;
mod view;

use acks::Told;
use core::Core;
use gateway::Gateway;
use secure::Refused;
use server::Server;
use session::Session;
use sockets::{Received, Sockets};
use ticks::Beat;

pub use network::{Known, Network, Uplink};
pub use settings::{End, Settings};

use crate::api::bond::BondStatus;
use crate::bond::PrivateKey;
use crate::dataplane::{BondMaps, Error};
use crate::events::Bus;

/// Between two looks at what the kernel side has seen.
const LOOK: Duration = Duration::from_millis(100);
/// Packets that may wait for this task.
const WAITING: usize = 512;
/// Looks after which sockets that are missing are tried for again.
const RETRY: u32 = 10;

/// What a bond starts with.
pub struct Start {
    /// Its maps.
    pub maps: BondMaps,
    /// Where it tells what happens.
    pub bus: Bus,
    /// What the operator wants.
    pub settings: Settings,
    /// Our key.
    pub private: PrivateKey,
    /// The network and the classes of service, again with every change.
    pub known: watch::Receiver<Known>,
    /// WANs that have no carrier, by path id, whatever the network says: it hears of that
    /// later.
    pub lost: watch::Receiver<BTreeSet<u8>>,
    /// Where it shows what it is.
    pub view: watch::Sender<Arc<BondStatus>>,
}

/// Clears away what a bond that is none any more has left in its maps: keys, first of all.
///
/// # Errors
/// When the kernel refuses to read or write.
pub fn forget(maps: &BondMaps) -> Result<(), Error> {
    if maps.bond()?.role == bond_role::NONE {
        return Ok(());
    }
    maps.set_owners(&BTreeMap::new())?;
    for slot in 0..maps.slots() {
        if maps.session(slot)?.ours != 0 {
            maps.clear(slot)?;
        }
    }
    maps.set_bond(&Bond::default())
}

/// Runs the bond until nobody tells of the network any more. What was made stays in the
/// maps.
pub async fn run(start: Start) {
    let Start { maps, bus, settings, private, mut known, mut lost, view } = start;
    let (sender, mut received) = mpsc::channel(WAITING);
    let sockets = Sockets::new(settings.port, sender);
    let (beats, beat) = watch::channel(Beat::default());
    let ticker = tokio::spawn(ticks::beat(beat));
    let end = settings.end.clone();
    let mut core = Core::new(maps, bus, settings, sockets, beats);
    core.learn(known.borrow_and_update().clone());
    let begun = core.write_classes().and_then(|()| AnEnd::new(&mut core, end, private));
    let mut end = match begun {
        Ok(end) => end,
        Err(error) => {
            tracing::error!(%error, "the bond cannot begin");
            return;
        }
    };
    let mut told = core.told();
    let mut looks = interval(LOOK);
    looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut looked: u32 = 0;
    let mut failed = false;
    if let Err(error) = end.follow(&mut core) {
        tracing::error!(%error, "the bond begins later");
    }
    loop {
        let later = core.next_later();
        let done = tokio::select! {
            changed = known.changed() => {
                if changed.is_err() {
                    break;
                }
                core.learn(known.borrow_and_update().clone());
                core.write_classes().and_then(|()| end.follow(&mut core))
            }
            // Who told of them may have ended.
            Ok(()) = lost.changed() => {
                core.lost.clone_from(&lost.borrow_and_update());
                core.follow(known.borrow().network.clone());
                end.follow(&mut core)
            }
            () = until(later) => {
                core.send_due(Instant::now());
                Ok(())
            }
            Some(packet) = received.recv() => end.take(&mut core, &packet),
            Some(ack) = next(&mut told) => {
                end.acknowledge(&mut core, &ack);
                Ok(())
            }
            _ = looks.tick() => {
                looked = looked.wrapping_add(1);
                if looked.is_multiple_of(RETRY) {
                    core.retry_sockets();
                }
                let done = end.turn(&mut core);
                view.send_replace(Arc::new(end.view(&core)));
                done
            }
        };
        if let Err(error) = &done
            && !failed
        {
            tracing::error!(%error, "the data plane could not be told about the bond");
        }
        failed = done.is_err();
    }
    ticker.abort();
}

/// The next of a channel; without one, never.
async fn next<T>(channel: &mut Option<mpsc::UnboundedReceiver<T>>) -> Option<T> {
    match channel {
        Some(channel) => channel.recv().await,
        None => std::future::pending().await,
    }
}

/// The end of a time; without one, never.
async fn until(time: Option<Instant>) {
    match time {
        Some(time) => sleep_until(time.into()).await,
        None => std::future::pending().await,
    }
}

/// Either end.
enum AnEnd {
    Gateway(Box<Gateway>),
    Server(Box<Server>),
}

impl AnEnd {
    fn new(core: &mut Core, end: End, private: PrivateKey) -> Result<Self, Error> {
        Ok(match end {
            End::Gateway(bond) => Self::Gateway(Box::new(Gateway::new(core, bond, private)?)),
            End::Server(server) => Self::Server(Box::new(Server::new(core, server, private)?)),
        })
    }

    fn follow(&mut self, core: &mut Core) -> Result<(), Error> {
        match self {
            Self::Gateway(gateway) => gateway.follow(core),
            Self::Server(server) => server.follow(core),
        }
    }

    fn view(&self, core: &Core) -> BondStatus {
        match self {
            Self::Gateway(gateway) => gateway.view(core),
            Self::Server(server) => server.view(core),
        }
    }

    /// Says to the far end of a session what came.
    fn acknowledge(&mut self, core: &mut Core, told: &Told) {
        let session = match self {
            Self::Gateway(gateway) => gateway.session.as_mut(),
            Self::Server(server) => server.session_of(told.slot),
        };
        let is_its = |session: &&mut Session| session.ours.get() == told.session;
        if let Some(session) = session.filter(is_its) {
            session.acknowledge(core, &told.ack);
        }
    }

    fn turn(&mut self, core: &mut Core) -> Result<(), Error> {
        match self {
            Self::Gateway(gateway) => gateway.turn(core),
            Self::Server(server) => server.turn(core),
        }
    }

    fn take(&mut self, core: &mut Core, received: &Received) -> Result<(), Error> {
        let kind = received.packet.first().and_then(|first| Kind::from_number(first & 0xf));
        match (kind, self) {
            (Some(Kind::Handshake), Self::Gateway(gateway)) => {
                gateway.take_handshake(core, received)
            }
            (Some(Kind::Handshake), Self::Server(server)) => server.take_handshake(core, received),
            (Some(Kind::Control | Kind::Ack), Self::Gateway(gateway)) => {
                let taken = gateway.take_message(core, received)?;
                count(core, taken);
                Ok(())
            }
            (Some(Kind::Control | Kind::Ack), Self::Server(server)) => {
                let taken = server.take_message(core, received)?;
                count(core, taken);
                Ok(())
            }
            // All else is the kernel side's.
            _ => Ok(()),
        }
    }
}

fn count(core: &mut Core, taken: Result<(), Refused>) {
    if let Err(refused) = taken
        && let Some(count) = core.counts.messages_refused.get_mut(refused.number())
    {
        *count += 1;
    }
}
