//! SipHash-2-4 (Aumasson and Bernstein, 2012) of a packet: a keyed hash of 64 bits.

use crate::parse::Bytes;

/// What stands between the words of a message.
#[derive(Clone, Copy)]
struct State([u64; 4]);

impl State {
    #[inline(always)]
    const fn new(key: [u64; 2]) -> Self {
        Self([
            key[0] ^ 0x736f_6d65_7073_6575,
            key[1] ^ 0x646f_7261_6e64_6f6d,
            key[0] ^ 0x6c79_6765_6e65_7261,
            key[1] ^ 0x7465_6462_7974_6573,
        ])
    }

    #[inline(always)]
    const fn round(self) -> Self {
        let [a, b, c, d] = self.0;
        let a = a.wrapping_add(b);
        let c = c.wrapping_add(d);
        let b = b.rotate_left(13) ^ a;
        let d = d.rotate_left(16) ^ c;
        let a = a.rotate_left(32).wrapping_add(d);
        let c = c.wrapping_add(b);
        let d = d.rotate_left(21) ^ a;
        let b = b.rotate_left(17) ^ c;
        Self([a, b, c.rotate_left(32), d])
    }

    #[inline(always)]
    const fn take(self, word: u64) -> Self {
        let [a, b, c, d] = self.0;
        let Self([a, b, c, d]) = Self([a, b, c, d ^ word]).round().round();
        Self([a ^ word, b, c, d])
    }

    #[inline(always)]
    const fn finish(self) -> u64 {
        let [a, b, c, d] = self.0;
        let Self([a, b, c, d]) = Self([a, b, c ^ 0xff, d]).round().round().round().round();
        a ^ b ^ c ^ d
    }
}

/// The hash of three words and of the `length` bytes from `offset` behind them,
/// with at least 8 bytes in front of them. None if they are not there.
#[inline(always)]
pub fn siphash<B: Bytes + ?Sized>(
    key: [u64; 2],
    words: [u64; 3],
    bytes: &B,
    offset: u32,
    length: u32,
) -> Option<u64> {
    let read = |at: u32| bytes.read::<[u8; 8]>(at).map(u64::from_le_bytes);
    let mut state = State::new(key);
    for word in words {
        state = state.take(word);
    }
    let (mut at, mut left) = (offset, length);
    // Four at once: a look at where the packet ends costs as much as a round.
    while left >= 32 {
        let [a, b, c, d] = bytes.read::<[[u8; 8]; 4]>(at)?.map(u64::from_le_bytes);
        state = state.take(a).take(b).take(c).take(d);
        at += 32;
        left -= 32;
    }
    while left >= 8 {
        state = state.take(read(at)?);
        at += 8;
        left -= 8;
    }
    // The bytes that make no word are the highest of the last eight.
    let rest = length % 8;
    let last = if rest == 0 {
        0
    } else {
        read(offset.checked_add(length)?.checked_sub(8)?)? >> (64 - rest * 8)
    };
    let whole = length.wrapping_add(24) as u8;
    Some(state.take(last | (whole as u64) << 56).finish())
}

#[cfg(test)]
mod tests {
    use std::hash::Hasher as _;

    use siphasher::sip::SipHasher24;

    use super::*;

    /// Of the paper, appendix A: the hash of 0 to 14 with the key 0 to 15.
    #[test]
    fn the_example_of_the_paper_comes_out_right() {
        let key = [0x0706_0504_0302_0100, 0x0f0e_0d0c_0b0a_0908];
        let state = State::new(key).take(0x0706_0504_0302_0100);
        assert_eq!(state.take(0x0f0e_0d0c_0b0a_0908).finish(), 0xa129_ca61_49be_45e5);
    }

    #[test]
    fn it_is_the_hash_of_everybody_else_at_every_length() {
        let key: [u8; 16] = core::array::from_fn(|i| 7 * i as u8 + 1);
        let halves = [0, 8].map(|at| u64::from_le_bytes(core::array::from_fn(|i| key[at + i])));
        let packet: Vec<u8> =
            (0..9216u32).map(|i| (i.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
        let words: [u64; 3] = [1 << 63, 0x0123_4567_89ab_cdef, u64::MAX];
        for length in (0..=1600).chain([9000]) {
            let mut hasher = SipHasher24::new_with_key(&key);
            for word in words {
                hasher.write(&word.to_le_bytes());
            }
            hasher.write(&packet[16..16 + length]);
            let ours = siphash(halves, words, &packet[..16 + length], 16, length as u32);
            assert_eq!(ours, Some(hasher.finish()), "{length}");
        }
    }

    #[test]
    fn what_is_not_there_has_none() {
        let bytes = [0; 32];
        assert_eq!(siphash([0; 2], [0; 3], &bytes[..], 16, 17), None);
        assert_eq!(siphash([0; 2], [0; 3], &bytes[..], 4, 1), None);
        assert_eq!(siphash([0; 2], [0; 3], &bytes[..], 8, u32::MAX), None);
    }
}
