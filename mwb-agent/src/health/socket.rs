//! One packet socket: sends whole IP packets to a link-layer address on one
//! device, and hears the echo replies that come in by it.
//!
//! It stands beside the IP stack on purpose. Two WANs may have the same subnet
//! and gateway, or even the same address: the routing table cannot tell them
//! apart, the device can. And neither a reverse-path filter nor a firewall of
//! the gateway swallows an answer that did arrive.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd};

use socket2::{Domain, Protocol, SockAddr, SockAddrStorage, SockFilter, Socket, Type};

/// The family of packets a socket is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Family {
    V4,
    V6,
}

impl Family {
    const fn ethertype(self) -> u16 {
        match self {
            Family::V4 => libc::ETH_P_IP as u16,
            Family::V6 => libc::ETH_P_IPV6 as u16,
        }
    }
}

/// A packet socket bound to a device and a family.
#[derive(Debug)]
pub(super) struct PacketSocket {
    socket: Socket,
    family: Family,
    ifindex: u32,
}

impl PacketSocket {
    /// Opens one that hears echo replies with `identifier` only.
    pub(super) fn open(family: Family, ifindex: u32, identifier: u16) -> io::Result<Self> {
        // Protocol 0 hears nothing: the filter is there before the first packet.
        let socket = Socket::new(Domain::PACKET, Type::DGRAM, Some(Protocol::from(0)))?;
        socket.set_nonblocking(true)?;
        socket.attach_filter(&echo_replies(family, identifier))?;
        socket.bind(&address(family, ifindex, None))?;
        Ok(Self { socket, family, ifindex })
    }

    /// Sends an IP packet to a MAC, or without one on a device that has none.
    pub(super) fn send(&self, packet: &[u8], mac: Option<[u8; 6]>) -> io::Result<()> {
        self.socket.send_to(packet, &address(self.family, self.ifindex, mac)).map(drop)
    }

    /// The next packet that has arrived, from the IP header on.
    pub(super) fn receive<'a>(&self, buffer: &'a mut [u8]) -> io::Result<&'a [u8]> {
        let length = io::Read::read(&mut &self.socket, buffer)?;
        Ok(buffer.get(..length).unwrap_or_default())
    }
}

// The runtime wants both.
impl AsRawFd for PacketSocket {
    fn as_raw_fd(&self) -> RawFd {
        self.socket.as_raw_fd()
    }
}

impl AsFd for PacketSocket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

fn address(family: Family, ifindex: u32, mac: Option<[u8; 6]>) -> SockAddr {
    let mut storage = SockAddrStorage::zeroed();
    // SAFETY: `sockaddr_ll` is one of the types that a socket address storage
    // is made to hold: it fits, and all bit patterns are valid for it.
    let link = unsafe { storage.view_as::<libc::sockaddr_ll>() };
    link.sll_family = libc::AF_PACKET as u16;
    link.sll_protocol = family.ethertype().to_be();
    link.sll_ifindex = ifindex.cast_signed();
    if let Some(mac) = mac {
        link.sll_halen = mac.len() as u8;
        link.sll_addr[..mac.len()].copy_from_slice(&mac);
    }
    // SAFETY: the storage holds a `sockaddr_ll`, initialised above.
    unsafe { SockAddr::new(storage, size_of::<libc::sockaddr_ll>() as libc::socklen_t) }
}

/// Classic BPF: unfragmented echo replies with this identifier. The packet
/// begins with the IP header.
fn echo_replies(family: Family, identifier: u16) -> Vec<SockFilter> {
    const LOAD_BYTE: u16 = (libc::BPF_LD | libc::BPF_B | libc::BPF_ABS) as u16;
    const LOAD_HALF: u16 = (libc::BPF_LD | libc::BPF_H | libc::BPF_ABS) as u16;
    const LOAD_BYTE_X: u16 = (libc::BPF_LD | libc::BPF_B | libc::BPF_IND) as u16;
    const LOAD_HALF_X: u16 = (libc::BPF_LD | libc::BPF_H | libc::BPF_IND) as u16;
    const HEADER_LENGTH_X: u16 = (libc::BPF_LDX | libc::BPF_B | libc::BPF_MSH) as u16;
    const EQUAL: u16 = (libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K) as u16;
    const ANY_BIT: u16 = (libc::BPF_JMP | libc::BPF_JSET | libc::BPF_K) as u16;
    const RETURN: u16 = (libc::BPF_RET | libc::BPF_K) as u16;
    const ALL: u32 = u32::MAX;

    let identifier = u32::from(identifier);
    let step = |code, k| SockFilter::new(code, 0, 0, k);
    // Continues if equal, else jumps over `rest` instructions to the end.
    let equal = |k, rest| SockFilter::new(EQUAL, 0, rest, k);
    match family {
        Family::V4 => vec![
            step(LOAD_BYTE, 9),
            equal(1, 8),
            step(LOAD_HALF, 6),
            SockFilter::new(ANY_BIT, 6, 0, 0x3fff),
            step(HEADER_LENGTH_X, 0),
            step(LOAD_BYTE_X, 0),
            equal(0, 3),
            step(LOAD_HALF_X, 4),
            equal(identifier, 1),
            step(RETURN, ALL),
            step(RETURN, 0),
        ],
        Family::V6 => vec![
            step(LOAD_BYTE, 6),
            equal(58, 5),
            step(LOAD_BYTE, 40),
            equal(129, 3),
            step(LOAD_HALF, 44),
            equal(identifier, 1),
            step(RETURN, ALL),
            step(RETURN, 0),
        ],
    }
}

/// Room for one packet; a longer one is cut, and is then not ours.
pub(super) const BUFFER: usize = 256;
