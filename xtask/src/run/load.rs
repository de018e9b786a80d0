//! The traffic of a run: downloads, new connections, datagrams and echo
//! requests, IPv4 and IPv6, all counted.

use std::{
    net::{IpAddr, SocketAddr},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread::JoinHandle,
    time::{Duration, Instant},
};

use anyhow::{Result, anyhow};

use crate::lab::{
    Lab,
    address::{NET4, NET6},
    traffic::{
        Attempt, EchoServer, FileServer, PingReport, PingRun, Prober, UdpReport, UdpRun, UdpServer,
        UdpStream, fetch,
    },
};

/// Downloads side by side.
const DOWNLOADS: usize = 6;
/// Bytes of each; small, so that the choice of a WAN is made often.
const FILE: u64 = 2 << 20;
/// A download that gets nothing for so long has failed.
const PATIENCE: Duration = Duration::from_secs(2);
/// UDP streams of each family, and time between two datagrams of each.
const STREAMS: usize = 3;
const DATAGRAM_EVERY: Duration = Duration::from_millis(10);

/// Running traffic.
pub(super) struct Load {
    prober: Prober,
    downloads: Arc<Downloads>,
    workers: Vec<JoinHandle<Result<()>>>,
    streams: Vec<UdpRun>,
    pings: Vec<PingRun>,
    _echo: EchoServer,
    _files: Vec<FileServer>,
    _datagrams: Vec<UdpServer>,
}

#[derive(Debug, Default)]
struct Downloads {
    stop: AtomicBool,
    begun: AtomicU64,
    whole: AtomicU64,
    bytes: AtomicU64,
}

/// How the traffic does so far.
#[derive(Clone, Debug, Default)]
pub(super) struct Figures {
    /// New connections, in the order they began.
    pub(super) attempts: Vec<Attempt>,
    /// Downloads begun.
    pub(super) downloads_begun: u64,
    /// Downloads whose every byte was right.
    pub(super) downloads_whole: u64,
    /// Bytes of downloads that arrived.
    pub(super) download_bytes: u64,
    /// UDP streams.
    pub(super) datagrams: Vec<UdpReport>,
    /// Echo requests; only at the end.
    pub(super) pings: Vec<PingReport>,
}

impl Load {
    pub(super) fn start(lab: &Lab) -> Result<Self> {
        let families: [IpAddr; 2] = [NET4.into(), NET6.into()];
        let echo = EchoServer::start(lab.net(), SocketAddr::new(NET4.into(), 7))?;
        let downloads = Arc::new(Downloads::default());
        let (mut files, mut datagrams) = (Vec::new(), Vec::new());
        let (mut workers, mut streams, mut pings) = (Vec::new(), Vec::new(), Vec::new());
        for to in families {
            let server = FileServer::start(lab.net(), SocketAddr::new(to, 80))?;
            for number in 0..DOWNLOADS / families.len() {
                let (counts, address) = (Arc::clone(&downloads), server.address());
                workers.push(lab.host().thread(&format!("download {number}"), move || {
                    counts.work(address);
                    Ok(())
                })?);
            }
            files.push(server);
            let server = UdpServer::start(lab.net(), SocketAddr::new(to, 9))?;
            for _ in 0..STREAMS {
                let stream = UdpStream::new(u64::MAX, DATAGRAM_EVERY);
                streams.push(stream.start(lab.host(), &server)?);
            }
            datagrams.push(server);
            pings.push(PingRun::start(lab.host(), to, Duration::from_millis(200))?);
        }
        Ok(Self {
            prober: Prober::start(lab.host(), echo.address())?,
            downloads,
            workers,
            streams,
            pings,
            _echo: echo,
            _files: files,
            _datagrams: datagrams,
        })
    }

    /// The figures so far, without echo requests.
    pub(super) fn figures(&self) -> Figures {
        Figures {
            attempts: self.prober.attempts(),
            downloads_begun: self.downloads.begun.load(Ordering::Relaxed),
            downloads_whole: self.downloads.whole.load(Ordering::Relaxed),
            download_bytes: self.downloads.bytes.load(Ordering::Relaxed),
            datagrams: self.streams.iter().map(UdpRun::report).collect(),
            pings: Vec::new(),
        }
    }

    /// Ends the traffic, lets what is on its way arrive, and gives the figures.
    pub(super) fn stop(self) -> Result<Figures> {
        self.downloads.stop.store(true, Ordering::Relaxed);
        let pings = self.pings.into_iter().map(PingRun::stop).collect::<Result<_>>()?;
        let datagrams = self.streams.into_iter().map(UdpRun::stop).collect::<Result<_>>()?;
        let attempts = self.prober.stop()?;
        for worker in self.workers {
            worker.join().map_err(|_| anyhow!("a download panicked"))??;
        }
        Ok(Figures {
            attempts,
            downloads_begun: self.downloads.begun.load(Ordering::Relaxed),
            downloads_whole: self.downloads.whole.load(Ordering::Relaxed),
            download_bytes: self.downloads.bytes.load(Ordering::Relaxed),
            datagrams,
            pings,
        })
    }
}

impl Downloads {
    /// One after another until the end.
    fn work(&self, server: SocketAddr) {
        while !self.stop.load(Ordering::Relaxed) {
            self.begun.fetch_add(1, Ordering::Relaxed);
            let start = Instant::now();
            let fetched = fetch(server, FILE, PATIENCE, |bytes| {
                self.bytes.fetch_add(bytes, Ordering::Relaxed);
            });
            match fetched {
                Ok(()) => {
                    self.whole.fetch_add(1, Ordering::Relaxed);
                }
                // Cut off: the next one goes another way. Refused at once: not
                // in a tight loop.
                Err(_) => {
                    let pause = Duration::from_millis(100).saturating_sub(start.elapsed());
                    std::thread::sleep(pause);
                }
            }
        }
    }
}
