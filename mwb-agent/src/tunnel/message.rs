//! What the two ends tell each other about paths (docs/protocol.md, Messages): the
//! text of packets of type 4. Each says how things are and not what has changed, so
//! that one that comes twice changes nothing, and has a serial, so that one that was
//! overtaken does not either. Must not know: keys, sockets, who says it.

use crate::config::Balance;

/// Bytes that every message begins with.
const HEAD: usize = 8;
/// Bytes of a [`Join`].
pub const JOIN: usize = HEAD + 16;
/// Bytes of a [`Joined`].
pub const JOINED: usize = HEAD + 4;
/// Bytes of a [`Down`].
pub const DOWN: usize = HEAD + 32;
/// Bytes of a [`Leave`].
pub const LEAVE: usize = HEAD;

/// Any of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Message {
    /// From the gateway: the path that this came by is one of the session.
    Join(Join),
    /// From the server: the answer.
    Joined(Joined),
    /// From either end: what must not be used.
    Down(Down),
    /// From the gateway: the path is none of the session any more.
    Leave(Leave),
}

/// A path joins, or says how it is now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Join {
    /// The path, from 1.
    pub path: u8,
    /// Of what the gateway says of this path, [`Leave`] included.
    pub serial: u32,
    /// 0 is the best.
    pub priority: u8,
    /// How packets to the gateway are shared among its paths.
    pub balance: Balance,
    /// Share among paths of one priority, from 1.
    pub weight: u16,
    /// What the path carries to the gateway at most, in bit/s; 0 = nobody has said.
    pub capacity: u64,
    /// Bytes in 100 ms from where on a flow is an elephant.
    pub elephant_bytes: u32,
    /// Each byte of it costs: while it carries nothing it is probed seldom.
    pub metered: bool,
}

/// A [`Join`] was taken, or never will be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Joined {
    /// The path.
    pub path: u8,
    /// Of the [`Join`].
    pub serial: u32,
    /// What has become of it.
    pub verdict: Verdict,
}

/// What a server says to a [`Join`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Verdict {
    /// The path is one of the session.
    Taken = 0,
    /// The server has no room for a path of this number.
    NoRoom = 1,
}

/// Which paths the sender cannot use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Down {
    /// Of what the sender says of all paths.
    pub serial: u32,
    /// The paths.
    pub paths: PathSet,
}

/// A path leaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Leave {
    /// The path.
    pub path: u8,
    /// Of what the gateway says of this path, [`Join`] included.
    pub serial: u32,
}

/// A set of paths from 1 on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct PathSet([u8; 32]);

impl PathSet {
    /// Whether the path is one of them.
    #[must_use]
    pub const fn contains(&self, path: u8) -> bool {
        self.0[path as usize / 8] >> (path % 8) & 1 != 0
    }

    /// All of them, in order.
    pub fn iter(&self) -> impl Iterator<Item = u8> {
        (1..=u8::MAX).filter(|&path| self.contains(path))
    }
}

impl FromIterator<u8> for PathSet {
    /// Path 0 is none.
    fn from_iter<I: IntoIterator<Item = u8>>(paths: I) -> Self {
        let mut set = Self::default();
        for path in paths.into_iter().filter(|&path| path != 0) {
            set.0[usize::from(path) / 8] |= 1 << (path % 8);
        }
        set
    }
}

/// Why bytes are no message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NoMessage {
    /// This version has none of the number.
    #[error("there is no message {0}")]
    Unknown(u8),
    /// It is shorter or longer than the message is.
    #[error("{0} bytes are not the length of the message")]
    Length(usize),
    /// A field has a value that it cannot have, or bytes are in use that are none's.
    #[error("a field has a value that the message cannot have")]
    Field,
}

/// Numbers of the messages.
mod number {
    pub(super) const JOIN: u8 = 1;
    pub(super) const JOINED: u8 = 2;
    pub(super) const DOWN: u8 = 3;
    pub(super) const LEAVE: u8 = 4;
}

/// Flag of a [`Join`]: the path is metered.
const METERED: u8 = 1;

/// What the modes are called on the wire.
fn balance_number(balance: Balance) -> u8 {
    match balance {
        Balance::RoundRobin => 1,
        Balance::Weighted => 2,
        Balance::LeastUsed => 3,
        Balance::LeastLatency => 4,
        Balance::PerFlow => 5,
        Balance::Adaptive => 6,
        Balance::Failover => 7,
    }
}

impl Message {
    /// As it is sent, before it is sealed.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let (number, path, serial, length) = match self {
            Self::Join(join) => (number::JOIN, join.path, join.serial, JOIN),
            Self::Joined(joined) => (number::JOINED, joined.path, joined.serial, JOINED),
            Self::Down(down) => (number::DOWN, 0, down.serial, DOWN),
            Self::Leave(leave) => (number::LEAVE, leave.path, leave.serial, LEAVE),
        };
        let metered = matches!(self, Self::Join(join) if join.metered);
        let flags = if metered { METERED } else { 0 };
        let mut bytes = Vec::with_capacity(length);
        bytes.extend_from_slice(&[number, path, flags, 0]);
        bytes.extend_from_slice(&serial.to_be_bytes());
        match self {
            Self::Join(join) => {
                bytes.extend_from_slice(&[join.priority, balance_number(join.balance)]);
                bytes.extend_from_slice(&join.weight.to_be_bytes());
                bytes.extend_from_slice(&join.capacity.to_be_bytes());
                bytes.extend_from_slice(&join.elephant_bytes.to_be_bytes());
            }
            Self::Joined(joined) => bytes.extend_from_slice(&[joined.verdict as u8, 0, 0, 0]),
            Self::Down(down) => bytes.extend_from_slice(&down.paths.0),
            Self::Leave(_) => {}
        }
        bytes
    }

    /// Reads what was opened.
    ///
    /// # Errors
    /// When it is no message of this version.
    pub fn decode(bytes: &[u8]) -> Result<Self, NoMessage> {
        let length = NoMessage::Length(bytes.len());
        let (&[number, path, flags, reserved, a, b, c, d], body) =
            bytes.split_first_chunk::<HEAD>().ok_or(length)?;
        let serial = u32::from_be_bytes([a, b, c, d]);
        let of_a_path = match number {
            number::JOIN | number::JOINED | number::LEAVE => true,
            number::DOWN => false,
            other => return Err(NoMessage::Unknown(other)),
        };
        let known = if number == number::JOIN { METERED } else { 0 };
        if flags & !known != 0 || reserved != 0 || (path != 0) != of_a_path || serial == 0 {
            return Err(NoMessage::Field);
        }
        let exact = |body: &[u8], whole: usize| {
            if body.len() + HEAD == whole { Ok(()) } else { Err(length) }
        };
        match number {
            number::JOIN => {
                exact(body, JOIN)?;
                let join = join(path, serial, body).ok_or(NoMessage::Field)?;
                Ok(Self::Join(Join { metered: flags & METERED != 0, ..join }))
            }
            number::JOINED => {
                let verdict = match *<&[u8; 4]>::try_from(body).map_err(|_| length)? {
                    [0, 0, 0, 0] => Verdict::Taken,
                    [1, 0, 0, 0] => Verdict::NoRoom,
                    _ => return Err(NoMessage::Field),
                };
                Ok(Self::Joined(Joined { path, serial, verdict }))
            }
            number::DOWN => {
                let paths = PathSet(*<&[u8; 32]>::try_from(body).map_err(|_| length)?);
                if paths.contains(0) {
                    return Err(NoMessage::Field);
                }
                Ok(Self::Down(Down { serial, paths }))
            }
            _ => {
                exact(body, LEAVE)?;
                Ok(Self::Leave(Leave { path, serial }))
            }
        }
    }
}

fn join(path: u8, serial: u32, body: &[u8]) -> Option<Join> {
    let (&[priority, balance, high, low], rest) = body.split_first_chunk::<4>()?;
    let (capacity, rest) = rest.split_first_chunk()?;
    let elephant_bytes = rest.first_chunk()?;
    let weight = u16::from_be_bytes([high, low]);
    if weight == 0 {
        return None;
    }
    Some(Join {
        path,
        serial,
        priority,
        balance: Balance::ALL.into_iter().find(|known| balance_number(*known) == balance)?,
        weight,
        capacity: u64::from_be_bytes(*capacity),
        elephant_bytes: u32::from_be_bytes(*elephant_bytes),
        metered: false,
    })
}

/// Whether a message says something new: of a [`Down`], by session; of a [`Join`] or
/// [`Leave`], by path.
///
/// Serials begin anew with each epoch, for a sender that was restarted knows none; it
/// has nothing to say before it has made keys for a new one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Newest(Option<(u32, u32)>);

/// What a message with a serial is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum News {
    /// Newer than all: it counts.
    New,
    /// What was said last: only a [`Join`] is answered once more.
    Again,
    /// Older: it counts for nothing.
    Old,
}

impl Newest {
    /// Takes the serial of an authentic message, and the epoch that it was sealed in.
    pub fn take(&mut self, epoch: u32, serial: u32) -> News {
        let this = Some((epoch, serial));
        match this.cmp(&self.0) {
            std::cmp::Ordering::Less => News::Old,
            std::cmp::Ordering::Equal => News::Again,
            std::cmp::Ordering::Greater => {
                self.0 = this;
                News::New
            }
        }
    }
}

#[cfg(test)]
#[path = "message_tests.rs"]
mod tests;
