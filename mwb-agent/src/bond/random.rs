//! Where random bytes come from: the system, or a test that knows them.

/// A source of bytes that nobody can guess.
pub trait Random {
    /// Fills `bytes`.
    ///
    /// # Errors
    /// When there are none; nothing that needs them is done then.
    fn fill(&mut self, bytes: &mut [u8]) -> Result<(), NoRandomness>;
}

/// There are no random bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the system gives no random bytes")]
pub struct NoRandomness;

/// The operating system (getrandom(2)).
#[derive(Clone, Copy, Debug, Default)]
pub struct Os;

impl Random for Os {
    fn fill(&mut self, bytes: &mut [u8]) -> Result<(), NoRandomness> {
        getrandom::fill(bytes).map_err(|_| NoRandomness)
    }
}

/// So many of them.
pub(super) fn bytes<const N: usize>(random: &mut dyn Random) -> Result<[u8; N], NoRandomness> {
    let mut bytes = [0; N];
    random.fill(&mut bytes)?;
    Ok(bytes)
}
