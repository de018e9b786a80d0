//! Looks at the carriers of a bond's WANs itself, all the time: the kernel's events come up
//! to a second late, and a bond has another path to use at once.

use std::collections::BTreeSet;
use std::thread;
use std::time::{Duration, Instant};

use tokio::sync::watch;

use crate::net::CarrierSocket;
use crate::tunnel::{Known, Network};

/// Between two looks at a device.
const EVERY: Duration = Duration::from_millis(10);
/// A device that does not tell is asked again after this time.
const SILENT: Duration = Duration::from_secs(1);
/// Some drivers ask the hardware, and nobody can change the network meanwhile: such a
/// device is looked at so much less often than its answer takes.
const PAUSE: u32 = 20;
/// Of so many answers the quickest counts: any can have waited for somebody else.
const ANSWERS: usize = 4;

/// A device that is looked at.
struct Looked {
    path: u8,
    device: String,
    ifindex: u32,
    due: Instant,
    took: [Duration; ANSWERS],
    lost: bool,
}

/// Tells which WANs have no carrier, by path id, from now on and until nobody wants to know.
/// Devices that do not tell are never among them.
pub(super) fn watch(known: watch::Receiver<Known>) -> watch::Receiver<BTreeSet<u8>> {
    let (sender, lost) = watch::channel(BTreeSet::new());
    // A thread of its own: the kernel answers when it has time for the network's settings.
    let spawned = thread::Builder::new().name("mwb-carriers".to_owned()).spawn(move || {
        match CarrierSocket::open() {
            Ok(socket) => look(&socket, known, &sender),
            Err(error) => tracing::warn!(%error, "carriers are known by events only"),
        }
    });
    if let Err(error) = spawned {
        tracing::warn!(%error, "carriers are known by events only");
    }
    lost
}

fn look(
    socket: &CarrierSocket,
    mut known: watch::Receiver<Known>,
    lost: &watch::Sender<BTreeSet<u8>>,
) {
    let mut devices = follow(Vec::new(), &known.borrow_and_update().network);
    while !lost.is_closed() {
        match known.has_changed() {
            Ok(true) => devices = follow(devices, &known.borrow_and_update().network),
            Ok(false) => {}
            Err(_) => return,
        }
        let now = Instant::now();
        for device in devices.iter_mut().filter(|device| device.due <= now) {
            device.ask(socket);
        }
        let now_lost = devices.iter().filter(|device| device.lost).map(|device| device.path);
        let now_lost: BTreeSet<u8> = now_lost.collect();
        lost.send_if_modified(|before| {
            let changed = *before != now_lost;
            *before = now_lost;
            changed
        });
        thread::sleep(EVERY);
    }
}

/// The devices of a network, with what is known of those that were there before.
fn follow(mut before: Vec<Looked>, network: &Network) -> Vec<Looked> {
    let uplinks = network.uplinks.iter();
    uplinks
        .filter_map(|uplink| {
            let ifindex = uplink.ifindex?;
            let is_same = |looked: &Looked| {
                looked.ifindex == ifindex
                    && looked.path == uplink.path
                    && looked.device == uplink.device
            };
            if let Some(place) = before.iter().position(is_same) {
                return Some(before.swap_remove(place));
            }
            Some(Looked {
                path: uplink.path,
                device: uplink.device.clone(),
                ifindex,
                due: Instant::now(),
                took: [Duration::ZERO; ANSWERS],
                lost: false,
            })
        })
        .collect()
}

impl Looked {
    fn ask(&mut self, socket: &CarrierSocket) {
        let asked = Instant::now();
        let answer = socket.has_carrier(&self.device);
        let now = Instant::now();
        self.took.rotate_right(1);
        self.took[0] = now.duration_since(asked);
        self.lost = answer.as_ref().is_ok_and(|has| !has);
        self.due = now + if answer.is_ok() { pause(&self.took) } else { SILENT };
    }
}

/// For how long a device is not asked, besides the time between two looks.
fn pause(took: &[Duration; ANSWERS]) -> Duration {
    let quickest = took.iter().min().copied().unwrap_or_default();
    (quickest * PAUSE).saturating_sub(EVERY)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dataplane::testing::{in_network, run};
    use crate::tunnel::Uplink;

    #[test]
    fn a_carrier_that_goes_is_told_within_a_moment_and_so_is_its_return() {
        let name = "a_carrier_that_goes_is_told_within_a_moment_and_so_is_its_return";
        in_network(name, || {
            let uplink = |path: u8, device: &str, ifindex| Uplink {
                path,
                device: device.to_owned(),
                ifindex,
                carrier: true,
                ..Uplink::default()
            };
            run("ip link add wan0 type veth peer name far0");
            run("ip link set wan0 up");
            run("ip link set far0 up");
            let ifindex = nix::net::if_::if_nametoindex("wan0").expect("a device");
            let uplinks = vec![uplink(3, "wan0", Some(ifindex)), uplink(4, "no-device", Some(9))];
            let network = Network { uplinks, ..Network::default() };
            let (tells, known) = watch::channel(Known { network, ..Known::default() });
            let lost = super::watch(known);
            let wait = |what: &str, wanted: &[u8]| {
                let deadline = Instant::now() + Duration::from_secs(5);
                while !lost.borrow().iter().eq(wanted) {
                    assert!(Instant::now() < deadline, "{what}: {:?}", *lost.borrow());
                    thread::sleep(Duration::from_millis(1));
                }
            };
            // The first change is told by the kernel at once, the others are not.
            for _ in 0..3 {
                run("ip link set far0 down");
                wait("no carrier", &[3]);
                run("ip link set far0 up");
                wait("a carrier", &[]);
            }
            run("ip link set far0 down");
            wait("no carrier", &[3]);
            // A WAN that is none any more has lost nothing.
            tells.send_replace(Known::default());
            wait("no WAN", &[]);
        });
    }

    #[test]
    fn a_device_that_takes_long_to_tell_is_asked_less_often() {
        let ms = Duration::from_millis;
        assert_eq!(pause(&[ms(5); ANSWERS]), ms(90));
        // One that came at once says that the driver can: the others waited for somebody.
        assert_eq!(pause(&[ms(5), ms(300), Duration::from_micros(3), ms(5)]), ms(0));
    }
}
