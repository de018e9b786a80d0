//! Routes and refusals. Every error is JSON too: `{"error": "…"}`.

use std::sync::Arc;

use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use serde::Serialize;
use serde_json::json;
use utoipa::ToSchema;

use super::{Source, Unavailable, change, openapi, past, post as changes, read};

/// Every route that is read, for those who ask for another.
pub(super) const ROUTES: [&str; 14] = [
    "/v1/status",
    "/v1/wans",
    "/v1/bond",
    "/v1/policy",
    "/v1/policy/addresses",
    "/v1/counters",
    "/v1/flows",
    "/v1/why",
    "/v1/doctor",
    "/v1/events",
    "/v1/history",
    "/v1/notify",
    "/v1/openapi.json",
    "/metrics",
];
/// Every route that changes something.
pub(super) const CHANGES: [&str; 5] =
    ["/v1/reload", "/v1/apply", "/v1/confirm", "/v1/failover", "/v1/notify/test"];

/// All routes over one source.
pub(super) fn router<S: Source>(source: Arc<S>) -> Router {
    Router::new()
        .route("/v1/status", get(read::status::<S>))
        .route("/v1/wans", get(read::wans::<S>))
        .route("/v1/bond", get(read::bond::<S>))
        .route("/v1/policy", get(read::policy::<S>))
        .route("/v1/policy/addresses", get(read::addresses::<S>))
        .route("/v1/counters", get(read::counters::<S>))
        .route("/v1/flows", get(read::flows::<S>))
        .route("/v1/why", get(read::why::<S>))
        .route("/v1/doctor", get(read::doctor::<S>))
        .route("/v1/events", get(read::events::<S>))
        .route("/v1/history", get(past::history::<S>))
        .route("/v1/notify", get(past::notified::<S>))
        .route("/v1/notify/test", post(past::test::<S>))
        .route("/v1/openapi.json", get(openapi::description))
        .route("/metrics", get(read::prometheus::<S>))
        .route("/v1/reload", post(changes::reload::<S>))
        .route("/v1/apply", post(changes::apply::<S>))
        .route("/v1/confirm", post(changes::confirm::<S>))
        .route("/v1/failover", post(changes::failover::<S>))
        .fallback(unknown_route)
        .method_not_allowed_fallback(wrong_method)
        .with_state(source)
}

/// The body of every refusal.
#[derive(Serialize, ToSchema)]
pub(super) struct Fault {
    /// What is wrong, and what would be right.
    error: String,
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
        (code, Json(Fault { error })).into_response()
    }
}

async fn unknown_route() -> Response {
    let routes: Vec<&str> = ROUTES.into_iter().chain(CHANGES).collect();
    let body = json!({ "error": "no such route", "routes": routes });
    (StatusCode::NOT_FOUND, Json(body)).into_response()
}

async fn wrong_method() -> Response {
    let error = "wrong method: what is read needs GET, what changes something POST".to_owned();
    (StatusCode::METHOD_NOT_ALLOWED, Json(Fault { error })).into_response()
}
