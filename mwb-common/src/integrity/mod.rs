//! What shows that a packet is as it was sent, and by whom: the suites of the
//! protocol, written once for kernel and host. Each reads a packet in words
//! through [`Bytes`], which lies in one piece. Must not know: sessions, headers.

pub mod aead;
pub mod chacha20;
pub mod crc32;
pub mod poly1305;
pub mod seal;
pub mod siphash;

use bytemuck::Pod;

use crate::parse::Bytes;

/// Bytes of a packet that can be written, too.
pub trait BytesMut: Bytes {
    /// Writes a `T` at `offset`; none if it would reach past the end.
    fn write<T: Pod>(&mut self, offset: u32, value: T) -> Option<()>;
    /// Puts in the place of each of the [`WORDS`] little-endian words from `offset` on what
    /// becomes of it, by its number; none, and nothing is changed, if they would reach past
    /// the end. For a packet in the kernel that is one look at where it ends.
    fn change(&mut self, offset: u32, made: impl FnMut(usize, u64) -> u64) -> Option<()>;
}

/// Words that [`BytesMut::change`] changes.
pub const WORDS: usize = 8;

impl BytesMut for [u8] {
    fn write<T: Pod>(&mut self, offset: u32, value: T) -> Option<()> {
        let start = offset as usize;
        let bytes = self.get_mut(start..start.checked_add(size_of::<T>())?)?;
        bytes.copy_from_slice(bytemuck::bytes_of(&value));
        Some(())
    }

    fn change(&mut self, offset: u32, mut made: impl FnMut(usize, u64) -> u64) -> Option<()> {
        let start = offset as usize;
        let bytes = self.get_mut(start..start.checked_add(8 * WORDS)?)?;
        for (number, word) in bytes.chunks_exact_mut(8).enumerate() {
            let after = made(number, bytemuck::pod_read_unaligned::<u64>(word).to_le());
            word.copy_from_slice(&after.to_le_bytes());
        }
        Some(())
    }
}

/// How the packets of a session are checked. The numbers are those of the
/// handshake.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Suite {
    /// Encrypted and authenticated (RFC 8439).
    ChaCha20Poly1305 = 1,
    /// Authenticated: SipHash-2-4, 64 bits.
    SipHash = 2,
    /// Neither: CRC-32, for paths that something else protects.
    Crc32 = 3,
}

impl Suite {
    /// The suite with this number.
    #[must_use]
    #[inline(always)]
    pub const fn from_number(number: u8) -> Option<Self> {
        Some(match number {
            1 => Self::ChaCha20Poly1305,
            2 => Self::SipHash,
            3 => Self::Crc32,
            _ => return None,
        })
    }

    /// Bytes of the check at the end of the header.
    #[must_use]
    #[inline(always)]
    pub const fn check_length(self) -> u32 {
        match self {
            Self::ChaCha20Poly1305 => 16,
            Self::SipHash | Self::Crc32 => 8,
        }
    }
}
