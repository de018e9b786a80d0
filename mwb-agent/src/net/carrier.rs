//! Whether a device has a carrier at this moment, by ethtool. The kernel's events tell it
//! too, but its link watch holds them back, up to a second after another one; a driver is
//! asked at once.

use std::io;

use socket2::{Domain, Socket, Type};

use super::features::ask;

/// `ETHTOOL_GLINK`: whether there is a link.
const GLINK: u32 = 0xa;

/// Asks devices of the network namespace that it was opened in.
#[derive(Debug)]
pub struct CarrierSocket(Socket);

impl CarrierSocket {
    /// A socket to ask by. Needs no rights.
    ///
    /// # Errors
    /// When the kernel gives none.
    pub fn open() -> io::Result<Self> {
        Socket::new(Domain::UNIX, Type::DGRAM, None).map(Self)
    }

    /// Whether a device is up and has a carrier.
    ///
    /// # Errors
    /// When the device is gone, or its driver does not tell.
    pub fn has_carrier(&self, device: &str) -> io::Result<bool> {
        // struct ethtool_value: command, and the answer.
        let mut value = [GLINK, 0];
        ask(&self.0, device, &mut value)?;
        Ok(value[1] != 0)
    }
}

#[cfg(test)]
mod tests {
    use super::super::Error;
    use super::super::testing::{in_network, ip};
    use super::*;

    #[test]
    fn a_carrier_is_known_at_once_however_often_it_changes() {
        in_network("a_carrier_is_known_at_once_however_often_it_changes", || async {
            ip("link add wan0 type veth peer name far0");
            ip("link set wan0 up");
            let socket = CarrierSocket::open().expect("a socket");
            // The kernel says no more than one change in a second.
            for _ in 0..5 {
                ip("link set far0 up");
                assert!(socket.has_carrier("wan0").expect("an answer"));
                ip("link set far0 down");
                assert!(!socket.has_carrier("wan0").expect("an answer"));
            }
            ip("link set far0 up");
            ip("link set wan0 down");
            assert!(!socket.has_carrier("wan0").expect("an answer"), "it is down");
            assert!(socket.has_carrier("no-such-device").is_err());
            Ok::<_, Error>(())
        });
    }
}
