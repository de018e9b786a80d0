//! Whatever is sent.

use proptest::prelude::*;

use super::*;

/// A step of anybody who can send anything.
#[derive(Clone, Debug)]
enum Step {
    Data { block: usize, place: usize, from: usize },
    Parity { block: usize, index: usize, flip: Option<(usize, u8)> },
    Bytes(Vec<u8>),
    Wait(u64),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let data = (0..6usize, 0..8usize, 0..6usize).prop_map(|(block, place, from)| Step::Data {
        block,
        place,
        from,
    });
    let flip = prop::option::weighted(0.3, (0..100usize, 1u8..));
    let parity = (0..6usize, 0..3usize, flip).prop_map(|(block, index, flip)| Step::Parity {
        block,
        index,
        flip,
    });
    let bytes = prop::collection::vec(prop_oneof![any::<u8>(), 0u8..8], 0..400);
    let step = prop_oneof![
        8 => data,
        8 => parity,
        1 => bytes.prop_map(Step::Bytes),
        2 => (0..150 * MS).prop_map(Step::Wait),
    ];
    prop::collection::vec(step, 1..150)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn nothing_breaks_it_or_makes_it_use_more(
        steps in steps(),
        memory in prop_oneof![0usize..3_000, 3_000usize..60_000],
    ) {
        // Members overlap, and numbers of blocks collide.
        let sent: Vec<Sent> = (0..6).map(|n| send(8, 3, n / 2 * 16 + 1, n as u8)).collect();
        let mut decoder = Decoder::new(Limits { memory, ..Limits::default() });
        let (mut now, mut out) = (0, Vec::new());
        for step in steps {
            match step {
                Step::Data { block, place, from } => {
                    let member = &sent[block].packets[place];
                    let packet = &sent[from].packets[place];
                    let (path, sequence) = (member.path, member.sequence);
                    let packet = Recovered { path, sequence, ..packet.clone() };
                    arrive(&mut decoder, &packet, now, &mut out);
                }
                Step::Parity { block, index, flip } => {
                    let mut body = sent[block].parity[index].clone();
                    if let Some((at, bits)) = flip {
                        body[at] ^= bits;
                    }
                    let _ = decoder.parity(&body, now, &mut out);
                }
                Step::Bytes(bytes) => {
                    let before = out.len();
                    let _ = decoder.parity(&bytes, now, &mut out);
                    prop_assert_eq!(out.len(), before);
                }
                Step::Wait(time) => now += time,
            }
            decoder.check();
            let statistics = decoder.statistics();
            prop_assert_eq!(statistics.recovered, out.len() as u64);
            prop_assert!(statistics.early <= statistics.recovered);
            if now % 3 == 0 {
                decoder.expire(now);
                prop_assert!(decoder.next_due().is_none_or(|due| due > now));
            }
        }
        // Packets and blocks go, and then what is known of blocks that were given up.
        decoder.expire(now);
        while let Some(due) = decoder.next_due() {
            prop_assert!(due > now && due < now + 350 * MS);
            now = due;
            decoder.expire(now);
        }
        prop_assert_eq!(decoder.statistics().memory, 0);
    }
}
