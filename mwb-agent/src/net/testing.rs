//! What tests that need a kernel share: a network of their own, and a device
//! without Ethernet whose far end is theirs.

use std::error::Error;
use std::fs::{File, OpenOptions};
use std::future::Future;
use std::io::{self, Read as _, Write as _};
use std::os::fd::AsRawFd as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::process::Command;
use std::thread;

use nix::sched::{CloneFlags, unshare};

/// Runs `test` in a network namespace that ends with it, or says why not.
pub(crate) fn in_network<E: Error, T: Future<Output = Result<(), E>>>(
    name: &str,
    test: impl FnOnce() -> T + Send,
) {
    let run = || {
        if !nix::unistd::geteuid().is_root() {
            println!("skipped: {name}: needs root");
            return;
        }
        if let Err(errno) = unshare(CloneFlags::CLONE_NEWNET) {
            println!("skipped: {name}: no network namespace: {errno}");
            return;
        }
        // Everything stays on this thread, and so in its namespace.
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let runtime = runtime.unwrap_or_else(|error| panic!("no runtime: {error}"));
        runtime.block_on(test()).unwrap_or_else(|error| panic!("{error}"));
    };
    if let Err(panic) = thread::scope(|scope| scope.spawn(run).join()) {
        std::panic::resume_unwind(panic);
    }
}

/// Runs an `ip` command in the calling thread's network.
pub(crate) fn ip(line: &str) {
    let output = Command::new("ip").args(line.split_whitespace()).output();
    let output = output.unwrap_or_else(|error| panic!("ip {line}: {error}"));
    assert!(output.status.success(), "ip {line}: {}", String::from_utf8_lossy(&output.stderr));
}

/// A tun device, which lasts as long as this.
pub(crate) struct Tun {
    far_end: File,
}

impl Tun {
    /// Makes one in the calling thread's network.
    pub(crate) fn make(name: &str) -> io::Result<Self> {
        let far_end = OpenOptions::new()
            .read(true)
            .write(true)
            .custom_flags(libc::O_NONBLOCK)
            .open("/dev/net/tun")?;
        // SAFETY: all zero is a valid `ifreq`: plain bytes and a null pointer.
        let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
        assert!(name.len() < request.ifr_name.len());
        for (to, from) in request.ifr_name.iter_mut().zip(name.bytes()) {
            *to = from.cast_signed();
        }
        request.ifr_ifru.ifru_flags = (libc::IFF_TUN | libc::IFF_NO_PI) as libc::c_short;
        // SAFETY: the request outlives the call, which reads and writes no more.
        let result =
            unsafe { libc::ioctl(far_end.as_raw_fd(), libc::TUNSETIFF as _, &raw mut request) };
        if result < 0 { Err(io::Error::last_os_error()) } else { Ok(Self { far_end }) }
    }

    /// The next packet that the kernel has sent by it, from the IP header on.
    pub(crate) fn sent(&mut self) -> Option<Vec<u8>> {
        let mut buffer = [0; 2048];
        let length = self.far_end.read(&mut buffer).ok()?;
        buffer.get(..length).map(<[u8]>::to_vec)
    }

    /// Lets a packet arrive by it.
    pub(crate) fn arrive(&mut self, packet: &[u8]) -> io::Result<()> {
        self.far_end.write_all(packet)
    }
}
