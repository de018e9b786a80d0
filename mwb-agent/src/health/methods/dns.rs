//! The DNS check: a name server must know a name, and know it rightly.

use std::net::IpAddr;

use hickory_proto::rr::RData;
use ipnet::IpNet;

use super::budget::Budget;
use super::query::{self, Kind, Question};
use super::resolve::{self, Servers};
use super::{Bad, Good, Invalid, Target, Via};

const DNS_PORT: u16 = 53;

/// Asks a name server for a name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Dns {
    question: Question,
    servers: Servers,
    expected: Vec<Expected>,
}

/// An answer that is right.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Expected {
    /// An address of this prefix.
    Within(IpNet),
    /// This text; lower case, without a final dot.
    Text(String),
}

impl Dns {
    /// Asks `servers` for `name`. If anything is `expected`, one of the answers
    /// must be it: an address or prefix for A and AAAA; for the others a text,
    /// whatever its case and whether or not it ends with a dot. A mail server
    /// may be given with its preference: `10 mail.example.com`.
    ///
    /// # Errors
    /// A name, address or prefix that is none.
    pub fn new<T: AsRef<str>>(
        name: &str,
        kind: Kind,
        expected: &[T],
        servers: Servers,
    ) -> Result<Self, Invalid> {
        let name = query::parse_name("name", name)?;
        let expected = expected.iter().map(|text| Expected::new(kind, text.as_ref()));
        let expected = expected.collect::<Result<_, _>>()?;
        Ok(Self { question: Question { name, kind }, servers, expected })
    }

    /// Its time is that from the question to the answer of the server that knew.
    pub(super) async fn ask(
        &self,
        via: &Via,
        target: Option<&Target>,
        budget: &Budget,
    ) -> Result<Good, Bad> {
        let servers = match target {
            None => {
                let waiting = || "finding the name servers".to_owned();
                budget.within(waiting, self.servers.reachable(via)).await??
            }
            Some(server) => {
                let found = resolve::addresses(via, server, &self.servers, budget).await?;
                found.into_iter().map(|address| (address, DNS_PORT).into()).collect()
            }
        };
        let reply = query::ask(via, &servers, &self.question, budget).await?;
        let right = |data: &RData| self.expected.iter().any(|expected| expected.is(data));
        let got = list(reply.records.iter().map(text));
        if !self.expected.is_empty() && !reply.records.iter().any(right) {
            let wanted = list(self.expected.iter().map(Expected::text));
            return Err(Bad::Answer { got, wanted });
        }
        Ok(Good::new(reply.time, format!("{} is {got}, says {}", self.question, reply.server)))
    }
}

impl Expected {
    fn new(kind: Kind, text: &str) -> Result<Self, Invalid> {
        let v4 = match kind {
            Kind::A => true,
            Kind::Aaaa => false,
            Kind::Cname | Kind::Mx | Kind::Txt | Kind::Ns => {
                return Ok(Expected::Text(plain(text)));
            }
        };
        let address: Option<IpAddr> = text.parse().ok();
        let prefix = address.map(IpNet::from).or_else(|| text.parse().ok());
        let fits = prefix.filter(|prefix| prefix.addr().is_ipv4() == v4);
        fits.map(Expected::Within).ok_or_else(|| {
            let family = if v4 { "IPv4" } else { "IPv6" };
            Invalid::new("expect", text, format!("is no {family} address or prefix"))
        })
    }

    fn is(&self, data: &RData) -> bool {
        match (self, data) {
            (Expected::Within(prefix), RData::A(a)) => prefix.contains(&IpAddr::V4(a.0)),
            (Expected::Within(prefix), RData::AAAA(a)) => prefix.contains(&IpAddr::V6(a.0)),
            (Expected::Text(wanted), RData::MX(mx)) => {
                *wanted == plain(&mx.exchange.to_string()) || *wanted == plain(&text(data))
            }
            (Expected::Text(wanted), data) => *wanted == plain(&text(data)),
            (Expected::Within(_), _) => false,
        }
    }

    fn text(&self) -> String {
        match self {
            Expected::Within(prefix) if prefix.prefix_len() == prefix.max_prefix_len() => {
                prefix.addr().to_string()
            }
            Expected::Within(prefix) => prefix.to_string(),
            Expected::Text(text) => text.clone(),
        }
    }
}

fn plain(text: &str) -> String {
    text.strip_suffix('.').unwrap_or(text).to_lowercase()
}

/// A record's data for people. The parts of a TXT record are one text.
fn text(data: &RData) -> String {
    match data {
        RData::TXT(txt) => String::from_utf8_lossy(&txt.txt_data.concat()).into_owned(),
        data => data.to_string(),
    }
}

/// A few of them, with commas.
fn list(texts: impl ExactSizeIterator<Item = String>) -> String {
    const MOST: usize = 4;
    let more = texts.len().saturating_sub(MOST);
    let shown = texts.take(MOST).collect::<Vec<_>>().join(", ");
    if more > 0 { format!("{shown} and {more} more") } else { shown }
}

#[cfg(test)]
#[path = "dns_tests.rs"]
mod tests;
