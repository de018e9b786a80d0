//! Packets made by hand against a living session: recorded ones that were changed in
//! every bit of their header, replayed, cut short, or made up. Nothing passes, each is
//! counted under its own reason, and the session lives on.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use anyhow::{Context as _, Result, ensure};

use super::{
    Case, Lane,
    bond_attacker::{Attacker, Expected, counted_while, lives_on},
    bond_scene::{BondScene, End, bonded, play},
    packets,
    port::Port,
};
use crate::lab::{
    LabSpec,
    address::{BOND_PORT, NET4, SERVER4, wan4},
};

/// Header without its check.
const FIELDS: usize = 24;

pub(super) fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    for (suite, check) in [("chacha20poly1305", 16), ("siphash", 8), ("crc32", 8)] {
        let name = format!("a_flipped_bit_anywhere_in_a_packet_of_{suite}_is_refused");
        cases.push(Case::new(Lane::Together, &name, move || {
            let scene = BondScene::new(LabSpec::direct(1), |config| config.with_suite(suite))?;
            play(scene, |scene| flipped_bits_are_refused(scene, FIELDS + check))
        }));
    }
    let mut add = |name, test| {
        let spec = || LabSpec::direct(2);
        // All goes by the first WAN, so that it is known where.
        cases.push(bonded(
            Lane::Together,
            name,
            spec,
            |config| config.with_gateway("balance", "failover").with_gateway("wans.1.priority", 1),
            test,
        ));
    };
    add("a_packet_of_a_bond_is_taken_once", replays_are_refused);
    add("a_packet_cut_short_or_made_up_is_refused", made_up_packets_are_refused);
    add("a_client_sends_from_its_own_addresses_only", inner_sources_are_checked);
    cases
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
        && flags < 64
        && [0, 4, 6].contains(&inner)
        && path != 0
        && numbers
        && !(taken && first & 0xf >= 4);
    match first & 0xf {
        _ if !fits => "bond_malformed",
        3 => "bond_malformed",
        // It is as long as no handshake that it could be.
        6 => "bond_malformed",
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
