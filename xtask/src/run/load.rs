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
        Attempt, Duplex, DuplexReport, EchoServer, FileServer, PingReport, PingRun, Prober,
        UdpReport, UdpRun, UdpServer, UdpStream, fetch,
    },
};

/// What is downloaded.
#[derive(Clone, Copy, Debug)]
pub(super) struct Downloading {
    /// Downloads side by side, of each family.
    each: [usize; 2],
    /// Bytes of each.
    file: u64,
}

impl Downloading {
    /// Many that are small, so that the choice of a WAN is made often.
    pub(super) const MANY: Self = Self { each: [3, 3], file: 2 << 20 };
    /// One after the other, each long enough to meet what happens to the links.
    pub(super) const ONE: Self = Self { each: [1, 0], file: 48 << 20 };
}

/// Time between two packets of the stream that a bond has in each direction.
pub(super) const STREAM_EVERY: Duration = Duration::from_millis(2);
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
    duplex: Option<Duplex>,
    _echo: EchoServer,
    _files: Vec<FileServer>,
    _datagrams: Vec<UdpServer>,
}

#[derive(Debug, Default)]
struct Downloads {
    stop: AtomicBool,
    begun: AtomicU64,
    whole: AtomicU64,
    broken: AtomicU64,
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
    /// Downloads that were reset, or got nothing any more.
    pub(super) downloads_broken: u64,
    /// Bytes of downloads that arrived.
    pub(super) download_bytes: u64,
    /// UDP streams.
    pub(super) datagrams: Vec<UdpReport>,
    /// Echo requests; only at the end.
    pub(super) pings: Vec<PingReport>,
    /// The stream in each direction, if there is one; only at the end.
    pub(super) duplex: Option<DuplexReport>,
}

impl Load {
    /// Starts it, with a stream in each direction if `streaming`.
    pub(super) fn start(lab: &Lab, downloading: Downloading, streaming: bool) -> Result<Self> {
        let families: [IpAddr; 2] = [NET4.into(), NET6.into()];
        let echo = EchoServer::start(lab.net(), SocketAddr::new(NET4.into(), 7))?;
        let downloads = Arc::new(Downloads::default());
        let (mut files, mut datagrams) = (Vec::new(), Vec::new());
        let (mut workers, mut streams, mut pings) = (Vec::new(), Vec::new(), Vec::new());
        for (to, each) in families.into_iter().zip(downloading.each) {
            let server = FileServer::start(lab.net(), SocketAddr::new(to, 80))?;
            for number in 0..each {
                let (counts, address) = (Arc::clone(&downloads), server.address());
                workers.push(lab.host().thread(&format!("download {number}"), move || {
                    counts.work(address, downloading.file);
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
        let duplex = streaming.then(|| {
            let to = SocketAddr::new(NET4.into(), 10);
            Duplex::start(lab.host(), lab.net(), to, STREAM_EVERY)
        });
        Ok(Self {
            duplex: duplex.transpose()?,
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
            downloads_broken: self.downloads.broken.load(Ordering::Relaxed),
            download_bytes: self.downloads.bytes.load(Ordering::Relaxed),
            datagrams: self.streams.iter().map(UdpRun::report).collect(),
            pings: Vec::new(),
            duplex: None,
        }
    }

    /// Ends the traffic, lets what is on its way arrive, and gives the figures.
    pub(super) fn stop(self) -> Result<Figures> {
        self.downloads.stop.store(true, Ordering::Relaxed);
        let pings = self.pings.into_iter().map(PingRun::stop).collect::<Result<_>>()?;
        let duplex = self.duplex.map(Duplex::stop).transpose()?;
        let datagrams = self.streams.into_iter().map(UdpRun::stop).collect::<Result<_>>()?;
        let attempts = self.prober.stop()?;
        for worker in self.workers {
            worker.join().map_err(|_| anyhow!("a download panicked"))??;
        }
        Ok(Figures {
            attempts,
            downloads_begun: self.downloads.begun.load(Ordering::Relaxed),
            downloads_whole: self.downloads.whole.load(Ordering::Relaxed),
            downloads_broken: self.downloads.broken.load(Ordering::Relaxed),
            download_bytes: self.downloads.bytes.load(Ordering::Relaxed),
            datagrams,
            pings,
            duplex,
        })
    }
}

impl Downloads {
    /// One after another until the end.
    fn work(&self, server: SocketAddr, file: u64) {
        while !self.stop.load(Ordering::Relaxed) {
            self.begun.fetch_add(1, Ordering::Relaxed);
            let start = Instant::now();
            let fetched = fetch(server, file, PATIENCE, |bytes| {
                self.bytes.fetch_add(bytes, Ordering::Relaxed);
            });
            match fetched {
                Ok(()) => {
                    self.whole.fetch_add(1, Ordering::Relaxed);
                }
                // Cut off: the next one goes another way. Refused at once: not
                // in a tight loop.
                Err(_) => {
                    self.broken.fetch_add(1, Ordering::Relaxed);
                    let pause = Duration::from_millis(100).saturating_sub(start.elapsed());
                    std::thread::sleep(pause);
                }
            }
        }
    }
}
