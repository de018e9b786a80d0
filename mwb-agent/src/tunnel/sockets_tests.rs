use super::*;
use crate::dataplane::testing::{in_network, make_veth, run};

fn wan(path: u8, device: &str, ifindex: u32) -> Uplink {
    Uplink { path, device: device.to_owned(), ifindex: Some(ifindex), ..Uplink::default() }
}

fn in_runtime(name: &str, test: impl AsyncFnOnce() + Send) {
    in_network(name, || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        runtime.expect("a runtime").block_on(test());
    });
}

#[test]
fn every_wan_has_sockets_of_its_own_on_one_port_and_a_new_device_new_ones() {
    let name = "every_wan_has_sockets_of_its_own_on_one_port_and_a_new_device_new_ones";
    in_runtime(name, async || {
        let (first, second) = (make_veth("wan0"), make_veth("wan1"));
        let (sender, _received) = mpsc::channel(4);
        let mut sockets = Sockets::new(7_000, sender);
        let failed = sockets.follow(&[wan(1, "wan0", first), wan(2, "wan1", second)]);
        assert!(failed.is_empty(), "{failed:?}");
        assert_eq!(sockets.open.keys().copied().collect::<Vec<_>>(), [1, 2]);
        let bound = |sockets: &Sockets, path: u8| {
            let open = sockets.open[&path].sockets[0].as_ref().expect("a socket");
            let socket = socket2::SockRef::from(&*open.socket);
            let device = socket.device().expect("an answer").expect("a device");
            (device, open.socket.local_addr().expect("an address").port())
        };
        assert_eq!(bound(&sockets, 2), (b"wan1".to_vec(), 7_000));
        run("ip link del wan1");
        let anew = make_veth("wan1");
        assert_ne!(anew, second);
        // Nothing is sent by a device that is gone, and none is kept for a WAN that is none.
        assert!(sockets.follow(&[wan(2, "wan1", anew)]).is_empty());
        assert_eq!(sockets.open.keys().copied().collect::<Vec<_>>(), [2]);
        assert_eq!((sockets.open[&2].ifindex, bound(&sockets, 2).1), (anew, 7_000));
        let to = "203.0.113.1:7000".parse().expect("an address");
        let error = sockets.send(1, to, b"text").expect_err("no socket");
        assert_eq!(error.kind(), io::ErrorKind::NotConnected);
    });
}

#[test]
fn what_cannot_be_opened_is_named_and_tried_again() {
    in_runtime("what_cannot_be_opened_is_named_and_tried_again", async || {
        let ifindex = make_veth("wan0");
        let (sender, _received) = mpsc::channel(4);
        let mut sockets = Sockets::new(7_000, sender);
        let other = std::net::UdpSocket::bind("0.0.0.0:7000").expect("a socket");
        let failed = sockets.follow(&[wan(1, "wan0", ifindex)]);
        assert_eq!(failed[0].error.kind(), io::ErrorKind::AddrInUse);
        assert_eq!(failed[0].device, "wan0");
        drop(other);
        assert!(sockets.follow(&[wan(1, "wan0", ifindex)]).is_empty());
    });
}
