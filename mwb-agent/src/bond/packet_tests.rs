use proptest::prelude::*;

use super::*;

const HEAD_BYTES: [u8; HEAD] = [
    0x16, 0, 3, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 1, 2, 3,
    4,
];

fn packet(message: Message) -> Vec<u8> {
    let mut bytes = Head { path: 3, message, index: 0x0102_0304 }.encode();
    assert!(bytes.capacity() >= message.length());
    let body = message.length() - HEAD;
    bytes.extend((0..body).map(|at| at as u8 | 1));
    if message == Message::Response {
        bytes[RESPONSE - MAC..].fill(0);
    }
    bytes
}

#[test]
fn every_field_has_its_place() {
    assert_eq!((INITIATION, RESPONSE, COOKIE_MESSAGE), (188, 124, 88));
    let bytes = packet(Message::Initiation);
    assert_eq!(bytes[..HEAD], HEAD_BYTES);
    let Ok(Packet::Initiation(initiation)) = Packet::decode(&bytes) else {
        panic!("no initiation")
    };
    assert_eq!(initiation.head, Head { path: 3, message: Message::Initiation, index: 0x0102_0304 });
    assert_eq!(initiation.body, &bytes[32..156]);
    assert_eq!(initiation.before_mac1, &bytes[..156]);
    assert_eq!(initiation.mac1[..], bytes[156..172]);
    assert_eq!(initiation.before_mac2, &bytes[..172]);
    assert_eq!(initiation.mac2[..], bytes[172..]);
    let bytes = packet(Message::Response);
    let Ok(Packet::Response(response)) = Packet::decode(&bytes) else { panic!("no response") };
    assert_eq!((response.body, &response.mac1[..]), (&bytes[32..92], &bytes[92..108]));
    let bytes = packet(Message::Cookie);
    let Ok(Packet::Cookie(cookie)) = Packet::decode(&bytes) else { panic!("no cookie") };
    assert_eq!((&cookie.nonce[..], &cookie.sealed[..]), (&bytes[32..56], &bytes[56..]));
}

#[test]
fn a_packet_of_any_other_length_is_refused() {
    for message in [Message::Initiation, Message::Response, Message::Cookie] {
        let mut bytes = packet(message);
        for length in 0..bytes.len() {
            assert_eq!(Packet::decode(&bytes[..length]), Err(Malformed::Length(length)));
        }
        assert!(Packet::decode(&bytes).is_ok());
        bytes.push(0);
        assert_eq!(Packet::decode(&bytes), Err(Malformed::Length(bytes.len())));
    }
}

#[test]
fn what_a_handshake_has_no_use_for_is_refused() {
    let with = |message, at: usize, value: u8| {
        let mut bytes = packet(message);
        bytes[at] = value;
        Packet::decode(&bytes).err()
    };
    let wrong = |at, value| with(Message::Initiation, at, value);
    assert_eq!(wrong(0, 0x24), Some(Malformed::Header(NoHeader::Version)));
    assert_eq!(wrong(0, 0x26), Some(Malformed::Version(2)));
    assert_eq!(Packet::decode(&[0xf6]).err(), Some(Malformed::Version(15)), "of any length");
    assert_eq!(wrong(0, 0x14), Some(Malformed::Kind));
    for (at, value) in [(1, 1), (1, 0x10), (3, 4), (7, 1), (14, 1), (15, 2), (17, 1), (23, 1)] {
        assert_eq!(wrong(at, value), Some(Malformed::Fields), "{value} at {at}");
    }
    for (at, value) in [(1, 0x40), (2, 0), (3, 1), (15, 0), (18, 1)] {
        let malformed = Some(Malformed::Header(NoHeader::Malformed));
        assert_eq!(wrong(at, value), malformed, "{value} at {at}");
    }
    for number in [0, 4, 255] {
        assert_eq!(wrong(24, number), Some(Malformed::Message(number)));
    }
    assert_eq!(wrong(24, 2), Some(Malformed::Length(INITIATION)));
    for at in 25..28 {
        assert_eq!(wrong(at, 1), Some(Malformed::Reserved));
    }
    assert_eq!(with(Message::Response, RESPONSE - 1, 1), Some(Malformed::Mac2));
}

proptest! {
    #[test]
    fn any_bytes_are_read_or_refused(bytes in prop::collection::vec(any::<u8>(), 0..256)) {
        let _ = Packet::decode(&bytes);
    }

    #[test]
    fn any_body_is_what_came(path in 1u8.., index: u32, body: [u8; INITIATION - HEAD]) {
        let head = Head { path, message: Message::Initiation, index };
        let bytes = [&head.encode()[..], &body].concat();
        let Ok(Packet::Initiation(read)) = Packet::decode(&bytes) else {
            return Err(TestCaseError::fail("refused"));
        };
        prop_assert_eq!(read.head, head);
        prop_assert_eq!([read.body, &read.mac1[..], &read.mac2[..]].concat(), body);
    }
}
