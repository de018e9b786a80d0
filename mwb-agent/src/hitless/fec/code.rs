//! The code: which sums of data shards the parity shards are, and which sums of what
//! arrived the lost ones are. A systematic Reed-Solomon code made from a Vandermonde matrix
//! (L. Rizzo, *Effective erasure codes for reliable computer communication protocols*,
//! 1997).
//!
//! Of a block of *k* packets parity shard *j* is, byte by byte over GF(2^8) with the
//! polynomial 0x11d, the value at point *k* + *j* of the polynomial of the least degree
//! whose values at points 0 to *k* - 1 are the data shards, where a point is the field
//! element of that number. Any *k* of the shards of data and parity give all others.
//!
//! It is the code of `reed_solomon_erasure::ReedSolomon`, row for row, and its arithmetic
//! is used. Its coder is not: that one wants all shards padded to one length, and keeps up
//! to 254 inverted matrices of 1 kB for each pair of counts where nobody can see them.
//! Here only as many equations are solved as shards are lost, and nothing is kept.

use std::sync::LazyLock;

use reed_solomon_erasure::galois_8;

/// Data shards of a block, at most.
pub(super) const MOST_DATA: usize = 32;
/// Parity shards of a block, at most.
pub(super) const MOST_PARITY: usize = 8;

/// Factors of one parity shard, by data shard.
pub(super) type Row = [u8; MOST_DATA];
/// Factors of the parity shards of a block, by parity shard.
pub(super) type Rows = [Row; MOST_PARITY];
/// Factors of what is left of the parity shards, by lost shard and parity shard.
pub(super) type Inverse = [[u8; MOST_PARITY]; MOST_PARITY];

/// By number of data shards, less 1. 8 kB for all sessions, made in 0.4 ms when the first
/// block closes.
static ROWS: LazyLock<Box<[Rows]>> = LazyLock::new(|| (1..=MOST_DATA).map(rows_of).collect());

/// The rows of a block of `data` packets, by Lagrange's formula.
fn rows_of(data: usize) -> Rows {
    let factor = |parity: usize, of: usize| {
        let at = (data + parity) as u8;
        (0..data).filter(|other| *other != of).fold(1, |product, other| {
            let part = galois_8::div(at ^ other as u8, of as u8 ^ other as u8);
            galois_8::mul(product, part)
        })
    };
    let row = |parity| std::array::from_fn(|of| if of < data { factor(parity, of) } else { 0 });
    std::array::from_fn(row)
}

/// The rows of a block of so many data shards; none if there are no such blocks.
pub(super) fn rows(data: usize) -> Option<&'static Rows> {
    ROWS.get(data.checked_sub(1)?)
}

/// Adds `input`, times `factor`, to `sum`. What is missing at the end of the shorter of
/// the two is as 0.
pub(super) fn add(factor: u8, input: &[u8], sum: &mut [u8]) {
    let length = input.len().min(sum.len());
    let (input, sum) = (&input[..length], &mut sum[..length]);
    if length == 0 {
        return;
    }
    if runs_here() {
        galois_8::mul_slice_xor(factor, input, sum);
    } else {
        add_by_table(factor, input, sum);
    }
}

/// For processors without what the C of the crate was compiled for.
fn add_by_table(factor: u8, input: &[u8], sum: &mut [u8]) {
    let products: [u8; 256] = std::array::from_fn(|byte| galois_8::mul(factor, byte as u8));
    for (sum, byte) in sum.iter_mut().zip(input) {
        *sum ^= products[usize::from(*byte)];
    }
}

// Otherwise the C has instructions that `runs_here` does not ask for.
#[cfg(target_arch = "x86_64")]
const _: () = {
    let arch: Option<&str> = option_env!("RUST_REED_SOLOMON_ERASURE_ARCH");
    let portable = match arch {
        Some(arch) => matches!(arch.as_bytes(), b"core2"),
        None => false,
    };
    assert!(portable, "build with RUST_REED_SOLOMON_ERASURE_ARCH=core2: see .cargo/config.toml");
};

/// Whether this processor has what the C of the crate was compiled for: SSSE3. With it a
/// block takes a fifth of the time that it takes by tables; what the C does where it was
/// compiled for less takes four times as long as tables.
#[cfg(target_arch = "x86_64")]
fn runs_here() -> bool {
    std::arch::is_x86_feature_detected!("ssse3")
}

/// The same where vectors are part of the architecture.
#[cfg(not(target_arch = "x86_64"))]
fn runs_here() -> bool {
    true
}

/// How the `lost` shards (their places) follow from the shards of as many `parity` rows
/// that all others have been taken out of. None if the counts are not the same or too
/// large; a place or row given twice has none either.
pub(super) fn invert(rows: &Rows, parity: &[usize], lost: &[usize]) -> Option<Inverse> {
    let count = lost.len();
    if count != parity.len() || count > MOST_PARITY {
        return None;
    }
    let mut matrix: Inverse = [[0; MOST_PARITY]; MOST_PARITY];
    let mut inverse: Inverse = [[0; MOST_PARITY]; MOST_PARITY];
    for (place, row) in parity.iter().enumerate() {
        for (column, lost) in lost.iter().enumerate() {
            matrix[place][column] = *rows.get(*row)?.get(*lost)?;
        }
        inverse[place][place] = 1;
    }
    // Gauss-Jordan. There is no rounding: any pivot will do that is not 0.
    for column in 0..count {
        let pivot = (column..count).find(|row| matrix[*row][column] != 0)?;
        matrix.swap(column, pivot);
        inverse.swap(column, pivot);
        let by = galois_8::div(1, matrix[column][column]);
        for half in [&mut matrix, &mut inverse] {
            half[column] = half[column].map(|factor| galois_8::mul(factor, by));
        }
        for row in (0..count).filter(|row| *row != column) {
            let by = matrix[row][column];
            for half in [&mut matrix, &mut inverse] {
                let from = half[column];
                add(by, &from, &mut half[row]);
            }
        }
    }
    Some(inverse)
}

#[cfg(test)]
#[path = "code_tests.rs"]
mod tests;
