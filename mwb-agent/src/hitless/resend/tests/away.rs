use super::*;

#[test]
fn before_the_first_acknowledgement_nothing_goes_again() {
    let mut bench = Bench { engine: Resend::new(GENEROUS), out: Vec::new() };
    bench.sent(1, 1, 1, 0);
    assert!(bench.engine.is_away(0));
    // The deadline, and no wait.
    assert_eq!(bench.engine.next_due(), Some(200 * MS));
    assert_eq!(bench.expire(150 * MS), [0_u32; 0]);
    assert_eq!(bench.statistics().lost_by_time, 0);
    bench.expire(200 * MS);
    assert_eq!(bench.statistics().expired, 1);
}

#[test]
fn nothing_goes_again_after_500_ms_without_an_acknowledgement() {
    let mut bench = Bench::new(Settings { deadline: 10_000 * MS, ..GENEROUS });
    bench.sent(1, 1, 1, 1_000 * MS);
    assert_eq!(bench.expire(1_040 * MS), [1]);
    bench.sent(1, 2, 1, 1_040 * MS);
    bench.sent(1, 3, 2, 1_460 * MS);
    bench.sent(1, 4, 3, 1_459 * MS);
    assert_eq!(bench.expire(1_499 * MS), [1]);
    assert!(bench.engine.is_away(1_500 * MS));
    assert_eq!(bench.expire(1_500 * MS), [0_u32; 0]);
    assert_eq!(bench.engine.next_due(), Some(11_000 * MS));
}

#[test]
fn a_pause_is_no_silence() {
    let mut bench = Bench::new(GENEROUS);
    bench.sent(1, 1, 1, 60_000 * MS);
    assert!(!bench.engine.is_away(60_000 * MS));
    assert_eq!(bench.expire(60_040 * MS), [1]);
}

#[test]
fn few_packets_without_an_acknowledgement_are_a_silence_too() {
    let mut bench = Bench::new(GENEROUS);
    for number in 1..3 {
        bench.sent(1, number.into(), number, u64::from(number) * 300 * MS);
        bench.expire(u64::from(number) * 300 * MS + 250 * MS);
    }
    assert_eq!((bench.statistics().expired, bench.statistics().held), (2, 0));
    bench.sent(1, 3, 3, 900 * MS);
    assert_eq!(bench.expire(950 * MS), [0_u32; 0]);
}

#[test]
fn it_goes_on_with_the_first_acknowledgement_and_waits_anew() {
    let mut bench = Bench { engine: Resend::new(GENEROUS), out: Vec::new() };
    bench.engine.rtt(1, 20 * MS, 0);
    bench.sent(1, 1, 1, 0);
    bench.sent(1, 2, 2, 0);
    bench.expire(100 * MS);
    // Of another path.
    assert_eq!(bench.acked(&all(2, 1), 100 * MS), [0_u32; 0]);
    assert_eq!(bench.expire(101 * MS), [0_u32; 0]);
    assert_eq!(bench.engine.next_due(), Some(140 * MS));
    assert_eq!(bench.expire(140 * MS), [1, 2]);
}

#[test]
fn the_first_acknowledgement_finds_gaps() {
    let mut bench = Bench { engine: Resend::new(GENEROUS), out: Vec::new() };
    bench.sent(1, 1, 1, 0);
    assert_eq!(bench.acked(&but(1, 9, &[1]), MS), [1]);
}

#[test]
fn a_path_that_goes_down_is_no_matter_of_acknowledgements() {
    let mut bench = Bench { engine: Resend::new(GENEROUS), out: Vec::new() };
    bench.sent(1, 1, 1, 0);
    assert_eq!(bench.path_down(1, MS), [1]);
    bench.sent(1, 2, 2, MS);
    assert_eq!(bench.engine.next_due(), Some(MS));
    assert_eq!(bench.expire(MS), [2]);
}
