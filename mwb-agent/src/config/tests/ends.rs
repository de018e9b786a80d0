//! Both ends of a bond: what is right, and what is wrong and where.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use mwb_common::integrity::Suite;
use proptest::prelude::*;

use super::super::{Endpoint, HookChoice, Idle, Mode, PeerRedirect, Role};
use super::wrong::{Row, check};
use super::{LEAST, LEAST_BOND, LEAST_SERVER, read, right, wrong};

const KEY: &str = "8ye5f70HVyykTp65HmfEkJG7gKbYXQOAf4nsPYXPLEw=";

#[test]
fn the_least_file_of_a_bond_gives_the_defaults() {
    let config = right(LEAST_BOND);
    assert_eq!((config.role, config.mode), (Role::Gateway, Mode::Bond));
    assert_eq!(config.failover.dead_after, Duration::from_millis(150));
    assert_eq!((config.server.as_ref(), config.session_slots()), (None, 4));
    let tunnel = config.tunnel().expect("a bond");
    assert_eq!((tunnel.device, tunnel.data_plane_end().as_str()), ("mwb0", "mwb0-dp"));
    let bond = config.bond.as_ref().expect("a bond");
    let address: SocketAddr = ([203, 0, 113, 250], 7_000).into();
    assert_eq!(bond.servers, [Endpoint::Address(address)]);
    assert_eq!((bond.suite, bond.port), (Suite::ChaCha20Poly1305, 7_000));
    assert_eq!((bond.probe_interval, bond.elephant), (Duration::from_millis(50), 5_000_000));
    assert_eq!(right(LEAST).tunnel(), None);
}

#[test]
fn every_key_of_a_bond_reaches_its_field() {
    let config = right(
        "version: 1\nmode: bond\nlan: [lan0]\nwans:\n  - {name: a, device: wan0, gateway6: fe80::1}\n\
         failover: {dead_after: 1s}\nhealth: {targets: [\"2001:db8:ff::1\"]}\nbond:\n  \
         server: [\"203.0.113.250:7000\", \"[2001:db8::1]:7001\", vpn.example.net:7002]\n  \
         private_key_file: /etc/key\n  \
         server_public_key: 8ye5f70HVyykTp65HmfEkJG7gKbYXQOAf4nsPYXPLEw=\n  suite: siphash\n  \
         port: 7100\n  device: twelve-chars\n  addresses: [10.1.0.9/24, \"2001:db8:a::9/128\"]\n  \
         probe_interval: 100ms\n  elephant: 2mbit\n",
    );
    let bond = config.bond.as_ref().expect("a bond");
    let servers: Vec<String> = bond.servers.iter().map(ToString::to_string).collect();
    assert_eq!(servers, ["203.0.113.250:7000", "[2001:db8::1]:7001", "vpn.example.net:7002"]);
    assert_eq!(bond.private_key_file, PathBuf::from("/etc/key"));
    assert_eq!(bond.server_public_key.to_string(), KEY);
    assert_eq!((bond.suite, bond.port, bond.elephant), (Suite::SipHash, 7_100, 2_000_000));
    assert_eq!(config.tunnel().map(|t| t.data_plane_end()).as_deref(), Some("twelve-chars-dp"));
    let addresses: Vec<String> = bond.addresses.iter().map(ToString::to_string).collect();
    assert_eq!(addresses, ["10.1.0.9/24", "2001:db8:a::9/128"], "host bits stay");
    assert_eq!(bond.probe_interval, Duration::from_millis(100));
    assert_eq!(config.failover.dead_after, Duration::from_secs(1));
}

#[test]
fn without_a_word_probes_follow_dead_after() {
    for (dead_after, interval) in [("20ms", 10), ("60ms", 20), ("150ms", 50), ("10s", 1_000)] {
        let failover = format!("failover: {{dead_after: {dead_after}}}\n");
        let config = right(&format!("{LEAST_BOND}{failover}"));
        let server = right(&format!("{LEAST_SERVER}{failover}"));
        for config in [config, server] {
            let tunnel = config.tunnel().expect("a bond");
            assert_eq!(tunnel.probe_interval, Duration::from_millis(interval), "{dead_after}");
            assert!(tunnel.probe_interval * 2 <= config.failover.dead_after);
        }
    }
}

#[test]
fn a_metered_wan_of_a_bond_is_probed_once_a_second_while_it_is_idle() {
    for (said, metered) in [("", false), (", metered: false", false), (", metered: true", true)] {
        let config = right(&LEAST_BOND.replace("wan0", &format!("wan0{said}")));
        assert_eq!(config.wans[0].metered, metered, "{said}");
    }
    let ms = Duration::from_millis;
    for (interval, dead_after, every, idle, idle_dead) in [
        (50, 150, 20, 1_000, 3_500),
        (10, 20, 100, 1_000, 3_500),
        (400, 1_200, 3, 1_200, 4_200),
        (700, 2_000, 1, 700, 2_450),
        (1_000, 10_000, 1, 1_000, 10_000),
    ] {
        let expected = Idle { every, interval: ms(idle), dead_after: ms(idle_dead) };
        assert_eq!(Idle::of(ms(interval), ms(dead_after)), expected, "{interval} ms");
    }
    assert_eq!(right(LEAST_BOND).idle().map(|idle| idle.every), Some(20));
    assert_eq!(right(LEAST).idle(), None);
    let error = wrong(&LEAST_SERVER.replace("device: eth0", "device: eth0, metered: true"));
    assert!(error.message.contains("told by each client"), "{}", error.render());
}

#[test]
fn a_server_is_a_steering_gateway_with_the_device_of_its_bonds_as_lan() {
    let config = right(LEAST_SERVER);
    assert_eq!((config.role, config.mode), (Role::Server, Mode::Steer));
    let [lan] = config.lan.as_slice() else { panic!("{:?}", config.lan) };
    assert_eq!((lan.device.as_str(), lan.hook), ("mwb0", HookChoice::Xdp));
    assert_eq!(lan.redirect_peer, PeerRedirect::Auto);
    let server = config.server.as_ref().expect("a server");
    assert_eq!(
        (server.port, server.suites.as_slice()),
        (7_000, [Suite::ChaCha20Poly1305].as_slice())
    );
    let [client] = server.clients.as_slice() else { panic!("{:?}", server.clients) };
    assert_eq!((client.name.as_str(), &client.suites), ("site1", &server.suites), "inherited");
    assert_eq!((config.bond.as_ref(), config.session_slots()), (None, 16));
}

#[test]
fn every_key_of_a_server_reaches_its_field() {
    let config = right(&format!(
        "version: 1\nrole: server\nhook: xdp\nbalance: failover\nipv6_prefix: 2001:db8:a::/48\n\
         wans:\n  - {{name: up0, device: eth0, forwards: [{{protocol: udp, port: 7000, to: 192.0.2.9}}]}}\n  \
         - {{name: up1, device: eth1, gateway6: fe80::1}}\n  \
         - {{name: up2, device: eth2, ipv6_prefix: 2001:db8:b::/48}}\nnat: {{flows: 64}}\n\
         server:\n  private_key_file: /etc/key\n  port: 7001\n  device: bond1\n  \
         addresses: [10.100.0.1/16, \"2001:db8:a:ffff::1/64\"]\n  suites: [siphash, crc32]\n  clients:\n    \
         - {{name: site1, public_key: {KEY}, prefixes: [192.0.2.0/26, \"2001:db8:a:100::/56\"], \
         suites: [crc32]}}\n"
    ));
    let prefixes: Vec<Option<String>> =
        config.wans.iter().map(|wan| wan.ipv6_prefix.map(|prefix| prefix.to_string())).collect();
    let [own, same, other] = prefixes.as_slice() else { panic!("{prefixes:?}") };
    assert_eq!((own, own.as_deref()), (same, Some("2001:db8:a::/48")), "they keep their addresses");
    assert_eq!(other.as_deref(), Some("2001:db8:b::/48"));
    let server = config.server.as_ref().expect("a server");
    assert_eq!(
        (server.port, server.device.as_str(), config.lan[0].device.as_str()),
        (7_001, "bond1", "bond1")
    );
    assert_eq!(server.suites, [Suite::SipHash, Suite::Crc32]);
    assert_eq!((server.addresses.len(), server.private_key_file.to_str()), (2, Some("/etc/key")));
    let client = &server.clients[0];
    assert_eq!((client.public_key.to_string().as_str(), client.prefixes.len()), (KEY, 2));
    assert_eq!(client.suites, [Suite::Crc32]);
}

#[test]
fn what_has_no_effect_in_a_bond_is_refused_with_the_reason() {
    let rows: &[Row] = &[
        ("server: {}", "10:1", "`role` is `gateway`", "role: server"),
        ("nat: {flows: 64}", "10:1", "the server translates", "the server's file"),
        ("ipv6_prefix: 2001:db8::/48", "10:1", "translated by nobody here", "the server's file"),
        ("redirect_peer: off", "10:1", "packets are sent by XDP", "remove it"),
        ("failover: {failback: cut}", "10:12", "no flow rests on a WAN", "remove it"),
        ("failover: {dead_after: 10ms}", "10:24", "`10ms` is out of range", "20ms to 10s"),
        ("failover: {dead_after: 11s}", "10:24", "`11s` is out of range", "20ms to 10s"),
    ];
    check(rows, |section| format!("{LEAST_BOND}{section}\n"));
    let rows: &[Row] = &[
        ("failback: cut", "4:36", "no flow rests on a WAN", "remove it"),
        ("redirect_peer: off", "4:36", "packets are sent by XDP", "remove it"),
        ("forwards: []", "4:36", "by the server's address", "the server's file"),
        ("ipv6_prefix: 2001:db8::/48", "4:36", "are not translated", "remove it"),
        ("hook: tcx", "4:42", "by XDP", "`hook: auto` or `hook: xdp`"),
        ("metered: yes", "4:45", "`yes` is not true or false", "write true or false"),
        ("metered: 1", "4:45", "`1` is not true or false", "write true or false"),
        ("metered: []", "4:45", "expected true or false", "like true"),
    ];
    check(rows, |key| LEAST_BOND.replace("device: wan0", &format!("device: wan0, {key}")));
    let lan: &[Row] = &[("redirect_peer: off", "3:22", "packets are sent by XDP", "remove it")];
    check(lan, |key| LEAST_BOND.replace("[lan0]", &format!("[{{device: lan0, {key}}}]")));
    let inherited: &[Row] = &[("hook: tcx", "5:8", "by XDP", "for this WAN")];
    check(inherited, |key| LEAST_BOND.replace("mode: bond", &format!("mode: bond\n{key}")));
    let missing: &[Row] = &[("", "1:1", "the key `bond` is missing", "add it")];
    check(missing, |_| LEAST.replace("steer", "bond"));
}

#[test]
fn fifteen_wans_are_accepted_in_a_bond_and_one_more_is_not() {
    let file = |count: usize| {
        let wans: Vec<String> =
            (0..count).map(|n| format!("{{name: w{n}, device: wan{n}}}")).collect();
        LEAST_BOND.replace("{name: fiber, device: wan0}", &wans.join(", "))
    };
    assert_eq!(right(&file(15)).wans.len(), 15);
    assert_eq!(wrong(&file(16)).fix.as_deref(), Some("give 1 to 15"));
}

#[test]
fn a_wrong_bond_is_refused_at_the_place() {
    let rows: &[Row] = &[
        ("sute: crc32", "10:3", "unknown key `sute`", "did you mean `suite`?"),
        ("fec: {}", "10:3", "unknown key `fec`", "it belongs at the top of the file"),
        ("suite: aes", "10:10", "unknown value `aes`", "`chacha20poly1305`, `siphash` or `crc32`"),
        ("port: 0", "10:9", "out of range", "1 to 65535"),
        ("device: thirteen-char", "10:11", "`thirteen-char` is too long", "at most 12"),
        ("device: wan0", "10:11", "`wan0` already is", "one role"),
        ("device: a/b", "10:11", "cannot be the name", "at most 15"),
        ("probe_interval: 9ms", "10:19", "out of range", "10ms to 1s"),
        ("probe_interval: 2s", "10:19", "out of range", "10ms to 1s"),
        ("probe_interval: 76ms", "10:19", "`failover.dead_after` is 150ms", "at most 75ms"),
        ("elephant: 5", "10:13", "`5` has no unit", "5mbit"),
        ("elephant: 99kbit", "10:13", "out of range", "100kbit to 10gbit"),
    ];
    check(rows, |key| format!("{LEAST_BOND}  {key}\n"));
    for (line, key) in
        [(6, "server"), (7, "private_key_file"), (8, "server_public_key"), (9, "addresses")]
    {
        let kept = LEAST_BOND.lines().zip(1..).filter(|(_, number)| *number != line);
        let text: String = kept.map(|(text, _)| format!("{text}\n")).collect();
        assert!(wrong(&text).message.contains(&format!("`{key}` is missing")), "{text}");
    }
}

#[test]
fn a_wrong_address_of_a_server_is_refused_at_the_place() {
    let rows: &[Row] = &[
        ("203.0.113.250", "6:11", "not an address of a server with its port", "203.0.113.250:7000"),
        ("\"203.0.113.250:0\"", "6:11", "not an address", "203.0.113.250:7000"),
        ("\"203.0.113:7000\"", "6:11", "not an address", "203.0.113.250:7000"),
        ("2001:db8::1:7000", "6:11", "not an address", "[2001:db8::1]:7000"),
        ("vpn..net:7000", "6:11", "not an address", "vpn.example.net:7000"),
        ("-vpn.net:7000", "6:11", "not an address", "vpn.example.net:7000"),
        ("vpn.net:+700", "6:11", "not an address", "vpn.example.net:7000"),
        ("vpn.net:70000", "6:11", "not an address", "vpn.example.net:7000"),
        ("\"127.0.0.1:7000\"", "6:11", "`127.0.0.1` cannot be", "203.0.113.250:7000"),
        ("\"0.0.0.0:7000\"", "6:11", "`0.0.0.0` cannot be", "203.0.113.250:7000"),
        ("[]", "6:11", "0 addresses of the server", "1 to 8"),
        ("[a.net:1, a.net:1]", "6:21", "given twice", "remove one"),
        ("7000", "6:11", "not an address", "203.0.113.250:7000"),
    ];
    check(rows, |server| LEAST_BOND.replace("\"203.0.113.250:7000\"", server));
}

#[test]
fn a_wrong_key_is_refused_with_what_is_wrong_with_it() {
    let rows: &[Row] = &[
        ("short", "8:22", "a key has 44 characters, this has 5", "mwb pubkey"),
        ("AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=", "8:22", "zeros only", "mwb pubkey"),
        ("AQAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=", "8:22", "nothing is secret", "mwb pubkey"),
        (
            "NqnP4z4u49EyW2/lx5QXo6mx9BrGxDTentAf2N++HA-=",
            "8:22",
            "32 bytes in base64",
            "mwb pubkey",
        ),
    ];
    let key = "NqnP4z4u49EyW2/lx5QXo6mx9BrGxDTentAf2N++HAY=";
    check(rows, |wrong| LEAST_BOND.replace(key, wrong));
}

#[test]
fn a_wrong_address_of_the_device_is_refused_at_the_place() {
    let rows: &[Row] = &[
        ("[]", "9:14", "0 addresses", "1 to 16"),
        ("[192.0.2.62]", "9:15", "is an address, expected", "192.0.2.62/32"),
        ("[192.0.2.0/26]", "9:15", "no address of a host", "length of its subnet"),
        ("[192.0.2.63/26]", "9:15", "no address of a host", "length of its subnet"),
        ("[\"2001:db8::/64\"]", "9:15", "no address of a host", "length of its subnet"),
        ("[fe80::1/64]", "9:15", "no address of a host", "length of its subnet"),
        ("[127.0.0.1/8]", "9:15", "no address of a host", "length of its subnet"),
        ("[192.0.2.1/24, 192.0.2.1/32]", "9:29", "given twice", "remove one"),
        ("[home]", "9:15", "`home` is not an address with", "192.0.2.129/32"),
    ];
    check(rows, |addresses| LEAST_BOND.replace("[192.0.2.62/32]", addresses));
    right(&LEAST_BOND.replace("192.0.2.62/32", "192.0.2.62/31"));
}

#[test]
fn the_names_of_both_ends_of_the_device_are_taken() {
    for taken in ["mwb0", "mwb0-dp"] {
        let error = wrong(&LEAST_BOND.replace("wan0", taken));
        assert!(error.message.contains("the bond's device is `mwb0`"), "{}", error.render());
        right(&format!("{}  device: mwb1\n", LEAST_BOND.replace("wan0", taken)));
    }
    let error = wrong(&format!("{}  device: b\n", LEAST_BOND.replace("wan0", "b-dp")));
    assert!(error.message.contains("its other end is `b-dp`"), "{}", error.render());
}

#[test]
fn a_wrong_server_is_refused_at_the_place() {
    let rows: &[Row] = &[
        ("mode: steer", "11:1", "a server has no mode", "remove it"),
        ("lan: [lan0]", "11:1", "a server has no LAN", "server.device"),
        ("bond: {}", "11:1", "its end of bonds is `server`", "remove it"),
        ("hook: tcx", "3:8", "by XDP", "for this WAN"),
    ];
    check(rows, |key| format!("{LEAST_SERVER}{key}\n"));
    let rows: &[Row] = &[
        ("port: 10000", "5:9", "out of range", "1 to 9999"),
        ("device: eth0", "5:11", "`eth0` already is", "one role"),
        ("pool: 10.0.0.0/8", "5:3", "not in this version", "remove it"),
        ("client: []", "5:3", "unknown key `client`", "did you mean `clients`?"),
        ("suites: []", "5:11", "0 suites", "1 to 3"),
        ("suites: [crc32, crc32]", "5:19", "`crc32` is given twice", "remove one"),
        ("suites: [sipash]", "5:12", "unknown value `sipash`", "`siphash`?"),
    ];
    check(rows, |key| LEAST_SERVER.replace("server:\n", &format!("server:\n  {key}\n")));
    let missing: &[Row] = &[("", "1:1", "the key `server` is missing", "add it")];
    check(missing, |_| "version: 1\nrole: server\nwans: [{name: a, device: b}]\n".to_owned());
    let forward = "device: eth0, forwards: [{protocol: udp, port: 6999-7001, to: 192.0.2.9}]";
    let error = wrong(&LEAST_SERVER.replace("device: eth0", forward));
    assert!(error.message.contains("UDP port 7000 of WAN `uplink`"), "{}", error.render());
    right(&LEAST_SERVER.replace("device: eth0", &forward.replace("udp", "tcp")));
}

#[test]
fn a_wrong_client_is_refused_at_the_place() {
    let rows: &[Row] = &[
        ("name: site1", "11:14", "two clients are named `site1`", "otherwise"),
        ("name: Site", "11:14", "cannot be the name of a client", "1 to 31 of a-z"),
        ("nme: a", "11:8", "unknown key `nme`", "did you mean `name`?"),
        ("quota: 1", "11:8", "not in this version", "remove it"),
        ("public_key: a", "11:7", "the key `name` is missing", "name: site1"),
        ("name: b", "11:7", "the key `public_key` is missing", "public_key"),
    ];
    check(rows, |client| format!("{LEAST_SERVER}    - {{{client}}}\n"));
    let error = wrong(&format!(
        "{LEAST_SERVER}    - {{name: b, public_key: pFTTPA0/Pu+hgPTb6fI02lvcoZV+SbvHezlbbVsi52I=}}\n"
    ));
    assert!(error.message.contains("client `site1` has this key too"), "{}", error.render());
    let none = wrong(
        &LEAST_SERVER[..LEAST_SERVER.find("\n    -").expect("a client")]
            .replace("clients:", "clients: []"),
    );
    assert!(none.message.contains("0 clients"), "{}", none.render());
    let error = wrong(&format!("{LEAST_SERVER}      suites: [siphash]\n"));
    assert!(error.message.contains("does not accept `siphash`"), "{}", error.render());
}

#[test]
fn the_prefixes_of_clients_are_each_ones_own() {
    let rows: &[Row] = &[
        ("[192.0.2.0/24]", "11:86", "and `192.0.2.0/26` of client `site1`", "to one client"),
        ("[192.0.2.32/27]", "11:86", "and `192.0.2.0/26` of client `site1`", "to one client"),
        ("[192.0.3.0/24, 192.0.3.7/32]", "11:100", "of the same client", "to one client"),
        ("[192.0.2.65/26]", "11:86", "bits set", "192.0.2.64/26"),
        ("[192.0.2.65]", "11:86", "is an address", "192.0.2.65/32"),
        ("[0.0.0.0/0]", "11:86", "hosts cannot have", "behind this client"),
        ("[224.0.0.0/8]", "11:86", "hosts cannot have", "behind this client"),
        ("[10.100.0.0/24]", "11:86", "`10.100.0.1` in it is the server's own", "server.addresses"),
        ("[\"2001:db8:a::/48\"]", "11:86", "the server carries no IPv6", "add `ipv6_prefix`"),
        ("[]", "11:85", "0 prefixes", "1 to 64"),
    ];
    let file = |prefixes: &str| {
        format!("{LEAST_SERVER}    - {{name: b, public_key: {KEY}, prefixes: {prefixes}}}\n")
    };
    check(rows, file);
    right(&file("[192.0.2.64/26, 10.100.1.0/24]"));
    let carried = |prefix: &str| {
        read(&format!("ipv6_prefix: 2001:db8:a::/48\n{}", file(&format!("[\"{prefix}\"]"))))
    };
    assert!(carried("2001:db8:a:1::/64").is_ok());
    let outside = carried("2001:db8:b::/48").expect_err("outside");
    assert!(outside.message.contains("not inside `2001:db8:a::/48`"), "{}", outside.render());
}

#[test]
fn there_are_two_slots_for_each_client_and_room_for_more() {
    let file = |count: u8| {
        let clients: String = (0..count)
            .map(|n| {
                let key =
                    crate::bond::PrivateKey::from_bytes(&[n + 1; 32]).expect("a key").public();
                format!("    - {{name: c{n}, public_key: {key}, prefixes: [10.0.{n}.0/24]}}\n")
            })
            .collect();
        let head = &LEAST_SERVER[..LEAST_SERVER.find("    -").expect("a client")];
        right(&format!("{head}{clients}")).session_slots()
    };
    assert_eq!([1, 8, 9, 16, 17, 100].map(file), [16, 16, 32, 32, 64, 256]);
}

proptest! {
    #[test]
    fn no_text_of_an_endpoint_panics_and_what_is_taken_is_written_the_same(text in "[0-9a-z.:-]{1,24}|\\[[0-9a-f:]{2,20}\\]:[0-9]{1,6}") {
        let file = LEAST_BOND.replace("203.0.113.250:7000", &text);
        if let Ok(config) = read(&file) {
            let bond = config.bond.expect("a bond");
            let again = LEAST_BOND.replace("203.0.113.250:7000", &bond.servers[0].to_string());
            prop_assert_eq!(read(&again).ok().and_then(|config| config.bond), Some(bond));
        }
    }

    #[test]
    fn clients_are_accepted_if_and_only_if_no_address_is_of_two(
        prefixes in prop::collection::vec((0_u8..8, 26_u8..=32), 2),
    ) {
        let net = |&(part, length): &(u8, u8)| {
            let address = std::net::Ipv4Addr::new(192, 0, 2, part * 32);
            ipnet::Ipv4Net::new(address, length).expect("a length").trunc()
        };
        let [a, b] = [net(&prefixes[0]), net(&prefixes[1])];
        let file = LEAST_SERVER.replace("192.0.2.0/26", &a.to_string());
        let file = format!("{file}    - {{name: b, public_key: {KEY}, prefixes: [{b}]}}\n");
        let shared = a.hosts().chain([a.network(), a.broadcast()]).any(|address| b.contains(&address));
        prop_assert_eq!(read(&file).is_err(), shared, "{} {}", a, b);
    }
}
