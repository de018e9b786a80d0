//! Files that are wrong: each row says where, what and how to mend it.

use super::super::Position;
use super::{LEAST, wrong};

/// A file, `line:column`, part of the message, part of the fix.
pub(super) type Row = (&'static str, &'static str, &'static str, &'static str);

pub(super) fn check(rows: &[Row], file: impl Fn(&str) -> String) {
    for (text, place, message, fix) in rows {
        let text = file(text);
        let error = wrong(&text);
        let at = error.position.map(|Position { line, column }| format!("{line}:{column}"));
        let shown = error.render();
        assert_eq!(at.as_deref(), Some(*place), "{shown}\nin:\n{text}");
        assert!(error.to_string().contains(message), "no `{message}` in: {shown}");
        assert!(error.fix.as_deref().unwrap_or_default().contains(fix), "no `{fix}` in: {shown}");
        assert!(error.to_string().starts_with("gateway.yaml:"), "{error}");
    }
}

#[test]
fn a_file_that_is_not_yaml_is_refused_at_the_place() {
    let rows: &[Row] = &[
        ("version: [1", "2:1", "not valid YAML", ""),
        ("version: 1\n\tmode: steer\n", "2:1", "not valid YAML", ""),
        ("wans: [{name: a]}", "1:16", "not valid YAML", ""),
        ("a: *nowhere", "1:4", "unknown anchor", ""),
        ("version: !tag 1\n", "1:10", "a value without a tag", ""),
        ("", "1:1", "this is nothing", "`version: 1`"),
        ("- version\n", "1:1", "this is a list, expected a set of keys", "`version: 1`"),
        ("version: 1\n---\nversion: 1\n", "2:1", "more than one document", ""),
    ];
    check(rows, str::to_owned);
}

#[test]
fn a_wrong_file_is_refused_at_the_place() {
    let rows: &[Row] = &[
        ("mode: steer\n", "1:1", "the key `version` is missing", "version: 1"),
        ("version: 2\n", "1:10", "version `2` of the configuration", "write `version: 1`"),
        ("version: one\n", "1:10", "`one` is not a whole number", ""),
        ("version: 1\nrole: serber\n", "2:7", "unknown value `serber`", "did you mean `server`?"),
        ("version: 1\nmode: bind\n", "2:7", "mode: unknown value `bind`", "did you mean `bond`?"),
        ("version: 1\nmode: stear\n", "2:7", "unknown value `stear`", "did you mean `steer`?"),
        ("version: 1\nmode: steer\n", "1:1", "the key `lan` is missing", "add it"),
        ("version: 1\nmode:\nlan: [a]\n", "2:1", "`mode` has no value", "remove the key"),
        ("version: 1\nversion: 1\n", "2:1", "`version` is given twice", "remove one"),
        ("version: 1\n7: 1\n", "2:1", "unknown key `7`", "the keys here are `version`"),
        ("version: 1\n? [a]\n: 1\n", "2:3", "unknown key `[…]`", ""),
        ("version: 1\nmode: steer\nlan: lan0\n", "3:6", "this is text, expected a list", "[lan0]"),
        ("version: 1\nmode: steer\nlan: []\n", "3:6", "0 LAN ports", "give 1 to 32"),
        ("version: 1\nmode: steer\nlan: [7]\n", "3:7", "`7` is a number", "\"7\""),
        ("version: 1\nmode: steer\nlan: [{hook: xdp}]\n", "3:7", "`device` is missing", "device:"),
        ("version: 1\nmode: steer\nlan: [a/b]\n", "3:7", "`a/b` cannot be the name", "at most 15"),
        (
            "version: 1\nmode: steer\nlan: [a, a]\n",
            "3:10",
            "lan[1]: device `a` already is",
            "one role",
        ),
        ("version: 1\nmode: steer\nlan: [a]\nwans: []\n", "4:7", "0 WANs", "give 1 to 32"),
    ];
    check(rows, str::to_owned);
}

#[test]
fn a_wrong_wan_is_refused_at_the_place() {
    let rows: &[Row] = &[
        ("{device: wan1}", "6:5", "wans[1]: the key `name` is missing", "{name: fiber"),
        ("{name: b}", "6:5", "the key `device` is missing", "device: wan0"),
        ("{name: fiber, device: wan1}", "6:12", "two WANs are named `fiber`", "otherwise"),
        ("{name: b, device: wan0}", "6:23", "`wan0` already is a LAN port or a WAN", "one role"),
        ("{name: b, device: lan0}", "6:23", "`lan0` already is", "one role"),
        ("{name: Big, device: wan1}", "6:12", "`Big` cannot be the name", "1 to 15 of a-z"),
        ("{name: none, device: wan1}", "6:12", "`none` cannot be the name", "another"),
        ("{name: b, device: wan1, capcity: {}}", "6:29", "unknown key `capcity`", "`capacity`"),
        ("{name: b, device: wan1, quota: 1}", "6:29", "not in this version", "remove it"),
        ("{name: b, device: wan1, interval: 1s}", "6:29", "unknown key", "belongs to `health`"),
        ("{name: b, device: wan1, priority: 256}", "6:39", "`256` is out of range", "0 to 255"),
        ("{name: b, device: wan1, priority: -1}", "6:39", "`-1` is out of range", "0 to 255"),
        ("{name: b, device: wan1, weight: 0}", "6:37", "`0` is out of range", "1 to 1000"),
        ("{name: b, device: wan1, weight: 1.5}", "6:37", "`1.5` is not a whole", "1 to 1000"),
        ("{name: b, device: wan1, hook: tc}", "6:35", "unknown value `tc`", "`tcx`?"),
        (
            "{name: b, device: wan1, capacity: {up: 100}}",
            "6:44",
            "wans[1].capacity.up: `100` has no unit",
            "`100mbit`",
        ),
        (
            "{name: b, device: wan1, capacity: {up: 1kbit}}",
            "6:44",
            "out of range",
            "8kbit to 400gbit",
        ),
        ("{name: b, device: wan1, gateway: 2001:db8::1}", "6:38", "an IPv4 gateway", "192.0.2.1"),
        ("{name: b, device: wan1, gateway: 0.0.0.0}", "6:38", "an IPv4 gateway", "192.0.2.1"),
        ("{name: b, device: wan1, gateway6: auto}", "6:39", "no effect", "remove this"),
        (
            "{name: b, device: wan1, ipv6_prefix: 2001:db8:102::/48}",
            "6:42",
            "the prefix of the LAN is not given",
            "at the top",
        ),
        ("{name: b, device: wan1, failback: sty}", "6:39", "unknown value `sty`", "`stay`?"),
        ("{name: b, device: wan1, failback: drain}", "6:39", "for how long", "drain(5m)"),
        ("{name: b, device: wan1, failback: drian(5m)}", "6:39", "unknown value", "`drain(5m)`?"),
        (
            "{name: b, device: wan1, failback: drain(2d)}",
            "6:39",
            "`drain(2d)` is out of range",
            "drain(1s) to drain(1d)",
        ),
        ("{name: b, device: wan1, failback: drain(5)}", "6:39", "for how long", "drain(5m)"),
        ("b", "6:5", "this is text, expected a set of keys", "{name: fiber"),
    ];
    check(rows, |wan| format!("{LEAST}  - {wan}\n"));
}

#[test]
fn a_wrong_forward_is_refused_at_the_place() {
    let rows: &[Row] = &[
        ("{port: 443, to: 192.0.2.10}", "7:16", "the key `protocol` is missing", "protocol: tcp"),
        ("{protocol: tcp, to: 192.0.2.10}", "7:16", "the key `port` is missing", "port: 443"),
        ("{protocol: tcp, port: 443}", "7:16", "the key `to` is missing", "to: "),
        ("{protocol: tpc, port: 443, to: 192.0.2.10}", "7:27", "unknown value `tpc`", "`tcp`?"),
        ("{protocol: tcp, prot: 443, to: 192.0.2.10}", "7:32", "unknown key `prot`", "`port`?"),
        ("{protocol: tcp, port: 0, to: 192.0.2.10}", "7:38", "`0` is out of range", "1 to 65535"),
        ("{protocol: tcp, port: 65536, to: 192.0.2.10}", "7:38", "out of range", "1 to 65535"),
        ("{protocol: tcp, port: 0-9, to: 192.0.2.10}", "7:38", "out of range", "1 to 65535"),
        (
            "{protocol: tcp, port: 9-1, to: 192.0.2.10}",
            "7:38",
            "not a port or a range",
            "5000-5010",
        ),
        ("{protocol: tcp, port: http, to: 192.0.2.10}", "7:38", "not a port or a range", "443"),
        ("{protocol: tcp, port: 1, to: \"2001:db8::1\"}", "7:45", "not an IPv4 host", "192.0.2.10"),
        (
            "{protocol: tcp, port: 1, to: \"[2001:db8::1]:1\"}",
            "7:45",
            "not an IPv4 host",
            "192.0.2",
        ),
        ("{protocol: tcp, port: 1, to: web}", "7:45", "`web` is not an inside host", "192.0.2.10"),
        ("{protocol: tcp, port: 1, to: 127.0.0.1}", "7:45", "behind the gateway", "192.0.2.10"),
        ("{protocol: tcp, port: 1, to: \"192.0.2.10:0\"}", "7:45", "port 0", "192.0.2.10"),
        (
            "{protocol: tcp, port: 10-19, to: \"192.0.2.10:65530\"}",
            "7:49",
            "10 ports from 65530 on go beyond 65535",
            "begin at 65526",
        ),
        ("tcp", "7:16", "this is text, expected a set of keys", "{protocol: tcp"),
    ];
    let file = "version: 1\nmode: steer\nlan: [lan0]\nwans:\n  - name: fiber\n    device: wan0\n";
    check(rows, |forward| format!("{file}    forwards: [{forward}]\n"));
}

#[test]
fn forwards_of_one_wan_must_not_overlap_and_must_fit_the_port_table() {
    let file = |first: &str, second: &str, nat: &str| {
        format!(
            "version: 1\nmode: steer\nlan: [lan0]\nwans:\n  - name: fiber\n    device: wan0\n    \
             forwards:\n      - {{to: 192.0.2.10, {first}}}\n      - {{to: 192.0.2.10, {second}}}\n\
             nat: {{{nat}}}\n"
        )
    };
    let rows: &[Row] = &[
        (
            "protocol: tcp, port: 443",
            "9:47",
            "tcp port 443 of this WAN is forwarded twice",
            "number 1",
        ),
        ("protocol: tcp, port: 100-443", "9:47", "tcp port 440 of this WAN", "number 1"),
        ("protocol: tcp, port: 445-500", "9:47", "tcp port 445 of this WAN", "number 1"),
    ];
    check(rows, |second| file("protocol: tcp, port: 440-445", second, "flows: 64"));
    super::right(&file("protocol: tcp, port: 440-445", "protocol: udp, port: 443", "flows: 64"));
    super::right(&file("protocol: tcp, port: 440-445", "protocol: tcp, port: 446", "flows: 64"));
    let wide = "protocol: tcp, port: 1-4097";
    check(&[(wide, "5:3", "all forwards together take 4098 ports", "at most 4096")], |first| {
        file(first, "protocol: udp, port: 1", "flows: 131072")
    });
    check(&[("protocol: tcp, port: 1-32", "5:3", "take 33 ports", "at most 32")], |first| {
        file(first, "protocol: udp, port: 1", "flows: 64")
    });
}

#[test]
fn a_wrong_section_is_refused_at_the_place() {
    let rows: &[Row] = &[
        ("interfaces: []", "6:1", "`interfaces` is not in this version", "remove it"),
        ("bond: {}", "6:1", "bond: it has no effect: `mode` is `steer`", "write `mode: bond`"),
        ("server: {}", "6:1", "no effect: `role` is `gateway`", "write `role: server`"),
        ("balanse: adaptive", "6:1", "unknown key `balanse`", "did you mean `balance`?"),
        ("balance: adaptve", "6:10", "unknown value `adaptve`", "did you mean `adaptive`?"),
        ("balance: fastest", "6:10", "unknown value `fastest`", "use `round_robin`, `weighted`"),
        ("ipv6_prefix: 2001:db8:a::/48", "6:14", "no WAN has an `ipv6_prefix`", "remove this"),
        ("ipv6_prefix: 2001:db8:a::/96", "6:14", "out of range", "/16 to /64"),
        ("ipv6_prefix: 2001:db8:a::1/48", "6:14", "bits set", "write 2001:db8:a::/48"),
        ("ipv6_prefix: fe80::/64", "6:14", "hosts cannot have", "global"),
        ("bypass: [192.0.2.1]", "6:10", "is an address", "192.0.2.1/32"),
        ("bypass: [192.0.2.1/24]", "6:10", "bits set", "write 192.0.2.0/24"),
        ("bypass: [192.0.2.0/24, 192.0.2.0/24]", "6:24", "bypass[1]:", "remove one"),
        ("bypass: [somewhere]", "6:10", "`somewhere` is not a prefix", "192.0.2.0/24"),
        ("failover: {failback_after: 5}", "6:28", "`5` has no unit", "`5ms` or `5s`"),
        ("failover: {failback_after: \"1\"}", "6:28", "`1` has no unit", "`1s`"),
        ("failover: {failback_after: 1.5s}", "6:28", "`1.5s` is not a time", "200ms"),
        ("failover: {failback_after: 2h}", "6:28", "`2h` is out of range", "0s to 1h"),
        ("failover: {failback: cutt}", "6:22", "unknown value `cutt`", "did you mean `cut`?"),
        ("failover: {failback: drain(0s)}", "6:22", "out of range", "drain(1s) to drain(1d)"),
        ("failover: {hold_down_max: 2d}", "6:27", "`2d` is out of range", "0s to 1d"),
        ("failover: {dead_after: 150ms}", "6:12", "`mode` is `steer`, where", "`health.retries`"),
        ("health: {interval: 50ms}", "6:20", "`50ms` is out of range", "100ms to 5s"),
        ("health: {interval: 1m30}", "6:20", "`1m30` is not a time", "200ms, 5s or 2h4m"),
        ("health: {retries: 0}", "6:19", "out of range", "1 to 20"),
        ("health: {method: http}", "6:18", "needs the section `http`", "add `health.http`"),
        ("health: {method: auto}", "6:18", "nothing to choose from", "`method: ping`"),
        (
            "health: {http: {url: \"http://192.0.2.1/\"}}",
            "6:10",
            "`method` is `ping`",
            "method: http",
        ),
        (
            "health: {method: http, http: {url: \"ftp://192.0.2.1/\"}}",
            "6:36",
            "begins with http://",
            "http://192.0.2.1/",
        ),
        ("health: {method: http, http: {}}", "6:30", "`url` is missing", "url:"),
        (
            "health: {method: http, http: {url: \"http://a/\", headers: [x]}}",
            "6:59",
            "not a header field",
            "Accept",
        ),
        (
            "health: {method: http, http: {url: \"http://a/\", status: 99}}",
            "6:57",
            "out of range",
            "200 to 599",
        ),
        (
            "health: {method: http, http: {url: \"http://a/\", status: [200-199]}}",
            "6:58",
            "not a status",
            "200-299",
        ),
        (
            "health: {method: http, http: {url: \"http://a/\", method: HEAD, body: x}}",
            "6:63",
            "HEAD has no body",
            "GET",
        ),
        (
            "health: {method: http, http: {url: \"http://a/\", verify_tls: false}}",
            "6:49",
            "unknown key",
            "health.https",
        ),
        (
            "health: {method: dns, dns: {name: a..b, server: 192.0.2.53}}",
            "6:35",
            "is not a name",
            "example.net",
        ),
        (
            "health: {method: dns, dns: {name: a, server: ns}}",
            "6:46",
            "not an address",
            "192.0.2.53",
        ),
        (
            "health: {method: dns, dns: {name: a, server: 192.0.2.53, expect: b}}",
            "6:66",
            "no record of type A",
            "prefix",
        ),
        (
            "health: {method: tcp, tcp: {port: 25}}",
            "6:9",
            "somebody to connect to",
            "health.targets",
        ),
        (
            "health: {method: exec, exec: {command: [true.sh]}}",
            "6:41",
            "not the full path",
            "/usr/lib",
        ),
        (
            "health: {targets: [192.0.2.1], quorum: 2}",
            "6:40",
            "2 must answer, and 1 is asked",
            "at most 1",
        ),
        (
            "health: {targets: [192.0.2.1, 192.0.2.2], quorum: 2, per_round: 1}",
            "6:51",
            "2 must answer",
            "at most 1",
        ),
        ("health: {metered_budget: 5}", "6:26", "`5` has no unit", "5kB"),
        ("health: {ping: {size: 9000}}", "6:23", "out of range", "16 to 1452"),
        ("health: {method: pong}", "6:18", "unknown value `pong`", "did you mean `ping`?"),
        ("health: {targets: []}", "6:19", "0 targets", "1 to 8"),
        ("health: {targets: [example.net]}", "6:20", "not an address to ask", "192.0.2.1"),
        ("health: {targets: [192.0.2.1, 192.0.2.1]}", "6:31", "given twice", "remove"),
        ("health: {targets: [\"2001:db8::1\"]}", "6:20", "no WAN has an `ipv6_prefix`", "remove"),
        ("health: {degraded: {loss: 0.05}}", "6:27", "`0.05` is not a percentage", "5%"),
        ("health: {degraded: {loss: 101%}}", "6:27", "`101%` is out of range", "0.1% to 100%"),
        ("health: {degraded: {latency: 1h}}", "6:30", "out of range", "1ms to 10s"),
        ("nat: {ports: 1024-65535}", "6:14", "the gateway's own", "10000 to 65535"),
        ("nat: {ports: 20000-10000}", "6:14", "not a range of ports", "10000-65535"),
        ("nat: {flows: 1}", "6:14", "out of range", "64 to 4194304"),
        ("nat: {filtering: address}", "6:18", "unknown value `address`", "`address_dependent`"),
        ("nat: {filtering: adress_dependent}", "6:18", "unknown value", "`address_dependent`?"),
        ("nat: {mappings_per_source: 65536}", "6:28", "out of range", "0 to 65535"),
        ("nat: {mappings_per_source: -1}", "6:28", "out of range", "0 to 65535"),
        ("nat: {timeouts: {sctp: 5m}}", "6:18", "unknown key `sctp`", "`icmp`"),
        ("nat: {timeouts: {udp: 0s}}", "6:23", "out of range", "1s to 7d"),
        ("api: {listen: \"0.0.0.0:9800\"}", "6:15", "not on loopback", "127.0.0.1:9800"),
        ("api: {listen: localhost}", "6:15", "`off` or an address with a port", "127.0.0.1:9800"),
        ("api: {listen: \"127.0.0.1:0\"}", "6:15", "has no port", "127.0.0.1:9800"),
        ("api: {group: \"net admins\"}", "6:14", "cannot be the name of a group", "1 to 32"),
        ("api: {group: \"-x\"}", "6:14", "cannot be the name of a group", "1 to 32"),
        ("api: {token_file: token}", "6:19", "cannot be the path of a file", "/etc/mwb/token"),
        ("api: {socket: mwb.sock}", "6:15", "cannot be the path", "full path"),
    ];
    check(rows, |section| format!("{LEAST}{section}\n"));
}

#[test]
fn prefixes_of_the_wans_must_fit_the_lan() {
    let file = |fiber: &str, lte: &str| {
        format!(
            "version: 1\nmode: steer\nlan: [lan0]\nipv6_prefix: 2001:db8:a::/48\nwans:\n  \
             - {{name: fiber, device: wan0, ipv6_prefix: {fiber}}}\n  \
             - {{name: lte, device: wan1, ipv6_prefix: {lte}}}\n"
        )
    };
    let error = wrong(&file("2001:db8:101::/48", "2001:db8:102::/56"));
    assert_eq!(error.position, Some(Position { line: 7, column: 44 }), "{}", error.render());
    assert!(error.message.contains("differ in length"), "{error}");
    let error = wrong(&file("2001:db8:101::/48", "2001:db8:101::/48"));
    assert!(error.message.contains("prefix of WAN `fiber` too"), "{error}");
}

#[test]
fn the_shown_error_points_at_the_place() {
    let error = wrong(&format!("{LEAST}\nhealth: {{intervall: 1s}}\n"));
    assert_eq!(
        error.render(),
        "gateway.yaml:7:10: health.intervall: unknown key `intervall`\n\
         7 | health: {intervall: 1s}\n  \
         |          ^\n\
         fix: did you mean `interval`?"
    );
    assert_eq!(
        error.to_string(),
        "gateway.yaml:7:10: health.intervall: unknown key `intervall`; did you mean `interval`?"
    );
}

#[test]
fn columns_count_characters_and_anchors_lead_to_where_the_value_is_written() {
    let error = wrong(&format!("{LEAST}api: {{\"sock\u{e9}t\": é, listen: x}}\n"));
    assert_eq!(error.position, Some(Position { line: 6, column: 7 }), "{}", error.render());
    let error = wrong(&format!("{LEAST}bypass: [&one 192.0.2.0/24, *one]\n"));
    assert!(error.message.contains("given twice"), "{error}");
    assert_eq!(error.position.map(|at| at.line), Some(6));
}

#[test]
fn lines_are_counted_and_shown_alike_whatever_ends_them() {
    for end in ["\n", "\r\n", "\r", "\u{85}", "\u{2028}"] {
        let error = wrong(&format!("{LEAST}balance: adaptve\n").replace('\n', end));
        assert_eq!(error.position, Some(Position { line: 6, column: 10 }), "{end:?}: {error}");
        assert_eq!(error.source_line.as_deref(), Some("balance: adaptve"), "{end:?}");
    }
}

#[test]
fn a_long_value_is_cut_and_a_control_character_never_reaches_the_terminal() {
    let error = wrong(&format!("{LEAST}balance: \"{}\\e[2J\"\n", "x".repeat(500)));
    assert!(error.message.len() < 120, "{error}");
    let error = wrong(&format!("{LEAST}balance: \"\\e[2J\"\n"));
    assert!(!error.to_string().contains('\u{1b}'), "{error:?}");
    let error = wrong(&format!("{LEAST}balance: \u{1b}[2J\n"));
    assert!(!error.render().contains('\u{1b}'), "{error:?}");
}
