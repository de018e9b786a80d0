//! Against a model that does it the slow way.

use proptest::prelude::*;

use super::*;

proptest! {
    #[test]
    fn blocks_are_as_the_rules_say(
        steps in prop::collection::vec(
            (
                prop_oneof![5 => 0u64..30, 1 => 0u64..600],
                20usize..200,
                prop::option::weighted(0.1, prop_oneof![50usize..300, Just(usize::MAX)]),
            ),
            1..150,
        ),
        data in 2usize..8,
        interleave in 1usize..4,
    ) {
        let settings = Settings { interleave: interleave as u8, ..fixed(data as u8, 1) };
        let (mut encoder, mut out) = (Encoder::new(3, settings), Vec::new());
        let (mut open, mut closed) = (vec![Vec::new(); interleave], Vec::new());
        let (mut room, mut turn, mut skipped) = (usize::MAX, 0, 0);
        let body = |block: &[(u64, usize)]| {
            let longest = block.iter().map(|(_, length)| *length).max().unwrap_or(0);
            longest + 29 + block.len()
        };
        for (at, (further, length, change)) in (1..).zip(steps) {
            let packet = (2 * at + further, length);
            room = change.unwrap_or(room);
            encoder.set_room(room);
            out.extend(push(&mut encoder, packet.0, &ip(4, length, 1), 0));
            for block in &mut open {
                if !block.is_empty() && body(block) > room {
                    closed.push(std::mem::take(block));
                }
            }
            let is_there = open.iter().flatten().any(|(other, _)| *other == packet.0);
            if is_there || body(&[packet]) > room {
                skipped += 1;
                continue;
            }
            let mut with = open[turn].clone();
            with.push(packet);
            with.sort_unstable();
            if with[with.len() - 1].0 - with[0].0 > 255 || body(&with) > room {
                closed.push(std::mem::replace(&mut open[turn], vec![packet]));
            } else {
                open[turn] = with;
            }
            if open[turn].len() == data {
                closed.push(std::mem::take(&mut open[turn]));
            }
            turn = (turn + 1) % interleave;
        }
        let name = |block: &Vec<(u64, usize)>| block.iter().map(|(it, _)| *it).collect::<Vec<_>>();
        prop_assert_eq!(sequences(&out), closed.iter().map(name).collect::<Vec<_>>());
        let lengths = closed.iter().map(|block| body(block)).collect::<Vec<_>>();
        prop_assert_eq!(out.iter().map(Vec::len).collect::<Vec<_>>(), lengths);
        let statistics = encoder.statistics();
        prop_assert_eq!(statistics.skipped, skipped);
        prop_assert_eq!(statistics.data, closed.iter().flatten().count() as u64);
    }
}
