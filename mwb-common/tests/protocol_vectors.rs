//! `docs/protocol-vectors.txt`: packets that another implementation can compare
//! its own with. Here they are compared with this one, and with ciphers and hashes
//! that others wrote.

use std::collections::{BTreeMap, BTreeSet};
use std::hash::Hasher as _;

use chacha20poly1305::ChaCha20Poly1305;
use chacha20poly1305::aead::{AeadInPlace as _, KeyInit as _};
use mwb_common::integrity::Suite;
use mwb_common::integrity::seal::{Key, Sender, open, seal};
use mwb_common::wire::{FIELDS, Fields, Kind};
use siphasher::sip::SipHasher24;

const FILE: &str = include_str!("../../docs/protocol-vectors.txt");
/// Bytes in front of a packet.
const AT: usize = 8;

struct Vector {
    suite: Suite,
    key: [u8; 32],
    sender: Sender,
    header: Vec<u8>,
    text: Vec<u8>,
    packet: Vec<u8>,
}

fn hex(digits: &str) -> Vec<u8> {
    let digits: Vec<u8> = digits.bytes().filter(|byte| !byte.is_ascii_whitespace()).collect();
    let byte = |pair: &[u8]| {
        let pair = std::str::from_utf8(pair).expect("hex digits");
        u8::from_str_radix(pair, 16).expect("hex digits")
    };
    digits.chunks(2).map(byte).collect()
}

fn vectors() -> Vec<Vector> {
    let lines = FILE.lines().filter(|line| !line.starts_with('#')).collect::<Vec<_>>().join("\n");
    let read = |block: &str| {
        let fields: BTreeMap<&str, &str> = block
            .lines()
            .filter_map(|line| line.split_once(": ").or(line.split_once(':')))
            .collect();
        let field = |name: &str| *fields.get(name).unwrap_or_else(|| panic!("{name} in {block}"));
        Vector {
            suite: match field("suite") {
                "chacha20poly1305" => Suite::ChaCha20Poly1305,
                "siphash" => Suite::SipHash,
                "crc32" => Suite::Crc32,
                other => panic!("suite {other}"),
            },
            key: hex(field("key")).try_into().expect("a key of 32 bytes"),
            sender: match field("sender") {
                "initiator" => Sender::Initiator,
                "responder" => Sender::Responder,
                other => panic!("sender {other}"),
            },
            header: hex(field("header")),
            text: hex(field("text")),
            packet: hex(field("packet")),
        }
    };
    lines.split("\n\n").filter(|block| !block.trim().is_empty()).map(read).collect()
}

/// As the document says it, with the crates.
fn theirs(vector: &Vector) -> Vec<u8> {
    let Vector { suite, key, sender, header, text, .. } = vector;
    let whole = |check: &[u8], text: &[u8]| [&header[..], check, text].concat();
    match suite {
        Suite::ChaCha20Poly1305 => {
            let space = u8::from(matches!(header[0] & 15, 4 | 5));
            let mut nonce = [0, *sender as u8, space, header[2], 0, 0, 0, 0, 0, 0, 0, 0];
            nonce[4..].copy_from_slice(&header[8..16]);
            let mut text = text.clone();
            let cipher = ChaCha20Poly1305::new(key.into());
            let tag = cipher.encrypt_in_place_detached(&nonce.into(), header, &mut text);
            whole(&tag.expect("a tag"), &text)
        }
        Suite::SipHash => {
            let mut hasher = SipHasher24::new_with_key(key[..16].try_into().expect("16 bytes"));
            hasher.write(header);
            hasher.write(text);
            whole(&hasher.finish().to_le_bytes(), text)
        }
        Suite::Crc32 => {
            let crc = crc32fast::hash(&whole(&[0; 8], text));
            whole(&u64::from(crc).to_be_bytes(), text)
        }
    }
}

#[test]
fn every_packet_is_made_and_opened_as_it_stands() {
    let vectors = vectors();
    assert!(vectors.len() >= 13, "{} vectors", vectors.len());
    let mut kinds = BTreeSet::new();
    for (number, vector) in vectors.iter().enumerate() {
        let Vector { suite, key, sender, header, text, packet } = vector;
        let check = vec![0; suite.check_length() as usize];
        let mut ours = [&[0; AT], &header[..], &check, text].concat();
        let fields: Fields = bytemuck::pod_read_unaligned(&header[..FIELDS as usize]);
        let kind = fields.decode().expect("a header").kind;
        if matches!(kind, Kind::Control | Kind::Ack) {
            assert_eq!(*suite, Suite::ChaCha20Poly1305, "vector {number}: a message");
        }
        kinds.insert(kind as u8);
        let key = Key::new(*key);
        assert_eq!(seal(&mut ours, AT as u32, *suite, &key, *sender), Ok(()));
        assert_eq!(ours[AT..], packet[..], "vector {number}: {}", to_hex(&ours[AT..]));
        assert_eq!(theirs(vector), *packet, "vector {number}");
        assert_eq!(open(&mut ours, AT as u32, *suite, &key, *sender), Ok(()));
        assert_eq!(ours[AT + header.len() + check.len()..], text[..], "vector {number}");
    }
    assert!([Kind::Control, Kind::Ack].iter().all(|kind| kinds.contains(&(*kind as u8))));
}

fn to_hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
