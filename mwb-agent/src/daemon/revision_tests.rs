use proptest::prelude::*;

use super::*;
use crate::config::{self, tests::LEAST_BOND, tests::LEAST_SERVER};

const BASE: &str = "
version: 1
mode: steer
lan: [lan0, lan1]
ipv6_prefix: 2001:db8:a::/48
bypass: [192.0.2.0/25]
wans:
  - {name: fiber, device: wan0, ipv6_prefix: 2001:db8:101::/48}
  - {name: lte, device: wan1, weight: 20}
  - name: dsl
    device: wan2
    forwards: [{protocol: tcp, port: 443, to: \"192.0.2.10:8443\"}]
";

fn parsed(text: &str) -> Config {
    config::parse(text, "f").unwrap_or_else(|error| panic!("{}\n{text}", error.render()))
}

/// The base with pieces of its text replaced.
fn with(replaced: &[(&str, &str)]) -> Config {
    let mut text = BASE.to_owned();
    for (old, new) in replaced {
        assert!(text.contains(old), "{old}");
        text = text.replace(old, new);
    }
    parsed(&text)
}

#[test]
fn each_difference_is_told_in_one_line() {
    let rows: &[(&str, &str, &str)] = &[
        ("weight: 20", "weight: 30", "WAN lte: weight: 20 → 30"),
        ("weight: 20", "priority: 2, weight: 20", "WAN lte: priority: 0 → 2"),
        ("weight: 20", "weight: 20, gateway: 192.0.2.1", "WAN lte: gateway: auto → 192.0.2.1"),
        ("weight: 20", "weight: 20, hook: tcx", "WAN lte: hook: auto → tcx"),
        ("weight: 20", "weight: 20, failback: drain(1m)", "WAN lte: failback: stay → drain(1m)"),
        ("weight: 20", "weight: 20, capacity: {up: 40mbit}", "WAN lte: capacity.up: none → 40mbit"),
        ("name: lte", "name: mobile", "WAN lte (wan1) is called mobile now"),
        ("443, to", "80, to", ""),
        ("lan0, lan1", "lan0", "LAN port lan1 removed"),
        ("lan0, lan1", "lan0, lan1, lan2", "LAN port lan2 added"),
        ("lan0, lan1", "lan0, {device: lan1, hook: xdp}", "LAN port lan1: hook: auto → xdp"),
        ("lan0, lan1", "lan1, lan0", "LAN ports: in another order"),
        ("192.0.2.0/25", "192.0.2.0/25, 192.0.2.128/25", "bypass: 192.0.2.128/25 added"),
        ("version: 1", "version: 1\nbalance: failover", "balance: adaptive → failover"),
        (
            "version: 1",
            "version: 1\nhealth: {targets: [192.0.2.1]}",
            "health.targets: 192.0.2.1 added",
        ),
        ("version: 1", "version: 1\nhealth: {interval: 1s}", "health.interval: 200ms → 1s"),
        (
            "version: 1",
            "version: 1\nhealth: {degraded: {loss: 6%}}",
            "health.degraded.loss: 5% → 6%",
        ),
        (
            "version: 1",
            "version: 1\nnat: {filtering: address_dependent}",
            "nat.filtering: address_and_port_dependent → address_dependent",
        ),
        (
            "version: 1",
            "version: 1\nnat: {ports: 20000-30000}",
            "nat.ports: 10000-65535 → 20000-30000",
        ),
        ("version: 1", "version: 1\nnat: {timeouts: {udp: 2m}}", "nat.timeouts.udp: 5m → 2m"),
    ];
    let base = parsed(BASE);
    for (old, new, line) in rows {
        let Revision { changes, refused } = between(&base, &with(&[(old, new)]));
        assert_eq!(refused, [] as [&str; 0], "{new}");
        if line.is_empty() {
            let lines = [
                "WAN dsl: forward: tcp 443 → 192.0.2.10:8443 removed",
                "WAN dsl: forward: tcp 80 → 192.0.2.10:8443 added",
            ];
            assert_eq!(changes, lines);
        } else {
            assert_eq!(changes, [*line]);
        }
    }
}

#[test]
fn a_wan_is_its_device() {
    let base = parsed(BASE);
    let other = with(&[("device: wan1", "device: wan9")]);
    assert_eq!(between(&base, &other).changes, ["WAN lte (wan1) removed", "WAN lte (wan9) added"]);
    // Two WANs that swap their names swap nothing else.
    let swapped =
        with(&[("name: lte", "name: x"), ("name: dsl", "name: lte"), ("name: x", "name: dsl")]);
    let lines = ["WAN lte (wan1) is called dsl now", "WAN dsl (wan2) is called lte now"];
    assert_eq!(between(&base, &swapped).changes, lines);
}

#[test]
fn what_needs_a_restart_is_refused_with_the_way() {
    let rows = [
        ("nat: {flows: 64}", "nat.flows: 131072 → 64", "--detach"),
        ("api: {listen: off}", "api.listen: 127.0.0.1:9800 → none", "restart"),
        ("api: {socket: /run/x.sock}", "api.socket: /run/mwb/mwb.sock → /run/x.sock", "restart"),
        ("api: {group: net}", "api.group: none → net", "restart"),
        ("api: {token_file: /etc/t}", "api.token_file: none → /etc/t", "restart"),
    ];
    for (section, what, way) in rows {
        let Revision { changes, refused } =
            between(&parsed(BASE), &with(&[("version: 1", &format!("version: 1\n{section}"))]));
        assert_eq!(changes, [] as [&str; 0]);
        let [line] = refused.as_slice() else { panic!("{refused:?}") };
        assert!(line.starts_with(what) && line.contains(way), "{line}");
    }
}

/// A configuration with a choice of what may differ.
fn any_config() -> impl Strategy<Value = Config> {
    let devices = prop::sample::subsequence((0..6).collect::<Vec<u8>>(), 1..=6).prop_shuffle();
    let wan = (0_u8..3, prop::option::of(1_u16..3), 0_u8..3, 0_u16..4);
    let file = (0_usize..7, 0_u8..3, 1_u32..3, 0_u8..3, 0_u8..3, 0_u8..2);
    (devices, prop::collection::vec(wan, 6), file).prop_map(|(devices, wans, file)| {
        let (balance, lan, retries, bypass, filtering, api) = file;
        let list: String = devices
            .iter()
            .zip(wans)
            .map(|(device, (name, weight, failback, forwards))| {
                let weight = weight.map_or_else(String::new, |weight| format!(", weight: {weight}"));
                let failback = ["stay", "cut", "drain(1m)"][usize::from(failback)];
                let forwards: Vec<String> = (0..forwards)
                    .map(|n| format!("{{protocol: udp, port: {}, to: 192.0.2.10}}", n + 1))
                    .collect();
                format!(
                    "  - {{name: n{device}{name}, device: wan{device}{weight}, failback: {failback}, \
                     forwards: [{}]}}\n",
                    forwards.join(", ")
                )
            })
            .collect();
        let prefixes: Vec<String> = (0..bypass).map(|n| format!("192.0.{n}.0/24")).collect();
        let text = format!(
            "version: 1\nmode: steer\nbalance: {}\nlan: [{}]\nwans:\n{list}\
             health: {{retries: {retries}}}\nbypass: [{}]\nnat: {{filtering: {}}}\n{}",
            config::Balance::ALL[balance].name(),
            ["lan0", "lan0, lan1", "lan1, lan0"][usize::from(lan)],
            prefixes.join(", "),
            config::Filtering::ALL[usize::from(filtering)].name(),
            ["", "api: {listen: off}\n"][usize::from(api)],
        );
        parsed(&text)
    })
}

proptest! {
    #[test]
    fn nothing_is_told_only_when_nothing_differs(a in any_config(), b in any_config()) {
        prop_assert_eq!(between(&a, &a), Revision::default());
        let told = between(&a, &b);
        prop_assert_eq!(told == Revision::default(), a == b, "{:?}", told);
        // The way back is as long.
        let back = between(&b, &a);
        prop_assert_eq!(told.refused.len(), back.refused.len());
        let moved = |revision: &Revision| {
            revision.changes.iter().filter(|line| line.contains("order")).count()
        };
        prop_assert_eq!(moved(&told), moved(&back));
        prop_assert_eq!(told.changes.len(), back.changes.len());
    }
}

#[test]
fn each_difference_of_a_bond_needs_a_restart() {
    let rows = [
        ("203.0.113.250:7000", "203.0.113.251:7000", "bond.server: 203.0.113.250:7000 removed"),
        ("/etc/mwb/private.key", "/k", "bond.private_key_file: /etc/mwb/private.key → /k"),
        (
            "NqnP4z4u49EyW2/lx5QXo6mx9BrGxDTentAf2N++HAY=",
            "8ye5f70HVyykTp65HmfEkJG7gKbYXQOAf4nsPYXPLEw=",
            "bond.server_public_key: NqnP4z4u49EyW2/lx5QXo6mx9BrGxDTentAf2N++HAY= → 8ye5",
        ),
        ("bond:", "bond:\n  suite: crc32", "bond.suite: chacha20poly1305 → crc32"),
        ("bond:", "bond:\n  port: 7001", "bond.port: 7000 → 7001"),
        ("bond:", "bond:\n  device: mwb1", "bond.device: mwb0 → mwb1"),
        ("192.0.2.62/32", "192.0.2.61/32", "bond.addresses: 192.0.2.62/32 removed"),
        ("bond:", "bond:\n  probe_interval: 20ms", "bond.probe_interval: 50ms → 20ms"),
        ("bond:", "bond:\n  elephant: 1mbit", "bond.elephant: 5mbit → 1mbit"),
        ("bond:", "failover: {dead_after: 1s}\nbond:", "failover.dead_after: 150ms → 1s"),
        ("bond:", "reorder: {hold: 50ms}\nbond:", "reorder.hold: 200ms → 50ms"),
    ];
    for (old, new, line) in rows {
        let Revision { changes, refused } =
            between(&parsed(LEAST_BOND), &parsed(&LEAST_BOND.replacen(old, new, 1)));
        assert_eq!(changes, [] as [&str; 0], "{new}");
        let first = refused.first().map(String::as_str).unwrap_or_default();
        assert!(first.starts_with(line), "{new}: {refused:?}");
        assert!(refused.iter().all(|line| line.contains("restart")), "{refused:?}");
    }
    let metered = LEAST_BOND.replace("device: wan0}", "device: wan0, metered: true}");
    let Revision { changes, refused } = between(&parsed(LEAST_BOND), &parsed(&metered));
    assert_eq!(changes, ["WAN fiber: metered: false → true"]);
    assert_eq!(refused, [] as [&str; 0], "a running agent does that");
    let Revision { changes, refused } = between(
        &parsed(LEAST_BOND),
        &parsed(&LEAST_BOND.replace("device: wan0}", "device: wan0}, {name: lte, device: wan1}")),
    );
    assert_eq!(
        (changes.as_slice(), refused.len()),
        (["WAN lte (wan1) added".to_owned()].as_slice(), 0)
    );
}

#[test]
fn each_difference_of_error_correction_needs_a_restart() {
    let rule = "classes: {rules: [{class: auto, repair: fec}]}";
    let file = |fec: &str| parsed(&format!("{}{rule}\n{fec}\n", LEAST_BOND.trim_start()));
    for (fec, line) in [
        ("fec: {parity: 2}", "fec.parity: auto → 2 needs a restart"),
        ("fec: {block: 16}", "fec.block: 32 → 16 needs a restart"),
        ("fec: {wait: 5ms}", "fec.wait: 10ms → 5ms needs a restart"),
        ("fec: {interleave: 4}", "fec.interleave: 1 → 4 needs a restart"),
    ] {
        let Revision { changes, refused } = between(&file(""), &file(fec));
        assert_eq!(changes, [] as [&str; 0], "{fec}");
        assert!(matches!(&refused[..], [one] if one.starts_with(line)), "{refused:?}");
    }
}

#[test]
fn a_running_agent_changes_classes_of_service() {
    let file = |classes: &str| parsed(&format!("{}classes: {classes}\n", LEAST_BOND.trim_start()));
    let two = "{rules: [{class: pin, port: 53}, {class: auto, repair: fec}]}";
    for (before, after, expected) in [
        ("{}", two, &["{class: pin, port: 53} added", "{class: auto, repair: fec} added"][..]),
        (two, "{rules: [{class: pin, port: 53}]}", &["{class: auto, repair: fec} removed"]),
        (
            two,
            "{rules: [{class: auto, repair: fec}, {class: pin, port: 53}]}",
            &["in another order"],
        ),
    ] {
        let expected: Vec<String> =
            expected.iter().map(|line| format!("classes.rules: {line}")).collect();
        let Revision { changes, refused } = between(&file(before), &file(after));
        assert_eq!((changes, refused), (expected, vec![]), "{after}");
    }
    let metered = file("{metered_copies: 1mbit}");
    let Revision { changes, refused } = between(&file("{}"), &metered);
    assert_eq!(changes, ["classes.metered_copies: 200kbit → 1mbit"]);
    assert_eq!(refused, [] as [&str; 0]);
}

#[test]
fn each_difference_of_a_server_needs_a_restart() {
    let other = "    - {name: site2, public_key: 8ye5f70HVyykTp65HmfEkJG7gKbYXQOAf4nsPYXPLEw=, \
                 prefixes: [192.0.2.64/26]}";
    let rows = [
        ("/etc/mwb/private.key", "/k", "server.private_key_file: /etc/mwb/private.key → /k"),
        ("server:\n  ", "server:\n  port: 7001\n  ", "server.port: 7000 → 7001"),
        ("10.100.0.1/16", "10.100.0.2/16", "server.addresses: 10.100.0.1/16 removed"),
        (
            "server:\n  ",
            "server:\n  suites: [crc32]\n  ",
            "server.suites: chacha20poly1305 removed",
        ),
        ("name: site1", "name: site9", "client site1: name: site1 → site9"),
        ("192.0.2.0/26", "192.0.2.0/27", "client site1: prefixes: 192.0.2.0/26 removed"),
        (
            "pFTTPA0/Pu+hgPTb6fI02lvcoZV+SbvHezlbbVsi52I=",
            "8ye5f70HVyykTp65HmfEkJG7gKbYXQOAf4nsPYXPLEw=",
            "client site1 removed",
        ),
        (
            "role: server",
            "failover: {dead_after: 1s}\nrole: server",
            "failover.dead_after: 150ms → 1s",
        ),
    ];
    for (old, new, line) in rows {
        let Revision { refused, .. } =
            between(&parsed(LEAST_SERVER), &parsed(&LEAST_SERVER.replacen(old, new, 1)));
        let first = refused.first().map(String::as_str).unwrap_or_default();
        assert!(first.starts_with(line), "{new}: {refused:?}");
        assert!(refused.iter().all(|line| line.contains("restart")), "{refused:?}");
    }
    let more = format!("{}{other}\n", LEAST_SERVER.trim_start());
    let Revision { changes, refused } = between(&parsed(LEAST_SERVER), &parsed(&more));
    assert_eq!(changes, [] as [&str; 0]);
    assert!(matches!(&refused[..], [one] if one.starts_with("client site2 added")), "{refused:?}");
    // The ninth finds no room in the tables that there are.
    let others: String = (1..=8)
        .map(|n| {
            let key = crate::bond::PrivateKey::from_bytes(&[n; 32]).expect("a key").public();
            format!("    - {{name: n{n}, public_key: {key}, prefixes: [10.0.{n}.0/24]}}\n")
        })
        .collect();
    let Revision { refused, .. } =
        between(&parsed(LEAST_SERVER), &parsed(&(LEAST_SERVER.to_owned() + &others)));
    let room = "server.clients: room for 8 → 16 needs `mwb-agent --detach`";
    assert!(refused.first().is_some_and(|line| line.starts_with(room)), "{refused:?}");
}

#[test]
fn another_role_or_mode_needs_a_restart() {
    let needs = |old: &str, new: &str, line: &str| {
        let Revision { refused, .. } = between(&parsed(old), &parsed(new));
        assert!(refused.iter().any(|told| told.starts_with(line)), "{refused:?}");
    };
    needs(BASE, LEAST_BOND, "mode: steer → bond");
    needs(LEAST_BOND, BASE, "mode: bond → steer");
    needs(BASE, LEAST_SERVER, "role: gateway → server");
}

#[test]
fn what_may_be_a_secret_is_not_told() {
    let http = |path: &str, header: &str| {
        let http = format!("{{url: \"http://192.0.2.1/{path}\", headers: [\"X-Key: {header}\"]}}");
        with(&[("version: 1", &format!("version: 1\nhealth: {{method: http, http: {http}}}"))])
    };
    let webhook = |path: &str| {
        let url = format!("url: \"https://hooks.example.net/{path}\"");
        let receivers = format!("[{{name: ops, {url}, secret_file: /s}}]");
        with(&[("version: 1", &format!("version: 1\nnotify: {{receivers: {receivers}}}"))])
    };
    let base = parsed(BASE);
    for (old, new) in [
        (http("aa11", "bb22"), http("cc33", "bb22")),
        (http("aa11", "bb22"), http("aa11", "dd44")),
        (base.clone(), http("aa11", "bb22")),
        (webhook("aa11"), webhook("cc33")),
        (base, webhook("aa11")),
    ] {
        let changes = between(&old, &new).changes;
        assert!(!changes.is_empty());
        let told = changes.join("; ");
        assert!(["aa11", "bb22", "cc33", "dd44"].iter().all(|part| !told.contains(part)), "{told}");
    }
}
