//! Where this machine gets its Debian packages from: reads apt's sources, in
//! both of their forms. Downloads nothing.

use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};

/// Where apt keeps its sources.
const CONFIGURED: &str = "/etc/apt";
/// Releases of Debian that a source may name.
const RELEASES: [&str; 9] = [
    "bullseye",
    "bookworm",
    "trixie",
    "forky",
    "oldoldstable",
    "oldstable",
    "stable",
    "testing",
    "sid",
];
/// End of the name of a release's updates.
const UPDATES: &str = "-updates";

/// One source of binary packages.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Source {
    /// Address of the archive.
    pub(super) uri: String,
    /// Releases that are taken from it.
    pub(super) suites: Vec<String>,
    /// File of the keys that sign it.
    pub(super) signed_by: Option<String>,
}

impl Source {
    fn has_suite(&self, fits: impl Fn(&str) -> bool) -> bool {
        self.suites.iter().any(|suite| fits(suite))
    }

    /// A line of `sources.list` for a release of the same archive.
    #[must_use]
    pub(super) fn line(&self, suite: &str) -> String {
        let signed = self.signed_by.as_ref().map(|keys| format!(" signed-by={keys}"));
        let signed = signed.unwrap_or_default();
        // Of `file:` apt takes no copies, and there would be nothing to unpack.
        let uri = match self.uri.strip_prefix("file:") {
            Some(path) => &format!("copy:{path}"),
            None => &self.uri,
        };
        format!("deb [arch=amd64{signed}] {uri} {suite} main\n")
    }
}

/// The two archives that hold what a test VM is made of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Mirrors {
    /// Debian itself: releases and their backports.
    pub(super) archive: Source,
    /// Its security updates, if this machine takes them.
    pub(super) security: Option<Source>,
}

/// This machine has no archive of Debian packages.
#[derive(Debug)]
pub(super) struct NoMirror(PathBuf);

impl fmt::Display for NoMirror {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "no source under {} is a Debian archive: with a line `deb MIRROR bookworm main` there \
             is one",
            self.0.display()
        )
    }
}

impl std::error::Error for NoMirror {}

/// The archives that apt is configured for.
///
/// # Errors
/// When none of its sources is a Debian archive.
pub(super) fn mirrors() -> Result<Mirrors, NoMirror> {
    let directory = Path::new(CONFIGURED);
    choose(&read(directory)).ok_or_else(|| NoMirror(directory.to_owned()))
}

fn read(directory: &Path) -> Vec<Source> {
    let text = |path: &Path| fs::read_to_string(path).unwrap_or_default();
    let mut found = parse_lines(&text(&directory.join("sources.list")));
    let parts = fs::read_dir(directory.join("sources.list.d"));
    let mut parts: Vec<PathBuf> =
        parts.into_iter().flatten().flatten().map(|entry| entry.path()).collect();
    parts.sort();
    for path in parts {
        match path.extension().and_then(|extension| extension.to_str()) {
            Some("list") => found.extend(parse_lines(&text(&path))),
            Some("sources") => found.extend(parse_stanzas(&text(&path))),
            _ => {}
        }
    }
    found
}

fn choose(sources: &[Source]) -> Option<Mirrors> {
    let release = |suite: &str| {
        let bare = suite.trim_end_matches(UPDATES).trim_end_matches("-backports");
        RELEASES.contains(&bare)
    };
    let security = |suite: &str| suite.ends_with("-security") || suite.ends_with("/updates");
    // Other vendors name their suites after Debian's releases too: Debian alone has updates
    // beside a release, and what nobody updates is at least called as it is.
    let is_updated = |source: &Source| {
        let same = sources.iter().filter(|other| other.uri == source.uri);
        same.flat_map(|other| &other.suites).any(|suite| {
            suite.strip_suffix(UPDATES).is_some_and(|release| RELEASES.contains(&release))
        })
    };
    let archive =
        sources.iter().filter(|source| source.has_suite(release)).min_by_key(|source| {
            let is_called_so = source.uri.trim_end_matches('/').ends_with("/debian");
            (!is_updated(source), !is_called_so)
        })?;
    let security = sources.iter().find(|source| source.has_suite(security)).cloned();
    Some(Mirrors { archive: archive.clone(), security })
}

/// Entries of one line: `deb [option=value …] URI suite component …`.
fn parse_lines(text: &str) -> Vec<Source> {
    let entry = |line: &str| {
        let line = line.split('#').next()?.trim().strip_prefix("deb")?;
        let line = line.strip_prefix([' ', '\t'])?.trim();
        let (options, rest) = match line.strip_prefix('[') {
            Some(rest) => rest.split_once(']')?,
            None => ("", line),
        };
        let signed_by = options.split_whitespace().find_map(|one| one.strip_prefix("signed-by="));
        let mut words = rest.split_whitespace();
        source(words.next()?, [words.next()?], words, signed_by)
    };
    text.lines().filter_map(entry).collect()
}

/// Entries of one field a line, between empty lines.
fn parse_stanzas(text: &str) -> Vec<Source> {
    let mut found = Vec::new();
    let text: String = text
        .lines()
        .filter(|line| !line.starts_with('#'))
        .map(|line| format!("{line}\n"))
        .collect();
    for stanza in text.split("\n\n") {
        let field = |name: &str| {
            stanza.lines().find_map(|line| {
                let (key, value) = line.split_once(':')?;
                key.eq_ignore_ascii_case(name).then(|| value.trim())
            })
        };
        let off = field("Enabled").is_some_and(|value| matches!(value, "no" | "false"));
        let binary = field("Types").is_some_and(|types| types.split(' ').any(|one| one == "deb"));
        if off || !binary {
            continue;
        }
        // Keys may also stand in the stanza itself; then apt's own will do.
        let signed_by = field("Signed-By").filter(|keys| keys.starts_with('/'));
        let words = |name: &str| field(name).unwrap_or_default().split_whitespace();
        for uri in words("URIs") {
            found.extend(source(uri, words("Suites"), words("Components"), signed_by));
        }
    }
    found
}

/// A source that can be asked over a network and has what is free software.
fn source<'a>(
    uri: &str,
    suites: impl IntoIterator<Item = &'a str>,
    mut components: impl Iterator<Item = &'a str>,
    signed_by: Option<&str>,
) -> Option<Source> {
    let reachable = uri.contains("://") || uri.starts_with("file:") || uri.starts_with("copy:");
    (reachable && components.any(|component| component == "main")).then(|| Source {
        uri: uri.to_owned(),
        suites: suites.into_iter().map(str::to_owned).collect(),
        signed_by: signed_by.map(str::to_owned),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const STANZAS: &str = "\
Types: deb
# http://old.example.org/debian
URIs: http://mirror.example.org/debian
Suites: bookworm bookworm-updates
Components: main contrib
Signed-By: /keys/archive.gpg

Types: deb-src
URIs: http://mirror.example.org/debian
Suites: bookworm
Components: main

Types: deb
URIs: http://mirror.example.org/debian-security
Suites: bookworm-security
Components: main

Enabled: no
Types: deb
URIs: http://mirror.example.org/off
Suites: sid
Components: main
";

    #[test]
    fn the_archive_and_its_security_updates_are_found_in_stanzas() {
        let mirrors = choose(&parse_stanzas(STANZAS));
        let archive = mirrors.as_ref().map(|one| one.archive.line("trixie"));
        assert_eq!(
            archive.as_deref(),
            Some(
                "deb [arch=amd64 signed-by=/keys/archive.gpg] http://mirror.example.org/debian \
                 trixie main\n"
            )
        );
        let security = mirrors.and_then(|one| one.security).map(|one| one.uri);
        assert_eq!(security.as_deref(), Some("http://mirror.example.org/debian-security"));
        assert_eq!(parse_stanzas(STANZAS).len(), 2);
    }

    #[test]
    fn and_in_lines() {
        let text = "# deb http://no.example.org/debian bookworm main\n\
            deb-src http://no.example.org/debian bookworm main\n\
            deb [arch=amd64 signed-by=/k.gpg] https://tools.example.org/apt tools main\n\
            deb cdrom:[Debian]/ bookworm main\n\
            deb\thttp://mirror.example.org/debian trixie main non-free # ours\n\
            deb http://mirror.example.org/security trixie-security main\n";
        let mirrors = choose(&parse_lines(text));
        let found = mirrors.map(|one| (one.archive.uri, one.security.map(|one| one.uri)));
        let expected = (
            "http://mirror.example.org/debian".to_owned(),
            Some("http://mirror.example.org/security".to_owned()),
        );
        assert_eq!(found, Some(expected));
        assert_eq!(parse_lines(text)[0].signed_by.as_deref(), Some("/k.gpg"));
    }

    #[test]
    fn debians_own_archive_comes_before_those_of_others() {
        let chosen = |text: &str| choose(&parse_lines(text)).map(|one| one.archive.uri);
        let other = "deb https://tools.example.org/apt bookworm main\n\
            deb https://net.example.org/stable/debian bookworm main\n";
        let own = "deb http://mirror.example.org/mirrored/ bookworm main\n";
        let updates = "deb http://mirror.example.org/mirrored/ bookworm-updates main\n";
        let found = chosen(&format!("{other}{own}{updates}"));
        assert_eq!(found.as_deref(), Some("http://mirror.example.org/mirrored/"));
        let by_name = chosen(other);
        assert_eq!(by_name.as_deref(), Some("https://net.example.org/stable/debian"));
        let local = Source { uri: "file:/srv/debian".into(), ..Source::default() };
        assert_eq!(local.line("sid"), "deb [arch=amd64] copy:/srv/debian sid main\n");
        let at_all = chosen(other.lines().next().unwrap_or_default());
        assert_eq!(at_all.as_deref(), Some("https://tools.example.org/apt"));
    }

    #[test]
    fn a_machine_without_debians_archive_has_no_mirror() {
        assert_eq!(choose(&parse_lines("deb http://other.example.org/x noble main\n")), None);
        assert_eq!(choose(&[]), None);
    }
}
