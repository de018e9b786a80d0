use super::*;
use proptest::prelude::*;

const RTT: Duration = Duration::from_millis(20);
const DEFAULT: Duration = Duration::from_millis(200);
const QUICK: Duration = Duration::from_millis(100);
const BOTH_WAYS: Sample =
    Sample { out_packets: 10, back_packets: 10, syns_out: 0, synacks_back: 0 };
const OUT_ONLY: Sample = Sample { back_packets: 0, ..BOTH_WAYS };

fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

/// A WAN that answers each round for `time`, with a sample each 100 ms.
fn well(pace: &mut Pace, now: &mut Instant, time: Duration, sample: Sample) {
    let end = *now + time;
    while *now < end {
        pace.sent(*now);
        pace.answered(*now + RTT, RTT);
        pace.traffic(*now + QUICK, sample);
        *now += QUICK;
    }
}

fn known() -> (Pace, Instant) {
    let (mut pace, mut now) = (Pace::new(Settings::default()), Instant::now());
    well(&mut pace, &mut now, ms(2000), Sample::default());
    (pace, now)
}

#[test]
fn an_idle_wan_is_asked_by_default_however_long_it_is_well() {
    let (mut pace, mut now) = known();
    well(&mut pace, &mut now, Duration::from_secs(3600), Sample::default());
    assert_eq!(pace.interval(now), DEFAULT);
}

#[test]
fn a_wan_that_carries_traffic_is_asked_half_as_often_each_five_minutes_up_to_5_s() {
    let (mut pace, mut now) = known();
    let intervals: Vec<u128> = (0..7)
        .map(|_| {
            well(&mut pace, &mut now, Settings::default().calm, BOTH_WAYS);
            pace.interval(now).as_millis()
        })
        .collect();
    assert_eq!(intervals, [400, 800, 1600, 3200, 5000, 5000, 5000]);
    // As soon as it is idle, by default.
    assert_eq!(pace.interval(now + super::super::passive::FRESH), DEFAULT);
}

#[test]
fn a_miss_makes_it_quick_until_five_answers_as_usual() {
    let (mut pace, now) = known();
    pace.missed(now);
    for _ in 0..SETTLED_AFTER {
        assert_eq!(pace.interval(now), QUICK);
        pace.answered(now, RTT);
    }
    assert_eq!(pace.interval(now), DEFAULT);
}

#[test]
fn an_answer_much_later_than_usual_makes_it_quick() {
    let (mut pace, now) = known();
    pace.answered(now, RTT + ms(15));
    assert_eq!(pace.interval(now), DEFAULT);
    pace.answered(now, RTT + ms(60));
    assert_eq!(pace.interval(now), QUICK);
}

#[test]
fn an_outage_that_lasts_is_asked_by_default_after_ten_seconds() {
    let (mut pace, mut now) = known();
    let start = now;
    while now < start + DOUBT_LASTS {
        pace.sent(now);
        pace.missed(now);
        assert_eq!(pace.interval(now), QUICK);
        now += QUICK;
    }
    assert_eq!(pace.interval(now), DEFAULT);
    pace.missed(now);
    assert_eq!(pace.interval(now), DEFAULT);
}

#[test]
fn idle_misses_count_when_the_default_interval_would_have_brought_as_many() {
    let (mut pace, now) = known();
    pace.sent(now);
    for round in 1..=5 {
        pace.missed(now + QUICK * round);
        pace.sent(now + QUICK * round);
        let count = if round < 5 { 0 } else { 5 };
        assert_eq!(pace.counted(now + QUICK * round), count, "{round}");
    }
    assert_eq!(pace.counted(now + ms(600)), 0, "told twice");
}

#[test]
fn misses_on_a_far_link_wait_for_what_was_sent_after_the_first() {
    let (mut pace, mut now) = (Pace::new(Settings::default()), Instant::now());
    for _ in 0..50 {
        pace.sent(now);
        pace.answered(now + ms(600), ms(600));
        now += ms(600);
    }
    pace.sent(now);
    pace.missed(now + DEFAULT);
    pace.sent(now + DEFAULT);
    (3..8).for_each(|round| pace.missed(now + QUICK * round));
    assert_eq!(pace.counted(now + DEFAULT + ms(599)), 0);
    assert_eq!(pace.next_count(now + ms(799)).map(|at| at <= now + ms(820)), Some(true));
    assert_eq!(pace.counted(now + ms(820)), 6);
}

#[test]
fn misses_are_held_back_while_packets_come_back_and_count_when_they_do_not() {
    let (mut pace, mut now) = known();
    for _ in 0..100 {
        pace.sent(now);
        pace.missed(now);
        pace.traffic(now, BOTH_WAYS);
        assert_eq!((pace.counted(now), pace.is_alive_by_traffic(now)), (0, true));
        // Probes that fail are not hurried while traffic proves more.
        assert_eq!(pace.interval(now), DEFAULT);
        now += QUICK;
    }
    assert_eq!(pace.load(now), Load::Saturated);
    assert_eq!(pace.counted(now + ms(300)), 100);
}

#[test]
fn silence_asks_at_once_and_then_quickly() {
    let (mut pace, mut now) = known();
    well(&mut pace, &mut now, Duration::from_secs(3600), BOTH_WAYS);
    pace.sent(now);
    now += QUICK;
    pace.traffic(now, OUT_ONLY);
    assert!(!pace.check_now(now));
    now += QUICK;
    pace.traffic(now, OUT_ONLY);
    assert!(pace.check_now(now) && pace.is_silent());
    pace.sent(now);
    assert!(!pace.check_now(now));
    assert_eq!(pace.interval(now + ms(100)), QUICK);
    // An answer says that it is traffic to nobody.
    pace.answered(now + RTT, RTT);
    assert!(!pace.is_silent());
}

#[test]
fn packets_to_nobody_are_judged_within_a_second_however_long_the_default_is() {
    let interval = Duration::from_secs(5);
    let mut pace = Pace::new(Settings { interval, ..Settings::default() });
    let now = Instant::now();
    assert_eq!(pace.interval(now), interval);
    pace.traffic(now, OUT_ONLY);
    assert_eq!(pace.interval(now), DEFAULT);
    assert_eq!(pace.grace(now, interval), QUICK);
}

#[test]
fn packets_that_come_in_prove_nothing_while_neither_syns_nor_rounds_are_answered() {
    let (mut pace, mut now) = known();
    let stream = Sample { out_packets: 1, back_packets: 50, syns_out: 1, synacks_back: 0 };
    (0..4).for_each(|_| {
        now += QUICK;
        pace.traffic(now, stream);
    });
    assert!(pace.check_now(now) && pace.is_alive_by_traffic(now));
    for round in 1..=BLIND_AFTER {
        pace.sent(now);
        now += QUICK;
        pace.traffic(now, stream);
        pace.missed(now);
        assert_eq!(pace.is_alive_by_traffic(now), round < BLIND_AFTER);
    }
    assert_eq!(pace.counted(now), BLIND_AFTER);
}

#[test]
fn a_metered_wan_is_asked_as_slowly_as_its_budget_says_and_quickly_in_doubt() {
    let (mut pace, now) = known();
    assert!(pace.budget(100, 168).is_err());
    // 10,000 rounds: 8,000 at the steady pace.
    assert_eq!(pace.budget(1_680_000, 168), Ok(()));
    assert_eq!(pace.interval(now), ms(10_800));
    pace.missed(now);
    assert_eq!(pace.interval(now), QUICK);
}

#[derive(Clone, Debug)]
enum Event {
    Sent,
    Answered(u64),
    Missed,
    Traffic(Sample),
}

fn event() -> impl Strategy<Value = Event> {
    let sample = (0u64..50, 0u64..50, 0u64..3, 0u64..3).prop_map(|(out, back, syns, synacks)| {
        Sample { out_packets: out, back_packets: back, syns_out: syns, synacks_back: synacks }
    });
    prop_oneof![
        Just(Event::Sent),
        (1u64..2000).prop_map(Event::Answered),
        Just(Event::Missed),
        sample.prop_map(Event::Traffic),
    ]
}

fn tell(pace: &mut Pace, now: Instant, event: &Event) {
    match *event {
        Event::Sent => pace.sent(now),
        Event::Answered(rtt) => {
            pace.answered(now, ms(rtt));
        }
        Event::Missed => pace.missed(now),
        Event::Traffic(sample) => pace.traffic(now, sample),
    }
}

proptest! {
    #[test]
    fn the_interval_stays_within_its_bounds(
        interval in 100u64..5000, retries in 1u32..10,
        events in prop::collection::vec((0u64..20_000, event()), 1..200),
    ) {
        let settings = Settings {
            interval: ms(interval), retries, calm: Duration::from_secs(10), ..Settings::default()
        };
        let (mut pace, mut now) = (Pace::new(settings), Instant::now());
        for (wait, event) in events {
            now += ms(wait);
            tell(&mut pace, now, &event);
            let interval = pace.interval(now);
            prop_assert!((settings.quickest..=settings.slowest).contains(&interval));
            // Without traffic or budget never slower than was configured.
            prop_assert!(pace.is_alive_by_traffic(now) || interval <= settings.interval);
        }
    }

    #[test]
    fn no_miss_counts_while_packets_come_back_steadily(
        rounds in prop::collection::vec((0u8..3, 1u64..2000), 1..300), rate in 1u64..1000,
    ) {
        let (mut pace, mut now) = known();
        let sample = Sample { out_packets: rate, back_packets: rate, ..Sample::default() };
        pace.traffic(now, sample);
        for (what, rtt) in rounds {
            pace.sent(now);
            match what {
                0 => { pace.answered(now, ms(rtt)); }
                _ => pace.missed(now),
            }
            prop_assert_eq!(pace.counted(now), 0);
            now += QUICK;
            pace.traffic(now, sample);
            prop_assert_eq!(pace.counted(now), 0);
        }
    }

    #[test]
    fn who_keeps_to_the_pace_keeps_to_the_budget(
        events in prop::collection::vec((5_000u64..30_000, event()), 1..60), rounds in 1800u64..20_000,
    ) {
        let (mut pace, start) = (Pace::new(Settings::default()), Instant::now());
        prop_assert!(pace.budget(rounds * 100, 100).is_ok());
        let day = Duration::from_secs(86_400);
        let mut events = events.iter().cycle();
        let (mut now, mut next, mut sent) = (start, start, 0u64);
        let mut at = start;
        while now < start + day {
            if at <= now && let Some((wait, event)) = events.next() {
                at = now + ms(*wait + 1);
                if !matches!(event, Event::Sent) {
                    tell(&mut pace, now, event);
                }
            }
            if now >= next || pace.check_now(now) {
                pace.sent(now);
                sent += 1;
            }
            next = pace.last_sent.map_or(now, |last| last + pace.interval(now));
            now = next.max(now + ms(1)).min(at.max(now + ms(1)));
        }
        prop_assert!(sent <= rounds, "{sent} of {rounds}");
    }
}
