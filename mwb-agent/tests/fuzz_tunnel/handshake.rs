//! Handshakes from the first initiation to the keys, each of their packets spoilt on its
//! way.

use std::net::SocketAddr;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use mwb_agent::bond::cookie::Labels;
use mwb_agent::bond::packet::{COOKIE_MESSAGE, HEAD, INITIATION, MAC, Packet, RESPONSE};
use mwb_agent::bond::{
    Answer, Client, Clients, Established, Ignored, Initiator, NoRandomness, Poll, PrivateKey,
    Question, Refusal, Responder, SessionId, Taken, Wish, payload,
};
use mwb_common::integrity::Suite;
use mwb_common::wire::FIELDS;

use crate::plain::is_header;
use crate::random::Random;
use crate::spoil::spoilt;
use crate::{Tally, count};

/// Spoilt ones of each packet.
const SPOILT: usize = 24;

/// Bytes from the fuzzer's own choices, so that a run is the same every time.
struct Bytes<'a>(&'a mut Random);

impl mwb_agent::bond::Random for Bytes<'_> {
    fn fill(&mut self, bytes: &mut [u8]) -> Result<(), NoRandomness> {
        bytes.fill_with(|| self.0.byte());
        Ok(())
    }
}

/// A gateway and a server that know each other.
pub(crate) struct World {
    now: Instant,
    wall: SystemTime,
    gateway: Initiator,
    server: Responder,
    clients: Clients,
    /// Who makes MAC 1 for the server, and for the gateway: anybody can.
    to_server: Labels,
    to_gateway: Labels,
    from: SocketAddr,
    under_load: bool,
    fresh: u32,
}

fn private(seed: u8) -> PrivateKey {
    PrivateKey::from_bytes(&[seed; 32]).expect("a key")
}

fn id(number: u32) -> SessionId {
    SessionId::new(number).unwrap_or(SessionId::MIN)
}

impl World {
    pub(crate) fn new() -> Self {
        let suites = [Suite::ChaCha20Poly1305, Suite::SipHash];
        let (gateway, server) = (private(11), private(22));
        let client = Client { suites: suites.to_vec(), ..Client::default() };
        World {
            now: Instant::now(),
            wall: UNIX_EPOCH + Duration::from_secs(1_700_000_000),
            clients: Clients::from([(gateway.public(), client)]),
            to_server: Labels::new(&server.public()),
            to_gateway: Labels::new(&gateway.public()),
            gateway: Initiator::new(gateway, server.public(), suites.into_iter().collect()),
            server: Responder::new(server),
            from: SocketAddr::from(([192, 0, 2, 1], 7_000)),
            under_load: false,
            fresh: 900,
        }
    }

    /// One handshake.
    pub(crate) fn turn(&mut self, random: &mut Random, tally: &mut Tally) -> Result<(), String> {
        payloads(random, tally)?;
        // A cookie of before would be good for two minutes more.
        self.pass(Duration::from_secs(300));
        self.gateway.start(self.now, Wish::New(id(random.next() as u32)));
        self.under_load = random.chance(40);
        let mut initiation = self.poll(random)?;
        if self.under_load {
            self.ask_spoilt(random, tally, &initiation)?;
            let Ok(Answer::CookieWanted { packet }) = self.ask(random, &initiation) else {
                return Err("a server under load wants no cookie".to_owned());
            };
            count(tally, "cookie_wanted");
            self.take_spoilt(random, tally, &packet)?;
            match self.gateway.take(self.now, &packet) {
                Ok(Taken::Cookie) => count(tally, "cookie"),
                other => return Err(format!("the cookie led to {other:?}")),
            }
            self.pass(Duration::from_secs(1));
            initiation = self.poll(random)?;
            // What the server asks for now is right.
            if initiation[INITIATION - MAC..] == [0; MAC] {
                return Err("no MAC 2 after a cookie".to_owned());
            }
        }
        let taken = self.ask_spoilt(random, tally, &initiation)?;
        let answer = self.ask(random, &initiation);
        if taken {
            // It was, but for what nothing follows from.
            return match answer {
                Err(Refusal::Replayed(..)) => {
                    count(tally, "replayed");
                    Ok(())
                }
                other => Err(format!("an initiation was taken twice: {other:?}")),
            };
        }
        let (response, server) = match answer {
            Ok(Answer::Response { packet, established, .. }) => (packet, established),
            other => return Err(format!("an initiation led to {other:?}")),
        };
        count(tally, "answered");
        // Each is for the other end.
        match (self.ask(random, &response), self.gateway.take(self.now, &initiation)) {
            (Err(Refusal::NoInitiation), Err(Ignored::Initiation)) => {}
            other => return Err(format!("each end took its own packet: {other:?}")),
        }
        count(tally, "no_initiation");
        let gateway = match self.take_spoilt(random, tally, &response)? {
            Some(established) => established,
            None => match self.gateway.take(self.now, &response) {
                Ok(Taken::Established(established)) => established,
                other => return Err(format!("a response led to {other:?}")),
            },
        };
        count(tally, "established");
        let words = |end: &Established| end.keys.map(|key| key.words());
        let equal = words(&gateway) == words(&server)
            && (gateway.ours, gateway.theirs) == (server.theirs, server.ours)
            && (gateway.epoch, gateway.suite) == (server.epoch, server.suite);
        if equal { Ok(()) } else { Err(format!("{gateway:?}, and {server:?}")) }
    }

    /// Both clocks.
    fn pass(&mut self, time: Duration) {
        self.now += time;
        self.wall += time;
    }

    fn poll(&mut self, random: &mut Random) -> Result<Vec<u8>, String> {
        let path = [random.byte().max(1)];
        // A cookie is of the path that it came by.
        let paths = if self.under_load { &[7][..] } else { &path };
        match self.gateway.poll(self.now, self.wall, paths, &mut Bytes(random)) {
            Ok(Poll::Send(sending)) => Ok(sending.packet),
            other => Err(format!("no initiation: {other:?}")),
        }
    }

    fn ask(&mut self, random: &mut Random, packet: &[u8]) -> Result<Answer, Refusal> {
        self.fresh += 1;
        let question = Question {
            packet,
            from: self.from,
            now: self.now,
            under_load: self.under_load,
            fresh: id(self.fresh),
        };
        self.server.answer(&question, &mut self.clients, &mut Bytes(random))
    }

    /// Gives the server an initiation that was spoilt. Whether one was taken all the
    /// same.
    fn ask_spoilt(
        &mut self,
        random: &mut Random,
        tally: &mut Tally,
        whole: &[u8],
    ) -> Result<bool, String> {
        for _ in 0..SPOILT {
            let bytes = spoil(random, whole, &self.to_server);
            let before = self.clients.clone();
            let answer = self.ask(random, &bytes);
            let same = body(&bytes) == body(whole) && bytes.len() == INITIATION;
            match answer {
                Ok(Answer::Response { .. }) if same => {
                    count(tally, "answered");
                    return Ok(true);
                }
                Ok(Answer::CookieWanted { packet }) if self.under_load => {
                    let head = packet.len() == COOKIE_MESSAGE && packet[28..32] == bytes[28..32];
                    if !head || bytes.len() != INITIATION {
                        return Err(format!("{bytes:02x?} was answered with {packet:02x?}"));
                    }
                    count(tally, "cookie_wanted");
                }
                Ok(answer) => return Err(format!("{bytes:02x?} was answered: {answer:?}")),
                Err(refusal) => count(tally, refusal.name()),
            }
            if before != self.clients {
                return Err(format!("{bytes:02x?} was refused, and is remembered"));
            }
        }
        Ok(false)
    }

    /// Gives the gateway an answer that was spoilt, and what one of them led to that was
    /// spoilt only where nothing follows from it.
    fn take_spoilt(
        &mut self,
        random: &mut Random,
        tally: &mut Tally,
        whole: &[u8],
    ) -> Result<Option<Established>, String> {
        let cookie = whole.len() == COOKIE_MESSAGE;
        for _ in 0..SPOILT {
            let bytes = spoil(random, whole, &self.to_gateway);
            // The path of a cookie message is under nothing.
            let same = bytes.len() == whole.len()
                && bytes[28..32] == whole[28..32]
                && body(&bytes) == body(whole);
            if cookie && same {
                continue;
            }
            match self.gateway.take(self.now, &bytes) {
                Ok(Taken::Established(established)) if same && !cookie => {
                    return Ok(Some(established));
                }
                Ok(taken) => return Err(format!("{bytes:02x?} led to {taken:?}")),
                Err(ignored) => count(tally, name(ignored)),
            }
        }
        Ok(None)
    }
}

/// What of a packet something follows from: a Noise message, or a cookie and its nonce.
fn body(packet: &[u8]) -> Option<&[u8]> {
    let macs = if packet.len() == COOKIE_MESSAGE { 0 } else { 2 * MAC };
    packet.get(HEAD..packet.len().checked_sub(macs)?)
}

/// A packet that was spoilt, now and then with a right MAC 1; it is read as what it is.
fn spoil(random: &mut Random, whole: &[u8], labels: &Labels) -> Vec<u8> {
    let mut bytes = spoilt(random, whole);
    if random.chance(15) && bytes.len() == whole.len() && bytes.len() != COOKIE_MESSAGE {
        let at = bytes.len() - 2 * MAC;
        let mac1 = labels.mac1(&bytes[..at]);
        bytes[at..at + MAC].copy_from_slice(&mac1);
    }
    let read = Packet::decode(&bytes);
    assert_eq!(read.is_ok(), is_packet(&bytes), "{bytes:02x?} is {read:?}");
    if let Ok(read) = read {
        let again = match read {
            Packet::Initiation(signed) | Packet::Response(signed) => {
                let parts = [signed.body, &signed.mac1[..], signed.mac2];
                assert_eq!([signed.before_mac1, signed.mac1, signed.mac2].concat(), bytes);
                assert_eq!([signed.before_mac2, signed.mac2].concat(), bytes);
                [&signed.head.encode()[..], &parts.concat()].concat()
            }
            Packet::Cookie(cookie) => {
                [&cookie.head.encode()[..], cookie.nonce, cookie.sealed].concat()
            }
        };
        assert_eq!(again, bytes, "what is read is made to other bytes");
    }
    bytes
}

/// Whether bytes are a handshake packet, by the words of docs/protocol.md.
fn is_packet(bytes: &[u8]) -> bool {
    let Some(header) = bytes.first_chunk::<{ FIELDS as usize }>() else { return false };
    let Some(&[number, a, b, c]) = bytes.get(24..28).and_then(|four| four.first_chunk()) else {
        return false;
    };
    let length = match number {
        1 => INITIATION,
        2 => RESPONSE,
        3 => COOKIE_MESSAGE,
        _ => return false,
    };
    let mut empty = [0; FIELDS as usize];
    (empty[0], empty[2], empty[15]) = (0x16, header[2], 1);
    is_header(header).is_ok()
        && *header == empty
        && [a, b, c] == [0; 3]
        && bytes.len() == length
        && (number != 2 || bytes[RESPONSE - MAC..] == [0; MAC])
}

/// What the Noise messages say, spoilt.
fn payloads(random: &mut Random, tally: &mut Tally) -> Result<(), String> {
    let mut long = [0; payload::INITIATION];
    long.fill_with(|| random.byte());
    long[25..].fill(0);
    if random.chance(50) {
        long[16..24].fill(0);
    }
    let mut short = [0, 0, 1, 2, 0, 0, 0, 0, 1 + random.below(3) as u8, 0, 0, 0];
    short[..8].fill_with(|| random.byte());
    for _ in 0..2 {
        let at = random.below(long.len());
        long[at] = *random.pick(&[0, 1, 0xff]);
        let at = random.below(short.len());
        short[at] = *random.pick(&[0, 1, 2, 3, 4]);
        let (read, answer) =
            (payload::Initiation::decode(&long), payload::Response::decode(&short));
        if read.is_ok_and(|read| read.encode() != long) {
            return Err(format!("{long:02x?} is {read:?}, which is made to other bytes"));
        }
        if answer.is_ok_and(|answer| answer.encode() != short) {
            return Err(format!("{short:02x?} is {answer:?}, which is made to other bytes"));
        }
        let zero = |bytes: &[u8]| bytes.iter().all(|byte| *byte == 0);
        let goes_on = (zero(&long[16..20]), zero(&long[20..24]));
        let right = !zero(&long[12..16]) && goes_on.0 == goes_on.1 && zero(&long[25..]);
        let right_answer = !zero(&short[..4]) && (1..=3).contains(&short[8]) && zero(&short[9..]);
        if (read.is_ok(), answer.is_ok()) != (right, right_answer) {
            return Err(format!("{long:02x?} is {read:?}, {short:02x?} is {answer:?}"));
        }
        count(tally, if read.is_ok() && answer.is_ok() { "payload" } else { "bad_payload" });
    }
    Ok(())
}

fn name(ignored: Ignored) -> &'static str {
    match ignored {
        Ignored::Malformed(_) => "malformed",
        Ignored::Initiation => "initiation",
        Ignored::OtherIndex => "other_index",
        Ignored::WrongMac => "wrong_mac",
        Ignored::BadNoise => "bad_noise",
        Ignored::BadPayload => "bad_payload",
        Ignored::NotAsked => "not_asked",
        Ignored::BadCookie => "bad_cookie",
        Ignored::Repeated => "repeated",
    }
}
