//! Somebody between the two ends of a bond, and what has to be so when it is done.

use std::{collections::BTreeMap, net::SocketAddr, time::Duration};

use anyhow::{Context as _, Result, ensure};

use super::{
    bond_scene::{BondScene, End},
    packets,
    port::Port,
};
use crate::lab::{
    address::{BOND_PORT, NET4, SERVER4, wan4},
    traffic::{UdpServer, UdpStream},
    wait_until,
};

/// How long packets may take to be counted.
pub(super) const PATIENCE: Duration = Duration::from_secs(5);

/// Somebody at the first provider, who hears what the gateway sends and says what it
/// likes to both ends.
pub(super) struct Attacker {
    /// On the provider's side of the gateway's link.
    pub(super) near: Port,
    /// On its side of the Internet.
    pub(super) far: Port,
}

impl Attacker {
    pub(super) fn at(scene: &BondScene, wan: usize) -> Result<Self> {
        let lab = &scene.lab;
        let isp = lab.isp(wan);
        Ok(Self {
            near: Port::between((isp, "gw0"), (lab.gw(), &format!("wan{wan}")))?,
            far: Port::between((isp, "up0"), (lab.net(), &format!("isp{wan}")))?,
        })
    }

    /// What is behind the UDP header of the next data packet of the gateway.
    pub(super) fn record(&mut self, scene: &BondScene) -> Result<Vec<u8>> {
        self.near.pending(|_, _| Some(()))?;
        let server = UdpServer::start(scene.lab.net(), SocketAddr::new(NET4.into(), 8))?;
        UdpStream { echo: false, ..UdpStream::new(1, Duration::ZERO) }
            .run(scene.lab.host(), &server)?;
        self.near.hear("a data packet", |packet, _| {
            let to_the_bond = packet.to == SocketAddr::from((SERVER4, BOND_PORT));
            (to_the_bond && packet.payload.first() == Some(&0x10)).then(|| packet.payload.clone())
        })
    }

    /// Sends this to the server's port, as if it came from the gateway.
    pub(super) fn say(&self, payloads: &[Vec<u8>]) -> Result<()> {
        self.say_from((wan4(0), BOND_PORT).into(), payloads)
    }

    pub(super) fn say_from(&self, from: SocketAddr, payloads: &[Vec<u8>]) -> Result<()> {
        let to = SocketAddr::from((SERVER4, BOND_PORT));
        let packets = payloads.iter().map(|payload| packets::udp(from, to, payload));
        self.far.send(&packets.collect::<Result<Vec<_>>>()?)
    }
}

/// Reasons, and how many packets should be counted under each.
pub(super) type Expected = BTreeMap<&'static str, u64>;

/// What counters of the server grow by while something is said to it.
pub(super) fn counted_while(
    scene: &BondScene,
    expected: &Expected,
    attack: impl FnOnce() -> Result<()>,
) -> Result<()> {
    let count = |reason: &str| scene.counted(End::Server, reason);
    // What passes is none of the attacker's.
    let passes = ["to_device", "unbonded"];
    let passed = |scene: &BondScene| -> Result<u64> {
        passes.iter().map(|reason| scene.counted(End::Server, reason)).sum()
    };
    let before: BTreeMap<_, _> =
        expected.keys().map(|&reason| Ok((reason, count(reason)?))).collect::<Result<_>>()?;
    let (session, let_in) = (sessions(scene)?, passed(scene)?);
    attack()?;
    wait_until("every packet is counted under its reason", PATIENCE, || {
        let mut grown = Expected::new();
        for (&reason, &before) in &before {
            grown.insert(reason, count(reason)? - before);
        }
        ensure!(grown == *expected, "counted {grown:?}, expected {expected:?}");
        Ok(true)
    })?;
    let now = passed(scene)?;
    ensure!(now == let_in, "{} packets passed", now - let_in);
    ensure!(sessions(scene)? == session, "the session is another one");
    Ok(())
}

/// Ids of the server's sessions.
pub(super) fn sessions(scene: &BondScene) -> Result<Vec<u32>> {
    let sessions = scene.tables(End::Server)?.sessions()?;
    Ok(sessions.iter().map(|(_, session)| session.ours).collect())
}

pub(super) fn lives_on(scene: &BondScene) -> Result<()> {
    scene.datagrams_arrive_once(NET4.into(), 300).context("after the attack")
}
