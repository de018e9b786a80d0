//! Retries, bounds, reloads and tests, on a paused clock.

use super::*;

const URL: &str = "http://192.0.2.80/hook";
const OTHER: &str = "http://192.0.2.81/hook";

/// A notifier whose webhooks are fakes and whose queues are in memory.
struct Rig {
    home: Home,
    ram: Ram,
    fake: Fake,
    bus: Bus,
}

impl Rig {
    fn new() -> Self {
        Self { home: Home::new(), ram: Ram::default(), fake: Fake::default(), bus: Bus::new(64) }
    }

    async fn start(&self, queue: usize, receivers: Vec<Receiver>) -> Notifier {
        let settings = Settings { backoff: Backoff::default(), queue, ..self.home.settings() };
        let (bus, fake) = (self.bus.clone(), Arc::new(self.fake.clone()));
        Notifier::start_in(world(&self.ram), bus, 0, settings, receivers, fake)
            .await
            .expect("started")
    }

    fn ops(&self) -> Vec<Receiver> {
        vec![self.home.webhook("ops", URL)]
    }
}

fn seconds(times: &[Instant]) -> Vec<u64> {
    times.windows(2).map(|pair| (pair[1] - pair[0]).as_secs()).collect()
}

#[tokio::test(start_paused = true)]
async fn waits_double_up_to_five_minutes_and_the_order_stays() {
    let rig = Rig::new();
    rig.fake.answers(URL, Answer::Status(503));
    let notifier = rig.start(100, rig.ops()).await;
    publish(&rig.bus, 2);
    tokio::time::sleep(Duration::from_secs(1_200)).await;
    assert_eq!(seconds(&rig.fake.times(URL)), [1, 2, 4, 8, 16, 32, 64, 128, 256, 300, 300]);
    let failing = status(&notifier, "ops");
    assert_eq!((failing.queued, failing.retried, failing.delivered), (2, 11, 0));
    assert!(failing.next_attempt_unix_ms.is_some());
    assert!(failing.last_error.is_some_and(|error| error.message == "it answers 503"));
    rig.fake.answers(URL, Answer::Status(200));
    tokio::time::sleep(Duration::from_secs(300)).await;
    assert_eq!(rig.fake.ids(URL)[12..], [1, 2]);
    let recovered = status(&notifier, "ops");
    assert_eq!((recovered.queued, recovered.delivered), (0, 2));
    assert_eq!(recovered.next_attempt_unix_ms, None);
}

#[tokio::test(start_paused = true)]
async fn a_webhook_says_itself_when_to_come_back_within_five_minutes() {
    let rig = Rig::new();
    rig.fake.answers(URL, Answer::Later(429, Duration::from_secs(40)));
    let _notifier = rig.start(100, rig.ops()).await;
    publish(&rig.bus, 1);
    wait_until("it comes back", || rig.fake.times(URL).len() == 1).await;
    tokio::time::sleep(Duration::from_secs(81)).await;
    rig.fake.answers(URL, Answer::Later(503, Duration::from_secs(86_400)));
    tokio::time::sleep(Duration::from_secs(400)).await;
    assert_eq!(seconds(&rig.fake.times(URL)), [40, 40, 40, 300]);
}

#[tokio::test(start_paused = true)]
async fn what_a_webhook_refuses_is_dropped_and_the_next_goes_on() {
    let rig = Rig::new();
    rig.fake.answers(URL, Answer::Status(422));
    let notifier = rig.start(100, rig.ops()).await;
    publish(&rig.bus, 3);
    wait_until("all are refused", || status(&notifier, "ops").dropped.refused == 3).await;
    assert_eq!(rig.fake.ids(URL), [1, 2, 3]);
    assert_eq!(status(&notifier, "ops").queued, 0);
}

#[tokio::test(start_paused = true)]
async fn what_is_older_than_the_webhook_keeps_is_dropped() {
    let rig = Rig::new();
    rig.fake.answers(URL, Answer::Status(500));
    let mut receivers = rig.ops();
    if let Kind::Webhook { keep, .. } = &mut receivers[0].kind {
        *keep = Duration::from_secs(3_600);
    }
    let notifier = rig.start(100, receivers).await;
    publish(&rig.bus, 2);
    tokio::time::sleep(Duration::from_secs(3_500)).await;
    assert_eq!(status(&notifier, "ops").queued, 2);
    tokio::time::sleep(Duration::from_secs(500)).await;
    let after = status(&notifier, "ops");
    assert_eq!((after.queued, after.dropped.expired), (0, 2));
}

#[tokio::test(start_paused = true)]
async fn the_queue_is_bounded_and_the_oldest_go() {
    let rig = Rig::new();
    rig.fake.answers(URL, Answer::Status(500));
    let notifier = rig.start(10, rig.ops()).await;
    for _ in 0..5 {
        publish(&rig.bus, 8);
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    wait_until("the oldest are gone", || status(&notifier, "ops").queued <= 11).await;
    rig.fake.answers(URL, Answer::Status(200));
    wait_until("the rest is told", || status(&notifier, "ops").queued == 0).await;
    let after = status(&notifier, "ops");
    assert_eq!(after.delivered + after.dropped.queue_full, 40);
    assert_eq!(rig.fake.ids(URL).last(), Some(&40));
    let ids = rig.fake.ids(URL);
    assert_eq!(ids[ids.len() - 10..], (31..=40).collect::<Vec<u64>>());
    assert!(after.dropped.queue_full >= 29, "{after:?}");
}

#[tokio::test(start_paused = true)]
async fn a_webhook_that_never_answers_holds_up_no_other() {
    let rig = Rig::new();
    rig.fake.answers(URL, Answer::Never);
    let both = vec![rig.home.webhook("ops", URL), rig.home.webhook("log", OTHER)];
    let notifier = rig.start(100, both).await;
    let begun = Instant::now();
    publish(&rig.bus, 50);
    wait_until("the other is told", || rig.fake.ids(OTHER).len() == 50).await;
    assert!(begun.elapsed() < Duration::from_secs(5), "{:?}", begun.elapsed());
    assert_eq!(status(&notifier, "ops").delivered, 0);
    assert!(!rig.fake.lock().two_at_once);
}

#[tokio::test(start_paused = true)]
async fn a_full_disk_delays_events_and_loses_none() {
    let rig = Rig::new();
    let notifier = rig.start(100, rig.ops()).await;
    rig.ram.refuse(true);
    publish(&rig.bus, 3);
    wait_until("it is told", || status(&notifier, "ops").last_error.is_some()).await;
    assert_eq!((rig.fake.ids(URL).len(), status(&notifier, "ops").queued), (0, 3));
    rig.ram.refuse(false);
    wait_until("all are told", || rig.fake.ids(URL) == [1, 2, 3]).await;
    assert_eq!(status(&notifier, "ops").dropped.total(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_receiver_that_stays_keeps_its_queue_and_is_tried_at_once_where_it_is_now() {
    let rig = Rig::new();
    rig.fake.answers(URL, Answer::Status(500));
    let notifier = rig.start(100, rig.ops()).await;
    publish(&rig.bus, 3);
    tokio::time::sleep(Duration::from_secs(2_000)).await;
    let begun = Instant::now();
    notifier.set_receivers(vec![rig.home.webhook("ops", OTHER)]).await.expect("set");
    wait_until("the new URL is told", || rig.fake.ids(OTHER) == [1, 2, 3]).await;
    assert!(begun.elapsed() < Duration::from_secs(1), "{:?}", begun.elapsed());
}

#[tokio::test(start_paused = true)]
async fn a_change_that_changes_nothing_makes_no_new_attempt() {
    let rig = Rig::new();
    rig.fake.answers(URL, Answer::Status(500));
    let notifier = rig.start(100, rig.ops()).await;
    publish(&rig.bus, 1);
    tokio::time::sleep(Duration::from_secs(600)).await;
    let before = rig.fake.ids(URL).len();
    notifier.set_receivers(rig.ops()).await.expect("set");
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(rig.fake.ids(URL).len(), before);
}

#[tokio::test]
async fn the_queue_of_a_receiver_that_goes_is_deleted_also_after_a_restart() {
    let (home, fake, bus) = (Home::new(), Fake::default(), Bus::new(64));
    fake.answers(URL, Answer::Never);
    fake.answers(OTHER, Answer::Never);
    let both = || vec![home.webhook("ops", URL), home.webhook("log", OTHER)];
    let start =
        |receivers| Notifier::start(bus.clone(), 0, home.settings(), receivers, fake.clone());
    let files = |name: &str| fs::read_dir(home.path("notify").join(name)).map(Iterator::count).ok();
    let notifier = start(both()).await.expect("started");
    publish(&bus, 3);
    wait_until("both have queues", || files("ops") == Some(3) && files("log") == Some(3)).await;
    notifier.set_receivers(vec![home.webhook("ops", URL)]).await.expect("set");
    assert_eq!((files("ops"), files("log")), (Some(3), None));
    drop(notifier);
    let kind =
        Kind::Exec { command: vec!["/bin/true".to_owned()], timeout: DEFAULT_TIMEOUT, at_once: 1 };
    let hook = Receiver { name: "ops".to_owned(), filter: Filter::default(), kind };
    let notifier = start(vec![hook]).await.expect("started");
    assert_eq!(files("ops"), None);
    assert_eq!(notifier.status().receivers.len(), 1);
}

#[tokio::test(start_paused = true)]
async fn receivers_that_cannot_be_change_nothing() {
    let rig = Rig::new();
    let notifier = rig.start(100, rig.ops()).await;
    let mut open = rig.home.webhook("new", OTHER);
    fs::set_permissions(rig.home.secret(), fs::Permissions::from_mode(0o644)).expect("its own");
    let refused = notifier.set_receivers(vec![open.clone()]).await;
    assert!(matches!(refused, Err(NotifyError::Secret { .. })), "{refused:?}");
    fs::set_permissions(rig.home.secret(), fs::Permissions::from_mode(0o640)).expect("its own");
    rig.ram.refuse(true);
    let refused = notifier.set_receivers(vec![open.clone()]).await;
    assert!(matches!(refused, Err(NotifyError::Queue { .. })), "{refused:?}");
    rig.ram.refuse(false);
    publish(&rig.bus, 1);
    wait_until("the old one is told", || rig.fake.ids(URL) == [1]).await;
    open.filter.kinds.push(EventKind::Config);
    notifier.set_receivers(vec![open]).await.expect("set");
    publish(&rig.bus, 1);
    let last = rig.bus.publish(EventKind::Config, None, "another one", "");
    wait_until("the new one is told", || rig.fake.ids(OTHER) == [last]).await;
    assert_eq!(rig.fake.ids(URL), [1]);
}

#[tokio::test(start_paused = true)]
async fn a_test_goes_past_the_queue_once_and_says_what_came_of_it() {
    let rig = Rig::new();
    rig.fake.answers(URL, Answer::Status(500));
    let mut receivers = rig.ops();
    receivers[0].filter.wans.push("lte".to_owned());
    let notifier = rig.start(100, receivers).await;
    rig.bus.publish(EventKind::WanState, Some("lte"), "one", "");
    wait_until("it waits", || status(&notifier, "ops").next_attempt_unix_ms.is_some()).await;
    let failed = notifier.test("ops").await;
    assert!(
        matches!(&failed, Err(NotifyError::Failed { why, .. }) if why == "it answers 500"),
        "{failed:?}"
    );
    rig.fake.answers(URL, Answer::Status(204));
    let tested = notifier.test("ops").await.expect("taken");
    assert_eq!(tested.result, "it answers 204");
    let got = rig.fake.lock().got.last().map(|got| got.1.clone()).expect("it came");
    assert_eq!((got.kind.as_str(), got.id, &got.delivery), ("test", 0, &tested.delivery));
    assert_eq!(got.gateway, "gw-1");
    let nobody = notifier.test("nobody").await;
    assert!(matches!(nobody, Err(NotifyError::Unknown(name)) if name == "nobody"));
}

#[tokio::test(start_paused = true)]
async fn a_damaged_entry_is_told_and_counted() {
    let rig = Rig::new();
    rig.ram.put("ops", "00000000000000000007.event", b"rubbish");
    let notifier = rig.start(100, rig.ops()).await;
    publish(&rig.bus, 1);
    wait_until("the good one is told", || rig.fake.ids(URL) == [1]).await;
    let after = status(&notifier, "ops");
    assert_eq!(after.dropped.damaged, 1);
    let told = after.last_error.expect("told").message;
    assert!(told.contains("00000000000000000007.damaged"), "{told}");
}
