//! What reaches the source of a question, and what is refused before.

use std::time::Duration;

use super::super::client::{get, get_any};
use super::super::explain::Explanation;
use super::super::flows::{FlowList, FlowQuery, Protocol, Sort, TcpState};
use super::{Asked, sample, start};
use crate::explain::Entry;

#[tokio::test]
async fn flows_are_asked_for_as_the_query_says() {
    let server = start(Ok(sample()));
    let query = "wan=fiber&proto=tcp&source=192.0.2.0/24&destination=203.0.113.5&port=443\
        &state=established&sort=idle&top=7";
    let body = get(&server.socket, &format!("/v1/flows?{query}")).await.expect("an answer");
    let list: FlowList = serde_json::from_str(&body).expect("a list");
    assert_eq!(list.open, 3);
    get(&server.socket, "/v1/flows").await.expect("an answer");
    let asked = FlowQuery {
        wan: Some("fiber".to_owned()),
        proto: Some(Protocol::Tcp),
        source: Some("192.0.2.0/24".parse().expect("a prefix")),
        destination: Some("203.0.113.5".parse().expect("an address")),
        port: Some(443),
        state: Some(TcpState::Established),
        sort: Sort::Idle,
        top: Some(7),
    };
    let seen = server.asked.lock().expect("nobody panics with it").clone();
    assert_eq!(seen, [Asked::Flows(asked), Asked::Flows(FlowQuery::default())]);
}

#[tokio::test]
async fn why_is_asked_about_the_packet_as_it_was_understood() {
    let server = start(Ok(sample()));
    let path = "/v1/why?packet=TCP%20192.0.2.10:1%20-%3E%20203.0.113.5:443";
    let body = get(&server.socket, path).await.expect("an answer");
    let answer: Explanation = serde_json::from_str(&body).expect("an explanation");
    assert_eq!(answer.packet, "tcp 192.0.2.10:1 203.0.113.5:443");
}

#[tokio::test]
async fn why_is_asked_with_what_is_known_of_how_the_packet_comes() {
    let server = start(Ok(sample()));
    let asked = "/v1/why?packet=udp+192.0.2.10:1+203.0.113.5:443";
    let path = format!("{asked}&lan=lan0&mac=02:00:00:00:00:01&dscp=ef&mark=0x10");
    get(&server.socket, &path).await.expect("an answer");
    let entry = Entry {
        lan: Some("lan0".to_owned()),
        mac: Some([2, 0, 0, 0, 0, 1]),
        dscp: Some(46),
        mark: Some(16),
    };
    let seen = server.asked.lock().expect("nobody panics with it").clone();
    let packet = "udp 192.0.2.10:1 203.0.113.5:443".parse().expect("a packet");
    assert_eq!(seen, [Asked::Why(packet, entry)]);
    for (query, message) in [
        ("lan=lan9", "`lan9` is no LAN port; there are lan0"),
        ("dscp=64", "a code point like ef"),
        ("mac=02", "a MAC like 02:00:00:00:00:01"),
        ("mark=ef", "a mark like 0x10"),
    ] {
        let wrong = get(&server.socket, &format!("{asked}&{query}")).await;
        let error = wrong.expect_err(query).to_string();
        assert!(error.contains(message), "{error}");
    }
}

#[tokio::test]
async fn the_doctor_watches_as_long_as_is_asked() {
    let server = start(Ok(sample()));
    for path in ["/v1/doctor", "/v1/doctor?seconds=30"] {
        get(&server.socket, path).await.expect("an answer");
    }
    let seen = server.asked.lock().expect("nobody panics with it").clone();
    let watched = |seconds| Asked::Doctor(Duration::from_secs(seconds));
    assert_eq!(seen, [watched(1), watched(30)]);
}

#[tokio::test]
async fn a_question_without_sense_is_refused_with_the_right_one() {
    let server = start(Ok(sample()));
    for (path, expected) in [
        ("/v1/flows?wan=cable", "there are fiber, lte"),
        ("/v1/flows?proto=quic", "tcp"),
        ("/v1/flows?source=here", "neither an address nor a prefix"),
        ("/v1/flows?state=open", "established"),
        ("/v1/flows?sort=size", "packets"),
        ("/v1/flows?top=0", "1 to 100000"),
        ("/v1/flows?top=100001", "1 to 100000"),
        ("/v1/flows?ports=1", "use ?wan, proto, source"),
        ("/v1/why", "packet=tcp"),
        ("/v1/why?packet=tcp", "two or three endpoints"),
        ("/v1/doctor?seconds=31", "1 to 30"),
        ("/v1/doctor?seconds=0", "1 to 30"),
    ] {
        let (status, body) = get_any(&server.socket, path).await.expect("an answer");
        assert_eq!(status, 400, "{path}: {body}");
        assert!(body.contains(expected), "{path}: {body}");
    }
    assert_eq!(*server.asked.lock().expect("nobody panics with it"), []);
}
