//! ChaCha20 (RFC 8439, 2.3): a block of key stream.

/// A quarter round (2.1.1).
#[inline(always)]
const fn quarter([a, b, c, d]: [u32; 4]) -> [u32; 4] {
    let a = a.wrapping_add(b);
    let d = (d ^ a).rotate_left(16);
    let c = c.wrapping_add(d);
    let b = (b ^ c).rotate_left(12);
    let a = a.wrapping_add(b);
    let d = (d ^ a).rotate_left(8);
    let c = c.wrapping_add(d);
    let b = (b ^ c).rotate_left(7);
    [a, b, c, d]
}

/// Sixteen words of key stream: little-endian, as bytes.
#[inline(always)]
#[must_use]
pub fn block(key: &[u32; 8], counter: u32, nonce: &[u32; 3]) -> [u32; 16] {
    let start = [
        0x6170_7865,
        0x3320_646e,
        0x7962_2d32,
        0x6b20_6574,
        key[0],
        key[1],
        key[2],
        key[3],
        key[4],
        key[5],
        key[6],
        key[7],
        counter,
        nonce[0],
        nonce[1],
        nonce[2],
    ];
    let mut x = start;
    let mut turn = 0;
    while turn < 10 {
        // Columns, then diagonals.
        [x[0], x[4], x[8], x[12]] = quarter([x[0], x[4], x[8], x[12]]);
        [x[1], x[5], x[9], x[13]] = quarter([x[1], x[5], x[9], x[13]]);
        [x[2], x[6], x[10], x[14]] = quarter([x[2], x[6], x[10], x[14]]);
        [x[3], x[7], x[11], x[15]] = quarter([x[3], x[7], x[11], x[15]]);
        [x[0], x[5], x[10], x[15]] = quarter([x[0], x[5], x[10], x[15]]);
        [x[1], x[6], x[11], x[12]] = quarter([x[1], x[6], x[11], x[12]]);
        [x[2], x[7], x[8], x[13]] = quarter([x[2], x[7], x[8], x[13]]);
        [x[3], x[4], x[9], x[14]] = quarter([x[3], x[4], x[9], x[14]]);
        turn += 1;
    }
    let mut i = 0;
    while i < 16 {
        x[i] = x[i].wrapping_add(start[i]);
        i += 1;
    }
    x
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_example_of_rfc_8439_comes_out_right() {
        // 2.3.2
        let key = core::array::from_fn(|i| {
            let first = 4 * i as u8;
            u32::from_le_bytes([first, first + 1, first + 2, first + 3])
        });
        let stream = block(&key, 1, &[0x0900_0000, 0x4a00_0000, 0]);
        let expected = [
            0xe4e7_f110,
            0x1559_3bd1,
            0x1fdd_0f50,
            0xc471_20a3,
            0xc7f4_d1c7,
            0x0368_c033,
            0x9aaa_2204,
            0x4e6c_d4c3,
            0x4664_82d2,
            0x09aa_9f07,
            0x05d7_c214,
            0xa202_8bd9,
            0xd19c_12b5,
            0xb94e_16de,
            0xe883_d0cb,
            0x4e3c_50a2,
        ];
        assert_eq!(stream, expected);
    }
}
