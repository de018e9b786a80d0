//! What has been: the history of a WAN, and how it goes with those who are told.

use std::sync::Arc;

use axum::Json;
use axum::extract::rejection::{JsonRejection, QueryRejection};
use axum::extract::{Query, State};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use super::http::{Fault, Refusal};
use super::{Source, Unavailable};
use crate::notify;

/// The longest time that can be asked for, in seconds: ten years.
const LONGEST: u64 = 10 * 366 * 86_400;
/// What is shown without a time: a day.
const DAY: u64 = 86_400;

/// Of which WAN, and of how long.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct HistoryQuery {
    /// Its name, or the name that it had.
    pub wan: String,
    /// Only by this kind of check: `ping`, `http` and so on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub method: Option<String>,
    /// How many seconds back; a day unless said otherwise.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub seconds: Option<u64>,
    /// Draw with ASCII characters only.
    #[serde(default)]
    pub ascii: bool,
}

/// The past of a WAN.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct History {
    /// Its name.
    pub wan: String,
    /// The kind of check, empty for all together.
    pub method: String,
    /// From when on, in seconds since 1970.
    pub since: i64,
    /// Until when.
    pub until: i64,
    /// All of it in one piece.
    pub summary: Stretch,
    /// Part of the time that the WAN was up or degraded, of that in which its state was
    /// known, 0 to 1.
    pub availability: Option<f64>,
    /// How often it was out.
    pub outages: u64,
    /// The longest of these, in seconds.
    pub longest_outage_seconds: f64,
    /// Rounds in a row that were answered, if the last one was.
    pub answered_in_a_row: u64,
    /// Rounds in a row that were not, if the last one was not.
    pub lost_in_a_row: u64,
    /// Its parts, of one length, oldest first; those without data are left out.
    pub periods: Vec<Stretch>,
    /// The latest changes of state, newest first, at most 100.
    pub changes: Vec<StateChange>,
    /// All that as a drawing for a terminal.
    pub chart: String,
}

/// A stretch of time.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Stretch {
    /// When it begins, in seconds since 1970.
    pub start: i64,
    /// How long it is.
    pub seconds: i64,
    /// Rounds of checks.
    pub rounds: u64,
    /// Of these, those without an answer.
    pub lost: u64,
    /// The shortest time to an answer.
    pub min_ms: Option<f64>,
    /// The mean.
    pub avg_ms: Option<f64>,
    /// What half of them do not exceed, within 3.2 %.
    pub p50_ms: Option<f64>,
    /// What 95 of 100 do not exceed.
    pub p95_ms: Option<f64>,
    /// What 99 of 100 do not exceed.
    pub p99_ms: Option<f64>,
    /// The longest.
    pub max_ms: Option<f64>,
    /// Mean of the jitter (RFC 3550, 6.4.1, over round trips).
    pub jitter_ms: Option<f64>,
    /// Seconds in each state, by its name; those that are zero are left out.
    pub states: std::collections::BTreeMap<String, f64>,
}

/// A change of a WAN's state.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct StateChange {
    /// When, in milliseconds since 1970.
    pub unix_ms: i64,
    /// The state before.
    pub from: String,
    /// The state from then on.
    pub to: String,
    /// Why.
    pub reason: String,
    /// The kind of check by which it was found, if by one.
    pub method: String,
}

/// The past of a WAN: what checks have found, its states, and a drawing.
#[utoipa::path(get, path = "/v1/history", tag = "read", params(HistoryQuery), responses(
    (status = 200, body = History),
    (status = 400, description = "The query has no sense.", body = Fault),
    (status = 503, description = "Nothing is kept, or it cannot be read.", body = Fault),
))]
pub(super) async fn history<S: Source>(
    State(source): State<Arc<S>>,
    query: Result<Query<HistoryQuery>, QueryRejection>,
) -> Result<Json<History>, Refusal> {
    let Query(query) = query.map_err(|error| {
        Refusal::Request(format!("{}; known are wan, method, seconds, ascii", error.body_text()))
    })?;
    let seconds = query.seconds.unwrap_or(DAY);
    if !(10..=LONGEST).contains(&seconds) {
        let error = format!("seconds={seconds} is out of range; choose from 10 to {LONGEST}");
        return Err(Refusal::Request(error));
    }
    Ok(Json(source.history(HistoryQuery { seconds: Some(seconds), ..query }).await?))
}

/// How it goes with each receiver.
#[utoipa::path(get, path = "/v1/notify", tag = "read", responses(
    (status = 200, body = notify::Status),
    (status = 503, description = "The agent is about to stop.", body = Fault),
))]
pub(super) async fn notified<S: Source>(
    State(source): State<Arc<S>>,
) -> Result<Json<notify::Status>, Refusal> {
    Ok(Json(source.notified().await?))
}

/// The body of `POST /v1/notify/test`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct TestBody {
    /// Name of the receiver.
    pub receiver: String,
}

/// Tell one receiver that this is a test, now.
#[utoipa::path(post, path = "/v1/notify/test", tag = "change", security((), ("token" = [])), request_body = TestBody, responses(
    (status = 200, body = notify::Tested),
    (status = 400, description = "The body has no sense.", body = Fault),
    (status = 401, description = "Over TCP: not the token.", body = Fault),
    (status = 403, description = "Over TCP: changes are off.", body = Fault),
    (status = 503, description = "There is no such receiver, or it did not take it.", body = Fault),
))]
pub(super) async fn test<S: Source>(
    State(source): State<Arc<S>>,
    body: Result<Json<TestBody>, JsonRejection>,
) -> Result<Json<notify::Tested>, Refusal> {
    let Json(body) = body.map_err(|error| Refusal::Request(error.body_text()))?;
    let tested = source.test_receiver(&body.receiver).await;
    Ok(Json(tested.map_err(Unavailable)?))
}
