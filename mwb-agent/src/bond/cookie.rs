//! MACs and cookies of the handshake (docs/protocol.md). MAC 1 shows that the
//! sender knows whom it talks to, MAC 2 that it receives what is sent to its
//! address. Must not know: what is in between.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use blake2::digest::consts::U16;
use blake2::digest::{Digest as _, FixedOutput as _, KeyInit as _, Update as _};
use blake2::{Blake2s256, Blake2sMac};
use chacha20poly1305::XChaCha20Poly1305;
use chacha20poly1305::aead::AeadInPlace as _;
use subtle::ConstantTimeEq as _;
use zeroize::Zeroizing;

use super::PublicKey;
use super::packet::{COOKIE, Head, MAC, NONCE, SEALED_COOKIE, SealedCookie, Signed};
use super::random::{NoRandomness, Random, bytes};

/// How long a secret makes cookies, and how long a cookie is good at least: an
/// initiator uses none that is older.
pub const LASTS: Duration = Duration::from_secs(120);

const MAC1_LABEL: &[u8] = b"MWB mac1";
const COOKIE_LABEL: &[u8] = b"MWB cookie";

/// What a server gives to an initiator at an address, and gets back as the key of
/// MAC 2.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Cookie([u8; COOKIE]);

/// What follows from a public key for packets to whom it belongs, and for cookies
/// from there. It is no secret.
#[derive(Clone, Debug)]
pub struct Labels {
    mac1: [u8; 32],
    cookie: [u8; 32],
}

impl Labels {
    /// Of a public key.
    #[must_use]
    pub fn new(key: &PublicKey) -> Self {
        let hash = |label: &[u8]| {
            Blake2s256::new().chain_update(label).chain_update(key.bytes()).finalize().into()
        };
        Self { mac1: hash(MAC1_LABEL), cookie: hash(COOKIE_LABEL) }
    }

    /// Makes MAC 1 of what is in front of it.
    #[must_use]
    pub fn mac1(&self, before: &[u8]) -> [u8; MAC] {
        keyed(&self.mac1, before)
    }

    /// Whether a packet to the key's owner has the right MAC 1.
    #[must_use]
    pub fn is_mac1(&self, packet: &Signed<'_>) -> bool {
        self.mac1(packet.before_mac1).ct_eq(packet.mac1).into()
    }

    /// Adds MAC 1, and MAC 2 if there is a cookie, to a packet without them.
    pub fn sign(&self, packet: &mut Vec<u8>, cookie: Option<&Cookie>) -> [u8; MAC] {
        let mac1 = self.mac1(packet);
        packet.extend_from_slice(&mac1);
        let mac2 = cookie.and_then(|cookie| cookie.mac2(packet)).unwrap_or_default();
        packet.extend_from_slice(&mac2);
        mac1
    }

    /// Makes the cookie message that answers an initiation with this MAC 1. `head`
    /// is that of the message; the key is that of who sends it.
    ///
    /// # Errors
    /// When there are no random bytes.
    pub fn seal(
        &self,
        head: Head,
        cookie: &Cookie,
        mac1: &[u8; MAC],
        random: &mut dyn Random,
    ) -> Result<Vec<u8>, NoRandomness> {
        let nonce: [u8; NONCE] = bytes(random)?;
        let mut text = cookie.0;
        let cipher = XChaCha20Poly1305::new(&self.cookie.into());
        let tag = cipher
            .encrypt_in_place_detached(&nonce.into(), mac1, &mut text)
            // Said of texts that are longer than this one by gigabytes.
            .map_err(|_| NoRandomness)?;
        let mut packet = head.encode();
        packet.extend_from_slice(&nonce);
        packet.extend_from_slice(&text);
        packet.extend_from_slice(&tag);
        Ok(packet)
    }

    /// Opens a cookie message of the key's owner. None if it answers no initiation
    /// with this MAC 1, or is of somebody else.
    #[must_use]
    pub fn open(&self, message: &SealedCookie<'_>, mac1: &[u8; MAC]) -> Option<Cookie> {
        const { assert!(SEALED_COOKIE == COOKIE + MAC) };
        let (text, tag) = message.sealed.split_first_chunk::<COOKIE>()?;
        let tag: &[u8; MAC] = tag.try_into().ok()?;
        let mut text = *text;
        let cipher = XChaCha20Poly1305::new(&self.cookie.into());
        let nonce = (*message.nonce).into();
        cipher.decrypt_in_place_detached(&nonce, mac1, &mut text, tag.into()).ok()?;
        Some(Cookie(text))
    }
}

impl Cookie {
    /// MAC 2 of what is in front of it. Always there: the hash takes keys of up to
    /// 32 bytes.
    #[must_use]
    pub fn mac2(&self, before: &[u8]) -> Option<[u8; MAC]> {
        let mac = Blake2sMac::<U16>::new_from_slice(&self.0).ok()?;
        Some(mac.chain(before).finalize_fixed().into())
    }

    fn is_mac2(&self, packet: &Signed<'_>) -> bool {
        self.mac2(packet.before_mac2).is_some_and(|mac| mac.ct_eq(packet.mac2).into())
    }
}

/// Not what is in it.
impl fmt::Debug for Cookie {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Cookie")
    }
}

/// Keyed BLAKE2s.
fn keyed(key: &[u8; 32], text: &[u8]) -> [u8; MAC] {
    Blake2sMac::<U16>::new(key.into()).chain(text).finalize_fixed().into()
}

/// The cookies of a server: none is kept, they follow from a secret that changes
/// every [`LASTS`]. The one before is good for as long after that.
#[derive(Default)]
pub struct Jar {
    newest: Option<Secret>,
    before: Option<Secret>,
}

struct Secret {
    bytes: Zeroizing<[u8; 32]>,
    since: Instant,
}

impl Secret {
    fn cookie(&self, of: SocketAddr) -> Cookie {
        let mut text = [0; 18];
        let address = match of.ip() {
            IpAddr::V4(address) => address.to_ipv6_mapped(),
            IpAddr::V6(address) => address,
        };
        text[..16].copy_from_slice(&address.octets());
        text[16..].copy_from_slice(&of.port().to_be_bytes());
        Cookie(keyed(&self.bytes, &text))
    }

    fn is_within(&self, now: Instant, time: Duration) -> bool {
        now.saturating_duration_since(self.since) < time
    }
}

impl Jar {
    /// The cookie for an address and port.
    ///
    /// # Errors
    /// When a new secret is due and there are no random bytes.
    pub fn cookie(
        &mut self,
        of: SocketAddr,
        now: Instant,
        random: &mut dyn Random,
    ) -> Result<Cookie, NoRandomness> {
        match &self.newest {
            Some(secret) if secret.is_within(now, LASTS) => Ok(secret.cookie(of)),
            _ => {
                let secret = Secret { bytes: Zeroizing::new(bytes(random)?), since: now };
                let cookie = secret.cookie(of);
                self.before = self.newest.replace(secret);
                Ok(cookie)
            }
        }
    }

    /// Whether MAC 2 of a packet is made with a cookie that is good at this address
    /// and port.
    #[must_use]
    pub fn is_mac2(&self, packet: &Signed<'_>, of: SocketAddr, now: Instant) -> bool {
        [&self.newest, &self.before]
            .into_iter()
            .flatten()
            .filter(|secret| secret.is_within(now, 2 * LASTS))
            .any(|secret| secret.cookie(of).is_mac2(packet))
    }
}

/// Not what is in it.
impl fmt::Debug for Jar {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Jar")
    }
}

#[cfg(test)]
#[path = "cookie_tests.rs"]
mod tests;
