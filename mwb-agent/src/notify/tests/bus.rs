//! Between the bus and the queues.

use proptest::prelude::*;

use super::*;

const URL: &str = "http://192.0.2.80/hook";

async fn start(bus: &Bus, from: u64, home: &Home, fake: &Fake) -> Notifier {
    let receivers = vec![home.webhook("ops", URL)];
    let world = world(&Ram::default());
    Notifier::start_in(world, bus.clone(), from, home.settings(), receivers, Arc::new(fake.clone()))
        .await
        .expect("started")
}

#[tokio::test(start_paused = true)]
async fn after_a_burst_all_that_the_ring_still_has_comes_exactly_once() {
    let (home, fake, bus) = (Home::new(), Fake::default(), Bus::new(1_024));
    let notifier = start(&bus, 0, &home, &fake).await;
    publish(&bus, 1);
    wait_until("the first is told", || fake.ids(URL) == [1]).await;
    // Nothing else runs while this does not wait.
    publish(&bus, 5_000);
    wait_until("the last is told", || fake.ids(URL).last() == Some(&5_001)).await;
    let expected: Vec<u64> = std::iter::once(1).chain(3_978..=5_001).collect();
    assert_eq!(fake.ids(URL), expected);
    let status = notifier.status();
    assert_eq!((status.lagged, status.missed), (3_976, 3_976));
    publish(&bus, 1);
    wait_until("the next is told", || fake.ids(URL).last() == Some(&5_002)).await;
    assert_eq!(fake.ids(URL).len(), 1_026);
}

#[tokio::test(start_paused = true)]
async fn what_was_published_before_the_start_is_told_from_the_id_that_is_given() {
    for (from, first) in [(0, 1), (3, 4)] {
        let (home, fake, bus) = (Home::new(), Fake::default(), Bus::new(16));
        publish(&bus, 5);
        let notifier = start(&bus, from, &home, &fake).await;
        publish(&bus, 2);
        wait_until("all are told", || fake.ids(URL).last() == Some(&7)).await;
        assert_eq!(fake.ids(URL), (first..=7).collect::<Vec<_>>());
        assert_eq!(notifier.status().missed, 0);
    }
}

#[tokio::test(start_paused = true)]
async fn what_is_published_last_is_told_before_the_end() {
    let (home, fake, bus) = (Home::new(), Fake::default(), Bus::new(16));
    let notifier = start(&bus, 0, &home, &fake).await;
    bus.publish(EventKind::AgentStopping, None, "the agent stops", "");
    notifier.stop(DEADLINE).await;
    assert_eq!(fake.ids(URL), [1]);
    assert_eq!(bus.listeners(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_webhook_that_does_not_answer_does_not_hold_up_the_end() {
    let (home, fake, bus) = (Home::new(), Fake::default(), Bus::new(16));
    fake.answers(URL, Answer::Never);
    let notifier = start(&bus, 0, &home, &fake).await;
    publish(&bus, 1);
    let begun = Instant::now();
    notifier.stop(Duration::from_secs(2)).await;
    assert!(begun.elapsed() < Duration::from_secs(3), "{:?}", begun.elapsed());
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 32, ..ProptestConfig::default() })]
    #[test]
    fn whatever_comes_in_a_burst_is_told_once_or_counted_as_missed(
        ring in 1_usize..12,
        bursts in prop::collection::vec((0_u64..30, 0_u64..3), 1..12),
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .start_paused(true)
            .build()
            .expect("a runtime");
        let (told, missed, last) = runtime.block_on(async {
            let (home, fake, bus) = (Home::new(), Fake::default(), Bus::new(ring));
            let notifier = start(&bus, 0, &home, &fake).await;
            for (count, turns) in bursts {
                publish(&bus, count);
                for _ in 0..turns {
                    tokio::task::yield_now().await;
                }
            }
            let last = bus.publish(EventKind::System, None, "the last", "");
            wait_until("the last is told", || fake.ids(URL).last() == Some(&last)).await;
            (fake.ids(URL), notifier.status().missed, last)
        });
        prop_assert!(told.is_sorted_by(|a, b| a < b), "{told:?}");
        prop_assert_eq!(told.len() as u64 + missed, last);
    }
}
