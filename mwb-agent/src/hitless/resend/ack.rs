//! What the receiver says of one path: the highest sequence that it took, and which of
//! the 1,024 below it. As bytes, big-endian:
//!
//! | at | length | field |
//! |---|---|---|
//! | 0 | 1 | path, 1 to 15 |
//! | 1 | 7 | reserved, 0 |
//! | 8 | 8 | highest, from 1 |
//! | 16 | 128 | bits: 16 words of 8 bytes |

use std::fmt;

/// Bytes of an [`Ack`].
pub const LENGTH: usize = 144;
/// Sequences below the highest that an [`Ack`] tells of.
pub const REACH: u64 = 1_024;
/// The highest path that an [`Ack`] can be of. The lowest is 1.
pub const LAST_PATH: u8 = 15;

const WORD: u64 = 64;
const WORDS: usize = 16;

/// Which sequences of a path were taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ack {
    /// The path, 1 to [`LAST_PATH`].
    pub path: u8,
    /// The highest sequence taken, from 1.
    pub highest: u64,
    /// Bit i, which is bit i mod 64 of word i div 64 counted from the lowest, says that
    /// `highest - 1 - i` was taken.
    pub bits: [u64; WORDS],
}

/// Why bytes are no [`Ack`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NoAck {
    /// They are not [`LENGTH`] bytes.
    Length(usize),
    /// There is no such path.
    Path(u8),
    /// A reserved byte is not 0.
    Reserved,
    /// The highest sequence is 0, or a bit stands for one below 1.
    Sequence,
}

impl fmt::Display for NoAck {
    fn fmt(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Length(length) => write!(to, "{length} bytes are not an acknowledgement"),
            Self::Path(path) => write!(to, "path {path} is not of 1 to {LAST_PATH}"),
            Self::Reserved => to.write_str("a reserved byte is not 0"),
            Self::Sequence => to.write_str("it tells of a sequence below 1"),
        }
    }
}

impl std::error::Error for NoAck {}

impl Ack {
    /// The bytes to send.
    #[must_use]
    pub fn encode(&self) -> [u8; LENGTH] {
        let mut bytes = [0; LENGTH];
        let words = std::iter::once(&self.highest).chain(&self.bits);
        let (places, _) = bytes.as_chunks_mut();
        for (place, word) in places.iter_mut().skip(1).zip(words) {
            *place = word.to_be_bytes();
        }
        bytes[0] = self.path;
        bytes
    }

    /// Reads what [`Ack::encode`] wrote.
    ///
    /// # Errors
    /// When the bytes are anything else.
    pub fn decode(bytes: &[u8]) -> Result<Self, NoAck> {
        let length = NoAck::Length(bytes.len());
        let bytes: &[u8; LENGTH] = bytes.try_into().map_err(|_| length)?;
        let ([head, highest, words @ ..], _) = bytes.as_chunks::<8>() else { return Err(length) };
        let [path, reserved @ ..] = *head;
        let mut ack = Self { path, highest: u64::from_be_bytes(*highest), bits: [0; WORDS] };
        for (bits, word) in ack.bits.iter_mut().zip(words) {
            *bits = u64::from_be_bytes(*word);
        }
        if reserved != [0; 7] {
            return Err(NoAck::Reserved);
        }
        ack.check()?;
        Ok(ack)
    }

    /// Whether the fields can be.
    pub(crate) fn check(&self) -> Result<(), NoAck> {
        if !(1..=LAST_PATH).contains(&self.path) {
            return Err(NoAck::Path(self.path));
        }
        let below = self.highest.checked_sub(1).ok_or(NoAck::Sequence)?;
        // Bit i stands for sequence below - i: from bit `below` on there is none.
        let stray = self.words().any(|(at, word)| word & !low_bits(below, at) != 0);
        if stray { Err(NoAck::Sequence) } else { Ok(()) }
    }

    /// The lowest sequence that it tells of.
    pub(crate) fn lowest(&self) -> u64 {
        self.highest.saturating_sub(REACH).max(1)
    }

    /// Whether it says that this sequence was taken. If not, it was not, or is above the
    /// highest, or too far below.
    #[must_use]
    pub fn says_taken(&self, sequence: u64) -> bool {
        let Some(behind) = self.highest.checked_sub(sequence) else { return false };
        let Some(bit) = behind.checked_sub(1) else { return true };
        let word = usize::try_from(bit / WORD).ok().and_then(|word| self.bits.get(word));
        word.is_some_and(|word| word >> (bit % WORD) & 1 != 0)
    }

    /// How many above this sequence were taken.
    pub(crate) fn taken_above(&self, sequence: u64) -> u32 {
        let Some(bits) = self.highest.checked_sub(sequence).and_then(|n| n.checked_sub(1)) else {
            return 0;
        };
        let above: u32 =
            self.words().map(|(at, word)| (word & low_bits(bits, at)).count_ones()).sum();
        above + 1
    }

    /// Each word, with the number of its first bit.
    fn words(&self) -> impl Iterator<Item = (u64, u64)> {
        (0..).step_by(WORD as usize).zip(self.bits)
    }
}

/// Of the word that begins with bit `at`, those below bit `count` of all.
fn low_bits(count: u64, at: u64) -> u64 {
    match count.saturating_sub(at) {
        own @ 0..WORD => (1 << own) - 1,
        _ => u64::MAX,
    }
}
