use std::net::{Ipv4Addr, SocketAddrV6};

use super::*;
use crate::bond::PrivateKey;
use crate::bond::packet::{Message, Packet};

const MAC1_OF_PYTHON: [u8; 16] = [
    0x7a, 0x8e, 0xf9, 0x0b, 0x09, 0x17, 0xc2, 0xef, 0x61, 0x86, 0x50, 0xde, 0x85, 0x8b, 0xc0, 0x23,
];
const MAC2_OF_PYTHON: [u8; 16] = [
    0x48, 0x65, 0xe3, 0xe9, 0x26, 0xaa, 0xc4, 0x2e, 0xdf, 0xac, 0x83, 0x85, 0x44, 0x54, 0x25, 0x2f,
];
const COOKIE_OF_PYTHON: [u8; 16] = [
    0x07, 0xd6, 0x52, 0x37, 0xe8, 0xe8, 0x85, 0x8a, 0x6b, 0x57, 0x01, 0x76, 0x44, 0x89, 0xbe, 0x9c,
];

/// Bytes that say which time they were asked for.
struct Counted(u8);

impl Random for Counted {
    fn fill(&mut self, bytes: &mut [u8]) -> Result<(), NoRandomness> {
        self.0 += 1;
        bytes.fill(self.0);
        Ok(())
    }
}

const HEAD: Head = Head { path: 1, message: Message::Initiation, index: 7 };

fn labels() -> Labels {
    Labels::new(&PrivateKey::from_bytes(&[1; 32]).expect("a key").public())
}

fn initiation(cookie: Option<&Cookie>) -> Vec<u8> {
    let mut packet = HEAD.encode();
    packet.extend([9; crate::bond::packet::INITIATION_BODY]);
    labels().sign(&mut packet, cookie);
    packet
}

fn signed(packet: &[u8]) -> Signed<'_> {
    match Packet::decode(packet) {
        Ok(Packet::Initiation(signed)) => signed,
        other => panic!("{other:?}"),
    }
}

#[test]
fn macs_and_cookies_are_keyed_blake2s_as_by_everybody_else() {
    // By Python's hashlib: blake2s(b"text", digest_size=16, key=blake2s(b"MWB mac1" +
    // bytes([5]) * 32).digest()), and so on.
    let labels = Labels::new(&PublicKey::from_bytes([5; 32]).expect("a key"));
    assert_eq!(labels.mac1(b"text"), MAC1_OF_PYTHON);
    assert_eq!(Cookie([6; 16]).mac2(b"text"), Some(MAC2_OF_PYTHON));
    let at = SocketAddr::from(([192, 0, 2, 1], 0x1234));
    assert_eq!(secret([7; 32]).cookie(at), Cookie(COOKIE_OF_PYTHON));
}

fn secret(bytes: [u8; 32]) -> Secret {
    Secret { bytes: Zeroizing::new(bytes), since: Instant::now() }
}

#[test]
fn a_cookie_is_of_one_address_and_port_however_it_is_written() {
    let secret = secret([7; 32]);
    let at = SocketAddr::from(([192, 0, 2, 1], 1000));
    let mapped = Ipv4Addr::new(192, 0, 2, 1).to_ipv6_mapped();
    // What a socket for both families tells.
    assert_eq!(secret.cookie(at), secret.cookie(SocketAddrV6::new(mapped, 1000, 0, 3).into()));
    for other in [([192, 0, 2, 2], 1000), ([192, 0, 2, 1], 1001)] {
        assert_ne!(secret.cookie(at), secret.cookie(other.into()));
    }
}

#[test]
fn a_cookie_is_good_for_two_to_four_minutes() {
    let start = Instant::now();
    let after = |seconds| start + Duration::from_secs(seconds);
    let at = SocketAddr::from(([192, 0, 2, 1], 1000));
    let (mut jar, mut random) = (Jar::default(), Counted(0));
    let mut cookie =
        |jar: &mut Jar, seconds| jar.cookie(at, after(seconds), &mut random).expect("random bytes");
    let good = |jar: &Jar, cookie: &Cookie, seconds| {
        jar.is_mac2(&signed(&initiation(Some(cookie))), at, after(seconds))
    };
    assert!(!good(&jar, &Cookie([1; 16]), 0), "an empty jar");
    let first = cookie(&mut jar, 0);
    let last = cookie(&mut jar, 119);
    assert_eq!(first, last);
    assert!(good(&jar, &first, 0) && good(&jar, &first, 239) && !good(&jar, &first, 240));
    let second = cookie(&mut jar, 121);
    assert_ne!(first, second);
    // One from the last second is good for as long as it was promised.
    assert!(good(&jar, &first, 239) && !good(&jar, &first, 240));
    assert!(good(&jar, &second, 240) && good(&jar, &second, 360) && !good(&jar, &second, 361));
    let third = cookie(&mut jar, 5000);
    assert!(!good(&jar, &first, 5000) && !good(&jar, &second, 5000) && good(&jar, &third, 5000));
}

#[test]
fn mac_2_without_or_with_another_cookie_is_not_right() {
    let now = Instant::now();
    let at = SocketAddr::from(([192, 0, 2, 1], 1000));
    let (mut jar, mut random) = (Jar::default(), Counted(0));
    let cookie = jar.cookie(at, now, &mut random).expect("random bytes");
    assert!(jar.is_mac2(&signed(&initiation(Some(&cookie))), at, now));
    assert!(!jar.is_mac2(&signed(&initiation(None)), at, now));
    assert!(!jar.is_mac2(&signed(&initiation(Some(&Cookie([3; 16])))), at, now));
    let mut packet = initiation(Some(&cookie));
    for at_byte in 0..packet.len() {
        packet[at_byte] ^= 0x80;
        if let Ok(Packet::Initiation(signed)) = Packet::decode(&packet) {
            assert!(!jar.is_mac2(&signed, at, now), "byte {at_byte}");
        }
        packet[at_byte] ^= 0x80;
    }
}

#[test]
fn a_cookie_message_is_opened_by_whom_it_answers() {
    let (labels, cookie, mac1) = (labels(), Cookie([8; 16]), [4; MAC]);
    let head = Head { message: Message::Cookie, ..HEAD };
    let packet = labels.seal(head, &cookie, &mac1, &mut Counted(0)).expect("random bytes");
    let open = |packet: &[u8], labels: &Labels, mac1| match Packet::decode(packet) {
        Ok(Packet::Cookie(message)) => labels.open(&message, mac1),
        _ => None,
    };
    assert_eq!(open(&packet, &labels, &mac1), Some(cookie));
    assert_eq!(open(&packet, &labels, &[5; MAC]), None);
    let other = Labels::new(&PublicKey::from_bytes([5; 32]).expect("a key"));
    assert_eq!(open(&packet, &other, &mac1), None);
    for at in crate::bond::packet::HEAD..packet.len() {
        let mut wrong = packet.clone();
        wrong[at] ^= 1;
        assert_eq!(open(&wrong, &labels, &mac1), None, "byte {at}");
    }
}
