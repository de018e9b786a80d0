//! What happened and why: every decision of the agent is an event. The bus
//! keeps the latest ones in a ring for those who ask later, hands each to those
//! who listen now, and writes each to the log.
//!
//! Must not know: who decides, who reads.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};
use tokio::sync::broadcast;
use utoipa::ToSchema;

/// How many events are kept unless said otherwise.
pub const DEFAULT_CAPACITY: usize = 1_024;

/// What happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum EventKind {
    /// The agent runs.
    AgentStarted,
    /// The agent stops; the data plane goes on.
    AgentStopping,
    /// A WAN's health changed.
    WanState,
    /// Traffic left a WAN for others.
    Failover,
    /// Traffic went back to a better WAN.
    Failback,
    /// A device's carrier came or went.
    Carrier,
    /// A WAN's address or gateway changed.
    AddressChange,
    /// A next hop was resolved or lost.
    Neighbour,
    /// A device got its programs.
    HookAttached,
    /// A configured device is not there.
    DeviceMissing,
    /// A NAT table or port range is full.
    NatExhausted,
    /// Another configuration is in force, or becomes the agent's file.
    Config,
    /// A port forward waits for its port, or does so no more.
    Forward,
    /// A setting of the system is not as a gateway needs it.
    System,
    /// The operator sends new flows to one WAN, or does so no more.
    Forced,
    /// What becomes of flows on a WAN that a better one has replaced.
    Drain,
    /// A WAN that fails again and again must prove itself for longer, or for
    /// less long again.
    HoldDown,
    /// A session of a bond began, got new keys or ended, or the far end does not
    /// answer.
    BondSession,
    /// A path of a bond joined, left, died, came back, was parked or has moved.
    BondPath,
    /// A WAN is asked in another way, since that tells the truth on its link.
    Method,
    /// What is kept of the past cannot be written, or can again.
    History,
    /// A receiver is to see whether it can be told.
    Test,
}

/// One thing that happened.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Event {
    /// Grows by one with each event, from 1.
    pub id: u64,
    /// When, in milliseconds since 1970.
    pub unix_ms: u64,
    /// What.
    pub kind: EventKind,
    /// The WAN it is about.
    pub wan: Option<String>,
    /// One sentence for people.
    pub message: String,
    /// Why; empty if the message says it all.
    pub reason: String,
}

/// Where events are published and read. Clones share one ring.
#[derive(Clone, Debug)]
pub struct Bus {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    ring: Mutex<Ring>,
    live: broadcast::Sender<Event>,
}

#[derive(Debug)]
struct Ring {
    events: VecDeque<Event>,
    capacity: usize,
    last: u64,
}

impl Default for Bus {
    fn default() -> Self {
        Self::new(DEFAULT_CAPACITY)
    }
}

impl Bus {
    /// A bus that keeps the last `capacity` events (at least one).
    #[must_use]
    pub fn new(capacity: usize) -> Self {
        let capacity = capacity.max(1);
        let ring = Ring { events: VecDeque::with_capacity(capacity), capacity, last: 0 };
        let (live, _) = broadcast::channel(capacity);
        Self { inner: Arc::new(Inner { ring: Mutex::new(ring), live }) }
    }

    /// Publishes an event and returns its id.
    pub fn publish(
        &self,
        kind: EventKind,
        wan: Option<&str>,
        message: impl Into<String>,
        reason: impl Into<String>,
    ) -> u64 {
        let (message, reason) = (message.into(), reason.into());
        let mut ring = self.ring();
        ring.last += 1;
        let event = Event {
            id: ring.last,
            unix_ms: unix_ms(),
            kind,
            wan: wan.map(str::to_owned),
            message,
            reason,
        };
        let reason = (!event.reason.is_empty()).then_some(event.reason.as_str());
        tracing::info!(id = event.id, kind = kind.name(), wan, reason, "{}", event.message);
        if ring.events.len() == ring.capacity {
            ring.events.pop_front();
        }
        ring.events.push_back(event.clone());
        // Sent under the lock, so that listeners see the order of the ids.
        // Nobody listening is no error.
        let id = event.id;
        let _ = self.inner.live.send(event);
        id
    }

    /// The kept events with an id above `id`, oldest first; 0 gives all.
    #[must_use]
    pub fn since(&self, id: u64) -> Vec<Event> {
        self.ring().events.iter().filter(|event| event.id > id).cloned().collect()
    }

    /// Every event from now on.
    #[must_use]
    pub fn subscribe(&self) -> broadcast::Receiver<Event> {
        self.inner.live.subscribe()
    }

    /// How many listen now.
    #[cfg(test)]
    pub(crate) fn listeners(&self) -> usize {
        self.inner.live.receiver_count()
    }

    /// A thread that panicked while publishing leaves the ring whole.
    fn ring(&self) -> MutexGuard<'_, Ring> {
        self.inner.ring.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl EventKind {
    /// All of them.
    pub const ALL: [EventKind; 22] = [
        EventKind::AgentStarted,
        EventKind::AgentStopping,
        EventKind::WanState,
        EventKind::Failover,
        EventKind::Failback,
        EventKind::Carrier,
        EventKind::AddressChange,
        EventKind::Neighbour,
        EventKind::HookAttached,
        EventKind::DeviceMissing,
        EventKind::NatExhausted,
        EventKind::Config,
        EventKind::Forward,
        EventKind::System,
        EventKind::Forced,
        EventKind::Drain,
        EventKind::HoldDown,
        EventKind::BondSession,
        EventKind::BondPath,
        EventKind::Method,
        EventKind::History,
        EventKind::Test,
    ];

    /// The word in JSON and in the log.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            EventKind::AgentStarted => "agent_started",
            EventKind::AgentStopping => "agent_stopping",
            EventKind::WanState => "wan_state",
            EventKind::Failover => "failover",
            EventKind::Failback => "failback",
            EventKind::Carrier => "carrier",
            EventKind::AddressChange => "address_change",
            EventKind::Neighbour => "neighbour",
            EventKind::HookAttached => "hook_attached",
            EventKind::DeviceMissing => "device_missing",
            EventKind::NatExhausted => "nat_exhausted",
            EventKind::Config => "config",
            EventKind::Forward => "forward",
            EventKind::System => "system",
            EventKind::Forced => "forced",
            EventKind::Drain => "drain",
            EventKind::HoldDown => "hold_down",
            EventKind::BondSession => "bond_session",
            EventKind::BondPath => "bond_path",
            EventKind::Method => "method",
            EventKind::History => "history",
            EventKind::Test => "test",
        }
    }
}

fn unix_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn publish(bus: &Bus, count: u64) {
        for n in 1..=count {
            bus.publish(EventKind::WanState, Some("fiber"), format!("event {n}"), "a test");
        }
    }

    fn ids(events: &[Event]) -> Vec<u64> {
        events.iter().map(|event| event.id).collect()
    }

    #[test]
    fn the_ring_keeps_the_latest_and_ids_go_on_growing() {
        let bus = Bus::new(3);
        publish(&bus, 5);
        assert_eq!(ids(&bus.since(0)), [3, 4, 5]);
        assert_eq!(ids(&bus.since(4)), [5]);
        assert_eq!(ids(&bus.since(5)), [0; 0]);
    }

    #[test]
    fn a_listener_gets_what_comes_after_it_in_order() {
        let bus = Bus::new(8);
        publish(&bus, 1);
        let mut live = bus.subscribe();
        publish(&bus, 2);
        let got: Vec<u64> = std::iter::from_fn(|| live.try_recv().ok()).map(|e| e.id).collect();
        assert_eq!(got, [2, 3]);
    }

    #[test]
    fn publishers_on_many_threads_get_ids_of_their_own() {
        let bus = Bus::new(1_000);
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| publish(&bus, 100));
            }
        });
        assert_eq!(ids(&bus.since(0)), (1..=400).collect::<Vec<_>>());
    }

    #[test]
    fn the_words_in_json_and_in_the_log_are_the_same() {
        let bus = Bus::new(1);
        publish(&bus, 1);
        let json = serde_json::to_value(bus.since(0)).unwrap_or_default();
        assert_eq!(json[0]["kind"], EventKind::WanState.name());
        assert_eq!(json[0]["wan"], "fiber");
        let again: Result<Vec<Event>, _> = serde_json::from_value(json);
        assert_eq!(again.unwrap_or_default(), bus.since(0));
    }
}
