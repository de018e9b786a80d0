//! Floods of handshakes that only the server can tell from honest ones, by work with keys:
//! they come from who knows its public key, so that MAC 1 is right.

use std::{
    net::{Ipv4Addr, SocketAddr},
    sync::atomic::{AtomicBool, AtomicU32, Ordering},
    thread,
    time::Duration,
};

use anyhow::{Context as _, Result, anyhow, ensure};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use blake2::{
    Blake2s256, Blake2sMac,
    digest::{Digest as _, FixedOutput as _, KeyInit as _, Update as _, consts::U16},
};

use super::{
    Case, Lane,
    bond_attacker::{Attacker, PATIENCE, lives_on},
    bond_handshakes::{handshakes, messages},
    bond_restarts::{keys, keys_are_new, soon},
    bond_scene::{BondScene, End, bonded},
};
use crate::lab::{LabSpec, is_emulated, wait_until};

/// Of an initiation (docs/protocol.md, "Handshake").
const LENGTH: usize = 188;
/// Where its MAC 1 is.
const MAC1: usize = LENGTH - 32;
/// Who floods.
const SOURCE: (Ipv4Addr, u16) = (Ipv4Addr::new(198, 51, 100, 77), 9);
/// Initiations that are sent at once.
const AT_ONCE: u32 = 100;
/// Between two such.
const PAUSE: Duration = Duration::from_millis(5);

pub(super) fn cases() -> Vec<Case> {
    vec![bonded(
        Lane::Alone,
        "a_flood_of_handshakes_with_a_right_mac_keeps_no_client_out",
        || LabSpec::direct(2),
        |config| config,
        no_client_is_kept_out,
    )]
}

/// Makes initiations as far as anybody can who does not have a client's key.
struct Forger {
    key: [u8; 32],
}

impl Forger {
    fn of(scene: &BondScene) -> Result<Self> {
        let text = scene.config.gateway.value("bond.server_public_key");
        let text = text.and_then(|key| key.as_str()).context("the server has a public key")?;
        let public = STANDARD.decode(text.trim()).map_err(|error| anyhow!("{text}: {error}"))?;
        ensure!(public.len() == 32, "a public key of {} bytes", public.len());
        let hash = Blake2s256::new().chain_update(b"MWB mac1").chain_update(public);
        Ok(Self { key: hash.finalize().into() })
    }

    fn initiation(&self, number: u32) -> Vec<u8> {
        let mut packet = vec![0; LENGTH];
        // Version and type, a path, the sequence, and which message it is.
        (packet[0], packet[2], packet[15], packet[24]) = (0x16, 1, 1, 1);
        packet[28..32].copy_from_slice(&number.to_be_bytes());
        let mut chance = number | 1;
        for byte in &mut packet[32..MAC1] {
            chance = chance.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            *byte = (chance >> 24) as u8;
        }
        let mac = Blake2sMac::<U16>::new(&self.key.into()).chain(&packet[..MAC1]);
        packet[MAC1..MAC1 + 16].copy_from_slice(&mac.finalize_fixed());
        packet
    }
}

/// The gateway's agent comes back in the middle of it and gets keys by both paths, as soon
/// as it would without. All of the flood is counted: some the agent has looked at, of most
/// it was not told.
fn no_client_is_kept_out(scene: &mut BondScene) -> Result<()> {
    let (attacker, forger) = (Attacker::at(scene, 0)?, Forger::of(scene)?);
    let refused = handshakes(scene, End::Server, "bad_noise")?;
    let limited = scene.counted(End::Server, "message_limited")?;
    let (counted, before) = (messages(scene)?, keys(scene)?);
    let (stop, sent) = (AtomicBool::new(false), AtomicU32::new(0));
    thread::scope(|scope| {
        let flood = scope.spawn(|| -> Result<()> {
            while !stop.load(Ordering::Relaxed) {
                let first = sent.load(Ordering::Relaxed);
                let some = (first..first + AT_ONCE).map(|number| forger.initiation(number));
                attacker.say_from(SocketAddr::from(SOURCE), &some.collect::<Vec<_>>())?;
                sent.store(first + AT_ONCE, Ordering::Relaxed);
                thread::sleep(PAUSE);
            }
            Ok(())
        });
        let mut get_in = || -> Result<()> {
            wait_until("the flood is under way", PATIENCE, || {
                Ok(handshakes(scene, End::Server, "bad_noise")? > refused)
            })?;
            scene.gateway.kill()?;
            scene.gateway.relaunch()?;
            keys_are_new(scene, before, soon()).context("an honest client is kept out")?;
            scene.wait_for_paths(2)
        };
        let got_in = get_in();
        stop.store(true, Ordering::Relaxed);
        flood.join().map_err(|_| anyhow!("the flood panicked"))??;
        got_in
    })?;
    let sent = u64::from(sent.load(Ordering::Relaxed));
    let least = if is_emulated() { 1_000 } else { 10_000 };
    ensure!(sent > least, "a flood of {sent}");
    wait_until("all are counted", PATIENCE, || {
        let counted = messages(scene)? - counted;
        ensure!(counted >= sent, "{counted} of {sent}");
        Ok(true)
    })?;
    let limited = scene.counted(End::Server, "message_limited")? - limited;
    let refused = handshakes(scene, End::Server, "bad_noise")? - refused;
    println!("{sent} sent, {limited} not given to the agent, {refused} refused by it");
    ensure!(limited > sent / 2 && refused > 0, "{sent} sent: {limited} limited, {refused} refused");
    lives_on(scene)
}
