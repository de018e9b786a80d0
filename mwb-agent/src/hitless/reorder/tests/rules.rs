//! Turn, loss, deadline, and what the kernel side says.

use super::*;

#[test]
fn a_packet_in_turn_is_released_at_once_and_leaves_no_state() {
    let mut bench = Bench::new(ROOMY);
    bench.take_all(5, &[5]);
    assert_eq!(bench.released(), all(Why::Turn, [5]));
    assert!(!bench.engine.holds(FLOW));
    assert_eq!(bench.engine.next_due(), None);
}

#[test]
fn what_fills_the_gap_releases_the_run_up_to_the_next_gap() {
    let mut bench = Bench::new(ROOMY);
    bench.take_all(5, &[6, 9, 7]);
    assert_eq!(bench.released(), []);
    assert!(bench.engine.holds(FLOW));
    bench.now += 3 * MS;
    bench.take_all(5, &[5]);
    let waited: Vec<u64> = bench.out.iter().map(|released| released.waited).collect();
    assert_eq!(waited, [0, 3 * MS, 3 * MS]);
    assert_eq!(bench.released(), all(Why::Turn, [5, 6, 7]));
    assert!(bench.engine.holds(FLOW), "9 waits for 8");
    bench.take_all(5, &[8]);
    assert_eq!(bench.released(), all(Why::Turn, [8, 9]));
    assert!(!bench.engine.holds(FLOW));
}

#[test]
fn numbers_wrap() {
    let mut bench = Bench::new(ROOMY);
    bench.take_all(u32::MAX - 1, &[0, u32::MAX, 1, u32::MAX - 1, u32::MAX - 2]);
    let mut expected = all(Why::Turn, [u32::MAX - 1, u32::MAX, 0, 1]);
    expected.push((u32::MAX - 2, Why::Late));
    assert_eq!(bench.released(), expected);
}

#[test]
fn bytes_and_path_come_out_as_they_came_in() {
    let mut bench = Bench::new(ROOMY);
    bench.take(Ahead { bytes: vec![1, 2, 3], ..by(3, 0b1010, 1, 0) });
    bench.take(Ahead { bytes: vec![4], ..by(2, 0b1100, 0, 0) });
    let out: Vec<_> = bench.out.iter().map(|one| (one.flow, one.path, &*one.bytes)).collect();
    assert_eq!(out, [(FLOW, 2, &[4][..]), (FLOW, 3, &[1, 2, 3][..])]);
}

#[test]
fn a_number_is_lost_when_each_path_has_brought_a_later_one() {
    let mut bench = Bench::new(ROOMY);
    bench.take(by(1, 0b1110, 6, 5));
    bench.take(by(2, 0b1110, 8, 5));
    assert_eq!(bench.released(), []);
    bench.take(by(3, 0b1110, 9, 5));
    // 5 is lost; 7 may still come by path 1.
    assert_eq!(bench.released(), all(Why::Lost, [6]));
    bench.take(by(1, 0b1110, 10, 5));
    assert_eq!(bench.released(), all(Why::Lost, [8, 9, 10]));
    assert_eq!(bench.counts(7).skipped, 2);
}

#[test]
fn the_newest_mask_counts() {
    let mut bench = Bench::new(ROOMY);
    bench.take(by(1, 0b110, 6, 5));
    bench.take(by(1, 0b110, 7, 5));
    assert_eq!(bench.released(), []);
    // Path 2 is not in use any more.
    bench.take(by(1, 0b010, 9, 5));
    assert_eq!(bench.released(), all(Why::Lost, [6, 7, 9]));
}

#[test]
fn one_path_alone_proves_a_loss_with_or_without_a_mask() {
    for paths in [0, 0b1, 0b10] {
        let mut bench = Bench::new(ROOMY);
        bench.take(by(1, paths, 6, 5));
        assert_eq!(bench.released(), all(Why::Lost, [6]), "{paths:b}");
        assert!(!bench.engine.holds(FLOW));
    }
}

#[test]
fn the_path_of_a_packet_is_in_use_whatever_the_mask_says() {
    let mut bench = Bench::new(ROOMY);
    bench.take(by(1, 0b110, 8, 5));
    // A late one by path 2 with a mask of path 1 alone: path 2 may bring 5 to 7.
    bench.take(by(2, 0b010, 4, 5));
    assert_eq!(bench.released(), all(Why::Late, [4]));
}

#[test]
fn a_path_without_a_number_of_its_own_proves_nothing() {
    for path in [0, 16, 255] {
        let mut bench = Bench::new(ROOMY);
        bench.take(by(path, 0, 6, 5));
        bench.take(by(path, 0b10, 7, 5));
        assert_eq!(bench.released(), [], "{path}");
    }
    let mut bench = Bench::new(ROOMY);
    bench.take(by(15, 1 << 15, 6, 5));
    assert_eq!(bench.released(), all(Why::Lost, [6]));
}

#[test]
fn what_may_be_sent_again_is_not_taken_as_lost() {
    let mut bench = Bench::new(ROOMY);
    bench.take(Ahead { repaired: true, ..by(1, 0b10, 6, 5) });
    assert_eq!(bench.released(), []);
    // Not any more.
    bench.take(by(1, 0b10, 7, 5));
    assert_eq!(bench.released(), all(Why::Lost, [6, 7]));
}

#[test]
fn a_gap_is_given_up_at_the_deadline_and_not_before() {
    let mut bench = Bench::new(ROOMY);
    let start = bench.now;
    bench.take_all(5, &[6, 7]);
    bench.now += 10 * MS;
    bench.take_all(5, &[9]);
    assert_eq!(bench.engine.next_due(), Some(start + 50 * MS));
    bench.expire_at(start + 50 * MS - 1);
    assert_eq!(bench.released(), []);
    bench.expire_at(start + 50 * MS);
    assert_eq!(bench.released(), all(Why::Deadline, [6, 7]));
    assert_eq!(bench.engine.next_due(), Some(start + 60 * MS), "9 has its own");
    bench.expire_at(start + 60 * MS);
    assert_eq!(bench.released(), all(Why::Deadline, [9]));
    assert_eq!(bench.engine.next_due(), None);
}

#[test]
fn the_run_behind_what_is_due_goes_with_it() {
    let mut bench = Bench::new(ROOMY);
    let start = bench.now;
    bench.take_all(5, &[6]);
    bench.now += 10 * MS;
    bench.take_all(5, &[7, 8, 10]);
    bench.expire_at(start + 50 * MS);
    assert_eq!(bench.released(), all(Why::Deadline, [6, 7, 8]));
}

#[test]
fn a_later_number_that_is_due_first_takes_all_in_front_of_it_along() {
    let mut bench = Bench::new(ROOMY);
    let (start, mut out) = (bench.now, Vec::new());
    for (number, deadline) in [(6, 40), (12, 90), (8, 50), (10, 20), (14, 90)] {
        bench.engine.take(ahead(FLOW, number, 5), start, deadline * MS, &mut out);
    }
    assert_eq!(bench.engine.next_due(), Some(start + 20 * MS));
    bench.expire_at(start + 20 * MS);
    assert_eq!(bench.released(), all(Why::Deadline, [6, 8, 10]));
    assert_eq!(bench.engine.next_due(), Some(start + 90 * MS));
}

#[test]
fn what_comes_after_its_gap_was_given_up_is_late() {
    let mut bench = Bench::new(ROOMY);
    bench.take_all(5, &[6, 8]);
    bench.expire_at(bench.now + 50 * MS);
    bench.released();
    bench.take_all(5, &[5, 7, 9]);
    let expected = [(5, Why::Late), (7, Why::Late), (9, Why::Turn)];
    assert_eq!(bench.released(), expected);
    assert_eq!(bench.counts(7).skipped, 2);
}

#[test]
fn one_flow_does_not_wait_for_another() {
    let mut bench = Bench::new(ROOMY);
    bench.take_all(5, &[6]);
    for flow in [Flow { bucket: 2, ..FLOW }, Flow { slot: 8, ..FLOW }] {
        bench.take(ahead(flow, 5, 5));
        bench.take(ahead(flow, 6, 5));
        assert_eq!(bench.released(), all(Why::Turn, [5, 6]));
    }
    assert!(bench.engine.holds(FLOW));
}

#[test]
fn where_the_kernel_side_has_gone_on_it_is_followed() {
    let mut bench = Bench::new(ROOMY);
    bench.take_all(5, &[6, 8, 10, 11, 15]);
    bench.take_all(10, &[13]);
    let mut expected = all(Why::Late, [6, 8]);
    expected.extend(all(Why::Turn, [10, 11]));
    assert_eq!(bench.released(), expected);
    assert_eq!(bench.counts(7).skipped, 0, "the kernel side may have delivered them");
    bench.take_all(10, &[12]);
    assert_eq!(bench.released(), all(Why::Turn, [12, 13]));
}

#[test]
fn packets_handed_over_before_the_last_ones_came_back_do_not_wait_for_them() {
    let mut bench = Bench::new(ROOMY);
    bench.take_all(5, &[6, 7, 5]);
    assert_eq!(bench.released(), all(Why::Turn, [5, 6, 7]));
    assert!(!bench.engine.holds(FLOW));
    bench.take_all(5, &[8, 10]);
    assert_eq!(bench.released(), all(Why::Turn, [8]));
    // The kernel side has delivered 9 to 20 by itself, after a while.
    bench.take_all(21, &[21]);
    assert_eq!(bench.released(), [(10, Why::Late), (21, Why::Turn)]);
}

#[test]
fn where_a_flow_stood_is_not_believed_for_long() {
    for (later, expected) in [(ends::BELIEVED, Why::Late), (ends::BELIEVED + 1, Why::Turn)] {
        let mut bench = Bench::new(ROOMY);
        bench.take_all(1_000, &[1_000]);
        bench.released();
        // What is late does not make it newer.
        bench.now += later / 2;
        bench.take_all(999, &[999]);
        bench.now += later - later / 2;
        bench.released();
        bench.take_all(900, &[900]);
        assert_eq!(bench.released(), [(900, expected)]);
    }
}

#[test]
fn more_flows_than_the_table_has_places_only_forget_the_oldest() {
    let mut bench = Bench::new(ROOMY);
    for bucket in 0..20_000 {
        bench.take(ahead(Flow { slot: 1, bucket }, 5, 5));
    }
    bench.released();
    bench.take(ahead(Flow { slot: 1, bucket: 19_999 }, 6, 5));
    assert_eq!(bench.released(), all(Why::Turn, [6]));
    bench.take(ahead(Flow { slot: 1, bucket: 0 }, 6, 5));
    assert_eq!(bench.released(), []);
}
