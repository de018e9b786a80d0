use std::fs;
use std::os::unix::fs::PermissionsExt as _;

use super::*;

fn hook(name: &str, command: &[&str]) -> Receiver {
    let command = command.iter().map(|&word| word.to_owned()).collect();
    let kind = Kind::Exec { command, timeout: Duration::from_secs(1), at_once: 1 };
    Receiver { name: name.to_owned(), filter: Filter::default(), kind }
}

fn webhook(url: &str, secret_file: &Path) -> Receiver {
    let (url, secret_file) = (url.to_owned(), secret_file.to_owned());
    let time = Duration::from_secs(1);
    let kind = Kind::Webhook { url, secret_file, timeout: time, keep: time };
    Receiver { name: "ops".to_owned(), filter: Filter::default(), kind }
}

fn refusal(receivers: Vec<Receiver>) -> String {
    prepare(receivers).map_or_else(|error| error.to_string(), |_| "none".to_owned())
}

#[test]
fn a_name_is_one_that_can_be_a_folder() {
    for name in ["ops", "7", "a.b-c_D", &"a".repeat(63)] {
        assert_eq!(refusal(vec![hook(name, &["/bin/true"])]), "none", "{name}");
    }
    for name in ["", ".", "..", ".hidden", "-x", "a/b", "a b", "é", &"a".repeat(64)] {
        let error = prepare(vec![hook(name, &["/bin/true"])]);
        assert!(matches!(error, Err(NotifyError::Name(_))), "{name}");
    }
}

#[test]
fn two_of_one_name_are_refused() {
    let twice = vec![hook("ops", &["/bin/true"]), hook("ops", &["/bin/false"])];
    assert!(matches!(prepare(twice), Err(NotifyError::Twice(name)) if name == "ops"));
}

#[test]
fn a_command_begins_with_an_absolute_path() {
    for command in [&[][..], &["true"], &["./true"], &["/bin/true", "a\0b"]] {
        let refused = prepare(vec![hook("ops", command)]);
        assert!(matches!(refused, Err(NotifyError::Command { .. })), "{command:?}");
    }
}

#[test]
fn zeros_that_would_stop_a_receiver_are_refused() {
    let mut none_at_once = hook("ops", &["/bin/true"]);
    none_at_once.kind = Kind::Exec {
        command: vec!["/bin/true".to_owned()],
        timeout: Duration::from_secs(1),
        at_once: 0,
    };
    assert!(matches!(prepare(vec![none_at_once]), Err(NotifyError::Zero { what: "at_once", .. })));
    let mut no_time = hook("ops", &["/bin/true"]);
    no_time.kind =
        Kind::Exec { command: vec!["/bin/true".to_owned()], timeout: Duration::ZERO, at_once: 1 };
    assert!(matches!(prepare(vec![no_time]), Err(NotifyError::Zero { what: "timeout", .. })));
}

#[test]
fn a_url_is_http_or_https_to_a_host() {
    let folder = tempfile::tempdir().expect("a folder");
    let secret = folder.path().join("secret");
    fs::write(&secret, "0123456789abcdef").expect("written");
    fs::set_permissions(&secret, fs::Permissions::from_mode(0o600)).expect("its own file");
    for url in ["http://192.0.2.1/x?y=z", "https://[2001:db8::1]:8443/", "https://example.com"] {
        assert_eq!(refusal(vec![webhook(url, &secret)]), "none", "{url}");
    }
    for url in
        ["", "/x", "example.com", "ftp://example.com/", "http://", "https://a:b@example.com/"]
    {
        let refused = prepare(vec![webhook(url, &secret)]);
        assert!(matches!(refused, Err(NotifyError::Url { .. })), "{url}");
    }
}

#[test]
fn a_secret_that_cannot_be_had_is_named_with_its_receiver() {
    let error = refusal(vec![webhook("http://192.0.2.1/", Path::new("/nonexistent/secret"))]);
    assert!(error.contains("`ops`") && error.contains("/nonexistent/secret"), "{error}");
}
