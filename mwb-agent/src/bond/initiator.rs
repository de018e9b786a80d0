//! The gateway's end of the handshake: when to send what by which path, and what
//! an answer means.
//!
//! ```text
//!            start            poll, when it is time
//!   Idle ───────────▶ Waiting ◀─────────────────▶ Asked
//!    ▲                   ▲      a cookie: again,    │
//!    │                   └──── by the same path ────┤
//!    └───────────────── the response ───────────────┘
//! ```
//!
//! Must not know: sockets, the clock, what else the session is.

use std::collections::BTreeMap;
use std::time::{Duration, Instant, SystemTime};

use mwb_common::integrity::seal::Key;

use super::cookie::{Cookie, LASTS, Labels};
use super::noise::{self, Begun};
use super::packet::{Head, MAC, Malformed, Message, Packet, SealedCookie, Signed};
use super::payload;
use super::random::{Random, bytes};
use super::{Established, PrivateKey, PublicKey, Running, SessionId, Stamp, Suites};

pub use super::noise::NoiseError;

/// After the first initiation, before the next. Each time after that is twice as
/// long.
pub const FIRST_WAIT: Duration = Duration::from_secs(1);
/// No time between two initiations is longer.
pub const LONGEST_WAIT: Duration = Duration::from_secs(16);
/// A clock that is behind by less has not jumped, it was only asked twice.
const JUMP: Duration = Duration::from_secs(1);

/// What a handshake is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wish {
    /// A new session, which is this one in packets to us.
    New(SessionId),
    /// New keys for a session.
    GoOn(Running),
}

/// What to do now.
#[derive(Debug, PartialEq, Eq)]
pub enum Poll {
    /// No handshake is under way.
    Idle,
    /// Nothing before this time.
    Wait(Instant),
    /// An initiation is due, and there is no path to send it by.
    NoPath,
    /// Send this; ask again at once.
    Send(Sending),
}

/// An initiation to be sent.
#[derive(Debug, PartialEq, Eq)]
pub struct Sending {
    /// By which path.
    pub path: u8,
    /// What is behind the UDP header.
    pub packet: Vec<u8>,
    /// How far the clock is behind the one of the last initiation, if it jumped
    /// back. The server knows the later time only: the initiation has that one.
    pub clock_behind: Option<Duration>,
}

/// What a packet has led to.
#[derive(Debug)]
pub enum Taken {
    /// Keys. Something must be sent with them at once: the other end uses its own
    /// only after that.
    Established(Established),
    /// The server is under load, and the next initiation will convince it.
    Cookie,
}

/// Why a packet changes nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ignored {
    /// It is no handshake packet.
    Malformed(Malformed),
    /// It is an initiation.
    Initiation,
    /// It answers no initiation, or not the last one.
    OtherIndex,
    /// Its MAC 1 is not right.
    WrongMac,
    /// Its keys are not those of the server, or it is not for us.
    BadNoise,
    /// It is from the server, and says what this version does not.
    BadPayload,
    /// It is from the server, and has not what was asked for: a suite that was not
    /// offered, or another epoch.
    NotAsked,
    /// It is no cookie of the server for this initiation.
    BadCookie,
    /// There is a cookie for this initiation already.
    Repeated,
}

/// The gateway's end of one tunnel. Lives as long as the tunnel: it knows what the
/// server knows of it.
pub struct Initiator {
    private: PrivateKey,
    server: PublicKey,
    /// For packets to us.
    our_labels: Labels,
    /// For packets to the server.
    labels: Labels,
    suites: Suites,
    /// Of the last initiation.
    stamp: Option<Stamp>,
    /// The path of the last initiation; 0 before the first.
    path: u8,
    /// Whether the next goes by it, too.
    stays: bool,
    /// By path, and since when.
    cookies: BTreeMap<u8, (Cookie, Instant)>,
    handshake: Option<Handshake>,
}

/// A handshake that is under way.
struct Handshake {
    wish: Wish,
    due: Instant,
    /// From the next initiation to the one after it.
    wait: Duration,
    /// The last initiation, until it is answered.
    asked: Option<Asked>,
}

/// An initiation that was sent.
struct Asked {
    begun: Begun,
    index: u32,
    mac1: [u8; MAC],
    at: Instant,
    with_cookie: bool,
    got_cookie: bool,
}

impl Initiator {
    /// An end with this key, for a server with that key.
    #[must_use]
    pub fn new(private: PrivateKey, server: PublicKey, suites: Suites) -> Self {
        Self {
            our_labels: Labels::new(&private.public()),
            labels: Labels::new(&server),
            private,
            server,
            suites,
            stamp: None,
            path: 0,
            stays: false,
            cookies: BTreeMap::new(),
            handshake: None,
        }
    }

    /// Begins a handshake; one that is under way is given up.
    pub fn start(&mut self, now: Instant, wish: Wish) {
        // After the last epoch there is only a new session.
        let wish = match wish {
            Wish::GoOn(session) if session.next_epoch().is_none() => Wish::New(session.ours),
            wish => wish,
        };
        self.handshake = Some(Handshake { wish, due: now, wait: FIRST_WAIT, asked: None });
    }

    /// Gives up a handshake.
    pub fn stop(&mut self) {
        self.handshake = None;
    }

    /// The server's host answers, if not its agent: the next initiation is to be sent no later
    /// than after this time.
    pub fn hurry(&mut self, now: Instant, most: Duration) {
        if let Some(handshake) = &mut self.handshake {
            handshake.due = handshake.due.min(now + most);
        }
    }

    /// What to do at `now`, which is `time` on the clock on the wall. `paths` are the
    /// numbers of those that can be used, in any order.
    ///
    /// # Errors
    /// When there are no random bytes, or the server's key is none of X25519.
    pub fn poll(
        &mut self,
        now: Instant,
        time: SystemTime,
        paths: &[u8],
        random: &mut dyn Random,
    ) -> Result<Poll, NoiseError> {
        let Some(handshake) = &mut self.handshake else { return Ok(Poll::Idle) };
        if now < handshake.due {
            return Ok(Poll::Wait(handshake.due));
        }
        let Some(path) = next_path(paths, self.path, self.stays) else { return Ok(Poll::NoPath) };
        let on_the_wall = Stamp::at(time);
        let stamp = match self.stamp {
            Some(last) if last >= on_the_wall => last.next(),
            _ => on_the_wall,
        };
        let (ours, goes_on) = match handshake.wish {
            Wish::New(ours) => (ours, None),
            Wish::GoOn(session) => {
                (session.ours, session.next_epoch().map(|epoch| (session.theirs, epoch)))
            }
        };
        let payload = payload::Initiation { stamp, ours, goes_on, suites: self.suites };
        let (begun, body) = noise::begin(&self.private, &self.server, &payload.encode(), random)?;
        let index = u32::from_be_bytes(bytes(random)?);
        let mut packet = Head { path, message: Message::Initiation, index }.encode();
        packet.extend_from_slice(&body);
        self.cookies.retain(|_, (_, since)| now.saturating_duration_since(*since) < LASTS);
        let cookie = self.cookies.get(&path).map(|(cookie, _)| cookie);
        let mac1 = self.labels.sign(&mut packet, cookie);
        let with_cookie = cookie.is_some();
        let asked = Asked { begun, index, mac1, at: now, with_cookie, got_cookie: false };
        handshake.asked = Some(asked);
        handshake.due = now + handshake.wait;
        handshake.wait = (2 * handshake.wait).min(LONGEST_WAIT);
        (self.stamp, self.path, self.stays) = (Some(stamp), path, false);
        let behind = stamp.since(on_the_wall);
        let clock_behind = (behind >= JUMP).then_some(behind);
        Ok(Poll::Send(Sending { path, packet, clock_behind }))
    }

    /// Takes a packet of type 6, from whatever address.
    ///
    /// # Errors
    /// When it changes nothing.
    pub fn take(&mut self, now: Instant, packet: &[u8]) -> Result<Taken, Ignored> {
        match Packet::decode(packet).map_err(Ignored::Malformed)? {
            Packet::Initiation(_) => Err(Ignored::Initiation),
            Packet::Response(response) => self.take_response(&response).map(Taken::Established),
            Packet::Cookie(message) => self.take_cookie(now, &message),
        }
    }

    fn take_response(&mut self, response: &Signed<'_>) -> Result<Established, Ignored> {
        let (wish, _, asked) = asked(&mut self.handshake, response.head.index)?;
        if !self.our_labels.is_mac1(response) {
            return Err(Ignored::WrongMac);
        }
        let (payload, keys) = asked.begun.finish(response.body).map_err(|_| Ignored::BadNoise)?;
        let established = payload::Response::decode(&payload)
            .map_err(|_| Ignored::BadPayload)
            .and_then(|payload| agree(wish, self.suites, &payload, keys));
        match (&established, &mut self.handshake) {
            // What has just worked is the best place to begin the next one.
            (Ok(_), _) => (self.handshake, self.stays) = (None, true),
            // This exchange is over; the next initiation begins another one.
            (Err(_), Some(handshake)) => handshake.asked = None,
            (Err(_), None) => {}
        }
        established
    }

    fn take_cookie(&mut self, now: Instant, message: &SealedCookie<'_>) -> Result<Taken, Ignored> {
        let (_, due, asked) = asked(&mut self.handshake, message.head.index)?;
        if asked.got_cookie {
            return Err(Ignored::Repeated);
        }
        let cookie = self.labels.open(message, &asked.mac1).ok_or(Ignored::BadCookie)?;
        asked.got_cookie = true;
        self.cookies.insert(self.path, (cookie, now));
        // Whoever knows the server's key and sees the initiation can make a cookie
        // message: that must not hold the handshake on the path where it is seen.
        if !asked.with_cookie {
            self.stays = true;
            *due = (*due).min(asked.at + FIRST_WAIT);
        }
        Ok(Taken::Cookie)
    }
}

/// The handshake under way and its last initiation, if that has this index.
fn asked(
    handshake: &mut Option<Handshake>,
    index: u32,
) -> Result<(Wish, &mut Instant, &mut Asked), Ignored> {
    let Some(Handshake { wish, due, asked: Some(asked), .. }) = handshake else {
        return Err(Ignored::OtherIndex);
    };
    if asked.index == index { Ok((*wish, due, asked)) } else { Err(Ignored::OtherIndex) }
}

/// The path after `last` in the order of their numbers, or `last` if it stays and
/// is there.
fn next_path(paths: &[u8], last: u8, stays: bool) -> Option<u8> {
    let usable = || paths.iter().copied().filter(|path| *path != 0);
    if stays && usable().any(|path| path == last) {
        return Some(last);
    }
    usable().filter(|path| *path > last).min().or_else(|| usable().min())
}

/// What a response means for whom it answers.
fn agree(
    wish: Wish,
    suites: Suites,
    response: &payload::Response,
    keys: [Key; 2],
) -> Result<Established, Ignored> {
    let payload::Response { ours: theirs, epoch, suite } = *response;
    let (ours, as_asked) = match wish {
        Wish::New(ours) => (ours, epoch == 0),
        // The server may have lost it, and begins a new one then.
        Wish::GoOn(session) if epoch == 0 => (session.ours, true),
        Wish::GoOn(session) => {
            let same = theirs == session.theirs && suite == session.suite;
            (session.ours, same && session.next_epoch() == Some(epoch))
        }
    };
    if !as_asked || !suites.contains(suite) {
        return Err(Ignored::NotAsked);
    }
    Ok(Established { ours, theirs, epoch, suite, keys })
}
