//! Numbers as people read them.

/// `1,234,567`.
pub(crate) fn grouped(value: u64) -> String {
    let digits = value.to_string();
    let mut out = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

/// `1.4 MB`: powers of 1,000, three figures.
pub(crate) fn bytes(value: u64) -> String {
    const UNITS: [&str; 6] = ["kB", "MB", "GB", "TB", "PB", "EB"];
    if value < 1_000 {
        return format!("{value} B");
    }
    let mut size = value;
    let mut unit = 0;
    // Whole numbers until the last step: no rounding up to "1000 kB".
    while size >= 1_000_000 && unit + 1 < UNITS.len() {
        size /= 1_000;
        unit += 1;
    }
    let (whole, part) = (size / 1_000, size % 1_000);
    match whole {
        0..10 => format!("{whole}.{:02} {}", part / 10, UNITS[unit]),
        10..100 => format!("{whole}.{} {}", part / 100, UNITS[unit]),
        _ => format!("{whole} {}", UNITS[unit]),
    }
}

/// `94.0 Mbit/s`: powers of 1,000, three figures.
pub(crate) fn bits(rate: u64) -> String {
    match bytes(rate).strip_suffix('B') {
        Some(number) => format!("{number}bit/s"),
        None => format!("{rate} bit/s"),
    }
}

/// `2h 4m`: the two largest units of a span of seconds.
pub(crate) fn span(seconds: u64) -> String {
    const UNITS: [(u64, &str); 4] = [(86_400, "d"), (3_600, "h"), (60, "m"), (1, "s")];
    let largest = UNITS.iter().position(|(size, _)| seconds >= *size).unwrap_or(3);
    let (size, unit) = UNITS[largest];
    let mut out = format!("{}{unit}", seconds / size);
    if let Some((next, unit)) = UNITS.get(largest + 1)
        && seconds % size >= *next
    {
        out.push_str(&format!(" {}{unit}", seconds % size / next));
    }
    out
}

/// `3m 20s ago`.
pub(crate) fn ago(then_ms: u64, now_ms: u64) -> String {
    match now_ms.saturating_sub(then_ms) / 1_000 {
        0 => "now".to_owned(),
        seconds => format!("{} ago", span(seconds)),
    }
}

/// `20.5 ms`, with more figures below 1 ms, or a dash.
pub(crate) fn millis(value: Option<f64>) -> String {
    match value {
        None => "-".to_owned(),
        Some(ms) if ms < 1.0 => format!("{ms:.2} ms"),
        Some(ms) => format!("{ms:.1} ms"),
    }
}

/// `1 failover`, `2 failovers`.
pub(crate) fn counted(count: u64, what: &str) -> String {
    format!("{} {what}{}", grouped(count), if count == 1 { "" } else { "s" })
}

/// `6.0 %`, or a dash.
pub(crate) fn percent(part: Option<f64>) -> String {
    part.map_or_else(|| "-".to_owned(), |part| format!("{:.1} %", part * 100.0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_short_and_never_rounded_up() {
        let sizes = [
            (0, "0 B"),
            (999, "999 B"),
            (1_000, "1.00 kB"),
            (999_999, "999 kB"),
            (1_400_000, "1.40 MB"),
            (12_345_678, "12.3 MB"),
            (u64::MAX, "18.4 EB"),
        ];
        for (value, text) in sizes {
            assert_eq!(bytes(value), text);
        }
        assert_eq!((bits(0), bits(94_000_000)), ("0 bit/s".into(), "94.0 Mbit/s".into()));
        let spans = [(0, "0s"), (59, "59s"), (60, "1m"), (61, "1m 1s"), (7_440, "2h 4m")];
        for (value, text) in spans {
            assert_eq!(span(value), text);
        }
        assert_eq!(span(86_400 + 59), "1d", "the third unit is left out");
        assert_eq!(
            (grouped(7), grouped(1_000), grouped(1_234_567)),
            ("7".into(), "1,000".into(), "1,234,567".into())
        );
        assert_eq!(
            (millis(Some(0.049)), millis(Some(20.54))),
            ("0.05 ms".into(), "20.5 ms".into())
        );
        assert_eq!(
            (counted(1, "flow"), counted(1_000, "flow")),
            ("1 flow".into(), "1,000 flows".into())
        );
        assert_eq!((ago(5_000, 5_400), ago(5_000, 66_000)), ("now".into(), "1m 1s ago".into()));
        assert_eq!(ago(5_000, 0), "now", "a clock that was set back");
    }
}
