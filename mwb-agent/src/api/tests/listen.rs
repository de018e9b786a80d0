//! Who may listen where.

use std::fs;
use std::net::Ipv4Addr;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::os::unix::net::UnixListener;

use nix::unistd::{Group, getegid, geteuid};

use super::super::client::{ClientError, get};
use super::super::{ListenError, Listeners};
use super::{sample, start};

#[test]
fn the_socket_is_for_its_owner_alone_and_goes_with_the_agent() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("made/for/it/mwb.sock");
    let listeners = Listeners::bind(None, &path, None).expect("bound");
    let mode = fs::metadata(&path).expect("it is there").permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    drop(listeners);
    assert!(!path.exists());
}

#[test]
fn a_group_may_use_the_socket_if_it_is_named() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("mwb.sock");
    let own = Group::from_gid(getegid()).expect("a look-up").expect("our group has a name");
    // Root may give it to a group that is not its own.
    let other = Group::from_name("nogroup").expect("a look-up").filter(|_| geteuid().is_root());
    for group in std::iter::once(own).chain(other) {
        let _listeners = Listeners::bind(None, &path, Some(&group.name)).expect("bound");
        let metadata = fs::metadata(&path).expect("it is there");
        assert_eq!(metadata.permissions().mode() & 0o777, 0o660);
        assert_eq!(metadata.gid(), group.gid.as_raw());
    }
}

#[test]
fn a_group_that_is_not_there_is_refused_with_the_fix() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("mwb.sock");
    let error = Listeners::bind(None, &path, Some("no-such-group")).expect_err("refused");
    assert!(error.to_string().contains("groupadd --system no-such-group"), "{error}");
    assert!(!path.exists());
}

#[tokio::test]
async fn a_second_agent_is_refused_and_the_first_goes_on() {
    let server = start(Ok(sample()));
    let second = Listeners::bind(None, &server.socket, None);
    assert!(matches!(second, Err(ListenError::Busy(_))), "{second:?}");
    assert!(get(&server.socket, "/v1/status").await.is_ok());
}

#[tokio::test]
async fn a_foreign_listener_keeps_its_socket() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("mwb.sock");
    let _foreign = UnixListener::bind(&path).expect("bound");
    let bound = Listeners::bind(None, &path, None);
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
    assert!(Listeners::bind(None, &path, None).is_ok());
}

#[tokio::test]
async fn a_file_that_is_no_socket_is_never_removed() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("mwb.sock");
    fs::write(&path, "precious").expect("written");
    let bound = Listeners::bind(None, &path, None);
    assert!(matches!(bound, Err(ListenError::NotASocket(_))), "{bound:?}");
    assert_eq!(fs::read_to_string(&path).expect("still there"), "precious");
}

#[tokio::test]
async fn a_taken_tcp_address_is_named() {
    let folder = tempfile::tempdir().expect("a folder");
    let taken = std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("bound");
    let address = taken.local_addr().expect("it has an address");
    let path = folder.path().join("mwb.sock");
    let error = Listeners::bind(Some(address), &path, None).expect_err("it is taken");
    assert!(error.to_string().contains(&address.to_string()), "{error}");
    assert!(error.to_string().contains("api.listen"), "{error}");
    assert!(!path.exists(), "the unix socket is taken back");
}
