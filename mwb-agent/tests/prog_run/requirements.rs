//! What the NAT requirements ask for and no single packet shows: mappings that
//! are the same for all, who refreshes what, and errors that quote odd packets or
//! are turned round. `docs/nat-compliance.md` names these tests.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::time::{Duration, Instant};

use mwb_agent::dataplane::{Forward, Hook};
use mwb_common::reason::Reason;

use crate::gateway::From::{self, Lan, Wan};
use crate::gateway::{Gateway, TC_ACT_REDIRECT};
use crate::lasting::in_a_gateway;
use crate::outward::only_ports;
use crate::packet::{ICMP, Packet, TCP, Transport, UDP};
use crate::row::{Row, Then, after, slow};
use crate::run;
use crate::world::{
    FRIEND, FRIEND_MAC, HOST, LAN_MAC, OTHER_REMOTE, PORT, SERVICE, WAN1, WAN1_MAC, answer,
    delivered, host_echo, host_tcp, host_udp, out_by1, v6,
};

const PATIENCE: Duration = Duration::from_secs(10);

/// A timestamp request, which has an identifier as an echo has.
fn host_timestamp(id: u16) -> Packet {
    let [high, low] = id.to_be_bytes();
    host_echo(id).with(|p| {
        p.transport = Transport::Icmp { kind: 13, code: 0, rest: [high, low, 0, 7] };
        p.payload = vec![0; 12];
    })
}

/// Sends it; the port or identifier that it leaves with.
fn outside_port(gateway: &mut Gateway, form: Hook, packet: &Packet) -> u16 {
    let outcome = gateway.run(Lan, &packet.bytes()).expect("a test run");
    let out = outcome.packet;
    assert_ne!(out, packet.bytes(), "it is translated in the {} form", form.name());
    let field = match packet.transport {
        Transport::Echo { .. } | Transport::Icmp { .. } => 38,
        _ => 34,
    };
    u16::from_be_bytes([out[field], out[field + 1]])
}

fn to(packet: &Packet, address: IpAddr, port: u16) -> Packet {
    packet.with(|p| {
        p.destination = address;
        if let Transport::Tcp { destination, .. } | Transport::Udp { destination, .. } =
            &mut p.transport
        {
            *destination = port;
        }
    })
}

#[test]
fn an_endpoint_is_one_outside_endpoint_for_all_destinations() {
    let name = "an_endpoint_is_one_outside_endpoint_for_all_destinations";
    in_a_gateway(name, |gateway, form| {
        // Its own port is free, is another host's, is none that NAT gives.
        for port in [PORT, PORT + 2, 5_000] {
            for sent in [host_udp(port), host_tcp(port), host_echo(port), host_timestamp(port)] {
                if port == PORT + 2 {
                    gateway.send(Lan, &sent.with(|p| p.source = FRIEND.into()));
                }
                let destinations = [
                    (sent.destination, SERVICE),
                    (sent.destination, 53),
                    (OTHER_REMOTE.into(), SERVICE),
                    (OTHER_REMOTE.into(), 700),
                ];
                let seen: BTreeSet<u16> = destinations
                    .into_iter()
                    .map(|(address, port)| outside_port(gateway, form, &to(&sent, address, port)))
                    .collect();
                assert_eq!(seen.len(), 1, "{sent:?} is seen as {seen:?}");
                assert_eq!(seen.contains(&port), port == PORT, "{sent:?} is seen as {seen:?}");
            }
            // Echo and timestamp have one range of identifiers.
            only_ports(gateway, PORT, PORT + 4_095);
        }
    });
}

#[test]
fn the_odd_port_of_a_pair_follows_the_even_one() {
    in_a_gateway("the_odd_port_of_a_pair_follows_the_even_one", |gateway, form| {
        for even in (5_000..5_032).step_by(2) {
            let first = outside_port(gateway, form, &host_udp(even));
            let second = outside_port(gateway, form, &host_udp(even + 1));
            assert_eq!((first % 2, second), (0, first + 1), "port {even}");
        }
    });
}

#[test]
fn a_port_that_is_not_kept_is_hard_to_foresee() {
    in_a_gateway("a_port_that_is_not_kept_is_hard_to_foresee", |gateway, form| {
        let ports: Vec<u16> = (5_000..5_064)
            .step_by(2)
            .map(|port| outside_port(gateway, form, &host_udp(port)))
            .collect();
        let steps: BTreeSet<u16> =
            ports.windows(2).map(|pair| pair[1].wrapping_sub(pair[0])).collect();
        assert!(steps.len() > 24, "from one to the next: {steps:?} in {ports:?}");
    });
}

/// What packets touch: when each direction of each flow was last seen, and each
/// mapping and each port last used, by protocol, port and what it is.
type Clocks = BTreeMap<(u8, u16, &'static str), u64>;

fn clocks(gateway: &Gateway) -> Clocks {
    let (tables, mut clocks) = (gateway.tables(), Clocks::new());
    let mut note = |protocol, port: [u8; 2], what, time| {
        clocks.insert((protocol, u16::from_be_bytes(port), what), time);
    };
    tables
        .flows4()
        .for_each(|key, flows| match key.scope {
            0 => note(key.protocol, key.source_port, "out", flows[0].last_seen),
            _ => note(key.protocol, key.destination_port, "in", flows[0].last_seen),
        })
        .expect("a read");
    tables
        .flows6()
        .for_each(|key, flows| match key.scope {
            0 => note(key.protocol, key.source_port, "out6", flows[0].last_seen),
            _ => note(key.protocol, key.destination_port, "in6", flows[0].last_seen),
        })
        .expect("a read");
    tables
        .mappings()
        .for_each(|key, mapping| {
            note(key.protocol, mapping[0].port, "mapping", mapping[0].last_used)
        })
        .expect("a read");
    tables
        .ports()
        .for_each(|key, owner| note(key.protocol, key.port, "port", owner[0].last_used))
        .expect("a read");
    clocks
}

/// Sends it until one clock has moved, which has a grain of some milliseconds.
fn refresh(gateway: &mut Gateway, from: From, packet: &Packet, clock: (u8, u16, &'static str)) {
    let (before, start) = (clocks(gateway), Instant::now());
    assert!(before.contains_key(&clock), "no {clock:?} in {before:?}");
    let mut after = before.clone();
    while after == before {
        assert!(start.elapsed() < PATIENCE, "{packet:?} from {from:?} moves no clock");
        gateway.send(from, packet);
        after = clocks(gateway);
    }
    after.retain(|which, time| before.get(which) != Some(time));
    let moved: Vec<_> = after.into_keys().collect();
    assert_eq!(moved, [clock], "{packet:?} from {from:?}");
}

/// A destination unreachable in the place of `place`, quoting `packet`.
fn unreachable(place: &Packet, rest: [u8; 4], packet: &[u8]) -> Packet {
    let kind = if place.source.is_ipv4() { 3 } else { 1 };
    place.with(|p| {
        p.transport = Transport::Icmp { kind, code: 1, rest };
        p.payload = packet.to_vec();
        p.options.clear();
    })
}

/// A packet without its link layer.
fn quote(packet: &Packet) -> Vec<u8> {
    packet.bytes()[14..].to_vec()
}

#[test]
fn packets_refresh_their_flow_and_errors_about_it_touch_nothing() {
    let name = "packets_refresh_their_flow_and_errors_about_it_touch_nothing";
    in_a_gateway(name, |gateway, form| {
        let kinds = [
            (host_udp(PORT), UDP, ["out", "in"]),
            (host_tcp(PORT), TCP, ["out", "in"]),
            (host_echo(PORT), ICMP, ["out", "in"]),
            (v6(&host_udp(PORT)), UDP, ["out6", "in6"]),
        ];
        let witness = host_udp(PORT + 1);
        gateway.send(Lan, &witness);
        for (sent, protocol, [out, back]) in kinds {
            let reply = answer(&out_by1(&sent));
            gateway.send(Lan, &sent);
            gateway.send(Wan(1), &reply);
            refresh(gateway, Lan, &sent, (protocol, PORT, out));
            refresh(gateway, Wan(1), &reply, (protocol, PORT, back));
            if form == Hook::Xdp {
                // The rest is for the slow path.
                continue;
            }
            // From now on whatever is touched has another time.
            refresh(gateway, Lan, &witness, (UDP, PORT + 1, "out"));
            refresh(gateway, Lan, &witness, (UDP, PORT + 1, "out"));
            let before = clocks(gateway);
            gateway.send(Wan(1), &unreachable(&reply, [0; 4], &quote(&out_by1(&sent))));
            gateway.send(Lan, &unreachable(&sent, [0; 4], &quote(&delivered(&reply))));
            assert_eq!(clocks(gateway), before, "errors about {sent:?}");
        }
    });
}

/// About a packet of HOST, to it: what a router says, and what arrives.
fn told(name: &str, left: &[u8], sent: &[u8], rest: [u8; 4]) -> [Row; 2] {
    let place = answer(&out_by1(&host_udp(PORT)));
    let packet = unreachable(&place, rest, left);
    let out = unreachable(&delivered(&place), rest, sent);
    let then = Then::Ends(Reason::Forwarded, Some(out.bytes()));
    slow(name, Wan(1), packet.bytes(), then, (1, "icmp4"))
}

#[test]
fn an_error_may_quote_options_a_wrong_checksum_and_have_extensions() {
    fn opened(gateway: &mut Gateway) {
        gateway.send(Lan, &host_udp(PORT));
    }
    let one_hop = |packet: &Packet| packet.with(|p| p.ttl -= 1);
    let udp = host_udp(PORT);
    let with_options = udp.with(|p| p.options = vec![7, 7, 4, 0, 0, 0, 0, 1]);
    let damaged = |packet: &Packet| {
        let mut bytes = quote(packet);
        *bytes.last_mut().expect("a payload") ^= 1;
        bytes
    };
    // RFC 4884, 4.1 and 7: 128 bytes in words of four, then version 2, a checksum,
    // and one object.
    let extended = |packet: &Packet| {
        let mut bytes = quote(packet);
        bytes.resize(128, 0);
        bytes.extend([0x20, 0, 0xcc, 0xe4, 0, 8, 1, 1, 9, 9, 9, 9]);
        bytes
    };
    let rows = [
        told("options", &quote(&out_by1(&with_options)), &quote(&one_hop(&with_options)), [0; 4]),
        told("a wrong checksum", &damaged(&out_by1(&udp)), &damaged(&one_hop(&udp)), [0; 4]),
        told("extensions", &extended(&out_by1(&udp)), &extended(&one_hop(&udp)), [0, 32, 0, 0]),
    ];
    let rows = rows.into_iter().flat_map(|rows| after(rows, opened)).collect();
    run("an_error_may_quote_options_a_wrong_checksum_and_have_extensions", rows);
}

/// FRIEND has a port forward, HOST speaks to it by the WAN's address, and FRIEND
/// tells of an error.
#[test]
fn an_error_about_a_packet_that_was_turned_round_reaches_its_sender() {
    let name = "an_error_about_a_packet_that_was_turned_round_reaches_its_sender";
    in_a_gateway(name, |gateway, form| {
        if form == Hook::Xdp {
            return;
        }
        let forward = Forward { path: 1, protocol: UDP, port: SERVICE, to: FRIEND, to_port: 8_443 };
        gateway.set_forwards(&[forward]);
        let sent = to(&host_udp(PORT), WAN1.into(), SERVICE);
        // Out, and in again: as it is at the WAN, and as FRIEND has it.
        let turned = out_by1(&sent).with(|p| (p.to, p.from) = (WAN1_MAC, sent.from));
        let arrived = to(&delivered(&turned), FRIEND.into(), 8_443).with(|p| p.to = FRIEND_MAC);
        let mut pass = |from, packet: &Packet, out: &Packet| {
            let outcome = gateway.run(from, &packet.bytes()).expect("a test run");
            assert_eq!(outcome.verdict, TC_ACT_REDIRECT, "{packet:?}");
            assert_eq!(outcome.packet, out.bytes(), "{packet:?}");
        };
        pass(Lan, &sent, &turned);
        pass(Wan(1), &turned, &arrived);
        let error = unreachable(&answer(&arrived), [0; 4], &quote(&arrived))
            .with(|p| (p.to, p.from, p.ttl) = (LAN_MAC, FRIEND_MAC, 64));
        // At the WAN it is about what was there; HOST reads of what it sent itself.
        let at_wan = unreachable(&out_by1(&error), [0; 4], &quote(&turned.with(|p| p.ttl -= 1)))
            .with(|p| (p.to, p.from) = (WAN1_MAC, FRIEND_MAC));
        pass(Lan, &error, &at_wan);
        let home = unreachable(&delivered(&at_wan), [0; 4], &quote(&sent.with(|p| p.ttl -= 2)));
        pass(Wan(1), &at_wan, &home);
        assert_eq!(IpAddr::from(HOST), home.destination);
    });
}
