//! The configuration file: what the operator wrote, checked and typed.
//!
//! [`parse`] is strict: an unknown key, a missing unit or a value out of range
//! is refused with file, line, column and the fix. What it returns is plain
//! values; nothing in the rest of the agent sees YAML. Keys, ranges and
//! defaults are described in `docs/config.md`.
//!
//! Must not know: aya, netlink, whether a device exists.

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use ipnet::{IpNet, Ipv6Net};

mod bond;
mod class_paths;
mod classes;
mod domain;
mod ends;
mod error;
mod fec;
mod forwards;
mod health;
mod health_read;
mod history;
mod hours;
mod names;
mod node;
mod notify;
mod policy;
mod policy_read;
mod prefix;
mod read;
mod reader;
mod role;
mod schema;
mod schema_health;
mod schema_policy;
mod terms;
#[cfg(test)]
pub(crate) mod tests;
pub mod units;
mod wans;

pub use bond::{Bond, Client, DATA_PLANE_END, Endpoint, Idle, Server, Tunnel, suite_name};
pub use class_paths::{Among, Paths};
pub use classes::{ClassSpec, Classes, class_name};
pub use domain::Domain;
pub use error::{ConfigError, Position};
pub use fec::Fec;
pub use health::{Degraded, Dns, DnsRecord, Exec, Health, HealthMethod, Http, Ping, Tcp};
pub use history::History;
pub use hours::{Hours, Moment};
pub use notify::{Notify, Receiver, ToldBy};
pub use policy::{Fallback, Outlet, Policy, PolicyAction, PolicyMatch, PolicyRule, show_mac};
pub use terms::{parse_dscp, parse_mac};

/// A whole, valid configuration.
#[derive(Clone, Debug, PartialEq)]
pub struct Config {
    /// What the machine is.
    pub role: Role,
    /// What is done with packets of the LAN; a server steers those of its clients.
    pub mode: Mode,
    /// LAN ports, at least one; a server's is the device of its bonds.
    pub lan: Vec<Lan>,
    /// How new flows are shared among WANs.
    pub balance: Balance,
    /// The IPv6 prefix of the LAN, host bits zero; `None`: no IPv6.
    pub ipv6_prefix: Option<Ipv6Net>,
    /// Destinations that are left to the kernel.
    pub bypass: Vec<IpNet>,
    /// WAN links, 1 to 32. A WAN is known by its device; its path id is the
    /// data plane's matter.
    pub wans: Vec<Wan>,
    /// Which new flows leave by which WANs, or not at all.
    pub policy: Policy,
    /// When traffic goes back to a better WAN.
    pub failover: Failover,
    /// How WANs are watched that do not say it themselves.
    pub health: Health,
    /// Address translation.
    pub nat: Nat,
    /// The bond of a gateway; there in [`Mode::Bond`] and only then.
    pub bond: Option<Bond>,
    /// The bonds of a server; there in [`Role::Server`] and only then.
    pub server: Option<Server>,
    /// What a bond treats unlike other packets.
    pub classes: Classes,
    /// How long a packet that is ahead of its turn waits for those before it, at most.
    pub hold: Duration,
    /// How what is lost can be computed, of packets that a rule of `classes` has it for.
    pub fec: Fec,
    /// What is kept of the WANs' past; `None`: nothing on disk.
    pub history: Option<History>,
    /// Who is told of what happens.
    pub notify: Notify,
    /// Where the agent answers.
    pub api: Api,
}

/// What the machine is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// The end with the LAN and several WANs.
    Gateway,
    /// The end on the Internet that bonds lead to.
    Server,
}

/// What is done with packets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// Each flow leaves by one WAN, translated to its address.
    Steer,
    /// Everything goes to a server, by all WANs.
    Bond,
}

/// How new flows are shared among WANs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Balance {
    /// One after the other, equally.
    RoundRobin,
    /// In proportion to [`Wan::weight`].
    Weighted,
    /// In proportion to unused capacity.
    LeastUsed,
    /// The WAN with the lowest round-trip time.
    LeastLatency,
    /// By the hash of the flow, in proportion to [`Wan::weight`].
    PerFlow,
    /// In proportion to a score of latency, jitter, loss and spare capacity.
    Adaptive,
    /// One WAN at a time.
    Failover,
}

/// Which hook a device is asked to use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HookChoice {
    /// By the device's driver.
    Auto,
    /// XDP.
    Xdp,
    /// TCX, or clsact on a kernel without it.
    Tcx,
}

/// Whether packets may enter the other end of a veth straight away
/// (`bpf_redirect_peer`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum PeerRedirect {
    /// Where nothing on the way would miss them.
    #[default]
    Auto,
    /// Never.
    Off,
}

impl PeerRedirect {
    /// As in the file.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            PeerRedirect::Auto => "auto",
            PeerRedirect::Off => "off",
        }
    }
}

/// A LAN port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lan {
    /// Interface name.
    pub device: String,
    /// Its hook; the file's `hook` unless it has its own.
    pub hook: HookChoice,
    /// The file's `redirect_peer` unless it has its own.
    pub redirect_peer: PeerRedirect,
}

/// A WAN link.
#[derive(Clone, Debug, PartialEq)]
pub struct Wan {
    /// What people call it: `[a-z0-9_-]{1,15}`, unique.
    pub name: String,
    /// Interface name, unique.
    pub device: String,
    /// IPv4 next hop.
    pub gateway4: Gateway<Ipv4Addr>,
    /// IPv6 next hop; read only if `ipv6_prefix` is set, or in a bond.
    pub gateway6: Gateway<Ipv6Addr>,
    /// 0 is the best.
    pub priority: u8,
    /// 1 to 1000: share among WANs of one priority.
    pub weight: u16,
    /// What the link can carry, as far as the operator says.
    pub capacity: Capacity,
    /// Each byte costs: while its path of a bond carries nothing it is probed as [`Idle`]
    /// says. Only in a bond.
    pub metered: bool,
    /// Its hook; the file's `hook` unless it has its own.
    pub hook: HookChoice,
    /// The file's `redirect_peer` unless it has its own.
    pub redirect_peer: PeerRedirect,
    /// The prefix the WAN's provider routes to us, host bits zero, as long as
    /// [`Config::ipv6_prefix`]; `None`: the WAN carries no IPv6 of the LAN. A
    /// server's WANs have the clients' own.
    pub ipv6_prefix: Option<Ipv6Net>,
    /// What becomes of flows on this WAN when a better one is back; the file's
    /// `failover.failback` unless it has its own.
    pub failback: Failback,
    /// Ports of the WAN's IPv4 address that lead to inside hosts.
    pub forwards: Vec<Forward>,
    /// How it is watched; as the file's `health` where it has nothing of its own.
    pub health: Health,
}

/// Ports of a WAN's IPv4 address that lead to an inside host, one to one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Forward {
    /// Of which protocol.
    pub protocol: ForwardProtocol,
    /// The first port.
    pub port_min: u16,
    /// The last port, inclusive.
    pub port_max: u16,
    /// The inside host.
    pub to: Ipv4Addr,
    /// Its port for `port_min`; the others follow.
    pub to_port: u16,
}

/// What can be forwarded.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ForwardProtocol {
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
}

/// A next hop.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Gateway<A> {
    /// From the default route of the device.
    Auto,
    /// This address.
    Address(A),
}

/// What a link can carry, in bit/s.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Capacity {
    /// To the Internet.
    pub up: Option<u64>,
    /// From the Internet.
    pub down: Option<u64>,
}

/// When traffic goes back to a better WAN.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Failover {
    /// How long a WAN must have been well before new flows go back to it.
    pub failback_after: Duration,
    /// How far that may grow for a WAN that fails again and again; not less
    /// than `failback_after`.
    pub hold_down_max: Duration,
    /// How long a path of a bond may leave probes without an answer and count as
    /// alive. Means nothing without a bond.
    pub dead_after: Duration,
}

/// What becomes of flows on a WAN of lower priority when a better one is back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Failback {
    /// They stay until they end.
    Stay,
    /// They are made anew on the better one with their next packet.
    Cut,
    /// They may stay for this time; then they are cut.
    Drain(Duration),
}

/// Address translation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Nat {
    /// Lowest port given to flows.
    pub port_min: u16,
    /// Highest port given to flows, inclusive.
    pub port_max: u16,
    /// How many flows can be open at once, per address family.
    pub flows: u32,
    /// When idle flows are forgotten.
    pub timeouts: Timeouts,
    /// Who may send to a mapping from outside.
    pub filtering: Filtering,
    /// IPv4 mappings that one inside address may have; 0 = no limit.
    pub mappings_per_source: u32,
}

/// Who may send to a mapping from a WAN (RFC 4787, 5).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Filtering {
    /// Endpoints that the inside endpoint has sent to.
    AddressAndPortDependent,
    /// Any port of addresses that it has sent to.
    AddressDependent,
    /// Anybody.
    EndpointIndependent,
}

/// When idle flows are forgotten.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timeouts {
    /// UDP, and mappings without a flow (RFC 4787, 4.3).
    pub udp: Duration,
    /// ICMP echo (RFC 5508, 3.2).
    pub icmp: Duration,
    /// TCP once both sides have spoken (RFC 5382, 5).
    pub tcp_established: Duration,
    /// TCP while opening or closing (RFC 5382, 5).
    pub tcp_transitory: Duration,
}

/// Where the agent answers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Api {
    /// TCP address on loopback; `None`: no TCP.
    pub listen: Option<SocketAddr>,
    /// Path of the unix socket.
    pub socket: PathBuf,
    /// Group that may use the socket beside root; `None`: root alone.
    pub group: Option<String>,
    /// File with the token for changes over TCP; `None`: TCP only reads.
    pub token_file: Option<PathBuf>,
}

/// Reads and checks a configuration file.
pub fn load(path: &Path) -> Result<Config, ConfigError> {
    let name = path.display().to_string();
    let text =
        std::fs::read_to_string(path).map_err(|error| ConfigError::unreadable(&name, &error))?;
    parse(&text, &name)
}

/// Checks a configuration; `file` is what errors call it.
pub fn parse(text: &str, file: &str) -> Result<Config, ConfigError> {
    let tree = node::read(text).map_err(|error| ConfigError::syntax(file, text, error))?;
    read::read_config(&reader::Cursor::root(&tree))
        .map_err(|fault| ConfigError::semantic(file, text, fault))
}
