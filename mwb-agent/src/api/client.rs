//! Asks an agent over its unix socket.

use std::io;
use std::path::Path;

use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Bytes;
use hyper::client::conn::http1;
use hyper::http::request::Builder;
use hyper::{Request, StatusCode, header};
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tokio::net::UnixStream;

/// No answer is near this size: 32 WANs' counters are some hundred kilobytes.
const LARGEST_ANSWER: usize = 64 << 20;

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// Nobody listens.
    #[error("nobody listens")]
    NotRunning(#[source] io::Error),
    /// The socket's rights do not let us in.
    #[error("permission denied")]
    Forbidden,
    /// The agent refused.
    #[error("the agent answered {status}: {message}")]
    Refused {
        /// HTTP status.
        status: StatusCode,
        /// What it said.
        message: String,
    },
    /// The conversation broke.
    #[error("the answer broke off: {0}")]
    Broken(String),
}

/// The body that `GET path` gives.
pub async fn get(socket: &Path, path: &str) -> Result<String, ClientError> {
    accepted(get_any(socket, path).await?)
}

/// The body that `POST path` with `body` gives; `Value::Null` sends none.
pub async fn post(socket: &Path, path: &str, body: &Value) -> Result<String, ClientError> {
    accepted(post_any(socket, path, body).await?)
}

fn accepted((status, body): (StatusCode, String)) -> Result<String, ClientError> {
    if status.is_success() {
        return Ok(body);
    }
    #[derive(serde::Deserialize)]
    struct Refusal {
        error: String,
    }
    let message = serde_json::from_str::<Refusal>(&body).map_or(body, |refusal| refusal.error);
    Err(ClientError::Refused { status, message })
}

/// Status and body that `GET path` gives, be it an error or not.
pub async fn get_any(socket: &Path, path: &str) -> Result<(StatusCode, String), ClientError> {
    exchange(socket, Request::get(path), Bytes::new()).await
}

/// Status and body that `POST path` gives, be it an error or not.
pub async fn post_any(
    socket: &Path,
    path: &str,
    body: &Value,
) -> Result<(StatusCode, String), ClientError> {
    let request = Request::post(path).header(header::CONTENT_TYPE, "application/json");
    let body = if body.is_null() { Bytes::new() } else { Bytes::from(body.to_string()) };
    exchange(socket, request, body).await
}

async fn exchange(
    socket: &Path,
    request: Builder,
    body: Bytes,
) -> Result<(StatusCode, String), ClientError> {
    let stream = UnixStream::connect(socket).await.map_err(|error| match error.kind() {
        io::ErrorKind::PermissionDenied => ClientError::Forbidden,
        _ => ClientError::NotRunning(error),
    })?;
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.map_err(broken)?;
    let exchange = async move {
        let request = request.header(header::HOST, "mwb").body(Full::new(body));
        let reply = sender.send_request(request.map_err(broken)?).await.map_err(broken)?;
        let status = reply.status();
        let body = Limited::new(reply.into_body(), LARGEST_ANSWER).collect().await;
        let bytes = body.map_err(broken)?.to_bytes();
        Ok((status, String::from_utf8(bytes.into()).map_err(broken)?))
    };
    // The connection moves the bytes while the exchange waits for them.
    tokio::pin!(exchange);
    tokio::select! {
        reply = &mut exchange => reply,
        // It ended first: what it brought is still there to be read.
        _ = connection => exchange.await,
    }
}

fn broken(error: impl ToString) -> ClientError {
    ClientError::Broken(error.to_string())
}
