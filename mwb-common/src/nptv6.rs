//! IPv6-to-IPv6 network prefix translation (RFC 6296): stateless, one to one,
//! and checksum-neutral, so that nothing above the IPv6 header changes.
//!
//! Prefixes have equal length, 1 to 64 bits. Up to /48 the adjustment goes into
//! bits 48..64 (RFC 6296, 3.4), for longer ones into the first of the four words
//! of the interface identifier that is not 0xffff (3.5).

/// A prefix pair as a path holds it.
#[derive(Clone, Copy, Debug)]
pub struct Translation {
    /// Inside prefix, host bits zero.
    pub inside: [u8; 16],
    /// Outside prefix, host bits zero.
    pub outside: [u8; 16],
    /// Length of both in bits, 1..=64.
    pub length: u8,
    /// As [`adjustment`] gives it.
    pub adjustment: u16,
}

/// Ones' complement sum of two 16-bit words.
#[inline(always)]
const fn add(a: u16, b: u16) -> u16 {
    let sum = a as u32 + b as u32;
    ((sum & 0xffff) + (sum >> 16)) as u16
}

const fn sum(address: [u8; 16]) -> u16 {
    let mut sum = 0;
    let mut i = 0;
    while i < 16 {
        sum = add(sum, u16::from_be_bytes([address[i], address[i + 1]]));
        i += 2;
    }
    sum
}

/// The number that is added to a word of an outbound source so that the
/// checksum does not change (RFC 6296, 3.1): inside − outside, in ones'
/// complement, host byte order. Bits behind `length` are ignored.
#[must_use]
pub fn adjustment(inside: [u8; 16], outside: [u8; 16], length: u8) -> u16 {
    let cut = |prefix: [u8; 16]| {
        let (high, _) = halves(prefix);
        join(high & mask(length), 0)
    };
    add(sum(cut(inside)), !sum(cut(outside)))
}

#[inline(always)]
const fn mask(length: u8) -> u64 {
    // `length` is 1..=64; the mask keeps the shift defined for any value.
    u64::MAX << ((64 - length as u32) & 63)
}

#[inline(always)]
const fn halves(a: [u8; 16]) -> (u64, u64) {
    (
        u64::from_be_bytes([a[0], a[1], a[2], a[3], a[4], a[5], a[6], a[7]]),
        u64::from_be_bytes([a[8], a[9], a[10], a[11], a[12], a[13], a[14], a[15]]),
    )
}

#[inline(always)]
const fn join(high: u64, low: u64) -> [u8; 16] {
    let (h, l) = (high.to_be_bytes(), low.to_be_bytes());
    [h[0], h[1], h[2], h[3], h[4], h[5], h[6], h[7], l[0], l[1], l[2], l[3], l[4], l[5], l[6], l[7]]
}

/// Whether `address` is in the prefix.
#[inline(always)]
#[must_use]
pub const fn contains(prefix: [u8; 16], length: u8, address: [u8; 16]) -> bool {
    (halves(prefix).0 ^ halves(address).0) & mask(length) == 0
}

#[inline(always)]
fn translate(
    address: [u8; 16],
    from: [u8; 16],
    to: [u8; 16],
    length: u8,
    adjustment: u16,
) -> Option<[u8; 16]> {
    if !contains(from, length, address) {
        return None;
    }
    let (high, low) = halves(address);
    let high = halves(to).0 | (high & !mask(length));
    if length <= 48 {
        let word = adjust(high as u16, adjustment)?;
        return Some(join(high & !0xffff | word as u64, low));
    }
    // The first word of the interface identifier that can be adjusted.
    let mut shift = 48;
    loop {
        if let Some(word) = adjust((low >> shift) as u16, adjustment) {
            return Some(join(high, low & !(0xffff << shift) | (word as u64) << shift));
        }
        if shift == 0 {
            return None;
        }
        shift -= 16;
    }
}

/// 0xffff cannot be told from 0 after translation, so it is not translated (RFC
/// 6296, 3.2), and a result of 0xffff is written as 0.
#[inline(always)]
const fn adjust(word: u16, adjustment: u16) -> Option<u16> {
    if word == 0xffff {
        return None;
    }
    let sum = add(word, adjustment);
    Some(if sum == 0xffff { 0 } else { sum })
}

impl Translation {
    /// The outside address of an inside one; none if it is not in the inside
    /// prefix or its word to adjust is 0xffff.
    #[inline(always)]
    #[must_use]
    pub fn outward(&self, address: [u8; 16]) -> Option<[u8; 16]> {
        translate(address, self.inside, self.outside, self.length, self.adjustment)
    }

    /// The inside address of an outside one.
    #[inline(always)]
    #[must_use]
    pub fn inward(&self, address: [u8; 16]) -> Option<[u8; 16]> {
        translate(address, self.outside, self.inside, self.length, !self.adjustment)
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv6Addr;

    use proptest::prelude::*;

    use super::*;

    fn address(text: &str) -> [u8; 16] {
        text.parse::<Ipv6Addr>().expect("an address").octets()
    }

    fn translation(inside: &str, outside: &str, length: u8) -> Translation {
        let (inside, outside) = (address(inside), address(outside));
        Translation { inside, outside, length, adjustment: adjustment(inside, outside, length) }
    }

    #[test]
    fn the_example_of_rfc_6296_comes_out_right() {
        // RFC 6296, 3.6: FD01:0203:0405::/48 and 2001:DB8:1::/48.
        let t = translation("fd01:203:405::", "2001:db8:1::", 48);
        assert_eq!(
            t.outward(address("fd01:203:405:1::1234")),
            Some(address("2001:db8:1:d550::1234"))
        );
        assert_eq!(
            t.inward(address("2001:db8:1:d550::1234")),
            Some(address("fd01:203:405:1::1234"))
        );
    }

    #[test]
    fn a_foreign_address_and_an_untranslatable_subnet_are_refused() {
        let t = translation("fd01:203:405::", "2001:db8:1::", 48);
        assert_eq!(t.outward(address("fd01:203:406:1::1")), None);
        assert_eq!(t.outward(address("fd01:203:405:ffff::1")), None);
    }

    proptest! {
        #[test]
        fn translation_is_reversible_and_checksum_neutral(
            inside in any::<[u8; 16]>(),
            outside in any::<[u8; 16]>(),
            host in any::<[u8; 16]>(),
            length in 1u8..=64,
        ) {
            let cut = |a: [u8; 16]| join(halves(a).0 & mask(length), 0);
            let (inside, outside) = (cut(inside), cut(outside));
            let t = Translation {
                inside, outside, length, adjustment: adjustment(inside, outside, length),
            };
            let (high, low) = halves(host);
            let source = join(halves(inside).0 | (high & !mask(length)), low);
            if let Some(translated) = t.outward(source) {
                prop_assert!(contains(outside, length, translated));
                // 0 and 0xffff are the same sum.
                let normal = |s: u16| if s == 0xffff { 0 } else { s };
                prop_assert_eq!(normal(sum(translated)), normal(sum(source)));
                // A word that came out as 0xffff is written as 0; only its
                // inverse may differ, and only between 0 and 0xffff.
                if let Some(back) = t.inward(translated) {
                    prop_assert_eq!(normal(sum(back)), normal(sum(source)));
                    prop_assert!(contains(inside, length, back));
                    if length <= 48 { prop_assert_eq!(back, source); }
                }
            }
        }
    }
}
