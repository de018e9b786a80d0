//! Ticks: Ethernet frames into the kernel's end of the bond's device, of which the
//! data plane makes probes (`mwb_common::maps::tick`). Those of every path and
//! interval have a task of their own, so that no handshake holds them up.

use std::io;
use std::time::Duration;

use mwb_common::maps::{ProbeReply, tick};
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until};

use super::device::DeviceSocket;

/// Bytes of an Ethernet header.
const ETHERNET: usize = 14;
/// Bytes of a frame that makes a short probe, at least: as many as the longest of them
/// has, with IPv6 and the longest check. XDP can make a frame shorter, but longer only
/// where there is room behind it, which nobody promises.
const SHORTEST: usize = ETHERNET + 40 + 8 + 40 + size_of::<ProbeReply>();
/// A source address that is nobody's.
const NOBODY: [u8; 6] = [0x02, 0, 0, 0, 0, 0];

/// What is probed, and how often.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Beat {
    /// Interface index of the kernel's end.
    pub(super) device: Option<u32>,
    /// Between two probes of a path.
    pub(super) interval: Duration,
    /// Which paths.
    pub(super) targets: Vec<Target>,
}

/// A path that is probed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Target {
    /// Of its session.
    pub(super) slot: u32,
    /// Its number.
    pub(super) path: u8,
    /// In every so many rounds, not 0.
    pub(super) every: u32,
}

impl Target {
    fn is_due(self, round: u32) -> bool {
        round.is_multiple_of(self.every)
    }
}

/// Sends ticks into a device.
pub(super) struct TickSocket {
    socket: DeviceSocket,
}

impl TickSocket {
    /// Of the device with this index.
    pub(super) fn open(ifindex: u32) -> io::Result<Self> {
        Ok(Self { socket: DeviceSocket::open(ifindex)? })
    }

    /// Has a probe of the least length sent.
    pub(super) fn short(&self, slot: u32, path: u8) -> io::Result<()> {
        self.socket.send(&frame(tick::SHORT, slot, path, SHORTEST))
    }

    /// Has a probe sent that is so long from the outer IP header on.
    pub(super) fn exact(&self, slot: u32, path: u8, length: u32) -> io::Result<()> {
        self.socket.send(&frame(tick::EXACT, slot, path, ETHERNET + length as usize))
    }
}

fn frame(kind: [u8; 2], slot: u32, path: u8, length: usize) -> Vec<u8> {
    let mut frame = Vec::with_capacity(length);
    frame.extend_from_slice(&tick::destination(kind, slot, path));
    frame.extend_from_slice(&NOBODY);
    frame.extend_from_slice(&tick::ETHERTYPE);
    frame.resize(length.max(SHORTEST), 0);
    frame
}

/// Sends the ticks of a beat until nobody tells of it any more.
pub(super) async fn beat(mut beats: watch::Receiver<Beat>) {
    let mut socket: Option<TickSocket> = None;
    let mut failed = false;
    let mut due = Instant::now();
    let mut round: u32 = 0;
    loop {
        let beat = beats.borrow_and_update().clone();
        if socket.as_ref().map(|socket| socket.socket.ifindex()) != beat.device {
            socket = beat.device.and_then(|ifindex| TickSocket::open(ifindex).ok());
        }
        let idle = beat.targets.is_empty() || socket.is_none() || beat.interval.is_zero();
        tokio::select! {
            told = beats.changed() => {
                if told.is_err() {
                    return;
                }
                continue;
            }
            () = sleep_until(due), if !idle => {}
        }
        // After a pause of the machine there is one tick, not many.
        due = (due + beat.interval).max(Instant::now() + beat.interval / 2);
        let Some(socket) = &socket else { continue };
        let mut error = None;
        round = round.wrapping_add(1);
        for &Target { slot, path, .. } in beat.targets.iter().filter(|target| target.is_due(round))
        {
            error = socket.short(slot, path).err().or(error);
        }
        if let Some(error) = &error
            && !failed
        {
            tracing::warn!(%error, "probes of the bond could not be sent");
        }
        failed = error.is_some();
    }
}

#[cfg(test)]
mod tests {
    use socket2::{Domain, Protocol, Socket, Type};

    use super::super::device::address;
    use super::*;
    use crate::dataplane::testing::{in_network, make_veth, run};

    #[test]
    fn every_target_has_its_ticks_in_its_rounds() {
        in_network("every_target_has_its_ticks_in_its_rounds", || {
            let ifindex = make_veth("mwb0");
            run("ip link set mwb0p up");
            let other = nix::net::if_::if_nametoindex("mwb0p").expect("a device");
            let socket = Socket::new(Domain::PACKET, Type::RAW, Some(Protocol::from(0)));
            let socket = socket.expect("a socket");
            socket.bind(&address(other)).expect("bound");
            socket.set_nonblocking(true).expect("a setting");
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            runtime.expect("a runtime").block_on(async {
                let (sender, beats) = watch::channel(Beat::default());
                let ticker = tokio::spawn(beat(beats));
                let interval = Duration::from_millis(20);
                let target = |slot, path, every| Target { slot, path, every };
                let targets = vec![target(1, 2, 1), target(3, 15, 1), target(3, 4, 5)];
                sender.send_replace(Beat { device: Some(ifindex), interval, targets });
                tokio::time::sleep(Duration::from_millis(500)).await;
                // Whoever stops telling stops it.
                drop(sender);
                ticker.await.expect("an end");
            });
            let mut seen = [0, 0, 0];
            let mut buffer = [0; 2_048];
            while let Ok(length) = std::io::Read::read(&mut &socket, &mut buffer) {
                assert_eq!((length, &buffer[..2]), (SHORTEST, &tick::SHORT[..]));
                let destination = buffer.first_chunk().expect("an address");
                let places = [(1, 2), (3, 15), (3, 4)];
                let place = places.iter().position(|place| *place == tick::target(*destination));
                seen[place.expect("a target")] += 1;
            }
            assert_eq!(seen[0], seen[1]);
            // A machine that is busy sends fewer, and never more.
            assert!((5..=26).contains(&seen[0]), "{seen:?}");
            assert_eq!(seen[2], seen[0] / 5, "in every fifth round");
        });
    }

    #[test]
    fn a_tick_says_slot_path_and_length() {
        let short = frame(tick::SHORT, 0x01_02_03, 7, SHORTEST);
        assert_eq!(short[..14], [2, 2, 1, 2, 3, 7, 2, 0, 0, 0, 0, 0, 0x88, 0xb5]);
        assert_eq!(short.len(), 150);
        let exact = frame(tick::EXACT, 0, 1, ETHERNET + 1_400);
        assert_eq!((exact[1], exact.len()), (1, 1_414));
    }
}
