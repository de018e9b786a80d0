use super::*;
use proptest::prelude::*;

const SECOND: Duration = Duration::from_secs(1);
const BASE: Duration = Duration::from_secs(5);
const MAX: Duration = Duration::from_secs(300);

/// A link that comes back, is well for a time, and fails.
fn flap(hold: &mut HoldDown, now: &mut Instant, well: Duration) -> Duration {
    hold.back(*now);
    hold.well(*now);
    *now += well;
    hold.well(*now);
    hold.failed(*now);
    *now += hold.time();
    hold.time()
}

fn hold() -> (HoldDown, Instant) {
    (HoldDown::new(BASE, MAX), Instant::now())
}

#[test]
fn the_first_failure_is_no_relapse() {
    let (mut hold, now) = hold();
    hold.well(now);
    hold.failed(now + SECOND);
    assert_eq!((hold.time(), hold.relapses()), (BASE, 0));
}

#[test]
fn each_relapse_doubles_the_time_up_to_the_most() {
    let (mut hold, mut now) = hold();
    let times: Vec<u64> =
        (0..8).map(|_| flap(&mut hold, &mut now, 30 * SECOND).as_secs()).collect();
    assert_eq!(times, [10, 20, 40, 80, 160, 300, 300, 300]);
    assert_eq!(hold.relapses(), 8);
}

#[test]
fn a_failure_long_after_the_return_is_no_relapse() {
    let (mut hold, mut now) = hold();
    for _ in 0..5 {
        assert_eq!(flap(&mut hold, &mut now, MAX), BASE);
    }
    assert_eq!(flap(&mut hold, &mut now, MAX - SECOND), 2 * BASE);
}

#[test]
fn a_failure_that_goes_on_is_one_relapse() {
    let (mut hold, now) = hold();
    hold.back(now);
    for second in 1..10 {
        hold.failed(now + SECOND * second);
    }
    assert_eq!((hold.time(), hold.relapses()), (2 * BASE, 1));
}

#[test]
fn each_calm_time_takes_one_doubling_back() {
    let (mut hold, mut now) = hold();
    for _ in 0..3 {
        flap(&mut hold, &mut now, SECOND);
    }
    hold.back(now);
    let mut at = |after: Duration| {
        hold.well(now + after);
        (hold.time().as_secs(), hold.relapses())
    };
    assert_eq!(at(Duration::ZERO), (40, 3));
    assert_eq!(at(MAX - SECOND), (40, 3));
    assert_eq!(at(MAX), (20, 3));
    assert_eq!(at(MAX + MAX / 2), (20, 3));
    assert_eq!(at(2 * MAX), (10, 3));
    assert_eq!(at(3 * MAX), (5, 0));
    assert_eq!(at(9 * MAX), (5, 0));
}

#[test]
fn calm_times_do_not_add_up_over_failures() {
    let (mut hold, mut now) = hold();
    flap(&mut hold, &mut now, SECOND);
    for _ in 0..4 {
        flap(&mut hold, &mut now, MAX - SECOND);
    }
    assert_eq!(hold.time(), 32 * BASE);
}

#[test]
fn a_wan_that_need_not_wait_waits_when_it_flaps() {
    let mut hold = HoldDown::new(Duration::ZERO, MAX);
    let mut now = Instant::now();
    let times: Vec<u64> = (0..3).map(|_| flap(&mut hold, &mut now, SECOND).as_secs()).collect();
    assert_eq!(times, [1, 2, 4]);
}

#[test]
fn without_room_to_grow_it_never_does() {
    for max in [Duration::ZERO, SECOND, BASE] {
        let (mut hold, mut now) = (HoldDown::new(BASE, max), Instant::now());
        for _ in 0..20 {
            assert_eq!(flap(&mut hold, &mut now, SECOND), BASE);
        }
    }
}

#[test]
fn other_settings_keep_the_history() {
    let (mut hold, mut now) = hold();
    for _ in 0..3 {
        flap(&mut hold, &mut now, SECOND);
    }
    hold.configure(SECOND, MAX);
    assert_eq!((hold.time(), hold.relapses()), (8 * SECOND, 3));
    hold.configure(BASE, 2 * BASE);
    assert_eq!(hold.time(), 2 * BASE);
}

#[derive(Clone, Copy, Debug)]
enum Deed {
    Back,
    Well,
    Failed,
}

proptest! {
    #[test]
    fn the_time_stays_in_its_range_and_grows_only_with_a_relapse(
        (base, max) in (0u64..100, 0u64..1_000),
        deeds in prop::collection::vec(
            (prop::sample::select(&[Deed::Back, Deed::Well, Deed::Failed][..]), 0u64..2_000),
            1..300,
        ),
    ) {
        let (base, max) = (SECOND * base as u32, SECOND * max as u32);
        let mut hold = HoldDown::new(base, max);
        let mut now = Instant::now();
        for (deed, after) in deeds {
            now += SECOND * after as u32;
            let before = hold.clone();
            match deed {
                Deed::Back => hold.back(now),
                Deed::Well => hold.well(now),
                Deed::Failed => hold.failed(now),
            }
            let (old, new) = (before.time(), hold.time());
            prop_assert!(new >= base && new <= max.max(base));
            let relapsed = hold.relapses() > before.relapses();
            if new > old {
                prop_assert!(relapsed);
                prop_assert!(new <= (old * 2).max(LEAST * 2));
            }
            if relapsed {
                prop_assert!(matches!(deed, Deed::Failed));
                prop_assert!(new >= old && (new > old || new == max.max(base)));
                let back = before.back_since;
                prop_assert!(back.is_some_and(|back| now - back < hold.window()));
            }
            // Without a doubling in force there is no history to tell of.
            if hold.doublings == 0 && matches!(deed, Deed::Well) {
                prop_assert_eq!(hold.relapses(), 0);
            }
        }
        // Calm for long enough, any WAN is as good as new.
        hold.well(now);
        hold.well(now + hold.window() * 64 + SECOND);
        prop_assert_eq!((hold.time(), hold.relapses()), (base, 0));
    }
}
