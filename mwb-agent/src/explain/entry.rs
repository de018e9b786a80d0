//! How a packet comes to us: what only policy rules ask for.

use super::packet::NotAPacket;
use crate::api::explain::WhyQuery;
use crate::config::{parse_dscp, parse_mac};

/// What of it is known.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Entry {
    /// The LAN port, by device.
    pub lan: Option<String>,
    /// The source MAC.
    pub mac: Option<[u8; 6]>,
    /// The code point.
    pub dscp: Option<u8>,
    /// The firewall mark.
    pub mark: Option<u32>,
}

impl Entry {
    /// What a question says.
    ///
    /// # Errors
    /// When a value is none, with what it should look like.
    pub fn read(asked: &WhyQuery) -> Result<Self, NotAPacket> {
        let wrong = |text: &str, what: &str| NotAPacket::new(format!("`{text}` is not {what}"));
        let mac = asked
            .mac
            .as_deref()
            .map(|text| parse_mac(text).ok_or_else(|| wrong(text, "a MAC like 02:00:00:00:00:01")));
        let dscp = asked.dscp.as_deref().map(|text| {
            parse_dscp(text).ok_or_else(|| wrong(text, "a code point like ef, or 0 to 63"))
        });
        let mark = asked
            .mark
            .as_deref()
            .map(|text| parse_mark(text).ok_or_else(|| wrong(text, "a mark like 0x10 or 16")));
        Ok(Self {
            lan: asked.lan.clone(),
            mac: mac.transpose()?,
            dscp: dscp.transpose()?,
            mark: mark.transpose()?,
        })
    }
}

fn parse_mark(text: &str) -> Option<u32> {
    match text.strip_prefix("0x") {
        Some(digits) => u32::from_str_radix(digits, 16).ok(),
        None => text.parse().ok(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked(dscp: &str, mac: &str, mark: &str) -> Result<Entry, NotAPacket> {
        let text = |text: &str| (!text.is_empty()).then(|| text.to_owned());
        Entry::read(&WhyQuery {
            packet: String::new(),
            lan: text("lan0"),
            mac: text(mac),
            dscp: text(dscp),
            mark: text(mark),
        })
    }

    #[test]
    fn what_is_known_is_read_as_it_is_written_in_rules() {
        let mac = Some([2, 0, 0, 0, 0, 1]);
        let entry = asked("ef", "02:00:00:00:00:01", "0x10").expect("right");
        assert_eq!((entry.dscp, entry.mac, entry.mark), (Some(46), mac, Some(16)));
        let entry = asked("63", "", "16").expect("right");
        assert_eq!((entry.dscp, entry.mac, entry.mark), (Some(63), None, Some(16)));
        assert_eq!(entry.lan.as_deref(), Some("lan0"));
    }

    #[test]
    fn what_is_none_is_refused() {
        for (dscp, mac, mark) in [("64", "", ""), ("fe", "", ""), ("", "02", ""), ("", "", "0xg")] {
            assert!(asked(dscp, mac, mark).is_err(), "{dscp} {mac} {mark}");
        }
    }
}
