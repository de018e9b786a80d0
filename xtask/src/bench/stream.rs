//! A stream of new flows: every millisecond a datagram of a flow that nobody has
//! seen, which the server sends back. What a cut does to it is told to the
//! millisecond.

use std::{
    net::{SocketAddrV4, UdpSocket},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, anyhow, bail, ensure};

use super::frames::{self, Endpoints};
use crate::lab::{
    Lab, Namespace,
    address::{HOST4, NET4},
    raw::RawSocket,
};

/// Time between two flows.
pub(super) const EVERY: Duration = Duration::from_millis(1);
/// The server's port.
const SERVER_PORT: u16 = 9;
/// Inside port of flow 0.
const FIRST_PORT: u16 = 20_000;
/// Most flows: each has an inside port of its own.
const MOST: usize = 45_000;
/// How often the server looks whether it should end.
const LOOK: Duration = Duration::from_millis(50);

/// One flow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Attempt {
    /// When its datagram was sent.
    pub(super) sent: Instant,
    /// When the answer came, if it did.
    pub(super) answered: Option<Instant>,
}

/// What both ends share.
#[derive(Debug, Default)]
struct Book {
    attempts: Mutex<Vec<Attempt>>,
    stop: AtomicBool,
}

impl Book {
    fn with<T>(&self, work: impl FnOnce(&mut Vec<Attempt>) -> T) -> T {
        work(&mut self.attempts.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// A stream on its way. Dropping it ends it.
#[derive(Debug)]
pub(super) struct Stream {
    book: Arc<Book>,
    threads: Vec<JoinHandle<Result<()>>>,
}

impl Stream {
    /// Begins to send from the lab's host to its Internet. `macs` are the host's
    /// and the gateway's.
    pub(super) fn start(lab: &Lab, macs: ([u8; 6], [u8; 6])) -> Result<Self> {
        // Nobody listens on the flows' ports: the host must not say so.
        lab.host().nft(&format!(
            "table inet quiet {{\n  chain early {{\n    \
             type filter hook prerouting priority raw;\n    \
             udp sport {SERVER_PORT} drop\n  }}\n}}\n"
        ))?;
        let book = Arc::new(Book::default());
        let answers = Arc::clone(&book);
        let echo = echo(lab.net(), answers)?;
        let flows = Arc::clone(&book);
        let mut socket = lab.host().enter(|| RawSocket::open("lan0"))?;
        let sender = thread::Builder::new()
            .name("new flows".to_owned())
            .spawn(move || send(&mut socket, macs, &flows))?;
        Ok(Self { book, threads: vec![echo, sender] })
    }

    /// All flows so far, in order.
    pub(super) fn attempts(&self) -> Vec<Attempt> {
        self.book.with(|attempts| attempts.clone())
    }

    /// Fails when it does not run any more; with what has ended it.
    pub(super) fn check(&mut self) -> Result<()> {
        let Some(ended) = self.threads.iter().position(JoinHandle::is_finished) else {
            return Ok(());
        };
        let thread = self.threads.remove(ended);
        thread.join().map_err(|_| anyhow!("the stream panicked"))??;
        bail!("the stream has ended")
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        self.book.stop.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            // Whoever wanted to know has asked.
            let _ = thread.join();
        }
    }
}

/// Sends datagrams back.
fn echo(net: &Namespace, book: Arc<Book>) -> Result<JoinHandle<Result<()>>> {
    let socket = net
        .enter(|| UdpSocket::bind((NET4, SERVER_PORT)).context("cannot bind the server's port"))?;
    socket.set_read_timeout(Some(LOOK))?;
    let work = move || {
        let mut buffer = [0; 2048];
        while !book.stop.load(Ordering::Relaxed) {
            let Ok((length, from)) = socket.recv_from(&mut buffer) else { continue };
            let datagram = buffer.get(..length).context("longer than its buffer")?;
            // An answer that cannot be sent is missing at the other end.
            let _ = socket.send_to(datagram, from);
        }
        Ok(())
    };
    thread::Builder::new().name("echo".to_owned()).spawn(work).context("cannot start a thread")
}

/// One flow every millisecond; in between, what comes back is noted.
fn send(socket: &mut RawSocket, macs: ([u8; 6], [u8; 6]), book: &Book) -> Result<()> {
    let start = Instant::now();
    for number in 0..MOST {
        let due = start + EVERY * u32::try_from(number)?;
        loop {
            receive(socket, book)?;
            let early = due.saturating_duration_since(Instant::now());
            if early.is_zero() || book.stop.load(Ordering::Relaxed) {
                break;
            }
            thread::sleep(early.min(EVERY / 2));
        }
        if book.stop.load(Ordering::Relaxed) {
            return Ok(());
        }
        let frame = frames::build(number, macs, endpoints(number)?, frames::LEAST)?;
        book.with(|attempts| attempts.push(Attempt { sent: Instant::now(), answered: None }));
        let (taken, _) = socket.send(&[frame])?;
        ensure!(taken == 1, "the host's device refuses frames");
    }
    bail!("no ports are left after {MOST} flows")
}

fn receive(socket: &mut RawSocket, book: &Book) -> Result<()> {
    let mut wrong = None;
    while 0 < socket.receive(|frame| {
        // Others: ARP, and what has another length.
        if frame.len() != frames::LEAST {
            return;
        }
        if let Err(error) = note(frame, book) {
            wrong = Some(error);
        }
    })? {}
    wrong.map_or(Ok(()), Err)
}

fn note(frame: &[u8], book: &Book) -> Result<()> {
    let received = frames::read(frame, frames::LEAST)?;
    let Endpoints { source, destination } = endpoints(received.flow)?;
    let answer = Endpoints { source: destination, destination: source };
    ensure!(received.endpoints == answer, "flow {} came back as {received:?}", received.flow);
    book.with(|attempts| {
        let attempt = attempts.get_mut(received.flow).context("a flow that was never sent")?;
        attempt.answered.get_or_insert_with(Instant::now);
        Ok(())
    })
}

fn endpoints(number: usize) -> Result<Endpoints> {
    Ok(Endpoints {
        source: SocketAddrV4::new(HOST4, FIRST_PORT + u16::try_from(number)?),
        destination: SocketAddrV4::new(NET4, SERVER_PORT),
    })
}

/// How an outage went.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Outage {
    /// From the cut until every flow is answered again.
    pub(super) gap: Duration,
    /// Flows that were not.
    pub(super) failed: usize,
}

/// What happened to flows that began after `since`: one counts as failed if its
/// answer takes longer than `timely`. `None` while that is not sure, which is
/// until the stream has run without failure for `calm`.
pub(super) fn outage(
    attempts: &[Attempt],
    since: Instant,
    now: Instant,
    timely: Duration,
    calm: Duration,
) -> Option<Outage> {
    let decided = attempts.iter().filter(|a| a.sent >= since && now - a.sent > timely);
    let mut outage = Outage::default();
    let mut last = since;
    for attempt in decided {
        last = attempt.sent;
        let failed = attempt.answered.is_none_or(|at| at - attempt.sent > timely);
        if failed {
            outage.failed += 1;
            outage.gap = attempt.sent + EVERY - since;
        }
    }
    (last.saturating_duration_since(since) >= outage.gap + calm).then_some(outage)
}

#[cfg(test)]
mod tests {
    use super::*;

    const TIMELY: Duration = Duration::from_millis(100);
    const CALM: Duration = Duration::from_millis(50);

    fn stream(start: Instant, fails: impl Fn(u32) -> bool, count: u32) -> Vec<Attempt> {
        (0..count)
            .map(|n| {
                let sent = start + EVERY * n;
                Attempt { sent, answered: (!fails(n)).then_some(sent + EVERY) }
            })
            .collect()
    }

    #[test]
    fn a_gap_ends_with_the_last_flow_that_fails() {
        let start = Instant::now();
        // Half of the flows fail for 200 ms, from 10 ms after the start.
        let all = stream(start, |n| (10..210).contains(&n) && n % 2 == 0, 500);
        let since = start + EVERY * 5;
        let outage = outage(&all, since, start + EVERY * 600, TIMELY, CALM);
        let gap = EVERY * (208 + 1 - 5);
        assert_eq!(outage, Some(Outage { gap, failed: 100 }));
    }

    #[test]
    fn a_gap_is_not_told_before_the_stream_has_been_calm() {
        let start = Instant::now();
        let all = stream(start, |n| n < 300, 320);
        assert_eq!(outage(&all, start, start + EVERY * 600, TIMELY, CALM), None);
        let never = stream(start, |_| true, 320);
        assert_eq!(outage(&never, start, start + EVERY * 600, TIMELY, CALM), None);
    }

    #[test]
    fn an_answer_that_is_late_is_a_failure() {
        let start = Instant::now();
        let mut all = stream(start, |_| false, 300);
        all[7].answered = Some(all[7].sent + TIMELY * 2);
        let outage = outage(&all, start, start + EVERY * 600, TIMELY, CALM);
        assert_eq!(outage, Some(Outage { gap: EVERY * 8, failed: 1 }));
    }
}
