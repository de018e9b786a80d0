//! Messages and acknowledgements (docs/protocol.md, types 4 and 5) under a session's keys for
//! them: sealed and opened here, each path with a count of its own, and always by
//! ChaCha20-Poly1305: that data may be read or forged must not mean that anybody says which
//! paths there are. Keys come from a handshake of this process and from nowhere else: what a
//! process before it has counted is not known, and a number is never used twice under a key.
//! Must not know: what messages say, how data is sealed.

use std::collections::BTreeMap;

use mwb_common::integrity::Suite;
use mwb_common::integrity::seal::{Key, Sender, open, seal};
use mwb_common::window::PathWindow;
use mwb_common::wire::{FIELDS, Fields, Header, Kind, flag, header_length, inner};

use crate::bond::SessionId;

/// Of all messages, whatever seals data.
const SUITE: Suite = Suite::ChaCha20Poly1305;
/// The cipher reads words up to so many bytes before what it is given.
const FRONT: usize = 8;

/// Keys of one epoch.
pub struct Keys {
    /// Whose newest packet says that the far end has them too.
    pub epoch: u32,
    sender: Sender,
    seal: Key,
    open: Key,
    /// Sequence of the last message sent, by path.
    sent: BTreeMap<u8, u64>,
    /// What has been seen, by path.
    seen: BTreeMap<u8, PathWindow>,
}

/// A message that is authentic and new.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Opened {
    /// [`Kind::Control`] or [`Kind::Ack`].
    pub kind: Kind,
    /// The sender's number of the path.
    pub path: u8,
    /// Number of the keys.
    pub epoch: u32,
    /// What it says.
    pub text: Vec<u8>,
}

/// Why a packet is no message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refused {
    /// It is no message and no acknowledgement of this version.
    Malformed,
    /// There is no such session.
    UnknownSession,
    /// Its keys are not there.
    UnknownEpoch,
    /// Its check is wrong.
    BadCheck,
    /// It came before, or is too old to know.
    Replayed,
}

impl Refused {
    /// Names of all there are, as counters have them.
    pub const NAMES: [&'static str; 5] =
        ["malformed", "unknown_session", "unknown_epoch", "bad_check", "replayed"];

    /// Its place in [`Self::NAMES`].
    #[must_use]
    pub const fn number(self) -> usize {
        self as usize
    }
}

/// Whose message it is, and under which keys.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Envelope {
    /// The session, as we number them.
    pub session: u32,
    /// The parity of the epoch.
    pub parity: u8,
}

/// Reads what stands open on a packet of type 4 or 5.
///
/// # Errors
/// When it is no such packet of this version.
pub fn envelope(packet: &[u8]) -> Result<Envelope, Refused> {
    let header = header(packet)?;
    Ok(Envelope { session: header.session, parity: header.flags & flag::EPOCH })
}

fn header(packet: &[u8]) -> Result<Header, Refused> {
    let fields = packet.first_chunk::<{ FIELDS as usize }>().ok_or(Refused::Malformed)?;
    let fields: Fields = bytemuck::cast(*fields);
    let header = fields.decode().map_err(|_| Refused::Malformed)?;
    if !matches!(header.kind, Kind::Control | Kind::Ack) {
        return Err(Refused::Malformed);
    }
    let expected = Header {
        flags: header.flags & flag::EPOCH,
        inner: inner::NONE,
        bucket: 0,
        taken: 0,
        flow_sequence: 0,
        ..header
    };
    if header == expected { Ok(header) } else { Err(Refused::Malformed) }
}

impl Keys {
    /// Of a handshake: `keys` are those for messages, by who sends; `sender` is who we are.
    #[must_use]
    pub fn new(epoch: u32, sender: Sender, keys: [Key; 2]) -> Self {
        let [first, second] = keys;
        let (seal, open) = match sender {
            Sender::Initiator => (first, second),
            Sender::Responder => (second, first),
        };
        Self { epoch, sender, seal, open, sent: BTreeMap::new(), seen: BTreeMap::new() }
    }

    /// Makes the packet of a message, or of an acknowledgement. None if nothing can be sealed
    /// any more.
    pub fn seal(
        &mut self,
        kind: Kind,
        session: SessionId,
        path: u8,
        text: &[u8],
    ) -> Option<Vec<u8>> {
        let sent = self.sent.entry(path).or_insert(0);
        let sequence = sent.checked_add(1)?;
        *sent = sequence;
        let header = Header {
            kind,
            flags: (self.epoch & 1) as u8 * flag::EPOCH,
            path,
            inner: inner::NONE,
            session: session.get(),
            sequence,
            bucket: 0,
            taken: 0,
            flow_sequence: 0,
        };
        let mut buffer = vec![0; FRONT];
        buffer.extend_from_slice(bytemuck::bytes_of(&header.encode()));
        buffer.resize(FRONT + header_length(SUITE) as usize, 0);
        buffer.extend_from_slice(text);
        seal(&mut buffer, FRONT as u32, SUITE, &self.seal, self.sender).ok()?;
        Some(buffer.split_off(FRONT))
    }

    /// Opens the packet of a message and takes its number.
    ///
    /// # Errors
    /// When it is not what the far end has sealed under these keys, or came before.
    pub fn open(&mut self, packet: &[u8]) -> Result<Opened, Refused> {
        let header = header(packet)?;
        let mut buffer = vec![0; FRONT];
        buffer.extend_from_slice(packet);
        let other = match self.sender {
            Sender::Initiator => Sender::Responder,
            Sender::Responder => Sender::Initiator,
        };
        open(&mut buffer, FRONT as u32, SUITE, &self.open, other).map_err(|_| Refused::BadCheck)?;
        let window = self.seen.entry(header.path).or_insert(PathWindow::EMPTY);
        window.take(header.sequence).map_err(|_| Refused::Replayed)?;
        let text = buffer.split_off(FRONT + header_length(SUITE) as usize);
        Ok(Opened { kind: header.kind, path: header.path, epoch: self.epoch, text })
    }
}

impl Drop for Keys {
    fn drop(&mut self) {
        (self.seal, self.open) = (Key::default(), Key::default());
        // The compiler must not leave it out because nobody looks any more.
        std::hint::black_box((&self.seal, &self.open));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pair(epoch: u32) -> (Keys, Keys) {
        let keys = [Key::new([1; 32]), Key::new([2; 32])];
        (Keys::new(epoch, Sender::Initiator, keys), Keys::new(epoch, Sender::Responder, keys))
    }

    fn session() -> SessionId {
        SessionId::new(0x0102_0304).unwrap_or(SessionId::MIN)
    }

    #[test]
    fn a_message_is_taken_once_by_the_other_end_only() {
        let (mut ours, mut theirs) = pair(3);
        let first = ours.seal(Kind::Control, session(), 2, b"hello").expect("a packet");
        let second = ours.seal(Kind::Control, session(), 2, b"again").expect("a packet");
        let other = ours.seal(Kind::Control, session(), 9, b"").expect("a packet");
        assert_eq!(envelope(&first), Ok(Envelope { session: 0x0102_0304, parity: 1 }));
        // In any order, and each path by itself.
        for (packet, path, text) in [(&second, 2, "again"), (&first, 2, "hello"), (&other, 9, "")] {
            let opened =
                Opened { kind: Kind::Control, path, epoch: 3, text: text.as_bytes().to_vec() };
            assert_eq!(theirs.open(packet), Ok(opened));
            assert_eq!(theirs.open(packet), Err(Refused::Replayed));
        }
        // What we sent ourselves does not come back.
        assert_eq!(ours.open(&first), Err(Refused::BadCheck));
    }

    #[test]
    fn what_is_not_authentic_moves_nothing() {
        let (mut ours, mut theirs) = pair(0);
        let packet = ours.seal(Kind::Control, session(), 1, b"text").expect("a packet");
        let mut far = packet.clone();
        far[8] = 0xff;
        assert_eq!(theirs.open(&far), Err(Refused::BadCheck));
        let mut broken = packet.clone();
        broken[41] ^= 1;
        assert_eq!(theirs.open(&broken), Err(Refused::BadCheck));
        assert!(theirs.open(&packet).is_ok());
        for (at, value) in [(0, 0x10), (0, 0x16), (1, 2), (3, 4), (17, 1), (23, 1)] {
            let mut other = packet.clone();
            other[at] = value;
            assert_eq!(theirs.open(&other), Err(Refused::Malformed), "{value} at {at}");
        }
        assert_eq!(theirs.open(&packet[..23]), Err(Refused::Malformed));
        assert_eq!(theirs.open(&packet[..39]), Err(Refused::BadCheck));
    }
}
