//! What both ends of a bond have: the maps, the sockets, the ticks, what is counted, and
//! a word to the operator that is not said too often.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use mwb_common::maps::{Bond, bond_role};
use tokio::sync::mpsc::UnboundedReceiver;
use tokio::sync::watch;

use super::acks::Told;
use super::gateway::is_path;
use super::network::{Known, Network};
use super::secure::Refused;
use super::session::Session;
use super::settings::{End, Settings};
use super::slow::{self, Slow};
use super::sockets::Sockets;
use super::ticks::{Beat, Target, TickSocket};
use crate::bond::{Os, Random, Refusal, SessionId};
use crate::dataplane::{BondMaps, Error};
use crate::events::{Bus, EventKind};
use crate::hitless::resend::Ack;

/// Between two words of one kind to the operator.
const QUIET: Duration = Duration::from_secs(30);
/// Kinds of words that are remembered.
const KINDS: usize = 256;
/// Bytes in 100 ms are counted, rates in bit/s are configured.
const BITS_PER_WINDOW: u64 = 80;

/// What an end works with.
pub(super) struct Core {
    pub(super) maps: BondMaps,
    pub(super) bus: Bus,
    pub(super) settings: Settings,
    pub(super) network: Network,
    /// WANs that have no carrier, whatever the network says.
    pub(super) lost: BTreeSet<u8>,
    pub(super) sockets: Sockets,
    pub(super) counts: Counts,
    /// Holds what is ahead of its turn, and sends again what was lost.
    pub(super) slow: Option<Slow>,
    beats: watch::Sender<Beat>,
    ticks: Option<(u32, TickSocket)>,
    said: BTreeMap<String, Instant>,
    /// What is to be sent yet.
    later: Vec<Later>,
}

struct Later {
    at: Instant,
    via: u8,
    to: SocketAddr,
    packet: Vec<u8>,
}

/// What is counted since this process began.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Counts {
    /// Initiations that came, or were sent.
    pub(super) initiations: u64,
    /// Sessions and new keys.
    pub(super) established: u64,
    /// Answers with a cookie.
    pub(super) cookies: u64,
    /// Initiations without an answer, by [`Refusal::number`].
    pub(super) refused: [u64; Refusal::NAMES.len()],
    /// Answers that changed nothing.
    pub(super) ignored: u64,
    /// Messages that were not taken, by [`Refused`].
    pub(super) messages_refused: [u64; Refused::NAMES.len()],
}

impl Core {
    pub(super) fn new(
        maps: BondMaps,
        bus: Bus,
        settings: Settings,
        sockets: Sockets,
        beats: watch::Sender<Beat>,
    ) -> Self {
        let slow = slow::start(&maps, &settings);
        Self {
            maps,
            bus,
            settings,
            network: Network::default(),
            lost: BTreeSet::new(),
            sockets,
            counts: Counts::default(),
            slow,
            beats,
            ticks: None,
            said: BTreeMap::new(),
            later: Vec::new(),
        }
    }

    /// Follows what is told.
    pub(super) fn learn(&mut self, known: Known) {
        self.settings.classes = known.classes;
        self.follow(known.network);
    }

    /// Follows the network: sockets, ticks.
    pub(super) fn follow(&mut self, network: Network) {
        self.network = network;
        for uplink in &mut self.network.uplinks {
            uplink.carrier &= !self.lost.contains(&uplink.path);
        }
        let unfit: Vec<String> = self
            .network
            .uplinks
            .iter()
            .filter(|uplink| !is_path(uplink.path))
            .map(|uplink| uplink.name.clone())
            .collect();
        if !unfit.is_empty() && self.may_say("unfit") {
            let wans = unfit.join(", ");
            tracing::warn!(
                wans,
                "a bond has 15 paths, and the numbers of these are used up by WANs that were \
                 there before: restart the agent (flows go on)"
            );
        }
        self.retry_sockets();
        let device = self.network.outer_device;
        if self.ticks.as_ref().map(|(ifindex, _)| *ifindex) != device {
            self.ticks = device.and_then(|ifindex| match TickSocket::open(ifindex) {
                Ok(socket) => Some((ifindex, socket)),
                Err(error) => {
                    tracing::error!(%error, "no probes: no packet socket for the bond's device");
                    None
                }
            });
        }
    }

    /// Opens the sockets that are missing.
    pub(super) fn retry_sockets(&mut self) {
        let port = self.settings.port;
        for failed in self.sockets.follow(&self.network.uplinks) {
            if self.may_say(&format!("socket {}", failed.device)) {
                let (device, error) = (failed.device, failed.error);
                tracing::error!(device, port, %error, "no socket for the bond");
            }
        }
    }

    /// Whether a word of this kind may be said to the operator now.
    pub(super) fn may_say(&mut self, kind: &str) -> bool {
        let now = Instant::now();
        if self.said.get(kind).is_some_and(|last| now.duration_since(*last) < QUIET) {
            return false;
        }
        if self.said.len() >= KINDS {
            // Whoever makes up addresses must not make us remember them all.
            self.said.retain(|_, last| now.duration_since(*last) < QUIET);
            if self.said.len() >= KINDS {
                return false;
            }
        }
        self.said.insert(kind.to_owned(), now);
        true
    }

    pub(super) fn publish(&self, kind: EventKind, wan: Option<&str>, message: String, why: String) {
        self.bus.publish(kind, wan, message, why);
    }

    /// What people call the WAN with a path id.
    pub(super) fn name(&self, via: u8) -> Option<String> {
        self.network.uplink(via).map(|uplink| uplink.name.clone())
    }

    /// Sends a packet by a WAN.
    pub(super) fn send(&mut self, via: u8, to: SocketAddr, packet: &[u8]) {
        match self.sockets.send(via, to, packet) {
            Ok(()) => {}
            // The queue is full: as if it was lost on the way.
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) => {
                if self.may_say(&format!("send {via}")) {
                    let wan = self.name(via).unwrap_or_default();
                    tracing::warn!(wan, %to, %error, "the bond cannot send");
                }
            }
        }
    }

    /// Sends a packet by a WAN after some time.
    pub(super) fn send_later(&mut self, at: Instant, via: u8, to: SocketAddr, packet: Vec<u8>) {
        self.later.push(Later { at, via, to, packet });
    }

    /// When something is to be sent that waits.
    pub(super) fn next_later(&self) -> Option<Instant> {
        self.later.iter().map(|later| later.at).min()
    }

    /// Sends what has waited long enough.
    pub(super) fn send_due(&mut self, now: Instant) {
        let (due, later) = std::mem::take(&mut self.later)
            .into_iter()
            .partition::<Vec<_>, _>(|later| later.at <= now);
        self.later = later;
        for Later { via, to, packet, .. } in due {
            self.send(via, to, &packet);
        }
    }

    /// Has a probe sent at once.
    pub(super) fn probe(&mut self, slot: u32, path: u8) {
        if let Some((_, socket)) = &self.ticks
            && let Err(error) = socket.short(slot, path)
        {
            tracing::debug!(%error, "a probe of the bond");
        }
    }

    /// Has a probe of a length sent, from the outer IP header on. Whether it was.
    pub(super) fn probe_exactly(&mut self, slot: u32, path: u8, length: u32) -> bool {
        let Some((_, socket)) = &self.ticks else { return false };
        match socket.exact(slot, path, length) {
            Ok(()) => true,
            Err(error) => {
                if self.may_say("exact") {
                    tracing::warn!(%error, length, "the MTU of a path cannot be searched for");
                }
                false
            }
        }
    }

    /// Says which paths are probed.
    pub(super) fn beat(&self, targets: Vec<Target>) {
        let beat = Beat {
            device: self.network.outer_device,
            interval: self.settings.probe_interval,
            targets,
        };
        self.beats.send_if_modified(|before| {
            let changed = *before != beat;
            *before = beat;
            changed
        });
    }

    /// Writes the rules of classes, if they or the paths of WANs are others.
    pub(super) fn write_classes(&self) -> Result<(), Error> {
        let id = |name: &str| {
            let mut uplinks = self.network.uplinks.iter();
            uplinks.find(|uplink| uplink.name == name).map(|uplink| uplink.path)
        };
        let rules: Vec<_> = self.settings.classes.rules.iter().map(|rule| rule.rule(id)).collect();
        self.maps.set_classes(&rules)
    }

    /// Writes the settings that the kernel side reads. `slot` is the session in use of a
    /// gateway; without `elephant_bytes` they stay as they were.
    pub(super) fn write_bond(&self, slot: u32, elephant_bytes: Option<u32>) -> Result<(), Error> {
        let before = self.maps.bond()?;
        let now = Bond {
            inner_device: self.network.inner_device.unwrap_or(0),
            outer_device: self.network.outer_device.unwrap_or(0),
            // The same over restarts, so that buckets are.
            seed: if before.seed == 0 { random_u32() | 1 } else { before.seed },
            slot_mask: self.maps.slots().saturating_sub(1),
            slot,
            elephant_bytes: elephant_bytes.unwrap_or(match before.elephant_bytes {
                0 => u32::MAX,
                bytes => bytes,
            }),
            port: self.settings.port.to_be_bytes(),
            role: match self.settings.end {
                End::Gateway(_) => bond_role::GATEWAY,
                End::Server(_) => bond_role::SERVER,
            },
            rules: before.rules,
            ..self.settings.paces()
        };
        if now == before { Ok(()) } else { self.maps.set_bond(&now) }
    }

    /// A number for a session in a slot that is not in use: its low bits are the slot.
    pub(super) fn fresh(&self, used: &BTreeSet<u32>) -> Option<SessionId> {
        let slots = self.maps.slots();
        let slot = (0..slots).find(|slot| !used.contains(slot))?;
        // Of so many tries one gives a number that is not 0.
        (0..64).find_map(|_| SessionId::new(random_u32() & !(slots - 1) | slot))
    }

    /// What is to be said to far ends of what came; once.
    pub(super) fn told(&mut self) -> Option<UnboundedReceiver<Told>> {
        self.slow.as_mut().and_then(Slow::told)
    }

    /// The far end of a session says what came.
    pub(super) fn acked(&self, session: &Session, text: &[u8]) -> Result<(), Refused> {
        let ack = Ack::decode(text).map_err(|_| Refused::Malformed)?;
        if let Some(slow) = &self.slow {
            slow.acked(session.slot, session.ours.get(), &ack);
        }
        Ok(())
    }

    /// Seals a message and sends it by a WAN to an address.
    pub(super) fn tell_by(
        &mut self,
        session: &mut Session,
        path: u8,
        via: u8,
        to: SocketAddr,
        text: &[u8],
    ) {
        if let Some(packet) = session.seal(path, text) {
            self.send(via, to, &packet);
        }
    }
}

/// Bytes in 100 ms of a rate in bit/s.
pub(super) fn elephant_bytes(rate: u64) -> u32 {
    u32::try_from(rate / BITS_PER_WINDOW).unwrap_or(u32::MAX)
}

fn random_u32() -> u32 {
    let mut bytes = [0; 4];
    // Without random bytes there is no handshake either; a slot's number is no secret.
    let _ = Os.fill(&mut bytes);
    u32::from_ne_bytes(bytes)
}
