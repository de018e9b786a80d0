use super::*;

/// What a packet of [`text`] takes.
const ONE: usize = 484;

#[test]
fn the_oldest_is_forgotten_for_a_new_one() {
    let mut bench = Bench::new(Settings { memory: 3 * ONE, ..GENEROUS });
    for number in 1..=5 {
        bench.sent(1, number.into(), number, 0);
    }
    let statistics = bench.statistics();
    assert_eq!((statistics.held, statistics.held_bytes, statistics.forgotten), (3, 3 * ONE, 2));
    assert_eq!(bench.path_down(1, MS), [3, 4, 5]);
}

#[test]
fn one_that_does_not_fit_is_not_held() {
    let mut bench = Bench::new(Settings { memory: ONE, ..GENEROUS });
    bench.sent(1, 1, 1, 0);
    bench.engine.sent(1, 2, 7, 2, 4, &[9; 101], 0);
    let statistics = bench.statistics();
    assert_eq!((statistics.sent, statistics.forgotten, statistics.held), (2, 1, 1));
}

#[test]
fn each_further_place_counts() {
    let mut bench = Bench::new(Settings { memory: 2 * ONE + 64, ..GENEROUS });
    bench.sent(1, 1, 1, 0);
    bench.sent(1, 2, 2, 0);
    bench.path_down(1, MS);
    bench.sent(2, 1, 2, MS);
    assert_eq!(bench.statistics().held_bytes, 2 * ONE + 64);
    bench.sent(2, 2, 2, MS);
    // The copy of the first is awaited: that counts, too.
    let statistics = bench.statistics();
    assert_eq!((statistics.held, statistics.held_bytes), (1, ONE + 3 * 64));
    bench.sent(2, 3, 1, MS);
    assert_eq!(bench.statistics().sent, 2);
    bench.expire(200 * MS);
    bench.expire(201 * MS);
    assert_eq!(bench.statistics().held_bytes, 0);
}

#[test]
fn packets_that_are_gone_make_room_last() {
    let mut bench = Bench::new(Settings { memory: ONE, ..GENEROUS });
    bench.sent(1, 1, 1, 0);
    bench.path_down(1, MS);
    bench.acked(&all(1, 1), MS);
    assert_eq!(bench.statistics().held_bytes, 64);
    bench.sent(1, 2, 2, MS);
    assert_eq!((bench.statistics().held, bench.statistics().held_bytes), (1, ONE));
}

#[test]
fn a_packet_may_be_forgotten_for_its_own_place() {
    let mut bench = Bench::new(Settings { memory: ONE, ..GENEROUS });
    bench.sent(1, 1, 1, 0);
    bench.sent(2, 1, 1, 0);
    let statistics = bench.statistics();
    assert_eq!((statistics.sent, statistics.forgotten, statistics.held_bytes), (1, 1, 0));
}
