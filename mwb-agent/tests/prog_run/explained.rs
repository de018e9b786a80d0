//! What `mwb why` says beforehand, and what the programs then do: both decide
//! from the same maps, and must come to the same end.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use mwb_agent::dataplane::Hook;
use mwb_agent::explain::{Decided, Facts, Packet as Asked, Verdict, decide};
use mwb_common::maps::{Control, Family, SLOTS, Selection, how, index};
use mwb_common::reason::Reason;

use crate::gateway::{From, Gateway, Gateways};
use crate::network::in_the_world;
use crate::packet::{Packet, Transport};
use crate::world::{self, from_port, host_echo, host_tcp, host_udp, v6};

/// Something about the data plane that decisions depend on.
type Situation = (&'static str, fn(&mut Gateway));

/// Slots take turns between both paths.
fn turns(by: u8) -> Selection {
    let mut selection = Selection { index: by, ..world::selection() };
    selection.slots.iter_mut().skip(1).step_by(2).for_each(|slot| *slot = 2);
    selection
}

fn choose(gateway: &mut Gateway, by: u8, alive: &[u8]) {
    for family in [Family::V4, Family::V6] {
        gateway.set_selection(family, &turns(by));
    }
    gateway.set_liveness(&world::liveness(alive));
}

const SITUATIONS: &[Situation] = &[
    ("by counter", |g| choose(g, index::COUNTER, &[1, 2])),
    ("by hash", |g| choose(g, index::FLOW_HASH, &[1, 2])),
    ("by hash with another seed", |g| {
        choose(g, index::FLOW_HASH, &[1, 2]);
        g.set_control(Control { seed: 77, ..world::control() });
    }),
    ("by counter, 1 dead", |g| choose(g, index::COUNTER, &[2])),
    ("by hash, 2 dead", |g| choose(g, index::FLOW_HASH, &[1])),
    ("by counter, none alive", |g| choose(g, index::COUNTER, &[])),
    ("by hash, none alive", |g| choose(g, index::FLOW_HASH, &[])),
    ("2 without addresses", |g| {
        choose(g, index::COUNTER, &[1, 2]);
        g.set_path(2, mwb_common::maps::Path { flags: 0, ..world::path2() });
    }),
    ("no path", |g| {
        for family in [Family::V4, Family::V6] {
            g.set_selection(family, &Selection { slots: [0; SLOTS], ..turns(index::COUNTER) });
        }
    }),
    ("two mappings for each source", |g| {
        choose(g, index::COUNTER, &[1, 2]);
        g.set_control(Control { source_limit: 2, ..world::control() });
    }),
];

/// First packets of many flows, some of them of one inside endpoint.
fn packets() -> Vec<Packet> {
    let to = |packet: &Packet, address: Ipv4Addr| packet.with(|p| p.destination = address.into());
    let mut packets = Vec::new();
    for port in 40_000..40_004 {
        packets.push(host_udp(port));
        packets.push(host_tcp(port));
        packets.push(host_echo(port));
        packets.push(v6(&host_udp(port)));
        packets.push(v6(&host_tcp(port)));
        packets.push(v6(&host_echo(port)));
    }
    for address in [
        world::OTHER_REMOTE,
        world::BYPASSED,
        world::NEIGHBOUR2,
        world::GATEWAY,
        world::FRIEND,
        Ipv4Addr::new(224, 0, 0, 5),
    ] {
        packets.push(to(&host_udp(40_003), address));
        packets.push(to(&host_tcp(41_003), address));
    }
    for address in [world::BYPASSED6, world::GATEWAY6] {
        packets.push(v6(&host_udp(40_003)).with(|p| p.destination = address.into()));
    }
    packets.push(host_udp(40_003).with(|p| p.source = world::GATEWAY.into()));
    packets.push(v6(&host_udp(40_003)).with(|p| p.source = world::FOREIGN6.into()));
    // Again: their flows are there by now.
    packets.push(host_udp(40_000));
    packets.push(v6(&host_tcp(40_001)));
    packets
}

/// The packet as an operator names it.
fn named(packet: &Packet) -> Asked {
    let end = |address: IpAddr, port: Option<u16>| match (address, port) {
        (address, None) => address.to_string(),
        (address, Some(port)) => std::net::SocketAddr::new(address, port).to_string(),
    };
    let v6 = packet.source.is_ipv6();
    let (proto, source, destination) = match packet.transport {
        Transport::Tcp { source, destination, .. } => ("tcp", Some(source), Some(destination)),
        Transport::Udp { source, destination, .. } => ("udp", Some(source), Some(destination)),
        Transport::Echo { id, .. } => (if v6 { "icmpv6" } else { "icmp" }, Some(id), None),
        _ => panic!("no first packet of a flow: {packet:?}"),
    };
    let text =
        format!("{proto} {} {}", end(packet.source, source), end(packet.destination, destination));
    text.parse().unwrap_or_else(|error| panic!("{error}"))
}

fn predicted(gateway: &Gateway, asked: &Asked) -> Decided {
    let rules = gateway.plane().rules();
    let book = rules.read().expect("a read");
    let facts = Facts::read(&gateway.tables(), &rules, &book, asked).expect("a read");
    decide(&book, asked, &facts)
}

fn counts(gateway: &Gateway) -> BTreeMap<Reason, u64> {
    let mut counts = BTreeMap::new();
    for row in gateway.counters().expect("a read") {
        *counts.entry(row.reason).or_default() += row.packets;
    }
    counts
}

/// Why the programs did something else than was predicted, if they did.
/// `counted` is what the counters said before, and says what they say then.
fn differs(
    gateway: &mut Gateway,
    form: Hook,
    packet: &Packet,
    counted: &mut BTreeMap<Reason, u64>,
) -> Option<String> {
    let asked = named(packet);
    let expected = predicted(gateway, &asked);
    gateway.try_send(From::Lan, packet);
    let now = counts(gateway);
    let given: Vec<Reason> = now
        .iter()
        .filter(|(reason, count)| counted.get(reason) != Some(count))
        .map(|(reason, _)| *reason)
        .collect();
    *counted = now;
    let flow = match (asked.key4(), asked.key6()) {
        (Some(key), _) => gateway.tables().flows4().get(&key).expect("a read"),
        (None, Some(key)) => gateway.tables().flows6().get(&key).expect("a read"),
        (None, None) => None,
    };
    let reason = match expected.verdict {
        Verdict::Path(_) => Reason::Forwarded,
        Verdict::Hairpin(_) => Reason::Hairpinned,
        Verdict::Kernel(reason) | Verdict::Drop(reason) => reason,
    };
    let wrong = |what: String| Some(format!("{asked}: {what}; predicted {expected:?}"));
    // The XDP form leaves it to the other to tell the sender, and to count it.
    let handed_over = form == Hook::Xdp && reason == Reason::SourceLimit;
    if given != [reason] && !(handed_over && given.is_empty()) {
        return wrong(format!("counted as {given:?}"));
    }
    let Verdict::Path(path) = expected.verdict else { return None };
    let Some(flow) = flow else { return wrong("no flow was made".to_owned()) };
    if flow.path != path {
        return wrong(format!("it went to path {}", flow.path));
    }
    let picked = expected.picked.as_ref().map(|picked| (picked.slot, picked.how));
    let chosen = (flow.choice.slot(), flow.choice.how & !how::MAPPED);
    if picked.is_some_and(|picked| picked != chosen) {
        return wrong(format!("the flow notes slot {} by {}", chosen.0, chosen.1));
    }
    None
}

#[test]
fn what_is_predicted_is_what_the_programs_do() {
    in_the_world("what_is_predicted_is_what_the_programs_do", |lan| {
        let mut gateways = Gateways::new(lan);
        let mut failed = String::new();
        let mut runs = 0;
        for form in [Hook::Xdp, Hook::Tcx] {
            for (name, prepare) in SITUATIONS {
                let gateway = gateways.fresh(form, (4_096, 4_096)).expect("a gateway");
                prepare(gateway);
                let mut counted = counts(gateway);
                for packet in packets() {
                    runs += 1;
                    if let Some(wrong) = differs(gateway, form, &packet, &mut counted) {
                        failed += &format!("{name} ({}): {wrong}\n", form.name());
                    }
                }
            }
        }
        assert!(failed.is_empty(), "of {runs} packets these went another way:\n{failed}");
        assert!(runs > 500, "{runs} packets");
    });
}

#[test]
fn a_flow_whose_wan_was_cut_or_renumbered_is_predicted_to_move() {
    let name = "a_flow_whose_wan_was_cut_or_renumbered_is_predicted_to_move";
    in_the_world(name, |lan| {
        let mut gateways = Gateways::new(lan);
        let gateway = gateways.fresh(Hook::Tcx, (4_096, 4_096)).expect("a gateway");
        choose(gateway, index::COUNTER, &[1, 2]);
        let packet = host_udp(40_100);
        let mut counted = counts(gateway);
        assert_eq!(differs(gateway, Hook::Tcx, &packet, &mut counted), None);
        let cut =
            |epoch, generation| mwb_common::maps::Path { epoch, generation, ..world::path1() };
        for path in [cut(1, 1), cut(1, 2)] {
            gateway.set_path(1, path);
            let other = mwb_common::maps::Path { epoch: path.epoch, ..world::path2() };
            gateway.set_path(2, mwb_common::maps::Path { generation: path.generation, ..other });
            let moved = predicted(gateway, &named(&packet));
            assert!(moved.picked.is_some(), "it is chosen anew: {moved:?}");
            assert_eq!(differs(gateway, Hook::Tcx, &packet, &mut counted), None);
        }
    });
}

#[test]
fn the_world_is_named_in_both_families() {
    assert_eq!(named(&host_echo(7)).to_string(), "icmp 192.0.2.9:7 203.0.113.7");
    let six = named(&v6(&from_port(&host_tcp(1), 7)));
    assert_eq!(six.source.address, IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 0xa, 1, 0, 0, 0, 9)));
}
