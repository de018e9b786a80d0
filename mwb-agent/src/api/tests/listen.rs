//! Who may listen where.

use std::fs;
use std::net::{Ipv4Addr, SocketAddr};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixListener;
use std::sync::Arc;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::super::client::{ClientError, get};
use super::super::{ListenError, Listeners, serve};
use super::{Fixed, sample, start};
use crate::events::Bus;

#[tokio::test]
async fn the_socket_is_for_owner_and_group_and_goes_with_the_agent() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("made/for/it/mwb.sock");
    let listeners = Listeners::bind(None, &path).expect("bound");
    let mode = fs::metadata(&path).expect("it is there").permissions().mode();
    assert_eq!(mode & 0o777, 0o660);
    drop(listeners);
    assert!(!path.exists());
}

#[tokio::test]
async fn a_second_agent_is_refused_and_the_first_goes_on() {
    let server = start(Ok(sample()));
    let second = Listeners::bind(None, &server.socket);
    assert!(matches!(second, Err(ListenError::Busy(_))), "{second:?}");
    assert!(get(&server.socket, "/v1/status").await.is_ok());
}

#[tokio::test]
async fn a_foreign_listener_keeps_its_socket() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("mwb.sock");
    let _foreign = UnixListener::bind(&path).expect("bound");
    let bound = Listeners::bind(None, &path);
    assert!(matches!(bound, Err(ListenError::Busy(_))), "{bound:?}");
    assert!(path.exists());
}

#[tokio::test]
async fn the_socket_of_a_dead_agent_is_replaced() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("mwb.sock");
    // The standard library leaves the file behind, as a killed agent does.
    drop(UnixListener::bind(&path).expect("bound"));
    assert!(path.exists());
    assert!(matches!(get(&path, "/v1/status").await, Err(ClientError::NotRunning(_))));
    assert!(Listeners::bind(None, &path).is_ok());
}

#[tokio::test]
async fn a_file_that_is_no_socket_is_never_removed() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("mwb.sock");
    fs::write(&path, "precious").expect("written");
    let bound = Listeners::bind(None, &path);
    assert!(matches!(bound, Err(ListenError::NotASocket(_))), "{bound:?}");
    assert_eq!(fs::read_to_string(&path).expect("still there"), "precious");
}

#[tokio::test]
async fn the_same_answers_come_over_tcp_and_nothing_can_be_changed() {
    let folder = tempfile::tempdir().expect("a folder");
    let any_port = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
    let listeners =
        Listeners::bind(Some(any_port), &folder.path().join("mwb.sock")).expect("bound");
    let address = listeners.tcp_address().expect("TCP is on");
    let source = Arc::new(Fixed { answer: Ok(sample()), bus: Bus::default() });
    let task = tokio::spawn(serve(listeners, source));
    let ask = async |method: &str, path: &str| {
        let mut stream = TcpStream::connect(address).await.expect("connected");
        let request = format!("{method} {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await.expect("written");
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.expect("read");
        answer
    };
    let metrics = ask("GET", "/metrics").await;
    assert!(metrics.starts_with("HTTP/1.1 200"), "{metrics}");
    assert!(metrics.contains("content-type: text/plain; version=0.0.4"), "{metrics}");
    assert!(metrics.contains("mwb_wan_up{wan=\"fiber\"} 1"), "{metrics}");
    for method in ["POST", "PUT", "DELETE", "PATCH"] {
        for path in super::super::http::ROUTES {
            let answer = ask(method, path).await;
            assert!(answer.starts_with("HTTP/1.1 405"), "{method} {path}: {answer}");
            assert!(answer.contains("read-only"), "{answer}");
        }
    }
    task.abort();
}

#[tokio::test]
async fn a_taken_tcp_address_is_named() {
    let folder = tempfile::tempdir().expect("a folder");
    let taken = std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("bound");
    let address = taken.local_addr().expect("it has an address");
    let path = folder.path().join("mwb.sock");
    let error = Listeners::bind(Some(address), &path).expect_err("it is taken");
    assert!(error.to_string().contains(&address.to_string()), "{error}");
    assert!(error.to_string().contains("api.listen"), "{error}");
    assert!(!path.exists(), "the unix socket is taken back");
}
