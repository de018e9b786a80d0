//! The kernel as the oracle: a veth pair in a network namespace of the test's
//! own, changed by `ip`, read by us.

use std::net::IpAddr;
use std::time::Duration;

use tokio::sync::watch;

use super::testing::{Tun, in_network, ip};
use super::*;

/// How long the kernel and we may take to see a change.
const SOON: Duration = Duration::from_secs(5);

/// A WAN with an address, a gateway and a far end; both ends are ours.
fn make_wan() {
    ip("link set lo up");
    ip(
        "link add wan0 address 02:00:00:00:00:02 type veth peer name far0 address 02:00:00:00:00:01",
    );
    ip("link set wan0 up mtu 1400");
    ip("link set far0 up");
    ip("addr add 198.51.100.2/24 dev wan0");
    ip("addr add 2001:db8:1::2/64 dev wan0 nodad");
    ip("route add default via 198.51.100.9 dev wan0 metric 50");
    ip("route add default via 198.51.100.1 dev wan0 metric 10");
    ip("route add 203.0.113.0/24 via 198.51.100.1 dev wan0");
    ip("route add default via 198.51.100.7 dev wan0 table 99");
}

async fn start() -> Result<watch::Receiver<Snapshot>, Error> {
    let requests = Requests::open()?;
    let (_neighbours, named) =
        watch::channel(Watched { wans: vec!["wan0".to_owned()], ..Watched::default() });
    let (watcher, snapshots) = Watcher::start(requests, named).await?;
    tokio::spawn(watcher.run());
    Ok(snapshots)
}

/// Waits until a snapshot is as wanted.
async fn until(
    snapshots: &mut watch::Receiver<Snapshot>,
    what: &str,
    wanted: impl Fn(&Snapshot) -> bool,
) {
    let wait = snapshots.wait_for(|snapshot| wanted(snapshot));
    let in_time = tokio::time::timeout(SOON, wait).await.is_ok();
    assert!(in_time, "not within {SOON:?}: {what}: {:?}", *snapshots.borrow());
}

#[test]
fn a_snapshot_says_what_the_kernel_has() {
    in_network("a_snapshot_says_what_the_kernel_has", || async {
        make_wan();
        let snapshot = Requests::open()?.snapshot(&Watched::default()).await?;
        let wan = snapshot.device("wan0").cloned();
        let wan = wan.unwrap_or_else(|| panic!("no wan0: {snapshot:?}"));
        assert_eq!((wan.kind.as_deref(), wan.mtu), (Some("veth"), 1400));
        assert_eq!(wan.mac, Some([2, 0, 0, 0, 0, 2]));
        assert!(wan.carrier && wan.resolves);
        assert_eq!(wan.source4().map(|ip| ip.to_string()).as_deref(), Some("198.51.100.2"));
        assert_eq!(wan.source6().map(|ip| ip.to_string()).as_deref(), Some("2001:db8:1::2"));
        let subnets: Vec<String> = wan.subnets().map(|net| net.to_string()).collect();
        assert_eq!(subnets, ["198.51.100.0/24", "2001:db8:1::/64"]);
        let gateway = snapshot.gateway4(wan.ifindex).flatten();
        assert_eq!(gateway.map(|ip| ip.to_string()).as_deref(), Some("198.51.100.1"));
        assert_eq!(driver(&wan)?, "veth");
        let lo = snapshot.device("lo");
        assert!(lo.is_some_and(|lo| !lo.resolves && lo.subnets().count() == 0));
        assert!(!wan.headless && lo.is_some_and(|lo| !lo.headless));
        Ok::<_, Error>(())
    });
}

#[test]
fn a_tun_device_has_no_ethernet_and_a_far_end() {
    in_network("a_tun_device_has_no_ethernet_and_a_far_end", || async {
        let tun = Tun::make("tun0").unwrap_or_else(|error| panic!("no tun device: {error}"));
        ip("link set tun0 up mtu 1400");
        ip("addr add 198.51.100.2 peer 203.0.113.1 dev tun0");
        let requests = Requests::open()?;
        let device = requests.snapshot(&Watched::default()).await?.device("tun0").cloned();
        let device = device.unwrap_or_else(|| panic!("no tun0"));
        assert!(device.headless && !device.resolves && device.carrier);
        assert_eq!((device.mac, device.mtu), (None, 1400));
        assert_eq!(device.source4().map(|ip| ip.to_string()).as_deref(), Some("198.51.100.2"));
        assert_eq!(device.peer4().map(|ip| ip.to_string()).as_deref(), Some("203.0.113.1"));
        assert_eq!(driver(&device)?, "tun");
        // Without anybody at its far end it is gone, and others like it without
        // a carrier.
        drop(tun);
        assert_eq!(requests.snapshot(&Watched::default()).await?.device("tun0"), None);
        ip("tuntap add dev tun1 mode tun");
        ip("link set tun1 up");
        let lonely = requests.snapshot(&Watched::default()).await?.device("tun1").cloned();
        assert!(lonely.is_some_and(|device| device.headless && !device.carrier));
        Ok::<_, Error>(())
    });
}

#[test]
fn a_device_with_the_name_of_one_that_went_is_another() {
    in_network("a_device_with_the_name_of_one_that_went_is_another", || async {
        make_wan();
        let mut seen = start().await?;
        let index = |snapshot: &Snapshot| snapshot.device("wan0").map(|wan| wan.ifindex);
        let before = index(&seen.borrow());
        // Between two looks, as a modem that resets does.
        ip("link del wan0");
        make_wan();
        until(&mut seen, "the new one with its address and gateway", |s| {
            index(s) != before
                && s.device("wan0").is_some_and(|wan| {
                    wan.source4().is_some() && s.gateway4(wan.ifindex).flatten().is_some()
                })
        })
        .await;
        Ok::<_, Error>(())
    });
}

#[test]
fn every_change_of_a_device_is_seen() {
    in_network("every_change_of_a_device_is_seen", || async {
        make_wan();
        let mut seen = start().await?;
        let wan = |snapshot: &Snapshot| snapshot.device("wan0").cloned();
        ip("link set far0 down");
        until(&mut seen, "no carrier", |s| wan(s).is_some_and(|wan| !wan.carrier)).await;
        ip("link set far0 up");
        until(&mut seen, "a carrier", |s| wan(s).is_some_and(|wan| wan.carrier)).await;
        ip("addr add 198.51.100.3/24 dev wan0");
        ip("addr del 198.51.100.2/24 dev wan0");
        until(&mut seen, "no address", |s| wan(s).is_some_and(|wan| wan.source4().is_none())).await;
        ip("addr add 198.51.100.4/24 dev wan0");
        ip("route add default via 198.51.100.5 dev wan0");
        until(&mut seen, "another gateway", |s| {
            let gateway = wan(s).and_then(|wan| s.gateway4(wan.ifindex)).flatten();
            gateway.is_some_and(|gateway| gateway.octets() == [198, 51, 100, 5])
        })
        .await;
        let before = wan(&seen.borrow()).map(|wan| wan.ifindex);
        ip("link del wan0");
        until(&mut seen, "no device", |s| wan(s).is_none()).await;
        ip("link add wan0 type veth peer name far0");
        until(&mut seen, "a new device", |s| wan(s).is_some_and(|w| Some(w.ifindex) != before))
            .await;
        Ok::<_, Error>(())
    });
}

#[test]
fn a_neighbour_is_resolved_when_asked_for() {
    in_network("a_neighbour_is_resolved_when_asked_for", || async {
        make_wan();
        let mut seen = start().await?;
        let ifindex = seen.borrow().device("wan0").map_or(0, |wan| wan.ifindex);
        let requests = Requests::open()?;
        let gone: IpAddr = [198, 51, 100, 77].into();
        requests.resolve(ifindex, gone).await?;
        until(&mut seen, "an answer is awaited", |s| {
            s.neighbour(ifindex, gone).is_some_and(|n| n.mac.is_none())
        })
        .await;
        ip("neigh replace 198.51.100.77 lladdr 02:00:00:00:00:77 nud stale dev wan0");
        until(&mut seen, "a stale entry", |s| {
            s.neighbour(ifindex, gone).is_some_and(|n| {
                n.state == Reachability::Stale && n.mac == Some([2, 0, 0, 0, 0, 0x77])
            })
        })
        .await;
        // Asked for, a stale entry is on its way to be confirmed.
        requests.resolve(ifindex, gone).await?;
        until(&mut seen, "a fresh entry", |s| {
            s.neighbour(ifindex, gone).is_some_and(|n| n.state == Reachability::Fresh)
        })
        .await;
        ip("neigh del 198.51.100.77 dev wan0");
        until(&mut seen, "no valid entry", |s| {
            s.neighbour(ifindex, gone).is_none_or(|n| n.mac.is_none())
        })
        .await;
        Ok::<_, Error>(())
    });
}

#[test]
fn a_missing_driver_is_an_error() {
    in_network("a_missing_driver_is_an_error", || async {
        make_wan();
        let snapshot = Requests::open()?.snapshot(&Watched::default()).await?;
        let mut wan = snapshot.device("wan0").cloned();
        if let Some(wan) = &mut wan {
            (wan.name, wan.kind) = ("gone0".to_owned(), None);
        }
        assert!(wan.is_some_and(|wan| driver(&wan).is_err()));
        Ok::<_, Error>(())
    });
}
