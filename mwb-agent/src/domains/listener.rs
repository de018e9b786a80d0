//! Hears answers on LAN ports, on a thread of its own: a host connects right behind the
//! answer, and then its address must be known. Must not know: what an answer says.

use std::collections::BTreeMap;
use std::io::{self, Read as _, Write as _};
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::net::UnixStream;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use super::socket::AnswerSocket;

/// Time between two looks at what is over, and at devices that were refused.
const LOOK: Duration = Duration::from_secs(1);
/// Packets that are read from a device before the next one has its turn.
const IN_TURN: usize = 64;
/// The longest packet, with room for what no answer has.
const LONGEST: usize = 1 << 16;

/// What there is to do.
#[derive(Clone, Copy, Debug)]
pub enum Heard<'a> {
    /// A packet, from the IP header on.
    Packet(&'a [u8]),
    /// A second is over.
    Second,
}

/// Where there is an ear, and what it has missed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ears {
    /// Packets that came faster than they were read.
    pub dropped: u64,
    /// Devices that are heard.
    pub devices: Vec<String>,
    /// Devices that are not, and why.
    pub deaf: Vec<(String, String)>,
}

/// The thread. It ends with this value.
#[derive(Debug)]
pub struct Listener {
    shared: Arc<Mutex<Shared>>,
    /// The thread waits for its other end.
    wake: UnixStream,
}

#[derive(Debug, Default)]
struct Shared {
    /// Names of devices by index.
    wanted: BTreeMap<u32, String>,
    ears: Ears,
}

impl Listener {
    /// Starts it, with no device to hear. `filter` is a program that passes answers only;
    /// `hear` takes them.
    ///
    /// # Errors
    /// When the system has no thread for it.
    pub fn start(
        filter: OwnedFd,
        hear: impl FnMut(Heard<'_>) + Send + 'static,
    ) -> io::Result<Self> {
        let (wake, woken) = UnixStream::pair()?;
        wake.set_nonblocking(true)?;
        woken.set_nonblocking(true)?;
        let shared = Arc::new(Mutex::new(Shared::default()));
        let ears = Listening {
            shared: Arc::clone(&shared),
            filter,
            woken,
            sockets: BTreeMap::new(),
            dropped: 0,
        };
        thread::Builder::new().name("answers".to_owned()).spawn(move || ears.run(hear))?;
        Ok(Self { shared, wake })
    }

    /// Hears these devices, known by index, and no others.
    pub fn listen(&self, devices: BTreeMap<u32, String>) {
        let mut shared = lock(&self.shared);
        if shared.wanted != devices {
            shared.wanted = devices;
            // It may have been told before and not have looked yet.
            let _ = (&self.wake).write(&[0]);
        }
    }

    /// Where it hears at present.
    #[must_use]
    pub fn ears(&self) -> Ears {
        lock(&self.shared).ears.clone()
    }
}

fn lock(shared: &Mutex<Shared>) -> MutexGuard<'_, Shared> {
    shared.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The thread's own.
struct Listening {
    shared: Arc<Mutex<Shared>>,
    filter: OwnedFd,
    woken: UnixStream,
    sockets: BTreeMap<u32, AnswerSocket>,
    dropped: u64,
}

impl Listening {
    fn run(mut self, mut hear: impl FnMut(Heard<'_>)) {
        let mut buffer = vec![0; LONGEST];
        let mut due = Instant::now();
        loop {
            if Instant::now() >= due {
                due = Instant::now() + LOOK;
                self.count();
                self.follow();
                hear(Heard::Second);
            }
            match self.wait(due) {
                Woken::Ended => return,
                Woken::Told => self.follow(),
                Woken::Else => {}
            }
            for socket in self.sockets.values() {
                for _ in 0..IN_TURN {
                    // Nothing more, or the device is down: that it is gone is told.
                    let Ok(packet) = socket.receive(&mut buffer) else { break };
                    hear(Heard::Packet(packet));
                }
            }
        }
    }

    fn wait(&mut self, due: Instant) -> Woken {
        let left = due.saturating_duration_since(Instant::now());
        let timeout = PollTimeout::try_from(left + Duration::from_millis(1));
        let sockets = self.sockets.values().map(|socket| socket.as_fd());
        let mut all: Vec<PollFd<'_>> = [self.woken.as_fd()]
            .into_iter()
            .chain(sockets)
            .map(|fd| PollFd::new(fd, PollFlags::POLLIN))
            .collect();
        // Whatever it says: all are asked.
        let _ = poll(&mut all, timeout.unwrap_or(PollTimeout::ZERO));
        match self.woken.read(&mut [0; 64]) {
            Ok(0) => Woken::Ended,
            Ok(_) => Woken::Told,
            Err(_) => Woken::Else,
        }
    }

    /// Opens and closes sockets as devices come and go.
    fn follow(&mut self) {
        let wanted = lock(&self.shared).wanted.clone();
        self.sockets.retain(|ifindex, _| wanted.contains_key(ifindex));
        let mut ears = Ears::default();
        for (ifindex, name) in wanted {
            if let std::collections::btree_map::Entry::Vacant(vacant) = self.sockets.entry(ifindex)
            {
                match AnswerSocket::open(ifindex, self.filter.as_fd()) {
                    Ok(socket) => drop(vacant.insert(socket)),
                    Err(error) => {
                        ears.deaf.push((name, error.to_string()));
                        continue;
                    }
                }
            }
            ears.devices.push(name);
        }
        ears.dropped = self.dropped;
        lock(&self.shared).ears = ears;
    }

    fn count(&mut self) {
        let dropped = self.sockets.values().filter_map(|socket| socket.dropped().ok());
        self.dropped += dropped.map(u64::from).sum::<u64>();
    }
}

enum Woken {
    /// Nobody listens any more.
    Ended,
    /// Devices are others.
    Told,
    /// Packets, or the time.
    Else,
}

#[cfg(test)]
#[path = "listener_tests.rs"]
mod tests;
