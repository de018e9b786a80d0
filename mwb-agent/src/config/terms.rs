//! Words and ranges that say which packets are meant, the same for all rules.

use std::ops::RangeInclusive;

use super::reader::{Cursor, Fault};
use super::units;

/// Words for protocols (IANA).
pub(super) const PROTOCOLS: [(&str, u8); 7] =
    [("udp", 17), ("tcp", 6), ("icmp", 1), ("icmpv6", 58), ("sctp", 132), ("gre", 47), ("esp", 50)];
/// Those that have ports.
pub(super) const WITH_PORTS: [u8; 3] = [17, 6, 132];
/// Words for code points (RFC 2474, 2597, 3246, 5865, 8622).
pub(super) const DSCPS: [(&str, u8); 23] = [
    ("ef", 46),
    ("va", 44),
    ("le", 1),
    ("cs0", 0),
    ("cs1", 8),
    ("cs2", 16),
    ("cs3", 24),
    ("cs4", 32),
    ("cs5", 40),
    ("cs6", 48),
    ("cs7", 56),
    ("af11", 10),
    ("af12", 12),
    ("af13", 14),
    ("af21", 18),
    ("af22", 20),
    ("af23", 22),
    ("af31", 26),
    ("af32", 28),
    ("af33", 30),
    ("af41", 34),
    ("af42", 36),
    ("af43", 38),
];

/// The word for a number, or the number.
pub(super) fn word_of(words: &[(&str, u8)], number: u8) -> String {
    let word = words.iter().find(|(_, value)| *value == number);
    word.map_or_else(|| number.to_string(), |(word, _)| (*word).to_owned())
}

/// As it is written: a number, or two with a hyphen between them.
pub(super) fn show_range(range: &RangeInclusive<u16>) -> String {
    match (range.start(), range.end()) {
        (from, to) if from == to => from.to_string(),
        (from, to) => format!("{from}-{to}"),
    }
}

/// An IP protocol: a word or its number.
pub(super) fn read_protocol(at: &Cursor<'_>) -> Result<u8, Fault> {
    read_number(at, &PROTOCOLS, 255)
}

/// A code point: a word or its number.
pub(super) fn read_dscp(at: &Cursor<'_>) -> Result<u8, Fault> {
    read_number(at, &DSCPS, 63)
}

/// A word or number of a code point. `None` if it is not one.
#[must_use]
pub fn parse_dscp(text: &str) -> Option<u8> {
    let word = DSCPS.iter().find(|(word, _)| *word == text).map(|(_, number)| *number);
    word.or_else(|| text.parse().ok().filter(|number| *number <= 63))
}

/// A MAC as in `02:00:00:00:00:01`, of one host. `None` if it is not one.
#[must_use]
pub fn parse_mac(text: &str) -> Option<[u8; 6]> {
    let mut mac = [0; 6];
    let mut parts = text.split(':');
    for byte in &mut mac {
        let part = parts.next().filter(|part| part.len() == 2)?;
        let digits = part.bytes().all(|b| b.is_ascii_hexdigit());
        *byte = digits.then(|| u8::from_str_radix(part, 16).ok()).flatten()?;
    }
    // Nobody sends from a group, or from nobody.
    let single = mac[0] & 1 == 0 && mac != [0; 6];
    (parts.next().is_none() && single).then_some(mac)
}

fn read_number(at: &Cursor<'_>, words: &[(&str, u8)], most: u32) -> Result<u8, Fault> {
    if at.is_integer() {
        let number = at.integer(&(0..=most))?;
        return Ok(u8::try_from(number).unwrap_or(u8::MAX));
    }
    at.word(words, &[])
}

/// A number, or two with a hyphen between them.
pub(super) fn read_range(
    at: &Cursor<'_>,
    range: &RangeInclusive<u16>,
    what: &str,
    example: &str,
) -> Result<RangeInclusive<u16>, Fault> {
    if at.is_integer() {
        let number = at.integer(&(u32::from(*range.start())..=u32::from(*range.end())))?;
        let number = u16::try_from(number).unwrap_or(u16::MAX);
        return Ok(number..=number);
    }
    let (low, high) = at.parsed(what, example, units::parse_ports)?;
    let show = |number: &u16| number.to_string();
    Ok(at.within(low, range, show)?..=at.within(high, range, show)?)
}
