//! The HTTP check: a request over HTTP/1.1 or HTTPS, and what its response must
//! be like. RFC 9110, RFC 9112.
//!
//! Each request has a connection of its own. Of a body the first 64 KiB are
//! read, and only if something is looked for in it.

use std::collections::HashSet;
use std::net::SocketAddr;
use std::pin::pin;
use std::time::Duration;

use http_body_util::{BodyExt, Empty};
use hyper::body::{Bytes, Incoming};
use hyper::client::conn::http1;
use hyper::header::{
    ACCEPT, CONNECTION, CONTENT_LENGTH, HOST, HeaderMap, HeaderValue, LOCATION, USER_AGENT,
};
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::Instant;
use url::{Host, Position, Url};

use super::budget::Budget;
use super::http_options::{HttpOptions, parse_headers, parse_method, parse_url};
use super::resolve::{self, Servers};
use super::via::{self, fault};
use super::{Bad, Good, Invalid, StatusList, Target, Tls, TlsOptions, Via, find};

/// How many redirects are followed.
const MOST_REDIRECTS: usize = 5;
/// How much of a body is looked at.
const MOST_BODY: usize = 64 << 10;
/// How long the head of a response may be.
const MOST_HEAD: usize = 64 << 10;

/// A request over HTTP or HTTPS.
#[derive(Clone, Debug)]
pub struct Http {
    first: Stop,
    headers: HeaderMap,
    status: StatusList,
    body: Option<String>,
    redirects: bool,
    tls: Tls,
    servers: Servers,
}

/// One request on the way.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Stop {
    url: Url,
    method: hyper::Method,
}

/// What came back.
enum Step {
    /// The last response: right.
    Done(StatusCode),
    /// Look there instead.
    Moved(StatusCode, String),
}

impl Http {
    /// A request that can be made.
    ///
    /// # Errors
    /// What cannot be understood, or would have no effect.
    pub fn new(options: &HttpOptions) -> Result<Self, Invalid> {
        let url = parse_url(&options.url)?;
        let method = parse_method(&options.method)?;
        let status = options.status.parse()?;
        let headers = parse_headers(&options.headers)?;
        if let Some(body) = &options.body {
            let invalid = |why| Err(Invalid::new("body", body.as_str(), why));
            if method == hyper::Method::HEAD {
                return invalid("cannot come: the response to HEAD has no body; use GET");
            }
            if body.is_empty() || body.len() > MOST_BODY {
                return invalid("is empty or longer than the 64 KiB that are looked at");
            }
        }
        let tls = &options.tls;
        if url.scheme() == "http" && !options.redirects && *tls != TlsOptions::default() {
            let why = "has no TLS, so that its options have no effect; did you mean https?";
            return Err(Invalid::new("url", options.url.as_str(), why));
        }
        Ok(Self {
            first: Stop { url, method },
            headers,
            status,
            body: options.body.clone(),
            redirects: options.redirects,
            tls: Tls::new(tls)?,
            servers: options.servers.clone(),
        })
    }

    /// Its time is that from the SYN to the head of the response, of all
    /// requests together. `target` stands for the URL's host, as long as no
    /// redirect leads elsewhere; host header and certificate stay the URL's.
    pub(super) async fn ask(
        &self,
        via: &Via,
        target: Option<&Target>,
        budget: &Budget,
    ) -> Result<Good, Bad> {
        let mut stop = self.first.clone();
        let mut seen = HashSet::from([stop.clone()]);
        let mut time = Duration::ZERO;
        loop {
            let (step, took) = self.fetch(via, target, &stop, budget).await?;
            time += took;
            let (status, location) = match step {
                Step::Done(status) => {
                    let detail = format!("{} says {}", stop.url, status.as_u16());
                    return Ok(Good::new(time, detail));
                }
                Step::Moved(status, location) => (status, location),
            };
            stop = stop.next(status, &location)?;
            let astray =
                |why: &str| Err(Bad::Redirect { to: stop.url.to_string(), why: why.to_owned() });
            if seen.len() > MOST_REDIRECTS {
                return astray("more than 5 redirects");
            }
            if !seen.insert(stop.clone()) {
                return astray("this is a loop");
            }
        }
    }

    /// One request on one connection.
    async fn fetch(
        &self,
        via: &Via,
        target: Option<&Target>,
        stop: &Stop,
        budget: &Budget,
    ) -> Result<(Step, Duration), Bad> {
        let url = &stop.url;
        let no_host = || Bad::NotSent(format!("{url} has no host"));
        let host = url.host().ok_or_else(no_host)?;
        let port = url.port_or_known_default().ok_or_else(no_host)?;
        let at_home = url.host() == self.first.url.host();
        let target = match target {
            Some(target) if at_home => target.clone(),
            _ => match &host {
                Host::Domain(name) => Target::Name((*name).to_owned()),
                Host::Ipv4(address) => Target::Address((*address).into()),
                Host::Ipv6(address) => Target::Address((*address).into()),
            },
        };
        let addresses = resolve::addresses(via, &target, &self.servers, budget).await?;
        let connected = via::connect(via, &addresses, port, budget).await?;
        // Not from before: an address that did not answer is not its fault.
        let start = Instant::now();
        let (to, request) = (connected.to, self.request(stop)?);
        let (step, head) = if url.scheme() == "https" {
            let name = match host {
                Host::Ipv6(address) => address.to_string(),
                host => host.to_string(),
            };
            let stream = self.tls.connect(connected.stream, to, &name, at_home, budget).await?;
            self.exchange(stream, to, request, budget).await?
        } else {
            self.exchange(connected.stream, to, request, budget).await?
        };
        Ok((step, connected.time + head.duration_since(start)))
    }

    fn request(&self, stop: &Stop) -> Result<Request<Empty<Bytes>>, Bad> {
        let failed = |why: String| Bad::NotSent(format!("{}: {why}", stop.url));
        let path = &stop.url[Position::BeforePath..Position::AfterQuery];
        let mut request = Request::new(Empty::new());
        *request.method_mut() = stop.method.clone();
        *request.uri_mut() = path.parse().map_err(|error| failed(format!("{error}")))?;
        let authority = &stop.url[Position::BeforeHost..Position::AfterPort];
        let host = HeaderValue::from_str(authority).map_err(|error| failed(error.to_string()))?;
        let agent = concat!("mwb-health/", env!("CARGO_PKG_VERSION"));
        let headers = request.headers_mut();
        headers.insert(HOST, host);
        headers.insert(USER_AGENT, HeaderValue::from_static(agent));
        headers.insert(ACCEPT, HeaderValue::from_static("*/*"));
        // A name or a token of the operator's is for the server he named.
        if stop.url.origin() == self.first.url.origin() {
            for name in self.headers.keys() {
                headers.remove(name);
                for value in self.headers.get_all(name) {
                    headers.append(name.clone(), value.clone());
                }
            }
        }
        headers.insert(CONNECTION, HeaderValue::from_static("close"));
        // RFC 9110, 8.6: a method that has a body says so if there is none.
        if matches!(stop.method.as_str(), "POST" | "PUT" | "PATCH") {
            headers.insert(CONTENT_LENGTH, HeaderValue::from_static("0"));
        }
        Ok(request)
    }

    /// Sends the request and takes what is wanted of the response; also when
    /// its head had come.
    async fn exchange<S>(
        &self,
        stream: S,
        to: SocketAddr,
        request: Request<Empty<Bytes>>,
        budget: &Budget,
    ) -> Result<(Step, Instant), Bad>
    where
        S: AsyncRead + AsyncWrite + Unpin + Send,
    {
        let work = async {
            let mut builder = http1::Builder::new();
            builder.max_buf_size(MOST_HEAD);
            let made = builder.handshake(TokioIo::new(stream)).await;
            let (mut sender, connection) = made.map_err(|error| broken(to, &error))?;
            let mut connection = pin!(connection);
            let mut talk = pin!(async {
                let response = sender.send_request(request).await;
                let response = response.map_err(|error| broken(to, &error))?;
                let head = Instant::now();
                Ok((self.judge(to, response).await?, head))
            });
            // The connection may be done before what it brought is.
            tokio::select! {
                biased;
                done = &mut talk => return done,
                _ = &mut connection => {}
            }
            talk.await
        };
        budget.within(|| format!("connected to {to}, the response did not come"), work).await?
    }

    async fn judge(&self, to: SocketAddr, response: Response<Incoming>) -> Result<Step, Bad> {
        let status = response.status();
        if self.redirects
            && matches!(status.as_u16(), 301 | 302 | 303 | 307 | 308)
            && let Some(location) = response.headers().get(LOCATION)
        {
            return Ok(Step::Moved(status, String::from_utf8_lossy(location.as_bytes()).into()));
        }
        if !self.status.contains(status.as_u16()) {
            return Err(Bad::Status { got: status.as_u16(), expected: self.status.to_string() });
        }
        if let Some(wanted) = &self.body {
            look(response.into_body(), to, wanted).await?;
        }
        Ok(Step::Done(status))
    }
}

impl Stop {
    /// Where a redirect leads, and how it is asked there (RFC 9110, 15.4): what
    /// was posted is not posted again unless the server says so.
    fn next(&self, status: StatusCode, location: &str) -> Result<Self, Bad> {
        let astray = |why: String| Bad::Redirect { to: location.to_owned(), why };
        let mut url = self.url.join(location).map_err(|error| astray(error.to_string()))?;
        if !matches!(url.scheme(), "http" | "https") || url.host().is_none() {
            return Err(astray("this is neither http nor https".to_owned()));
        }
        url.set_fragment(None);
        let get = match status {
            StatusCode::SEE_OTHER => self.method != hyper::Method::HEAD,
            StatusCode::MOVED_PERMANENTLY | StatusCode::FOUND => self.method == hyper::Method::POST,
            _ => false,
        };
        let method = if get { hyper::Method::GET } else { self.method.clone() };
        Ok(Self { url, method })
    }
}

/// Reads a body until what is wanted has come.
async fn look(mut body: Incoming, to: SocketAddr, wanted: &str) -> Result<(), Bad> {
    let mut read = Vec::new();
    while read.len() < MOST_BODY
        && let Some(frame) = body.frame().await
    {
        let frame = frame.map_err(|error| broken(to, &error))?;
        let Some(data) = frame.data_ref() else { continue };
        let from = (read.len() + 1).saturating_sub(wanted.len());
        read.extend_from_slice(&data[..data.len().min(MOST_BODY - read.len())]);
        if find(&read, wanted.as_bytes(), from).is_some() {
            return Ok(());
        }
    }
    Err(Bad::Body { wanted: wanted.to_owned(), read: read.len() })
}

/// What a failure of the conversation means; the cause is what tells.
fn broken(to: SocketAddr, error: &hyper::Error) -> Bad {
    let mut why = error.to_string();
    let mut cause = std::error::Error::source(error);
    while let Some(inner) = cause {
        if let Some(error) = inner.downcast_ref::<std::io::Error>() {
            let why = error.to_string();
            return match fault(to, error) {
                Bad::NotSent(_) => Bad::Broken { to, why },
                bad => bad,
            };
        }
        why = format!("{why}: {inner}");
        cause = inner.source();
    }
    Bad::Broken { to, why }
}

#[cfg(test)]
#[path = "redirect_tests.rs"]
mod redirect_tests;
#[cfg(test)]
#[path = "http_tests.rs"]
mod tests;
