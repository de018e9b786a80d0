use mwb_common::maps::bond_role;

use super::*;

const NOW: u64 = 1_000_000_000_000;

fn packet(text: &str) -> Packet {
    text.parse().expect("a packet")
}

fn path(flags: u32, lives: bool, delay: u32) -> (BondPath, PathState) {
    let path = BondPath {
        flags: flags | bond_path_flag::PRESENT,
        mtu: 1_500,
        delay,
        ..BondPath::default()
    };
    let state =
        PathState { alive_until: if lives { NOW + 1 } else { NOW - 1 }, ..PathState::default() };
    (path, state)
}

/// Two paths, the first the quicker.
fn bonded(packet: &Packet, rules: &[&str]) -> Bonded {
    let rule = |text: &&str| {
        let two = crate::config::tests::LEAST_BOND
            .replace("device: wan0}", "device: wan0}, {name: lte, device: wan1}");
        let file = format!("{two}classes: {{rules: [{text}]}}\n");
        let id = |name: &str| Some(if name == "fiber" { 1 } else { 2 });
        crate::config::parse(&file, "f").expect("right").classes.rules[0].rule(id)
    };
    let paths = [(1, path(0, true, 0)), (2, path(0, true, 50_000_000))];
    Bonded {
        bond: Bond { role: bond_role::GATEWAY, copy_budget: 25_000, ..Bond::default() },
        session: Session {
            flags: session_flag::PRESENT,
            choice: bond_choice::ARRIVAL,
            ..Session::default()
        },
        selection: super::super::tests::book(&[], 0).selections[0],
        rules: rules.iter().map(rule).collect(),
        paths: paths.into_iter().map(|(id, (path, state))| (id, path, state)).collect(),
        key: key_of(packet),
        number: 7,
        bucket: Bucket::default(),
    }
}

fn answer(packet: &Packet, bonded: &Bonded) -> Explanation {
    let book = Rulebook { now: NOW, ..super::super::tests::book(&[], 0) };
    let names = ["fiber".to_owned(), "lte".to_owned()];
    explain(&book, &names, "adaptive", (packet, bonded), None)
}

#[test]
fn what_a_rule_names_leaves_twice_and_what_none_names_once() {
    let voice = packet("udp 192.0.2.10:4000 203.0.113.5:5060");
    let other = packet("udp 192.0.2.10:4000 203.0.113.5:5061");
    let rules = ["{class: duplicate, protocol: udp, port: 5060}"];
    let said = answer(&voice, &bonded(&voice, &rules));
    assert_eq!(said.outcome.said, "it leaves twice, by fiber and by lte");
    assert_eq!((said.outcome.reason.as_str(), said.outcome.certain), ("copied", true));
    let class = said.steps.iter().find(|step| step.what == "class").expect("a class");
    assert_eq!(class.said, "duplicate, by {class: duplicate, protocol: udp, port: 5060}");
    let said = answer(&other, &bonded(&other, &rules));
    assert_eq!(said.outcome.said, "it leaves by fiber");
    assert_eq!(
        (said.outcome.reason.as_str(), said.outcome.wan.as_deref()),
        ("bonded", Some("fiber"))
    );
}

#[test]
fn a_second_path_that_is_dead_has_no_copy_and_one_that_is_metered_has_some() {
    let voice = packet("udp 192.0.2.10:4000 203.0.113.5:5060");
    let mut known = bonded(&voice, &["{class: duplicate}"]);
    known.paths[1].1.flags |= bond_path_flag::METERED;
    let said = answer(&voice, &known);
    assert!(!said.outcome.certain);
    assert!(said.steps.iter().any(|step| step.said == "lte is metered: copies have 200kbit"));
    known.paths[1].2.alive_until = NOW - 1;
    let said = answer(&voice, &known);
    assert_eq!((said.outcome.said.as_str(), said.outcome.certain), ("it leaves by fiber", true));
    assert!(said.steps.iter().any(|step| step.said == "fiber lives, lte is dead"));
}

#[test]
fn a_rule_keeps_packets_to_its_paths_while_one_lives() {
    let bulk = packet("tcp 192.0.2.10:4000 203.0.113.5:22");
    for (fallback, then) in [("prefer", "fiber"), ("strict", "lte")] {
        let rule = format!("{{class: auto, port: 22, paths: lte, fallback: {fallback}}}");
        let mut known = bonded(&bulk, &[&rule]);
        let wan = |known: &Bonded| answer(&bulk, known).outcome.wan;
        assert_eq!(wan(&known).as_deref(), Some("lte"), "the slower one");
        let shown = answer(&bulk, &known);
        let class = shown.steps.iter().find(|step| step.what == "class").expect("a class");
        assert!(class.said.contains("paths: lte"), "{}", class.said);
        known.paths[1].2.alive_until = NOW - 1;
        assert_eq!(wan(&known).as_deref(), Some(then), "{fallback}");
    }
}

#[test]
fn what_a_rule_blocks_is_dropped() {
    let telnet = packet("tcp 192.0.2.10:4000 203.0.113.5:23");
    let said = answer(&telnet, &bonded(&telnet, &["{class: block, protocol: tcp, port: 23}"]));
    assert_eq!((said.outcome.reason.as_str(), said.outcome.certain), ("policy_blocked", true));
}

#[test]
fn what_is_not_known_of_the_packet_is_said_to_matter() {
    let voice = packet("udp 192.0.2.10:4000 203.0.113.5:5060");
    let said = answer(&voice, &bonded(&voice, &["{class: duplicate, dscp: ef}", "{class: pin}"]));
    assert_eq!(said.outcome.said, "it leaves by fiber, unless another rule has it");
    let would = "a code point or a length that {class: duplicate, dscp: ef} asks for";
    assert_eq!(said.would_change, [would]);
}

#[test]
fn without_a_session_or_a_path_it_is_dropped() {
    let voice = packet("udp 192.0.2.10:4000 203.0.113.5:5060");
    let mut known = bonded(&voice, &[]);
    known.paths.clear();
    assert_eq!(answer(&voice, &known).outcome.reason, "no_bond_path");
    known.session.flags = 0;
    assert_eq!(answer(&voice, &known).outcome.reason, "no_session");
}

#[test]
fn an_elephant_goes_by_several_unless_it_is_pinned() {
    let bulk = packet("tcp 192.0.2.10:4000 203.0.113.5:443");
    for (rules, certain) in [(&[][..], false), (&["{class: pin}"][..], true)] {
        let mut known = bonded(&bulk, rules);
        known.session.stripe = 0b110;
        known.bucket = Bucket {
            opened: 1,
            last_seen: NOW,
            path: 1,
            flags: bucket_flag::ELEPHANT,
            key: known.key,
            ..Bucket::default()
        };
        let said = answer(&bulk, &known);
        assert_eq!(said.outcome.certain, certain, "{said:?}");
        assert!(said.steps.iter().any(|step| step.said.starts_with("bucket 7: it is an elephant")));
    }
}
