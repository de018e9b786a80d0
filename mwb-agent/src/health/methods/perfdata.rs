//! What a monitoring plugin writes: a message, then `|`, then what it measured
//! as `'label'=value[UOM];[warn];[crit];[min];[max]`. Pure.
//!
//! Source: the development guidelines of the Monitoring Plugins, 2.6.

use std::time::Duration;

/// No plugin measures more; what follows is not read.
const MOST: usize = 64;

/// One thing that a plugin has measured. Its thresholds are the plugin's own
/// business: what follows from them is in the exit code.
#[derive(Clone, Debug, PartialEq)]
pub struct Perf {
    /// What was measured.
    pub label: String,
    /// How much of it; always finite.
    pub value: f64,
    /// The unit: `s`, `ms`, `us`, `%`, `B`, `c` or nothing.
    pub unit: String,
}

impl Perf {
    /// The value as a time, if it is one.
    fn time(&self) -> Option<Duration> {
        let seconds = match self.unit.as_str() {
            "s" => self.value,
            "ms" => self.value / 1e3,
            "us" => self.value / 1e6,
            _ => return None,
        };
        Duration::try_from_secs_f64(seconds).ok()
    }
}

/// The message and what was measured, from all that a plugin wrote.
pub(super) fn parse(output: &str) -> (String, Vec<Perf>) {
    let line = output.lines().next().unwrap_or_default();
    let (message, perfdata) = line.split_once('|').unwrap_or((line, ""));
    (message.trim().to_owned(), perfs(perfdata))
}

/// How long the target took, if the plugin tells.
pub(super) fn time(perfdata: &[Perf]) -> Option<Duration> {
    let is_time = |perf: &&Perf| {
        ["time", "rta", "rtt"].iter().any(|label| perf.label.eq_ignore_ascii_case(label))
    };
    perfdata.iter().filter(is_time).find_map(Perf::time)
}

/// Everything that can be read; what cannot is left out, as other readers do.
fn perfs(text: &str) -> Vec<Perf> {
    let mut rest = text.trim_start();
    let mut found = Vec::new();
    while !rest.is_empty() && found.len() < MOST {
        let Some((label, after)) = label(rest) else {
            rest = skip(rest);
            continue;
        };
        let end = after.find(char::is_whitespace).unwrap_or(after.len());
        let (data, next) = after.split_at(end);
        if let Some((value, unit)) = value(data) {
            found.push(Perf { label, value, unit: unit.to_owned() });
        }
        rest = next.trim_start();
    }
    found
}

/// The text after the next blank.
fn skip(text: &str) -> &str {
    text.find(char::is_whitespace).map_or("", |end| text[end..].trim_start())
}

/// The label, without its quotes, and what follows the `=`.
fn label(text: &str) -> Option<(String, &str)> {
    let Some(quoted) = text.strip_prefix('\'') else {
        let (label, after) = text.split_once('=')?;
        let plain = !label.is_empty() && !label.contains(|c: char| c.is_whitespace() || c == '\'');
        return plain.then(|| (label.to_owned(), after));
    };
    let mut label = String::new();
    let mut rest = quoted;
    loop {
        let (part, after) = rest.split_once('\'')?;
        label.push_str(part);
        // Two quotes are one that is part of the label.
        match after.strip_prefix('\'') {
            Some(more) => {
                label.push('\'');
                rest = more;
            }
            None => {
                let after = after.strip_prefix('=')?;
                return (!label.is_empty()).then_some((label, after));
            }
        }
    }
}

/// Value and unit of `value[UOM];…`; `U` is a plugin's word for "not known".
fn value(data: &str) -> Option<(f64, &str)> {
    let first = data.split(';').next()?;
    let number = |c: char| c.is_ascii_digit() || matches!(c, '.' | '-' | '+');
    let end = first.find(|c| !number(c)).unwrap_or(first.len());
    let (digits, unit) = first.split_at(end);
    let value: f64 = digits.parse().ok()?;
    let is_unit = unit.chars().all(|c| c.is_alphabetic() || c == '%');
    (value.is_finite() && is_unit).then_some((value, unit))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn perf(label: &str, value: f64, unit: &str) -> Perf {
        Perf { label: label.to_owned(), value, unit: unit.to_owned() }
    }

    #[test]
    fn the_first_line_is_the_message_and_the_bar_begins_what_was_measured() {
        let (message, perfdata) = parse(
            "PING OK - loss = 0% | rta=12.5ms;100;500;0 pl=0%;20;60;0;100 'a b''c'=-3 load=.5;;\nmore|x=1",
        );
        assert_eq!(message, "PING OK - loss = 0%");
        let expected = [
            perf("rta", 12.5, "ms"),
            perf("pl", 0.0, "%"),
            perf("a b'c", -3.0, ""),
            perf("load", 0.5, ""),
        ];
        assert_eq!(perfdata, expected);
        assert_eq!(time(&perfdata), Some(Duration::from_micros(12_500)));
    }

    #[test]
    fn a_message_alone_has_nothing_measured() {
        assert_eq!(parse("all is well"), ("all is well".to_owned(), vec![]));
        assert_eq!(parse(""), (String::new(), vec![]));
    }

    #[test]
    fn what_cannot_be_read_is_left_out_and_the_rest_is_kept() {
        let (_, perfdata) = parse("x | a=U b=1s junk 'open=3 c= =4 d=1e d=2us;~:5;@1:2");
        assert_eq!(perfdata, [perf("b", 1.0, "s"), perf("d", 1.0, "e"), perf("d", 2.0, "us")]);
    }

    #[test]
    fn a_time_needs_a_unit_and_cannot_be_negative() {
        let told = |text: &str| time(&parse(&format!("|{text}")).1);
        assert_eq!(told("time=0.25s"), Some(Duration::from_millis(250)));
        assert_eq!(told("RTT=250us"), Some(Duration::from_micros(250)));
        assert_eq!(told("time=3"), None);
        assert_eq!(told("time=-3s"), None);
        assert_eq!(told("size=3s"), None);
        assert_eq!(told("time=3 rta=4ms"), Some(Duration::from_millis(4)));
    }

    #[test]
    fn a_plugin_that_measures_for_ever_is_read_for_a_while() {
        let many = format!("|{}", "a=1 ".repeat(10_000));
        assert_eq!(parse(&many).1.len(), MOST);
    }

    proptest! {
        #[test]
        fn no_output_makes_a_value_that_is_no_number(output in "\\PC{0,200}") {
            prop_assert!(parse(&output).1.iter().all(|perf| perf.value.is_finite()));
        }

        #[test]
        fn what_a_plugin_writes_is_read(
            label in "[a-zA-Z' =;]{1,12}", value in -1e6..1e6f64, unit in "(s|ms|us|%|B|c|)",
            more in "(;1;2;3;4|;;;|)",
        ) {
            let text = format!("m|'{}'={value}{unit}{more}", label.replace('\'', "''"));
            prop_assert_eq!(parse(&text).1, [perf(&label, value, &unit)]);
        }
    }
}
