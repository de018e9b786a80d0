//! Policy rules: what is right, and what is wrong and where.

use super::super::{Fallback, HookChoice, Outlet, Policy, PolicyAction, parse};
use super::wrong::{Row, check};
use super::{LEAST_BOND, LEAST_SERVER, right};

/// A gateway with two WANs, on lines 1 to 6; the rules begin on line 9.
const TWO: &str = "\
version: 1
mode: steer
lan: [lan0, {device: lan1, hook: xdp}]
wans:
  - {name: fiber, device: wan0}
  - {name: lte, device: wan1, priority: 1}
";

fn with_rules(rules: &str) -> String {
    format!("{TWO}policy:\n  rules:\n    - {rules}\n")
}

fn policy(rules: &str) -> Policy {
    right(&with_rules(rules)).policy
}

#[test]
fn what_is_read_is_shown_as_it_was_written() {
    for text in [
        "{source: 192.0.2.0/26, destination: [203.0.113.0/24, \"2001:db8::/32\"], use: fiber}",
        "{protocol: udp, port: [5060-5061, 443], source_port: 1024-65535, dscp: ef, use: lte}",
        "{protocol: [tcp, 99], use: [lte, fiber], balance: weighted, fallback: strict}",
        "{destination: 203.0.113.0/24, domain: [example.net, \"*.example.net\"], use: fiber}",
        "{domain: example.net, port: 443, use: fiber}",
        "{domain: \"*.example.net\", use: lte}",
        "{lan: lan0, mac: \"02:00:00:00:00:01\", mark: 0x10, use: block}",
        "{mark: [0x1, 0xffffffff], use: default}",
        "{time: {days: mon-fri, from: \"08:00\", to: \"18:00\"}, use: block}",
        "{time: {days: [mon, sat-sun]}, use: block}",
        "{time: {from: \"22:30\", to: \"06:00\"}, use: block}",
        "{use: fiber, balance: per_flow}",
    ] {
        let read = policy(text);
        assert_eq!(read.rules.iter().map(ToString::to_string).collect::<Vec<_>>(), [text]);
    }
}

#[test]
fn a_rule_without_a_word_prefers_its_wans_and_shares_as_the_file_says() {
    let rule = &policy("{use: [lte, fiber]}").rules[0];
    let wans = vec!["lte".to_owned(), "fiber".to_owned()];
    let outlet = Outlet { wans, balance: None, fallback: Fallback::Prefer };
    assert_eq!(rule.action, PolicyAction::Outlet(outlet));
    assert!(rule.matches.is_all() && rule.time.is_none() && rule.name.is_none());
}

#[test]
fn a_priority_stands_for_its_wans_and_equal_choices_are_one_outlet() {
    let read = policy(
        "{dscp: ef, use: {priority: 1}}\n    - {dscp: cs1, use: lte}\n    - {use: lte, fallback: strict}",
    );
    let outlets = read.outlets();
    assert_eq!(outlets.len(), 2, "{outlets:?}");
    assert_eq!(outlets[0].wans, ["lte"]);
    assert_eq!(outlets[1].fallback, Fallback::Strict);
}

#[test]
fn a_rule_is_called_by_its_name_or_its_place() {
    let read = policy("{name: voip, dscp: ef, use: lte}\n    - {use: block}");
    assert_eq!((read.label(0), read.label(1)), ("voip".to_owned(), "rule-2".to_owned()));
}

#[test]
fn a_time_that_is_every_minute_is_none() {
    for time in ["{}", "{days: mon-sun}", "{from: \"00:00\"}", "{days: [mon-fri, sat, sun]}"] {
        assert_eq!(policy(&format!("{{time: {time}, use: block}}")).rules[0].time, None, "{time}");
    }
}

#[test]
fn a_mark_is_read_where_one_of_the_ports_meant_can_have_one() {
    let read = right(&with_rules("{mark: 1, use: block}"));
    assert_eq!(read.lan[1].hook, HookChoice::Xdp);
    policy("{mark: 1, lan: [lan0, lan1], use: block}");
}

#[test]
fn a_server_has_rules_for_its_clients() {
    let rules = "policy: {rules: [{source: 192.0.2.0/26, use: uplink}]}\n";
    assert_eq!(right(&format!("{LEAST_SERVER}{rules}")).policy.rules.len(), 1);
}

#[test]
fn a_wrong_rule_is_refused_at_the_place() {
    let rows: &[Row] = &[
        ("{port: 53}", "9:7", "the key `use` is missing", "use: fiber"),
        ("{use: fibre}", "9:13", "unknown value `fibre`", "did you mean `fiber`?"),
        ("{use: dsl}", "9:13", "unknown value `dsl`", "`fiber`, `lte`, `block` or `default`"),
        ("{use: [fiber, dsl]}", "9:21", "use[1]: unknown value `dsl`", "`fiber` or `lte`"),
        ("{use: [fiber, fiber]}", "9:21", "`fiber` is given twice", "remove one"),
        ("{use: []}", "9:13", "0 values", "give 1 to 256"),
        ("{use: [block]}", "9:14", "unknown value `block`", "`fiber` or `lte`"),
        ("{use: {priority: 7}}", "9:24", "no WAN has priority 7", "priorities 0, 1"),
        ("{use: {}}", "9:13", "`priority` is missing", "{priority: 1}"),
        ("{use: block, balance: weighted}", "9:20", "no effect with `use: block`", "name WANs"),
        ("{use: default, fallback: strict}", "9:22", "no effect with `use: default`", "remove"),
        ("{use: lte, balance: fair}", "9:27", "unknown value `fair`", "`round_robin`"),
        ("{use: lte, fallback: perfer}", "9:28", "unknown value `perfer`", "did you mean `prefer`"),
        ("{lan: lan7, use: lte}", "9:13", "unknown value `lan7`", "did you mean `lan0`?"),
        ("{lan: wan0, use: lte}", "9:13", "unknown value `wan0`", ""),
        ("{source: 192.0.2.1, use: lte}", "9:16", "is an address, expected a prefix", "/32"),
        ("{source: 192.0.2.1/24, use: lte}", "9:16", "bits set behind", "192.0.2.0/24"),
        ("{port: 0, use: lte}", "9:14", "`0` is out of range", "1 to 65535"),
        ("{port: 9-5, use: lte}", "9:14", "`9-5` is not a port or a range", "443"),
        ("{protocol: icmp, port: 53, use: lte}", "9:24", "`icmp` has no ports", "remove it"),
        ("{protocol: [udp, 47], source_port: 53, use: lte}", "9:29", "`gre` has no ports", "`udp`"),
        ("{protocol: utp, use: lte}", "9:18", "unknown value `utp`", "`udp`"),
        ("{dscp: 64, use: lte}", "9:14", "`64` is out of range", "0 to 63"),
        ("{mark: 0, use: lte}", "9:14", "`0` is out of range", "1 to 4294967295"),
        ("{mark: 1, lan: lan1, use: lte}", "9:8", "no packet matches: with `hook: xdp`", "tcx"),
        ("{mac: 7, use: lte}", "9:13", "`7` is not the MAC", "02:00:00:00:00:01"),
        ("{mac: \"01:00:00:00:00:01\", use: lte}", "9:13", "is not the MAC of a host", ""),
        ("{mac: \"02:00:00:00:00\", use: lte}", "9:13", "is not the MAC of a host", ""),
        ("{mac: \"02:00:00:00:00:0g\", use: lte}", "9:13", "is not the MAC of a host", ""),
        (
            "{source: 192.0.2.0/24, destination: \"2001:db8::/32\", use: lte}",
            "9:43",
            "no packet matches",
            "one family",
        ),
        ("{domain: \"a b\", use: lte}", "9:16", "`a b` is not a name", "\"*.example.net\""),
        ("{domain: \"*\", use: lte}", "9:16", "`*` is not a name", "example.net"),
        ("{domain: [a.net, A.net.], use: lte}", "9:24", "`A.net.` is given twice", "remove one"),
        ("{domain: 7, use: lte}", "9:16", "`7` is", "example.net"),
        ("{prot: udp, use: lte}", "9:8", "unknown key `prot`", "did you mean `port`?"),
        ("{name: Big, use: lte}", "9:14", "`Big` cannot be the name of a rule", "1 to 31"),
        ("{time: {days: mo}, use: lte}", "9:21", "`mo` is not a day", "mon-fri"),
        ("{time: {days: []}, use: lte}", "9:21", "the list is empty", "mon-fri"),
        ("{time: {from: 8}, use: lte}", "9:21", "`8` is not a time of day", "\"08:00\""),
        ("{time: {from: \"24:00\", to: \"02:00\"}, use: lte}", "9:21", "24:00", "day after"),
        ("{time: {from: \"08:00\", to: \"08:00\"}, use: lte}", "9:14", "same time", "whole day"),
        ("{time: {from: \"24:00\"}, use: lte}", "9:14", "same time of day", "whole day"),
        ("{time: 8, use: lte}", "9:14", "expected a set of keys", "{days: mon-fri"),
    ];
    check(rows, with_rules);
}

#[test]
fn a_rule_that_nothing_reaches_is_refused() {
    let rows: &[Row] = &[
        (
            "{use: lte}\n    - {port: 53, use: fiber}",
            "10:7",
            "rule `rule-1` before it matches every packet",
            "put `rule-1` last",
        ),
        (
            "{name: a, port: 53, use: lte}\n    - {port: 53, use: fiber}",
            "10:7",
            "what it matches, rule `a` has before it",
            "remove one",
        ),
        (
            "{name: a, port: 53, use: lte}\n    - {port: 53, time: {days: mon}, use: block}",
            "10:7",
            "rule `a` has before it",
            "narrower one first",
        ),
    ];
    check(rows, with_rules);
    // What has a time leaves something to those behind it.
    policy("{time: {days: mon}, use: lte}\n    - {use: fiber}");
    policy("{port: 53, time: {days: mon}, use: lte}\n    - {port: 53, use: fiber}");
}

#[test]
fn names_are_given_once() {
    let rows: &[Row] = &[
        (
            "{name: a, port: 1, use: lte}\n    - {name: a, use: lte}",
            "10:14",
            "rule number 1 is named `a` too",
            "otherwise",
        ),
        (
            "{name: rule-2, port: 1, use: lte}\n    - {use: lte}",
            "10:7",
            "rule number 1 is named `rule-2` too",
            "a name of its own",
        ),
    ];
    check(rows, with_rules);
}

#[test]
fn a_word_that_is_a_wan_too_is_refused() {
    let file = with_rules("{use: block}").replace("lte", "block");
    let error = parse(&file, "f").expect_err("it means two things");
    assert!(error.to_string().contains("is the name of a WAN and says"), "{error}");
    assert!(parse(&file.replace("use: block", "use: [block]"), "f").is_ok());
}

#[test]
fn more_than_fits_is_refused() {
    let many = |count: usize, rule: &dyn Fn(usize) -> String| {
        let rules: Vec<String> = (0..count).map(rule).collect();
        parse(&with_rules(&rules.join("\n    - ")), "f")
    };
    let by_port = |index: usize| format!("{{port: {}, use: lte}}", index + 1);
    assert_eq!(many(1_000, &by_port).expect("fits").policy.rules.len(), 1_000);
    let error = many(1_001, &by_port).expect_err("too many").to_string();
    assert!(error.contains("1001 rules"), "{error}");
    let prefixes = |index: usize| {
        let nets: Vec<String> = (0..250).map(|n| format!("10.{index}.{n}.0/24")).collect();
        format!("{{destination: [{}], use: lte}}", nets.join(", "))
    };
    assert!(many(8, &prefixes).is_ok());
    let error = many(9, &prefixes).expect_err("too many").to_string();
    assert!(error.contains("2250 prefixes in `destination`"), "{error}");
    let domains = |index: usize| {
        let names: Vec<String> = (0..256).map(|n| format!("h{n}.g{index}.example")).collect();
        format!("{{domain: [{}], use: lte}}", names.join(", "))
    };
    assert!(many(2, &domains).is_ok());
    let error = many(3, &domains).expect_err("too many").to_string();
    assert!(error.contains("768 different names in `domain`"), "{error}");
    let ranges = |index: usize| {
        let ports: Vec<String> = (0..200).map(|n| (index * 200 + n + 1).to_string()).collect();
        format!("{{port: [{}], use: lte}}", ports.join(", "))
    };
    assert!(many(5, &ranges).is_ok());
    let error = many(6, &ranges).expect_err("too many").to_string();
    assert!(error.contains("1200 ranges of ports"), "{error}");
    let marks = |index: usize| {
        let marks: Vec<String> = (1..=200).map(|n| (index * 200 + n).to_string()).collect();
        format!("{{mark: [{}], use: lte}}", marks.join(", "))
    };
    assert!(many(5, &marks).is_ok());
    let error = many(6, &marks).expect_err("too many").to_string();
    assert!(error.contains("1200 rules, as one with several marks is several"), "{error}");
}

#[test]
fn more_choices_than_there_are_outlets_are_refused_with_their_number() {
    let balances = ["round_robin", "weighted", "least_used", "least_latency", "per_flow"];
    let targets = ["fiber", "lte", "[fiber, lte]", "[lte, fiber]"];
    let mut wans = String::from(TWO);
    for index in 2..6 {
        wans.push_str(&format!("  - {{name: w{index}, device: wan{index}}}\n"));
    }
    let mut targets: Vec<String> = targets.map(str::to_owned).to_vec();
    targets.extend((2..6).map(|index| format!("w{index}")));
    let mut rules = Vec::new();
    for target in &targets {
        for balance in balances {
            for fallback in ["prefer", "strict"] {
                rules.push(format!(
                    "{{port: {}, use: {target}, balance: {balance}, fallback: {fallback}}}",
                    rules.len() + 1
                ));
            }
        }
    }
    let file = |count: usize| {
        format!("{wans}policy:\n  rules:\n    - {}\n", rules[..count].join("\n    - "))
    };
    assert_eq!(right(&file(63)).policy.outlets().len(), 63);
    let error = parse(&file(64), "f").expect_err("too many").to_string();
    assert!(error.contains("64 different choices"), "{error}");
}

#[test]
fn what_a_role_or_mode_does_not_have_is_refused() {
    let bond: &[Row] =
        &[("policy: {rules: []}", "10:1", "everything goes to the server", "`classes` says")];
    check(bond, |section| format!("{LEAST_BOND}{section}\n"));
    let server: &[Row] = &[
        ("lan: mwb0", "11:19", "behind the device of their bonds", "by `source`"),
        ("mac: \"02:00:00:00:00:01\"", "11:19", "behind the device of their bonds", "`source`"),
        ("domain: example.net", "11:19", "a server has none", "`destination`"),
        ("mark: 1", "11:19", "behind the device of their bonds", "`source`"),
    ];
    check(server, |key| format!("{LEAST_SERVER}policy: {{rules: [{{{key}, use: uplink}}]}}\n"));
}
