//! The routes that change something. Who may use them: see `access`.

use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::extract::State;
use axum::extract::rejection::JsonRejection;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::Source;
use super::change::{Change, Done};
use super::http::{Fault, Refusal};

/// Longest time for which a trial or a forced failover may be set: a week.
const LONGEST: u64 = 7 * 24 * 3600;

/// The body of `POST /v1/apply`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ApplyBody {
    /// The text of a configuration file.
    pub config: String,
    /// Seconds in which it must be confirmed; without, it is kept at once.
    #[serde(default)]
    pub confirm_seconds: Option<u64>,
}

/// The body of `POST /v1/failover`: a WAN, or `auto`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct FailoverBody {
    /// Name of the WAN that all traffic is to take.
    #[serde(default)]
    pub wan: Option<String>,
    /// Seconds after which health decides again; without, until `auto`.
    #[serde(default)]
    pub seconds: Option<u64>,
    /// `true`: health decides again.
    #[serde(default)]
    pub auto: bool,
    /// `true`: only say what would be different.
    #[serde(default)]
    pub dry_run: bool,
}

type Answer = Result<Json<Done>, Refusal>;
type Body<T> = Result<Json<T>, JsonRejection>;

/// Read the agent's configuration file again and apply the difference.
#[utoipa::path(post, path = "/v1/reload", tag = "change", security((), ("token" = [])), responses(
    (status = 200, body = Done),
    (status = 401, description = "Over TCP: not the token.", body = Fault),
    (status = 403, description = "Over TCP: changes are off.", body = Fault),
    (status = 409, description = "Not in this state.", body = Fault),
    (status = 422, description = "What was asked for is wrong; nothing is different.", body = Fault),
    (status = 500, description = "The system did not let us; nothing is different.", body = Fault),
))]
pub(super) async fn reload<S: Source>(State(source): State<Arc<S>>) -> Answer {
    make(&*source, Change::Reload).await
}

/// Apply the difference to a configuration, for good or until it is confirmed.
#[utoipa::path(post, path = "/v1/apply", tag = "change", security((), ("token" = [])), request_body = ApplyBody, responses(
    (status = 200, body = Done),
    (status = 400, description = "The body has no sense.", body = Fault),
    (status = 401, description = "Over TCP: not the token.", body = Fault),
    (status = 403, description = "Over TCP: changes are off.", body = Fault),
    (status = 409, description = "Not in this state.", body = Fault),
    (status = 422, description = "What was asked for is wrong; nothing is different.", body = Fault),
    (status = 500, description = "The system did not let us; nothing is different.", body = Fault),
))]
pub(super) async fn apply<S: Source>(
    State(source): State<Arc<S>>,
    body: Body<ApplyBody>,
) -> Answer {
    let ApplyBody { config: text, confirm_seconds } = read(body)?;
    let confirm = confirm_seconds.map(|s| span("confirm_seconds", s)).transpose()?;
    make(&*source, Change::Apply { text, confirm }).await
}

/// Keep what was applied for a trial.
#[utoipa::path(post, path = "/v1/confirm", tag = "change", security((), ("token" = [])), responses(
    (status = 200, body = Done),
    (status = 401, description = "Over TCP: not the token.", body = Fault),
    (status = 403, description = "Over TCP: changes are off.", body = Fault),
    (status = 409, description = "Not in this state.", body = Fault),
    (status = 422, description = "What was asked for is wrong; nothing is different.", body = Fault),
    (status = 500, description = "The system did not let us; nothing is different.", body = Fault),
))]
pub(super) async fn confirm<S: Source>(State(source): State<Arc<S>>) -> Answer {
    make(&*source, Change::Confirm).await
}

/// Send all traffic to one WAN, or let health decide again.
#[utoipa::path(post, path = "/v1/failover", tag = "change", security((), ("token" = [])), request_body = FailoverBody, responses(
    (status = 200, body = Done),
    (status = 400, description = "The body has no sense.", body = Fault),
    (status = 401, description = "Over TCP: not the token.", body = Fault),
    (status = 403, description = "Over TCP: changes are off.", body = Fault),
    (status = 409, description = "Not in this state.", body = Fault),
    (status = 422, description = "What was asked for is wrong; nothing is different.", body = Fault),
    (status = 500, description = "The system did not let us; nothing is different.", body = Fault),
))]
pub(super) async fn failover<S: Source>(
    State(source): State<Arc<S>>,
    body: Body<FailoverBody>,
) -> Answer {
    let change = match read(body)? {
        FailoverBody { wan: Some(wan), seconds: _, auto: false, dry_run: true } => {
            Change::Rehearse { wan: Some(wan) }
        }
        FailoverBody { wan: None, seconds: None, auto: true, dry_run: true } => {
            Change::Rehearse { wan: None }
        }
        FailoverBody { wan: Some(wan), seconds, auto: false, dry_run: false } => {
            let lasting = seconds.map(|s| span("seconds", s)).transpose()?;
            Change::Failover { wan, lasting }
        }
        FailoverBody { wan: None, seconds: None, auto: true, dry_run: false } => {
            Change::FailoverAuto
        }
        _ => {
            let shapes = r#"{"wan": NAME}, {"wan": NAME, "seconds": N} or {"auto": true}, with "dry_run": true or without"#;
            return Err(Refusal::Request(format!("give {shapes}")));
        }
    };
    make(&*source, change).await
}

async fn make<S: Source>(source: &S, change: Change) -> Answer {
    Ok(Json(source.changes().make(change).await?))
}

fn read<T>(body: Body<T>) -> Result<T, Refusal> {
    body.map(|Json(body)| body).map_err(|error| Refusal::Request(error.body_text()))
}

fn span(name: &str, seconds: u64) -> Result<Duration, Refusal> {
    if (1..=LONGEST).contains(&seconds) {
        return Ok(Duration::from_secs(seconds));
    }
    Err(Refusal::Request(format!("{name}={seconds} is out of range; choose from 1 to {LONGEST}")))
}
