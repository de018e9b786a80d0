//! Signs requests, so that a webhook knows from whom they come.
//!
//! Must not know: requests, events.

use std::fmt;
use std::fmt::Write as _;
use std::fs::File;
use std::io::{self, Read as _};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use hmac::{Hmac, KeyInit as _, Mac as _};
use sha2::{Digest as _, Sha256};
use zeroize::Zeroizing;

/// Fewer bytes can be guessed.
const SHORTEST: usize = 16;
/// More are not a secret but a mistaken file.
const LONGEST: u64 = 4_096;

/// What signs.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct Secret(Zeroizing<Vec<u8>>);

/// Why there is no secret.
#[derive(Debug, thiserror::Error)]
pub enum SecretError {
    /// The file cannot be read.
    #[error("secret_file {path} cannot be read: {error}")]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// What the system says.
        error: io::Error,
    },
    /// Too many may use it.
    #[error(
        "secret_file {path} (mode {mode:o}) is open to others; let only its owner write and only owner and group read it: chmod 640 {path}"
    )]
    Open {
        /// The file.
        path: PathBuf,
        /// Its rights.
        mode: u32,
    },
    /// It holds no secret.
    #[error(
        "secret_file {path} must hold {SHORTEST} to {LONGEST} bytes; make one with `(umask 077; openssl rand -hex 32 > {path})`"
    )]
    Length {
        /// The file.
        path: PathBuf,
    },
}

impl Secret {
    /// Reads it from a file that only owner and group may read, and only the
    /// owner may write.
    pub(super) fn load(path: &Path) -> Result<Self, SecretError> {
        let unreadable = |error| SecretError::Unreadable { path: path.to_owned(), error };
        // Rights and content are those of one file, whatever happens to its name.
        let mut file = File::open(path).map_err(unreadable)?;
        let mode = file.metadata().map_err(unreadable)?.mode() & 0o7777;
        if mode & 0o037 != 0 {
            return Err(SecretError::Open { path: path.to_owned(), mode });
        }
        // Room for all of it: a vector that grows leaves copies behind.
        let mut bytes = Zeroizing::new(Vec::with_capacity(LONGEST as usize + 1));
        file.by_ref().take(LONGEST + 1).read_to_end(&mut bytes).map_err(unreadable)?;
        let secret = Zeroizing::new(bytes.trim_ascii().to_vec());
        if secret.len() < SHORTEST || bytes.len() as u64 > LONGEST {
            return Err(SecretError::Length { path: path.to_owned() });
        }
        Ok(Self(secret))
    }

    /// The value of `X-MWB-Signature`.
    pub(super) fn sign(&self, timestamp: u64, body: &[u8]) -> String {
        signature(&self.0, timestamp, body)
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret")
    }
}

/// What `X-MWB-Signature` must be: HMAC-SHA256 (RFC 2104) with `secret` over
/// `timestamp` (seconds since 1970, in decimal), one full stop, and the body.
#[must_use]
pub fn signature(secret: &[u8], timestamp: u64, body: &[u8]) -> String {
    let stamp = timestamp.to_string();
    format!("sha256={}", hex(&hmac_sha256(secret, &[stamp.as_bytes(), b".", body])))
}

fn hmac_sha256(key: &[u8], parts: &[&[u8]]) -> [u8; 32] {
    // A key of one block, so that there is no length that does not fit: what is
    // longer is hashed, what is shorter ends in zeros (RFC 2104, section 2).
    let mut block = Zeroizing::new([0; 64]);
    if key.len() > block.len() {
        block[..32].copy_from_slice(&Sha256::digest(key));
    } else {
        block[..key.len()].copy_from_slice(key);
    }
    let mut mac = Hmac::<Sha256>::new((&*block).into());
    for part in parts {
        mac.update(part);
    }
    mac.finalize().into_bytes().into()
}

/// In lower case.
pub(super) fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::with_capacity(2 * bytes.len()), |mut text, byte| {
        // A String takes everything.
        let _ = write!(text, "{byte:02x}");
        text
    })
}

#[cfg(test)]
#[path = "sign_tests.rs"]
mod tests;
