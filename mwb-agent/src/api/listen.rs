//! The sockets: one unix socket for the operator, one on loopback for scrapers.

use std::fs::{self, File, Permissions, TryLockError};
use std::io::{self, ErrorKind};
use std::net::{SocketAddr, TcpListener as TcpSocket};
use std::os::fd::OwnedFd;
use std::os::unix::fs::{FileTypeExt, PermissionsExt, chown};
use std::os::unix::net::{self, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use axum::{middleware, serve as serve_http};
use listenfd::ListenFd;
use nix::unistd::{Gid, Group};
use socket2::{Domain, SockAddr, Socket, Type};
use tokio::net::{TcpListener, UnixListener};

use super::{Source, Token, access, http};

/// Only the owner may talk to the agent.
const OWNER_ONLY: u32 = 0o600;
/// The owner and the group that the configuration names.
const WITH_GROUP: u32 = 0o660;
/// Connections that may wait to be accepted.
const BACKLOG: i32 = 64;

/// Why the agent cannot listen.
#[derive(Debug, thiserror::Error)]
pub enum ListenError {
    /// Another process answers on the unix socket.
    #[error("{0}: another agent listens there; stop it, or set another api.socket")]
    Busy(PathBuf),
    /// Something else is in the place of the unix socket.
    #[error("{0} is there and is not a socket; remove it, or set another api.socket")]
    NotASocket(PathBuf),
    /// The unix socket cannot be made.
    #[error("cannot listen on {path}: {error}")]
    Unix {
        /// The socket.
        path: PathBuf,
        /// Why.
        error: io::Error,
    },
    /// The group that may use the unix socket does not exist.
    #[error("api.group: there is no group `{0}`; `groupadd --system {0}` makes it")]
    NoGroup(String),
    /// The TCP address cannot be bound.
    #[error("cannot listen on {address} (api.listen): {error}")]
    Tcp {
        /// The address.
        address: SocketAddr,
        /// Why.
        error: io::Error,
    },
    /// What was handed in by LISTEN_FDS is not a listening TCP socket.
    #[error("the socket handed in by LISTEN_FDS cannot be used: {0}")]
    HandedIn(io::Error),
}

/// Bound sockets, ready to serve. The unix socket disappears with them.
#[derive(Debug)]
pub struct Listeners {
    unix: net::UnixListener,
    tcp: Option<TcpSocket>,
    file: SocketFile,
}

/// The unix socket's file and the lock that says whose it is.
#[derive(Debug)]
struct SocketFile {
    path: PathBuf,
    /// Held until the file is gone: two agents that start at the same time
    /// cannot take each other's socket.
    _lock: File,
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        if let Err(error) = fs::remove_file(&self.path) {
            tracing::warn!(path = %self.path.display(), %error, "the socket file was not removed");
        }
    }
}

impl Listeners {
    /// Binds `socket` for its owner and `group`, and `listen` unless it is
    /// `None`. If systemd (or whoever started the agent) handed in a listening
    /// TCP socket, that is taken in the place of `listen`.
    ///
    /// # Errors
    /// When one cannot be bound, or there is no such group.
    pub fn bind(
        listen: Option<SocketAddr>,
        socket: &Path,
        group: Option<&str>,
    ) -> Result<Self, ListenError> {
        let (unix, file) = bind_unix(socket, group)?;
        let tcp = listen.map(bind_tcp).transpose()?;
        Ok(Self { unix, tcp, file })
    }

    /// Where TCP clients reach it.
    #[must_use]
    pub fn tcp_address(&self) -> Option<SocketAddr> {
        self.tcp.as_ref().and_then(|tcp| tcp.local_addr().ok())
    }
}

/// Answers on both sockets from `source` until it is dropped. Who changes
/// something over TCP must show `token`; without one, nobody can.
pub async fn serve<S: Source>(
    listeners: Listeners,
    source: Arc<S>,
    token: Option<Token>,
) -> io::Result<()> {
    let Listeners { unix, tcp, file: _file } = listeners;
    let unix = UnixListener::from_std(unix)?;
    let tcp = tcp.map(TcpListener::from_std).transpose()?;
    let routes = http::router(source);
    let guarded = routes.clone().layer(middleware::from_fn_with_state(token, access::guard));
    let unix = serve_http(unix, routes);
    match tcp {
        Some(tcp) => {
            tokio::try_join!(unix.into_future(), serve_http(tcp, guarded).into_future())?;
        }
        None => unix.await?,
    }
    Ok(())
}

fn bind_tcp(address: SocketAddr) -> Result<TcpSocket, ListenError> {
    let handed_in = ListenFd::from_env().take_tcp_listener(0).map_err(ListenError::HandedIn)?;
    if let Some(socket) = handed_in {
        return socket.set_nonblocking(true).map(|()| socket).map_err(ListenError::HandedIn);
    }
    TcpSocket::bind(address)
        .and_then(|socket| socket.set_nonblocking(true).map(|()| socket))
        .map_err(|error| ListenError::Tcp { address, error })
}

fn bind_unix(
    path: &Path,
    group: Option<&str>,
) -> Result<(net::UnixListener, SocketFile), ListenError> {
    let failed = |error| ListenError::Unix { path: path.to_owned(), error };
    let group = group.map(find_group).transpose()?;
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder).map_err(failed)?;
    }
    let lock = lock_beside(path)?;
    remove_stale(path)?;
    let listener = open_unix(path).map_err(failed)?;
    let file = SocketFile { path: path.to_owned(), _lock: lock };
    if let Some(group) = group {
        // The group first: its rights are never another group's.
        chown(path, None, Some(group.as_raw())).map_err(failed)?;
        fs::set_permissions(path, Permissions::from_mode(WITH_GROUP)).map_err(failed)?;
    }
    Ok((listener, file))
}

fn find_group(name: &str) -> Result<Gid, ListenError> {
    let found = Group::from_name(name).ok().flatten();
    found.map(|group| group.gid).ok_or_else(|| ListenError::NoGroup(name.to_owned()))
}

fn open_unix(path: &Path) -> io::Result<net::UnixListener> {
    let socket = Socket::new(Domain::UNIX, Type::STREAM, None)?;
    // Rights set before binding are those the file is born with: at no moment
    // can others connect.
    let file = File::from(OwnedFd::from(socket));
    file.set_permissions(Permissions::from_mode(OWNER_ONLY))?;
    let socket = Socket::from(OwnedFd::from(file));
    socket.bind(&SockAddr::unix(path)?)?;
    socket.listen(BACKLOG)?;
    socket.set_nonblocking(true)?;
    Ok(OwnedFd::from(socket).into())
}

fn lock_beside(path: &Path) -> Result<File, ListenError> {
    let mut name = path.as_os_str().to_owned();
    name.push(".lock");
    let failed = |error| ListenError::Unix { path: path.to_owned(), error };
    let lock = File::options().create(true).append(true).open(name).map_err(failed)?;
    match lock.try_lock() {
        Ok(()) => Ok(lock),
        Err(TryLockError::WouldBlock) => Err(ListenError::Busy(path.to_owned())),
        Err(TryLockError::Error(error)) => Err(failed(error)),
    }
}

/// Removes the socket file of an agent that is gone, and nothing else.
fn remove_stale(path: &Path) -> Result<(), ListenError> {
    let failed = |error| ListenError::Unix { path: path.to_owned(), error };
    let kind = match fs::symlink_metadata(path) {
        Ok(metadata) => metadata.file_type(),
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(failed(error)),
    };
    if !kind.is_socket() {
        return Err(ListenError::NotASocket(path.to_owned()));
    }
    match UnixStream::connect(path) {
        Ok(_) => Err(ListenError::Busy(path.to_owned())),
        Err(error) if error.kind() == ErrorKind::ConnectionRefused => {
            fs::remove_file(path).map_err(failed)
        }
        Err(error) => Err(failed(error)),
    }
}
