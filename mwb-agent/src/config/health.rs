//! How WANs are watched: what the file says for all of them, and for one.

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

/// How WANs are watched.
#[derive(Clone, Debug, PartialEq)]
pub struct Health {
    /// How.
    pub method: HealthMethod,
    /// Time between two rounds of checks.
    pub interval: Duration,
    /// Misses in a row that make a WAN down.
    pub retries: u32,
    /// How long a check by another method than [`HealthMethod::Ping`] may take.
    pub timeout: Duration,
    /// Whom `ping` and `tcp` ask; empty: the WAN's own gateways.
    pub targets: Vec<IpAddr>,
    /// Who is asked for names in URLs; empty: those of `/etc/resolv.conf`.
    pub nameservers: Vec<SocketAddr>,
    /// How many of those asked in a round must answer; at least 1.
    pub quorum: u32,
    /// How many are asked in a round, in turn; `None`: all.
    pub per_round: Option<u32>,
    /// What is found is told and not acted upon.
    pub observe: bool,
    /// Bytes a day that the checks of a metered WAN that carries nothing may take.
    pub metered_budget: u64,
    /// ICMP echo.
    pub ping: Ping,
    /// HTTP.
    pub http: Option<Http>,
    /// HTTP over TLS.
    pub https: Option<Http>,
    /// DNS.
    pub dns: Option<Dns>,
    /// TCP connections.
    pub tcp: Option<Tcp>,
    /// A plugin.
    pub exec: Option<Exec>,
    /// From where on a WAN counts as degraded.
    pub degraded: Degraded,
}

/// How a WAN is checked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum HealthMethod {
    /// By whichever of those that are set up tells the truth on the link.
    Auto,
    /// ICMP echo.
    Ping,
    /// An HTTP request.
    Http,
    /// An HTTP request over TLS.
    Https,
    /// A DNS query.
    Dns,
    /// A TCP connection.
    Tcp,
    /// A plugin as monitoring systems have them.
    Exec,
}

/// ICMP echo (RFC 792, RFC 4443).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ping {
    /// Requests to each target in a round, 1 to 10.
    pub count: u8,
    /// Bytes behind the ICMP header.
    pub size: u16,
    /// IPv4 requests may not be divided on the way; IPv6 ones never are.
    pub dont_fragment: bool,
}

impl Default for Ping {
    fn default() -> Self {
        Self { count: 1, size: 56, dont_fragment: false }
    }
}

/// An HTTP request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Http {
    /// Whom to ask for what; 1 to 8.
    pub urls: Vec<String>,
    /// The request's method.
    pub verb: &'static str,
    /// Header fields that it has besides.
    pub headers: Vec<(String, String)>,
    /// Which status is right: ranges, both ends included.
    pub status: Vec<(u16, u16)>,
    /// What the body must contain.
    pub body: Option<String>,
    /// Whether redirects are followed.
    pub follow_redirects: bool,
    /// Whether the server's certificate must be right. Means nothing without TLS.
    pub verify_tls: bool,
    /// The name that the server is to have, in place of the URL's (SNI, RFC 6066, 3).
    pub server_name: Option<String>,
    /// Whose certificates count, in place of the system's.
    pub ca_file: Option<PathBuf>,
}

/// A DNS query.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Dns {
    /// The name asked for.
    pub name: String,
    /// What of it.
    pub record: DnsRecord,
    /// Whom to ask; 1 to 8.
    pub servers: Vec<SocketAddr>,
    /// One of these must be in the answer; empty: any answer will do.
    pub expect: Vec<String>,
}

/// Types of resource records (RFC 1035, 3.2.2; RFC 3596, 2.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DnsRecord {
    /// IPv4 address.
    A,
    /// IPv6 address.
    Aaaa,
    /// Canonical name.
    Cname,
    /// Mail exchange.
    Mx,
    /// Text.
    Txt,
    /// Name server.
    Ns,
}

/// A TCP connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tcp {
    /// Port of each target.
    pub port: u16,
    /// What is said first.
    pub send: Option<String>,
    /// What the answer must contain.
    pub expect: Option<String>,
}

/// A plugin: exit code 0 well, 1 degraded, any other one down.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Exec {
    /// The program's full path, and its arguments.
    pub command: Vec<String>,
}

/// From where on a WAN counts as degraded.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Degraded {
    /// Smoothed round-trip time.
    pub latency: Duration,
    /// Smoothed variation of the round-trip time.
    pub jitter: Duration,
    /// Part of the probes lost, 0 to 1.
    pub loss: f64,
}

impl Default for Health {
    fn default() -> Self {
        Self {
            method: HealthMethod::Ping,
            interval: Duration::from_millis(200),
            retries: 3,
            timeout: Duration::from_secs(2),
            targets: Vec::new(),
            nameservers: Vec::new(),
            quorum: 1,
            per_round: None,
            observe: false,
            metered_budget: 5_000_000,
            ping: Ping::default(),
            http: None,
            https: None,
            dns: None,
            tcp: None,
            exec: None,
            degraded: Degraded {
                latency: Duration::from_millis(200),
                jitter: Duration::from_millis(100),
                loss: 0.05,
            },
        }
    }
}

impl HealthMethod {
    /// All of them.
    pub const ALL: [Self; 7] =
        [Self::Auto, Self::Ping, Self::Http, Self::Https, Self::Dns, Self::Tcp, Self::Exec];

    /// The word in the file.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Auto => "auto",
            Self::Ping => "ping",
            Self::Http => "http",
            Self::Https => "https",
            Self::Dns => "dns",
            Self::Tcp => "tcp",
            Self::Exec => "exec",
        }
    }
}

impl DnsRecord {
    pub(super) const ALL: [Self; 6] =
        [Self::A, Self::Aaaa, Self::Cname, Self::Mx, Self::Txt, Self::Ns];

    /// The word in the file.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::A => "A",
            Self::Aaaa => "AAAA",
            Self::Cname => "CNAME",
            Self::Mx => "MX",
            Self::Txt => "TXT",
            Self::Ns => "NS",
        }
    }
}
