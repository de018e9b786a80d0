use proptest::prelude::*;

use super::{BUCKETS, Histogram, bounds, bucket};

fn of(values: &[u32]) -> Histogram {
    let mut histogram = Histogram::default();
    for &value in values {
        histogram.add(value);
    }
    histogram
}

/// The nearest-rank percentile, from the values themselves.
fn exact(values: &[u32], per_mille: u16) -> u32 {
    let mut sorted = values.to_vec();
    sorted.sort_unstable();
    let rank = (sorted.len() * usize::from(per_mille)).div_ceil(1000).max(1);
    sorted[rank - 1]
}

#[test]
fn buckets_cover_every_value_without_gap_or_overlap() {
    let mut next = 0_u64;
    for index in 0..BUCKETS {
        let (low, high) = bounds(index);
        assert_eq!(u64::from(low), next, "bucket {index}");
        assert_eq!((bucket(low), bucket(high)), (index, index));
        next = u64::from(high) + 1;
    }
    assert_eq!(next, u64::from(u32::MAX) + 1);
}

#[test]
fn an_empty_one_has_no_percentile_and_no_bytes() {
    assert_eq!(Histogram::default().percentile(500), None);
    assert!(Histogram::default().to_bytes().is_empty());
    assert_eq!(Histogram::from_bytes(&[]), Some(Histogram::default()));
}

#[test]
fn bytes_that_nobody_wrote_are_refused() {
    for bytes in [
        &[0x80][..],                                                            // cut off
        &[1],                                                                   // no count
        &[1, 0],                                                                // an empty bucket
        &[1, 1, 0, 1],                                                          // twice the same
        &[0xd0, 0x03, 1],                                                       // bucket 464
        &[1, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x7f],       // over 64 bits
        &[1, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01], // and more
    ] {
        assert_eq!(Histogram::from_bytes(bytes), None, "{bytes:x?}");
    }
}

/// Latencies of every magnitude.
fn latency() -> impl Strategy<Value = u32> {
    (0_u32..32, any::<u32>()).prop_map(|(shift, value)| value >> shift)
}

proptest! {
    #[test]
    fn a_merge_is_the_histogram_of_the_union(
        a in prop::collection::vec(latency(), 0..200),
        b in prop::collection::vec(latency(), 0..200),
    ) {
        let mut merged = of(&a);
        merged.merge(&of(&b));
        prop_assert_eq!(merged, of(&[a, b].concat()));
    }

    #[test]
    fn a_percentile_is_off_by_at_most_one_part_in_32(
        values in prop::collection::vec(latency(), 1..300),
        per_mille in 0_u16..=1000,
    ) {
        let is = exact(&values, per_mille);
        let told = of(&values).percentile(per_mille);
        let Some(told) = told else { return Err(TestCaseError::fail("no percentile")) };
        let off = u64::from(is.abs_diff(told));
        prop_assert!(off * 32 <= u64::from(is), "{is} told as {told}");
    }

    #[test]
    fn bytes_bring_back_what_was_written(values in prop::collection::vec(latency(), 0..300)) {
        let histogram = of(&values);
        prop_assert_eq!(Histogram::from_bytes(&histogram.to_bytes()), Some(histogram));
    }

    #[test]
    fn no_bytes_make_the_reader_panic(bytes in prop::collection::vec(any::<u8>(), 0..64)) {
        if let Some(histogram) = Histogram::from_bytes(&bytes) {
            prop_assert_eq!(histogram.to_bytes().len() <= bytes.len(), true);
            prop_assert!(histogram.count() > 0 || bytes.is_empty());
        }
    }
}
