use super::*;

#[test]
fn the_last_packet_goes_again_after_its_wait() {
    let mut bench = Bench::new(GENEROUS);
    bench.engine.rtt(1, 20 * MS, 3 * MS);
    bench.sent(1, 1, 1, 0);
    // 20 + 4 * 3 + 10 + 10.
    assert_eq!(bench.engine.next_due(), Some(52 * MS));
    assert_eq!(bench.expire(52 * MS - 1), [0_u32; 0]);
    assert_eq!(bench.expire(52 * MS), [1]);
    assert_eq!(bench.statistics().lost_by_time, 1);
}

#[test]
fn the_interval_of_acknowledgements_is_waited_for() {
    let mut bench = Bench::new(Settings { ack_interval: 30 * MS, ..GENEROUS });
    bench.sent(1, 1, 1, 0);
    assert_eq!(bench.engine.next_due(), Some(60 * MS));
}

#[test]
fn a_path_that_was_never_measured_has_100_ms() {
    let mut bench = Bench { engine: Resend::new(GENEROUS), out: Vec::new() };
    bench.acked(&all(15, 1), 0);
    bench.sent(1, 1, 1, 0);
    assert_eq!(bench.engine.next_due(), Some(120 * MS));
}

#[test]
fn each_try_waits_twice_as_long() {
    let mut bench = Bench::new(Settings { deadline: 10_000 * MS, silence: u64::MAX, ..GENEROUS });
    bench.sent(1, 1, 1, 0);
    let mut gone = Vec::new();
    for sequence in 2..6 {
        let Some(due) = bench.engine.next_due() else { break };
        let again = bench.expire(due);
        if !again.is_empty() {
            bench.sent(1, sequence, 1, due);
        }
        gone.push((due / MS, again));
    }
    assert_eq!(gone, [(40, vec![1]), (120, vec![1]), (280, vec![1]), (600, vec![])]);
    assert_eq!(bench.engine.next_due(), Some(10_000 * MS));
}

#[test]
fn one_that_was_given_out_and_not_sent_is_given_out_again() {
    let mut bench = Bench::new(GENEROUS);
    bench.sent(1, 1, 1, 0);
    assert_eq!(bench.expire(40 * MS), [1]);
    assert_eq!(bench.engine.next_due(), Some(120 * MS));
    assert_eq!(bench.expire(120 * MS), [1]);
}

#[test]
fn a_gap_that_is_too_small_is_closed_by_time() {
    let mut bench = Bench::new(GENEROUS);
    for number in 1..4 {
        bench.sent(1, number.into(), number, 0);
    }
    assert_eq!(bench.acked(&but(1, 3, &[2]), 20 * MS), [0_u32; 0]);
    assert_eq!(bench.expire(39 * MS), [0_u32; 0]);
    assert_eq!(bench.expire(40 * MS), [2]);
}

#[test]
fn a_wait_grows_with_the_round_trip() {
    let mut bench = Bench::new(GENEROUS);
    bench.sent(1, 1, 1, 0);
    bench.sent(2, 1, 2, 0);
    bench.engine.rtt(1, 50 * MS, 0);
    assert_eq!(bench.expire(40 * MS), [2]);
    assert_eq!(bench.engine.next_due(), Some(70 * MS));
    assert_eq!(bench.expire(70 * MS), [1]);
}

#[test]
fn nothing_goes_again_at_its_deadline_or_later() {
    let settings = Settings { deadline: 40 * MS, ..GENEROUS };
    let mut bench = Bench::new(settings);
    bench.sent(1, 1, 1, 0);
    assert_eq!(bench.expire(40 * MS), [0_u32; 0]);
    let mut by_gap = Bench::new(settings);
    by_gap.sent(1, 1, 1, 0);
    assert_eq!(by_gap.acked(&but(1, 9, &[1]), 40 * MS), [0_u32; 0]);
    let mut by_path = Bench::new(settings);
    by_path.sent(1, 1, 1, 0);
    assert_eq!(by_path.path_down(1, 40 * MS), [0_u32; 0]);
    for bench in [bench, by_gap, by_path] {
        assert_eq!((bench.statistics().expired, bench.statistics().held), (1, 0));
        assert_eq!(bench.engine.next_due(), None);
    }
}

#[test]
fn what_is_acknowledged_at_its_deadline_is() {
    let mut bench = Bench::new(GENEROUS);
    bench.sent(1, 1, 1, 0);
    bench.acked(&all(1, 1), 300 * MS);
    assert_eq!((bench.statistics().acknowledged, bench.statistics().expired), (1, 0));
}

#[test]
fn the_deadline_counts_from_the_first_sending() {
    let mut bench = Bench::new(GENEROUS);
    bench.sent(1, 1, 1, 0);
    assert_eq!(bench.expire(40 * MS), [1]);
    bench.sent(2, 1, 1, 41 * MS);
    assert_eq!(bench.expire(121 * MS), [1]);
    bench.sent(3, 1, 1, 122 * MS);
    assert_eq!(bench.engine.next_due(), Some(200 * MS));
    bench.expire(200 * MS);
    assert_eq!(bench.statistics().expired, 1);
}

#[test]
fn a_clock_that_jumps_back_stands() {
    let mut bench = Bench::new(GENEROUS);
    bench.sent(1, 1, 1, 100 * MS);
    bench.sent(1, 2, 2, 50 * MS);
    assert_eq!(bench.expire(139 * MS), [0_u32; 0]);
    assert_eq!(bench.expire(140 * MS), [1, 2]);
}

#[test]
fn no_time_is_too_long() {
    let settings = Settings { deadline: u64::MAX, ack_interval: u64::MAX, ..GENEROUS };
    let mut bench = Bench::new(settings);
    bench.engine.rtt(1, u64::MAX, u64::MAX);
    bench.sent(1, 1, 1, u64::MAX - 1);
    assert_eq!(bench.engine.next_due(), Some(u64::MAX));
}
