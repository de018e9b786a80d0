//! What each route answers.

use std::time::Duration;

use serde_json::Value;

use super::super::client::{ClientError, get, get_any};
use super::super::http::{CHANGES, ROUTES};
use super::super::snapshot::{CounterRow, Status, WanStatus};
use super::super::{Unavailable, client};
use super::{sample, start};
use crate::events::{Event, EventKind};

async fn read<T: serde::de::DeserializeOwned>(server: &super::Server, path: &str) -> T {
    let body = get(&server.socket, path).await.unwrap_or_else(|error| panic!("{path}: {error}"));
    serde_json::from_str(&body).unwrap_or_else(|error| panic!("{path}: {error}: {body}"))
}

#[tokio::test]
async fn status_wans_and_counters_are_what_the_source_says() {
    let server = start(Ok(sample()));
    let (status, counters) = sample();
    assert_eq!(read::<Status>(&server, "/v1/status").await, status);
    assert_eq!(read::<Vec<WanStatus>>(&server, "/v1/wans").await, status.wans);
    assert_eq!(read::<Vec<CounterRow>>(&server, "/v1/counters").await, counters);
}

#[tokio::test]
async fn the_json_has_the_documented_names() {
    let server = start(Ok(sample()));
    let status: Value = read(&server, "/v1/status").await;
    assert_eq!(status["wans"][0]["state"], "degraded");
    assert_eq!(status["wans"][0]["rx"]["bytes"], 1_400_000);
    assert_eq!(status["wans"][0]["address4"], "198.51.100.2");
    assert_eq!(status["wans"][1]["rtt_ms"], Value::Null);
    assert_eq!(status["wans"][1]["ifindex"], Value::Null);
    assert_eq!(status["nat"]["ports_used"]["fiber"], 7);
    assert_eq!(status["failover"]["active"][0], "fiber");
    assert_eq!(status["lan"][0]["hook_reason"], "a veth carries partial checksums");
}

#[tokio::test]
async fn events_can_be_read_from_an_id_on() {
    let server = start(Ok(sample()));
    for n in 1..=3 {
        server.bus.publish(EventKind::WanState, Some("fiber"), format!("message {n}"), "why");
    }
    let all: Vec<Event> = read(&server, "/v1/events").await;
    assert_eq!(all.iter().map(|event| event.id).collect::<Vec<_>>(), [1, 2, 3]);
    let later: Vec<Event> = read(&server, "/v1/events?since=2").await;
    assert_eq!(later.len(), 1);
    assert_eq!(later[0].message, "message 3");
    let raw: Value = read(&server, "/v1/events?since=2").await;
    assert_eq!(raw[0]["kind"], "wan_state");
    assert_eq!(raw[0]["wan"], "fiber");
    assert_eq!(raw[0]["reason"], "why");
}

#[tokio::test]
async fn waiting_for_an_event_ends_with_it() {
    let server = start(Ok(sample()));
    let socket = server.socket.clone();
    let waiting =
        tokio::spawn(async move { client::get(&socket, "/v1/events?since=0&wait=60").await });
    // The event is published only once the request listens; had it been missed,
    // the answer would take a minute.
    let listening = async {
        while server.bus.listeners() == 0 {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(10), listening).await.expect("the request arrives");
    server.bus.publish(EventKind::Carrier, None, "carrier lost", "");
    let answer = tokio::time::timeout(Duration::from_secs(10), waiting).await;
    let body = answer.expect("in time").expect("no panic").expect("an answer");
    let events: Vec<Event> = serde_json::from_str(&body).expect("events");
    assert_eq!(events.len(), 1);
}

#[tokio::test]
async fn a_wait_without_events_ends_empty() {
    let server = start(Ok(sample()));
    assert_eq!(read::<Vec<Event>>(&server, "/v1/events?wait=1").await, []);
}

#[tokio::test]
async fn a_wrong_query_is_refused_with_the_right_one() {
    let server = start(Ok(sample()));
    for (path, expected) in [
        ("/v1/events?since=x", "since=ID"),
        ("/v1/events?sinse=1", "since=ID"),
        ("/v1/events?wait=61", "0 to 60"),
        ("/v1/events?since=-1", "since=ID"),
    ] {
        let (status, body) = get_any(&server.socket, path).await.expect("an answer");
        assert_eq!(status, 400, "{path}: {body}");
        assert!(body.contains(expected), "{path}: {body}");
    }
}

#[tokio::test]
async fn an_unknown_route_lists_those_that_exist() {
    let server = start(Ok(sample()));
    let (status, body) = get_any(&server.socket, "/v2/status").await.expect("an answer");
    assert_eq!(status, 404);
    let body: Value = serde_json::from_str(&body).expect("JSON");
    let routes: Vec<&str> = ROUTES.into_iter().chain(CHANGES).collect();
    assert_eq!(body["routes"], serde_json::json!(routes));
    for route in ROUTES {
        let query = match route {
            "/v1/why" => "?packet=udp+192.0.2.10:1+203.0.113.5:2",
            "/v1/history" => "?wan=fiber",
            "/v1/policy/addresses" => "?rule=cdn",
            _ => "",
        };
        let asked = format!("{route}{query}");
        let (status, body) = get_any(&server.socket, &asked).await.expect("an answer");
        assert_eq!(status, 200, "{route}: {body}");
    }
}

#[tokio::test]
async fn a_source_that_cannot_answer_gives_its_reason() {
    let server = start(Err(Unavailable("the maps cannot be read".to_owned())));
    let why = "/v1/why?packet=udp+192.0.2.10:1+203.0.113.5:2";
    for route in [
        "/v1/status",
        "/v1/wans",
        "/v1/policy",
        "/v1/policy/addresses?rule=cdn",
        "/v1/counters",
        "/v1/flows",
        "/v1/doctor",
        why,
        "/metrics",
    ] {
        match get(&server.socket, route).await {
            Err(ClientError::Refused { status, message }) => {
                assert_eq!(status, 503, "{route}");
                assert_eq!(message, "the maps cannot be read", "{route}");
            }
            other => panic!("{route}: {other:?}"),
        }
    }
    assert_eq!(read::<Vec<Event>>(&server, "/v1/events").await, []);
}
