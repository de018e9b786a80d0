//! Static port forwards: from outside by real sockets, to each WAN's address.

use std::{
    io::{self, ErrorKind},
    net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket},
    time::Duration,
};

use anyhow::{Context as _, Result, bail, ensure};
use serde_json::{Value, json};

use super::{
    Case, Lane,
    packets::{self, Packet, flag},
    port::Port,
    scene::{Scene, both_hooks},
};
use crate::lab::{
    LabSpec, Namespace,
    address::{HOST4, NET4, net_uplink4, wan4},
    capture::{Capture, Passing, addresses},
    traffic::{EchoServer, EchoStream, UdpServer, WhoServer, connect_tcp, transfer},
};

const PATIENCE: Duration = Duration::from_secs(3);
/// Not those that were merged on the way.
const SMALL: &str = "ip and less 1600";

/// What the list of one WAN says. Both have the port in common, and nothing else.
struct List {
    /// TCP, and the port of the host that it leads to.
    web: (u16, u16),
    /// UDP: the first of eleven, each to the same port of the host.
    range: u16,
    /// UDP: the first of two, and where they lead to.
    moved: (u16, u16),
    /// Where [`COMMON`] leads to.
    common: u16,
}

const LISTS: [List; 2] = [
    List { web: (8080, 80), range: 5000, moved: (30_000, 40_000), common: 2201 },
    List { web: (8443, 443), range: 6000, moved: (31_000, 41_000), common: 2202 },
];
/// TCP: both lists have it, and lead it elsewhere.
const COMMON: u16 = 2200;

impl List {
    fn value(&self) -> Value {
        json!([
            {"protocol": "tcp", "port": self.web.0, "to": format!("{HOST4}:{}", self.web.1)},
            {"protocol": "tcp", "port": COMMON, "to": format!("{HOST4}:{}", self.common)},
            {
                "protocol": "udp",
                "port": format!("{}-{}", self.range, self.range + 10),
                "to": HOST4.to_string(),
            },
            {
                "protocol": "udp",
                "port": format!("{}-{}", self.moved.0, self.moved.0 + 1),
                "to": format!("{HOST4}:{}", self.moved.1),
            },
        ])
    }
}

pub(super) fn cases() -> Vec<Case> {
    both_hooks(
        Lane::Together,
        "a_forward_is_answered_by_the_wan_it_came_by",
        || LabSpec::direct(2),
        |config| {
            // All that the LAN opens leaves by the first: answers must not follow.
            config
                .with("balance", "failover")
                .with("wans.1.priority", 1)
                .with("wans.0.forwards", LISTS[0].value())
                .with("wans.1.forwards", LISTS[1].value())
                .with("nat.timeouts", json!({"udp": "1s", "icmp": "1s", "tcp_transitory": "1s"}))
        },
        a_forward_is_answered_by_its_wan,
    )
}

/// The servers that a list leads to.
struct Servers {
    _tcp: [EchoServer; 2],
    _udp: UdpServer,
    _moved: WhoServer,
}

impl Servers {
    fn start(host: &Namespace, list: &List) -> Result<Self> {
        let at = |port| SocketAddr::from((HOST4, port));
        Ok(Self {
            _tcp: [
                EchoServer::start(host, at(list.web.1))?,
                EchoServer::start(host, at(list.common))?,
            ],
            _udp: UdpServer::start(host, at(list.range + 3))?,
            _moved: WhoServer::start(host, at(list.moved.1 + 1))?,
        })
    }
}

fn a_forward_is_answered_by_its_wan(scene: &mut Scene) -> Result<()> {
    let net = scene.lab.net();
    for (index, list) in LISTS.iter().enumerate() {
        // Only those of this list: whatever goes by the other one finds nobody.
        let _servers = Servers::start(scene.lab.host(), list)?;
        let captures = (0..2)
            .map(|index| Capture::start(scene.lab.isp(index), "gw0", Passing::In, SMALL))
            .collect::<Result<Vec<_>>>()?;
        for port in [list.web.0, COMMON] {
            let outside = SocketAddr::from((wan4(index), port));
            let mut stream = EchoStream::connect(net, outside, PATIENCE)
                .with_context(|| format!("{outside}"))?;
            let seen = stream.seen_as().ip();
            ensure!(seen == net_uplink4(index), "the server sees {seen}, not the client");
            stream.exchange(b"from outside")?;
        }
        transfer(net, SocketAddr::from((wan4(index), list.web.0)), 2 << 20)?;
        udp_range(net, SocketAddr::from((wan4(index), list.range + 3)))?;
        let client = bind(net)?;
        let outside = SocketAddr::from((wan4(index), list.moved.0 + 1));
        client.send_to(b"who am I?", outside)?;
        let mut buffer = [0; 64];
        let (length, source) = client.recv_from(&mut buffer).context("no answer")?;
        ensure!(source == outside, "{source} answers");
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
                .filter(|(from, to)| *to == net_uplink4(index) && *from != wan4(number))
                .count();
            ensure!(wrong == 0, "{wrong} answers left by WAN {number} with another's address");
        }
    }
    let servers = LISTS
        .iter()
        .map(|list| Servers::start(scene.lab.host(), list))
        .collect::<Result<Vec<_>>>()?;
    a_list_is_of_one_wan(scene)?;
    // What the host opens itself is no flow of a forward, and keeps its WAN.
    let server = EchoServer::start(scene.lab.net(), SocketAddr::from((NET4, 7)))?;
    let stream = EchoStream::connect(scene.lab.host(), server.address(), PATIENCE)?;
    ensure!(stream.seen_as().ip() == wan4(0), "seen as {}", stream.seen_as());
    drop(stream);
    // All flows run out, the forward stays.
    scene.gateway.wait_for_status(
        "all flows are forgotten",
        Duration::from_secs(15),
        |status| status.nat.flows4 == 0,
    )?;
    let again = SocketAddr::from((wan4(1), LISTS[1].web.0));
    EchoStream::connect(scene.lab.net(), again, PATIENCE)
        .context("after all flows were forgotten")?;
    drop(servers);
    Ok(())
}

/// What the list of one WAN lets in is let in by no other: neither at the other
/// one's address, nor at its own address through the other one's device. All
/// servers run; the LAN hears nothing of it.
fn a_list_is_of_one_wan(scene: &Scene) -> Result<()> {
    const STRANGER: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::new(203, 0, 113, 200)), 4444);
    let net = scene.lab.net();
    let lan = Capture::start(scene.lab.host(), "lan0", Passing::In, "tcp or udp")?;
    for (index, list) in LISTS.iter().enumerate() {
        let other = 1 - index;
        let udp = [list.range, list.range + 3, list.moved.0 + 1];
        // Nobody is behind it, and the gateway says so itself or not at all.
        let there = SocketAddr::from((wan4(other), list.web.0));
        match connect_tcp(net, there, Duration::from_millis(300)) {
            Ok(_) => bail!("{there} lets in, by the list of WAN {index}"),
            Err(error) => {
                let kind = error.downcast_ref::<io::Error>().map(io::Error::kind);
                ensure!(
                    matches!(kind, Some(ErrorKind::ConnectionRefused | ErrorKind::TimedOut)),
                    "{error:#}"
                );
            }
        }
        let client = bind(net)?;
        for port in udp {
            client.send_to(b"who am I?", (wan4(other), port))?;
        }
        let device = format!("wan{other}");
        let wire = Port::between((scene.lab.isp(other), "gw0"), (scene.lab.gw(), &device))?;
        let own = |port| SocketAddr::from((wan4(index), port));
        for port in [list.web.0, COMMON] {
            wire.send(&[packets::tcp(STRANGER, own(port), flag::SYN, (1, 0), b"")?])?;
        }
        for port in udp {
            wire.send(&[packets::udp(STRANGER, own(port), b"who am I?")?])?;
        }
    }
    // By each WAN again, behind all that was tried there.
    for (index, list) in LISTS.iter().enumerate() {
        udp_range(net, SocketAddr::from((wan4(index), list.range + 3)))?;
    }
    let (mut asked, mut wrong) = (0, Vec::new());
    for frame in lan.finish()?.frames {
        let packet = frame.get(14..).and_then(Packet::read).context("a packet")?;
        let of_range = LISTS.iter().any(|list| packet.to.port() == list.range + 3);
        if of_range && packet.payload.starts_with(MARK) {
            asked += 1;
        } else {
            wrong.push(packet);
        }
    }
    ensure!(asked == 2 * ECHOES, "the host saw {asked} of {} datagrams", 2 * ECHOES);
    ensure!(wrong.is_empty(), "came in by the wrong WAN: {wrong:#?}");
    Ok(())
}

/// How a datagram of a stream begins, and how many [`udp_range`] sends.
const MARK: &[u8] = b"mwbU";
const ECHOES: u64 = 100;

/// One of a range, one to one: a numbered stream from outside and its echoes.
fn udp_range(net: &Namespace, outside: SocketAddr) -> Result<()> {
    let client = bind(net)?;
    // A stream wants a server of its own kind, which is behind the gateway here;
    // so by hand: it echoes what asks for it.
    let mut datagram = [0_u8; 64];
    datagram[..4].copy_from_slice(MARK);
    datagram[20] = 1;
    for sequence in 0..ECHOES {
        datagram[12..20].copy_from_slice(&sequence.to_be_bytes());
        client.send_to(&datagram, outside)?;
        let mut buffer = [0; 64];
        let (_, source) = client.recv_from(&mut buffer).context("no echo")?;
        ensure!(source == outside && buffer == datagram, "{source} echoed something else");
    }
    Ok(())
}

fn bind(net: &Namespace) -> Result<UdpSocket> {
    net.enter(|| {
        let socket = UdpSocket::bind((NET4, 0))?;
        socket.set_read_timeout(Some(PATIENCE))?;
        Ok(socket)
    })
}
