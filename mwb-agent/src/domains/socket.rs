//! A packet socket that hears what a resolver on the gateway answers by one device. Must not
//! know: what an answer says.

use std::io;
use std::os::fd::{AsFd, AsRawFd as _, BorrowedFd};

use nix::sys::socket::{setsockopt, sockopt};
use socket2::{Domain, Protocol, SockAddr, SockAddrStorage, Socket, Type};

/// Bytes that wait to be read: some thousand answers.
const WAITING: usize = 1 << 20;

/// A packet socket of one device.
#[derive(Debug)]
pub(super) struct AnswerSocket(Socket);

impl AnswerSocket {
    /// Opens one. `filter` is the kernel side's, which passes answers only.
    pub(super) fn open(ifindex: u32, filter: BorrowedFd<'_>) -> io::Result<Self> {
        // Protocol 0 hears nothing: the filter is there before the first packet. The kernel
        // takes the link's header off.
        let socket = Socket::new(Domain::PACKET, Type::DGRAM, Some(Protocol::from(0)))?;
        socket.set_nonblocking(true)?;
        setsockopt(&socket, sockopt::RcvBufForce, &WAITING)?;
        attach(&socket, filter)?;
        socket.bind(&address(ifindex))?;
        Ok(Self(socket))
    }

    /// The next packet, from the IP header on.
    pub(super) fn receive<'a>(&self, buffer: &'a mut [u8]) -> io::Result<&'a [u8]> {
        let length = io::Read::read(&mut &self.0, buffer)?;
        Ok(buffer.get(..length).unwrap_or_default())
    }

    /// How many packets found no room since this was last asked.
    pub(super) fn dropped(&self) -> io::Result<u32> {
        let mut counts = libc::tpacket_stats { tp_packets: 0, tp_drops: 0 };
        let mut length = size_of::<libc::tpacket_stats>() as libc::socklen_t;
        // SAFETY: the kernel writes at most `length` bytes to `counts`, which lives on.
        let result = unsafe {
            libc::getsockopt(
                self.0.as_raw_fd(),
                libc::SOL_PACKET,
                libc::PACKET_STATISTICS,
                (&raw mut counts).cast(),
                &raw mut length,
            )
        };
        if result == 0 { Ok(counts.tp_drops) } else { Err(io::Error::last_os_error()) }
    }
}

impl AsFd for AnswerSocket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// The socket keeps the program for itself.
fn attach(socket: &Socket, filter: BorrowedFd<'_>) -> io::Result<()> {
    let program = filter.as_raw_fd();
    // SAFETY: the kernel reads one descriptor from `program`, which lives on.
    let result = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_ATTACH_BPF,
            (&raw const program).cast(),
            size_of_val(&program) as libc::socklen_t,
        )
    };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Of a device, for all protocols: none else has what leaves.
pub(super) fn address(ifindex: u32) -> SockAddr {
    let mut storage = SockAddrStorage::zeroed();
    // SAFETY: `sockaddr_ll` is one of the types that a socket address storage
    // is made to hold: it fits, and all bit patterns are valid for it.
    let link = unsafe { storage.view_as::<libc::sockaddr_ll>() };
    link.sll_family = libc::AF_PACKET as u16;
    link.sll_protocol = (libc::ETH_P_ALL as u16).to_be();
    link.sll_ifindex = ifindex.cast_signed();
    // SAFETY: the storage holds a `sockaddr_ll`, initialised above.
    unsafe { SockAddr::new(storage, size_of::<libc::sockaddr_ll>() as libc::socklen_t) }
}
