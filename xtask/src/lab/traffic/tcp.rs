//! TCP: a server that says whom it sees and then echoes, and its clients.

use std::{
    collections::BTreeMap,
    io::{BufRead as _, BufReader, Read as _, Write as _},
    net::{IpAddr, SocketAddr, TcpListener, TcpStream},
    os::fd::AsFd as _,
    sync::{Arc, atomic::Ordering},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use sha2::{Digest as _, Sha256};

use super::{http::fill_content, server::Server};
use crate::lab::Namespace;

/// How often a server looks whether it should end.
const LOOK: u16 = 50;
/// How long a connection may hang before a helper gives up.
const PATIENCE: Duration = Duration::from_secs(20);

/// Greets every connection with the address and port it comes from, then echoes.
#[derive(Debug)]
pub struct EchoServer {
    address: SocketAddr,
    _server: Server,
}

impl EchoServer {
    /// Listens in `namespace`.
    ///
    /// # Errors
    /// When the address cannot be bound.
    pub fn start(namespace: &Namespace, address: SocketAddr) -> Result<Self> {
        let (address, server) = serve(namespace, address, echo)?;
        Ok(Self { address, _server: server })
    }

    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }
}

/// Accepts in `namespace` for as long as the server lives; a thread a connection.
pub(crate) fn serve(
    namespace: &Namespace,
    address: SocketAddr,
    work: impl Fn(TcpStream) -> Result<()> + Send + Sync + 'static,
) -> Result<(SocketAddr, Server)> {
    let listener = namespace.enter(|| {
        TcpListener::bind(address)
            .with_context(|| format!("cannot listen on {address} in {}", namespace.name()))
    })?;
    let address = listener.local_addr()?;
    let work = Arc::new(work);
    let server = Server::start(&format!("tcp {address}"), move |stop| {
        while !stop.load(Ordering::Relaxed) {
            let mut ready = [PollFd::new(listener.as_fd(), PollFlags::POLLIN)];
            if poll(&mut ready, PollTimeout::from(LOOK)).unwrap_or(0) == 0 {
                continue;
            }
            let Ok((connection, _)) = listener.accept() else { continue };
            // A connection that breaks is the client's finding, not ours.
            let work = Arc::clone(&work);
            let _ = thread::Builder::new().spawn(move || work(connection));
        }
    })?;
    Ok((address, server))
}

fn echo(mut connection: TcpStream) -> Result<()> {
    connection.set_nodelay(true)?;
    connection.set_read_timeout(Some(Duration::from_secs(120)))?;
    let peer = connection.peer_addr()?;
    connection.write_all(format!("{peer}\n").as_bytes())?;
    let mut buffer = vec![0; 64 << 10];
    loop {
        match connection.read(&mut buffer)? {
            0 => return Ok(()),
            length => connection.write_all(&buffer[..length])?,
        }
    }
}

/// A connection to an [`EchoServer`].
#[derive(Debug)]
pub struct EchoStream {
    stream: BufReader<TcpStream>,
    seen_as: SocketAddr,
}

impl EchoStream {
    /// Connects from `namespace`; `timeout` holds for the connection and for
    /// every later answer.
    ///
    /// # Errors
    /// When there is no connection or no greeting in time.
    pub fn connect(namespace: &Namespace, to: SocketAddr, timeout: Duration) -> Result<Self> {
        let stream = connect_tcp(namespace, to, timeout)?;
        Self::greet(stream, timeout)
    }

    fn greet(stream: TcpStream, timeout: Duration) -> Result<Self> {
        stream.set_read_timeout(Some(timeout))?;
        stream.set_write_timeout(Some(timeout))?;
        stream.set_nodelay(true)?;
        let mut stream = BufReader::new(stream);
        let mut line = String::new();
        stream.read_line(&mut line).context("no greeting from the server")?;
        let seen_as = line.trim().parse().with_context(|| format!("greeted with {line:?}"))?;
        Ok(Self { stream, seen_as })
    }

    /// What the server saw as our address: the WAN's, behind a gateway.
    #[must_use]
    pub fn seen_as(&self) -> SocketAddr {
        self.seen_as
    }

    /// Sends `message` and expects it back; gives the time that took.
    ///
    /// # Errors
    /// When nothing comes back in time, or something else does.
    pub fn exchange(&mut self, message: &[u8]) -> Result<Duration> {
        let start = Instant::now();
        self.stream.get_mut().write_all(message).context("cannot send")?;
        let mut answer = vec![0; message.len()];
        self.stream.read_exact(&mut answer).context("no echo")?;
        ensure!(answer == message, "the echo differs from what was sent");
        Ok(start.elapsed())
    }
}

/// A TCP connection made from inside a namespace.
///
/// # Errors
/// When it is refused or not there in time.
pub fn connect_tcp(namespace: &Namespace, to: SocketAddr, timeout: Duration) -> Result<TcpStream> {
    namespace.enter(|| {
        TcpStream::connect_timeout(&to, timeout)
            .with_context(|| format!("no connection from {} to {to}", namespace.name()))
    })
}

/// Opens `count` connections to an [`EchoServer`] one after another, each closed
/// before the next, and says how often the server saw which address.
///
/// # Errors
/// When a connection cannot be made.
pub fn tcp_connects(
    namespace: &Namespace,
    to: SocketAddr,
    count: usize,
) -> Result<BTreeMap<IpAddr, usize>> {
    namespace.enter(|| {
        let mut seen = BTreeMap::new();
        for number in 0..count {
            let stream = TcpStream::connect_timeout(&to, PATIENCE)
                .with_context(|| format!("connection {number} to {to}"))?;
            let stream = EchoStream::greet(stream, PATIENCE)?;
            *seen.entry(stream.seen_as().ip()).or_default() += 1;
        }
        Ok(seen)
    })
}

/// What a [`transfer`] found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Transfer {
    /// Bytes sent and echoed.
    pub bytes: u64,
    /// Time from the first byte sent to the last echoed.
    pub took: Duration,
}

/// Sends `bytes` of known content through an [`EchoServer`] and checks the hash
/// of what comes back: both directions at once.
///
/// # Errors
/// When the connection breaks or the content differs.
pub fn transfer(namespace: &Namespace, to: SocketAddr, bytes: u64) -> Result<Transfer> {
    let stream = EchoStream::connect(namespace, to, PATIENCE)?;
    let mut writer = stream.stream.get_ref().try_clone()?;
    let start = Instant::now();
    let sender = thread::spawn(move || -> Result<Vec<u8>> {
        let mut hash = Sha256::new();
        let mut buffer = vec![0; 64 << 10];
        let mut sent = 0;
        while sent < bytes {
            let length = (bytes - sent).min(buffer.len() as u64);
            let part = &mut buffer[..usize::try_from(length)?];
            fill_content(sent, part);
            hash.update(&*part);
            writer.write_all(part).context("cannot send")?;
            sent += length;
        }
        Ok(hash.finalize().to_vec())
    });
    let mut reader = stream.stream;
    let mut hash = Sha256::new();
    let mut buffer = vec![0; 64 << 10];
    let mut left = bytes;
    while left > 0 {
        let length = left.min(buffer.len() as u64);
        let part = &mut buffer[..usize::try_from(length)?];
        let length = reader.read(part).context("the echo stopped")?;
        ensure!(length > 0, "the echo ended {left} bytes early");
        hash.update(&part[..length]);
        left -= length as u64;
    }
    let took = start.elapsed();
    let sent = sender.join().map_err(|_| anyhow::anyhow!("the sender panicked"))??;
    ensure!(hash.finalize().to_vec() == sent, "the echo differs from what was sent");
    Ok(Transfer { bytes, took })
}
