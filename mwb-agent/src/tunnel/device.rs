//! Ethernet frames into the kernel's end of the bond's device, for the data plane at its
//! other end.

use std::io;

use mwb_common::maps::tick;
use socket2::{Domain, Protocol, SockAddr, SockAddrStorage, Socket, Type};

/// Sends frames into a device.
pub(super) struct DeviceSocket {
    socket: Socket,
    ifindex: u32,
}

impl DeviceSocket {
    /// Of the device with this index.
    pub(super) fn open(ifindex: u32) -> io::Result<Self> {
        // Protocol 0 hears nothing.
        let socket = Socket::new(Domain::PACKET, Type::RAW, Some(Protocol::from(0)))?;
        socket.set_nonblocking(true)?;
        Ok(Self { socket, ifindex })
    }

    /// Index of the device.
    pub(super) const fn ifindex(&self) -> u32 {
        self.ifindex
    }

    /// Sends a whole frame.
    pub(super) fn send(&self, frame: &[u8]) -> io::Result<()> {
        self.socket.send_to(frame, &address(self.ifindex)).map(drop)
    }
}

/// Of a device, for frames of the data plane's own type.
pub(super) fn address(ifindex: u32) -> SockAddr {
    let mut storage = SockAddrStorage::zeroed();
    // SAFETY: `sockaddr_ll` is one of the types that a socket address storage
    // is made to hold: it fits, and all bit patterns are valid for it.
    let link = unsafe { storage.view_as::<libc::sockaddr_ll>() };
    link.sll_family = libc::AF_PACKET as u16;
    link.sll_protocol = u16::from_ne_bytes(tick::ETHERTYPE);
    link.sll_ifindex = ifindex.cast_signed();
    // SAFETY: the storage holds a `sockaddr_ll`, initialised above.
    unsafe { SockAddr::new(storage, size_of::<libc::sockaddr_ll>() as libc::socklen_t) }
}
