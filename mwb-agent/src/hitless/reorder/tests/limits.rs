//! Memory, restarts, the end of a session, and what is counted.

use super::*;

/// What a packet of [`ahead`] takes.
const SIZE: usize = OVERHEAD + 4;

#[test]
fn a_session_that_holds_too_much_gives_up_the_oldest_gap_of_its_largest_flow() {
    let mut bench = Bench::new(Limits { per_session: 5 * SIZE, ..ROOMY });
    let (small, large) = (Flow { bucket: 9, ..FLOW }, FLOW);
    let elsewhere = Flow { slot: 1, ..FLOW };
    for number in [6, 8, 10, 12, 14] {
        bench.take(ahead(elsewhere, number, 5));
    }
    bench.take(ahead(small, 6, 5));
    bench.take(ahead(small, 8, 5));
    for number in [6, 8, 10] {
        bench.take(ahead(large, number, 5));
    }
    assert_eq!(bench.released(), []);
    bench.take(ahead(small, 10, 5));
    // Both flows hold three; the one of the higher bucket counts as larger.
    assert_eq!(bench.out.iter().map(|one| one.flow).collect::<Vec<_>>(), [small]);
    assert_eq!(bench.released(), all(Why::Overflow, [6]));
    bench.take(ahead(large, 12, 5));
    assert_eq!(bench.out.iter().map(|one| one.flow).collect::<Vec<_>>(), [large]);
    assert_eq!(bench.released(), all(Why::Overflow, [6]));
    let counts = bench.counts(7);
    assert_eq!((counts.held, counts.bytes, counts.most_bytes), (5, 5 * SIZE, 5 * SIZE));
    assert_eq!((counts.released(Why::Overflow), counts.skipped), (2, 2));
}

#[test]
fn all_sessions_together_are_bounded_too() {
    let mut bench = Bench::new(Limits { total: 4 * SIZE, ..ROOMY });
    let other = Flow { slot: 1, ..FLOW };
    for number in [6, 7, 9] {
        bench.take(ahead(other, number, 5));
    }
    bench.take_all(5, &[6]);
    assert_eq!(bench.released(), []);
    bench.take_all(5, &[8]);
    assert!(bench.out.iter().all(|released| released.flow == other));
    assert_eq!(bench.released(), all(Why::Overflow, [6, 7]));
}

#[test]
fn without_room_nothing_is_held_and_nothing_dropped() {
    let mut bench = Bench::new(Limits { total: 0, ..ROOMY });
    bench.take_all(5, &[7, 5, 8]);
    let expected = [(7, Why::Overflow), (5, Why::Late), (8, Why::Turn)];
    assert_eq!(bench.released(), expected);
}

#[test]
fn the_bytes_that_are_allocated_count() {
    let mut bench = Bench::new(ROOMY);
    let mut bytes = Vec::with_capacity(2_048);
    bytes.push(1);
    bench.take(Ahead { bytes, ..ahead(FLOW, 6, 5) });
    assert_eq!(bench.counts(7).bytes, OVERHEAD + 2_048);
}

#[test]
fn a_far_jump_is_a_sender_that_counts_anew() {
    let mut bench = Bench::new(Limits { reach: 10, ..ROOMY });
    bench.take_all(5, &[7, 15]);
    assert_eq!(bench.released(), [], "10 ahead is within reach");
    bench.take_all(5, &[16, 18, 17]);
    let mut expected = all(Why::Lost, [7, 15]);
    expected.extend(all(Why::Turn, [16, 17, 18]));
    assert_eq!(bench.released(), expected);
    assert_eq!(bench.counts(7).restarts, 1);
    // Its first packet needs no state.
    bench.take_all(5, &[2_000_000, 2_000_001]);
    assert_eq!(bench.released(), all(Why::Turn, [2_000_000, 2_000_001]));
    assert_eq!(bench.counts(7).restarts, 2);
}

#[test]
fn any_number_is_within_a_reach_of_half_of_them() {
    let mut bench = Bench::new(Limits { reach: u32::MAX, ..ROOMY });
    bench.take_all(5, &[5 + i32::MAX as u32, 6 + i32::MAX as u32]);
    assert_eq!(bench.released(), [(6 + i32::MAX as u32, Why::Late)]);
}

#[test]
fn a_repeat_of_a_held_number_is_dropped_and_counted() {
    let mut bench = Bench::new(ROOMY);
    bench.take(Ahead { bytes: vec![1], ..ahead(FLOW, 6, 5) });
    bench.take(Ahead { bytes: vec![2; 100], ..ahead(FLOW, 6, 5) });
    assert_eq!(bench.counts(7).repeated, 1);
    assert_eq!(bench.counts(7).bytes, OVERHEAD + 1);
    bench.take_all(5, &[5]);
    assert_eq!(bench.out.last().map(|one| &*one.bytes), Some(&[1][..]));
    assert_eq!(bench.released(), all(Why::Turn, [5, 6]));
}

#[test]
fn narrower_limits_hold_at_once() {
    let mut bench = Bench::new(ROOMY);
    let other = Flow { slot: 1, ..FLOW };
    bench.take_all(5, &[6, 8, 10]);
    bench.take(ahead(other, 6, 5));
    let Bench { engine, now, out } = &mut bench;
    engine.set_limits(Limits { reach: 3, ..ROOMY }, *now, out);
    assert_eq!(bench.released(), all(Why::Overflow, [6]));
    let Bench { engine, now, out } = &mut bench;
    engine.set_limits(Limits { per_session: SIZE, ..ROOMY }, *now, out);
    assert_eq!(bench.released(), all(Why::Overflow, [8]));
    let Bench { engine, now, out } = &mut bench;
    engine.set_limits(Limits { total: 0, ..ROOMY }, *now, out);
    assert_eq!(bench.released().len(), 2);
    assert_eq!(bench.engine.next_due(), None);
}

#[test]
fn a_session_that_ended_is_released_in_order_and_begins_anywhere() {
    let mut bench = Bench::new(ROOMY);
    let (second, other) = (Flow { bucket: 2, ..FLOW }, Flow { slot: 8, ..FLOW });
    bench.take_all(1_000, &[1_000, 1_004, 1_002]);
    bench.take(ahead(second, 6, 5));
    bench.take(ahead(other, 6, 5));
    bench.released();
    let Bench { engine, now, out } = &mut bench;
    let counts = engine.forget(7, *now, out).unwrap_or_default();
    assert_eq!((counts.taken, counts.held, counts.released(Why::Lost)), (4, 0, 3));
    let of_first = bench.out.iter().filter(|released| released.flow == FLOW);
    assert_eq!(of_first.map(|released| released.number).collect::<Vec<_>>(), [1_002, 1_004]);
    assert_eq!(bench.released().len(), 3);
    assert!(bench.engine.holds(other));
    assert_eq!(bench.counts(7), Statistics::default());
    // Nothing of before counts.
    bench.take_all(900, &[900]);
    assert_eq!(bench.released(), all(Why::Turn, [900]));
    let Bench { engine, now, out } = &mut bench;
    assert_eq!(engine.forget(99, *now, out), None);
}

#[test]
fn what_is_released_is_counted_by_reason_and_delay() {
    let mut bench = Bench::new(ROOMY);
    let start = bench.now;
    bench.take_all(5, &[5, 7]);
    bench.now += DELAY_BOUNDS[0];
    bench.take_all(5, &[6]);
    bench.take_all(5, &[9]);
    bench.expire_at(start + 1_000 * MS);
    let counts = bench.counts(7);
    assert_eq!((counts.taken, counts.held, counts.bytes, counts.skipped), (4, 0, 0, 1));
    assert_eq!(counts.most_bytes, SIZE);
    assert_eq!(counts.released, [3, 0, 0, 1, 0]);
    assert_eq!(counts.delays, [3, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1]);
    assert_eq!(counts.delay_sum, 1_000 * MS);
}

#[test]
fn a_flow_that_is_finished_leaves_nothing() {
    let mut bench = Bench::new(ROOMY);
    bench.take_all(5, &[6, 8, 7, 5, 11, 9, 10]);
    assert_eq!(bench.released().len(), 7);
    assert!(bench.engine.sessions.values().all(|session| session.flows.is_empty()));
    assert_eq!((bench.engine.bytes, bench.engine.index.flows().len()), (0, 0));
    assert_eq!(bench.engine.index.largest(), None);
    assert_eq!(bench.engine.index.largest_of(7), None);
}
