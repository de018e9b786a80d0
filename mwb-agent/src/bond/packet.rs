//! The layout of packets of type 6 (docs/protocol.md, Handshake). Must not know:
//! keys, what a message says.

use mwb_common::messages::is_message;
use mwb_common::wire::{FIELDS, Fields, Header, Kind, NoHeader, VERSION, inner};

/// Bytes in front of the body: the header, message, reserved bytes, index.
pub const HEAD: usize = FIELDS as usize + 8;
/// Bytes of MAC 1, and of MAC 2.
pub const MAC: usize = 16;
/// Bytes of the Noise message of an initiation: ephemeral key, static key with its
/// tag, payload with its tag.
pub const INITIATION_BODY: usize = 32 + 48 + super::payload::INITIATION + 16;
/// Bytes of the Noise message of a response: ephemeral key, payload with its tag.
pub const RESPONSE_BODY: usize = 32 + super::payload::RESPONSE + 16;
/// Bytes of the nonce of a cookie message.
pub const NONCE: usize = 24;
/// Bytes of a cookie.
pub const COOKIE: usize = 16;
/// Bytes of a sealed cookie: the cookie and its tag.
pub const SEALED_COOKIE: usize = COOKIE + 16;
/// Bytes of a whole initiation.
pub const INITIATION: usize = HEAD + INITIATION_BODY + 2 * MAC;
/// Bytes of a whole response.
pub const RESPONSE: usize = HEAD + RESPONSE_BODY + 2 * MAC;
/// Bytes of a whole cookie message.
pub const COOKIE_MESSAGE: usize = HEAD + NONCE + SEALED_COOKIE;

// The kernel side lets no others through.
const _: () = {
    assert!(is_message(1, INITIATION as u32) && is_message(2, RESPONSE as u32));
    assert!(is_message(3, COOKIE_MESSAGE as u32));
};

// Nobody can have a server send more than they send themselves.
const _: () = assert!(RESPONSE <= INITIATION && COOKIE_MESSAGE <= INITIATION);

/// What a handshake packet is. The numbers are those on the wire.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Message {
    /// From the initiator.
    Initiation = 1,
    /// From the responder: there is a session.
    Response = 2,
    /// From a responder under load: come again, and show that you received this.
    Cookie = 3,
}

impl Message {
    const fn from_number(number: u8) -> Option<Self> {
        Some(match number {
            1 => Self::Initiation,
            2 => Self::Response,
            3 => Self::Cookie,
            _ => return None,
        })
    }

    /// Bytes of a whole packet.
    #[must_use]
    pub const fn length(self) -> usize {
        match self {
            Self::Initiation => INITIATION,
            Self::Response => RESPONSE,
            Self::Cookie => COOKIE_MESSAGE,
        }
    }
}

/// What a handshake packet begins with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Head {
    /// The initiator's number of the path, from 1.
    pub path: u8,
    /// What it is.
    pub message: Message,
    /// Of the initiation that it is or answers.
    pub index: u32,
}

impl Head {
    const fn header(self) -> Header {
        Header {
            kind: Kind::Handshake,
            flags: 0,
            path: self.path,
            inner: inner::NONE,
            session: 0,
            sequence: 1,
            bucket: 0,
            taken: 0,
            flow_sequence: 0,
        }
    }

    /// The first [`HEAD`] bytes of a packet, in a buffer that the whole fits into.
    #[must_use]
    pub fn encode(self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(self.message.length());
        bytes.extend_from_slice(bytemuck::bytes_of(&self.header().encode()));
        bytes.extend_from_slice(&[self.message as u8, 0, 0, 0]);
        bytes.extend_from_slice(&self.index.to_be_bytes());
        bytes
    }
}

/// Why bytes are no handshake packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Malformed {
    /// It is of another version of the protocol, which has this number.
    #[error("of version {0} of the protocol")]
    Version(u8),
    /// The header is none of this version.
    #[error("not a header of this version")]
    Header(NoHeader),
    /// It is of another type.
    #[error("not a handshake packet")]
    Kind,
    /// The header has a session, a bucket or the like.
    #[error("a field of the header is in use that a handshake has no use for")]
    Fields,
    /// It is no message that there is.
    #[error("there is no message {0}")]
    Message(u8),
    /// Bytes are in use that are none's.
    #[error("reserved bytes are in use")]
    Reserved,
    /// It is shorter or longer than its message is.
    #[error("{0} bytes are not the length of the message")]
    Length(usize),
    /// A response has a MAC 2.
    #[error("a response has no MAC 2")]
    Mac2,
}

/// A message with MACs, as it came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Signed<'a> {
    /// What it begins with.
    pub head: Head,
    /// The Noise message.
    pub body: &'a [u8],
    /// All in front of MAC 1.
    pub before_mac1: &'a [u8],
    /// MAC 1.
    pub mac1: &'a [u8; MAC],
    /// All in front of MAC 2.
    pub before_mac2: &'a [u8],
    /// MAC 2.
    pub mac2: &'a [u8; MAC],
}

/// A cookie message, as it came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SealedCookie<'a> {
    /// What it begins with.
    pub head: Head,
    /// The nonce.
    pub nonce: &'a [u8; NONCE],
    /// The cookie under the nonce, and its tag.
    pub sealed: &'a [u8; SEALED_COOKIE],
}

/// A packet, as it came: nothing of it is proved.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Packet<'a> {
    /// An initiation.
    Initiation(Signed<'a>),
    /// A response.
    Response(Signed<'a>),
    /// A cookie message.
    Cookie(SealedCookie<'a>),
}

impl<'a> Packet<'a> {
    /// Reads what is behind a UDP header.
    ///
    /// # Errors
    /// When it is no handshake packet of this version.
    pub fn decode(bytes: &'a [u8]) -> Result<Self, Malformed> {
        // Only its first byte is known to be what it is in this version.
        if let Some(first) = bytes.first()
            && first >> 4 != VERSION
            && first & 0xf == Kind::Handshake as u8
        {
            return Err(Malformed::Version(first >> 4));
        }
        let short = Malformed::Length(bytes.len());
        let (fields, rest) = bytes.split_first_chunk::<{ FIELDS as usize }>().ok_or(short)?;
        let fields: Fields = bytemuck::cast(*fields);
        let header = fields.decode().map_err(Malformed::Header)?;
        if header.kind != Kind::Handshake {
            return Err(Malformed::Kind);
        }
        let (&[number, first, second, third, a, b, c, d], _) =
            rest.split_first_chunk::<8>().ok_or(short)?;
        let message = Message::from_number(number).ok_or(Malformed::Message(number))?;
        let head = Head { path: header.path, message, index: u32::from_be_bytes([a, b, c, d]) };
        if header != head.header() {
            return Err(Malformed::Fields);
        }
        if [first, second, third] != [0; 3] {
            return Err(Malformed::Reserved);
        }
        if bytes.len() != message.length() {
            return Err(short);
        }
        Ok(match message {
            Message::Initiation => Self::Initiation(signed(head, bytes).ok_or(short)?),
            Message::Response => {
                let response = signed(head, bytes).ok_or(short)?;
                if *response.mac2 != [0; MAC] {
                    return Err(Malformed::Mac2);
                }
                Self::Response(response)
            }
            Message::Cookie => {
                let body = bytes.get(HEAD..).ok_or(short)?;
                let (nonce, sealed) = body.split_first_chunk().ok_or(short)?;
                let sealed = sealed.try_into().map_err(|_| short)?;
                Self::Cookie(SealedCookie { head, nonce, sealed })
            }
        })
    }
}

fn signed(head: Head, bytes: &[u8]) -> Option<Signed<'_>> {
    let (before_mac2, mac2) = bytes.split_last_chunk()?;
    let (before_mac1, mac1) = before_mac2.split_last_chunk()?;
    let body = before_mac1.get(HEAD..)?;
    Some(Signed { head, body, before_mac1, mac1, before_mac2, mac2 })
}

#[cfg(test)]
#[path = "packet_tests.rs"]
mod tests;
