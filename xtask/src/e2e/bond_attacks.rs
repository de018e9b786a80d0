//! Packets made by hand against a living session: recorded ones that were changed in
//! every bit of their header, replayed, cut short, or made up. Nothing passes, each is
//! counted under its own reason, and the session lives on.

use std::{
    collections::BTreeMap,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};

use super::{
    Case,
    bond_scene::{BondScene, End, bonded, play},
    packets,
    port::Port,
};
use crate::lab::{
    LabSpec,
    address::{BOND_PORT, NET4, SERVER4, wan4},
    traffic::{UdpServer, UdpStream},
    wait_until,
};

/// Header without its check.
const FIELDS: usize = 24;
/// How long packets may take to be counted.
const PATIENCE: Duration = Duration::from_secs(5);

pub(super) fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    for (suite, check) in [("chacha20poly1305", 16), ("siphash", 8), ("crc32", 8)] {
        let name = format!("a_flipped_bit_anywhere_in_a_packet_of_{suite}_is_refused");
        cases.push(Case::new(&name, move || {
            let scene = BondScene::new(LabSpec::direct(1), |config| config.with_suite(suite))?;
            play(scene, |scene| flipped_bits_are_refused(scene, FIELDS + check))
        }));
    }
    let mut add = |name, test| {
        let spec = || LabSpec::direct(2);
        // All goes by the first WAN, so that it is known where.
        cases.push(bonded(
            name,
            spec,
            |config| config.with_gateway("balance", "failover").with_gateway("wans.1.priority", 1),
            test,
        ));
    };
    add("a_packet_of_a_bond_is_taken_once", replays_are_refused);
    add("a_packet_cut_short_or_made_up_is_refused", made_up_packets_are_refused);
    add("a_client_sends_from_its_own_addresses_only", inner_sources_are_checked);
    add("a_flood_of_handshakes_costs_a_session_nothing", a_flood_costs_nothing);
    cases
}

/// Somebody at the first provider, who hears what the gateway sends and says what it
/// likes to both ends.
struct Attacker {
    /// On the provider's side of the gateway's link.
    near: Port,
    /// On its side of the Internet.
    far: Port,
}

impl Attacker {
    fn at(scene: &BondScene, wan: usize) -> Result<Self> {
        let lab = &scene.lab;
        let isp = lab.isp(wan);
        Ok(Self {
            near: Port::between((isp, "gw0"), (lab.gw(), &format!("wan{wan}")))?,
            far: Port::between((isp, "up0"), (lab.net(), &format!("isp{wan}")))?,
        })
    }

    /// What is behind the UDP header of the next data packet of the gateway.
    fn record(&mut self, scene: &BondScene) -> Result<Vec<u8>> {
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
    fn say(&self, payloads: &[Vec<u8>]) -> Result<()> {
        self.say_from((wan4(0), BOND_PORT).into(), payloads)
    }

    fn say_from(&self, from: SocketAddr, payloads: &[Vec<u8>]) -> Result<()> {
        let to = SocketAddr::from((SERVER4, BOND_PORT));
        let packets = payloads.iter().map(|payload| packets::udp(from, to, payload));
        self.far.send(&packets.collect::<Result<Vec<_>>>()?)
    }
}

/// Reasons, and how many packets should be counted under each.
type Expected = BTreeMap<&'static str, u64>;

/// What counters of the server grow by while something is said to it.
fn counted_while(
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
fn sessions(scene: &BondScene) -> Result<Vec<u32>> {
    let sessions = scene.tables(End::Server)?.sessions()?;
    Ok(sessions.iter().map(|(_, session)| session.ours).collect())
}

fn lives_on(scene: &BondScene) -> Result<()> {
    scene.datagrams_arrive_once(NET4.into(), 300).context("after the attack")
}

fn flipped_bits_are_refused(scene: &mut BondScene, header: usize) -> Result<()> {
    let mut attacker = Attacker::at(scene, 0)?;
    let good = attacker.record(scene)?;
    let (_, session) =
        scene.tables(End::Server)?.sessions()?.into_iter().next().context("a session")?;
    let last = good.len() - 1;
    let places = (0..header).chain(header..header + 8).chain([last / 2, last - 1, last]);
    let (mut expected, mut bad) = (Expected::new(), Vec::new());
    for place in places {
        for bit in 0..8 {
            let mut packet = good.clone();
            packet[place] ^= 1 << bit;
            *expected.entry(verdict(&packet, &good, session.opens)).or_default() += 1;
            bad.push(packet);
        }
    }
    ensure!(expected.len() >= 5, "not every check is met: {expected:?}");
    counted_while(scene, &expected, || attacker.say(&bad))?;
    lives_on(scene)
}

/// What docs/protocol.md says of a packet that was `good` before, its sequence a new
/// one or not.
fn verdict(packet: &[u8], good: &[u8], opens: u8) -> &'static str {
    let [first, flags, path, inner] = [packet[0], packet[1], packet[2], packet[3]];
    let numbers = packet[8..16].iter().any(|&byte| byte != 0);
    let taken = packet[18] != 0 || packet[19] != 0;
    let fits = first >> 4 == 1
        && first & 0xf <= 6
        && flags < 32
        && [0, 4, 6].contains(&inner)
        && path != 0
        && numbers
        && !(taken && first & 0xf >= 4);
    match first & 0xf {
        _ if !fits => "bond_malformed",
        3 => "bond_malformed",
        6 => "bond_message",
        _ if packet[4..8] != good[4..8] => "unknown_session",
        4 | 5 => "bond_message",
        // There is one path.
        _ if path != good[2] => "unknown_path",
        _ if opens >> (flags & 1) & 1 == 0 => "unknown_epoch",
        _ => "bad_check",
    }
}

fn replays_are_refused(scene: &mut BondScene) -> Result<()> {
    let mut attacker = Attacker::at(scene, 0)?;
    let mut other = Attacker::at(scene, 1)?;
    other.near.pending(|_, _| Some(()))?;
    let good = attacker.record(scene)?;
    let moves = |scene: &BondScene| -> Result<u32> {
        Ok(scene.tables(End::Server)?.paths()?.iter().map(|path| path.state.moves).sum())
    };
    let moved = moves(scene)?;
    // As it was, from where it came from, from another path, and from anywhere.
    counted_while(scene, &[("replayed", 30)].into(), || {
        let ten = vec![good.clone(); 10];
        attacker.say(&ten)?;
        other.say_from((wan4(1), BOND_PORT).into(), &ten)?;
        other.say_from((Ipv4Addr::new(198, 51, 100, 77), 9).into(), &ten)
    })?;
    ensure!(moves(scene)? == moved, "a replayed packet moved a path");
    // On the other path, which is there: the path is under the check.
    let far = scene.path(End::Server, 1)?.id;
    let mut elsewhere = good.clone();
    elsewhere[2] = far;
    // A number that is still to come.
    let mut ahead = good.clone();
    let sequence = u64::from_be_bytes(good[8..16].try_into()?) + 1000;
    ahead[8..16].copy_from_slice(&sequence.to_be_bytes());
    counted_while(scene, &[("bad_check", 2)].into(), || attacker.say(&[elsewhere, ahead]))?;
    // So old that nobody knows.
    scene.datagrams_arrive_once(NET4.into(), 4_200)?;
    counted_while(scene, &[("replay_too_old", 10)].into(), || {
        attacker.say(&vec![good.clone(); 10])
    })?;
    lives_on(scene)
}

fn made_up_packets_are_refused(scene: &mut BondScene) -> Result<()> {
    let mut attacker = Attacker::at(scene, 0)?;
    let good = attacker.record(scene)?;
    let header = FIELDS + 16;
    // Every length up to some bytes of the payload; an empty datagram too.
    let lengths = (0..header).chain(header..header + 40);
    let short: Vec<Vec<u8>> = lengths.map(|length| good[..length].to_vec()).collect();
    let expected = [("bond_malformed", header as u64), ("bad_check", 40)];
    counted_while(scene, &expected.into(), || attacker.say(&short))?;

    // As large as the link takes, behind a header that is right.
    let fresh = |number: u64| {
        let mut packet = good.clone();
        packet[8..16].copy_from_slice(&(number << 20).to_be_bytes());
        packet
    };
    let large: Vec<Vec<u8>> = (1..=20)
        .map(|number| {
            let mut packet = fresh(number);
            packet.resize(1472, 0x5a);
            packet
        })
        .collect();
    counted_while(scene, &[("bad_check", 20)].into(), || attacker.say(&large))?;

    // A length in the UDP header that is not true.
    let to = SocketAddr::from((SERVER4, BOND_PORT));
    let mut lying = packets::udp((wan4(0), BOND_PORT).into(), to, &fresh(1))?;
    lying[24..26].copy_from_slice(&1400_u16.to_be_bytes());
    counted_while(scene, &[("bond_malformed", 1)].into(), || attacker.far.send(&[lying]))?;

    // Of sessions that are not there.
    let strange: Vec<Vec<u8>> = (1..=50_u32)
        .map(|number| {
            let mut packet = good.clone();
            let session = u32::from_be_bytes([good[4], good[5], good[6], good[7]]);
            packet[4..8].copy_from_slice(&session.wrapping_add(number).to_be_bytes());
            packet
        })
        .collect();
    counted_while(scene, &[("unknown_session", 50)].into(), || attacker.say(&strange))?;
    lives_on(scene)
}

fn inner_sources_are_checked(scene: &mut BondScene) -> Result<()> {
    const COUNT: u64 = 20;
    let host = Port::between((scene.lab.host(), "lan0"), (scene.lab.gw(), "lan0"))?;
    let strangers: [(IpAddr, IpAddr); 4] = [
        (Ipv4Addr::new(203, 0, 113, 77).into(), NET4.into()),
        (Ipv4Addr::new(10, 100, 0, 3).into(), NET4.into()),
        ("2001:db8:b::1".parse()?, crate::lab::address::NET6.into()),
        (crate::lab::address::NET6.into(), crate::lab::address::INNER_SERVER6.into()),
    ];
    let expected = [("inner_source", COUNT * strangers.len() as u64)];
    counted_while(scene, &expected.into(), || {
        for (from, to) in strangers {
            let packet = packets::udp((from, 4000).into(), (to, 8).into(), b"who am I?")?;
            host.send(&vec![packet; usize::try_from(COUNT)?])?;
        }
        Ok(())
    })?;
    lives_on(scene)
}

fn a_flood_costs_nothing(scene: &mut BondScene) -> Result<()> {
    const FLOOD: usize = 20_000;
    let attacker = Attacker::at(scene, 0)?;
    let stream = UdpStream::new(1_000_000, Duration::from_millis(1));
    let server = UdpServer::start(scene.lab.net(), SocketAddr::new(NET4.into(), 7))?;
    let run = stream.start(scene.lab.host(), &server)?;
    let before = messages(scene)?;
    let id = sessions(scene)?;
    let flood: Vec<Vec<u8>> = (0..FLOOD)
        .map(|number| {
            // An initiation in form.
            let mut packet = vec![0; 188];
            (packet[0], packet[2], packet[15], packet[24]) = (0x16, 1, 1, 1);
            packet[28..32].copy_from_slice(&u32::try_from(number).unwrap_or(0).to_be_bytes());
            packet
        })
        .collect();
    for part in flood.chunks(500) {
        attacker.say(part)?;
    }
    wait_until("the flood is counted", PATIENCE, || {
        let counted = messages(scene)? - before;
        ensure!(counted >= FLOOD as u64, "{counted} of {FLOOD}");
        Ok(true)
    })?;
    let limited = scene.counted(End::Server, "message_limited")?;
    ensure!(limited > 0, "the agent has to read every one of them");
    let report = run.stop()?;
    drop(server);
    let lost = report.there.lost + report.back.unwrap_or_default().lost;
    ensure!(lost == 0, "{lost} datagrams of a stream were lost: {report:?}");
    ensure!(sessions(scene)? == id, "the session is another one");
    lives_on(scene)
}

/// Messages for the server's agent, given to it or not.
fn messages(scene: &BondScene) -> Result<u64> {
    Ok(scene.counted(End::Server, "bond_message")?
        + scene.counted(End::Server, "message_limited")?)
}
