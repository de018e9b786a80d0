//! The metrics' text, and that `docs/metrics.md` says the same.

use std::collections::{BTreeMap, BTreeSet};

use mwb_common::reason::{Reason, Verdict};

use super::super::metrics::{FAMILIES, render};
use super::policy::policy_sample;
use super::sample;

const DOCUMENT: &str = include_str!("../../../../docs/metrics.md");
const RULES: &str = include_str!("../../../../deploy/prometheus/mwb.rules.yaml");

fn text() -> String {
    let (status, counters) = sample();
    render(&status, &counters, &policy_sample()).expect("the sample can be rendered")
}

/// Type by name, from the `# TYPE` lines.
fn types(text: &str) -> BTreeMap<&str, &str> {
    text.lines().filter_map(|line| line.strip_prefix("# TYPE ")?.split_once(' ')).collect()
}

#[test]
fn known_figures_are_there_and_unknown_ones_have_no_series() {
    let text = text();
    for line in [
        "mwb_build_info{version=\"0.1.0\"} 1",
        "mwb_hook_info{device=\"lan0\",hook=\"tcx\",mode=\"tcx\",role=\"lan\"} 1",
        "mwb_hook_info{device=\"wan0\",hook=\"xdp\",mode=\"native\",role=\"wan\"} 1",
        "mwb_wan_up{wan=\"fiber\"} 1",
        "mwb_wan_up{wan=\"lte\"} 0",
        "mwb_wan_state{state=\"degraded\",wan=\"fiber\"} 1",
        "mwb_wan_state{state=\"up\",wan=\"fiber\"} 0",
        "mwb_wan_rtt_seconds{wan=\"fiber\"} 0.0205",
        "mwb_wan_jitter_seconds{wan=\"fiber\"} 0.0015",
        "mwb_wan_loss_ratio{wan=\"fiber\"} 0.06",
        "mwb_wan_packets_total{direction=\"in\",wan=\"fiber\"} 1000",
        "mwb_wan_bytes_total{direction=\"out\",wan=\"fiber\"} 30000",
        "mwb_packets_total{direction=\"in\",protocol=\"tcp4\",reason=\"no_mapping\",verdict=\"kernel\",wan=\"none\"} 3",
        "mwb_bytes_total{direction=\"out\",protocol=\"tcp4\",reason=\"forwarded\",verdict=\"forward\",wan=\"fiber\"} 30000",
        "mwb_nat_mappings 7",
        "mwb_nat_flows{family=\"ipv4\"} 9",
        "mwb_nat_flows{family=\"ipv6\"} 4",
        "mwb_nat_flow_capacity 131072",
        "mwb_nat_ports_used{wan=\"fiber\"} 7",
        "mwb_failovers_total{wan=\"fiber\"} 2",
        "mwb_wan_forced{wan=\"fiber\"} 0",
        "mwb_wan_hold_down_seconds{wan=\"fiber\"} 10",
        "mwb_wan_held{wan=\"fiber\"} 1",
        "mwb_wan_held{wan=\"lte\"} 0",
        "mwb_wan_relapses{wan=\"fiber\"} 1",
        "mwb_wan_check_info{method=\"http\",wan=\"fiber\"} 1",
        "mwb_wan_check_interval_seconds{wan=\"fiber\"} 0.2",
        "mwb_wan_check_reliability{method=\"http\",wan=\"fiber\"} 0.875",
        "mwb_notify_waiting{receiver=\"ops\"} 3",
        "mwb_notify_events_total{receiver=\"ops\",result=\"told\"} 12",
        "mwb_notify_events_total{receiver=\"ops\",result=\"refused\"} 1",
        "mwb_wan_draining{wan=\"lte\"} 1",
        "mwb_redirect_losses_total{device=\"wan0\"} 6",
        "mwb_policy_hits_total{rule=\"voip\"} 12",
        "mwb_policy_active{rule=\"rule-2\"} 0",
        "mwb_policy_addresses{rule=\"cdn\"} 7",
        "mwb_domain_addresses 9",
        "mwb_domain_answers_total{result=\"taken\"} 20",
        "mwb_domain_answers_total{result=\"other_name\"} 300",
        "mwb_domain_answers_total{result=\"no_address\"} 40",
        "mwb_domain_answers_total{result=\"unreadable\"} 1",
        "mwb_domain_missed_total{cause=\"queue_full\"} 2",
        "mwb_domain_missed_total{cause=\"given_up\"} 3",
        "mwb_domain_addresses_refused_total{cause=\"pushed_out\"} 4",
        "mwb_domain_addresses_refused_total{cause=\"no_room\"} 5",
        "mwb_bond_sessions 1",
        "mwb_bond_unanswered_seconds 1.5",
        "mwb_bond_keys_age_seconds{peer=\"server\"} 30",
        "mwb_bond_path_state{path=\"1\",peer=\"server\",state=\"alive\",wan=\"fiber\"} 1",
        "mwb_bond_path_state{path=\"2\",peer=\"server\",state=\"alive\",wan=\"lte\"} 0",
        "mwb_bond_path_state{path=\"2\",peer=\"server\",state=\"dead\",wan=\"lte\"} 1",
        "mwb_bond_path_rtt_seconds{path=\"1\",peer=\"server\",wan=\"fiber\"} 0.0125",
        "mwb_bond_path_capacity_bits_per_second{path=\"1\",peer=\"server\",wan=\"fiber\"} 94000000",
        "mwb_bond_path_probe_interval_seconds{path=\"1\",peer=\"server\",wan=\"fiber\"} 0.05",
        "mwb_bond_path_packets_total{direction=\"out\",path=\"1\",peer=\"server\",wan=\"fiber\"} 900",
        "mwb_bond_path_lost_packets_total{path=\"1\",peer=\"server\",wan=\"fiber\"} 5",
        "mwb_bond_order_packets_total{peer=\"server\",result=\"turn\"} 20",
        "mwb_bond_order_packets_total{peer=\"server\",result=\"repeated\"} 0",
        "mwb_bond_order_missing_total{peer=\"server\"} 1",
        "mwb_bond_order_held_packets{peer=\"server\"} 3",
        "mwb_bond_order_within_total{le=\"0.0001\",peer=\"server\"} 4",
        "mwb_bond_order_within_total{le=\"0.2\",peer=\"server\"} 21",
        "mwb_bond_order_within_total{le=\"+Inf\",peer=\"server\"} 22",
        "mwb_bond_repair_packets_total{peer=\"server\",result=\"again\"} 7",
        "mwb_bond_repair_losses_total{cause=\"gap\",peer=\"server\"} 6",
        "mwb_bond_parity_packets_total{peer=\"server\",result=\"recovered\"} 31",
        "mwb_bond_parity_blocks_total{peer=\"server\",result=\"unrecoverable\"} 2",
        "mwb_bond_parity_bytes_total{peer=\"server\",what=\"parity\"} 150000",
        "mwb_bond_order_part_packets_total{path=\"2\",peer=\"server\",repair=\"retransmit\",result=\"deadline\"} 2",
        "mwb_bond_order_part_wait_seconds_total{path=\"2\",peer=\"server\",repair=\"retransmit\"} 0.4",
        "mwb_bond_path_recovered_total{path=\"1\",peer=\"server\",wan=\"fiber\"} 0",
        "mwb_bond_path_parity_total{path=\"1\",peer=\"server\",wan=\"fiber\"} 0",
        "mwb_bond_path_sent_again_total{path=\"1\",peer=\"server\",wan=\"fiber\"} 0",
        "mwb_bond_handshakes_total{result=\"established\"} 2",
        "mwb_bond_handshakes_total{result=\"replayed\"} 4",
        "mwb_bond_messages_refused_total{reason=\"bad_check\"} 7",
        "mwb_bond_class_packets_total{class=\"duplicate\",rule=\"1\"} 40",
        "mwb_bond_class_bytes_total{class=\"auto\",rule=\"none\"} 990000",
    ] {
        assert!(text.lines().any(|other| other == line), "no `{line}` in:\n{text}");
    }
    assert!(!text.contains("mwb_wan_rtt_seconds{wan=\"lte\"}"), "{text}");
    assert!(!text.contains("device=\"wwan0\""), "{text}");
    assert!(!text.contains("mwb_bond_path_rtt_seconds{path=\"2\""), "{text}");
}

#[test]
fn names_follow_the_conventions() {
    let text = text();
    for (name, kind) in types(&text) {
        assert!(name.starts_with("mwb_"), "{name}");
        assert_eq!(kind == "counter", name.ends_with("_total"), "{name} is a {kind}");
        assert!(text.contains(&format!("# HELP {name} ")), "{name} has no help");
    }
}

#[test]
fn the_document_lists_exactly_the_metrics_with_their_types_and_labels() {
    let text = text();
    let types = types(&text);
    let mut documented = BTreeSet::new();
    for line in DOCUMENT.lines().filter(|line| line.starts_with("| `mwb_")) {
        let cells: Vec<&str> = line.split('|').map(str::trim).collect();
        let ["", name, kind, labels, meaning, ""] = cells.as_slice() else {
            panic!("not a row: {line}")
        };
        let name = name.trim_matches('`');
        let family = FAMILIES.iter().find(|family| family.name == name);
        let family = family.unwrap_or_else(|| panic!("{name} does not exist"));
        assert_eq!(types.get(name), Some(kind), "{name}");
        let labels: Vec<&str> = labels.split('`').skip(1).step_by(2).collect();
        assert_eq!(labels, family.labels, "{name}");
        assert!(meaning.starts_with(family.help.trim_end_matches('.')), "{name}: {meaning}");
        documented.insert(name);
    }
    let known: BTreeSet<&str> = FAMILIES.iter().map(|family| family.name).collect();
    assert_eq!(documented, known);
    assert_eq!(types.keys().copied().collect::<BTreeSet<_>>(), known, "each is in the sample");
}

#[test]
fn alert_rules_use_only_metrics_that_exist() {
    let mut used = 0;
    let words = RULES.split(|c: char| !c.is_ascii_alphanumeric() && c != '_');
    for word in words.filter(|word| word.starts_with("mwb_")) {
        assert!(FAMILIES.iter().any(|family| family.name == word), "{word} does not exist");
        used += 1;
    }
    assert!(used >= 5, "{used} uses");
}

#[test]
fn the_document_lists_exactly_the_reasons() {
    let documented: Vec<String> = DOCUMENT
        .lines()
        .skip_while(|line| *line != "| reason | verdict | given when |")
        .skip(2)
        .map(str::to_owned)
        .collect();
    let known: Vec<String> = Reason::ALL
        .iter()
        .map(|reason| {
            let verdict = match reason.verdict() {
                Verdict::Forward => "forward",
                Verdict::Kernel => "kernel",
                Verdict::Drop => "drop",
            };
            format!("| `{}` | {verdict} | {} |", reason.name(), reason.describe())
        })
        .collect();
    assert_eq!(documented, known);
}
