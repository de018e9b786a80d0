//! ChaCha20-Poly1305 (RFC 8439, 2.8) in place, in turns: the first makes the key
//! of the tag, each other encrypts or decrypts 64 bytes. The kernel side takes
//! them in a loop of its own, [`seal`] and [`open`] are that loop for the host.

use bytemuck::{Pod, Zeroable};

use super::{BytesMut, chacha20::block, poly1305::Poly1305};

/// Bytes that a turn takes.
const STEP: u32 = 64;
/// Bytes of the associated data.
pub const ASSOCIATED: usize = 24;
/// Text this long fits into every packet.
pub const LONGEST: u32 = 0xffff;

/// A packet that is being sealed or opened.
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
#[repr(C)]
pub struct Aead {
    tag: Poly1305,
    key: [u32; 8],
    nonce: [u32; 3],
    associated: [u32; ASSOCIATED / 4],
    /// Offset of the text in the packet.
    text: u32,
    /// Its length in bytes.
    length: u32,
    _padding: u32,
    /// Key stream of the turn; at the end the tag.
    stream: [u32; 16],
}

impl Aead {
    /// Begins. At least 8 bytes are in front of the text. Words are those of the
    /// bytes, little-endian; a nonce is never used twice under a key.
    #[inline(always)]
    #[must_use]
    pub fn new(
        key: [u32; 8],
        nonce: [u32; 3],
        associated: [u32; ASSOCIATED / 4],
        text: u32,
        length: u32,
    ) -> Self {
        let tag = Poly1305::new([0; 8]);
        Self { tag, key, nonce, associated, text, length, _padding: 0, stream: [0; 16] }
    }

    /// How many turns a text of this length takes.
    #[inline(always)]
    #[must_use]
    pub const fn turns(length: u32) -> u32 {
        1 + length.div_ceil(STEP)
    }

    /// Takes turn `index`, of [`Self::turns`] from 0 on, in their order. None if
    /// the text is not there; the packet is of no use then.
    #[inline(always)]
    pub fn turn<const OPEN: bool, B: BytesMut + ?Sized>(
        &mut self,
        bytes: &mut B,
        index: u32,
    ) -> Option<()> {
        self.make_stream(index);
        self.take_text::<OPEN, B>(bytes, index)
    }

    /// First half of a turn: the key stream.
    #[inline(always)]
    pub fn make_stream(&mut self, index: u32) {
        self.stream = block(&self.key, index, &self.nonce);
    }

    /// Second half of a turn: what the key stream is for.
    #[inline(always)]
    pub fn take_text<const OPEN: bool, B: BytesMut + ?Sized>(
        &mut self,
        bytes: &mut B,
        index: u32,
    ) -> Option<()> {
        if index == 0 {
            let [a, b, c, d, e, f, g, h, ..] = self.stream;
            let [first, second, third, fourth, fifth, sixth] = self.associated;
            self.tag = Poly1305::new([a, b, c, d, e, f, g, h]);
            self.tag.take([first, second, third, fourth]);
            self.tag.take([fifth, sixth, 0, 0]);
            return Some(());
        }
        let done = (index - 1) * STEP;
        let (at, left) = (self.text + done, self.length.checked_sub(done)?);
        if left >= STEP {
            return self.block::<OPEN, B>(bytes, at);
        }
        self.sixteen::<OPEN, B, 0>(bytes, at, left)?;
        self.sixteen::<OPEN, B, 1>(bytes, at, left)?;
        self.sixteen::<OPEN, B, 2>(bytes, at, left)?;
        self.sixteen::<OPEN, B, 3>(bytes, at, left)
    }

    /// Takes 64 bytes.
    #[inline(always)]
    fn block<const OPEN: bool, B: BytesMut + ?Sized>(
        &mut self,
        bytes: &mut B,
        at: u32,
    ) -> Option<()> {
        let (stream, tag) = (&self.stream, &mut self.tag);
        let mut first = 0;
        bytes.change(at, |number, before| {
            let key = stream[2 * number] as u64 | (stream[2 * number + 1] as u64) << 32;
            let after = before ^ key;
            let second = if OPEN { before } else { after };
            if number % 2 == 0 {
                first = second;
            } else {
                tag.take([
                    first as u32,
                    (first >> 32) as u32,
                    second as u32,
                    (second >> 32) as u32,
                ]);
            }
            after
        })
    }

    /// Takes sixteen bytes of the 64 at `at`, of which the text has only `left`.
    /// What it needs of the key stream it reads here, not all in one place: there
    /// are not so many registers.
    #[inline(always)]
    fn sixteen<const OPEN: bool, B: BytesMut + ?Sized, const PART: usize>(
        &mut self,
        bytes: &mut B,
        at: u32,
        left: u32,
    ) -> Option<()> {
        let (at, left) = (at + 16 * PART as u32, left.saturating_sub(16 * PART as u32));
        if left == 0 {
            return Some(());
        }
        let word = |i: usize| self.stream[4 * PART + i] as u64;
        let first = eight::<OPEN, B>(bytes, at, left, word(0) | word(1) << 32)?;
        let second = if left > 8 {
            eight::<OPEN, B>(bytes, at + 8, left - 8, word(2) | word(3) << 32)?
        } else {
            0
        };
        self.tag.take([first as u32, (first >> 32) as u32, second as u32, (second >> 32) as u32]);
        Some(())
    }

    /// Ends, after the last turn: [`Self::result`] is the tag from now on.
    #[inline(always)]
    pub fn conclude(&mut self) {
        self.tag.take([ASSOCIATED as u32, 0, self.length, 0]);
        let [a, b, c, d] = self.tag.finish();
        [self.stream[0], self.stream[1], self.stream[2], self.stream[3]] = [a, b, c, d];
    }

    /// The tag.
    #[inline(always)]
    #[must_use]
    pub const fn result(&self) -> [u32; 4] {
        [self.stream[0], self.stream[1], self.stream[2], self.stream[3]]
    }
}

/// Xors eight bytes at `at`, or the `left` there are, and gives the cipher text of
/// them with zeros behind.
#[inline(always)]
fn eight<const OPEN: bool, B: BytesMut + ?Sized>(
    bytes: &mut B,
    at: u32,
    left: u32,
    stream: u64,
) -> Option<u64> {
    // Of the last word of a packet there is only a part: what is read and written
    // in its place are the packet's last eight bytes, the first of them unchanged.
    let lacking = 8u32.saturating_sub(left);
    let at = at.checked_sub(lacking)?;
    let before = u64::from_le_bytes(bytes.read(at)?);
    let after = before ^ stream << (lacking * 8);
    bytes.write(at, after.to_le_bytes())?;
    Some((if OPEN { before } else { after }) >> (lacking * 8))
}

/// Seals `length` bytes from `text` in place and gives the tag. None if they are
/// not there, or fewer than 8 bytes are in front of them.
pub fn seal(
    bytes: &mut [u8],
    key: [u32; 8],
    nonce: [u32; 3],
    associated: [u32; ASSOCIATED / 4],
    text: u32,
) -> Option<[u32; 4]> {
    whole::<false>(bytes, key, nonce, associated, text)
}

/// Opens what [`seal`] has sealed, and gives the tag that it must have had.
pub fn open(
    bytes: &mut [u8],
    key: [u32; 8],
    nonce: [u32; 3],
    associated: [u32; ASSOCIATED / 4],
    text: u32,
) -> Option<[u32; 4]> {
    whole::<true>(bytes, key, nonce, associated, text)
}

fn whole<const OPEN: bool>(
    bytes: &mut [u8],
    key: [u32; 8],
    nonce: [u32; 3],
    associated: [u32; ASSOCIATED / 4],
    text: u32,
) -> Option<[u32; 4]> {
    let length = u32::try_from(bytes.len()).ok()?.checked_sub(text)?;
    if text < 8 || length > LONGEST {
        return None;
    }
    let mut aead = Aead::new(key, nonce, associated, text, length);
    for index in 0..Aead::turns(length) {
        aead.turn::<OPEN, [u8]>(bytes, index)?;
    }
    aead.conclude();
    Some(aead.result())
}

/// 0 if the tags are equal, in a time that tells nothing of where they differ. To
/// be compared with 0 once, behind something that the compiler cannot see through.
#[inline(always)]
#[must_use]
pub const fn difference(ours: [u32; 4], theirs: [u32; 4]) -> u32 {
    (ours[0] ^ theirs[0]) | (ours[1] ^ theirs[1]) | (ours[2] ^ theirs[2]) | (ours[3] ^ theirs[3])
}

#[cfg(test)]
mod tests {
    use chacha20poly1305::{
        ChaCha20Poly1305,
        aead::{AeadInPlace as _, KeyInit as _},
    };
    use proptest::prelude::*;

    use super::*;

    const TEXT: usize = 8;

    /// Cipher text and tag of the crate.
    fn theirs(
        key: [u8; 32],
        nonce: [u8; 12],
        associated: &[u8],
        text: &[u8],
    ) -> (Vec<u8>, Vec<u8>) {
        let mut buffer = text.to_vec();
        let cipher = ChaCha20Poly1305::new(&key.into());
        let tag = cipher.encrypt_in_place_detached(&nonce.into(), associated, &mut buffer);
        (buffer, tag.map(|tag| tag.to_vec()).unwrap_or_default())
    }

    fn check(key: [u8; 32], nonce: [u8; 12], associated: [u8; ASSOCIATED], text: &[u8]) {
        let words = |bytes: &[u8]| bytemuck::pod_read_unaligned::<[u32; 8]>(bytes);
        let (key_words, nonce_words) = (words(&key), bytemuck::pod_read_unaligned(&nonce));
        let associated_words = bytemuck::pod_read_unaligned(&associated);
        let front = [0x5a; TEXT];
        let mut packet = [&front, text].concat();
        let seal = seal(&mut packet, key_words, nonce_words, associated_words, TEXT as u32);
        let (sealed, tag) = theirs(key, nonce, &associated, text);
        let seal = seal.unwrap_or_default();
        assert_eq!(bytemuck::bytes_of(&seal), tag, "{} bytes", text.len());
        assert_eq!(packet, [&front, &sealed[..]].concat(), "{} bytes", text.len());
        let opened = open(&mut packet, key_words, nonce_words, associated_words, TEXT as u32);
        assert_eq!(difference(opened.unwrap_or_default(), seal), 0);
        assert_eq!(packet, [&front, text].concat());
    }

    #[test]
    fn texts_of_every_length_are_sealed_as_by_everybody_else() {
        let text: Vec<u8> =
            (0..9216u32).map(|i| (i.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
        for length in (0..=1600).chain([4096, 9000]) {
            check([7; 32], [length as u8; 12], [length as u8 ^ 0xff; ASSOCIATED], &text[..length]);
        }
        check([0xff; 32], [0xff; 12], [0xff; ASSOCIATED], &[0xff; 1500]);
    }

    #[test]
    fn what_is_too_long_or_not_there_is_not_sealed() {
        assert_eq!(seal(&mut [0; 32], [0; 8], [0; 3], [0; 6], 33), None);
        assert_eq!(seal(&mut [0; 32], [0; 8], [0; 3], [0; 6], 7), None);
        assert_eq!(seal(&mut vec![0; 0x1_0010], [0; 8], [0; 3], [0; 6], 8), None);
    }

    #[test]
    fn a_bit_anywhere_changes_the_tag() {
        let original = {
            let mut packet = [0x42; 8 + 100];
            let tag = seal(&mut packet, [1; 8], [2; 3], [3; 6], 8);
            (packet, tag.unwrap_or_default())
        };
        let open = |packet: &[u8], associated, nonce| {
            let tag = open(&mut packet.to_vec(), [1; 8], nonce, associated, 8);
            difference(tag.unwrap_or_default(), original.1)
        };
        assert_eq!(open(&original.0, [3; 6], [2; 3]), 0);
        for bit in 0..8 * 100 {
            let mut packet = original.0;
            packet[8 + bit / 8] ^= 1 << (bit % 8);
            assert_ne!(open(&packet, [3; 6], [2; 3]), 0, "text, bit {bit}");
        }
        for bit in 0..192 {
            let mut associated = [3; 6];
            associated[bit / 32] ^= 1 << (bit % 32);
            assert_ne!(open(&original.0, associated, [2; 3]), 0, "associated data, bit {bit}");
        }
        for bit in 0..96 {
            let mut nonce = [2; 3];
            nonce[bit / 32] ^= 1 << (bit % 32);
            assert_ne!(open(&original.0, [3; 6], nonce), 0, "nonce, bit {bit}");
        }
    }

    proptest! {
        #[test]
        fn any_text_is_sealed_as_by_everybody_else(
            key: [u8; 32], nonce: [u8; 12], associated: [u8; ASSOCIATED],
            text in prop::collection::vec(any::<u8>(), 0..1500),
        ) {
            check(key, nonce, associated, &text);
        }
    }
}
