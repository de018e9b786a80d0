//! Many flows at once, each sending a datagram now and then and each answered:
//! what a change of the gateway must not cost one of.

use std::{
    collections::BTreeMap,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket},
    os::fd::AsFd as _,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, anyhow};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use super::{server::Server, udp::bind};
use crate::lab::{Namespace, wait_until};

/// Servers at each address, all of which a socket of its family speaks to: a flow
/// is a pair.
const SERVERS: u16 = 4;
/// The last answers are waited for this long.
const LINGER: Duration = Duration::from_secs(2);
/// How often a thread looks whether it should end, in milliseconds.
const LOOK: u16 = 50;

/// Answers datagrams with what they hold and the address they came from.
#[derive(Debug)]
pub struct FleetServers {
    /// Four of each address.
    addresses: Vec<Vec<SocketAddr>>,
    _servers: Vec<Server>,
}

impl FleetServers {
    /// Listens on four ports of each address from 7001 on. A fleet has as many
    /// flows to one as to another.
    ///
    /// # Errors
    /// When one cannot be bound.
    pub fn start(namespace: &Namespace, addresses: &[IpAddr]) -> Result<Self> {
        let addresses: Vec<Vec<SocketAddr>> = addresses
            .iter()
            .map(|&ip| {
                (7001..).take(SERVERS.into()).map(|port| SocketAddr::new(ip, port)).collect()
            })
            .collect();
        let mut servers = Vec::new();
        for &address in addresses.iter().flatten() {
            let socket = bind(namespace, address)?;
            servers.push(Server::start(&format!("fleet {address}"), move |stop| {
                let mut buffer = [0; 256];
                while !stop.load(Ordering::Relaxed) {
                    let Ok((length, source)) = socket.recv_from(&mut buffer) else { continue };
                    let mut answer = buffer[..length].to_vec();
                    answer.extend(source.to_string().as_bytes());
                    // An answer that cannot be sent is missing at the other end.
                    let _ = socket.send_to(&answer, source);
                }
            })?);
        }
        Ok(Self { addresses, _servers: servers })
    }
}

/// What has become of one flow.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FlowRecord {
    /// Datagrams sent.
    pub sent: u32,
    /// Different ones that were answered.
    pub answered: u32,
    /// Answers to what had been answered already.
    pub doubled: u32,
    /// What the server saw as its address, in the order of the datagrams; a
    /// change is a move.
    pub seen_as: Vec<SocketAddr>,
    /// How long each answer took, in the order that they came.
    pub round_trips: Vec<Duration>,
    /// When those were sent that were not answered yet.
    waiting: BTreeMap<u32, Instant>,
}

/// A fleet on its way.
#[derive(Debug)]
pub struct Fleet {
    flows: Arc<Mutex<Vec<FlowRecord>>>,
    stop: Arc<AtomicBool>,
    ended: Arc<AtomicBool>,
    threads: Vec<JoinHandle<Result<()>>>,
}

impl Fleet {
    /// Starts `flows` flows that send `rate` datagrams a second all together.
    ///
    /// # Errors
    /// When there are not enough sockets.
    pub fn start(
        namespace: &Namespace,
        servers: &FleetServers,
        flows: usize,
        rate: u32,
    ) -> Result<Self> {
        let count = flows.div_ceil(SERVERS.into());
        let sockets: Arc<Vec<UdpSocket>> = Arc::new(namespace.enter(|| {
            servers
                .addresses
                .iter()
                .cycle()
                .take(count)
                .map(|four| {
                    let any: IpAddr = match four.first().map(SocketAddr::ip) {
                        Some(IpAddr::V6(_)) => Ipv6Addr::UNSPECIFIED.into(),
                        _ => Ipv4Addr::UNSPECIFIED.into(),
                    };
                    let socket = UdpSocket::bind((any, 0))?;
                    socket.set_nonblocking(true)?;
                    Ok(socket)
                })
                .collect()
        })?);
        let records = vec![FlowRecord::default(); flows];
        let fleet = Self {
            flows: Arc::new(Mutex::new(records)),
            stop: Arc::default(),
            ended: Arc::default(),
            threads: Vec::new(),
        };
        fleet.launch(sockets, servers.addresses.clone(), rate)
    }

    fn launch(
        mut self,
        sockets: Arc<Vec<UdpSocket>>,
        servers: Vec<Vec<SocketAddr>>,
        rate: u32,
    ) -> Result<Self> {
        let (listeners, book, ended) =
            (Arc::clone(&sockets), Arc::clone(&self.flows), Arc::clone(&self.ended));
        self.threads.push(
            thread::Builder::new()
                .name("fleet answers".to_owned())
                .spawn(move || listen(&listeners, &book, &ended))?,
        );
        let (book, stop) = (Arc::clone(&self.flows), Arc::clone(&self.stop));
        self.threads.push(
            thread::Builder::new()
                .name("fleet".to_owned())
                .spawn(move || send(&sockets, &servers, rate, &book, &stop))?,
        );
        Ok(self)
    }

    /// Every flow as it is now.
    #[must_use]
    pub fn flows(&self) -> Vec<FlowRecord> {
        lock(&self.flows).clone()
    }

    /// Waits until every flow has been answered `times` more often than now.
    ///
    /// # Errors
    /// When that takes too long.
    pub fn wait_for_answers(&self, times: u32, deadline: Duration) -> Result<()> {
        let before: Vec<u32> = lock(&self.flows).iter().map(|flow| flow.answered).collect();
        wait_until("every flow of the fleet is answered", deadline, || {
            let flows = lock(&self.flows);
            let behind = flows
                .iter()
                .zip(&before)
                .filter(|(flow, before)| flow.answered < *before + times)
                .count();
            anyhow::ensure!(behind == 0, "{behind} flows are behind");
            Ok(true)
        })
        .map(drop)
    }

    /// Ends it, waits for what is still on its way, and gives every flow.
    ///
    /// # Errors
    /// When one of its threads failed.
    pub fn stop(mut self) -> Result<Vec<FlowRecord>> {
        self.stop.store(true, Ordering::Relaxed);
        let (answers, sender) = (self.threads.remove(0), self.threads.remove(0));
        sender.join().map_err(|_| anyhow!("the fleet panicked"))??;
        let start = Instant::now();
        wait_until("nothing more comes", LINGER * 2, || {
            let whole = lock(&self.flows).iter().all(|flow| flow.waiting.is_empty());
            Ok(whole || start.elapsed() > LINGER)
        })?;
        self.ended.store(true, Ordering::Relaxed);
        answers.join().map_err(|_| anyhow!("the fleet panicked"))??;
        Ok(lock(&self.flows).clone())
    }
}

impl Drop for Fleet {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        self.ended.store(true, Ordering::Relaxed);
    }
}

/// Flow `number` is of socket `number / 4`, which speaks to the addresses in turn,
/// and goes to that one's server `number % 4`.
fn send(
    sockets: &[UdpSocket],
    servers: &[Vec<SocketAddr>],
    rate: u32,
    book: &Mutex<Vec<FlowRecord>>,
    stop: &AtomicBool,
) -> Result<()> {
    let count = lock(book).len();
    let start = Instant::now();
    let mut sent = 0_u32;
    while !stop.load(Ordering::Relaxed) {
        let number = sent as usize % count;
        let place = number / usize::from(SERVERS);
        let (socket, four) = (&sockets[place], &servers[place % servers.len()]);
        let round = {
            let mut flows = lock(book);
            let flow = &mut flows[number];
            flow.sent += 1;
            flow.waiting.insert(flow.sent, Instant::now());
            flow.sent
        };
        let datagram = [u32::try_from(number)?.to_be_bytes(), round.to_be_bytes()].concat();
        // One that the host itself refuses is missing, and is found to be.
        let _ = socket.send_to(&datagram, four[number % four.len()]);
        sent += 1;
        let due = start + Duration::from_secs(1) * sent / rate;
        thread::sleep(due.saturating_duration_since(Instant::now()));
    }
    Ok(())
}

fn listen(sockets: &[UdpSocket], book: &Mutex<Vec<FlowRecord>>, ended: &AtomicBool) -> Result<()> {
    let mut buffer = [0; 256];
    while !ended.load(Ordering::Relaxed) {
        let mut ready: Vec<PollFd<'_>> =
            sockets.iter().map(|socket| PollFd::new(socket.as_fd(), PollFlags::POLLIN)).collect();
        if poll(&mut ready, PollTimeout::from(LOOK)).unwrap_or(0) == 0 {
            continue;
        }
        let ready: Vec<bool> = ready.iter().map(|one| one.any().unwrap_or(false)).collect();
        for (socket, _) in sockets.iter().zip(&ready).filter(|(_, ready)| **ready) {
            while let Ok(length) = socket.recv(&mut buffer) {
                note(&buffer[..length], book).context("an answer nobody sent")?;
            }
        }
    }
    Ok(())
}

fn note(answer: &[u8], book: &Mutex<Vec<FlowRecord>>) -> Result<()> {
    let word = |from: usize| -> Result<u32> {
        let bytes = answer.get(from..from + 4).context("too short")?;
        Ok(u32::from_be_bytes(bytes.try_into()?))
    };
    let (number, round) = (word(0)? as usize, word(4)?);
    let seen: SocketAddr = std::str::from_utf8(&answer[8..])?.parse()?;
    let mut flows = lock(book);
    let flow = flows.get_mut(number).context("no such flow")?;
    if let Some(sent) = flow.waiting.remove(&round) {
        flow.answered += 1;
        flow.round_trips.push(sent.elapsed());
    } else {
        flow.doubled += 1;
    }
    if flow.seen_as.last() != Some(&seen) {
        flow.seen_as.push(seen);
    }
    Ok(())
}

fn lock(flows: &Mutex<Vec<FlowRecord>>) -> MutexGuard<'_, Vec<FlowRecord>> {
    flows.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flow_that_moves_and_an_answer_that_comes_twice_are_told() -> Result<()> {
        let book = Mutex::new(vec![FlowRecord::default(); 2]);
        let answer = |round: u32, from: &str| {
            [&1_u32.to_be_bytes()[..], &round.to_be_bytes(), from.as_bytes()].concat()
        };
        lock(&book)[1].waiting.extend([1, 2, 3].map(|round| (round, Instant::now())));
        note(&answer(1, "198.51.100.2:10000"), &book)?;
        note(&answer(1, "198.51.100.2:10000"), &book)?;
        note(&answer(2, "198.51.100.18:10000"), &book)?;
        let flow = lock(&book)[1].clone();
        assert_eq!((flow.answered, flow.doubled, flow.seen_as.len()), (2, 1, 2));
        assert_eq!(flow.round_trips.len(), 2);
        assert!(note(b"short", &book).is_err());
        Ok(())
    }
}
