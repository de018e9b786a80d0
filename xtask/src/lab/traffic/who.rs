//! A UDP server that tells its clients how it sees them.

use std::{
    net::{SocketAddr, UdpSocket},
    sync::atomic::Ordering,
    time::Duration,
};

use anyhow::{Context as _, Result, anyhow};

use super::{server::Server, udp::bind};
use crate::lab::Namespace;

/// Answers every datagram with the address and port it came from.
#[derive(Debug)]
pub struct WhoServer {
    address: SocketAddr,
    _server: Server,
}

impl WhoServer {
    /// Listens in `namespace`.
    ///
    /// # Errors
    /// When the address cannot be bound.
    pub fn start(namespace: &Namespace, address: SocketAddr) -> Result<Self> {
        let socket = bind(namespace, address)?;
        let address = socket.local_addr()?;
        let server = Server::start(&format!("who {address}"), move |stop| {
            let mut buffer = [0; 64];
            while !stop.load(Ordering::Relaxed) {
                let Ok((_, source)) = socket.recv_from(&mut buffer) else { continue };
                // An answer that cannot be sent is missing at the other end.
                let _ = socket.send_to(source.to_string().as_bytes(), source);
            }
        })?;
        Ok(Self { address, _server: server })
    }

    /// What the server sees as the address and port of `socket`.
    ///
    /// # Errors
    /// When there is no answer within a second, in three tries.
    pub fn ask(&self, socket: &UdpSocket) -> Result<SocketAddr> {
        socket.set_read_timeout(Some(Duration::from_secs(1)))?;
        let mut buffer = [0; 64];
        for _ in 0..3 {
            socket.send_to(b"who am I?", self.address)?;
            let Ok((length, from)) = socket.recv_from(&mut buffer) else { continue };
            if from == self.address {
                let text = String::from_utf8_lossy(&buffer[..length]).into_owned();
                return text.parse().with_context(|| format!("answered {text:?}"));
            }
        }
        Err(anyhow!("no answer from {}", self.address))
    }
}
