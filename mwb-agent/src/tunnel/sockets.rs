//! The UDP sockets of the bond: one for each WAN and family, bound to the device, so
//! that what is sent by one leaves by that WAN and what comes in is known to be from
//! there. A device that is made anew gets new ones.
//!
//! Data and probes never come here: the kernel side takes them before any socket.

use std::collections::BTreeMap;
use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use socket2::{Domain, Protocol, Socket, Type};
use tokio::net::UdpSocket;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use super::network::Uplink;

/// More than any message of the agents has.
const LONGEST: usize = 2_048;
/// After a socket failed, before it is asked again.
const PAUSE: Duration = Duration::from_millis(100);

/// A packet that came.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Received {
    /// Path id of the WAN it came by.
    pub(super) via: u8,
    /// Where from.
    pub(super) from: SocketAddr,
    /// What is behind the UDP header.
    pub(super) packet: Vec<u8>,
}

/// The sockets by path id of the WAN.
pub(super) struct Sockets {
    port: u16,
    received: mpsc::Sender<Received>,
    open: BTreeMap<u8, OfWan>,
}

/// The sockets of a WAN, IPv4 and IPv6.
struct OfWan {
    ifindex: u32,
    sockets: [Option<Open>; 2],
}

struct Open {
    socket: Arc<UdpSocket>,
    reader: JoinHandle<()>,
}

impl Drop for Open {
    fn drop(&mut self) {
        self.reader.abort();
    }
}

/// A socket that could not be had.
#[derive(Debug)]
pub(super) struct Failed {
    pub(super) device: String,
    pub(super) error: io::Error,
}

impl Sockets {
    /// None yet; what comes goes to `received`.
    pub(super) fn new(port: u16, received: mpsc::Sender<Received>) -> Self {
        Self { port, received, open: BTreeMap::new() }
    }

    /// Opens and closes, so that each WAN whose device is there has its own. Returns
    /// what failed; it is tried again with the next call.
    pub(super) fn follow(&mut self, wans: &[Uplink]) -> Vec<Failed> {
        self.open.retain(|path, open| {
            wans.iter().any(|wan| wan.path == *path && wan.ifindex == Some(open.ifindex))
        });
        let mut failed = Vec::new();
        for wan in wans {
            let Some(ifindex) = wan.ifindex else { continue };
            let of_wan = self
                .open
                .entry(wan.path)
                .or_insert_with(|| OfWan { ifindex, sockets: [const { None }; 2] });
            for (family, place) in of_wan.sockets.iter_mut().enumerate() {
                if place.is_some() {
                    continue;
                }
                match open(&wan.device, self.port, family == 1) {
                    Ok(socket) => *place = Some(read(wan.path, socket, &self.received)),
                    // A machine without IPv6 has no sockets of it.
                    Err(error) if error.raw_os_error() == Some(libc::EAFNOSUPPORT) => {}
                    Err(error) => failed.push(Failed { device: wan.device.clone(), error }),
                }
            }
        }
        failed
    }

    /// Sends by a WAN.
    pub(super) fn send(&self, via: u8, to: SocketAddr, packet: &[u8]) -> io::Result<()> {
        let family = usize::from(to.is_ipv6());
        let of_wan = self.open.get(&via).and_then(|of_wan| of_wan.sockets[family].as_ref());
        let open = of_wan.ok_or(io::ErrorKind::NotConnected)?;
        // What does not fit into the queue now is sent again by whoever wants it.
        open.socket.try_send_to(packet, to).map(drop)
    }
}

fn open(device: &str, port: u16, v6: bool) -> io::Result<UdpSocket> {
    let domain = if v6 { Domain::IPV6 } else { Domain::IPV4 };
    let socket = Socket::new(domain, Type::DGRAM, Some(Protocol::UDP))?;
    socket.set_nonblocking(true)?;
    if v6 {
        socket.set_only_v6(true)?;
    }
    socket.bind_device(Some(device.as_bytes()))?;
    let any: SocketAddr = if v6 {
        (Ipv6Addr::UNSPECIFIED, port).into()
    } else {
        (Ipv4Addr::UNSPECIFIED, port).into()
    };
    socket.bind(&any.into())?;
    UdpSocket::from_std(socket.into())
}

fn read(via: u8, socket: UdpSocket, received: &mpsc::Sender<Received>) -> Open {
    let socket = Arc::new(socket);
    let (reads, received) = (Arc::clone(&socket), received.clone());
    let reader = tokio::spawn(async move {
        let mut buffer = vec![0; LONGEST];
        loop {
            match reads.recv_from(&mut buffer).await {
                Ok((length, from)) => {
                    let packet = buffer.get(..length).unwrap_or_default().to_vec();
                    if received.send(Received { via, from, packet }).await.is_err() {
                        return;
                    }
                }
                Err(error) => {
                    tracing::debug!(%error, via, "a socket of the bond");
                    tokio::time::sleep(PAUSE).await;
                }
            }
        }
    });
    Open { socket, reader }
}

#[cfg(test)]
#[path = "sockets_tests.rs"]
mod tests;
