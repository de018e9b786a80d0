//! Times, spans and latencies as text. Times are UTC.
//!
//! Must not know: charts.

/// Year, month and day, hour, minute and second of a second since 1970.
fn civil(second: i64) -> (i64, i64, i64, i64, i64, i64) {
    let (days, rest) = (second.div_euclid(86_400), second.rem_euclid(86_400));
    // Days since 0000-03-01, in eras of 400 years; years begin in March, so that the
    // day that may be missing is the last one.
    let days = days + 719_468;
    let (era, day) = (days.div_euclid(146_097), days.rem_euclid(146_097));
    let year = (day - day / 1460 + day / 36_524 - day / 146_096) / 365;
    let day = day - (365 * year + year / 4 - year / 100);
    let month = (5 * day + 2) / 153;
    let day = day - (153 * month + 2) / 5 + 1;
    let (year, month) = match month < 10 {
        true => (year, month + 3),
        false => (year + 1, month - 9),
    };
    (era * 400 + year, month, day, rest / 3600, rest / 60 % 60, rest % 60)
}

/// Date and time to the minute.
pub(super) fn date_time(second: i64) -> String {
    let (year, month, day, hour, minute, _) = civil(second);
    format!("{year:04}-{month:02}-{day:02} {hour:02}:{minute:02}")
}

/// Date and time to the second.
pub(super) fn date_time_s(second: i64) -> String {
    format!("{}:{:02}", date_time(second), second.rem_euclid(60))
}

/// A moment in at most 10 characters, as exact as a chart of `span_s` seconds needs.
pub(super) fn moment(second: i64, span_s: i64) -> String {
    let (year, month, day, hour, minute, s) = civil(second);
    match span_s {
        ..=3_600 => format!("{hour:02}:{minute:02}:{s:02}"),
        3_601..=129_600 => format!("{hour:02}:{minute:02}"),
        129_601..=1_209_600 => format!("{month:02}-{day:02} {hour:02}h"),
        1_209_601..=31_622_400 => format!("{month:02}-{day:02}"),
        _ => format!("{year:04}-{month:02}-{day:02}"),
    }
}

/// A time span in its two greatest units.
pub(super) fn span(ms: u64) -> String {
    let s = ms / 1000;
    let two = |great: u64, unit: &str, small: u64, small_unit: &str| match small {
        0 => format!("{great} {unit}"),
        small => format!("{great} {unit} {small} {small_unit}"),
    };
    match s {
        0 if ms > 0 => format!("{ms} ms"),
        0..60 => format!("{s} s"),
        60..3600 => two(s / 60, "min", s % 60, "s"),
        3600..86_400 => two(s / 3600, "h", s / 60 % 60, "min"),
        _ => two(s / 86_400, "d", s / 3600 % 24, "h"),
    }
}

/// Milliseconds in three digits.
pub(super) fn short(ms: f64) -> String {
    let text = match ms {
        ms if ms < 0.9995 => format!("{ms:.3}"),
        ms if ms < 9.995 => format!("{ms:.2}"),
        ms if ms < 99.95 => format!("{ms:.1}"),
        ms => return format!("{ms:.0}"),
    };
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

/// Microseconds as milliseconds; a dash for what is not known.
pub(super) fn millis(us: Option<f64>) -> String {
    us.map_or_else(|| "-".to_owned(), |us| format!("{} ms", short(us / 1e3)))
}

/// A part as percents, rounded to the worse side never to 0 or 100 if it is not; a
/// dash for what is not known.
pub(super) fn percent(part: Option<f64>) -> String {
    let Some(part) = part else { return "-".to_owned() };
    let rounded = (part * 1e4).round().clamp(0.0, 1e4);
    let told = match () {
        () if part > 0.0 && rounded < 1.0 => 0.01,
        () if part < 1.0 && rounded > 9999.0 => 99.99,
        () => rounded / 100.0,
    };
    format!("{told} %")
}

#[cfg(test)]
mod tests {
    use super::{date_time_s, moment, percent, short, span};

    #[test]
    fn dates_are_right_around_leap_days_and_before_1970() {
        assert_eq!(date_time_s(0), "1970-01-01 00:00:00");
        assert_eq!(date_time_s(-1), "1969-12-31 23:59:59");
        assert_eq!(date_time_s(951_782_400), "2000-02-29 00:00:00");
        assert_eq!(date_time_s(1_709_251_199), "2024-02-29 23:59:59");
        assert_eq!(date_time_s(1_709_251_200), "2024-03-01 00:00:00");
        assert_eq!(date_time_s(4_107_542_400), "2100-03-01 00:00:00");
    }

    #[test]
    fn a_moment_fits_between_two_ticks() {
        for span in [60, 3_601, 129_601, 1_209_601, 31_622_401] {
            assert!(moment(1_709_251_200, span).len() <= 10);
        }
    }

    #[test]
    fn spans_have_two_units_and_latencies_three_digits() {
        assert_eq!(
            [0, 250, 45_000, 120_000, 125_000, 12_000_000, 180_000_000].map(span),
            ["0 s", "250 ms", "45 s", "2 min", "2 min 5 s", "3 h 20 min", "2 d 2 h"]
        );
        assert_eq!(
            [0.001, 0.345, 0.9996, 8.13, 12.34, 99.96, 310.4].map(short),
            ["0.001", "0.345", "1", "8.13", "12.3", "100", "310"]
        );
    }

    #[test]
    fn a_little_is_never_told_as_nothing_or_all() {
        assert_eq!(percent(Some(0.0)), "0 %");
        assert_eq!(percent(Some(1.0)), "100 %");
        assert_eq!(percent(Some(0.000_001)), "0.01 %");
        assert_eq!(percent(Some(0.999_999)), "99.99 %");
        assert_eq!(percent(None), "-");
    }
}
