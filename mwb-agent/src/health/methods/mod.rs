//! Ways to ask whether a WAN works that need more than an echo: a web page, a
//! name, a port, a command of the operator's own.
//!
//! [`Method::ask`] asks once, by one WAN ([`Via`]), within one budget of time
//! for all that it takes. It keeps nothing between two times: no connection, no
//! name, no TLS session. Dropping its future closes the sockets and ends the
//! command.
//!
//! Must not know: when and how often it is asked, what state of the WAN follows.

use std::net::IpAddr;
use std::str::FromStr;
use std::time::Duration;

mod bad;
mod budget;
mod dns;
mod exec;
mod http;
mod http_options;
mod perfdata;
mod query;
mod resolve;
mod status;
mod tcp;
#[cfg(test)]
mod testing;
mod tls;
mod via;

pub use bad::{Bad, Ended, Rcode};
pub use dns::Dns;
pub use exec::Exec;
pub use http::Http;
pub use http_options::HttpOptions;
pub use perfdata::Perf;
pub use query::Kind;
pub use resolve::Servers;
pub use status::StatusList;
pub use tcp::Tcp;
pub use tls::{Tls, TlsOptions};
pub use via::Via;

use budget::Budget;

/// One way to ask, with all that it needs.
#[derive(Clone, Debug)]
pub enum Method {
    /// A request over HTTP or HTTPS.
    Http(Box<Http>),
    /// A question to a name server.
    Dns(Dns),
    /// A connection to a port.
    Tcp(Tcp),
    /// A command.
    Exec(Exec),
}

impl Method {
    /// Asks once, by `via` and no other way, for at most `timeout`.
    ///
    /// What `target` is depends on the method: the host to connect to instead of
    /// the URL's (HTTP), the name server instead of those configured (DNS), the
    /// host (TCP, which cannot do without), or what the command is told.
    ///
    /// # Errors
    /// [`Bad`]; [`Bad::is_silence`] tells whether the target was heard at all.
    pub async fn ask(
        &self,
        via: &Via,
        target: Option<&Target>,
        timeout: Duration,
    ) -> Result<Good, Bad> {
        let budget = Budget::new(timeout);
        match self {
            Method::Http(http) => http.ask(via, target, &budget).await,
            Method::Dns(dns) => dns.ask(via, target, &budget).await,
            Method::Tcp(tcp) => tcp.ask(via, target, &budget).await,
            Method::Exec(exec) => exec.ask(via, target, &budget).await,
        }
    }
}

/// The answer was as it should be.
#[derive(Clone, Debug, PartialEq)]
pub struct Good {
    /// How long the target took. Each method says from when to when; the time
    /// that names take to resolve is in none but the DNS method's.
    pub time: Duration,
    /// What came, for people.
    pub detail: String,
    /// It works, but a command warns.
    pub warning: bool,
    /// What a command has measured.
    pub perfdata: Vec<Perf>,
}

impl Good {
    fn new(time: Duration, detail: String) -> Self {
        Self { time, detail, warning: false, perfdata: Vec::new() }
    }
}

/// Whom to ask.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Target {
    /// An address.
    Address(IpAddr),
    /// A host name, resolved by the WAN each time.
    Name(String),
}

impl FromStr for Target {
    type Err = Invalid;

    /// An address (IPv6 with or without brackets) or a host name.
    fn from_str(text: &str) -> Result<Self, Invalid> {
        let bare = text.strip_prefix('[').and_then(|text| text.strip_suffix(']'));
        if let Ok(address) = bare.unwrap_or(text).parse() {
            return Ok(Target::Address(address));
        }
        query::parse_name("target", text)?;
        Ok(Target::Name(text.to_owned()))
    }
}

impl std::fmt::Display for Target {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Target::Address(address) => address.fmt(f),
            Target::Name(name) => f.write_str(name),
        }
    }
}

/// A value that a method cannot work with.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{option}: {value:?} {why}")]
pub struct Invalid {
    /// The option.
    pub option: &'static str,
    /// What was given.
    pub value: String,
    /// What is wrong with it, and what would be right.
    pub why: String,
}

impl Invalid {
    fn new(option: &'static str, value: impl Into<String>, why: impl Into<String>) -> Self {
        Self { option, value: value.into(), why: why.into() }
    }
}

/// Where `wanted` begins in `bytes`, if it does not before `from`.
fn find(bytes: &[u8], wanted: &[u8], from: usize) -> Option<usize> {
    if wanted.is_empty() {
        return Some(from);
    }
    let rest = bytes.get(from..)?;
    rest.windows(wanted.len()).position(|window| window == wanted).map(|at| from + at)
}

#[cfg(test)]
#[path = "mod_tests.rs"]
mod tests;
