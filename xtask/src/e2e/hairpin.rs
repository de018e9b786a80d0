//! Two hosts of the LAN meet by their outside endpoints (RFC 4787, REQ-9; RFC
//! 5382, REQ-8).

use std::{
    net::{Ipv4Addr, SocketAddr, UdpSocket},
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};
use serde_json::json;

use super::{
    Case, Lane,
    scene::{Scene, both_hooks},
};
use crate::lab::{
    LabSpec,
    address::{GATEWAY4, HOST4, NET4, wan4},
    traffic::{EchoServer, EchoStream, WhoServer, transfer},
};

/// A second host of the LAN, on the same cable.
const PEER4: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 11);

pub(super) fn cases() -> Vec<Case> {
    let mut cases = both_hooks(
        Lane::Together,
        "two_hosts_meet_by_their_outside_endpoints",
        || LabSpec::direct(1),
        |config| config,
        two_hosts_meet,
    );
    cases.extend(both_hooks(
        Lane::Together,
        "two_hosts_on_different_wans_meet",
        || LabSpec::direct(2),
        |config| {
            config.with("balance", "round_robin").with("nat.filtering", "endpoint_independent")
        },
        hosts_on_different_wans_meet,
    ));
    cases.extend(both_hooks(
        Lane::Together,
        "a_host_reaches_a_port_forward_from_the_lan",
        || LabSpec::direct(2),
        |config| {
            let to = format!("{PEER4}:443");
            config
                .with(
                    "wans.0.forwards",
                    json!([
                        {"protocol": "tcp", "port": 8443, "to": to},
                        {"protocol": "udp", "port": 8443, "to": to},
                    ]),
                )
                .with("nat.filtering", "endpoint_independent")
        },
        a_port_forward_from_the_lan,
    ));
    cases
}

fn bind(scene: &Scene, address: Ipv4Addr) -> Result<UdpSocket> {
    scene.lab.host().enter(|| {
        let socket = UdpSocket::bind((address, 0))?;
        socket.set_read_timeout(Some(Duration::from_secs(2)))?;
        Ok(socket)
    })
}

fn add_peer(scene: &Scene) -> Result<()> {
    scene.lab.host().ip(&format!("addr add {PEER4}/26 dev lan0\n"))
}

/// Each sends to what the Internet sees of the other, and is seen there as the
/// Internet sees it: the filter of the other lets it in.
fn two_hosts_meet(scene: &mut Scene) -> Result<()> {
    add_peer(scene)?;
    let who = WhoServer::start(scene.lab.net(), SocketAddr::new(NET4.into(), 7))?;
    for _ in 0..4 {
        let (left, right) = (bind(scene, HOST4)?, bind(scene, PEER4)?);
        let (left_seen, right_seen) = (who.ask(&left)?, who.ask(&right)?);
        let mut buffer = [0; 64];
        // The first may be refused: nobody has sent to the left one yet.
        left.send_to(b"hello", right_seen)?;
        right.send_to(b"hello", left_seen)?;
        let (length, source) = left.recv_from(&mut buffer).context("the left one hears nothing")?;
        ensure!(buffer[..length] == *b"hello", "{:?}", &buffer[..length]);
        ensure!(source == right_seen, "the right one comes as {source}, not {right_seen}");
        left.send_to(b"well met", right_seen)?;
        let heard = loop {
            let (length, source) =
                right.recv_from(&mut buffer).context("the right one hears nothing")?;
            ensure!(source == left_seen, "the left one comes as {source}, not {left_seen}");
            if buffer[..length] == *b"well met" {
                break length;
            }
        };
        ensure!(heard > 0, "empty");
    }
    ensure!(scene.counted("out", "hairpinned")? >= 12, "hairpinned packets are not counted");
    Ok(())
}

/// Whatever the other one comes as, an answer to it arrives.
fn hosts_on_different_wans_meet(scene: &mut Scene) -> Result<()> {
    add_peer(scene)?;
    let who = WhoServer::start(scene.lab.net(), SocketAddr::new(NET4.into(), 7))?;
    let (left, right) = (bind(scene, HOST4)?, bind(scene, PEER4)?);
    let (left_seen, right_seen) = (who.ask(&left)?, who.ask(&right)?);
    ensure!(left_seen.ip() != right_seen.ip(), "both are seen as {left_seen}");
    let mut buffer = [0; 64];
    for (one, other, other_seen) in [(&left, &right, right_seen), (&right, &left, left_seen)] {
        one.send_to(b"hello", other_seen)?;
        let (_, source) = other.recv_from(&mut buffer).context("the other one hears nothing")?;
        let inside = source.ip() == HOST4 || source.ip() == PEER4;
        ensure!(!inside, "it comes as {source}: the answer would go past the gateway");
        other.send_to(b"well met", source)?;
        let (_, source) = one.recv_from(&mut buffer).context("no answer")?;
        ensure!(source == other_seen, "the answer comes from {source}, not {other_seen}");
    }
    Ok(())
}

fn a_port_forward_from_the_lan(scene: &mut Scene) -> Result<()> {
    add_peer(scene)?;
    let server = SocketAddr::from((PEER4, 443));
    let tcp = EchoServer::start(scene.lab.host(), server)?;
    let who = WhoServer::start(scene.lab.host(), server)?;
    let outside = SocketAddr::from((wan4(0), 8443));
    let patience = Duration::from_secs(3);
    let mut stream = EchoStream::connect(scene.lab.host(), outside, patience)?;
    let seen = stream.seen_as();
    ensure!(
        seen.ip() != HOST4 && seen.ip() != PEER4 && seen.ip() != GATEWAY4,
        "the server sees {seen}: its answers would not come back this way"
    );
    stream.exchange(b"by the front door")?;
    transfer(scene.lab.host(), outside, 4 << 20)?;
    let client = bind(scene, HOST4)?;
    client.send_to(b"who am I?", outside)?;
    let mut buffer = [0; 64];
    let (_, source) = client.recv_from(&mut buffer).context("no answer")?;
    ensure!(source == outside, "the answer comes from {source}, not {outside}");
    drop((tcp, who));
    Ok(())
}
