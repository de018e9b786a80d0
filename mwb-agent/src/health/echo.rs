//! ICMP echo messages, built whole with their IP header, and recognised in what
//! comes back. Pure. RFC 792, RFC 4443, RFC 1071.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Length of the token, which is first behind the ICMP header.
const TOKEN: usize = 8;
const ICMP_HEADER: usize = 8;
const IPV4_HEADER: usize = 20;
const IPV6_HEADER: usize = 40;
const HOP_LIMIT: u8 = 64;

const IPPROTO_ICMP: u8 = 1;
const IPPROTO_ICMPV6: u8 = 58;
/// Types of ICMP and ICMPv6.
mod kind {
    pub(super) const REPLY4: u8 = 0;
    pub(super) const REQUEST4: u8 = 8;
    pub(super) const REQUEST6: u8 = 128;
    pub(super) const REPLY6: u8 = 129;
}

/// What makes a probe ours.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stamp {
    /// ICMP identifier, below the NAT ports.
    pub identifier: u16,
    /// Number of the round.
    pub sequence: u16,
    /// Nobody else knows it: an answer that carries it is an answer to us.
    pub token: [u8; TOKEN],
    /// Bytes behind the ICMP header, of which the token are the first; not fewer than those.
    pub size: u16,
    /// IPv4: the request may not be divided.
    pub dont_fragment: bool,
}

/// An echo request over IPv4, from the IP header on.
#[must_use]
pub fn request4(source: Ipv4Addr, destination: Ipv4Addr, stamp: &Stamp) -> Vec<u8> {
    let icmp = message(kind::REQUEST4, stamp, 0);
    let length = (IPV4_HEADER + icmp.len()) as u16;
    let mut packet = Vec::with_capacity(usize::from(length));
    packet.extend([0x45, 0]);
    packet.extend(length.to_be_bytes());
    // One that may not be divided needs no identification (RFC 6864, 4.1).
    if stamp.dont_fragment {
        packet.extend([0, 0, 0x40, 0]);
    } else {
        packet.extend(stamp.sequence.to_be_bytes());
        packet.extend([0, 0]);
    }
    packet.extend([HOP_LIMIT, IPPROTO_ICMP, 0, 0]);
    packet.extend(source.octets());
    packet.extend(destination.octets());
    let sum = checksum(&packet, 0).to_be_bytes();
    packet[10..12].copy_from_slice(&sum);
    packet.extend(icmp);
    packet
}

/// An echo request over IPv6, from the IP header on.
#[must_use]
pub fn request6(source: Ipv6Addr, destination: Ipv6Addr, stamp: &Stamp) -> Vec<u8> {
    let length = (ICMP_HEADER + usize::from(stamp.size).max(TOKEN)) as u16;
    let mut pseudo = Vec::with_capacity(IPV6_HEADER);
    pseudo.extend(source.octets());
    pseudo.extend(destination.octets());
    pseudo.extend(u32::from(length).to_be_bytes());
    pseudo.extend([0, 0, 0, IPPROTO_ICMPV6]);
    let icmp = message(kind::REQUEST6, stamp, sum(&pseudo, 0));
    let mut packet = Vec::with_capacity(IPV6_HEADER + icmp.len());
    packet.extend([0x60, 0, 0, 0]);
    packet.extend(length.to_be_bytes());
    packet.extend([IPPROTO_ICMPV6, HOP_LIMIT]);
    packet.extend(source.octets());
    packet.extend(destination.octets());
    packet.extend(icmp);
    packet
}

/// Sender and sequence number of an echo reply with this identifier and token.
/// `packet` begins with the IP header.
#[must_use]
pub fn reply(packet: &[u8], identifier: u16, token: &[u8; TOKEN]) -> Option<(IpAddr, u16)> {
    let (from, icmp, expected) = match packet.first()? >> 4 {
        4 => {
            let header = usize::from(packet[0] & 0xf) * 4;
            if header < IPV4_HEADER || *packet.get(9)? != IPPROTO_ICMP {
                return None;
            }
            let from: [u8; 4] = packet.get(12..16)?.try_into().ok()?;
            (IpAddr::from(from), packet.get(header..)?, kind::REPLY4)
        }
        6 => {
            if *packet.get(6)? != IPPROTO_ICMPV6 {
                return None;
            }
            let from: [u8; 16] = packet.get(8..24)?.try_into().ok()?;
            (IpAddr::from(from), packet.get(IPV6_HEADER..)?, kind::REPLY6)
        }
        _ => return None,
    };
    let fits = *icmp.first()? == expected
        && icmp.get(4..6)? == identifier.to_be_bytes()
        && icmp.get(ICMP_HEADER..ICMP_HEADER + TOKEN)? == token;
    let sequence = [*icmp.get(6)?, *icmp.get(7)?];
    fits.then(|| (from, u16::from_be_bytes(sequence)))
}

fn message(kind: u8, stamp: &Stamp, pseudo: u32) -> Vec<u8> {
    let length = ICMP_HEADER + usize::from(stamp.size).max(TOKEN);
    let mut message = Vec::with_capacity(length);
    message.extend([kind, 0, 0, 0]);
    message.extend(stamp.identifier.to_be_bytes());
    message.extend(stamp.sequence.to_be_bytes());
    message.extend(stamp.token);
    message.resize(length, 0);
    let sum = checksum(&message, pseudo).to_be_bytes();
    message[2..4].copy_from_slice(&sum);
    message
}

fn checksum(bytes: &[u8], start: u32) -> u16 {
    let mut sum = sum(bytes, start);
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !(sum as u16)
}

/// Ones' complement sum, not folded; an odd byte has a zero behind it.
fn sum(bytes: &[u8], start: u32) -> u32 {
    let (words, odd) = bytes.as_chunks::<2>();
    let odd = odd.first().map_or(0, |byte| u32::from(*byte) << 8);
    words.iter().fold(start + odd, |sum, word| sum + u32::from(u16::from_be_bytes(*word)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use etherparse::{Icmpv4Type, Icmpv6Type, SlicedPacket, TransportSlice};

    const STAMP: Stamp = Stamp {
        identifier: 9901,
        sequence: 513,
        token: *b"01234567",
        size: 56,
        dont_fragment: false,
    };
    const US4: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 2);
    const THEM4: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 1);
    const US6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 1, 0, 0, 0, 0, 2);
    const THEM6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0xff, 0, 0, 0, 0, 1);

    /// The answer that a host gives: addresses swapped, another type.
    fn answered(request: &[u8]) -> Vec<u8> {
        let mut reply = request.to_vec();
        let (addresses, size, icmp, kind) = if request[0] >> 4 == 4 {
            (12, 4, 20, kind::REPLY4)
        } else {
            (8, 16, 40, kind::REPLY6)
        };
        let (source, destination) = reply[addresses..addresses + 2 * size].split_at_mut(size);
        source.swap_with_slice(destination);
        reply[icmp] = kind;
        reply
    }

    #[test]
    fn an_ipv4_request_is_an_echo_with_right_checksums() -> Result<(), Box<dyn std::error::Error>> {
        let packet = request4(US4, THEM4, &STAMP);
        let parsed = SlicedPacket::from_ip(&packet)?;
        let Some(etherparse::NetSlice::Ipv4(ip)) = parsed.net else { return Err("no IPv4".into()) };
        let header = ip.header().to_header();
        assert_eq!(header.header_checksum, header.calc_header_checksum());
        assert_eq!((header.source, header.destination), (US4.octets(), THEM4.octets()));
        let Some(TransportSlice::Icmpv4(icmp)) = parsed.transport else {
            return Err("no ICMP".into());
        };
        assert!(
            matches!(icmp.icmp_type(), Icmpv4Type::EchoRequest(echo) if echo.id == 9901 && echo.seq == 513)
        );
        assert_eq!(icmp.header().checksum, icmp.icmp_type().calc_checksum(icmp.payload()));
        Ok(())
    }

    #[test]
    fn an_ipv6_request_is_an_echo_with_a_right_checksum() -> Result<(), Box<dyn std::error::Error>>
    {
        let packet = request6(US6, THEM6, &STAMP);
        let parsed = SlicedPacket::from_ip(&packet)?;
        let Some(TransportSlice::Icmpv6(icmp)) = parsed.transport else {
            return Err("no ICMP".into());
        };
        assert!(
            matches!(icmp.icmp_type(), Icmpv6Type::EchoRequest(echo) if echo.id == 9901 && echo.seq == 513)
        );
        assert!(icmp.is_checksum_valid(US6.octets(), THEM6.octets()));
        Ok(())
    }

    #[test]
    fn the_answer_to_a_request_is_recognised() {
        let reply4 = answered(&request4(US4, THEM4, &STAMP));
        assert_eq!(reply(&reply4, 9901, b"01234567"), Some((IpAddr::V4(THEM4), 513)));
        let reply6 = answered(&request6(US6, THEM6, &STAMP));
        assert_eq!(reply(&reply6, 9901, b"01234567"), Some((IpAddr::V6(THEM6), 513)));
    }

    #[test]
    fn requests_have_their_size_and_say_whether_they_may_be_divided() {
        for size in [16, 17, 56, 1_452] {
            for dont_fragment in [false, true] {
                let stamp = Stamp { size, dont_fragment, ..STAMP };
                let packet = request4(US4, THEM4, &stamp);
                assert_eq!(packet.len(), IPV4_HEADER + ICMP_HEADER + usize::from(size));
                assert_eq!(packet[6] & 0x40 != 0, dont_fragment);
                let parsed = SlicedPacket::from_ip(&packet).expect("it is IPv4");
                let Some(TransportSlice::Icmpv4(icmp)) = parsed.transport else {
                    panic!("no ICMP in {packet:?}")
                };
                assert_eq!(icmp.header().checksum, icmp.icmp_type().calc_checksum(icmp.payload()));
                let packet = request6(US6, THEM6, &stamp);
                assert_eq!(packet.len(), IPV6_HEADER + ICMP_HEADER + usize::from(size));
                let parsed = SlicedPacket::from_ip(&packet).expect("it is IPv6");
                let Some(TransportSlice::Icmpv6(icmp)) = parsed.transport else {
                    panic!("no ICMP in {packet:?}")
                };
                assert!(icmp.is_checksum_valid(US6.octets(), THEM6.octets()));
            }
        }
    }

    #[test]
    fn an_answer_to_somebody_else_is_not_ours() {
        for request in [request4(US4, THEM4, &STAMP), request6(US6, THEM6, &STAMP)] {
            let answer = answered(&request);
            assert_eq!(reply(&answer, 9902, b"01234567"), None);
            assert_eq!(reply(&answer, 9901, b"01234568"), None);
            // The request itself, as a reflector would return it.
            assert_eq!(reply(&request, 9901, b"01234567"), None);
        }
    }

    #[test]
    fn a_truncated_answer_is_refused() {
        for request in [request4(US4, THEM4, &STAMP), request6(US6, THEM6, &STAMP)] {
            let answer = answered(&request);
            // What is behind the token does not matter, and is cut off when it is read.
            let needed = answer.len() - usize::from(STAMP.size) + TOKEN;
            assert!(reply(&answer[..needed], 9901, b"01234567").is_some());
            for length in 0..needed {
                assert_eq!(reply(&answer[..length], 9901, b"01234567"), None);
            }
        }
    }
}
