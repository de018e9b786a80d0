use proptest::prelude::*;
use reed_solomon_erasure::galois_8::ReedSolomon;

use super::*;

fn shards(count: usize, length: usize, seed: u8) -> Vec<Vec<u8>> {
    let byte = |at: usize, of: usize| (at * 31 + of * 97 + at * of) as u8 ^ seed;
    (0..count).map(|of| (0..length).map(|at| byte(at, of)).collect()).collect()
}

#[test]
fn it_is_the_code_of_the_crate_for_every_block() {
    for data in 1..=MOST_DATA {
        let input = shards(data, 45, data as u8);
        let rows = rows(data).expect("there are such blocks");
        for parity in 1..=MOST_PARITY {
            let crates = ReedSolomon::new(data, parity).expect("counts are in range");
            let mut expected = vec![vec![0; 45]; parity];
            crates.encode_sep(&input, &mut expected).expect("lengths are equal");
            let mut sums = vec![vec![0; 45]; parity];
            for (row, sum) in rows.iter().zip(&mut sums) {
                for (factor, input) in row.iter().zip(&input) {
                    add(*factor, input, sum);
                }
            }
            assert_eq!(sums, expected, "{data} + {parity}");
        }
    }
}

#[test]
fn there_are_no_blocks_of_none_or_too_many() {
    assert!(rows(0).is_none());
    assert!(rows(MOST_DATA).is_some());
    assert!(rows(MOST_DATA + 1).is_none());
}

#[test]
fn the_shorter_of_two_is_as_if_filled_up() {
    let mut sum = [0; 4];
    add(1, &[1, 2], &mut sum);
    add(1, &[1, 1, 1, 1, 1, 1], &mut sum);
    add(7, &[], &mut sum);
    assert_eq!(sum, [0, 3, 1, 1]);
}

#[test]
fn what_cannot_be_inverted_is_none() {
    let rows = rows(5).expect("there are such blocks");
    assert!(invert(rows, &[0, 1], &[3]).is_none(), "counts differ");
    assert!(invert(rows, &[0, 0], &[1, 2]).is_none(), "a row twice");
    assert!(invert(rows, &[0, 1], &[2, 2]).is_none(), "a place twice");
    assert!(invert(rows, &[8], &[2]).is_none(), "no such row");
    assert!(invert(rows, &[0], &[40]).is_none(), "no such place");
    assert!(invert(rows, &[0; 9], &[1; 9]).is_none(), "too many");
}

proptest! {
    #[test]
    fn tables_and_vectors_give_the_same(
        factor: u8,
        input in prop::collection::vec(any::<u8>(), 0..100),
        seed: u8,
    ) {
        let mut sum = vec![seed; input.len()];
        let mut by_table = sum.clone();
        add(factor, &input, &mut sum);
        add_by_table(factor, &input, &mut by_table);
        prop_assert_eq!(sum, by_table);
    }

    /// Any rows and any lost shards have an inverse: the code is maximum distance separable.
    #[test]
    fn any_shards_follow_from_as_many_others(
        data in 1..=MOST_DATA,
        rows_and_lost in (1..=MOST_PARITY).prop_flat_map(|count| (
            prop::sample::subsequence((0..MOST_PARITY).collect::<Vec<_>>(), count),
            prop::sample::subsequence((0..MOST_DATA).collect::<Vec<_>>(), count),
        )),
    ) {
        let (mut used, mut lost) = rows_and_lost;
        lost.retain(|place| *place < data);
        used.truncate(lost.len());
        let rows = rows(data).expect("there are such blocks");
        let inverse = invert(rows, &used, &lost).expect("it is regular");
        for (at, row) in inverse.iter().take(lost.len()).enumerate() {
            for (to, lost) in lost.iter().enumerate() {
                let product = used.iter().zip(row).fold(0, |sum, (used, factor)| {
                    sum ^ galois_8::mul(rows[*used][*lost], *factor)
                });
                prop_assert_eq!(product, u8::from(at == to));
            }
        }
    }
}
