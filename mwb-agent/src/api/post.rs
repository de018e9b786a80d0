//! The routes that change something. Who may use them: see `access`.

use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::extract::State;
use axum::extract::rejection::JsonRejection;
use serde::{Deserialize, Serialize};

use super::Source;
use super::change::{Change, Done};
use super::http::Refusal;

/// Longest time for which a trial or a forced failover may be set: a week.
const LONGEST: u64 = 7 * 24 * 3600;

/// The body of `POST /v1/apply`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ApplyBody {
    /// The text of a configuration file.
    pub config: String,
    /// Seconds in which it must be confirmed; without, it is kept at once.
    #[serde(default)]
    pub confirm_seconds: Option<u64>,
}

/// The body of `POST /v1/failover`: a WAN, or `auto`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
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
}

type Answer = Result<Json<Done>, Refusal>;
type Body<T> = Result<Json<T>, JsonRejection>;

pub(super) async fn reload<S: Source>(State(source): State<Arc<S>>) -> Answer {
    make(&*source, Change::Reload).await
}

pub(super) async fn apply<S: Source>(
    State(source): State<Arc<S>>,
    body: Body<ApplyBody>,
) -> Answer {
    let ApplyBody { config: text, confirm_seconds } = read(body)?;
    let confirm = confirm_seconds.map(|s| span("confirm_seconds", s)).transpose()?;
    make(&*source, Change::Apply { text, confirm }).await
}

pub(super) async fn confirm<S: Source>(State(source): State<Arc<S>>) -> Answer {
    make(&*source, Change::Confirm).await
}

pub(super) async fn failover<S: Source>(
    State(source): State<Arc<S>>,
    body: Body<FailoverBody>,
) -> Answer {
    let change = match read(body)? {
        FailoverBody { wan: Some(wan), seconds, auto: false } => {
            let lasting = seconds.map(|s| span("seconds", s)).transpose()?;
            Change::Failover { wan, lasting }
        }
        FailoverBody { wan: None, seconds: None, auto: true } => Change::FailoverAuto,
        _ => {
            let shapes = r#"{"wan": NAME}, {"wan": NAME, "seconds": N} or {"auto": true}"#;
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
