//! That the description describes every route, and is the one that is published.

use std::collections::BTreeSet;
use std::path::Path;

use serde_json::Value;

use super::super::client::get;
use super::super::http::{CHANGES, ROUTES};
use super::super::openapi;
use super::{sample, start};

/// Writes the published copy anew instead of comparing with it.
const WRITE: &str = "MWB_WRITE_DOCS";

fn description() -> Value {
    serde_json::from_str(&openapi::text()).expect("it is JSON")
}

#[test]
fn the_published_copy_is_the_generated_one() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/openapi.json");
    let generated = openapi::text();
    if std::env::var_os(WRITE).is_some() {
        std::fs::write(&path, &generated).expect("written");
    }
    let published = std::fs::read_to_string(&path).expect("docs/openapi.json is there");
    assert!(published == generated, "run this test with {WRITE}=1 to write docs/openapi.json anew");
}

#[test]
fn every_route_is_described_with_its_method_and_none_beside() {
    let description = description();
    assert_eq!(description["openapi"], "3.1.0");
    let paths = description["paths"].as_object().expect("paths");
    let described: BTreeSet<(&str, &str)> = paths
        .iter()
        .flat_map(|(path, methods)| {
            let methods = methods.as_object().expect("methods");
            methods.keys().map(move |method| (path.as_str(), method.as_str()))
        })
        .collect();
    let reads = ROUTES.iter().map(|route| (*route, "get"));
    let known: BTreeSet<_> = reads.chain(CHANGES.iter().map(|route| (*route, "post"))).collect();
    assert_eq!(described, known);
}

#[test]
fn changes_name_the_token_and_reads_do_not() {
    let description = description();
    for (path, methods) in description["paths"].as_object().expect("paths") {
        let security = &methods["post"]["security"];
        assert_eq!(CHANGES.contains(&path.as_str()), security.to_string().contains("token"));
    }
    assert_eq!(description["components"]["securitySchemes"]["token"]["scheme"], "bearer");
}

#[test]
fn every_field_says_what_it_is() {
    let description = description();
    let schemas = description["components"]["schemas"].as_object().expect("schemas");
    let mut fields = 0;
    for (name, schema) in schemas {
        assert!(schema["description"].is_string(), "{name}");
        for (field, property) in schema["properties"].as_object().into_iter().flatten() {
            fields += 1;
            let choices = property["oneOf"].as_array().into_iter().flatten();
            let said =
                std::iter::once(property).chain(choices).any(|p| p["description"].is_string());
            assert!(said, "{name}.{field}: {property}");
        }
    }
    assert!(fields > 60, "{fields}");
}

#[tokio::test]
async fn the_agent_serves_its_description() {
    let server = start(Ok(sample()));
    let served = get(&server.socket, "/v1/openapi.json").await.expect("an answer");
    assert_eq!(served, openapi::text());
}
