//! Repairs of a class, and the section `fec`: what is right, and what is wrong and where.

use std::time::Duration;

use mwb_common::classes::repair;

use super::super::Fec;
use super::wrong::{Row, check};
use super::{LEAST, LEAST_BOND, LEAST_SERVER, right};

/// A rule of an end, and what follows it: of a gateway on lines 12 and 13.
fn with_rule(end: &str, rule: &str, rest: &str) -> String {
    format!("{end}classes:\n  rules:\n    - {rule}\n{rest}\n")
}

#[test]
fn a_repair_is_a_word_or_a_list_of_words() {
    for (text, bits) in [
        ("fec", repair::FEC),
        ("retransmit", repair::RETRANSMIT),
        ("[fec]", repair::FEC),
        ("[retransmit]", repair::RETRANSMIT),
        ("[fec, retransmit]", repair::FEC | repair::RETRANSMIT),
        ("[retransmit, fec]", repair::FEC | repair::RETRANSMIT),
    ] {
        let rule = format!("{{class: stripe, repair: {text}}}\n    - {{class: auto, dscp: ef}}");
        let config = right(&with_rule(LEAST_BOND, &rule, ""));
        assert_eq!(config.classes.rules[0].repair, bits, "{text}");
        assert_eq!(config.classes.rules[0].rule(|_| None).repair, bits, "{text}");
        assert_eq!((config.classes.rules[1].repair, config.classes.repairs()), (0, bits), "{text}");
    }
    assert_eq!(right(LEAST_BOND).classes.repairs(), 0);
}

#[test]
fn a_wrong_repair_is_refused_at_the_place() {
    let rows: &[Row] = &[
        ("class: auto, repair: hope", "12:29", "unknown value `hope`", "use `fec` or `retransmit`"),
        ("class: auto, repair: fex", "12:29", "unknown value `fex`", "did you mean `fec`?"),
        ("class: auto, repair: 7", "12:29", "`7` is a number", "\"7\""),
        ("class: auto, repair: {fec: 1}", "12:29", "expected text", "fec"),
        ("class: auto, repair: []", "12:29", "the list is empty", "or `[fec, retransmit]`, or re"),
        ("class: auto, repair: [fec, fec]", "12:35", "`fec` is given twice", "remove one"),
        (
            "class: auto, repair: [fec, retransmit, retransmit]",
            "12:47",
            "classes.rules[0].repair[2]: `retransmit` is given twice",
            "remove one",
        ),
        ("class: auto, repair: [fec, hope]", "12:35", "unknown value `hope`", "use `fec` or"),
        ("class: auto, repair: [[fec]]", "12:30", "this is a list, expected text", "fec"),
        ("class: duplicate, repair: fec", "12:26", "sent twice is not repaired", "another class"),
        ("class: duplicate, repair: [fec]", "12:26", "sent twice is not repaired", "remove it"),
        ("class: duplicate, repair: retransmit", "12:26", "is not repaired", "remove it"),
        ("class: fec", "12:15", "`fec` is no class", "`repair: fec` beside another class"),
        ("class: retransmit", "12:15", "`retransmit` is no class", "`repair: retransmit` beside"),
        ("class: atuo", "12:15", "unknown value `atuo`", "did you mean `auto`?"),
    ];
    check(rows, |rule| with_rule(LEAST_BOND, &format!("{{{rule}}}"), ""));
}

#[test]
fn without_a_word_blocks_have_32_packets_and_parity_goes_by_losses() {
    let fec = Fec { parity: None, block: 32, wait: Duration::from_millis(10), interleave: 1 };
    assert_eq!(Fec::default(), fec);
    for file in [LEAST, LEAST_BOND, LEAST_SERVER] {
        assert_eq!(right(file).fec, fec);
    }
    for rest in ["", "fec: {}", "fec: {parity: auto}"] {
        assert_eq!(right(&with_rule(LEAST_BOND, "{class: auto, repair: fec}", rest)).fec, fec);
    }
}

#[test]
fn every_key_of_fec_reaches_its_field_at_both_ends() {
    let expected =
        Fec { parity: Some(3), block: 16, wait: Duration::from_millis(25), interleave: 4 };
    for end in [LEAST_BOND, LEAST_SERVER] {
        let section = "fec: {parity: 3, block: 16, wait: 25ms, interleave: 4}";
        let rule = "{class: pin, repair: [retransmit, fec]}";
        assert_eq!(right(&with_rule(end, rule, section)).fec, expected);
    }
}

#[test]
fn a_wrong_section_fec_is_refused_at_the_place() {
    let rows: &[Row] = &[
        ("{parity: 0}", "13:15", "fec.parity: `0` is out of range", "choose from 1 to 8"),
        ("{parity: 9}", "13:15", "`9` is out of range", "1 to 8"),
        ("{parity: -1}", "13:15", "`-1` is out of range", "1 to 8"),
        ("{parity: many}", "13:15", "`many` is not `auto` or a number", "auto or 2"),
        ("{parity: 1.5}", "13:15", "`1.5` is not `auto` or a number", "auto or 2"),
        ("{parity: [2]}", "13:15", "this is a list, expected `auto` or", "auto or 2"),
        ("{block: 1}", "13:14", "fec.block: `1` is out of range", "2 to 32"),
        ("{block: 33}", "13:14", "`33` is out of range", "2 to 32"),
        ("{block: auto}", "13:14", "`auto` is not a whole number", "2 to 32"),
        ("{wait: 10}", "13:13", "`10` has no unit", "`10ms`"),
        ("{wait: 0s}", "13:13", "`0s` is out of range", "1ms to 100ms"),
        ("{wait: 101ms}", "13:13", "`101ms` is out of range", "1ms to 100ms"),
        ("{interleave: 0}", "13:19", "`0` is out of range", "1 to 8"),
        ("{interleave: 9}", "13:19", "`9` is out of range", "1 to 8"),
        ("{paritty: 2}", "13:7", "unknown key `paritty`", "did you mean `parity`?"),
        ("{hold: 2s}", "13:7", "unknown key `hold`", "it belongs to `reorder`"),
        ("auto", "13:6", "this is text, expected a set of keys", "{parity: auto"),
    ];
    let rule = "{class: auto, repair: fec}";
    check(rows, |section| with_rule(LEAST_BOND, rule, &format!("fec: {section}")));
}

#[test]
fn a_section_fec_without_effect_is_refused_with_the_reason() {
    let none = "it has no effect: no rule of `classes` has `repair: fec`";
    for section in ["fec: {}", "fec: {parity: 2}"] {
        let rows: &[Row] =
            &[("{class: auto, repair: retransmit}", "13:1", none, "add such a rule, or remove")];
        check(rows, |rule| with_rule(LEAST_BOND, rule, section));
        let alone: &[Row] = &[(section, "10:1", none, "add such a rule, or remove this")];
        check(alone, |section| format!("{LEAST_BOND}{section}\n"));
        let server: &[Row] = &[(section, "11:1", none, "add such a rule, or remove this")];
        check(server, |section| format!("{LEAST_SERVER}{section}\n"));
        let steer: &[Row] = &[(section, "6:1", "`mode` is `steer`", "write `mode: bond`")];
        check(steer, |section| format!("{LEAST}{section}\n"));
    }
}
