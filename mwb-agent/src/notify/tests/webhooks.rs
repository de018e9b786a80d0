//! Webhooks over real connections on loopback.

use std::collections::HashSet;
use std::path::Path;

use sha2::{Digest as _, Sha256};

use super::http::{Listening, Plain, Request, Server};
use super::*;

/// Numbers that look like chance and are the same in each run.
fn numbers(mut state: u32) -> impl FnMut() -> u32 {
    move || {
        state ^= state << 13;
        state ^= state >> 17;
        state ^= state << 5;
        state
    }
}

/// HMAC-SHA256 as RFC 2104 writes it down, of a key that is shorter than a block.
fn hmac(key: &[u8], data: &[u8]) -> String {
    let pad = |with: u8| {
        let mut block = [with; 64];
        block.iter_mut().zip(key).for_each(|(pad, key)| *pad ^= key);
        block
    };
    let inner = Sha256::new().chain_update(pad(0x36)).chain_update(data).finalize();
    let outer = Sha256::new().chain_update(pad(0x5c)).chain_update(inner).finalize();
    outer.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// What a careful webhook does with each request before it looks at the body.
fn check(request: &Request) {
    let stamp = request.headers.get("x-mwb-timestamp").expect("a time");
    let signed = [stamp.as_bytes(), b".", &request.body].concat();
    let expected = format!("sha256={}", hmac(SECRET, &signed));
    assert_eq!(request.headers.get("x-mwb-signature"), Some(&expected));
    let now = std::time::UNIX_EPOCH.elapsed().expect("after 1970").as_secs();
    let then: u64 = stamp.parse().expect("seconds");
    assert!(now.abs_diff(then) < 60, "{then} is not now");
    assert_eq!(request.headers.get("content-type").map(String::as_str), Some("application/json"));
}

/// What the webhook has when it ignores deliveries that it knows.
fn once(listening: &Listening) -> Vec<Body> {
    let mut known = HashSet::new();
    let events = listening.requests().into_iter().map(|request| request.event());
    events.filter(|event| known.insert(event.delivery.clone())).collect()
}

fn ids(events: &[Body]) -> Vec<u64> {
    events.iter().map(|event| event.id).collect()
}

/// What is in the queue in this folder.
fn stored(folder: &Path) -> HashSet<String> {
    let files = fs::read_dir(folder).expect("a folder").flatten();
    // One that has gone meanwhile has been told.
    let whole = files
        .map(|file| file.path())
        .filter(|path| path.extension().is_some_and(|end| end == "event"));
    let contents = whole.filter_map(|path| fs::read(path).ok());
    contents
        .filter_map(|content| serde_json::from_slice::<Body>(content.get(65..)?).ok())
        .map(|body| body.delivery)
        .collect()
}

#[tokio::test]
async fn two_hundred_events_come_exactly_once_and_in_order_to_a_webhook_that_misbehaves() {
    let (home, bus, server) = (Home::new(), Bus::new(256), Server::new());
    let receivers = vec![home.webhook("ops", &server.url)];
    let notifier =
        Notifier::start(bus.clone(), 0, home.settings(), receivers, Plain).await.expect("started");
    publish(&bus, 100);
    wait_until("nobody answers", || status(&notifier, "ops").retried > 3).await;
    wait_until("all wait", || status(&notifier, "ops").queued == 100).await;
    let mut number = numbers(0x2545_f491);
    let listening = server.listen(move || match number() % 10 {
        0 | 1 => Answer::Status(500),
        2 => Answer::Later(429, Duration::ZERO),
        3 => Answer::Lost,
        4 => Answer::LostAfter,
        _ => Answer::Status(204),
    });
    publish(&bus, 100);
    wait_until("all are told", || status(&notifier, "ops").delivered == 200).await;
    assert_eq!(ids(&once(&listening)), (1..=200).collect::<Vec<_>>());
    let after = status(&notifier, "ops");
    assert_eq!((after.queued, after.dropped.total()), (0, 0));
    let requests = listening.requests();
    assert!(requests.len() > 200, "nothing went wrong");
    requests.iter().for_each(check);
    // The same delivery has the same body each time.
    let mut bodies = HashMap::new();
    for request in requests {
        let delivery = request.event().delivery;
        assert_eq!(bodies.entry(delivery).or_insert_with(|| request.body.clone()), &request.body);
    }
}

#[tokio::test]
async fn a_body_is_the_event_of_the_api_and_says_whose_it_is() {
    let (home, bus, server) = (Home::new(), Bus::new(8), Server::new());
    let receivers = vec![home.webhook("ops", &server.url)];
    let listening = server.listen(|| Answer::Status(200));
    let _notifier =
        Notifier::start(bus.clone(), 0, home.settings(), receivers, Plain).await.expect("started");
    publish(&bus, 1);
    wait_until("it comes", || !listening.requests().is_empty()).await;
    let body = listening.requests()[0].body.clone();
    let body: serde_json::Value = serde_json::from_slice(&body).expect("JSON");
    let mut event = serde_json::to_value(&bus.since(0)[0]).expect("JSON");
    event["gateway"] = "gw-1".into();
    event["receiver"] = "ops".into();
    event["delivery"] = body["delivery"].clone();
    assert_eq!(body, event);
    assert!(body["delivery"].as_str().is_some_and(|id| id.ends_with("-ops-1")));
}

#[tokio::test]
async fn a_notifier_that_is_restarted_again_and_again_tells_everything_once() {
    let (home, server) = (Home::new(), Server::new());
    let receivers = vec![home.webhook("ops", &server.url)];
    let mut number = numbers(0x9e37_79b9);
    let listening = server.listen(move || match number() % 4 {
        0 => Answer::Status(503),
        1 => Answer::LostAfter,
        _ => Answer::Status(200),
    });
    let mut pauses = numbers(7);
    for run in 1..=10 {
        let bus = Bus::new(64);
        let started =
            Notifier::start(bus.clone(), 0, home.settings(), receivers.clone(), Plain).await;
        let notifier = started.expect("started");
        publish(&bus, 20);
        // From here on nothing may be lost, wherever it is.
        wait_until("all are on disk", || {
            let mut known = stored(&home.path("notify/ops"));
            known.extend(listening.requests().iter().map(|request| request.event().delivery));
            known.len() == 20 * run
        })
        .await;
        tokio::time::sleep(Duration::from_millis(u64::from(pauses() % 30))).await;
        drop(notifier);
    }
    let bus = Bus::new(8);
    let notifier =
        Notifier::start(bus, 0, home.settings(), receivers, Plain).await.expect("started");
    wait_until("the rest is told", || status(&notifier, "ops").queued == 0).await;
    let events = once(&listening);
    assert_eq!(events.len(), 200);
    for run in events.chunks(20) {
        assert_eq!(ids(run), (1..=20).collect::<Vec<_>>());
    }
}
