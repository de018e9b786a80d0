//! What rules of classes say, as they are read, shown and written for the kernel side.

use super::*;
use crate::config::parse;
use crate::config::tests::{LEAST_BOND, LEAST_SERVER};

fn rules(text: &str) -> Result<Vec<ClassSpec>, String> {
    let two = LEAST_BOND.replace("device: wan0}", "device: wan0}, {name: lte, device: wan1}");
    let file = format!("{two}classes:\n  rules:\n    - {text}\n");
    parse(&file, "gateway.yaml").map(|config| config.classes.rules).map_err(|error| error.render())
}

const WANS: [&str; 2] = ["fiber", "lte"];

fn id(name: &str) -> Option<u8> {
    WANS.iter().zip(1..).find(|(wan, _)| **wan == name).map(|(_, id)| id)
}

fn name(id: u8) -> Option<String> {
    WANS.get(usize::from(id) - 1).map(|&wan| wan.to_owned())
}

#[test]
fn what_is_read_is_shown_as_it_was_written() {
    for text in [
        "{class: duplicate, peer: 203.0.113.0/24, protocol: udp, port: 5060-5061, dscp: ef}",
        "{class: pin, peer: 2001:db8::/32}",
        "{class: stripe, protocol: 99, dscp: 5}",
        "{class: auto, port: 53, length: 0-512}",
        "{class: stripe, repair: retransmit, protocol: tcp}",
        "{class: auto, repair: fec, protocol: udp}",
        "{class: pin, repair: [fec, retransmit]}",
        "{class: block, protocol: tcp, port: 23}",
        "{class: auto, protocol: tcp, paths: fiber}",
        "{class: duplicate, dscp: ef, paths: [fiber, lte], fallback: strict}",
    ] {
        let read = rules(text).expect(text);
        assert_eq!(read.iter().map(ToString::to_string).collect::<Vec<_>>(), [text]);
        assert_eq!(ClassSpec::of(&read[0].rule(id), name), read[0]);
    }
}

#[test]
fn a_rule_with_a_time_counts_then_and_matches_nothing_else() {
    let text = "{class: pin, protocol: tcp, length: 40-100, time: {days: mon-fri, from: \"08:00\", \
                to: \"18:00\"}}";
    let rules = rules(text).expect("right");
    assert_eq!(rules[0].to_string(), text);
    let always = ClassSpec { time: None, ..rules[0].clone() };
    let classes = Classes { rules: vec![rules[0].clone(), always.clone()], metered_copies: 0 };
    let at = |moment| classes.at(moment).rules.iter().map(|rule| rule.rule(id)).collect::<Vec<_>>();
    let moment = |day, hour: u16| Some(Moment { day, minute: hour * 60 });
    let now = always.rule(id);
    let never = ClassRule { tests: now.tests | class_test::NEVER, ..now };
    assert_eq!(at(moment(4, 8)), [now, now]);
    for other in [moment(4, 18), moment(5, 8), None] {
        assert_eq!(at(other), [never, now], "{other:?}");
    }
    assert_eq!(ClassSpec::of(&now, name), always);
}

#[test]
fn a_rule_behind_one_that_takes_all_its_packets_is_refused() {
    let day = "{class: auto, port: 53, time: {days: mon}}";
    for (first, second, is_right) in [
        (day, "{class: pin, port: 53}", true),
        ("{class: pin, port: 53}", day, false),
        (day, "{class: pin, port: 53, time: {days: mon}}", false),
        (day, "{class: pin, port: 53, time: {days: tue}}", true),
        ("{class: pin, port: 53, time: {}}", day, false),
    ] {
        let said = rules(&format!("{first}\n    - {second}"));
        assert_eq!(said.is_ok(), is_right, "{first} before {second}: {said:?}");
    }
}

#[test]
fn what_has_no_effect_is_refused() {
    for (text, fault) in [
        ("{class: block, repair: fec}", "what is dropped is not repaired"),
        ("{class: block, paths: fiber}", "what is dropped goes by no path"),
        ("{class: pin, fallback: strict}", "it has no effect without `paths`"),
        ("{class: pin, paths: cable}", "cable"),
        ("{class: pin, paths: []}", "0 values"),
        ("{class: pin, paths: [lte, lte]}", "`lte` is given twice"),
        (
            "{class: pin, repair: fec, paths: lte, fallback: strict}",
            "what is lost is repaired by other paths",
        ),
    ] {
        let said = rules(text).expect_err(text);
        assert!(said.contains(fault), "{text}: {said}");
    }
    let server = |text: &str| {
        let file = format!("{LEAST_SERVER}classes:\n  rules:\n    - {text}\n");
        parse(&file, "server.yaml").map_err(|error| error.render())
    };
    let read = server("{class: pin, paths: [1, 15]}").expect("right").classes.rules;
    assert_eq!(read[0].rule(id).paths, 0x8002);
    for text in ["{class: pin, paths: 0}", "{class: pin, paths: 16}", "{class: pin, paths: a}"] {
        assert!(server(text).is_err(), "{text}");
    }
}

#[test]
fn what_a_rule_matches_does_not_depend_on_what_becomes_of_it() {
    let twice = "{class: pin}\n    - {class: pin, repair: retransmit}";
    assert!(rules(twice).expect_err("a fault").contains("remove one of the two"));
}

#[test]
fn a_rule_becomes_what_the_kernel_side_asks_for() {
    let text = "{class: duplicate, peer: 203.0.113.0/24, protocol: tcp, port: 53, dscp: af11, \
                length: 40-100}";
    let expected = ClassRule {
        address: bytemuck::cast(padded([203, 0, 113, 0])),
        mask: bytemuck::cast(padded([255, 255, 255, 0])),
        ports: [53, 53],
        lengths: [40, 100],
        protocol: 6,
        dscp: 10,
        family: 4,
        tests: class_test::PORT | class_test::PROTOCOL | class_test::DSCP | class_test::FAMILY,
        class: class::DUPLICATE,
        repair: 0,
        paths: 0,
    };
    assert_eq!(rules(text).expect("right")[0].rule(id), expected);
    let six = rules("{class: pin, peer: 2001:db8::/32}").expect("right")[0].rule(id);
    let mask: [u8; 16] = bytemuck::cast(six.mask);
    assert_eq!((six.family, mask[..5].to_vec()), (6, vec![255, 255, 255, 255, 0]));
    assert_eq!(rules("{class: auto}").expect("right")[0].rule(id), ClassRule::ALL);
}
