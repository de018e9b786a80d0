//! Sockets that leave by one WAN: bound to its device and its addresses.
//!
//! Must not know: what is said over them.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use socket2::{Domain, Socket, Type};
use tokio::net::{TcpSocket, TcpStream, UdpSocket};
use tokio::time::Instant;

use super::Bad;
use super::budget::Budget;

/// No more addresses of one name are tried: each gets its part of the time.
const MOST_ADDRESSES: usize = 4;

/// How a check leaves: by this device, from these addresses.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Via {
    /// Name of the WAN, for commands.
    pub wan: Option<String>,
    /// The device. Without one the routing table decides.
    pub device: Option<String>,
    /// Our IPv4 address there; without one the WAN has no IPv4.
    pub source4: Option<Ipv4Addr>,
    /// Our IPv6 address there; without one the WAN has no IPv6. Without either
    /// the kernel chooses, and both families are tried.
    pub source6: Option<Ipv6Addr>,
}

impl Via {
    /// A TCP connection. Cancel-safe; waits as long as the kernel does.
    ///
    /// # Errors
    /// Those of [`Bad`] that are about connections.
    pub async fn tcp(&self, to: SocketAddr) -> Result<TcpStream, Bad> {
        let socket = match to {
            SocketAddr::V4(_) => TcpSocket::new_v4(),
            SocketAddr::V6(_) => TcpSocket::new_v6(),
        };
        let socket = socket.map_err(|error| no_socket(&error))?;
        if let Some(device) = &self.device {
            let bound = socket.bind_device(Some(device.as_bytes()));
            bound.map_err(|error| no_device(device, &error))?;
        }
        if let Some(source) = self.source(to)? {
            socket.bind(source).map_err(|error| no_source(source, &error))?;
        }
        socket.connect(to).await.map_err(|error| fault(to, &error))
    }

    /// A UDP socket that hears `to` only.
    ///
    /// # Errors
    /// [`Bad::NotSent`], or [`Bad::Unreachable`] without a route.
    pub fn udp(&self, to: SocketAddr) -> Result<UdpSocket, Bad> {
        let socket = Socket::new(Domain::for_address(to), Type::DGRAM, None);
        let socket = socket.map_err(|error| no_socket(&error))?;
        socket.set_nonblocking(true).map_err(|error| no_socket(&error))?;
        if let Some(device) = &self.device {
            let bound = socket.bind_device(Some(device.as_bytes()));
            bound.map_err(|error| no_device(device, &error))?;
        }
        if let Some(source) = self.source(to)? {
            socket.bind(&source.into()).map_err(|error| no_source(source, &error))?;
        }
        socket.connect(&to.into()).map_err(|error| fault(to, &error))?;
        UdpSocket::from_std(socket.into()).map_err(|error| no_socket(&error))
    }

    /// Whether IPv4 can leave.
    #[must_use]
    pub fn has_v4(&self) -> bool {
        self.source4.is_some() || self.source6.is_none()
    }

    /// Whether IPv6 can leave.
    #[must_use]
    pub fn has_v6(&self) -> bool {
        self.source6.is_some() || self.source4.is_none()
    }

    /// Whether packets to this address can leave, by its family.
    #[must_use]
    pub fn has_family_of(&self, address: IpAddr) -> bool {
        if address.is_ipv4() { self.has_v4() } else { self.has_v6() }
    }

    /// Whether `address` is of this machine itself while the WAN is not.
    #[must_use]
    pub fn misses(&self, address: IpAddr) -> bool {
        (address.is_loopback() || address.is_unspecified())
            && self.device.as_deref().is_some_and(|device| device != "lo")
    }

    /// What to bind to.
    fn source(&self, to: SocketAddr) -> Result<Option<SocketAddr>, Bad> {
        if !self.has_family_of(to.ip()) {
            let family = if to.is_ipv4() { "IPv4" } else { "IPv6" };
            return Err(Bad::NotSent(format!("the WAN has no {family} address to ask {to} from")));
        }
        Ok(match to {
            SocketAddr::V4(_) => self.source4.map(|source| (source, 0).into()),
            SocketAddr::V6(_) => self.source6.map(|source| (source, 0).into()),
        })
    }
}

/// A connection that has come about.
#[derive(Debug)]
pub(super) struct Connected {
    pub(super) stream: TcpStream,
    pub(super) to: SocketAddr,
    /// Time from the SYN to its answer, of the address that did answer.
    pub(super) time: Duration,
}

/// Connects to the first of the addresses that answers; each gets an equal part
/// of the time.
pub(super) async fn connect(
    via: &Via,
    addresses: &[IpAddr],
    port: u16,
    budget: &Budget,
) -> Result<Connected, Bad> {
    let count = addresses.len().min(MOST_ADDRESSES);
    let mut failure: Option<Bad> = None;
    for (tried, address) in addresses.iter().take(count).enumerate() {
        let to = SocketAddr::new(*address, port);
        let share = budget.share(count - tried);
        let start = Instant::now();
        let done = share.within(|| format!("connecting to {to}"), via.tcp(to)).await;
        match done.and_then(|connected| connected) {
            Ok(stream) => return Ok(Connected { stream, to, time: start.elapsed() }),
            Err(bad) => {
                failure = Some(match failure {
                    Some(earlier) => earlier.or(bad),
                    None => bad,
                });
            }
        }
    }
    Err(failure.unwrap_or_else(|| Bad::NotSent("there is no address to connect to".to_owned())))
}

/// What an error of a socket means that talks to `to`.
pub(super) fn fault(to: SocketAddr, error: &io::Error) -> Bad {
    use io::ErrorKind as Kind;
    let why = error.to_string();
    match error.kind() {
        Kind::ConnectionRefused => Bad::Refused(to),
        Kind::HostUnreachable | Kind::NetworkUnreachable | Kind::NetworkDown | Kind::TimedOut => {
            Bad::Unreachable { to, why }
        }
        Kind::ConnectionReset
        | Kind::ConnectionAborted
        | Kind::BrokenPipe
        | Kind::NotConnected
        | Kind::InvalidData
        | Kind::UnexpectedEof => Bad::Broken { to, why },
        _ => Bad::NotSent(format!("to {to}: {why}")),
    }
}

fn no_socket(error: &io::Error) -> Bad {
    Bad::NotSent(format!("no socket: {error}"))
}

fn no_device(device: &str, error: &io::Error) -> Bad {
    Bad::NotSent(format!("no socket on device {device}: {error}"))
}

fn no_source(source: SocketAddr, error: &io::Error) -> Bad {
    Bad::NotSent(format!("cannot send from {}: {error}", source.ip()))
}

#[cfg(test)]
#[path = "via_tests.rs"]
mod tests;
