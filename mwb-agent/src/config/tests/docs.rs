//! `docs/config.md` says the same as the code.

use std::collections::BTreeSet;

use serde_yaml::{Mapping, Value};

use super::super::schema::SECTIONS;
use super::super::{Config, parse};
use super::{LEAST_BOND, LEAST_SERVER, right};

const DOCUMENT: &str = include_str!("../../../../docs/config.md");
const BOND: &str = include_str!("../../../../docs/bond.md");
const README: &str = include_str!("../../../../README.md");

/// A valid file in which every key can be set.
const BASE: &str = "\
version: 1
mode: steer
lan: [{device: lan0}]
ipv6_prefix: 2001:db8:a::/48
wans:
  - name: fiber
    device: wan0
    ipv6_prefix: 2001:db8:101::/48
    forwards: [{protocol: tcp, port: 443, to: 192.0.2.10}]
";

/// A bond with a rule whose keys can be set.
fn least_classes(class: &str) -> String {
    format!("{LEAST_BOND}classes: {{rules: [{{class: {class}}}]}}\n")
}

/// A section for each method that needs one.
const METHODS: [(&str, &str); 5] = [
    ("http", "{url: \"http://192.0.2.1/\"}"),
    ("https", "{url: \"https://192.0.2.1/\"}"),
    ("dns", "{name: www.example.net, server: 192.0.2.53}"),
    ("tcp", "{port: 443}"),
    ("exec", "{command: [/bin/true]}"),
];

/// What a key of `health` needs beside it: the method whose section it is in, or the
/// section of a method, and targets enough.
fn least_health(key: &str, value: &str) -> String {
    let whose = if key.starts_with("wans") { 2 } else { 1 };
    let part = key.split('.').nth(whose).unwrap_or_default();
    let word = if part == "method" { value } else { part };
    let method = METHODS.iter().find(|(name, _)| *name == word || word == "auto");
    let targets = "[192.0.2.1, 192.0.2.2, 192.0.2.3, 192.0.2.4, 192.0.2.5, 192.0.2.6, 192.0.2.7, \
                   192.0.2.8]";
    let section = method
        .map_or_else(String::new, |(name, section)| format!(", method: {name}, {name}: {section}"));
    format!("{BASE}health: {{targets: {targets}{section}}}\n")
}

/// The file in which a key means something.
fn base(key: &str, value: &str) -> String {
    let rule = |rule: &str| format!("{BASE}policy: {{rules: [{rule}]}}\n");
    let is_in = |section: &str| key == section || key.starts_with(&format!("{section}."));
    match (key, value) {
        ("role", "server") => LEAST_SERVER.to_owned(),
        ("policy.rules[].use.priority", _) => rule("{use: {priority: 0}}"),
        ("policy.rules[].balance" | "policy.rules[].fallback", _) => rule("{use: fiber}"),
        _ if is_in("policy.rules[].time") => rule("{time: {}, use: block}"),
        _ if is_in("policy") => rule("{use: block}"),
        ("classes.rules[].fallback", _) => least_classes("auto, paths: fiber"),
        _ if is_in("classes") => least_classes("auto"),
        _ if is_in("fec") => least_classes("auto, repair: fec"),
        ("mode", "bond") | ("failover.dead_after" | "wans[].metered", _) => LEAST_BOND.to_owned(),
        _ if is_in("bond") || is_in("reorder") => LEAST_BOND.to_owned(),
        _ if is_in("server") => LEAST_SERVER.to_owned(),
        ("history.file" | "history.changes", _) => format!("{BASE}history: {{}}\n"),
        ("history.fine", _) => format!("{BASE}history: {{medium: 3650d, coarse: 3650d}}\n"),
        ("history.medium", _) => format!("{BASE}history: {{fine: 2h, coarse: 3650d}}\n"),
        ("history.coarse", _) => format!("{BASE}history: {{fine: 2h, medium: 2h}}\n"),
        ("notify.receivers[].command" | "notify.receivers[].at_once", _) => {
            format!("{BASE}notify: {{receivers: [{{name: ops, command: [/bin/true]}}]}}\n")
        }
        _ if is_in("notify.receivers[]") => format!(
            "{BASE}notify: {{receivers: [{{name: ops, url: \"http://a/\", secret_file: /s}}]}}\n"
        ),
        _ if is_in("health") || is_in("wans[].health") => least_health(key, value),
        _ => BASE.to_owned(),
    }
}

/// A row of a table of keys.
struct Row {
    key: String,
    values: Vec<String>,
    is_range: bool,
    default: Option<String>,
}

/// The rows `| key | values | default | meaning |`; words in backquotes count.
fn rows() -> Vec<Row> {
    let quoted = |cell: &str| -> Vec<String> {
        cell.split('`').skip(1).step_by(2).map(str::to_owned).collect()
    };
    let mut rows = Vec::new();
    for line in DOCUMENT.lines() {
        let cells: Vec<&str> = line.split('|').map(str::trim).collect();
        let ["", key, values, default, _, ""] = cells.as_slice() else { continue };
        let Some(key) = key.strip_prefix('`').and_then(|key| key.strip_suffix('`')) else {
            continue;
        };
        rows.push(Row {
            key: key.to_owned(),
            values: quoted(values),
            is_range: values.contains("` to `"),
            default: quoted(default).first().cloned(),
        });
    }
    rows
}

/// The base with one key set.
fn with(key: &str, value: &str) -> String {
    let mut root: Value = serde_yaml::from_str(&base(key, value)).expect("the base is YAML");
    let value: Value = serde_yaml::from_str(value).expect("a value of the document is YAML");
    let mut place = &mut root;
    let (path, last) = key.rsplit_once('.').unwrap_or(("", key));
    for part in path.split('.').filter(|part| !part.is_empty()) {
        let (name, item) = part.strip_suffix("[]").map_or((part, false), |name| (name, true));
        let map = place.as_mapping_mut().expect("a section is a map");
        place = map.entry(name.into()).or_insert_with(|| Value::Mapping(Mapping::new()));
        if item {
            place = &mut place.as_sequence_mut().expect("a list")[0];
        }
    }
    place.as_mapping_mut().expect("a section is a map").insert(last.into(), value);
    serde_yaml::to_string(&root).expect("it can be written")
}

#[test]
fn the_document_lists_exactly_the_keys_of_the_schema() {
    let documented: Vec<String> = rows().into_iter().map(|row| row.key).collect();
    let unique: BTreeSet<&String> = documented.iter().collect();
    assert_eq!(unique.len(), documented.len(), "a key is listed twice: {documented:?}");
    let known: BTreeSet<String> = SECTIONS
        .iter()
        .flat_map(|section| {
            section
                .keys
                .iter()
                .map(|key| format!("{}.{key}", section.path).trim_start_matches('.').to_owned())
        })
        .collect();
    assert_eq!(documented.into_iter().collect::<BTreeSet<_>>(), known);
}

#[test]
fn documented_values_and_both_ends_of_documented_ranges_are_accepted() {
    let mut tried = 0;
    for row in rows() {
        for value in &row.values {
            right(&with(&row.key, value));
            tried += 1;
        }
    }
    assert!(tried > 80, "{tried} values");
}

#[test]
fn beyond_a_documented_range_is_refused_with_that_range() {
    let mut ranges = 0;
    for row in rows().into_iter().filter(|row| row.is_range) {
        // Words may stand before a range.
        let [.., low, high] = row.values.as_slice() else {
            panic!("{}: {:?}", row.key, row.values)
        };
        // A leading 9 makes any number larger than the highest.
        let error = parse(&with(&row.key, &format!("9{high}")), "f").expect_err(&row.key);
        let fix = error.fix.clone().unwrap_or_default();
        assert!(fix.contains(&format!("{low} to {high}")), "{}: {fix}", row.key);
        ranges += 1;
    }
    assert!(ranges >= 18, "{ranges} ranges");
}

#[test]
fn documented_defaults_are_the_defaults() {
    let mut defaults = 0;
    for row in rows() {
        if let Some(default) = &row.default {
            let base: Config = right(&base(&row.key, default));
            assert_eq!(right(&with(&row.key, default)), base, "{}", row.key);
            defaults += 1;
        }
    }
    assert!(defaults >= 28, "{defaults} defaults");
}

#[test]
fn a_value_of_the_wrong_kind_is_refused_at_each_key() {
    for row in rows() {
        let error = parse(&with(&row.key, "[[]]"), "f").expect_err(&row.key);
        let key = row.key.replace("[]", "[0]");
        assert!(error.key.starts_with(&key), "{}: {error}", row.key);
    }
}

#[test]
fn every_example_in_the_documents_is_valid() {
    for (document, least) in [(DOCUMENT, 4), (BOND, 2), (README, 2)] {
        let mut seen = 0;
        for block in document.split("```yaml\n").skip(1) {
            let text = block.split("```").next().unwrap_or_default();
            right(text);
            seen += 1;
        }
        assert!(seen >= least, "{seen} examples");
    }
}
