//! `docs/protocol-handshake-vectors.txt`: whole handshakes that another
//! implementation can compare its own with.

use std::collections::{BTreeMap, VecDeque};
use std::fmt::Write as _;
use std::net::Ipv6Addr;

use super::*;

const FILE: &str = include_str!("../../../../docs/protocol-handshake-vectors.txt");

/// The random bytes of a vector, in the order in which they are drawn.
struct Drawn(VecDeque<Vec<u8>>);

impl Random for Drawn {
    fn fill(&mut self, bytes: &mut [u8]) -> Result<(), NoRandomness> {
        let drawn = self.0.pop_front().ok_or(NoRandomness)?;
        assert_eq!(drawn.len(), bytes.len());
        bytes.copy_from_slice(&drawn);
        Ok(())
    }
}

struct Vector(BTreeMap<&'static str, Vec<u8>>);

impl Vector {
    fn field(&self, name: &str) -> &[u8] {
        self.0.get(name).unwrap_or_else(|| panic!("{name} is missing"))
    }

    fn array<const N: usize>(&self, name: &str) -> [u8; N] {
        self.field(name).try_into().unwrap_or_else(|_| panic!("{name} has another length"))
    }

    fn number(&self, name: &str) -> u32 {
        u32::from_be_bytes(self.array(name))
    }

    fn drawn(&self, names: &[&str]) -> Drawn {
        Drawn(names.iter().map(|name| self.field(name).to_vec()).collect())
    }
}

fn vectors() -> Vec<Vector> {
    let byte = |pair: &[u8]| {
        let pair = std::str::from_utf8(pair).expect("hex digits");
        u8::from_str_radix(pair, 16).expect("hex digits")
    };
    let lines = FILE.lines().filter(|line| !line.starts_with('#'));
    let mut vectors = vec![BTreeMap::new()];
    for line in lines {
        match line.split_once(':') {
            Some((name, digits)) => {
                let bytes = digits.trim().as_bytes().chunks(2).map(byte).collect();
                let vector: &mut BTreeMap<_, _> = vectors.last_mut().expect("one at least");
                assert!(vector.insert(name, bytes).is_none(), "{name} twice");
            }
            None => vectors.push(BTreeMap::new()),
        }
    }
    vectors.into_iter().filter(|vector| !vector.is_empty()).map(Vector).collect()
}

fn key_bytes(key: Key) -> Vec<u8> {
    key.words().iter().flat_map(|word| word.to_le_bytes()).collect()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

/// Both ends of a vector.
struct Ends<'a> {
    vector: &'a Vector,
    gateway: Initiator,
    server: Responder,
    clients: Clients,
    start: Instant,
    wall: SystemTime,
}

impl<'a> Ends<'a> {
    fn new(vector: &'a Vector) -> Self {
        let private = |name| PrivateKey::from_bytes(&vector.array(name)).expect("a key");
        let (gateway, server) = (private("gateway private"), private("server private"));
        let [offered, suite] = ["suites", "suite"].map(|name| vector.field(name)[0]);
        let suite = Suite::from_number(suite).expect("a suite");
        let ours = id(vector.number("gateway session"));
        let running = SessionId::new(vector.number("goes on with")).map(|theirs| {
            let epoch = vector.number("epoch") - 1;
            Running { ours, theirs, epoch, suite }
        });
        let there = running.map(|here| Running { ours: here.theirs, theirs: here.ours, ..here });
        let client = Client { suites: vec![suite], last: None, running: there };
        let start = Instant::now();
        let clients = Clients::from([(gateway.public(), client)]);
        let suites = Suites::from_bits(offered);
        let mut gateway = Initiator::new(gateway, server.public(), suites);
        gateway.start(start, running.map_or(Wish::New(ours), Wish::GoOn));
        let wall = UNIX_EPOCH + Duration::from_secs(u64::from_be_bytes(vector.array("time")));
        Self { vector, gateway, server: Responder::new(server), clients, start, wall }
    }

    /// An initiation so much after the start, and its answer.
    fn ask(
        &mut self,
        after: Duration,
        under_load: bool,
        draws: &[&str],
        answer_draws: &[&str],
    ) -> (Vec<u8>, Answer) {
        let (vector, now) = (self.vector, self.start + after);
        let paths = vector.field("path");
        let polled = self.gateway.poll(now, self.wall + after, paths, &mut vector.drawn(draws));
        let Ok(Poll::Send(Sending { packet, .. })) = polled else { panic!("{polled:?}") };
        let from = SocketAddr::new(
            Ipv6Addr::from(vector.array::<16>("address")).to_canonical(),
            u16::from_be_bytes(vector.array("port")),
        );
        let fresh = id(vector.number("server session"));
        let question = Question { packet: &packet, from, now, under_load, fresh };
        let mut random = vector.drawn(answer_draws);
        let answer = self.server.answer(&question, &mut self.clients, &mut random);
        (packet, answer.expect("an answer"))
    }
}

/// What comes out of what the vector begins with.
fn made(vector: &Vector) -> Vec<(&'static str, Vec<u8>)> {
    let mut ends = Ends::new(vector);
    let mut out = Vec::new();
    let with_cookie = vector.0.contains_key("cookie secret");
    if with_cookie {
        let draws = (["first ephemeral", "first index"], ["cookie secret", "cookie nonce"]);
        let (packet, answer) = ends.ask(Duration::ZERO, true, &draws.0, &draws.1);
        let Answer::CookieWanted { packet: message } = answer else { panic!("{answer:?}") };
        let taken = ends.gateway.take(ends.start, &message);
        assert!(matches!(taken, Ok(Taken::Cookie)), "{taken:?}");
        out.extend([("first initiation", packet), ("cookie message", message)]);
    }
    let after = Duration::from_secs(with_cookie.into());
    let draws = ["gateway ephemeral", "index"];
    let (packet, answer) = ends.ask(after, with_cookie, &draws, &["server ephemeral"]);
    let Answer::Response { packet: response, client, established } = answer else {
        panic!("{answer:?}");
    };
    let taken = ends.gateway.take(ends.start + after, &response);
    let Ok(Taken::Established(ours)) = taken else { panic!("{taken:?}") };
    assert_eq!(words(ours.keys), words(established.keys));
    assert_eq!(ours.epoch, vector.number("epoch"));
    assert_eq!([ours.suite as u8], vector.field("suite"));
    let server = PrivateKey::from_bytes(&vector.array("server private")).expect("a key").public();
    let [first, second] = ours.keys.map(key_bytes);
    let [first_messages, second_messages] = ours.message_keys().map(key_bytes);
    assert_eq!(ours.message_keys().map(key_bytes), established.message_keys().map(key_bytes));
    out.extend([
        ("gateway public", client.bytes().to_vec()),
        ("server public", server.bytes().to_vec()),
        ("initiation", packet),
        ("response", response),
        ("key of the gateway", first),
        ("key of the server", second),
        ("message key of the gateway", first_messages),
        ("message key of the server", second_messages),
    ]);
    out
}

#[test]
fn every_handshake_comes_out_as_it_stands() {
    let vectors = vectors();
    assert!(vectors.len() >= 3, "{} vectors", vectors.len());
    for (number, vector) in vectors.iter().enumerate() {
        for (name, bytes) in made(vector) {
            let expected = vector.0.get(name).map(|bytes| hex(bytes));
            assert_eq!(expected, Some(hex(&bytes)), "vector {number}: {name}");
        }
    }
}
