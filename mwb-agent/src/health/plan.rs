//! What a round of checks asks, and whom. Pure.

use std::net::IpAddr;
use std::time::Duration;

use super::methods::{Method, Target};

/// A kind of check; several of one kind have one name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Kind {
    /// ICMP echo.
    Ping,
    /// HTTP.
    Http,
    /// HTTP over TLS.
    Https,
    /// DNS.
    Dns,
    /// A TCP connection.
    Tcp,
    /// A program.
    Exec,
}

impl Kind {
    /// The word in the configuration, in status and in the history.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Kind::Ping => "ping",
            Kind::Http => "http",
            Kind::Https => "https",
            Kind::Dns => "dns",
            Kind::Tcp => "tcp",
            Kind::Exec => "exec",
        }
    }

    /// Bytes that asking one target once takes on a WAN, both ways, near enough for a
    /// budget: headers of the lower layers, names and handshakes included.
    #[must_use]
    pub const fn bytes(self) -> u64 {
        match self {
            Kind::Ping => 200,
            Kind::Dns => 400,
            Kind::Tcp => 600,
            Kind::Http => 3_000,
            Kind::Https | Kind::Exec => 10_000,
        }
    }
}

/// How a WAN is asked.
#[derive(Clone, Debug, PartialEq)]
pub struct Plan {
    /// The ways that there are, at least one. With several the one that tells the truth
    /// is found out.
    pub ways: Vec<Way>,
    /// How many of those that a round asks must answer; at least 1.
    pub quorum: u32,
    /// How many a round asks, in turn; `None`: all.
    pub per_round: Option<u32>,
    /// How long one answer may take, of another kind than [`Kind::Ping`].
    pub timeout: Duration,
}

impl Plan {
    /// Bytes of a round, by the way that takes most.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.ways.iter().map(|way| way.bytes(self.per_round)).max().unwrap_or(1)
    }
}

/// One way to ask.
#[derive(Clone, Debug, PartialEq)]
pub enum Way {
    /// ICMP echo; without targets of a family that the WAN has, its gateways.
    Ping {
        /// How.
        echo: Echo,
        /// Whom.
        targets: Vec<IpAddr>,
    },
    /// Another one.
    Other {
        /// Of which kind.
        kind: Kind,
        /// What is asked, and of whom; at least one.
        questions: Vec<Question>,
    },
}

/// What is asked of one target.
#[derive(Clone, Debug)]
pub struct Question {
    /// How.
    pub method: Method,
    /// Whom, if the method does not say so itself.
    pub target: Option<Target>,
    /// What tells two questions apart.
    pub name: String,
}

impl PartialEq for Question {
    fn eq(&self, other: &Self) -> bool {
        self.name == other.name
    }
}

/// How echo requests are made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Echo {
    /// Requests to each target in a round; at least 1.
    pub count: u8,
    /// Bytes behind the ICMP header; at least 16.
    pub size: u16,
    /// IPv4: may not be divided on the way.
    pub dont_fragment: bool,
}

impl Default for Echo {
    fn default() -> Self {
        Self { count: 1, size: 56, dont_fragment: false }
    }
}

impl Way {
    /// Of which kind it is.
    #[must_use]
    pub fn kind(&self) -> Kind {
        match self {
            Way::Ping { .. } => Kind::Ping,
            Way::Other { kind, .. } => *kind,
        }
    }

    /// How many it can ask; a gateway is one.
    #[must_use]
    pub fn targets(&self) -> usize {
        match self {
            Way::Ping { targets, .. } => targets.len().max(1),
            Way::Other { questions, .. } => questions.len(),
        }
    }

    /// Bytes of one round.
    #[must_use]
    pub fn bytes(&self, per_round: Option<u32>) -> u64 {
        let asked = turn(self.targets(), per_round, 0).len() as u64;
        let each = match self {
            Way::Ping { echo, .. } => {
                // IP and ICMP headers and what the link adds, both ways.
                2 * u64::from(echo.count) * (u64::from(echo.size) + 44)
            }
            Way::Other { kind, .. } => kind.bytes(),
        };
        asked * each
    }
}

/// Which of `targets` the `nth` round asks: those behind the last ones, round and round.
#[must_use]
pub fn turn(targets: usize, per_round: Option<u32>, nth: u64) -> Vec<usize> {
    let many = per_round.map_or(targets, |some| targets.min(some as usize));
    if targets == 0 {
        return Vec::new();
    }
    let first = (nth % targets as u64) as usize * many;
    (first..first + many).map(|index| index % targets).collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn targets_are_asked_in_turn() {
        assert_eq!(turn(3, None, 7), [0, 1, 2]);
        let rounds: Vec<Vec<usize>> = (0..4).map(|nth| turn(3, Some(2), nth)).collect();
        assert_eq!(rounds, [vec![0, 1], vec![2, 0], vec![1, 2], vec![0, 1]]);
        assert_eq!(turn(0, None, 1), [0; 0]);
    }

    proptest! {
        #[test]
        fn every_target_is_asked_equally_often(targets in 1_usize..9, many in 1_u32..9) {
            let mut asked = vec![0; targets];
            for nth in 0..targets as u64 {
                let turn = turn(targets, Some(many), nth);
                let mut once = turn.clone();
                once.sort_unstable();
                once.dedup();
                prop_assert_eq!(once.len(), turn.len());
                turn.into_iter().for_each(|index| asked[index] += 1);
            }
            prop_assert!(asked.iter().all(|times| *times == asked[0]));
        }
    }
}
