//! Incremental Internet checksums (RFC 1624).
//!
//! A *delta* is what a change of header words adds to the ones' complement sum:
//! the sum of `!old + new` over the changed 16-bit words. Words are read in the
//! machine's byte order throughout: a ones' complement sum does not mind (RFC
//! 1071, 2B), and no byte swap is needed. Deltas add up as plain integers; one
//! holds the change of thousands of words before it overflows.

/// What a change of one 16-bit word adds to the sum.
#[inline(always)]
#[must_use]
pub const fn delta2(old: [u8; 2], new: [u8; 2]) -> u32 {
    !u16::from_ne_bytes(old) as u32 + u16::from_ne_bytes(new) as u32
}

/// What a change of two 16-bit words adds to the sum.
#[inline(always)]
#[must_use]
pub const fn delta4(old: [u8; 4], new: [u8; 4]) -> u32 {
    delta2([old[0], old[1]], [new[0], new[1]]) + delta2([old[2], old[3]], [new[2], new[3]])
}

/// Folds a sum to 16 bits.
#[inline(always)]
#[must_use]
pub const fn fold(sum: u32) -> u16 {
    let sum = (sum & 0xffff) + (sum >> 16);
    ((sum & 0xffff) + (sum >> 16)) as u16
}

/// A checksum field after `delta` (RFC 1624, equation 3).
#[inline(always)]
#[must_use]
pub const fn update(check: [u8; 2], delta: u32) -> [u8; 2] {
    (!fold(!u16::from_ne_bytes(check) as u32 + delta)).to_ne_bytes()
}

/// A UDP checksum field after `delta`: 0 means "none" and stays, and a result
/// of 0 is sent as all ones (RFC 768).
#[inline(always)]
#[must_use]
pub const fn update_udp(check: [u8; 2], delta: u32) -> [u8; 2] {
    if check[0] == 0 && check[1] == 0 {
        return check;
    }
    let new = update(check, delta);
    if new[0] == 0 && new[1] == 0 { [0xff, 0xff] } else { new }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn full(bytes: &[u8]) -> u16 {
        let mut sum = 0u64;
        for pair in bytes.chunks(2) {
            sum += u64::from(u16::from_ne_bytes([pair[0], *pair.get(1).unwrap_or(&0)]));
        }
        while sum >> 16 != 0 {
            sum = (sum & 0xffff) + (sum >> 16);
        }
        !(sum as u16)
    }

    #[test]
    fn the_example_of_rfc_1624_comes_out_right() {
        // RFC 1624, section 4: header checksum 0xDD2F, 0x5555 becomes 0x3285.
        let new = update([0xdd, 0x2f], delta2([0x55, 0x55], [0x32, 0x85]));
        assert_eq!(new, [0x00, 0x00]);
    }

    #[test]
    fn udp_without_checksum_stays_without_and_zero_is_sent_as_ones() {
        assert_eq!(update_udp([0, 0], 0x1234), [0, 0]);
        assert_eq!(update_udp([0xdd, 0x2f], delta2([0x55, 0x55], [0x32, 0x85])), [0xff, 0xff]);
    }

    proptest! {
        #[test]
        fn an_update_equals_a_new_sum(
            mut data in prop::collection::vec(any::<u8>(), 8..64),
            old_at in 0usize..3,
            new in any::<[u8; 4]>(),
        ) {
            let at = old_at * 2;
            if data.len() % 2 == 1 { data.push(0); }
            let before = full(&data).to_ne_bytes();
            let mut old = [0; 4];
            old.copy_from_slice(&data[at..at + 4]);
            data[at..at + 4].copy_from_slice(&new);
            let after = update(before, delta4(old, new));
            let whole = full(&data).to_ne_bytes();
            // 0x0000 and 0xffff are the same number in ones' complement.
            prop_assert!(after == whole || (after == [0, 0] && whole == [255, 255])
                || (after == [255, 255] && whole == [0, 0]));
        }
    }
}
