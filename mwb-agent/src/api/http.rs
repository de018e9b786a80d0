//! Routes and answers. Every error is JSON too: `{"error": "…"}`.

use std::sync::Arc;
use std::time::Duration;

use axum::extract::rejection::QueryRejection;
use axum::extract::{Query, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use serde::Deserialize;
use serde_json::json;

use super::{Source, Unavailable, change, metrics, post as changes};
use crate::events::{Bus, Event};

/// Every route that is read, for those who ask for another.
pub(super) const ROUTES: [&str; 5] =
    ["/v1/status", "/v1/wans", "/v1/counters", "/v1/events", "/metrics"];
/// Every route that changes something.
pub(super) const CHANGES: [&str; 4] = ["/v1/reload", "/v1/apply", "/v1/confirm", "/v1/failover"];

/// The longest that `/v1/events` waits for news.
const LONGEST_WAIT: u64 = 60;

/// All routes over one source.
pub(super) fn router<S: Source>(source: Arc<S>) -> Router {
    Router::new()
        .route("/v1/status", get(status::<S>))
        .route("/v1/wans", get(wans::<S>))
        .route("/v1/counters", get(counters::<S>))
        .route("/v1/events", get(events::<S>))
        .route("/metrics", get(prometheus::<S>))
        .route("/v1/reload", post(changes::reload::<S>))
        .route("/v1/apply", post(changes::apply::<S>))
        .route("/v1/confirm", post(changes::confirm::<S>))
        .route("/v1/failover", post(changes::failover::<S>))
        .fallback(unknown_route)
        .method_not_allowed_fallback(wrong_method)
        .with_state(source)
}

/// An answer that could not be given.
pub(super) enum Refusal {
    Unavailable(Unavailable),
    /// What was asked for has no sense.
    Request(String),
    Change(change::Refusal),
}

impl From<change::Refusal> for Refusal {
    fn from(refusal: change::Refusal) -> Self {
        Refusal::Change(refusal)
    }
}

impl From<Unavailable> for Refusal {
    fn from(error: Unavailable) -> Self {
        Refusal::Unavailable(error)
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        let (code, error) = match self {
            Refusal::Unavailable(error) => (StatusCode::SERVICE_UNAVAILABLE, error.to_string()),
            Refusal::Request(error) => (StatusCode::BAD_REQUEST, error),
            Refusal::Change(refusal) => {
                let code = match refusal {
                    change::Refusal::Wrong(_) => StatusCode::UNPROCESSABLE_ENTITY,
                    change::Refusal::Conflict(_) => StatusCode::CONFLICT,
                    change::Refusal::Failed(_) => StatusCode::INTERNAL_SERVER_ERROR,
                };
                (code, refusal.to_string())
            }
        };
        (code, Json(json!({ "error": error }))).into_response()
    }
}

async fn status<S: Source>(State(source): State<Arc<S>>) -> Result<Response, Refusal> {
    Ok(Json(source.status().await?).into_response())
}

async fn wans<S: Source>(State(source): State<Arc<S>>) -> Result<Response, Refusal> {
    Ok(Json(source.status().await?.wans).into_response())
}

async fn counters<S: Source>(State(source): State<Arc<S>>) -> Result<Response, Refusal> {
    Ok(Json(source.counters().await?).into_response())
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct EventQuery {
    /// Only events with a higher id.
    #[serde(default)]
    since: u64,
    /// Wait this many seconds for one if there is none.
    #[serde(default)]
    wait: u64,
}

async fn events<S: Source>(
    State(source): State<Arc<S>>,
    query: Result<Query<EventQuery>, QueryRejection>,
) -> Result<Response, Refusal> {
    let Query(query) = query.map_err(|error| {
        Refusal::Request(format!("{}; use ?since=ID&wait=SECONDS", error.body_text()))
    })?;
    if query.wait > LONGEST_WAIT {
        return Err(Refusal::Request(format!(
            "wait={} is out of range; choose from 0 to {LONGEST_WAIT}",
            query.wait
        )));
    }
    let wait = Duration::from_secs(query.wait);
    Ok(Json(events_since(source.events(), query.since, wait).await).into_response())
}

/// The events after `since`; if there are none, those that come within `wait`.
async fn events_since(bus: &Bus, since: u64, wait: Duration) -> Vec<Event> {
    // Listening starts before looking, so that none slips through in between.
    let mut live = bus.subscribe();
    let kept = bus.since(since);
    if !kept.is_empty() || wait.is_zero() {
        return kept;
    }
    let news = async {
        loop {
            let event = live.recv().await;
            // An error is "you missed some" or "there will be none": look again.
            if event.map_or(true, |event| event.id > since) {
                return;
            }
        }
    };
    // Whether it came or time ran out, the ring knows.
    let _ = tokio::time::timeout(wait, news).await;
    bus.since(since)
}

async fn prometheus<S: Source>(State(source): State<Arc<S>>) -> Result<Response, Refusal> {
    let status = source.status().await?;
    let counters = source.counters().await?;
    let text = metrics::render(&status, &counters)
        .map_err(|error| Unavailable(format!("metrics could not be written: {error}")))?;
    Ok(([(header::CONTENT_TYPE, metrics::CONTENT_TYPE)], text).into_response())
}

async fn unknown_route() -> Response {
    let routes: Vec<&str> = ROUTES.into_iter().chain(CHANGES).collect();
    let body = json!({ "error": "no such route", "routes": routes });
    (StatusCode::NOT_FOUND, Json(body)).into_response()
}

async fn wrong_method() -> Response {
    let body =
        json!({ "error": "wrong method: what is read needs GET, what changes something POST" });
    (StatusCode::METHOD_NOT_ALLOWED, Json(body)).into_response()
}
