//! Both ends together.

use std::collections::BTreeSet;

use super::*;
use proptest::prelude::*;

#[path = "order_tests.rs"]
mod order;

/// A packet of IP as far as anybody looks, of any bytes.
pub(super) fn ip(version: u8, length: usize, seed: u32) -> Vec<u8> {
    let mut state = seed.wrapping_mul(2_654_435_761) | 1;
    let mut bytes: Vec<u8> = (0..length)
        .map(|_| {
            state ^= state << 13;
            state ^= state >> 17;
            state ^= state << 5;
            (state >> 8) as u8
        })
        .collect();
    if let Some(first) = bytes.first_mut() {
        *first = version << 4 | *first & 15;
    }
    let (at, length) =
        if version == 6 { (4..6, length.saturating_sub(40)) } else { (2..4, length) };
    if let Some(field) = bytes.get_mut(at) {
        field.copy_from_slice(&(length as u16).to_be_bytes());
    }
    bytes
}

/// A block that was sent.
pub(super) struct Sent {
    pub(super) packets: Vec<Recovered>,
    pub(super) parity: Vec<Vec<u8>>,
}

/// Packets of mixed lengths, by path 3.
fn packets(data: u8, first: u64, seed: u8) -> Vec<Recovered> {
    let packet = |place: u32| {
        let length = 20 + (place * 397 + u32::from(seed) * 811) as usize % 1481;
        let inner = if length < 40 || (place + u32::from(seed)).is_multiple_of(2) { 4 } else { 6 };
        let bytes = ip(inner, length, place + 1000 * u32::from(seed));
        let sequence = first + u64::from(place * place % 3 + 4 * place);
        let (bucket, number) = (place as u16 % 3, u32::MAX.wrapping_add(place));
        let flags = (place as u8).wrapping_mul(91) ^ seed;
        Recovered { path: 3, sequence, bucket, number, flags, inner, bytes }
    };
    (0..u32::from(data)).map(packet).collect()
}

/// Sends packets of mixed lengths, and closes the block.
pub(super) fn send(data: u8, parity: u8, first: u64, seed: u8) -> Sent {
    let packets = packets(data, first, seed);
    let parity =
        encode(Settings { data, parity: Amount::Fixed(parity), ..Settings::default() }, &packets);
    Sent { packets, parity }
}

fn encode(settings: Settings, packets: &[Recovered]) -> Vec<Vec<u8>> {
    let path = packets.first().map_or(1, |packet| packet.path);
    let (mut encoder, mut out) = (Encoder::new(path, settings), Vec::new());
    for packet in packets {
        push(&mut encoder, packet, 0, &mut out);
    }
    encoder.expire(u64::MAX, &mut out);
    out
}

/// Shows a packet to the end that sends it.
fn push(encoder: &mut Encoder, packet: &Recovered, now: u64, out: &mut Vec<Vec<u8>>) {
    let Recovered { sequence, bucket, number, flags, inner, .. } = *packet;
    let bytes = &packet.bytes;
    encoder.push(&Packet { sequence, bucket, number, flags, inner, bytes }, now, out);
}

/// Shows a packet to the end that gets it.
pub(super) fn arrive(
    decoder: &mut Decoder,
    packet: &Recovered,
    now: u64,
    out: &mut Vec<Recovered>,
) {
    let Recovered { path, sequence, bucket, number, flags, inner, .. } = *packet;
    let bytes = &packet.bytes;
    decoder.data(&Arrived { path, sequence, bucket, number, flags, inner, bytes }, now, out);
}

/// What is shown to the decoder.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Arrival {
    Data(usize),
    Parity(usize),
}

/// Shows what arrived, in that order, and returns what was recovered.
fn receive(decoder: &mut Decoder, sent: &Sent, arrivals: &[Arrival]) -> Vec<Recovered> {
    let mut out = Vec::new();
    for arrival in arrivals {
        match arrival {
            Arrival::Data(place) => arrive(decoder, &sent.packets[*place], 0, &mut out),
            Arrival::Parity(index) => {
                decoder.parity(&sent.parity[*index], 0, &mut out).expect("it is a body");
            }
        }
    }
    out
}

/// Of what did not arrive all was recovered, or nothing.
fn judge(sent: &Sent, arrivals: &[Arrival]) {
    let mut decoder = Decoder::new(Limits::default());
    let out = receive(&mut decoder, sent, arrivals);
    let lost: Vec<&Recovered> = (0..sent.packets.len())
        .filter(|place| !arrivals.contains(&Arrival::Data(*place)))
        .map(|place| &sent.packets[place])
        .collect();
    let parity = arrivals.iter().filter(|arrival| matches!(arrival, Arrival::Parity(_))).count();
    if lost.len() <= parity {
        // What was not lost has come after all; now the rest does, and once more.
        for lost in lost.iter().chain(&lost) {
            arrive(&mut decoder, lost, 0, &mut Vec::new());
        }
        assert_eq!(decoder.statistics().early, out.len() as u64, "{arrivals:?}");
    }
    decoder.expire(u64::MAX);
    let statistics = decoder.statistics();
    assert_eq!(statistics.recovered, out.len() as u64);
    assert_eq!(statistics.wrong, 0);
    if lost.len() <= parity {
        for lost in lost {
            assert!(out.contains(lost), "{arrivals:?}");
        }
        assert_eq!(statistics.unrecoverable, 0);
    } else {
        assert_eq!(statistics.unrecoverable, u64::from(parity > 0), "{arrivals:?}");
        assert!(out.is_empty());
    }
    let keys: BTreeSet<u64> = out.iter().map(|got| got.sequence).collect();
    assert_eq!(keys.len(), out.len(), "each once");
    for got in &out {
        assert!(sent.packets.contains(got), "to the byte");
    }
}

#[test]
fn every_loss_of_every_small_block_is_recovered_if_it_can_be() {
    for data in 1..=5u8 {
        for parity in 1..=3u8 {
            let sent = send(data, parity, u64::MAX - 20, data * 8 + parity);
            assert_eq!((sent.packets.len(), sent.parity.len()), (data.into(), parity.into()));
            let all: Vec<Arrival> = (0..usize::from(data))
                .map(Arrival::Data)
                .chain((0..usize::from(parity)).map(Arrival::Parity))
                .collect();
            for lost in 0u32..1 << all.len() {
                let arrived = |at: &usize| lost & 1 << at == 0;
                let mut arrivals: Vec<Arrival> =
                    (0..all.len()).filter(arrived).map(|at| all[at]).collect();
                judge(&sent, &arrivals);
                arrivals.reverse();
                judge(&sent, &arrivals);
            }
        }
    }
}

#[test]
fn packets_of_any_length_are_recovered_alone_and_with_others() {
    let packet = |sequence, inner, length: usize| {
        let bytes = ip(inner, length, sequence as u32);
        Recovered { path: 15, sequence, bucket: 7, number: 9, flags: 255, inner, bytes }
    };
    for length in 20..=1500 {
        let inner = if length < 40 || length % 2 == 0 { 4 } else { 6 };
        let short = packet(2, 4, 20);
        for others in [vec![], vec![short.clone()], vec![short, packet(5, 6, 1500)]] {
            let packets: Vec<_> = [packet(1, inner, length)].into_iter().chain(others).collect();
            let settings = Settings { parity: Amount::Fixed(2), ..Settings::default() };
            let sent = Sent { parity: encode(settings, &packets), packets };
            assert_eq!(sent.parity.len(), 2);
            let longest = sent.packets.iter().map(|packet| packet.bytes.len()).max();
            let count = sent.packets.len();
            assert_eq!(Some(sent.parity[0].len() - overhead(count as u8)), longest);
            let arrivals: Vec<_> =
                (1..count).map(Arrival::Data).chain([Arrival::Parity(1)]).collect();
            judge(&sent, &arrivals);
        }
    }
}

#[test]
fn blocks_of_two_paths_are_two_though_all_their_numbers_are_the_same() {
    let path = |path, seed| {
        let mut packets = packets(4, 1, seed);
        packets.iter_mut().for_each(|packet| packet.path = path);
        let settings = Settings { parity: Amount::Fixed(1), ..Settings::default() };
        Sent { parity: encode(settings, &packets), packets }
    };
    let (one, other) = (path(1, 1), path(2, 2));
    // With parity as the last that comes, and with data.
    for late in [Arrival::Parity(0), Arrival::Data(1)] {
        let mut decoder = Decoder::new(Limits::default());
        let all = [0, 1, 3].map(Arrival::Data).into_iter().chain([Arrival::Parity(0)]);
        for arrival in all.filter(|arrival| *arrival != late) {
            for sent in [&one, &other] {
                assert!(receive(&mut decoder, sent, &[arrival]).is_empty());
            }
        }
        for sent in [&one, &other] {
            assert_eq!(receive(&mut decoder, sent, &[late]), [sent.packets[2].clone()]);
        }
        assert_eq!(decoder.statistics().unrecoverable, 0);
    }
}

#[test]
fn a_burst_as_long_as_the_interleaving_is_recovered_with_one_parity() {
    for depth in 1..=8u8 {
        let packets: Vec<Recovered> = (1..=u32::from(depth) * 5)
            .map(|n| {
                let (sequence, bytes) = (n.into(), ip(4, 20 + n as usize, n));
                Recovered { path: 1, sequence, bucket: 0, number: n, flags: 8, inner: 4, bytes }
            })
            .collect();
        let parity = Amount::Fixed(1);
        let settings = Settings { data: 5, parity, interleave: depth, ..Settings::default() };
        let sent = Sent { parity: encode(settings, &packets), packets };
        assert_eq!(sent.parity.len(), usize::from(depth));
        for burst in 0..=sent.packets.len() - usize::from(depth) {
            let lost = burst..burst + usize::from(depth);
            let arrivals: Vec<Arrival> = (0..sent.packets.len())
                .filter(|place| !lost.contains(place))
                .map(Arrival::Data)
                .chain((0..sent.parity.len()).map(Arrival::Parity))
                .collect();
            let mut decoder = Decoder::new(Limits::default());
            let mut out = receive(&mut decoder, &sent, &arrivals);
            out.sort_unstable_by_key(|packet| packet.number);
            assert_eq!(out, sent.packets[lost], "{depth} from {burst} on");
        }
    }
}

/// Sends 200,000 packets by a path that loses 5 % of them, where parity is lost as given.
/// Returns how many blocks there were, how many were not recovered, and how much parity
/// a block had.
fn residual(parity_loss: u64) -> (u64, u64, u64) {
    let mut encoder = Encoder::new(1, Settings::default());
    encoder.set_loss(0.05, parity_loss as f64 / 100.0);
    let mut decoder = Decoder::new(Limits::default());
    let (mut lost, mut recovered, mut state) = (0, 0, 88_172_645_463_325_252u64);
    let mut is_lost = move |percent: u64| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 11) % 100 < percent
    };
    let (mut bodies, mut out) = (Vec::new(), Vec::new());
    for number in 1..=200_000u32 {
        let (sequence, bytes, now) =
            (number.into(), ip(4, 24, number), u64::from(number) * 100_000);
        let packet = Recovered { path: 1, sequence, bucket: 0, number, flags: 8, inner: 4, bytes };
        push(&mut encoder, &packet, now, &mut bodies);
        if is_lost(5) {
            lost += 1;
        } else {
            arrive(&mut decoder, &packet, now, &mut out);
        }
        for body in bodies.drain(..).filter(|_| !is_lost(parity_loss)) {
            decoder.parity(&body, now, &mut out).expect("it is a body");
        }
        recovered += out.drain(..).count();
    }
    decoder.expire(u64::MAX);
    let sent = encoder.statistics();
    let got = decoder.statistics();
    assert_eq!((sent.blocks, got.wrong), (200_000 / 32, 0));
    assert!(lost > 9_500 && recovered > lost * 995 / 1000, "{recovered} of {lost}");
    (sent.blocks, got.unrecoverable, sent.parity / sent.blocks)
}

#[test]
fn of_2000_blocks_one_is_lost_at_most() {
    // The promise is less than 0.05 % of the blocks, on average.
    let (blocks, lost, parity) = residual(0);
    assert_eq!(parity, 7);
    assert!(lost * 2000 <= blocks, "{lost} of {blocks}");
}

#[test]
fn of_2000_blocks_one_is_lost_at_most_where_parity_is_lost_as_data_is() {
    let (blocks, lost, parity) = residual(5);
    assert_eq!(parity, 8);
    assert!(lost * 2000 <= blocks, "{lost} of {blocks}");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    /// Some of a block arrives, in any order.
    #[test]
    fn any_loss_of_any_block_in_any_order(
        (data, parity, arrivals) in (1u8..=32, 1u8..=8).prop_flat_map(|(data, parity)| {
            let all: Vec<Arrival> = (0..usize::from(data)).map(Arrival::Data)
                .chain((0..usize::from(parity)).map(Arrival::Parity)).collect();
            let (total, some) = (all.len(), all.len().saturating_sub(2 * usize::from(parity)));
            let arrivals = prop::sample::subsequence(all, some..=total).prop_shuffle();
            (Just(data), Just(parity), arrivals)
        }),
        first in prop_oneof![Just(1), 1..u64::MAX - 200, Just(u64::MAX - 200)],
        seed: u8,
    ) {
        let sent = send(data, parity, first, seed);
        prop_assert_eq!(sent.packets.len(), usize::from(data));
        judge(&sent, &arrivals);
    }

    #[test]
    fn any_bytes_give_no_packet(
        bodies in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..2000), 1..20),
    ) {
        let mut decoder = Decoder::new(Limits { memory: 50_000, ..Limits::default() });
        let mut out = Vec::new();
        for body in bodies {
            let _ = decoder.parity(&body, 0, &mut out);
            prop_assert!(decoder.statistics().memory <= 50_000);
        }
        prop_assert!(out.is_empty());
    }
}
