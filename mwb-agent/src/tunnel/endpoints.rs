//! Where the server is: addresses as configured, and what names stand for. A name is
//! asked for at the start and again whenever the server does not answer.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use tokio::sync::mpsc;

use super::network::Uplink;
use crate::config::Endpoint;

/// Between two questions for a name.
const AGAIN: Duration = Duration::from_secs(5);

/// What a name stands for, or why that is not known.
pub(super) struct Found {
    name: (String, u16),
    addresses: Result<Vec<SocketAddr>, String>,
}

/// Where the server is.
pub(super) struct Endpoints {
    list: Vec<Endpoint>,
    known: BTreeMap<(String, u16), Vec<SocketAddr>>,
    trouble: String,
    asked: Option<Instant>,
    answers: (mpsc::Sender<Found>, mpsc::Receiver<Found>),
}

impl Endpoints {
    pub(super) fn new(list: Vec<Endpoint>) -> Self {
        let mut endpoints = Self {
            list,
            known: BTreeMap::new(),
            trouble: String::new(),
            asked: None,
            answers: mpsc::channel(16),
        };
        endpoints.resolve();
        endpoints
    }

    /// Asks for what names stand for, unless that was done just now.
    pub(super) fn resolve(&mut self) {
        let now = Instant::now();
        if self.asked.is_some_and(|asked| now.duration_since(asked) < AGAIN) {
            return;
        }
        self.asked = Some(now);
        for endpoint in &self.list {
            let Endpoint::Name { host, port } = endpoint else { continue };
            let (name, sender) = ((host.clone(), *port), self.answers.0.clone());
            tokio::spawn(async move {
                let addresses = tokio::net::lookup_host((name.0.as_str(), name.1)).await;
                let addresses = addresses.map(Iterator::collect).map_err(|error| error.to_string());
                // If nobody wants it any more, that is all right.
                let _ = sender.send(Found { name, addresses }).await;
            });
        }
    }

    /// What has been found out meanwhile. An answer that is none changes nothing: the
    /// addresses from before are better than none.
    pub(super) fn take_answers(&mut self) {
        while let Ok(Found { name, addresses }) = self.answers.1.try_recv() {
            match addresses {
                Ok(addresses) if !addresses.is_empty() => {
                    self.known.insert(name, addresses);
                }
                Ok(_) => self.trouble = format!("{} has no address", name.0),
                Err(error) => self.trouble = format!("{}: {error}", name.0),
            }
        }
    }

    /// All addresses, in the order of the configuration.
    fn all(&self) -> impl Iterator<Item = SocketAddr> {
        self.list.iter().flat_map(|endpoint| match endpoint {
            Endpoint::Address(address) => vec![*address],
            Endpoint::Name { host, port } => {
                self.known.get(&(host.clone(), *port)).cloned().unwrap_or_default()
            }
        })
    }

    /// Whether there is any address.
    pub(super) fn is_known(&self) -> bool {
        self.all().next().is_some()
    }

    /// Why a name is not known.
    pub(super) fn trouble(&self) -> &str {
        &self.trouble
    }

    /// The address for a WAN, after so many that did not answer.
    pub(super) fn choose(&self, uplink: &Uplink, failures: u32) -> Option<SocketAddr> {
        let fitting: Vec<SocketAddr> = self.all().filter(|to| uplink.reaches(*to)).collect();
        fitting.get(failures as usize % fitting.len().max(1)).copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(text: &str) -> SocketAddr {
        text.parse().expect("an address")
    }

    #[tokio::test]
    async fn a_wan_goes_through_the_addresses_that_it_can_reach() {
        let endpoints = Endpoints::new(vec![
            Endpoint::Address(address("203.0.113.1:7000")),
            Endpoint::Address(address("[2001:db8::1]:7000")),
            Endpoint::Address(address("203.0.113.2:7001")),
        ]);
        let wan = |v4, v6| Uplink { ifindex: Some(3), carrier: true, v4, v6, ..Uplink::default() };
        let chosen = |wan: &Uplink| {
            (0..4).filter_map(|n| endpoints.choose(wan, n)).map(|a| a.to_string()).collect()
        };
        let both: Vec<String> = chosen(&wan(true, true));
        let [first, second, third, fourth] = &both[..] else { panic!("{both:?}") };
        assert_eq!((first.as_str(), second.as_str()), ("203.0.113.1:7000", "[2001:db8::1]:7000"));
        assert_eq!((third.as_str(), fourth), ("203.0.113.2:7001", first));
        let only6: Vec<String> = chosen(&wan(false, true));
        assert!(only6.iter().all(|to| to == "[2001:db8::1]:7000") && only6.len() == 4);
        assert_eq!(endpoints.choose(&wan(false, false), 0), None);
        assert_eq!(endpoints.choose(&Uplink { carrier: false, ..wan(true, true) }, 0), None);
    }

    #[tokio::test]
    async fn a_name_stands_for_its_addresses_once_they_are_found() {
        let mut endpoints =
            Endpoints::new(vec![Endpoint::Name { host: "localhost".to_owned(), port: 7000 }]);
        assert!(!endpoints.is_known());
        for _ in 0..200 {
            tokio::time::sleep(Duration::from_millis(10)).await;
            endpoints.take_answers();
            if endpoints.is_known() {
                return;
            }
        }
        panic!("localhost was not found: {}", endpoints.trouble());
    }
}
