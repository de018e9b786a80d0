//! The shapes of `/v1/flows`: which flows are asked for, and what is told.

use std::net::IpAddr;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

/// Flows in one answer unless it says otherwise.
pub const DEFAULT_TOP: usize = 1_000;
/// Most flows in one answer.
pub const LARGEST_TOP: usize = 100_000;

/// Which flows, in which order. Filters that are left out let all through.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct FlowQuery {
    /// Name of the WAN that carries them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub wan: Option<String>,
    /// Protocol: `tcp`, `udp`, `icmp`, `icmpv6`, `sctp`, `gre`, `esp`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub proto: Option<Protocol>,
    /// Inside address, or a prefix it lies in.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[param(value_type = Option<String>)]
    pub source: Option<Net>,
    /// Remote address, or a prefix it lies in.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[param(value_type = Option<String>)]
    pub destination: Option<Net>,
    /// A port or ICMP identifier: the inside host's, the outside one or the remote one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub port: Option<u16>,
    /// TCP state.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub state: Option<TcpState>,
    /// What to sort by, the largest first; `idle` the longest idle first.
    #[serde(default)]
    pub sort: Sort,
    /// How many at most, 1 to 100,000.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub top: Option<usize>,
}

/// An address or a prefix.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Net(pub IpNet);

impl TryFrom<String> for Net {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

impl std::str::FromStr for Net {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let address = text.parse::<IpAddr>().map(IpNet::from);
        address
            .or_else(|_| text.parse())
            .map(|net: IpNet| Self(net.trunc()))
            .map_err(|_| format!("`{text}` is neither an address nor a prefix"))
    }
}

impl From<Net> for String {
    fn from(net: Net) -> Self {
        net.0.to_string()
    }
}

macro_rules! words {
    ($(#[$doc:meta])* $name:ident { $($(#[$inner:meta])* $variant:ident = $word:literal),+ $(,)? }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
        #[serde(rename_all = "snake_case")]
        pub enum $name { $($(#[$inner])* $variant),+ }

        impl $name {
            /// All of them.
            pub const ALL: &'static [$name] = &[$($name::$variant),+];

            /// The word in JSON and on the command line.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self { $($name::$variant => $word),+ }
            }
        }

        impl std::str::FromStr for $name {
            type Err = String;

            fn from_str(text: &str) -> Result<Self, String> {
                Self::ALL.iter().copied().find(|word| word.name() == text).ok_or_else(|| {
                    let known: Vec<&str> = Self::ALL.iter().map(|word| word.name()).collect();
                    format!("`{text}` is not one of {}", known.join(", "))
                })
            }
        }
    };
}
pub(super) use words;

words! {
    /// Protocols that are translated.
    Protocol {
        /// TCP.
        Tcp = "tcp",
        /// UDP.
        Udp = "udp",
        /// ICMP echo; its identifier stands in the place of the ports.
        Icmp = "icmp",
        /// ICMPv6 echo; the same.
        Icmpv6 = "icmpv6",
        /// SCTP.
        Sctp = "sctp",
        /// GRE, which has no ports.
        Gre = "gre",
        /// ESP, which has no ports.
        Esp = "esp",
    }
}

words! {
    /// What the TCP flags seen so far say.
    TcpState {
        /// No answer yet, or opened before it was watched.
        Opening = "opening",
        /// Opened and answered.
        Established = "established",
        /// One side, or both, has sent FIN.
        Closing = "closing",
        /// One side has sent RST.
        Reset = "reset",
    }
}

words! {
    /// What flows are sorted by.
    #[derive(Default)]
    Sort {
        /// Bytes of both directions.
        #[default]
        Bytes = "bytes",
        /// Packets of both directions.
        Packets = "packets",
        /// Time since it was opened.
        Age = "age",
        /// Time since the last packet.
        Idle = "idle",
        /// Bytes per second since it was opened.
        Rate = "rate",
    }
}

/// The answer of `/v1/flows`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct FlowList {
    /// Open flows of both address families.
    pub open: u64,
    /// How many of them pass the filters.
    pub matching: u64,
    /// The first of those in the order asked for.
    pub flows: Vec<FlowRow>,
    /// The rate in bit/s from where on a flow of a bond is an elephant.
    #[serde(default)]
    pub elephant_bps: Option<u64>,
}

/// An open flow.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct FlowRow {
    /// What it carries.
    pub proto: Protocol,
    /// The LAN host.
    pub inside: Endpoint,
    /// What the WAN side sees in its place.
    pub outside: Endpoint,
    /// The other end.
    pub remote: Endpoint,
    /// Name of the WAN that carries it.
    pub wan: String,
    /// Seconds since it was opened.
    pub age_seconds: f64,
    /// Seconds since its last packet.
    pub idle_seconds: f64,
    /// From the LAN.
    pub sent: super::snapshot::Traffic,
    /// From the WAN.
    pub received: super::snapshot::Traffic,
    /// What its TCP flags say; null for other protocols.
    pub state: Option<TcpState>,
    /// How its WAN was chosen.
    pub choice: FlowChoice,
    /// What a bond makes of it; null for others. Of such a flow nothing is known of what
    /// comes back, and its WAN is that of its last packet.
    #[serde(default)]
    pub bond: Option<FlowBond>,
}

/// What a bond makes of a flow.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct FlowBond {
    /// Number of its bucket: flows of one bucket are counted as the one that opened it.
    pub bucket: u16,
    /// Whether it carries so much that it may be striped.
    pub elephant: bool,
    /// Whether its packets go by several paths at present.
    pub striped: bool,
    /// Class of its last packet: auto, pin, stripe or duplicate.
    #[serde(default)]
    pub class: String,
}

/// One end of a flow.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
pub struct Endpoint {
    /// Its address.
    #[schema(value_type = String)]
    pub address: IpAddr,
    /// Its port; of ICMP echo the identifier; null if the protocol has none.
    pub port: Option<u16>,
}

impl std::fmt::Display for Endpoint {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let text = match (self.address, self.port) {
            (address, None) => address.to_string(),
            (address, Some(port)) => std::net::SocketAddr::new(address, port).to_string(),
        };
        f.pad(&text)
    }
}

/// How the WAN of a flow was chosen.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct FlowChoice {
    /// In which way.
    pub how: How,
    /// The slot of the path choice that was looked at, 0 to 1,023, if one was.
    pub slot: Option<u16>,
    /// Whether the inside endpoint had an outside port on that WAN already; then
    /// the rest says how that one's WAN was chosen.
    pub mapped: bool,
}

words! {
    /// In which way a WAN was chosen.
    How {
        /// By the slot of the path choice.
        Slot = "slot",
        /// The slot's WAN was dead: the first living one of the ranking.
        Ranking = "ranking",
        /// No WAN was alive: the slot's as if it were.
        NoneAlive = "none_alive",
        /// The destination is on that WAN's own subnet.
        Via = "via",
        /// It was opened from that WAN.
        Inbound = "inbound",
        /// A bond decides for each packet.
        Bonded = "bonded",
    }
}

impl FlowRow {
    /// Packets of both directions.
    #[must_use]
    pub fn packets(&self) -> u64 {
        self.sent.packets + self.received.packets
    }

    /// Bytes of both directions.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.sent.bytes + self.received.bytes
    }

    /// Bytes per second since it was opened.
    #[must_use]
    pub fn rate(&self) -> f64 {
        self.bytes() as f64 / self.age_seconds.max(1e-3)
    }
}
