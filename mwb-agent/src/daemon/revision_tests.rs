use proptest::prelude::*;

use super::*;
use crate::config;

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
