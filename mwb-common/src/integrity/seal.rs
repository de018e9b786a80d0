//! Packets of the protocol (docs/protocol.md), sealed and opened by any suite: what
//! kernel and host share, and the whole of it for the host.

use bytemuck::{Pod, Zeroable};

#[cfg(not(target_arch = "bpf"))]
use super::{BytesMut as _, Suite, aead, crc32::crc32, siphash::siphash};
#[cfg(not(target_arch = "bpf"))]
use crate::parse::Bytes as _;
use crate::wire::{Fields, Kind};

/// Key of one direction and epoch.
#[derive(Clone, Copy, Default, Pod, Zeroable)]
#[repr(C)]
pub struct Key {
    words: [u32; 8],
}

/// Not what is in it.
impl core::fmt::Debug for Key {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str("Key")
    }
}

/// Which end sends: a part of the nonce.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Sender {
    /// The end that began the handshake.
    Initiator = 0,
    /// The other.
    Responder = 1,
}

impl Key {
    /// Of its bytes.
    #[must_use]
    pub fn new(bytes: [u8; 32]) -> Self {
        Self { words: bytemuck::cast(bytes) }
    }

    /// As the cipher takes it.
    #[must_use]
    #[inline(always)]
    pub const fn words(&self) -> [u32; 8] {
        self.words
    }

    /// As SipHash takes it.
    #[must_use]
    #[inline(always)]
    pub const fn siphash(&self) -> [u64; 2] {
        let [a, b, c, d, ..] = self.words;
        [a as u64 | (b as u64) << 32, c as u64 | (d as u64) << 32]
    }
}

/// The nonce of a packet of the cipher, as little-endian words. `sender` is the
/// number of a [`Sender`].
#[must_use]
#[inline(always)]
pub const fn nonce(sender: u8, fields: &Fields) -> [u32; 3] {
    let space = matches!(fields.kind(), Some(Kind::Control | Kind::Ack)) as u8;
    let [low, high] = fields.sequence_words();
    [u32::from_le_bytes([0, sender, space, fields.path()]), low, high]
}

/// A CRC in the place of the check.
#[must_use]
#[inline(always)]
pub const fn crc_check(crc: u32) -> [u8; 8] {
    (crc as u64).to_be_bytes()
}

/// Why a packet cannot be sealed or opened.
#[cfg(not(target_arch = "bpf"))]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NotSealed {
    /// It is shorter than its header, or begins less than 8 bytes behind the
    /// buffer's beginning.
    Length,
    /// Its header is none.
    Header(crate::wire::NoHeader),
    /// Its check is wrong.
    Check,
}

/// Writes the check of the packet that begins at `at`, at least 8, and goes on to
/// the end of `buffer`; encrypts what is behind the header, if the suite does.
///
/// # Errors
/// When it has no header, or is too short for one.
#[cfg(not(target_arch = "bpf"))]
pub fn seal(
    buffer: &mut [u8],
    at: u32,
    suite: Suite,
    key: &Key,
    sender: Sender,
) -> Result<(), NotSealed> {
    let check_at = at + crate::wire::FIELDS;
    let check = whole::<false>(buffer, at, suite, key, sender)?;
    match suite {
        Suite::ChaCha20Poly1305 => buffer.write(check_at, check),
        Suite::SipHash | Suite::Crc32 => {
            let [first, second, ..] = check;
            buffer.write(check_at, [first, second])
        }
    }
    .ok_or(NotSealed::Length)
}

/// Opens what [`seal`] has sealed, in place.
///
/// # Errors
/// When it is not what was sealed under this key; it is of no use then.
#[cfg(not(target_arch = "bpf"))]
pub fn open(
    buffer: &mut [u8],
    at: u32,
    suite: Suite,
    key: &Key,
    sender: Sender,
) -> Result<(), NotSealed> {
    let check_at = at + crate::wire::FIELDS;
    let theirs = match suite {
        Suite::ChaCha20Poly1305 => buffer.read(check_at),
        Suite::SipHash | Suite::Crc32 => {
            buffer.read(check_at).map(|[first, second]: [u32; 2]| [first, second, 0, 0])
        }
    };
    let theirs = theirs.ok_or(NotSealed::Length)?;
    let ours = whole::<true>(buffer, at, suite, key, sender)?;
    let difference = core::hint::black_box(aead::difference(ours, theirs));
    if difference == 0 { Ok(()) } else { Err(NotSealed::Check) }
}

/// The check, as little-endian words; of a short one the rest is 0.
#[cfg(not(target_arch = "bpf"))]
fn whole<const OPEN: bool>(
    buffer: &mut [u8],
    at: u32,
    suite: Suite,
    key: &Key,
    sender: Sender,
) -> Result<[u32; 4], NotSealed> {
    let fields: Fields = buffer.read(at).ok_or(NotSealed::Length)?;
    fields.decode().map_err(NotSealed::Header)?;
    let text = at + crate::wire::header_length(suite);
    let length = buffer.len() as u32;
    if at < 8 || text > length {
        return Err(NotSealed::Length);
    }
    let short = |check: [u8; 8]| {
        let [first, second]: [u32; 2] = bytemuck::cast(check);
        [first, second, 0, 0]
    };
    let check = match suite {
        Suite::ChaCha20Poly1305 => {
            let nonce = nonce(sender as u8, &fields);
            let associated = bytemuck::cast(fields);
            let cipher = if OPEN { aead::open } else { aead::seal };
            cipher(buffer, key.words(), nonce, associated, text)
        }
        Suite::SipHash => {
            let words: [u64; 3] = bytemuck::cast(fields);
            siphash(key.siphash(), words.map(u64::from_le), buffer, text, length - text)
                .map(|hash| short(hash.to_le_bytes()))
        }
        Suite::Crc32 => {
            buffer.write(at + crate::wire::FIELDS, [0u8; 8]).ok_or(NotSealed::Length)?;
            crc32(buffer, at, length - at).map(|crc| short(crc_check(crc)))
        }
    };
    check.ok_or(NotSealed::Length)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::wire::{Header, flag, header_length, inner};

    const SUITES: [Suite; 3] = [Suite::ChaCha20Poly1305, Suite::SipHash, Suite::Crc32];
    const AT: usize = 8;

    fn packet(suite: Suite, kind: Kind, text: &[u8]) -> Vec<u8> {
        let header = Header {
            kind,
            flags: flag::EPOCH,
            path: 2,
            inner: inner::IPV4,
            session: 0x0a0b_0c0d,
            sequence: 77,
            bucket: 5,
            taken: 0,
            flow_sequence: 6,
        };
        let mut packet = vec![0xee; AT];
        packet.extend(bytemuck::bytes_of(&header.encode()));
        packet.resize(AT + header_length(suite) as usize, 0x11);
        packet.extend(text);
        packet
    }

    #[test]
    fn a_flipped_bit_anywhere_is_found() {
        let key = Key::new([9; 32]);
        for suite in SUITES {
            let mut sealed = packet(suite, Kind::Data, &[0x33; 61]);
            let at = AT as u32;
            assert_eq!(seal(&mut sealed, at, suite, &key, Sender::Initiator), Ok(()));
            for bit in 0..8 * (sealed.len() - AT) {
                let mut broken = sealed.clone();
                broken[AT + bit / 8] ^= 1 << (bit % 8);
                let opened = open(&mut broken, at, suite, &key, Sender::Initiator);
                assert!(opened.is_err(), "{suite:?}, bit {bit}");
            }
            for length in AT..sealed.len() {
                let mut short = sealed[..length].to_vec();
                let opened = open(&mut short, at, suite, &key, Sender::Initiator);
                assert!(opened.is_err(), "{suite:?}, {length} bytes");
            }
        }
    }

    #[test]
    fn another_key_sender_or_kind_opens_nothing() {
        let key = Key::new([9; 32]);
        let mut sealed = packet(Suite::ChaCha20Poly1305, Kind::Data, b"hello");
        let suite = Suite::ChaCha20Poly1305;
        assert_eq!(seal(&mut sealed, 8, suite, &key, Sender::Initiator), Ok(()));
        let check = Err(NotSealed::Check);
        assert_eq!(open(&mut sealed.clone(), 8, suite, &key, Sender::Responder), check);
        assert_eq!(
            open(&mut sealed.clone(), 8, suite, &Key::new([8; 32]), Sender::Initiator),
            check
        );
        let nonces = [Kind::Data, Kind::Control].map(|kind| {
            let fields: Fields =
                bytemuck::pod_read_unaligned(&packet(suite, kind, b"")[AT..AT + 24]);
            nonce(Sender::Initiator as u8, &fields)
        });
        assert_ne!(nonces[0], nonces[1]);
    }

    proptest! {
        #[test]
        fn what_is_sealed_is_opened(
            key: [u8; 32],
            suite in prop::sample::select(SUITES.to_vec()),
            text in prop::collection::vec(any::<u8>(), 0..1500),
        ) {
            let key = Key::new(key);
            let plain = packet(suite, Kind::Data, &text);
            let mut sealed = plain.clone();
            prop_assert_eq!(seal(&mut sealed, 8, suite, &key, Sender::Responder), Ok(()));
            prop_assert_eq!(&sealed[..AT + 24], &plain[..AT + 24]);
            prop_assert_eq!(open(&mut sealed, 8, suite, &key, Sender::Responder), Ok(()));
            let at = AT + header_length(suite) as usize;
            prop_assert_eq!(&sealed[at..], &text[..]);
        }
    }
}
