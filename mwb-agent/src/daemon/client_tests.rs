use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

use super::*;

/// A server that reads one request and gives one answer; what it has read.
async fn server(answer: &'static str) -> (SocketAddr, tokio::task::JoinHandle<String>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("bound");
    let served = tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.expect("a client");
        let (mut got, mut buffer) = (String::new(), [0; 1024]);
        // The body is `{}`.
        while !got.ends_with("{}") {
            let read = stream.read(&mut buffer).await.expect("a request");
            assert_ne!(read, 0, "{got}");
            got.push_str(&String::from_utf8_lossy(&buffer[..read]));
        }
        stream.write_all(answer.as_bytes()).await.expect("it listens");
        got
    });
    (address, served)
}

async fn post(url: String) -> Result<Reply, String> {
    let headers = [("X-MWB-Timestamp", "7".to_owned())];
    let client = Client::new()?;
    client.post(&url, &headers, b"{}".to_vec(), Duration::from_secs(5)).await
}

#[tokio::test]
async fn a_request_has_its_path_headers_and_body_and_the_answer_its_status() {
    let (address, served) = server("HTTP/1.1 503 Busy\r\nRetry-After: 9\r\n\r\n").await;
    let reply = post(format!("http://{address}/a/b?c=d")).await;
    let retry_after = Some(Duration::from_secs(9));
    assert_eq!(reply, Ok(Reply { status: 503, retry_after }));
    let got = served.await.expect("it has served").to_lowercase();
    assert!(got.starts_with("post /a/b?c=d http/1.1\r\n"), "{got}");
    for line in ["x-mwb-timestamp: 7", "content-type: application/json", "content-length: 2"] {
        assert!(got.contains(&format!("{line}\r\n")), "{line}: {got}");
    }
    assert!(got.contains(&format!("host: {address}\r\n")), "{got}");
}

#[tokio::test]
async fn who_is_not_there_or_hangs_up_is_an_error_in_words() {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("bound");
    drop(listener);
    let error = post(format!("http://{address}/")).await;
    assert!(error.as_ref().is_err_and(|why| why.contains("no connection")), "{error:?}");
    let (address, _served) = server("").await;
    assert!(post(format!("http://{address}/")).await.is_err());
}
