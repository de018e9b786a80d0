//! What holds for every text and every value.

use std::time::Duration;

use proptest::prelude::*;

use super::super::units::{
    parse_duration, parse_percent, parse_ports, parse_rate, show_duration, show_percent, show_rate,
};
use super::super::{Position, parse};
use super::{LEAST, LEAST_BOND, LEAST_SERVER};

/// Text that looks enough like a configuration to get far into the reader.
fn almost_a_file() -> impl Strategy<Value = String> {
    let piece = prop_oneof![
        prop::sample::select(vec![LEAST, LEAST_BOND, LEAST_SERVER]).prop_map(str::to_owned),
        prop::sample::select(vec![
            "version: 1",
            "mode: steer",
            "mode: bond",
            "role: server",
            "bond: {",
            "server:",
            "  clients: [",
            "lan:",
            "wans:",
            "- {name: a, device: b}",
            "health: {",
            "}",
            "[",
            "]",
            "nat:",
            "  ports: 10000-",
            "&a",
            "*a",
            "<<: *a",
            "? ",
            "!t",
            "|",
            ">",
            "---",
            "...",
            "\"",
            "'",
            "#",
            "\t",
            "targets: [",
            "é",
            "\u{0}",
            "%",
            ",",
            ": ",
            "capacity: {up: ",
            "1mbit",
            "99999999999999999999",
            "1e999",
            ".nan",
            "~",
        ])
        .prop_map(str::to_owned),
        ".{0,12}",
    ];
    let glue = prop::sample::select(vec!["", " ", "\n", "\n  ", "\n    "]);
    prop::collection::vec((piece, glue), 0..24)
        .prop_map(|parts| parts.into_iter().map(|(piece, glue)| piece + glue).collect())
}

proptest! {
    #[test]
    fn no_text_panics_and_every_error_is_inside_the_file(
        text in prop_oneof![almost_a_file(), ".{0,200}"],
    ) {
        if let Err(error) = parse(&text, "f") {
            let at = error.position;
            prop_assert!(at.is_some(), "{error}");
            let Position { line, column } = at.unwrap_or(Position { line: 0, column: 0 });
            prop_assert!(line >= 1 && column >= 1, "{error}");
            // The end of the text counts as a place.
            let breaks = text.matches(['\n', '\r', '\u{85}', '\u{2028}', '\u{2029}']).count();
            prop_assert!(line <= breaks + 2, "{error}");
            prop_assert!(!error.render().is_empty());
        }
    }

    #[test]
    fn a_line_taken_out_of_a_file_never_panics(skip in 0_usize..5, extra in "[ -~]{0,30}") {
        let text: String = LEAST
            .lines()
            .enumerate()
            .filter(|(index, _)| *index != skip)
            .map(|(_, line)| format!("{line}\n"))
            .collect();
        prop_assert!(parse(&text, "f").is_err());
        let _ = parse(&format!("{LEAST}{extra}\n"), "f");
    }

    #[test]
    fn a_duration_survives_being_shown(micros in 0_u64..u64::MAX / 1_000) {
        let duration = Duration::from_micros(micros);
        prop_assert_eq!(parse_duration(&show_duration(duration)), Some(duration));
    }

    #[test]
    fn a_rate_survives_being_shown(rate: u64) {
        prop_assert_eq!(parse_rate(&show_rate(rate)), Some(rate));
    }

    #[test]
    fn a_percentage_survives_being_shown(hundredths in 0_u32..=10_000) {
        let part = f64::from(hundredths) / 10_000.0;
        let again = parse_percent(&show_percent(part));
        prop_assert!(again.is_some_and(|again| (again - part).abs() < 1e-9), "{again:?}");
    }

    #[test]
    fn a_port_range_survives_being_shown(a: u16, b: u16) {
        let (low, high) = (a.min(b), a.max(b));
        prop_assert_eq!(parse_ports(&format!("{low}-{high}")), Some((low, high)));
    }

    #[test]
    fn no_text_panics_a_unit(text in "[0-9a-z.% -]{0,24}") {
        let _ = (parse_duration(&text), parse_rate(&text), parse_percent(&text), parse_ports(&text));
    }
}

#[test]
fn units_mean_what_they_say() {
    let times = [("2h4m", 7_440_000_000), ("200ms", 200_000), ("1d", 86_400_000_000), ("0s", 0)];
    for (text, micros) in times {
        assert_eq!(parse_duration(text), Some(Duration::from_micros(micros)), "{text}");
    }
    for text in ["", "5", "5 s", "s", "4m2h", "1s1s", "-1s", "1.5s", "5S", "99999999999999999d"] {
        assert_eq!(parse_duration(text), None, "{text}");
    }
    let rates =
        [("100mbit", 100_000_000), ("1.5gbit", 1_500_000_000), ("8bit", 8), ("64kbit", 64_000)];
    for (text, rate) in rates {
        assert_eq!(parse_rate(text), Some(rate), "{text}");
    }
    for text in [
        "",
        "100",
        "100mb",
        "mbit",
        ".5mbit",
        "1.mbit",
        "0.5bit",
        "1e3mbit",
        "-1mbit",
        "99999999999gbit",
    ] {
        assert_eq!(parse_rate(text), None, "{text}");
    }
    assert_eq!(parse_percent("5%"), Some(0.05));
    for text in ["5", "%", "-5%", "inf%", "1.2.3%", "5 %"] {
        assert_eq!(parse_percent(text), None, "{text}");
    }
    for text in ["10000", "2-1", "+1-2", "1-65536", "-", "1-2-3", " 1-2"] {
        assert_eq!(parse_ports(text), None, "{text}");
    }
}
