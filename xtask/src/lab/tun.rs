//! A link without Ethernet: a tun device at either end, and two threads that
//! carry packets from one to the other, as the modem of a ppp or mobile WAN does.

use std::{
    fs::{File, OpenOptions},
    io::{Read as _, Write as _},
    os::fd::{AsFd as _, AsRawFd as _},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
};

use anyhow::{Context as _, Result, ensure};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use super::Namespace;

/// How often a thread looks whether it should end, in milliseconds.
const LOOK: u16 = 50;

/// A running link; its devices go with it.
#[derive(Debug)]
pub(super) struct TunLink {
    stop: Arc<AtomicBool>,
    threads: Vec<JoinHandle<()>>,
}

impl TunLink {
    /// Makes both devices, not yet up, and begins to carry.
    pub(super) fn start(left: (&Namespace, &str), right: (&Namespace, &str)) -> Result<Self> {
        let (left, right) = (Arc::new(open(left)?), Arc::new(open(right)?));
        let stop = Arc::new(AtomicBool::new(false));
        let mut threads = Vec::new();
        for (from, to) in [(&left, &right), (&right, &left)] {
            let (from, to, stop) = (Arc::clone(from), Arc::clone(to), Arc::clone(&stop));
            threads.push(
                thread::Builder::new()
                    .name("tun".to_owned())
                    .spawn(move || carry(&from, &to, &stop))?,
            );
        }
        Ok(Self { stop, threads })
    }
}

impl Drop for TunLink {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            // A panic there shows in what does not arrive.
            let _ = thread.join();
        }
    }
}

/// One packet a read and a write: the kernel keeps them apart.
fn carry(mut from: &File, mut to: &File, stop: &AtomicBool) {
    let mut packet = vec![0; 65_536];
    while !stop.load(Ordering::Relaxed) {
        let mut ready = [PollFd::new(from.as_fd(), PollFlags::POLLIN)];
        if poll(&mut ready, PollTimeout::from(LOOK)).unwrap_or(0) == 0 {
            continue;
        }
        match from.read(&mut packet) {
            // A device that is down takes none; that is what a cut link does.
            Ok(length) => drop(to.write(&packet[..length])),
            Err(_) => thread::sleep(std::time::Duration::from_millis(1)),
        }
    }
}

fn open((namespace, name): (&Namespace, &str)) -> Result<File> {
    namespace.enter(|| {
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .open("/dev/net/tun")
            .context("no /dev/net/tun")?;
        // SAFETY: all zeros is a valid ifreq.
        let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
        ensure!(name.len() < request.ifr_name.len(), "{name} is too long for a device");
        for (to, from) in request.ifr_name.iter_mut().zip(name.bytes()) {
            *to = from.cast_signed();
        }
        request.ifr_ifru.ifru_flags = (libc::IFF_TUN | libc::IFF_NO_PI) as libc::c_short;
        // SAFETY: the request is a valid ifreq that outlives the call.
        let result = unsafe { libc::ioctl(file.as_raw_fd(), libc::TUNSETIFF, &raw mut request) };
        if result < 0 {
            return Err(std::io::Error::last_os_error())
                .with_context(|| format!("no tun device {name} in {}", namespace.name()));
        }
        Ok(file)
    })
}
