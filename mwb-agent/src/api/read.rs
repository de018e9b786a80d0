//! The routes that are read.

use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::extract::rejection::QueryRejection;
use axum::extract::{Query, State};
use axum::http::header;
use axum::response::{IntoResponse, Response};
use serde::Deserialize;
use utoipa::IntoParams;

use super::bond::BondStatus;
use super::doctor::{DoctorQuery, Report};
use super::explain::{Explanation, WhyQuery};
use super::flows::{FlowList, FlowQuery, LARGEST_TOP};
use super::http::{Fault, Refusal};
use super::policy::{AddressQuery, AddressStatus, PolicyStatus, RuleStatus};
use super::snapshot::{CounterRow, Status, WanStatus};
use super::{Source, Unavailable, metrics};
use crate::events::{Bus, Event};
use crate::explain::{Entry, Packet};

/// The longest that `/v1/events` waits for news.
const LONGEST_WAIT: u64 = 60;
/// The longest that `/v1/doctor` watches.
const LONGEST_WATCH: u64 = 30;

type Asked<Q> = Result<Query<Q>, QueryRejection>;

/// Everything on one page.
#[utoipa::path(get, path = "/v1/status", tag = "read", responses(
    (status = 200, body = Status),
    (status = 503, description = "The data plane cannot be read.", body = Fault),
))]
pub(super) async fn status<S: Source>(State(source): State<Arc<S>>) -> Answer<Status> {
    Ok(Json(source.status().await?))
}

type Answer<T> = Result<Json<T>, Refusal>;

/// The WAN links.
#[utoipa::path(get, path = "/v1/wans", tag = "read", responses(
    (status = 200, body = Vec<WanStatus>),
    (status = 503, description = "The data plane cannot be read.", body = Fault),
))]
pub(super) async fn wans<S: Source>(State(source): State<Arc<S>>) -> Answer<Vec<WanStatus>> {
    Ok(Json(source.status().await?.wans))
}

/// This end of its bonds: sessions, their paths, what handshakes have come to; null
/// without a bond.
#[utoipa::path(get, path = "/v1/bond", tag = "read", responses(
    (status = 200, body = Option<BondStatus>),
    (status = 503, description = "The data plane cannot be read.", body = Fault),
))]
pub(super) async fn bond<S: Source>(State(source): State<Arc<S>>) -> Answer<Option<BondStatus>> {
    Ok(Json(source.status().await?.bond))
}

/// Policy rules: what they match, whether they count now, where they lead and how often.
#[utoipa::path(get, path = "/v1/policy", tag = "read", responses(
    (status = 200, body = PolicyStatus),
    (status = 503, description = "The data plane cannot be read.", body = Fault),
))]
pub(super) async fn policy<S: Source>(State(source): State<Arc<S>>) -> Answer<PolicyStatus> {
    Ok(Json(source.policy().await?))
}

/// Addresses that are known of the names that a policy rule asks for.
#[utoipa::path(get, path = "/v1/policy/addresses", tag = "read", params(AddressQuery), responses(
    (status = 200, body = Vec<AddressStatus>),
    (status = 400, description = "There is no such rule, or it asks for no name.", body = Fault),
    (status = 503, description = "The data plane cannot be read.", body = Fault),
))]
pub(super) async fn addresses<S: Source>(
    State(source): State<Arc<S>>,
    query: Asked<AddressQuery>,
) -> Answer<Vec<AddressStatus>> {
    let AddressQuery { rule } = understood(query, "rule=NAME")?;
    let rules = source.policy().await?.rules;
    let has = |one: &&RuleStatus| one.addresses.is_some();
    if !rules.iter().filter(has).any(|one| one.name == rule) {
        let names: Vec<&str> = rules.iter().filter(has).map(|one| one.name.as_str()).collect();
        let there = if names.is_empty() { "none has".to_owned() } else { names.join(", ") };
        let error = format!("`{rule}` is no policy rule with `domain`; these have it: {there}");
        return Err(Refusal::Request(error));
    }
    Ok(Json(source.addresses(&rule).await?))
}

/// Packets by what became of them and why.
#[utoipa::path(get, path = "/v1/counters", tag = "read", responses(
    (status = 200, body = Vec<CounterRow>),
    (status = 503, description = "The data plane cannot be read.", body = Fault),
))]
pub(super) async fn counters<S: Source>(State(source): State<Arc<S>>) -> Answer<Vec<CounterRow>> {
    Ok(Json(source.counters().await?))
}

/// Open flows, filtered and sorted.
#[utoipa::path(get, path = "/v1/flows", tag = "read", params(FlowQuery), responses(
    (status = 200, body = FlowList),
    (status = 400, description = "The query has no sense.", body = Fault),
    (status = 503, description = "The data plane cannot be read.", body = Fault),
))]
pub(super) async fn flows<S: Source>(
    State(source): State<Arc<S>>,
    query: Asked<FlowQuery>,
) -> Answer<FlowList> {
    let hint = "wan, proto, source, destination, port, state, sort, top";
    let query = understood(query, hint)?;
    if let Some(top) = query.top.filter(|top| !(1..=LARGEST_TOP).contains(top)) {
        let error = format!("top={top} is out of range; choose from 1 to {LARGEST_TOP}");
        return Err(Refusal::Request(error));
    }
    if let Some(wan) = &query.wan {
        let wans = source.status().await?.wans;
        let names: Vec<&str> = wans.iter().map(|wan| wan.name.as_str()).collect();
        if !names.contains(&wan.as_str()) {
            let error = format!("no WAN is called `{wan}`; there are {}", names.join(", "));
            return Err(Refusal::Request(error));
        }
    }
    Ok(Json(source.flows(query).await?))
}

/// Which rule, mode, slot, ranking and liveness lead a packet to its WAN, and
/// what would change it.
#[utoipa::path(get, path = "/v1/why", tag = "read", params(WhyQuery), responses(
    (status = 200, body = Explanation),
    (status = 400, description = "The query names no packet.", body = Fault),
    (status = 503, description = "The data plane cannot be read.", body = Fault),
))]
pub(super) async fn why<S: Source>(
    State(source): State<Arc<S>>,
    query: Asked<WhyQuery>,
) -> Answer<Explanation> {
    let asked = understood(query, "packet=tcp 192.0.2.10:1234 203.0.113.5:443")?;
    let wrong = |error: crate::explain::NotAPacket| Refusal::Request(error.to_string());
    let packet: Packet = asked.packet.parse().map_err(wrong)?;
    let entry = Entry::read(&asked).map_err(wrong)?;
    if let Some(lan) = &entry.lan {
        let there = source.status().await?.lan;
        if !there.iter().any(|port| port.device == *lan) {
            let names: Vec<&str> = there.iter().map(|port| port.device.as_str()).collect();
            let error = format!("`{lan}` is no LAN port; there are {}", names.join(", "));
            return Err(Refusal::Request(error));
        }
    }
    Ok(Json(source.why(packet, entry).await?))
}

/// What is right and wrong with the gateway, and what limits it.
#[utoipa::path(get, path = "/v1/doctor", tag = "read", params(DoctorQuery), responses(
    (status = 200, body = Report),
    (status = 400, description = "The query has no sense.", body = Fault),
    (status = 503, description = "The data plane cannot be read.", body = Fault),
))]
pub(super) async fn doctor<S: Source>(
    State(source): State<Arc<S>>,
    query: Asked<DoctorQuery>,
) -> Answer<Report> {
    let seconds = understood(query, "seconds=N")?.seconds.unwrap_or(1);
    if !(1..=LONGEST_WATCH).contains(&seconds) {
        let error = format!("seconds={seconds} is out of range; choose from 1 to {LONGEST_WATCH}");
        return Err(Refusal::Request(error));
    }
    Ok(Json(source.doctor(Duration::from_secs(seconds)).await?))
}

/// Which events, and whether to wait for one.
#[derive(Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct EventQuery {
    /// Only events with a higher id.
    #[serde(default)]
    since: u64,
    /// Wait this many seconds for one if there is none, 0 to 60.
    #[serde(default)]
    wait: u64,
}

/// What happened, oldest first. With `wait` the answer comes with the next
/// event: asking again with the last id as `since` follows them all.
#[utoipa::path(get, path = "/v1/events", tag = "read", params(EventQuery), responses(
    (status = 200, body = Vec<Event>),
    (status = 400, description = "The query has no sense.", body = Fault),
))]
pub(super) async fn events<S: Source>(
    State(source): State<Arc<S>>,
    query: Asked<EventQuery>,
) -> Answer<Vec<Event>> {
    let query = understood(query, "since=ID&wait=SECONDS")?;
    if query.wait > LONGEST_WAIT {
        let error = format!("wait={} is out of range; choose from 0 to {LONGEST_WAIT}", query.wait);
        return Err(Refusal::Request(error));
    }
    let wait = Duration::from_secs(query.wait);
    Ok(Json(events_since(source.events(), query.since, wait).await))
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

/// Metrics in the Prometheus text format.
#[utoipa::path(get, path = "/metrics", tag = "read", responses(
    (status = 200, body = String, content_type = "text/plain"),
    (status = 503, description = "The data plane cannot be read.", body = Fault),
))]
pub(super) async fn prometheus<S: Source>(
    State(source): State<Arc<S>>,
) -> Result<Response, Refusal> {
    let status = source.status().await?;
    let counters = source.counters().await?;
    let policy = source.policy().await?;
    let text = metrics::render(&status, &counters, &policy)
        .map_err(|error| Unavailable(format!("metrics could not be written: {error}")))?;
    Ok(([(header::CONTENT_TYPE, metrics::CONTENT_TYPE)], text).into_response())
}

/// The query, or what was meant by it.
fn understood<Q>(query: Asked<Q>, hint: &str) -> Result<Q, Refusal> {
    let Query(query) =
        query.map_err(|error| Refusal::Request(format!("{}; use ?{hint}", error.body_text())))?;
    Ok(query)
}
