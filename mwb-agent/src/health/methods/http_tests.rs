//! The HTTP check against little web servers.

use super::super::testing::{
    Outcome, SHORT, SOON, head, http_server, lo, nobody, response, tcp_server,
};
use super::*;
use proptest::prelude::*;
use std::sync::{Arc, Mutex};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

pub(super) fn options(server: SocketAddr) -> HttpOptions {
    HttpOptions { url: format!("http://{server}/path?query"), ..HttpOptions::default() }
}

pub(super) async fn ask(options: &HttpOptions) -> Result<Good, Bad> {
    let http = Http::new(options).unwrap_or_else(|error| panic!("{error}"));
    http.ask(&lo(), None, &Budget::new(SOON)).await
}

/// A server that gives any request this text, and what was asked of it.
pub(super) async fn asked(text: String) -> std::io::Result<(SocketAddr, Arc<Mutex<Vec<String>>>)> {
    let heads = Arc::new(Mutex::new(Vec::new()));
    let note = Arc::clone(&heads);
    let server = http_server(move |head| {
        note.lock().unwrap_or_else(|poisoned| poisoned.into_inner()).push(head.to_owned());
        text.clone()
    });
    Ok((server.await?, heads))
}

pub(super) fn heads(of: &Mutex<Vec<String>>) -> Vec<String> {
    of.lock().unwrap_or_else(|poisoned| poisoned.into_inner()).clone()
}

#[tokio::test]
async fn a_right_response_is_good_and_the_request_is_a_proper_one() -> Outcome {
    let (server, seen) = asked(response(200, "", "hello")).await?;
    let good = ask(&options(server)).await?;
    assert!(good.time > Duration::ZERO && good.time < SOON, "{good:?}");
    assert!(good.detail.contains("200"), "{good:?}");
    let head = heads(&seen).concat().to_lowercase();
    assert!(head.starts_with("get /path?query http/1.1\r\n"), "{head}");
    for line in [&format!("\r\nhost: {server}\r\n"), "\r\nconnection: close\r\n", "\r\naccept: */*"]
    {
        assert!(head.contains(line), "{line:?} is not in {head}");
    }
    Ok(())
}

#[tokio::test]
async fn method_and_headers_are_sent_as_configured() -> Outcome {
    let (server, seen) = asked(response(204, "", "")).await?;
    let header = |name: &str, value: &str| (name.to_owned(), value.to_owned());
    let options = HttpOptions {
        method: "POST".to_owned(),
        status: "204".to_owned(),
        headers: vec![
            header("Host", "www.example.com"),
            header("X-Two", "a"),
            header("X-Two", "b"),
            header("User-Agent", "probe"),
        ],
        ..options(server)
    };
    ask(&options).await?;
    let head = heads(&seen).concat().to_lowercase();
    assert!(head.starts_with("post /path?query"), "{head}");
    let once = |line: &str| head.matches(line).count() == 1;
    assert!(once("\r\nhost: www.example.com\r\n") && head.matches("host:").count() == 1, "{head}");
    assert!(once("x-two: a\r\n") && once("x-two: b\r\n") && once("content-length: 0"), "{head}");
    assert!(once("user-agent: probe\r\n") && head.matches("user-agent").count() == 1, "{head}");
    Ok(())
}

#[tokio::test]
async fn another_status_is_bad_and_no_silence() -> Outcome {
    let (server, _) = asked(response(503, "", "")).await?;
    let bad = ask(&options(server)).await;
    assert_eq!(bad, Err(Bad::Status { got: 503, expected: "200".to_owned() }));
    let right = HttpOptions { status: "200,500-599".to_owned(), ..options(server) };
    ask(&right).await?;
    Ok(())
}

#[tokio::test]
async fn a_body_has_what_is_wanted_or_is_bad() -> Outcome {
    let (server, _) = asked(response(200, "", "all is well")).await?;
    let wants = |text: &str| HttpOptions { body: Some(text.to_owned()), ..options(server) };
    ask(&wants("is well")).await?;
    let bad = ask(&wants("is Well")).await;
    assert_eq!(bad, Err(Bad::Body { wanted: "is Well".to_owned(), read: 11 }));
    Ok(())
}

#[tokio::test]
async fn a_text_is_found_across_chunks() -> Outcome {
    let server = tcp_server(async |mut stream| {
        head(&mut stream).await?;
        let parts = [
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n",
            "3\r\nall\r\n",
            "5\r\n is w\r\n",
            "3\r\nell\r\n",
            "0\r\n\r\n",
        ];
        for part in parts {
            stream.write_all(part.as_bytes()).await?;
            stream.flush().await?;
            tokio::task::yield_now().await;
        }
        Ok(())
    });
    let server = server.await?;
    let wants = |text: &str| HttpOptions { body: Some(text.to_owned()), ..options(server) };
    ask(&wants("all is well")).await?;
    let bad = ask(&wants("3")).await;
    assert_eq!(bad, Err(Bad::Body { wanted: "3".to_owned(), read: 11 }));
    Ok(())
}

#[tokio::test]
async fn of_an_endless_body_64_kib_are_looked_at() -> Outcome {
    let server = tcp_server(async |mut stream| {
        head(&mut stream).await?;
        stream.write_all(b"HTTP/1.1 200 OK\r\n\r\n").await?;
        loop {
            stream.write_all(&[b'x'; 1000]).await?;
        }
    });
    let options = HttpOptions { body: Some("never".to_owned()), ..options(server.await?) };
    let bad = ask(&options).await;
    assert_eq!(bad, Err(Bad::Body { wanted: "never".to_owned(), read: MOST_BODY }));
    Ok(())
}

#[tokio::test]
async fn an_endless_head_is_given_up() -> Outcome {
    let server = tcp_server(async |mut stream| {
        head(&mut stream).await?;
        stream.write_all(b"HTTP/1.1 200 OK\r\nX: ").await?;
        loop {
            stream.write_all(&[b'x'; 1000]).await?;
        }
    });
    let bad = ask(&options(server.await?)).await;
    assert!(matches!(bad, Err(Bad::Broken { .. })), "{bad:?}");
    Ok(())
}

#[tokio::test]
async fn a_slow_server_is_silence_when_the_time_is_over() -> Outcome {
    let half = tcp_server(async |mut stream| {
        head(&mut stream).await?;
        stream.write_all(b"HTTP/1.1 200").await?;
        stream.read_u8().await.map(drop)
    });
    let http = Http::new(&options(half.await?))?;
    let bad = http.ask(&lo(), None, &Budget::new(SHORT)).await;
    let Err(Bad::TimedOut { after, .. }) = &bad else { panic!("{bad:?}") };
    assert_eq!(*after, SHORT);
    Ok(())
}

#[tokio::test]
async fn who_breaks_off_is_no_silence() -> Outcome {
    async fn reset(mut stream: TcpStream) -> std::io::Result<()> {
        head(&mut stream).await?;
        socket2::SockRef::from(&stream).set_linger(Some(Duration::ZERO))
    }
    async fn close(mut stream: TcpStream) -> std::io::Result<()> {
        head(&mut stream).await.map(drop)
    }
    async fn other(mut stream: TcpStream) -> std::io::Result<()> {
        stream.write_all(b"SSH-2.0-x\r\n").await?;
        head(&mut stream).await.map(drop)
    }
    for server in [tcp_server(reset).await?, tcp_server(close).await?, tcp_server(other).await?] {
        let bad = ask(&options(server)).await;
        assert!(matches!(&bad, Err(Bad::Broken { to, .. }) if *to == server), "{bad:?}");
    }
    Ok(())
}

#[tokio::test]
async fn a_body_that_breaks_off_is_no_silence() -> Outcome {
    let server = tcp_server(async |mut stream| {
        head(&mut stream).await?;
        stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhalf").await
    });
    let server = server.await?;
    let wants = |text: &str| HttpOptions { body: Some(text.to_owned()), ..options(server) };
    let bad = ask(&wants("whole")).await;
    assert!(matches!(bad, Err(Bad::Broken { .. })), "{bad:?}");
    ask(&wants("half")).await?;
    Ok(())
}

#[tokio::test]
async fn a_closed_port_refuses() -> Outcome {
    let server = nobody().await?;
    assert_eq!(ask(&options(server)).await, Err(Bad::Refused(server)));
    Ok(())
}

#[test]
fn what_cannot_work_is_refused_with_its_option() {
    let good = || HttpOptions { url: "http://192.0.2.1/".to_owned(), ..HttpOptions::default() };
    let with_url = |url: &str| HttpOptions { url: url.to_owned(), ..good() };
    let with_method = |method: &str| HttpOptions { method: method.to_owned(), ..good() };
    let with_header = |name: &str, value: &str| HttpOptions {
        headers: vec![(name.to_owned(), value.to_owned())],
        ..good()
    };
    let with_body = |method: &str, body: &str| HttpOptions {
        body: Some(body.to_owned()),
        ..with_method(method)
    };
    let rows = [
        (with_url(""), "url"),
        (with_url("example.com"), "url"),
        (with_url("ftp://example.com/"), "url"),
        (with_url("http://"), "url"),
        (with_url("http://user:pass@example.com/"), "url"),
        (with_url("http://example.com:0/"), "url"),
        (with_url("http://[fe80::1%25wan0]/"), "url"),
        (with_method("get"), "method"),
        (with_method("CONNECT"), "method"),
        (with_method("A B"), "method"),
        (with_header("Content-Length", "3"), "headers"),
        (with_header("a b", "3"), "headers"),
        (with_header("X", "a\r\nY: b"), "headers"),
        (with_body("HEAD", "x"), "body"),
        (with_body("GET", ""), "body"),
        (HttpOptions { status: "abc".to_owned(), ..good() }, "status"),
        (
            HttpOptions { tls: TlsOptions { verify: false, ..TlsOptions::default() }, ..good() },
            "url",
        ),
    ];
    assert!(Http::new(&good()).is_ok());
    for (options, option) in rows {
        let error = Http::new(&options).err();
        assert_eq!(error.map(|error| error.option), Some(option), "{options:?}");
    }
}

#[test]
fn the_request_names_host_port_and_path_of_the_url() -> Outcome {
    let rows = [
        ("http://www.example.com", "www.example.com", "/"),
        ("http://www.example.com:80/a?b=c#d", "www.example.com", "/a?b=c"),
        ("https://www.example.com:8443/ä", "www.example.com:8443", "/%C3%A4"),
        ("http://[2001:DB8::1]:8080?x", "[2001:db8::1]:8080", "/?x"),
    ];
    for (url, host, path) in rows {
        let http = Http::new(&HttpOptions { url: url.to_owned(), ..HttpOptions::default() })?;
        let request = http.request(&http.first)?;
        let seen = request.headers().get(HOST).ok_or("no host")?;
        assert_eq!((seen.to_str()?, request.uri().to_string().as_str()), (host, path));
    }
    Ok(())
}

proptest! {
    #[test]
    fn every_url_that_is_taken_makes_a_request(text in "(http://)?[ -~]{0,30}") {
        if let Ok(http) = Http::new(&HttpOptions { url: text, ..HttpOptions::default() }) {
            let request = http.request(&http.first);
            prop_assert!(request.is_ok_and(|request| request.uri().path().starts_with('/')));
        }
    }
}
