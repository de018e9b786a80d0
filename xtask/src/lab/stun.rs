//! A real STUN server and client (coturn): they say how a NAT behaves, and were
//! not written by those who wrote the NAT.

use std::{
    net::{Ipv4Addr, SocketAddr, UdpSocket},
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};

use super::{
    Namespace, Process,
    address::{NET4, NET4_SECOND},
    wait_until,
};

const PORT: u16 = 3478;
const OTHER_PORT: u16 = 3479;

/// A server with two addresses and two ports (RFC 5780, 3) on the lab's
/// Internet.
#[derive(Debug)]
pub struct StunServer {
    _process: Process,
}

/// How far something depends on the remote endpoint (RFC 4787, 4.1 and 5).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dependence {
    /// Not at all.
    EndpointIndependent,
    /// On its address.
    Address,
    /// On its address and port.
    AddressAndPort,
}

/// What the client found out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NatBehaviour {
    /// Which remote endpoints see the same outside endpoint.
    pub mapping: Dependence,
    /// Which remote endpoints may send to it.
    pub filtering: Dependence,
    /// All that the client said.
    pub output: String,
}

impl StunServer {
    /// Starts it in the lab's `net`.
    ///
    /// # Errors
    /// When coturn does not come up; with its log.
    pub fn start(net: &Namespace) -> Result<Self> {
        let (first, second) = (NET4.to_string(), NET4_SECOND.to_string());
        let (port, other) = (PORT.to_string(), OTHER_PORT.to_string());
        let file = |name: &str| net.scratch().join(name).to_string_lossy().into_owned();
        let (database, pid) = (file("turn.db"), file("turn.pid"));
        let mut arguments = vec!["-n", "--stun-only", "--no-cli", "--no-tls", "--no-dtls"];
        arguments.extend(["--no-tcp", "--log-file", "stdout", "--simple-log"]);
        arguments.extend(["-L", &first, "-L", &second, "-p", &port]);
        arguments.extend(["--alt-listening-port", &other, "-b", &database, "--pidfile", &pid]);
        let mut process = net.spawn("turnserver", arguments)?;
        // Any answer of its second address shows that all its sockets are there.
        let socket = net.enter(|| {
            let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0))?;
            socket.set_read_timeout(Some(Duration::from_millis(50)))?;
            Ok(socket)
        })?;
        let last = SocketAddr::from((NET4_SECOND, OTHER_PORT));
        wait_until("coturn answers", Duration::from_secs(10), || {
            ensure!(process.is_running()?, "it ended: {}", process.log());
            // Refused while it is not there.
            Ok(socket.send_to(&BINDING_REQUEST, last).is_ok() && socket.recv(&mut [0; 512]).is_ok())
        })
        .with_context(|| process.log())?;
        Ok(Self { _process: process })
    }

    /// Asks, as `client` in `namespace`, how the NAT between them behaves.
    ///
    /// # Errors
    /// When the client fails, or says neither.
    pub fn discover(&self, namespace: &Namespace, client: Ipv4Addr) -> Result<NatBehaviour> {
        let output = namespace.run(
            "turnutils_natdiscovery",
            ["-m", "-f", "-L", &client.to_string(), "-p", &PORT.to_string(), &NET4.to_string()],
        )?;
        let (mapping, filtering) = output
            .split_once("Filtering Behavior Discovery")
            .with_context(|| format!("the client said:\n{output}"))?;
        let read = |text: &str, what: &str| {
            dependence(text, what).with_context(|| format!("no {what}; the client said:\n{output}"))
        };
        Ok(NatBehaviour {
            mapping: read(mapping, "Mapping")?,
            filtering: read(filtering, "Filtering")?,
            output: output.clone(),
        })
    }
}

/// A binding request (RFC 8489, 5) with a transaction of no meaning.
const BINDING_REQUEST: [u8; 20] =
    [0, 1, 0, 0, 0x21, 0x12, 0xa4, 0x42, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12];

/// The last verdict: the first is of a request that cannot tell yet.
fn dependence(text: &str, what: &str) -> Option<Dependence> {
    text.lines().rev().find_map(|line| {
        let kind = line.trim().strip_prefix("NAT with ")?.strip_suffix(&format!(" {what}!"))?;
        match kind {
            "Endpoint Independent" => Some(Dependence::EndpointIndependent),
            "Address Dependent" => Some(Dependence::Address),
            "Address and Port Dependent" => Some(Dependence::AddressAndPort),
            _ => None,
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_clients_verdict_is_read() {
        let text =
            "No NAT! (Endpoint Independent Mapping)\n\nNAT with Address Dependent Mapping!\n";
        assert_eq!(dependence(text, "Mapping"), Some(Dependence::Address));
        assert_eq!(dependence(text, "Filtering"), None);
    }
}
