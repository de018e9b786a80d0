//! What changes something: who may, what arrives, and what is refused.

use std::fs::{self, Permissions};
use std::net::{Ipv4Addr, SocketAddr};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use super::super::access::{Token, TokenError};
use super::super::change::{Change, Done, Refusal, Request};
use super::super::client::post_any;
use super::super::http::{CHANGES, ROUTES};
use super::super::{Listeners, serve};
use super::{Fixed, sample, start};
use crate::events::Bus;

const TOKEN: &str = "0123456789abcdef0123456789abcdef";

/// A server on TCP.
struct OverTcp {
    address: SocketAddr,
    arriving: mpsc::Receiver<Request>,
    task: JoinHandle<std::io::Result<()>>,
    _folder: TempDir,
}

impl Drop for OverTcp {
    fn drop(&mut self) {
        self.task.abort();
    }
}

fn token_file(folder: &Path, text: &str, mode: u32) -> PathBuf {
    let path = folder.join("token");
    fs::write(&path, text).expect("written");
    fs::set_permissions(&path, Permissions::from_mode(mode)).expect("set");
    path
}

fn over_tcp(token: Option<&str>) -> OverTcp {
    let folder = tempfile::tempdir().expect("a folder");
    let token =
        token.map(|text| Token::load(&token_file(folder.path(), text, 0o600)).expect("a token"));
    let any_port = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
    let socket = folder.path().join("mwb.sock");
    let listeners = Listeners::bind(Some(any_port), &socket, None).expect("bound");
    let address = listeners.tcp_address().expect("TCP is on");
    let (source, arriving) = Fixed::new(Ok(sample()), Bus::default());
    let task = tokio::spawn(serve(listeners, source, token));
    OverTcp { address, arriving, task, _folder: folder }
}

impl OverTcp {
    /// The whole answer, with its head.
    async fn ask(&self, method: &str, path: &str, heads: &str) -> String {
        let mut stream = TcpStream::connect(self.address).await.expect("connected");
        let request =
            format!("{method} {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n{heads}\r\n");
        stream.write_all(request.as_bytes()).await.expect("written");
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.expect("read");
        answer
    }
}

/// Answers every change as made, and tells what they were.
fn accept_all(mut arriving: mpsc::Receiver<Request>) -> JoinHandle<Vec<Change>> {
    tokio::spawn(async move {
        let mut made = Vec::new();
        while let Some(request) = arriving.recv().await {
            made.push(request.change.clone());
            request.answer(Ok(Done { message: "made".to_owned(), ..Done::default() }));
        }
        made
    })
}

#[tokio::test]
async fn each_route_hands_on_what_it_says() {
    let mut server = start(Ok(sample()));
    let (_, none) = mpsc::channel(1);
    let made = accept_all(std::mem::replace(&mut server.arriving, none));
    for (path, body) in [
        ("/v1/reload", Value::Null),
        ("/v1/apply", json!({"config": "version: 1", "confirm_seconds": 60})),
        ("/v1/apply", json!({"config": "version: 1"})),
        ("/v1/confirm", Value::Null),
        ("/v1/failover", json!({"wan": "lte", "seconds": 600})),
        ("/v1/failover", json!({"wan": "lte", "seconds": null})),
        ("/v1/failover", json!({"auto": true})),
        ("/v1/failover", json!({"wan": "lte", "dry_run": true})),
        ("/v1/failover", json!({"auto": true, "dry_run": true})),
    ] {
        let (status, answer) = post_any(&server.socket, path, &body).await.expect("an answer");
        assert_eq!(status, 200, "{path}: {answer}");
        let done: Done = serde_json::from_str(&answer).expect("a Done");
        assert_eq!(done.message, "made");
    }
    drop(server);
    let text = || "version: 1".to_owned();
    let wan = || "lte".to_owned();
    let seen = tokio::time::timeout(Duration::from_secs(10), made).await;
    assert_eq!(
        seen.expect("the source is gone").expect("no panic"),
        [
            Change::Reload,
            Change::Apply { text: text(), confirm: Some(Duration::from_secs(60)) },
            Change::Apply { text: text(), confirm: None },
            Change::Confirm,
            Change::Failover { wan: wan(), lasting: Some(Duration::from_secs(600)) },
            Change::Failover { wan: wan(), lasting: None },
            Change::FailoverAuto,
            Change::Rehearse { wan: Some(wan()) },
            Change::Rehearse { wan: None },
        ]
    );
}

#[tokio::test]
async fn a_request_without_sense_never_reaches_the_agent() {
    let mut server = start(Ok(sample()));
    for (path, body, expected) in [
        ("/v1/failover", json!({}), "auto"),
        ("/v1/failover", json!({"wan": "lte", "auto": true}), "auto"),
        ("/v1/failover", json!({"auto": true, "seconds": 3}), "auto"),
        ("/v1/failover", json!({"wan": "lte", "seconds": 0}), "1 to 604800"),
        ("/v1/failover", json!({"wan": "lte", "second": 5}), "second"),
        ("/v1/apply", json!({}), "config"),
        ("/v1/apply", json!({"config": "x", "confirm_seconds": 604_801}), "1 to 604800"),
    ] {
        let (status, answer) = post_any(&server.socket, path, &body).await.expect("an answer");
        assert_eq!(status, 400, "{path} {body}: {answer}");
        assert!(answer.contains(expected), "{path} {body}: {answer}");
    }
    assert!(server.arriving.try_recv().is_err());
}

#[tokio::test]
async fn a_refusal_has_its_code_and_reason() {
    for (refusal, code) in [
        (Refusal::Wrong("gateway.yaml:3:1: no".to_owned()), 422),
        (Refusal::Conflict("nothing waits for it".to_owned()), 409),
        (Refusal::Failed("the disk is full".to_owned()), 500),
    ] {
        let mut server = start(Ok(sample()));
        let asking = post_any(&server.socket, "/v1/confirm", &Value::Null);
        let refusing = async {
            let request = server.arriving.recv().await.expect("the change arrives");
            request.answer(Err(refusal.clone()));
        };
        let (answer, ()) = tokio::join!(asking, refusing);
        let (status, body) = answer.expect("an answer");
        assert_eq!(status, code, "{body}");
        assert!(body.contains(&refusal.to_string()), "{body}");
    }
}

#[tokio::test]
async fn an_agent_that_stops_says_so() {
    let mut server = start(Ok(sample()));
    let (_, none) = mpsc::channel(1);
    drop(std::mem::replace(&mut server.arriving, none));
    let (status, body) =
        post_any(&server.socket, "/v1/reload", &Value::Null).await.expect("an answer");
    assert_eq!(status, 500);
    assert!(body.contains("about to stop"), "{body}");
}

#[tokio::test]
async fn over_tcp_all_may_read_and_only_the_token_may_change() {
    let mut server = over_tcp(Some(TOKEN));
    let metrics = server.ask("GET", "/metrics", "").await;
    assert!(metrics.starts_with("HTTP/1.1 200"), "{metrics}");
    assert!(metrics.contains("content-type: text/plain; version=0.0.4"), "{metrics}");
    assert!(metrics.contains("mwb_wan_up{wan=\"fiber\"} 1"), "{metrics}");
    for route in CHANGES {
        for heads in [
            "",
            "authorization: Bearer\r\n",
            "authorization: Basic bXdiOm13Yg==\r\n",
            "authorization: Bearer 0123456789abcdef0123456789abcdee\r\n",
            "authorization: Bearer 0123456789abcdef\r\n",
            "authorization: Bearer 0123456789abcdef0123456789abcdef0\r\n",
        ] {
            let answer = server.ask("POST", route, heads).await;
            assert!(answer.starts_with("HTTP/1.1 401"), "{route} {heads}: {answer}");
            assert!(answer.contains("www-authenticate: Bearer"), "{answer}");
            assert!(answer.contains("api.token_file"), "{answer}");
            assert!(!answer.contains(TOKEN), "{answer}");
        }
    }
    assert!(server.arriving.try_recv().is_err());
    let (_, none) = mpsc::channel(1);
    let made = accept_all(std::mem::replace(&mut server.arriving, none));
    let heads = format!("authorization: bearer {TOKEN}\r\n");
    let answer = server.ask("POST", "/v1/reload", &heads).await;
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    server.task.abort();
    assert_eq!(made.await.expect("no panic"), [Change::Reload]);
}

#[tokio::test]
async fn over_tcp_without_a_token_file_nothing_can_be_changed() {
    let mut server = over_tcp(None);
    for method in ["POST", "PUT", "DELETE", "PATCH"] {
        for path in ROUTES.into_iter().chain(CHANGES) {
            let heads = format!("authorization: Bearer {TOKEN}\r\n");
            let answer = server.ask(method, path, &heads).await;
            assert!(answer.starts_with("HTTP/1.1 403"), "{method} {path}: {answer}");
            assert!(answer.contains("api.token_file"), "{answer}");
        }
    }
    assert!(server.arriving.try_recv().is_err());
}

#[tokio::test]
async fn a_wrong_method_is_told_the_right_one() {
    let server = start(Ok(sample()));
    let (status, body) =
        post_any(&server.socket, "/v1/status", &Value::Null).await.expect("an answer");
    assert_eq!(status, 405);
    assert!(body.contains("GET"), "{body}");
}

#[test]
fn a_token_file_that_others_can_use_is_refused_with_the_fix() {
    let folder = tempfile::tempdir().expect("a folder");
    for mode in [0o604, 0o602, 0o644, 0o666] {
        let path = token_file(folder.path(), TOKEN, mode);
        let error = Token::load(&path).expect_err("it is open");
        assert!(matches!(error, TokenError::Open { .. }), "{error}");
        assert!(error.to_string().contains("chmod o= "), "{error}");
        assert!(!error.to_string().contains(TOKEN), "{error}");
    }
    for mode in [0o400, 0o600, 0o640] {
        let path = token_file(folder.path(), TOKEN, mode | 0o200);
        fs::set_permissions(&path, Permissions::from_mode(mode)).expect("set");
        assert!(Token::load(&path).is_ok(), "{mode:o}");
    }
}

#[test]
fn a_file_without_a_token_is_refused_with_a_way_to_make_one() {
    let folder = tempfile::tempdir().expect("a folder");
    let long = "x".repeat(5_000);
    for text in ["", "short", "two words of some length", &long, "0123456789abcdef\u{e9}"] {
        let error = Token::load(&token_file(folder.path(), text, 0o600)).expect_err("no token");
        assert!(matches!(error, TokenError::NoToken { .. }), "{text}: {error}");
        assert!(error.to_string().contains("openssl rand"), "{error}");
    }
    let error = Token::load(&folder.path().join("none")).expect_err("not there");
    assert!(matches!(error, TokenError::Unreadable { .. }), "{error}");
    assert!(Token::load(&token_file(folder.path(), &format!("{TOKEN}\n"), 0o600)).is_ok());
}

#[test]
fn a_token_is_never_printed() {
    let folder = tempfile::tempdir().expect("a folder");
    let token = Token::load(&token_file(folder.path(), TOKEN, 0o600)).expect("a token");
    assert_eq!(format!("{token:?}"), "Token(..)");
}
