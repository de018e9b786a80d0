//! What blocks take.

use std::time::Instant;

use reed_solomon_erasure::galois_8::ReedSolomon;

use super::*;

/// Run with `--release`: prints what blocks of 1,400 bytes take, per block.
#[test]
#[ignore = "measures"]
fn encoding_takes_at_most_three_times_what_the_bare_code_does() {
    for (data, parity) in [(10, 2), (32, 7)] {
        measure(data, parity);
    }
}

fn measure(data: u8, parity: u8) {
    const BLOCKS: u64 = 1000;
    let mut packets: Vec<Recovered> = (1..=data)
        .map(|n| {
            let bytes = ip(4, 1400, n.into());
            Recovered { path: 1, sequence: 0, bucket: 0, number: 0, flags: 8, inner: 4, bytes }
        })
        .collect();
    let best = |run: &mut dyn FnMut()| {
        let time = |_| {
            let start = Instant::now();
            run();
            start.elapsed().as_nanos() as f64 / BLOCKS as f64
        };
        (0..7).map(time).fold(f64::INFINITY, f64::min)
    };
    let bare = ReedSolomon::new(data.into(), parity.into()).expect("counts are in range");
    let mut sums = vec![vec![0; 1400]; parity.into()];
    let input: Vec<&[u8]> = packets.iter().map(|packet| &packet.bytes[..]).collect();
    let bare = best(&mut || {
        for _ in 0..BLOCKS {
            bare.encode_sep(&input, &mut sums).expect("lengths are equal");
        }
    });
    let settings = Settings { data, parity: Amount::Fixed(parity), ..Settings::default() };
    let (mut encoder, mut out) = (Encoder::new(1, settings), Vec::new());
    let mut sequence = 0;
    let ours = best(&mut || {
        for _ in 0..BLOCKS {
            for packet in &mut packets {
                sequence += 1;
                packet.sequence = sequence;
                push(&mut encoder, packet, 0, &mut out);
            }
            out.clear();
        }
    });
    let (mut decoder, mut recovered) = (Decoder::new(Limits::default()), Vec::new());
    let mut now = 0;
    let mut decode = |lost: usize| {
        best(&mut || {
            for _ in 0..BLOCKS {
                for (place, packet) in packets.iter_mut().enumerate() {
                    sequence += 1;
                    packet.sequence = sequence;
                    push(&mut encoder, packet, 0, &mut out);
                    if place >= lost {
                        arrive(&mut decoder, packet, now, &mut recovered);
                    }
                }
                now += 1_000_000;
                for body in out.drain(..) {
                    decoder.parity(&body, now, &mut recovered).expect("it is a body");
                }
                recovered.clear();
            }
        })
    };
    let (none, two) = (decode(0), decode(2));
    println!(
        "{data} + {parity}: bare {bare:.0} ns, encoder {ours:.0} ns: {:.2} times",
        ours / bare
    );
    println!("both ends {none:.0} ns with none lost, {two:.0} ns with two");
    assert!(ours < 3.0 * bare);
}
