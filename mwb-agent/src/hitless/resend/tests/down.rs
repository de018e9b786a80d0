use super::*;

/// Bytes of a kind of packet that is sent for some time by a path that dies.
fn deadline_of(bytes: usize, every: u64, time: u64) -> (Resend, u64) {
    let settings = Settings { budget_burst: 1_500, ..Settings::default() };
    let mut engine = Resend::new(settings);
    let count = time / every;
    for number in 0..count {
        engine.sent(1, number + 1, 1, number as u32, 4, &vec![number as u8; bytes], number * every);
    }
    (engine, count)
}

#[test]
fn nothing_of_small_packets_is_lost_with_a_path() {
    let (mut engine, count) = deadline_of(200, MS / 2, 200 * MS);
    let mut out = Vec::new();
    engine.path_down(1, 200 * MS - 1, &mut out);
    assert_eq!((count, out.len()), (400, 400));
    assert_eq!(engine.statistics().refused, 0);
}

#[test]
fn nothing_of_100_mbit_is_lost_with_a_path() {
    let (mut engine, count) = deadline_of(1_250, MS / 10, 150 * MS);
    let mut out = Vec::new();
    engine.path_down(1, 150 * MS, &mut out);
    assert_eq!((count, out.len()), (1_500, 1_500));
    let statistics = engine.statistics();
    assert_eq!((statistics.refused, statistics.forgotten), (0, 0));
    // One was paid by the bucket; no other could be.
    assert_eq!(statistics.free_bytes, 1_499 * 1_250);
}

#[test]
fn what_is_not_acknowledged_goes_again_once_in_order() {
    let mut bench = Bench::new(GENEROUS);
    for number in 1..7 {
        bench.sent(1 + (number % 2) as u8, u64::from(10 - number), number, 0);
    }
    bench.acked(&but(2, 7, &[1, 2, 3, 4, 5, 6]), MS);
    assert_eq!(bench.path_down(2, MS), [5, 1]);
    assert_eq!(bench.path_down(2, MS), [0_u32; 0]);
    bench.engine.path_up(2);
    assert_eq!(bench.path_down(2, MS), [0_u32; 0]);
    assert_eq!((bench.statistics().lost_by_path_down, bench.statistics().again), (2, 2));
    // It is now where it was sent last.
    bench.sent(1, 20, 1, 2 * MS);
    assert_eq!(bench.path_down(2, 3 * MS), [0_u32; 0]);
    assert_eq!(bench.path_down(1, 3 * MS), [6, 4, 2, 1]);
}

#[test]
fn what_was_given_out_for_another_reason_does_not_go_again() {
    let mut bench = Bench::new(GENEROUS);
    bench.sent(1, 1, 1, 0);
    assert_eq!(bench.acked(&but(1, 9, &[1]), MS), [1]);
    assert_eq!(bench.path_down(1, MS), [0_u32; 0]);
}

#[test]
fn a_packet_goes_free_once_and_then_as_any_other() {
    let mut bench = Bench::new(Settings { budget_burst: 0, ..GENEROUS });
    bench.sent(1, 1, 1, 0);
    assert_eq!(bench.path_down(1, MS), [1]);
    bench.sent(2, 1, 1, MS);
    assert_eq!(bench.path_down(2, 2 * MS), [0_u32; 0]);
    assert_eq!(bench.path_down(2, 2 * MS), [0_u32; 0]);
    let statistics = bench.statistics();
    assert_eq!((statistics.free_bytes, statistics.refused), (100, 1));
    assert_eq!(statistics.lost_by_path_down, 2);
}

#[test]
fn what_waits_for_the_budget_goes_when_its_path_dies() {
    let mut bench = Bench::new(Settings { budget_burst: 0, ..GENEROUS });
    bench.sent(1, 1, 1, 0);
    assert_eq!(bench.acked(&but(1, 9, &[1]), MS), [0_u32; 0]);
    assert_eq!(bench.path_down(1, 2 * MS), [1]);
    let statistics = bench.statistics();
    assert_eq!((statistics.lost_by_gap, statistics.lost_by_path_down), (1, 0));
    assert_eq!((statistics.refused, statistics.again), (1, 1));
}

#[test]
fn a_copy_that_comes_after_its_path_went_down_goes_at_once() {
    let mut bench = Bench::new(Settings { budget_burst: 0, ..GENEROUS });
    bench.sent(1, 1, 1, 0);
    assert_eq!(bench.path_down(1, MS), [1]);
    bench.sent(1, 2, 2, 2 * MS);
    assert_eq!(bench.engine.next_due(), Some(2 * MS));
    assert_eq!(bench.expire(2 * MS), [2]);
    assert_eq!(bench.expire(3 * MS), [0_u32; 0]);
    // Where one that goes again was sent is the kernel's choice: that could go on for ever.
    bench.sent(1, 3, 1, 3 * MS);
    assert_eq!(bench.expire(3 * MS), [0_u32; 0]);
}

#[test]
fn a_path_that_is_up_or_carries_something_is_not_down() {
    for by_ack in [false, true] {
        let mut bench = Bench::new(GENEROUS);
        bench.sent(1, 5, 1, 0);
        assert_eq!(bench.path_down(1, MS), [1]);
        // What was sent before it went down does not show that it is up.
        bench.acked(&all(1, 5), MS);
        bench.sent(1, 6, 2, 2 * MS);
        assert_eq!(bench.expire(2 * MS), [2], "{by_ack}");
        bench.sent(1, 7, 3, 3 * MS);
        if by_ack {
            bench.acked(&but(1, 6, &[]), 3 * MS);
        } else {
            bench.engine.path_up(1);
        }
        bench.sent(1, 8, 4, 3 * MS);
        assert_eq!(bench.expire(3 * MS), [0_u32; 0], "{by_ack}");
    }
}

#[test]
fn without_tries_nothing_goes_again() {
    let mut bench = Bench::new(Settings { tries: 0, ..GENEROUS });
    for number in 1..10 {
        bench.sent(1, number.into(), number, 0);
    }
    assert_eq!(bench.acked(&but(1, 5, &[2]), MS), [0_u32; 0]);
    assert_eq!(bench.expire(40 * MS), [0_u32; 0]);
    assert_eq!(bench.path_down(1, 41 * MS), [0_u32; 0]);
    let statistics = bench.statistics();
    assert_eq!((statistics.lost_by_gap, statistics.lost_by_time), (1, 4));
    assert_eq!((statistics.again, statistics.refused, statistics.held), (0, 0, 5));
}
