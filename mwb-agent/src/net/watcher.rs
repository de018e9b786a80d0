//! Keeps a snapshot up to date by the kernel's events.
//!
//! An event says that something has changed; what is now is read anew. That
//! costs a millisecond, and makes a lost event (the kernel drops them when we
//! are slow, and says so) the same as any other: dump again.

use std::time::Duration;

use futures_util::stream::Stream;
use futures_util::{FutureExt, StreamExt};
use netlink_packet_route::RouteNetlinkMessage;
use rtnetlink::MulticastGroup;
use rtnetlink::packet_core::NetlinkPayload;
use tokio::sync::watch;
use tokio::time::{Instant, sleep, sleep_until, timeout_at};

use super::{Error, Requests, Snapshot, Watched};

/// Dumps are at least this far apart: a burst of events is one change.
const SPACING: Duration = Duration::from_millis(20);
/// Without an event that matters the snapshot is made anew this often.
const REFRESH: Duration = Duration::from_secs(10);
/// Wait before a failed dump or a lost event socket is tried again.
const RETRY: Duration = Duration::from_millis(200);

/// What is listened to.
const GROUPS: &[MulticastGroup] = &[
    MulticastGroup::Link,
    MulticastGroup::Neigh,
    MulticastGroup::Ipv4Ifaddr,
    MulticastGroup::Ipv6Ifaddr,
    MulticastGroup::Ipv4Route,
    MulticastGroup::Ipv6Route,
    MulticastGroup::Tc,
];

/// Publishes a snapshot whenever the kernel's network changes.
#[derive(Debug)]
pub struct Watcher {
    requests: Requests,
    watched: watch::Receiver<Watched>,
    snapshots: watch::Sender<Snapshot>,
}

impl Watcher {
    /// Reads the first snapshot, of the devices that are watched now and later.
    ///
    /// # Errors
    /// When the network cannot be read.
    pub async fn start(
        requests: Requests,
        mut watched: watch::Receiver<Watched>,
    ) -> Result<(Self, watch::Receiver<Snapshot>), Error> {
        let now = watched.borrow_and_update().clone();
        let first = requests.snapshot(&now).await?;
        let (snapshots, receiver) = watch::channel(first);
        Ok((Self { requests, watched, snapshots }, receiver))
    }

    /// Runs until nobody wants snapshots any more.
    pub async fn run(mut self) {
        while !self.snapshots.is_closed() {
            match rtnetlink::new_multicast_connection(GROUPS) {
                Ok((connection, _handle, events)) => {
                    let connection = tokio::spawn(connection);
                    self.follow(events.map(|(message, _)| message.payload)).await;
                    connection.abort();
                }
                Err(error) => tracing::warn!(%error, "no socket for network events"),
            }
            sleep(RETRY).await;
        }
    }

    /// Follows one event socket until it ends.
    async fn follow(
        &mut self,
        mut events: impl Stream<Item = NetlinkPayload<RouteNetlinkMessage>> + Unpin,
    ) {
        loop {
            // First of all: what happened before the socket was there.
            if let Err(error) = self.refresh().await {
                tracing::warn!(%error, "the network could not be read");
                sleep(RETRY).await;
                continue;
            }
            let now = Instant::now();
            let (earliest, latest) = (now + SPACING, now + REFRESH);
            loop {
                let event = tokio::select! {
                    event = timeout_at(latest, events.next()) => event,
                    Ok(()) = self.watched.changed() => break,
                };
                match event {
                    Ok(Some(event)) if self.matters(&event) => break,
                    Ok(Some(_)) => {}
                    Ok(None) => return,
                    Err(_) => break,
                }
                if self.snapshots.is_closed() {
                    return;
                }
            }
            sleep_until(earliest).await;
            // What has come by now is told by the dump that follows.
            while let Some(Some(_)) = events.next().now_or_never() {}
        }
    }

    async fn refresh(&self) -> Result<(), Error> {
        let watched = self.watched.borrow().clone();
        let now = self.requests.snapshot(&watched).await?;
        self.snapshots.send_if_modified(|snapshot| {
            let changed = *snapshot != now;
            *snapshot = now;
            changed
        });
        Ok(())
    }

    /// Neighbours come and go all the time on a LAN; those are not watched.
    fn matters(&self, event: &NetlinkPayload<RouteNetlinkMessage>) -> bool {
        let neighbour = match event {
            NetlinkPayload::InnerMessage(
                RouteNetlinkMessage::NewNeighbour(neighbour)
                | RouteNetlinkMessage::DelNeighbour(neighbour),
            ) => neighbour,
            NetlinkPayload::InnerMessage(_) => return true,
            NetlinkPayload::Overrun(_) => {
                tracing::warn!("network events were lost; reading everything anew");
                return true;
            }
            _ => return false,
        };
        let snapshot = self.snapshots.borrow();
        let device = snapshot.devices.iter().find(|d| d.ifindex == neighbour.header.ifindex);
        device.is_none_or(|device| self.watched.borrow().wans.contains(&device.name))
    }
}
