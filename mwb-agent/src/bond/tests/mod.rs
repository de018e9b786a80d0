//! Both ends against each other, in a world without a network: what one sends is
//! given to the other by the test.

mod cookies;
mod exchange;
mod refusals;
mod schedule;
mod vectors;

use std::net::SocketAddr;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use blake2::{Blake2s256, Digest as _};
use mwb_common::integrity::Suite;
use mwb_common::integrity::seal::Key;

use super::*;

const CHACHA: Suite = Suite::ChaCha20Poly1305;
const SIPHASH: Suite = Suite::SipHash;
const CRC: Suite = Suite::Crc32;

/// Bytes that look like random ones, and are the same in each run.
struct Fixed(u64);

impl Random for Fixed {
    fn fill(&mut self, bytes: &mut [u8]) -> Result<(), NoRandomness> {
        for chunk in bytes.chunks_mut(32) {
            self.0 += 1;
            chunk.copy_from_slice(&Blake2s256::digest(self.0.to_be_bytes())[..chunk.len()]);
        }
        Ok(())
    }
}

fn private(seed: u8) -> PrivateKey {
    PrivateKey::from_bytes(&[seed; 32]).expect("a key")
}

fn id(number: u32) -> SessionId {
    SessionId::new(number).expect("not 0")
}

/// As numbers, to compare.
fn words(keys: [Key; 2]) -> [[u32; 8]; 2] {
    keys.map(|key| key.words())
}

/// A gateway and a server that know each other, at the same moment.
struct World {
    start: Instant,
    now: Instant,
    wall: SystemTime,
    gateway: Initiator,
    server: Responder,
    clients: Clients,
    random: Fixed,
    from: SocketAddr,
    under_load: bool,
    fresh: u32,
}

const GATEWAY: u8 = 11;
const SERVER: u8 = 22;

impl World {
    fn new() -> Self {
        let start = Instant::now();
        let suites = [CHACHA, SIPHASH];
        let client = Client { suites: suites.to_vec(), ..Client::default() };
        Self {
            start,
            now: start,
            wall: UNIX_EPOCH + Duration::from_secs(1_700_000_000),
            gateway: gateway(GATEWAY, SERVER, &suites),
            server: Responder::new(private(SERVER)),
            clients: Clients::from([(private(GATEWAY).public(), client)]),
            random: Fixed(0),
            from: SocketAddr::from(([192, 0, 2, 1], 7000)),
            under_load: false,
            fresh: 900,
        }
    }

    /// Both clocks.
    fn pass(&mut self, time: Duration) {
        self.now += time;
        self.wall += time;
    }

    fn client(&mut self) -> &mut Client {
        self.clients.get_mut(&private(GATEWAY).public()).expect("known")
    }

    fn poll(&mut self, paths: &[u8]) -> Poll {
        self.gateway.poll(self.now, self.wall, paths, &mut self.random).expect("random bytes")
    }

    /// What the gateway sends now.
    fn send(&mut self, paths: &[u8]) -> Sending {
        match self.poll(paths) {
            Poll::Send(sending) => sending,
            other => panic!("{other:?}"),
        }
    }

    /// An initiation for a new session, at once.
    fn initiation(&mut self) -> Vec<u8> {
        self.initiation_by(1)
    }

    fn initiation_by(&mut self, path: u8) -> Vec<u8> {
        self.gateway.start(self.now, Wish::New(id(100)));
        self.send(&[path]).packet
    }

    fn ask(&mut self, packet: &[u8]) -> Result<Answer, Refusal> {
        self.fresh += 1;
        let Self { from, now, under_load, fresh, .. } = *self;
        let question = Question { packet, from, now, under_load, fresh: id(fresh) };
        self.server.answer(&question, &mut self.clients, &mut self.random)
    }

    /// The response, and what the server has got.
    fn answered(&mut self, packet: &[u8]) -> (Vec<u8>, Established) {
        match self.ask(packet) {
            Ok(Answer::Response { packet, client, established }) => {
                assert_eq!(client, private(GATEWAY).public());
                (packet, established)
            }
            other => panic!("{other:?}"),
        }
    }

    /// The cookie message.
    fn cookie_wanted(&mut self, packet: &[u8]) -> Vec<u8> {
        match self.ask(packet) {
            Ok(Answer::CookieWanted { packet }) => packet,
            other => panic!("{other:?}"),
        }
    }

    /// What the gateway makes of a packet.
    fn take(&mut self, packet: &[u8]) -> Result<Taken, Ignored> {
        self.gateway.take(self.now, packet)
    }

    fn established(&mut self, packet: &[u8]) -> Established {
        match self.take(packet) {
            Ok(Taken::Established(established)) => established,
            other => panic!("{other:?}"),
        }
    }

    /// A whole handshake: what the gateway has got, then the server.
    fn agree(&mut self, wish: Wish) -> (Established, Established) {
        self.gateway.start(self.now, wish);
        let sending = self.send(&[1]);
        let (response, server) = self.answered(&sending.packet);
        (self.established(&response), server)
    }

    /// Both ends have a session in use; as the gateway knows it.
    fn with_session(&mut self) -> Running {
        let (_, server) = self.agree(Wish::New(id(100)));
        let running = running(&server);
        self.client().running = Some(running);
        Running { ours: running.theirs, theirs: running.ours, ..running }
    }
}

fn gateway(key: u8, server: u8, suites: &[Suite]) -> Initiator {
    let suites = suites.iter().copied().collect();
    Initiator::new(private(key), private(server).public(), suites)
}

/// The session once a packet was opened with its keys.
fn running(established: &Established) -> Running {
    let Established { ours, theirs, epoch, suite, .. } = *established;
    Running { ours, theirs, epoch, suite }
}
