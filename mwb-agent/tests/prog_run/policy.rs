//! Policy rules: what each condition lets in, what a rule does, and that what is open is
//! left alone.

use mwb_agent::dataplane::Hook;
use mwb_common::maps::{SLOTS, Selection, how, index};
use mwb_common::policy::{Action, Mark, Rule};
use mwb_common::reason::Reason;
use mwb_common::select::{Share, compile};

use crate::gateway::From::{Lan, Wan};
use crate::gateway::{Gateway, Gateways};
use crate::lasting::in_a_gateway;
use crate::moved::difference;
use crate::network::in_the_world;
use crate::packet::{Packet, Transport, fragments};
use crate::row::{Row, untouched};
use crate::world::{
    FRIEND, HOST, HOST_MAC, HOST6, NEIGHBOUR2, OTHER_REMOTE, PORT, REMOTE, REMOTE6, SERVICE,
    STRANGER_MAC, answer, host_echo, host_tcp, host_udp, liveness, out_by1, selection, v6,
};

/// By path 2 and no other.
pub(crate) const STRICT: u8 = 1;
/// By path 2, or another if it is dead.
const PREFER: u8 = 2;

/// One that leads to path 2, others behind it.
pub(crate) fn to_path2(ranking: &[u8]) -> Selection {
    compile(&[Share { path: 2, weight: 1 }], ranking, index::COUNTER)
}

pub(crate) fn set_outlets(gateway: &mut Gateway) {
    gateway.set_outlet(STRICT, &to_path2(&[2]));
    gateway.set_outlet(PREFER, &to_path2(&[2, 1]));
}

/// What becomes of a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Sent {
    /// It was sent on by this path.
    By(u8),
    /// It ended otherwise.
    Ended(Reason),
}

/// Has a packet go its way; the counters tell which it was.
pub(crate) fn sent(gateway: &mut Gateway, packet: &Packet) -> Sent {
    sent_frame(gateway, &packet.bytes(), 0)
}

fn sent_frame(gateway: &mut Gateway, frame: &[u8], mark: u32) -> Sent {
    let before = gateway.counters().expect("counters");
    if mark == 0 {
        gateway.try_frame(Lan, frame);
    } else {
        gateway.run_marked(Lan, frame, mark).expect("a test run");
    }
    let moved = difference(&before, gateway.counters().expect("counters"));
    let [row] = moved.as_slice() else { panic!("one counter has to move: {moved:?}") };
    if row.reason == Reason::Forwarded { Sent::By(row.path) } else { Sent::Ended(row.reason) }
}

pub(crate) fn rule(action: Action, change: impl FnOnce(&mut Rule)) -> Rule {
    let mut rule = Rule::any(action);
    change(&mut rule);
    rule
}

pub(crate) fn net(text: &str) -> ipnet::IpNet {
    text.parse().expect("a prefix")
}

/// Rows of blocked packets.
pub(crate) fn rows() -> Vec<Row> {
    let blocking = |gateway: &mut Gateway| gateway.set_policy(&[Rule::any(Action::Block)]);
    let to_neighbour = host_udp(PORT).with(|p| p.destination = NEIGHBOUR2.into());
    [
        ("udp", host_udp(PORT), "udp4"),
        ("tcp", host_tcp(PORT), "tcp4"),
        ("echo", host_echo(PORT), "icmp4"),
        ("udp over ipv6", v6(&host_udp(PORT)), "udp6"),
        ("tcp over ipv6", v6(&host_tcp(PORT)), "tcp6"),
        ("echo over ipv6", v6(&host_echo(PORT)), "icmp6"),
        ("to a wan's own subnet", to_neighbour, "udp4"),
    ]
    .into_iter()
    .map(|(name, packet, protocol)| {
        let name = format!("blocked by a rule: {name}");
        untouched(name, Lan, packet.bytes(), Reason::PolicyBlocked, (0, protocol)).given(blocking)
    })
    .collect()
}

/// A condition, a packet that has it, and one that has not.
type Condition = (&'static str, Rule, Packet, Packet);

fn conditions() -> Vec<Condition> {
    let out = Action::Outlet(STRICT);
    let (udp, udp6) = (host_udp(PORT), v6(&host_udp(PORT)));
    let to = |port| {
        host_udp(PORT).with(|p| {
            p.transport = Transport::Udp { source: PORT, destination: port, checksum: true };
        })
    };
    let with_tos = |packet: &Packet, tos| packet.with(|p| p.tos = tos);
    let of_friend = udp.with(|p| p.source = FRIEND.into());
    let elsewhere = udp.with(|p| p.destination = OTHER_REMOTE.into());
    let elsewhere6 = udp6.with(|p| p.destination = "2001:db8:fe::7".parse().expect("an address"));
    let stranger = host_udp(PORT + 1).with(|p| p.from = STRANGER_MAC);
    let host_net = format!("{HOST}/32");
    let host_net6 = format!("{HOST6}/128");
    vec![
        ("source", rule(out, |r| r.sources = Some(vec![net(&host_net)])), udp.clone(), of_friend),
        (
            "source of ipv6",
            rule(out, |r| r.sources = Some(vec![net(&host_net6)])),
            udp6.clone(),
            udp.clone(),
        ),
        (
            "destination",
            rule(out, |r| r.destinations = Some(vec![net(&format!("{REMOTE}/32"))])),
            udp.clone(),
            elsewhere,
        ),
        (
            "destination of ipv6",
            rule(out, |r| r.destinations = Some(vec![net(&format!("{REMOTE6}/48"))])),
            udp6.clone(),
            elsewhere6,
        ),
        (
            "source port",
            rule(out, |r| r.source_ports = Some(vec![(PORT, PORT)])),
            udp.clone(),
            host_udp(PORT + 1),
        ),
        (
            "port",
            rule(out, |r| r.ports = Some(vec![(1, 2), (SERVICE, SERVICE + 7)])),
            to(SERVICE + 7),
            to(SERVICE + 8),
        ),
        (
            "any port at all",
            rule(out, |r| r.ports = Some(vec![(0, u16::MAX)])),
            host_tcp(PORT),
            host_echo(PORT),
        ),
        (
            "any source port at all, ipv6",
            rule(out, |r| r.source_ports = Some(vec![(0, u16::MAX)])),
            v6(&host_tcp(PORT)),
            v6(&host_echo(PORT)),
        ),
        ("protocol", rule(out, |r| r.protocols = Some(vec![6, 17])), udp.clone(), host_echo(PORT)),
        (
            "protocol of ipv6",
            rule(out, |r| r.protocols = Some(vec![58])),
            v6(&host_echo(PORT)),
            udp6.clone(),
        ),
        (
            "dscp",
            rule(out, |r| r.dscp = Some(vec![46])),
            with_tos(&udp, 46 << 2 | 1),
            with_tos(&host_udp(PORT + 1), 45 << 2),
        ),
        (
            "dscp of ipv6",
            rule(out, |r| r.dscp = Some(vec![46])),
            with_tos(&udp6, 46 << 2 | 2),
            with_tos(&v6(&host_udp(PORT + 1)), 14 << 2),
        ),
        ("mac", rule(out, |r| r.macs = Some(vec![[9; 6], HOST_MAC])), udp.clone(), stranger),
    ]
}

#[test]
fn each_condition_alone_steers_what_it_names_and_nothing_else() {
    in_the_world("each_condition_alone_steers_what_it_names_and_nothing_else", |lan| {
        let mut gateways = Gateways::new(lan);
        for form in [Hook::Xdp, Hook::Tcx] {
            for (name, rule, has, has_not) in conditions() {
                let name = format!("{name} ({})", form.name());
                let gateway = gateways.fresh(form, (64, 64)).expect("a gateway");
                set_outlets(gateway);
                gateway.set_policy(&[rule]);
                let before = gateway.hits()[0];
                assert_eq!(sent(gateway, &has), Sent::By(2), "{name}");
                assert_eq!(gateway.hits()[0], before + 1, "{name}");
                assert_eq!(sent(gateway, &has_not), Sent::By(1), "{name}");
                assert_eq!(gateway.hits()[0], before + 1, "{name}");
            }
        }
    });
}

#[test]
fn a_device_and_the_time_are_conditions_too() {
    in_a_gateway("a_device_and_the_time_are_conditions_too", |gateway, _| {
        set_outlets(gateway);
        let of =
            |devices: &[u32]| rule(Action::Outlet(STRICT), |r| r.devices = Some(devices.to_vec()));
        let later = rule(Action::Outlet(STRICT), |r| r.active = false);
        // Test runs come in through the device with index 1.
        let rows = [(of(&[7, 1]), 2), (of(&[7]), 1), (of(&[]), 1), (later, 1)];
        for (port, (rule, path)) in (PORT..).zip(rows) {
            gateway.set_policy(&[rule]);
            for packet in [host_udp(port), v6(&host_udp(port))] {
                assert_eq!(sent(gateway, &packet), Sent::By(path), "{port}");
            }
        }
    });
}

#[test]
fn a_mark_is_a_condition_where_packets_have_one() {
    in_a_gateway("a_mark_is_a_condition_where_packets_have_one", |gateway, form| {
        set_outlets(gateway);
        let marks = vec![Mark { value: 0x0100_0010, mask: 0x0f00_00f0 }];
        gateway.set_policy(&[rule(Action::Outlet(STRICT), |r| r.marks = Some(marks))]);
        assert_eq!(sent(gateway, &host_udp(PORT)), Sent::By(1));
        if form == Hook::Tcx {
            let rows = [(0x0100_0010, 2), (0xf1ab_cd1f, 2), (0x0200_0010, 1), (0x0100_0020, 1)];
            for (port, (mark, path)) in (PORT + 1..).zip(rows) {
                for packet in [host_udp(port), v6(&host_udp(port))] {
                    let how = sent_frame(gateway, &packet.bytes(), mark);
                    assert_eq!(how, Sent::By(path), "{mark:#x}");
                }
            }
        }
        // What has no mark has 0.
        let none = vec![Mark { value: 0, mask: u32::MAX }];
        gateway.set_policy(&[rule(Action::Outlet(STRICT), |r| r.marks = Some(none))]);
        assert_eq!(sent(gateway, &host_udp(PORT + 9)), Sent::By(2));
    });
}

#[test]
fn the_first_rule_that_matches_counts() {
    in_a_gateway("the_first_rule_that_matches_counts", |gateway, _| {
        set_outlets(gateway);
        let of = |action, hits, port| {
            rule(action, |r| (r.source_ports, r.hits) = (Some(vec![(port, u16::MAX)]), hits))
        };
        gateway.set_policy(&[
            of(Action::Default, 1, PORT + 3),
            of(Action::Block, 2, PORT + 2),
            of(Action::Outlet(STRICT), 3, PORT + 1),
            of(Action::Block, 4, 1),
        ]);
        let before = gateway.hits();
        let rows = [
            (PORT + 3, Sent::By(1)),
            (PORT + 2, Sent::Ended(Reason::PolicyBlocked)),
            (PORT + 1, Sent::By(2)),
            (PORT, Sent::Ended(Reason::PolicyBlocked)),
        ];
        for (port, expected) in rows {
            for packet in [host_udp(port), host_tcp(port), v6(&host_udp(port))] {
                assert_eq!(sent(gateway, &packet), expected, "{port}");
            }
        }
        let more: Vec<u64> =
            gateway.hits().iter().zip(&before).map(|(now, before)| now - before).collect();
        assert_eq!(more[..6], [0, 3, 3, 3, 3, 0]);
    });
}

#[test]
fn a_strict_outlet_keeps_to_its_wan_and_another_falls_back() {
    in_a_gateway("a_strict_outlet_keeps_to_its_wan_and_another_falls_back", |gateway, _| {
        set_outlets(gateway);
        let of = |outlet, port| {
            rule(Action::Outlet(outlet), |r| r.source_ports = Some(vec![(port, port + 99)]))
        };
        gateway.set_policy(&[of(STRICT, PORT), of(PREFER, PORT + 100)]);
        // Alive, and which path each takes: strict, prefer, without a rule.
        let rows: [(&[u8], [u8; 3]); 4] =
            [(&[1, 2], [2, 2, 1]), (&[1], [2, 1, 1]), (&[2], [2, 2, 2]), (&[], [2, 2, 1])];
        for (turn, (alive, paths)) in (0..).zip(rows) {
            gateway.set_liveness(&liveness(alive));
            for (start, path) in [PORT, PORT + 100, PORT + 200].into_iter().zip(paths) {
                for packet in [host_udp(start + turn), v6(&host_udp(start + turn))] {
                    assert_eq!(sent(gateway, &packet), Sent::By(path), "{alive:?}, {start}");
                }
            }
        }
    });
}

#[test]
fn a_flow_of_a_strict_outlet_waits_for_its_wan_and_others_move() {
    in_a_gateway("a_flow_of_a_strict_outlet_waits_for_its_wan_and_others_move", |gateway, _| {
        set_outlets(gateway);
        let of = |outlet, port| {
            rule(Action::Outlet(outlet), |r| r.source_ports = Some(vec![(port, port)]))
        };
        gateway.set_policy(&[of(STRICT, PORT), of(PREFER, PORT + 1)]);
        let strict = [host_udp(PORT), v6(&host_udp(PORT))];
        let prefer = [host_udp(PORT + 1), v6(&host_udp(PORT + 1))];
        for packet in strict.iter().chain(&prefer) {
            assert_eq!(sent(gateway, packet), Sent::By(2));
        }
        let before = gateway.hits()[0];
        gateway.set_liveness(&liveness(&[1]));
        for packet in &strict {
            assert_eq!(sent(gateway, packet), Sent::By(2), "it must not be made anew");
        }
        assert_eq!(gateway.hits()[0], before);
        for packet in &prefer {
            assert_eq!(sent(gateway, packet), Sent::By(1));
        }
    });
}

#[test]
fn what_is_open_stays_as_it_is_when_rules_change() {
    in_a_gateway("what_is_open_stays_as_it_is_when_rules_change", |gateway, _| {
        set_outlets(gateway);
        let open = [host_udp(PORT), host_tcp(PORT), v6(&host_udp(PORT))];
        for packet in &open {
            assert_eq!(sent(gateway, packet), Sent::By(1));
        }
        for action in [Action::Block, Action::Outlet(STRICT)] {
            gateway.set_policy(&[Rule::any(action)]);
            let before = gateway.hits()[0];
            for packet in &open {
                assert_eq!(sent(gateway, packet), Sent::By(1), "{action:?}");
            }
            assert_eq!(gateway.hits()[0], before, "{action:?}");
        }
        // And what comes back comes in.
        let before = gateway.counters().expect("counters");
        gateway.send(Wan(1), &answer(&out_by1(&host_udp(PORT))));
        let moved = difference(&before, gateway.counters().expect("counters"));
        assert!(matches!(moved[..], [row] if row.reason == Reason::Forwarded), "{moved:?}");
        assert_eq!(sent(gateway, &host_udp(PORT + 1)), Sent::By(2));
    });
}

#[test]
fn fragments_go_where_the_first_one_does() {
    in_the_world("fragments_go_where_the_first_one_does", |lan| {
        let mut gateways = Gateways::new(lan);
        let gateway = gateways.fresh(Hook::Tcx, (64, 64)).expect("a gateway");
        set_outlets(gateway);
        let of = |action, port| rule(action, |r| r.source_ports = Some(vec![(port, port)]));
        let steered = of(Action::Outlet(STRICT), PORT);
        gateway.set_policy(&[steered, of(Action::Block, PORT + 1)]);
        let long = |packet: &Packet| {
            fragments(&packet.with(|p| p.payload = vec![7; 2_500]).bytes(), 1_000)
        };
        for packet in [host_udp(PORT), v6(&host_udp(PORT))] {
            for fragment in long(&packet) {
                assert_eq!(sent_frame(gateway, &fragment, 0), Sent::By(2));
            }
        }
        for packet in [host_udp(PORT + 1), v6(&host_udp(PORT + 1))] {
            let first = &long(&packet)[0];
            assert_eq!(sent_frame(gateway, first, 0), Sent::Ended(Reason::PolicyBlocked));
        }
    });
}

/// All ports but those of the world, one for each rule, so that none matches.
pub(crate) fn others(count: u16) -> Vec<Rule> {
    (1..=count)
        .map(|port| rule(Action::Block, |r| r.ports = Some(vec![(60_000 + port, 60_000 + port)])))
        .collect()
}

#[test]
fn what_no_rule_is_about_goes_as_if_there_were_none() {
    in_the_world("what_no_rule_is_about_goes_as_if_there_were_none", |lan| {
        let mut gateways = Gateways::with_rules(lan, others(1_000));
        let mut failed = String::new();
        let rows = [crate::outward::rows(), crate::inward::rows(), crate::fragments::rows()];
        for row in rows.iter().flatten().chain(&crate::portless::rows()) {
            for form in row.forms {
                if let Err(wrong) = row.run(&mut gateways, *form) {
                    failed += &format!("{} ({}):\n{wrong}", row.name, form.name());
                }
            }
        }
        assert!(failed.is_empty(), "{failed}");
    });
}

#[test]
fn a_flow_notes_the_outlet_that_it_has_left_by() {
    in_a_gateway("a_flow_notes_the_outlet_that_it_has_left_by", |gateway, _| {
        gateway.set_outlet(63, &Selection { index: index::FLOW_HASH, ..to_path2(&[2]) });
        gateway.set_policy(&[Rule::any(Action::Outlet(63))]);
        assert_eq!(sent(gateway, &host_udp(PORT)), Sent::By(2));
        assert_eq!(sent(gateway, &v6(&host_udp(PORT))), Sent::By(2));
        let mut choices = Vec::new();
        let tables = gateway.tables();
        tables.flows4().for_each(|_, flows| choices.push(flows[0].choice)).expect("a read");
        tables.flows6().for_each(|_, flows| choices.push(flows[0].choice)).expect("a read");
        assert_eq!(choices.len(), 4);
        for choice in choices {
            assert_eq!((choice.outlet(), choice.how), (63, how::SLOT));
            assert!(usize::from(choice.slot()) < SLOTS);
        }
        assert!(!selection().has(2));
    });
}
