//! NAT as arithmetic: keys of the two directions, port candidates, flow hashes.

use crate::{
    checksum::{delta2, delta4},
    maps::{Flow, FlowKey4, FlowKey6},
    parse::{Ipv4Header, Ipv6Header},
};

/// IP protocol numbers that the data plane translates.
pub mod protocol {
    /// ICMP.
    pub const ICMP: u8 = 1;
    /// TCP.
    pub const TCP: u8 = 6;
    /// UDP.
    pub const UDP: u8 = 17;
    /// ICMPv6.
    pub const ICMPV6: u8 = 58;
    /// GRE: no ports, only its address is translated.
    pub const GRE: u8 = 47;
    /// ESP: the same.
    pub const ESP: u8 = 50;
    /// SCTP: its ports stay, only its address is translated.
    pub const SCTP: u8 = 132;

    /// Whether NAT gives flows of it another port or identifier.
    #[inline(always)]
    #[must_use]
    pub const fn has_nat_ports(protocol: u8) -> bool {
        matches!(protocol, TCP | UDP | ICMP)
    }
}

/// The key of an IPv4 datagram's fragments (RFC 791, 3.2: identification,
/// addresses and protocol), see [`crate::maps::Fragment`].
#[inline(always)]
#[must_use]
pub fn fragment_key4(header: &Ipv4Header, scope: u8) -> FlowKey6 {
    let word = u32::from_ne_bytes;
    let last = u32::from_le(header.protocol as u32 | (scope as u32) << 8);
    let [a, b] = header.identification;
    bytemuck::cast([
        word(header.source),
        0,
        0,
        0,
        word(header.destination),
        0,
        0,
        0,
        word([a, b, 0, 0]),
        last,
    ])
}

/// The key of an IPv6 datagram's fragments (RFC 8200, 4.5: identification and
/// addresses), see [`crate::maps::Fragment`].
#[inline(always)]
#[must_use]
pub fn fragment_key6(header: &Ipv6Header, identification: [u8; 4], scope: u8) -> FlowKey6 {
    key6(header.source, header.destination, identification, 44, scope)
}

/// The key of an IPv4 flow. Put together from whole words: a word that the hash
/// reads right after it was written in pieces stalls the CPU.
#[inline(always)]
#[must_use]
pub fn key4(
    source: [u8; 4],
    destination: [u8; 4],
    ports: [u8; 4],
    protocol: u8,
    scope: u8,
) -> FlowKey4 {
    let last = u32::from_le(protocol as u32 | (scope as u32) << 8);
    let (source, destination) = (u32::from_ne_bytes(source), u32::from_ne_bytes(destination));
    bytemuck::cast([source, destination, u32::from_ne_bytes(ports), last])
}

/// [`key4`] for IPv6.
#[inline(always)]
#[must_use]
pub fn key6(
    source: [u8; 16],
    destination: [u8; 16],
    ports: [u8; 4],
    protocol: u8,
    scope: u8,
) -> FlowKey6 {
    let [a, b, c, d]: [u32; 4] = bytemuck::cast(source);
    let [e, f, g, h]: [u32; 4] = bytemuck::cast(destination);
    let last = u32::from_le(protocol as u32 | (scope as u32) << 8);
    bytemuck::cast([a, b, c, d, e, f, g, h, u32::from_ne_bytes(ports), last])
}

/// How an answer to the outbound flow `key` looks on arrival from path `scope`,
/// when the flow leaves with `address` and `port`.
#[inline(always)]
#[must_use]
pub const fn inbound4(key: &FlowKey4, address: [u8; 4], port: [u8; 2], scope: u8) -> FlowKey4 {
    FlowKey4 {
        source: key.destination,
        destination: address,
        source_port: key.destination_port,
        destination_port: port,
        protocol: key.protocol,
        scope,
        reserved: [0; 2],
    }
}

/// The outbound flow whose answers look like `key`, of the inside endpoint
/// `address` and `port`: the inverse of [`inbound4`].
#[inline(always)]
#[must_use]
pub const fn outbound4(key: &FlowKey4, address: [u8; 4], port: [u8; 2]) -> FlowKey4 {
    FlowKey4 {
        source: address,
        destination: key.source,
        source_port: port,
        destination_port: key.source_port,
        protocol: key.protocol,
        scope: 0,
        reserved: [0; 2],
    }
}

/// [`inbound4`] for IPv6, where the port stays.
#[inline(always)]
#[must_use]
pub const fn inbound6(key: &FlowKey6, address: [u8; 16], scope: u8) -> FlowKey6 {
    FlowKey6 {
        source: key.destination,
        destination: address,
        source_port: key.destination_port,
        destination_port: key.source_port,
        protocol: key.protocol,
        scope,
        reserved: [0; 2],
    }
}

/// [`outbound4`] for IPv6, where the port stays.
#[inline(always)]
#[must_use]
pub const fn outbound6(key: &FlowKey6, address: [u8; 16]) -> FlowKey6 {
    FlowKey6 {
        source: address,
        destination: key.source,
        source_port: key.destination_port,
        destination_port: key.source_port,
        protocol: key.protocol,
        scope: 0,
        reserved: [0; 2],
    }
}

/// Makes a flow entry one that replaces `old` address and port by `new` ones.
#[inline(always)]
pub fn rewrite4(
    flow: &mut Flow,
    old: ([u8; 4], [u8; 2]),
    new: ([u8; 4], [u8; 2]),
    generation: u32,
    path: u8,
) {
    let a = new.0;
    flow.generation = generation;
    flow.path = path;
    flow.address = [a[0], a[1], a[2], a[3], 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    flow.port = new.1;
    flow.address_delta = delta4(old.0, new.0);
    flow.port_delta = delta2(old.1, new.1);
}

/// First four bytes of an address field.
#[inline(always)]
#[must_use]
pub const fn v4(address: &[u8; 16]) -> [u8; 4] {
    [address[0], address[1], address[2], address[3]]
}

/// Mixes a 32-bit word into a hash; a round of MurmurHash3 (A. Appleby).
#[inline(always)]
const fn mix(hash: u32, word: u32) -> u32 {
    let word = word.wrapping_mul(0xcc9e_2d51).rotate_left(15).wrapping_mul(0x1b87_3593);
    (hash ^ word).rotate_left(13).wrapping_mul(5).wrapping_add(0xe654_6b64)
}

/// The finishing step of MurmurHash3: every input bit reaches every output bit.
#[inline(always)]
const fn finish(hash: u32) -> u32 {
    let hash = (hash ^ (hash >> 16)).wrapping_mul(0x85eb_ca6b);
    let hash = (hash ^ (hash >> 13)).wrapping_mul(0xc2b2_ae35);
    hash ^ (hash >> 16)
}

#[inline(always)]
const fn ports(source: [u8; 2], destination: [u8; 2]) -> u32 {
    u32::from_ne_bytes([source[0], source[1], destination[0], destination[1]])
}

/// Hash of an IPv4 flow.
#[inline(always)]
#[must_use]
pub const fn hash4(key: &FlowKey4, seed: u32) -> u32 {
    let hash = mix(seed ^ key.protocol as u32, u32::from_ne_bytes(key.source));
    let hash = mix(hash, u32::from_ne_bytes(key.destination));
    finish(mix(hash, ports(key.source_port, key.destination_port)))
}

/// Hash of an IPv6 flow.
#[inline(always)]
#[must_use]
pub fn hash6(key: &FlowKey6, seed: u32) -> u32 {
    // Words, not bytes, so that the kernel side needs no stack for it.
    let source: [u32; 4] = bytemuck::cast(key.source);
    let destination: [u32; 4] = bytemuck::cast(key.destination);
    let hash = mix(mix(seed ^ key.protocol as u32, source[0]), source[1]);
    let hash = mix(mix(hash, source[2]), source[3]);
    let hash = mix(mix(hash, destination[0]), destination[1]);
    let hash = mix(mix(hash, destination[2]), destination[3]);
    finish(mix(hash, ports(key.source_port, key.destination_port)))
}

/// Attempts at a port before the range counts as exhausted. A range of half as
/// many ports is searched whole; of a larger one that is 99 % full a free port
/// is missed once in 160 tries, of one that is 95 % full never.
pub const PORT_ATTEMPTS: u32 = 1_024;

/// From one attempt to the next. Ports that are kept lie in dense blocks, where
/// hosts count theirs up: with neighbours tried one after the other, one in 90
/// mappings found nothing free at 40 % of the range. A prime that is larger than
/// any range, so that all of a range is come by.
const STRIDE: u32 = 2_654_435_761;

/// The port to try at `attempt`: first `preferred` if it lies in `min..=max`
/// (host byte order); then, from a place that `hash` gives, in strides of
/// [`STRIDE`], for half the attempts those of its parity (RFC 4787, REQ-4), then
/// any.
#[inline(always)]
#[must_use]
pub const fn port_candidate(preferred: u16, min: u16, max: u16, hash: u32, attempt: u32) -> u16 {
    if attempt == 0 && preferred >= min && preferred <= max {
        return preferred;
    }
    let span = max.wrapping_sub(min) as u32 + 1;
    let place = hash & 0xffff;
    if attempt >= PORT_ATTEMPTS / 2 {
        let stride = attempt.wrapping_mul(STRIDE % span);
        return min.wrapping_add((place.wrapping_add(stride) % span) as u16);
    }
    // Of an odd number of ports the last is left to the second half.
    let pairs = if span == 1 { 1 } else { span / 2 };
    let stride = attempt.wrapping_mul(STRIDE % pairs);
    let port = min.wrapping_add((place.wrapping_add(stride) % pairs * 2) as u16);
    if (port ^ preferred) & 1 != 0 && span > 1 { port.wrapping_add(1) } else { port }
}

/// Lifetime of a next hop in a flow, in units of 2^20 ns: about a second.
const NEXT_HOP_LIFE: u32 = 954;

/// [`Flow::next_hop_until`] for a next hop found at `now` (ns).
#[inline(always)]
#[must_use]
pub const fn next_hop_until(now: u64) -> u32 {
    (now >> 20) as u32 + NEXT_HOP_LIFE
}

/// Whether a next hop with this [`Flow::next_hop_until`] may be used at `now`
/// (ns); an entry that never had one may not. Wraps every 52 days.
#[inline(always)]
#[must_use]
pub const fn next_hop_is_fresh(until: u32, now: u64) -> bool {
    until.wrapping_sub((now >> 20) as u32).wrapping_sub(1) < NEXT_HOP_LIFE
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_small_range_is_searched_whole() {
        for hash in [0, 1, 0xffff, u32::MAX] {
            for max in [10_000, 10_001, 10_015, 10_511] {
                let tried: HashSet<u16> =
                    (0..PORT_ATTEMPTS).map(|i| port_candidate(5, 10_000, max, hash, i)).collect();
                assert_eq!(tried.len(), usize::from(max) - 9_999);
            }
        }
    }

    #[test]
    fn a_dense_block_of_kept_ports_hides_no_free_one() {
        // A host has counted up from 10,000, and all of the next 20,000 are taken.
        let taken = |port: u16| (10_000..30_000).contains(&port);
        for hash in (0..=u16::MAX).map(u32::from) {
            let tries = (1..PORT_ATTEMPTS)
                .find(|&i| !taken(port_candidate(10_000, 10_000, 65_535, hash, i)));
            assert!(tries.is_some_and(|tries| tries < 32), "{tries:?} tries from {hash}");
        }
    }

    #[test]
    fn the_first_half_of_the_attempts_keeps_the_parity() {
        for (preferred, hash) in [(5_000, 7), (5_001, 8), (20_001, u32::MAX), (20_000, 0)] {
            let parity = preferred & 1;
            let same = |i| port_candidate(preferred, 10_000, 65_535, hash, i) & 1 == parity;
            assert!((0..PORT_ATTEMPTS / 2).all(same));
        }
    }

    #[test]
    fn a_next_hop_lives_about_a_second() {
        let now = 7_000_000_000_000;
        let until = next_hop_until(now);
        assert!(next_hop_is_fresh(until, now));
        assert!(next_hop_is_fresh(until, now + 990_000_000));
        assert!(!next_hop_is_fresh(until, now + 1_010_000_000));
        assert!(!next_hop_is_fresh(0, now));
    }

    #[test]
    fn keys_made_of_words_have_their_fields_in_place() {
        let key = key4([192, 0, 2, 1], [203, 0, 113, 9], [1, 2, 3, 4], 17, 5);
        assert_eq!((key.source, key.destination), ([192, 0, 2, 1], [203, 0, 113, 9]));
        assert_eq!((key.source_port, key.destination_port), ([1, 2], [3, 4]));
        assert_eq!((key.protocol, key.scope, key.reserved), (17, 5, [0; 2]));
        let (a, b) = ([0xa5; 16], [0x5a; 16]);
        let key = key6(a, b, [1, 2, 3, 4], 6, 7);
        assert_eq!((key.source, key.destination), (a, b));
        assert_eq!((key.source_port, key.destination_port), ([1, 2], [3, 4]));
        assert_eq!((key.protocol, key.scope, key.reserved), (6, 7, [0; 2]));
    }

    proptest! {
        #[test]
        fn a_candidate_lies_in_the_range(
            own in any::<u16>(), a in 1u16.., b in 1u16.., hash in any::<u32>(),
            attempt in 0..PORT_ATTEMPTS,
        ) {
            let (min, max) = (a.min(b), a.max(b));
            let port = port_candidate(own, min, max, hash, attempt);
            prop_assert!((min..=max).contains(&port));
        }

        #[test]
        fn the_flow_of_an_answer_is_the_flow(
            source in any::<[u8; 4]>(), destination in any::<[u8; 4]>(),
            source_port in any::<[u8; 2]>(), destination_port in any::<[u8; 2]>(),
            address in any::<[u8; 4]>(), port in any::<[u8; 2]>(), scope in 1u8..33,
        ) {
            let key = FlowKey4 {
                source, destination, source_port, destination_port,
                protocol: 17, scope: 0, reserved: [0; 2],
            };
            let twin = inbound4(&key, address, port, scope);
            prop_assert_eq!(outbound4(&twin, source, source_port), key);
        }

        #[test]
        fn hashes_spread_over_slots(seed in any::<u32>()) {
            let mut used = [0u32; 8];
            for i in 0..4096u32 {
                let key = FlowKey4 {
                    source: [192, 0, 2, 10], destination: [203, 0, 113, 1],
                    source_port: (20_000 + i as u16).to_be_bytes(), destination_port: [0, 80],
                    protocol: 6, ..FlowKey4::default()
                };
                used[(hash4(&key, seed) & 7) as usize] += 1;
            }
            prop_assert!(used.iter().all(|&n| (400..=624).contains(&n)), "{:?}", used);
        }
    }
}
