//! Two streams of numbered datagrams between the same two sockets, one each way and
//! neither an echo of the other: what a cut does to each direction, to the packet.

use std::{
    net::{Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use anyhow::{Result, anyhow};

use super::udp::bind;
use crate::lab::{Namespace, wait_for, wait_until};

/// Head of every datagram: mark and number.
const HEAD: usize = 12;
const MARK: [u8; 4] = *b"mwbD";
/// Number of a datagram that only opens the way.
const HELLO: u64 = u64::MAX;
/// Payload of each, in bytes.
const SIZE: usize = 200;
/// Datagrams that a stream which was held up sends at once, to come up to its rate
/// again.
const BURST: u32 = 64;
/// How long what is on its way may take at the end.
const LINGER: Duration = Duration::from_millis(500);
/// How long the first datagram may take.
const PATIENCE: Duration = Duration::from_secs(5);

/// Both streams on their way. Dropping it ends them.
#[derive(Debug)]
pub struct Duplex {
    stop: Arc<AtomicBool>,
    ended: Arc<AtomicBool>,
    there: Way,
    back: Way,
    threads: Vec<JoinHandle<()>>,
}

/// What both ends of one direction note.
#[derive(Clone, Debug, Default)]
struct Way {
    sent: Arc<Mutex<Vec<Instant>>>,
    arrived: Arc<Mutex<Vec<(u64, Instant)>>>,
}

/// One direction.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Course {
    /// When each datagram was sent.
    pub sent: Vec<Instant>,
    /// When it arrived, if it did.
    pub arrived: Vec<Option<Instant>>,
    /// Arrivals of one that had arrived already.
    pub duplicated: u64,
}

/// Both directions.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DuplexReport {
    /// From the one that began.
    pub there: Course,
    /// To it.
    pub back: Course,
}

impl Duplex {
    /// Begins to send from `near` to `far` at `address`, and, as soon as that has heard
    /// something, back: one datagram every `interval` each way.
    ///
    /// # Errors
    /// When nothing arrives.
    pub fn start(
        near: &Namespace,
        far: &Namespace,
        address: SocketAddr,
        interval: Duration,
    ) -> Result<Self> {
        let far = bind(far, address)?;
        let address = far.local_addr()?;
        let any = match address {
            SocketAddr::V4(_) => SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0)),
            SocketAddr::V6(_) => SocketAddr::from((Ipv6Addr::UNSPECIFIED, 0)),
        };
        let near = bind(near, any)?;
        near.connect(address)?;
        let (source, _) = wait_for("the first datagram arrives", PATIENCE, || {
            near.send(&datagram(HELLO))?;
            let mut buffer = [0; SIZE];
            Ok(far.recv_from(&mut buffer).ok().map(|(_, source)| source))
        })?;
        far.connect(source)?;
        let mut duplex = Self {
            stop: Arc::default(),
            ended: Arc::default(),
            there: Way::default(),
            back: Way::default(),
            threads: Vec::new(),
        };
        duplex.run("there", &near, &far, interval)?;
        duplex.run("back", &far, &near, interval)?;
        Ok(duplex)
    }

    fn run(
        &mut self,
        name: &str,
        from: &UdpSocket,
        to: &UdpSocket,
        interval: Duration,
    ) -> Result<()> {
        let way = if name == "there" { &self.there } else { &self.back };
        let (socket, notes, stop) = (from.try_clone()?, way.sent.clone(), self.stop.clone());
        let sender = move || send(&socket, interval, &notes, &stop);
        let (socket, notes, ended) = (to.try_clone()?, way.arrived.clone(), self.ended.clone());
        let receiver = move || receive(&socket, &notes, &ended);
        let start = |what: &str| thread::Builder::new().name(format!("{name} {what}"));
        self.threads.push(start("to").spawn(receiver)?);
        self.threads.push(start("from").spawn(sender)?);
        Ok(())
    }

    /// How the streams do so far.
    #[must_use]
    pub fn report(&self) -> DuplexReport {
        DuplexReport { there: self.there.course(), back: self.back.course() }
    }

    /// Waits until this many more datagrams have been sent each way.
    ///
    /// # Errors
    /// When that takes five times as long as it should.
    pub fn go_on(&self, count: usize, interval: Duration) -> Result<()> {
        let sent = || lock(&self.there.sent).len().min(lock(&self.back.sent).len());
        let enough = sent() + count;
        let patience = interval * u32::try_from(count)? * 5 + Duration::from_secs(1);
        wait_until("the streams go on", patience, || Ok(sent() >= enough)).map(drop)
    }

    /// Ends both and waits for what is on its way.
    ///
    /// # Errors
    /// When a thread of it panicked.
    pub fn stop(mut self) -> Result<DuplexReport> {
        self.stop.store(true, Ordering::Relaxed);
        let start = Instant::now();
        wait_until("what is on its way arrives", LINGER * 4, || {
            let report = self.report();
            Ok(report.there.lost() + report.back.lost() == 0 || start.elapsed() > LINGER)
        })?;
        self.ended.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            thread.join().map_err(|_| anyhow!("a stream panicked"))?;
        }
        Ok(self.report())
    }
}

impl Drop for Duplex {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        self.ended.store(true, Ordering::Relaxed);
    }
}

impl Way {
    fn course(&self) -> Course {
        // Arrivals first: what arrives has been sent.
        let arrivals = lock(&self.arrived).clone();
        let sent = lock(&self.sent).clone();
        let mut course = Course { arrived: vec![None; sent.len()], sent, duplicated: 0 };
        for (number, at) in arrivals {
            let place = usize::try_from(number).ok().and_then(|n| course.arrived.get_mut(n));
            match place {
                Some(place @ None) => *place = Some(at),
                Some(Some(_)) => course.duplicated += 1,
                // Sent since the look.
                None => {}
            }
        }
        course
    }
}

impl Course {
    /// Datagrams that did not arrive.
    #[must_use]
    pub fn lost(&self) -> u64 {
        self.arrived.iter().filter(|at| at.is_none()).count() as u64
    }

    /// The longest time of sending of which nothing arrived: from the first datagram of
    /// a run of lost ones to the one behind it. That ends are held up by a busy machine
    /// does not show here.
    #[must_use]
    pub fn lost_span(&self) -> Duration {
        let mut longest = Duration::ZERO;
        let mut since = None;
        for (sent, arrived) in self.sent.iter().zip(&self.arrived) {
            match (arrived, since) {
                (None, None) => since = Some(*sent),
                (Some(_), Some(first)) => {
                    longest = longest.max(*sent - first);
                    since = None;
                }
                _ => {}
            }
        }
        let open = since.zip(self.sent.last()).map(|(first, last)| *last - first);
        longest.max(open.unwrap_or_default())
    }

    /// The longest time between two arrivals: what the receiver feels, a busy machine
    /// included.
    #[must_use]
    pub fn silence(&self) -> Duration {
        let mut arrivals: Vec<Instant> = self.arrived.iter().flatten().copied().collect();
        arrivals.sort_unstable();
        arrivals.windows(2).map(|pair| pair[1] - pair[0]).max().unwrap_or_default()
    }

    /// What was sent from a time on.
    #[must_use]
    pub fn since(&self, time: Instant) -> Self {
        let first = self.sent.partition_point(|&sent| sent < time);
        Self {
            sent: self.sent[first..].to_vec(),
            arrived: self.arrived[first..].to_vec(),
            duplicated: self.duplicated,
        }
    }
}

fn lock<T>(notes: &Mutex<Vec<T>>) -> std::sync::MutexGuard<'_, Vec<T>> {
    notes.lock().unwrap_or_else(PoisonError::into_inner)
}

fn datagram(number: u64) -> [u8; SIZE] {
    let mut datagram = [0; SIZE];
    datagram[..4].copy_from_slice(&MARK);
    datagram[4..HEAD].copy_from_slice(&number.to_be_bytes());
    datagram
}

fn send(socket: &UdpSocket, interval: Duration, notes: &Mutex<Vec<Instant>>, stop: &AtomicBool) {
    go_first();
    let mut due = Instant::now();
    let mut number = 0;
    while !stop.load(Ordering::Relaxed) {
        let now = Instant::now();
        if let Some(early) = due.checked_duration_since(now) {
            thread::sleep(early);
        } else if let Some(earliest) = now.checked_sub(interval * BURST) {
            due = due.max(earliest);
        }
        due += interval;
        lock(notes).push(Instant::now());
        // What the socket does not take is lost: an ICMP error that came back is told to
        // the next one who sends.
        if socket.send(&datagram(number)).is_err() {
            let _ = socket.send(&datagram(number));
        }
        number += 1;
    }
}

fn receive(socket: &UdpSocket, notes: &Mutex<Vec<(u64, Instant)>>, ended: &AtomicBool) {
    go_first();
    let mut buffer = [0; SIZE];
    while !ended.load(Ordering::Relaxed) {
        let Ok(length) = socket.recv(&mut buffer) else { continue };
        if let Some(number) = number_of(&buffer[..length]).filter(|&number| number != HELLO) {
            lock(notes).push((number, Instant::now()));
        }
    }
}

fn number_of(datagram: &[u8]) -> Option<u64> {
    let head = datagram.get(..HEAD).filter(|head| head.starts_with(&MARK))?;
    Some(u64::from_be_bytes(head.get(4..)?.try_into().ok()?))
}

/// In front of other processes, as far as we may: what they do is no finding.
fn go_first() {
    // SAFETY: a plain system call; who 0 is the calling thread.
    unsafe { libc::setpriority(libc::PRIO_PROCESS, 0, -20) };
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_course_tells_what_was_lost_and_for_how_long() {
        let start = Instant::now();
        let at = |ms: u64| start + Duration::from_millis(ms);
        let course = Course {
            sent: (0..10).map(at).collect(),
            arrived: [0, 1, 9, 9, 9, 5, 9, 7, 8, 20]
                .iter()
                .zip(0..10)
                .map(|(&ms, number)| (!(2..5).contains(&number) && number != 6).then(|| at(ms)))
                .collect(),
            duplicated: 0,
        };
        assert_eq!(course.lost(), 4);
        assert_eq!(course.lost_span(), Duration::from_millis(3));
        assert_eq!(course.silence(), Duration::from_millis(12));
        assert_eq!(course.since(at(5)).lost(), 1);
    }
}
