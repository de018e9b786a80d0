//! The slow path of a bond: packets that the kernel side hands over because they are ahead
//! of their turn ([`super::hold`]), may have to be sent again ([`super::repair`]) or are of
//! a block with parity ([`super::parity`]), and what came, for the far end that asks
//! ([`super::acks`]).
//!
//! A thread of its own does it, so that nothing holds it up. The kernel side hands over
//! only while a lease runs that this thread renews; without it, it gives packets on as they
//! come. So what is lost with the agent is what it holds at that moment.

use std::collections::BTreeMap;
use std::io;
use std::os::fd::AsFd as _;
use std::os::unix::net::UnixDatagram;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};

use mwb_common::maps::{Back, Handed, handed};
use mwb_common::wire::flag;
use nix::poll::{PollFd, PollFlags, ppoll};
use nix::sys::time::{TimeSpec, TimeValLike as _};
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};

use super::acks::{Acks, Told};
use super::device::DeviceSocket;
use super::hold::Hold;
use super::parity::{self, Blocks};
use super::parts::Part;
use super::repair::Repair;
use super::settings::Settings;
use crate::dataplane::{BondMaps, Error, HandedRing, monotonic};
use crate::hitless::{reorder, resend};

/// How long the kernel side hands packets over without a renewal, in ns: what comes ahead
/// of its turn for so long after the agent has died is lost with it.
const LEASE: u64 = 60_000_000;
/// Between two renewals, in ns.
const RENEWAL: u64 = 20_000_000;
/// Packets taken at once, before what is due is looked at.
const BATCH: usize = 256;
/// What has lain in the ring for so long, in ns, is of no use to anybody.
const STALE: u64 = 1_000_000_000;
/// What the far end has said, on its way to the thread: slot and id of the session, then
/// the acknowledgement.
const SAID: usize = 8 + resend::LENGTH;

/// What was counted of a session.
#[derive(Clone, Debug, Default)]
pub(super) struct Counted {
    pub(super) order: reorder::Statistics,
    pub(super) parts: Vec<Part>,
    pub(super) repair: resend::Statistics,
    pub(super) parity: parity::Counted,
}

/// What was counted, by slot and id of the session.
type Shown = BTreeMap<(u32, u32), Counted>;

/// The thread. It ends with this value.
pub(super) struct Slow {
    stop: Arc<AtomicBool>,
    shown: Arc<Mutex<Shown>>,
    /// To the thread: what the far end says.
    said: UnixDatagram,
    /// From it: what is to be said to the far end.
    told: Option<UnboundedReceiver<Told>>,
    thread: Option<JoinHandle<()>>,
}

impl Drop for Slow {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        // It gives back what it holds: the process must not end before that.
        let _ = self.said.send(&[]);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// Starts the thread.
pub(super) fn start(maps: &BondMaps, settings: &Settings) -> Option<Slow> {
    let started = Slow::start(maps.clone(), settings);
    started
        .inspect_err(|error| {
            tracing::error!(%error, "packets of the bond are given on as they come");
        })
        .ok()
}

impl Slow {
    fn start(maps: BondMaps, settings: &Settings) -> io::Result<Self> {
        let (hold, fec) = (settings.hold, settings.blocks());
        let (said, heard) = UnixDatagram::pair()?;
        said.set_nonblocking(true)?;
        heard.set_nonblocking(true)?;
        let (tell, told) = unbounded_channel();
        let (stop, shown) = (Arc::new(AtomicBool::new(false)), Arc::<Mutex<Shown>>::default());
        let (stopped, seen) = (Arc::clone(&stop), Arc::clone(&shown));
        let work = move || {
            let ring = maps.handed();
            // An agent has one bond after another, never two.
            let mut ring = ring.lock().unwrap_or_else(PoisonError::into_inner);
            let worker = Worker {
                hold: Hold::new(hold),
                repair: Repair::new(maps.slots()),
                blocks: Blocks::new(fec),
                acks: Acks::new(tell),
                heard,
                out: Out { socket: None, frame: Vec::new() },
                maps,
            };
            worker.run(&mut ring, &stopped, &seen);
        };
        let thread = thread::Builder::new().name("mwb-slow".to_owned()).spawn(work)?;
        Ok(Self { stop, shown, said, told: Some(told), thread: Some(thread) })
    }

    /// What is to be said to far ends; once.
    pub(super) fn told(&mut self) -> Option<UnboundedReceiver<Told>> {
        self.told.take()
    }

    /// The far end of a session says what came.
    pub(super) fn acked(&self, slot: u32, session: u32, ack: &resend::Ack) {
        let mut said = Vec::with_capacity(SAID);
        said.extend_from_slice(&slot.to_ne_bytes());
        said.extend_from_slice(&session.to_ne_bytes());
        said.extend_from_slice(&ack.encode());
        // If the thread is behind, a later one says the same.
        let _ = self.said.send(&said);
    }

    /// What was counted of a session, by its slot and its id in packets to us.
    pub(super) fn counted(&self, slot: u32, session: u32) -> Counted {
        let shown = self.shown.lock().unwrap_or_else(PoisonError::into_inner);
        shown.get(&(slot, session)).cloned().unwrap_or_default()
    }
}

struct Worker {
    maps: BondMaps,
    hold: Hold,
    repair: Repair,
    blocks: Blocks,
    acks: Acks,
    heard: UnixDatagram,
    out: Out,
}

/// The way into the data plane.
pub(super) struct Out {
    socket: Option<DeviceSocket>,
    frame: Vec<u8>,
}

impl Out {
    /// Sends a frame.
    pub(super) fn send(&mut self, maps: &BondMaps, head: &Back, text: &[u8]) {
        if self.socket.is_none() {
            let device = maps.bond().map_or(0, |bond| bond.outer_device);
            self.socket = DeviceSocket::open(device).ok();
        }
        let Some(socket) = &self.socket else { return };
        self.frame.clear();
        self.frame.extend_from_slice(bytemuck::bytes_of(head));
        self.frame.extend_from_slice(text);
        if socket.send(&self.frame).is_err() {
            // The device may be another one by now.
            self.socket = None;
        }
    }
}

impl Worker {
    fn run(mut self, ring: &mut HandedRing, stop: &AtomicBool, shown: &Mutex<Shown>) {
        let (mut renew, mut failed) = (0, false);
        while !stop.load(Ordering::Relaxed) {
            let now = monotonic();
            if now >= renew {
                renew = now + RENEWAL;
                let renewed = self.maps.set_lease(now + LEASE);
                if let Err(error) = &renewed
                    && !failed
                {
                    tracing::error!(%error, "packets of the bond are given on as they come");
                }
                failed = renewed.is_err();
                *shown.lock().unwrap_or_else(PoisonError::into_inner) = self.counted();
            }
            if self.turn(ring, now) == 0 {
                let dues = [
                    self.hold.next_due(),
                    self.repair.next_due(),
                    self.blocks.next_due(),
                    self.acks.next_due(),
                ];
                let due = dues.into_iter().flatten().fold(renew, u64::min);
                self.wait(ring, due.saturating_sub(monotonic()));
            }
        }
        if let Err(error) = self.end(ring) {
            tracing::warn!(%error, "packets of the bond that were held may be lost");
        }
    }

    /// Takes what there is, and does what is due; says how many packets there were.
    fn turn(&mut self, ring: &mut HandedRing, now: u64) -> usize {
        let Self { maps, hold, repair, blocks, acks, out, .. } = self;
        let taken = ring.read(BATCH, |head, text| match head.kind {
            // An agent before us did not get to it.
            _ if now.saturating_sub(head.came) > STALE => {}
            handed::AHEAD => {
                // What was recovered does not have this flag.
                if head.flags & flag::FEC != 0 {
                    hold.protected(head, now);
                    blocks.came(head, text, now);
                }
                hold.take(maps, head, text, now);
            }
            handed::SENT => {
                if head.flags & flag::ACKED != 0 {
                    repair.sent(head, text, now);
                }
                if head.flags & flag::FEC != 0 {
                    blocks.sent(maps, head, text, now);
                }
            }
            handed::TAKEN => {
                hold.protected(head, now);
                blocks.came(head, text, now);
            }
            handed::PARITY => {
                if let Some(wait) = blocks.parity(head, text, now) {
                    hold.waits(head.slot, wait);
                }
            }
            handed::ASKED => acks.ask(head, now),
            _ => {}
        });
        hold.turn(now, |head, text| out.send(maps, head, text));
        let mut said = [0; SAID + 1];
        while let Ok(length) = self.heard.recv(&mut said) {
            if let Some((slot, session, ack)) = said.get(..length).and_then(read) {
                repair.acked(slot, session, &ack, now);
            }
        }
        repair.turn(maps, now, |head: &Handed, text| out.send(maps, &Back::again(head), text));
        blocks.turn(maps, now, |head, text| out.send(maps, head, text));
        acks.turn(maps, now);
        taken
    }

    fn counted(&self) -> Shown {
        let mut shown = Shown::new();
        for (session, order) in self.hold.statistics() {
            let counted = shown.entry(session).or_default();
            (counted.order, counted.parts) = (order, self.hold.parts(session.0));
        }
        for (session, repair) in self.repair.statistics() {
            shown.entry(session).or_default().repair = repair;
        }
        for (session, parity) in self.blocks.counted() {
            shown.entry(session).or_default().parity = parity;
        }
        shown
    }

    /// Until there is something, or so many ns have passed.
    fn wait(&self, ring: &HandedRing, nanos: u64) {
        let mut fds =
            [ring.as_fd(), self.heard.as_fd()].map(|fd| PollFd::new(fd, PollFlags::POLLIN));
        let time = TimeSpec::nanoseconds(i64::try_from(nanos).unwrap_or(i64::MAX));
        // Interrupted, it looks again.
        let _ = ppoll(&mut fds, Some(time), None);
    }

    /// Gives back all that is held, and what has come meanwhile.
    fn end(mut self, ring: &mut HandedRing) -> Result<(), Error> {
        self.maps.set_lease(0)?;
        while self.turn(ring, monotonic()) != 0 {}
        let Self { maps, hold, out, .. } = &mut self;
        hold.turn(u64::MAX, |head, text| out.send(maps, head, text));
        Ok(())
    }
}

fn read(said: &[u8]) -> Option<(u32, u32, resend::Ack)> {
    let (slot, rest) = said.split_first_chunk()?;
    let (session, rest) = rest.split_first_chunk()?;
    let ack = resend::Ack::decode(rest).ok()?;
    Some((u32::from_ne_bytes(*slot), u32::from_ne_bytes(*session), ack))
}
