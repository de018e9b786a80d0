//! What several processors hand over comes in any order, to both ends.

use super::super::body::{self, Body};
use super::*;

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn bodies_are_the_same_in_whatever_order_packets_came(
        (seed, order) in (2u8..=32, any::<u8>()).prop_flat_map(|(data, seed)| {
            (Just(seed), Just(packets(data, 1, seed)).prop_shuffle())
        }),
    ) {
        let data = order.len() as u8;
        let settings = Settings { data, parity: Amount::Fixed(3), ..Settings::default() };
        prop_assert_eq!(encode(settings, &order), send(data, 3, 1, seed).parity);
    }

    #[test]
    fn with_any_window_and_room_all_is_recovered_that_can_be(
        steps in prop::collection::vec((0u64..40, 20usize..1000, any::<u8>()), 1..150),
        data in 2u8..=32,
        parity in 1u8..=4,
        interleave in 1u8..=8,
        room in prop_oneof![50usize..200, 50usize..1100, Just(usize::MAX)],
        late in prop::collection::vec(any::<u8>(), 64),
    ) {
        let mut packets: Vec<(u64, Recovered, bool)> = (1..).zip(&steps)
            .map(|(n, (window, length, fate))| {
                let bytes = ip(4, *length, n as u32);
                let (sequence, number) = (n * 3, n as u32);
                let packet =
                    Recovered { path: 1, sequence, bucket: 0, number, flags: 8, inner: 4, bytes };
                (n + window, packet, *fate < 25)
            })
            .collect();
        packets.sort_by_key(|(at, ..)| *at);
        let amount = Amount::Fixed(parity);
        let settings = Settings { data, parity: amount, interleave, ..Settings::default() };
        let (mut encoder, mut bodies) = (Encoder::new(1, settings), Vec::new());
        encoder.set_room(room);
        packets.iter().for_each(|(_, packet, _)| push(&mut encoder, packet, 0, &mut bodies));
        encoder.expire(u64::MAX, &mut bodies);
        prop_assert!(bodies.iter().all(|body| body.len() <= room));

        // All that is not lost arrives, in any order.
        let mut arrivals: Vec<(u8, Result<&Recovered, &Vec<u8>>)> = Vec::new();
        let mut late = late.iter().cycle();
        for (_, packet, _) in packets.iter().filter(|(.., is_lost)| !is_lost) {
            arrivals.push((late.next().map_or(0, |late| late / 2), Ok(packet)));
        }
        let mut arrived = vec![0; bodies.len() / usize::from(parity)];
        for (at, body) in bodies.iter().enumerate() {
            let late = late.next().copied().unwrap_or(0);
            if late >= 50 {
                arrived[at / usize::from(parity)] += 1;
                arrivals.push((late, Err(body)));
            }
        }
        arrivals.sort_by_key(|(late, _)| *late);
        let (mut decoder, mut out) = (Decoder::new(Limits::default()), Vec::new());
        for (_, arrival) in arrivals {
            match arrival {
                Ok(packet) => arrive(&mut decoder, packet, 0, &mut out),
                Err(body) => prop_assert_eq!(decoder.parity(body, 0, &mut out), Ok(10_000_000)),
            }
        }
        let got: BTreeSet<u64> = out.iter().map(|packet| packet.sequence).collect();
        prop_assert_eq!(got.len(), out.len(), "each once");
        let lost: BTreeSet<u64> = packets.iter().filter(|(.., is_lost)| *is_lost)
            .map(|(_, packet, _)| packet.sequence).collect();
        let mut members = 0;
        for (body, arrived) in bodies.iter().step_by(parity.into()).zip(arrived) {
            let body = Body::parse(body).expect("it is a body");
            let block: BTreeSet<u64> = body::members(1, body.first, body.gaps)
                .map(|member| member.sequence).collect();
            members += block.len();
            let missing: BTreeSet<u64> = block.intersection(&lost).copied().collect();
            if missing.len() <= arrived {
                prop_assert!(missing.is_subset(&got));
            } else {
                prop_assert!(block.is_disjoint(&got));
            }
        }
        let too_long = packets.iter().filter(|(_, it, _)| it.bytes.len() + 30 > room).count();
        prop_assert_eq!(encoder.statistics().skipped, too_long as u64);
        prop_assert_eq!(members, packets.len() - too_long, "each in one block");

        // Then what was lost arrives after all.
        for (_, packet, _) in packets.iter().filter(|(.., is_lost)| *is_lost) {
            arrive(&mut decoder, packet, 0, &mut out);
        }
        let statistics = decoder.statistics();
        prop_assert_eq!(statistics.recovered, out.len() as u64);
        prop_assert_eq!(statistics.early, statistics.recovered, "all have come after all");
        for packet in &out {
            prop_assert!(packets.iter().any(|(_, sent, _)| sent == packet), "to the byte");
        }
    }
}
