//! Static keys of the handshake: X25519 (RFC 7748), written as WireGuard writes
//! them.

use std::fmt;
use std::fs::File;
use std::io::{self, Read as _};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use curve25519_dalek::MontgomeryPoint;
use zeroize::Zeroizing;

use super::random::{NoRandomness, Random};

/// Bytes of a key.
pub const LENGTH: usize = 32;
/// Characters of a key as text.
const CHARACTERS: usize = 44;
/// More than any file with a key has.
const LONGEST_FILE: u64 = 4096;

/// Why text is no key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotAKey {
    /// It has this many characters.
    #[error("a key has 44 characters, this has {0}")]
    Length(usize),
    /// It has characters that base64 has not, or stands for another number of bytes.
    #[error("a key is 32 bytes in base64, this is not")]
    Base64,
    /// All its bytes are 0.
    #[error("a key of zeros only is none")]
    Zero,
    /// It is a point of small order: whoever listens knows what is agreed on with it.
    #[error("nothing is secret with this key: it is no public key of anybody")]
    SmallOrder,
}

/// Why there is no private key in a file.
#[derive(Debug, thiserror::Error)]
pub enum KeyFileError {
    /// It cannot be read.
    #[error("{}: cannot be read: {error}", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// What the system says.
        #[source]
        error: io::Error,
    },
    /// Others than its owner can do something with it.
    #[error(
        "{}: is a private key, and others can read or change it (mode {mode:04o})\n\
         fix: chmod 600 {}",
        path.display(),
        path.display()
    )]
    Exposed {
        /// The file.
        path: PathBuf,
        /// Its permissions.
        mode: u32,
    },
    /// What is in it is no key.
    #[error(
        "{}: {error}\nfix: write a new one with `(umask 077; mwb keygen > {})`",
        path.display(),
        path.display()
    )]
    NotAKey {
        /// The file.
        path: PathBuf,
        /// What it is instead.
        #[source]
        error: NotAKey,
    },
}

/// A private key: 32 bytes, wiped when it is dropped.
#[derive(Clone)]
// In a box, so that moving it about leaves no copies behind.
pub struct PrivateKey(Box<Zeroizing<[u8; LENGTH]>>);

/// A public key: 32 bytes, the u-coordinate, little-endian.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PublicKey([u8; LENGTH]);

impl PrivateKey {
    /// A new one, clamped as X25519 does it when it is used (RFC 7748, 5).
    ///
    /// # Errors
    /// When there are no random bytes.
    pub fn generate(random: &mut dyn Random) -> Result<Self, NoRandomness> {
        let mut key = Box::new(Zeroizing::new([0; LENGTH]));
        random.fill(&mut **key)?;
        key[0] &= 248;
        key[31] = key[31] & 127 | 64;
        Ok(Self(key))
    }

    /// Of its bytes.
    ///
    /// # Errors
    /// When they are all 0.
    pub fn from_bytes(bytes: &[u8; LENGTH]) -> Result<Self, NotAKey> {
        if *bytes == [0; LENGTH] {
            return Err(NotAKey::Zero);
        }
        Ok(Self(Box::new(Zeroizing::new(*bytes))))
    }

    /// Its bytes: not to be kept.
    #[must_use]
    pub fn bytes(&self) -> &[u8; LENGTH] {
        &self.0
    }

    /// The key that others know it by.
    #[must_use]
    pub fn public(&self) -> PublicKey {
        PublicKey(public(&self.0))
    }

    /// As text: 44 characters of base64.
    #[must_use]
    pub fn to_text(&self) -> Zeroizing<String> {
        Zeroizing::new(STANDARD.encode(self.bytes()))
    }

    /// Reads a file that has a key as text, and white space around it at most.
    ///
    /// # Errors
    /// When it cannot be read, others than its owner have any right on it, or it
    /// has no key.
    pub fn read(path: &Path) -> Result<Self, KeyFileError> {
        let unreadable = |error| KeyFileError::Unreadable { path: path.to_owned(), error };
        let file = File::open(path).map_err(unreadable)?;
        // Of what is open, not of what has this name by now.
        let mode = file.metadata().map_err(unreadable)?.mode() & 0o7777;
        if mode & 0o077 != 0 {
            return Err(KeyFileError::Exposed { path: path.to_owned(), mode });
        }
        let not_a_key = |error| KeyFileError::NotAKey { path: path.to_owned(), error };
        Self::take(file).map_err(unreadable)?.map_err(not_a_key)
    }

    /// Reads a key as text from where it comes, such as standard input.
    ///
    /// # Errors
    /// When it cannot be read; inside, when it is no key.
    pub fn take(from: impl io::Read) -> io::Result<Result<Self, NotAKey>> {
        // All at once: a buffer that grows would leave copies behind.
        let mut text = Zeroizing::new([0; LONGEST_FILE as usize]);
        let mut length = 0;
        let mut from = from.take(LONGEST_FILE);
        loop {
            match from.read(&mut text[length..]) {
                Ok(0) => break,
                Ok(read) => length += read,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(decode(text[..length].trim_ascii()).map(|key| Self(Box::new(key))))
    }
}

impl PublicKey {
    /// Of its bytes.
    ///
    /// # Errors
    /// When they are all 0, or a point of small order.
    pub fn from_bytes(bytes: [u8; LENGTH]) -> Result<Self, NotAKey> {
        if bytes == [0; LENGTH] {
            return Err(NotAKey::Zero);
        }
        // With any private key at all such a point gives 0 (RFC 7748, 6.1).
        if agree(&[1; LENGTH], &bytes).is_none() {
            return Err(NotAKey::SmallOrder);
        }
        Ok(Self(bytes))
    }

    /// Its bytes.
    #[must_use]
    pub const fn bytes(&self) -> &[u8; LENGTH] {
        &self.0
    }
}

fn decode(text: &[u8]) -> Result<Zeroizing<[u8; LENGTH]>, NotAKey> {
    let characters = String::from_utf8_lossy(text).chars().count();
    if characters != CHARACTERS {
        return Err(NotAKey::Length(characters));
    }
    // 44 characters may stand for 33 bytes.
    let mut buffer = Zeroizing::new([0; LENGTH + 1]);
    let mut key = Zeroizing::new([0; LENGTH]);
    match STANDARD.decode_slice(text, &mut *buffer) {
        Ok(LENGTH) => key.copy_from_slice(&buffer[..LENGTH]),
        Ok(_) | Err(_) => return Err(NotAKey::Base64),
    }
    if *key == [0; LENGTH] { Err(NotAKey::Zero) } else { Ok(key) }
}

impl FromStr for PrivateKey {
    type Err = NotAKey;

    fn from_str(text: &str) -> Result<Self, NotAKey> {
        decode(text.as_bytes()).map(|key| Self(Box::new(key)))
    }
}

impl FromStr for PublicKey {
    type Err = NotAKey;

    fn from_str(text: &str) -> Result<Self, NotAKey> {
        decode(text.as_bytes()).and_then(|key| Self::from_bytes(*key))
    }
}

/// Not what is in it.
impl fmt::Debug for PrivateKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("PrivateKey")
    }
}

/// 44 characters of base64.
impl fmt::Display for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut text = [0; CHARACTERS];
        let length = STANDARD.encode_slice(self.0, &mut text).map_err(|_| fmt::Error)?;
        f.write_str(str::from_utf8(&text[..length]).map_err(|_| fmt::Error)?)
    }
}

impl fmt::Debug for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// The public key of a private one.
pub(super) fn public(private: &[u8; LENGTH]) -> [u8; LENGTH] {
    MontgomeryPoint::mul_base_clamped(*private).to_bytes()
}

/// What two ends have in common (RFC 7748, 6.1). None if it is 0: the other end
/// gave a point of small order, and all the world would know it.
pub(super) fn agree(
    private: &[u8; LENGTH],
    public: &[u8; LENGTH],
) -> Option<Zeroizing<[u8; LENGTH]>> {
    let shared = Zeroizing::new(MontgomeryPoint(*public).mul_clamped(*private).to_bytes());
    // Whether it is 0 is no secret.
    (*shared != [0; LENGTH]).then_some(shared)
}

#[cfg(test)]
#[path = "keys_tests.rs"]
mod tests;
