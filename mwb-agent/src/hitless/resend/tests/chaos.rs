//! Whatever is said to the engine, in any order.

use proptest::prelude::*;

use super::*;

#[derive(Clone, Debug)]
enum Step {
    Sent(u8, u64, u16, u32, usize),
    Acked(u8, u64, u64),
    Rtt(u8, u64, u64),
    Down(u8),
    Up(u8),
    Expire,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        8 => (0u8..5, 0u64..60, 0u16..2, 0u32..40, 0usize..900)
            .prop_map(|(path, sequence, bucket, number, length)| {
                Step::Sent(path, sequence, bucket, number, length)
            }),
        4 => (0u8..5, prop_oneof![0u64..70, Just(u64::MAX)], any::<u64>())
            .prop_map(|(path, highest, seed)| Step::Acked(path, highest, seed)),
        1 => (0u8..18, any::<u64>(), any::<u64>())
            .prop_map(|(path, rtt, variation)| Step::Rtt(path, rtt, variation)),
        1 => (1u8..5, 0..50 * MS).prop_map(|(path, rtt)| Step::Rtt(path, rtt, 0)),
        1 => (0u8..18).prop_map(Step::Down),
        1 => (0u8..18).prop_map(Step::Up),
        3 => Just(Step::Expire),
    ]
}

proptest! {
    #[test]
    fn the_bounds_hold(
        memory in 0usize..6_000,
        deadline in prop::sample::select(vec![0, 5 * MS, 200 * MS, u64::MAX]),
        tries in prop_oneof![0u8..4, Just(255)],
        budget in (0u32..200, prop_oneof![0u64..3_000, Just(u64::MAX)]),
        steps in prop::collection::vec((step(), 0u64..20 * MS), 1..300),
    ) {
        let (budget_percent, budget_burst) = budget;
        let settings =
            Settings { memory, deadline, tries, budget_percent, budget_burst, ..GENEROUS };
        let mut engine = Resend::new(settings);
        let (mut now, mut out) = (0, Vec::new());
        for (step, after) in steps {
            now += after;
            match step {
                Step::Sent(path, sequence, bucket, number, length) => {
                    engine.sent(path, sequence, bucket, number, 4, &vec![9; length], now);
                }
                Step::Acked(path, highest, seed) => {
                    let ack = of(path, highest, |at| seed.rotate_left(at as u32 % 64) & 1 != 0);
                    engine.acked(&ack, now, &mut out);
                }
                Step::Rtt(path, rtt, variation) => engine.rtt(path, rtt, variation),
                Step::Down(path) => engine.path_down(path, now, &mut out),
                Step::Up(path) => engine.path_up(path),
                Step::Expire => {
                    engine.expire(now, &mut out);
                    // It has done all that was due.
                    prop_assert!(engine.next_due().is_none_or(|due| due > now));
                }
            }
            for again in out.drain(..) {
                prop_assert!(again.tries <= tries);
            }
            let is = engine.statistics();
            prop_assert!(is.held_bytes <= memory, "{:?}", is);
            prop_assert!(is.held > 0 || engine.next_due().is_none());
            let known = is.acknowledged + is.expired + is.forgotten + is.held as u64;
            prop_assert_eq!(is.sent, known);
        }
    }
}
