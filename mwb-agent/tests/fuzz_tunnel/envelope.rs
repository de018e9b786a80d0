//! Messages under a session's keys.

use std::num::NonZeroU32;

use chacha20poly1305::ChaCha20Poly1305;
use chacha20poly1305::aead::{AeadInPlace as _, KeyInit as _};
use mwb_agent::bond::SessionId;
use mwb_agent::tunnel::message::Message;
use mwb_agent::tunnel::secure::{Envelope, Keys, Opened, Refused, envelope};
use mwb_common::integrity::Suite;
use mwb_common::integrity::seal::{Key, Sender, open, seal};
use mwb_common::wire::{FIELDS, Kind, header_length};

use crate::plain::{any_message, is_header};
use crate::random::Random;
use crate::spoil::spoilt;
use crate::{Tally, count};

const SUITES: [Suite; 3] = [Suite::ChaCha20Poly1305, Suite::SipHash, Suite::Crc32];
const EPOCH: u32 = 5;
/// For messages, by who sends.
const KEYS: [[u8; 32]; 2] = [[1; 32], [2; 32]];
/// Spoilt ones of each message.
const SPOILT: usize = 8;

/// Both ends of a session.
pub(crate) struct Pair {
    ends: [Keys; 2],
    /// The one that answered the handshake is the first.
    swapped: bool,
}

impl Pair {
    pub(crate) fn new() -> Self {
        let keys = [Key::new(KEYS[0]), Key::new(KEYS[1])];
        let end = |sender| Keys::new(EPOCH, sender, keys);
        Pair { ends: [Sender::Initiator, Sender::Responder].map(end), swapped: false }
    }

    /// A message from one end to the other, spoilt before and whole after that.
    pub(crate) fn turn(&mut self, random: &mut Random, tally: &mut Tally) -> Result<(), String> {
        whole(random)?;
        if random.chance(50) {
            self.ends.swap(0, 1);
            self.swapped = !self.swapped;
        }
        let sender = u8::from(self.swapped);
        let [from, to] = &mut self.ends;
        let session = SessionId::new(random.next() as u32).unwrap_or(NonZeroU32::MIN);
        let (path, message) = (random.byte().max(1), any_message(random));
        let text = message.encode();
        let kind = if random.chance(20) { Kind::Ack } else { Kind::Control };
        let packet = from.seal(kind, session, path, &text).ok_or("nothing can be sealed")?;
        is_sealed(&packet, sender, &text)?;
        for _ in 0..SPOILT {
            let bytes = spoilt(random, &packet);
            outside(&bytes)?;
            if bytes == packet {
                continue;
            }
            match to.open(&bytes) {
                Ok(opened) => return Err(format!("{bytes:02x?} is {opened:02x?}")),
                Err(refused) => count(tally, Refused::NAMES[refused.number()]),
            }
        }
        let parity = (EPOCH & 1) as u8;
        if envelope(&packet) != Ok(Envelope { session: session.get(), parity }) {
            return Err(format!("{packet:02x?} is of {:?}", envelope(&packet)));
        }
        let opened = to.open(&packet);
        if opened != Ok(Opened { kind, path, epoch: EPOCH, text: text.clone() }) {
            return Err(format!("{packet:02x?} is {opened:02x?}"));
        }
        if Message::decode(&text) != Ok(message) {
            return Err(format!("{text:02x?} is no {message:?}"));
        }
        count(tally, "opened");
        match to.open(&packet) {
            Err(Refused::Replayed) => count(tally, "replayed"),
            other => return Err(format!("a second time it is {other:02x?}")),
        }
        Ok(())
    }
}

/// Whether a message is sealed by the words of docs/protocol.md, whatever seals data.
fn is_sealed(packet: &[u8], sender: u8, text: &[u8]) -> Result<(), String> {
    let (header, rest) = packet.split_at(FIELDS as usize);
    let mut nonce = [0, sender, 1, header[2], 0, 0, 0, 0, 0, 0, 0, 0];
    nonce[4..].copy_from_slice(&header[8..16]);
    let mut sealed = text.to_vec();
    let cipher = ChaCha20Poly1305::new(&KEYS[usize::from(sender)].into());
    let tag = cipher
        .encrypt_in_place_detached(&nonce.into(), header, &mut sealed)
        .map_err(|error| error.to_string())?;
    if rest == [&tag[..], &sealed].concat() {
        Ok(())
    } else {
        Err(format!("{packet:02x?} is not {text:02x?} under a key"))
    }
}

/// What stands open on a packet is said of a packet of type 4 only.
fn outside(bytes: &[u8]) -> Result<(), String> {
    let should = bytes.first_chunk::<{ FIELDS as usize }>().is_some_and(|header| {
        is_header(header).is_ok()
            && matches!(header[0], 0x14 | 0x15)
            && header[1] & 0x3e == 0
            && header[3] == 0
            && header[16..18] == [0; 2]
            && header[20..24] == [0; 4]
    });
    let read = envelope(bytes);
    if read.is_ok() == should { Ok(()) } else { Err(format!("{bytes:02x?} is of {read:?}")) }
}

/// Sealing and opening, wherever the packet begins and however long it is.
fn whole(random: &mut Random) -> Result<(), String> {
    let suite = *random.pick(&SUITES);
    let key = Key::new([random.byte(); 32]);
    let at = *random.pick(&[0, 7, 8, 9, 16]);
    let length = random.below(200);
    let mut buffer: Vec<u8> = (0..length).map(|_| random.byte()).collect();
    if let Some(front) = buffer.get_mut(at..at + FIELDS as usize)
        && random.chance(80)
    {
        front.copy_from_slice(&[
            0x10, 1, 1, 4, 1, 2, 3, 4, 0, 0, 0, 0, 0, 0, 0, 9, 5, 6, 0, 0, 7, 8, 9, 9,
        ]);
    }
    let plain = buffer.clone();
    let text = at + header_length(suite) as usize;
    let header = plain.get(at..at + FIELDS as usize).and_then(|header| header.try_into().ok());
    let should =
        at >= 8 && length >= text && header.is_some_and(|header| is_header(header).is_ok());
    let sealed = seal(&mut buffer, at as u32, suite, &key, Sender::Responder);
    if sealed.is_ok() != should {
        return Err(format!("{suite:?} at {at} of {plain:02x?}: {sealed:?}"));
    }
    if sealed.is_err() {
        return Ok(());
    }
    let mut other = spoilt(random, &buffer);
    let differs = other.get(at..) != buffer.get(at..);
    let opened = open(&mut other, at as u32, suite, &key, Sender::Responder);
    if differs && opened.is_ok() {
        return Err(format!("{suite:?} at {at}: {plain:02x?} was spoilt, and opens"));
    }
    let opened = open(&mut buffer, at as u32, suite, &key, Sender::Responder);
    if opened.is_err() || buffer.get(text..) != plain.get(text..) {
        return Err(format!("{suite:?} at {at}: {plain:02x?} is {buffer:02x?}, {opened:?}"));
    }
    Ok(())
}
