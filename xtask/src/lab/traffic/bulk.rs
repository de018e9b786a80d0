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

/// A finished download.
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
    let listener = server.enter(|| {
        let socket = socket(address, transport)?;
        socket.set_reuse_address(true)?;
        if let Some(name) = congestion {
            let set = socket.set_tcp_congestion(name.as_bytes());
            set.with_context(|| format!("the kernel has no congestion control {name}"))?;
        }
        socket.bind(&SockAddr::from(SocketAddr::new(address, 0)))?;
        socket.listen(1)?;
        // Else it would wait for ever for one who cannot connect.
        socket.set_read_timeout(Some(2 * PATIENCE))?;
        Ok(TcpListener::from(socket))
    })?;
    let to = listener.local_addr()?;
    thread::scope(|scope| {
        let sender = scope.spawn(move || send(&listener));
        let receiver = scope.spawn(move || receive(client, to, transport, length));
        let half = Instant::now() + length / 2;
        let act = scope.spawn(move || {
            thread::sleep(half.saturating_duration_since(Instant::now()));
            meanwhile()
        });
        let bulk = receiver.join().map_err(|_| anyhow!("the receiver panicked"))??;
        act.join().map_err(|_| anyhow!("what is done meanwhile panicked"))??;
        sender.join().map_err(|_| anyhow!("the sender panicked"))??;
        Ok(bulk)
    })
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
fn send(listener: &TcpListener) -> Result<()> {
    let (mut stream, _) = listener.accept().context("nobody connects")?;
    stream.set_write_timeout(Some(PATIENCE))?;
    let piece = vec![0x5a; PIECE];
    while stream.write(&piece).is_ok_and(|written| written > 0) {}
    Ok(())
}

fn receive(
    client: &Namespace,
    to: SocketAddr,
    transport: Transport,
    length: Duration,
) -> Result<Bulk> {
    let mut stream = client.enter(|| {
        let socket = socket(to.ip(), transport)?;
        socket.connect_timeout(&SockAddr::from(to), PATIENCE).context("no connection")?;
        Ok(TcpStream::from(socket))
    })?;
    stream.set_read_timeout(Some(PATIENCE))?;
    let (start, mut bytes, mut piece) = (Instant::now(), 0, vec![0; PIECE]);
    let mut half = None;
    while start.elapsed() < length {
        match stream.read(&mut piece) {
            Ok(0) => break,
            Ok(count) => bytes += count as u64,
            // A link that loses half of what it gets may be silent for so long.
            Err(error) if error.kind() == ErrorKind::WouldBlock => break,
            Err(error) => return Err(error).context("the download breaks"),
        }
        if half.is_none() && start.elapsed() >= length / 2 {
            half = Some((bytes, start.elapsed()));
        }
    }
    let took = start.elapsed();
    let (before, then) = half.unwrap_or((bytes, took));
    Ok(Bulk { bytes, took, late_bytes: bytes - before, late: took - then })
}
