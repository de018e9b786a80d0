//! Numbers with units, to and from text. What is read here is written back the
//! same way in messages, so that a range can be typed as it is shown.

use std::time::Duration;

/// Unit of time and its length in microseconds, longest first.
const TIMES: [(&str, u64); 6] = [
    ("d", 86_400_000_000),
    ("h", 3_600_000_000),
    ("m", 60_000_000),
    ("s", 1_000_000),
    ("ms", 1_000),
    ("us", 1),
];

/// Unit of rate and its size in bit/s, largest first.
const RATES: [(&str, u64); 4] =
    [("gbit", 1_000_000_000), ("mbit", 1_000_000), ("kbit", 1_000), ("bit", 1)];

/// Unit of size and its bytes, largest first; as data plans count, in powers of ten.
const SIZES: [(&str, u64); 5] =
    [("TB", 1_000_000_000_000), ("GB", 1_000_000_000), ("MB", 1_000_000), ("kB", 1_000), ("B", 1)];

/// Reads `200ms`, `5s`, `2h4m`: whole numbers, each unit once, longest first.
/// `None` if it is not one.
pub fn parse_duration(text: &str) -> Option<Duration> {
    let mut rest = text;
    let mut total: u64 = 0;
    let mut allowed = TIMES.as_slice();
    while !rest.is_empty() {
        let (number, tail) = split_number(rest)?;
        let letters = tail.find(|c: char| !c.is_ascii_lowercase()).unwrap_or(tail.len());
        let (unit, tail) = tail.split_at(letters);
        let place = allowed.iter().position(|(name, _)| *name == unit)?;
        let amount = number.parse::<u64>().ok()?.checked_mul(allowed[place].1)?;
        total = total.checked_add(amount)?;
        allowed = &allowed[place + 1..];
        rest = tail;
    }
    (!text.is_empty()).then(|| Duration::from_micros(total))
}

/// Writes a duration the way [`parse_duration`] reads it, to the microsecond.
#[must_use]
pub fn show_duration(duration: Duration) -> String {
    let mut left = u64::try_from(duration.as_micros()).unwrap_or(u64::MAX);
    let mut text = String::new();
    for (unit, size) in TIMES {
        if left >= size {
            text.push_str(&format!("{}{unit}", left / size));
            left %= size;
        }
    }
    if text.is_empty() { "0s".to_owned() } else { text }
}

/// Reads `100mbit`, `1.5gbit` as bit/s. `None` if it is not one.
pub fn parse_rate(text: &str) -> Option<u64> {
    parse_amount(text, &RATES)
}

/// Writes bit/s the way [`parse_rate`] reads it: in the largest unit that gives
/// a whole number.
#[must_use]
pub fn show_rate(rate: u64) -> String {
    show_amount(rate, &RATES)
}

/// Reads `50GB`, `1.5MB` as bytes. `None` if it is not one.
pub fn parse_size(text: &str) -> Option<u64> {
    parse_amount(text, &SIZES)
}

/// Writes bytes the way [`parse_size`] reads them.
#[must_use]
pub fn show_size(size: u64) -> String {
    show_amount(size, &SIZES)
}

/// Reads a number, maybe with a fraction, that has one of `units` behind it.
fn parse_amount(text: &str, units: &[(&str, u64)]) -> Option<u64> {
    let (unit, size) = units.iter().find(|(unit, _)| text.ends_with(unit))?;
    let number = text.strip_suffix(unit)?;
    let (whole, fraction) = number.split_once('.').unwrap_or((number, "0"));
    let digits = |part: &str| !part.is_empty() && part.bytes().all(|b| b.is_ascii_digit());
    // Nine digits reach from gbit to one bit.
    if !digits(whole) || !digits(fraction) || fraction.len() > 9 {
        return None;
    }
    let scale = 10_u64.pow(u32::try_from(fraction.len()).ok()?);
    let part = fraction.parse::<u64>().ok()?.checked_mul(*size)?;
    if !part.is_multiple_of(scale) {
        return None;
    }
    whole.parse::<u64>().ok()?.checked_mul(*size)?.checked_add(part / scale)
}

/// Writes an amount in the largest of `units` that gives a whole number.
fn show_amount(amount: u64, units: &[(&str, u64)]) -> String {
    let whole = |(_, size): &&(&str, u64)| amount >= *size && amount.is_multiple_of(*size);
    let (unit, size) = units.iter().find(whole).or(units.last()).copied().unwrap_or(("", 1));
    format!("{}{unit}", amount / size)
}

/// Reads `5%`, `0.5%` as a part of one. `None` if it is not one.
pub fn parse_percent(text: &str) -> Option<f64> {
    let number = text.strip_suffix('%')?;
    let plain = number.bytes().all(|b| b.is_ascii_digit() || b == b'.');
    let value: f64 = if plain { number.parse().ok()? } else { return None };
    value.is_finite().then_some(value / 100.0)
}

/// Writes a part of one as percent.
#[must_use]
pub fn show_percent(part: f64) -> String {
    // Four decimals hide what the division by 100 leaves.
    let text = format!("{:.4}", part * 100.0);
    format!("{}%", text.trim_end_matches('0').trim_end_matches('.'))
}

/// Reads `10000-65535`, both ends included. `None` if it is not a range.
pub fn parse_ports(text: &str) -> Option<(u16, u16)> {
    let (low, high) = text.split_once('-')?;
    let port =
        |text: &str| (split_number(text)?.1.is_empty()).then(|| text.parse::<u16>().ok()).flatten();
    let (low, high) = (port(low)?, port(high)?);
    (low <= high).then_some((low, high))
}

/// Splits the leading digits off; `None` if there are none.
fn split_number(text: &str) -> Option<(&str, &str)> {
    let end = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    (end > 0).then(|| text.split_at(end))
}
