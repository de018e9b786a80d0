//! What the file says about a bond: the gateway's end, and the server's.

use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use ipnet::IpNet;
use mwb_common::integrity::Suite;
use mwb_common::maps::SESSION_SLOTS;

use super::Config;
use crate::bond::PublicKey;

/// What the name of the data plane's end of a bond's device ends with.
pub const DATA_PLANE_END: &str = "-dp";

/// Slots of a server with few clients: some megabytes.
const SERVER_SLOTS: usize = 16;

/// The gateway's end of a bond.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Bond {
    /// Where the server is reached, 1 to 8: all of them are the one server.
    pub servers: Vec<Endpoint>,
    /// File with our private key.
    pub private_key_file: PathBuf,
    /// The server's key.
    pub server_public_key: PublicKey,
    /// How packets are checked, and whether they are encrypted.
    pub suite: Suite,
    /// UDP port of our end.
    pub port: u16,
    /// Name of the device, 1 to 12 bytes; its other end has
    /// [`DATA_PLANE_END`] behind it.
    pub device: String,
    /// The gateway's own addresses inside the bond, at least one; host bits are set.
    pub addresses: Vec<IpNet>,
    /// Time between two probes of a path; at most half of
    /// [`Failover::dead_after`](super::Failover::dead_after).
    pub probe_interval: Duration,
    /// Rate in bit/s from where on a flow is an elephant.
    pub elephant: u64,
}

/// Where a server is reached.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Endpoint {
    /// At an address.
    Address(SocketAddr),
    /// At the addresses of a name.
    Name {
        /// The name.
        host: String,
        /// UDP port.
        port: u16,
    },
}

/// The server's end of its clients' bonds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Server {
    /// File with our private key.
    pub private_key_file: PathBuf,
    /// UDP port.
    pub port: u16,
    /// Name of the device, as [`Bond::device`].
    pub device: String,
    /// The server's own addresses inside the bonds, at least one; host bits are set.
    pub addresses: Vec<IpNet>,
    /// Suites that are accepted, the best first, at least one.
    pub suites: Vec<Suite>,
    /// Who may have a session, 1 to 1000: names, keys and prefixes are each one's own.
    pub clients: Vec<Client>,
    /// Time between two probes of a path: a third of
    /// [`Failover::dead_after`](super::Failover::dead_after).
    pub probe_interval: Duration,
}

/// Who may have a session with a server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Client {
    /// What people call it: `[a-z0-9_-]{1,31}`, unique.
    pub name: String,
    /// Its key, unique.
    pub public_key: PublicKey,
    /// Addresses that it has inside, host bits zero; nobody else has one of them.
    pub prefixes: Vec<IpNet>,
    /// Suites that it may have, the best first; those of the server unless it has
    /// its own.
    pub suites: Vec<Suite>,
}

/// What both ends of a bond have in common.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tunnel<'c> {
    /// Name of the kernel's end of the device.
    pub device: &'c str,
    /// Our own addresses inside.
    pub addresses: &'c [IpNet],
    /// UDP port of our end.
    pub port: u16,
    /// File with our private key.
    pub private_key_file: &'c PathBuf,
    /// Time between two probes of a path.
    pub probe_interval: Duration,
}

/// How a metered path is probed while it carries nothing, at both ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Idle {
    /// Every so many of the rounds in which others are probed.
    pub every: u32,
    /// Time between two probes: as near to a second as rounds allow.
    pub interval: Duration,
    /// It counts as alive for so long after an answered probe: two may have none, and the
    /// third has half of the interval to come. No less than other paths have.
    pub dead_after: Duration,
}

impl Idle {
    /// Where other paths are probed and die as said.
    #[must_use]
    pub fn of(probe_interval: Duration, dead_after: Duration) -> Self {
        let (interval, second) = (probe_interval.as_micros().max(1), 1_000_000);
        let every = u32::try_from((second + interval / 2) / interval).unwrap_or(u32::MAX).max(1);
        let interval = probe_interval * every;
        Self { every, interval, dead_after: dead_after.max(interval * 7 / 2) }
    }
}

impl Tunnel<'_> {
    /// Name of the data plane's end of the device.
    #[must_use]
    pub fn data_plane_end(&self) -> String {
        format!("{}{DATA_PLANE_END}", self.device)
    }
}

impl Config {
    /// What both ends of a bond have in common; `None` without a bond.
    #[must_use]
    pub fn tunnel(&self) -> Option<Tunnel<'_>> {
        let of_gateway = self.bond.as_ref().map(|bond| Tunnel {
            device: &bond.device,
            addresses: &bond.addresses,
            port: bond.port,
            private_key_file: &bond.private_key_file,
            probe_interval: bond.probe_interval,
        });
        let of_server = self.server.as_ref().map(|server| Tunnel {
            device: &server.device,
            addresses: &server.addresses,
            port: server.port,
            private_key_file: &server.private_key_file,
            probe_interval: server.probe_interval,
        });
        of_gateway.or(of_server)
    }

    /// How metered paths are probed while they carry nothing; `None` without a bond.
    #[must_use]
    pub fn idle(&self) -> Option<Idle> {
        let tunnel = self.tunnel()?;
        Some(Idle::of(tunnel.probe_interval, self.failover.dead_after))
    }

    /// Whether a key may be ours: not if it is one that the file has for another end.
    ///
    /// # Errors
    /// When it is; with the key of the file, and how to mend it.
    pub fn check_own_key(&self, own: &PublicKey) -> Result<(), String> {
        if self.bond.as_ref().is_some_and(|bond| bond.server_public_key == *own) {
            return Err("this is the private key of `bond.server_public_key`: the two ends need \
                        keys of their own\n\
                        fix: write what `mwb pubkey` prints on the server"
                .to_owned());
        }
        let clients = self.server.iter().flat_map(|server| &server.clients);
        match clients.into_iter().find(|client| client.public_key == *own) {
            Some(client) => Err(format!(
                "this is the private key of client `{}`: the two ends need keys of their own\n\
                 fix: write what `mwb pubkey` prints on that client",
                client.name
            )),
            None => Ok(()),
        }
    }

    /// How many slots for sessions the data plane needs, a power of two: while a
    /// session takes an old one's place, a client has two. A server has room for some
    /// more clients than there are.
    #[must_use]
    pub fn session_slots(&self) -> u32 {
        let Some(server) = &self.server else {
            return u32::try_from(SESSION_SLOTS).unwrap_or(u32::MAX);
        };
        let slots = (server.clients.len() * 2).next_power_of_two().max(SERVER_SLOTS);
        u32::try_from(slots).unwrap_or(u32::MAX)
    }
}

/// The word in the file.
#[must_use]
pub const fn suite_name(suite: Suite) -> &'static str {
    match suite {
        Suite::ChaCha20Poly1305 => "chacha20poly1305",
        Suite::SipHash => "siphash",
        Suite::Crc32 => "crc32",
    }
}

/// As it is written in the file.
impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Endpoint::Address(address) => address.fmt(f),
            Endpoint::Name { host, port } => write!(f, "{host}:{port}"),
        }
    }
}
