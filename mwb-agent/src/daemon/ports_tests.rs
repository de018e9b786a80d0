//! Devices that come, go and change, with the kernel as the oracle.

use std::io;

use mwb_common::maps::{Device as Entry, hook, role};

use super::*;
use crate::config::Config;
use crate::daemon::beat::Plane;
use crate::dataplane::testing::Instance;
use crate::net::Requests;
use crate::net::testing::{Tun, in_network, ip};

struct Scene {
    plane: Plane,
    bus: Bus,
    requests: Requests,
    _instance: Instance,
}

impl Scene {
    fn new(name: &str) -> Self {
        let instance = Instance::new(name);
        Self {
            plane: Plane::new(instance.open(), Duration::from_secs(1)),
            bus: Bus::default(),
            requests: Requests::open().unwrap_or_else(|error| panic!("{error}")),
            _instance: instance,
        }
    }

    /// Lets a port see what is there; returns what it says of its hook.
    async fn look(&self, port: &mut Port) -> (Option<String>, String) {
        let network = self.requests.snapshot(&crate::net::Watched::default()).await;
        let network = network.unwrap_or_else(|error| panic!("{error}"));
        // A refusal is in the hook's reason.
        let _ = port.follow(&self.plane, &self.bus, &network);
        let (hook, _, reason) = port.hook();
        (hook, reason)
    }

    /// What the kernel side knows of devices.
    fn entries(&self) -> Vec<(u32, Entry)> {
        let tables = self.plane.with(|plane| plane.tables());
        tables.devices().unwrap_or_else(|error| panic!("{error}"))
    }

    fn told(&self, kind: EventKind) -> usize {
        self.bus.since(0).iter().filter(|event| event.kind == kind).count()
    }
}

fn config() -> Config {
    crate::daemon::fixture::config()
}

fn index(name: &str) -> u32 {
    nix::net::if_::if_nametoindex(name).unwrap_or_else(|error| panic!("{name}: {error}"))
}

fn make_wan(address: &str) -> u32 {
    ip("link add wan0 type veth peer name far0");
    ip("link set wan0 up");
    ip(&format!("addr add {address}/24 dev wan0"));
    index("wan0")
}

#[test]
fn a_device_that_is_made_anew_is_attached_anew_and_the_old_one_forgotten() {
    in_network("a_device_that_is_made_anew_is_attached_anew", || async {
        let scene = Scene::new("ports-anew");
        let mut port = Port::wan(7, &config(), &config().wans[0]);
        let first = make_wan("198.51.100.2");
        assert_eq!(scene.look(&mut port).await.0.as_deref(), Some("tcx"));
        let is_served = |scene: &Scene, ifindex: u32| {
            let entries = scene.entries();
            entries.len() == 1
                && entries
                    .iter()
                    .all(|(at, entry)| (*at, entry.role, entry.path) == (ifindex, role::OUTSIDE, 7))
        };
        assert!(is_served(&scene, first), "{:?}", scene.entries());
        // It goes, and is looked at: nothing is left that another device with
        // its index could be taken for.
        ip("link del wan0");
        assert_eq!(scene.look(&mut port).await, (None, "device missing".to_owned()));
        assert_eq!(scene.entries(), []);
        scene.look(&mut port).await;
        assert_eq!(scene.told(EventKind::DeviceMissing), 1);
        let second = make_wan("198.51.100.2");
        assert_ne!(first, second);
        assert_eq!(scene.look(&mut port).await.0.as_deref(), Some("tcx"));
        assert!(is_served(&scene, second), "{:?}", scene.entries());
        // It goes and comes between two looks.
        ip("link del wan0");
        let third = make_wan("198.51.100.2");
        assert_eq!(scene.look(&mut port).await.0.as_deref(), Some("tcx"));
        assert!(is_served(&scene, third), "{:?}", scene.entries());
        assert_eq!(scene.told(EventKind::HookAttached), 3);
        Ok::<_, io::Error>(())
    });
}

#[test]
fn the_data_plane_knows_our_addresses_on_a_device_as_they_change() {
    in_network("the_data_plane_knows_our_addresses_as_they_change", || async {
        let scene = Scene::new("ports-addresses");
        let mut port = Port::wan(1, &config(), &config().wans[0]);
        let wan = make_wan("198.51.100.2");
        let addresses = |scene: &Scene| {
            let entry = scene.entries().into_iter().find(|(at, _)| *at == wan);
            entry.map(|(_, entry)| (Ipv4Addr::from(entry.address4), Ipv6Addr::from(entry.address6)))
        };
        let none = (Ipv4Addr::UNSPECIFIED, Ipv6Addr::UNSPECIFIED);
        scene.look(&mut port).await;
        assert_eq!(addresses(&scene), Some((Ipv4Addr::new(198, 51, 100, 2), none.1)));
        ip("addr add 198.51.100.3/24 dev wan0");
        ip("addr del 198.51.100.2/24 dev wan0");
        ip("addr add 2001:db8:1::2/64 dev wan0 nodad");
        scene.look(&mut port).await;
        // The second of a subnet goes with the first, so there is none now.
        let six = Ipv6Addr::new(0x2001, 0xdb8, 1, 0, 0, 0, 0, 2);
        assert_eq!(addresses(&scene), Some((none.0, six)));
        ip("addr add 203.0.113.9/24 dev wan0");
        scene.look(&mut port).await;
        assert_eq!(addresses(&scene), Some((Ipv4Addr::new(203, 0, 113, 9), six)));
        // The programs stayed where they were.
        assert_eq!(scene.told(EventKind::HookAttached), 1);
        Ok::<_, io::Error>(())
    });
}

#[test]
fn a_wan_may_be_without_ethernet_and_a_lan_port_may_not() {
    in_network("a_wan_may_be_without_ethernet_and_a_lan_port_may_not", || async {
        let scene = Scene::new("ports-tun");
        let _tun = Tun::make("tun0")?;
        ip("link set tun0 up");
        ip("addr add 198.51.100.2 peer 203.0.113.1 dev tun0");
        let mut config = config();
        config.lan[0].device = "tun0".to_owned();
        let (hook, reason) = scene.look(&mut Port::lan(&config, &config.lan[0])).await;
        assert!(hook.is_none() && reason.contains("no Ethernet address"), "{reason}");
        assert_eq!(scene.entries(), []);
        config.wans[0].device = "tun0".to_owned();
        config.wans[0].hook = config::HookChoice::Xdp;
        let (hook, reason) = scene.look(&mut Port::wan(1, &config, &config.wans[0])).await;
        assert!(hook.is_none() && reason.contains("hook: tcx"), "{reason}");
        config.wans[0].hook = config::HookChoice::Auto;
        let (hook, reason) = scene.look(&mut Port::wan(1, &config, &config.wans[0])).await;
        assert!(hook.as_deref() == Some("tcx") && reason.contains("no Ethernet"), "{reason}");
        let entries = scene.entries();
        let expected = Entry {
            role: role::OUTSIDE,
            path: 1,
            hook: hook::TC,
            flags: device_flag::NO_ETHERNET,
            address4: [198, 51, 100, 2],
            ..Entry::default()
        };
        // The kernel gives it a link-local IPv6 address, which is no source.
        assert_eq!(entries, [(index("tun0"), expected)]);
        Ok::<_, io::Error>(())
    });
}

#[test]
fn the_bonds_device_has_programs_and_the_mac_of_its_kernel_end() {
    in_network("the_bonds_device_has_programs_and_the_mac_of_its_kernel_end", || async {
        let scene = Scene::new("bond-device");
        let config = crate::daemon::fixture::bonded();
        let tunnel = config.tunnel().unwrap_or_else(|| panic!("no bond"));
        let mut port = Port::bond(&tunnel);
        let (hook, _) = scene.look(&mut port).await;
        assert_eq!((hook, scene.told(EventKind::DeviceMissing)), (None, 1));
        ip("link add mwb0 address 02:00:00:00:00:77 type veth peer name mwb0-dp");
        ip("link set mwb0 up");
        ip("link set mwb0-dp up");
        let (hook, _) = scene.look(&mut port).await;
        assert_eq!(hook.as_deref(), Some("xdp"));
        let entries = scene.entries();
        let [(ifindex, entry)] = entries.as_slice() else { panic!("{entries:?}") };
        assert_eq!((*ifindex, entry.role), (index("mwb0-dp"), role::DEVICE));
        assert_eq!(entry.mac, [2, 0, 0, 0, 0, 0x77]);
        // With another MAC at that end it is told anew.
        ip("link set mwb0 address 02:00:00:00:00:78");
        scene.look(&mut port).await;
        assert_eq!(scene.entries()[0].1.mac, [2, 0, 0, 0, 0, 0x78]);
        Ok::<_, io::Error>(())
    });
}
