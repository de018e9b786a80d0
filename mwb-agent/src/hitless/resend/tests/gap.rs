use super::*;

/// Packets 1 to `count` by path 1, at 0.
fn sent(count: u32) -> Bench {
    let mut bench = Bench::new(GENEROUS);
    for number in 1..=count {
        bench.sent(1, number.into(), number, 0);
    }
    bench
}

#[test]
fn a_missing_one_is_lost_when_three_above_it_were_taken() {
    let mut bench = sent(5);
    assert_eq!(bench.acked(&but(1, 4, &[2]), MS), [0_u32; 0]);
    assert_eq!(bench.acked(&but(1, 5, &[2]), MS), [2]);
    let statistics = bench.statistics();
    assert_eq!((statistics.lost_by_gap, statistics.again, statistics.again_bytes), (1, 1, 100));
    assert_eq!((statistics.acknowledged, statistics.held), (4, 1));
}

#[test]
fn what_goes_again_is_what_was_sent() {
    let mut bench = sent(9);
    bench.engine.acked(&but(1, 9, &[3]), MS, &mut bench.out);
    let bytes = text(3).as_slice().into();
    let again = Again { bucket: 7, number: 3, inner: 4, not_by: 1, tries: 1, bytes };
    assert_eq!(bench.out, [again]);
}

#[test]
fn packets_of_others_count_as_taken_above() {
    let mut bench = Bench::new(GENEROUS);
    bench.sent(1, 10, 1, 0);
    assert_eq!(bench.acked(&but(1, 12, &[10]), MS), [0_u32; 0]);
    assert_eq!(bench.acked(&but(1, 20, &[10, 13, 14, 15, 16, 17, 18, 19]), MS), [1]);
}

#[test]
fn a_disorder_of_0_is_as_1() {
    for disorder in [0, 1] {
        let mut bench = Bench::new(Settings { disorder, ..GENEROUS });
        bench.sent(1, 1, 1, 0);
        assert_eq!(bench.acked(&but(1, 2, &[1]), MS), [1], "{disorder}");
    }
}

#[test]
fn one_that_is_lost_goes_again_once() {
    let mut bench = sent(9);
    let ack = but(1, 9, &[3]);
    assert_eq!(bench.acked(&ack, MS), [3]);
    assert_eq!(bench.acked(&ack, MS), [0_u32; 0]);
    // It came by path 2. That it never comes by path 1 says nothing any more.
    bench.sent(2, 1, 3, 2 * MS);
    assert_eq!(bench.acked(&but(1, 30, &[3]), 3 * MS), [0_u32; 0]);
    assert_eq!(bench.acked(&but(2, 4, &[1]), 3 * MS), [3]);
}

#[test]
fn it_is_known_which_try_it_is_and_there_are_no_more() {
    let mut bench = sent(9);
    let mut tries = Vec::new();
    for path in 1..=9 {
        bench.engine.acked(&but(path, 9, &[3]), MS, &mut bench.out);
        tries.extend(bench.out.drain(..).map(|again| (again.tries, again.not_by)));
        bench.sent(path + 1, 3, 3, MS);
    }
    assert_eq!(tries, [(1, 1), (2, 2), (3, 3)]);
    assert_eq!((bench.statistics().again, bench.statistics().held), (3, 1));
}

#[test]
fn an_older_acknowledgement_proves_no_loss() {
    let mut bench = Bench::new(GENEROUS);
    bench.sent(1, 500, 1, 0);
    assert_eq!(bench.acked(&all(1, 2_000), MS), [0_u32; 0]);
    assert_eq!(bench.acked(&but(1, 600, &[500]), MS), [0_u32; 0]);
    assert_eq!(bench.statistics().lost_by_gap, 0);
    assert_eq!(bench.expire(40 * MS), [1]);
}

#[test]
fn an_older_acknowledgement_takes_out_what_is_too_far_below_the_newest() {
    let mut bench = Bench::new(GENEROUS);
    bench.sent(1, 10, 1, 0);
    assert_eq!(bench.acked(&all(1, 2_000), MS), [0_u32; 0]);
    assert_eq!(bench.statistics().held, 1);
    assert_eq!(bench.acked(&all(1, 900), MS), [0_u32; 0]);
    assert_eq!((bench.statistics().held, bench.statistics().acknowledged), (0, 1));
}

#[test]
fn what_is_too_far_below_the_highest_is_not_lost() {
    let mut bench = Bench::new(GENEROUS);
    bench.sent(1, 975, 1, 0);
    bench.sent(1, 976, 2, 0);
    assert_eq!(bench.acked(&but(1, 2_000, &[975, 976]), MS), [2]);
}

#[test]
fn an_acknowledgement_of_the_first_place_counts_after_the_packet_went_again() {
    let mut bench = sent(9);
    assert_eq!(bench.acked(&but(1, 9, &[3]), MS), [3]);
    bench.sent(2, 1, 3, MS);
    assert_eq!(bench.acked(&all(1, 9), MS), [0_u32; 0]);
    assert_eq!(bench.statistics().held, 0);
    assert_eq!(bench.acked(&but(2, 9, &[1]), MS), [0_u32; 0]);
}

#[test]
fn a_copy_that_comes_after_its_acknowledgement_is_no_new_packet() {
    let mut bench = sent(9);
    assert_eq!(bench.acked(&but(1, 9, &[3]), MS), [3]);
    // The first sending has arrived after all, while the packet went again.
    assert_eq!(bench.acked(&all(1, 9), MS), [0_u32; 0]);
    bench.sent(2, 1, 3, 2 * MS);
    let statistics = bench.statistics();
    assert_eq!((statistics.sent, statistics.held), (9, 0));
    assert_eq!(bench.acked(&but(2, 9, &[1]), 3 * MS), [0_u32; 0]);
    // For one deadline: then the number may be one of a new packet.
    bench.sent(2, 10, 3, 201 * MS);
    assert_eq!(bench.statistics().sent, 10);
}

#[test]
fn a_first_copy_that_comes_after_its_acknowledgement_is_taken_at_once() {
    // Of two that are as new, either may be the later one.
    for acks in [[but(1, 9, &[4]), but(1, 9, &[4, 5])], [but(1, 9, &[4, 5]), but(1, 9, &[4])]] {
        let mut bench = Bench::new(GENEROUS);
        for ack in &acks {
            bench.acked(ack, MS);
        }
        for (number, sequence) in [(1, 9), (2, 4), (3, 5), (4, 10)] {
            bench.sent(1, sequence, number, MS);
        }
        let statistics = bench.statistics();
        assert_eq!((statistics.sent, statistics.acknowledged, statistics.held), (4, 2, 2));
        assert_eq!(bench.acked(&but(1, 9, &[4]), MS), [2]);
    }
}

#[test]
fn what_cannot_be_is_not_looked_at() {
    let mut bench = Bench::new(GENEROUS);
    for (path, sequence) in [(0, 1), (16, 1), (255, 1), (1, 0)] {
        bench.sent(path, sequence, 1, 0);
    }
    assert_eq!(bench.statistics(), Statistics::default());
    bench.sent(1, 1, 1, 0);
    let stray = Ack { path: 1, highest: 1, bits: [1; 16] };
    let nowhere = Ack { path: 16, ..all(1, 1) };
    for ack in [stray, nowhere, Ack { path: 1, highest: 0, bits: [0; 16] }] {
        bench.acked(&ack, 0);
    }
    for path in [0, 16, 255] {
        bench.engine.rtt(path, 1, 1);
        bench.engine.path_up(path);
        assert_eq!(bench.path_down(path, 0), [0_u32; 0]);
    }
    assert_eq!(bench.statistics().held, 1);
}

#[test]
fn a_place_that_is_used_twice_is_the_later_packets() {
    let mut bench = Bench::new(GENEROUS);
    bench.sent(1, 5, 1, 0);
    bench.sent(1, 5, 2, 0);
    bench.acked(&all(1, 5), MS);
    assert_eq!((bench.statistics().acknowledged, bench.statistics().held), (1, 1));
    assert_eq!(bench.expire(40 * MS), [1]);
}

#[test]
fn a_place_stays_the_later_packets_when_the_earlier_is_forgotten() {
    let mut bench = Bench::new(GENEROUS);
    bench.sent(1, 5, 1, 0);
    bench.sent(1, 5, 2, 100 * MS);
    bench.expire(200 * MS);
    assert_eq!(bench.statistics().expired, 1);
    bench.acked(&all(1, 5), 200 * MS);
    assert_eq!((bench.statistics().acknowledged, bench.statistics().held), (1, 0));
}
