//! The client that webhooks are told by: one request on a connection of its own, by the
//! machine's own routes and resolver.

use std::net::SocketAddr;
use std::time::Duration;

use http_body_util::Full;
use hyper::body::Bytes;
use hyper::client::conn::http1;
use hyper::header::{CONTENT_TYPE, HOST, HeaderName, HeaderValue, RETRY_AFTER, USER_AGENT};
use hyper::{Method, Request};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use url::Url;

use crate::health::methods::{Tls, TlsOptions};
use crate::notify::{Post, Reply};

/// Sends requests. TLS trusts the system's authorities.
#[derive(Clone, Debug)]
pub(super) struct Client {
    tls: Tls,
}

impl Client {
    /// One that is ready.
    pub(super) fn new() -> Result<Self, String> {
        let tls = Tls::new(&TlsOptions::default()).map_err(|error| error.to_string())?;
        Ok(Self { tls })
    }

    async fn send(
        &self,
        url: &str,
        headers: &[(&str, String)],
        body: Vec<u8>,
        timeout: Duration,
    ) -> Result<Reply, String> {
        let url = Url::parse(url).map_err(|error| format!("{url} is no URL: {error}"))?;
        let host = url.host_str().ok_or("the URL has no host")?;
        let port = url.port_or_known_default().ok_or("the URL has no port")?;
        let request = request(&url, host, headers, body)?;
        // An IPv6 address has brackets in a URL, and none elsewhere.
        let bare = host.trim_start_matches('[').trim_end_matches(']');
        let found = tokio::net::lookup_host((bare, port)).await;
        let addresses: Vec<SocketAddr> =
            found.map_err(|error| format!("{host} cannot be found: {error}"))?.collect();
        let mut failure = format!("{host} has no address");
        // One that says nothing leaves time for the next.
        let share = timeout / u32::try_from(addresses.len().max(1)).unwrap_or(u32::MAX);
        for to in addresses {
            let connecting = tokio::time::timeout(share, TcpStream::connect(to)).await;
            match connecting.unwrap_or_else(|_| Err(std::io::ErrorKind::TimedOut.into())) {
                Ok(stream) if url.scheme() == "https" => {
                    let stream = self.tls.open(stream, to, bare, timeout).await;
                    return talk(stream.map_err(|bad| bad.to_string())?, request).await;
                }
                Ok(stream) => return talk(stream, request).await,
                Err(error) => failure = format!("no connection to {to}: {error}"),
            }
        }
        Err(failure)
    }
}

impl Post for Client {
    async fn post(
        &self,
        url: &str,
        headers: &[(&str, String)],
        body: Vec<u8>,
        timeout: Duration,
    ) -> Result<Reply, String> {
        let sent = tokio::time::timeout(timeout, self.send(url, headers, body, timeout)).await;
        sent.unwrap_or_else(|_| Err(format!("no answer within {} s", timeout.as_secs_f64())))
    }
}

fn request(
    url: &Url,
    host: &str,
    headers: &[(&str, String)],
    body: Vec<u8>,
) -> Result<Request<Full<Bytes>>, String> {
    let mut path = url.path().to_owned();
    if let Some(query) = url.query() {
        path = format!("{path}?{query}");
    }
    let host = url.port().map_or_else(|| host.to_owned(), |port| format!("{host}:{port}"));
    let mut request = Request::builder()
        .method(Method::POST)
        .uri(path)
        .header(HOST, host)
        .header(USER_AGENT, concat!("mwb/", env!("CARGO_PKG_VERSION")))
        .header(CONTENT_TYPE, "application/json");
    for (name, value) in headers {
        let name: HeaderName = name.parse().map_err(|_| format!("`{name}` is no header"))?;
        let value: HeaderValue =
            value.parse().map_err(|_| format!("`{name}` has no such value"))?;
        if let Some(headers) = request.headers_mut() {
            headers.insert(name, value);
        }
    }
    request.body(Full::new(Bytes::from(body))).map_err(|error| error.to_string())
}

async fn talk<S>(stream: S, request: Request<Full<Bytes>>) -> Result<Reply, String>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let made = http1::handshake(TokioIo::new(stream)).await;
    let (mut sender, connection) = made.map_err(|error| error.to_string())?;
    // It ends with the sender.
    let connection = tokio::spawn(connection);
    let response = sender.send_request(request).await.map_err(|error| error.to_string());
    connection.abort();
    let response = response?;
    let seconds = response.headers().get(RETRY_AFTER).and_then(|value| value.to_str().ok());
    let retry_after = seconds.and_then(|text| text.trim().parse().ok()).map(Duration::from_secs);
    Ok(Reply { status: response.status().as_u16(), retry_after })
}

#[cfg(test)]
#[path = "client_tests.rs"]
mod tests;
