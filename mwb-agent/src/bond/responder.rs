//! The server's end of the handshake. It keeps nothing of a handshake: one
//! initiation, one answer. Nothing costs more than a hash before MAC 1 is right,
//! and no client's state changes before its initiation is authentic.
//!
//! Must not know: sockets, the clock, sessions beyond what a client has in use.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use mwb_common::integrity::Suite;

use super::cookie::{Jar, Labels};
use super::noise::{self, NoiseError};
use super::packet::{Head, Malformed, Message, Packet, Signed};
use super::random::Random;
use super::{Established, PrivateKey, PublicKey, Running, SessionId, Stamp, payload};

/// Who may have a session.
pub type Clients = BTreeMap<PublicKey, Client>;

/// What the server knows of a client.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Client {
    /// The suites that it may have, the one to choose first.
    pub suites: Vec<Suite>,
    /// The time of its last initiation that was taken.
    pub last: Option<Stamp>,
    /// The session that it has packets opened of. Who owns the session says so, and
    /// not before a packet was opened: an initiation may be one that was recorded,
    /// if the server has been restarted since.
    pub running: Option<Running>,
}

/// An initiation and what is around it.
#[derive(Clone, Copy, Debug)]
pub struct Question<'a> {
    /// What is behind the UDP header.
    pub packet: &'a [u8],
    /// Where it came from.
    pub from: SocketAddr,
    /// When.
    pub now: Instant,
    /// Whether there are more of them than can be answered.
    pub under_load: bool,
    /// The number of the session if it is a new one: one that is not in use.
    pub fresh: SessionId,
}

/// What to send to where the initiation came from.
#[derive(Debug)]
pub enum Answer {
    /// A session or new keys. Nothing is sent with them before a packet was opened
    /// with them; until then all that was before is kept.
    Response {
        /// What to send.
        packet: Vec<u8>,
        /// For whom.
        client: PublicKey,
        /// What it has led to.
        established: Established,
    },
    /// Nothing yet: the server is under load and MAC 2 is not right.
    CookieWanted {
        /// What to send.
        packet: Vec<u8>,
    },
}

/// Why there is no answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// It is no handshake packet.
    Malformed(Malformed),
    /// It is a response or a cookie message.
    NoInitiation,
    /// MAC 1 is not right: the sender does not know our key.
    WrongMac,
    /// It is not made for our key, or of nobody who has the key that it tells.
    BadNoise,
    /// It is authentic, and of nobody whom we know.
    UnknownClient(PublicKey),
    /// It is authentic, and says what this version does not.
    BadPayload(PublicKey),
    /// It is not later than the last of this client, by so much: it was recorded, or
    /// overtaken, or the client's clock was set back.
    Replayed(PublicKey, Duration),
    /// The client accepts no suite that it may have.
    NoSuite(PublicKey),
    /// There are no random bytes.
    NoRandomness,
    /// It is of another version of the protocol, which has this number.
    OtherVersion(u8),
}

impl Refusal {
    /// Names of all there are, as counters have them.
    pub const NAMES: [&'static str; 10] = [
        "malformed",
        "no_initiation",
        "wrong_mac",
        "bad_noise",
        "unknown_client",
        "bad_payload",
        "replayed",
        "no_suite",
        "no_randomness",
        "other_version",
    ];

    /// Its place in [`Self::NAMES`].
    #[must_use]
    pub const fn number(&self) -> usize {
        match self {
            Self::Malformed(_) => 0,
            Self::NoInitiation => 1,
            Self::WrongMac => 2,
            Self::BadNoise => 3,
            Self::UnknownClient(_) => 4,
            Self::BadPayload(_) => 5,
            Self::Replayed(..) => 6,
            Self::NoSuite(_) => 7,
            Self::NoRandomness => 8,
            Self::OtherVersion(_) => 9,
        }
    }

    /// The name for counters.
    #[must_use]
    pub const fn name(&self) -> &'static str {
        Self::NAMES[self.number()]
    }
}

impl From<Malformed> for Refusal {
    fn from(malformed: Malformed) -> Self {
        match malformed {
            Malformed::Version(version) => Self::OtherVersion(version),
            other => Self::Malformed(other),
        }
    }
}

impl From<NoiseError> for Refusal {
    fn from(error: NoiseError) -> Self {
        match error {
            NoiseError::NoRandomness(_) => Self::NoRandomness,
            NoiseError::Refused => Self::BadNoise,
        }
    }
}

/// The server's end of all tunnels.
#[derive(Debug)]
pub struct Responder {
    private: PrivateKey,
    labels: Labels,
    jar: Jar,
}

impl Responder {
    /// An end with this key.
    #[must_use]
    pub fn new(private: PrivateKey) -> Self {
        Self { labels: Labels::new(&private.public()), private, jar: Jar::default() }
    }

    /// Answers an initiation. Of a client that is taken, `last` is the new time.
    ///
    /// # Errors
    /// When it is not answered.
    pub fn answer(
        &mut self,
        question: &Question<'_>,
        clients: &mut Clients,
        random: &mut dyn Random,
    ) -> Result<Answer, Refusal> {
        let initiation = match Packet::decode(question.packet)? {
            Packet::Initiation(initiation) => initiation,
            Packet::Response(_) | Packet::Cookie(_) => return Err(Refusal::NoInitiation),
        };
        if !self.labels.is_mac1(&initiation) {
            return Err(Refusal::WrongMac);
        }
        let Question { from, now, .. } = *question;
        if question.under_load && !self.jar.is_mac2(&initiation, from, now) {
            let packet = self.want_cookie(&initiation, from, now, random);
            return packet.map(|packet| Answer::CookieWanted { packet });
        }
        self.agree(&initiation, question.fresh, clients, random)
    }

    fn want_cookie(
        &mut self,
        initiation: &Signed<'_>,
        from: SocketAddr,
        now: Instant,
        random: &mut dyn Random,
    ) -> Result<Vec<u8>, Refusal> {
        let head = Head { message: Message::Cookie, ..initiation.head };
        self.jar
            .cookie(from, now, random)
            .and_then(|cookie| self.labels.seal(head, &cookie, initiation.mac1, random))
            .map_err(|_| Refusal::NoRandomness)
    }

    fn agree(
        &self,
        initiation: &Signed<'_>,
        fresh: SessionId,
        clients: &mut Clients,
        random: &mut dyn Random,
    ) -> Result<Answer, Refusal> {
        let heard = noise::hear(&self.private, initiation.body, random)?;
        let key = heard.client;
        let client = clients.get_mut(&key).ok_or(Refusal::UnknownClient(key))?;
        let wanted =
            payload::Initiation::decode(&heard.payload).map_err(|_| Refusal::BadPayload(key))?;
        if let Some(last) = client.last.filter(|last| wanted.stamp <= *last) {
            return Err(Refusal::Replayed(key, last.since(wanted.stamp)));
        }
        client.last = Some(wanted.stamp);
        let (ours, epoch, suite) = client.session(&wanted, fresh).ok_or(Refusal::NoSuite(key))?;
        let payload = payload::Response { ours, epoch, suite };
        let (body, keys) = heard.answer(&payload.encode())?;
        let mut packet = Head { message: Message::Response, ..initiation.head }.encode();
        packet.extend_from_slice(&body);
        Labels::new(&key).sign(&mut packet, None);
        let established = Established { ours, theirs: wanted.ours, epoch, suite, keys };
        Ok(Answer::Response { packet, client: key, established })
    }
}

impl Client {
    /// Session, epoch and suite for what is wanted; none without a suite.
    ///
    /// A session goes on if it is this client's, with the numbers and the suite that
    /// it has, from the epoch in use. Anything else begins a new one.
    fn session(
        &self,
        wanted: &payload::Initiation,
        fresh: SessionId,
    ) -> Option<(SessionId, u32, Suite)> {
        let may = |suite: Suite| wanted.suites.contains(suite) && self.suites.contains(&suite);
        let goes_on = self.running.filter(|running| {
            let next = running.next_epoch().map(|epoch| (running.ours, epoch));
            next.is_some()
                && wanted.goes_on == next
                && wanted.ours == running.theirs
                && may(running.suite)
        });
        if let Some(running) = goes_on {
            return Some((running.ours, wanted.epoch(), running.suite));
        }
        let suite = self.suites.iter().copied().find(|suite| wanted.suites.contains(*suite))?;
        Some((fresh, 0, suite))
    }
}
