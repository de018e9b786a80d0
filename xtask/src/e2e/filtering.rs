//! Who may send to a mapping, and that the mapping is the same for all: by a
//! STUN client and server that others wrote, and by sockets of our own.

use std::{
    net::{Ipv4Addr, SocketAddr, UdpSocket},
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};

use super::{
    Case, Lane,
    scene::{Hook, Scene, play},
};
use crate::lab::{
    Dependence, LabSpec, Namespace, StunServer,
    address::{HOST4, NET4, NET4_SECOND},
    wait_until,
};

/// Words of the configuration, what each must look like from outside, and
/// which of another port and another address may send.
const FILTERINGS: [(&str, Dependence, [bool; 2]); 3] = [
    ("endpoint_independent", Dependence::EndpointIndependent, [true, true]),
    ("address_dependent", Dependence::Address, [true, false]),
    ("address_and_port_dependent", Dependence::AddressAndPort, [false, false]),
];

pub(super) fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    for (word, dependence, may_send) in FILTERINGS {
        for hook in Hook::BOTH {
            let name = format!("filtering_is_{word}_by_{hook}");
            cases.push(Case::new(Lane::Together, &name, move || {
                // Two WANs, both in use: an endpoint must not be seen as two.
                let scene = Scene::new(hook, LabSpec::direct(2), |config| {
                    config.with("nat.filtering", word).with("balance", "round_robin")
                })?;
                play(scene, |scene| {
                    stun_says(scene, dependence)?;
                    only_these_arrive(scene, may_send)
                })
            }));
        }
    }
    cases
}

fn stun_says(scene: &Scene, filtering: Dependence) -> Result<()> {
    let server = StunServer::start(scene.lab.net())?;
    let found = server.discover(scene.lab.host(), HOST4)?;
    ensure!(
        found.mapping == Dependence::EndpointIndependent,
        "{:?} mapping:\n{}",
        found.mapping,
        found.output
    );
    ensure!(found.filtering == filtering, "{:?} filtering:\n{}", found.filtering, found.output);
    Ok(())
}

/// A host asks one endpoint; the same endpoint, another port of its address and
/// another address send to what that one saw.
fn only_these_arrive(scene: &Scene, [other_port, other_address]: [bool; 2]) -> Result<()> {
    let bind = |namespace: &Namespace, address: (Ipv4Addr, u16)| {
        namespace.enter(|| {
            let socket = UdpSocket::bind(address)?;
            socket.set_read_timeout(Some(Duration::from_secs(2)))?;
            Ok(socket)
        })
    };
    let net = scene.lab.net();
    let asked = bind(net, (NET4, 700))?;
    let senders = [
        (bind(net, (NET4, 701))?, other_port),
        (bind(net, (NET4_SECOND, 700))?, other_address),
        (bind(net, (NET4_SECOND, 702))?, other_address),
    ];
    let client = bind(scene.lab.host(), (HOST4, 0))?;
    client.send_to(b"question", SocketAddr::from((NET4, 700)))?;
    let mut buffer = [0; 64];
    let (_, seen) = asked.recv_from(&mut buffer).context("the question did not arrive")?;
    for (sender, may) in &senders {
        let from = sender.local_addr()?;
        let refused = || scene.packets(|row| row.direction == "in" && row.verdict != "forward");
        let before = refused()?;
        sender.send_to(b"unasked", seen)?;
        if *may {
            let (_, source) =
                client.recv_from(&mut buffer).with_context(|| format!("{from} must arrive"))?;
            ensure!(source == from, "{from} arrived as from {source}");
            client.send_to(b"answer", source)?;
            let (_, source) = sender.recv_from(&mut buffer).context("no answer to it")?;
            ensure!(source == seen, "the answer comes from {source}, not {seen}");
        } else {
            wait_until("it is refused and counted", Duration::from_secs(2), || {
                Ok(refused()? > before)
            })?;
            // What was asked for arrives next, so nothing was in front of it.
            asked.send_to(b"answer", seen)?;
            let (_, source) = client.recv_from(&mut buffer).context("no answer")?;
            ensure!(source == asked.local_addr()?, "{source} was let in");
        }
    }
    Ok(())
}
