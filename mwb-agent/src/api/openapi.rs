//! The OpenAPI 3.1 description of the API, made from the code that answers.

use axum::http::header;
use axum::response::{IntoResponse, Response};
use utoipa::openapi::security::{HttpAuthScheme, HttpBuilder, SecurityScheme};
use utoipa::{Modify, OpenApi};

use super::{past, post, read};

#[derive(OpenApi)]
#[openapi(
    info(
        title = "MultiWANBond agent",
        description = "State and control of a MultiWANBond gateway. Over the unix socket all may \
            be used by whoever may connect; over TCP reading is free, and what changes something \
            needs the bearer token of `api.token_file`. Times and sizes have their unit in their \
            name. Fields are added, never renamed or removed.",
        license(name = "MIT OR Apache-2.0", identifier = "MIT OR Apache-2.0"),
        contact(),
    ),
    paths(
        read::status, read::wans, read::bond, read::policy, read::addresses,
        read::counters, read::flows, read::why, read::doctor,
        read::events, past::history, past::notified, read::prometheus, description,
        post::reload, post::apply, post::confirm, post::failover, past::test,
    ),
    tags(
        (name = "read", description = "What is."),
        (name = "change", description = "What is to be different."),
    ),
    modifiers(&Token),
)]
struct Description;

/// Names the token that changes over TCP need.
struct Token;

impl Modify for Token {
    fn modify(&self, description: &mut utoipa::openapi::OpenApi) {
        let scheme = HttpBuilder::new()
            .scheme(HttpAuthScheme::Bearer)
            .description(Some("The token of `api.token_file`; the unix socket needs none."))
            .build();
        let components = description.components.get_or_insert_default();
        components.add_security_scheme("token", SecurityScheme::Http(scheme));
    }
}

/// The text of the description.
pub(super) fn text() -> String {
    // Serialising plain strings and maps does not fail.
    Description::openapi().to_pretty_json().map(|text| text + "\n").unwrap_or_default()
}

/// This description.
#[utoipa::path(get, path = "/v1/openapi.json", tag = "read", responses(
    (status = 200, body = serde_json::Value),
))]
pub(super) async fn description() -> Response {
    ([(header::CONTENT_TYPE, "application/json")], text()).into_response()
}
