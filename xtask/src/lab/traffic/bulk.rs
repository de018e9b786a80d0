//! One connection that carries as much as it gets: TCP, or the kernel's MPTCP, by the
//! same code, so that both are measured alike.

use std::{
    io::{ErrorKind, Read as _, Write as _},
    net::{IpAddr, SocketAddr, TcpListener, TcpStream},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, anyhow};
use socket2::{Domain, Protocol, SockAddr, Socket, Type};

use crate::lab::Namespace;

/// How long a connection, or a piece of it, may take.
const PATIENCE: Duration = Duration::from_secs(5);
/// Bytes of a read or a write.
const PIECE: usize = 128 << 10;

/// What is spoken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Transport {
    /// TCP.
    Tcp,
    /// The kernel's MPTCP, with the paths that its namespaces are set to.
    Mptcp,
}

/// What arrived by a connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Bulk {
    /// Bytes that arrived.
    pub bytes: u64,
    /// From the connection on.
    pub took: Duration,
    /// Those of them that arrived in the second half of the time.
    pub late_bytes: u64,
    /// How long that was.
    pub late: Duration,
}

impl Bulk {
    /// Bits per second.
    #[must_use]
    pub fn rate(&self) -> f64 {
        self.bytes as f64 * 8.0 / self.took.as_secs_f64()
    }

    /// The same of the second half, when the connection has grown.
    #[must_use]
    pub fn late_rate(&self) -> f64 {
        self.late_bytes as f64 * 8.0 / self.late.as_secs_f64().max(1e-3)
    }
}

/// Has `server`, at this address of its own, send to `client` for so long.
/// `congestion` names its congestion control; none: the kernel's choice. `meanwhile` is done
/// when half of the time is over.
///
/// # Errors
/// When there is no connection, it breaks, or `meanwhile` fails.
pub fn download(
    client: &Namespace,
    server: &Namespace,
    address: IpAddr,
    transport: Transport,
    congestion: Option<&str>,
    length: Duration,
    meanwhile: impl FnOnce() -> Result<()> + Send,
) -> Result<Bulk> {
    let way = Way { client, server, address, transport, congestion, length, up: false };
    way.carry(meanwhile)
}

/// Has `client` send to `server` for so long, else as [`download`].
///
/// # Errors
/// As [`download`].
pub fn upload(
    client: &Namespace,
    server: &Namespace,
    address: IpAddr,
    transport: Transport,
    congestion: Option<&str>,
    length: Duration,
    meanwhile: impl FnOnce() -> Result<()> + Send,
) -> Result<Bulk> {
    let way = Way { client, server, address, transport, congestion, length, up: true };
    way.carry(meanwhile)
}

/// One connection, and which way it carries.
#[derive(Clone, Copy)]
struct Way<'a> {
    client: &'a Namespace,
    server: &'a Namespace,
    address: IpAddr,
    transport: Transport,
    congestion: Option<&'a str>,
    length: Duration,
    up: bool,
}

impl Way<'_> {
    fn carry(self, meanwhile: impl FnOnce() -> Result<()> + Send) -> Result<Bulk> {
        let listener = self.listen()?;
        let to = listener.local_addr()?;
        thread::scope(|scope| {
            let far = scope.spawn(|| {
                let (stream, _) = listener.accept().context("nobody connects")?;
                self.one_end(stream, !self.up)
            });
            let near = scope.spawn(|| self.one_end(self.connect(to)?, self.up));
            let half = Instant::now() + self.length / 2;
            let act = scope.spawn(move || {
                thread::sleep(half.saturating_duration_since(Instant::now()));
                meanwhile()
            });
            let near = near.join().map_err(|_| anyhow!("the client panicked"))??;
            act.join().map_err(|_| anyhow!("what is done meanwhile panicked"))??;
            let far = far.join().map_err(|_| anyhow!("the server panicked"))??;
            near.or(far).context("nobody has received")
        })
    }

    fn listen(self) -> Result<TcpListener> {
        self.server.enter(|| {
            let socket = self.socket(!self.up)?;
            socket.set_reuse_address(true)?;
            socket.bind(&SockAddr::from(SocketAddr::new(self.address, 0)))?;
            socket.listen(1)?;
            // Else it would wait for ever for one who cannot connect.
            socket.set_read_timeout(Some(2 * PATIENCE))?;
            Ok(TcpListener::from(socket))
        })
    }

    fn connect(self, to: SocketAddr) -> Result<TcpStream> {
        self.client.enter(|| {
            let socket = self.socket(self.up)?;
            socket.connect_timeout(&SockAddr::from(to), PATIENCE).context("no connection")?;
            Ok(TcpStream::from(socket))
        })
    }

    fn socket(self, sends: bool) -> Result<Socket> {
        let socket = socket(self.address, self.transport)?;
        if let Some(name) = self.congestion.filter(|_| sends) {
            let set = socket.set_tcp_congestion(name.as_bytes());
            set.with_context(|| format!("the kernel has no congestion control {name}"))?;
        }
        Ok(socket)
    }

    /// Gives what arrived, if this end receives.
    fn one_end(self, stream: TcpStream, sends: bool) -> Result<Option<Bulk>> {
        if sends {
            return send(stream).map(|()| None);
        }
        receive(stream, self.length).map(Some)
    }
}

fn socket(address: IpAddr, transport: Transport) -> Result<Socket> {
    let domain = if address.is_ipv4() { Domain::IPV4 } else { Domain::IPV6 };
    let protocol = match transport {
        Transport::Tcp => Protocol::TCP,
        Transport::Mptcp => Protocol::MPTCP,
    };
    Socket::new(domain, Type::STREAM, Some(protocol))
        .with_context(|| format!("no socket of {transport:?}"))
}

/// Until the other end has enough.
fn send(mut stream: TcpStream) -> Result<()> {
    stream.set_write_timeout(Some(PATIENCE))?;
    let piece = vec![0x5a; PIECE];
    while stream.write(&piece).is_ok_and(|written| written > 0) {}
    Ok(())
}

fn receive(mut stream: TcpStream, length: Duration) -> Result<Bulk> {
    stream.set_read_timeout(Some(PATIENCE))?;
    let (start, mut bytes, mut piece) = (Instant::now(), 0, vec![0; PIECE]);
    let mut half = None;
    while start.elapsed() < length {
        match stream.read(&mut piece) {
            Ok(0) => break,
            Ok(count) => bytes += count as u64,
            // A link that loses half of what it gets may be silent for so long.
            Err(error) if error.kind() == ErrorKind::WouldBlock => break,
            Err(error) => return Err(error).context("the connection breaks"),
        }
        if half.is_none() && start.elapsed() >= length / 2 {
            half = Some((bytes, start.elapsed()));
        }
    }
    let took = start.elapsed();
    let (before, then) = half.unwrap_or((bytes, took));
    Ok(Bulk { bytes, took, late_bytes: bytes - before, late: took - then })
}
