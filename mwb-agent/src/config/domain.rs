//! Names that policy rules ask for. Must not know: rules, what a resolver answers.

use std::fmt;

/// One name, or all that are below one; in small letters, without the dot at its end.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Domain {
    /// The name.
    pub name: String,
    /// Names below it are meant, and not itself.
    pub below: bool,
}

impl Domain {
    /// Reads `example.net` or `*.example.net`; of another script as it is in the DNS, like
    /// `xn--bcher-kva.example` (RFC 5891).
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let (name, below) = match text.strip_prefix("*.") {
            Some(rest) => (rest, true),
            None => (text, false),
        };
        // RFC 1035, 2.3.4, and the label that a name below it has at least.
        let longest = if below { 251 } else { 253 };
        let name = host_name(name).filter(|name| name.len() <= longest)?;
        Some(Self { name: name.to_ascii_lowercase(), below })
    }
}

/// As it is written in the file.
impl fmt::Display for Domain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}", if self.below { "*." } else { "" }, self.name)
    }
}

/// A name of the DNS without the dot at its end (RFC 1123, 2.1; with the underscore that
/// service names have).
pub(super) fn host_name(text: &str) -> Option<&str> {
    let name = text.strip_suffix('.').unwrap_or(text);
    let label = |label: &str| {
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_".contains(&byte);
        (1..=63).contains(&label.len()) && label.bytes().all(plain)
    };
    (name.len() <= 253 && name.split('.').all(label)).then_some(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_read_without_its_last_dot_and_in_small_letters() {
        let of = |text: &str| Domain::parse(text).map(|domain| domain.to_string());
        assert_eq!(of("Example.NET."), Some("example.net".to_owned()));
        assert_eq!(of("*.example.net"), Some("*.example.net".to_owned()));
        assert_eq!(of("_dmarc.xn--bcher-kva.example"), Some("_dmarc.xn--bcher-kva.example".into()));
        let long = "a".repeat(63);
        assert!(of(&format!("{long}.net")).is_some());
        for wrong in [
            "",
            ".",
            "*",
            "*.",
            "a..b",
            ".a",
            "a b",
            "a.*.b",
            "**.a",
            "b\u{fc}cher.example",
            "a/b",
            &format!("{long}a.net"),
            &["abcdefg"; 32].join("."),
        ] {
            assert_eq!(of(wrong), None, "{wrong}");
        }
    }
}
