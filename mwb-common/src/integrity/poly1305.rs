//! Poly1305 (RFC 8439, 2.5) over whole blocks of 16 bytes.
//!
//! Limbs of 32 bits, the highest of 34: sixteen multiplications a block, and sums
//! that fit in 64 bits. Since the clamped `r` has 28 bits a limb, `r + r / 4` is
//! below 2^29; before a block `h` is below 2^33, 2^32, 2^32 and 2^34, and a
//! message adds 2^32 to each and 2^32 more to the highest: the largest sum is below
//! 15.6 x 2^60.

use bytemuck::{Pod, Zeroable};

const LOW: u64 = 0xffff_ffff;
/// Of the highest limb, below 2^130.
const TOP: u64 = 0x3_ffff_ffff;

/// A tag in the making.
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
#[repr(C)]
pub struct Poly1305 {
    /// The sum so far, the lowest limb first.
    h: [u64; 4],
    /// The clamped first half of the key.
    r: [u32; 4],
    /// Its second half.
    s: [u32; 4],
}

impl Poly1305 {
    /// Begins with a one-time key, as little-endian words.
    #[inline(always)]
    #[must_use]
    pub const fn new(key: [u32; 8]) -> Self {
        let [a, b, c, d, e, f, g, h] = key;
        let r = [a & 0x0fff_ffff, b & 0x0fff_fffc, c & 0x0fff_fffc, d & 0x0fff_fffc];
        Self { h: [0; 4], r, s: [e, f, g, h] }
    }

    /// Takes a block, as little-endian words.
    #[inline(always)]
    pub const fn take(&mut self, block: [u32; 4]) {
        let [r0, r1, r2, r3] =
            [self.r[0] as u64, self.r[1] as u64, self.r[2] as u64, self.r[3] as u64];
        // 2^128 is 5/4 of what is left of it modulo 2^130 - 5, and four divides r.
        let [s1, s2, s3] = [r1 + (r1 >> 2), r2 + (r2 >> 2), r3 + (r3 >> 2)];
        let h0 = self.h[0] + block[0] as u64;
        let h1 = self.h[1] + block[1] as u64;
        let h2 = self.h[2] + block[2] as u64;
        let h3 = self.h[3] + block[3] as u64 + (1 << 32);
        let d0 = h0 * r0 + h1 * s3 + h2 * s2 + h3 * s1;
        let d1 = h0 * r1 + h1 * r0 + h2 * s3 + h3 * s2 + (d0 >> 32);
        let d2 = h0 * r2 + h1 * r1 + h2 * r0 + h3 * s3 + (d1 >> 32);
        let d3 = h0 * r3 + h1 * r2 + h2 * r1 + h3 * r0 + (d2 >> 32);
        self.h = [(d0 & LOW) + 5 * (d3 >> 34), d1 & LOW, d2 & LOW, d3 & TOP];
    }

    /// The tag, as little-endian words.
    #[inline(always)]
    #[must_use]
    pub const fn finish(self) -> [u32; 4] {
        let [h0, h1, h2, h3] = carried(carried(self.h));
        // Beyond 2^130 - 5, five more reach 2^130.
        let [g0, g1, g2, g3] = {
            let g1 = h1 + ((h0 + 5) >> 32);
            let g2 = h2 + (g1 >> 32);
            [(h0 + 5) & LOW, g1 & LOW, g2 & LOW, h3 + (g2 >> 32)]
        };
        let mask = (g3 >> 34).wrapping_neg();
        let chosen = [
            h0 ^ (mask & (h0 ^ g0)),
            h1 ^ (mask & (h1 ^ g1)),
            h2 ^ (mask & (h2 ^ g2)),
            h3 ^ (mask & (h3 ^ g3)),
        ];
        let mut tag = [0; 4];
        let (mut i, mut carry) = (0, 0);
        while i < 4 {
            let sum = (chosen[i] & LOW) + self.s[i] as u64 + carry;
            tag[i] = sum as u32;
            carry = sum >> 32;
            i += 1;
        }
        tag
    }
}

/// Every limb below its bound, or the lowest a little above.
#[inline(always)]
const fn carried([h0, h1, h2, h3]: [u64; 4]) -> [u64; 4] {
    let h1 = h1 + (h0 >> 32);
    let h2 = h2 + (h1 >> 32);
    let h3 = h3 + (h2 >> 32);
    [(h0 & LOW) + 5 * (h3 >> 34), h1 & LOW, h2 & LOW, h3 & TOP]
}

#[cfg(test)]
mod tests {
    use poly1305::universal_hash::{KeyInit as _, UniversalHash as _};
    use proptest::prelude::*;

    use super::*;

    fn ours(key: [u8; 32], blocks: &[[u8; 16]]) -> [u8; 16] {
        let mut tag = Poly1305::new(bytemuck::pod_read_unaligned(&key));
        for block in blocks {
            tag.take(bytemuck::pod_read_unaligned(block));
        }
        bytemuck::pod_read_unaligned(bytemuck::bytes_of(&tag.finish()))
    }

    fn theirs(key: [u8; 32], blocks: &[[u8; 16]]) -> [u8; 16] {
        let mut tag = poly1305::Poly1305::new(&key.into());
        tag.update(&blocks.iter().map(|&block| block.into()).collect::<Vec<_>>());
        tag.finalize().into()
    }

    #[test]
    fn sums_at_every_border_come_out_right() {
        // With r = 1 and s = 0 the tag is the sum itself.
        let mut one = [0; 32];
        one[0] = 1;
        let full = [0xff; 16];
        let five_less = |last: u8| {
            let mut block = full;
            block[0] = last;
            block
        };
        for blocks in [
            vec![full],
            vec![full; 2],
            vec![full; 3],
            vec![full; 4],
            vec![full, full, full, five_less(0xfa)],
            vec![full, full, full, five_less(0xfb)],
            vec![full, full, full, five_less(0xfc)],
            vec![[0; 16]; 5],
        ] {
            assert_eq!(ours(one, &blocks), theirs(one, &blocks), "{blocks:?}");
        }
        assert_eq!(ours([0xff; 32], &[full; 90]), theirs([0xff; 32], &[full; 90]));
    }

    proptest! {
        #[test]
        fn any_blocks_have_the_tag_of_everybody_else(
            key: [u8; 32],
            blocks in prop::collection::vec(
                prop_oneof![any::<[u8; 16]>(), Just([0xff; 16]), Just([0; 16])], 0..100),
        ) {
            prop_assert_eq!(ours(key, &blocks), theirs(key, &blocks));
        }
    }
}
