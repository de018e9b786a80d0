//! What a server's operator hears of handshakes that are not answered.

use std::net::SocketAddr;
use std::time::Duration;

use mwb_common::wire::VERSION;

use super::core::Core;
use super::server::Server;
use crate::bond::{PublicKey, Refusal};

/// A client whose clock is behind by more should hear why it gets no answer.
const CLOCK: Duration = Duration::from_secs(5);

impl Server {
    /// Tells the operator of who gets no answer, if anything can be done about it.
    pub(super) fn explain(&self, core: &mut Core, refusal: Refusal, from: SocketAddr) {
        let Some(why) = why(refusal, |key| self.name(key)) else { return };
        if core.may_say(&format!("refused {} {}", refusal.name(), from.ip())) {
            tracing::warn!(%from, why, "a handshake is not answered");
        }
    }
}

/// Why, and what to do; none if nothing is to be done.
fn why<'s>(refusal: Refusal, name: impl Fn(&PublicKey) -> &'s str) -> Option<String> {
    Some(match refusal {
        Refusal::UnknownClient(key) => {
            format!("an initiation by an unknown key {key}: no client has it")
        }
        Refusal::WrongMac => {
            "an initiation for another key: its `server_public_key` is not ours".to_owned()
        }
        Refusal::BadNoise => "an initiation that is not made for our key".to_owned(),
        Refusal::BadPayload(key) => {
            format!("client {} says what this version does not know", name(&key))
        }
        Refusal::OtherVersion(version) => other_version(version),
        Refusal::Malformed(what) => format!("no initiation of this version: {what}"),
        Refusal::Replayed(key, behind) if behind >= CLOCK => format!(
            "an initiation of client {} is {} s older than its last: it was recorded by \
             somebody, or the client's clock was set back",
            name(&key),
            behind.as_secs()
        ),
        // Overtaken by a later one.
        Refusal::Replayed(..) | Refusal::NoInitiation => return None,
        Refusal::NoSuite(key) => {
            format!("client {} accepts no suite that it may have", name(&key))
        }
        Refusal::NoRandomness => "the system gives no random bytes".to_owned(),
    })
}

/// Who speaks which version of the protocol, and which end to upgrade.
pub(super) fn other_version(version: u8) -> String {
    let older = if version > VERSION { "this end" } else { "the sender" };
    format!("this end speaks version {VERSION}, the sender version {version}: upgrade {older}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whoever_speaks_another_version_is_named_with_what_to_do() {
        let told = |version| why(Refusal::OtherVersion(version), |_| "nobody");
        let new = "this end speaks version 1, the sender version 2: upgrade this end";
        assert_eq!(told(2).as_deref(), Some(new));
        let old = "this end speaks version 1, the sender version 0: upgrade the sender";
        assert_eq!(told(0).as_deref(), Some(old));
        assert_eq!(why(Refusal::NoInitiation, |_| "nobody"), None);
    }
}
