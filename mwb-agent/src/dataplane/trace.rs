//! In a build with the feature `trace` the kernel side logs a line for every
//! packet; this hands them on to `log`. For debugging one packet, never for use.

use std::os::fd::AsFd as _;
use std::thread;

use aya_log::EbpfLogger;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

/// Reads the lines on a thread of its own for as long as the process lives.
/// Without them the data plane works as well, so what fails is only said.
pub(super) fn start(object: &mut aya::Ebpf) {
    let mut logger = match EbpfLogger::init(object) {
        Ok(logger) => logger,
        Err(error) => {
            tracing::warn!(%error, "packets are not traced");
            return;
        }
    };
    let read = move || {
        loop {
            let mut wait = [PollFd::new(logger.as_fd(), PollFlags::POLLIN)];
            if let Err(error) = poll(&mut wait, PollTimeout::NONE)
                && error != nix::errno::Errno::EINTR
            {
                tracing::warn!(%error, "packets are traced no more");
                return;
            }
            logger.flush();
        }
    };
    if let Err(error) = thread::Builder::new().name("packet-trace".to_owned()).spawn(read) {
        tracing::warn!(%error, "packets are not traced");
    }
}
