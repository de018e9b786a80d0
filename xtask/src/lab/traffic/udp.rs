//! UDP streams of numbered datagrams: what got lost, doubled, out of order,
//! late, in either direction, to the packet.

use std::{
    collections::{BTreeSet, HashMap},
    net::{Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket},
    os::fd::AsRawFd as _,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, anyhow, ensure};

use super::{
    record::{Record, UdpDirection},
    server::Server,
};
use crate::lab::{Namespace, is_emulated, wait_until};

/// Head of every datagram: mark, stream, sequence, whether an echo is wanted.
const HEAD: usize = 4 + 8 + 8 + 1;
const MARK: [u8; 4] = *b"mwbU";
/// How often a receiver looks whether it should end.
const LOOK: Duration = Duration::from_millis(50);
/// The last datagrams are waited for as long as no more time than this passes
/// between two arrivals: more than any queue and delay of the lab.
const QUIET: Duration = Duration::from_millis(700);
/// But no longer than this.
const LINGER: Duration = Duration::from_secs(10);

/// A finished stream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UdpReport {
    /// Datagrams that the socket took.
    pub sent: u64,
    /// Towards the server.
    pub there: UdpDirection,
    /// Its echoes, if they were asked for; lost means of all that were sent.
    pub back: Option<UdpDirection>,
    /// Addresses the server saw: the WANs', behind a gateway.
    pub sources: BTreeSet<SocketAddr>,
}

type Records = Arc<Mutex<HashMap<u64, Record>>>;

/// Receives streams, and sends back what asks for it.
#[derive(Debug)]
pub struct UdpServer {
    address: SocketAddr,
    records: Records,
    _server: Server,
}

impl UdpServer {
    /// Listens in `namespace`.
    ///
    /// # Errors
    /// When the address cannot be bound.
    pub fn start(namespace: &Namespace, address: SocketAddr) -> Result<Self> {
        let socket = bind(namespace, address)?;
        let address = socket.local_addr()?;
        let records = Records::default();
        let book = Arc::clone(&records);
        let server = Server::start(&format!("udp {address}"), move |stop| {
            receive(&socket, &book, stop, true);
        })?;
        Ok(Self { address, records, _server: server })
    }

    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }
}

/// Datagrams that a stream which was held up sends at once, to come up to its
/// rate again: more would be lost in the queues of a lab's own veths.
const BURST: u32 = 64;
/// The shortest interval where every instruction is emulated.
const EMULATED: Duration = Duration::from_micros(250);

/// What to send to a [`UdpServer`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UdpStream {
    /// Datagrams; [`UdpRun::stop`] ends the stream earlier.
    pub count: u64,
    /// Time between two.
    pub interval: Duration,
    /// Payload of each in bytes, at least 21.
    pub size: usize,
    /// The server sends each back.
    pub echo: bool,
    /// They carry no UDP checksum (IPv4 only).
    pub without_checksum: bool,
}

impl UdpStream {
    /// `count` datagrams of 200 bytes, one every `interval`, echoed.
    #[must_use]
    pub fn new(count: u64, interval: Duration) -> Self {
        Self { count, interval, size: 200, echo: true, without_checksum: false }
    }

    /// Starts sending from `namespace`.
    ///
    /// # Errors
    /// When there is no socket.
    pub fn start(self, namespace: &Namespace, server: &UdpServer) -> Result<UdpRun> {
        static STREAMS: AtomicU64 = AtomicU64::new(1);
        ensure!(self.size >= HEAD, "a datagram has at least {HEAD} bytes");
        let any = match server.address {
            SocketAddr::V4(_) => SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0)),
            SocketAddr::V6(_) => SocketAddr::from((Ipv6Addr::UNSPECIFIED, 0)),
        };
        let socket = bind(namespace, any)?;
        if self.without_checksum {
            leave_checksum_out(&socket)?;
        }
        let stream = STREAMS.fetch_add(1, Ordering::Relaxed);
        let (sent, stop) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicBool::new(false)));
        let echoes = Records::default();
        let ended = Arc::new(AtomicBool::new(false));
        if self.echo {
            let (socket, book, flag) =
                (socket.try_clone()?, Arc::clone(&echoes), Arc::clone(&ended));
            thread::Builder::new().name(format!("echoes {stream}")).spawn(move || {
                receive(&socket, &book, &flag, false);
            })?;
        }
        let sender = {
            let (sent, stop, to) = (Arc::clone(&sent), Arc::clone(&stop), server.address);
            thread::Builder::new()
                .name(format!("stream {stream}"))
                .spawn(move || self.send(&socket, to, stream, &sent, &stop))?
        };
        let there = Arc::clone(&server.records);
        Ok(UdpRun { spec: self, stream, sent, stop, ended, sender: Some(sender), there, echoes })
    }

    /// Runs the stream to its end.
    ///
    /// # Errors
    /// When it cannot be sent.
    pub fn run(self, namespace: &Namespace, server: &UdpServer) -> Result<UdpReport> {
        self.start(namespace, server)?.finish()
    }

    fn send(
        self,
        socket: &UdpSocket,
        to: SocketAddr,
        stream: u64,
        sent: &AtomicU64,
        stop: &AtomicBool,
    ) -> Result<()> {
        let mut datagram = vec![0; self.size];
        datagram[..4].copy_from_slice(&MARK);
        datagram[4..12].copy_from_slice(&stream.to_be_bytes());
        datagram[20] = u8::from(self.echo);
        let interval = if is_emulated() { self.interval.max(EMULATED) } else { self.interval };
        let mut due = Instant::now();
        for sequence in 0..self.count {
            let now = Instant::now();
            if let Some(early) = due.checked_duration_since(now) {
                thread::sleep(early);
            } else if let Some(earliest) = now.checked_sub(interval * BURST) {
                due = due.max(earliest);
            }
            due += interval;
            if stop.load(Ordering::Relaxed) {
                break;
            }
            datagram[12..20].copy_from_slice(&sequence.to_be_bytes());
            // An ICMP error that came back (no route, port closed) is reported
            // by the next send; the datagram itself was not sent then.
            match socket.send_to(&datagram, to) {
                Ok(_) => sent.fetch_add(1, Ordering::Relaxed),
                Err(_) => continue,
            };
        }
        Ok(())
    }
}

/// A stream on its way.
#[derive(Debug)]
pub struct UdpRun {
    spec: UdpStream,
    stream: u64,
    sent: Arc<AtomicU64>,
    stop: Arc<AtomicBool>,
    ended: Arc<AtomicBool>,
    sender: Option<JoinHandle<Result<()>>>,
    there: Records,
    echoes: Records,
}

impl UdpRun {
    /// The figures so far.
    #[must_use]
    pub fn report(&self) -> UdpReport {
        let sent = self.sent.load(Ordering::Relaxed);
        let there = lock(&self.there);
        let record = there.get(&self.stream);
        let back = lock(&self.echoes);
        let back = self.spec.echo.then(|| {
            back.get(&self.stream)
                .map_or(UdpDirection::all_lost(sent), |record| record.report(sent))
        });
        UdpReport {
            sent,
            there: record.map_or(UdpDirection::all_lost(sent), |record| record.report(sent)),
            back,
            sources: record.map(|record| record.sources.clone()).unwrap_or_default(),
        }
    }

    /// Ends the stream where it stands.
    ///
    /// # Errors
    /// When it could not be sent.
    pub fn stop(self) -> Result<UdpReport> {
        self.stop.store(true, Ordering::Relaxed);
        self.finish()
    }

    /// Waits for the end of the stream and for what is still on its way.
    ///
    /// # Errors
    /// When it could not be sent.
    pub fn finish(mut self) -> Result<UdpReport> {
        if let Some(sender) = self.sender.take() {
            sender.join().map_err(|_| anyhow!("the sender panicked"))??;
        }
        let mut arrived = (0, Instant::now());
        wait_until("nothing more arrives", LINGER, || {
            let report = self.report();
            let back = report.back.unwrap_or_default();
            let count = report.there.received + report.there.duplicated + back.received;
            if count != arrived.0 {
                arrived = (count, Instant::now());
            }
            let whole = report.there.lost == 0 && back.lost == 0;
            Ok(whole || arrived.1.elapsed() > QUIET)
        })?;
        self.ended.store(true, Ordering::Relaxed);
        Ok(self.report())
    }
}

impl Drop for UdpRun {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        self.ended.store(true, Ordering::Relaxed);
    }
}

fn lock(records: &Records) -> MutexGuard<'_, HashMap<u64, Record>> {
    records.lock().unwrap_or_else(PoisonError::into_inner)
}

pub(super) fn bind(namespace: &Namespace, address: SocketAddr) -> Result<UdpSocket> {
    namespace.enter(|| {
        let socket = UdpSocket::bind(address)
            .with_context(|| format!("cannot bind {address} in {}", namespace.name()))?;
        socket.set_read_timeout(Some(LOOK))?;
        // A receiver that is not scheduled for a while must not look like loss.
        set_option(&socket, libc::SO_RCVBUFFORCE, 16 << 20)?;
        Ok(socket)
    })
}

fn leave_checksum_out(socket: &UdpSocket) -> Result<()> {
    const SO_NO_CHECK: libc::c_int = 11;
    set_option(socket, SO_NO_CHECK, 1)
}

fn set_option(socket: &UdpSocket, option: libc::c_int, value: libc::c_int) -> Result<()> {
    // SAFETY: `value` is a valid int of the given length.
    let result = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            option,
            (&raw const value).cast(),
            size_of::<libc::c_int>() as libc::socklen_t,
        )
    };
    if result < 0 {
        return Err(std::io::Error::last_os_error())
            .with_context(|| format!("cannot set socket option {option}"));
    }
    Ok(())
}

fn receive(socket: &UdpSocket, records: &Records, stop: &AtomicBool, echo: bool) {
    let mut buffer = vec![0; 65_536];
    while !stop.load(Ordering::Relaxed) {
        let Ok((length, source)) = socket.recv_from(&mut buffer) else { continue };
        let datagram = &buffer[..length];
        let Some((stream, sequence, wants_echo)) = read_head(datagram) else { continue };
        lock(records).entry(stream).or_default().arrives(sequence, source);
        if echo && wants_echo {
            // An echo that cannot be sent is missing at the other end.
            let _ = socket.send_to(datagram, source);
        }
    }
}

fn read_head(datagram: &[u8]) -> Option<(u64, u64, bool)> {
    let number = |range: std::ops::Range<usize>| {
        Some(u64::from_be_bytes(datagram.get(range)?.try_into().ok()?))
    };
    if datagram.get(..4)? != MARK {
        return None;
    }
    Some((number(4..12)?, number(12..20)?, *datagram.get(20)? != 0))
}
