use super::*;

#[test]
fn bytes_sent_again_are_a_share_of_those_sent_first() {
    let mut bench = Bench::new(Settings { budget_burst: 200, ..GENEROUS });
    for number in 1..=40 {
        bench.sent(1, number.into(), number, 0);
    }
    // 200 bytes at the start, and no more for all that was sent before the first loss.
    let lost: Vec<u64> = (1..30).collect();
    assert_eq!(bench.acked(&but(1, 40, &lost), MS), [1, 2]);
    assert_eq!(bench.statistics().refused, 27);
    // A quarter of 300 bytes is not enough, of 400 it is.
    for number in 41..=44 {
        assert!(bench.engine.next_due() > Some(2 * MS), "{number}");
        assert_eq!(bench.expire(2 * MS), [0_u32; 0]);
        bench.sent(1, number.into(), number, 2 * MS);
    }
    assert_eq!(bench.engine.next_due(), Some(2 * MS));
    assert_eq!(bench.expire(2 * MS), [3]);
    assert_eq!((bench.statistics().refused, bench.statistics().again_bytes), (27, 300));
}

#[test]
fn an_acknowledgement_gives_out_what_can_be_paid_now() {
    let mut bench = Bench::new(Settings { budget_burst: 100, ..GENEROUS });
    for number in 1..=9 {
        bench.sent(1, number.into(), number, 0);
    }
    assert_eq!(bench.acked(&but(1, 9, &[1, 2]), MS), [1]);
    for number in 11..=14 {
        bench.sent(1, number.into(), number, MS);
    }
    assert_eq!(bench.acked(&all(2, 1), 2 * MS), [2]);
}

#[test]
fn what_goes_again_earns_nothing() {
    let mut bench = Bench::new(Settings { budget_burst: 100, budget_percent: 100, ..GENEROUS });
    bench.sent(1, 1, 1, 0);
    bench.sent(1, 2, 2, 0);
    assert_eq!(bench.acked(&but(1, 9, &[1, 2]), MS), [1]);
    bench.sent(2, 1, 1, 2 * MS);
    assert_eq!(bench.expire(2 * MS), [0_u32; 0]);
    bench.sent(2, 2, 3, 2 * MS);
    assert_eq!(bench.expire(2 * MS), [2]);
}

#[test]
fn what_the_budget_refuses_is_dropped_at_its_deadline() {
    let mut bench = Bench::new(Settings { budget_burst: 0, budget_percent: 0, ..GENEROUS });
    bench.sent(1, 1, 1, 0);
    assert_eq!(bench.expire(40 * MS), [0_u32; 0]);
    assert_eq!((bench.statistics().refused, bench.statistics().held), (1, 1));
    assert_eq!(bench.engine.next_due(), Some(200 * MS));
    assert_eq!(bench.expire(200 * MS), [0_u32; 0]);
    let statistics = bench.statistics();
    assert_eq!((statistics.refused, statistics.expired, statistics.held), (1, 1, 0));
}

#[test]
fn what_waits_for_the_budget_can_still_be_acknowledged() {
    let mut bench = Bench::new(Settings { budget_burst: 0, ..GENEROUS });
    bench.sent(1, 1, 1, 0);
    assert_eq!(bench.acked(&but(1, 9, &[1]), MS), [0_u32; 0]);
    assert_eq!(bench.acked(&all(1, 9), 2 * MS), [0_u32; 0]);
    for number in 2..9 {
        bench.sent(2, number.into(), number, 2 * MS);
    }
    assert_eq!(bench.expire(3 * MS), [0_u32; 0]);
    assert_eq!((bench.statistics().acknowledged, bench.statistics().again), (1, 0));
}

#[test]
fn the_oldest_is_served_first_and_no_small_one_passes_it() {
    let mut bench = Bench::new(Settings { budget_burst: 150, ..GENEROUS });
    let bytes = [9; 200];
    bench.engine.sent(1, 1, 8, 50, 4, &bytes, 0);
    bench.sent(1, 2, 51, 0);
    assert_eq!(bench.acked(&but(1, 9, &[1, 2]), MS), [0_u32; 0]);
    assert_eq!(bench.engine.next_due(), Some(200 * MS));
}
