//! Decisions over rulebooks made by hand; `tests/prog_run` compares them with
//! what the real programs do.

use mwb_common::maps::{
    Choice, Flow, Liveness, MAX_PATHS, Mapping, PATH_SLOTS, Path, PortOwner, Prefix, SLOTS,
    Selection, how, index, path_flag, prefix_class,
};
use mwb_common::reason::Reason;

use super::words::{Context, explain};
use super::*;
use crate::api::explain::Explanation;
use crate::dataplane::Rulebook;
use crate::policy::Met;

const NOW: u64 = 1_000;

/// Two WANs; slots alternate; path 2 is second in the ranking.
pub(super) fn book(alive: &[u8], by: u8) -> Rulebook {
    let mut slots = [1; SLOTS];
    slots.iter_mut().skip(1).step_by(2).for_each(|slot| *slot = 2);
    let mut ranking = [0; MAX_PATHS];
    ranking[..2].copy_from_slice(&[1, 2]);
    let selection = Selection { slots, ranking, index: by, reserved: [0; 3], targets: 0b11 };
    let mut alive_until = [0; PATH_SLOTS];
    alive.iter().for_each(|path| alive_until[usize::from(*path)] = NOW + 1);
    let mut paths = vec![Path::default(); PATH_SLOTS];
    for id in [1, 2] {
        paths[id] = Path {
            flags: path_flag::PRESENT | path_flag::HAS_V4,
            generation: 5,
            epoch: 3,
            ..Path::default()
        };
    }
    let rule = |net: &str, class, path| {
        (net.parse().expect("a prefix"), Prefix { class, path, ..Prefix::default() })
    };
    Rulebook {
        now: NOW,
        control: mwb_common::maps::Control { seed: 7, ..Default::default() },
        liveness: Liveness { alive_until },
        paths,
        selections: vec![selection; 2],
        cursors: vec![4, 4],
        prefixes: vec![
            rule("192.0.2.0/24", prefix_class::LAN, 0),
            rule("192.0.2.1/32", prefix_class::LOCAL, 0),
            rule("198.51.100.0/25", prefix_class::VIA_PATH, 2),
            rule("198.51.100.2/32", prefix_class::LOCAL, 2),
            rule("203.0.113.128/25", prefix_class::BYPASS, 0),
            rule("203.0.113.200/32", prefix_class::VIA_PATH, 1),
        ],
    }
}

fn packet(text: &str) -> Packet {
    text.parse().unwrap_or_else(|error| panic!("{error}"))
}

fn usual() -> Packet {
    packet("tcp 192.0.2.10:50000 203.0.113.7:443")
}

fn made(path: u8, how: u8) -> Flow {
    let choice = Choice { place: 1, how, epoch: 3 };
    Flow { path, generation: 5, choice, ..Flow::default() }
}

fn with_flow(flow: Flow) -> Facts {
    Facts { flow: Some(flow), ..Facts::default() }
}

#[test]
fn packets_are_read_as_people_write_them() {
    for (text, expected) in [
        ("tcp 192.0.2.10:1 203.0.113.5:443", "tcp 192.0.2.10:1 203.0.113.5:443"),
        ("TCP 192.0.2.10:1 -> 203.0.113.5:443", "tcp 192.0.2.10:1 203.0.113.5:443"),
        ("udp  192.0.2.10:1 → 198.51.100.2:7 → 203.0.113.5:53", "udp 192.0.2.10:1 203.0.113.5:53"),
        ("icmp 192.0.2.10:77 203.0.113.5", "icmp 192.0.2.10:77 203.0.113.5"),
        ("icmp 192.0.2.10 203.0.113.5", "icmp 192.0.2.10 203.0.113.5"),
        ("gre 192.0.2.10 203.0.113.5", "gre 192.0.2.10 203.0.113.5"),
        ("tcp [2001:db8::a]:1 [2001:db8::b]:2", "tcp [2001:db8::a]:1 [2001:db8::b]:2"),
        ("icmpv6 [2001:db8::a]:7 2001:db8::b", "icmpv6 [2001:db8::a]:7 2001:db8::b"),
    ] {
        assert_eq!(packet(text).to_string(), expected);
    }
}

#[test]
fn what_is_no_packet_is_refused_with_an_example() {
    for (text, expected) in [
        ("", "two or three endpoints"),
        ("tcp 192.0.2.10:1", "two or three endpoints"),
        ("quic 192.0.2.10:1 203.0.113.5:443", "`quic` is not one of tcp"),
        ("tcp 192.0.2.10 203.0.113.5:443", "the source 192.0.2.10 needs a port"),
        ("tcp 192.0.2.10:1 203.0.113.5", "the destination 203.0.113.5 needs a port"),
        ("gre 192.0.2.10:1 203.0.113.5", "has no port in gre"),
        ("icmp 192.0.2.10:1 203.0.113.5:2", "has no port in icmp"),
        ("tcp 192.0.2.10:99999 203.0.113.5:1", "is no address"),
        ("tcp 192.0.2.10:1 [2001:db8::b]:2", "different address families"),
        ("icmp 2001:db8::a 2001:db8::b", "over IPv6 it is icmpv6"),
        ("gre 2001:db8::a 2001:db8::b", "over IPv4 only"),
    ] {
        let error = text.parse::<Packet>().expect_err(text).to_string();
        assert!(error.contains(expected), "{text}: {error}");
        assert!(error.contains("tcp 192.0.2.10:1234 203.0.113.5:443"), "{error}");
    }
}

#[test]
fn the_longest_prefix_decides_where_a_packet_belongs() {
    let book = book(&[1, 2], index::COUNTER);
    let to = |address: &str| {
        let packet = packet(&format!("udp 192.0.2.10:5 {address}:9"));
        decide(&book, &packet, &Facts::default()).verdict
    };
    assert_eq!(to("192.0.2.77"), Verdict::Kernel(Reason::Local));
    assert_eq!(to("192.0.2.1"), Verdict::Kernel(Reason::Local));
    assert_eq!(to("203.0.113.129"), Verdict::Kernel(Reason::Bypass));
    assert_eq!(to("203.0.113.200"), Verdict::Path(1), "a longer prefix than the bypass");
    assert_eq!(to("198.51.100.9"), Verdict::Path(2), "the WAN's own subnet");
    assert_eq!(to("198.51.100.2"), Verdict::Kernel(Reason::Local), "nobody has the port");
    let forward = Facts { forward: Some(PortOwner::default()), ..Facts::default() };
    let own = packet("udp 192.0.2.10:5 198.51.100.2:9");
    assert_eq!(decide(&book, &own, &forward).verdict, Verdict::Hairpin(2));
}

#[test]
fn a_source_that_no_host_can_have_is_refused() {
    let decided = decide(
        &book(&[1, 2], index::COUNTER),
        &packet("udp 192.0.2.1:5 203.0.113.7:9"),
        &Facts::default(),
    );
    assert_eq!(decided.verdict, Verdict::Drop(Reason::ForeignSource));
}

#[test]
fn a_counter_is_a_guess_and_a_hash_is_certain() {
    let counted = decide(&book(&[1, 2], index::COUNTER), &usual(), &Facts::default());
    assert_eq!((counted.verdict, counted.certain), (Verdict::Path(1), false));
    let picked = counted.picked.expect("the choice was asked");
    assert_eq!((picked.slot, picked.possible), (4, vec![(1, 512), (2, 512)]));

    let hashed = decide(&book(&[1, 2], index::FLOW_HASH), &usual(), &Facts::default());
    assert!(hashed.certain);
    let slot = hashed.picked.expect("the choice was asked").slot;
    let expected = if slot.is_multiple_of(2) { 1 } else { 2 };
    assert_eq!(hashed.verdict, Verdict::Path(expected));

    let alone = decide(&book(&[2], index::COUNTER), &usual(), &Facts::default());
    assert_eq!((alone.verdict, alone.certain), (Verdict::Path(2), true), "only one is left");
    assert_eq!(alone.picked.expect("asked").how, how::RANKING);

    let none = decide(&book(&[], index::COUNTER), &usual(), &Facts::default());
    assert_eq!((none.verdict, none.certain), (Verdict::Path(1), false));
    assert_eq!(none.picked.expect("asked").how, how::NONE_ALIVE);
}

#[test]
fn a_flow_stands_while_nothing_it_rests_on_has_changed() {
    let standing = |book: &Rulebook, flow| {
        decide(book, &usual(), &with_flow(flow)).flow.map(|(_, standing)| standing)
    };
    let both = book(&[1, 2], index::COUNTER);
    assert_eq!(standing(&both, made(1, how::SLOT)), Some(Standing::Good));
    let other = Flow { generation: 4, ..made(1, how::SLOT) };
    assert_eq!(standing(&both, other), Some(Standing::OtherGeneration));
    let cut = Choice { epoch: 2, ..made(1, how::SLOT).choice };
    assert_eq!(
        standing(&both, Flow { choice: cut, ..made(1, how::SLOT) }),
        Some(Standing::OtherEpoch)
    );
    let bound = Choice { epoch: 2, how: how::VIA, place: 0 };
    assert_eq!(
        standing(&both, Flow { choice: bound, ..made(1, how::VIA) }),
        Some(Standing::Good),
        "it has no other way"
    );
    assert_eq!(standing(&both, made(3, how::SLOT)), Some(Standing::PathGone));
    assert_eq!(standing(&book(&[2], 0), made(1, how::SLOT)), Some(Standing::Dead));
    assert_eq!(standing(&book(&[2], 0), made(1, how::INBOUND)), Some(Standing::Good));
    assert_eq!(standing(&book(&[], 0), made(1, how::SLOT)), Some(Standing::Good));
}

#[test]
fn a_mapping_is_used_while_its_port_is_the_endpoints() {
    let book = book(&[1, 2], index::COUNTER);
    let mapping = Mapping {
        path: 2,
        generation: 5,
        choice: Choice { place: 1, how: how::SLOT, epoch: 3 },
        ..Mapping::default()
    };
    let inside = Decided::endpoints(&book, &usual(), 0)[0];
    let owner = PortOwner { last_used: 1, inside };
    let facts = |owner| Facts { mapping: Some(mapping), owner, ..Facts::default() };
    let good = decide(&book, &usual(), &facts(Some(owner)));
    assert_eq!((good.verdict, good.certain), (Verdict::Path(2), true));
    for lost in [None, Some(PortOwner::default())] {
        let decided = decide(&book, &usual(), &facts(lost));
        assert_eq!(decided.mapping.map(|(_, standing)| standing), Some(Standing::PortLost));
        assert_eq!(decided.verdict, Verdict::Path(1), "the next slot");
    }
    let gre = packet("gre 192.0.2.10 203.0.113.7");
    assert_eq!(decide(&book, &gre, &facts(None)).verdict, Verdict::Path(2), "it has no port");
}

#[test]
fn a_source_at_its_limit_gets_no_new_mapping() {
    let mut book = book(&[1, 2], index::COUNTER);
    book.control.source_limit = 10;
    let verdict =
        |mappings| decide(&book, &usual(), &Facts { mappings, ..Facts::default() }).verdict;
    assert_eq!(verdict(9), Verdict::Path(1));
    assert_eq!(verdict(10), Verdict::Drop(Reason::SourceLimit));
}

fn said(book: &Rulebook, packet: &Packet, facts: &Facts) -> Explanation {
    let names = ["fiber".to_owned(), "lte".to_owned()];
    let (policy, outlet) = (Policy::default(), facts.ruled.outlet());
    let context = Context { book, names: &names, balance: "weighted", flow: None, policy, outlet };
    explain(context, packet, facts)
}

#[test]
fn the_words_name_rule_mode_slot_and_what_would_change_it() {
    let both = book(&[1, 2], index::COUNTER);
    let answer = said(&both, &usual(), &Facts::default());
    assert_eq!(answer.outcome.said, "it leaves by fiber if no other new flow comes before it");
    assert_eq!(answer.outcome.wan.as_deref(), Some("fiber"));
    assert_eq!(answer.outcome.possible.len(), 2);
    assert_eq!(answer.outcome.possible[0].share, 0.5);
    let what: Vec<&str> = answer.steps.iter().map(|step| step.what.as_str()).collect();
    assert_eq!(what, ["flow", "rule", "mapping", "mode", "slot", "liveness", "ranking"]);
    let text = format!("{answer:?}");
    for expected in [
        "weighted: 1024 slots, by a counter",
        "the next slot is 4, of fiber",
        "fiber (alive), lte (alive): it is not asked",
        "the death of fiber: it would go to lte",
    ] {
        assert!(text.contains(expected), "no `{expected}` in {text}");
    }
}

#[test]
fn the_words_follow_the_ranking_when_the_slots_wan_is_dead() {
    let answer = said(&book(&[2], index::COUNTER), &usual(), &Facts::default());
    let text = format!("{answer:?}");
    assert!(text.contains("fiber (dead), lte (alive): the first living one is lte"), "{text}");
    let blind = "the death of lte: no WAN would be alive, and it would go to fiber as if it were";
    assert!(text.contains(blind), "{text}");
    assert!(answer.outcome.certain);
}

#[test]
fn the_words_say_how_a_flow_was_chosen_and_whether_it_stands() {
    let flow = made(2, how::RANKING | how::MAPPED);
    let answer = said(&book(&[1, 2], 0), &usual(), &with_flow(flow));
    assert_eq!(answer.outcome.said, "it leaves by lte");
    let text = format!("{answer:?}");
    assert!(text.contains("the WAN of slot 1 was dead then"), "{text}");
    assert!(text.contains("had its outside port there already"), "{text}");
    assert!(text.contains("it stands: lte is alive"), "{text}");
    let what: Vec<&str> = answer.steps.iter().map(|step| step.what.as_str()).collect();
    assert_eq!(what, ["flow", "flow", "rule", "mode", "ranking"]);
    let bound = said(&book(&[1, 2], 0), &usual(), &with_flow(made(2, how::INBOUND)));
    assert!(bound.steps.iter().all(|step| step.what != "mode"), "no mode chose it: {bound:?}");
    let dead = said(&book(&[2], 0), &usual(), &with_flow(made(1, how::SLOT)));
    let blind = "the death of lte: no WAN would be alive, and it would go to fiber as if it were";
    assert!(dead.would_change.iter().any(|cause| cause == blind), "{dead:?}");
    let bypassed = packet("udp 192.0.2.10:5 203.0.113.130:9");
    let answer = said(&book(&[1, 2], 0), &bypassed, &Facts::default());
    assert_eq!(
        (answer.outcome.verdict.as_str(), answer.outcome.reason.as_str()),
        ("kernel", "bypass")
    );
    assert!(format!("{answer:?}").contains("203.0.113.128/25: bypass"), "{answer:?}");
}

/// The rulebook with outlet 1, which is only for path 2.
fn with_outlet(alive: &[u8]) -> Rulebook {
    let mut book = book(alive, index::COUNTER);
    let mut ranking = [0; MAX_PATHS];
    ranking[0] = 2;
    let strict = Selection { slots: [2; SLOTS], ranking, targets: 0b10, ..book.selections[0] };
    book.selections.extend([strict; 2]);
    book.cursors.extend([9, 9]);
    book
}

#[test]
fn a_rule_that_blocks_drops_what_has_a_way_and_what_has_only_one() {
    let book = book(&[1, 2], index::COUNTER);
    let facts = Facts { ruled: Ruled::Block, ..Facts::default() };
    for text in ["tcp 192.0.2.10:50000 203.0.113.7:443", "tcp 192.0.2.10:50000 198.51.100.7:443"] {
        let decided = decide(&book, &packet(text), &facts);
        assert_eq!(decided.verdict, Verdict::Drop(Reason::PolicyBlocked), "{text}");
    }
    let kernel = packet("tcp 192.0.2.10:50000 203.0.113.129:443");
    assert_eq!(decide(&book, &kernel, &facts).verdict, Verdict::Kernel(Reason::Bypass));
}

#[test]
fn a_rule_leads_to_the_paths_of_its_outlet() {
    let facts = Facts { ruled: Ruled::Outlet(1), ..Facts::default() };
    for alive in [&[1, 2][..], &[1], &[]] {
        let decided = decide(&with_outlet(alive), &usual(), &facts);
        assert_eq!(decided.verdict, Verdict::Path(2), "{alive:?}");
        assert!(decided.certain);
        assert_eq!(decided.picked.map(|picked| picked.slot), Some(9));
    }
    // A destination that has one way only is not led elsewhere.
    let near = packet("tcp 192.0.2.10:50000 203.0.113.200:443");
    assert_eq!(decide(&with_outlet(&[1, 2]), &near, &facts).verdict, Verdict::Path(1));
}

#[test]
fn a_flow_of_an_outlet_stands_while_nothing_else_of_that_lives() {
    let book = with_outlet(&[1]);
    let mut flow = made(2, how::SLOT);
    assert_eq!(decide(&book, &usual(), &with_flow(flow)).flow, Some((flow, Standing::Dead)));
    flow.choice.place = Choice::place_of(1, 1);
    assert_eq!(decide(&book, &usual(), &with_flow(flow)).flow, Some((flow, Standing::Good)));
}

#[test]
fn an_outlet_takes_the_common_mapping_only_if_that_leads_to_one_of_its_paths() {
    let book = with_outlet(&[1, 2]);
    let endpoints = Decided::endpoints(&book, &usual(), 1);
    assert_eq!(endpoints.iter().map(|endpoint| endpoint.via).collect::<Vec<_>>(), [0, 129]);
    let mapping = |path| Mapping {
        path,
        generation: 5,
        choice: Choice { place: 1, how: how::SLOT, epoch: 3 },
        ..Mapping::default()
    };
    let facts = |path, inside| Facts {
        ruled: Ruled::Outlet(1),
        mapping: Some(mapping(path)),
        owner: Some(PortOwner { inside, ..PortOwner::default() }),
        ..Facts::default()
    };
    for (path, endpoint, expected) in [(1, 0, false), (2, 0, true), (1, 1, true), (2, 1, true)] {
        let facts = facts(path, endpoints[endpoint]);
        let taken = Decided::takes(&book, &usual(), &facts, &endpoints[endpoint], 1);
        assert_eq!(taken, expected, "path {path}, endpoint {endpoint}");
    }
    // One whose port is another's is not taken.
    let lost = Facts { owner: None, ..facts(2, endpoints[0]) };
    assert!(!Decided::takes(&book, &usual(), &lost, &endpoints[0], 1));
}

#[test]
fn the_words_name_the_rule_and_what_else_should_be_known() {
    let names = ["fiber".to_owned(), "lte".to_owned()];
    let book = with_outlet(&[1, 2]);
    let rules = [("voip", "dscp: ef; use: fiber"), ("rest", "everything; use: lte")];
    let policy = Policy {
        rules: rules.map(|(name, words)| (name.to_owned(), words.to_owned())).to_vec(),
        met: Met { rule: Some(1), else_by: vec![(0, vec!["dscp"])] },
    };
    let facts = Facts { ruled: Ruled::Outlet(1), ..Facts::default() };
    let context =
        Context { book: &book, names: &names, balance: "weighted", flow: None, policy, outlet: 1 };
    let answer = explain(context, &usual(), &facts);
    assert_eq!(answer.outcome.wan.as_deref(), Some("lte"));
    let said: Vec<&str> = answer
        .steps
        .iter()
        .filter(|step| step.what == "policy")
        .map(|step| step.said.as_str())
        .collect();
    assert_eq!(
        said,
        ["rule rest matches: everything; use: lte", "rule voip before it may match: say --dscp"]
    );
}
