//! Raw Ethernet frames of one device, many per system call.

use std::{
    io, mem,
    os::fd::{AsFd, AsRawFd as _, BorrowedFd, FromRawFd as _, OwnedFd},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use nix::net::if_::if_nametoindex;

/// Frames per system call.
pub(crate) const BATCH: usize = 64;
/// Largest frame. One that segments were merged to would be larger.
const FRAME: usize = 2048;
/// Bytes of frames that the kernel may keep for us while we do not run, and that
/// may be on their way at once.
const BUFFER: libc::c_int = 16 << 20;

/// A packet socket bound to one device.
#[derive(Debug)]
pub(crate) struct RawSocket {
    fd: OwnedFd,
    buffers: Vec<[u8; FRAME]>,
    lengths: [usize; BATCH],
    oversized: u64,
}

impl RawSocket {
    /// Opens a device of the current namespace.
    pub(crate) fn open(device: &str) -> Result<Self> {
        let index = if_nametoindex(device).with_context(|| format!("no device {device}"))?;
        // SAFETY: plain system call; the result is checked before it is owned.
        let fd = unsafe {
            libc::socket(
                libc::AF_PACKET,
                libc::SOCK_RAW | libc::SOCK_NONBLOCK | libc::SOCK_CLOEXEC,
                0,
            )
        };
        if fd < 0 {
            return Err(io::Error::last_os_error()).context("cannot open a packet socket");
        }
        // SAFETY: `fd` was just opened and belongs to nobody else.
        let fd = unsafe { OwnedFd::from_raw_fd(fd) };
        let socket =
            Self { fd, buffers: vec![[0; FRAME]; BATCH], lengths: [0; BATCH], oversized: 0 };
        // What we send must not come back to us.
        socket.set(libc::SOL_PACKET, libc::PACKET_IGNORE_OUTGOING, 1)?;
        socket.set(libc::SOL_SOCKET, libc::SO_RCVBUFFORCE, BUFFER)?;
        socket.set(libc::SOL_SOCKET, libc::SO_SNDBUFFORCE, BUFFER)?;
        // Bound last: from here on frames come in.
        let address = libc::sockaddr_ll {
            sll_family: u16::try_from(libc::AF_PACKET).unwrap_or_default(),
            sll_protocol: u16::try_from(libc::ETH_P_ALL).unwrap_or_default().to_be(),
            sll_ifindex: index.cast_signed(),
            sll_hatype: 0,
            sll_pkttype: 0,
            sll_halen: 0,
            sll_addr: [0; 8],
        };
        // SAFETY: `address` is a valid sockaddr_ll of the given length.
        let result = unsafe {
            libc::bind(
                socket.fd.as_raw_fd(),
                (&raw const address).cast(),
                socklen::<libc::sockaddr_ll>(),
            )
        };
        if result < 0 {
            return Err(io::Error::last_os_error())
                .with_context(|| format!("cannot bind to {device}"));
        }
        Ok(socket)
    }

    /// Sends past the queues of the device, which would be one more place to
    /// wait and to drop. Captures do not see what is sent so.
    pub(crate) fn bypass_queues(&self) -> Result<()> {
        self.set(libc::SOL_PACKET, libc::PACKET_QDISC_BYPASS, 1)
    }

    /// Reads up to [`BATCH`] frames and gives them to `take`. Gives the number;
    /// 0 when there is none, or when the device is down. A frame that is too
    /// large is not given, but counted.
    pub(crate) fn receive(&mut self, mut take: impl FnMut(&[u8])) -> Result<usize> {
        let mut parts: Vec<libc::iovec> = self
            .buffers
            .iter_mut()
            .map(|buffer| libc::iovec { iov_base: buffer.as_mut_ptr().cast(), iov_len: FRAME })
            .collect();
        let mut headers: Vec<libc::mmsghdr> = parts.iter_mut().map(header).collect();
        // SAFETY: every header points to one iovec in `parts`, which points to a
        // buffer of FRAME bytes; all live until the call returns.
        let count = unsafe {
            libc::recvmmsg(
                self.fd.as_raw_fd(),
                headers.as_mut_ptr(),
                BATCH as libc::c_uint,
                libc::MSG_DONTWAIT,
                std::ptr::null_mut(),
            )
        };
        let Ok(count) = usize::try_from(count) else {
            return match io::Error::last_os_error() {
                error if is_transient(&error) => Ok(0),
                error => Err(error).context("cannot receive frames"),
            };
        };
        for (length, header) in self.lengths.iter_mut().zip(&headers) {
            let whole = header.msg_hdr.msg_flags & libc::MSG_TRUNC == 0;
            *length = if whole { header.msg_len as usize } else { usize::MAX };
        }
        for (buffer, &length) in self.buffers.iter().zip(&self.lengths).take(count) {
            match buffer.get(..length) {
                Some(frame) => take(frame),
                None => self.oversized += 1,
            }
        }
        Ok(count)
    }

    /// Sends frames; gives how many frames and bytes the device took. A refused
    /// frame is not tried again.
    pub(crate) fn send(&self, frames: &[Vec<u8>]) -> Result<(usize, usize)> {
        let (mut taken, mut bytes) = (0, 0);
        let mut rest = frames;
        while !rest.is_empty() {
            let sent = self.offer(rest)?;
            taken += sent;
            bytes += rest[..sent].iter().map(Vec::len).sum::<usize>();
            // Behind what was taken, or behind the one that was refused.
            rest = &rest[sent.max(1)..];
        }
        Ok((taken, bytes))
    }

    /// Sends every frame, in this order: the ring of a veth whose peer runs XDP
    /// holds 256, and one that finds it full is tried again until the deadline.
    pub(crate) fn send_all(&self, frames: &[Vec<u8>], patience: Duration) -> Result<()> {
        let deadline = Instant::now() + patience;
        let mut rest = frames;
        while !rest.is_empty() {
            let sent = self.offer(rest)?;
            rest = &rest[sent..];
            if sent == 0 {
                ensure!(
                    Instant::now() < deadline,
                    "the device took only {} of {} frames",
                    frames.len() - rest.len(),
                    frames.len()
                );
                thread::yield_now();
            }
        }
        Ok(())
    }

    /// One system call: how many of the first [`BATCH`] frames were taken; 0 when
    /// the first is refused for now.
    fn offer(&self, frames: &[Vec<u8>]) -> Result<usize> {
        let mut parts: Vec<libc::iovec> = frames
            .iter()
            .take(BATCH)
            .map(|frame| libc::iovec {
                iov_base: frame.as_ptr().cast_mut().cast(),
                iov_len: frame.len(),
            })
            .collect();
        let mut headers: Vec<libc::mmsghdr> = parts.iter_mut().map(header).collect();
        // SAFETY: every header points to one iovec in `parts`, which points to a
        // frame that the kernel only reads; all live until the call returns.
        let sent = unsafe {
            libc::sendmmsg(
                self.fd.as_raw_fd(),
                headers.as_mut_ptr(),
                headers.len() as libc::c_uint,
                libc::MSG_DONTWAIT,
            )
        };
        usize::try_from(sent).or_else(|_| match io::Error::last_os_error() {
            error if is_transient(&error) => Ok(0),
            error => Err(error).context("cannot send frames"),
        })
    }

    /// Frames that were too large, since the last call.
    pub(crate) fn oversized(&mut self) -> u64 {
        mem::take(&mut self.oversized)
    }

    /// Frames that the kernel dropped because we did not read fast enough,
    /// since the last call.
    pub(crate) fn missed(&self) -> u64 {
        // SAFETY: all zeros is a valid tpacket_stats.
        let mut stats: libc::tpacket_stats = unsafe { mem::zeroed() };
        let mut length = socklen::<libc::tpacket_stats>();
        // SAFETY: the kernel writes at most `length` bytes into `stats`.
        let result = unsafe {
            libc::getsockopt(
                self.fd.as_raw_fd(),
                libc::SOL_PACKET,
                libc::PACKET_STATISTICS,
                (&raw mut stats).cast(),
                &raw mut length,
            )
        };
        if result == 0 { u64::from(stats.tp_drops) } else { 0 }
    }

    fn set(&self, level: libc::c_int, option: libc::c_int, value: libc::c_int) -> Result<()> {
        // SAFETY: `value` is a valid int of the given length.
        let result = unsafe {
            libc::setsockopt(
                self.fd.as_raw_fd(),
                level,
                option,
                (&raw const value).cast(),
                socklen::<libc::c_int>(),
            )
        };
        if result < 0 {
            return Err(io::Error::last_os_error())
                .with_context(|| format!("cannot set packet socket option {option}"));
        }
        Ok(())
    }
}

impl AsFd for RawSocket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

fn header(part: &mut libc::iovec) -> libc::mmsghdr {
    // SAFETY: all zeros is a valid mmsghdr (null pointers, no lengths).
    let mut header: libc::mmsghdr = unsafe { mem::zeroed() };
    header.msg_hdr.msg_iov = part;
    header.msg_hdr.msg_iovlen = 1;
    header
}

fn socklen<T>() -> libc::socklen_t {
    size_of::<T>() as libc::socklen_t
}

/// Errors that say "not now": nothing there, the device is down or full.
fn is_transient(error: &io::Error) -> bool {
    matches!(
        error.raw_os_error(),
        Some(libc::EAGAIN | libc::EINTR | libc::ENETDOWN | libc::ENOBUFS | libc::ENXIO)
    )
}
