//! What parity of a block takes: the encoder, with all that it keeps, and the bare code of
//! `reed-solomon-erasure`. Prints two figures in ns, for `cargo xtask bench slow-path`.

use std::hint::black_box;
use std::time::Instant;

use mwb_agent::hitless::fec::{Amount, Encoder, Packet, Settings};
use reed_solomon_erasure::galois_8::ReedSolomon;

/// A block: packets of data and of parity, and the length of each in bytes.
const DATA: u8 = 32;
const PARITY: u8 = 4;
const LENGTH: usize = 1_400;

/// Blocks in a round, and rounds; the middle one counts.
const BLOCKS: usize = 500;
const ROUNDS: usize = 9;

fn main() {
    let packet = |number: u8| -> Vec<u8> {
        let byte = |at: usize| (at as u8).wrapping_mul(7).wrapping_add(number.wrapping_mul(13));
        let mut bytes: Vec<u8> = (0..LENGTH).map(byte).collect();
        // As far as the encoder looks, it is one of IP.
        bytes[0] = 0x45;
        bytes[2..4].copy_from_slice(&(LENGTH as u16).to_be_bytes());
        bytes
    };
    let packets: Vec<Vec<u8>> = (0..DATA).map(packet).collect();

    let code = ReedSolomon::new(DATA.into(), PARITY.into()).expect("counts in range");
    let mut shards = vec![vec![0; LENGTH]; PARITY.into()];
    let bare = middle(|| {
        code.encode_sep(&packets, &mut shards).expect("shards of one length");
        black_box(&shards);
    });

    let parity = Amount::Fixed(PARITY);
    let mut encoder = Encoder::new(1, Settings { data: DATA, parity, ..Settings::default() });
    let (mut made, mut sequence) = (Vec::new(), 0);
    let engine = middle(|| {
        for bytes in &packets {
            sequence += 1;
            let number = sequence as u32;
            let packet = Packet { sequence, bucket: 1, number, flags: 0, inner: 4, bytes };
            encoder.push(&packet, 0, &mut made);
        }
        assert_eq!(black_box(&made).len(), usize::from(PARITY));
        made.clear();
    });
    println!("encoder {engine:.0}\nbare {bare:.0}");
}

/// What a run takes, in ns.
fn middle(mut run: impl FnMut()) -> f64 {
    let mut rounds: Vec<f64> = (0..ROUNDS)
        .map(|_| {
            let start = Instant::now();
            (0..BLOCKS).for_each(|_| run());
            start.elapsed().as_nanos() as f64 / BLOCKS as f64
        })
        .collect();
    rounds.sort_unstable_by(f64::total_cmp);
    rounds[ROUNDS / 2]
}
