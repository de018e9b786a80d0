//! The handshake of the tunnel (docs/protocol.md): how a gateway and a server
//! come to a session, its suite and its keys, and to new keys after that. Pure:
//! packets, times and random bytes come in as arguments; but for [`keys`], which can
//! read a file, and [`random`], which has the system's.
//!
//! [`Initiator`] is the gateway's end, [`Responder`] the server's. [`packet`] is
//! the layout of their messages, [`payload`] what is inside, [`noise`] the
//! exchange of keys, [`cookie`] what keeps a server under load from working for
//! those who do not even receive its answers, [`lifetime`] how long keys last.
//!
//! Must not know: sockets, clocks, configuration, what becomes of a session.

pub mod cookie;
pub mod initiator;
pub mod keys;
pub mod lifetime;
mod noise;
pub mod packet;
pub mod payload;
pub mod random;
pub mod responder;
pub mod stamp;
#[cfg(test)]
mod tests;

use std::num::NonZeroU32;

use blake2::Blake2sMac;
use blake2::digest::consts::U32;
use blake2::digest::{FixedOutput as _, KeyInit as _, Update as _};
use mwb_common::integrity::Suite;
use mwb_common::integrity::seal::Key;

pub use initiator::{Ignored, Initiator, Poll, Sending, Taken, Wish};
pub use keys::{PrivateKey, PublicKey};
pub use random::{NoRandomness, Os, Random};
pub use responder::{Answer, Client, Clients, Question, Refusal, Responder};
pub use stamp::Stamp;

const MESSAGES_LABEL: &[u8] = b"MWB messages";

/// Number of a session at one end, which chose it; 0 stands for none.
pub type SessionId = NonZeroU32;

/// A session that has keys in use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Running {
    /// In packets to us.
    pub ours: SessionId,
    /// In packets to the other end.
    pub theirs: SessionId,
    /// The newest epoch of which a packet was opened.
    pub epoch: u32,
    /// How its packets are checked.
    pub suite: Suite,
}

impl Running {
    /// The epoch of its next keys; none after 2^32 of them.
    #[must_use]
    pub fn next_epoch(&self) -> Option<u32> {
        self.epoch.checked_add(1)
    }
}

/// What a handshake has led to.
#[derive(Debug)]
pub struct Established {
    /// Session in packets to us.
    pub ours: SessionId,
    /// Session in packets to the other end.
    pub theirs: SessionId,
    /// The epoch that the keys are for; 0 if the session is a new one: whatever
    /// was known of an older one with the same number has ended.
    pub epoch: u32,
    /// How packets are checked.
    pub suite: Suite,
    /// Keys by who sends: `keys[Sender::Initiator as usize]` is for what the end
    /// that began the handshake sends. They seal data; [`Self::message_keys`] follow from
    /// them.
    pub keys: [Key; 2],
}

impl Established {
    /// Keys for messages and acknowledgements, by who sends. Others than for data: half of
    /// such a key is one of SipHash in one suite, and of no use in another.
    #[must_use]
    pub fn message_keys(&self) -> [Key; 2] {
        self.keys.map(|key| {
            let key: [u8; 32] = bytemuck::cast(key);
            let mac = Blake2sMac::<U32>::new(&key.into());
            Key::new(mac.chain(MESSAGES_LABEL).finalize_fixed().into())
        })
    }
}

/// A set of suites, in the bits of the handshake: bit *n* for suite *n*. Bits
/// that this version has no suite for mean nothing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Suites(u8);

impl Suites {
    /// Of its bits.
    #[must_use]
    pub const fn from_bits(bits: u8) -> Self {
        Self(bits)
    }

    /// As it is sent.
    #[must_use]
    pub const fn bits(self) -> u8 {
        self.0
    }

    /// Whether the suite is one of them.
    #[must_use]
    pub const fn contains(self, suite: Suite) -> bool {
        self.0 & 1 << suite as u8 != 0
    }
}

impl FromIterator<Suite> for Suites {
    fn from_iter<I: IntoIterator<Item = Suite>>(suites: I) -> Self {
        Self(suites.into_iter().fold(0, |bits, suite| bits | 1 << suite as u8))
    }
}
