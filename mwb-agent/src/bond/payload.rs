//! What the two Noise messages say (docs/protocol.md, Payloads). Must not know:
//! who says it.

use mwb_common::integrity::Suite;

use super::{SessionId, Stamp, Suites};

/// Bytes of what an initiation says.
pub const INITIATION: usize = 28;
/// Bytes of what a response says.
pub const RESPONSE: usize = 12;

/// It is not what this version says.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the message says what this version does not")]
pub struct BadPayload;

/// What an initiator wants.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Initiation {
    /// When.
    pub stamp: Stamp,
    /// Session for packets to the initiator.
    pub ours: SessionId,
    /// If this goes on with a session: its number in packets to the responder, and
    /// the epoch of the new keys, from 1.
    pub goes_on: Option<(SessionId, u32)>,
    /// What the initiator accepts.
    pub suites: Suites,
}

impl Initiation {
    /// The epoch that the keys are for.
    #[must_use]
    pub fn epoch(&self) -> u32 {
        self.goes_on.map_or(0, |(_, epoch)| epoch)
    }

    /// As it is sent.
    #[must_use]
    pub fn encode(&self) -> [u8; INITIATION] {
        let mut bytes = [0; INITIATION];
        let theirs = self.goes_on.map_or(0, |(theirs, _)| theirs.get());
        bytes[..12].copy_from_slice(&self.stamp.bytes());
        bytes[12..16].copy_from_slice(&self.ours.get().to_be_bytes());
        bytes[16..20].copy_from_slice(&theirs.to_be_bytes());
        bytes[20..24].copy_from_slice(&self.epoch().to_be_bytes());
        bytes[24] = self.suites.bits();
        bytes
    }

    /// What it says.
    ///
    /// # Errors
    /// When reserved bytes are in use, the sender has no session, or goes on with
    /// one from epoch 0, or has an epoch and no session to go on with.
    pub fn decode(bytes: &[u8; INITIATION]) -> Result<Self, BadPayload> {
        let (stamp, rest) = bytes.split_first_chunk().ok_or(BadPayload)?;
        let [ours, theirs, epoch, last] = *rest.as_chunks::<4>().0 else { return Err(BadPayload) };
        let [suites, 0, 0, 0] = last else { return Err(BadPayload) };
        let goes_on = match (u32::from_be_bytes(theirs), u32::from_be_bytes(epoch)) {
            (0, 0) => None,
            (0, _) | (_, 0) => return Err(BadPayload),
            (theirs, epoch) => Some((SessionId::new(theirs).ok_or(BadPayload)?, epoch)),
        };
        Ok(Self {
            stamp: Stamp::from_bytes(*stamp),
            ours: SessionId::new(u32::from_be_bytes(ours)).ok_or(BadPayload)?,
            goes_on,
            suites: Suites::from_bits(suites),
        })
    }
}

/// What a responder has decided.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Response {
    /// Session for packets to the responder.
    pub ours: SessionId,
    /// As asked for; 0 if the session is a new one.
    pub epoch: u32,
    /// How packets are checked.
    pub suite: Suite,
}

impl Response {
    /// As it is sent.
    #[must_use]
    pub fn encode(&self) -> [u8; RESPONSE] {
        let mut bytes = [0; RESPONSE];
        bytes[..4].copy_from_slice(&self.ours.get().to_be_bytes());
        bytes[4..8].copy_from_slice(&self.epoch.to_be_bytes());
        bytes[8] = self.suite as u8;
        bytes
    }

    /// What it says.
    ///
    /// # Errors
    /// When reserved bytes are in use, the sender has no session, or there is no
    /// such suite.
    pub fn decode(bytes: &[u8; RESPONSE]) -> Result<Self, BadPayload> {
        let [ours, epoch, last] = *bytes.as_chunks::<4>().0 else { return Err(BadPayload) };
        let [suite, 0, 0, 0] = last else { return Err(BadPayload) };
        Ok(Self {
            ours: SessionId::new(u32::from_be_bytes(ours)).ok_or(BadPayload)?,
            epoch: u32::from_be_bytes(epoch),
            suite: Suite::from_number(suite).ok_or(BadPayload)?,
        })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn what_is_decoded_is_what_came(first: [u8; INITIATION], second: [u8; RESPONSE]) {
            // Most random bytes are refused for what is reserved.
            for clear in [0, 3] {
                let (mut first, mut second) = (first, second);
                first[INITIATION - clear..].fill(0);
                second[RESPONSE - clear..].fill(0);
                second[8] &= 3;
                if let Ok(payload) = Initiation::decode(&first) {
                    prop_assert_eq!(payload.encode(), first);
                }
                if let Ok(payload) = Response::decode(&second) {
                    prop_assert_eq!(payload.encode(), second);
                }
            }
        }
    }

    #[test]
    fn every_field_has_its_place() {
        let mut bytes: [u8; INITIATION] = std::array::from_fn(|at| at as u8 + 1);
        bytes[25..].fill(0);
        let payload = Initiation {
            stamp: Stamp::from_bytes([1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12]),
            ours: SessionId::new(0x0d0e_0f10).expect("not 0"),
            goes_on: SessionId::new(0x1112_1314).map(|id| (id, 0x1516_1718)),
            suites: Suites::from_bits(0x19),
        };
        assert_eq!(Initiation::decode(&bytes), Ok(payload));
        assert_eq!(payload.encode(), bytes);
        let bytes = [1, 2, 3, 4, 5, 6, 7, 8, 2, 0, 0, 0];
        let ours = SessionId::new(0x0102_0304).expect("not 0");
        let payload = Response { ours, epoch: 0x0506_0708, suite: Suite::SipHash };
        assert_eq!(Response::decode(&bytes), Ok(payload));
        assert_eq!(payload.encode(), bytes);
    }

    #[test]
    fn what_this_version_does_not_say_is_refused() {
        let right = |goes_on| Initiation {
            stamp: Stamp::from_bytes([9; 12]),
            ours: SessionId::MIN,
            goes_on,
            suites: Suites::from_bits(2),
        };
        let (new, on) = (right(None).encode(), right(Some((SessionId::MAX, 1))).encode());
        let with = |mut bytes: [u8; INITIATION], at: usize, value: u8| {
            bytes[at] = value;
            Initiation::decode(&bytes)
        };
        assert!(with(new, 24, 0xff).is_ok() && with(on, 23, 2).is_ok());
        for (bytes, at, value, what) in [
            (new, 15, 0, "no session"),
            (new, 23, 1, "an epoch of no session"),
            (on, 23, 0, "a session without an epoch"),
            (new, 25, 1, "reserved"),
            (new, 27, 1, "reserved"),
        ] {
            assert_eq!(with(bytes, at, value), Err(BadPayload), "{what}");
        }
        let right = Response { ours: SessionId::MIN, epoch: 0, suite: Suite::Crc32 }.encode();
        for (at, value) in [(3, 0), (8, 0), (8, 4), (9, 1), (11, 1)] {
            let mut bytes = right;
            bytes[at] = value;
            assert_eq!(Response::decode(&bytes), Err(BadPayload), "{value} at {at}");
        }
    }
}
