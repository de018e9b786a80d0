//! The relay process: one loop over two devices, a timer and the control socket.

use std::{
    ffi::OsString,
    io::{Read as _, Write as _},
    os::{fd::AsFd as _, unix::net::UnixStream},
    time::Instant,
};

use anyhow::{Context as _, Result, bail};
use nix::{
    poll::{PollFd, PollFlags, ppoll},
    sys::time::{TimeSpec, TimeValLike as _},
};

use super::{Request, pipe::Pipe};
use crate::lab::{
    link::{Direction, LinkSpec, LinkStats},
    raw::{BATCH, RawSocket},
};

/// Batches read from one device before the other has its turn.
const TURN: usize = 4;

struct Relay {
    start: Instant,
    near: RawSocket,
    far: RawSocket,
    up: Pipe,
    down: Pipe,
    control: UnixStream,
    /// Bytes of a request line that is not complete yet.
    partial: Vec<u8>,
}

/// Runs until the control socket closes.
pub(in crate::lab) fn main(mut arguments: impl Iterator<Item = OsString>) -> Result<()> {
    let mut device = || arguments.next().and_then(|name| name.into_string().ok());
    let (Some(near), Some(far)) = (device(), device()) else { bail!("two devices are needed") };
    let control = UnixStream::from(std::io::stdin().as_fd().try_clone_to_owned()?);
    control.set_nonblocking(true)?;
    be_punctual();
    let (near, far) = (RawSocket::open(&near)?, RawSocket::open(&far)?);
    near.bypass_queues()?;
    far.bypass_queues()?;
    Relay {
        start: Instant::now(),
        near,
        far,
        up: Pipe::new(LinkSpec::default()),
        down: Pipe::new(LinkSpec::default()),
        control,
        partial: Vec::new(),
    }
    .run()
}

/// Timers to the microsecond and a good place in the run queue: a relay that
/// oversleeps shows as jitter nobody asked for.
fn be_punctual() {
    // SAFETY: plain system calls on this process; where they are refused the
    // relay is less exact, which the calibration test would show.
    unsafe {
        libc::prctl(libc::PR_SET_TIMERSLACK, 1000_u64, 0_u64, 0_u64, 0_u64);
        libc::setpriority(libc::PRIO_PROCESS, 0, -15);
    }
}

impl Relay {
    fn run(mut self) -> Result<()> {
        loop {
            let ready = self.wait()?;
            if ready[2] && !self.obey()? {
                return Ok(());
            }
            let now = self.now();
            if ready[0] {
                take_in(&mut self.near, &mut self.up, now)?;
            }
            if ready[1] {
                take_in(&mut self.far, &mut self.down, now)?;
            }
            let now = self.now();
            put_out(&mut self.up, &self.far, now)?;
            put_out(&mut self.down, &self.near, now)?;
        }
    }

    fn now(&self) -> u64 {
        u64::try_from(self.start.elapsed().as_nanos()).unwrap_or(u64::MAX)
    }

    /// Sleeps until there is something to do; says which of near, far and
    /// control are ready.
    fn wait(&self) -> Result<[bool; 3]> {
        let next = [self.up.next_arrival(), self.down.next_arrival()].into_iter().flatten().min();
        let timeout = next.map(|arrival| {
            let left = arrival.saturating_sub(self.now());
            TimeSpec::nanoseconds(i64::try_from(left).unwrap_or(i64::MAX))
        });
        let mut fds = [
            PollFd::new(self.near.as_fd(), PollFlags::POLLIN),
            PollFd::new(self.far.as_fd(), PollFlags::POLLIN),
            PollFd::new(self.control.as_fd(), PollFlags::POLLIN),
        ];
        match ppoll(&mut fds, timeout, None) {
            Ok(_) | Err(nix::errno::Errno::EINTR) => {}
            Err(error) => return Err(error).context("cannot wait"),
        }
        // POLLERR too: a device that went down says so once, and reading clears it.
        Ok(fds.map(|fd| fd.any().unwrap_or(true)))
    }

    /// Does what the control socket says; false when it has closed.
    fn obey(&mut self) -> Result<bool> {
        let mut buffer = [0; 4096];
        match self.control.read(&mut buffer) {
            Ok(0) => return Ok(false),
            Ok(length) => self.partial.extend_from_slice(&buffer[..length]),
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => return Ok(true),
            Err(error) => return Err(error).context("cannot read the control socket"),
        }
        while let Some(end) = self.partial.iter().position(|&byte| byte == b'\n') {
            let line: Vec<u8> = self.partial.drain(..=end).collect();
            match serde_json::from_slice(&line).context("a request nobody knows")? {
                Request::Set { direction: Direction::Up, spec } => self.up.set(spec),
                Request::Set { direction: Direction::Down, spec } => self.down.set(spec),
                Request::Stats => {}
            }
            self.up.stats_mut().missed += self.near.missed();
            self.down.stats_mut().missed += self.far.missed();
            self.up.stats_mut().oversized += self.near.oversized();
            self.down.stats_mut().oversized += self.far.oversized();
            let stats = LinkStats { up: self.up.stats(), down: self.down.stats() };
            let mut answer = serde_json::to_vec(&stats).context("stats are plain data")?;
            answer.push(b'\n');
            self.control.write_all(&answer).context("cannot answer")?;
        }
        Ok(true)
    }
}

fn take_in(socket: &mut RawSocket, pipe: &mut Pipe, now: u64) -> Result<()> {
    for _ in 0..TURN {
        if socket.receive(|frame| pipe.offer(now, frame))? < BATCH {
            break;
        }
    }
    Ok(())
}

fn put_out(pipe: &mut Pipe, socket: &RawSocket, now: u64) -> Result<()> {
    loop {
        let mut frames = Vec::with_capacity(BATCH);
        while frames.len() < BATCH {
            let Some(frame) = pipe.take(now) else { break };
            frames.push(frame);
        }
        if frames.is_empty() {
            return Ok(());
        }
        let (taken, bytes) = socket.send(&frames)?;
        let stats = pipe.stats_mut();
        stats.delivered += taken as u64;
        stats.refused += (frames.len() - taken) as u64;
        stats.delivered_bytes += bytes as u64;
        for frame in frames {
            pipe.recycle(frame);
        }
    }
}
