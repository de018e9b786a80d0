//! Names to addresses by one WAN. What another WAN, or this machine itself,
//! would answer does not matter: it may be another network's view.
//!
//! `/etc/hosts` is not read and no search domain is tried: a check shall ask
//! the same whatever machine it runs on.

use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::pin::pin;
use std::time::Duration;

use hickory_proto::rr::RData;
use tokio::io::AsyncReadExt;

use super::budget::Budget;
use super::query::{self, Kind, Question};
use super::{Bad, Invalid, Target, Via};

const DNS_PORT: u16 = 53;
/// As many as the C library takes.
const MOST_SERVERS: usize = 3;
/// A longer file is no resolv.conf.
const LONGEST_FILE: u64 = 64 << 10;
/// How long one family's addresses wait for the other's. RFC 8305, 3.
const OTHER_FAMILY: Duration = Duration::from_millis(50);

/// Which name servers are asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Servers {
    /// Those in a file like `/etc/resolv.conf`, read each time.
    File(PathBuf),
    /// These.
    Given(Vec<SocketAddr>),
}

impl Default for Servers {
    fn default() -> Self {
        Servers::File(PathBuf::from("/etc/resolv.conf"))
    }
}

impl Servers {
    /// These, each an address with or without a port: `192.0.2.53`,
    /// `192.0.2.53:5353`, `2001:db8::53`, `[2001:db8::53]:5353`.
    ///
    /// # Errors
    /// The first that is none, or that the list is empty.
    pub fn given<T: AsRef<str>>(texts: &[T]) -> Result<Self, Invalid> {
        if texts.is_empty() {
            let why = "is an empty list; name a server or leave the option out";
            return Err(Invalid::new("nameservers", "", why));
        }
        texts.iter().map(|text| server(text.as_ref())).collect::<Result<_, _>>().map(Self::Given)
    }

    /// Those that `via` can ask.
    pub(super) async fn reachable(&self, via: &Via) -> Result<Vec<SocketAddr>, Bad> {
        let (all, from) = match self {
            Servers::Given(all) => (all.clone(), "the list of name servers".to_owned()),
            Servers::File(path) => (read(path).await?, path.display().to_string()),
        };
        let can = |server: &SocketAddr| via.has_family_of(server.ip()) && !via.misses(server.ip());
        let reachable: Vec<_> = all.iter().copied().filter(can).collect();
        if !reachable.is_empty() {
            return Ok(reachable);
        }
        let local = all.iter().any(|server| via.misses(server.ip()));
        Err(Bad::NotSent(if local {
            format!(
                "{from} names this machine itself, which the WAN does not lead to: name servers \
                 that it does lead to must be configured for the check"
            )
        } else {
            format!("{from} has no name server of a family that the WAN has")
        }))
    }
}

fn server(text: &str) -> Result<SocketAddr, Invalid> {
    let bare: Result<IpAddr, _> = text.parse();
    if let Ok(address) = bare {
        return Ok(SocketAddr::new(address, DNS_PORT));
    }
    let with_port: Option<SocketAddr> = text.parse().ok();
    with_port.filter(|server| server.port() != 0).ok_or_else(|| {
        let why = "is no address with or without a port, as 192.0.2.53 or [2001:db8::53]:5353";
        Invalid::new("nameservers", text, why)
    })
}

async fn read(path: &Path) -> Result<Vec<SocketAddr>, Bad> {
    let read = async {
        let mut text = String::new();
        let file = tokio::fs::File::open(path).await?;
        file.take(LONGEST_FILE).read_to_string(&mut text).await?;
        Ok::<_, std::io::Error>(text)
    };
    let text = read.await.map_err(|error| {
        Bad::NotSent(format!("cannot read the name servers in {}: {error}", path.display()))
    })?;
    Ok(name_servers(&text).into_iter().map(|address| (address, DNS_PORT).into()).collect())
}

/// The name servers in a resolv.conf, as resolv.conf(5) has it. The scope of a
/// link-local address is left out: it is the WAN's device.
fn name_servers(text: &str) -> Vec<IpAddr> {
    let address = |line: &str| {
        let mut words = line.split_whitespace();
        if words.next() != Some("nameserver") {
            return None;
        }
        words.next()?.split('%').next()?.parse().ok()
    };
    text.lines().filter_map(address).take(MOST_SERVERS).collect()
}

/// The addresses of a host that `via` can send to; never none.
pub(super) async fn addresses(
    via: &Via,
    host: &Target,
    servers: &Servers,
    budget: &Budget,
) -> Result<Vec<IpAddr>, Bad> {
    let text = match host {
        Target::Address(address) => return elsewhere(via, vec![*address]),
        Target::Name(text) => text,
    };
    let name = query::parse_name("host", text);
    let name = name.map_err(|invalid| Bad::NotSent(invalid.to_string()))?;
    let waiting = || format!("finding the name servers for {text}");
    let servers = budget.within(waiting, servers.reachable(via)).await??;
    let ask = async |kind| {
        let question = Question { name: name.clone(), kind };
        query::ask(via, &servers, &question, budget).await.map(|reply| ips(&reply.records))
    };
    let found = match (via.has_v4(), via.has_v6()) {
        (true, false) => ask(Kind::A).await?,
        (false, true) => ask(Kind::Aaaa).await?,
        _ => either(ask(Kind::Aaaa), ask(Kind::A)).await?,
    };
    elsewhere(via, found)
}

/// Those that are not of this machine itself: a name server that blocks a name
/// may say so.
fn elsewhere(via: &Via, mut found: Vec<IpAddr>) -> Found {
    let first = found.first().copied();
    found.retain(|address| !via.misses(*address));
    match first {
        Some(address) if found.is_empty() => Err(Bad::NotSent(format!(
            "{address} is this machine itself, which the WAN does not lead to"
        ))),
        _ => Ok(found),
    }
}

type Found = Result<Vec<IpAddr>, Bad>;

/// What both find, the first's in front; of one alone when the other is late.
async fn either(first: impl Future<Output = Found>, second: impl Future<Output = Found>) -> Found {
    let (mut first, mut second) = (pin!(first), pin!(second));
    let (one, other) = tokio::select! {
        one = &mut first => {
            let other = late(&one, second).await;
            (one, other)
        }
        other = &mut second => {
            let one = late(&other, first).await;
            (one.unwrap_or_else(|| Ok(Vec::new())), Some(other))
        }
    };
    match (one, other) {
        (Ok(mut one), Some(Ok(other))) => {
            one.extend(other);
            Ok(one)
        }
        (Ok(found), _) if !found.is_empty() => Ok(found),
        (_, Some(Ok(found))) => Ok(found),
        (Err(bad), Some(Err(other))) => Err(bad.or(other)),
        (Err(bad), None) | (Ok(_), Some(Err(bad))) => Err(bad),
        (Ok(found), None) => Ok(found),
    }
}

/// The other family's result: with something in hand it is not waited for long.
async fn late(had: &Found, other: impl Future<Output = Found>) -> Option<Found> {
    if had.is_ok() {
        tokio::time::timeout(OTHER_FAMILY, other).await.ok()
    } else {
        Some(other.await)
    }
}

fn ips(records: &[RData]) -> Vec<IpAddr> {
    let ip = |data: &RData| match data {
        RData::A(a) => Some(IpAddr::V4(a.0)),
        RData::AAAA(aaaa) => Some(IpAddr::V6(aaaa.0)),
        _ => None,
    };
    records.iter().filter_map(ip).collect()
}

#[cfg(test)]
#[path = "resolve_tests.rs"]
mod tests;
