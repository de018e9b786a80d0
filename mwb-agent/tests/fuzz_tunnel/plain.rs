//! Headers and messages, which stand open once a packet is opened.

use mwb_agent::config::Balance;
use mwb_agent::tunnel::message::{Down, Join, Joined, Leave, Message, NoMessage, Verdict};
use mwb_common::wire::{FIELDS, Fields, Header, Kind, NoHeader};

use crate::random::Random;
use crate::spoil::spoilt;
use crate::{Tally, count};

const KINDS: [Kind; 7] = [
    Kind::Data,
    Kind::Probe,
    Kind::ProbeReply,
    Kind::Parity,
    Kind::Control,
    Kind::Ack,
    Kind::Handshake,
];

/// Any header that there can be.
fn any_header(random: &mut Random) -> Header {
    let kind = *random.pick(&KINDS);
    Header {
        kind,
        flags: random.byte() & 0x3f,
        path: random.byte().max(1),
        inner: *random.pick(&[0, 4, 6]),
        session: random.next() as u32,
        sequence: random.next().max(1),
        bucket: random.word(),
        taken: if kind.is_the_agents() { 0 } else { random.word() },
        flow_sequence: random.next() as u32,
    }
}

/// Whether bytes are a header, by the words of docs/protocol.md.
pub(crate) fn is_header(bytes: &[u8; FIELDS as usize]) -> Result<(), NoHeader> {
    if bytes[0] >> 4 != 1 {
        return Err(NoHeader::Version);
    }
    let right = bytes[0] & 15 <= 6
        && bytes[1] & 0xc0 == 0
        && bytes[2] != 0
        && [0, 4, 6].contains(&bytes[3])
        && bytes[8..16] != [0; 8]
        && (bytes[18..20] == [0; 2] || bytes[0] & 15 < 4);
    if right { Ok(()) } else { Err(NoHeader::Malformed) }
}

/// A header, whole and spoilt.
pub(crate) fn header(random: &mut Random, tally: &mut Tally) -> Result<(), String> {
    let header = any_header(random);
    let made = header.encode();
    if made.decode() != Ok(header) {
        return Err(format!("{header:?} is read as {:?}", made.decode()));
    }
    let spoilt = spoilt(random, bytemuck::bytes_of(&made));
    let Some(bytes) = spoilt.first_chunk::<{ FIELDS as usize }>() else {
        count(tally, "malformed");
        return Ok(());
    };
    let fields: Fields = bytemuck::cast(*bytes);
    let (read, should) = (fields.decode(), is_header(bytes));
    if read.map(drop) != should {
        return Err(format!("{bytes:02x?} is {read:?}, and should be {should:?}"));
    }
    if let Ok(read) = read
        && bytemuck::bytes_of(&read.encode()) != bytes
    {
        return Err(format!("{bytes:02x?} is {read:?}, which is made to other bytes"));
    }
    count(
        tally,
        match read {
            Ok(_) => "read",
            Err(NoHeader::Version) => "version",
            Err(NoHeader::Malformed) => "malformed",
        },
    );
    Ok(())
}

/// Any message that there can be.
pub(crate) fn any_message(random: &mut Random) -> Message {
    let (path, serial) = (random.byte().max(1), (random.next() as u32).max(1));
    match random.below(4) {
        0 => Message::Join(Join {
            path,
            serial,
            priority: random.byte(),
            balance: *random.pick(&Balance::ALL),
            weight: random.word().max(1),
            capacity: random.next(),
            elephant_bytes: random.next() as u32,
            metered: random.byte() & 1 != 0,
        }),
        1 => {
            let verdict = *random.pick(&[Verdict::Taken, Verdict::NoRoom]);
            Message::Joined(Joined { path, serial, verdict })
        }
        2 => {
            let paths = (0..random.below(9)).map(|_| random.byte()).collect();
            Message::Down(Down { serial, paths })
        }
        _ => Message::Leave(Leave { path, serial }),
    }
}

/// Whether bytes are a message, by the words of docs/protocol.md.
fn is_message(bytes: &[u8]) -> bool {
    let [number, about, ..] = *bytes else { return false };
    let length = match number {
        1 => 24,
        2 => 12,
        3 => 40,
        4 => 8,
        _ => return false,
    };
    bytes.len() == length
        && (about == 0) == (number == 3)
        && bytes[2] <= u8::from(number == 1)
        && bytes[3] == 0
        && bytes[4..8] != [0; 4]
        && match number {
            1 => (1..=7).contains(&bytes[9]) && bytes[10..12] != [0; 2],
            2 => bytes[8] <= 1 && bytes[9..12] == [0; 3],
            // There is no path 0.
            3 => bytes[8] & 1 == 0,
            _ => true,
        }
}

/// A message, whole and spoilt.
pub(crate) fn message(random: &mut Random, tally: &mut Tally) -> Result<(), String> {
    let message = any_message(random);
    let made = message.encode();
    if Message::decode(&made) != Ok(message) {
        return Err(format!("{message:?} is read as {:?}", Message::decode(&made)));
    }
    let bytes = spoilt(random, &made);
    let read = Message::decode(&bytes);
    if read.is_ok() != is_message(&bytes) {
        return Err(format!("{bytes:02x?} is {read:?}"));
    }
    if let Ok(read) = read
        && read.encode() != bytes
    {
        return Err(format!("{bytes:02x?} is {read:?}, which is made to other bytes"));
    }
    count(
        tally,
        match read {
            Ok(Message::Join(_)) => "join",
            Ok(Message::Joined(_)) => "joined",
            Ok(Message::Down(_)) => "down",
            Ok(Message::Leave(_)) => "leave",
            Err(NoMessage::Unknown(_)) => "unknown",
            Err(NoMessage::Length(_)) => "length",
            Err(NoMessage::Field) => "field",
        },
    );
    Ok(())
}
