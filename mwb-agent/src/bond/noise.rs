//! The exchange of keys: Noise_IK_25519_ChaChaPoly_BLAKE2s, by the crate `snow`.
//! What is ours here is the curve, so that private keys are wiped and points of
//! small order refused, and where random bytes come from. Must not know: what the
//! messages say, what they are sent in.
//!
//! `snow` wipes nothing: its chaining key, the keys of its messages and what the
//! curve gave it stay in memory that is free again. Of ours the static key and the
//! ephemeral ones are wiped.

use mwb_common::integrity::seal::Key;
use snow::params::{CipherChoice, DHChoice, HashChoice};
use snow::resolvers::{CryptoResolver, DefaultResolver};
use snow::types::{Cipher, Dh, Hash};
use snow::{Builder, Error, HandshakeState};
use zeroize::Zeroizing;

use super::packet::{INITIATION_BODY, RESPONSE_BODY};
use super::random::{NoRandomness, Random, bytes};
use super::{PrivateKey, PublicKey, keys, payload};

/// Name of the protocol.
pub(super) const PROTOCOL: &str = "Noise_IK_25519_ChaChaPoly_BLAKE2s";
/// What both ends hash first: of which protocol and version these messages are.
pub(super) const PROLOGUE: &[u8] = b"MWB 1";

/// Why there is no message, or it is not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NoiseError {
    /// There are no random bytes.
    #[error(transparent)]
    NoRandomness(#[from] NoRandomness),
    /// The message is not of whom it should be or not for us, or a key is a point
    /// of small order, with which nothing is secret.
    #[error("the other end has another key than it should")]
    Refused,
}

impl From<Error> for NoiseError {
    fn from(error: Error) -> Self {
        match error {
            Error::Rng => Self::NoRandomness(NoRandomness),
            _ => Self::Refused,
        }
    }
}

/// An initiation that has been sent.
pub(super) struct Begun(HandshakeState);

/// An initiation that is authentic.
pub(super) struct Heard {
    /// Whose it is.
    pub(super) client: PublicKey,
    /// What it says.
    pub(super) payload: [u8; payload::INITIATION],
    state: HandshakeState,
}

/// Makes an initiation with new ephemeral keys.
pub(super) fn begin(
    ours: &PrivateKey,
    server: &PublicKey,
    payload: &[u8; payload::INITIATION],
    random: &mut dyn Random,
) -> Result<(Begun, [u8; INITIATION_BODY]), NoiseError> {
    let mut state = builder(random)?
        .local_private_key(ours.bytes())?
        .remote_public_key(server.bytes())?
        .prologue(PROLOGUE)?
        .build_initiator()?;
    let mut message = [0; INITIATION_BODY];
    match state.write_message(payload, &mut message)? {
        INITIATION_BODY => Ok((Begun(state), message)),
        _ => Err(NoiseError::Refused),
    }
}

impl Begun {
    /// Takes the response. A wrong one leaves everything as it was.
    pub(super) fn finish(
        &mut self,
        message: &[u8],
    ) -> Result<([u8; payload::RESPONSE], [Key; 2]), NoiseError> {
        let mut payload = [0; payload::RESPONSE];
        match self.0.read_message(message, &mut payload)? {
            payload::RESPONSE => Ok((payload, split(&mut self.0))),
            _ => Err(NoiseError::Refused),
        }
    }
}

/// Takes an initiation.
pub(super) fn hear(
    ours: &PrivateKey,
    message: &[u8],
    random: &mut dyn Random,
) -> Result<Heard, NoiseError> {
    let mut state =
        builder(random)?.local_private_key(ours.bytes())?.prologue(PROLOGUE)?.build_responder()?;
    let mut payload = [0; payload::INITIATION];
    let length = state.read_message(message, &mut payload)?;
    let client = state.get_remote_static().and_then(|key| key.try_into().ok());
    match client.map(PublicKey::from_bytes) {
        Some(Ok(client)) if length == payload.len() => Ok(Heard { client, payload, state }),
        _ => Err(NoiseError::Refused),
    }
}

impl Heard {
    /// Makes the response, and the keys.
    pub(super) fn answer(
        mut self,
        payload: &[u8; payload::RESPONSE],
    ) -> Result<([u8; RESPONSE_BODY], [Key; 2]), NoiseError> {
        let mut message = [0; RESPONSE_BODY];
        match self.state.write_message(payload, &mut message)? {
            RESPONSE_BODY => Ok((message, split(&mut self.state))),
            _ => Err(NoiseError::Refused),
        }
    }
}

/// What Split() gives: the key of what the initiator sends, then the other.
fn split(state: &mut HandshakeState) -> [Key; 2] {
    let (first, second) = state.dangerously_get_raw_split();
    [first, second].map(Key::new)
}

fn builder<'a>(random: &mut dyn Random) -> Result<Builder<'a>, NoiseError> {
    let ephemeral = Zeroizing::new(bytes(random)?);
    Ok(Builder::with_resolver(PROTOCOL.parse()?, Box::new(Primitives { ephemeral })))
}

/// What the protocol is made of.
struct Primitives {
    /// The private key of this handshake.
    ephemeral: Zeroizing<[u8; keys::LENGTH]>,
}

impl CryptoResolver for Primitives {
    fn resolve_rng(&self) -> Option<Box<dyn snow::types::Random>> {
        Some(Box::new(Once(Some(self.ephemeral.clone()))))
    }

    fn resolve_dh(&self, choice: &DHChoice) -> Option<Box<dyn Dh>> {
        matches!(choice, DHChoice::Curve25519).then(|| Box::<X25519>::default() as Box<dyn Dh>)
    }

    fn resolve_hash(&self, choice: &HashChoice) -> Option<Box<dyn Hash>> {
        DefaultResolver.resolve_hash(choice)
    }

    fn resolve_cipher(&self, choice: &CipherChoice) -> Option<Box<dyn Cipher>> {
        DefaultResolver.resolve_cipher(choice)
    }
}

/// Random bytes for one key, which were drawn before.
struct Once(Option<Zeroizing<[u8; keys::LENGTH]>>);

impl snow::types::Random for Once {
    fn try_fill_bytes(&mut self, bytes: &mut [u8]) -> Result<(), Error> {
        let drawn = self.0.take().filter(|drawn| drawn.len() == bytes.len()).ok_or(Error::Rng)?;
        bytes.copy_from_slice(&*drawn);
        Ok(())
    }
}

/// The curve (RFC 7748).
#[derive(Default)]
struct X25519 {
    private: Zeroizing<[u8; keys::LENGTH]>,
    public: [u8; keys::LENGTH],
}

impl Dh for X25519 {
    fn name(&self) -> &'static str {
        "25519"
    }

    fn pub_len(&self) -> usize {
        keys::LENGTH
    }

    fn priv_len(&self) -> usize {
        keys::LENGTH
    }

    fn set(&mut self, private: &[u8]) {
        self.private.copy_from_slice(private);
        self.public = keys::public(&self.private);
    }

    fn generate(&mut self, random: &mut dyn snow::types::Random) -> Result<(), Error> {
        random.try_fill_bytes(&mut *self.private)?;
        self.public = keys::public(&self.private);
        Ok(())
    }

    fn pubkey(&self) -> &[u8] {
        &self.public
    }

    fn privkey(&self) -> &[u8] {
        &*self.private
    }

    fn dh(&self, public: &[u8], out: &mut [u8]) -> Result<(), Error> {
        // `public` and `out` have room for the keys of any curve.
        let public = public.first_chunk().ok_or(Error::Input)?;
        let out = out.first_chunk_mut().ok_or(Error::Input)?;
        let shared = keys::agree(&self.private, public).ok_or(Error::Dh)?;
        *out = *shared;
        Ok(())
    }
}

#[cfg(test)]
#[path = "noise_tests.rs"]
mod tests;
