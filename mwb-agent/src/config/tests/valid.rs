//! Files that are right, and what they mean.

use std::net::{IpAddr, Ipv4Addr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::super::{
    Balance, Capacity, Failback, Filtering, ForwardProtocol, Gateway, HookChoice, Lan,
    PeerRedirect, load,
};
use super::{LEAST, right};

/// Every key, each with a value that is not its default.
const FULL: &str = r#"
version: 1
role: gateway
mode: steer
hook: xdp
lan: [lan0, {device: lan1, hook: tcx}]
balance: least_used
ipv6_prefix: 2001:db8:a::/48
bypass: [192.0.2.0/24, "2001:db8:ff::/64"]
wans:
  - name: fiber
    device: wan0
    gateway: 198.51.100.1
    gateway6: fe80::1
    priority: 1
    weight: 20
    capacity: {up: 40mbit, down: 1.5gbit}
    hook: auto
    ipv6_prefix: 2001:db8:101::/48
    failback: cut
    forwards:
      - {protocol: tcp, port: 443, to: "192.0.2.10:8443"}
      - {protocol: udp, port: 50000-50010, to: 192.0.2.11}
  - {name: lte, device: wan1}
failover: {failback_after: 1m, failback: drain(10m), hold_down_max: 2h}
health:
  interval: 500ms
  retries: 5
  method: ping
  targets: [192.0.2.1, "2001:db8:ff::1"]
  degraded: {latency: 80ms, jitter: 20ms, loss: 2.5%}
nat:
  ports: 20000-29999
  flows: 4096
  timeouts: {udp: 2m, icmp: 30s, tcp_established: 1h, tcp_transitory: 1m}
  filtering: endpoint_independent
  mappings_per_source: 500
api: {listen: "[::1]:9900", socket: /run/mwb/b.sock, group: net, token_file: /etc/mwb/token}
"#;

#[test]
fn the_least_file_gives_the_defaults() {
    let config = right(LEAST);
    assert_eq!(config.lan, [lan("lan0", HookChoice::Auto, PeerRedirect::Auto)]);
    assert_eq!(config.balance, Balance::Adaptive);
    assert_eq!(config.ipv6_prefix, None);
    let [wan] = config.wans.as_slice() else { panic!("{:?}", config.wans) };
    assert_eq!((wan.name.as_str(), wan.device.as_str()), ("fiber", "wan0"));
    assert_eq!((wan.priority, wan.weight, wan.capacity), (0, 100, Capacity::default()));
    assert_eq!((wan.gateway4, wan.gateway6), (Gateway::Auto, Gateway::Auto));
    assert_eq!(config.failover.failback_after, Duration::from_secs(5));
    assert_eq!(config.failover.hold_down_max, Duration::from_secs(300));
    assert_eq!((wan.failback, wan.forwards.as_slice()), (Failback::Stay, [].as_slice()));
    assert_eq!(config.nat.filtering, Filtering::AddressAndPortDependent);
    assert_eq!(config.nat.mappings_per_source, 0);
    assert_eq!((config.api.group, config.api.token_file), (None, None));
    assert_eq!(config.health.interval, Duration::from_millis(200));
    assert_eq!(config.health.retries, 3);
    assert_eq!((config.nat.port_min, config.nat.port_max), (10_000, 65_535));
    assert_eq!(config.nat.timeouts.udp, Duration::from_secs(300));
    assert_eq!(config.nat.timeouts.icmp, Duration::from_secs(60));
    assert_eq!(config.nat.timeouts.tcp_established, Duration::from_secs(7_440));
    assert_eq!(config.nat.timeouts.tcp_transitory, Duration::from_secs(240));
    assert_eq!(config.api.listen, Some((Ipv4Addr::LOCALHOST, 9_800).into()));
    assert_eq!(config.api.socket, PathBuf::from("/run/mwb/mwb.sock"));
}

#[test]
fn every_key_reaches_its_field() {
    let config = right(FULL);
    let least = right(LEAST);
    assert_eq!(config.lan[0].hook, HookChoice::Xdp, "inherited from the file");
    assert_eq!(config.lan[1], lan("lan1", HookChoice::Tcx, PeerRedirect::Auto));
    assert_eq!(config.balance, Balance::LeastUsed);
    assert_eq!(config.ipv6_prefix.map(|p| p.to_string()).as_deref(), Some("2001:db8:a::/48"));
    assert_eq!(config.bypass.len(), 2);
    let wan = &config.wans[0];
    assert_eq!(wan.gateway4, Gateway::Address(Ipv4Addr::new(198, 51, 100, 1)));
    assert_ne!(wan.gateway6, Gateway::Auto);
    assert_eq!((wan.priority, wan.weight, wan.hook), (1, 20, HookChoice::Auto));
    assert_eq!(wan.capacity, Capacity { up: Some(40_000_000), down: Some(1_500_000_000) });
    assert!(wan.ipv6_prefix.is_some());
    assert_eq!(config.wans[1].hook, HookChoice::Xdp, "inherited from the file");
    assert_eq!(config.wans[1].ipv6_prefix, None);
    assert_eq!(config.failover.failback_after, Duration::from_secs(60));
    assert_eq!(config.failover.hold_down_max, Duration::from_secs(7_200));
    assert_eq!(wan.failback, Failback::Cut);
    let inherited = config.wans[1].failback;
    assert_eq!(inherited, Failback::Drain(Duration::from_secs(600)), "inherited");
    assert_eq!(inherited.to_string(), "drain(10m)");
    let [web, phone] = wan.forwards.as_slice() else { panic!("{:?}", wan.forwards) };
    assert_eq!((web.protocol, phone.protocol), (ForwardProtocol::Tcp, ForwardProtocol::Udp));
    assert_eq!((web.to, phone.to), ([192, 0, 2, 10].into(), [192, 0, 2, 11].into()));
    assert_eq!(web.ports().collect::<Vec<_>>(), [(443, 8_443)]);
    let same = (50_000..=50_010).map(|port| (port, port));
    assert!(phone.ports().eq(same), "one to one, inside nat.ports too");
    assert_eq!(config.nat.filtering, Filtering::EndpointIndependent);
    assert_eq!(config.nat.mappings_per_source, 500);
    assert_eq!(config.api.group.as_deref(), Some("net"));
    assert_eq!(config.api.token_file, Some(PathBuf::from("/etc/mwb/token")));
    assert_eq!(config.health.targets[0], IpAddr::from([192, 0, 2, 1]));
    assert!((config.health.degraded.loss - 0.025).abs() < 1e-12);
    assert_ne!(config.health.interval, least.health.interval);
    assert_ne!(config.health.retries, least.health.retries);
    assert_ne!(config.health.degraded.latency, least.health.degraded.latency);
    assert_ne!(config.health.degraded.jitter, least.health.degraded.jitter);
    assert_eq!(
        (config.nat.port_min, config.nat.port_max, config.nat.flows),
        (20_000, 29_999, 4096)
    );
    assert_eq!(config.nat.timeouts.udp, Duration::from_secs(120));
    assert_eq!(config.nat.timeouts.icmp, Duration::from_secs(30));
    assert_eq!(config.nat.timeouts.tcp_established, Duration::from_secs(3_600));
    assert_eq!(config.nat.timeouts.tcp_transitory, Duration::from_secs(60));
    assert_eq!(config.api.listen.map(|a| a.to_string()).as_deref(), Some("[::1]:9900"));
    assert_eq!(config.api.socket, PathBuf::from("/run/mwb/b.sock"));
}

#[test]
fn the_hold_down_is_never_shorter_than_the_wait() {
    let text = format!("{LEAST}failover: {{failback_after: 10m, hold_down_max: 1m}}\n");
    assert_eq!(right(&text).failover.hold_down_max, Duration::from_secs(600));
}

#[test]
fn every_mode_name_parses() {
    for balance in Balance::ALL {
        let config = right(&format!("{LEAST}balance: {}\n", balance.name()));
        assert_eq!(config.balance, balance);
    }
}

#[test]
fn thirty_two_wans_are_accepted_and_one_more_is_not() {
    let file = |count: usize| {
        let wans: String =
            (0..count).map(|n| format!("  - {{name: w{n}, device: wan{n}}}\n")).collect();
        format!("version: 1\nmode: steer\nlan: [lan0]\nwans:\n{wans}")
    };
    assert_eq!(right(&file(32)).wans.len(), 32);
    assert_eq!(super::wrong(&file(33)).fix.as_deref(), Some("give 1 to 32"));
}

#[test]
fn the_tcp_listener_can_be_off() {
    assert_eq!(right(&format!("{LEAST}api: {{listen: off}}\n")).api.listen, None);
}

#[test]
fn a_file_that_cannot_be_read_names_itself() {
    let error = load(Path::new("/nonexistent/gateway.yaml"));
    let text = error.err().map(|error| error.to_string()).unwrap_or_default();
    assert!(text.starts_with("/nonexistent/gateway.yaml: cannot be read"), "{text}");
}

#[test]
fn every_example_of_the_package_is_valid() {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../deploy/examples");
    let mut seen = 0;
    for entry in std::fs::read_dir(folder).expect("deploy/examples is there") {
        let path = entry.expect("the folder can be listed").path();
        if path.extension().is_some_and(|extension| extension == "yaml") {
            if let Err(error) = load(&path) {
                panic!("{}", error.render());
            }
            seen += 1;
        }
    }
    assert!(seen >= 3, "{seen} examples");
}

fn lan(device: &str, hook: HookChoice, redirect_peer: PeerRedirect) -> Lan {
    Lan { device: device.to_owned(), hook, redirect_peer }
}

#[test]
fn redirect_peer_is_the_files_unless_a_device_has_its_own() {
    let config = right(
        "version: 1\nmode: steer\nredirect_peer: off\n\
         lan: [lan0, {device: lan1, redirect_peer: auto}]\n\
         wans:\n  - {name: a, device: wan0, redirect_peer: auto}\n  - {name: b, device: wan1}\n",
    );
    let lans: Vec<_> = config.lan.iter().map(|lan| lan.redirect_peer).collect();
    let wans: Vec<_> = config.wans.iter().map(|wan| wan.redirect_peer).collect();
    assert_eq!(lans, [PeerRedirect::Off, PeerRedirect::Auto]);
    assert_eq!(wans, [PeerRedirect::Auto, PeerRedirect::Off]);
}
