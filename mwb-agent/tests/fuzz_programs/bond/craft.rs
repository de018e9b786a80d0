//! Packets for a bond: real ones that go into it, sealed ones as the far end could have
//! made them, and both spoilt.

use mwb_common::integrity::Suite;
use mwb_common::maps::{ProbeReply, tick};
use mwb_common::wire::{Header, Kind, flag};

use super::inside::{end, overhead};
use super::seen::Seen;
use super::view::{ip_length, payload};
use crate::bond_packet::{Sealed, outside};
use crate::bond_world::{DP_MAC, Door, MWB0_MAC, Side, macs};
use crate::mutate::mutate;
use crate::random::Random;
use crate::view::{LINK, View, be16, put16};
use crate::{craft, world};

/// Sequences behind the newest that are still told apart, and about as many ahead.
const REACH: u64 = 4_032;

/// A packet that goes into the bond at `side`, by that door.
pub(super) fn inner(random: &mut Random, side: Side, door: Door) -> Vec<u8> {
    let mut frame = craft::from_lan(random);
    if side == Side::Server {
        // What the far end says to it.
        frame = craft::answer(random, &frame, DP_MAC).unwrap_or(frame);
    }
    if random.chance(15) {
        frame = craft::error(random, &frame, DP_MAC).unwrap_or(frame);
    }
    if random.chance(10)
        && let Some(pieces) = craft::fragments(random, &frame)
    {
        frame = random.pick(&pieces).clone();
    }
    if random.chance(8) {
        let long = random.below(700);
        lengthen(&mut frame, 1_150 + long);
    }
    if door == Door::Device {
        frame[..6].copy_from_slice(&DP_MAC);
        frame[6..12].copy_from_slice(&MWB0_MAC);
    } else {
        frame[..6].copy_from_slice(&world::LAN_MAC);
    }
    frame
}

/// Makes a packet so long, as far as it is one of plain UDP.
fn lengthen(frame: &mut Vec<u8>, length: usize) {
    let Some(view) = View::of(frame).filter(|view| view.protocol == 17) else { return };
    let header = view.transport - view.network;
    if length < header + 8 {
        return;
    }
    frame.resize(LINK + length, 0x5a);
    put16(frame, view.transport + 4, (length - header) as u16);
    let (at, less) = if view.v6 { (4, 40) } else { (2, 0) };
    put16(frame, LINK + at, (length - less) as u16);
    crate::view::repair(frame);
}

/// A tick, or something like one.
pub(super) fn ticked(random: &mut Random, side: Side) -> Vec<u8> {
    let kind = *random.pick(&[tick::SHORT, tick::EXACT, [2, 3]]);
    let slot = if random.chance(85) { side.slot() } else { random.below(9) as u32 };
    let path = *random.pick(&[1, 1, 1, 2, 2, 2, 0, 3, 16, 255]);
    let length = *random.pick(&[46, 60, 200, 1_280, 1_500, 1_501, 2_100]);
    let ethertype = if random.chance(90) { tick::ETHERTYPE } else { [0x08, 0] };
    let mut frame = [&tick::destination(kind, slot, path)[..], &MWB0_MAC, &ethertype].concat();
    frame.resize(LINK + length, 0);
    frame
}

/// A frame to `to` that the far end could have sealed and the programs never would: any
/// numbers, any text.
pub(super) fn sealed(
    random: &mut Random,
    suite: Suite,
    to: Side,
    seen: &Seen,
    sent: u64,
) -> (u8, Vec<u8>) {
    let kinds = [Kind::Data, Kind::Data, Kind::Data, Kind::Probe, Kind::ProbeReply];
    let rare = [Kind::Control, Kind::Ack, Kind::Handshake, Kind::Parity];
    let kind = *if random.chance(95) { random.pick(&kinds) } else { random.pick(&rare) };
    let path = *random.pick(&[1, 1, 1, 1, 2, 2, 2, 2, 2, 3, 16, 255]);
    let newest = if path < 3 { seen.newest(path) } else { 0 };
    let near = random.below(3) as u64;
    let sequence = match random.below(20) {
        0 => newest.saturating_sub(random.below(80) as u64),
        1 => newest.saturating_sub(REACH - 1 + near),
        2 => newest + REACH + near - 1,
        3 => newest + 1 + random.below(200) as u64,
        _ => newest + 1 + near,
    };
    let bucket = *random.pick(&[7, 8, 4_103]);
    let last = seen.newest_of_flow(bucket).unwrap_or(u32::MAX - 5);
    let step = random.below(4) as u32;
    let flow_sequence = match random.below(12) {
        0 => last.wrapping_sub(958 + step),
        1 => last.wrapping_add(4_031 + step),
        2 => last.wrapping_add(0x8000_0000 - step),
        3 => last.wrapping_sub(random.below(100) as u32),
        _ => last.wrapping_add(1 + step),
    };
    let data = kind == Kind::Data;
    let many = if random.chance(50) { 1 << (1 + random.below(4)) } else { 0 };
    let epoch = if random.chance(30) { flag::EPOCH } else { 0 };
    let (inner, text) = text(random, kind, to, sent);
    let header = Header {
        kind,
        flags: epoch | if data { many } else { 0 },
        path,
        inner: if random.chance(96) { inner } else { *random.pick(&[0, 4, 6]) },
        session: if random.chance(98) { to.session() } else { random.next() as u32 },
        sequence: sequence.max(1),
        bucket: if data { bucket } else { 0 },
        taken: if kind.is_the_agents() { 0 } else { random.below(3) as u16 },
        flow_sequence: if data { flow_sequence } else { 0 },
    };
    let (is_v6, is_handshake) = (random.chance(40), kind == Kind::Handshake);
    let wan = if path == 2 || to == Side::Server && random.chance(10) { 2 } else { 1 };
    let mut frame = Sealed { side: to.other(), suite, header, text: &text, is_v6 }.arriving();
    if is_handshake {
        // Now and then it says what it is.
        let at = if is_v6 { LINK + 48 } else { LINK + 28 };
        frame[at + 24] = random.below(5) as u8;
    }
    (wan, frame)
}

/// What is behind a header, and what it says of it.
fn text(random: &mut Random, kind: Kind, to: Side, sent: u64) -> (u8, Vec<u8>) {
    match kind {
        Kind::Probe => {
            let length = *random.pick(&[48, 48, 48, 49, 300, 1_400, 47, 0]);
            (0, (0..length).map(|_| random.byte()).collect())
        }
        Kind::ProbeReply => {
            let sequence = match random.below(4) {
                0 => random.next(),
                1 => sent + 1,
                _ => sent.saturating_sub(random.below(9) as u64),
            };
            let length = *random.pick(&[0u16, 96, 1_400]);
            let reply = ProbeReply {
                sent_at: random.next().to_be_bytes(),
                received_at: random.next().to_be_bytes(),
                sequence: sequence.to_be_bytes(),
                packets: random.next().to_be_bytes(),
                bytes: random.next().to_be_bytes(),
                length: length.to_be_bytes(),
                reserved: [0; 6],
            };
            let mut text = bytemuck::bytes_of(&reply).to_vec();
            if random.chance(10) {
                text.truncate(random.below(48));
            }
            (0, text)
        }
        Kind::Data => {
            let mut frame = inner(random, to.other(), Door::Device);
            if random.chance(25) {
                mutate(random, &mut frame);
            }
            let family = if be16(&frame, 12) == Some(0x86dd) { 6 } else { 4 };
            let mut packet = frame.split_off(LINK);
            let length = ip_length(&packet, family).unwrap_or(packet.len());
            if length <= packet.len() && random.chance(90) {
                packet.truncate(length);
            }
            (family, packet)
        }
        _ => (0, (0..random.below(60)).map(|_| random.byte()).collect()),
    }
}

/// Spoils a frame of the bond that comes to `to`, in one way. Whether its payload has
/// changed is for the caller to see.
pub(super) fn spoil(random: &mut Random, suite: Suite, to: Side, frame: &mut Vec<u8>) {
    let Some(mut sealed) = payload(frame).map(<[u8]>::to_vec) else {
        return mutate(random, frame);
    };
    let at = random.below(sealed.len().max(1));
    let is_v6 = be16(frame, 12) == Some(0x86dd);
    match random.below(12) {
        _ if sealed.len() < 24 => mutate(random, frame),
        // Any authenticated bit.
        0..3 => {
            for _ in 0..=random.below(2) {
                let at = random.below(sealed.len());
                sealed[at] ^= 1 << random.below(8);
            }
            again(frame, is_v6, to, &sealed);
        }
        3 | 4 => {
            field(random, &mut sealed);
            again(frame, is_v6, to, &sealed);
        }
        // Shorter, and what is around it says so.
        5 => {
            sealed.truncate(at);
            again(frame, is_v6, to, &sealed);
        }
        6 => {
            let more = *random.pick(&[1, 8, 16, 64, 600, 1_900 - overhead(suite, is_v6)]);
            sealed.extend((0..more).map(|_| random.byte()));
            again(frame, is_v6, to, &sealed);
        }
        // Shorter, and what is around it does not.
        7 => frame.truncate(LINK.max(frame.len() - 1 - random.below(sealed.len()))),
        // From somewhere else, or with something behind it: as good as before.
        8 => {
            let (address, port) =
                if is_v6 { (LINK + 8, LINK + 40) } else { (LINK + 12, LINK + 20) };
            let place = if random.chance(50) { address + 1 + random.below(3) } else { port };
            frame[place] = random.byte();
        }
        9 => {
            let length = frame.len() + 1 + random.below(40);
            frame.resize(length, 0xee);
        }
        _ => mutate(random, frame),
    }
    frame.truncate(3_000);
}

/// The frame with another payload.
fn again(frame: &mut Vec<u8>, is_v6: bool, to: Side, sealed: &[u8]) {
    let id = if frame[..6] == macs(to, 2, is_v6)[1] && to == Side::Gateway { 2 } else { 1 };
    let [from, here] = macs(to, id, is_v6);
    *frame = outside([here, from], end(to.other(), id, is_v6), end(to, id, is_v6), sealed);
}

/// Changes a field of a header.
fn field(random: &mut Random, sealed: &mut [u8]) {
    let near = random.below(5) as u8;
    match random.below(9) {
        0 => sealed[0] = sealed[0] & 0xf0 | random.byte() & 0x0f,
        1 => sealed[0] = sealed[0].wrapping_add(0x10),
        2 => sealed[1] = random.byte() & 0x3f,
        3 => sealed[2] = *random.pick(&[0, 1, 2, 3, 15, 16, 17, 255]),
        4 => sealed[3] = *random.pick(&[0, 4, 6, 5]),
        5 => sealed[4 + random.below(4)] = random.byte(),
        6 => sealed[15] = sealed[15].wrapping_add(near),
        7 => sealed[16 + random.below(4)] ^= 1 << random.below(8),
        _ => sealed[23] = sealed[23].wrapping_add(near),
    }
}
