//! Static port forwards: from outside by real sockets, to each WAN's address.

use std::{
    io::ErrorKind,
    net::{SocketAddr, UdpSocket},
    time::Duration,
};

use anyhow::{Context as _, Result, bail, ensure};
use serde_json::json;

use super::{
    Case,
    scene::{Scene, both_hooks},
};
use crate::lab::{
    LabSpec,
    address::{HOST4, NET4, net_uplink4, wan4},
    capture::{Capture, Passing, addresses},
    traffic::{EchoServer, EchoStream, UdpServer, WhoServer, connect_tcp, transfer},
};

const PATIENCE: Duration = Duration::from_secs(3);
/// Not those that were merged on the way.
const SMALL: &str = "ip and less 1600";

pub(super) fn cases() -> Vec<Case> {
    both_hooks(
        "a_forward_is_answered_by_the_wan_it_came_by",
        || LabSpec::direct(2),
        |config| {
            let forwards = json!([
                {"protocol": "tcp", "port": 8080, "to": format!("{HOST4}:80")},
                {"protocol": "udp", "port": "5000-5010", "to": HOST4.to_string()},
                {"protocol": "udp", "port": "30000-30001", "to": format!("{HOST4}:40000")},
            ]);
            // All that the LAN opens leaves by the first: answers must not follow.
            config
                .with("balance", "failover")
                .with("wans.1.priority", 1)
                .with("wans.0.forwards", forwards.clone())
                .with("wans.1.forwards", forwards)
                .with("nat.timeouts", json!({"udp": "1s", "icmp": "1s", "tcp_transitory": "1s"}))
        },
        a_forward_is_answered_by_its_wan,
    )
}

fn a_forward_is_answered_by_its_wan(scene: &mut Scene) -> Result<()> {
    let (host, net) = (scene.lab.host(), scene.lab.net());
    let _web = EchoServer::start(host, SocketAddr::from((HOST4, 80)))?;
    let udp = UdpServer::start(host, SocketAddr::from((HOST4, 5003)))?;
    let moved = WhoServer::start(host, SocketAddr::from((HOST4, 40_001)))?;
    for index in 0..2 {
        let captures = (0..2)
            .map(|index| Capture::start(scene.lab.isp(index), "gw0", Passing::In, SMALL))
            .collect::<Result<Vec<_>>>()?;
        let outside = SocketAddr::from((wan4(index), 8080));
        let mut stream = EchoStream::connect(net, outside, PATIENCE)?;
        let seen = stream.seen_as().ip();
        ensure!(seen == net_uplink4(index), "the server sees {seen}, not the client");
        stream.exchange(b"from outside")?;
        transfer(net, outside, 2 << 20)?;
        udp_range(net, index)?;
        let client = bind(net)?;
        client.send_to(b"who am I?", (wan4(index), 30_001))?;
        let mut buffer = [0; 64];
        let (length, source) = client.recv_from(&mut buffer).context("no answer")?;
        ensure!(source == SocketAddr::from((wan4(index), 30_001)), "{source} answers");
        ensure!(
            buffer[..length] == *client.local_addr()?.to_string().as_bytes(),
            "the server sees {:?}",
            String::from_utf8_lossy(&buffer[..length])
        );
        for (number, capture) in captures.into_iter().enumerate() {
            let wrong = capture
                .finish()?
                .frames
                .iter()
                .filter_map(|frame| addresses(frame))
                .filter(|(from, to)| *to == seen && *from != wan4(number))
                .count();
            ensure!(wrong == 0, "{wrong} answers left by WAN {number} with another's address");
        }
    }
    // Nobody is behind these, and the gateway says so itself or not at all.
    match connect_tcp(net, SocketAddr::from((wan4(0), 8081)), Duration::from_millis(300)) {
        Ok(_) => bail!("a port without a forward lets in"),
        Err(error) => {
            let kind = error.downcast_ref::<std::io::Error>().map(std::io::Error::kind);
            ensure!(
                matches!(kind, Some(ErrorKind::ConnectionRefused | ErrorKind::TimedOut)),
                "{error:#}"
            );
        }
    }
    // What the host opens itself is no flow of a forward, and keeps its WAN.
    let server = EchoServer::start(net, SocketAddr::from((NET4, 7)))?;
    let stream = EchoStream::connect(host, server.address(), PATIENCE)?;
    ensure!(stream.seen_as().ip() == wan4(0), "seen as {}", stream.seen_as());
    drop((stream, udp, moved));
    // All flows run out, the forward stays.
    scene.gateway.wait_for_status(
        "all flows are forgotten",
        Duration::from_secs(15),
        |status| status.nat.flows4 == 0,
    )?;
    EchoStream::connect(scene.lab.net(), SocketAddr::from((wan4(1), 8080)), PATIENCE)
        .context("after all flows were forgotten")
        .map(drop)
}

/// One of a range, one to one: a numbered stream from outside and its echoes.
fn udp_range(net: &crate::lab::Namespace, index: usize) -> Result<()> {
    let client = bind(net)?;
    // A stream wants a server of its own kind, which is behind the gateway here;
    // so by hand: it echoes what asks for it.
    let mut datagram = [0_u8; 64];
    datagram[..4].copy_from_slice(b"mwbU");
    datagram[20] = 1;
    let outside = SocketAddr::from((wan4(index), 5003));
    for sequence in 0..100_u64 {
        datagram[12..20].copy_from_slice(&sequence.to_be_bytes());
        client.send_to(&datagram, outside)?;
        let mut buffer = [0; 64];
        let (_, source) = client.recv_from(&mut buffer).context("no echo")?;
        ensure!(source == outside && buffer == datagram, "{source} echoed something else");
    }
    Ok(())
}

fn bind(net: &crate::lab::Namespace) -> Result<UdpSocket> {
    net.enter(|| {
        let socket = UdpSocket::bind((NET4, 0))?;
        socket.set_read_timeout(Some(PATIENCE))?;
        Ok(socket)
    })
}
