//! What is answered about policy rules.

use super::super::client::{ClientError, get};
use super::super::policy::{AddressStatus, DomainStatus, PolicyStatus, RuleStatus};
use super::{sample, start};

/// Three rules, two of which count, and one asks for a name.
pub(super) fn policy_sample() -> PolicyStatus {
    let voip = RuleStatus {
        name: "voip".to_owned(),
        matches: "protocol: udp, port: 5060".to_owned(),
        action: "use: fiber".to_owned(),
        active: true,
        wans: vec!["fiber".to_owned()],
        hits: 12,
        ..RuleStatus::default()
    };
    let night = RuleStatus {
        name: "rule-2".to_owned(),
        time: Some("{from: \"22:00\", to: \"06:00\"}".to_owned()),
        action: "use: block".to_owned(),
        changes_in_minutes: Some(90),
        ..RuleStatus::default()
    };
    let cdn = RuleStatus {
        name: "cdn".to_owned(),
        matches: "domain: \"*.example.net\"".to_owned(),
        action: "use: fiber".to_owned(),
        active: true,
        addresses: Some(7),
        ..RuleStatus::default()
    };
    let domains = DomainStatus {
        addresses: 9,
        capacity: 16_384,
        answers: 20,
        of_others: 300,
        without_address: 40,
        unreadable: 1,
        dropped: 2,
        given_up: 3,
        pushed_out: 4,
        refused: 5,
        heard: vec!["lan0".to_owned()],
        ..DomainStatus::default()
    };
    PolicyStatus { rules: vec![voip, night, cdn], domains: Some(domains) }
}

#[tokio::test]
async fn addresses_are_asked_for_by_a_rule_with_names() {
    let server = start(Ok(sample()));
    let body = get(&server.socket, "/v1/policy/addresses?rule=cdn").await.expect("an answer");
    let all: Vec<AddressStatus> = serde_json::from_str(&body).expect("JSON");
    assert_eq!((all.len(), all[0].name.as_deref()), (1, Some("www.cdn.example")));
    for rule in ["voip", "nobody"] {
        let asked = format!("/v1/policy/addresses?rule={rule}");
        match get(&server.socket, &asked).await {
            Err(ClientError::Refused { status, message }) => {
                assert_eq!(status, 400, "{rule}");
                assert!(message.contains("these have it: cdn"), "{message}");
            }
            other => panic!("{rule}: {other:?}"),
        }
    }
}
